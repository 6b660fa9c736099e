/** Decides how charting libraries are answered: the datafeed that TradingView's UDF adapter and OpenBB read. */
import { Clock, Effect, Semaphore } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { type AssetClass, fullSymbol, type Instrument } from "../schema/Instrument.ts"
import { isExpired } from "../schema/Meaning.ts"
import { type Quote, unknownQuote } from "../schema/Quote.ts"
import type { Segment } from "../schema/Sessions.ts"
import { tradingDay, tradingDayStart } from "../schema/Tick.ts"
import { MAX_MICROS, MIN_MICROS } from "../schema/Time.ts"
import { History } from "../streams/ports/History.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { LastPrices } from "../streams/ports/LastPrices.ts"
import { LatestQuotes } from "../streams/ports/LatestQuotes.ts"
import { type DaySoFar, TickStore } from "../streams/ports/TickStore.ts"
import { Api, type Bar, DEFAULT_UDF_RESULTS, MAX_UDF_BARS, type UdfSymbol, udfResolutions, udfTypes } from "./Api.ts"
import { Caller, type Days } from "./caller.ts"
import { BadRequest } from "./errors.ts"
import { storeFailure } from "./failures.ts"
import { searched } from "./instrumentRoutes.ts"
import { newestBars } from "./newestBars.ts"
import { markSimulated } from "./simulatedMark.ts"
import { allOf, meantBy } from "./symbols.ts"
import { dayMarks, fromUdfTime, gapMarks, udfTime } from "./udfMarks.ts"
import { udfSessions } from "./udfSession.ts"

const TIMEZONE = "Asia/Kolkata"
const RESOLUTIONS = ["1", "5", "15", "30", "60", "1D"]
const WITHIN_A_DAY = RESOLUTIONS.slice(0, -1)
/** Decimals of a price at least, and at most. */
const MIN_DECIMALS = 2
const MAX_DECIMALS = 8
/** Charts looked up for one `/quotes` at a time. */
const QUOTES_AT_ONCE = 4
const MICROS_PER_SECOND = 1_000_000

const assetClasses = new Map(
  Object.entries(udfTypes).map(([assetClass, type]) => [type as string, assetClass as AssetClass])
)

/** The smallest step of a price as a whole number of parts of a rupee. */
const priceStep = (tickSize: number): { readonly minmov: number; readonly pricescale: number } => {
  for (let decimals = MIN_DECIMALS; decimals <= MAX_DECIMALS && tickSize > 0; decimals++) {
    const steps = tickSize * 10 ** decimals
    if (Math.abs(steps - Math.round(steps)) < 1e-6 && Math.round(steps) >= 1) {
      return { minmov: Math.round(steps), pricescale: 10 ** decimals }
    }
  }
  return { minmov: 1, pricescale: 10 ** MIN_DECIMALS }
}

const describeOf = (instrument: Instrument): string => instrument.name ?? instrument.tradingsymbol

interface Asked {
  readonly resolution: string
  readonly from: number
  readonly to: number
}

const ALWAYS: Days = { from: -Infinity, through: Infinity }

/** The first moment of some days, and the one after their last. */
const startOf = ({ from }: Pick<Days, "from">): number => (from === -Infinity ? MIN_MICROS : tradingDayStart(from))
const endOf = ({ through }: Pick<Days, "through">): number =>
  through === Infinity ? MAX_MICROS : tradingDayStart(through + 1)

/**
 * Epoch microseconds of bars' starts, on days on which the symbol means the instrument. A library asks for times before
 * there was anything: they mean the beginning.
 */
const startsOf = ({ resolution, from, to }: Asked, days: Days) => {
  const interval = udfResolutions[resolution]!
  const within = (seconds: number) => Math.min(endOf(days), Math.max(startOf(days), fromUdfTime(seconds, interval)))
  return { interval, from: within(from), to: within(to) }
}

const refuseOrder = ({ from, to }: Asked): Effect.Effect<void, BadRequest> =>
  from < to
    ? Effect.void
    : Effect.fail(new BadRequest({ parameter: "to", message: `to: expected a time after from, got ${to} <= ${from}` }))

const rounded = (value: number): number => Number(value.toFixed(MAX_DECIMALS))

/** What a library shows of a day and its book; without the day before there is no change. */
const quoteValues = (day: DaySoFar, { ask, bid }: Pick<Quote, "ask" | "bid">, before: number | undefined) => ({
  lp: day.last.price,
  open_price: day.open,
  high_price: day.high,
  low_price: day.low,
  volume: day.volume,
  lp_time: Math.floor(day.last.exchange_ts / MICROS_PER_SECOND),
  ...(bid?.[0] === undefined ? {} : { bid: bid[0][0] }),
  ...(ask?.[0] === undefined ? {} : { ask: ask[0][0] }),
  ...(before === undefined
    ? {}
    : {
        prev_close_price: before,
        ch: rounded(day.last.price - before),
        ...(before === 0 ? {} : { chp: rounded(((day.last.price - before) / before) * 100) })
      })
})

export const udfRoutes = HttpApiBuilder.group(
  Api,
  "udf",
  Effect.fnUntraced(function* (handlers) {
    const store = yield* TickStore
    const history = yield* History
    const instruments = yield* Instruments
    const price = yield* LastPrices
    const latest = yield* LatestQuotes
    const session = udfSessions()
    // One at a time: what looks through ticks is not to be many.
    const looking = yield* Semaphore.make(1)
    const nowMicros = Effect.map(Clock.currentTimeMillis, (millis) => millis * 1000)

    /** What a symbol means, or meant last, as whoever asks may see it. */
    const meaningOf = Effect.fnUntraced(function* (symbol: string) {
      const meaning = yield* meantBy(symbol, "latest", instruments, "symbol")
      const token = meaning.instrument.instrument_token
      yield* markSimulated(instruments.isSimulated([token]))
      return { ...meaning, token, segment: instruments.segment(token, meaning.through) }
    })

    const describeSymbol = (
      instrument: Instrument,
      segment: Segment | undefined,
      today: number
    ): typeof UdfSymbol.Type => {
      const { expiry, asset_class } = instrument
      const expired = isExpired(instrument, today)
      return {
        name: instrument.tradingsymbol,
        full_name: fullSymbol(instrument),
        ticker: fullSymbol(instrument),
        description: describeOf(instrument),
        type: udfTypes[asset_class],
        exchange: instrument.exchange,
        listed_exchange: instrument.exchange,
        timezone: TIMEZONE,
        ...session(segment, today),
        ...priceStep(instrument.tick_size),
        format: "price",
        has_intraday: true,
        intraday_multipliers: WITHIN_A_DAY,
        has_daily: true,
        has_weekly_and_monthly: false,
        supported_resolutions: RESOLUTIONS,
        volume_precision: 0,
        visible_plots_set: asset_class === "INDEX" ? "ohlc" : "ohlcv",
        data_status: expired ? "endofday" : "streaming",
        expired,
        ...(expiry === null ? {} : { expiration_date: Date.parse(`${expiry}T00:00:00Z`) / 1000 })
      }
    }

    const quoteOf = (symbol: string) =>
      Effect.gen(function* () {
        const { from, through, token } = yield* meaningOf(symbol)
        const quote = (yield* Effect.mapError(store.daysSoFar([token]), storeFailure)).get(token)
        const day = quote === undefined ? Number.NaN : tradingDay(quote.last.exchange_ts)
        // The last tick may be of what the token means now.
        if (quote === undefined || day < from || day > through)
          return { s: "error" as const, n: symbol, v: {}, errmsg: `${symbol}: no tick of it came` }
        const known = (yield* latest([token])).get(token)
        const book = known !== undefined && tradingDay(known.exchange_ts) === day ? known : unknownQuote()
        // The close that the exchange says is that of the day before, also where no tick of it came here.
        const { previous_close } = book
        if (previous_close !== undefined) {
          return { s: "ok" as const, n: symbol, v: quoteValues(quote, book, previous_close) }
        }
        const before = yield* newestBars(history, {
          token,
          segment: undefined,
          interval: "1d",
          from: startOf({ from }),
          to: tradingDayStart(day),
          limit: 1,
          session: "all",
          now: yield* nowMicros
        }).pipe(Effect.mapError(storeFailure))
        return { s: "ok" as const, n: symbol, v: quoteValues(quote, book, before[0]?.close) }
      }).pipe(
        Effect.catchTags({
          BadRequest: ({ message }) => Effect.succeed({ s: "error" as const, n: symbol, v: {}, errmsg: message }),
          Forbidden: ({ message }) => Effect.succeed({ s: "error" as const, n: symbol, v: {}, errmsg: message }),
          NotFound: ({ message }) => Effect.succeed({ s: "error" as const, n: symbol, v: {}, errmsg: message })
        })
      )

    const marked = Effect.fnUntraced(function* (query: Asked & { readonly symbol: string }) {
      const { instrument, segment, token, ...days } = yield* meaningOf(query.symbol)
      yield* refuseOrder(query)
      return { token, instrument, segment, ...startsOf(query, days), now: yield* nowMicros }
    })

    return handlers.handleAll({
      config: () =>
        Effect.map(Caller, ({ key }) => ({
          supported_resolutions: RESOLUTIONS,
          supports_search: true,
          supports_group_request: false,
          supports_marks: true,
          supports_timescale_marks: true,
          supports_time: true,
          exchanges: [
            { value: "", name: "All exchanges", desc: "" },
            // What there is besides its own instruments is not told to a key for some.
            ...(key?.isRestricted === true ? [] : instruments.exchanges()).map((name) => ({
              value: name,
              name,
              desc: name
            }))
          ],
          symbols_types: [
            { name: "All types", value: "" },
            ...Object.values(udfTypes).map((type) => ({ name: type, value: type as string }))
          ]
        })),
      symbols: ({ query }) =>
        Effect.gen(function* () {
          const { instrument, segment } = yield* meaningOf(query.symbol)
          return describeSymbol(instrument, segment, tradingDay(yield* nowMicros))
        }),
      search: ({ query }) =>
        Effect.gen(function* () {
          const asset_class = assetClasses.get(query.type ?? "")
          const exchange = query.exchange ?? ""
          const found = yield* searched(
            {
              query: query.query ?? "",
              limit: query.limit ?? DEFAULT_UDF_RESULTS,
              ...(exchange === "" ? {} : { exchange }),
              ...(asset_class === undefined ? {} : { asset_class })
            },
            instruments,
            price
          )
          return found.map((one) => ({
            symbol: one.tradingsymbol,
            full_name: fullSymbol(one),
            description: describeOf(one),
            exchange: one.exchange,
            ticker: fullSymbol(one),
            type: udfTypes[one.asset_class]
          }))
        }),
      history: ({ query }) =>
        Effect.gen(function* () {
          const latest = yield* meaningOf(query.symbol)
          const { key } = yield* Caller
          const meanings = allOf(latest, instruments, (token, one) => key === undefined || key.sees(token, one))
          const { countback } = query
          if (countback === undefined) yield* refuseOrder(query)
          const { interval, from, to } = startsOf(query, ALWAYS)
          const session = interval === "1d" ? ("all" as const) : ("regular" as const)
          const now = yield* nowMicros
          /** Of each token that had the name on the days on which it had it: a chart goes on over its change. */
          const newest = (since: number, until: number, limit: number) =>
            Effect.gen(function* () {
              let bars: ReadonlyArray<Bar> = []
              for (const { instrument, ...days } of meanings.toReversed()) {
                if (bars.length >= limit) break
                const token = instrument.instrument_token
                const part = yield* newestBars(history, {
                  token,
                  segment: instruments.segment(token, days.through),
                  interval,
                  session,
                  now,
                  from: Math.max(since, startOf(days)),
                  to: Math.min(until, endOf(days)),
                  limit: limit - bars.length
                })
                bars = [...part, ...bars]
              }
              return bars
            }).pipe(Effect.mapError(storeFailure))
          const found = yield* newest(countback === undefined ? from : MIN_MICROS, to, countback ?? MAX_UDF_BARS + 1)
          if (found.length > MAX_UDF_BARS) {
            return yield* new BadRequest({
              parameter: "from",
              message: `from: expected a range of at most ${MAX_UDF_BARS} bars, or a countback, got more from ${query.from} to ${query.to}`
            })
          }
          if (found.length === 0) {
            if (countback !== undefined) return { s: "no_data" as const }
            const [before] = yield* newest(MIN_MICROS, from, 1)
            return {
              s: "no_data" as const,
              ...(before === undefined ? {} : { nextTime: udfTime(before.ts, interval) })
            }
          }
          return {
            s: "ok" as const,
            t: found.map(({ ts }) => udfTime(ts, interval)),
            o: found.map(({ open }) => open),
            h: found.map(({ high }) => high),
            l: found.map(({ low }) => low),
            c: found.map(({ close }) => close),
            v: found.map(({ volume }) => volume)
          }
        }),
      time: () =>
        Effect.map(Clock.currentTimeMillis, (millis) => HttpServerResponse.text(String(Math.floor(millis / 1000)))),
      quotes: ({ query }) =>
        Effect.map(Effect.forEach(query.symbols.split(","), quoteOf, { concurrency: QUOTES_AT_ONCE }), (d) => ({
          s: "ok" as const,
          d
        })),
      marks: ({ query }) =>
        Effect.flatMap(marked(query), (range) => looking.withPermits(1)(gapMarks(history, range))).pipe(
          Effect.catchTag("StoreError", (error) => Effect.fail(storeFailure(error)))
        ),
      timescaleMarks: ({ query }) =>
        Effect.flatMap(marked(query), (range) => dayMarks(history, range, range.instrument.expiry)).pipe(
          Effect.catchTag("StoreError", (error) => Effect.fail(storeFailure(error)))
        )
    })
  })
)
