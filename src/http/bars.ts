/** Decides which bars a candle request answers: the session it asks for, gaps filled or not, by pages. */
import { Effect } from "effect"
import { withLastOi } from "../layers/history/lastOi.ts"
import { addToBars, barStart, type Candle, type Interval, intervalMicros, isFinal, withOi } from "../schema/Candle.ts"
import type { StoreError } from "../schema/Errors.ts"
import { barOpen, barPhase, type Phase, type Segment, sessionDay } from "../schema/Sessions.ts"
import { tradingDay, tradingDayStart } from "../schema/Tick.ts"
import type { TickCursor, TickStore } from "../streams/ports/TickStore.ts"
import type { Bar } from "./Api.ts"

const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_DAY = 1440 * MICROS_PER_MINUTE
/** A close is carried over at most this long between day bars, over at most the trading day between others. */
const CARRY_DAYS = 31
/** Sessions start and end on whole ones of these, so each lies in a session or out of it as a whole. */
const SESSION_PARTS: Interval = "5m"
/** Whole bars of these make up wider ones that start at a segment's own open. */
const OPEN_PARTS: Interval = "15m"
/** Bars read from the store at a time. */
const PAGE = 10_000

export interface BarsQuery {
  readonly token: number
  /** `undefined`: no hours are known, so nothing can be filled or left out. */
  readonly segment: Segment | undefined
  readonly interval: Interval
  /** Bars whose start lies in [from, to); of days all that the range meets. */
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
  /** Whether the calendar has every day that bars were read or filled of; `undefined` where no hours are known. */
  readonly known: boolean | undefined
}

type Store = Pick<TickStore["Service"], "candles" | "ticks" | "minuteOi">

const REGULAR: ReadonlySet<Phase> = new Set(["CONTINUOUS", "CAS"])
const OPEN: ReadonlySet<Phase> = new Set(["CONTINUOUS"])

/** Whether the bar's time holds a moment of these phases. */
const meets = (segment: Segment, ts: number, interval: Interval, wanted: ReadonlySet<Phase>): boolean => {
  const end = ts + intervalMicros(interval)
  return sessionDay(segment, tradingDay(ts)).phases.some(
    ({ phase, from, to }) => from < end && ts < to && wanted.has(phase)
  )
}

/** Whether the regular session ends, for the day or for a pause, at an instant. */
const closesAt = (segment: Segment, micros: number): boolean => {
  const { phases } = sessionDay(segment, tradingDay(micros))
  return (
    phases.some(({ phase, to }) => to === micros && REGULAR.has(phase)) &&
    !phases.some(({ phase, from }) => from === micros && REGULAR.has(phase))
  )
}

/** Up to `count` bars that start in [from, to), ascending. */
type BarSource = (from: number, to: number, count: number) => Effect.Effect<ReadonlyArray<Candle>, StoreError>

const storedBars =
  (store: Store, token: number, interval: Interval): BarSource =>
  (from, to, count) =>
    Effect.gen(function* () {
      const found: Array<Candle> = []
      let at = from
      while (at < to && found.length < count) {
        const limit = Math.min(PAGE, count - found.length)
        const page = yield* store.candles({ instrument_token: token, interval, from: at, to, limit })
        found.push(...page)
        if (page.length < limit) break
        at = page[page.length - 1]!.ts + 1
      }
      return found
    })

/** What the ticks stamped at one instant make, or nothing. */
const ticksAt = (store: Store, token: number, micros: number): Effect.Effect<Candle | undefined, StoreError> =>
  Effect.gen(function* () {
    const made: Array<Candle> = []
    let after: TickCursor | undefined
    while (true) {
      const page = yield* store.ticks({
        instrument_token: token,
        from: micros,
        to: micros + 1,
        limit: PAGE,
        ...(after === undefined ? {} : { after })
      })
      for (const { price, volume } of page) {
        addToBars(made, micros, { open: price, high: price, low: price, close: price, volume })
      }
      if (page.length < PAGE) return made[0]
      after = page[page.length - 1]!
    }
  })

/**
 * The bars of the regular session, none wider than a session part. A tick stamped at the very instant at which the
 * session ends belongs to the bar that ends there. `read` is told of every bar that is read, left out or not.
 */
const regularBars =
  (store: Store, token: number, segment: Segment, interval: Interval, read: (ts: number) => void): BarSource =>
  (from, to, count) =>
    Effect.gen(function* () {
      const width = intervalMicros(interval)
      const parts = storedBars(store, token, interval)
      const found: Array<Candle> = []
      let at = from
      // One more than asked for, so that the last one asked for has its closing instant.
      while (at < to + width && found.length <= count) {
        const limit = Math.min(PAGE, count + 1)
        const page = yield* parts(at, to + width, limit)
        for (const part of page) {
          read(part.ts)
          if (meets(segment, part.ts, interval, REGULAR)) {
            if (part.ts < to) addToBars(found, part.ts, part)
          } else if (part.ts - width >= from && part.ts - width < to && closesAt(segment, part.ts)) {
            const closing = yield* ticksAt(store, token, part.ts)
            if (closing !== undefined) addToBars(found, part.ts - width, closing)
          }
        }
        if (page.length < limit) break
        at = page[page.length - 1]!.ts + 1
      }
      return found.slice(0, count)
    })

/** Bars made of shorter ones. */
const rolledUp =
  (store: Store, parts: BarSource, query: BarsQuery, part: Interval): BarSource =>
  (from, to, count) =>
    Effect.gen(function* () {
      const width = intervalMicros(query.interval)
      const start = startOf(query)
      const end = start(to - 1) + width
      const made: Array<Candle> = []
      let at = start(from + width - 1)
      // One bar more than asked for, so that the last one asked for is whole.
      while (at < end && made.length <= count) {
        const limit = Math.min(PAGE, (count + 1 - made.length) * (width / intervalMicros(part)) + 1)
        const page = yield* parts(at, end, limit)
        for (const bar of page) addToBars(made, start(bar.ts), bar)
        if (page.length < limit) break
        at = page[page.length - 1]!.ts + 1
      }
      const { token, segment, interval, session } = query
      const isOut = (minute: number): boolean =>
        session === "regular" && segment !== undefined && !meets(segment, minute, "1m", REGULAR)
      return yield* withLastOi(
        store,
        { token, interval, start: (minute) => (isOut(minute) ? undefined : start(minute)) },
        made.slice(0, count)
      )
    })

/** Where the bar that holds an instant starts: as the segment opens. */
const startOf =
  ({ segment, interval }: BarsQuery) =>
  (micros: number): number =>
    barStart(micros, interval, segment === undefined ? undefined : barOpen(segment))

/** The bars that a query means, unfilled; `read` is told of every bar that is read under a session. */
const sourceOf = (store: Store, query: BarsQuery, read: (ts: number) => void): BarSource => {
  const { token, segment, interval, session } = query
  if (segment === undefined) return storedBars(store, token, interval)
  if (session === "regular") {
    const part = interval === "1m" ? interval : SESSION_PARTS
    const parts = regularBars(store, token, segment, part, read)
    return part === interval ? parts : rolledUp(store, parts, query, part)
  }
  const width = intervalMicros(interval)
  const storesIt = interval === "1d" || (barStart(0, interval, barOpen(segment)) - barStart(0, interval)) % width === 0
  return storesIt
    ? storedBars(store, token, interval)
    : rolledUp(store, storedBars(store, token, OPEN_PARTS), query, OPEN_PARTS)
}

/** Where filling after a bar must stop, whatever comes next. */
const carryEnd = (bar: Candle, interval: Interval): number =>
  interval === "1d" ? bar.ts + (CARRY_DAYS + 1) * MICROS_PER_DAY : tradingDayStart(tradingDay(bar.ts)) + MICROS_PER_DAY

/** From where on a bar may be carried over to `from`. */
export const carryStart = (from: number, interval: Interval): number =>
  interval === "1d" ? from - CARRY_DAYS * MICROS_PER_DAY : tradingDayStart(tradingDay(from))

/** The bars that a gap after `bar` is filled with: every open interval in [from, to) at its close. */
function* filled(bar: Candle, from: number, to: number, query: BarsQuery, segment: Segment): Generator<Candle> {
  const { interval, now } = query
  const width = intervalMicros(interval)
  const end = Math.min(to, carryEnd(bar, interval), now + 1)
  for (let ts = Math.max(bar.ts + width, startOf(query)(from + width - 1)); ts < end; ts += width) {
    if (!meets(segment, ts, interval, OPEN)) continue
    yield { ts, open: bar.close, high: bar.close, low: bar.close, close: bar.close, volume: 0 }
  }
}

const hasDay = (segment: Segment, micros: number): boolean => sessionDay(segment, tradingDay(micros)).known

/** Whether the calendar has a bar's days: a bar of an hour may begin before midnight. */
export const knowsHours = (segment: Segment, ts: number, interval: Interval): boolean =>
  hasDay(segment, ts) && hasDay(segment, ts + intervalMicros(interval) - 1)

/** One page. Pages put one after another are the whole, wherever they are cut. */
export const bars = (store: Store, query: BarsQuery): Effect.Effect<Bars, StoreError> =>
  Effect.gen(function* () {
    const { segment, interval, to, limit, now } = query
    const from = interval === "1d" && query.from < to ? barStart(query.from, "1d") : query.from
    let unknown = Number.POSITIVE_INFINITY
    const source = sourceOf(store, query, (ts) => {
      if (ts >= from && ts < unknown && segment !== undefined && !hasDay(segment, ts)) unknown = ts
    })
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
    const page = out.slice(0, limit)
    const next = out[limit]?.ts
    return {
      bars: page.map(({ oi, ...bar }) => ({
        ...withOi(bar, oi),
        phase: segment === undefined ? null : barPhase(segment, bar.ts, intervalMicros(interval)),
        final: isFinal(bar.ts, interval, now)
      })),
      next,
      known:
        segment === undefined
          ? undefined
          : unknown >= (next ?? to) && page.every(({ ts }) => knowsHours(segment, ts, interval))
    }
  })
