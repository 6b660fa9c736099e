import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { LogError, StoreError } from "../../../src/schema/Errors.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { watchLog, watchStore } from "../../../src/streams/run/watch.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"

describe("a look at the services", () => {
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

  it.effect("names within five seconds what hangs rather than refuses", () => {
    let isHung = false
    const store = memoryStore(new Rows(), {
      bookmarks: () => Effect.suspend(() => (isHung ? Effect.never : Effect.succeed([])))
    })
    return Effect.gen(function* () {
      const readiness = yield* Readiness
      yield* Effect.forkChild(watchStore)
      yield* TestClock.adjust("20 seconds")
      isHung = true
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual((yield* readiness.report).degraded, ["history"])
    }).pipe(Effect.provide(Layer.merge(store, Readiness.layer)))
  })

  it.effect("names the log likewise", () => {
    let isGone = false
    const gone = new LogError({
      operation: "read",
      topic: "normalized_ticks",
      partition: 0,
      outcome: "failed",
      message: "no broker answers"
    })
    const log = Layer.effect(
      TickLog,
      Effect.map(TickLog, (inner) => ({
        ...inner,
        bounds: (topic, partition) =>
          Effect.suspend(() => (isGone ? Effect.fail(gone) : inner.bounds(topic, partition)))
      }))
    ).pipe(Layer.provide(MemoryLog.layer({ partitions: 1, capacity: 10, dlqCapacity: 10, retained: 10, batch: 1 })))
    return Effect.gen(function* () {
      const readiness = yield* Readiness
      const degraded = Effect.map(readiness.report, (report) => report.degraded)
      yield* Effect.forkChild(watchLog)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* degraded, [])
      isGone = true
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* degraded, ["log"])
      isGone = false
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual(yield* degraded, [])
    }).pipe(Effect.provide(Layer.merge(log, Readiness.layer)))
  })
})
