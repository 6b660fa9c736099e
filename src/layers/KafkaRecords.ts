/**
 * Decides how record batches, as they lie in a partition (format 2), become records of the log. Written for both
 * engines, straight to what the pipeline reads, with no object between: it is on the path of every record.
 */
import { compressionsAlgorithmsByBitmask } from "@platformatic/kafka"
import type { LogRecord } from "../streams/TickLog.ts"
import { KafkaUnreadable } from "./KafkaWire.ts"

const COMPRESSION = 0x07
const LOG_APPEND_TIME = 0x08
const TRANSACTIONAL = 0x10
const CONTROL = 0x20
const NO_COMPRESSION = 0

/** First offset and length stand before what the length counts. */
const PREFIX = 12
const HEAD = 61

export interface AbortedTransaction {
  readonly producerId: bigint
  readonly firstOffset: bigint
}

export interface Decoded {
  readonly records: Array<LogRecord>
  /** The offset to ask for next; as it was where nothing was whole. */
  readonly next: number
  /** The highest record time so far. */
  readonly recordTime: number
}

/**
 * Decodes what a broker gave for one partition. Left out: records before `from`, control batches, aborted transactions,
 * and a batch that was cut off at the end. A batch that is not readable throws, with its offset.
 */
export const decodeBatches = (
  bytes: Buffer,
  from: number,
  recordTimeBefore: number,
  aborted: ReadonlyArray<AbortedTransaction>
): Decoded => {
  const records: Array<LogRecord> = []
  const begins = aborted.length === 0 ? [] : [...aborted].sort((a, b) => Number(a.firstOffset - b.firstOffset))
  const open = new Set<bigint>()
  let recordTime = recordTimeBefore
  let next = from
  let at = 0
  while (bytes.length - at >= HEAD) {
    const first = Number(bytes.readBigInt64BE(at))
    const length = bytes.readInt32BE(at + 8)
    if (length < HEAD - PREFIX) throw new KafkaUnreadable(`the batch at offset ${first} has the length ${length}`)
    const end = at + PREFIX + length
    if (end > bytes.length) break
    const magic = bytes.readInt8(at + 16)
    if (magic !== 2) throw new KafkaUnreadable(`the batch at offset ${first} has the unknown format ${magic}`)
    const attributes = bytes.readInt16BE(at + 21)
    const last = first + bytes.readInt32BE(at + 23)
    const producerId = bytes.readBigInt64BE(at + 43)
    while (begins.length > 0 && Number(begins[0]!.firstOffset) <= last) open.add(begins.shift()!.producerId)
    if ((attributes & CONTROL) !== 0) open.delete(producerId)
    else if (last >= from && !((attributes & TRANSACTIONAL) !== 0 && open.has(producerId))) {
      const count = bytes.readInt32BE(at + 57)
      const stamped = (attributes & LOG_APPEND_TIME) !== 0
      const base = Number(bytes.readBigInt64BE(stamped ? at + 35 : at + 27))
      const body = plain(bytes.subarray(at + HEAD, end), attributes & COMPRESSION, first)
      recordTime = decodeRecords(body, count, first, from, stamped, base, recordTime, records)
    }
    if (last + 1 > next) next = last + 1
    at = end
  }
  return { records, next, recordTime }
}

const plain = (body: Buffer, compression: number, first: number): Buffer => {
  if (compression === NO_COMPRESSION) return body
  const algorithm = (
    compressionsAlgorithmsByBitmask as Readonly<
      Record<number, { readonly decompressSync: (data: Buffer) => Buffer } | undefined>
    >
  )[compression]
  if (algorithm === undefined) {
    throw new KafkaUnreadable(`the batch at offset ${first} has the unknown compression ${compression}`)
  }
  try {
    return algorithm.decompressSync(body)
  } catch (cause) {
    throw new KafkaUnreadable(`the batch at offset ${first} cannot be decompressed: ${(cause as Error).message}`)
  }
}

/** Appends the records of a batch to `out`; answers the highest record time. */
const decodeRecords = (
  body: Buffer,
  count: number,
  first: number,
  from: number,
  stamped: boolean,
  base: number,
  recordTimeBefore: number,
  out: Array<LogRecord>
): number => {
  let recordTime = recordTimeBefore
  if (stamped && base * 1000 > recordTime) recordTime = base * 1000
  let at = 0
  /** Zigzag, at most 10 bytes; exact up to 2^53. */
  const varint = (): number => {
    let byte = body[at++]!
    let value = byte & 0x7f
    let scale = 128
    while (byte >= 0x80) {
      byte = body[at++]!
      value += (byte & 0x7f) * scale
      scale *= 128
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2
  }
  for (let i = 0; i < count; i++) {
    const end = varint() + at
    // Past the end the bytes read as NaN, which no comparison holds for.
    if (!(end > at && end <= body.length)) throw cut(first, i)
    at++
    let micros = recordTime
    if (stamped) while (body[at++]! >= 0x80) {}
    else micros = (base + varint()) * 1000
    const offset = first + varint()
    const keyLength = varint()
    const keyAt = at
    if (keyLength > 0) at += keyLength
    const valueLength = varint()
    const valueAt = at
    if (valueLength > 0) at += valueLength
    let headers: Record<string, string> | undefined
    const headerCount = varint()
    if (headerCount > 0) {
      headers = {}
      for (let h = 0; h < headerCount; h++) {
        const nameLength = varint()
        const nameAt = at
        at += Math.max(0, nameLength)
        const textLength = varint()
        const textAt = at
        at += Math.max(0, textLength)
        if (!(at <= end)) throw cut(first, i)
        // Of a name that comes twice, the last.
        headers[body.toString("utf8", nameAt, nameAt + nameLength)] =
          textLength > 0 ? body.toString("utf8", textAt, textAt + textLength) : ""
      }
    }
    if (at !== end) throw cut(first, i)
    if (offset < from) continue
    if (micros > recordTime) recordTime = micros
    out.push({
      key: keyLength < 0 ? null : keyText(body, keyAt, keyLength),
      value: valueLength < 0 ? null : body.subarray(valueAt, valueAt + valueLength),
      headers,
      offset,
      recordTime
    })
  }
  return recordTime
}

const cut = (first: number, i: number): KafkaUnreadable =>
  new KafkaUnreadable(`record ${i} of the batch at offset ${first} is not whole`)

const MAX_KEYS = 65_536
/** Keys are a few thousand instrument tokens in decimal, again and again: each is made text once. */
const keys = new Map<number, string>()

const keyText = (body: Buffer, at: number, length: number): string => {
  if (length === 0 || length > 10 || body[at] === 0x30) return body.toString("utf8", at, at + length)
  let token = 0
  for (let i = at; i < at + length; i++) {
    const digit = body[i]! - 0x30
    if (!(digit >= 0 && digit <= 9)) return body.toString("utf8", at, at + length)
    token = token * 10 + digit
  }
  const kept = keys.get(token)
  if (kept !== undefined) return kept
  const text = String(token)
  if (keys.size >= MAX_KEYS) keys.clear()
  keys.set(token, text)
  return text
}
