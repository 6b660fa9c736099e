/**
 * Decides how Kite's ticker frames are read and written: big-endian, a count, then packets behind their lengths, each
 * told apart by its length alone. Pure, and within bounds whatever the bytes say.
 */
import type { Level } from "../Quote.ts"

export const KITE_MODES = ["ltp", "quote", "full"] as const
export type KiteMode = (typeof KITE_MODES)[number]

/** What one packet says, in rupees and seconds since 1970; 0 where it says nothing of a number. */
export interface KitePacket {
  token: number
  mode: KiteMode
  /** Whether the packet is one of an index, which has no trades, book or open interest. */
  isIndex: boolean
  lastPrice: number
  lastQuantity: number
  /** The day's average by volume. */
  averagePrice: number
  /** The day's total so far. */
  volume: number
  /** Of all bids and of all offers. */
  buyQuantity: number
  sellQuantity: number
  open: number
  high: number
  low: number
  /** Of the trading day before. */
  close: number
  /** Of an index since that close; tradable packets have none. */
  change: number
  lastTradeSeconds: number
  oi: number
  oiDayHigh: number
  oiDayLow: number
  exchangeSeconds: number
  /** Best first: all five in `full`, where an empty one is [0, 0, 0]; none in the other modes. */
  bid: ReadonlyArray<Level>
  ask: ReadonlyArray<Level>
}

/** Bytes of a packet that were not taken, and why. */
export interface SkippedBytes {
  /** Where in the frame. */
  readonly offset: number
  readonly bytes: number
  /** `unknown length`: a packet of a kind that is not known here, the others stand; `broken`: the whole frame. */
  readonly reason: "unknown length" | "broken"
  /** For people. */
  readonly message: string
}

export interface KiteFrame {
  readonly packets: ReadonlyArray<KitePacket>
  readonly skipped: ReadonlyArray<SkippedBytes>
}

/** A value that its field has no room for, and what was sent instead. */
export interface ClampedField {
  readonly token: number
  readonly field: string
  readonly value: number
  readonly sent: number
}

/** A frame shorter than its count is no frame: a server sends one byte to say that it is there. */
export const HEARTBEAT: Uint8Array = Uint8Array.of(0)
export const isHeartbeat = (bytes: Uint8Array): boolean => bytes.byteLength < COUNT_BYTES

const COUNT_BYTES = 2
const LENGTH_BYTES = 2
const TOKEN_BYTES = 4
/** A frame's count has no room for more. */
export const MAX_FRAME_PACKETS = 0xffff
const [LTP, INDEX_QUOTE, INDEX_FULL, QUOTE, FULL] = [8, 28, 32, 44, 184] as const
/** The largest packet with its length. */
export const MAX_PACKET_BYTES: number = LENGTH_BYTES + FULL
const LEVELS = 5
const LEVEL_BYTES = 12
const [BIDS_AT, ASKS_AT] = [64, 64 + LEVELS * LEVEL_BYTES] as const

const INDEX_SEGMENT = 9
/** Of segments whose prices are not in paise, by the low byte of the token: currencies of NSE and BSE, NSE's commodities. */
const DIVISORS: Readonly<Record<number, number>> = { 3: 10_000_000, 6: 10_000, 12: 10_000 }

/** How many parts of a price a rupee has in the packets of a token. */
export const divisorOf = (token: number): number => DIVISORS[token & 0xff] ?? 100
/** Whether a token is an index's, of whatever exchange. */
export const isIndexToken = (token: number): boolean => (token & 0xff) === INDEX_SEGMENT

const MAX_U16 = 0xffff
const MAX_U32 = 0xffff_ffff
const MAX_I32 = 0x7fff_ffff
const MIN_I32 = -0x8000_0000

const NO_LEVELS: ReadonlyArray<Level> = []

const blank = (token: number, mode: KiteMode, isIndex: boolean, lastPrice: number): KitePacket => ({
  token,
  mode,
  isIndex,
  lastPrice,
  lastQuantity: 0,
  averagePrice: 0,
  volume: 0,
  buyQuantity: 0,
  sellQuantity: 0,
  open: 0,
  high: 0,
  low: 0,
  close: 0,
  change: 0,
  lastTradeSeconds: 0,
  oi: 0,
  oiDayHigh: 0,
  oiDayLow: 0,
  exchangeSeconds: 0,
  bid: NO_LEVELS,
  ask: NO_LEVELS
})

const readLevels = (view: DataView, from: number, divisor: number): ReadonlyArray<Level> => {
  const levels: Array<Level> = []
  for (let i = 0, at = from; i < LEVELS; i++, at += LEVEL_BYTES) {
    // The number of orders has two bytes, and two of padding after it.
    levels.push([view.getInt32(at + 4) / divisor, view.getUint32(at), view.getUint16(at + 8)])
  }
  return levels
}

/**
 * The packet of so many bytes at an offset, all of them there; undefined where no kind has that length. Prices are
 * signed, since spreads and now and then a commodity trade below 0; quantities and times are not.
 */
const readPacket = (view: DataView, at: number, bytes: number): KitePacket | undefined => {
  switch (bytes) {
    case LTP: {
      const token = view.getUint32(at)
      return blank(token, "ltp", isIndexToken(token), view.getInt32(at + 4) / divisorOf(token))
    }
    case INDEX_QUOTE:
    case INDEX_FULL: {
      const token = view.getUint32(at)
      const divisor = divisorOf(token)
      const isFull = bytes === INDEX_FULL
      const packet = blank(token, isFull ? "full" : "quote", true, view.getInt32(at + 4) / divisor)
      packet.high = view.getInt32(at + 8) / divisor
      packet.low = view.getInt32(at + 12) / divisor
      packet.open = view.getInt32(at + 16) / divisor
      packet.close = view.getInt32(at + 20) / divisor
      packet.change = view.getInt32(at + 24) / divisor
      if (isFull) packet.exchangeSeconds = view.getUint32(at + 28)
      return packet
    }
    case QUOTE:
    case FULL: {
      const token = view.getUint32(at)
      const divisor = divisorOf(token)
      const isFull = bytes === FULL
      const packet = blank(token, isFull ? "full" : "quote", false, view.getInt32(at + 4) / divisor)
      packet.lastQuantity = view.getUint32(at + 8)
      packet.averagePrice = view.getInt32(at + 12) / divisor
      packet.volume = view.getUint32(at + 16)
      packet.buyQuantity = view.getUint32(at + 20)
      packet.sellQuantity = view.getUint32(at + 24)
      packet.open = view.getInt32(at + 28) / divisor
      packet.high = view.getInt32(at + 32) / divisor
      packet.low = view.getInt32(at + 36) / divisor
      packet.close = view.getInt32(at + 40) / divisor
      if (isFull) {
        packet.lastTradeSeconds = view.getUint32(at + 44)
        packet.oi = view.getUint32(at + 48)
        packet.oiDayHigh = view.getUint32(at + 52)
        packet.oiDayLow = view.getUint32(at + 56)
        packet.exchangeSeconds = view.getUint32(at + 60)
        packet.bid = readLevels(view, at + BIDS_AT, divisor)
        packet.ask = readLevels(view, at + ASKS_AT, divisor)
      }
      return packet
    }
    default:
      return undefined
  }
}

/** What is wrong with how a frame adds up: its packets must fill it exactly, and each has room for its token. */
const shapeProblem = (view: DataView): string | undefined => {
  const size = view.byteLength
  const count = view.getUint16(0)
  let at = COUNT_BYTES
  for (let i = 0; i < count; i++) {
    const length = at + LENGTH_BYTES > size ? size : view.getUint16(at)
    if (length < TOKEN_BYTES) return `packet ${i + 1} of ${count} has ${length} bytes, too few for its token`
    at += LENGTH_BYTES + length
    if (at > size) return `it says ${count} packets, and ends after ${size} bytes within packet ${i + 1}`
  }
  return at === size ? undefined : `it says ${count} packets, which take ${at} of its ${size} bytes`
}

/**
 * Reads a frame; undefined where it is none (a heartbeat). A frame that does not add up is refused whole: its packets may
 * stand elsewhere than they seem to, and a wrong price is worse than one that comes a second later.
 */
export const decodeFrame = (bytes: Uint8Array): KiteFrame | undefined => {
  if (isHeartbeat(bytes)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const problem = shapeProblem(view)
  if (problem !== undefined) {
    return { packets: [], skipped: [{ offset: 0, bytes: bytes.byteLength, reason: "broken", message: problem }] }
  }
  const packets: Array<KitePacket> = []
  const skipped: Array<SkippedBytes> = []
  for (let at = COUNT_BYTES; at < bytes.byteLength; ) {
    const length = view.getUint16(at)
    const packet = readPacket(view, at + LENGTH_BYTES, length)
    if (packet === undefined) {
      const message = `no packet has ${length} bytes`
      skipped.push({ offset: at + LENGTH_BYTES, bytes: length, reason: "unknown length", message })
    } else packets.push(packet)
    at += LENGTH_BYTES + length
  }
  return { packets, skipped }
}

/** The bytes of a packet, without its length. */
const lengthOf = ({ isIndex, mode }: KitePacket): number => {
  if (mode === "ltp") return LTP
  if (isIndex) return mode === "full" ? INDEX_FULL : INDEX_QUOTE
  return mode === "full" ? FULL : QUOTE
}

/**
 * Writes one packet with its length before it, for `joinPackets`: the same bytes serve every client that wants it. Prices
 * are rounded to the segment's parts of a rupee. What its field has no room for is sent as the nearest that it has, and
 * told to `onClamp`.
 */
export const encodePacket = (packet: KitePacket, onClamp?: (clamped: ClampedField) => void): Uint8Array => {
  const { token } = packet
  const length = lengthOf(packet)
  const divisor = divisorOf(token)
  const bytes = new Uint8Array(LENGTH_BYTES + length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, length)
  const at = LENGTH_BYTES

  const within = (field: string, value: number, scaled: number, min: number, max: number, unit: number): number => {
    if (scaled >= min && scaled <= max) return scaled
    const sent = scaled > max ? max : scaled < min ? min : 0
    onClamp?.({ token, field, value, sent: sent / unit })
    return sent
  }
  const price = (offset: number, field: string, value: number) => {
    view.setInt32(at + offset, within(field, value, Math.round(value * divisor), MIN_I32, MAX_I32, divisor))
  }
  const number = (offset: number, field: string, value: number) => {
    view.setUint32(at + offset, within(field, value, Math.round(value), 0, MAX_U32, 1))
  }
  const levels = (offset: number, side: "bid" | "ask", all: ReadonlyArray<Level>) => {
    for (let i = 0; i < Math.min(LEVELS, all.length); i++) {
      const [levelPrice, quantity, orders] = all[i]!
      const from = offset + i * LEVEL_BYTES
      number(from, `${side}[${i}].quantity`, quantity)
      price(from + 4, `${side}[${i}].price`, levelPrice)
      view.setUint16(at + from + 8, within(`${side}[${i}].orders`, orders, Math.round(orders), 0, MAX_U16, 1))
    }
  }

  number(0, "token", token)
  price(4, "lastPrice", packet.lastPrice)
  if (length === INDEX_QUOTE || length === INDEX_FULL) {
    price(8, "high", packet.high)
    price(12, "low", packet.low)
    price(16, "open", packet.open)
    price(20, "close", packet.close)
    price(24, "change", packet.change)
    if (length === INDEX_FULL) number(28, "exchangeSeconds", packet.exchangeSeconds)
  } else if (length !== LTP) {
    number(8, "lastQuantity", packet.lastQuantity)
    price(12, "averagePrice", packet.averagePrice)
    number(16, "volume", packet.volume)
    number(20, "buyQuantity", packet.buyQuantity)
    number(24, "sellQuantity", packet.sellQuantity)
    price(28, "open", packet.open)
    price(32, "high", packet.high)
    price(36, "low", packet.low)
    price(40, "close", packet.close)
    if (length === FULL) {
      number(44, "lastTradeSeconds", packet.lastTradeSeconds)
      number(48, "oi", packet.oi)
      number(52, "oiDayHigh", packet.oiDayHigh)
      number(56, "oiDayLow", packet.oiDayLow)
      number(60, "exchangeSeconds", packet.exchangeSeconds)
      levels(BIDS_AT, "bid", packet.bid)
      levels(ASKS_AT, "ask", packet.ask)
    }
  }
  return bytes
}

/** One frame of packets as `encodePacket` writes them, at most `MAX_FRAME_PACKETS`. */
export const joinPackets = (packets: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (packets.length > MAX_FRAME_PACKETS) {
    throw new RangeError(`a frame has at most ${MAX_FRAME_PACKETS} packets, got ${packets.length}`)
  }
  let size = COUNT_BYTES
  for (const packet of packets) size += packet.byteLength
  const frame = new Uint8Array(size)
  new DataView(frame.buffer).setUint16(0, packets.length)
  let at = COUNT_BYTES
  for (const packet of packets) {
    frame.set(packet, at)
    at += packet.byteLength
  }
  return frame
}

/** One frame of at most `MAX_FRAME_PACKETS`, and what its fields had no room for. */
export const encodeFrame = (
  packets: ReadonlyArray<KitePacket>
): { readonly bytes: Uint8Array; readonly clamped: ReadonlyArray<ClampedField> } => {
  const clamped: Array<ClampedField> = []
  const bytes = joinPackets(packets.map((packet) => encodePacket(packet, (field) => clamped.push(field))))
  return { bytes, clamped }
}
