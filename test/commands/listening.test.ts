import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { checkHost } from "../../src/commands/instance.ts"
import { listening } from "../../src/commands/listening.ts"
import { guardRules } from "../../src/http/guard.ts"
import { readSettings } from "../../src/schema/Settings.ts"

describe("where a server says that it listens", () => {
  const said = (host: string, allowed?: string, own?: string) =>
    listening("http://127.0.0.1:8080", host, Result.getOrThrow(guardRules(host, undefined, allowed)), own)

  it("is one address, or all of this machine's and by which names others are answered", () => {
    const here = "listening on http://127.0.0.1:8080"
    assert.strictEqual(said("127.0.0.1", "10.0.0.5"), here)
    assert.strictEqual(
      said("0.0.0.0", "10.0.0.5,market.example.com"),
      `${here}, and on every address of this machine (HOST=0.0.0.0) as 10.0.0.5, market.example.com`
    )
    assert.strictEqual(
      said("::", undefined, "10.0.0.7"),
      `${here}, and on every address of this machine (HOST=::): others are answered once ALLOWED_HOSTS names what they call it by, such as 10.0.0.7`
    )
  })
})

describe("HOST", () => {
  const refusal = (HOST: string, insecure = false) =>
    Effect.map(Effect.result(checkHost(Result.getOrThrow(readSettings({ HOST })), insecure)), (result) =>
      Result.isFailure(result) ? result.failure.message : "taken"
    )

  it.live("is an address, or a name that has one, of this machine alone unless keys are asked for", () =>
    Effect.gen(function* () {
      for (const host of ["127.0.0.1", "localhost", "::1"]) assert.strictEqual(yield* refusal(host), "taken", host)
      assert.strictEqual(yield* refusal("0.0.0.0", true), "taken")
      assert.match(yield* refusal("0.0.0.0"), /^HOST: 0\.0\.0\.0 can be reached by others/)
      for (const insecure of [true, false]) {
        assert.match(
          yield* refusal("no-such-host.invalid", insecure),
          /^HOST: "no-such-host\.invalid" cannot be resolved \([A-Z_]+\): expected an address of this machine/
        )
      }
    })
  )
})
