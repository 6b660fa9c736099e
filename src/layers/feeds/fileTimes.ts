/**
 * Decides which instant a time of a file is: epoch numbers in a unit that is told or seen by their size, and dates as
 * people write them, in an order that is told or that another row decides.
 */
import { showValue } from "../../schema/Explain.ts"
import type { Zone } from "../../schema/NaiveTime.ts"
import { isTime, MAX_MICROS, MIN_MICROS, parseIso, timeHint, unitOf } from "../../schema/Time.ts"
import { type DateOrder, isUnclear, momentOf, readingsOf, readTime } from "../../schema/WrittenTime.ts"

export const TIME_UNITS = ["s", "ms", "us", "ns"] as const
export type TimeUnit = (typeof TIME_UNITS)[number]

const MICROS_OF = { s: 1_000_000, ms: 1000, us: 1, ns: 0.001 } as const
const WORD_OF = { s: "seconds", ms: "milliseconds", us: "microseconds", ns: "nanoseconds" } as const
const MICROS_PER_DAY = 86_400_000_000
const MICROS_PER_MINUTE = 60_000_000

/** Dates remembered; full: all are forgotten. */
const MAX_DATES = 4096

const EPOCH = /^\d{9,19}(?:\.\d{1,9})?$/
const CUT_ZEROS = /[T ]00:00(?::00(?:\.0+)?)?$/

export interface TimeOptions {
  /** What naive times are meant in; without one they are refused. */
  readonly zone: Zone | undefined
  /** The order of a date of numbers; without one a date that reads as two days is refused. */
  readonly dates: DateOrder | undefined
  /** The unit of epoch numbers; without one their size tells it. */
  readonly unit: TimeUnit | undefined
}

/** A date that reads as more than one day. */
export class Unclear {
  readonly reason: string
  constructor(reason: string) {
    this.reason = reason
  }
}

const WANTED = "expected a time such as 2026-01-15T09:15:00+05:30 or an epoch number"

const ORDER_WORDS = { ymd: "year, month, day", dmy: "day, month, year", mdy: "month, day, year" } as const

/** Eight digits, such as 20260115: no epoch number since 1980 is that short. */
const isCompactDate = (value: number): boolean => value >= 1_000_000 && value <= 99_999_999 && Number.isInteger(value)

export class FileTimes {
  readonly #zone: Zone | undefined
  #order: DateOrder | undefined
  #unit: TimeUnit | undefined
  readonly #isUnitTold: boolean
  readonly #days = new Map<string, number | string | Unclear>()

  constructor({ dates, unit, zone }: TimeOptions) {
    this.#zone = zone
    this.#order = dates
    this.#unit = unit
    this.#isUnitTold = unit !== undefined
  }

  /** The order in which dates are read; undefined while no row has decided it. */
  get order(): DateOrder | undefined {
    return this.#order
  }

  /** The unit that the numbers' size told; undefined where it was told by a flag, or there was no number. */
  get unitSeen(): TimeUnit | undefined {
    return this.#isUnitTold ? undefined : this.#unit
  }

  /** Epoch microseconds of a time in one value; a sentence where it is none. */
  read(value: unknown): number | string | Unclear {
    if (typeof value === "number") {
      return isCompactDate(value)
        ? this.#moment(String(value), "", undefined, String(value))
        : this.#epoch(value, value)
    }
    if (typeof value !== "string") return `${WANTED}, got ${showValue(value)}`
    const plain = this.#plain(value)
    if (plain !== undefined) return plain
    const iso = parseIso(value)
    if (iso !== undefined) return isTime(iso) ? iso : `expected a time between 1980 and 2100, got ${showValue(value)}`
    const moment = momentOf(value)
    if (moment === undefined) return `${WANTED}, got ${showValue(value)}`
    const isDate = moment.time.includes(":") || readingsOf(moment.date).size > 0
    if (!isDate) return EPOCH.test(value) ? this.#epoch(Number(value), value) : `${WANTED}, got ${showValue(value)}`
    return this.#moment(moment.date, moment.time, moment.offset, value)
  }

  /** Epoch microseconds of a date and a time of day in two values. */
  readParts(date: unknown, time: unknown): number | string | Unclear {
    if (typeof date !== "string" && typeof date !== "number") return `expected a date, got ${showValue(date)}`
    if (typeof time !== "string" && typeof time !== "number") return `expected a time of day, got ${showValue(time)}`
    const text = String(time).trim()
    return this.#moment(String(date).trim().replace(CUT_ZEROS, ""), text, undefined, text)
  }

  /** The commonest form, `2026-01-15 09:15:00`, without an expression. */
  #plain(text: string): number | string | undefined {
    if (text.length !== 19 || this.#zone === undefined) return undefined
    if (text.charCodeAt(13) !== 58 || text.charCodeAt(16) !== 58) return undefined
    const between = text.charCodeAt(10)
    if (between !== 32 && between !== 84) return undefined
    const day = this.#days.get(text.slice(0, 10))
    if (typeof day !== "number") return undefined
    const two = (at: number): number => {
      const tens = text.charCodeAt(at) - 48
      const ones = text.charCodeAt(at + 1) - 48
      return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : 99
    }
    const hour = two(11)
    const minute = two(14)
    const second = two(17)
    if (hour > 23 || minute > 59 || second > 59) return undefined
    return this.#at(day, ((hour * 60 + minute) * 60 + second) * 1_000_000, text)
  }

  #moment(date: string, time: string, offset: number | undefined, shown: string): number | string | Unclear {
    const day = this.#day(date)
    if (typeof day !== "number") return day
    const micros = time === "" ? 0 : readTime(time)
    if (micros === undefined) return `expected a time of day such as 09:15:00, got ${showValue(time)}`
    if (offset === undefined) return this.#at(day, micros, shown)
    const instant = day * MICROS_PER_DAY + micros - offset * MICROS_PER_MINUTE
    return isTime(instant) ? instant : `expected a time between 1980 and 2100, got ${showValue(shown)}`
  }

  #at(day: number, micros: number, shown: string): number | string {
    if (this.#zone === undefined) {
      return `expected a time with an offset, or --tz for times without one, got ${showValue(shown)}`
    }
    const instant = this.#zone.at(day, micros)
    if (typeof instant === "string") return `${instant}, got ${showValue(shown)}`
    return isTime(instant) ? instant : `expected a time between 1980 and 2100, got ${showValue(shown)}`
  }

  #day(text: string): number | string | Unclear {
    const known = this.#days.get(text)
    if (known !== undefined) return known
    const day = this.#readDay(text)
    if (this.#days.size >= MAX_DATES) this.#days.clear()
    this.#days.set(text, day)
    return day
  }

  #readDay(text: string): number | string | Unclear {
    const readings = readingsOf(text)
    const clear = readings.get("clear")
    if (clear !== undefined) return clear
    const order = this.#order
    if (order !== undefined) {
      return (
        readings.get(order) ?? `expected a date that exists, in the order ${ORDER_WORDS[order]}, got ${showValue(text)}`
      )
    }
    const [first] = readings
    if (first === undefined) return `expected a date that exists, got ${showValue(text)}`
    if (isUnclear(readings)) {
      return new Unclear(
        `expected a date that is one day (--dates ${[...readings.keys()].join(" or ")}), got ${showValue(text)}`
      )
    }
    // From here on: a file has its dates in one order.
    if (readings.size === 1) {
      this.#order = first[0] as DateOrder
      this.#days.clear()
    }
    return first[1]
  }

  /** An epoch number; `text` has the digits that a double has not. */
  #epoch(value: number, text: string | number): number | string {
    if (!Number.isFinite(value)) return `${WANTED}, got ${showValue(value)}`
    const unit = this.#unit ?? this.#unitBySize(value)
    if (unit === undefined) return `${WANTED}, got ${showValue(value)}`
    const micros =
      unit === "us"
        ? value
        : unit === "ns"
          ? typeof text === "string" && /^\d{4,}$/.test(text)
            ? Number(text.slice(0, -3))
            : Math.floor(value / 1000)
          : Math.round(value * MICROS_OF[unit])
    if (isTime(micros)) {
      this.#unit = unit
      return micros
    }
    const since = this.#isUnitTold ? "as --unit says" : "as in the rows before"
    return `expected epoch ${WORD_OF[unit]} between 1980 and 2100, ${since}, got ${value}${timeHint(value)}`
  }

  #unitBySize(value: number): TimeUnit | undefined {
    if (value >= MIN_MICROS && value <= MAX_MICROS) return "us"
    const word = unitOf(value)
    return TIME_UNITS.find((unit) => WORD_OF[unit] === word)
  }
}
