/**
 * Decides which day and which time of day a text means, in the forms in which people and vendors write them. A date that
 * reads as two days, such as 03/04/2026, is none until its order of day and month is known: nothing is guessed.
 */

/** Orders of year, month and day in a date of numbers. */
export const DATE_ORDERS = ["ymd", "dmy", "mdy"] as const
export type DateOrder = (typeof DATE_ORDERS)[number]

/**
 * The days, since 1970, that a date can mean, each by the order that it is read in; `clear` where it has no other order:
 * it begins with a year of four digits, or names its month.
 */
export type Readings = ReadonlyMap<DateOrder | "clear", number>

const MONTHS = [
  "january",
  "february",
  "march",
  "april",
  "may",
  "june",
  "july",
  "august",
  "september",
  "october",
  "november",
  "december"
]

const MS_PER_DAY = 86_400_000
/** Years with two digits from here on are of the last century; times begin in 1980. */
const FIRST_SHORT_YEAR = 80

const NUMBERS = /^(\d{1,4})([-/. ])(\d{1,2})\2(\d{1,4})$/
const COMPACT = /^(\d{4})(\d{2})(\d{2})$/
const DAY_NAMED = /^(\d{1,2})[-/. ]?([A-Za-z]{3,9})[-/., ]{0,2}(\d{4}|\d{2})$/
const NAMED_DAY = /^([A-Za-z]{3,9})[-/. ](\d{1,2})[-/., ]{1,2}(\d{4}|\d{2})$/
const YEAR_NAMED = /^(\d{4})[-/. ]?([A-Za-z]{3,9})[-/. ]?(\d{1,2})$/

const yearOf = (text: string): number => {
  const year = Number(text)
  return text.length > 2 ? year : year + (year < FIRST_SHORT_YEAR ? 2000 : 1900)
}

const monthNamed = (text: string): number => {
  const name = text.toLowerCase()
  return MONTHS.findIndex((month) => month.startsWith(name)) + 1
}

/** Days since 1970; `undefined` where there is no such day. */
const dayOf = (year: number, month: number, day: number): number | undefined => {
  if (month < 1 || month > 12 || day < 1 || day > 31) return undefined
  const ms = Date.UTC(year, month - 1, day)
  return new Date(ms).getUTCMonth() === month - 1 ? ms / MS_PER_DAY : undefined
}

const NONE: Readings = new Map()

const only = (day: number | undefined): Readings => (day === undefined ? NONE : new Map([["clear", day]]))

/** A date of three numbers, in each order that it can have. */
const numbers = (first: string, second: string, third: string): Readings => {
  if (first.length > 2) return only(third.length > 2 ? undefined : dayOf(Number(first), Number(second), Number(third)))
  const readings = new Map<DateOrder, number>()
  const put = (order: DateOrder, year: string, month: string, day: string) => {
    const read = dayOf(yearOf(year), Number(month), Number(day))
    if (read !== undefined) readings.set(order, read)
  }
  if (third.length === 2 && first.length === 2) put("ymd", first, second, third)
  if (third.length === 2 || third.length === 4) {
    put("dmy", third, second, first)
    put("mdy", third, first, second)
  }
  return readings
}

/** The days that a text can mean; none where it is no date. */
export const readingsOf = (text: string): Readings => {
  let found = NUMBERS.exec(text)
  if (found !== null) return numbers(found[1]!, found[3]!, found[4]!)
  found = COMPACT.exec(text)
  if (found !== null) {
    const read = only(dayOf(Number(found[1]), Number(found[2]), Number(found[3])))
    // 05012026 begins with no year, and 20012026 has no month 1 + 19: no text of eight digits is both.
    const isYear = Number(found[1]) >= 1900 && Number(found[1]) <= 2199
    return read.size > 0 && isYear ? read : numbers(text.slice(0, 2), text.slice(2, 4), text.slice(4))
  }
  found = DAY_NAMED.exec(text)
  if (found !== null) return only(dayOf(yearOf(found[3]!), monthNamed(found[2]!), Number(found[1])))
  found = NAMED_DAY.exec(text)
  if (found !== null) return only(dayOf(yearOf(found[3]!), monthNamed(found[1]!), Number(found[2])))
  found = YEAR_NAMED.exec(text)
  if (found !== null) return only(dayOf(Number(found[1]), monthNamed(found[2]!), Number(found[3])))
  return NONE
}

/** Whether these readings are of different days. */
export const isUnclear = (readings: Readings): boolean => new Set(readings.values()).size > 1

const CLOCK = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:[.:](\d{1,9}))?)?(?: ?([AaPp])\.?[Mm]\.?)?$/
const DIGITS = /^(?:(\d{1,2})(\d{2})(\d{2})(?:\.(\d{1,9}))?|(\d{1,2})(\d{2})|(\d{2})(\d{2})(\d{2})(\d{3,9}))$/

const timeOf = (hour: number, minute: number, second: number, fraction: string): number | undefined =>
  hour > 23 || minute > 59 || second > 59
    ? undefined
    : ((hour * 60 + minute) * 60 + second) * 1_000_000 + Number(fraction.padEnd(6, "0").slice(0, 6))

/**
 * Microseconds since midnight of a time of day: 09:15, 09:15:00.123, 9:15 AM, 091500, 915. `undefined` where it is none.
 */
export const readTime = (text: string): number | undefined => {
  const clock = CLOCK.exec(text)
  if (clock !== null) {
    const [, hours, minute, second = "0", fraction = "", half] = clock
    let hour = Number(hours)
    if (half !== undefined) {
      if (hour < 1 || hour > 12) return undefined
      hour = (hour % 12) + (half === "p" || half === "P" ? 12 : 0)
    }
    return timeOf(hour, Number(minute), Number(second), fraction)
  }
  const digits = DIGITS.exec(text)
  if (digits === null) return undefined
  const [, h1, m1, s1, f1 = "", h2, m2, h3, m3, s3, f3 = ""] = digits
  if (h1 !== undefined) return timeOf(Number(h1), Number(m1), Number(s1), f1)
  return h2 === undefined ? timeOf(Number(h3), Number(m3), Number(s3), f3) : timeOf(Number(h2), Number(m2), 0, "")
}

/** A date and a time of day in one text, cut apart. */
export interface Moment {
  readonly date: string
  /** Empty where the text is a date alone. */
  readonly time: string
  /** Minutes ahead of UTC; `undefined` where the text does not say. */
  readonly offset: number | undefined
}

const MOMENT =
  /^(.+?)(?:[T,] ?| +)(\d{1,2}:\d{2}(?::\d{2}(?:[.:]\d{1,9})?)?(?: ?[AaPp]\.?[Mm]\.?)?) ?(Z|z|[+-]\d{2}:?\d{2})?$/
const COMPACT_MOMENT = /^(\d{8})[T ]?(\d{4}|\d{6}(?:\.\d{1,9}|\d{3}|\d{6})?)$/

const offsetOf = (text: string): number | undefined => {
  if (text === "Z" || text === "z") return 0
  const minutes = Number(text.slice(1, 3)) * 60 + Number(text.slice(-2))
  return minutes > 18 * 60 || Number(text.slice(-2)) > 59 ? undefined : text.startsWith("-") ? -minutes : minutes
}

/** Cuts a text into its date and its time of day; `undefined` where its offset is none. */
export const momentOf = (text: string): Moment | undefined => {
  const clock = MOMENT.exec(text)
  if (clock !== null) {
    const [, date, time, zone] = clock
    if (zone === undefined) return { date: date!, time: time!, offset: undefined }
    const offset = offsetOf(zone)
    return offset === undefined ? undefined : { date: date!, time: time!, offset }
  }
  const compact = COMPACT_MOMENT.exec(text)
  return compact === null
    ? { date: text, time: "", offset: undefined }
    : { date: compact[1]!, time: compact[2]!, offset: undefined }
}
