import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryCounters from "../../src/layers/MemoryCounters.ts"
import * as Redis from "../../src/layers/Redis.ts"
import * as RedisCounters from "../../src/layers/RedisCounters.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import { WORKER_SECONDS, WorkerCounters } from "../../src/streams/WorkerCounters.ts"
import { redisLayer } from "../support/redis.ts"
import { redisUrl } from "../support/services.ts"

const url = await redisUrl()
const redis = redisLayer(url ?? "")

/** Every layer of the workers' counters. */
const layers: ReadonlyArray<{
  readonly name: string
  readonly isMissing: boolean
  readonly layer: () => Layer.Layer<WorkerCounters, StartError>
}> = [
  { name: "memory", isMissing: false, layer: () => MemoryCounters.layer },
  { name: "Redis", isMissing: url === undefined, layer: () => RedisCounters.layer.pipe(Layer.provide(redis)) }
]

const figure = (value: number) => ({ name: "sent", labels: { stage: "decode ☂" }, value })

for (const { name, layer, isMissing } of layers) {
  describe.skipIf(isMissing)(`WorkerCounters on ${name}`, () => {
    it.effect("lists nobody where nobody has published", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* (yield* WorkerCounters).all, [])
      }).pipe(Effect.provide(layer()))
    )

    it.effect("answers the newest figures of each worker, by name, with the time they were published", () =>
      Effect.gen(function* () {
        const counters = yield* WorkerCounters
        yield* TestClock.setTime(1_768_448_700_000)
        yield* counters.publish("b", [figure(1)])
        yield* counters.publish("a:1", [figure(2), figure(2.5)])
        yield* TestClock.adjust("2 seconds")
        yield* counters.publish("b", [figure(3), figure(Number.NaN)])
        assert.deepStrictEqual(yield* counters.all, [
          { worker: "a:1", at: 1_768_448_700_000_000, figures: [figure(2), figure(2.5)] },
          { worker: "b", at: 1_768_448_702_000_000, figures: [figure(3)] }
        ])
      }).pipe(Effect.provide(layer()))
    )
  })
}

describe("MemoryCounters", () => {
  it.effect("forgets a worker that has been silent", () =>
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      yield* counters.publish("a", [figure(1)])
      yield* TestClock.adjust("10 seconds")
      yield* counters.publish("b", [figure(2)])
      yield* TestClock.adjust(`${WORKER_SECONDS - 10} seconds`)
      assert.deepStrictEqual(
        (yield* counters.all).map(({ worker }) => worker),
        ["b"]
      )
    }).pipe(Effect.provide(MemoryCounters.layer))
  )
})

describe.skipIf(url === undefined)("RedisCounters", () => {
  it.effect("lets figures live no longer than they are fresh, and passes over one that is gone", () =>
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      const { ask, prefix } = yield* Redis.RedisConnection
      yield* counters.publish("a", [figure(1)])
      yield* counters.publish("b", [figure(2)])
      const key = `${prefix}topology:worker:a`
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
