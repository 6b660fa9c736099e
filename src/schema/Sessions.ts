/** Decides when each segment trades, day by day, from the dated tables under `sessions/`. All clock times are IST. */
import { BAR_ORIGIN_MICROS, NINE_O_CLOCK_MICROS } from "./Candle.ts"
import type { AssetClass } from "./Instrument.ts"
import { FIRST_SIMULATED_TOKEN, MAX_SIMULATED_INSTRUMENTS } from "./Simulation.ts"
import { type Calendar, HOLIDAYS, type Holiday, KNOWN_YEARS } from "./sessions/holidays.ts"
import { HOURS, type Phase, type PhaseHours, SEGMENTS, type Segment } from "./sessions/hours.ts"
import { SPECIAL_DAYS } from "./sessions/special.ts"
import { tradingDate, tradingDay, tradingDayStart } from "./Tick.ts"
import { dayOfDate } from "./Time.ts"

export { type Phase, SEGMENTS, type Segment }

/** One phase of a day, `[from, to)` in epoch microseconds. */
export interface SessionPhase {
  readonly phase: Phase
  readonly from: number
  readonly to: number
}

export interface SessionDay {
  /** Why the day is not a regular one: a holiday's name, `Saturday`, `Sunday`, or a special session's name. */
  readonly holiday: string | null
  /** Ascending; empty where nothing trades. A holiday may have some: Muhurat, or the evening of commodities. */
  readonly phases: ReadonlyArray<SessionPhase>
  /** False beyond the tables: then every weekday counts as a trading day, with the nearest known hours. */
  readonly known: boolean
}

const CALENDARS: Readonly<Record<Exclude<Segment, "SIM">, Calendar>> = {
  NSE_EQ: "EQUITY",
  NSE_EQ_CAS: "EQUITY",
  NSE_INDEX: "EQUITY",
  NFO_FUT: "EQUITY",
  NFO_OPT: "EQUITY",
  BSE_EQ: "EQUITY",
  BSE_EQ_CAS: "EQUITY",
  BSE_INDEX: "EQUITY",
  BFO_FUT: "EQUITY",
  BFO_OPT: "EQUITY",
  CDS: "CURRENCY",
  BCD: "CURRENCY",
  MCX: "COMMODITY"
}

/** The segment an instrument trades in; `undefined` for an exchange that has no table here. */
export const segmentOf = (instrument: {
  readonly exchange: string
  readonly asset_class: AssetClass
  /** Whether the stock has derivatives on any exchange: then it has a closing auction. */
  readonly hasDerivatives: boolean
}): Segment | undefined => {
  const { exchange, asset_class, hasDerivatives } = instrument
  switch (exchange) {
    case "NSE":
      return asset_class === "INDEX" ? "NSE_INDEX" : hasDerivatives ? "NSE_EQ_CAS" : "NSE_EQ"
    case "BSE":
      return asset_class === "INDEX" ? "BSE_INDEX" : hasDerivatives ? "BSE_EQ_CAS" : "BSE_EQ"
    case "NFO":
      return asset_class === "FUT" ? "NFO_FUT" : "NFO_OPT"
    case "BFO":
      return asset_class === "FUT" ? "BFO_FUT" : "BFO_OPT"
    case "CDS":
    case "BCD":
    case "MCX":
    case "SIM":
      return exchange
    default:
      return undefined
  }
}

const byDate = <A extends { readonly date: string }>(rows: ReadonlyArray<A>): ReadonlyMap<string, A> =>
  new Map(rows.map((row) => [row.date, row]))

const holidays: Readonly<Record<Calendar, ReadonlyMap<string, Holiday>>> = {
  EQUITY: byDate(HOLIDAYS.EQUITY),
  CURRENCY: byDate(HOLIDAYS.CURRENCY),
  COMMODITY: byDate(HOLIDAYS.COMMODITY)
}
const specialDays = byDate(SPECIAL_DAYS)

/** The evening session of commodities starts here. */
const EVENING = "17:00"

const microsOf = (clock: string): number => (Number(clock.slice(0, 2)) * 60 + Number(clock.slice(3, 5))) * 60_000_000

const regularHours = (segment: Segment, date: string): ReadonlyArray<PhaseHours> => {
  const rows = HOURS[segment]
  return (rows.findLast((row) => row.from <= date) ?? rows[0])?.phases ?? []
}

const atClock = (start: number, hours: ReadonlyArray<PhaseHours>): ReadonlyArray<SessionPhase> =>
  hours.map(([phase, from, to]) => ({ phase, from: start + microsOf(from), to: start + microsOf(to) }))

const WEEKEND = ["Sunday", undefined, undefined, undefined, undefined, undefined, "Saturday"]

const makeDay = (segment: Segment, day: number): SessionDay => {
  const start = tradingDayStart(day)
  const date = tradingDate(day)
  const regular = regularHours(segment, date)
  if (segment === "SIM") return { holiday: null, phases: atClock(start, regular), known: true }
  const calendar = CALENDARS[segment]
  const year = Number(date.slice(0, 4))
  const special = specialDays.get(date)
  const isKnownYear = year >= KNOWN_YEARS[calendar][0] && year <= KNOWN_YEARS[calendar][1]
  const known = isKnownYear && special?.unconfirmed !== true
  const specialHours = special?.segments[segment]
  if (special !== undefined && specialHours !== undefined) {
    return {
      holiday: special.name,
      phases: atClock(start, specialHours),
      known
    }
  }
  // 1970-01-01 was a Thursday.
  const weekend = WEEKEND[(((day + 4) % 7) + 7) % 7]
  const holiday = holidays[calendar].get(date)
  if (weekend !== undefined) return { holiday: holiday?.name ?? weekend, phases: [], known }
  if (holiday === undefined) return { holiday: null, phases: atClock(start, regular), known }
  const open = regular.flatMap(([phase, from, to]): ReadonlyArray<PhaseHours> => {
    if (holiday.closed === "morning") return to > EVENING ? [[phase, from > EVENING ? from : EVENING, to]] : []
    if (holiday.closed === "evening") return from < EVENING ? [[phase, from, to < EVENING ? to : EVENING]] : []
    return []
  })
  return { holiday: holiday.name, phases: atClock(start, open), known }
}

/** Days kept ready for each segment; full: the oldest entry goes. */
const DAYS_KEPT = 512

interface SegmentDays {
  readonly days: Map<number, SessionDay>
  /** The day last asked for, so that a run of ticks of one day looks nothing up. */
  lastDay: number
  last: SessionDay | undefined
}

const cache = Object.fromEntries(
  SEGMENTS.map((segment): [Segment, SegmentDays] => [
    segment,
    { days: new Map(), lastDay: Number.NaN, last: undefined }
  ])
) as Record<Segment, SegmentDays>

/** The sessions of a trading day given in days since 1970. */
export const sessionDay = (segment: Segment, day: number): SessionDay => {
  const known = cache[segment]
  if (known.lastDay === day && known.last !== undefined) return known.last
  let found = known.days.get(day)
  if (found === undefined) {
    found = makeDay(segment, day)
    if (known.days.size >= DAYS_KEPT) known.days.delete(known.days.keys().next().value!)
    known.days.set(day, found)
  }
  known.lastDay = day
  known.last = found
  return found
}

/** The sessions of a date `YYYY-MM-DD`. Throws a RangeError where there is no such day within bounds. */
export const dayPhases = (segment: Segment, date: string): SessionDay => {
  const day = dayOfDate(date)
  if (day === undefined) throw new RangeError(`date: expected YYYY-MM-DD, got ${date}`)
  return sessionDay(segment, day)
}

/** The phase at an instant in epoch microseconds. */
export const phaseAt = (segment: Segment, micros: number): Phase =>
  segment === "SIM" ? "CONTINUOUS" : (sessionAt(segment, micros)?.phase ?? "CLOSED")

/** What the bars of a segment are aligned on: where it opens. */
export const barOpen = (segment: Segment): number =>
  segment === "CDS" || segment === "BCD" || segment === "MCX" ? NINE_O_CLOCK_MICROS : BAR_ORIGIN_MICROS

/**
 * The phase of a bar, which lies in one trading day or begins in it: that of its start; where nothing trades there,
 * continuous trading if its time has any, else the first phase that it has.
 */
export const barPhase = (segment: Segment, ts: number, width: number): Phase => {
  const phase = phaseAt(segment, ts)
  if (phase !== "CLOSED") return phase
  const met = sessionDay(segment, tradingDay(ts)).phases.filter(({ from, to }) => from < ts + width && ts < to)
  return met.find((found) => found.phase === "CONTINUOUS")?.phase ?? met[0]?.phase ?? "CLOSED"
}

/** The phase at an instant with its bounds; one that goes on over midnight begins when it did. Undefined: closed. */
export const sessionAt = (segment: Segment, micros: number): SessionPhase | undefined => {
  const day = tradingDay(micros)
  for (const found of sessionDay(segment, day).phases) {
    if (micros < found.from || micros >= found.to) continue
    if (found.from > tradingDayStart(day)) return found
    const before = sessionDay(segment, day - 1).phases.at(-1)
    return before?.phase === found.phase && before.to === found.from ? { ...found, from: before.from } : found
  }
  return undefined
}

/** Days looked back for the last session: more than any stretch of holidays has. */
const MAX_CLOSED_DAYS = 15

/** Where the last session before an instant ended that lies in none (µs), or the first of the days looked back. */
export const closedSince = (segment: Segment, micros: number): number => {
  const today = tradingDay(micros)
  for (let day = today; day > today - MAX_CLOSED_DAYS; day--) {
    const last = sessionDay(segment, day).phases.findLast(({ to }) => to <= micros)
    if (last !== undefined) return last.to
  }
  return tradingDayStart(today - MAX_CLOSED_DAYS + 1)
}

/** Where continuous trading of a segment starts on a trading day (µs); `undefined` where it does not trade. */
export const continuousOpen = (segment: Segment, day: number): number | undefined =>
  sessionDay(segment, day).phases.find(({ phase }) => phase === "CONTINUOUS")?.from

/**
 * The exchange segment that the low byte of a broker's token names. 9 is the indices of every exchange. What no code
 * names, and what is none of the broker's tokens, has the hours of NSE's cash market.
 */
const SEGMENT_CODES: ReadonlyArray<Segment | undefined> = [
  undefined,
  "NSE_EQ",
  "NFO_FUT",
  "CDS",
  "BSE_EQ",
  "BFO_FUT",
  "BCD",
  "MCX",
  undefined,
  "NSE_INDEX"
]

/**
 * A segment with the hours of an instrument, told from its token alone: whatever decides by it decides the same at any
 * time, also before the instrument is known. Whether a stock has a closing auction is not told, nor a future from an option.
 */
export const segmentOfToken = (token: number): Segment =>
  token >= FIRST_SIMULATED_TOKEN && token < FIRST_SIMULATED_TOKEN + MAX_SIMULATED_INSTRUMENTS
    ? "SIM"
    : (SEGMENT_CODES[token & 0xff] ?? "NSE_EQ")
