import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as FileFeed from "../../../src/layers/feeds/FileFeed.ts"
import { checkRowOptions, type FileField, type RowOptions } from "../../../src/layers/feeds/fileFields.ts"
import { presetOf } from "../../../src/layers/feeds/filePresets.ts"
import { BarStarts, MIN_BAR_DAYS, MIN_CONTENTS, Occurrences } from "../../../src/layers/feeds/fileRows.ts"
import { MAX_LINE_CHARS } from "../../../src/layers/feeds/fileSource.ts"
import { makeZone } from "../../../src/schema/NaiveTime.ts"
import type { QuoteState } from "../../../src/schema/Quote.ts"
import { type RawRecord, type RawTick, readRawRecord, readRawTick } from "../../../src/schema/RawTick.ts"
import { tradingDate, tradingDayStart } from "../../../src/schema/Tick.ts"
import { RawSink } from "../../../src/streams/ports/RawSink.ts"
import type { StoredTick } from "../../../src/streams/ports/TickStore.ts"
import { barsOf } from "../../http/memoryStore.ts"

const collecting = (each: Effect.Effect<void> = Effect.void) => {
  const ticks: Array<RawTick> = []
  const records: Array<RawRecord> = []
  let batches = 0
  const layer = Layer.succeed(RawSink, {
    publish: (batch) =>
      Effect.map(each, () => {
        batches += 1
        for (const { token, value } of batch) {
          const record = readRawRecord(JSON.parse(Buffer.from(value).toString()))
          if (typeof record === "string") throw new Error(record)
          assert.strictEqual((record.tick ?? record.quote!).instrument_token, token)
          records.push(record)
          if (record.tick !== undefined) ticks.push(record.tick)
        }
      })
  })
  return { ticks, records, layer, batches: () => batches }
}

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-feed-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const fields = (pairs: Record<string, string>) => new Map(Object.entries(pairs)) as Map<FileField, string>

const csv: RowOptions = {
  format: "csv",
  hasHeader: true,
  map: new Map(),
  set: new Map(),
  zone: makeZone("Asia/Kolkata")
}
const ndjson: RowOptions = { ...csv, format: "ndjson" }

/** Feeds a text as a file. */
const feed = (text: string | Uint8Array, options: Partial<FileFeed.FileFeedOptions> = {}, name = "ticks.csv") =>
  Effect.gen(function* () {
    const path = join(yield* folder, name)
    writeFileSync(path, text)
    const { layer, records, ticks } = collecting()
    const skipped: Array<string> = []
    const asked = { ...csv, onError: "fail", onSkip: (r: string) => skipped.push(r), ...options, file: path } as const
    const exit = yield* Effect.result(FileFeed.run(asked).pipe(Effect.provide(layer)))
    return { ticks, records, skipped, progress: exit._tag === "Success" ? exit.success : undefined, failed: exit }
  })

const failureOf = (result: { readonly failed: { readonly _tag: string } }) => {
  assert.strictEqual(result.failed._tag, "Failure")
  return (result.failed as unknown as { readonly failure: { readonly message: string } }).failure.message
}

describe("the reasons of bad rows", () => {
  it("are told with their counts, the most first, and how many more there are beyond a bound", () => {
    const of = (count: number) => new Map(Array.from({ length: count }, (_, i) => [`reason ${i}`, i + 1]))
    const most = FileFeed.MAX_TOLD_REASONS
    assert.strictEqual(FileFeed.describeReasons(of(2)), "2 × reason 1; 1 × reason 0")
    assert.strictEqual(FileFeed.describeReasons(of(most)).split("; ").length, most)
    const told = FileFeed.describeReasons(of(most + 3)).split("; ")
    assert.deepStrictEqual([told[0], told.length, told.at(-1)], ["23 × reason 22", most + 1, "and 3 more"])
  })
})

describe("the file feed", () => {
  it.effect("finds CSV columns by their header, also renamed or by number", () =>
    Effect.gen(function* () {
      const text = "when,instrument_token,ltp,qty\n2026-01-15 09:15:00,7,10.05,3\n2026-01-15T09:15:00.25,8,11,\n"
      const map = fields({ exchange_ts: "when", price: "3", volume: "qty" })
      const { progress, ticks } = yield* feed(text, { map })
      assert.deepStrictEqual(
        ticks.map((t) => [t.instrument_token, t.exchange_ts, t.price, t.volume, t.feed, t.sequencing]),
        [
          [7, Date.UTC(2026, 0, 15, 3, 45) * 1000, 10.05, 3, "dma", "none"],
          [8, Date.UTC(2026, 0, 15, 3, 45) * 1000 + 250_000, 11, 0, "dma", "none"]
        ]
      )
      assert.deepInclude(progress, { rows: 2, sent: 2, skipped: 0 })
    })
  )

  it.effect("reads CSV without a header by number, quotes, byte order marks, CRLF and blank lines", () =>
    Effect.gen(function* () {
      const text = '\uFEFF"2026-01-15 09:15:00","10.05"\r\n\r\n  \r\n2026-01-15 09:15:01, 10.1 \r\n'
      const { ticks } = yield* feed(text, {
        hasHeader: false,
        map: fields({ exchange_ts: "1", price: "2" }),
        set: fields({ instrument_token: "9", feed: "snapshot", volume: "0" })
      })
      assert.deepStrictEqual(
        ticks.map((t) => [t.instrument_token, t.price, t.feed]),
        [
          [9, 10.05, "snapshot"],
          [9, 10.1, "snapshot"]
        ]
      )
    })
  )

  it.effect("reads NDJSON as the platform does, with keys renamed, set and naive times", () =>
    Effect.gen(function* () {
      const rows = [
        { instrument_token: 1, exchange_ts: 1_768_448_700_000_000, ltp: 5, price: 99, sequence_id: 4, connection: "c" },
        { instrument_token: 1, exchange_ts: "2026-01-15 09:15:01", ltp: 6, reset: true, sequence_id: 5 },
        { instrument_token: 1, exchange_ts: "2026-01-15T09:15:02+05:30", ltp: 7, day_volume: 10, feed: "x" }
      ]
      const { ticks } = yield* feed(
        rows.map((row) => JSON.stringify(row)).join("\n"),
        { ...ndjson, map: fields({ price: "ltp" }), set: fields({ feed: "dma" }) },
        "ticks.ndjson"
      )
      assert.deepStrictEqual(
        ticks.map((t) => [t.exchange_ts, t.price, t.sequence_id, t.reset, t.feed, t.day_volume]),
        [
          [1_768_448_700_000_000, 5, 4, false, "dma", -1],
          [1_768_448_701_000_000, 6, 5, true, "dma", -1],
          [1_768_448_702_000_000, 7, undefined, false, "dma", 10]
        ]
      )
      assert.strictEqual(ticks[0]!.connection, "c")
      assert.match(ticks[1]!.connection, /^file-[0-9a-f]{16}-dma$/)
    })
  )

  it.effect("reads what is gzipped", () =>
    Effect.gen(function* () {
      const row = '{"instrument_token":1,"exchange_ts":1768448700000000,"price":5}\n'
      const { ticks } = yield* feed(gzipSync(row.repeat(5000)), ndjson, "ticks.ndjson.gz")
      assert.strictEqual(ticks.length, 5000)
      const torn = yield* feed(gzipSync(row.repeat(5000)).subarray(0, 60), ndjson, "ticks.ndjson.gz")
      assert.match(failureOf(torn), /cannot read .*unexpected end of file/)
    })
  )

  const wrong: ReadonlyArray<readonly [string, string, Partial<RowOptions>]> = [
    [
      "a,exchange_ts,instrument_token,price\n1,2026-01-15 09:15:00,1,1\n1,2026-01-15 09:15:00,1,abc",
      'ticks.csv line 3, column 4 (price): expected a number between -1000000000 and 1000000000, got "abc"',
      {}
    ],
    [
      "exchange_ts,instrument_token,price\n2026-01-15 09:15:00,1,-1000000001",
      "ticks.csv line 2, column 3 (price): expected a value between -1000000000 and 1000000000, got -1000000001",
      {}
    ],
    [
      "exchange_ts,instrument_token,price\n2026-01-15 09:15:00,1,",
      "ticks.csv line 2, column 3 (price): expected a number between -1000000000 and 1000000000, got nothing",
      {}
    ],
    ["exchange_ts,instrument_token,price\n2026-01-15 09:15:00,1", "ticks.csv line 2: expected 3 fields, got 2", {}],
    [
      "exchange_ts,instrument_token,price\n15/01/2026 09:15:00,1,1",
      'ticks.csv line 2, column 1 (exchange_ts): expected a time with an offset, or --tz for times without one, got "15/01/2026 09:15:00"',
      { zone: undefined }
    ],
    [
      "exchange_ts,instrument_token,price\n1768448700,1,1\n1768448700123,1,1",
      "ticks.csv line 3, column 1 (exchange_ts): expected epoch seconds between 1980 and 2100, as in the rows before, got 1768448700123, which looks like milliseconds",
      {}
    ],
    [
      "exchange_ts,instrument_token,price\n1768448700123,1,1",
      "ticks.csv line 2, column 1 (exchange_ts): expected epoch seconds between 1980 and 2100, as --unit says, got 1768448700123, which looks like milliseconds",
      { unit: "s" }
    ],
    [
      "exchange_ts,instrument_token,price\n03/04/2026 09:15:00,1,1\n05/04/2026 09:15:00,1,1",
      'ticks.csv line 2, column 1 (exchange_ts): expected a date that is one day (--dates dmy or mdy), got "03/04/2026"; 2 of 2 rows are bad: 2 × exchange_ts: expected a date that is one day',
      {}
    ],
    [
      "exchange_ts,instrument_token,price\n2026-01-15 09:15:00,1,1",
      'ticks.csv line 2, column 1 (exchange_ts): expected a time with an offset, or --tz for times without one, got "2026-01-15 09:15:00"',
      { zone: undefined }
    ],
    [
      "exchange_ts,instrument_token,price\n2026-02-30 09:15:00,1,1",
      'ticks.csv line 2, column 1 (exchange_ts): expected a date that exists, got "2026-02-30"',
      {}
    ],
    [
      'exchange_ts,instrument_token,price\n"2026-01-15 09:15:00,1,1',
      "ticks.csv line 2: a quote is not closed, or text follows a closing quote",
      {}
    ],
    [
      "when,instrument_token,price\n",
      "ticks.csv line 1, exchange_ts: no column of that name (--map exchange_ts=COLUMN), there are when, instrument_token, price",
      {}
    ],
    [
      "when,instrument_token,price\n",
      'ticks.csv line 1, price: no column "ltp" for it, there are when, instrument_token, price',
      { map: fields({ exchange_ts: "when", price: "ltp" }) }
    ],
    ['{"price":', "ticks.csv line 1, column 10: not JSON: Unexpected end of JSON input", ndjson],
    [
      '{"instrument_token":1,"exchange_ts":1768448700000000,"price":"1"}',
      'ticks.csv line 1, price: expected a number between -1000000000 and 1000000000, got "1"',
      ndjson
    ],
    [
      `{"instrument_token":1,"exchange_ts":1768448700000000,"feed":"${"x".repeat(60)}" "price":1}`,
      "ticks.csv line 1, column 124: not JSON: Expected ',' or '}' after property value",
      ndjson
    ],
    ["[1]", "ticks.csv line 1: expected a JSON object, got [1]", ndjson]
  ]
  for (const [text, message, options] of wrong) {
    it.effect(`names file, line and column: ${message}`, () =>
      Effect.gen(function* () {
        const isOfHeader = message.includes("there are when")
        const nothing = isOfHeader ? "" : "; nothing of ticks.csv went in"
        assert.strictEqual(failureOf(yield* feed(text, options)), message + nothing)
      })
    )
  }

  it.effect("takes no row of data for names of columns", () =>
    Effect.gen(function* () {
      const text = "2026-01-15 09:15:00,10.5\n2026-01-15 09:15:01,10.6\n"
      const map = fields({ exchange_ts: "1", price: "2" })
      const set = fields({ instrument_token: "7" })
      for (const onError of ["fail", "skip"] as const) {
        assert.strictEqual(
          failureOf(yield* feed(text, { map, set, onError })),
          "ticks.csv line 1: it reads as a tick, not as the names of columns: --no-header takes it as one"
        )
      }
      const { ticks } = yield* feed(`time,price\n${text}`, { map, set })
      assert.strictEqual(ticks.length, 2)
    })
  )

  it.effect("fails where nothing went in, and says why", () =>
    Effect.gen(function* () {
      const header = "instrument_token,exchange_ts,price\n"
      assert.strictEqual(failureOf(yield* feed("")), "nothing of ticks.csv went in: it has no rows")
      assert.strictEqual(failureOf(yield* feed(header)), "nothing of ticks.csv went in: it has no rows")
      const bad = yield* feed(`${header}x,y,z\nx,y,z\n`, { onError: "skip" })
      assert.strictEqual(failureOf(bad), "nothing of ticks.csv went in: none of its 2 rows is a tick that was taken")
      const good = `${header}7,2026-01-15 09:15:00,1\n`
      assert.match(
        failureOf(yield* feed(good, { refused: () => 1 })),
        /^nothing of ticks\.csv went in: none of its 1 row/
      )
      assert.deepInclude((yield* feed(`${good}7,2026-01-15 09:15:01,1\n`, { refused: () => 1 })).progress, {
        rows: 2,
        sent: 1,
        skipped: 1
      })
    })
  )

  it.effect("names a row that is further ahead of this machine's clock than the pipeline takes", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.parse("2026-01-15T03:45:00Z"))
      const row = (time: string) => `7,2026-01-15T03:${time}Z,1\n`
      const text = `instrument_token,exchange_ts,price\n${row("45:05")}${row("45:16")}${row("44:00")}`
      const limited = { maxAheadMs: 5000 }
      const why = "ticks.csv line 3, exchange_ts: is 16.0 s ahead of this machine's clock"
      assert.strictEqual(failureOf(yield* feed(text, limited)), `${why}; nothing of ticks.csv went in`)
      const { progress, skipped } = yield* feed(text, { ...limited, onError: "skip" })
      assert.deepStrictEqual(skipped, [why])
      assert.deepInclude(progress, { sent: 2, skipped: 1 })
      assert.deepInclude((yield* feed(text)).progress, { sent: 3 })
    })
  )

  it.effect("makes of bars the ticks that give these bars again, the same each time", () =>
    Effect.gen(function* () {
      const bars = [
        "2026-01-16 09:15:00,100.05,101,99.5,100.5,403",
        "2026-01-16 09:16:00,100.5,102,100.5,100.5,1",
        "2026-01-16 09:17:00,100,100,-1.5,-1,0",
        "2026-01-16 09:18:00,7,7,7,7,8"
      ]
      const text = `date,open,high,low,Close,volume\n${bars.join("\n")}\n`
      const how = {
        bars: "1m",
        map: fields({ exchange_ts: "date", close: "Close" }),
        set: fields({ instrument_token: "7" })
      } as const
      const { progress, ticks } = yield* feed(text, how)
      assert.deepInclude(progress, { rows: 4, sent: 16, skipped: 0 })
      const made = barsOf(ticks as unknown as ReadonlyArray<StoredTick>, "1m")
      assert.deepStrictEqual(
        made.map((b) => [b.ts, b.open, b.high, b.low, b.close, b.volume]),
        bars.map((row, i) => [Date.UTC(2026, 0, 16, 3, 45 + i) * 1000, ...row.split(",").slice(1).map(Number)])
      )
      assert.isTrue(ticks.every((t, i) => i === 0 || t.exchange_ts > ticks[i - 1]!.exchange_ts))
      assert.deepStrictEqual((yield* feed(text, how)).ticks, ticks)
      const rising = ticks.slice(0, 4).map((t) => t.price)
      assert.deepStrictEqual(rising, [100.05, 99.5, 101, 100.5])
    })
  )

  it.effect("names what is wrong with a bar", () =>
    Effect.gen(function* () {
      const header = "exchange_ts,open,high,low,close,volume\n"
      const how = { bars: "5m", set: fields({ instrument_token: "7" }) } as const
      for (const [row, message] of [
        [
          "2026-01-16 09:16:00,1,1,1,1,1",
          "column 1 (exchange_ts): expected the start of a bar of 5m, counted from 09:00 IST (--stamp)"
        ],
        ["2026-01-16 09:15:00,5,4,1,2,1", "column 3 (high): expected the highest of its bar (5, 1, 2), got 4"],
        ["2026-01-16 09:15:00,5,6,3,2,1", "column 4 (low): expected the lowest of its bar (5, 6, 2), got 3"],
        ["2026-01-16 09:15:00,5,6,,2,1", "column 4 (low): expected number, got nothing"],
        ["2026-01-16 09:15:00,5,6,1,2,-1", "column 6 (volume): expected a whole number from 0, got -1"]
      ] as const) {
        assert.strictEqual(
          failureOf(yield* feed(`${header}${row}\n`, how)),
          `ticks.csv line 2, ${message}; nothing of ticks.csv went in`
        )
      }
      const options = { ...csv, bars: "1m", map: fields({ price: "close" }) } as const
      assert.include(checkRowOptions(options), "price is none of a bar's fields")
      assert.include(checkRowOptions({ ...csv, map: fields({ close: "c" }) }), "close is of bars: --bars")
      assert.include(checkRowOptions({ ...options, map: fields({ bid_price: "b" }) }), "bid_price is none of a bar's")
    })
  )

  it.effect("takes the order of day and month from any row that has only one, and says which", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const row = (date: string, price: number) => `7,${date} 09:15:00,${price}\n`
      const header = "instrument_token,exchange_ts,price\n"
      const text = `${header}${row("03/04/2026", 1)}${row("03/03/2026", 2)}${row("13/04/2026", 3)}`
      for (const onError of ["fail", "skip"] as const) {
        const { ticks } = yield* feed(text, { onError, onSeen: (what) => seen.push(what) })
        assert.deepStrictEqual(
          ticks.map((t) => t.exchange_ts),
          ["2026-04-03", "2026-03-03", "2026-04-13"].map((date) => Date.parse(`${date}T09:15:00+05:30`) * 1000)
        )
      }
      const why = "dates are read in the order --dates dmy: ticks.csv line 4 has no other"
      assert.deepStrictEqual(seen, [why, why])
      const both = yield* feed(`${text}${row("04/13/2026", 4)}`)
      assert.strictEqual(
        failureOf(both),
        'ticks.csv line 5, column 2 (exchange_ts): expected a date that exists, in the order day, month, year, got "04/13/2026"; nothing of ticks.csv went in'
      )
      assert.strictEqual(
        (yield* feed(`${header}${row("03/04/2026", 1)}`, { dates: "mdy" })).ticks[0]!.exchange_ts,
        Date.parse("2026-03-04T09:15:00+05:30") * 1000
      )
    })
  )

  it.effect("refuses another symbol where all rows are told to have one token", () =>
    Effect.gen(function* () {
      const text = "symbol,exchange_ts,price\nA,2026-01-15 09:15:00,1\nB,2026-01-15 09:15:01,1\n"
      assert.strictEqual(
        failureOf(yield* feed(text, { set: fields({ instrument_token: "7" }) })),
        'ticks.csv line 3, column 1 (symbol): expected "A", as all rows have the same instrument_token, got "B"; nothing of ticks.csv went in'
      )
    })
  )

  it.effect("asks once for each symbol, and names the row of one that is unknown", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const token = async (symbol: string) => {
        asked.push(symbol)
        const is = symbol === "A" ? 11 : "expected the symbol of an instrument that the instance knows"
        return { is, from: -Infinity, through: Infinity }
      }
      const rows = ["A", "B", "A", "B"].map((symbol, i) => `${symbol},2026-01-15 09:15:0${i},1\n`)
      const { skipped, ticks } = yield* feed(`symbol,exchange_ts,price\n${rows.join("")}`, {
        instruments: { token },
        onError: "skip"
      })
      assert.deepStrictEqual(
        [asked, ticks.map((t) => t.instrument_token)],
        [
          ["A", "B"],
          [11, 11]
        ]
      )
      assert.strictEqual(
        skipped[0],
        'ticks.csv line 3, column 1 (symbol): expected the symbol of an instrument that the instance knows, got "B"'
      )
    })
  )

  it.effect("counts a symbol that is unknown on several days as one reason", () =>
    Effect.gen(function* () {
      const token = async (symbol: string, day: number) =>
        symbol === "A"
          ? { is: 11, from: -Infinity, through: Infinity }
          : { is: `expected a symbol known on ${tradingDate(day)}, or another`, from: day, through: day }
      const rows = ["A,2026-01-15", "B,2026-01-15", "B,2026-01-16"].map((row) => `${row} 09:15:00,1\n`)
      const how = { instruments: { token }, onError: "skip" } as const
      const { progress, skipped } = yield* feed(`symbol,exchange_ts,price\n${rows.join("")}`, how)
      assert.include(skipped[1], "known on 2026-01-16, or another, got")
      assert.deepStrictEqual([...(progress?.reasons ?? [])], [["symbol: expected a symbol known, or another", 2]])
    })
  )

  it.effect("asks again for a day on which the symbol may be another's", () =>
    Effect.gen(function* () {
      const asked: Array<number> = []
      // 2026-01-16 and before, and after it.
      const token = async (_: string, day: number) => {
        asked.push(day)
        return day <= 20_469
          ? { is: 11, from: -Infinity, through: 20_469 }
          : { is: 12, from: 20_470, through: Infinity }
      }
      const days = ["2026-01-15", "2026-01-19", "2026-01-16", "2026-01-20"]
      const rows = days.map((date) => `A,${date} 09:15:00,1\n`)
      const { ticks } = yield* feed(`symbol,exchange_ts,price\n${rows.join("")}`, { instruments: { token } })
      assert.deepStrictEqual(
        ticks.map((t) => t.instrument_token),
        [11, 12, 11, 12]
      )
      assert.deepStrictEqual(asked, [20_468, 20_472])
    })
  )

  it.effect("refuses a bar that is there twice, wherever the second stands", () =>
    Effect.gen(function* () {
      const header = "date,instrument_token,open,high,low,close,volume\n"
      const bars = ["16 09:15:00,7", "16 09:16:00,7", "19 09:15:00,7", "16 09:15:00,8"].map(
        (start) => `2026-01-${start},1,2,1,2,4\n`
      )
      const again = [...bars, ...bars.slice(0, 2)]
      for (const interval of ["1m", "1d"] as const) {
        const rows = interval === "1m" ? again : again.filter((row) => !row.includes("09:16"))
        const why = `ticks.csv line ${new Set(rows).size + 2}, column 1 (date): expected each bar once, it is there already`
        const text = `${header}${rows.join("")}`
        assert.include(failureOf(yield* feed(text, { bars: interval })), why)
        const { skipped, ticks } = yield* feed(text, { bars: interval, onError: "skip" })
        assert.strictEqual(skipped[0], why)
        assert.strictEqual(ticks.length, 4 * new Set(rows).size)
      }
    })
  )

  it("remembers the bars of a bounded number of days, and forgets the oldest", () => {
    const starts = new BarStarts("1d")
    const [first, start] = [1_000_000, tradingDayStart(20_469)]
    assert.isTrue(starts.add(first, start))
    for (let token = 1; token < MIN_BAR_DAYS; token++) starts.add(token, start)
    assert.isFalse(starts.add(first, start))
    for (let token = 1; token < 2 * MIN_BAR_DAYS; token++) starts.add(2_000_000 + token, start)
    assert.isFalse(starts.add(2_000_000 + MIN_BAR_DAYS, start))
    assert.isTrue(starts.add(first, start))
  })

  it.effect("takes prices below zero", () =>
    Effect.gen(function* () {
      const { ticks } = yield* feed("instrument_token,exchange_ts,price\n7,2026-01-15 09:15:00,-37.63\n")
      assert.deepStrictEqual(
        ticks.map((t) => t.price),
        [-37.63]
      )
    })
  )

  it.effect("sends nothing of a file with a bad row; or skips it, and says so", () =>
    Effect.gen(function* () {
      const good = '{"instrument_token":1,"exchange_ts":1768448700000000,"price":5}\n'
      const text = `${good.repeat(3)}nonsense\n${good}{}\n${good}`
      const failing = yield* feed(text, ndjson, "t.ndjson")
      assert.strictEqual(
        failureOf(failing),
        "t.ndjson line 4, column 2: not JSON: Unexpected token 'o'; 2 of 7 rows are bad: 1 × not JSON: Unexpected token 'o'; 1 × instrument_token: expected a number between 1 and 2147483647; nothing of t.ndjson went in"
      )
      assert.strictEqual(failing.ticks.length, 0)
      const skipping = yield* feed(text, { ...ndjson, onError: "skip" }, "t.ndjson")
      assert.deepInclude(skipping.progress, { rows: 7, sent: 5, skipped: 2 })
      assert.strictEqual(skipping.skipped.length, 2)
      assert.match(skipping.skipped[1]!, /^t\.ndjson line 6, instrument_token: /)
    })
  )

  it.effect("skips a line that is too long without holding it, wherever it ends", () =>
    Effect.gen(function* () {
      const good = '{"instrument_token":1,"exchange_ts":1768448700000000,"price":5}\n'
      const long = "x".repeat(MAX_LINE_CHARS * 3)
      const { progress, skipped } = yield* feed(`${good}${long}\n${good}${long}`, { ...ndjson, onError: "skip" })
      assert.deepInclude(progress, { rows: 4, sent: 2, skipped: 2 })
      assert.match(skipped[0]!, /line 2: longer than 1048576 characters/)
    })
  )

  it.effect("counts the very same content, so that the same file always gives the same identities", () =>
    Effect.gen(function* () {
      const rows = [
        ["09:15:00", 1, 10, 5],
        ["09:15:00", 1, 10, 5],
        ["09:15:00", 2, 10, 5],
        ["09:15:00", 1, 10, 6],
        ["09:15:01", 1, 10, 5],
        ["09:15:00", 1, 10, 5]
      ]
      const text = `exchange_ts,instrument_token,price,volume\n${rows.map(([t, ...rest]) => `2026-01-15 ${t},${rest}`).join("\n")}`
      const first = yield* feed(text)
      assert.deepStrictEqual(
        first.ticks.map((t) => t.occurrence),
        [0, 1, 0, 0, 0, 2]
      )
      assert.deepStrictEqual((yield* feed(text)).ticks, first.ticks)
    })
  )

  it.effect("leaves numbered rows and given occurrences alone", () =>
    Effect.gen(function* () {
      const row = { instrument_token: 1, exchange_ts: 1_768_448_700_000_000, price: 5 }
      const rows = [{ ...row, sequence_id: 1 }, { ...row, sequence_id: 1 }, { ...row, occurrence: 4 }, row, row]
      const { ticks } = yield* feed(rows.map((r) => JSON.stringify(r)).join("\n"), ndjson)
      assert.deepStrictEqual(
        ticks.map((t) => t.occurrence),
        [0, 0, 4, 0, 1]
      )
    })
  )

  it("remembers a bounded number of contents", () => {
    const occurrences = new Occurrences()
    const tick = readRawTick({ instrument_token: 1, exchange_ts: 1_768_448_700_000_000, price: 5 }) as RawTick
    const next = (volume: number) => occurrences.next({ ...tick, volume })
    for (let i = 0; i < MIN_CONTENTS; i++) next(i)
    assert.strictEqual(next(0), 1)
    for (let i = 1; i < 2 * MIN_CONTENTS; i++) next(MIN_CONTENTS + i)
    assert.strictEqual(next(1), 0)
  })

  it.live("reads ahead by one batch and no more while the sink is busy", () =>
    Effect.gen(function* () {
      const path = join(yield* folder, "many.ndjson")
      const row = '{"instrument_token":1,"exchange_ts":1768448700000000,"price":5}\n'
      writeFileSync(path, row.repeat(100_000))
      const gate = yield* Deferred.make<void>()
      const isBusy = yield* Deferred.make<void>()
      const { layer, ticks } = collecting(Effect.andThen(Deferred.succeed(isBusy, undefined), Deferred.await(gate)))
      const seen: Array<FileFeed.FileProgress> = []
      const fiber = yield* FileFeed.run({
        ...ndjson,
        file: path,
        onError: "fail",
        progress: (p) => {
          seen.push(p)
        }
      }).pipe(Effect.provide(layer), Effect.forkChild({ startImmediately: true }))
      yield* Deferred.await(isBusy)
      // Long enough for a reader without bounds to have read it all, short enough not to matter otherwise.
      yield* Effect.sleep(300)
      yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(fiber)
      assert.strictEqual(seen.length, 1)
      // The batch that was under way is counted only where its publish was seen to end.
      assert.isAtMost(seen[0]!.rows, 15_000)
      assert.isAtMost(ticks.length, 10_000)
    })
  )

  it.effect("says why a file cannot be read", () =>
    Effect.gen(function* () {
      const { layer } = collecting()
      const path = yield* folder
      for (const [file, why] of [
        [join(path, "absent.csv"), /^cannot read .*absent\.csv: ENOENT/],
        [path, /^cannot read .*: it is a folder$/]
      ] as const) {
        const failed = yield* Effect.flip(FileFeed.run({ ...csv, file, onError: "fail" }).pipe(Effect.provide(layer)))
        assert.match(failed.message, why)
      }
    })
  )
})

describe("what rows are to be read by", () => {
  const check = (options: Partial<RowOptions>) => checkRowOptions({ ...csv, ...options })

  it("has to fit together before anything is read", () => {
    assert.isUndefined(check({}))
    assert.strictEqual(
      check({ map: fields({ price: "2" }), set: fields({ price: "5" }) }),
      "price is both mapped and set"
    )
    assert.strictEqual(
      check({ hasHeader: false, map: fields({ price: "ltp" }) }),
      "price=ltp: without a header a column goes by its number from 1"
    )
    assert.strictEqual(
      check({ hasHeader: false, map: fields({ price: "1", exchange_ts: "2" }) }),
      "instrument_token is neither mapped nor set, and there is no header to find it by"
    )
    assert.strictEqual(check({ set: fields({ volume: "1", day_volume: "2" }) }), "volume and day_volume are both set")
    assert.strictEqual(
      check({ set: fields({ instrument_token: "x" }) }),
      'instrument_token: expected a number between 1 and 2147483647, got "x"'
    )
    assert.strictEqual(
      check({ set: fields({ exchange_ts: "2026-01-15 09:15:00" }), zone: undefined })?.slice(0, 24),
      "exchange_ts: expected a "
    )
    assert.isUndefined(check({ set: fields({ sequencing: "monotonic" }) }))
  })
})

/** What a quote says, without what it is silent of. */
const saidBy = (record: RawRecord | undefined): Partial<QuoteState> =>
  Object.fromEntries(
    Object.entries(record?.quote?.state ?? {}).filter(([, value]) => value !== undefined)
  ) as Partial<QuoteState>

describe("quotes of a file", () => {
  const BOOK = ["bid_price", "bid_quantity", "bid_orders", "ask_price", "ask_quantity", "ask_orders"]
  const DEEP = ["", "_2", "_3", "_4", "_5"].flatMap((level) => BOOK.map((name) => `${name}${level}`))
  const DAY = [
    ...["total_buy_quantity", "total_sell_quantity", "oi", "oi_day_high", "oi_day_low", "average_price"],
    ...["last_quantity", "last_trade_ts", "open", "high", "low", "previous_close", "lower_circuit", "upper_circuit"]
  ]
  const one = fields({ instrument_token: "7" })
  const row = (second: number, ...rest: ReadonlyArray<number | string>) =>
    [`2026-01-15 09:15:0${second}`, ...rest].join()

  it.effect("stand beside the tick of their row: levels of the book, and what is known of the day", () =>
    Effect.gen(function* () {
      const levels = Array.from({ length: 5 }, (_, i) => [100 - i, 10 + i, 1 + i, 101 + i, 20 + i, 2 + i])
      const day = [500, 600, 77, 80, 70, 100.123, 3, "2026-01-15 09:15:01", 99, 102, 98, 97.5, 80, 120]
      const text = `exchange_ts,price,volume,${DEEP},${DAY}\n${row(2, 100, 3, ...levels.flat(), ...day)}\n`
      const renamed = text.replace(",open,high,low,", ",Open,High,Low,")
      const map = fields({ open: "Open", high: "High", low: "Low" })
      const { progress, records } = yield* feed(renamed, { set: one, map })
      assert.deepStrictEqual(
        records.map(({ tick }) => [tick?.price, tick?.volume]),
        [[100, 3]]
      )
      assert.deepStrictEqual(saidBy(records[0]), {
        bid: levels.map(([price, quantity, orders]) => [price, quantity, orders]),
        ask: levels.map(([, , , price, quantity, orders]) => [price, quantity, orders]),
        ...Object.fromEntries(DAY.map((name, i) => [name, day[i]])),
        last_trade_ts: Date.UTC(2026, 0, 15, 3, 45, 1) * 1000
      } as Partial<QuoteState>)
      assert.deepInclude(progress, { rows: 1, sent: 1, quotes: 1, skipped: 0 })
    })
  )

  it.effect(
    "leave out what a row is silent of, and a level of quantity 0, which is how vendors fill an empty side",
    () =>
      Effect.gen(function* () {
        const header = "exchange_ts,price,bid_price,bid_quantity,bid_price_2,bid_quantity_2,ask_price,ask_quantity,oi"
        const rows = [
          row(0, 10, 9, 5, 8, 6, 11, 7, 77),
          row(1, 10, 9, 5, 0, 0, 0, 0, ""),
          row(2, 10, "", "", "", "", "", 0, ""),
          row(3, 10, "", "", "", "", "", "", "")
        ]
        const { progress, records } = yield* feed(`${header}\n${rows.join("\n")}\n`, { set: one })
        assert.deepStrictEqual(records.map(saidBy), [
          {
            bid: [
              [9, 5, 0],
              [8, 6, 0]
            ],
            ask: [[11, 7, 0]],
            oi: 77
          },
          { bid: [[9, 5, 0]], ask: [] },
          { ask: [] },
          {}
        ])
        assert.deepInclude(progress, { sent: 4, quotes: 3 })
        assert.isUndefined(records[3]!.quote)
      })
  )

  it.effect("take a side without quantities, whose price 0 is nobody", () =>
    Effect.gen(function* () {
      const text = `exchange_ts,price,bid,ask\n${row(0, 10, 9, 11)}\n${row(1, 10, 9, 0)}\n`
      const { records } = yield* feed(text, { set: one, map: fields({ bid_price: "bid", ask_price: "ask" }) })
      assert.deepStrictEqual(records.map(saidBy), [
        { bid: [[9, 0, 0]], ask: [[11, 0, 0]] },
        { bid: [[9, 0, 0]], ask: [] }
      ])
    })
  )

  it.effect("stand alone in a row without a price, where the map says which columns are of a quote", () =>
    Effect.gen(function* () {
      const text = `exchange_ts,price,volume,BuyPrice,BuyQty\n${row(0, "", 0, 9, 5)}\n${row(1, 10, 3, 9, 6)}\n`
      const map = fields({ bid_price: "BuyPrice", bid_quantity: "BuyQty" })
      const set = fields({ instrument_token: "7", feed: "mine" })
      const { progress, records } = yield* feed(text, { set, map })
      assert.deepStrictEqual(
        records.map(({ quote, tick }) => [tick?.price, quote?.exchange_ts, quote?.feed, quote?.state.bid]),
        [
          [undefined, Date.UTC(2026, 0, 15, 3, 45) * 1000, "mine", [[9, 5, 0]]],
          [10, Date.UTC(2026, 0, 15, 3, 45, 1) * 1000, "mine", [[9, 6, 0]]]
        ]
      )
      assert.deepInclude(progress, { rows: 2, sent: 2, quotes: 2 })
      // Without a price anywhere; and with its quantity, which only a trade has.
      const bare = yield* feed(text.replace("price,volume", "was,size"), { set, map })
      assert.deepStrictEqual(
        bare.records.map(({ tick }) => tick),
        [undefined, undefined]
      )
      assert.strictEqual(
        failureOf(yield* feed(text.replace(",,0,", ",,4,"), { set, map })),
        "ticks.csv line 2, column 2 (price): missing, though volume says that there is a tick beside the quote; nothing of ticks.csv went in"
      )
      const byName = text.replace("BuyPrice,BuyQty", "bid_price,bid_quantity")
      assert.strictEqual(
        failureOf(yield* feed(byName, { set })),
        "ticks.csv line 2, column 2 (price): expected a number between -1000000000 and 1000000000, got nothing; nothing of ticks.csv went in"
      )
    })
  )

  it.effect("are those of the contract in NDJSON, beside ticks and alone, or of keys that the map names", () =>
    Effect.gen(function* () {
      const at = { instrument_token: 7, exchange_ts: 1_768_448_700_000_000 }
      const rows = [
        { ...at, price: 10, day_volume: 40, quote: { bid: [[9, 5, 1]], oi: 3 }, oi: 9 },
        { ...at, day_volume: 41, quote: { ask: [] } },
        { ...at, price: 10, bp: 8, bq: 2 },
        { ...at, price: 10, bp: 8, bq: 2, quote: { oi: 4, bid: [] } }
      ]
      const text = rows.map((r) => JSON.stringify(r)).join("\n")
      const map = fields({ bid_price: "bp", bid_quantity: "bq" })
      const { records } = yield* feed(text, { ...ndjson, map }, "ticks.ndjson")
      assert.deepStrictEqual(records.map(saidBy), [
        { bid: [[9, 5, 1]], oi: 3, day_volume: 40 },
        { ask: [], day_volume: 41 },
        { bid: [[8, 2, 0]] },
        { bid: [[8, 2, 0]], oi: 4 }
      ])
      assert.deepStrictEqual(
        records.map(({ tick }) => tick?.price),
        [10, undefined, 10, 10]
      )
      const wrong = JSON.stringify({ ...at, price: 10, quote: { bid: [[9, -5, 1]] } })
      assert.strictEqual(
        failureOf(yield* feed(wrong, ndjson, "ticks.ndjson")),
        "ticks.ndjson line 1, bid_quantity: expected a value greater than or equal to 0, got -5; nothing of ticks.ndjson went in"
      )
    })
  )

  it.effect("name what is wrong by row, column and field", () =>
    Effect.gen(function* () {
      const header =
        "exchange_ts,price,bid_price,bid_quantity,bid_price_2,bid_quantity_2,oi,average_price,last_trade_ts"
      for (const [wrong, message] of [
        [
          row(0, 10, "x", 5, "", "", "", "", ""),
          'column 3 (bid_price): expected a number between -1000000000 and 1000000000, got "x"'
        ],
        [
          row(0, 10, 9, -5, "", "", "", "", ""),
          "column 4 (bid_quantity): expected a value greater than or equal to 0, got -5"
        ],
        [row(0, 10, 9, 5, 8, 1.5, "", "", ""), "column 6 (bid_quantity_2): expected an integer, got 1.5"],
        [row(0, 10, "", "", 8, 1, "", "", ""), "column 5 (bid_price_2): expected bid_price before it, the better one"],
        [row(0, 10, "", 5, "", "", "", "", ""), "column 3 (bid_price): missing, though bid_quantity is 5"],
        [row(0, 10, 9, 5, 8, 6, 1.5, "", ""), "column 7 (oi): expected an integer, got 1.5"],
        [
          row(0, 10, 9, 5, 8, 6, 1, 10.123456789, ""),
          "column 8 (average_price): expected at most 7 decimals, got 10.123456789"
        ],
        [
          row(0, 10, 9, 5, 8, 6, 1, 1, "soon"),
          'column 9 (last_trade_ts): expected a time such as 2026-01-15T09:15:00+05:30 or an epoch number, got "soon"'
        ]
      ] as const) {
        const failed = failureOf(yield* feed(`${header}\n${wrong}\n`, { set: one }))
        assert.strictEqual(failed, `ticks.csv line 2, ${message}; nothing of ticks.csv went in`)
      }
    })
  )

  it.effect("hold the prices of the book to the tick size, and round them; averages have none", () =>
    Effect.gen(function* () {
      const header = "exchange_ts,price,bid_price,bid_quantity,average_price"
      const text = `${header}\n${row(0, 10.05, 10.02, 5, 10.123456789)}\n`
      assert.include(
        failureOf(yield* feed(text, { set: one, tickSize: 0.05 })),
        "column 3 (bid_price): expected a multiple of the tick size 0.05 (--round, or --tick-size for another), got 10.02"
      )
      const { records } = yield* feed(text, { set: one, tickSize: 0.05, round: true })
      assert.deepStrictEqual(records.map(saidBy), [{ bid: [[10, 5, 0]], average_price: 10.1234568 }])
    })
  )

  it.effect("leave columns alone that may be of a bar, and quantities without a price", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const text = `exchange_ts,price,open,high,low,bid_quantity\n${row(0, 10, 1, 2, 3, 4)}\n`
      const { records } = yield* feed(text, { set: one, onSeen: (what) => seen.push(what) })
      assert.deepStrictEqual(records.map(saidBy), [{}])
      assert.deepStrictEqual(seen, ["columns not used: open, high, low, bid_quantity"])
      assert.include(
        failureOf(yield* feed(text, { set: one, map: fields({ bid_quantity: "bid_quantity" }) })),
        "line 1, bid_quantity: it says nothing without bid_price (--map bid_price=COLUMN)"
      )
      assert.strictEqual(
        checkRowOptions({ ...ndjson, map: fields({ ask_orders_3: "n" }) }),
        "ask_orders_3 says nothing without ask_price_3"
      )
      assert.strictEqual(checkRowOptions({ ...csv, set: fields({ oi: "-1" }) })?.slice(0, 3), "oi:")
    })
  )

  const book = (second: number, price: number | string, quantity: number, volume: number) =>
    row(second, price, quantity, volume)
  const BOOK_HEADER = "exchange_ts,price,bid_quantity,volume,bid_price"

  it.effect("stand alone in rows that tell of no trade, where the vendor has one for each change of the book", () =>
    Effect.gen(function* () {
      const rows = [
        book(0, 10, 5, 0),
        book(1, 10, 6, 4),
        book(2, 10, 7, 0),
        book(3, 11, 7, 0),
        book(4, 11, 0, 0),
        book(5, 11, 8, 0),
        book(6, 11, 8, 2)
      ]
      const text = `${BOOK_HEADER}\n${rows.map((r) => `${r},9`).join("\n")}\n`
      const pricesOf = (records: ReadonlyArray<RawRecord>) => records.map(({ tick }) => tick?.price)
      const told = yield* feed(text, { set: one, untraded: "quote" })
      // A price that changed was traded at; without a book there is nothing but the price.
      assert.deepStrictEqual(pricesOf(told.records), [undefined, 10, undefined, 11, 11, undefined, 11])
      assert.isTrue(told.records.every(({ quote }) => quote !== undefined))
      assert.deepStrictEqual((yield* feed(text, { set: one, untraded: "quote" })).records, told.records)
      assert.deepStrictEqual(pricesOf((yield* feed(text, { set: one })).records), [10, 10, 10, 11, 11, 11, 11])
      const totals = [0, 4, 4, 4, 4, 4, 6]
      const byDay = rows.map((r, i) => `${r.slice(0, r.lastIndexOf(","))},${totals[i]},9`)
      const ofDay = `${BOOK_HEADER.replace("volume", "day_volume")}\n${byDay.join("\n")}\n`
      const { records } = yield* feed(ofDay, { set: one, untraded: "quote" })
      assert.deepStrictEqual(pricesOf(records), pricesOf(told.records))
      assert.strictEqual(records[2]!.quote!.state.day_volume, 4)
    })
  )

  it.effect("are counted and told where they stand behind a newer one of their day", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const onSeen = (what: string) => seen.push(what)
      const rows = [row(2, 10, 1), row(1, 10, 2), row(0, 10, 3), row(2, 10, 4)]
      const other = "2026-01-14 09:15:00,10,1"
      yield* feed(`exchange_ts,price,oi\n${[...rows, other].join("\n")}\n`, { set: one, onSeen })
      assert.deepStrictEqual(seen, [
        "quotes behind a newer one of their day, of which only the newest is kept: 2 (sort the file by time)"
      ])
    })
  )

  it.effect("are the open interest of a bar, beside its close", () =>
    Effect.gen(function* () {
      const rows = ["09:15:00,1,3,1,2,4,77", "09:16:00,2,2,2,2,4,", "09:17:00,2,2,2,2,4,0"]
      const text = `date,open,high,low,close,volume,oi\n${rows.map((r) => `2026-01-15 ${r}`).join("\n")}\n`
      const { progress, records } = yield* feed(text, { bars: "1m", set: one })
      // When it was known is in it, so that an open interest which stays the same is told of each bar.
      const close = (minute: number) => Date.UTC(2026, 0, 15, 3, minute, 59, 999) * 1000
      const [first, last] = [
        { oi: 77, last_trade_ts: close(45) },
        { oi: 0, last_trade_ts: close(47) }
      ] as const
      assert.deepStrictEqual(records.map(saidBy), [{}, {}, {}, first, {}, {}, {}, {}, {}, {}, {}, last])
      assert.strictEqual(records[3]!.quote!.exchange_ts, close(45))
      assert.deepInclude(progress, { rows: 3, sent: 12, quotes: 2 })
      assert.strictEqual(
        failureOf(yield* feed(text.replace(",77", ",-7"), { bars: "1m", set: one })),
        "ticks.csv line 2, column 7 (oi): expected a value greater than or equal to 0, got -7; nothing of ticks.csv went in"
      )
    })
  )
})

describe.each(["nifty50-2022-08-10.csv", "nifty50-2022-08-12.csv"])("the real day %s", (name) => {
  const file = join(import.meta.dirname, "../../../../shared/data", name)

  it.skipIf(!existsSync(file))("is taken row for row, the same each time (skipped without ../shared/data)", () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const options: FileFeed.FileFeedOptions = {
          file,
          format: "csv",
          hasHeader: false,
          map: fields({ exchange_ts: "1", price: "2" }),
          set: fields({ instrument_token: "256265", volume: "0", feed: "snapshot" }),
          zone: makeZone("Asia/Kolkata"),
          onError: "fail"
        }
        const rows = readFileSync(file, "utf8")
          .split("\n")
          .map((line) => line.trim())
          .filter((line) => line !== "")
          .map((line) => line.split(",") as [string, string])
        const { layer, ticks } = collecting()
        const progress = yield* FileFeed.run(options).pipe(Effect.provide(layer))
        assert.deepInclude(progress, { rows: rows.length, sent: rows.length, skipped: 0 })
        assert.deepStrictEqual(
          ticks.map((t) => [t.exchange_ts, t.price]),
          rows.map(([time, price]) => [Date.parse(`${time.replace(" ", "T")}+05:30`) * 1000, Number(price)])
        )
        const identity = (t: RawTick) => `${t.exchange_ts} ${t.price} ${t.occurrence}`
        assert.strictEqual(new Set(ticks.map(identity)).size, rows.length)
        const again = collecting()
        yield* FileFeed.run(options).pipe(Effect.provide(again.layer))
        assert.deepStrictEqual(again.ticks, ticks)
      })
    )
  )
})

describe("the real day of a future", () => {
  const file = join(import.meta.dirname, "../../../../shared/data/nifty-futures-2022-01-ticks.csv")
  const token = 3001

  it.effect.skipIf(!existsSync(file))(
    "is taken whole: trades, quotes and open interest are the file's (skipped without ../shared/data)",
    () =>
      Effect.gen(function* () {
        const { columns, dates, hasHeader, stamp, untraded } = presetOf("gdfl")
        const options: FileFeed.FileFeedOptions = {
          ...{ ...csv, file, onError: "fail", columns, dates, hasHeader, stamp, untraded },
          instruments: { token: async () => ({ is: token, from: -Infinity, through: Infinity }) }
        }
        const { layer, records } = collecting()
        const progress = yield* FileFeed.run(options).pipe(Effect.provide(layer))
        const rows = readFileSync(file, "utf8")
          .trim()
          .split(/\r?\n/)
          .slice(1)
          .map((line) => line.split(","))
        assert.deepInclude(progress, { rows: rows.length, sent: rows.length, quotes: rows.length, skipped: 0 })

        const stampOf = ([, date, time]: ReadonlyArray<string>) => {
          const [d, m, y] = date!.split("/")
          return Date.parse(`${y}-${m}-${d}T${time}+05:30`) * 1000
        }
        assert.deepStrictEqual(
          records.map(({ quote, tick }) => [quote!.exchange_ts, tick?.exchange_ts ?? quote!.exchange_ts]),
          rows.map((row) => [stampOf(row), stampOf(row)])
        )
        assert.deepStrictEqual(
          records.map(saidBy),
          rows.map(
            ([, , , , bid, bids, ask, asks, , oi]): Partial<QuoteState> => ({
              bid: [[Number(bid), Number(bids), 0]],
              ask: [[Number(ask), Number(asks), 0]],
              oi: Number(oi)
            })
          )
        )
        // What was traded, or at least moved the price; of the rest nothing is a trade.
        assert.deepStrictEqual(
          records.map(({ tick }) => (tick === undefined ? undefined : [tick.price, tick.volume])),
          rows.map(([, , , price, , , , , quantity], i) =>
            quantity === "0" && price === (rows[i - 1] ?? rows[i]!)[3] ? undefined : [Number(price), Number(quantity)]
          )
        )
        const ticks = records.flatMap(({ tick }) => (tick === undefined ? [] : [tick]))
        assert.strictEqual(
          ticks.reduce((sum, { volume }) => sum + volume, 0),
          rows.reduce((sum, row) => sum + Number(row[8]), 0)
        )
        assert.strictEqual(Math.min(...ticks.map(({ price }) => price)), Math.min(...rows.map((row) => Number(row[3]))))
        const identity = (t: RawTick) => `${t.exchange_ts} ${t.price} ${t.volume} ${t.occurrence}`
        assert.strictEqual(new Set(ticks.map(identity)).size, ticks.length)
      })
  )
})
