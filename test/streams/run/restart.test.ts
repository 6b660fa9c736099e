/** A partition that fails, whatever of, is started again alone: the others go on, and it is named until it runs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric, References, Result, Stream } from "effect"
import * as MemoryCheckpoints from "../../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../../../src/layers/memory/MemoryClaims.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import * as MemoryRecentQuotes from "../../../src/layers/memory/MemoryRecentQuotes.ts"
import * as MemoryRing from "../../../src/layers/memory/MemoryRing.ts"
import { readSettings } from "../../../src/schema/Settings.ts"
import { encodeTick } from "../../../src/schema/TickJson.ts"
import { broadcast } from "../../../src/streams/fanOut/broadcast.ts"
import { type AssignedPartition, TickLog } from "../../../src/streams/log/TickLog.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { runProcess } from "../../../src/streams/process/runProcess.ts"
import { Drain } from "../../../src/streams/run/Drain.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { writeArchive } from "../../../src/streams/sinks/writeArchive.ts"
import { writeRecentTicks } from "../../../src/streams/sinks/writeRecentTicks.ts"
import { writeStore } from "../../../src/streams/sinks/writeStore.ts"
import { makeTick, OPEN } from "../../contract/ticks.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"

const PARTITIONS = 3
const BROKEN = 1
const COUNT = 20
const settings = Result.getOrThrow(readSettings({ STORE_FLUSH_MS: "10", ARCHIVE_FLUSH_MS: "1000" }))

/** The log, of which one partition fails for a few starts: with a defect, which nobody reckoned with. */
const failing = (fails: { left: number }) =>
  Layer.effect(
    TickLog,
    Effect.map(TickLog, (log) => {
      const broken: ReturnType<AssignedPartition["read"]> = Stream.suspend(() => {
        throw new Error("a bug")
      })
      const orBroken = <S extends ReturnType<AssignedPartition["read"]>>(partition: number, stream: S) =>
        Stream.suspend(
          (): ReturnType<AssignedPartition["read"]> => (partition === BROKEN && fails.left-- > 0 ? broken : stream)
        )
      return TickLog.of({
        ...log,
        read: (topic, partition, from) => orBroken(partition, log.read(topic, partition, from)),
        assignments: (group, topic) =>
          Stream.map(
            log.assignments(group, topic),
            (assigned): AssignedPartition => ({
              ...assigned,
              read: (from, until) => orBroken(assigned.partition, assigned.read(from, until))
            })
          )
      })
    })
  ).pipe(
    Layer.provide(
      MemoryLog.layer({ partitions: PARTITIONS, capacity: 1000, dlqCapacity: 10, retained: 1000, batch: 5 })
    )
  )

const normalized = (partition: number) =>
  Array.from({ length: COUNT }, (_, n) => {
    const tick = makeTick({
      instrument_token: 1 + partition,
      exchange_ts: OPEN + n,
      position: n + 1,
      source: ["r", n, 0]
    })
    return { key: null, value: Buffer.from(encodeTick(tick)) }
  })

/** What each partition got through, by its counters or its commits. */
const taken = (stage: string) =>
  Effect.map(Metric.snapshot, (metrics) =>
    metrics
      .filter(({ id, attributes }) => id === "topology_stage_sent_events_total" && attributes?.stage === stage)
      .reduce((sum, { state }) => sum + Number((state as { readonly count: number }).count), 0)
  )

const degraded = Effect.gen(function* () {
  return (yield* (yield* Readiness).report).degraded
})

const archive = Layer.succeed(Archive, {
  begun: () => Effect.undefined,
  write: () => Effect.void,
  read: () => Stream.empty
} as unknown as Archive["Service"])

const parts = {
  store: { stage: "follow-store", run: writeStore(settings) },
  ring: { stage: "follow-ring", run: writeRecentTicks(settings) },
  archive: { stage: "follow-archive", run: writeArchive(settings) },
  server: { stage: "follow-server", run: broadcast({ begin: () => {}, take: () => {} }) }
} as const

describe("a partition that fails", () => {
  for (const [name, { stage, run }] of Object.entries(parts)) {
    it.live(`of ${name} is started again alone, and named until it has run for a while`, () => {
      const fails = { left: Number.POSITIVE_INFINITY }
      return Effect.gen(function* () {
        const log = yield* TickLog
        for (let p = 0; p < PARTITIONS; p++) yield* log.append("normalized_ticks", p, normalized(p))
        const fiber = yield* Effect.forkChild(run as Effect.Effect<unknown, unknown, never>)
        // The others get through while it fails.
        while ((yield* taken(stage)) < COUNT * (PARTITIONS - 1) || (yield* degraded).length === 0)
          yield* Effect.sleep(1)
        assert.deepStrictEqual(yield* degraded, [`${name} partition ${BROKEN}`])
        fails.left = 0
        while ((yield* taken(stage)) < COUNT * PARTITIONS) yield* Effect.sleep(1)
        assert.strictEqual(yield* taken(stage), COUNT * PARTITIONS)
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* degraded, [])
      }).pipe(
        Effect.provide(
          Layer.fresh(
            Layer.mergeAll(
              failing(fails),
              memoryStore(new Rows(), { write: ({ ticks }) => Effect.succeed({ added: ticks.length }) }),
              MemoryRing.layer({ perInstrument: 100, total: 1000 }),
              MemoryRecentQuotes.layer(),
              archive,
              Readiness.layer,
              Drain.layer
            )
          )
        ),
        Effect.provideService(Metric.MetricRegistry, new Map()),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    })
  }

  it.live("of process is started again alone, with a defect as with an error", () => {
    const fails = { left: Number.POSITIVE_INFINITY }
    return Effect.gen(function* () {
      const log = yield* TickLog
      const now = Date.now() * 1000
      const raw = (sequence_id: number) => ({
        key: null,
        value: Buffer.from(JSON.stringify({ instrument_token: 1, exchange_ts: now, price: 1, sequence_id })),
        headers: { replay: "r.1" }
      })
      for (let p = 0; p < PARTITIONS; p++) {
        yield* log.append(
          "raw_ticks",
          p,
          Array.from({ length: COUNT }, (_, n) => raw(n))
        )
      }
      const fiber = yield* Effect.forkChild(runProcess(settings))
      while ((yield* taken("publish")) < COUNT * (PARTITIONS - 1) || (yield* degraded).length === 0)
        yield* Effect.sleep(1)
      assert.deepStrictEqual(yield* degraded, [`process partition ${BROKEN}`])
      fails.left = 0
      while ((yield* taken("publish")) < COUNT * PARTITIONS) yield* Effect.sleep(1)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* degraded, [])
    }).pipe(
      Effect.provide(
        Layer.fresh(Layer.mergeAll(failing(fails), MemoryClaims.layer(), MemoryCheckpoints.layer, Readiness.layer))
      ),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  })
})
