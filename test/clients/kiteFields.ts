/**
 * Decides what a tick and a quote of the broker's own clients are to say, field by field, by what the platform itself
 * says; and plays packets of which no field says what another does.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { divisorOf, isIndexToken } from "../../src/schema/kite/packets.ts"
import { getJson, type Instance } from "../support/processes.ts"
import type { Client, Language, Said } from "./kiteClients.ts"

type Level = readonly [price: number, quantity: number, orders: number]
export type Mode = "ltp" | "quote" | "full"

/** An entry of the platform's own `GET /quotes`. */
export interface Entry {
  readonly instrument_token: number
  readonly last: { readonly price: number; readonly volume: number; readonly exchange_ts: number }
  readonly open: number
  readonly high: number
  readonly low: number
  readonly volume: number
  readonly quote: Readonly<Partial<Record<string, number>>> & {
    readonly exchange_ts: number
    readonly bid?: ReadonlyArray<Level>
    readonly ask?: ReadonlyArray<Level>
  }
}

/** Each field of a tick: what Python and JavaScript call it, what Go does, and what Go says where a packet has none. */
const NO_DEPTH = { buy: Array<Level>(5).fill([0, 0, 0]), sell: Array<Level>(5).fill([0, 0, 0]) }
const fields = {
  token: ["instrument_token", "InstrumentToken", 0],
  mode: ["mode", "Mode", ""],
  tradable: ["tradable", "IsTradable", false],
  last: ["last_price", "LastPrice", 0],
  quantity: ["last_traded_quantity", "LastTradedQuantity", 0],
  average: ["average_traded_price", "AverageTradePrice", 0],
  volume: ["volume_traded", "VolumeTraded", 0],
  buy: ["total_buy_quantity", "TotalBuyQuantity", 0],
  sell: ["total_sell_quantity", "TotalSellQuantity", 0],
  ohlc: ["ohlc", "OHLC", { open: 0, high: 0, low: 0, close: 0 }],
  change: ["change", "NetChange", 0],
  tradedAt: ["last_trade_time", "LastTradeTime", undefined],
  at: ["exchange_timestamp", "Timestamp", undefined],
  oi: ["oi", "OI", 0],
  oiHigh: ["oi_day_high", "OIDayHigh", 0],
  oiLow: ["oi_day_low", "OIDayLow", 0],
  depth: ["depth", "Depth", NO_DEPTH],
  // Go's alone. The two totals its client never sets: what it is sent is in the two fields above.
  index: [undefined, "IsIndex", false],
  totalBuy: [undefined, "TotalBuy", 0],
  totalSell: [undefined, "TotalSell", 0]
} as const
type Field = keyof typeof fields
const names = Object.keys(fields) as ReadonlyArray<Field>

/** Whole seconds since 1970. Python's times have no zone: it runs in India's. Go's zero is year 1. */
export const secondsOf = (language: Language, time: unknown): number | undefined => {
  if (typeof time !== "string" || time.startsWith("0001")) return undefined
  return Date.parse(language === "python" ? `${time}+05:30` : time) / 1000
}

interface Depth {
  readonly buy: ReadonlyArray<Readonly<Record<"price" | "quantity" | "orders", number>>>
  readonly sell: Depth["buy"]
}
const levelsOf = (side: Depth["buy"]): ReadonlyArray<Level> =>
  side.map(({ orders, price, quantity }) => [price, quantity, orders])
const depthOf = ({ buy, sell }: Depth) => ({ buy: levelsOf(buy), sell: levelsOf(sell) })

/** A client's tick, field by field; one that no name is known for would be one that nothing compares. */
export const said = (language: Language, tick: Said): Record<Field, unknown> => {
  const at = language === "go" ? 1 : 0
  const known = names.map((name) => fields[name][at]).filter((name) => name !== undefined)
  assert.deepStrictEqual(
    Object.keys(tick).filter((name) => !(known as ReadonlyArray<string>).includes(name)),
    [],
    language
  )
  const value = (name: Field): unknown => {
    const key = fields[name][at]
    const one = key === undefined ? undefined : tick[key]
    if (name === "tradedAt" || name === "at") return secondsOf(language, one)
    return name === "depth" && one !== undefined ? depthOf(one as Depth) : one
  }
  return Object.fromEntries(names.map((name) => [name, value(name)])) as Record<Field, unknown>
}

const five = (levels: ReadonlyArray<Level> = []): ReadonlyArray<Level> =>
  Array.from({ length: 5 }, (_, i) => levels[i] ?? [0, 0, 0])

/** What the platform says of an instrument, in the names of a tick; of an index Kite's packets have a price and a day alone. */
const platformSays = ({ high, instrument_token: token, last, low, open, quote, volume }: Entry) => {
  // A price goes as a whole number of the segment's parts of a rupee. Traded prices are such; an average is rounded.
  const rounded = (value: number) => Math.round(value * divisorOf(token)) / divisorOf(token)
  const close = quote.previous_close ?? 0
  return {
    token,
    last: last.price,
    // The packet that is at least as new as the last trade tells of that trade.
    quantity: (quote.exchange_ts >= last.exchange_ts ? quote.last_quantity : undefined) ?? last.volume,
    average: rounded(quote.average_price ?? 0),
    volume: Math.max(volume, quote.day_volume ?? 0),
    buy: quote.total_buy_quantity ?? 0,
    sell: quote.total_sell_quantity ?? 0,
    // The day's bounds are the exchange's and what trades went beyond.
    ohlc: {
      open: quote.open ?? open,
      high: Math.max(quote.high ?? high, high),
      low: Math.min(quote.low ?? low, low),
      close
    },
    close,
    // Stamps go in whole seconds.
    tradedAt: Math.floor(Math.max(last.exchange_ts, quote.last_trade_ts ?? 0) / 1_000_000),
    at: Math.floor(Math.max(last.exchange_ts, quote.exchange_ts) / 1_000_000),
    oi: quote.oi ?? 0,
    oiHigh: quote.oi_day_high ?? 0,
    oiLow: quote.oi_day_low ?? 0,
    depth: { buy: five(quote.bid), sell: five(quote.ask) }
  }
}

const BARE: ReadonlyArray<Field> = ["token", "mode", "tradable", "last"]
const DAY: ReadonlyArray<Field> = [...BARE, "ohlc", "change"]
const TRADED: ReadonlyArray<Field> = [...DAY, "quantity", "average", "volume", "buy", "sell"]
const ALL: ReadonlyArray<Field> = [...TRADED, "tradedAt", "at", "oi", "oiHigh", "oiLow", "depth"]

/** The tick that a client is to hand its user. */
const expected = (language: Language, mode: Mode, entry: Entry): Record<Field, unknown> => {
  const isIndex = isIndexToken(entry.instrument_token)
  const says = platformSays(entry)
  const rise = says.last - says.close
  // Python and JavaScript make percents of it. Go takes the difference, and of a tradable instrument only in mode full.
  const percent = says.close === 0 ? 0 : (rise * 100) / says.close
  const change = language !== "go" ? percent : isIndex || mode === "full" ? rise : 0
  const has =
    mode === "ltp" ? BARE : isIndex ? [...DAY, ...(mode === "full" ? ["at"] : [])] : mode === "full" ? ALL : TRADED
  const all: Readonly<Record<string, unknown>> = { ...says, mode, tradable: !isIndex, change }
  const value = (name: Field): unknown => {
    if (language === "go" && name === "index") return isIndex
    if (has.includes(name)) return all[name]
    return language === "go" ? fields[name][2] : undefined
  }
  return Object.fromEntries(names.map((name) => [name, value(name)])) as Record<Field, unknown>
}

/** `/quote` of one instrument as each language hands it on, its stamps in seconds. */
export const wholeOf = (language: Language, { depth, last_trade_time, ohlc, timestamp, ...rest }: Said) => ({
  ...rest,
  ohlc,
  depth: depthOf(depth as Depth),
  timestamp: secondsOf(language, timestamp),
  last_trade_time: secondsOf(language, last_trade_time)
})

export const wholeOfPlatform = (entry: Entry) => {
  const { at, average, buy, close, depth, last, ohlc, oi, oiHigh, oiLow, quantity, sell, token, tradedAt, volume } =
    platformSays(entry)
  const isIndex = isIndexToken(token)
  return {
    instrument_token: token,
    timestamp: at,
    last_trade_time: tradedAt,
    last_price: last,
    last_quantity: isIndex ? 0 : quantity,
    buy_quantity: buy,
    sell_quantity: sell,
    volume: isIndex ? 0 : volume,
    average_price: isIndex ? 0 : average,
    oi,
    oi_day_high: oiHigh,
    oi_day_low: oiLow,
    // REST says the difference in rupees, as Kite's does.
    net_change: close === 0 ? 0 : Math.round((last - close) * divisorOf(token)) / divisorOf(token),
    lower_circuit_limit: entry.quote.lower_circuit ?? 0,
    upper_circuit_limit: entry.quote.upper_circuit ?? 0,
    ohlc,
    depth
  }
}

export const quotesOf = (
  { url }: Instance,
  tokens: ReadonlyArray<number>
): Effect.Effect<ReadonlyArray<Entry>, Error> =>
  Effect.map(
    getJson(`${url}/api/v1/quotes?tokens=${tokens.join()}`),
    (answer) => (answer as { readonly quotes: ReadonlyArray<Entry> }).quotes
  )

/** The newest of an instrument that a client was handed since so many events, in a mode. */
export const newest = (language: Language, kite: Client, token: number, mode: Mode, since = 0) =>
  kite.events
    .slice(since)
    .flatMap(({ ticks }) => (ticks ?? []) as ReadonlyArray<Said>)
    .map((tick) => said(language, tick))
    .findLast((tick) => tick.token === token && tick.mode === mode)

/** Waits until a client has been handed what the platform says of all of these, told by price and day; then all has to agree. */
export const agrees = (
  language: Language,
  kite: Client,
  mode: Mode,
  entries: ReadonlyArray<Entry>,
  since: number
): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (const entry of entries) {
      const meant = expected(language, mode, entry)
      const tick = yield* kite.until(() => {
        const found = newest(language, kite, entry.instrument_token, mode, since)
        const day = found?.ohlc as { readonly high: number } | undefined
        const isThere = found?.last === meant.last && (mode === "ltp" || day?.high === (meant.ohlc as typeof day)!.high)
        return isThere && found
      })
      assert.deepStrictEqual(tick, meant, `${language} ${mode} ${entry.instrument_token}`)
    }
  })

export const INFY = 408_065
export const NIFTY = 256_265
export const FUTURE = 13_568_258
const CALL = 13_568_514
/** Currencies, of NSE's in ten-millionths of a rupee and of BSE's in ten-thousandths. */
const RUPEE = 412_675
const RUPEE_BSE = 1_024_006
export const TOKENS = [INFY, NIFTY, FUTURE, CALL, RUPEE, RUPEE_BSE]
export const NAMES = [
  "NSE:INFY",
  "NSE:NIFTY 50",
  "NFO:NIFTY99JANFUT",
  "NFO:NIFTY99JAN20000CE",
  "CDS:USDINR99JANFUT",
  "BCD:USDINR99JANFUT"
]
export const INSTRUMENTS = `instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange
${INFY},1594,INFY,INFOSYS,0,,0,0.05,1,EQ,NSE,NSE
${NIFTY},1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE
${FUTURE},53001,NIFTY99JANFUT,NIFTY,0,2099-01-29,0,0.05,75,FUT,NFO-FUT,NFO
${CALL},53002,NIFTY99JAN20000CE,NIFTY,0,2099-01-29,20000,0.05,75,CE,NFO-OPT,NFO
${RUPEE},1612,USDINR99JANFUT,USDINR,0,2099-01-29,0,0.0025,1000,FUT,CDS-FUT,CDS
${RUPEE_BSE},4000,USDINR99JANFUT,USDINR,0,2099-01-29,0,0.0025,1000,FUT,BCD-FUT,BCD
`

const BASE: Readonly<Record<number, number>> = {
  [INFY]: 1500,
  [NIFTY]: 20_000,
  [FUTURE]: 20_050,
  [CALL]: 120,
  [RUPEE]: 83,
  [RUPEE_BSE]: 84
}

/** The n-th packet of an instrument: no field says what it said before, or what another of the packet says. */
export const packet = (token: number, n: number, exchange_ts: number) => {
  const base = BASE[token]!
  const step = token === RUPEE || token === RUPEE_BSE ? 0.0025 : 0.05
  const price = Number((base + n * step).toFixed(4))
  const at = (steps: number) => Number((price + steps * step).toFixed(4))
  const side = (sign: number, levels: number, quantity: number): ReadonlyArray<Level> =>
    Array.from({ length: levels }, (_, i) => [at(sign * (i + 1)), quantity + i * 75 + n, 1 + ((i + n) % 7)])
  const day = { open: at(-30), high: at(40 + n), low: at(-50 - n), previous_close: at(-7 - n) }
  if (token === NIFTY) return { instrument_token: token, exchange_ts, feed: "snapshot", price, quote: day }
  const hasOi = token !== INFY
  return {
    instrument_token: token,
    exchange_ts,
    feed: "snapshot",
    price,
    day_volume: 10_000 + 111 * n,
    quote: {
      ...day,
      bid: side(-1, 5, 100),
      // Fewer offer now and then than there is room for.
      ask: side(1, 5 - (n % 3), 1000),
      total_buy_quantity: 50_000 + n,
      total_sell_quantity: 60_000 + 3 * n,
      ...(hasOi ? { oi: 1_000_000 + 75 * n, oi_day_high: 1_500_000 + n, oi_day_low: 900_000 - n } : {}),
      // Finer than packets are.
      average_price: Number((price - 0.123_456).toFixed(6)),
      last_quantity: 25 + n,
      last_trade_ts: exchange_ts - 1_400_000,
      lower_circuit: at(-200 - n),
      upper_circuit: at(200 + n)
    }
  }
}
