/**
 * Decides which ticks a bar of a file becomes: four, so that the bar which the platform makes of them is the file's.
 * They come at the bar's start, after a quarter and a half of it, and a millisecond before its end: open; the extreme
 * on the far side of the close, low first in a bar that rose; the other extreme; close. Each has a quarter of the
 * volume, the last what is left.
 */
import { barStart, type Interval, intervalMinutes } from "../../schema/Candle.ts"

/** Intervals of which a file may have bars; where in a day's hours a day bar would trade is not known. */
export const BAR_INTERVALS = ["1m", "5m", "15m", "30m", "1h"] as const satisfies ReadonlyArray<Interval>
export type BarInterval = (typeof BAR_INTERVALS)[number]

const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_MILLISECOND = 1000

export interface FileBar {
  /** Its start, epoch microseconds. */
  readonly exchange_ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
}

/** What is wrong with a bar, and of which field; undefined where nothing is. */
export const barProblem = (
  { close, exchange_ts, high, low, open }: FileBar,
  interval: BarInterval
): { readonly field: "exchange_ts" | "high" | "low"; readonly reason: string } | undefined => {
  if (barStart(exchange_ts, interval) !== exchange_ts) {
    return { field: "exchange_ts", reason: `expected the start of a bar of ${interval}, counted from 09:15 IST` }
  }
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
  const width = intervalMinutes[interval] * MICROS_PER_MINUTE
  const quarter = Math.floor(volume / 4)
  const [second, third] = close >= open ? [low, high] : [high, low]
  return [
    { exchange_ts, price: open, volume: quarter },
    { exchange_ts: exchange_ts + width / 4, price: second, volume: quarter },
    { exchange_ts: exchange_ts + width / 2, price: third, volume: quarter },
    { exchange_ts: exchange_ts + width - MICROS_PER_MILLISECOND, price: close, volume: volume - 3 * quarter }
  ]
}
