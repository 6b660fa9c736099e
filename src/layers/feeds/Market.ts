/**
 * Decides what the simulated market does: which tick is meant when, at what price and volume, and what becomes of its
 * packets on the two feeds, of which the snapshot feed's have a quote besides. Everything but the time stamps follows from
 * the seed.
 */
import { encodePacket as encodeQuote, type QuoteState, quoteMembers } from "../../schema/Quote.ts"
import type { Simulation } from "../../schema/Simulation.ts"
import { simulatedBasePrice, simulatedInstruments } from "../../schema/Simulation.ts"
import { MarketArrivals } from "./MarketArrivals.ts"
import { MarketPrices } from "./MarketPrices.ts"
import { MarketQuotes } from "./MarketQuotes.ts"
import { gaussianOf, randomOf } from "./marketRandom.ts"

/** A held packet goes out at the latest after this long, whether another has overtaken it or not. */
export const REORDER_HOLD_MICROS = 40_000
/** A held packet is overtaken by at most this many of its instrument's later ones. */
const MAX_OVERTAKES = 3
/** The second copy of a duplicated packet comes this much later. */
const DUPLICATE_LAG_MICROS = 5_000

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
  /** What the snapshot feed is to say beside it; undefined where it has not picked this one. */
  quote: QuoteState | undefined
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
  readonly #arrivals: MarketArrivals
  readonly #prices: MarketPrices
  readonly #quotes: MarketQuotes
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
    const instruments = simulatedInstruments(symbols)
    this.#tokens = Int32Array.from(instruments, (i) => i.instrument_token)
    this.#arrivals = new MarketArrivals(symbols, options.rate, seed)
    this.#prices = new MarketPrices(symbols, seed)
    this.#volumeGaussian = gaussianOf(randomOf(seed, "volumes"))
    this.#fate = randomOf(seed, "dma")
    this.#snapshotFate = randomOf(seed, "snapshot")
    // Cheaper shares trade in larger lots.
    this.#meanVolume = Float64Array.from({ length: symbols }, (_, i) => Math.log(40_000 / simulatedBasePrice(i) + 1))
    this.#quotes = new MarketQuotes(seed, instruments, this.#meanVolume, options.snapshotSequence === "none")
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
      quote: undefined,
      open: 1,
      dma: false,
      snapshot: false
    }
    this.#quotes.see(i, tick)
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
    tick.quote = this.#quotes.say(i, tick)
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
  const text =
    `{"feed":"${feed}","instrument_token":${tick.instrument_token},"exchange_ts":${tick.exchange_ts},` +
    `"price":${tick.price},${content},"connection":"sim-${runId}-${feed}"${reset ? `,"reset":true` : ""}`
  return feed === "snapshot" ? `${text},"quote":${encodeQuote(tick.quote!)}}` : `${text}}`
}

/**
 * A ledger's line: one meant tick, the feeds that delivered it at least once, and the quote that the snapshot feed had
 * beside it, where it picked this tick: `day_volume` is among its members where the feed says that.
 */
export const encodeLedgerLine = (tick: MeantTick): string => {
  const reached = tick.dma ? (tick.snapshot ? `"dma","snapshot"` : `"dma"`) : tick.snapshot ? `"snapshot"` : ""
  return (
    `{"instrument_token":${tick.instrument_token},"exchange_ts":${tick.exchange_ts},"price":${tick.price},` +
    `"volume":${tick.volume},"sequence_id":${tick.sequence_id},"reached":[${reached}]` +
    `${tick.quote === undefined ? "" : `,"quote":{${quoteMembers(tick.quote).slice(1)}}`}}\n`
  )
}
