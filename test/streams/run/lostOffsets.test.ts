import { assert, describe, it } from "@effect/vitest"
import { Admin } from "@platformatic/kafka"
import { Effect, Fiber, Latch, Layer, Logger, Metric, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryCheckpoints from "../../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../../../src/layers/memory/MemoryClaims.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import * as MemoryRecentQuotes from "../../../src/layers/memory/MemoryRecentQuotes.ts"
import { LogError } from "../../../src/schema/Errors.ts"
import { readSettings, type Settings } from "../../../src/schema/Settings.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { decodeTick, encodeTick } from "../../../src/schema/TickJson.ts"
import { type AssignedPartition, type NewRecord, TickLog, type Topic } from "../../../src/streams/log/TickLog.ts"
import { Archive, type ArchiveRange } from "../../../src/streams/ports/Archive.ts"
import { Claims } from "../../../src/streams/ports/Claims.ts"
import { RecentTicks } from "../../../src/streams/ports/RecentTicks.ts"
import { runProcess } from "../../../src/streams/process/runProcess.ts"
import { Drain } from "../../../src/streams/run/Drain.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { writeArchive } from "../../../src/streams/sinks/writeArchive.ts"
import { writeRecentTicks } from "../../../src/streams/sinks/writeRecentTicks.ts"
import { writeStore } from "../../../src/streams/sinks/writeStore.ts"
import { makeTick, OPEN } from "../../contract/ticks.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { brokers, ENGINES, kafkaLayer, kafkaMissing, kafkaOptions } from "../../support/kafka.ts"

const POLICIES = ["fail", "continue"] as const
const settingsOf = (policy: (typeof POLICIES)[number]): Settings =>
  Result.getOrThrow(readSettings({ ON_LOST_OFFSETS: policy, ARCHIVE_FLUSH_MS: "50", STORE_FLUSH_MS: "10" }))

const PARTITIONS = 2
const COUNT = 100
/** What the log still holds where retention has been at work. */
const RETAINED = 20
/** Where the group was to go on. */
const NEXT = 40

type Group = "process" | "store" | "recent" | "archive"

/** The embedded log; the group finds itself at `NEXT` in partition 0, whatever the log holds. */
const overtaken = Layer.effect(
  TickLog,
  Effect.map(TickLog, (log) =>
    TickLog.of({
      ...log,
      assignments: (group, topic) =>
        Stream.map(log.assignments(group, topic), (assigned): AssignedPartition => {
          const committed = assigned.partition === 0 ? { offset: NEXT, metadata: "null" } : undefined
          return { ...assigned, committed: assigned.committed ?? committed }
        })
    })
  )
).pipe(
  Layer.provide(
    MemoryLog.layer({ partitions: PARTITIONS, capacity: 10_000, dlqCapacity: 10, retained: RETAINED, batch: 7 })
  )
)

/** Tokens of the two partitions of the embedded log. */
const TOKENS = [2, 1]

/** Of today, the day whose state is lost. */
const NOW = Date.now() * 1000

const rawOf = (token: number, sequence_id: number): NewRecord => ({
  key: String(token),
  value: Buffer.from(
    JSON.stringify({ instrument_token: token, exchange_ts: NOW + sequence_id, price: 1, volume: 1, sequence_id })
  )
})

const normalizedOf = (token: number, sequence_id: number): NewRecord => ({
  key: String(token),
  value: Buffer.from(
    encodeTick(
      makeTick({
        instrument_token: token,
        sequence_id,
        exchange_ts: OPEN + sequence_id,
        position: sequence_id + 1,
        source: ["raw-1", sequence_id, 0]
      })
    )
  )
})

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

/** What a sink took, and what it may wait for before it takes more. */
class Taken {
  readonly ticks: Array<Pick<Tick, "instrument_token" | "sequence_id">> = []
  readonly ranges: Array<ArchiveRange> = []
  readonly open = Latch.makeUnsafe(true)
  begun: ArchiveRange | undefined

  add(ticks: ReadonlyArray<Pick<Tick, "instrument_token" | "sequence_id">>): Effect.Effect<void> {
    return Effect.andThen(
      Effect.sync(() => {
        this.ticks.push(...ticks)
      }),
      this.open.await
    )
  }

  of(token: number): ReadonlyArray<number> {
    return this.ticks.filter((tick) => tick.instrument_token === token).map((tick) => tick.sequence_id)
  }
}

const sinks = (taken: Taken) =>
  Layer.mergeAll(
    memoryStore(new Rows(), {
      write: ({ ticks }) => Effect.as(taken.add(ticks), { added: ticks.length }),
      bookmarks: (incarnation) => Effect.succeed([{ partition: 0, incarnation, offset: NEXT, mark: undefined }])
    }),
    MemoryRecentQuotes.layer(),
    Layer.succeed(RecentTicks, {
      append: (ticks) => taken.add(ticks),
      last: () => Effect.succeed([]),
      after: () => Effect.succeed({ ticks: [], complete: true })
    }),
    Layer.succeed(Archive, {
      begun: (_incarnation, partition, first) =>
        Effect.sync(() =>
          taken.begun?.partition === partition && taken.begun.first === first ? taken.begun : undefined
        ),
      write: (range, ticks) => {
        taken.ranges.push(range)
        const { instrument_token: tokens, sequence_id: ids } = ticks
        return Effect.as(
          taken.add(Array.from(ids, (sequence_id, i) => ({ instrument_token: tokens[i]!, sequence_id }))),
          0
        )
      },
      read: () => Stream.empty,
      quotes: () => Stream.empty,
      quotePage: () => Effect.succeed([]),
      quotesByTime: () => Effect.succeed([]),
      quoteTokens: () => Effect.succeed([]),
      ticks: () => Effect.succeed([]),
      minutes: () => Effect.succeed([]),
      add: () => Effect.void,
      compact: () => Effect.succeed(0),
      newestDays: () => Effect.succeed([]),
      list: () => Effect.succeed({ objects: [], unreadable: [] }),
      object: () => Effect.undefined,
      counts: () => Effect.succeed(new Map())
    }),
    Drain.layer
  )

const run = (group: Group, settings: Settings) => {
  switch (group) {
    case "process":
      return runProcess(settings)
    case "store":
      return writeStore(settings)
    case "recent":
      return writeRecentTicks(settings)
    case "archive":
      return writeArchive(settings)
  }
}

const topicOf = (group: Group): Topic => (group === "process" ? "raw_ticks" : "normalized_ticks")

const lostRecords = Effect.map(Metric.snapshot, (metrics) =>
  metrics
    .filter(({ id }) => id === "topology_log_lost_records_total")
    .map(({ attributes, state }) => [
      `${attributes?.group} ${attributes?.topic}-${attributes?.partition}`,
      Number((state as { count: number }).count)
    ])
)

const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(
    Effect.tap(() => Effect.sleep("2 millis")),
    Effect.repeat({ until: (done) => done })
  )

const degraded = Effect.gen(function* () {
  return (yield* (yield* Readiness).report).degraded
})

/** The services of one test, with its own figures and lines. */
const live = <R>(
  title: string,
  log: Layer.Layer<TickLog, unknown>,
  body: (taken: Taken, lines: ReadonlyArray<string>) => Effect.Effect<void, unknown, R>,
  on: typeof it.live = it.live
) => {
  const taken = new Taken()
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => {
    lines.push(String(message))
  })
  const services = sinks(taken).pipe(
    Layer.provideMerge(
      Layer.mergeAll(log, MemoryClaims.layer(), MemoryCheckpoints.layer, Readiness.layer, Logger.layer([logger]))
    )
  )
  on(title, () =>
    Effect.suspend(() => body(taken, lines) as Effect.Effect<void, unknown, never>).pipe(
      Effect.provide(Layer.fresh(services)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )
}

const fill = (topic: Topic, of: (token: number, sequence_id: number) => NewRecord) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    for (let partition = 0; partition < PARTITIONS; partition++) {
      for (let at = 0; at < COUNT; at += 10) {
        const some = numbers(at, at + 10).map((id) => of(TOKENS[partition]!, id))
        yield* log.append(topic, partition, some)
      }
    }
  })

/** The numbers of one instrument in normalized_ticks. */
const published = (token: number) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const found: Array<number> = []
    for (let partition = 0; partition < log.partitions; partition++) {
      const { start, end } = yield* log.bounds("normalized_ticks", partition)
      if (start === end) continue
      const records = yield* log.read("normalized_ticks", partition, start).pipe(
        Stream.takeUntil((array) => array[array.length - 1]!.offset === end - 1),
        Stream.runCollect
      )
      for (const { value } of records.flat()) {
        const tick = decodeTick(value!)!
        if (tick.instrument_token === token) found.push(tick.sequence_id)
      }
    }
    return found
  })

const start = COUNT - RETAINED
const LOST = start - NEXT

describe("records that retention removed before a group took them, on the embedded log", () => {
  for (const group of ["process", "store", "recent", "archive"] as const) {
    const topic = topicOf(group)
    const tookOf = (taken: Taken, token: number) =>
      group === "process" ? published(token) : Effect.sync(() => taken.of(token))
    /** Of partition 1 the group takes all that is held, whatever becomes of partition 0. */
    const others = (taken: Taken) => until(Effect.map(tookOf(taken, TOKENS[1]!), (ids) => ids.length === RETAINED))
    const what = `${group}: ${topic}-0 was to go on at offset ${NEXT}, and the log starts at ${start}: ${LOST} records are lost to it`

    live(`${group} stops in that partition (ON_LOST_OFFSETS=fail), and only there`, overtaken, (taken, lines) =>
      Effect.gen(function* () {
        yield* fill(topic, group === "process" ? rawOf : normalizedOf)
        const fiber = yield* Effect.forkChild(run(group, settingsOf("fail")))
        yield* others(taken)
        yield* until(Effect.map(degraded, (names) => names.length > 0))
        assert.deepStrictEqual(yield* degraded, [`${what}; stopped (ON_LOST_OFFSETS=fail)`])
        assert.deepStrictEqual(yield* tookOf(taken, TOKENS[0]!), [])
        assert.deepStrictEqual(yield* lostRecords, [
          [`${group} ${topic}-0`, LOST],
          [`${group} ${topic}-1`, 0]
        ])
        assert.deepStrictEqual(
          lines.filter((line) => line.includes("was to go on")),
          [
            `${what}. The partition stops (ON_LOST_OFFSETS=fail); a start with ON_LOST_OFFSETS=continue goes on from ${start}`
          ]
        )
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* degraded, [])
      })
    )

    live(`${group} goes on where the log starts (ON_LOST_OFFSETS=continue), and counts`, overtaken, (taken, lines) =>
      Effect.gen(function* () {
        yield* fill(topic, group === "process" ? rawOf : normalizedOf)
        // In what is gone another numbering may have begun: on such a day a claim decides nothing.
        const claimed = makeTick({ instrument_token: TOKENS[0]!, exchange_ts: NOW + 85, sequence_id: 85 })
        yield* (yield* Claims).claim({ incarnation: "elsewhere", partition: 0, through: 9 }, [claimed])
        const fiber = yield* Effect.forkChild(run(group, settingsOf("continue")))
        yield* others(taken)
        yield* until(Effect.map(tookOf(taken, TOKENS[0]!), (ids) => ids.length === RETAINED))
        assert.deepStrictEqual(yield* tookOf(taken, TOKENS[0]!), numbers(start, COUNT))
        assert.deepStrictEqual(yield* degraded, [])
        assert.deepStrictEqual(yield* lostRecords, [
          [`${group} ${topic}-0`, LOST],
          [`${group} ${topic}-1`, 0]
        ])
        assert.deepStrictEqual(
          lines.filter((line) => line.includes("was to go on")),
          [`${what}. It goes on from ${start} (ON_LOST_OFFSETS=continue)`]
        )
        yield* Fiber.interrupt(fiber)
      })
    )
  }

  live("an archive range begun over what is gone is left: the next begins where the log does", overtaken, (taken) =>
    Effect.gen(function* () {
      yield* fill("normalized_ticks", normalizedOf)
      const log = yield* TickLog
      taken.begun = { incarnation: log.incarnation("normalized_ticks"), partition: 0, first: NEXT, last: start + 5 }
      const fiber = yield* Effect.forkChild(run("archive", settingsOf("continue")))
      yield* until(Effect.sync(() => taken.of(TOKENS[0]!).length === RETAINED))
      assert.strictEqual(taken.ranges.find(({ partition }) => partition === 0)!.first, start)
      yield* Fiber.interrupt(fiber)
    })
  )

  const refusals = { left: 2 }
  live(
    "a partition that fails and is recovered again counts what was lost once",
    Layer.effect(
      TickLog,
      Effect.map(TickLog, (log) =>
        TickLog.of({
          ...log,
          append: (topic, partition, records) =>
            topic === "normalized_ticks" && refusals.left-- > 0
              ? Effect.fail(
                  new LogError({ operation: "append", topic, partition, outcome: "failed", message: "refused" })
                )
              : log.append(topic, partition, records)
        })
      )
    ).pipe(Layer.provide(overtaken)),
    (_taken, lines) =>
      Effect.gen(function* () {
        const log = yield* TickLog
        for (let at = 0; at < COUNT; at += 10) {
          const some = numbers(at, at + 10).map((id) => rawOf(TOKENS[0]!, id))
          yield* log.append("raw_ticks", 0, some)
        }
        const fiber = yield* Effect.forkChild(run("process", settingsOf("continue")))
        yield* until(Effect.map(published(TOKENS[0]!), (ids) => ids.length === RETAINED))
        assert.isBelow(refusals.left, 0)
        assert.strictEqual(lines.filter((line) => line.includes("was to go on")).length, 1)
        assert.deepStrictEqual((yield* lostRecords)[0], ["process raw_ticks-0", LOST])
        // It failed within the last minute.
        assert.deepStrictEqual(yield* degraded, ["process partition 0"])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* degraded, [])
      })
  )

  live("what is published beyond the commit was not lost", overtaken, (_taken, lines) =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* fill("raw_ticks", rawOf)
      const incarnation = log.incarnation("raw_ticks")
      const last = makeTick({ instrument_token: TOKENS[0]!, source: [incarnation, start + 4, 0] })
      yield* log.append("normalized_ticks", 0, [{ key: "2", value: Buffer.from(encodeTick(last)) }])
      const fiber = yield* Effect.forkChild(run("process", settingsOf("fail")))
      yield* until(Effect.map(published(TOKENS[0]!), (ids) => ids.length === RETAINED - 5 + 1))
      assert.deepStrictEqual(yield* degraded, [])
      assert.isFalse(lines.some((line) => line.includes("was to go on")))
      yield* Fiber.interrupt(fiber)
    })
  )
})

describe("a log that ends before the place where a group was to go on, since a broker lost its newest", () => {
  const HELD = 30
  const what = (group: Group) =>
    `${group}: ${topicOf(group)}-0 was to go on at offset ${NEXT}, and the log ends at ${HELD}: ` +
    `a broker lost its newest, and ${NEXT - HELD} records that take their numbers are lost to it`
  const append = (group: Group, partition: number, from: number, to: number) =>
    Effect.flatMap(TickLog, (log) => {
      const of = group === "process" ? rawOf : normalizedOf
      return log.append(
        topicOf(group),
        partition,
        numbers(from, to).map((id) => of(TOKENS[partition]!, id))
      )
    })
  const tookOf = (group: Group, taken: Taken, token: number) =>
    group === "process" ? published(token) : Effect.sync(() => taken.of(token))
  /** Lets time pass until it is so. */
  const pass = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
    TestClock.adjust("500 millis").pipe(
      Effect.andThen(condition),
      Effect.repeat({ until: (done) => done, times: 200 }),
      Effect.map((done) => assert.isTrue(done))
    )

  for (const group of ["process", "store", "recent", "archive"] as const) {
    for (const policy of POLICIES) {
      live(
        `${group}: ${policy === "fail" ? "that partition stops, and only that one" : "it goes on once the log has come so far, and counts"} (ON_LOST_OFFSETS=${policy})`,
        overtaken,
        (taken, lines) =>
          Effect.gen(function* () {
            yield* TestClock.setTime(Date.now())
            yield* append(group, 0, 0, HELD)
            yield* append(group, 1, 0, HELD)
            const fiber = yield* Effect.forkChild(run(group, settingsOf(policy)))
            const isStop = policy === "fail"
            const named = isStop ? `${what(group)}; stopped (ON_LOST_OFFSETS=fail)` : what(group)
            yield* pass(Effect.map(degraded, (names) => names.length > 0))
            assert.deepStrictEqual(yield* degraded, [named])
            // Those of partition 1 go on meanwhile.
            yield* append(group, 1, HELD, HELD + 5)
            yield* pass(Effect.map(tookOf(group, taken, TOKENS[1]!), (ids) => ids.at(-1) === HELD + 4))
            yield* append(group, 0, HELD, NEXT + 5)
            if (isStop) yield* TestClock.adjust("1 minute")
            else yield* pass(Effect.map(tookOf(group, taken, TOKENS[0]!), (ids) => ids.length > 0))
            const expected = isStop ? [] : numbers(NEXT, NEXT + 5)
            assert.deepStrictEqual(yield* tookOf(group, taken, TOKENS[0]!), expected)
            assert.deepStrictEqual(yield* degraded, isStop ? [named] : [])
            assert.deepStrictEqual(yield* lostRecords, [
              [`${group} ${topicOf(group)}-0`, NEXT - HELD],
              [`${group} ${topicOf(group)}-1`, 0]
            ])
            assert.strictEqual(lines.filter((line) => line.includes("was to go on")).length, 1)
            yield* Fiber.interrupt(fiber)
            assert.deepStrictEqual(yield* degraded, [])
          }),
        it.effect
      )
    }
  }

  live(
    "nothing is lost where the log has come so far a moment later, as after a change of leader",
    overtaken,
    (taken, lines) =>
      Effect.gen(function* () {
        yield* append("store", 0, 0, HELD)
        let looks = 0
        const log = yield* TickLog
        const looking = TickLog.of({
          ...log,
          bounds: (topic, partition) =>
            Effect.tap(log.bounds(topic, partition), ({ end }) =>
              Effect.sync(() => {
                if (partition === 0 && end < NEXT) looks++
              })
            )
        })
        const fiber = yield* Effect.forkChild(Effect.provideService(writeStore(settingsOf("fail")), TickLog, looking))
        yield* pass(Effect.sync(() => looks > 4))
        yield* append("store", 0, HELD, NEXT + 5)
        yield* pass(Effect.sync(() => taken.of(TOKENS[0]!).length === 5))
        assert.deepStrictEqual(taken.of(TOKENS[0]!), numbers(NEXT, NEXT + 5))
        assert.deepStrictEqual(yield* degraded, [])
        assert.deepStrictEqual((yield* lostRecords)[0], ["store normalized_ticks-0", 0])
        assert.strictEqual(lines.filter((line) => line.includes("it has reached it meanwhile")).length, 1)
        yield* Fiber.interrupt(fiber)
      }),
    it.effect
  )
})

/** Removes what a partition holds below an offset, as retention does. */
const remove = (topic: string, partition: number, offset: number) =>
  Effect.gen(function* () {
    const client = yield* Effect.acquireRelease(
      Effect.sync(
        () => new Admin({ clientId: "test", bootstrapBrokers: brokers!.split(","), retries: 10, retryDelay: 100 })
      ),
      (open) => Effect.promise(() => open.close())
    )
    yield* Effect.promise(() =>
      client.deleteRecords({ topics: [{ name: topic, partitions: [{ partition, offset: BigInt(offset) }] }] })
    )
  }).pipe(Effect.scoped)

for (const engine of ENGINES) {
  const title = `records that retention removed before a group took them, on Kafka through ${engine}`
  describe.skipIf(kafkaMissing !== undefined)(kafkaMissing === undefined ? title : `${title} (${kafkaMissing})`, () => {
    const options = () => kafkaOptions({ engine, partitions: 1, fetchBytes: 1024, batch: 10 })

    for (const policy of POLICIES) {
      const given = options()
      live(`process, where they were removed while it was away (${policy})`, kafkaLayer(given), () =>
        Effect.gen(function* () {
          const log = yield* TickLog
          const send = (from: number, to: number) =>
            log.append(
              "raw_ticks",
              0,
              numbers(from, to).map((id) => rawOf(1, id))
            )
          yield* send(0, 40)
          const first = yield* Effect.forkChild(run("process", settingsOf(policy)))
          const processed = Effect.map(log.lag, (groups) =>
            groups.every(({ group, records }) => group !== "process" || records === 0)
          )
          yield* until(processed)
          yield* Fiber.interrupt(first)
          yield* send(40, 100)
          yield* remove(`${given.prefix}raw_ticks`, 0, 70)
          // The state that the checkpoint holds stands at what is gone.
          const second = yield* Effect.forkChild(run("process", settingsOf(policy)))
          if (policy === "fail") {
            yield* until(Effect.map(degraded, (names) => names.length > 0))
            assert.match((yield* degraded)[0]!, /at offset 40, and the log starts at 70: 30 records are lost/)
            assert.deepStrictEqual(yield* published(1), numbers(0, 40))
          } else {
            yield* until(Effect.map(published(1), (ids) => ids.length === 70))
            assert.deepStrictEqual(yield* published(1), [...numbers(0, 40), ...numbers(70, 100)])
            yield* until(processed)
          }
          assert.deepStrictEqual(yield* lostRecords, [["process raw_ticks-0", 30]])
          yield* Fiber.interrupt(second)
        })
      )
    }

    for (const policy of POLICIES) {
      const given = options()
      live(`a sink that is overtaken while it waits (${policy})`, kafkaLayer(given), (taken) =>
        Effect.gen(function* () {
          const log = yield* TickLog
          for (let at = 0; at < COUNT; at += 10) {
            yield* log.append(
              "normalized_ticks",
              0,
              numbers(at, at + 10).map((id) => normalizedOf(1, id))
            )
          }
          yield* taken.open.close
          const fiber = yield* Effect.forkChild(run("recent", settingsOf(policy)))
          yield* until(Effect.sync(() => taken.ticks.length > 0))
          yield* remove(`${given.prefix}normalized_ticks`, 0, 80)
          yield* taken.open.open
          const lost = Effect.map(lostRecords, (figures) => figures[0]![1] as number)
          yield* until(Effect.map(lost, (count) => count > 0))
          // What it had fetched before it still took.
          const before = taken.of(1).filter((id) => id < 80)
          assert.deepStrictEqual(before, numbers(0, before.length))
          assert.strictEqual(yield* lost, 80 - before.length)
          if (policy === "fail") {
            yield* until(Effect.map(degraded, (names) => names.length > 0))
            assert.match((yield* degraded)[0]!, new RegExp(`${80 - before.length} records are lost to it; stopped`))
            assert.strictEqual(taken.of(1).length, before.length)
          } else {
            yield* until(Effect.sync(() => taken.of(1).length === before.length + 20))
            assert.deepStrictEqual(taken.of(1), [...before, ...numbers(80, 100)])
          }
          yield* Fiber.interrupt(fiber)
        })
      )
    }
  })
}
