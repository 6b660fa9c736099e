/**
 * Decides how a bar is made of ticks that come in any order, and of sums of ticks: exactly what a recompute from the
 * same ticks makes, at constant cost a tick.
 */
import { boundedVolume } from "../../schema/Candle.ts"
import type { Place } from "../../schema/Protocol.ts"
import { compareTicks, type Tick } from "../../schema/Tick.ts"
import type { BarEdge, BarSum, MinuteSum } from "../ports/TickStore.ts"
import type { LogPlace } from "./parts.ts"
import { laterOi, type SaidOi } from "./SaidOi.ts"

/** What became of a tick: it is in already, it counts, or it counts and may have been in the store before. */
export const PASSED = 0
export const COUNTED = 1
export const DOUBTED = 2

const NEVER = Number.NEGATIVE_INFINITY

/** The first or the last tick so far, written in place. */
class Edge implements BarEdge {
  price = 0
  exchange_ts = 0
  sequence_id = 0
  epoch: number | null = 0
  position: number | null = 0

  set({ price, exchange_ts, sequence_id, epoch, position }: BarEdge): void {
    this.price = price
    this.exchange_ts = exchange_ts
    this.sequence_id = sequence_id
    this.epoch = epoch
    this.position = position
  }
}

/**
 * The ticks of one minute of one instrument: those that came here, and once it is whole, those of the store before them.
 *
 * The store keeps one row of an (exchange_ts, sequence_id). Within one numbering (epoch and session) no two ticks have
 * the same; across two of them a tick is surely new where it is stamped after all of the other. One that is not is
 * doubted: only the store knows.
 */
export class MinuteBar implements BarSum {
  readonly ts: number
  count = 0
  volume = 0
  high = 0
  low = 0
  readonly open = new Edge()
  readonly close = new Edge()
  /** The open interest that quotes of its time said last, whichever ticks count. */
  oi: SaidOi | undefined
  /** The newest place that counts: what comes again is not after it. */
  private epoch = 0
  private position = 0
  /** With `epoch` the numbering of the newest tick. */
  private session = -1
  /** Up to this time stand ticks of other numberings. */
  private othersUntil = NEVER
  /** Nothing of its time is missing but what has not come yet. */
  isWhole: boolean
  /** Not whole: what comes before this place is the store's to tell; undefined while no tick of the instrument came here. */
  before: Place | undefined
  /** Where the store has all of that; undefined: nobody knows. */
  need: LogPlace | undefined
  /** The store is being asked for what comes before. */
  isAsked = false
  /** A tick was doubted meanwhile. */
  private isDoubted = false

  constructor(ts: number, isWhole: boolean, before?: Place, need?: LogPlace) {
    this.ts = ts
    this.isWhole = isWhole
    this.need = need
    if (before !== undefined) this.begin(before)
  }

  /** Counts a tick of its time. */
  add(tick: Tick): typeof PASSED | typeof COUNTED | typeof DOUBTED {
    const { epoch, position, session, exchange_ts, price } = tick
    if (epoch < this.epoch || (epoch === this.epoch && position <= this.position)) return PASSED
    if (epoch !== this.epoch || session !== this.session) this.renumber(tick)
    this.position = position
    if (this.count === 0) {
      this.high = price
      this.low = price
      this.open.set(tick)
      this.close.set(tick)
    } else {
      if (price > this.high) this.high = price
      else if (price < this.low) this.low = price
      if (compareTicks(tick, this.close) > 0) this.close.set(tick)
      else if (compareTicks(tick, this.open) < 0) this.open.set(tick)
    }
    this.count++
    this.volume = boundedVolume(this.volume + tick.volume)
    return exchange_ts <= this.othersUntil ? DOUBTED : COUNTED
  }

  /** A quote of its time has come. */
  hear(said: SaidOi): void {
    this.oi = laterOi(this.oi, said)
  }

  /** The tick that was just counted is doubted: all up to it is the store's to tell, once it has come to `need`. */
  doubt(need: LogPlace | undefined): void {
    if (this.isAsked) this.isDoubted = true
    else this.restart(need)
  }

  /**
   * The store's answer: what it has of this minute before `before`, undefined for nothing. False where the two may share
   * a tick: then only `sum` itself is sure, and the store is to be asked again for more, once it has come to `need`.
   */
  complete(sum: MinuteSum | undefined, need: LogPlace | undefined): boolean {
    this.isAsked = false
    if (this.isDoubted || this.overlaps(sum)) {
      this.restart(need)
      return false
    }
    if (sum !== undefined) this.merge(sum)
    this.before = undefined
    this.isWhole = true
    return true
  }

  private overlaps(sum: MinuteSum | undefined): boolean {
    if (sum === undefined || this.count === 0 || this.open.exchange_ts > sum.close.exchange_ts) return false
    return this.othersUntil !== NEVER || !this.isNumberedAs(sum)
  }

  private isNumberedAs({ numbering }: MinuteSum): boolean {
    return numbering !== undefined && numbering.epoch === this.epoch && numbering.session === this.session
  }

  private merge(sum: MinuteSum): void {
    if (this.count === 0) {
      this.open.set(sum.open)
      this.close.set(sum.close)
      this.high = sum.high
      this.low = sum.low
      if (sum.numbering?.epoch === this.epoch) this.session = sum.numbering.session
    } else {
      if (sum.high > this.high) this.high = sum.high
      if (sum.low < this.low) this.low = sum.low
      if (compareTicks(sum.open, this.open) < 0) this.open.set(sum.open)
      if (compareTicks(sum.close, this.close) > 0) this.close.set(sum.close)
    }
    if (!this.isNumberedAs(sum)) this.othersUntil = Math.max(this.othersUntil, sum.close.exchange_ts)
    this.count += sum.count
    this.volume = boundedVolume(this.volume + sum.volume)
  }

  private renumber({ epoch, position, session }: Tick): void {
    if (!this.isWhole && !this.isAsked) this.before ??= { epoch, position }
    if (this.count > 0) this.othersUntil = Math.max(this.othersUntil, this.close.exchange_ts)
    this.epoch = epoch
    this.session = session
  }

  /** All that comes before a place is the store's to tell, once it has come to `need`; unless told, all that came up to now. */
  restart(need: LogPlace | undefined, before: Place = { epoch: this.epoch, position: this.position + 1 }): void {
    this.begin(before)
    this.need = need
    this.isWhole = false
  }

  private begin(before: Place): void {
    this.before = before
    this.epoch = before.epoch
    this.position = before.position - 1
    this.session = -1
    this.othersUntil = NEVER
    this.isDoubted = false
    this.count = 0
    this.volume = 0
  }
}

/** The bar that holds these shorter ones, ascending and apart; undefined where none of them has a tick. */
export const widerBar = (ts: number, bars: ReadonlyArray<BarSum>): BarSum | undefined => {
  let wider: { -readonly [K in keyof BarSum]: BarSum[K] } | undefined
  for (const { count, open, high, low, close, volume } of bars) {
    if (count === 0) continue
    if (wider === undefined) wider = { ts, count, open, high, low, close, volume }
    else {
      wider.count += count
      wider.close = close
      if (high > wider.high) wider.high = high
      if (low < wider.low) wider.low = low
      wider.volume = boundedVolume(wider.volume + volume)
    }
  }
  return wider
}
