import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryCounters from "../../src/layers/memory/MemoryCounters.ts"
import * as Redis from "../../src/layers/redis/connection.ts"
import * as RedisCounters from "../../src/layers/redis/RedisCounters.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import { SILENT_MS, WORKER_SECONDS, WorkerCounters, type WorkerReport } from "../../src/streams/ports/WorkerCounters.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")

/** Every layer of the workers' counters. */
const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly isShared: boolean
  readonly layer: () => Layer.Layer<WorkerCounters, StartError>
}> = [
  { name: "memory", isMissing: false, isShared: false, layer: () => MemoryCounters.layer },
  {
    name: "Redis",
    isMissing: url === undefined,
    isShared: true,
    layer: () => RedisCounters.layer.pipe(Layer.provide(redis))
  }
]

const figure = (value: number) => ({ name: "sent", labels: { stage: "decode ☂" }, value })
const report = (life: string, worker: string, given: Partial<WorkerReport> = {}): WorkerReport => ({
  life,
  worker,
  role: "worker",
  started_at: 1_768_448_600_000_000,
  stages: ["process", "store"],
  waiting: [],
  degraded: ["ring"],
  figures: [figure(1)],
  ...given
})

for (const { name, layer, isMissing, isShared } of layers) {
  describe.skipIf(isMissing)(`WorkerCounters on ${name}`, () => {
    it.effect("lists nobody where nobody has published, and says whether others would be seen", () =>
      Effect.gen(function* () {
        const counters = yield* WorkerCounters
        assert.deepStrictEqual(yield* counters.all, [])
        assert.strictEqual(counters.shared, isShared)
      }).pipe(Effect.provide(layer()))
    )

    it.effect("answers the newest of each life, by name and start, with the time it was published", () =>
      Effect.gen(function* () {
        const counters = yield* WorkerCounters
        yield* TestClock.setTime(1_768_448_700_000)
        const again = report("3", "b", { started_at: 1_768_448_700_000_000 })
        yield* counters.publish(again)
        yield* counters.publish(report("1", "b"))
        yield* counters.publish(report("2", "a:1", { figures: [figure(2), figure(2.5)] }))
        yield* TestClock.adjust("2 seconds")
        yield* counters.publish(report("1", "b", { figures: [figure(3), figure(Number.NaN)], degraded: [] }))
        const all = yield* counters.all
        assert.deepStrictEqual(
          all.map(({ silent_ms, ...rest }) => rest),
          [
            { ...report("2", "a:1"), figures: [figure(2), figure(2.5)], at: 1_768_448_700_000_000 },
            { ...report("1", "b"), figures: [figure(3)], degraded: [], at: 1_768_448_702_000_000 },
            { ...again, at: 1_768_448_700_000_000 }
          ]
        )
        for (const { silent_ms } of all) assert.isTrue(silent_ms >= 0)
      }).pipe(Effect.provide(layer()))
    )

    it.effect("lists a life no longer that was withdrawn", () =>
      Effect.gen(function* () {
        const counters = yield* WorkerCounters
        yield* counters.publish(report("1", "a"))
        yield* counters.publish(report("2", "b"))
        yield* counters.withdraw("1")
        assert.deepStrictEqual(
          (yield* counters.all).map(({ life }) => life),
          ["2"]
        )
      }).pipe(Effect.provide(layer()))
    )
  })
}

describe("MemoryCounters", () => {
  it.effect("says how long a life has been silent, and forgets it after a while", () =>
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      yield* counters.publish(report("1", "a"))
      yield* TestClock.adjust("10 seconds")
      yield* counters.publish(report("2", "b"))
      assert.deepStrictEqual(
        (yield* counters.all).map(({ worker, silent_ms }) => [worker, silent_ms]),
        [
          ["a", 10_000],
          ["b", 0]
        ]
      )
      assert.isTrue(SILENT_MS < 10_000)
      yield* TestClock.adjust(`${WORKER_SECONDS - 10} seconds`)
      assert.deepStrictEqual(
        (yield* counters.all).map(({ worker }) => worker),
        ["b"]
      )
    }).pipe(Effect.provide(MemoryCounters.layer))
  )
})

describe.skipIf(url === undefined)("RedisCounters", () => {
  it.effect("says how long a life has been silent by the clock of Redis, not by its own", () =>
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      const { ask, prefix } = yield* Redis.RedisConnection
      yield* TestClock.setTime(4_000_000_000_000)
      yield* counters.publish(report("1", "a"))
      const before = (yield* counters.all)[0]!.silent_ms
      assert.isTrue(before < 4_000_000, `${before} ms`)
      yield* ask("age", ({ client }) => client.zincrby(`${prefix}topology:lives`, -20_000, "1"))
      const after = (yield* counters.all)[0]!.silent_ms
      assert.isTrue(after >= 20_000, `${after} ms`)
    }).pipe(Effect.provide(RedisCounters.layer.pipe(Layer.provideMerge(redis))))
  )

  it.effect("lets figures live no longer than they are listed, and passes over one that is gone", () =>
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      const { ask, prefix } = yield* Redis.RedisConnection
      yield* counters.publish(report("1", "a"))
      yield* counters.publish(report("2", "b"))
      const key = `${prefix}topology:life:1`
      const left = yield* ask("look", ({ client }) => client.pttl(key))
      assert.isTrue(left > 0 && left <= WORKER_SECONDS * 1000, `${left} ms`)
      yield* ask("expire", ({ client }) => client.del(key))
      assert.deepStrictEqual(
        (yield* counters.all).map(({ worker }) => worker),
        ["b"]
      )
    }).pipe(Effect.provide(RedisCounters.layer.pipe(Layer.provideMerge(redis))))
  )
})
