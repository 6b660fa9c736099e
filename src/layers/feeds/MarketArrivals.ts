/** Decides when the simulated market ticks, and which instrument does: its rate, its bursts, and who is busy in it. */
import { randomOf } from "./marketRandom.ts"

const MICROS_PER_SECOND = 1_000_000
/** Activity falls with the instrument's rank to this power. */
const ZIPF_EXPONENT = 0.9
/** Share of a burst's ticks that are of one instrument. */
const BURST_FOCUS = 0.5

/** When the next tick is meant, in µs since the run began, and of which instrument. */
export class MarketArrivals {
  readonly #rate: number
  readonly #random: () => number
  readonly #cumulative: Float64Array
  /** Instruments in the order in which they open: each ticks once before activity decides. */
  readonly #opening: Int32Array
  #opened = 0
  #second = 0
  #times = new Float64Array(0)
  #inBurst = new Uint8Array(0)
  #next = 0
  #focus = 0
  /** The instrument of the arrival last taken. */
  index = 0

  constructor(symbols: number, rate: number, seed: number) {
    this.#rate = rate
    this.#random = randomOf(seed, "arrivals")
    this.#cumulative = new Float64Array(symbols)
    let total = 0
    for (let i = 0; i < symbols; i++) {
      total += 1 / (i + 1) ** ZIPF_EXPONENT
      this.#cumulative[i] = total
    }
    this.#opening = Int32Array.from({ length: symbols }, (_, i) => i)
    for (let i = symbols - 1; i > 0; i--) {
      const j = Math.floor(this.#random() * (i + 1))
      const swapped = this.#opening[i]!
      this.#opening[i] = this.#opening[j]!
      this.#opening[j] = swapped
    }
  }

  /** When the next tick is meant. */
  peek(): number {
    while (this.#next >= this.#times.length) this.#plan()
    return this.#times[this.#next]!
  }

  /** Takes it: `index` says of which instrument. */
  take(): void {
    const isBurst = this.#inBurst[this.#next] === 1
    this.#next += 1
    if (this.#opened < this.#opening.length) {
      this.index = this.#opening[this.#opened++]!
    } else {
      this.index = isBurst && this.#random() < BURST_FOCUS ? this.#focus : this.#pick()
    }
  }

  #pick(): number {
    const wanted = this.#random() * this.#cumulative[this.#cumulative.length - 1]!
    let low = 0
    let high = this.#cumulative.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#cumulative[middle]! <= wanted) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Every second has exactly its share of ticks; some of them come in one burst of several times the mean. */
  #plan(): void {
    const random = this.#random
    const count = Math.floor((this.#second + 1) * this.#rate) - Math.floor(this.#second * this.#rate)
    const begin = this.#second * MICROS_PER_SECOND
    this.#second += 1
    this.#next = 0
    const width = 0.03 + 0.09 * random()
    const inBurst = Math.round(count * Math.min(0.6, width * (4 + 4 * random())))
    const burstBegin = begin + random() * (1 - width) * MICROS_PER_SECOND
    this.#focus = this.#pick()
    const calm = this.#spread(count - inBurst, begin, MICROS_PER_SECOND)
    const burst = this.#spread(inBurst, burstBegin, width * MICROS_PER_SECOND)
    this.#times = new Float64Array(count)
    this.#inBurst = new Uint8Array(count)
    let c = 0
    let b = 0
    for (let i = 0; i < count; i++) {
      const isBurst = c >= calm.length || (b < burst.length && burst[b]! < calm[c]!)
      this.#times[i] = isBurst ? burst[b++]! : calm[c++]!
      this.#inBurst[i] = isBurst ? 1 : 0
    }
  }

  /** `count` times ascending, uniform over a stretch: normalized exponential gaps need no sorting. */
  #spread(count: number, begin: number, width: number): Float64Array {
    const times = new Float64Array(count)
    let total = 0
    for (let i = 0; i < count; i++) {
      total -= Math.log(1 - this.#random())
      times[i] = total
    }
    total -= Math.log(1 - this.#random())
    for (let i = 0; i < count; i++) times[i] = begin + (times[i]! / total) * width
    return times
  }
}
