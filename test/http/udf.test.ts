import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { intervalMicros } from "../../src/schema/Candle.ts"
import type { Quote } from "../../src/schema/Quote.ts"
import type { StoredTick } from "../../src/streams/ports/TickStore.ts"
import { quoteAt } from "../support/hub.ts"
import { instrumentOf } from "../support/instruments.ts"
import { accessBy, bearer, keysFile, makeKey } from "../support/keys.ts"
import { barsOf, memoryStore, OPEN, Rows, storedTick } from "./memoryStore.ts"
import { ask, serve } from "./serving.ts"
import { adapter, Rejected } from "./udfAdapter.ts"

const MINUTE = 60_000_000
const DAY = 86_400_000_000
/** Fridays, with nothing in the week between: 2026-01-09 and 2026-01-16. */
const DAYS = [OPEN - 7 * DAY, OPEN]
const SECOND = 1_000_000
const seconds = (micros: number): number => micros / SECOND

/** Two days of a tick each 20 s over an hour; the numbers miss one in the newest day's third minute. */
const filled = (): Rows => {
  const rows = new Rows()
  for (const one of [instrumentOf(7, "INFY"), instrumentOf(8, "TCS"), instrumentOf(9, "TCS", "BSE")]) {
    rows.instruments.set(one.instrument_token, one)
  }
  let n = 0
  for (const day of DAYS) {
    for (let i = 0; i < 180; i++) {
      n++
      rows.ticks.push(
        storedTick({
          exchange_ts: day + i * 20 * SECOND,
          price: 100 + ((i * 7) % 40) / 20,
          volume: 1 + (i % 5),
          sequence_id: n + (day === OPEN && i >= 7 ? 1 : 0),
          position: n,
          // The second comes out of order, and nothing is missing there.
          status: day === OPEN && (i === 7 || i === 20) ? "STALE" : "LIVE"
        })
      )
    }
  }
  return rows
}
const TICKS: ReadonlyArray<StoredTick> = filled().ticks

const served = Effect.map(serve({ store: memoryStore(filled()) }), ({ port }) => ({ port, chart: adapter(port) }))
const INFO = { ticker: "NSE:INFY" }

const answered = <A>(answer: A | Rejected): A => {
  if (answer instanceof Rejected) throw new Error(`rejected: ${String(answer.reason)}`)
  return answer
}

describe("the datafeed of charting libraries", () => {
  it.effect("says what it offers, the time, and what is found", () =>
    Effect.gen(function* () {
      const { chart } = yield* served
      const config = yield* chart.config
      assert.deepStrictEqual(config.supported_resolutions, ["1", "5", "15", "30", "60", "1D"])
      assert.include(JSON.stringify(config.exchanges), '"NSE"')
      assert.isAbove(yield* chart.time, -1)
      const found = yield* chart.search("tc", "", "")
      assert.deepStrictEqual(found.map(({ ticker }) => ticker).sort(), ["BSE:TCS", "NSE:TCS"])
      assert.deepStrictEqual(
        (yield* chart.search("tcs", "BSE", "stock")).map(({ full_name }) => full_name),
        ["BSE:TCS"]
      )
      assert.deepStrictEqual(yield* chart.search("tcs", "NSE", "index"), [])
    }).pipe(Effect.scoped)
  )

  it.effect("describes an instrument as a library needs it, and refuses what none is", () =>
    Effect.gen(function* () {
      const { chart } = yield* served
      const info = answered(yield* chart.resolve("nse:infy"))
      assert.strictEqual(info.ticker, "NSE:INFY")
      assert.strictEqual(info.timezone, "Asia/Kolkata")
      assert.match(String(info.session), /^\d{4}-\d{4}(,\d{4}-\d{4})*:23456$/)
      assert.deepStrictEqual([info.minmov, info.pricescale], [5, 100])
      for (const wrong of ["NSE:NONE", "TCS"]) assert.instanceOf(yield* chart.resolve(wrong), Rejected)
    }).pipe(Effect.scoped)
  )

  it.effect("answers the bars of every resolution, of a range and counted back over days without any", () =>
    Effect.gen(function* () {
      const { chart } = yield* served
      for (const [resolution, interval] of [
        ["1", "1m"],
        ["5", "5m"],
        ["15", "15m"],
        ["30", "30m"],
        ["60", "1h"],
        ["1D", "1d"]
      ] as const) {
        const shift = interval === "1d" ? 19_800_000_000 : 0
        const expected = barsOf(TICKS, interval).map(({ ts, ...bar }) => ({ time: (ts + shift) / 1000, ...bar }))
        const to = seconds(OPEN + DAY)
        const all = answered(yield* chart.bars(INFO, resolution, 0, to))
        assert.deepStrictEqual(all.bars, expected, resolution)
        for (const count of [1, 2, expected.length - 1, expected.length, 5000]) {
          if (count === 0) continue
          const { bars } = answered(yield* chart.bars(INFO, resolution, to - 60, to, count))
          assert.deepStrictEqual(bars, expected.slice(-count), `${resolution} ${count}`)
        }
        const first = expected.at(-1)!.time / 1000
        const until = answered(yield* chart.bars(INFO, resolution, 0, first))
        assert.deepStrictEqual(until.bars, expected.slice(0, -1), `${resolution}: to is exclusive`)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("where a range has no bar says where the newest before it is", () =>
    Effect.gen(function* () {
      const { chart } = yield* served
      const [from, to] = [OPEN - 2 * DAY, OPEN - DAY].map(seconds) as [number, number]
      const none = answered(yield* chart.bars(INFO, "1", from, to))
      const newest = DAYS[0]! + 59 * MINUTE
      assert.deepStrictEqual(none, { bars: [], meta: { noData: true, nextTime: seconds(newest) } })
      const early = answered(yield* chart.bars(INFO, "1D", 0, seconds(DAYS[0]! - DAY), 10))
      assert.deepStrictEqual(early, { bars: [], meta: { noData: true, nextTime: undefined } })
    }).pipe(Effect.scoped)
  )

  it.effect("quotes each symbol under the name asked, with the change since the day before", () =>
    Effect.gen(function* () {
      const { chart } = yield* served
      const [quote, none, silent] = answered(yield* chart.quotes(["nse:INFY", "NSE:NONE", "NSE:TCS"]))
      const last = TICKS.at(-1)!.price
      const before = TICKS[179]!.price
      assert.strictEqual(quote!.n, "nse:INFY")
      const values = quote!.v as Readonly<Record<string, number>>
      assert.strictEqual(values.lp, last)
      assert.strictEqual(values.prev_close_price, before)
      assert.closeTo(values.ch!, last - before, 1e-6)
      assert.deepStrictEqual([none!.s, none!.n, silent!.s], ["error", "NSE:NONE", "error"])
    }).pipe(Effect.scoped)
  )

  it.effect("quotes say the best prices and the exchange's close of the day before, where they are of that day", () =>
    Effect.gen(function* () {
      const last = TICKS.at(-1)!
      const values = (quote: Quote) =>
        Effect.gen(function* () {
          const { port } = yield* serve({ store: memoryStore(filled()), quotes: [quote] })
          const [answer] = answered(yield* adapter(port).quotes(["NSE:INFY"]))
          return answer!.v as Readonly<Record<string, number>>
        })
      const fields = { bid: [[100.05, 5, 1]], ask: [[100.1, 7, 1]], previous_close: 98, open: 1 } as const
      const today = yield* values(quoteAt(7, last.exchange_ts + 1, 1, fields))
      assert.deepInclude(today, { bid: 100.05, ask: 100.1, prev_close_price: 98, lp: last.price })
      assert.closeTo(today.ch!, last.price - 98, 1e-6)
      assert.notStrictEqual(today.open_price, 1)
      const before = yield* values(quoteAt(7, last.exchange_ts - DAY, 1, fields))
      assert.doesNotHaveAnyKeys(before, ["bid", "ask"])
      assert.strictEqual(before.prev_close_price, TICKS[179]!.price)
    }).pipe(Effect.scoped)
  )

  it.effect("marks the bar whose ticks have a gap, at that bar's time", () =>
    Effect.gen(function* () {
      const { chart } = yield* served
      for (const [resolution, interval] of [
        ["1", "1m"],
        ["5", "5m"],
        ["1D", "1d"]
      ] as const) {
        const to = seconds(OPEN + DAY)
        const marks = yield* chart.marks("marks", INFO, resolution, 0, to)
        const { bars } = answered(yield* chart.bars(INFO, resolution, 0, to))
        assert.lengthOf(marks, 1)
        assert.include(String(marks[0]!.text), "1 gap: 1 of the feed's numbers missing")
        const at = bars.find(({ time }) => time === (marks[0]!.time as number) * 1000)
        assert.isDefined(at, resolution)
        const stamp = TICKS.find(({ status }) => status === "STALE")!.exchange_ts / 1000
        if (interval !== "1d") assert.isTrue(at!.time <= stamp && stamp < at!.time + intervalMicros(interval) / 1000)
        assert.deepStrictEqual(yield* chart.marks("timescale_marks", INFO, resolution, 0, to), [])
      }
    }).pipe(Effect.scoped)
  )

  it.effect("refuses a bad input in the envelope that libraries read, naming the parameter", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const range = "symbol=NSE:INFY&resolution=1&from=0&to=1768535100"
      for (const [path, status, parameter] of [
        ["symbols", 400, "symbol"],
        ["symbols?symbol=NSE:NONE", 404, "symbol"],
        ["symbols?symbol=TCS", 400, "symbol"],
        ["search?exchange=NOWHERE", 400, "exchange"],
        ["search?type=forex", 400, "type"],
        ["search?limit=0", 400, "limit"],
        [`history?${range.replace("resolution=1", "resolution=2")}`, 400, "resolution"],
        [`history?${range.replace("to=1768535100", "to=1768535100000")}`, 400, "to"],
        [`history?${range.replace("from=0", "from=now")}`, 400, "from"],
        [`history?${range.replace("from=0", "from=1768535100")}`, 400, "to"],
        [`history?${range}&countback=0`, 400, "countback"],
        [`history?${range}&countback=10001`, 400, "countback"],
        [`marks?${range.replace("symbol=NSE:INFY", "symbol=")}`, 400, "symbol"],
        ["quotes?symbols=", 400, "symbols"],
        [`quotes?symbols=${"A,".repeat(50)}A`, 400, "symbols"],
        ["nothing", 404, "path"]
      ] as const) {
        const answer = yield* ask(port, `/udf/${path}`)
        const { s, errmsg, message, parameter: named } = answer.json as Readonly<Record<string, unknown>>
        assert.deepStrictEqual([answer.status, s, named], [status, "error", parameter], `${path}: ${answer.text}`)
        assert.strictEqual(errmsg, message)
        assert.include(String(errmsg), parameter)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("takes parameters that it does not know, as adapters add them", () =>
    Effect.gen(function* () {
      const { port } = yield* served
      const answer = yield* ask(port, "/udf/symbols?symbol=NSE:INFY&currencyCode=INR&unitId=1")
      assert.strictEqual(answer.status, 200)
    }).pipe(Effect.scoped)
  )

  it.effect("asks for a key that may read, and shows only the instruments that it is for", () =>
    Effect.gen(function* () {
      const [desk, one, writer] = [
        makeKey("desk"),
        makeKey("one", { instruments: ["NSE:INFY"] }),
        makeKey("writer", { scopes: ["write"] })
      ]
      const { path } = yield* keysFile([desk, one, writer])
      const { port } = yield* serve({ store: memoryStore(filled()), access: accessBy(path) })
      for (const headers of [{}, bearer(writer)]) {
        const chart = adapter(port, headers)
        assert.instanceOf(yield* chart.resolve("NSE:INFY"), Rejected)
        const bars = yield* chart.bars(INFO, "1", 0, seconds(OPEN + DAY))
        assert.isTrue(bars instanceof Rejected && typeof bars.reason === "string" && bars.reason.length > 0)
      }
      const chart = adapter(port, bearer(one))
      assert.strictEqual(answered(yield* chart.resolve("NSE:INFY")).name, "INFY")
      assert.instanceOf(yield* chart.resolve("NSE:TCS"), Rejected)
      assert.deepStrictEqual(
        (yield* chart.search("", "", "")).map(({ ticker }) => ticker),
        ["NSE:INFY"]
      )
      assert.deepStrictEqual(
        answered(yield* chart.quotes(["NSE:INFY", "NSE:TCS"])).map(({ s }) => s),
        ["ok", "error"]
      )
    }).pipe(Effect.scoped)
  )
})
