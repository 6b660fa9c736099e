import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { guard, guardRules } from "../../src/http/guard.ts"

const rules = (host = "127.0.0.1", origins?: string, hosts?: string) =>
  Result.getOrThrow(guardRules(host, origins, hosts))
const check = (
  host: string,
  origin = "",
  more: { site?: string; mode?: string; isOperators?: boolean } = {},
  by = rules()
) =>
  guard(by)({ host, origin, secFetchSite: more.site ?? "", secFetchMode: more.mode ?? "" }, more.isOperators)?.parameter

describe("the guard of Host and Origin", () => {
  it("lets in loopback names and HOST, with any port and in any case", () => {
    for (const host of ["localhost:8080", "LocalHost", "127.0.0.1:1", "[::1]:8080", "localhost.:80"]) {
      assert.strictEqual(check(host), undefined, host)
    }
    assert.strictEqual(check("192.168.1.5:8080", "", {}, rules("192.168.1.5")), undefined)
    assert.strictEqual(check("[fe80::1]:8080", "", {}, rules("fe80::1")), undefined)
  })

  it("refuses any other Host, also one that only looks like a name of its own", () => {
    for (const host of [
      "",
      "evil.com",
      "evil.com:8080",
      "127.0.0.1.evil.com",
      "localhost.evil.com",
      "evil.com/localhost",
      "localhost@evil.com",
      "localhost:8080:80",
      "0.0.0.0:8080",
      "127.0.0.2",
      "[::1",
      "local host"
    ]) {
      assert.strictEqual(check(host), "Host", host)
    }
    assert.strictEqual(check("0.0.0.0:8080", "", {}, rules("0.0.0.0")), "Host")
  })

  it("says which it refused, without an API key that stands in it", () => {
    const key = "mdp_99fc62d0_BLWYj9y0UGfwR5rX9oC5X-hTv1jJqsf8ICZSotkc_Qx"
    const asked = { secFetchSite: "", secFetchMode: "" }
    for (const [host, origin] of [
      [key, ""],
      ["localhost", `http://${key}`]
    ] as const) {
      const said = guard(rules())({ ...asked, host, origin })!.message
      assert.include(said, "mdp_99fc62d0_…")
      assert.notInclude(said, "BLWY")
    }
  })

  it("lets in no Origin, its own, and those allowed; refuses every other", () => {
    assert.strictEqual(check("localhost:8080", "http://localhost:8080"), undefined)
    assert.strictEqual(check("localhost:8080", "https://localhost:8080"), undefined)
    for (const origin of [
      "http://localhost:3000",
      "http://localhost",
      "http://127.0.0.1:8080",
      "https://evil.com",
      "http://localhost:8080.evil.com",
      "null",
      "file://"
    ]) {
      assert.strictEqual(check("localhost:8080", origin), "Origin", origin)
    }
    const allowed = rules("127.0.0.1", "https://charts.example.com, http://localhost:3000/")
    assert.strictEqual(check("localhost:8080", "http://localhost:3000", {}, allowed), undefined)
    assert.strictEqual(check("charts.example.com", "https://charts.example.com", {}, allowed), undefined)
    assert.strictEqual(check("localhost:8080", "https://charts.example.com:444", {}, allowed), "Origin")
  })

  it("refuses what a foreign page loads without an Origin, but not a link that is followed", () => {
    assert.strictEqual(check("localhost:8080", "", { site: "cross-site", mode: "no-cors" }), "Origin")
    assert.strictEqual(check("localhost:8080", "", { site: "same-site", mode: "no-cors" }), "Origin")
    assert.strictEqual(check("localhost:8080", "", { site: "cross-site", mode: "navigate" }), undefined)
    assert.strictEqual(check("localhost:8080", "", { site: "same-origin", mode: "cors" }), undefined)
    assert.strictEqual(check("localhost:8080", "", { site: "none", mode: "navigate" }), undefined)
  })

  it("refuses ALLOWED_ORIGINS that are no origins, naming the setting and the entry", () => {
    for (const entry of ["charts.example.com", "https://a.example.com/path", "ftp://a.example.com", "*"]) {
      const refused = guardRules("127.0.0.1", `https://ok.example.com,${entry}`)
      assert(Result.isFailure(refused))
      assert.strictEqual(refused.failure.setting, "ALLOWED_ORIGINS")
      assert.include(refused.failure.message, JSON.stringify(entry))
    }
  })

  it("lets in the names of ALLOWED_HOSTS, with any port, in any case and in no other form", () => {
    const allowed = rules("0.0.0.0", undefined, "Market.example.com, worker.,10.1.2.3, fd00::5,[fd00::6]")
    for (const host of [
      "market.example.com",
      "MARKET.example.com.:443",
      "worker:9464",
      "10.1.2.3:8080",
      "[fd00::5]:1",
      "[FD00::6]"
    ]) {
      assert.strictEqual(check(host, "", {}, allowed), undefined, host)
    }
    for (const host of ["example.com", "a.market.example.com", "market.example.com.evil.com", "worker2", "10.1.2.4"]) {
      assert.strictEqual(check(host, "", {}, allowed), "Host", host)
    }
    assert.strictEqual(check("market.example.com", "https://market.example.com", {}, allowed), undefined)
    assert.strictEqual(check("market.example.com", "https://worker", {}, allowed), "Origin")
  })

  it("lets operators ask by any address, and by no other name, and no page of another site among them", () => {
    for (const host of ["10.0.0.7:9464", "10.0.0.7", "[fd00::7]:8080", "192.168.1.5."]) {
      assert.strictEqual(check(host), "Host", host)
      assert.strictEqual(check(host, "", { isOperators: true }), undefined, host)
      assert.strictEqual(check(host, "https://evil.com", { isOperators: true }), "Origin", host)
      assert.strictEqual(check(host, "", { isOperators: true, site: "cross-site", mode: "no-cors" }), "Origin", host)
    }
    for (const host of [
      "evil.com",
      "10.0.0.7.evil.com",
      "10.0.0",
      "0x7f.1",
      "2130706433",
      "[fd00::7",
      "10.0.0.7@evil.com",
      ""
    ]) {
      assert.strictEqual(check(host, "", { isOperators: true }), "Host", host)
    }
  })

  it("refuses ALLOWED_HOSTS that are no names, naming the setting and the entry", () => {
    for (const entry of [
      "https://market.example.com",
      "market.example.com:443",
      "*.example.com",
      "*",
      "a b",
      "a/b",
      "[fd00::5]:80"
    ]) {
      const refused = guardRules("127.0.0.1", undefined, `ok.example.com,${entry}`)
      assert(Result.isFailure(refused))
      assert.strictEqual(refused.failure.setting, "ALLOWED_HOSTS")
      assert.include(refused.failure.message, JSON.stringify(entry))
    }
  })
})
