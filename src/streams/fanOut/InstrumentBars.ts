/** Decides which bars of an instrument are in memory: its newest minutes, and from when on nothing is missing of them. */
import type { BarSum } from "../ports/TickStore.ts"
import { type MinuteBar, widerBar } from "./MinuteBar.ts"

export const MICROS_PER_MINUTE = 60_000_000
/** Minutes in a bar of five. */
export const MINUTES_OF_FIVE = 5
const MICROS_OF_FIVE = MINUTES_OF_FIVE * MICROS_PER_MINUTE

/** The start of the minute that holds a time; of the bar of five. Both count from a whole hour as well as from 09:15. */
export const minuteOf = (micros: number): number => micros - (micros % MICROS_PER_MINUTE)
export const fiveOf = (micros: number): number => micros - (micros % MICROS_OF_FIVE)

/** Minutes of each instrument, at most: those of three bars of five minutes. */
export const MINUTES_KEPT = 3 * MINUTES_OF_FIVE

/** One instrument's newest minutes that have ticks, ascending. */
export class InstrumentBars {
  /** A minute that starts here or later and is not kept has no tick yet; of one before that nothing is known here. */
  from: number
  /** The last minute: every tick asks for it. */
  newest: MinuteBar | undefined
  private readonly minutes: Array<MinuteBar> = []

  constructor(from: number) {
    this.from = from
  }

  get count(): number {
    return this.minutes.length
  }

  /** Where the minutes start. */
  get starts(): ReadonlyArray<number> {
    return this.minutes.map(({ ts }) => ts)
  }

  find(ts: number): MinuteBar | undefined {
    for (let i = this.minutes.length - 1; i >= 0; i--) {
      const bar = this.minutes[i]!
      if (bar.ts <= ts) return bar.ts === ts ? bar : undefined
    }
    return undefined
  }

  /** The oldest minute that one more would push out. */
  oldestBeyond(limit: number): MinuteBar | undefined {
    return this.minutes.length >= limit ? this.minutes[0] : undefined
  }

  /** Keeps one more minute, in its place, where there is room for it among the newest `limit`. */
  keep(bar: MinuteBar, limit: number): boolean {
    const { minutes } = this
    let at = minutes.length
    while (at > 0 && minutes[at - 1]!.ts > bar.ts) at--
    if (at === 0 && minutes.length >= limit) {
      this.from = Math.max(this.from, bar.ts + MICROS_PER_MINUTE)
      return false
    }
    minutes.splice(at, 0, bar)
    this.newest = minutes[minutes.length - 1]
    this.cut(limit)
    return true
  }

  /** Keeps only the newest `limit`. */
  cut(limit: number): void {
    const over = this.minutes.length - limit
    if (over <= 0) return
    this.from = Math.max(this.from, this.minutes[over - 1]!.ts + MICROS_PER_MINUTE)
    this.minutes.splice(0, over)
    this.newest = this.minutes[this.minutes.length - 1]
  }

  /** Forgets all: nothing is known of minutes that start before `from`. */
  forget(from: number): void {
    this.minutes.length = 0
    this.newest = undefined
    this.from = from
  }

  /** Whether nothing of a minute's time is missing but what has not come yet. */
  isWhole(ts: number): boolean {
    const bar = this.find(ts)
    return bar === undefined ? ts >= this.from : bar.isWhole
  }

  /** Whether all minutes of a bar of five are whole. */
  isFiveWhole(ts: number): boolean {
    for (let i = 0; i < MINUTES_OF_FIVE; i++) if (!this.isWhole(ts + i * MICROS_PER_MINUTE)) return false
    return true
  }

  /** The bar of five minutes that starts at `ts`, of what is kept. */
  five(ts: number): BarSum | undefined {
    return widerBar(
      ts,
      this.minutes.filter((bar) => bar.ts >= ts && bar.ts < ts + MICROS_OF_FIVE)
    )
  }
}
