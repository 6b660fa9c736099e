/** Decides what a bar is: which interval it may have, where it starts, and what it holds. */
import { Schema } from "effect"

export const Interval = Schema.Literals(["1m", "5m", "15m", "30m", "1h", "1d"])
export type Interval = typeof Interval.Type

/** Minutes of each interval; a day bar runs from IST midnight to midnight. */
export const intervalMinutes: Record<Interval, number> = {
  "1m": 1,
  "5m": 5,
  "15m": 15,
  "30m": 30,
  "1h": 60,
  "1d": 1440
}

const MICROS_PER_MINUTE = 60_000_000

/** Microseconds of an interval. */
export const intervalMicros = (interval: Interval): number => intervalMinutes[interval] * MICROS_PER_MINUTE

/** 2000-01-03 09:15 IST in epoch microseconds: bars of up to an hour are aligned on it, as the exchange counts. */
export const BAR_ORIGIN_MICROS = 946_871_100_000_000
/** 2000-01-03 00:00 IST: the origin of day bars. */
export const DAY_ORIGIN_MICROS = BAR_ORIGIN_MICROS - 33_300_000_000

/** What opens at 09:00 has its bars aligned on that: those of 30 minutes and of an hour start elsewhere then. */
export const NINE_O_CLOCK_MICROS = BAR_ORIGIN_MICROS - 15 * MICROS_PER_MINUTE

/** The start of the bar of `interval` that holds `micros`; bars of up to an hour are aligned on `open`. */
export const barStart = (micros: number, interval: Interval, open: number = BAR_ORIGIN_MICROS): number => {
  const width = intervalMicros(interval)
  const origin = interval === "1d" ? DAY_ORIGIN_MICROS : open
  return micros - ((((micros - origin) % width) + width) % width)
}

/** Whether a bar is final at a time: no tick of its own time is still to come by then, but for late ones. */
export const isFinal = (ts: number, interval: Interval, now: number): boolean => ts + intervalMicros(interval) <= now

/** The largest sum of volumes that is told: what goes above it stays there, in every sum and on every level alike. */
export const MAX_VOLUME = Number.MAX_SAFE_INTEGER

/** A sum of volumes, of numbers up to `MAX_VOLUME` or an exact one that is read from elsewhere. */
export const boundedVolume = (sum: number): number => (sum < MAX_VOLUME ? sum : MAX_VOLUME)

/** `[ts, ts + interval)`; `ts` in epoch microseconds, prices in rupees. */
export interface Candle {
  readonly ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  /** At most `MAX_VOLUME`. */
  readonly volume: number
  /** The last open interest that quotes of its time told; absent where none did. */
  readonly oi?: number
}

/** A bar with the open interest of its time, where that is known. */
export const withOi = <A extends object>(bar: A, oi: number | null | undefined): A & Pick<Candle, "oi"> =>
  oi === undefined || oi === null ? bar : { ...bar, oi }

/** Puts a bar's content behind what `bars` end with: into the last of them where both start at `ts`. */
export const addToBars = (
  bars: Array<Candle>,
  ts: number,
  { open, high, low, close, volume, oi }: Omit<Candle, "ts">
): void => {
  const last = bars.at(-1)
  if (last?.ts !== ts) bars.push(withOi({ ts, open, high, low, close, volume }, oi))
  else {
    const whole = {
      ts,
      open: last.open,
      high: Math.max(last.high, high),
      low: Math.min(last.low, low),
      close,
      volume: boundedVolume(last.volume + volume)
    }
    bars[bars.length - 1] = withOi(whole, oi ?? last.oi)
  }
}
