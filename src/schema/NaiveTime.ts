/** Decides which instant a time without an offset names in a time zone, and refuses those that name none or two. */
import { parseIso } from "./Time.ts"

const NAIVE = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?$/
/** Minutes remembered; full: all are forgotten. A file's rows share their minutes. */
const MAX_MINUTES = 4096
const DAY_MS = 86_400_000

/** Whether a text is a date and a time of day without an offset. */
export const isNaive = (text: string): boolean => NAIVE.test(text)

export interface Zone {
  readonly name: string
  /** Epoch microseconds of a naive time; a sentence where it names no instant, or two. */
  readonly parse: (text: string) => number | string
}

/** A zone of the IANA database; `undefined` where there is none of that name. Offsets since 1980 are whole minutes. */
export const makeZone = (name: string): Zone | undefined => {
  let format: Intl.DateTimeFormat
  try {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: name,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric"
    })
  } catch {
    return undefined
  }

  /** What the zone's clocks show at an instant, written as if it were UTC. */
  const wallOf = (ms: number): number => {
    const parts: Record<string, number> = {}
    for (const { type, value } of format.formatToParts(ms)) parts[type] = Number(value)
    return Date.UTC(parts.year!, parts.month! - 1, parts.day, parts.hour, parts.minute)
  }

  /** The instant at which the clocks show `wall`: the offsets a day before and after are all there can be. */
  const instantOf = (wall: number): number | "none" | "two" => {
    const candidates = [wall - DAY_MS, wall + DAY_MS]
      .map((near) => wall - (wallOf(near) - near))
      .filter((instant, at, all) => all.indexOf(instant) === at && wallOf(instant) === wall)
    return candidates.length === 1 ? candidates[0]! : candidates.length === 0 ? "none" : "two"
  }

  const minutes = new Map<string, number | string>()
  const minuteOf = (date: string, time: string): number | string => {
    const key = date + time
    const known = minutes.get(key)
    if (known !== undefined) return known
    const asUtc = parseIso(`${date} ${time}Z`)
    let answer: number | string
    if (asUtc === undefined) answer = "expected a date and time that exist"
    else {
      const instant = instantOf(asUtc / 1000)
      if (instant === "none") answer = `${date} ${time} is skipped by the clocks of ${name}`
      else if (instant === "two")
        answer = `${date} ${time} comes twice on the clocks of ${name}: write it with an offset`
      else answer = instant * 1000
    }
    if (minutes.size >= MAX_MINUTES) minutes.clear()
    minutes.set(key, answer)
    return answer
  }

  return {
    name,
    parse: (text) => {
      const match = NAIVE.exec(text)
      if (match === null) return "expected a time such as 2026-01-15 09:15:00"
      const minute = minuteOf(match[1]!, match[2]!)
      if (typeof minute === "string") return minute
      const seconds = Number(match[3] ?? 0)
      if (seconds > 59) return "expected a date and time that exist"
      return minute + seconds * 1_000_000 + Number((match[4] ?? "").padEnd(6, "0").slice(0, 6))
    }
  }
}
