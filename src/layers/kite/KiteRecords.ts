/**
 * Decides what a packet of Kite's ticker becomes: a tick where it says of a trade that was not said before, stamped with
 * the time of that trade, and a quote with the packet's own time. The same trade makes the same tick whichever packet
 * and whichever process brings it, so that feeds side by side publish it once.
 */
import { isIndexToken, type KiteMode, type KitePacket } from "../../schema/kite/packets.ts"
import { type Level, type QuoteState, sameQuote, unknownQuote } from "../../schema/Quote.ts"
import { encodeRawRecord, type RawRecord, type RawTick } from "../../schema/RawTick.ts"
import { phaseAt, segmentOfToken } from "../../schema/Sessions.ts"
import { tradingDay } from "../../schema/Tick.ts"
import { isTime } from "../../schema/Time.ts"
import type { RawSinkTick } from "../../streams/ports/RawSink.ts"

/** The feed that its records are of: a conflated one, without numbers. */
const FEED = "snapshot"
const MICROS_PER_SECOND = 1_000_000
/** Cash segments have no open interest; their packets say 0. */
const HAS_NO_OI: ReadonlySet<number> = new Set([1, 4, 9])

/** What became of packets. `received` is `recorded` and all others together. */
export interface PacketCounts {
  received: number
  /** Packets of which at least one record was made. */
  recorded: number
  /** Records with a tick, and records with a quote: one record may have both. */
  ticks: number
  quotes: number
  records: number
  /** Said nothing new: the server's last packet again after a connection, or one that another field changed. */
  unchanged: number
  /** Older than what was known. */
  outdated: number
  /** Of an instrument that was not asked for. */
  unasked: number
  /** In another mode than was asked for: a server may send one before it has read which. */
  otherMode: number
  /** Without a time of its own, while its segment does not trade, or the first one: it may be of any age. */
  undated: number
  /** Stamped further ahead of the clock than a stamp may be: whatever came after one that was known would be older. */
  ahead: number
}

export const noPackets = (): PacketCounts => ({
  received: 0,
  recorded: 0,
  ticks: 0,
  quotes: 0,
  records: 0,
  unchanged: 0,
  outdated: 0,
  unasked: 0,
  otherMode: 0,
  undated: 0,
  ahead: 0
})

/** The connection that a packet came on. */
export interface Origin {
  /** The one whose word is to count has the highest. */
  number: number
  /** It was begun while the one before it stood, and both bring the same for a while. */
  readonly isBeside: boolean
}

const ONLY: Origin = { number: 0, isBeside: false }

/** What was last said of an instrument. */
interface Known {
  /** Of an instrument without volume: the connection whose word counts. */
  origin: number
  /** Of the last tick. */
  tickTs: number
  price: number
  volume: number
  /** Of an index: prices of the second that it is in, with how often each came back after another. */
  seen: Map<number, number> | undefined
  /** Of the last quote. */
  quoteTs: number
  quoteVolume: number
  state: QuoteState
}

const microsOf = (seconds: number): number => {
  const micros = seconds * MICROS_PER_SECOND
  return isTime(micros) ? micros : 0
}

/** Prices that an index had in one second: more are not told apart. */
const MAX_SEEN = 64

const orUnknown = (value: number): number | undefined => (value === 0 ? undefined : value)

/** A side of the book without what only fills its five places. */
const levelsOf = (levels: ReadonlyArray<Level>): ReadonlyArray<Level> => levels.filter(([, quantity]) => quantity > 0)

const stateOf = (packet: KitePacket): QuoteState => {
  const state = unknownQuote()
  if (packet.mode === "ltp") return state
  state.open = orUnknown(packet.open)
  state.high = orUnknown(packet.high)
  state.low = orUnknown(packet.low)
  state.previous_close = orUnknown(packet.close)
  if (packet.isIndex) return state
  state.total_buy_quantity = packet.buyQuantity
  state.total_sell_quantity = packet.sellQuantity
  state.average_price = orUnknown(packet.averagePrice)
  state.last_quantity = orUnknown(packet.lastQuantity)
  state.day_volume = packet.volume
  if (packet.mode === "quote") return state
  state.bid = levelsOf(packet.bid)
  state.ask = levelsOf(packet.ask)
  state.last_trade_ts = orUnknown(microsOf(packet.lastTradeSeconds))
  if (!HAS_NO_OI.has(packet.token & 0xff)) {
    state.oi = packet.oi
    state.oi_day_high = packet.oiDayHigh
    state.oi_day_low = packet.oiDayLow
  }
  return state
}

/**
 * Whether one of two connections side by side says what the other has said already. A volume would tell; without it the
 * later connection counts from where it says what is known, or what nobody has said yet.
 */
const isBehind = (known: Known, { lastPrice }: KitePacket, ts: number, { isBeside, number }: Origin): boolean => {
  if (number <= known.origin) return number < known.origin
  return isBeside && lastPrice !== known.price && ts === known.tickTs && known.seen?.has(lastPrice) === true
}

const encoder = new TextEncoder()

/** Packets of the instruments that a feed asked for, whatever connection they come on. */
export class KiteRecords {
  readonly counts: PacketCounts = noPackets()
  readonly #mode: KiteMode
  readonly #maxAhead: number
  readonly #known = new Map<number, Known | undefined>()

  /** `maxAheadMs` is how far ahead of the time at which its packet came a stamp may be. */
  constructor(tokens: Iterable<number>, mode: KiteMode, maxAheadMs: number) {
    this.#mode = mode
    this.#maxAhead = maxAheadMs * 1000
    for (const token of tokens) this.#known.set(token, undefined)
  }

  /** Puts the records of a packet at the end of `into`; `receivedTs` is when it came, µs. False: it said nothing new. */
  take(packet: KitePacket, receivedTs: number, into: Array<RawSinkTick>, origin = ONLY): boolean {
    const { counts } = this
    counts.received += 1
    const { token } = packet
    let known = this.#known.get(token)
    if (known === undefined && !this.#known.has(token)) {
      counts.unasked += 1
      return false
    }
    if (packet.mode !== this.#mode) {
      counts.otherMode += 1
      return false
    }
    // As sent: one past the last time there is would read as none.
    const latest = Math.max(packet.lastTradeSeconds, packet.exchangeSeconds) * MICROS_PER_SECOND
    if (latest > receivedTs + this.#maxAhead) {
      counts.ahead += 1
      return false
    }
    const isFirst = known === undefined
    known ??= {
      origin: 0,
      tickTs: 0,
      price: 0,
      volume: -1,
      seen: undefined,
      quoteTs: 0,
      quoteVolume: 0,
      state: unknownQuote()
    }
    const traded = microsOf(packet.lastTradeSeconds)
    const stamped = microsOf(packet.exchangeSeconds)
    let quoteTs = stamped || traded
    let isUndated = false
    if (quoteTs === 0) {
      // A whole second, as those of the packets that have one: the least that two processes differ in.
      quoteTs = Math.floor(receivedTs / MICROS_PER_SECOND) * MICROS_PER_SECOND
      isUndated = isFirst || phaseAt(segmentOfToken(token), quoteTs) === "CLOSED"
    }
    if (isUndated) {
      // What it says is known from now on: only what differs from it is new.
      counts.undated += 1
      this.#known.set(token, known)
      known.price = packet.lastPrice
      known.volume = packet.volume
      known.state = stateOf(packet)
      return false
    }
    if (
      quoteTs < known.quoteTs ||
      (quoteTs === known.quoteTs && !packet.isIndex && packet.volume < known.quoteVolume)
    ) {
      counts.outdated += 1
      return false
    }
    if (this.#hasNoVolume(packet)) {
      if (isBehind(known, packet, quoteTs, origin)) {
        counts.unchanged += 1
        return false
      }
      known.origin = origin.number
    }
    this.#known.set(token, known)
    known.quoteTs = quoteTs
    known.quoteVolume = packet.volume

    const tick = this.#tickOf(packet, known, traded, quoteTs, receivedTs)
    const state = stateOf(packet)
    const isNews = !sameQuote(state, known.state)
    if (tick === undefined && !isNews) {
      counts.unchanged += 1
      return false
    }
    known.state = state
    counts.recorded += 1
    // Packets of `ltp` say nothing besides; else what is said of the book goes along with a tick of the same stamp.
    const isBeside = tick?.exchange_ts === quoteTs
    const quote =
      packet.mode !== "ltp" && (isNews || isBeside)
        ? { instrument_token: token, exchange_ts: quoteTs, feed: FEED, received_ts: receivedTs, state }
        : undefined
    if (tick !== undefined) this.#put(into, token, { tick, quote: isBeside ? quote : undefined })
    if (quote !== undefined && !isBeside) this.#put(into, token, { tick: undefined, quote })
    return true
  }

  #hasNoVolume({ isIndex, mode, token }: KitePacket): boolean {
    return isIndex || isIndexToken(token) || mode === "ltp"
  }

  #put(into: Array<RawSinkTick>, token: number, record: RawRecord): void {
    const { counts } = this
    counts.records += 1
    if (record.tick !== undefined) counts.ticks += 1
    if (record.quote !== undefined) counts.quotes += 1
    into.push({ token, value: encoder.encode(encodeRawRecord(record)) })
  }

  /** The tick that a packet says, where it is one that was not said before; `traded` is 0 where it says no such time. */
  #tickOf(packet: KitePacket, known: Known, traded: number, quoteTs: number, receivedTs: number): RawTick | undefined {
    const { lastPrice: price, volume } = packet
    const ts = traded || quoteTs
    // Before the first trade of a day the price is the close of the one before.
    if (price === 0) return undefined
    const hasVolume = !this.#hasNoVolume(packet)
    if (hasVolume && volume === 0 && traded === 0) return undefined
    const isSame = price === known.price && volume === known.volume
    // Without the trade's own time the packet's says when the same was said again; the volume tells another trade.
    const isSaidAgain = traded === 0 && (hasVolume || packet.exchangeSeconds === 0)
    if (isSame && (ts === known.tickTs || isSaidAgain)) return undefined
    // A trade of a later second with less volume follows one that was corrected, or came damaged.
    const isLess = hasVolume && volume < known.volume && tradingDay(ts) === tradingDay(known.tickTs)
    const isLate = ts < known.tickTs || (isLess && (traded === 0 || ts === known.tickTs))
    if (isLate) return undefined
    // An index has no volume that would tell a price that came back from one that was said twice.
    let occurrence = 0
    if (!hasVolume) {
      if (known.seen === undefined || ts !== known.tickTs) known.seen = new Map()
      const before = known.seen.get(price)
      occurrence = before === undefined ? 0 : before + 1
      if (known.seen.size < MAX_SEEN || before !== undefined) known.seen.set(price, occurrence)
    }
    known.tickTs = ts
    known.price = price
    known.volume = volume
    return {
      instrument_token: packet.token,
      exchange_ts: ts,
      price,
      feed: FEED,
      volume: 0,
      day_volume: hasVolume ? volume : -1,
      sequence_id: undefined,
      sequencing: "none",
      reset: false,
      connection: FEED,
      occurrence,
      received_ts: receivedTs,
      session: -1
    }
  }
}
