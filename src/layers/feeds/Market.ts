/**
 * Decides what the simulated market does: which tick is meant when, at what price and volume, and what becomes of its
 * packets on the two feeds. Everything but the time stamps follows from the seed.
 */
import type { Simulation } from "../../schema/Simulation.ts"
import { SIMULATED_TICK_SIZE, simulatedBasePrice, simulatedInstruments } from "../../schema/Simulation.ts"

/** A held packet goes out at the latest after this long, whether another has overtaken it or not. */
export const REORDER_HOLD_MICROS = 40_000
/** A held packet is overtaken by at most this many of its instrument's later ones. */
const MAX_OVERTAKES = 3
/** The second copy of a duplicated packet comes this much later. */
const DUPLICATE_LAG_MICROS = 5_000
const MICROS_PER_SECOND = 1_000_000
/** Prices have 20 steps a rupee. */
const STEPS_PER_RUPEE = Math.round(1 / SIMULATED_TICK_SIZE)
/** Activity falls with the instrument's rank to this power. */
const ZIPF_EXPONENT = 0.9
/** Share of a burst's ticks that are of one instrument. */
const BURST_FOCUS = 0.5

/** Standard deviations of the log price over one second: the market's, and each instrument's own. */
const MARKET_SIGMA = 0.00012
const OWN_SIGMA = 0.00018
/** How fast the log price is drawn back to where it started, a second. */
const REVERSION = 0.0005

/** One tick as the exchange had it, with what is known of its way. */
export interface MeantTick {
  readonly instrument_token: number
  readonly exchange_ts: number
  /** Rupees, on the tick grid. */
  readonly price: number
  readonly volume: number
  /** The instrument's volume so far in this run, this tick included. */
  readonly day_volume: number
  readonly sequence_id: number
  /** Packets under way that carry it, and 1 more while the snapshot feed may still pick it. */
  open: number
  dma: boolean
  snapshot: boolean
}

export interface Packet {
  readonly feed: "dma" | "snapshot"
  readonly tick: MeantTick
  /** The first of its instrument on its feed. */
  readonly reset: boolean
}

/** What a market has done so far. `sent` counts packets handed out, duplicates included. */
export interface MarketCounts {
  ticks: number
  dmaSent: number
  dmaLost: number
  /** Second copies. */
  dmaDuplicated: number
  /** Packets that at least one later packet of their instrument overtook. */
  dmaReordered: number
  snapshotSent: number
  snapshotLost: number
}

/** sfc32, seeded from a number and a name: each use has a stream of its own, so options do not shift one another's. */
const randomOf = (seed: number, use: string): (() => number) => {
  let a = seed >>> 0
  let b = 0x9e3779b9
  let c = 0x243f6a88
  for (let i = 0; i < use.length; i++) b = Math.imul(b ^ use.charCodeAt(i), 0x01000193) >>> 0
  let counter = 1
  const next = () => {
    const t = (((a + b) >>> 0) + counter) >>> 0
    counter = (counter + 1) >>> 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) >>> 0
    c = ((c << 21) | (c >>> 11)) >>> 0
    c = (c + t) >>> 0
    return t / 4_294_967_296
  }
  for (let i = 0; i < 20; i++) next()
  return next
}

const gaussianOf = (random: () => number): (() => number) => {
  let spare = Number.NaN
  return () => {
    if (!Number.isNaN(spare)) {
      const value = spare
      spare = Number.NaN
      return value
    }
    const radius = Math.sqrt(-2 * Math.log(1 - random()))
    const angle = 2 * Math.PI * random()
    spare = radius * Math.sin(angle)
    return radius * Math.cos(angle)
  }
}

/** First in, first out; what was taken is let go of in blocks. */
class Fifo<A> {
  #items: Array<A> = []
  #head = 0

  push(item: A): void {
    this.#items.push(item)
  }

  peek(): A | undefined {
    return this.#items[this.#head]
  }

  shift(): A | undefined {
    const item = this.#items[this.#head]
    if (item === undefined) return undefined
    this.#head += 1
    if (this.#head >= 1024 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return item
  }
}

interface Timed {
  readonly at: number
  readonly packet: Packet
}

interface Held extends Timed {
  overtakesLeft: number
  overtaken: boolean
  gone: boolean
}

/** Arrivals: when the next tick is meant, in µs since the run began, and of which instrument. */
class Arrivals {
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

/** Prices: a correlated random walk on the tick grid whose volatility clusters. */
class Prices {
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

export class Market {
  readonly counts: MarketCounts = {
    ticks: 0,
    dmaSent: 0,
    dmaLost: 0,
    dmaDuplicated: 0,
    dmaReordered: 0,
    snapshotSent: 0,
    snapshotLost: 0
  }
  /** How far the market has come, in µs since it began. */
  time = 0

  readonly #options: Simulation
  readonly #tokens: Int32Array
  readonly #isLedgerKept: boolean
  readonly #arrivals: Arrivals
  readonly #prices: Prices
  readonly #volumeGaussian: () => number
  readonly #fate: () => number
  readonly #snapshotFate: () => number
  readonly #meanVolume: Float64Array
  readonly #sequence: Float64Array
  readonly #dayVolume: Float64Array
  readonly #lastStamp: Float64Array
  readonly #snapshotBegun: Uint8Array
  /** The tick that the next snapshot of each instrument carries; undefined where nothing is new. */
  readonly #fresh: Array<MeantTick | undefined>
  #freshIndexes: Array<number> = []
  readonly #heldOf: Array<Array<Held> | undefined>
  readonly #held = new Fifo<Held>()
  readonly #copies = new Fifo<Timed>()
  readonly #delayed = new Fifo<Timed>()
  #nextSnapshot: number
  #out: Array<Packet> = []
  #settled: Array<MeantTick> = []

  constructor(options: Simulation) {
    const { symbols, seed } = options
    this.#options = options
    this.#isLedgerKept = options.ledger !== undefined
    this.#tokens = Int32Array.from(simulatedInstruments(symbols), (i) => i.instrument_token)
    this.#arrivals = new Arrivals(symbols, options.rate, seed)
    this.#prices = new Prices(symbols, seed)
    this.#volumeGaussian = gaussianOf(randomOf(seed, "volumes"))
    this.#fate = randomOf(seed, "dma")
    this.#snapshotFate = randomOf(seed, "snapshot")
    // Cheaper shares trade in larger lots.
    this.#meanVolume = Float64Array.from({ length: symbols }, (_, i) => Math.log(40_000 / simulatedBasePrice(i) + 1))
    this.#sequence = new Float64Array(symbols)
    this.#dayVolume = new Float64Array(symbols)
    this.#lastStamp = new Float64Array(symbols)
    this.#snapshotBegun = new Uint8Array(symbols)
    this.#fresh = new Array<MeantTick | undefined>(symbols).fill(undefined)
    this.#heldOf = new Array<Array<Held> | undefined>(symbols).fill(undefined)
    this.#nextSnapshot = options.snapshotIntervalMs * 1000
  }

  /**
   * Goes on to `until` (µs since it began), or until about `limit` packets are out, and answers them in the order in
   * which they are sent. A tick meant at t is stamped `begunAt` + t, later where the instrument's last stamp asks it.
   */
  advance(until: number, begunAt: number, limit: number): ReadonlyArray<Packet> {
    const delay = this.#options.delayMs * 1000
    const interval = this.#options.snapshotIntervalMs * 1000
    while (this.#out.length < limit) {
      const arrival = this.#arrivals.peek()
      const copy = this.#copies.peek()?.at ?? Number.POSITIVE_INFINITY
      const held = this.#held.peek()?.at ?? Number.POSITIVE_INFINITY
      const delayed = this.#delayed.peek()?.at ?? Number.POSITIVE_INFINITY
      const at = Math.min(arrival, copy, held, this.#nextSnapshot, delayed)
      if (at > until) {
        this.time = Math.max(this.time, until)
        break
      }
      this.time = at
      if (at === arrival) {
        this.#arrivals.take()
        this.#play(this.#mean(this.#arrivals.index, at, begunAt), this.#arrivals.index, at)
      } else if (at === copy) {
        this.#sendCopy(this.#copies.shift()!.packet)
      } else if (at === held) {
        this.#letGo(this.#held.shift()!)
      } else if (at === this.#nextSnapshot) {
        this.#takeSnapshots(at + delay)
        this.#nextSnapshot += interval
      } else {
        this.#sendSnapshot(this.#delayed.shift()!.packet)
      }
    }
    return this.#takeOut()
  }

  /**
   * Ends the run: whatever is held or delayed goes out, then each instrument's closing tick, which no feed loses, so
   * that every loss lies between two numbers that were seen.
   */
  close(begunAt: number): ReadonlyArray<Packet> {
    for (let copy = this.#copies.shift(); copy !== undefined; copy = this.#copies.shift()) this.#sendCopy(copy.packet)
    for (let held = this.#held.shift(); held !== undefined; held = this.#held.shift()) this.#letGo(held)
    for (let late = this.#delayed.shift(); late !== undefined; late = this.#delayed.shift()) {
      this.#sendSnapshot(late.packet)
    }
    for (let i = 0; i < this.#sequence.length; i++) {
      if (this.#sequence[i] === 0) continue
      this.#send({ feed: "dma", tick: this.#mean(i, this.time, begunAt), reset: false }, i)
    }
    for (const i of this.#freshIndexes) this.#sendSnapshot(this.#pickSnapshot(i))
    this.#freshIndexes = []
    return this.#takeOut()
  }

  /** Says that packets have arrived: their publish was acknowledged. */
  acknowledge(packets: ReadonlyArray<Packet>): void {
    for (const { feed, tick } of packets) {
      if (feed === "dma") tick.dma = true
      else tick.snapshot = true
      this.#release(tick)
    }
  }

  /** The ticks whose fate was settled since last asked; only where a ledger is kept. */
  takeSettled(): ReadonlyArray<MeantTick> {
    const settled = this.#settled
    this.#settled = []
    return settled
  }

  #takeOut(): ReadonlyArray<Packet> {
    const out = this.#out
    this.#out = []
    return out
  }

  #release(tick: MeantTick): void {
    tick.open -= 1
    if (tick.open === 0 && this.#isLedgerKept) this.#settled.push(tick)
  }

  /** The next tick of an instrument, which the snapshot feed may pick until another comes. */
  #mean(i: number, at: number, begunAt: number): MeantTick {
    const volume = Math.max(1, Math.min(1_000_000, Math.round(Math.exp(this.#meanVolume[i]! + this.#volumeGaussian()))))
    const stamp = Math.max(this.#lastStamp[i]! + 1, Math.floor(begunAt + at))
    this.#lastStamp[i] = stamp
    this.#sequence[i]! += 1
    this.#dayVolume[i]! += volume
    this.counts.ticks += 1
    const tick: MeantTick = {
      instrument_token: this.#tokens[i]!,
      exchange_ts: stamp,
      price: this.#prices.next(i, at),
      volume,
      day_volume: this.#dayVolume[i]!,
      sequence_id: this.#sequence[i]!,
      open: 1,
      dma: false,
      snapshot: false
    }
    const superseded = this.#fresh[i]
    if (superseded === undefined) this.#freshIndexes.push(i)
    else this.#release(superseded)
    this.#fresh[i] = tick
    return tick
  }

  /** Decides what becomes of a tick on the DMA feed. One draw a tick, so one option's share does not shift another's. */
  #play(tick: MeantTick, i: number, at: number): void {
    const { duplicate, loss, reorder } = this.#options
    const draw = this.#fate()
    const packet: Packet = { feed: "dma", tick, reset: tick.sequence_id === 1 }
    if (packet.reset || draw >= loss + duplicate + reorder) {
      this.#send(packet, i)
    } else if (draw < loss) {
      this.counts.dmaLost += 1
    } else if (draw < loss + duplicate) {
      this.#send(packet, i)
      tick.open += 1
      this.#copies.push({ at: at + DUPLICATE_LAG_MICROS, packet })
    } else {
      tick.open += 1
      const held: Held = {
        at: at + REORDER_HOLD_MICROS,
        packet,
        overtakesLeft: 1 + (Math.floor((draw / reorder) * 997) % MAX_OVERTAKES),
        overtaken: false,
        gone: false
      }
      this.#held.push(held)
      const others = this.#heldOf[i]
      if (others === undefined) this.#heldOf[i] = [held]
      else others.push(held)
    }
  }

  #send(packet: Packet, i: number): void {
    packet.tick.open += 1
    this.counts.dmaSent += 1
    this.#out.push(packet)
    const waiting = this.#heldOf[i]
    if (waiting === undefined) return
    for (const held of waiting) {
      held.overtakesLeft -= 1
      if (!held.overtaken) {
        held.overtaken = true
        this.counts.dmaReordered += 1
      }
      if (held.overtakesLeft === 0) this.#emitHeld(held)
    }
    const left = waiting.filter((held) => !held.gone)
    this.#heldOf[i] = left.length === 0 ? undefined : left
  }

  #emitHeld(held: Held): void {
    held.gone = true
    this.counts.dmaSent += 1
    this.#out.push(held.packet)
  }

  /** A held packet whose time is up. */
  #letGo(held: Held): void {
    if (held.gone) return
    this.#emitHeld(held)
    const i = held.packet.tick.instrument_token - this.#tokens[0]!
    const left = this.#heldOf[i]?.filter((other) => !other.gone)
    this.#heldOf[i] = left === undefined || left.length === 0 ? undefined : left
  }

  #sendCopy(packet: Packet): void {
    this.counts.dmaSent += 1
    this.counts.dmaDuplicated += 1
    this.#out.push(packet)
  }

  #sendSnapshot(packet: Packet): void {
    this.counts.snapshotSent += 1
    this.#out.push(packet)
  }

  #pickSnapshot(i: number): Packet {
    const tick = this.#fresh[i]!
    this.#fresh[i] = undefined
    const reset = this.#snapshotBegun[i] === 0
    this.#snapshotBegun[i] = 1
    return { feed: "snapshot", tick, reset }
  }

  #takeSnapshots(sendAt: number): void {
    for (const i of this.#freshIndexes) {
      const packet = this.#pickSnapshot(i)
      const isLost = this.#snapshotFate() < this.#options.loss
      if (isLost && !packet.reset) {
        this.counts.snapshotLost += 1
        this.#release(packet.tick)
      } else {
        this.#delayed.push({ at: sendAt, packet })
      }
    }
    this.#freshIndexes = []
  }
}

/** A packet as JSON text, as its feed sends it. */
export const encodePacket = (packet: Packet, options: Simulation, runId: string): string => {
  const { feed, reset, tick } = packet
  const content =
    feed === "snapshot" && options.snapshotSequence === "none"
      ? `"day_volume":${tick.day_volume}`
      : `"volume":${tick.volume},"sequence_id":${tick.sequence_id}`
  return (
    `{"feed":"${feed}","instrument_token":${tick.instrument_token},"exchange_ts":${tick.exchange_ts},` +
    `"price":${tick.price},${content},"connection":"sim-${runId}-${feed}"${reset ? `,"reset":true` : ""}}`
  )
}

/** A ledger's line: one meant tick, and the feeds that delivered it at least once. */
export const encodeLedgerLine = (tick: MeantTick): string => {
  const reached = tick.dma ? (tick.snapshot ? `"dma","snapshot"` : `"dma"`) : tick.snapshot ? `"snapshot"` : ""
  return (
    `{"instrument_token":${tick.instrument_token},"exchange_ts":${tick.exchange_ts},"price":${tick.price},` +
    `"volume":${tick.volume},"sequence_id":${tick.sequence_id},"reached":[${reached}]}\n`
  )
}
