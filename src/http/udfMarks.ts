/** Decides what a chart marks: bars whose ticks have gaps, and days that are none of the usual ones. */
import { Effect } from "effect"
import { barStart, type Interval } from "../schema/Candle.ts"
import type { StoreError } from "../schema/Errors.ts"
import { type Segment, sessionDay } from "../schema/Sessions.ts"
import { IST_OFFSET_MICROS, tradingDate, tradingDay, tradingDayStart } from "../schema/Tick.ts"
import type { StoredTick, TickCursor, TickStore } from "../streams/ports/TickStore.ts"
import type { UdfMark, UdfTimescaleMark } from "./Api.ts"
import { newestBars } from "./newestBars.ts"

/** Ticks looked at for one answer, and marks in it. */
const MAX_TICKS = 20_000
const MAX_MARKS = 1000
/** Ticks read at a time: live ticks wait for no more. */
const PAGE = 1000
const MICROS_PER_SECOND = 1_000_000
const MICROS_PER_DAY = 86_400_000_000

export interface MarksQuery {
  readonly token: number
  readonly segment: Segment | undefined
  readonly interval: Interval
  /** Epoch microseconds; bars that start in [from, to). */
  readonly from: number
  readonly to: number
  readonly now: number
}

/** A bar's start as charts have it, in seconds: a day's is its date's midnight in UTC. */
export const udfTime = (ts: number, interval: Interval): number =>
  (interval === "1d" ? ts + IST_OFFSET_MICROS : ts) / MICROS_PER_SECOND

/** The same back, in microseconds. */
export const fromUdfTime = (seconds: number, interval: Interval): number =>
  seconds * MICROS_PER_SECOND - (interval === "1d" ? IST_OFFSET_MICROS : 0)

const clock = (micros: number): string => new Date((micros + IST_OFFSET_MICROS) / 1000).toISOString().slice(11, 19)

/** The ticks of [from, to), the day's ones that show a gap counted by bar. */
const gapsOf = (store: TickStore["Service"], query: MarksQuery, from: number, to: number, left: number) =>
  Effect.gen(function* () {
    const gaps = new Map<number, { count: number; readonly first: number }>()
    let after: TickCursor | undefined
    let seen = 0
    while (seen < left) {
      const page: ReadonlyArray<StoredTick> = yield* store.ticks({
        instrument_token: query.token,
        from,
        to,
        limit: PAGE,
        ...(after === undefined ? {} : { after })
      })
      seen += page.length
      for (const { status, exchange_ts } of page) {
        if (status !== "STALE") continue
        const ts = barStart(exchange_ts, query.interval)
        const gap = gaps.get(ts)
        if (gap === undefined) gaps.set(ts, { count: 1, first: exchange_ts })
        else gap.count += 1
      }
      if (page.length < PAGE) break
      after = page[page.length - 1]!
      yield* Effect.yieldNow
    }
    return { gaps, seen }
  })

/** Marks of bars with gaps, ascending; the newest days of the range, as far as so many ticks go. */
export const gapMarks = (
  store: TickStore["Service"],
  query: MarksQuery
): Effect.Effect<ReadonlyArray<typeof UdfMark.Type>, StoreError> =>
  Effect.gen(function* () {
    const marks: Array<typeof UdfMark.Type> = []
    const end = barStart(query.to - 1, query.interval) + (query.interval === "1d" ? MICROS_PER_DAY : 0)
    const until = query.interval === "1d" ? end : query.to
    const days = yield* newestBars(store, {
      ...query,
      interval: "1d",
      from: barStart(query.from, "1d"),
      to: until,
      limit: MAX_MARKS,
      session: "all"
    })
    let left = MAX_TICKS
    for (const day of days.toReversed()) {
      if (left <= 0 || marks.length >= MAX_MARKS) break
      const from = Math.max(query.from, day.ts)
      const { gaps, seen } = yield* gapsOf(store, query, from, Math.min(until, day.ts + MICROS_PER_DAY), left)
      left -= seen
      for (const [ts, { count, first }] of [...gaps].toReversed()) {
        const time = udfTime(ts, query.interval)
        marks.push({
          id: `gap-${time}`,
          time,
          color: "red",
          text: `${count === 1 ? "1 tick" : `${count} ticks`} with numbers missing before, or out of order; the first at ${clock(first)} IST`,
          label: "G",
          labelFontColor: "white",
          minSize: 14
        })
      }
    }
    return marks.slice(0, MAX_MARKS).toReversed()
  })

/** Marks of days that have bars: special sessions, and the day on which the contract expires. */
export const dayMarks = (
  store: TickStore["Service"],
  query: MarksQuery,
  expiry: string | null
): Effect.Effect<ReadonlyArray<typeof UdfTimescaleMark.Type>, StoreError> =>
  Effect.gen(function* () {
    const { segment, interval } = query
    const days = yield* newestBars(store, {
      ...query,
      interval: "1d",
      from: barStart(query.from, "1d"),
      limit: MAX_MARKS,
      session: "all"
    })
    const marks: Array<typeof UdfTimescaleMark.Type> = []
    for (const { ts } of days) {
      const date = tradingDate(tradingDay(ts))
      const { holiday = null, phases = [] } = segment === undefined ? {} : sessionDay(segment, tradingDay(ts))
      const opens = phases.find(({ phase }) => phase === "CONTINUOUS")?.from ?? tradingDayStart(tradingDay(ts))
      const bar = interval === "1d" ? ts : barStart(opens, interval)
      if (bar < query.from || bar >= query.to) continue
      const time = udfTime(bar, interval)
      const said = [
        ...(holiday === null || phases.length === 0 ? [] : [["S", holiday] as const]),
        ...(date === expiry ? [["E", "Expires"] as const] : [])
      ]
      for (const [label, tooltip] of said) {
        marks.push({ id: `${label}-${time}`, time, color: "blue", label, tooltip: [tooltip, date] })
      }
    }
    return marks
  })
