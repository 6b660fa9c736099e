/** Decides what a chart marks: bars whose ticks have gaps, and days that are none of the usual ones. */
import { Effect } from "effect"
import { barStart, type Interval } from "../schema/Candle.ts"
import type { StoreError } from "../schema/Errors.ts"
import { barOpen, type Segment, sessionDay } from "../schema/Sessions.ts"
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

type Store = Pick<TickStore["Service"], "candles" | "ticks" | "minuteOi">

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

/** Where the bar that holds an instant starts, as bars are answered. */
const startOf = (micros: number, { interval, segment }: MarksQuery): number =>
  barStart(micros, interval, segment === undefined ? undefined : barOpen(segment))

const clock = (micros: number): string => new Date((micros + IST_OFFSET_MICROS) / 1000).toISOString().slice(11, 19)

interface Hole {
  /** Of the tick after it. */
  readonly ts: number
  /** Numbers that are missing. */
  readonly missing: number
}

/**
 * The numbers that no tick of a day has, of those that are to appear each. By numbering: another session, or one whose
 * state was lost, counts anew. A row that a replay added says no epoch: it fills a hole, and shows none.
 */
const holesOf = (ticks: ReadonlyArray<StoredTick>): ReadonlyArray<Hole> => {
  const numberings = new Map<string, { readonly session: number; readonly ticks: Array<StoredTick> }>()
  const replayed = new Map<number, Set<number>>()
  for (const tick of ticks) {
    const { sequencing, epoch, session, sequence_id } = tick
    if (sequencing !== "contiguous") continue
    if (epoch === null) {
      const numbers = replayed.get(session)
      if (numbers === undefined) replayed.set(session, new Set([sequence_id]))
      else numbers.add(sequence_id)
      continue
    }
    const key = `${epoch} ${session}`
    const numbering = numberings.get(key)
    if (numbering === undefined) numberings.set(key, { session, ticks: [tick] })
    else numbering.ticks.push(tick)
  }
  const holes: Array<Hole> = []
  for (const { session, ticks: own } of numberings.values()) {
    own.sort((one, other) => one.sequence_id - other.sequence_id)
    const fills = [...(replayed.get(session) ?? [])]
    for (let i = 1; i < own.length; i++) {
      const [from, to] = [own[i - 1]!.sequence_id, own[i]!.sequence_id]
      if (to <= from + 1) continue
      const missing = to - from - 1 - fills.filter((number) => number > from && number < to).length
      if (missing > 0) holes.push({ ts: own[i]!.exchange_ts, missing })
    }
  }
  return holes
}

/** The first `count` ticks of [from, to), a page at a time. */
const ticksOf = (store: Pick<Store, "ticks">, token: number, from: number, to: number, count: number) =>
  Effect.gen(function* () {
    const found: Array<StoredTick> = []
    let after: TickCursor | undefined
    while (found.length < count) {
      const page: ReadonlyArray<StoredTick> = yield* store.ticks({
        instrument_token: token,
        from,
        to,
        limit: PAGE,
        ...(after === undefined ? {} : { after })
      })
      found.push(...page)
      if (page.length < PAGE) break
      after = page[page.length - 1]!
      yield* Effect.yieldNow
    }
    return found
  })

/** Marks of bars with gaps, ascending; the newest days of the range, as far as so many ticks go. */
export const gapMarks = (
  store: Store,
  query: MarksQuery
): Effect.Effect<ReadonlyArray<typeof UdfMark.Type>, StoreError> =>
  Effect.gen(function* () {
    const marks: Array<typeof UdfMark.Type> = []
    // The last day's bar holds what comes until its midnight.
    const until = query.interval === "1d" ? barStart(query.to - 1, "1d") + MICROS_PER_DAY : query.to
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
      const ticks = yield* ticksOf(store, query.token, from, Math.min(until, day.ts + MICROS_PER_DAY), left)
      left -= ticks.length
      const bars = new Map<number, { gaps: number; missing: number; first: number }>()
      for (const { ts, missing } of holesOf(ticks)) {
        const start = startOf(ts, query)
        const bar = bars.get(start)
        if (bar === undefined) bars.set(start, { gaps: 1, missing, first: ts })
        else bars.set(start, { gaps: bar.gaps + 1, missing: bar.missing + missing, first: Math.min(bar.first, ts) })
      }
      for (const [ts, { gaps, missing, first }] of [...bars].sort(([one], [other]) => other - one)) {
        const time = udfTime(ts, query.interval)
        marks.push({
          id: `gap-${time}`,
          time,
          color: "red",
          text: `${gaps === 1 ? "1 gap" : `${gaps} gaps`}: ${missing} of the feed's numbers missing; the first before ${clock(first)} IST`,
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
  store: Store,
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
      const bar = interval === "1d" ? ts : startOf(opens, query)
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
