/**
 * Decides what the simulated market's snapshot feed says beside a tick: a book of five levels around the price, what
 * waits in all, the day so far, and open interest of what is derived. All of it follows from the seed, by chance of its
 * own: which ticks there are does not depend on it.
 */
import type { Instrument } from "../../schema/Instrument.ts"
import { type Level, MAX_LEVELS, type QuoteState } from "../../schema/Quote.ts"
import { SIMULATED_TICK_SIZE, simulatedBasePrice } from "../../schema/Simulation.ts"
import { gaussianOf, randomOf } from "./marketRandom.ts"

/** Prices have 20 steps a rupee, and averages of them 100. */
const STEPS_PER_RUPEE = Math.round(1 / SIMULATED_TICK_SIZE)
const CENTS_PER_RUPEE = 100
/** Standard deviation of what a day opens above the close before it. */
const OVERNIGHT_SIGMA = 0.006
/** How far a price may go from the close of the day before. */
const CIRCUIT = 0.2
/** Steps between the best bid and the best offer at most. */
const MAX_SPREAD = 3
/** Log of the quantity of a level: how much it varies, and grows with each level. */
const LEVEL_SIGMA = 0.8
const LEVEL_GROWTH = 0.2
const MAX_ORDERS = 20
/** How often what is shown waits in all, at least and at most. */
const LEAST_DEPTH = 6
const MOST_DEPTH = 12
/** Log of the open interest that a day begins with. */
const MEAN_OI = 12

/** The newest tick of an instrument. */
interface Traded {
  readonly exchange_ts: number
  readonly price: number
  readonly volume: number
  /** The instrument's volume so far, this tick included. */
  readonly day_volume: number
  readonly sequence_id: number
}

export class MarketQuotes {
  readonly #random: () => number
  readonly #gaussian: () => number
  readonly #meanVolume: Float64Array
  readonly #saysDayVolume: boolean
  readonly #previousClose: Float64Array
  readonly #open: Float64Array
  readonly #high: Float64Array
  readonly #low: Float64Array
  readonly #turnover: Float64Array
  /** -1 of what has none. */
  readonly #oi: Float64Array
  readonly #oiHigh: Float64Array
  readonly #oiLow: Float64Array

  /** `meanVolume` is the log of each instrument's usual quantity. */
  constructor(seed: number, instruments: ReadonlyArray<Instrument>, meanVolume: Float64Array, saysDayVolume: boolean) {
    const symbols = instruments.length
    this.#random = randomOf(seed, "quotes")
    this.#gaussian = gaussianOf(this.#random)
    this.#meanVolume = meanVolume
    this.#saysDayVolume = saysDayVolume
    this.#previousClose = Float64Array.from({ length: symbols }, (_, i) =>
      onGrid(simulatedBasePrice(i) * (1 + this.#gaussian() * OVERNIGHT_SIGMA))
    )
    this.#open = new Float64Array(symbols)
    this.#high = new Float64Array(symbols)
    this.#low = new Float64Array(symbols)
    this.#turnover = new Float64Array(symbols)
    this.#oi = Float64Array.from(instruments, ({ asset_class }) =>
      asset_class === "FUT" || asset_class === "OPT" ? Math.round(Math.exp(MEAN_OI + this.#gaussian())) : -1
    )
    this.#oiHigh = this.#oi.slice()
    this.#oiLow = this.#oi.slice()
  }

  /** Takes a tick of instrument `i` into its day. */
  see(i: number, { price, sequence_id, volume }: Traded): void {
    const isFirst = sequence_id === 1
    if (isFirst) this.#open[i] = price
    this.#high[i] = isFirst ? price : Math.max(this.#high[i]!, price)
    this.#low[i] = isFirst ? price : Math.min(this.#low[i]!, price)
    this.#turnover[i]! += price * volume
  }

  /** What a packet says beside the newest tick of instrument `i`. */
  say(i: number, { day_volume, exchange_ts, price, volume }: Traded): QuoteState {
    const random = this.#random
    const at = Math.round(price * STEPS_PER_RUPEE)
    const spread = 1 + Math.floor(MAX_SPREAD * random() ** 3)
    const [best, offered] = random() < 0.5 ? [at, at + spread] : [at - spread, at]
    const bid = this.#side(i, best, -1)
    const ask = this.#side(i, offered, 1)
    const close = this.#previousClose[i]!
    const hasOi = this.#oi[i]! >= 0
    if (hasOi) {
      const oi = Math.max(0, this.#oi[i]! + Math.round((2 * random() - 1) * volume))
      this.#oi[i] = oi
      this.#oiHigh[i] = Math.max(this.#oiHigh[i]!, oi)
      this.#oiLow[i] = Math.min(this.#oiLow[i]!, oi)
    }
    return {
      bid,
      ask,
      total_buy_quantity: this.#total(bid),
      total_sell_quantity: this.#total(ask),
      oi: hasOi ? this.#oi[i]! : undefined,
      oi_day_high: hasOi ? this.#oiHigh[i]! : undefined,
      oi_day_low: hasOi ? this.#oiLow[i]! : undefined,
      average_price: Math.round((this.#turnover[i]! / day_volume) * CENTS_PER_RUPEE) / CENTS_PER_RUPEE,
      last_quantity: volume,
      last_trade_ts: exchange_ts,
      open: this.#open[i]!,
      high: this.#high[i]!,
      low: this.#low[i]!,
      previous_close: close,
      lower_circuit: onGrid(close * (1 - CIRCUIT)),
      upper_circuit: onGrid(close * (1 + CIRCUIT)),
      day_volume: this.#saysDayVolume ? day_volume : undefined
    }
  }

  /** A side of the book from its best price, in steps, away from the other one; none of it at or below 0. */
  #side(i: number, best: number, direction: 1 | -1): ReadonlyArray<Level> {
    const levels: Array<Level> = []
    for (let level = 0; level < MAX_LEVELS; level++) {
      const steps = best + direction * level
      const log = this.#meanVolume[i]! + LEVEL_GROWTH * level + LEVEL_SIGMA * this.#gaussian()
      const quantity = Math.max(1, Math.round(Math.exp(log)))
      const orders = Math.min(quantity, 1 + Math.floor(MAX_ORDERS * this.#random() ** 2))
      if (steps > 0) levels.push([steps / STEPS_PER_RUPEE, quantity, orders])
    }
    return levels
  }

  #total(side: ReadonlyArray<Level>): number {
    let shown = 0
    for (const [, quantity] of side) shown += quantity
    return Math.round(shown * (LEAST_DEPTH + (MOST_DEPTH - LEAST_DEPTH) * this.#random()))
  }
}

const onGrid = (rupees: number): number => Math.max(1, Math.round(rupees * STEPS_PER_RUPEE)) / STEPS_PER_RUPEE
