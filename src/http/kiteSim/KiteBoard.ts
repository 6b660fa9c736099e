/**
 * Decides what the simulated Kite shows of each instrument: the newest packet, made of what the simulated market's
 * snapshot feed says. Tokens are the simulator's own, so that each has the segment that its low byte says.
 */
import { Market, type Packet } from "../../layers/feeds/Market.ts"
import type { Instrument } from "../../schema/Instrument.ts"
import { divisorOf, encodePacket, isIndexToken, type KiteMode, type KitePacket } from "../../schema/kite/packets.ts"
import {
  FIRST_SIMULATED_TOKEN,
  MAX_SIMULATED_INSTRUMENTS,
  type Simulation,
  simulatedInstruments
} from "../../schema/Simulation.ts"

const MICROS_PER_SECOND = 1_000_000
/** Prices of shares have no room in packets with so many parts of a rupee. */
const MOST_PARTS = 10_000

/** Whether the simulated Kite has the instrument of a token. */
const isShown = (token: number): boolean => divisorOf(token) <= MOST_PARTS

/** The first so many simulated instruments that a packet has room for; those that clients take for indices are some. */
export const kiteInstruments = (n: number): ReadonlyArray<Instrument> =>
  simulatedInstruments(symbolsFor(n))
    .filter(({ instrument_token }) => isShown(instrument_token))
    .map((one) => (isIndexToken(one.instrument_token) ? { ...one, asset_class: "INDEX" as const } : one))

/** Instruments of a market that has so many which are shown. */
const symbolsFor = (n: number): number => {
  let symbols = 0
  for (let shown = 0; shown < n && symbols < MAX_SIMULATED_INSTRUMENTS; symbols++) {
    if (isShown(FIRST_SIMULATED_TOKEN + symbols)) shown += 1
  }
  return symbols
}

/** The newest packet of an instrument, and its bytes in each mode that was asked for since. */
class Shown {
  packet: KitePacket
  #bytes: Partial<Record<KiteMode, Uint8Array>> = {}

  constructor(packet: KitePacket) {
    this.packet = packet
  }

  set(packet: KitePacket): void {
    this.packet = packet
    this.#bytes = {}
  }

  in(mode: KiteMode): Uint8Array {
    let bytes = this.#bytes[mode]
    if (bytes === undefined) {
      bytes = encodePacket({ ...this.packet, mode })
      this.#bytes[mode] = bytes
    }
    return bytes
  }
}

export class KiteBoard {
  readonly instruments: ReadonlyArray<Instrument>
  readonly #market: Market
  readonly #known: ReadonlySet<number>
  readonly #shown = new Map<number, Shown>()

  constructor(options: Simulation) {
    this.instruments = kiteInstruments(options.symbols)
    this.#known = new Set(this.instruments.map(({ instrument_token }) => instrument_token))
    // The broker's feed is the snapshot feed of that market, and what it loses nobody sees.
    this.#market = new Market({ ...options, symbols: symbolsFor(options.symbols), ledger: undefined })
  }

  /** How far the market has come, µs. */
  get time(): number {
    return this.#market.time
  }

  /** Goes on to `until` (µs since it began), and answers the tokens whose packets changed, in order. */
  advance(until: number, begunAt: number, limit: number): ReadonlyArray<number> {
    const packets = this.#market.advance(until, begunAt, limit)
    const changed = new Set<number>()
    for (const one of packets) {
      if (one.feed !== "snapshot" || !this.#known.has(one.tick.instrument_token)) continue
      this.#show(one, begunAt + this.#market.time)
      changed.add(one.tick.instrument_token)
    }
    this.#market.acknowledge(packets)
    return [...changed]
  }

  has(token: number): boolean {
    return this.#known.has(token)
  }

  /** The newest packet, in `full`; undefined before the first trade. */
  packet(token: number): KitePacket | undefined {
    return this.#shown.get(token)?.packet
  }

  bytes(token: number, mode: KiteMode): Uint8Array | undefined {
    return this.#shown.get(token)?.in(mode)
  }

  #show({ tick }: Packet, nowMicros: number): void {
    const quote = tick.quote
    const token = tick.instrument_token
    const isIndex = isIndexToken(token)
    const tradeSeconds = Math.floor(tick.exchange_ts / MICROS_PER_SECOND)
    const previousClose = quote?.previous_close ?? 0
    const packet: KitePacket = {
      token,
      mode: "full",
      isIndex,
      lastPrice: tick.price,
      lastQuantity: isIndex ? 0 : tick.volume,
      averagePrice: isIndex ? 0 : (quote?.average_price ?? 0),
      volume: isIndex ? 0 : tick.day_volume,
      buyQuantity: isIndex ? 0 : (quote?.total_buy_quantity ?? 0),
      sellQuantity: isIndex ? 0 : (quote?.total_sell_quantity ?? 0),
      open: quote?.open ?? 0,
      high: quote?.high ?? 0,
      low: quote?.low ?? 0,
      close: previousClose,
      change: isIndex ? Math.round((tick.price - previousClose) * 100) / 100 : 0,
      lastTradeSeconds: isIndex ? 0 : tradeSeconds,
      oi: isIndex ? 0 : (quote?.oi ?? 0),
      oiDayHigh: isIndex ? 0 : (quote?.oi_day_high ?? 0),
      oiDayLow: isIndex ? 0 : (quote?.oi_day_low ?? 0),
      exchangeSeconds: Math.max(tradeSeconds, Math.floor(nowMicros / MICROS_PER_SECOND)),
      bid: isIndex ? [] : (quote?.bid ?? []),
      ask: isIndex ? [] : (quote?.ask ?? [])
    }
    const shown = this.#shown.get(token)
    if (shown === undefined) this.#shown.set(token, new Shown(packet))
    else shown.set(packet)
  }
}
