/** Decides which partition an instrument lives in: Kafka's murmur2 of its token in decimal, as the Java client has it. */

const SEED = 0x9747b28c
const M = 0x5bd1e995

/** Kafka's murmur2 over bytes, as a signed 32-bit integer (org.apache.kafka.common.utils.Utils.murmur2). */
export const murmur2 = (bytes: Uint8Array): number => {
  const length = bytes.length
  let h = SEED ^ length
  let i = 0
  for (; i + 4 <= length; i += 4) {
    let k = bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24)
    k = Math.imul(k, M)
    k ^= k >>> 24
    k = Math.imul(k, M)
    h = Math.imul(h, M) ^ k
  }
  const rest = length - i
  if (rest === 3) h ^= bytes[i + 2]! << 16
  if (rest >= 2) h ^= bytes[i + 1]! << 8
  if (rest >= 1) {
    h ^= bytes[i]!
    h = Math.imul(h, M)
  }
  h ^= h >>> 13
  h = Math.imul(h, M)
  return (h ^ (h >>> 15)) | 0
}

const encoder = new TextEncoder()

/** The partition of a token among `partitions`, as every murmur2 producer of the key in decimal picks it. */
export const partitionOf = (token: number, partitions: number): number =>
  (murmur2(encoder.encode(String(token))) & 0x7fffffff) % partitions
