import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Tick } from "../../../src/schema/Tick.ts"
import type { TickBatch } from "../../../src/streams/log/follow.ts"
import { gather } from "../../../src/streams/log/gather.ts"

const batch = (ticks: number, offset: number): TickBatch => ({
  partition: 0,
  ticks: Array.from({ length: ticks }, () => ({}) as Tick),
  quotes: [],
  replays: [],
  publishedAt: 0,
  bookmark: { partition: 0, incarnation: "n", offset, mark: undefined }
})
const count = ({ ticks }: TickBatch) => ticks.length
const sizes = (group: ReadonlyArray<TickBatch>) => group.map((b) => b.ticks.length)

/** A source that is fed by hand, gathered into a queue of groups. */
const start = (options: { readonly ticks: number; readonly ms: number }) =>
  Effect.gen(function* () {
    const source = yield* Queue.bounded<TickBatch>(1000)
    const groups = yield* Queue.bounded<ReadonlyArray<TickBatch>>(1000)
    const drain = yield* Deferred.make<void>()
    const fiber = yield* Stream.fromQueue(source).pipe(
      gather({ count, ticks: options.ticks, ms: options.ms, drain: Deferred.await(drain) }),
      Stream.runForEach((group) => Queue.offer(groups, group)),
      Effect.forkScoped({ startImmediately: true })
    )
    return { source, groups, drain, fiber }
  })

describe("gather", () => {
  it.effect("writes once enough ticks have come, without waiting", () =>
    Effect.gen(function* () {
      const { source, groups } = yield* start({ ticks: 10, ms: 1000 })
      yield* Queue.offerAll(source, [batch(4, 1), batch(6, 2), batch(1, 3)])
      assert.deepStrictEqual(sizes(yield* Queue.take(groups)), [4, 6])
    })
  )

  it.effect("writes a smaller group once its time is over", () =>
    Effect.gen(function* () {
      const { source, groups } = yield* start({ ticks: 10, ms: 1000 })
      yield* Queue.offerAll(source, [batch(1, 1), batch(2, 2)])
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(yield* Queue.size(groups), 0)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(sizes(yield* Queue.take(groups)), [1, 2])
    })
  )

  it.effect("lets a batch larger than a group through alone", () =>
    Effect.gen(function* () {
      const { source, groups } = yield* start({ ticks: 10, ms: 1000 })
      yield* Queue.offerAll(source, [batch(3, 1), batch(25, 2), batch(9, 3), batch(9, 4)])
      assert.deepStrictEqual(sizes(yield* Queue.take(groups)), [3])
      assert.deepStrictEqual(sizes(yield* Queue.take(groups)), [25])
    })
  )

  it.effect("takes at most two groups ahead of a sink that hangs, then holds the source", () =>
    Effect.gen(function* () {
      let pulled = 0
      let groups = 0
      yield* Stream.fromIterable(
        Array.from({ length: 100 }, (_, i) => batch(5, i)),
        { chunkSize: 1 }
      ).pipe(
        Stream.tap(() => Effect.sync(() => pulled++)),
        gather({ count, ticks: 10, ms: 1, drain: Effect.never }),
        Stream.runForEach(() =>
          Effect.andThen(
            Effect.sync(() => groups++),
            Effect.never
          )
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(groups, 1)
      // One group of two with the sink, and as many as make two more waiting.
      assert.strictEqual(pulled, 2 + 4)
    })
  )

  it.effect("stops waiting once a stop has begun", () =>
    Effect.gen(function* () {
      const { source, groups, drain } = yield* start({ ticks: 1000, ms: 3_600_000 })
      yield* Queue.offer(source, batch(1, 1))
      yield* Deferred.succeed(drain, undefined)
      assert.deepStrictEqual(sizes(yield* Queue.take(groups)), [1])
    })
  )

  it.effect("hands out what is left when the source ends, then ends itself", () =>
    Effect.gen(function* () {
      const all = yield* Stream.make(batch(1, 1), batch(2, 2)).pipe(
        gather({ count, ticks: 100, ms: 1000, drain: Effect.never }),
        Stream.runCollect
      )
      assert.deepStrictEqual(all.map(sizes), [[1, 2]])
    })
  )

  it.effect("fails with the source's own failure, after what came before it", () =>
    Effect.gen(function* () {
      const groups: Array<ReadonlyArray<number>> = []
      const fiber = yield* Stream.make(batch(1, 1)).pipe(
        Stream.concat(Stream.fail("gone" as const)),
        gather({ count, ticks: 100, ms: 1000, drain: Effect.never }),
        Stream.runForEach((group) => Effect.sync(() => groups.push(sizes(group)))),
        Effect.flip,
        Effect.forkChild
      )
      assert.strictEqual(yield* Fiber.join(fiber), "gone")
      assert.deepStrictEqual(groups, [[1]])
    })
  )
})
