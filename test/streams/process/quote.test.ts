import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { partitionOf } from "../../../src/schema/Partition.ts"
import { decodeQuote, type Quote, type QuoteState } from "../../../src/schema/Quote.ts"
import { decodeTick } from "../../../src/schema/TickJson.ts"
import { watermarkRecord } from "../../../src/streams/log/headers.ts"
import type { LogRecord } from "../../../src/streams/log/TickLog.ts"
import type { PartitionStates, Quoted } from "../../../src/streams/process/batch.ts"
import { unclaimed } from "../../../src/streams/process/claim.ts"
import { makeStates, stages } from "../../../src/streams/process/process.ts"
import { toDeadRecords, toRecords } from "../../../src/streams/process/publish.ts"
import { checkpointOf, restore } from "../../../src/streams/process/recover.ts"
import { meantQuotes, saidOf } from "../../crash/quotes.ts"
import { settings, TEN } from "./stageTests.ts"

const DAY = 86_400_000_000

const pipelineOn = (states: PartitionStates, place = { partition: 0, partitions: 1 }) => {
  const stage = stages(states, "raw", place, settings, () => {})
  return (records: ReadonlyArray<LogRecord>): Quoted =>
    stage.quote(stage.sequence(unclaimed(stage.deduplicate(stage.normalize(stage.decode(records))))))
}
const pipeline = () => pipelineOn(makeStates())

const record = (offset: number, fields: object, headers?: Record<string, string>): LogRecord => ({
  offset,
  recordTime: TEN + offset * 1_000_000,
  key: null,
  value: Buffer.from(JSON.stringify(fields)),
  headers
})

/** A packet of instrument 1 without a trade; record n is taken in n seconds after ten, and stamped then. */
const packet = (offset: number, quote: object, more: object = {}): LogRecord =>
  record(offset, { instrument_token: 1, exchange_ts: TEN + offset * 1_000_000, feed: "snapshot", quote, ...more })

/** One with a trade. */
const traded = (offset: number, sequence_id: number, quote: object, more: object = {}): LogRecord =>
  packet(offset, quote, { price: 100 + sequence_id, volume: 1, sequence_id, ...more })

const quotesOf = ({ quotes }: Quoted): ReadonlyArray<Quote> => quotes.map(({ quote }) => quote)
const known = (quote: Quote): Partial<QuoteState> => {
  const { instrument_token, exchange_ts, feed, received_ts, source, old, ...state } = quote
  return Object.fromEntries(Object.entries(state).filter(([, value]) => value !== undefined))
}
const counted = ({ passed, dead }: Quoted) => {
  const count = passed.find(({ stage }) => stage === "quote")!
  const letters = dead.filter(({ stage }) => stage === "quote").length
  const { received, sent, discarded } = count
  assert.strictEqual(received, sent + letters + Object.values(discarded).reduce((sum, n) => sum + n, 0))
  return { received, sent, ...discarded }
}

describe("the stage quote", () => {
  it("publishes all that is known of the day, whatever part of it a packet says", () => {
    const batch = pipeline()([
      packet(0, { bid: [[99.95, 10, 2]], ask: [[100.05, 5, 1]], oi: 7 }),
      packet(1, { bid: [] }),
      packet(2, { oi: 8, open: 98 }, { day_volume: 500 })
    ])
    assert.deepStrictEqual(quotesOf(batch).map(known), [
      { bid: [[99.95, 10, 2]], ask: [[100.05, 5, 1]], oi: 7 },
      { bid: [], ask: [[100.05, 5, 1]], oi: 7 },
      { bid: [], ask: [[100.05, 5, 1]], oi: 8, open: 98, day_volume: 500 }
    ])
    const [first] = quotesOf(batch)
    assert.deepInclude(first, { instrument_token: 1, exchange_ts: TEN, feed: "snapshot", received_ts: TEN, old: false })
    assert.deepStrictEqual(first!.source, ["raw", 0, 1])
    assert.deepStrictEqual(counted(batch), { received: 3, sent: 3, future: 0, outdated: 0, unchanged: 0 })
  })

  it("publishes nothing of a packet that changes nothing, which is the newest all the same", () => {
    const batch = pipeline()([
      packet(0, {}),
      packet(1, { oi: 7 }),
      packet(2, { oi: 7 }),
      packet(5, { oi: 7, bid: undefined }),
      // Stamped before the last, which said that nothing had changed until then.
      packet(6, { oi: 9 }, { exchange_ts: TEN + 4_000_000 })
    ])
    assert.deepStrictEqual(quotesOf(batch).map(known), [{ oi: 7 }])
    assert.deepInclude(counted(batch), { sent: 1, unchanged: 3, outdated: 1 })
  })

  it("takes within one stamp what comes later, but not what the day's volume shows to be older", () => {
    const at = { exchange_ts: TEN }
    const batch = pipeline()([
      packet(0, { oi: 1 }, { ...at, day_volume: 100 }),
      packet(1, { oi: 2 }, { ...at, day_volume: 99 }),
      packet(2, { oi: 3 }, { ...at, day_volume: 100 }),
      packet(3, { oi: 4 }, at)
    ])
    assert.deepStrictEqual(
      quotesOf(batch).map(({ oi }) => oi),
      [1, 3, 4]
    )
    assert.deepInclude(counted(batch), { outdated: 1 })
  })

  it("takes the quote beside a tick whatever comes of the tick", () => {
    const run = pipeline()
    const batch = run([
      traded(0, 1, { oi: 1 }),
      // A duplicate, a jump, and a snapshot that is suppressed.
      traded(1, 1, { oi: 2 }, { exchange_ts: TEN, price: 101 }),
      traded(2, 9_000_000, { oi: 3 }),
      record(3, { instrument_token: 1, exchange_ts: TEN + 3_000_000, price: 1, sequence_id: 2 }),
      packet(4, { oi: 4 }, { price: 100.5, day_volume: 7 })
    ])
    assert.deepStrictEqual(
      batch.ticks.map(({ tick }) => tick.sequence_id),
      [1, 2]
    )
    // Of one stamp with the first, and without a volume: it came later.
    assert.deepStrictEqual(
      quotesOf(batch).map(({ oi }) => oi),
      [1, 2, 3, 4]
    )
  })

  it("leaves ticks what they would be without it: epoch, position, session, status and volume", () => {
    const ticks = [1, 2, 5, 3, 6].map((id, i) =>
      traded(2 * i + 1, id, {}, i === 3 ? { reset: true, connection: "other" } : {})
    )
    const without = (found: ReadonlyArray<LogRecord>) => pipeline()(found).ticks.map(({ tick }) => tick)
    const expected = without(ticks)
    // The day's first packet is a quote, and others come between the ticks.
    const quotes = [0, 2, 4, 6, 8].map((offset) => packet(offset, { oi: offset }))
    assert.deepStrictEqual(without([...ticks, ...quotes].sort((a, b) => a.offset - b.offset)), expected)
  })

  it("publishes a quote right after its tick, with the header that says what it is", () => {
    const records = toRecords(
      pipeline()([traded(0, 1, { oi: 1 }), packet(1, { oi: 2 }), traded(2, 2, { oi: 2 }), traded(3, 3, { oi: 3 })])
    )
    assert.deepStrictEqual(
      records.map(({ key, value, headers }) => [
        key,
        headers,
        (headers === undefined ? decodeTick(value!) : decodeQuote(value!))?.source.slice(1)
      ]),
      [
        ["1", undefined, [0, 0]],
        ["1", { kind: "quote" }, [0, 1]],
        ["1", { kind: "quote" }, [1, 1]],
        ["1", undefined, [2, 0]],
        ["1", undefined, [3, 0]],
        ["1", { kind: "quote" }, [3, 1]]
      ]
    )
  })

  it("publishes the quote of a tick that was published before, where it was not", () => {
    const batch = pipeline()([traded(0, 1, { oi: 1 }), traded(1, 2, { oi: 2 })])
    const sources = (offset: number, index: number) =>
      toRecords(batch, { offset, index }).map(({ value, headers }) =>
        (headers === undefined ? decodeTick(value!) : decodeQuote(value!))?.source.slice(1)
      )
    assert.deepStrictEqual(sources(0, 0), [
      [0, 1],
      [1, 0],
      [1, 1]
    ])
    assert.deepStrictEqual(sources(0, 1), [
      [1, 0],
      [1, 1]
    ])
    assert.deepStrictEqual(sources(1, 1), [])
  })

  it("marks a quote of an older day than its instrument's newest, of ticks and of quotes, and disturbs neither", () => {
    const run = pipeline()
    const yesterday = { exchange_ts: TEN - DAY }
    const batch = run([
      packet(0, { oi: 1 }),
      packet(1, { oi: 2 }, yesterday),
      packet(2, { oi: 1 }),
      record(3, { instrument_token: 2, exchange_ts: TEN, price: 1, sequence_id: 1 }),
      packet(4, { oi: 5 }, { ...yesterday, instrument_token: 2 })
    ])
    assert.deepStrictEqual(
      quotesOf(batch).map(({ instrument_token, oi, old }) => [instrument_token, oi, old]),
      [
        [1, 1, false],
        [1, 2, true],
        [2, 5, true]
      ]
    )
    assert.deepInclude(counted(batch), { unchanged: 1 })
  })

  it("knows nothing of the day before on a new one", () => {
    const batch = pipeline()([packet(0, { oi: 1, open: 5 }, { exchange_ts: TEN - DAY }), packet(1, { oi: 1 })])
    assert.deepStrictEqual(quotesOf(batch).map(known), [{ oi: 1, open: 5 }, { oi: 1 }])
  })

  it("sends a packet too far in the future to the DLQ, once, and goes on as if it had not come", () => {
    const ahead = { exchange_ts: TEN + 60_000_000 }
    const batch = pipeline()([packet(0, { oi: 1 }, ahead), traded(1, 1, { oi: 2 }, ahead), packet(2, { oi: 3 })])
    assert.deepStrictEqual(
      quotesOf(batch).map(({ oi, old }) => [oi, old]),
      [[3, false]]
    )
    assert.deepStrictEqual(
      toDeadRecords(batch.dead, 0).map(({ headers }) => [headers!.offset, headers!.index]),
      [
        ["0", "1"],
        ["1", "0"]
      ]
    )
    assert.deepInclude(batch.dead.find(({ record }) => record.offset === 0)!.clock, { feed: "snapshot" })
    assert.deepInclude(counted(batch), { received: 3, sent: 1, future: 1 })
  })

  it("forwards a record found in a wrong partition with its quote, and the time that it was received", () => {
    const to = partitionOf(1, 8)
    const place = { partition: (to + 1) % 8, partitions: 8 }
    const found = pipelineOn(makeStates(), place)([traded(0, 1, { oi: 1 }), packet(1, { oi: 2 })])
    assert.deepStrictEqual([found.ticks.length, found.quotes.length, found.dead.length], [0, 0, 0])
    const forwarded = found.forwards.map(({ record }, i) => ({
      ...record,
      offset: 10 + i,
      recordTime: TEN + 9_000_000
    }))
    assert.deepStrictEqual(
      found.forwards.map((one) => one.to),
      [to, to]
    )
    const batch = pipelineOn(makeStates(), { partition: to, partitions: 8 })(forwarded)
    assert.deepStrictEqual(
      batch.ticks.map(({ tick }) => [tick.sequence_id, tick.received_ts]),
      [[1, TEN]]
    )
    assert.deepStrictEqual(
      quotesOf(batch).map(({ oi, received_ts }) => [oi, received_ts]),
      [
        [1, TEN],
        [2, TEN + 1_000_000]
      ]
    )
  })

  it("keeps a replay's quotes in a state of their run, and its header on them", () => {
    const states = makeStates()
    const run = { replay: "r.1" }
    const old = TEN - DAY
    const batch = pipelineOn(states)([
      packet(0, { oi: 1 }),
      record(
        1,
        { instrument_token: 1, exchange_ts: old, received_ts: old + 5, feed: "snapshot", quote: { oi: 1 } },
        run
      ),
      record(2, { instrument_token: 1, exchange_ts: old + 1, feed: "snapshot", quote: { oi: 1 } }, run),
      { ...watermarkRecord({ run: "r.1", number: 1, end: true }), offset: 3, recordTime: TEN + 3_000_000 },
      record(4, { instrument_token: 1, exchange_ts: old, feed: "snapshot", quote: { oi: 1 } }, { replay: "r.2" })
    ])
    assert.deepStrictEqual(
      batch.quotes.map(({ run, quote }) => [run, quote.exchange_ts, quote.received_ts, quote.old]),
      [
        ["", TEN, TEN, false],
        ["r.1", old, old + 5, false],
        ["r.2", old, old, false]
      ]
    )
    assert.deepStrictEqual(
      toRecords(batch).map(({ headers }) => headers),
      [
        { kind: "quote" },
        { kind: "quote", replay: "r.1" },
        { replay: "r.1", watermark: "1", end: "1" },
        { kind: "quote", replay: "r.2" }
      ]
    )
  })
})

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Packet = Schema.Struct({
  token: int(1, 3),
  kind: int(0, 9),
  day: int(-1, 0),
  back: int(0, 3),
  book: Schema.optionalKey(Schema.Array(Schema.Tuple([int(1, 3), int(0, 2), int(0, 1)])).check(Schema.isMaxLength(2))),
  oi: Schema.optionalKey(int(0, 2)),
  open: Schema.optionalKey(int(1, 2)),
  day_volume: Schema.optionalKey(int(0, 3)),
  run: int(0, 4)
})
const packets = Arbitrary.array(Arbitrary.schema(Packet), { minLength: 1, maxLength: 60 })
/** Ticks, quotes beside them and alone, of two days, late ones and some of a replay; and what is none of either. */
const recordsOf = (given: ReadonlyArray<typeof Packet.Type>): ReadonlyArray<LogRecord> =>
  given.map(({ token, kind, day, back, book, oi, open, day_volume, run }, offset) => {
    const exchange_ts = TEN + offset * 1_000_000 + day * DAY - back * 1_500_000 + (kind === 9 ? 3_600_000_000 : 0)
    const quote = {
      ...(book === undefined ? {} : { bid: book }),
      ...(oi === undefined ? {} : { oi }),
      ...(open === undefined ? {} : { open })
    }
    const isReplayed = run === 0
    const tick = isReplayed
      ? { price: 5, volume: 1, sequence_id: offset, session: 0 }
      : { price: 5, sequence_id: offset, ...(day_volume === undefined ? {} : { day_volume }) }
    const fields = {
      instrument_token: token,
      exchange_ts,
      feed: "snapshot",
      ...(kind < 3
        ? { ...tick, quote }
        : kind < 5
          ? tick
          : { ...(day_volume === undefined ? {} : { day_volume }), quote })
    }
    return record(offset, kind === 8 ? { ...fields, quote: [] } : fields, isReplayed ? { replay: "r.1" } : undefined)
  })

const published = (batch: Quoted) => toRecords(batch).map(({ value, headers }) => `${JSON.stringify(headers)} ${value}`)

describe("quotes of a partition", () => {
  it.prop(
    "are the same bytes however it is cut into arrays (P2)",
    [packets, Arbitrary.array(Arbitrary.schema(int(1, 7)), { minLength: 1, maxLength: 20 })],
    ([given, sizes]) => {
      const records = recordsOf(given)
      const whole = published(pipeline()(records))
      const run = pipeline()
      const cut: Array<string> = []
      for (let at = 0, i = 0; at < records.length; at += sizes[i++ % sizes.length]!) {
        cut.push(...published(run(records.slice(at, at + sizes[i % sizes.length]!))))
      }
      assert.deepStrictEqual(cut, whole)
    }
  )

  it.prop("are those that a second reading of the contract makes of the raw log", [packets], ([given]) => {
    const records = recordsOf(given.filter(({ kind, run }) => kind < 8 && run > 0))
    assert.deepStrictEqual(
      quotesOf(pipeline()(records)).map((quote) => [quote.source[1], quote.exchange_ts, saidOf({ ...quote })]),
      meantQuotes(records, 0, 1).map(({ offset, exchange_ts, known }) => [offset, exchange_ts, known])
    )
  })

  it.prop(
    "are the same bytes over a checkpoint anywhere (P3)",
    [packets, Arbitrary.schema(int(0, 60))],
    ([given, at]) => {
      // A run's records are read again from its first on.
      const records = recordsOf(given).filter(({ headers }) => headers === undefined)
      const whole = published(pipeline()(records))
      const states = makeStates()
      const first = published(pipelineOn(states)(records.slice(0, at)))
      const place = { rawIncarnation: "raw", rawOffset: at, normalizedIncarnation: "n", normalizedOffset: 0 }
      const kept = checkpointOf(states, states.live.changedSince(Number.NEGATIVE_INFINITY), TEN, place)
      const restored = restore({ instruments: new Map(kept.instruments) })!
      assert.deepStrictEqual([...first, ...published(pipelineOn(restored.states)(records.slice(at)))], whole)
    }
  )

  it.prop(
    "never go back: a quote is at or after all before it of its day, and differs from the last",
    [packets],
    ([given]) => {
      const last = new Map<string, Quote>()
      for (const { quote, run, day } of pipeline()(recordsOf(given)).quotes) {
        const key = `${run} ${quote.instrument_token} ${day}`
        const before = last.get(key)
        if (before !== undefined) {
          assert.isAtLeast(quote.exchange_ts, before.exchange_ts)
          assert.notDeepEqual(known(quote), known(before))
          // What was known stays known.
          assert.includeMembers(Object.keys(known(quote)), Object.keys(known(before)))
        }
        last.set(key, quote)
      }
    }
  )
})
