import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { figureReaders, isLoopback, readNetworks } from "../../src/http/operators.ts"

const networks = (text: string) => Result.getOrThrow(readNetworks(text))

describe("METRICS_ALLOW", () => {
  it("names addresses and networks of both versions", () => {
    const allowed = networks("10.0.0.0/8, 192.168.1.5,fd00::/8, 2001:db8::1, 172.16.5.9/12")
    for (const address of [
      "10.0.0.1",
      "10.255.255.255",
      "192.168.1.5",
      "172.31.0.1",
      // As the server underneath writes them.
      "fd00:0000:0000:0000:0000:0000:0000:0001",
      "2001:0db8:0000:0000:0000:0000:0000:0001"
    ]) {
      assert.isTrue(allowed(address), address)
    }
    for (const address of ["11.0.0.1", "192.168.1.6", "172.32.0.1", "127.0.0.1", "fe80::1", "2001:db8::2", "", "x"]) {
      assert.isFalse(allowed(address), address)
    }
    assert.isTrue(networks("0.0.0.0/0,::/0")("203.0.113.9"))
    assert.isTrue(networks("0.0.0.0/0,::/0")("2001:db8::9"))
    assert.isFalse(networks(" , ")("10.0.0.1"))
  })

  it("lets loopback in besides, and is nobody's word where it is unset", () => {
    const readers = Result.getOrThrow(figureReaders("10.0.0.0/8"))!
    for (const address of ["127.0.0.1", "127.0.0.2", "0000:0000:0000:0000:0000:0000:0000:0001", "10.1.1.1"]) {
      assert.isTrue(readers(address), address)
    }
    assert.isFalse(readers("192.168.1.1"))
    assert.isFalse(isLoopback("10.1.1.1"))
    assert.isUndefined(Result.getOrThrow(figureReaders(undefined)))
  })

  it("is refused in one line that names the entry", () => {
    for (const entry of [
      "10.0.0.0/33",
      "fd00::/129",
      "10.0.0",
      "example.com",
      "10.0.0.0/",
      "10.0.0.0/8/8",
      "fe80::1%eth0",
      "10.0.0.0/08",
      "10.0.0.1:80",
      "/8"
    ]) {
      const refused = readNetworks(`10.0.0.0/8,${entry}`)
      assert(Result.isFailure(refused), entry)
      assert.strictEqual(refused.failure.setting, "METRICS_ALLOW")
      assert.strictEqual(
        refused.failure.message,
        `METRICS_ALLOW: expected addresses and networks such as 10.0.0.0/8, comma-separated, got ${JSON.stringify(entry)}`
      )
    }
  })
})
