/**
 * Decides how candles are answered: every interval of Kite's from the platform's own exact bars, `to` included, and on a
 * replay none that lies behind its clock.
 */
import { Effect } from "effect"
import { addToBars, BAR_ORIGIN_MICROS, barStart, type Candle, type Interval, withOi } from "../../schema/Candle.ts"
import type { StoreError } from "../../schema/Errors.ts"
import { showText } from "../../schema/Explain.ts"
import { type KiteInterval, kiteBarTime, kiteIntervalOf, kiteIntervals, kiteTimeOf } from "../../schema/kite/asked.ts"
import { MAX_TOKEN } from "../../schema/RawValues.ts"
import { barOpen, type Segment } from "../../schema/Sessions.ts"
import { tradingDay } from "../../schema/Tick.ts"
import type { PastTicks } from "../../streams/ports/History.ts"
import type { TickCursor, TickStore } from "../../streams/ports/TickStore.ts"
import { bars } from "../bars.ts"
import { newestQuote } from "../newestQuote.ts"
import { daysOf } from "../range.ts"
import { badInput, marked, refused, success } from "./answers.ts"
import { type Asked, type Gateway, maySeeAll, meantIn, type Route } from "./Gateway.ts"

const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_DAY = 86_400_000_000
const PAGE = 10_000

type Past = Pick<TickStore["Service"], "candles" | "ticks" | "minuteOi">

/** The bars of the platform that an interval is made of, which are its own where they are as wide. */
const PARTS: Readonly<Record<KiteInterval, Interval>> = {
  minute: "1m",
  "3minute": "1m",
  "5minute": "5m",
  "10minute": "5m",
  "15minute": "15m",
  "30minute": "30m",
  "60minute": "1h",
  day: "1d"
}

/** The past as it was at a time: of what lies behind it nothing, of the bar under way what was there. */
export const asOf = (past: Past & Pick<PastTicks, "quotePage">, now: number): Past => {
  const ticks: Past["ticks"] = (query) => past.ticks({ ...query, to: Math.min(query.to, now + 1) })
  /** What a bar under way is made of: its whole minutes, and the ticks and quotes of the one that is not over. */
  const underWay = (token: number, interval: Interval): Effect.Effect<Candle | undefined, StoreError> =>
    Effect.gen(function* () {
      const ts = barStart(now, interval)
      const minute = barStart(now, "1m")
      const made: Array<Candle> = []
      if (ts < minute) {
        const parts = yield* past.candles({
          instrument_token: token,
          interval: "1m",
          from: ts,
          to: minute,
          limit: PAGE
        })
        for (const part of parts) addToBars(made, ts, part)
      }
      let after: TickCursor | undefined
      while (true) {
        const page = yield* ticks({
          instrument_token: token,
          from: minute,
          to: minute + MICROS_PER_MINUTE,
          limit: PAGE,
          ...(after === undefined ? {} : { after })
        })
        for (const { price, volume } of page) {
          addToBars(made, ts, { open: price, high: price, low: price, close: price, volume })
        }
        if (page.length < PAGE) break
        after = page.at(-1)!
      }
      if (made[0] === undefined) return undefined
      const quote = yield* newestQuote(past, token, minute, now + 1)
      return withOi(made[0], quote?.oi ?? made[0].oi)
    })
  return {
    ticks,
    minuteOi: (query) => past.minuteOi({ ...query, to: Math.min(query.to, barStart(now, "1m")) }),
    candles: (query) =>
      Effect.gen(function* () {
        const { from, instrument_token, interval, limit, to } = query
        const last = barStart(now, interval)
        const found = from < last ? yield* past.candles({ ...query, to: Math.min(to, last) }) : []
        if (found.length >= limit || last < from || last >= to) return found
        const open = yield* underWay(instrument_token, interval)
        return open === undefined ? found : [...found, open]
      })
  }
}

/** Every bar of an interval that starts in [from, to). */
const barsOf = (
  past: Past,
  asked: {
    readonly token: number
    readonly interval: KiteInterval
    readonly segment: Segment | undefined
    readonly from: number
    readonly to: number
    readonly now: number
  }
): Effect.Effect<ReadonlyArray<Candle>, StoreError> =>
  Effect.gen(function* () {
    const { from, interval, segment, to } = asked
    const part = PARTS[interval]
    const width = kiteIntervals[interval] * MICROS_PER_MINUTE
    const origin = segment === undefined ? BAR_ORIGIN_MICROS : barOpen(segment)
    const start = (ts: number): number => ts - ((((ts - origin) % width) + width) % width)
    const isMade = interval === "3minute" || interval === "10minute"
    // Whole ones only: a bar that starts before is none, and the last that starts is made of all that it is.
    const first = isMade ? start(from + width - 1) : from
    const end = isMade ? start(to - 1) + width : to
    const found: Array<Candle> = []
    let at: number | undefined = first
    while (at !== undefined && at < end) {
      const page: { readonly bars: ReadonlyArray<Candle>; readonly next: number | undefined } = yield* bars(past, {
        ...asked,
        interval: part,
        from: at,
        to: end,
        limit: PAGE,
        fill: "none",
        session: interval === "day" ? "all" : "regular"
      })
      for (const bar of page.bars) {
        if (isMade) addToBars(found, start(bar.ts), bar)
        else found.push(bar)
      }
      at = page.next
    }
    return found
  })

/** 0 and 1 as clients write them. */
const isSet = (text: string | null): boolean => text === "1" || text === "true"

const answerHistorical = ({ path, query, visitor }: Asked, gateway: Gateway) =>
  Effect.gen(function* () {
    const { history, instruments, settings, sources } = gateway
    const token = /^\d{1,10}$/.test(path.token!) ? Number(path.token) : 0
    const interval = kiteIntervalOf(path.interval!)
    if (interval === undefined) {
      const known = Object.keys(kiteIntervals).join(", ")
      return yield* badInput(`invalid interval: expected ${known}, got ${showText(path.interval!)}`)
    }
    if (isSet(query.get("continuous"))) {
      return yield* badInput("continuous: contracts are not joined here: expected 0, got 1")
    }
    const source = yield* sources.of(visitor)
    const unknown = badInput(`invalid token: no instrument has ${showText(path.token!)}`)
    if (token < 1 || token > MAX_TOKEN) return yield* unknown
    const [since, until] = [query.get("from"), query.get("to")]
    const from = kiteTimeOf("from", since)
    if (typeof from === "string") return yield* badInput(from)
    const to = kiteTimeOf("to", until, true)
    if (typeof to === "string") return yield* badInput(to)
    if (to < from)
      return yield* badInput(`from date cannot be after to date: got ${showText(since!)} and ${showText(until!)}`)
    const days = settings.KITE_HISTORICAL_DAYS[interval]
    if (to - from >= (days + 1) * MICROS_PER_DAY) return yield* badInput(`interval exceeds max limit: ${days} days`)

    const shift = source.shift()
    // Stamps are whole seconds, and the last is included.
    const range = { from: from - shift, to: to - shift + 1 }
    if (!maySeeAll(visitor, token, daysOf(range.from, range.to), gateway)) {
      return yield* refused(
        "PermissionException",
        `key "${visitor.key?.name}" is not for ${token} on all of these days`
      )
    }
    // Who may not see it is not told whether there is one.
    if (meantIn(source, gateway, token) === undefined) return yield* unknown
    const now = source.now()
    const past = source.day === undefined ? history : asOf(history, now)
    const day = source.day ?? tradingDay(gateway.now())
    const found = yield* barsOf(past, {
      token,
      interval,
      segment: instruments.segment(token, day),
      ...range,
      now
    })
    const tellsOi = isSet(query.get("oi"))
    const rows = found.map(
      ({ ts, open, high, low, close, volume, oi }) =>
        `["${kiteBarTime(ts + shift)}",${open},${high},${low},${close},${volume}${tellsOi ? `,${oi ?? 0}` : ""}]`
    )
    return marked(success(`{"candles":[${rows.join(",")}]}`), instruments.isSimulated([token]))
  })

export const historicalRoutes: ReadonlyArray<Route> = [
  {
    method: "GET",
    path: "/instruments/historical/{token}/{interval}",
    allowance: "historical",
    answer: answerHistorical
  }
]
