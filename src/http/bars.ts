/** Decides which bars a candle request answers: the session it asks for, gaps filled or not, by pages. */
import { Effect } from "effect"
import { barStart, boundedVolume, type Candle, type Interval, intervalMicros, isFinal } from "../schema/Candle.ts"
import type { StoreError } from "../schema/Errors.ts"
import { type Phase, phaseAt, type Segment, sessionDay } from "../schema/Sessions.ts"
import { tradingDay, tradingDayStart } from "../schema/Tick.ts"
import type { TickStore } from "../streams/ports/TickStore.ts"
import type { Bar } from "./Api.ts"

const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_DAY = 1440 * MICROS_PER_MINUTE
/** A close is carried over at most this long between day bars, over at most the trading day between others. */
const CARRY_DAYS = 31
/** Bars of which a regular day bar is made: they start where sessions start, and are few. */
const DAY_PARTS: Interval = "15m"
/** Bars read from the store at a time. */
const PAGE = 10_000

export interface BarsQuery {
  readonly token: number
  /** `undefined`: no hours are known, so nothing can be filled or left out. */
  readonly segment: Segment | undefined
  readonly interval: Interval
  /** Bars whose start lies in [from, to). */
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly fill: "none" | "previous"
  readonly session: "all" | "regular"
  /** Epoch microseconds: a bar that ends after this is not final, one that starts after it is not filled. */
  readonly now: number
}

export interface Bars {
  readonly bars: ReadonlyArray<Bar>
  /** The start of the first bar of the next page. */
  readonly next: number | undefined
}

type Store = Pick<TickStore["Service"], "candles">

const REGULAR: ReadonlySet<Phase> = new Set(["CONTINUOUS", "CAS"])
const OPEN: ReadonlySet<Phase> = new Set(["CONTINUOUS"])

/** Whether the bar's time holds a moment of these phases: commodities open in the middle of an hour's bar. */
const meets = (segment: Segment, ts: number, interval: Interval, wanted: ReadonlySet<Phase>): boolean => {
  const end = ts + intervalMicros(interval)
  return sessionDay(segment, tradingDay(ts)).phases.some(
    ({ phase, from, to }) => from < end && ts < to && wanted.has(phase)
  )
}

/** Up to `count` bars that start in [from, to), ascending. */
type BarSource = (from: number, to: number, count: number) => Effect.Effect<ReadonlyArray<Candle>, StoreError>

/** The store's bars, or those of them that meet the regular session. */
const storedBars =
  (store: Store, query: BarsQuery, interval: Interval): BarSource =>
  (from, to, count) =>
    Effect.gen(function* () {
      const { token, session, segment } = query
      const found: Array<Candle> = []
      let at = from
      while (at < to && found.length < count) {
        const limit = Math.min(PAGE, count - found.length)
        const page = yield* store.candles({ instrument_token: token, interval, from: at, to, limit })
        for (const bar of page) {
          if (session === "all" || segment === undefined || meets(segment, bar.ts, interval, REGULAR)) found.push(bar)
        }
        if (page.length < limit) break
        at = page[page.length - 1]!.ts + 1
      }
      return found
    })

/** Day bars of the regular session alone, made of shorter ones. */
const regularDays = (store: Store, query: BarsQuery): BarSource => {
  const parts = storedBars(store, query, DAY_PARTS)
  return (from, to, count) =>
    Effect.gen(function* () {
      const start = barStart(from, "1d")
      const first = start === from ? from : start + MICROS_PER_DAY
      const end = barStart(to - 1, "1d") + MICROS_PER_DAY
      const days: Array<Candle> = []
      let at = first
      // One day more than asked for, so that the last day asked for is whole.
      while (at < end && days.length <= count) {
        const page = yield* parts(at, end, PAGE)
        for (const part of page) {
          const ts = barStart(part.ts, "1d")
          const day = days[days.length - 1]
          if (day?.ts !== ts) days.push({ ...part, ts })
          else {
            days[days.length - 1] = {
              ts,
              open: day.open,
              high: Math.max(day.high, part.high),
              low: Math.min(day.low, part.low),
              close: part.close,
              volume: boundedVolume(day.volume + part.volume)
            }
          }
        }
        if (page.length < PAGE) break
        at = page[page.length - 1]!.ts + 1
      }
      return days.slice(0, count)
    })
}

/** Where filling after a bar must stop, whatever comes next. */
const carryEnd = (bar: Candle, interval: Interval): number =>
  interval === "1d" ? bar.ts + (CARRY_DAYS + 1) * MICROS_PER_DAY : tradingDayStart(tradingDay(bar.ts)) + MICROS_PER_DAY

const carryStart = (from: number, interval: Interval): number =>
  interval === "1d" ? from - CARRY_DAYS * MICROS_PER_DAY : tradingDayStart(tradingDay(from))

/** The bars that a gap after `bar` is filled with: every open interval in [from, to) at its close. */
function* filled(bar: Candle, from: number, to: number, query: BarsQuery, segment: Segment): Generator<Candle> {
  const { interval, now } = query
  const width = intervalMicros(interval)
  const end = Math.min(to, carryEnd(bar, interval), now + 1)
  for (let ts = Math.max(bar.ts + width, barStart(from + width - 1, interval)); ts < end; ts += width) {
    if (!meets(segment, ts, interval, OPEN)) continue
    yield { ts, open: bar.close, high: bar.close, low: bar.close, close: bar.close, volume: 0 }
  }
}

/** One page. Pages put one after another are the whole, wherever they are cut. */
export const bars = (store: Store, query: BarsQuery): Effect.Effect<Bars, StoreError> =>
  Effect.gen(function* () {
    const { segment, interval, from, to, limit, now } = query
    const source =
      interval === "1d" && query.session === "regular" ? regularDays(store, query) : storedBars(store, query, interval)
    const fills = query.fill === "previous" ? segment : undefined
    const out: Array<Candle> = []
    // One more than a page, whose start is where the next page begins.
    const stored = yield* source(from, to, limit + 1)
    if (fills === undefined) out.push(...stored)
    else {
      let before: Candle | undefined = (yield* source(carryStart(from, interval), from, PAGE)).at(-1)
      for (const bar of stored) {
        if (before !== undefined) out.push(...filled(before, from, bar.ts, query, fills))
        out.push(bar)
        before = bar
        if (out.length > limit) break
      }
      if (before !== undefined && out.length <= limit) out.push(...filled(before, from, to, query, fills))
    }
    return {
      bars: out.slice(0, limit).map((bar) => ({
        ts: bar.ts,
        open: bar.open,
        high: bar.high,
        low: bar.low,
        close: bar.close,
        volume: bar.volume,
        phase: segment === undefined ? null : phaseAt(segment, bar.ts),
        final: isFinal(bar.ts, interval, now)
      })),
      next: out[limit]?.ts
    }
  })
