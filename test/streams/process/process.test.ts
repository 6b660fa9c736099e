import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric, Result, Stream } from "effect"
import * as MemoryCheckpoints from "../../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../../../src/layers/memory/MemoryClaims.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { CacheError, LogError } from "../../../src/schema/Errors.ts"
import { partitionOf } from "../../../src/schema/Partition.ts"
import { decodeQuote } from "../../../src/schema/Quote.ts"
import { readSettings } from "../../../src/schema/Settings.ts"
import { decodeTick } from "../../../src/schema/TickJson.ts"
import { TickLog, type Topic } from "../../../src/streams/log/TickLog.ts"
import { Claims } from "../../../src/streams/ports/Claims.ts"
import { runProcess } from "../../../src/streams/process/runProcess.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"

const settings = Result.getOrThrow(readSettings({}))
const PARTITIONS = 4
const Log = MemoryLog.layer({ partitions: PARTITIONS, capacity: 10_000, dlqCapacity: 100, retained: 10_000, batch: 64 })

/** One time for all: the same number at another time would be another tick. */
const NOW = Date.now() * 1000

const raw = (token: number, sequence_id: number, more: object = {}) => ({
  key: String(token),
  value: Buffer.from(
    JSON.stringify({
      instrument_token: token,
      exchange_ts: NOW,
      price: 100,
      volume: 1,
      sequence_id,
      ...more
    })
  )
})

/** What goes to one partition is there at once: in which arrays it is read does not depend on who is quicker. */
const send = (records: ReadonlyArray<ReturnType<typeof raw>>) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    for (const [partition, own] of Map.groupBy(records, ({ key }) => partitionOf(Number(key), log.partitions))) {
      yield* log.append("raw_ticks", partition, own)
    }
  })

/** Waits until `process` has taken all there is. */
const settled = Effect.gen(function* () {
  const log = yield* TickLog
  yield* Effect.map(log.lag, (groups) => groups.length > 0 && groups.every((g) => g.records === 0)).pipe(
    Effect.repeat({ until: (done) => done })
  )
})

/** All that a topic holds. */
const all = (topic: Topic) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const found = []
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const { start, end } = yield* log.bounds(topic, partition)
      if (end === start) continue
      const arrays = yield* log.read(topic, partition, start).pipe(
        Stream.takeUntil((records) => records[records.length - 1]!.offset === end - 1),
        Stream.runCollect
      )
      for (const record of arrays.flat()) found.push({ ...record, partition })
    }
    return found
  })

const counts = Effect.map(
  Metric.snapshot,
  (metrics) =>
    new Map(
      metrics.map((m) => [
        [m.id, m.attributes?.stage, m.attributes?.reason, m.attributes?.feed].filter((x) => x !== undefined).join(" "),
        Number((m.state as { count?: number; value?: number }).count ?? (m.state as { value?: number }).value)
      ])
    )
)

const live = (
  title: string,
  body: Effect.Effect<void, unknown, TickLog>,
  claims: Layer.Layer<Claims> = MemoryClaims.layer(),
  log: Layer.Layer<TickLog> = Log
) =>
  it.live(title, () =>
    Effect.gen(function* () {
      yield* Effect.forkScoped(runProcess(settings))
      yield* body
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.fresh(Layer.mergeAll(log, claims, MemoryCheckpoints.layer, Readiness.layer))),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )

describe("the group process on the embedded log", () => {
  live(
    "publishes partition p of raw_ticks as partition p of normalized_ticks, sources rising",
    Effect.gen(function* () {
      const tokens = [1, 2, 3, 4, 5, 6, 7, 8]
      yield* send(Array.from({ length: 400 }, (_, i) => raw(tokens[i % 8]!, 1 + Math.floor(i / 8))))
      yield* settled
      const found = yield* all("normalized_ticks")
      assert.strictEqual(found.length, 400)
      const last = new Map<number, number>()
      for (const { key, value, partition } of found) {
        const tick = decodeTick(value!)!
        assert.strictEqual(key, String(tick.instrument_token))
        assert.strictEqual(partition, partitionOf(tick.instrument_token, PARTITIONS))
        assert.isAbove(tick.source[1], last.get(partition) ?? -1)
        last.set(partition, tick.source[1])
      }
    })
  )

  live(
    "puts what cannot go on into the DLQ with its reason and bytes, and closes the account of every stage",
    Effect.gen(function* () {
      const bad = { key: "1", value: Buffer.from(`{"instrument_token":1,"exchange_ts":"yesterday","price":1}`) }
      yield* send([raw(1, 1), raw(1, 1), bad, raw(1, 2), raw(1, 5_000_000), raw(1, 3, { price: "-" })])
      yield* settled
      const dead = yield* all("raw_ticks_dlq")
      assert.deepStrictEqual(
        dead.map((d) => [d.headers?.offset, d.headers?.reason?.slice(0, 12)]),
        [
          ["2", "exchange_ts:"],
          ["4", "sequence_id:"],
          ["5", "price: expec"]
        ]
      )
      assert.strictEqual(Buffer.from(dead[0]!.value!).toString(), bad.value.toString())
      const figures = yield* counts
      for (const stage of ["decode", "normalize", "deduplicate", "sequence", "publish"]) {
        let discarded = 0
        for (const [name, n] of figures) {
          if (name.startsWith(`topology_stage_discarded_events_total ${stage} `)) discarded += n
        }
        const received = figures.get(`topology_stage_received_events_total ${stage}`)!
        assert.strictEqual(received, figures.get(`topology_stage_sent_events_total ${stage}`)! + discarded, stage)
      }
      assert.strictEqual(figures.get("topology_stage_received_events_total decode"), 6)
      assert.strictEqual(figures.get("topology_stage_sent_events_total publish"), 2)
      assert.strictEqual(figures.get("topology_feed_wins_total dma"), 2)
    })
  )

  live(
    "publishes quotes right after their ticks, counts them apart, and keeps them where the record is sent again",
    Effect.gen(function* () {
      const quote = (oi: number) => ({ quote: { bid: [[99.95, 10, 2]], oi } })
      const alone = (fields: object) => ({
        key: "1",
        value: Buffer.from(JSON.stringify({ instrument_token: 1, exchange_ts: NOW, ...fields }))
      })
      yield* send([
        raw(1, 1, quote(1)),
        raw(1, 1, quote(2)),
        alone(quote(2)),
        alone(quote(3)),
        alone({ ...quote(4), exchange_ts: NOW - 1 }),
        alone({ quote: { bid: [[99.95, -10, 2]] } })
      ])
      // What a producer with another partitioner wrote.
      const log = yield* TickLog
      yield* log.append("raw_ticks", (partitionOf(1, PARTITIONS) + 1) % PARTITIONS, [raw(1, 2, quote(5))])
      yield* settled
      const found = yield* all("normalized_ticks")
      assert.deepStrictEqual(
        found.map(({ headers, value }) =>
          headers?.kind === "quote" ? ["quote", decodeQuote(value!)!.oi] : ["tick", decodeTick(value!)!.sequence_id]
        ),
        [
          ["tick", 1],
          ["quote", 1],
          ["quote", 2],
          ["quote", 3],
          ["tick", 2],
          ["quote", 5]
        ]
      )
      assert.deepStrictEqual(
        (yield* all("raw_ticks_dlq")).map(({ headers }) => headers!.reason!.slice(0, 16)),
        ["quote.bid.0.1: e"]
      )
      const figures = yield* counts
      const figure = (name: string) => figures.get(`topology_stage_${name}`)
      assert.deepStrictEqual([figure("received_events_total quote"), figure("sent_events_total quote")], [6, 4])
      assert.deepStrictEqual(
        ["unchanged", "outdated", "future"].map((reason) => figure(`discarded_events_total quote ${reason}`)),
        [1, 1, undefined]
      )
      assert.deepStrictEqual([figure("received_events_total publish"), figure("sent_events_total publish")], [2, 2])
    })
  )

  live(
    "goes on without claims, and says that it does",
    Effect.gen(function* () {
      yield* send([raw(1, 1), raw(1, 2)])
      yield* settled
      assert.strictEqual((yield* all("normalized_ticks")).length, 2)
      assert.strictEqual((yield* counts).get("topology_claims_degraded"), 1)
    }),
    Layer.succeed(Claims, {
      claim: () => Effect.fail(new CacheError({ operation: "claim", message: "nobody there" }))
    })
  )

  live(
    "cuts a dead letter that the DLQ does not take whole, and goes on",
    Effect.gen(function* () {
      const huge = { key: "1", value: Buffer.alloc(2_000_000, 32) }
      const long = { key: "1".padEnd(1_500_000), value: Buffer.from("[") }
      yield* send([raw(1, 1), huge, { key: "1", value: Buffer.from("{") }, long, raw(1, 2)])
      yield* settled
      assert.strictEqual((yield* all("normalized_ticks")).length, 2)
      const dead = yield* all("raw_ticks_dlq")
      assert.deepStrictEqual(
        dead.map(({ key, value, headers }) => [headers?.offset, headers?.bytes, value!.length, key!.length]),
        [
          ["1", "2000000", 524_288, 1],
          ["2", undefined, 1, 1],
          ["3", "1", 1, 1024]
        ]
      )
    }),
    MemoryClaims.layer(),
    Layer.effect(
      TickLog,
      Effect.map(TickLog, (log) => ({
        ...log,
        append: (topic, partition, records, incarnation) =>
          topic === "raw_ticks_dlq" &&
          records.some(({ key, value }) => (key?.length ?? 0) + (value?.length ?? 0) > 1_000_000)
            ? new LogError({
                operation: "append",
                topic,
                partition,
                outcome: "failed",
                message: "a record is above the largest allowed",
                reason: "too_large"
              })
            : log.append(topic, partition, records, incarnation)
      }))
    ).pipe(Layer.provide(Log))
  )
})
