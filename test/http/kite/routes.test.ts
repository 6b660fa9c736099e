import { gunzipSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { StoreError } from "../../../src/schema/Errors.ts"
import { type Instrument, SIMULATED_EXCHANGE } from "../../../src/schema/Instrument.ts"
import { unknownQuote } from "../../../src/schema/Quote.ts"
import type { Settings } from "../../../src/schema/Settings.ts"
import type { StoredTick } from "../../../src/streams/ports/TickStore.ts"
import { NothingStored } from "../../../src/streams/replay/Replays.ts"
import { tickOf } from "../../support/hub.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { accessBy, keysFile, makeKey } from "../../support/keys.ts"
import { barsOf, memoryStore, OPEN, Rows, storedTick } from "../memoryStore.ts"
import { type Answer, ask } from "../serving.ts"
import { FORMER_OPEN, FORMER_PRICE, PRICE, REUSED, REUSED_NAME, reusedRows } from "./reusedToken.ts"
import { serveKite } from "./serving.ts"

const MINUTE = 60_000_000
const DAY = 86_400_000_000
/** Kite's tokens: the exchange's number, and the segment in the last byte. */
const INFY = 408_065
const NIFTY = 256_265
const FUTURE = 13_568_258
const BARE = 341_249

const instruments: ReadonlyArray<Instrument> = [
  instrumentOf(INFY, "INFY", "NSE", { name: "INFOSYS, LIMITED" }),
  instrumentOf(BARE, "HDFCBANK"),
  instrumentOf(NIFTY, "NIFTY 50", "NSE", { asset_class: "INDEX", tick_size: 0 }),
  instrumentOf(FUTURE, "NIFTY99JANFUT", "NFO", { asset_class: "FUT", expiry: "2099-01-29", lot_size: 75 }),
  instrumentOf(13_568_514, "NIFTY99JAN20000CE", "NFO", {
    asset_class: "OPT",
    expiry: "2099-01-29",
    strike: 20_000,
    option_type: "CE",
    lot_size: 75
  }),
  instrumentOf(13_568_770, "NIFTY20JANFUT", "NFO", { asset_class: "FUT", expiry: "2020-01-30", lot_size: 75 })
]

/** Two days, a week apart, of a tick each 20 s over two hours. */
const filled = (): Rows => {
  const rows = new Rows()
  for (const one of instruments) rows.instruments.set(one.instrument_token, one)
  let n = 0
  for (const token of [INFY, NIFTY, FUTURE]) {
    for (const day of [OPEN - 7 * DAY, OPEN]) {
      for (let i = 0; i < 360; i++) {
        n++
        rows.ticks.push(
          storedTick({
            instrument_token: token,
            exchange_ts: day + i * 20_000_000,
            price: 100 + ((i * 7) % 40) / 20 + (day === OPEN ? 1 : 0),
            volume: 1 + (i % 5),
            sequence_id: n,
            position: i + 1
          })
        )
      }
    }
  }
  return rows
}
const ROWS = filled()
const ticksOf = (token: number, from: number, to: number): ReadonlyArray<StoredTick> => ROWS.of(token, from, to)

const served = serveKite({ store: memoryStore(ROWS) })
const dataOf = (answer: Answer): unknown => {
  assert.strictEqual(answer.status, 200, answer.text)
  const { data, status } = answer.json as { readonly data: unknown; readonly status: string }
  assert.strictEqual(status, "success")
  return data
}
/** What these tests read of a quote. */
interface Told {
  readonly last_price: number
  readonly last_quantity: number
  readonly last_trade_time: string | null
  readonly timestamp: string
  readonly volume: number
  readonly oi: number
  readonly buy_quantity: number
  readonly ohlc: { readonly close: number }
  readonly depth: Readonly<Record<"buy" | "sell", ReadonlyArray<{ readonly price: number }>>>
}
const isFailure = (answer: Answer, status: number, error_type: string, message?: RegExp) => {
  assert.strictEqual(answer.status, status, answer.text)
  const told = answer.json as Record<string, unknown>
  assert.strictEqual(told.status, "error")
  assert.strictEqual(told.error_type, error_type)
  assert.isNull(told.data)
  assert.match(String(told.message), message ?? /./)
  assert.match(String(answer.headers["content-type"]), /json/)
}

describe("Kite's instruments", () => {
  it.live("are a CSV of twelve columns, exactly so called, without a line break at its end", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const all = yield* get("/instruments")
      assert.strictEqual(all.status, 200)
      assert.strictEqual(all.headers["content-type"], "text/csv")
      assert.deepStrictEqual(all.text.split("\n"), [
        "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange",
        "256265,1001,NIFTY 50,,0,,0,0,0,EQ,INDICES,NSE",
        "341249,1333,HDFCBANK,,0,,0,0.05,1,EQ,NSE,NSE",
        '408065,1594,INFY,"INFOSYS, LIMITED",0,,0,0.05,1,EQ,NSE,NSE',
        "13568258,53001,NIFTY99JANFUT,,0,2099-01-29,0,0.05,75,FUT,NFO-FUT,NFO",
        "13568514,53002,NIFTY99JAN20000CE,,0,2099-01-29,20000,0.05,75,CE,NFO-OPT,NFO"
      ])
    }).pipe(Effect.scoped)
  )

  it.live("of one exchange are asked for in any case, packed where that is taken", () =>
    Effect.gen(function* () {
      const { by, get } = yield* served
      const plain = yield* get("/instruments/NFO")
      assert.strictEqual(plain.text.split("\n").length, 3)
      const packed = yield* by("any:token", "/instruments/nfo", { headers: { "accept-encoding": "gzip, deflate" } })
      assert.strictEqual(packed.headers["content-encoding"], "gzip")
      assert.strictEqual(packed.headers["content-type"], "text/csv")
      assert.strictEqual(gunzipSync(packed.bytes).toString("utf8"), plain.text)
      // One of the broker's that nothing here is of has none; what is no exchange is told which there are.
      assert.strictEqual((yield* get("/instruments/MCX")).text.split("\n").length, 1)
      isFailure(
        yield* get("/instruments/NOPE"),
        400,
        "InputException",
        /^exchange: expected one of NSE, .*NFO.*, got NOPE$/
      )
      isFailure(yield* get("/instruments/N%2CSE"), 400, "InputException", /exchange: expected one such as NSE/)
    }).pipe(Effect.scoped)
  )
})

describe("Kite's quotes", () => {
  it.effect("are by the name asked for, with every field, and what nothing says is zero", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const quotes = dataOf(yield* get("/quote?i=NSE:INFY&i=nse:infy&i=NFO:NONE&i=NSE:HDFCBANK&i=408065"))
      const day = ticksOf(INFY, OPEN, OPEN + DAY)
      const [bar] = barsOf(day, "1d")
      const [before] = barsOf(ticksOf(INFY, OPEN - 7 * DAY, OPEN), "1d")
      const none = { price: 0, quantity: 0, orders: 0 }
      const expected = {
        instrument_token: INFY,
        timestamp: "2026-01-16 11:14:40",
        last_trade_time: "2026-01-16 11:14:40",
        last_price: day.at(-1)!.price,
        last_quantity: day.at(-1)!.volume,
        buy_quantity: 0,
        sell_quantity: 0,
        volume: bar!.volume,
        oi: 0,
        oi_day_high: 0,
        oi_day_low: 0,
        net_change: Math.round((day.at(-1)!.price - before!.close) * 100) / 100,
        lower_circuit_limit: 0,
        upper_circuit_limit: 0,
        ohlc: { open: bar!.open, high: bar!.high, low: bar!.low, close: before!.close },
        depth: { buy: Array.from({ length: 5 }, () => none), sell: Array.from({ length: 5 }, () => none) }
      }
      const found = quotes as Record<string, Record<string, unknown>>
      assert.deepStrictEqual(Object.keys(found).sort(), ["408065", "NSE:INFY", "nse:infy"])
      const { average_price, ...rest } = found["NSE:INFY"]!
      assert.deepStrictEqual(rest, expected)
      const average = day.reduce((sum, { price, volume }) => sum + price * volume, 0) / bar!.volume
      assert.closeTo(average_price as number, average, 0.1)
      assert.deepStrictEqual(found["408065"], found["NSE:INFY"])
    }).pipe(Effect.scoped)
  )

  it.effect("say what a packet said of book and day, where one came", () =>
    Effect.gen(function* () {
      const { get, recent } = yield* served
      const said = {
        ...unknownQuote(),
        instrument_token: INFY,
        exchange_ts: OPEN + 7200_000_000,
        feed: "snapshot",
        received_ts: OPEN,
        source: ["raw", 1, 1] as const,
        old: false,
        bid: [[102.5, 5, 2] as const],
        ask: [[102.55, 6, 1] as const],
        total_buy_quantity: 50,
        total_sell_quantity: 60,
        oi: 1234,
        oi_day_high: 2000,
        oi_day_low: 1000,
        average_price: 101.25,
        last_quantity: 3,
        last_trade_ts: OPEN + 7190_000_000,
        open: 99,
        high: 105,
        low: 98,
        previous_close: 97,
        lower_circuit: 80,
        upper_circuit: 120,
        day_volume: 5000
      }
      yield* recent.put([said])
      const found = dataOf(yield* get("/quote?i=NSE:INFY")) as Record<string, Record<string, unknown>>
      const { depth, last_price, net_change, ...rest } = found["NSE:INFY"]!
      assert.deepStrictEqual(rest, {
        instrument_token: INFY,
        timestamp: "2026-01-16 11:15:00",
        last_trade_time: "2026-01-16 11:14:50",
        last_quantity: 3,
        buy_quantity: 50,
        sell_quantity: 60,
        volume: 5000,
        average_price: 101.25,
        oi: 1234,
        oi_day_high: 2000,
        oi_day_low: 1000,
        lower_circuit_limit: 80,
        upper_circuit_limit: 120,
        ohlc: { open: 99, high: 105, low: 98, close: 97 }
      })
      assert.closeTo(net_change as number, (last_price as number) - 97, 1e-6)
      const { buy, sell } = depth as Record<string, ReadonlyArray<unknown>>
      assert.deepStrictEqual(buy![0], { price: 102.5, quantity: 5, orders: 2 })
      assert.deepStrictEqual([sell![0], sell!.length], [{ price: 102.55, quantity: 6, orders: 1 }, 5])
    }).pipe(Effect.scoped)
  )

  it.effect("are there of what has not traded, where a packet said something of it", () =>
    Effect.gen(function* () {
      const said = (token: number, previous_close: number) => ({
        ...unknownQuote(),
        instrument_token: token,
        exchange_ts: OPEN + 60_000_000,
        feed: "snapshot",
        received_ts: OPEN,
        source: ["raw", token, 1] as const,
        old: false,
        ask: [[12.5, 75, 1] as const],
        previous_close
      })
      const OPTION = 13_568_514
      const rows = filled()
      rows.quotes.push(said(BARE, 900), said(OPTION, 0))
      const path = "/quote?i=NSE:HDFCBANK&i=NFO:NIFTY99JAN20000CE&i=NFO:NIFTY20JANFUT"
      const { by, recent, replays } = yield* serveKite({ store: memoryStore(rows) })
      yield* recent.put([said(BARE, 900), said(OPTION, 0)])
      replays.put("abc1", OPEN + 120_000_000, OPEN + 120_000_000)
      for (const key of ["live", "replay:abc1"]) {
        const found = dataOf(yield* by(`${key}:t`, path)) as Record<string, Told>
        assert.deepStrictEqual(
          Object.entries(found).map(([name, q]) => [name, q.last_price, q.ohlc.close, q.depth.sell[0]!.price]),
          [
            ["NSE:HDFCBANK", 900, 900, 12.5],
            ["NFO:NIFTY99JAN20000CE", 0, 0, 12.5]
          ]
        )
        const { last_trade_time, timestamp, volume } = found["NSE:HDFCBANK"]!
        assert.deepStrictEqual([last_trade_time, timestamp, volume], [null, "2026-01-16 09:16:00", 0])
      }
    }).pipe(Effect.scoped)
  )

  it.effect("of an index have a price and the day's bar alone", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const found = dataOf(yield* get("/quote?i=NSE:NIFTY+50")) as Record<string, Record<string, unknown>>
      const quote = found["NSE:NIFTY 50"]!
      assert.isAbove(quote.last_price as number, 100)
      assert.deepStrictEqual([quote.volume, quote.last_quantity, quote.average_price], [0, 0, 0])
    }).pipe(Effect.scoped)
  )

  it.effect("are asked for with less: the last price, or that and the day's bar", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const whole = dataOf(yield* get("/quote?i=NSE:INFY")) as Record<string, Record<string, unknown>>
      const { last_price, ohlc } = whole["NSE:INFY"]!
      assert.deepStrictEqual(dataOf(yield* get("/quote/ltp?i=NSE:INFY")), {
        "NSE:INFY": { instrument_token: INFY, last_price }
      })
      assert.deepStrictEqual(dataOf(yield* get("/quote/ohlc?i=NSE:INFY&i=NSE:NOBODY")), {
        "NSE:INFY": { instrument_token: INFY, last_price, ohlc }
      })
    }).pipe(Effect.scoped)
  )

  it.live("of as many instruments as may be asked for are answered, by names as long as they are", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      const names = Array.from(
        { length: 1001 },
        (_, i) => `BANKNIFTY99DEC${30_000 + i * 100}${i % 2 === 0 ? "CE" : "PE"}`
      )
      for (const [i, symbol] of names.entries()) {
        const instrument_token = 13_568_258 + i * 256
        rows.instruments.set(instrument_token, instrumentOf(instrument_token, symbol, "NFO", { asset_class: "OPT" }))
        rows.ticks.push(storedTick({ instrument_token }))
      }
      const { get } = yield* serveKite({ store: memoryStore(rows) })
      // As Python writes them.
      const asked = (count: number) =>
        names
          .slice(0, count)
          .map((name) => `i=NFO%3A${name}`)
          .join("&")
      for (const [route, most] of [
        ["/quote", 500],
        ["/quote/ohlc", 1000],
        ["/quote/ltp", 1000]
      ] as const) {
        const found = dataOf(yield* get(`${route}?${asked(most)}`)) as object
        assert.strictEqual(Object.keys(found).length, most, route)
        isFailure(yield* get(`${route}?${asked(most + 1)}`), 400, "InputException", /Max permitted is/)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("of too many instruments, or of none, are refused in Kite's words", () =>
    Effect.gen(function* () {
      const { get } = yield* serveKite({ store: memoryStore(ROWS), settings: { KITE_QUOTE_INSTRUMENTS: 2 } })
      const many = yield* get("/quote?i=NSE:A&i=NSE:B&i=NSE:C")
      isFailure(many, 400, "InputException", /^Too many tokens requested\. Max permitted is 2\.$/)
      assert.strictEqual((yield* get("/quote/ltp?i=NSE:A&i=NSE:B&i=NSE:C")).status, 200)
      isFailure(yield* get("/quote"), 400, "InputException", /i: expected instruments/)
    }).pipe(Effect.scoped)
  )
})

describe("Kite's candles", () => {
  const path = (interval: string, more: string, token = INFY) => `/instruments/historical/${token}/${interval}?${more}`
  const RANGE = "from=2026-01-16+09:15:00&to=2026-01-16+11:14:59"
  const WIDTHS = {
    minute: 1,
    "3minute": 3,
    "5minute": 5,
    "10minute": 10,
    "15minute": 15,
    "30minute": 30,
    "60minute": 60
  } as const

  it.effect("of every interval equal a recompute from the ticks", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const day = ticksOf(INFY, OPEN, OPEN + DAY)
      for (const [interval, minutes] of Object.entries(WIDTHS)) {
        const { candles } = dataOf(yield* get(path(interval, RANGE))) as { candles: ReadonlyArray<unknown> }
        const start = (micros: number) => micros - ((micros - OPEN) % (minutes * MINUTE))
        const expected = barsOf(day, "1m", start).map(({ ts, open, high, low, close, volume }) => [
          `${new Date(ts / 1000 + 19_800_000).toISOString().slice(0, 19)}+0530`,
          open,
          high,
          low,
          close,
          volume
        ])
        assert.strictEqual(expected.length, 120 / minutes)
        assert.deepStrictEqual(candles, expected, interval)
      }
      const hour = yield* get(path("hour", RANGE))
      assert.strictEqual(hour.text, (yield* get(path("60minute", RANGE))).text)
      const { candles } = dataOf(yield* get(path("day", "from=2026-01-01&to=2026-01-16"))) as {
        candles: ReadonlyArray<ReadonlyArray<unknown>>
      }
      assert.deepStrictEqual(
        candles.map(([ts]) => ts),
        ["2026-01-09T00:00:00+0530", "2026-01-16T00:00:00+0530"]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("include the one that `to` names, with seven columns where open interest is asked for", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const { candles } = dataOf(
        yield* get(path("5minute", "from=2026-01-16+09:40:00&to=2026-01-16+09:45:00&oi=1"))
      ) as { candles: ReadonlyArray<ReadonlyArray<unknown>> }
      assert.deepStrictEqual(
        candles.map(([ts]) => ts),
        ["2026-01-16T09:40:00+0530", "2026-01-16T09:45:00+0530"]
      )
      for (const candle of candles) assert.strictEqual(candle.length, 7)
      const bare = dataOf(yield* get(path("60minute", "from=2026-01-16&to=2026-01-16"))) as typeof candles
      assert.strictEqual((bare as unknown as { candles: ReadonlyArray<unknown> }).candles.length, 2)
    }).pipe(Effect.scoped)
  )

  it.effect("are refused with what is wrong: the token, interval, dates, and how many days", () =>
    Effect.gen(function* () {
      const { get } = yield* served
      const refused = function* (url: string, message: RegExp) {
        isFailure(yield* get(url), 400, "InputException", message)
      }
      yield* refused(path("minute", RANGE, 7), /^invalid token/)
      yield* refused(`/instruments/historical/x/minute?${RANGE}`, /^invalid token/)
      yield* refused(path("2minute", RANGE), /^invalid interval: expected minute, .*, got 2minute/)
      yield* refused(path("minute", "to=2026-01-16"), /^invalid from date: .*, got nothing$/)
      yield* refused(path("minute", "from=2026-01-16&to=yesterday"), /^invalid to date: .* got yesterday/)
      yield* refused(path("minute", "from=2026-01-16&to=2026-01-15"), /^from date cannot be after to date/)
      yield* refused(path("minute", "from=2026-13-16&to=2026-01-15"), /^invalid from date/)
      yield* refused(path("minute", "from=2025-11-01&to=2026-01-16"), /^interval exceeds max limit: 60 days$/)
      yield* refused(path("minute", `${RANGE}&continuous=1`), /^continuous/)
      assert.strictEqual((yield* get(path("day", "from=2025-11-01&to=2026-01-16&continuous=0"))).status, 200)
    }).pipe(Effect.scoped)
  )
})

describe("Kite's answers", () => {
  it.effect("are marked where an instrument of theirs is simulated", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      for (const one of [instrumentOf(INFY, "INFY"), instrumentOf(9_000_001, "INFY", SIMULATED_EXCHANGE)]) {
        rows.instruments.set(one.instrument_token, one)
        rows.ticks.push(storedTick({ instrument_token: one.instrument_token }))
      }
      const { get } = yield* serveKite({ store: memoryStore(rows) })
      const history = (token: number) => `/instruments/historical/${token}/minute?from=2026-01-16&to=2026-01-16`
      for (const url of [
        "/quote?i=SIM:INFY",
        "/quote/ltp?i=NSE:INFY&i=SIM:INFY",
        "/quote/ohlc?i=9000001",
        history(9_000_001),
        "/instruments",
        "/instruments/SIM"
      ]) {
        assert.strictEqual((yield* get(url)).headers["x-simulated"], "true", url)
      }
      for (const url of ["/quote?i=NSE:INFY", history(INFY), "/instruments/NSE", "/user/profile"]) {
        assert.isUndefined((yield* get(url)).headers["x-simulated"], url)
      }
    }).pipe(Effect.scoped)
  )
})

describe("Kite's session and account", () => {
  const form = (fields: Record<string, string>) => ({
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams(fields).toString()
  })
  const checksum = "a".repeat(64)

  it.live("have the token that was brought, a profile, margins of nothing, and empty lists", () =>
    Effect.gen(function* () {
      const { by, get, port } = yield* served
      const session = dataOf(
        yield* ask(port, "/session/token", form({ api_key: "k", request_token: "mine", checksum }))
      ) as Record<string, unknown>
      assert.strictEqual(session.access_token, "mine")
      assert.strictEqual(String(session.login_time).length, 19)
      assert.isTrue(dataOf(yield* by("k:mine", "/session/token?api_key=k&access_token=mine", { method: "DELETE" })))
      const profile = dataOf(yield* get("/user/profile")) as Record<string, unknown>
      assert.containsAllKeys(profile, ["user_id", "user_name", "email", "exchanges", "products", "order_types", "meta"])
      const margins = dataOf(yield* get("/user/margins")) as Record<string, Record<string, unknown>>
      assert.deepStrictEqual(margins.equity, dataOf(yield* get("/user/margins/equity")) as typeof margins.equity)
      assert.strictEqual(margins.commodity!.net, 0)
      isFailure(yield* get("/user/margins/gold"), 400, "InputException", /segment/)
      for (const path of [
        "/orders",
        "/trades",
        "/portfolio/holdings",
        "/mf/orders",
        "/gtt/triggers",
        "/alerts",
        "/orders/1/trades"
      ]) {
        assert.deepStrictEqual(dataOf(yield* get(path)), [], path)
      }
      assert.deepStrictEqual(dataOf(yield* get("/portfolio/positions")), { net: [], day: [] })
      for (const method of ["POST", "PUT", "DELETE"]) {
        const order = yield* by("k:mine", "/orders/regular", { ...form({ quantity: "1" }), method })
        isFailure(order, 400, "InputException", /market data only/)
      }
      isFailure(
        yield* ask(port, "/session/token", form({ api_key: "k", checksum })),
        400,
        "InputException",
        /request_token/
      )
      const wrong = yield* ask(port, "/session/token", form({ api_key: "k", request_token: "mine", checksum: "no" }))
      isFailure(wrong, 400, "InputException", /checksum/)
    }).pipe(Effect.scoped)
  )
})

describe("Kite's failures", () => {
  it.effect(
    "are in Kite's envelope with their codes: without a token, without a route, by another method, from elsewhere",
    () =>
      Effect.gen(function* () {
        const { by, get, port } = yield* served
        for (const path of ["/quote?i=NSE:INFY", "/user/profile", "/nothing/here"]) {
          isFailure(yield* ask(port, path), 403, "TokenException", /api_key/)
          const bearer = { headers: { authorization: "Bearer x" } }
          isFailure(yield* ask(port, path, bearer), 403, "TokenException")
        }
        for (const pair of ["", ":", "key", "key:", ":token"])
          isFailure(yield* by(pair, "/quote"), 403, "TokenException")
        isFailure(yield* get("/nothing/here"), 404, "GeneralException", /Route not found/)
        isFailure(yield* by("a:b", "/quote", { method: "POST" }), 405, "GeneralException")
        const foreign = { headers: { authorization: "token a:b", host: "evil.example" } }
        isFailure(yield* ask(port, "/quote", foreign), 403, "PermissionException", /Host/)
        const page = { headers: { authorization: "token a:b", origin: "https://evil.example" } }
        isFailure(yield* ask(port, "/quote", page), 403, "PermissionException", /Origin/)
        const wrong = memoryStore(ROWS, { daysSoFar: () => Effect.die("broken") })
        const broken = yield* serveKite({ store: wrong })
        isFailure(yield* broken.get("/quote/ltp?i=NSE:INFY"), 500, "GeneralException")
        const failing = (transient: boolean) => {
          const error = new StoreError({ operation: "daysSoFar", message: "why", transient })
          return serveKite({ store: memoryStore(ROWS, { daysSoFar: () => Effect.fail(error) }) })
        }
        const [away, odd] = [yield* failing(true), yield* failing(false)]
        isFailure(yield* away.get("/quote/ltp?i=NSE:INFY"), 503, "NetworkException", /store did not do daysSoFar: why/)
        isFailure(yield* odd.get("/quote/ltp?i=NSE:INFY"), 502, "DataException", /store did not do daysSoFar: why/)
      }).pipe(Effect.scoped)
  )

  it.effect("tell who asks too often, each kind of question by its own allowance", () =>
    Effect.gen(function* () {
      const { by } = yield* serveKite({
        store: memoryStore(ROWS),
        settings: { KITE_QUOTE_RATE: 1, KITE_HISTORICAL_RATE: 3, KITE_REQUEST_RATE: 10 }
      })
      assert.strictEqual((yield* by("one:t", "/quote/ltp?i=NSE:INFY")).status, 200)
      const second = yield* by("one:t", "/quote/ltp?i=NSE:INFY")
      isFailure(second, 429, "NetworkException", /Too many requests/)
      assert.strictEqual(second.headers["retry-after"], "1")
      assert.strictEqual((yield* by("one:t", "/user/profile")).status, 200)
      assert.strictEqual((yield* by("other:t", "/quote/ltp?i=NSE:INFY")).status, 200)
    }).pipe(Effect.scoped)
  )
})

describe("Where there are API keys, the access_token", () => {
  it.live("is one of them: it has the scope, is for the instruments, and a replay asks for more", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const reads = makeKey("reads", { scopes: ["read"] })
      const writes = makeKey("writes", { scopes: ["write"] })
      const some = makeKey("some", { instruments: [String(NIFTY)] })
      const gone = makeKey("gone", { revoked: "2026-01-16T00:00:00Z" })
      const { path } = yield* keysFile([desk, reads, writes, some, gone])
      const { by, port, replays } = yield* serveKite({ store: memoryStore(ROWS), access: accessBy(path) })
      const quote = "/quote/ltp?i=NSE:INFY&i=NSE:NIFTY+50"
      assert.strictEqual(Object.keys(dataOf(yield* by(`k:${desk.text}`, quote)) as object).length, 2)
      assert.strictEqual(Object.keys(dataOf(yield* by(`k:${reads.text}`, quote)) as object).length, 2)
      isFailure(yield* by("k:anything", quote), 403, "TokenException")
      isFailure(yield* by(`k:${gone.text}`, quote), 403, "TokenException")
      isFailure(yield* by(`k:${writes.text}`, quote), 403, "PermissionException", /lacks read/)
      assert.deepStrictEqual(Object.keys(dataOf(yield* by(`k:${some.text}`, quote)) as object), ["NSE:NIFTY 50"])
      assert.strictEqual((yield* by(`k:${some.text}`, "/instruments")).text.split("\n").length, 2)
      const candles = `/instruments/historical/${INFY}/minute?from=2026-01-16&to=2026-01-16`
      isFailure(yield* by(`k:${some.text}`, candles), 403, "PermissionException", /not for 408065/)
      replays.put("abc1", OPEN, OPEN)
      isFailure(yield* by(`replay:abc1:${reads.text}`, quote), 403, "PermissionException", /lacks replay/)
      assert.strictEqual((yield* by(`replay:abc1:${desk.text}`, quote)).status, 200)
      isFailure(yield* by(`replay:2026-01-16:${some.text}`, quote), 403, "PermissionException", /for some instruments/)
      const session = (request_token: string) =>
        ask(port, "/session/token", {
          method: "POST",
          headers: { "content-type": "application/x-www-form-urlencoded" },
          body: new URLSearchParams({ api_key: "k", request_token, checksum: "b".repeat(64) }).toString()
        })
      assert.strictEqual((dataOf(yield* session(desk.text)) as Record<string, unknown>).access_token, desk.text)
      isFailure(yield* session("guess"), 403, "TokenException", /^Token is invalid or has expired\.$/)
    }).pipe(Effect.scoped)
  )
})

describe("Of a token that was another contract's, a key for the present one", () => {
  const some = makeKey("some", { instruments: [REUSED_NAME] })
  const desk = makeKey("desk")
  const serving = (hasTraded: boolean, settings: Partial<Settings> = {}) =>
    Effect.gen(function* () {
      yield* TestClock.setTime((OPEN + 3_600_000_000) / 1000)
      const { path } = yield* keysFile([desk, some])
      return yield* serveKite({ store: memoryStore(reusedRows(hasTraded)), access: accessBy(path), settings })
    })
  const candles = (from: string, to: string) => `/instruments/historical/${REUSED}/day?from=${from}&to=${to}`

  it.effect("is answered candles of its own days, and refused any range with a day of the other", () =>
    Effect.gen(function* () {
      const { by } = yield* serving(true)
      const rows = (answer: Answer) => (dataOf(answer) as { candles: ReadonlyArray<unknown> }).candles.length
      assert.strictEqual(rows(yield* by(`k:${some.text}`, candles("2025-12-31", "2026-01-16"))), 1)
      for (const range of [
        ["2025-12-17", "2025-12-17"],
        ["2025-12-30", "2026-01-16"],
        ["2025-12-30 15:00:00", "2025-12-31 00:00:00"]
      ] as const) {
        const path = candles(range[0], range[1]).replaceAll(" ", "+")
        isFailure(
          yield* by(`k:${some.text}`, path),
          403,
          "PermissionException",
          /not for 13568258 on all of these days/
        )
      }
      assert.strictEqual(rows(yield* by(`k:${desk.text}`, candles("2025-12-17", "2026-01-16"))), 2)
    }).pipe(Effect.scoped)
  )

  it.effect("is refused the other's days of a replay whose stamps are today's, where they are told to be", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* serving(true, { KITE_SHIFT: "true" })
      replays.put("abc1", OPEN - DAY, OPEN - DAY)
      // 15 January is told as the 16th: 31 December as 1 January.
      const first = yield* by(`replay:abc1:${some.text}`, candles("2026-01-01", "2026-01-16"))
      assert.strictEqual(first.status, 200, first.text)
      const before = yield* by(`replay:abc1:${some.text}`, candles("2025-12-31", "2026-01-16"))
      isFailure(before, 403, "PermissionException", /on all of these days/)
    }).pipe(Effect.scoped)
  )

  it.effect("is told no figure of the other's in a quote: neither its last price nor what it closed at", () =>
    Effect.gen(function* () {
      const ofBoth = function* (hasTraded: boolean) {
        const { by } = yield* serving(hasTraded)
        const path = `/quote?i=${REUSED_NAME}&i=${REUSED}`
        type Quotes = Record<string, { readonly last_price: number; readonly ohlc: { readonly close: number } }>
        return [
          dataOf(yield* by(`k:${some.text}`, path)) as Quotes,
          dataOf(yield* by(`k:${desk.text}`, path)) as Quotes
        ] as const
      }
      const [none, former] = yield* ofBoth(false)
      assert.deepStrictEqual(none, {})
      assert.strictEqual(former[REUSED_NAME]!.last_price, FORMER_PRICE)
      const [own, all] = yield* ofBoth(true)
      const shown = ({ last_price, ohlc }: (typeof own)[string]) => [last_price, ohlc.close]
      assert.deepStrictEqual(Object.values(own).map(shown), Array(2).fill([PRICE, 0]))
      assert.deepStrictEqual(Object.values(all).map(shown), Array(2).fill([PRICE, FORMER_PRICE]))
    }).pipe(Effect.scoped)
  )

  it.effect("is told no price of the other's in the list of instruments", () =>
    Effect.gen(function* () {
      const { by, hub } = yield* serving(false)
      const price = function* (key: string) {
        const { text } = yield* by(`k:${key}`, "/instruments")
        return text.split("\n")[1]!.split(",")[4]
      }
      hub.publish([tickOf(REUSED, 1, 1, { exchange_ts: FORMER_OPEN, price: FORMER_PRICE })])
      assert.deepStrictEqual([yield* price(some.text), yield* price(desk.text)], ["0", String(FORMER_PRICE)])
      hub.publish([tickOf(REUSED, 1, 2, { exchange_ts: OPEN, price: PRICE })])
      assert.deepStrictEqual([yield* price(some.text), yield* price(desk.text)], [String(PRICE), String(PRICE)])
    }).pipe(Effect.scoped)
  )

  it.effect("is told of a replay before its first trade nothing that the other closed at", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* serving(false)
      replays.put("abc1", OPEN, null)
      const path = `/quote/ltp?i=${REUSED_NAME}`
      assert.deepStrictEqual(dataOf(yield* by(`replay:abc1:${some.text}`, path)), {})
      assert.deepStrictEqual(dataOf(yield* by(`replay:abc1:${desk.text}`, path)), {
        [REUSED_NAME]: { instrument_token: REUSED, last_price: FORMER_PRICE }
      })
    }).pipe(Effect.scoped)
  )
})

describe("On a replay", () => {
  const at = (time: string) => Date.parse(`2026-01-16T${time}+05:30`) * 1000

  it.effect("quotes are as of its clock, and so are the candles of its day; days before are whole", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* served
      const clock = at("09:31:30")
      replays.put("abc1", at("09:31:30"), clock)
      const day = ticksOf(INFY, OPEN, clock)
      const [bar] = barsOf(day, "1d")
      const quotes = dataOf(yield* by("replay:abc1:t", "/quote?i=NSE:INFY")) as Record<string, Record<string, unknown>>
      assert.strictEqual(quotes["NSE:INFY"]!.last_price, day.at(-1)!.price)
      assert.strictEqual(quotes["NSE:INFY"]!.volume, bar!.volume)
      const { close, ...made } = quotes["NSE:INFY"]!.ohlc as Record<string, number>
      assert.deepStrictEqual(made, { open: bar!.open, high: bar!.high, low: bar!.low })
      assert.strictEqual(close, ticksOf(INFY, OPEN - 7 * DAY, OPEN).at(-1)!.price)
      for (const [interval, count] of [
        ["minute", 17],
        ["3minute", 6],
        ["5minute", 4],
        ["day", 1]
      ] as const) {
        const url = `/instruments/historical/${INFY}/${interval}?from=2026-01-16&to=2026-01-16`
        const { candles } = dataOf(yield* by("replay:abc1:t", url)) as { candles: ReadonlyArray<ReadonlyArray<number>> }
        assert.strictEqual(candles.length, count, interval)
        // The tick of the clock's own instant has come out; of the bar under way nothing after it counts.
        const known = ticksOf(INFY, OPEN, clock + 1)
        assert.strictEqual(candles.at(-1)![4], known.at(-1)!.price)
        assert.strictEqual(
          candles.reduce((sum, candle) => sum + candle[5]!, 0),
          known.reduce((sum, { volume }) => sum + volume, 0)
        )
      }
      const before = `/instruments/historical/${INFY}/minute?from=2026-01-09&to=2026-01-09`
      const { candles } = dataOf(yield* by("replay:abc1:t", before)) as { candles: ReadonlyArray<unknown> }
      assert.strictEqual(candles.length, 120)
      isFailure(yield* by("replay:none1:t", "/quote/ltp?i=NSE:INFY"), 403, "TokenException", /api_key/)
      isFailure(yield* by("replay:fff:t", "/quote/ltp?i=NSE:INFY"), 403, "TokenException", /no replay is called fff/)
    }).pipe(Effect.scoped)
  )

  it.effect("what packets said of book and day before its clock is known, and of the minute under way", () =>
    Effect.gen(function* () {
      const rows = filled()
      const clock = at("10:31:30")
      const quote = (token: number, exchange_ts: number, oi: number) => ({
        ...unknownQuote(),
        instrument_token: token,
        exchange_ts,
        feed: "snapshot",
        received_ts: exchange_ts,
        source: ["raw", exchange_ts, 1] as const,
        old: false,
        bid: [[102.5, 5, 2] as const],
        total_buy_quantity: oi + 1,
        previous_close: 97.5,
        oi
      })
      // More in a second than a page holds; one that is an hour old; one that only tomorrow has.
      for (let i = 2500; i > 0; i--) rows.quotes.push(quote(FUTURE, clock - 400 * i, 5000 - i))
      rows.quotes.push(quote(FUTURE, clock + 1, 9999))
      rows.quotes.push(quote(INFY, clock - 3600_000_000, 70))
      rows.quotes.push(quote(NIFTY, clock - DAY, 80), quote(NIFTY, clock + DAY, 90))
      const { by, replays } = yield* serveKite({ store: memoryStore(rows) })
      replays.put("abc1", clock, clock)
      const path = `/quote?i=${FUTURE}&i=${INFY}&i=${NIFTY}`
      const found = dataOf(yield* by("replay:abc1:t", path)) as Record<string, Told>
      const told = Object.fromEntries(
        Object.entries(found).map(([name, q]) => [name, [q.oi, q.buy_quantity, q.depth?.buy[0]?.price, q.ohlc.close]])
      )
      assert.deepStrictEqual(told[FUTURE], [4999, 5000, 102.5, 97.5])
      assert.deepStrictEqual(told[INFY], [70, 71, 102.5, 97.5])
      // What its last trade was of where that lies in a minute that is over, of which there is a bar.
      replays.put("abc3", at("10:32:00"), at("10:32:00"))
      const later = dataOf(yield* by("replay:abc3:t", `/quote?i=${INFY}`)) as Record<string, Told>
      const { last_quantity, last_trade_time } = later[INFY]!
      const last = ticksOf(INFY, OPEN, at("10:32:00")).at(-1)!
      assert.deepStrictEqual([last_quantity, last_trade_time], [last.volume, "2026-01-16 10:31:40"])
      const close = ticksOf(NIFTY, OPEN - 7 * DAY, OPEN).at(-1)!.price
      assert.strictEqual(found[NIFTY]!.ohlc.close, close)
      const candles = `/instruments/historical/${FUTURE}/minute?from=2026-01-16&to=2026-01-16&oi=1`
      const { candles: bars } = dataOf(yield* by("replay:abc1:t", candles)) as { candles: ReadonlyArray<Array<number>> }
      assert.deepStrictEqual(
        bars.slice(-2).map((bar) => bar[6]),
        [0, 4999]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("before its first trade the price is what the day before closed at", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* served
      replays.put("abc2", at("00:00:00"), null)
      const quotes = dataOf(yield* by("replay:abc2:t", "/quote?i=NSE:INFY&i=NSE:HDFCBANK")) as Record<
        string,
        Record<string, unknown>
      >
      const close = ticksOf(INFY, OPEN - 7 * DAY, OPEN).at(-1)!.price
      assert.deepStrictEqual(Object.keys(quotes), ["NSE:INFY"])
      const { last_price, last_trade_time, ohlc, volume } = quotes["NSE:INFY"]!
      assert.deepStrictEqual([last_price, last_trade_time, volume], [close, null, 0])
      assert.deepStrictEqual(ohlc, { open: 0, high: 0, low: 0, close })
    }).pipe(Effect.scoped)
  )

  it.effect("what it is not of is left out of quotes and instruments, and has candles up to its clock", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* served
      const clock = at("09:31:30")
      replays.put("abc4", at("09:00:00"), clock)
      const names = "i=NSE:INFY&i=NFO:NIFTY99JANFUT&i=408065&i=13568258&i=NSE:NIFTY 50".replaceAll(" ", "%20")
      const asked = function* (path: string) {
        return Object.keys(dataOf(yield* by("replay:abc4:t", `${path}?${names}`)) as object)
      }
      const linesOf = function* (path: string) {
        const { text } = yield* by("replay:abc4:t", path)
        return text
          .split("\n")
          .slice(1)
          .map((line) => Number(line.split(",")[0]))
      }
      assert.strictEqual((yield* asked("/quote")).length, 5)
      assert.strictEqual((yield* linesOf("/instruments")).length, 5)
      replays.named.set("abc4", new Set([INFY]))
      for (const path of ["/quote", "/quote/ohlc", "/quote/ltp"]) {
        assert.deepStrictEqual((yield* asked(path)).sort(), ["408065", "NSE:INFY"], path)
      }
      assert.deepStrictEqual(yield* linesOf("/instruments"), [INFY])
      assert.deepStrictEqual(yield* linesOf("/instruments/NSE"), [INFY])
      assert.deepStrictEqual(yield* linesOf("/instruments/NFO"), [])
      const url = `/instruments/historical/${FUTURE}/day?from=2026-01-09&to=2026-01-16`
      const { candles } = dataOf(yield* by("replay:abc4:t", url)) as { candles: ReadonlyArray<ReadonlyArray<number>> }
      assert.deepStrictEqual(
        candles.map(([, , , , close]) => close),
        [ticksOf(FUTURE, OPEN - 7 * DAY, OPEN).at(-1)!.price, ticksOf(FUTURE, OPEN, clock + 1).at(-1)!.price]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("its stamps are today's where that is set, and times are asked for so", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* serveKite({ store: memoryStore(ROWS), settings: { KITE_SHIFT: "true" } })
      replays.put("abc3", at("09:31:30"), at("09:31:30"))
      // The test's clock stands at 1970-01-01 05:30 in India.
      const quotes = dataOf(yield* by("replay:abc3:t", "/quote?i=NSE:INFY")) as Record<string, Record<string, unknown>>
      assert.strictEqual(quotes["NSE:INFY"]!.last_trade_time, "1970-01-01 09:31:20")
    }).pipe(Effect.scoped)
  )

  it.effect("contracts expire as many days from today as from the replayed day where its stamps are today's", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      for (const [i, expiry] of ["2026-01-15", "2026-01-16", "2026-01-23", "2026-02-26"].entries()) {
        const contract = { asset_class: "FUT", expiry, lot_size: 75 } as const
        rows.instruments.set(FUTURE + i * 256, instrumentOf(FUTURE + i * 256, `NIFTY26W${i}FUT`, "NFO", contract))
      }
      rows.instruments.set(INFY, instrumentOf(INFY, "INFY"))
      const expiries = function* (settings: Partial<Settings>) {
        yield* TestClock.setTime(Date.parse("2026-03-13T12:00:00+05:30"))
        const { by, replays } = yield* serveKite({ store: memoryStore(rows), settings })
        replays.put("abc1", at("00:00:00"), null)
        const { text } = yield* by("replay:abc1:t", "/instruments")
        return text
          .split("\n")
          .slice(1)
          .map((line) => line.split(",")[5])
      }
      assert.deepStrictEqual(yield* expiries({}), ["", "2026-01-16", "2026-01-23", "2026-02-26"])
      const moved = yield* expiries({ KITE_SHIFT: "true" })
      assert.deepStrictEqual(moved, ["", "2026-03-13", "2026-03-20", "2026-04-23"])
    }).pipe(Effect.scoped)
  )

  it.effect("a day that is named is replayed for whoever asks, once for all of them", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* served
      for (const key of ["replay:2026-01-16@60", "replay:2026-01-16@60", "replay:2026-01-16"]) {
        assert.strictEqual((yield* by(`${key}:t`, "/quote/ltp?i=NSE:INFY")).status, 200)
      }
      assert.deepStrictEqual(replays.asked, [
        { all: true, date: "2026-01-16", speed: 60, paused: true },
        { all: true, date: "2026-01-16", speed: 1, paused: true }
      ])
    }).pipe(Effect.scoped)
  )

  it.effect("a day that nobody listens to makes room for another where as many run as may", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* served
      replays.room = 2
      const asks = (speed: number) => by(`REPLAY:2026-01-16@${speed}:t`, "/quote/ltp?i=NSE:INFY")
      const running = () => [...replays.all.values()].filter(({ state }) => state !== "ended").map(({ id }) => id)
      for (const speed of [1, 2, 1]) assert.strictEqual((yield* asks(speed)).status, 200)
      assert.deepStrictEqual(running(), ["da1", "da2"])
      assert.strictEqual((yield* asks(3)).status, 200)
      assert.deepStrictEqual(running(), ["da2", "da3"])
      // Those of others make none.
      replays.room = 0
      for (const { id } of replays.all.values()) replays.all.set(id, { ...replays.all.get(id)!, state: "ended" })
      isFailure(yield* asks(4), 429, "NetworkException", /run already/)
    }).pipe(Effect.scoped)
  )

  it.effect("a day that nothing is stored of is refused, with the days there are", () =>
    Effect.gen(function* () {
      const { by, replays } = yield* served
      const message = "date: no tick and no quote is stored of 2020-01-01; days there are: 2026-01-16"
      replays.refusal = new NothingStored({ parameter: "date", message })
      const answer = yield* by("replay:2020-01-01@inf:t", "/quote/ltp?i=NSE:INFY")
      isFailure(answer, 400, "InputException", /^api_key: date: .* 2020-01-01; days there are: 2026-01-16$/)
      // One that could not be started is asked for again.
      replays.refusal = undefined
      assert.strictEqual((yield* by("replay:2020-01-01@inf:t", "/quote/ltp?i=NSE:INFY")).status, 200)
    }).pipe(Effect.scoped)
  )
})
