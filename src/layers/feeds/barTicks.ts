/**
 * Decides which ticks a bar of a file becomes: four, so that the bar which the platform makes of them is the file's, and
 * every wider one the roll-up of the file's. They come at the bar's start, after a quarter and a half of it, and a
 * millisecond before its end: open; the extreme on the far side of the close, low first in a bar that rose; the other
 * extreme; close. Each has a quarter of the volume, the last what is left.
 */
import { BAR_ORIGIN_MICROS, barStart, type Interval, intervalMicros } from "../../schema/Candle.ts"
import { barOpen, segmentOfToken } from "../../schema/Sessions.ts"

/** Intervals of which a file may have bars. */
export const BAR_INTERVALS = ["1m", "5m", "15m", "30m", "1h", "1d"] as const satisfies ReadonlyArray<Interval>
export type BarInterval = (typeof BAR_INTERVALS)[number]

/** What a row's time is of its bar: its start, its end, or its last second, as 09:15:59. */
export const BAR_STAMPS = ["start", "end", "last"] as const
export type BarStamp = (typeof BAR_STAMPS)[number]

const MICROS_PER_MILLISECOND = 1000
const MICROS_PER_SECOND = 1_000_000
/** 09:15 IST and how long every segment trades from then on, of a day's bar: from its start at midnight. */
const DAY_OPENS_MICROS = 33_300_000_000
const DAY_TRADES_MICROS = 22_500_000_000

/** How many ticks a bar becomes. */
export const BAR_TICKS = 4

export interface FileBar {
  /** Its start, epoch microseconds. */
  readonly exchange_ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
}

/**
 * The start of the bar whose row carries this time, by the hours of the token's segment; a sentence where a bar carries
 * none such.
 */
export const startOf = (micros: number, interval: BarInterval, stamp: BarStamp, token: number): number | string => {
  const width = intervalMicros(interval)
  // A day's bar is its date, whatever time of that day the row has.
  if (interval === "1d") return barStart(micros, interval)
  const start = stamp === "start" ? micros : stamp === "end" ? micros - width : micros - width + MICROS_PER_SECOND
  const open = barOpen(segmentOfToken(token))
  if (barStart(start, interval, open) === start) return start
  const what = { start: "start", end: "end", last: "last second" }[stamp]
  return `expected the ${what} of a bar of ${interval}, counted from ${open === BAR_ORIGIN_MICROS ? "09:15" : "09:00"} IST (--stamp)`
}

/** What is wrong with a bar, and of which field; undefined where nothing is. */
export const barProblem = ({
  close,
  high,
  low,
  open
}: FileBar): { readonly field: "high" | "low"; readonly reason: string } | undefined => {
  if (high < Math.max(open, close, low)) {
    return { field: "high", reason: `expected the highest of its bar (${open}, ${low}, ${close}), got ${high}` }
  }
  if (low > Math.min(open, close)) {
    return { field: "low", reason: `expected the lowest of its bar (${open}, ${high}, ${close}), got ${low}` }
  }
  return undefined
}

/** The ticks of a bar that has no problem, in order. */
export const barTicks = (
  { close, exchange_ts, high, low, open, volume }: FileBar,
  interval: BarInterval
): ReadonlyArray<{ readonly exchange_ts: number; readonly price: number; readonly volume: number }> => {
  const from = interval === "1d" ? exchange_ts + DAY_OPENS_MICROS : exchange_ts
  const width = interval === "1d" ? DAY_TRADES_MICROS : intervalMicros(interval)
  const quarter = Math.floor(volume / 4)
  const [second, third] = close >= open ? [low, high] : [high, low]
  return [
    { exchange_ts: from, price: open, volume: quarter },
    { exchange_ts: from + width / 4, price: second, volume: quarter },
    { exchange_ts: from + width / 2, price: third, volume: quarter },
    { exchange_ts: from + width - MICROS_PER_MILLISECOND, price: close, volume: volume - 3 * quarter }
  ]
}
