import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { guard, guardRules } from "../../src/http/guard.ts"

const rules = (host = "127.0.0.1", origins?: string) => Result.getOrThrow(guardRules(host, origins))
const check = (host: string, origin = "", more: { site?: string; mode?: string } = {}, by = rules()) =>
  guard(by)({ host, origin, secFetchSite: more.site ?? "", secFetchMode: more.mode ?? "" })?.parameter

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
})
