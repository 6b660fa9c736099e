import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Queue, Stream } from "effect"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { type AssignedPartition, type NewRecord, TickLog, type Topic } from "../../../src/streams/log/TickLog.ts"

const KIB = 1024
const limits = { partitions: 1, capacity: 1000, dlqCapacity: 1000, retained: 1000, batch: 1000 }
const bytes = { capacity: 256 * KIB, dlqCapacity: 256 * KIB, retained: 64 * KIB }
const Log = MemoryLog.layer({ ...limits, bytes })

const record = (size: number): NewRecord => ({ key: "1", value: new Uint8Array(size) })
const records = (count: number, size: number) => Array.from({ length: count }, () => record(size))

const bytesOf = (log: TickLog["Service"], topic: Topic) =>
  Effect.map(log.bytes!, (held) => held.find((one) => one.topic === topic)!.bytes)

/** The only partition, as a member of a group has it. */
const join = (log: TickLog["Service"]) =>
  Effect.gen(function* () {
    const assigned = yield* Queue.unbounded<AssignedPartition>()
    yield* log.assignments("g", "raw_ticks").pipe(
      Stream.runForEach((partition) => Queue.offer(assigned, partition)),
      Effect.forkScoped({ startImmediately: true })
    )
    return yield* Queue.take(assigned)
  })

describe("the embedded log in bytes", () => {
  it.effect("blocks a producer before what groups have yet to take has more bytes than it may", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const mine = yield* join(log)
      let appended = 0
      const producer = yield* Effect.forkChild(
        Effect.gen(function* () {
          for (; appended < 100; appended++) yield* log.append("raw_ticks", 0, [record(20 * KIB)])
        }),
        { startImmediately: true }
      )
      // 20 KiB each beside what a record takes: fifteen are less than 256 + 64 KiB.
      assert.strictEqual(appended, 15)
      assert.isAtMost(yield* bytesOf(log, "raw_ticks"), 320 * KIB)
      yield* mine.commit({ offset: 10, metadata: "" })
      yield* Effect.repeat(Effect.yieldNow, { until: () => appended >= 25 })
      assert.isAtMost(yield* bytesOf(log, "raw_ticks"), 320 * KIB)
      assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 10, end: 25 })
      yield* Fiber.interrupt(producer)
    }).pipe(Effect.provide(Log), Effect.scoped)
  )

  it.effect("keeps no more bytes than it may of what everybody has passed", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const mine = yield* join(log)
      for (let offset = 0; offset < 40; offset++) {
        yield* log.append("raw_ticks", 0, [record(20 * KIB)])
        yield* mine.commit({ offset: offset + 1, metadata: "" })
      }
      assert.isAtMost(yield* bytesOf(log, "raw_ticks"), 64 * KIB)
      assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 37, end: 40 })
    }).pipe(Effect.provide(Log), Effect.scoped)
  )

  it.effect("lets an append larger than all it may hold in once nobody holds anything, and lets go of it", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const mine = yield* join(log)
      yield* log.append("raw_ticks", 0, [record(10)])
      const large = yield* Effect.forkChild(log.append("raw_ticks", 0, [record(KIB * KIB)]), { startImmediately: true })
      assert.isUndefined(large.pollUnsafe())
      yield* mine.commit({ offset: 1, metadata: "" })
      assert.strictEqual(yield* Fiber.join(large), 1)
      yield* mine.commit({ offset: 2, metadata: "" })
      assert.strictEqual(yield* bytesOf(log, "raw_ticks"), 0)
    }).pipe(Effect.provide(Log), Effect.scoped)
  )

  it.effect("wakes a producer that waits also where what was taken is kept on", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const mine = yield* join(log)
      yield* log.append("raw_ticks", 0, records(10, 1))
      const waiting = yield* Effect.forkChild(log.append("raw_ticks", 0, [record(1)]), { startImmediately: true })
      assert.isUndefined(waiting.pollUnsafe())
      yield* mine.commit({ offset: 5, metadata: "" })
      assert.strictEqual(yield* Fiber.join(waiting), 10)
      assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 0, end: 11 })
    }).pipe(Effect.provide(MemoryLog.layer({ ...limits, capacity: 10 })), Effect.scoped)
  )

  it.effect("hands out a few records at a time where they are large, and one that is larger alone", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("raw_ticks", 0, [...records(7, 400 * KIB), record(3 * KIB * KIB), record(1)])
      const read = yield* log.read("raw_ticks", 0, 0).pipe(
        Stream.takeUntil((some) => some.at(-1)!.offset === 8),
        Stream.runCollect
      )
      assert.deepStrictEqual(
        read.map((some) => some.length),
        [2, 2, 2, 1, 1, 1]
      )
      const page = yield* log.slice("raw_ticks", 0, 0, 100)
      assert.strictEqual(page.records.length, 2)
    }).pipe(Effect.provide(MemoryLog.layer(limits)), Effect.scoped)
  )

  it.effect("drops the oldest dead letters at their bytes, and refuses one that is larger than all of them", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      for (let i = 0; i < 40; i++) yield* log.append("raw_ticks_dlq", 0, [record(20 * KIB)])
      assert.isAtMost(yield* bytesOf(log, "raw_ticks_dlq"), 256 * KIB)
      assert.deepStrictEqual(yield* log.bounds("raw_ticks_dlq", 0), { start: 28, end: 40 })
      const error = yield* Effect.flip(log.append("raw_ticks_dlq", 0, [record(256 * KIB)]))
      assert.strictEqual(error.reason, "too_large")
      assert.deepStrictEqual(yield* log.bounds("raw_ticks_dlq", 0), { start: 28, end: 40 })
    }).pipe(Effect.provide(Log), Effect.scoped)
  )
})
