/**
 * Decides what may be asked of candles and replays in Kite's own words: the intervals and how many days of each one
 * request spans, times without a zone, and which day is replayed how fast.
 */
import { Schema, SchemaGetter } from "effect"
import { showGiven } from "../Explain.ts"
import { IST_OFFSET_MICROS, tradingDay } from "../Tick.ts"
import { dayOfDate } from "../Time.ts"

/** Every interval, with its minutes; `hour` is another name of `60minute`. */
export const kiteIntervals = {
  minute: 1,
  "3minute": 3,
  "5minute": 5,
  "10minute": 10,
  "15minute": 15,
  "30minute": 30,
  "60minute": 60,
  day: 1440
} as const
export type KiteInterval = keyof typeof kiteIntervals

const MICROS_PER_SECOND = 1_000_000
const MICROS_PER_DAY = 86_400_000_000
const MAX_DAYS = 100_000

export const isKiteInterval = (text: string): text is KiteInterval => Object.hasOwn(kiteIntervals, text)

/** The interval of a path. */
export const kiteIntervalOf = (text: string): KiteInterval | undefined =>
  text === "hour" ? "60minute" : isKiteInterval(text) ? text : undefined

/** Days of each interval that one request may span. */
export type KiteDayLimits = Readonly<Record<KiteInterval, number>>

const readDays = (text: string): KiteDayLimits | undefined => {
  const days = new Map<string, number>()
  for (const part of text.split(",")) {
    const [, name, count] = /^\s*(\w+)\s*=\s*(\d{1,6})\s*$/.exec(part) ?? []
    if (name === undefined || !isKiteInterval(name) || days.has(name)) return undefined
    const value = Number(count)
    if (value < 1 || value > MAX_DAYS) return undefined
    days.set(name, value)
  }
  return days.size === Object.keys(kiteIntervals).length
    ? (Object.fromEntries(days) as Record<KiteInterval, number>)
    : undefined
}

const DAYS_EXPECTED = `Expected days of every interval, such as ${Object.keys(kiteIntervals)
  .map((name) => `${name}=60`)
  .join(",")}`

const DayLimits = Schema.Struct(
  Object.fromEntries(Object.keys(kiteIntervals).map((name) => [name, Schema.Int])) as Record<
    KiteInterval,
    typeof Schema.Int
  >
)

/** The setting's text. */
export const KiteDays = Schema.String.pipe(
  Schema.check(Schema.makeFilter((text: string) => readDays(text) !== undefined || DAYS_EXPECTED)),
  Schema.decodeTo(DayLimits, {
    decode: SchemaGetter.transform((text: string) => readDays(text)!),
    encode: SchemaGetter.transform((days: KiteDayLimits) =>
      Object.entries(days)
        .map(([name, count]) => `${name}=${count}`)
        .join(",")
    )
  })
)

/** A trading day and how many times faster than the market it is replayed: `2026-01-15`, `2026-01-15@60`, `…@inf`. */
export interface DayReplay {
  readonly date: string
  readonly speed: number | "inf"
}

/** The day that a text names; undefined where it is none. The speed's own bounds are the replays'. */
export const dayReplayOf = (text: string): DayReplay | undefined => {
  const [, date, speed] = /^(\d{4}-\d\d-\d\d)(?:@(inf|\d{1,7}(?:\.\d{1,3})?))?$/.exec(text) ?? []
  if (date === undefined || dayOfDate(date) === undefined || Number(speed) === 0) return undefined
  return { date, speed: speed === "inf" ? "inf" : Number(speed ?? 1) }
}

export const KiteReplay = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter(
      (text: string) =>
        dayReplayOf(text) !== undefined ||
        "Expected a trading day and a speed, such as 2026-01-15, 2026-01-15@60 or 2026-01-15@inf"
    )
  )
)

const TIME = /^(\d{4}-\d\d-\d\d)(?:[ T+](\d\d):(\d\d)(?::(\d\d))?)?$/

/**
 * Epoch microseconds of a time in India as clients write it: `2026-01-15 09:15:00`, or the date alone, which is the whole
 * day: where it begins, or, of an `end`, its last second. A sentence where it is none.
 */
export const kiteTimeOf = (name: string, text: string | null, end = false): number | string => {
  const [, date, hour, minute, second] = TIME.exec(text ?? "") ?? []
  const day = date === undefined ? undefined : dayOfDate(date)
  const [h, m, s] = [Number(hour ?? 0), Number(minute ?? 0), Number(second ?? 0)]
  if (day === undefined || h > 23 || m > 59 || s > 59) {
    return `invalid ${name} date: expected a time in India such as 2026-01-15 09:15:00, got ${showGiven(text)}`
  }
  const start = day * MICROS_PER_DAY - IST_OFFSET_MICROS
  if (hour === undefined) return end ? start + MICROS_PER_DAY - MICROS_PER_SECOND : start
  return start + (h * 3600 + m * 60 + s) * MICROS_PER_SECOND
}

const inIndia = (micros: number): string => new Date((micros + IST_OFFSET_MICROS) / 1000).toISOString()

/** `2026-01-15 09:15:00`, 19 characters; null where there is no time. */
export const kiteStamp = (seconds: number): string | null =>
  seconds === 0
    ? null
    : inIndia(seconds * MICROS_PER_SECOND)
        .slice(0, 19)
        .replace("T", " ")

/** `2026-01-15T09:15:00+0530`, the only form that every client reads. */
export const kiteBarTime = (micros: number): string => `${inIndia(micros).slice(0, 19)}+0530`

/** What is added to the stamps of a replayed day so that it is today; whole days. */
export const shiftToToday = (day: number, now: number): number => (tradingDay(now) - day) * MICROS_PER_DAY
