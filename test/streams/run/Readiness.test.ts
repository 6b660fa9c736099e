import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Readiness } from "../../../src/streams/run/Readiness.ts"

describe("what is degraded", () => {
  it.effect("is so by name while anyone who said so holds to it", () =>
    Effect.gen(function* () {
      const { degrade, report } = yield* Readiness
      const degraded = Effect.map(report, (now) => now.degraded)
      const [one, other] = [{}, {}]
      yield* degrade("store", true, one)
      yield* degrade("store", true, one)
      yield* degrade("store", true, other)
      yield* degrade("store", true)
      assert.deepStrictEqual(yield* degraded, ["store"])
      yield* degrade("store", false, one)
      yield* degrade("store", false)
      assert.deepStrictEqual(yield* degraded, ["store"])
      yield* degrade("store", false, other)
      assert.deepStrictEqual(yield* degraded, [])
      yield* degrade("store", false, other)
      yield* degrade("ring", true)
      assert.deepStrictEqual(yield* degraded, ["ring"])
    }).pipe(Effect.provide(Readiness.layer))
  )
})
