/**
 * Decides how a time and a trading date are written, and between which bounds: a time is epoch microseconds or ISO-8601
 * with an offset, a naive one is refused; both are between 1980 and 2100.
 */
import { Schema, SchemaGetter } from "effect"

const ISO = /^(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|z|[+-]\d{2}:?\d{2})$/

/**
 * ISO-8601 with an offset to epoch microseconds; digits past the microsecond are cut. `undefined` where the text is
 * not such a time (also 31 February, 25 o'clock, no offset).
 */
export const parseIso = (text: string): number | undefined => {
  const m = ISO.exec(text)
  if (m === null) return undefined
  const [, year, month, day, hour, minute, second = "0", fraction = "", zone] = m
  const ms = Date.UTC(+year!, +month! - 1, +day!, +hour!, +minute!, +second)
  const back = new Date(ms)
  // Date.UTC rolls 31 February over to March; a field that changed was out of range.
  if (back.getUTCMonth() !== +month! - 1 || back.getUTCDate() !== +day! || back.getUTCHours() !== +hour!)
    return undefined
  if (+minute! > 59 || +second > 59) return undefined
  let offsetMinutes = 0
  if (zone !== "Z" && zone !== "z") {
    const digits = zone!.replace(":", "")
    const hours = +digits.slice(1, 3)
    const minutes = +digits.slice(3, 5)
    if (hours > 18 || minutes > 59) return undefined
    offsetMinutes = (digits[0] === "-" ? -1 : 1) * (hours * 60 + minutes)
  }
  return (ms - offsetMinutes * 60_000) * 1000 + +fraction.padEnd(6, "0").slice(0, 6)
}

/** 1980-01-01, the base of the exchange's own clock: smaller numbers are seconds or milliseconds by mistake. */
export const MIN_MICROS = 315_532_800_000_000
/** 2100-01-01. */
export const MAX_MICROS = 4_102_444_800_000_000
/** Whether a number is a time in epoch microseconds, within bounds. */
export const isTime = (micros: number | null | undefined): micros is number =>
  Number.isSafeInteger(micros) && micros! >= MIN_MICROS && micros! <= MAX_MICROS

const UNITS = [
  ["seconds", 1_000_000],
  ["milliseconds", 1000],
  ["nanoseconds", 0.001]
] as const

/** The unit in which a number would be a time, where it is none in microseconds. */
export const unitOf = (time: number): "seconds" | "milliseconds" | "nanoseconds" | undefined =>
  UNITS.find(([, micros]) => time * micros >= MIN_MICROS && time * micros <= MAX_MICROS)?.[0]

const NUMBER = /^\d{1,25}(\.\d{1,9})?$/
const NAIVE = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?$/

/** What a refused time seems to be, to stand after "got …": another unit, or a time without an offset. */
export const timeHint = (value: unknown): string => {
  const isText = typeof value === "string"
  const number = typeof value === "number" ? value : isText && NUMBER.test(value) ? Number(value) : undefined
  if (number !== undefined) {
    const unit = unitOf(number)
    return unit === undefined ? "" : `, which looks like ${unit}`
  }
  return isText && NAIVE.test(value) ? ", which has no offset: +05:30 is India's" : ""
}

/** The same in a query string, where a `+` that is not encoded has become a space. */
export const queryTimeHint = (value: unknown): string => {
  if (typeof value !== "string") return timeHint(value)
  if (/:\d{2}(\.\d+)? \d{2}:?\d{2}$/.test(value)) return ", where a + has become a space: write it as %2B"
  return NAIVE.test(value) ? ", which has no offset: %2B05:30 is India's" : timeHint(value)
}

export const Micros = Schema.Int.pipe(
  Schema.check(
    Schema.isBetween(
      { minimum: MIN_MICROS, maximum: MAX_MICROS },
      { message: "Expected epoch microseconds between 1980 and 2100", hint: timeHint }
    )
  )
)

const WANTED = "epoch microseconds or ISO-8601 with an offset, such as 2026-01-15T09:15:00+05:30"

const IsoText = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter((text: string) => parseIso(text) !== undefined || `Expected ${WANTED}`, { hint: timeHint })
  )
)
const encodeMicros = SchemaGetter.transform((micros: number) => String(micros))

/** A time in a JSON body. */
export const Time = Schema.Union([
  Micros,
  IsoText.pipe(
    Schema.decodeTo(Micros, {
      decode: SchemaGetter.transform((text: string) => parseIso(text)!),
      encode: encodeMicros
    })
  )
]).annotate({ expected: WANTED, hint: timeHint })

const digits = /^\d{1,16}$/

const DATE = /^\d{4}-\d{2}-\d{2}$/
/** The trading dates (IST) of the first and the last time. */
export const MIN_DATE = "1980-01-01"
export const MAX_DATE = "2100-01-01"

/** A date `YYYY-MM-DD` in days since 1970; `undefined` where there is no such day, or it is out of bounds. */
export const dayOfDate = (date: string): number | undefined => {
  if (!DATE.test(date) || date < MIN_DATE || date > MAX_DATE) return undefined
  const ms = Date.parse(`${date}T00:00:00Z`)
  // Some engines roll 31 February over to March.
  if (Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== date) return undefined
  return ms / 86_400_000
}

/** A trading date (IST), wherever one is asked for. */
export const TradingDate = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter(
      (text: string) =>
        dayOfDate(text) !== undefined ||
        (DATE.test(text) && (text < MIN_DATE || text > MAX_DATE)
          ? `Expected a date between ${MIN_DATE} and ${MAX_DATE}`
          : "Expected a date such as 2026-01-15")
    )
  )
).annotate({ format: "date", expected: "a date such as 2026-01-15" })

const dayStart = (date: string): number => parseIso(`${date}T00:00:00+05:30`)!
const MICROS_PER_DAY = 86_400_000_000

/** A time in a query string, where microseconds are digits too, and a date is what `ofDate` makes of its IST midnight. */
const queryTime = (ofDate: ((start: number) => number) | undefined) => {
  const isDate = (text: string): boolean => ofDate !== undefined && dayOfDate(text) !== undefined
  const wanted = `epoch microseconds${ofDate === undefined ? "" : ", a trading date such as 2026-01-15"} or ISO-8601 with an offset, such as 2026-01-15T03:45:00Z`
  return Schema.String.pipe(
    Schema.check(
      Schema.makeFilter(
        (text: string) => digits.test(text) || isDate(text) || parseIso(text) !== undefined || `Expected ${wanted}`,
        { hint: queryTimeHint }
      )
    ),
    Schema.decodeTo(Micros, {
      decode: SchemaGetter.transform((text: string) => {
        if (digits.test(text)) return Number(text)
        if (ofDate === undefined || dayOfDate(text) === undefined) return parseIso(text)!
        return Math.min(Math.max(ofDate(dayStart(text)), MIN_MICROS), MAX_MICROS)
      }),
      encode: encodeMicros
    })
  )
}

/** Where a range of time starts; a bare date is a trading day (IST), which it starts with. */
export const RangeFrom = queryTime((start) => start)
/** Where a range of time ends; a bare date is a trading day (IST), which is the last one in it. */
export const RangeTo = queryTime((start) => start + MICROS_PER_DAY)
