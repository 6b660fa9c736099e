/**
 * Decides how all levels of a book are one binary value: numbers of a fixed width that keep what a quote may hold exactly,
 * so that any other program finds level n by its place.
 *
 * Two bytes say how many bids and how many asks there are, 255 where a side is not known. Then the bids, then the asks,
 * best first, 24 bytes each: price in units of 0.0000001 rupee, quantity, orders, as signed 64-bit big-endian integers.
 * In SQL the best bid's price is `('x' || encode(substr(depth, 3, 8), 'hex'))::bit(64)::bigint / 10000000.0`.
 */
import { type Level, MAX_LEVELS } from "../../schema/Quote.ts"

const UNKNOWN = 255
const HEAD_BYTES = 2
const LEVEL_BYTES = 24
/** Seven decimals. */
const PRICE_SCALE = 10_000_000
const TWO_POW_32 = 4_294_967_296

/** The sides of a book; undefined is not known. */
export interface Book {
  readonly bid: ReadonlyArray<Level> | undefined
  readonly ask: ReadonlyArray<Level> | undefined
}

const put = (bytes: Buffer, at: number, value: number): void => {
  bytes.writeInt32BE(Math.floor(value / TWO_POW_32), at)
  bytes.writeInt32BE(value | 0, at + 4)
}

const get = (bytes: Buffer, at: number): number => bytes.readInt32BE(at) * TWO_POW_32 + bytes.readUInt32BE(at + 4)

/** Null where neither side is known. */
export const encodeDepth = ({ bid, ask }: Book): Buffer | null => {
  if (bid === undefined && ask === undefined) return null
  const levels = [...(bid ?? []), ...(ask ?? [])]
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + levels.length * LEVEL_BYTES)
  bytes[0] = bid?.length ?? UNKNOWN
  bytes[1] = ask?.length ?? UNKNOWN
  for (const [i, [price, quantity, orders]] of levels.entries()) {
    const at = HEAD_BYTES + i * LEVEL_BYTES
    put(bytes, at, Math.round(price * PRICE_SCALE))
    put(bytes, at + 8, quantity)
    put(bytes, at + 16, orders)
  }
  return bytes
}

/** Undefined where the bytes are none of these, as another hand may have stored them. */
export const decodeDepth = (bytes: Buffer): Book | undefined => {
  const [bids, asks] = [bytes[0], bytes[1]]
  if (bids === undefined || asks === undefined) return undefined
  let at = HEAD_BYTES
  const side = (count: number): ReadonlyArray<Level> | undefined => {
    if (count === UNKNOWN) return undefined
    return Array.from({ length: count }, (): Level => {
      const level = [get(bytes, at) / PRICE_SCALE, get(bytes, at + 8), get(bytes, at + 16)] as const
      at += LEVEL_BYTES
      return level
    })
  }
  const levelsOf = (count: number): number => (count === UNKNOWN ? 0 : count)
  if ([bids, asks].some((count) => levelsOf(count) > MAX_LEVELS)) return undefined
  if (bytes.length !== HEAD_BYTES + (levelsOf(bids) + levelsOf(asks)) * LEVEL_BYTES) return undefined
  return { bid: side(bids), ask: side(asks) }
}
