/** Decides how a reader of the archive knows which rows it has given: an exact set of primary keys of one trading day. */
import { tradingDayStart } from "../../schema/Tick.ts"

/** Microseconds of a day fit in this many: token index × this + time of day stays a safe integer. */
const DAY_SPAN = 2 ** 37
/** So many tokens can be told apart beside the time of day. */
export const MAX_TOKENS = 2 ** (53 - 37) - 1
const LOAD = 0.75

/**
 * Open addressing in one Float64Array, two places a key: token and time of day in one number, sequence id in the other;
 * 21 bytes a key where their number is known beforehand.
 */
export class PrimaryKeys {
  readonly #start: number
  #slots: number
  #table: Float64Array
  #size = 0
  readonly #tokens = new Map<number, number>()

  constructor(day: number, keys: number) {
    this.#start = tradingDayStart(day)
    this.#slots = slotsFor(keys)
    this.#table = new Float64Array(this.#slots * 2)
  }

  /** True where the key is new. */
  add(token: number, exchangeTs: number, sequenceId: number): boolean {
    // From 1, so that no key is 0, which marks a free slot.
    let index = this.#tokens.get(token)
    if (index === undefined) {
      index = this.#tokens.size + 1
      this.#tokens.set(token, index)
    }
    const place = index * DAY_SPAN + (exchangeTs - this.#start)
    const slot = this.#find(place, sequenceId)
    const table = this.#table
    if (table[slot * 2] !== 0) return false
    table[slot * 2] = place
    table[slot * 2 + 1] = sequenceId
    this.#size += 1
    if (slotsFor(this.#size) > this.#slots) this.#grow()
    return true
  }

  /** The slot that has the key, or the free one where it would go. */
  #find(place: number, sequenceId: number): number {
    const table = this.#table
    let slot = slotOf(place, sequenceId, this.#slots)
    for (;;) {
      const found = table[slot * 2]!
      if (found === 0 || (found === place && table[slot * 2 + 1] === sequenceId)) return slot
      slot += 1
      if (slot === this.#slots) slot = 0
    }
  }

  #grow(): void {
    const old = this.#table
    this.#slots = slotsFor(this.#size * 2)
    this.#table = new Float64Array(this.#slots * 2)
    for (let at = 0; at < old.length; at += 2) {
      if (old[at] === 0) continue
      const slot = this.#find(old[at]!, old[at + 1]!)
      this.#table[slot * 2] = old[at]!
      this.#table[slot * 2 + 1] = old[at + 1]!
    }
  }
}

const slotsFor = (keys: number): number => Math.ceil(keys / LOAD) + 1

/** Whether a key belongs to slice `slice` of `slices`: a token with too many rows is read in that many turns. */
export const isInSlice = (exchangeTs: number, sequenceId: number, slice: number, slices: number): boolean =>
  slices === 1 || slotOf(exchangeTs, sequenceId, slices) === slice

const slotOf = (a: number, b: number, slots: number): number => {
  let h = a | 0
  h = Math.imul(h ^ (h >>> 16) ^ Math.floor(a / 4_294_967_296), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13) ^ (b | 0), 0xc2b2ae35)
  h = Math.imul(h ^ (h >>> 16) ^ Math.floor(b / 4_294_967_296), 0x9e3779b1)
  h ^= h >>> 15
  return Math.floor(((h >>> 0) / 4_294_967_296) * slots)
}
