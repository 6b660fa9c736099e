/**
 * Decides which bars of an instrument are in memory: its newest minutes, and from when on nothing is missing of them; with
 * each what quotes said of its open interest, of minutes without ticks too, since they count in a bar of five.
 */
import type { BarSum, MinuteOi } from "../ports/TickStore.ts"
import { type MinuteBar, widerBar } from "./MinuteBar.ts"
import { laterOi, type SaidOi } from "./SaidOi.ts"

export const MICROS_PER_MINUTE = 60_000_000
/** Minutes in a bar of five. */
export const MINUTES_OF_FIVE = 5
const MICROS_OF_FIVE = MINUTES_OF_FIVE * MICROS_PER_MINUTE

/** The start of the minute that holds a time; of the bar of five. Both count from a whole hour as well as from 09:15. */
export const minuteOf = (micros: number): number => micros - (micros % MICROS_PER_MINUTE)
export const fiveOf = (micros: number): number => micros - (micros % MICROS_OF_FIVE)

/** Minutes of each instrument, at most: those of three bars of five minutes. */
export const MINUTES_KEPT = 3 * MINUTES_OF_FIVE

/** One instrument's newest minutes that have ticks, ascending, and the open interest of those that have none. */
export class InstrumentBars {
  /** A minute that starts here or later and is not kept has no tick yet; of one before that nothing is known here. */
  from: number
  /** The last minute: every tick asks for it. */
  newest: MinuteBar | undefined
  private readonly minutes: Array<MinuteBar> = []
  /** What was said of minutes from `from` on that have no tick yet, ascending. */
  private said: Array<MinuteOi> = []

  constructor(from: number) {
    this.from = from
  }

  /** Minutes of which anything is kept, but for the last that was said: there is one an instrument, as of its quote. */
  get count(): number {
    return this.minutes.length + Math.max(0, this.said.length - 1)
  }

  /** Where the minutes start. */
  get starts(): ReadonlyArray<number> {
    return this.minutes.map(({ ts }) => ts)
  }

  /** Up to where anything is kept. */
  get end(): number {
    const last = Math.max(this.newest?.ts ?? 0, this.said.at(-1)?.ts ?? 0)
    return last === 0 ? 0 : last + MICROS_PER_MINUTE
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
      this.beginAt(bar.ts + MICROS_PER_MINUTE)
      return false
    }
    const said = this.said.findIndex(({ ts }) => ts === bar.ts)
    if (said >= 0) bar.hear(this.said.splice(said, 1)[0]!)
    minutes.splice(at, 0, bar)
    this.newest = minutes[minutes.length - 1]
    this.cut(limit)
    return true
  }

  /** Notes the open interest of a minute; false where nothing is known of that minute here. */
  hear(ts: number, said: SaidOi, limit: number): boolean {
    const bar = this.newest?.ts === ts ? this.newest : this.find(ts)
    if (bar !== undefined) {
      bar.hear(said)
      return true
    }
    if (ts < this.from) return false
    let at = this.said.length
    while (at > 0 && this.said[at - 1]!.ts > ts) at--
    const known = this.said[at - 1]
    if (known?.ts === ts) this.said[at - 1] = { ts, ...laterOi(known, said)! }
    else this.said.splice(at, 0, { ts, ...said })
    this.cutSaid(limit)
    return true
  }

  /** The open interest of a minute. */
  oi(ts: number): SaidOi | undefined {
    return this.find(ts)?.oi ?? this.said.find((one) => one.ts === ts)
  }

  /** Keeps only the newest `limit`. */
  cut(limit: number): void {
    this.cutSaid(limit)
    const over = this.minutes.length - limit
    if (over <= 0) return
    this.beginAt(this.minutes[over - 1]!.ts + MICROS_PER_MINUTE)
    this.minutes.splice(0, over)
    this.newest = this.minutes[this.minutes.length - 1]
  }

  private cutSaid(limit: number): void {
    const over = this.said.length - limit
    if (over > 0) this.beginAt(this.said[over - 1]!.ts + MICROS_PER_MINUTE)
  }

  /** Of minutes that start before `from` nothing is known any more, but of those that are kept with their ticks. */
  private beginAt(from: number): void {
    if (from <= this.from) return
    this.from = from
    if (this.said.length > 0 && this.said[0]!.ts < from) this.said = this.said.filter(({ ts }) => ts >= from)
  }

  /** Forgets all: nothing is known of minutes that start before `from`. */
  forget(from: number): void {
    this.minutes.length = 0
    this.newest = undefined
    this.said = []
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
