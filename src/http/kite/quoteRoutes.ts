/** Decides how quotes are answered: whole, or the last price with or without the day's bar, each by the name asked for. */
import { Effect } from "effect"
import { kiteStamp } from "../../schema/kite/asked.ts"
import type { Level } from "../../schema/Quote.ts"
import { badInput, marked, success } from "./answers.ts"
import type { Snapshot } from "./Figures.ts"
import { type Asked, type Gateway, meantIn, type Route, seenOn, tokenOf } from "./Gateway.ts"

const level = ([price, quantity, orders]: Level): string =>
  `{"price":${price},"quantity":${quantity},"orders":${orders}}`
const side = (levels: ReadonlyArray<Level>): string => `[${levels.map(level).join(",")}]`
const stamp = (seconds: number): string => JSON.stringify(kiteStamp(seconds))

const ohlcOf = ({ open, high, low, close }: Snapshot): string =>
  `"ohlc":{"open":${open},"high":${high},"low":${low},"close":${close}}`

const ltp = (q: Snapshot): string => `{"instrument_token":${q.token},"last_price":${q.lastPrice}}`
const ohlc = (q: Snapshot): string => `{"instrument_token":${q.token},"last_price":${q.lastPrice},${ohlcOf(q)}}`
const whole = (q: Snapshot): string =>
  `{"instrument_token":${q.token},"timestamp":${stamp(q.exchangeSeconds)},"last_trade_time":${stamp(q.lastTradeSeconds)},` +
  `"last_price":${q.lastPrice},"last_quantity":${q.lastQuantity},"buy_quantity":${q.buyQuantity},` +
  `"sell_quantity":${q.sellQuantity},"volume":${q.volume},"average_price":${q.averagePrice},"oi":${q.oi},` +
  `"oi_day_high":${q.oiDayHigh},"oi_day_low":${q.oiDayLow},"net_change":${q.change},` +
  `"lower_circuit_limit":${q.lowerCircuit},"upper_circuit_limit":${q.upperCircuit},${ohlcOf(q)},` +
  `"depth":{"buy":${side(q.bid)},"sell":${side(q.ask)}}}`

type Most = "KITE_QUOTE_INSTRUMENTS" | "KITE_LTP_INSTRUMENTS"

const answerQuotes =
  (most: Most, write: (quote: Snapshot) => string) =>
  ({ query, visitor }: Asked, gateway: Gateway) =>
    Effect.gen(function* () {
      const names = [...new Set(query.getAll("i"))]
      const limit = gateway.settings[most]
      if (names.length === 0) return yield* badInput("i: expected instruments such as i=NSE:INFY&i=NSE:TCS, got none")
      if (names.length > limit) return yield* badInput(`Too many tokens requested. Max permitted is ${limit}.`)
      const source = yield* gateway.sources.of(visitor)
      const tokens = names.flatMap((name) => {
        const token = tokenOf(name, visitor, source, gateway)
        return token === undefined ? [] : [[name, token] as const]
      })
      const distinct = [...new Set(tokens.map(([, token]) => token))]
      const found = yield* gateway.findDays.read(source.market, distinct, source.now())
      const shift = source.shift()
      const entries = tokens.flatMap(([name, token]) => {
        const instrument = meantIn(source, gateway, token)
        const quote = found.get(token)?.snapshot(instrument, shift, seenOn(visitor, token, gateway))
        return quote === undefined ? [] : [`${JSON.stringify(name)}:${write(quote)}`]
      })
      return marked(success(`{${entries.join(",")}}`), gateway.instruments.isSimulated(distinct))
    })

export const quoteRoutes: ReadonlyArray<Route> = [
  { method: "GET", path: "/quote", allowance: "quote", answer: answerQuotes("KITE_QUOTE_INSTRUMENTS", whole) },
  { method: "GET", path: "/quote/ohlc", allowance: "quote", answer: answerQuotes("KITE_LTP_INSTRUMENTS", ohlc) },
  { method: "GET", path: "/quote/ltp", allowance: "quote", answer: answerQuotes("KITE_LTP_INSTRUMENTS", ltp) }
]
