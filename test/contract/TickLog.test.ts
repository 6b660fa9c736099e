import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Queue, Stream } from "effect"
import * as MemoryLog from "../../src/layers/memory/MemoryLog.ts"
import { type AssignedPartition, TickLog } from "../../src/streams/log/TickLog.ts"
import { ENGINES, kafkaLayer, kafkaMissing } from "../support/kafka.ts"

/** What a log has to offer to be put through the suite. `capacity`: records a partition holds where it is bounded. */
interface Subject {
  readonly name: string
  /** A log of its own, with 4 partitions and nothing in it, each time that it is built. */
  readonly layer: Layer.Layer<TickLog, unknown>
  readonly capacity: number | undefined
  /** Why the suite is skipped, and what to do about it. */
  readonly missing?: string | undefined
}

const subjects: ReadonlyArray<Subject> = [
  {
    name: "embedded log",
    layer: MemoryLog.layer({ partitions: 4, capacity: 100, dlqCapacity: 10, retained: 20, batch: 25 }),
    capacity: 100
  },
  ...ENGINES.map(
    (engine): Subject => ({
      name: `Kafka through ${engine}`,
      layer: kafkaLayer({ engine, partitions: 4 }),
      capacity: undefined,
      missing: kafkaMissing
    })
  )
]

const text = (value: string) => ({ key: "1", value: Buffer.from(value) })
const numbered = (from: number, count: number) => Array.from({ length: count }, (_, i) => text(String(from + i)))
const show = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value).toString())

/** Reads records until `count` have come. */
const take = (stream: ReturnType<TickLog["Service"]["read"]>, count: number) =>
  stream.pipe(
    Stream.mapAccum(
      () => 0,
      (seen, records) => [seen + records.length, [{ records, seen: seen + records.length }]] as const
    ),
    Stream.takeUntil(({ seen }) => seen >= count),
    Stream.runCollect,
    Effect.map((arrays) => arrays.flatMap(({ records }) => records))
  )

/** Joins a group; answers a queue of what it is assigned, and how to leave. */
const join = (log: TickLog["Service"], group: string) =>
  Effect.gen(function* () {
    const assigned = yield* Queue.bounded<AssignedPartition>(64)
    const leave = yield* Deferred.make<void>()
    const fiber = yield* log.assignments(group, "raw_ticks").pipe(
      Stream.interruptWhen(Deferred.await(leave)),
      Stream.runForEach((partition) => Queue.offer(assigned, partition)),
      Effect.forkScoped({ startImmediately: true })
    )
    return { assigned, leave: Effect.andThen(Deferred.succeed(leave, undefined), Fiber.join(fiber)) }
  })

for (const { name, layer, capacity, missing } of subjects) {
  describe.skipIf(missing !== undefined)(`the log: ${name}${missing === undefined ? "" : ` (${missing})`}`, () => {
    const test = (title: string, body: Effect.Effect<void, unknown, TickLog | import("effect").Scope.Scope>) =>
      it.live(title, () => body.pipe(Effect.scoped, Effect.provide(Layer.fresh(layer))))

    test(
      "gives back keys, values, headers and tombstones as they came, in order, each with the next offset",
      Effect.gen(function* () {
        const log = yield* TickLog
        const first = yield* log.append("raw_ticks", 1, [
          { key: "7", value: Buffer.from("a"), headers: { replay: "x.1" } },
          { key: null, value: null }
        ])
        const second = yield* log.append("raw_ticks", 1, [text("b")])
        const records = yield* take(log.read("raw_ticks", 1, 0), 3)
        assert.deepStrictEqual([first, second], [0, 2])
        assert.deepStrictEqual(
          records.map((r) => [r.offset, r.key, show(r.value), r.headers?.replay]),
          [
            [0, "7", "a", "x.1"],
            [1, null, null, undefined],
            [2, "1", "b", undefined]
          ]
        )
        assert.deepStrictEqual(yield* log.bounds("raw_ticks", 1), { start: 0, end: 3 })
        assert.deepStrictEqual(yield* log.bounds("raw_ticks", 2), { start: 0, end: 0 })
      })
    )

    test(
      "answers a piece of a partition at once: from its start where that is later, empty at its end",
      Effect.gen(function* () {
        const log = yield* TickLog
        yield* log.append("raw_ticks_dlq", 1, numbered(0, 5))
        const at = (from: number, limit: number) =>
          Effect.map(log.slice("raw_ticks_dlq", 1, from, limit), ({ records, next }) => [
            records.map(({ offset, value }) => `${offset}:${show(value)}`).join(" "),
            next
          ])
        assert.deepStrictEqual(yield* at(0, 2), ["0:0 1:1", 2])
        assert.deepStrictEqual(yield* at(2, 100), ["2:2 3:3 4:4", 5])
        assert.deepStrictEqual(yield* at(5, 100), ["", 5])
        assert.deepStrictEqual(yield* at(900, 100), ["", 900])
        assert.deepStrictEqual(yield* log.slice("raw_ticks_dlq", 2, 0, 10), { records: [], next: 0 })
        if (capacity === undefined) return
        // What the DLQ has dropped is passed over.
        for (let i = 0; i < 40; i++) yield* log.append("raw_ticks_dlq", 1, numbered(i * 10, 10))
        const { start } = yield* log.bounds("raw_ticks_dlq", 1)
        assert.isAbove(start, 0)
        const { records, next } = yield* log.slice("raw_ticks_dlq", 1, 0, 1)
        assert.deepStrictEqual([records[0]?.offset, next], [start, start + 1])
      })
    )

    test(
      "refuses what is meant for another life of a topic, and takes what is meant for this one",
      Effect.gen(function* () {
        const log = yield* TickLog
        const another = "00000000-0000-4000-8000-000000000000"
        const refused = yield* Effect.flip(log.append("raw_ticks", 1, [text("a")], another))
        assert.deepStrictEqual([refused.outcome, refused.reason], ["failed", "incarnation"])
        assert.strictEqual(yield* log.append("raw_ticks", 1, [text("b")], log.incarnation("raw_ticks")), 0)
        assert.deepStrictEqual(yield* log.bounds("raw_ticks", 1), { start: 0, end: 1 })
      })
    )

    test(
      "stamps records with a time that never falls and finds the first offset at or after a time",
      Effect.gen(function* () {
        const log = yield* TickLog
        yield* log.append("raw_ticks", 0, numbered(0, 5))
        yield* Effect.sleep("5 millis")
        yield* log.append("raw_ticks", 0, numbered(5, 5))
        const records = yield* take(log.read("raw_ticks", 0, 0), 10)
        for (let i = 1; i < 10; i++) assert.isAtLeast(records[i]!.recordTime, records[i - 1]!.recordTime)
        assert.isAbove(records[5]!.recordTime, records[4]!.recordTime)
        assert.strictEqual(yield* log.offsetAt("raw_ticks", 0, records[5]!.recordTime), 5)
        assert.strictEqual(yield* log.offsetAt("raw_ticks", 0, records[9]!.recordTime + 1), 10)
        assert.strictEqual(yield* log.offsetAt("raw_ticks", 0, 0), 0)
      })
    )

    test(
      "lets a reader wait at the end and hands it what comes",
      Effect.gen(function* () {
        const log = yield* TickLog
        const reader = yield* Effect.forkChild(take(log.read("normalized_ticks", 0, 0), 2), { startImmediately: true })
        yield* log.append("normalized_ticks", 0, [text("a")])
        yield* log.append("normalized_ticks", 0, [text("b")])
        assert.deepStrictEqual(
          (yield* Fiber.join(reader)).map((r) => show(r.value)),
          ["a", "b"]
        )
      })
    )

    test(
      "assigns every partition to the members of a group, each to one, and moves them as members come and go",
      Effect.gen(function* () {
        const log = yield* TickLog
        const a = yield* join(log, "g")
        const mine = yield* Queue.takeN(a.assigned, 4)
        assert.deepStrictEqual(mine.map((p) => p.partition).sort(), [0, 1, 2, 3])
        yield* mine[0]!.commit({ offset: 7, metadata: "seven" })

        const b = yield* join(log, "g")
        const theirs = yield* Queue.takeN(b.assigned, 2)
        const moved = new Set(theirs.map((p) => p.partition))
        for (const partition of mine) if (moved.has(partition.partition)) yield* partition.revoked

        yield* b.leave
        const back = yield* Queue.takeN(a.assigned, 2)
        assert.deepStrictEqual(back.map((p) => p.partition).sort(), [...moved].sort())
      })
    )

    test(
      "lets the next owner go on from what was committed, and refuses a commit of the last one",
      Effect.gen(function* () {
        const log = yield* TickLog
        for (let p = 0; p < 4; p++) yield* log.append("raw_ticks", p, numbered(0, 10))
        const a = yield* join(log, "g")
        const mine = yield* Queue.takeN(a.assigned, 4)
        for (const partition of mine) {
          assert.isUndefined(partition.committed)
          yield* partition.commit({ offset: 4, metadata: `mark ${partition.partition}` })
        }
        const b = yield* join(log, "g")
        for (const theirs of yield* Queue.takeN(b.assigned, 2)) {
          assert.deepStrictEqual(theirs.committed, { offset: 4, metadata: `mark ${theirs.partition}` })
          const last = mine.find((p) => p.partition === theirs.partition)!
          yield* last.revoked
          const refused = yield* Effect.flip(last.commit({ offset: 9, metadata: "" }))
          assert.strictEqual(refused._tag, "LogError")
          assert.strictEqual(refused.operation, "commit")
          const rest = yield* take(theirs.read(4), 6)
          assert.strictEqual(rest[0]!.offset, 4)
        }
        // What was kept goes on as it was.
        const lag = yield* log.lag
        assert.deepStrictEqual(
          lag.filter((l) => l.group === "g").map((l) => l.records),
          [6, 6, 6, 6]
        )
      })
    )

    test(
      "keeps a partition that stays through a change of members: its stream goes on, its commits are taken",
      Effect.gen(function* () {
        const log = yield* TickLog
        for (let p = 0; p < 4; p++) yield* log.append("raw_ticks", p, numbered(0, 5))
        const a = yield* join(log, "g")
        const mine = yield* Queue.takeN(a.assigned, 4)
        const seen = new Map<number, Array<number>>()
        const readers = yield* Effect.forEach(mine, (p) => {
          const offsets: Array<number> = []
          seen.set(p.partition, offsets)
          return p.read(0).pipe(
            Stream.runForEach((records) => Effect.sync(() => offsets.push(...records.map((r) => r.offset)))),
            Effect.forkScoped({ startImmediately: true })
          )
        })
        const b = yield* join(log, "g")
        const moved = new Set((yield* Queue.takeN(b.assigned, 2)).map((p) => p.partition))
        const kept = mine.filter((p) => !moved.has(p.partition))
        assert.lengthOf(kept, 2)
        for (const p of kept) {
          yield* log.append("raw_ticks", p.partition, numbered(5, 5))
          yield* p.commit({ offset: 10, metadata: "on" })
        }
        for (const [i, p] of mine.entries()) {
          if (moved.has(p.partition)) yield* Fiber.join(readers[i]!)
          else while (seen.get(p.partition)!.length < 10) yield* Effect.sleep("5 millis")
        }
        for (const p of kept) assert.deepStrictEqual(seen.get(p.partition), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        assert.strictEqual(yield* Queue.size(a.assigned), 0)
      })
    )

    test(
      "ends a partition's stream when it is revoked",
      Effect.gen(function* () {
        const log = yield* TickLog
        const a = yield* join(log, "g")
        const mine = yield* Queue.takeN(a.assigned, 4)
        const readers = yield* Effect.forEach(mine, (p) =>
          Effect.forkChild(Stream.runDrain(p.read(0)), { startImmediately: true })
        )
        const b = yield* join(log, "g")
        const moved = (yield* Queue.takeN(b.assigned, 2)).map((p) => p.partition)
        for (const [i, p] of mine.entries()) if (moved.includes(p.partition)) yield* Fiber.join(readers[i]!)
      })
    )

    test(
      "ends a partition's stream once it is asked to, in the midst of a wait and between two arrays; commits go on",
      Effect.gen(function* () {
        const log = yield* TickLog
        yield* log.append("raw_ticks", 0, numbered(0, 5))
        const a = yield* join(log, "g")
        const mine = (yield* Queue.takeN(a.assigned, 4)).find(({ partition }) => partition === 0)!
        const enough = yield* Deferred.make<void>()
        let seen = 0
        const waiting = yield* mine.read(0, Deferred.await(enough)).pipe(
          Stream.runForEach((records) => Effect.sync(() => (seen += records.length))),
          Effect.forkChild({ startImmediately: true })
        )
        while (seen < 5) yield* Effect.sleep("5 millis")
        yield* Deferred.succeed(enough, undefined)
        yield* Fiber.join(waiting)
        // What it is at work on stays whole; then there is no more, whatever the log holds.
        const once = yield* Deferred.make<void>()
        let arrays = 0
        yield* mine.read(0, Deferred.await(once)).pipe(
          Stream.runForEach(() => {
            arrays++
            return Effect.andThen(Deferred.succeed(once, undefined), log.append("raw_ticks", 0, numbered(5, 5)))
          })
        )
        assert.strictEqual(arrays, 1)
        yield* mine.commit({ offset: 10, metadata: "" })
        assert.lengthOf(yield* take(mine.read(0), 10), 10)
      })
    )

    test(
      "keeps groups apart, and shows how far each is behind",
      Effect.gen(function* () {
        const log = yield* TickLog
        yield* log.append("raw_ticks", 0, numbered(0, 10))
        const a = yield* join(log, "a")
        const b = yield* join(log, "b")
        const [first] = yield* Queue.takeN(a.assigned, 4)
        yield* Queue.takeN(b.assigned, 4)
        yield* first!.commit({ offset: 6, metadata: "" })
        const lag = yield* log.lag
        const of = (group: string) => lag.find((l) => l.group === group && l.partition === 0)!.records
        assert.deepStrictEqual([of("a"), of("b")], [4, 10])
      })
    )

    test(
      "fails loudly where a reader asks for what is no longer held",
      Effect.gen(function* () {
        if (capacity === undefined) return
        const log = yield* TickLog
        for (let i = 0; i < 20; i++) yield* log.append("raw_ticks", 0, numbered(i * 10, 10))
        const { start } = yield* log.bounds("raw_ticks", 0)
        assert.isAbove(start, 0)
        const failed = yield* Effect.flip(take(log.read("raw_ticks", 0, 0), 1))
        assert.match(failed.message, /offset 0 is no longer held/)
      })
    )

    if (capacity !== undefined) {
      test(
        "blocks producers at its capacity, not one record later, and drops nothing that a group has yet to take",
        Effect.gen(function* () {
          const log = yield* TickLog
          const a = yield* join(log, "g")
          const mine = (yield* Queue.takeN(a.assigned, 4)).find((p) => p.partition === 0)!
          yield* log.append("raw_ticks", 0, numbered(0, capacity))
          const blocked = yield* Effect.forkChild(log.append("raw_ticks", 0, [text("more")]), {
            startImmediately: true
          })
          assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 0, end: capacity })
          yield* mine.commit({ offset: 1, metadata: "" })
          assert.strictEqual(yield* Fiber.join(blocked), capacity)
          // Others are not held up by a full partition.
          yield* log.append("raw_ticks", 1, [text("x")])
        })
      )

      test(
        "appends nothing where a blocked producer gives up",
        Effect.gen(function* () {
          const log = yield* TickLog
          const a = yield* join(log, "g")
          yield* Queue.takeN(a.assigned, 4)
          yield* log.append("raw_ticks", 0, numbered(0, capacity))
          const blocked = yield* Effect.forkChild(log.append("raw_ticks", 0, [text("more")]), {
            startImmediately: true
          })
          yield* Fiber.interrupt(blocked)
          assert.deepStrictEqual(yield* log.bounds("raw_ticks", 0), { start: 0, end: capacity })
        })
      )

      test(
        "holds what a reader without group has in hand, and lets it go when the reader leaves",
        Effect.gen(function* () {
          const log = yield* TickLog
          yield* log.append("raw_ticks", 0, [text("first")])
          const got = yield* Deferred.make<void>()
          const reader = yield* log.read("raw_ticks", 0, 0).pipe(
            Stream.runForEach(() => Effect.andThen(Deferred.succeed(got, undefined), Effect.never)),
            Effect.forkChild({ startImmediately: true })
          )
          yield* Deferred.await(got)
          yield* log.append("raw_ticks", 0, numbered(0, capacity - 1))
          const blocked = yield* Effect.forkChild(log.append("raw_ticks", 0, [text("more")]), {
            startImmediately: true
          })
          assert.strictEqual((yield* log.bounds("raw_ticks", 0)).end, capacity)
          yield* Fiber.interrupt(reader)
          yield* Fiber.join(blocked)
        })
      )

      test(
        "drops the oldest dead letters at their capacity and never blocks on them",
        Effect.gen(function* () {
          const log = yield* TickLog
          for (let i = 0; i < 5; i++) yield* log.append("raw_ticks_dlq", 0, numbered(i * 5, 5))
          assert.deepStrictEqual(yield* log.bounds("raw_ticks_dlq", 0), { start: 15, end: 25 })
        })
      )
    }
  })
}
