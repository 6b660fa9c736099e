import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric, Stream } from "effect"
import { encodeQuote, type Quote, unknownQuote } from "../../../src/schema/Quote.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { encodeTick } from "../../../src/schema/TickJson.ts"
import { type FollowOptions, follow } from "../../../src/streams/log/follow.ts"
import type { LogRecord } from "../../../src/streams/log/TickLog.ts"

const tick = (offset: number, position: number, more: Partial<Tick> = {}): Tick => ({
  instrument_token: 1,
  exchange_ts: 1_768_448_700_000_000 + offset,
  price: 1.05,
  volume: 1,
  sequence_id: position,
  status: "LIVE",
  gap_from: 0,
  session: 0,
  sequencing: "contiguous",
  epoch: 7,
  position,
  feed: "dma",
  received_ts: 1_768_448_700_000_000,
  source: ["raw", offset, 0],
  old: false,
  ...more
})

const record = (offset: number, of: Tick, headers?: Record<string, string>): LogRecord => ({
  offset,
  recordTime: 0,
  key: "1",
  value: Buffer.from(encodeTick(of)),
  headers
})

const quote = (offset: number, more: Partial<Quote> = {}): Quote => ({
  ...unknownQuote(),
  bid: [[1.05, 3, 1]],
  instrument_token: 1,
  exchange_ts: 1_768_448_700_000_000 + offset,
  feed: "snapshot",
  received_ts: 1_768_448_700_000_000,
  source: ["raw", offset, 1],
  old: false,
  ...more
})

const quoteRecord = (offset: number, of: Quote, headers: Record<string, string> = {}): LogRecord => ({
  ...record(offset, tick(0, 0)),
  value: Buffer.from(encodeQuote(of)),
  headers: { kind: "quote", ...headers }
})

/** A raw topic with its incarnations one after the other, each known from the look on that tells of it. */
const rawLog = (
  end: number,
  ...lives: ReadonlyArray<string>
): FollowOptions["log"] & { readonly looks: () => number } => {
  let looks = 0
  return {
    incarnation: () => lives[0]!,
    latest: () => Effect.sync(() => lives[Math.min(++looks, lives.length - 1)]!),
    bounds: () => Effect.succeed({ start: 0, end }),
    looks: () => looks
  }
}

const run = (records: ReadonlyArray<LogRecord>, more: Partial<FollowOptions> = {}) =>
  Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const batches = yield* Stream.make(records).pipe(
      follow({
        reader: "test",
        partition: 3,
        incarnation: "n",
        bookmark: undefined,
        log: rawLog(1000, "raw"),
        context,
        ...more
      }),
      Stream.runCollect
    )
    const figures = Object.fromEntries(
      (yield* Metric.snapshot).map((m) => [
        [m.id, m.attributes?.stage === "test-quotes" ? "of quotes" : undefined, m.attributes?.reason]
          .filter((part) => part !== undefined)
          .join(" "),
        (m.state as { readonly count?: number }).count
      ])
    )
    return { batch: batches[0]!, figures }
  }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))

describe("a reader of normalized ticks", () => {
  it.effect("takes each tick once, whatever was published again, and says where it stands", () =>
    Effect.gen(function* () {
      const { batch, figures } = yield* run([
        record(10, tick(5, 1)),
        record(11, tick(6, 2)),
        record(12, tick(5, 1)),
        record(13, tick(6, 2)),
        record(14, tick(7, 3))
      ])
      assert.deepStrictEqual(
        batch.ticks.map((t) => t.position),
        [1, 2, 3]
      )
      assert.deepStrictEqual(batch.bookmark, {
        partition: 3,
        incarnation: "n",
        offset: 15,
        mark: { incarnation: "raw", offset: 7, index: 0, left: [] }
      })
      assert.strictEqual(figures["topology_stage_discarded_events_total repeated"], 2)
      assert.strictEqual(figures.topology_order_alarms_total, 0)
    })
  )

  it.effect("counts what is no tick and goes on: a record that another producer wrote stops no sink", () =>
    Effect.gen(function* () {
      const foreign = Buffer.from(`{"instrument_token":1,"source":["x",0,0]}`)
      const { batch, figures } = yield* run([
        record(10, tick(5, 1)),
        { ...record(11, tick(6, 2)), value: foreign },
        record(12, tick(7, 2))
      ])
      assert.deepStrictEqual(
        batch.ticks.map((t) => t.position),
        [1, 2]
      )
      assert.strictEqual(batch.bookmark.offset, 13)
      assert.strictEqual(figures["topology_stage_discarded_events_total undecodable"], 1)
    })
  )

  it.effect("raises an alarm where a position is not the last plus one, but not for a new epoch or an old day", () =>
    Effect.gen(function* () {
      const { figures } = yield* run([
        record(0, tick(0, 1)),
        record(1, tick(1, 3)),
        record(2, tick(2, 1, { epoch: 8 })),
        record(3, tick(3, 9, { epoch: 2, old: true })),
        record(4, tick(4, 2, { epoch: 8 })),
        record(5, tick(5, 3, { epoch: 7 }))
      ])
      assert.strictEqual(figures.topology_order_alarms_total, 2)
    })
  )

  it.effect("keeps a replay's ticks and watermarks apart, in their order", () =>
    Effect.gen(function* () {
      const { batch } = yield* run([
        record(0, tick(0, 1)),
        record(1, tick(1, 1), { replay: "r.1" }),
        {
          offset: 2,
          recordTime: 0,
          key: null,
          value: Buffer.alloc(0),
          headers: { replay: "r.1", watermark: "4", end: "1" }
        },
        record(3, tick(3, 2))
      ])
      assert.strictEqual(batch.ticks.length, 2)
      assert.deepStrictEqual(
        batch.replays.map((r) =>
          "tick" in r ? ["tick", r.run, r.tick.source[1]] : "watermark" in r && ["mark", r.run, r.watermark, r.end]
        ),
        [
          ["tick", "r.1", 1],
          ["mark", "r.1", 4, true]
        ]
      )
    })
  )

  it.effect("counts a record that is no tick, and goes on", () =>
    Effect.gen(function* () {
      const { batch, figures } = yield* run([
        { offset: 0, recordTime: 0, key: null, value: Buffer.from("{") },
        { offset: 1, recordTime: 0, key: null, value: null },
        record(2, tick(2, 1))
      ])
      assert.strictEqual(batch.ticks.length, 1)
      assert.strictEqual(figures["topology_stage_discarded_events_total undecodable"], 2)
    })
  )

  it.effect("gives back every field that was written", () =>
    Effect.gen(function* () {
      const rich = tick(9, 4, {
        status: "STALE",
        gap_from: 2,
        old: true,
        feed: 'a "b"',
        sequence_id: -281474976710655,
        sequencing: "none",
        price: 0.0000001
      })
      const { batch } = yield* run([record(0, rich)])
      assert.deepStrictEqual(batch.ticks[0], rich)
    })
  )

  const FOREIGN = "topology_stage_discarded_events_total foreign"
  const REPEATED = "topology_stage_discarded_events_total repeated"

  it.effect(
    "counts and passes what names another incarnation than the raw topic's, also one that a mark has taken up",
    () =>
      Effect.gen(function* () {
        const records = [
          record(10, tick(5, 1)),
          record(11, tick(0, 9, { source: ["mirrored", 9e15, 0] })),
          record(12, tick(6, 2)),
          record(13, tick(0, 9, { source: ["another", 3, 0] })),
          record(14, tick(7, 3))
        ]
        const log = rawLog(1000, "raw")
        const { batch, figures } = yield* run(records, { log })
        assert.deepStrictEqual(
          batch.ticks.map((t) => t.position),
          [1, 2, 3]
        )
        assert.deepStrictEqual(batch.bookmark.mark, { incarnation: "raw", offset: 7, index: 0, left: [] })
        assert.deepStrictEqual([figures[FOREIGN], figures[REPEATED], log.looks()], [2, undefined, 1])

        const mark = { incarnation: "mirrored", offset: 9e15, index: 0, left: ["raw"] }
        const bookmark = { partition: 3, incarnation: "n", offset: 10, mark }
        const healed = yield* run(records, { bookmark })
        assert.deepStrictEqual(
          healed.batch.ticks.map((t) => t.position),
          [1, 2, 3]
        )
        assert.deepStrictEqual(healed.batch.bookmark.mark?.incarnation, "raw")
      })
  )

  it.effect(
    "counts and passes what names an offset that the raw log has not given, also one that a mark has taken up",
    () =>
      Effect.gen(function* () {
        const records = [
          record(10, tick(5, 1)),
          record(11, tick(0, 9, { source: ["raw", 9e15, 0] })),
          record(12, tick(6, 2))
        ]
        const { batch, figures } = yield* run(records)
        assert.deepStrictEqual(
          batch.ticks.map((t) => t.position),
          [1, 2]
        )
        assert.deepStrictEqual([figures[FOREIGN], figures[REPEATED]], [1, undefined])
        const mark = { incarnation: "raw", offset: 9e15, index: 0, left: [] }
        const healed = yield* run(records, { bookmark: { partition: 3, incarnation: "n", offset: 10, mark } })
        assert.strictEqual(healed.batch.ticks.length, 2)
      })
  )

  it.effect("takes what was published before the raw topic was recreated, and what is published since", () =>
    Effect.gen(function* () {
      const records = [
        record(10, tick(900, 1)),
        record(11, tick(0, 1, { source: ["anew", 0, 0], epoch: 8 })),
        record(12, tick(901, 2)),
        record(13, tick(1, 2, { source: ["anew", 1, 0], epoch: 8 }))
      ]
      // It is recreated while it is read; or it was before this process started.
      for (const log of [rawLog(1000, "raw", "anew"), rawLog(1000, "anew")]) {
        const { batch } = yield* run(records, { log })
        assert.deepStrictEqual(
          batch.ticks.map((t) => [t.source[0], t.source[1]]),
          [
            ["raw", 900],
            ["anew", 0],
            ["anew", 1]
          ]
        )
      }
    })
  )

  it.effect("takes nothing of another incarnation that was written long after the raw topic's was known", () =>
    Effect.gen(function* () {
      const late = { ...record(10, tick(5, 1, { source: ["mirrored", 5, 0] })), recordTime: 301_000_000 }
      const { batch, figures } = yield* run([late])
      assert.deepStrictEqual([batch.ticks.length, batch.bookmark.mark, figures[FOREIGN]], [0, undefined, 1])
    })
  )

  it.effect("asks the log nothing where sources are as they should be, and seldom as it grows", () =>
    Effect.gen(function* () {
      let asked = 0
      const log = {
        ...rawLog(0, "raw"),
        bounds: () => Effect.sync(() => ({ start: 0, end: 100_000 * asked++ }))
      }
      const context = yield* Effect.context<never>()
      const arrays = Array.from({ length: 500 }, (_, i) => [record(i, tick(i * 100, i))])
      yield* Stream.fromIterable(arrays).pipe(
        follow({ reader: "test", partition: 3, incarnation: "n", bookmark: undefined, context, log }),
        Stream.runDrain
      )
      assert.strictEqual(asked, 2)
      assert.strictEqual(log.looks(), 0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("counts and passes headers of a replay that none has written", () =>
    Effect.gen(function* () {
      const headers: ReadonlyArray<Record<string, string>> = [
        { replay: "x y" },
        { replay: "x".repeat(65) },
        { replay: "x", watermark: "1e15" },
        { replay: "x", watermark: "0" },
        { replay: "x", watermark: "1", end: "" },
        { replay: "x", watermark: "1" }
      ]
      const forged = headers.map((of, i) => record(10 + i, tick(5 + i, 1), of))
      const { batch, figures } = yield* run([...forged, record(20, tick(20, 1), { replay: "", watermark: "1" })])
      assert.deepStrictEqual(batch.replays, [])
      assert.strictEqual(batch.ticks.length, 1)
      assert.strictEqual(figures[FOREIGN], headers.length)
    })
  )

  it.effect("passes a batch over that nobody can read, and counts each of its records", () =>
    Effect.gen(function* () {
      const unreadable = { message: "no batch", records: 5 }
      const { batch, figures } = yield* run([
        record(10, tick(5, 1)),
        { ...record(15, tick(6, 2)), unreadable },
        record(16, tick(11, 7))
      ])
      assert.deepStrictEqual(
        batch.ticks.map(({ position }) => position),
        [1, 7]
      )
      assert.strictEqual(batch.bookmark.offset, 17)
      assert.deepStrictEqual(
        [
          figures.topology_stage_received_events_total,
          figures.topology_stage_sent_events_total,
          figures["topology_stage_discarded_events_total undecodable"]
        ],
        [7, 2, 5]
      )
    })
  )

  it.effect("takes each quote once, right after its tick, and counts them apart", () =>
    Effect.gen(function* () {
      const { batch, figures } = yield* run([
        record(10, tick(5, 1)),
        quoteRecord(11, quote(5)),
        record(12, tick(6, 2)),
        // What a retry published again.
        record(13, tick(5, 1)),
        quoteRecord(14, quote(5)),
        record(15, tick(6, 2)),
        quoteRecord(16, quote(6, { old: true }))
      ])
      assert.deepStrictEqual(
        batch.ticks.map(({ position }) => position),
        [1, 2]
      )
      assert.deepStrictEqual(batch.quotes, [quote(5), quote(6, { old: true })])
      assert.deepStrictEqual(batch.bookmark.mark, { incarnation: "raw", offset: 6, index: 1, left: [] })
      assert.strictEqual(figures.topology_order_alarms_total, 0)
      assert.deepStrictEqual(
        ["received", "sent"].map((what) => [
          figures[`topology_stage_${what}_events_total`],
          figures[`topology_stage_${what}_events_total of quotes`]
        ]),
        [
          [4, 3],
          [2, 2]
        ]
      )
      assert.deepStrictEqual(
        [figures[REPEATED], figures["topology_stage_discarded_events_total of quotes repeated"]],
        [2, 1]
      )
    })
  )

  it.effect("goes on behind a quote that a mark was set at, and takes nothing of its record again", () =>
    Effect.gen(function* () {
      const mark = { incarnation: "raw", offset: 5, index: 1, left: [] }
      const bookmark = { partition: 3, incarnation: "n", offset: 10, mark }
      const { batch } = yield* run([record(10, tick(5, 1)), quoteRecord(11, quote(5)), quoteRecord(12, quote(6))], {
        bookmark
      })
      assert.deepStrictEqual([batch.ticks.length, batch.quotes], [0, [quote(6)]])
    })
  )

  it.effect("keeps a replay's quotes apart, among its ticks", () =>
    Effect.gen(function* () {
      const { batch } = yield* run([
        record(0, tick(0, 1), { replay: "r.1" }),
        quoteRecord(1, quote(0), { replay: "r.1" }),
        record(2, tick(2, 1))
      ])
      assert.deepStrictEqual(batch.quotes, [])
      assert.deepStrictEqual(batch.replays, [
        { run: "r.1", tick: tick(0, 1) },
        { run: "r.1", quote: quote(0) }
      ])
    })
  )

  it.effect(
    "counts and passes quotes that are none, or not the platform's, and records of a kind that is yet to be",
    () =>
      Effect.gen(function* () {
        const { batch, figures } = yield* run([
          record(9, tick(4, 1)),
          { ...record(10, tick(5, 2)), headers: { kind: "quote" } },
          quoteRecord(11, quote(0, { source: ["mirrored", 9e15, 1] })),
          quoteRecord(12, quote(0, { source: ["raw", 9e15, 1] })),
          quoteRecord(13, quote(6), { replay: "x y" }),
          record(14, tick(6, 2), { kind: "candle" }),
          { ...record(15, tick(6, 2)), value: Buffer.from(encodeQuote(quote(6))), headers: {} },
          record(16, tick(7, 2))
        ])
        assert.deepStrictEqual([batch.ticks.length, batch.quotes, batch.replays], [2, [], []])
        assert.deepStrictEqual(
          [
            figures["topology_stage_discarded_events_total of quotes undecodable"],
            figures["topology_stage_discarded_events_total of quotes foreign"],
            figures[FOREIGN],
            figures["topology_stage_discarded_events_total undecodable"]
          ],
          [1, 3, 1, 1]
        )
      })
  )
})
