/** Decides how the simulated market's prices move: a correlated random walk on the tick grid whose volatility clusters. */
import { SIMULATED_TICK_SIZE, simulatedBasePrice } from "../../schema/Simulation.ts"
import { gaussianOf, randomOf } from "./marketRandom.ts"

const MICROS_PER_SECOND = 1_000_000
/** Prices have 20 steps a rupee. */
const STEPS_PER_RUPEE = Math.round(1 / SIMULATED_TICK_SIZE)
/** Standard deviations of the log price over one second: the market's, and each instrument's own. */
const MARKET_SIGMA = 0.00012
const OWN_SIGMA = 0.00018
/** How fast the log price is drawn back to where it started, a second. */
const REVERSION = 0.0005

/** The price of each next tick. */
export class MarketPrices {
  readonly #gaussian: () => number
  readonly #base: Float64Array
  readonly #beta: Float64Array
  readonly #offset: Float64Array
  readonly #variance: Float64Array
  readonly #seenAt: Float64Array
  readonly #seenFactor: Float64Array
  #factor = 0
  #factorVariance = 1
  #factorAt = 0

  constructor(symbols: number, seed: number) {
    const random = randomOf(seed, "prices")
    this.#gaussian = gaussianOf(random)
    this.#base = Float64Array.from({ length: symbols }, (_, i) => simulatedBasePrice(i))
    this.#beta = Float64Array.from({ length: symbols }, () => 0.6 + 0.9 * random())
    this.#offset = new Float64Array(symbols)
    this.#variance = new Float64Array(symbols).fill(1)
    this.#seenAt = new Float64Array(symbols)
    this.#seenFactor = new Float64Array(symbols)
  }

  /** The price of the tick of instrument `i` at `at`, in rupees. */
  next(i: number, at: number): number {
    const g = this.#gaussian()
    const factorGap = (at - this.#factorAt) / MICROS_PER_SECOND
    this.#factorVariance = 0.02 + 0.98 * this.#factorVariance * (0.92 + 0.08 * g * g)
    this.#factor += g * Math.sqrt(this.#factorVariance * factorGap) * MARKET_SIGMA
    this.#factorAt = at

    const z = this.#gaussian()
    const gap = Math.min(60, (at - this.#seenAt[i]!) / MICROS_PER_SECOND)
    const variance = 0.02 + 0.98 * this.#variance[i]! * (0.9 + 0.1 * z * z)
    this.#variance[i] = Math.min(variance, 50)
    this.#offset[i] =
      this.#offset[i]! * (1 - REVERSION * gap) +
      this.#beta[i]! * (this.#factor - this.#seenFactor[i]!) +
      z * Math.sqrt(variance * gap) * OWN_SIGMA
    this.#seenAt[i] = at
    this.#seenFactor[i] = this.#factor

    const fair = this.#base[i]! * Math.exp(Math.max(-1, Math.min(1, this.#offset[i]!)))
    // Trades alternate between bid and ask, a step apart.
    const side = this.#gaussian() > 0 ? 0.5 : -0.5
    return Math.max(1, Math.round(fair * STEPS_PER_RUPEE + side)) / STEPS_PER_RUPEE
  }
}
