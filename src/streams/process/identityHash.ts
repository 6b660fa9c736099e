/**
 * Decides the identity of a tick whose feed has no numbers, a 48-bit hash of its content; and by what the content of a
 * numbered tick is told from another under the same number.
 */
import type { RawTick } from "../../schema/RawTick.ts"

const HIGH = 4_294_967_296
/** Prices have at most 7 decimals: as a whole number they hash the same however they were written. */
const PRICE_SCALE = 10_000_000

const mix = (h: number, k: number): number => {
  let x = Math.imul(k, 0xcc9e2d51)
  x = (x << 15) | (x >>> 17)
  let y = h ^ Math.imul(x, 0x1b873593)
  y = (y << 13) | (y >>> 19)
  return (Math.imul(y, 5) + 0xe6546b64) | 0
}

const finish = (h: number): number => {
  let x = h ^ (h >>> 16)
  x = Math.imul(x, 0x85ebca6b)
  x ^= x >>> 13
  x = Math.imul(x, 0xc2b2ae35)
  return (x ^ (x >>> 16)) >>> 0
}

/**
 * 1 to 2^48 − 1, of (exchange_ts, price, volume or day_volume, occurrence): two lanes of murmur3's mixing over the
 * high and low halves of each number. The same input always gives the same hash; a change here changes identities.
 */
export const identityHash = (raw: RawTick): number => {
  let a = raw.day_volume >= 0 ? 0x9747b28c : 0x85ebca77
  let b = raw.day_volume >= 0 ? 0x27d4eb2f : 0x165667b1
  const price = Math.round(raw.price * PRICE_SCALE)
  const volume = raw.day_volume >= 0 ? raw.day_volume : raw.volume
  const { exchange_ts, occurrence } = raw
  a = mix(mix(a, exchange_ts | 0), (exchange_ts / HIGH) | 0)
  b = mix(mix(b, (exchange_ts / HIGH) | 0), exchange_ts | 0)
  // Rounded down: a negative price has the high half of its two's complement, so that none hashes as a positive one.
  const high = Math.floor(price / HIGH)
  a = mix(mix(a, price | 0), high | 0)
  b = mix(mix(b, high | 0), price | 0)
  a = mix(mix(a, volume | 0), (volume / HIGH) | 0)
  b = mix(mix(b, (volume / HIGH) | 0), volume | 0)
  a = mix(mix(a, occurrence | 0), (occurrence / HIGH) | 0)
  b = mix(mix(b, (occurrence / HIGH) | 0), occurrence | 0)
  const hash = finish(a) * 65_536 + (finish(b) >>> 16)
  return hash === 0 ? 1 : hash
}

/**
 * A signed integer of 32 bits, which costs no object where it is handed on, and never 0; of exchange_ts and price: what
 * two copies of a numbered tick have in common, from whatever feed.
 */
export const contentPrint = (exchangeTs: number, price: number): number => {
  const scaled = Math.round(price * PRICE_SCALE)
  const stamp = mix(mix(0x3c6ef372, exchangeTs | 0), (exchangeTs / HIGH) | 0)
  const print = finish(mix(mix(stamp, scaled | 0), Math.floor(scaled / HIGH) | 0)) | 0
  return print === 0 ? 1 : print
}
