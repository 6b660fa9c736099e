/** Decides which instant a day and a time of day without an offset name in a time zone, and refuses what names none or two. */

/** Minutes remembered; full: all are forgotten. A file's rows share their minutes. */
const MAX_MINUTES = 4096
const MS_PER_DAY = 86_400_000
const MICROS_PER_MINUTE = 60_000_000
const MINUTES_PER_DAY = 1440

export interface Zone {
  readonly name: string
  /** Epoch microseconds of a day since 1970 and the microseconds of it; a sentence where it names no instant, or two. */
  readonly at: (day: number, micros: number) => number | string
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
  const instantOf = (wall: number): number | string => {
    const candidates = [wall - MS_PER_DAY, wall + MS_PER_DAY]
      .map((near) => wall - (wallOf(near) - near))
      .filter((instant, at, all) => all.indexOf(instant) === at && wallOf(instant) === wall)
    if (candidates.length === 1) return candidates[0]! * 1000
    const shown = new Date(wall).toISOString().slice(0, 16).replace("T", " ")
    return candidates.length === 0
      ? `${shown} is skipped by the clocks of ${name}`
      : `${shown} comes twice on the clocks of ${name}: write it with an offset`
  }

  const minutes = new Map<number, number | string>()
  let lastMinute = -1
  let last: number | string = 0
  return {
    name,
    at: (day, micros) => {
      const minute = day * MINUTES_PER_DAY + Math.floor(micros / MICROS_PER_MINUTE)
      if (minute !== lastMinute) {
        let instant = minutes.get(minute)
        if (instant === undefined) {
          instant = instantOf(minute * 60_000)
          if (minutes.size >= MAX_MINUTES) minutes.clear()
          minutes.set(minute, instant)
        }
        lastMinute = minute
        last = instant
      }
      return typeof last === "string" ? last : last + (micros % MICROS_PER_MINUTE)
    }
  }
}
