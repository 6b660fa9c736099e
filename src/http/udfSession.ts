/**
 * Decides how a charting library is told when a segment trades: one string for the days that are as today's are, and
 * what differs from it as corrections and holidays, day by day.
 */
import { type Phase, type Segment, sessionDay } from "../schema/Sessions.ts"
import { tradingDate, tradingDayStart } from "../schema/Tick.ts"

export interface UdfSession {
  readonly session: string
  /** `HHMM-HHMM[,…]:YYYYMMDD[,…]` for each kind of day that is another than the string's, with `;` between them. */
  readonly corrections: string
  /** `YYYYMMDD[,…]`: weekdays on which nothing trades. */
  readonly session_holidays: string
}

/** What the bars of a chart are of: those that `session=regular` leaves in. */
const CHARTED: ReadonlySet<Phase> = new Set(["CONTINUOUS", "CAS"])
const ALWAYS: UdfSession = { session: "24x7", corrections: "", session_holidays: "" }
/** What is told reaches back so far, and ahead. */
const DAYS_BACK = 12 * 366
const DAYS_AHEAD = 366
/** More than any stretch of days that are none of the regular ones. */
const MAX_IRREGULAR_DAYS = 30
const MICROS_PER_MINUTE = 60_000_000

const clock = (micros: number): string => {
  const minutes = Math.round(micros / MICROS_PER_MINUTE)
  return String(Math.floor(minutes / 60) * 100 + (minutes % 60)).padStart(4, "0")
}

/** `HHMM-HHMM[,…]` of a day, phases that follow each other as one; empty where nothing trades. */
const hoursOf = (segment: Segment, day: number): string => {
  const start = tradingDayStart(day)
  const parts: Array<{ from: number; to: number }> = []
  for (const { phase, from, to } of sessionDay(segment, day).phases) {
    if (!CHARTED.has(phase)) continue
    const last = parts.at(-1)
    if (last?.to === from) last.to = to
    else parts.push({ from, to })
  }
  return parts.map(({ from, to }) => `${clock(from - start)}-${clock(to - start)}`).join(",")
}

/** 1970-01-01 was a Thursday. */
const isWeekday = (day: number): boolean => ![0, 6].includes((((day + 4) % 7) + 7) % 7)

const regularHours = (segment: Segment, today: number): string => {
  for (let day = today; day > today - MAX_IRREGULAR_DAYS; day--) {
    if (sessionDay(segment, day).holiday === null) return hoursOf(segment, day)
  }
  return hoursOf(segment, today)
}

/** As seen on a trading day, given in days since 1970. */
export const udfSession = (segment: Segment | undefined, today: number): UdfSession => {
  if (segment === undefined || segment === "SIM") return ALWAYS
  const regular = regularHours(segment, today)
  const holidays: Array<string> = []
  const others = new Map<string, Array<string>>()
  for (let day = today - DAYS_BACK; day <= today + DAYS_AHEAD; day++) {
    const hours = hoursOf(segment, day)
    if (hours === (isWeekday(day) ? regular : "")) continue
    const date = tradingDate(day).replaceAll("-", "")
    if (hours === "") holidays.push(date)
    else {
      const dates = others.get(hours)
      if (dates === undefined) others.set(hours, [date])
      else dates.push(date)
    }
  }
  return {
    session: `${regular}:23456`,
    corrections: [...others].map(([hours, dates]) => `${hours}:${dates.join(",")}`).join(";"),
    session_holidays: holidays.join(",")
  }
}

/** The same, worked out once a day for each segment. */
export const udfSessions = () => {
  const known = new Map<Segment, { readonly today: number; readonly told: UdfSession }>()
  return (segment: Segment | undefined, today: number): UdfSession => {
    if (segment === undefined) return ALWAYS
    const before = known.get(segment)
    if (before?.today === today) return before.told
    const told = udfSession(segment, today)
    known.set(segment, { today, told })
    return told
  }
}
