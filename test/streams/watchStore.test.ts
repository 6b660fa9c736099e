import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { StoreError } from "../../src/schema/Errors.ts"
import { Readiness } from "../../src/streams/Readiness.ts"
import { watchStore } from "../../src/streams/watchStore.ts"
import { memoryStore, Rows } from "../http/memoryStore.ts"

describe("a server's look at the store", () => {
  it.effect("names history as degraded while the store does not answer, and no longer", () => {
    let isGone = false
    const store = memoryStore(new Rows(), {
      bookmarks: () =>
        Effect.suspend(() =>
          isGone
            ? Effect.fail(new StoreError({ operation: "bookmarks", message: "ECONNREFUSED", transient: true }))
            : Effect.succeed([])
        )
    })
    return Effect.gen(function* () {
      const readiness = yield* Readiness
      const degraded = Effect.map(readiness.report, (report) => report.degraded)
      yield* Effect.forkChild(watchStore)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* degraded, [])
      isGone = true
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* degraded, ["history"])
      isGone = false
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual(yield* degraded, [])
    }).pipe(Effect.provide(Layer.merge(store, Readiness.layer)))
  })
})
