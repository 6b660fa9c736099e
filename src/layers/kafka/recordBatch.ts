/**
 * Decides how records of the log become record batches as they lie in a partition (format 2), and back. Written for
 * both engines, straight from and to what the pipeline hands over, with no object between: it is on the path of every
 * record.
 */
import zlib from "node:zlib"
import { compressionsAlgorithms, crc32c } from "@platformatic/kafka"
import type { LogRecord, NewRecord } from "../../streams/log/TickLog.ts"
import { KafkaUnreadable, type ProducerIdentity } from "./Wire.ts"

const COMPRESSION = 0x07
const LOG_APPEND_TIME = 0x08
const TRANSACTIONAL = 0x10
const CONTROL = 0x20
const NO_COMPRESSION = 0
const GZIP = 1
const SNAPPY = 2
const LZ4 = 3
const ZSTD = 4
/**
 * Above this a compressed batch is not read: a few kilobytes can stand for any amount of memory. No producer gathers as
 * much as this into one.
 */
export const MAX_PLAIN_BYTES = 67_108_864

/** First offset and length stand before what the length counts. */
const PREFIX = 12
const HEAD = 61
const CHECKSUM = 17
/** From here on the checksum holds: with it the batch is as its producer made it. */
const CHECKED = 21

/** Whoever reads this batch, and whenever, fails on it: its bytes are as they were meant, and cannot be records. */
class UnreadableBatch extends KafkaUnreadable {}

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
 * and a batch that was cut off at the end. A batch that cannot be read, or for which those before it leave no room, is
 * left for the next fetch. Where it is the first, one record that says why stands for it if its producer made it so;
 * else it throws, with the offset: another fetch or another process may read it.
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
  let room = MAX_PLAIN_BYTES
  let at = 0
  let whole = 0
  try {
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
      if (last < first) throw new KafkaUnreadable(`the batch at offset ${first} ends at ${last}`)
      const producerId = bytes.readBigInt64BE(at + 43)
      while (begins.length > 0 && Number(begins[0]!.firstOffset) <= last) open.add(begins.shift()!.producerId)
      if ((attributes & CONTROL) !== 0) open.delete(producerId)
      else if (last >= from && !((attributes & TRANSACTIONAL) !== 0 && open.has(producerId))) {
        const count = bytes.readInt32BE(at + 57)
        const stamped = (attributes & LOG_APPEND_TIME) !== 0
        const base = Number(bytes.readBigInt64BE(stamped ? at + 35 : at + 27))
        try {
          const body = plain(bytes.subarray(at + HEAD, end), attributes & COMPRESSION, first, room)
          room -= body.length
          recordTime = decodeRecords(body, count, first, from, stamped, base, recordTime, records)
        } catch (cause) {
          if (!(cause instanceof UnreadableBatch) || next !== from) throw cause
          if (crc32c(bytes.subarray(at + CHECKED, end)) !== bytes.readUInt32BE(at + CHECKSUM)) {
            throw new KafkaUnreadable(`the batch at offset ${first} is damaged: its checksum is another`)
          }
          records.length = whole
          if (base * 1000 > recordTime) recordTime = base * 1000
          const message = `${cause.message} (${count} record${count === 1 ? "" : "s"}, up to offset ${last})`
          const unreadable = { message, records: last - Math.max(first, from) + 1 }
          records.push({ key: null, value: bytes.subarray(at, end), offset: last, recordTime, unreadable })
        }
      }
      if (last + 1 > next) next = last + 1
      whole = records.length
      at = end
    }
  } catch (cause) {
    if (!(cause instanceof KafkaUnreadable) || next === from) throw cause
    records.length = whole
  }
  return { records, next, recordTime }
}

const plain = (body: Buffer, compression: number, first: number, room: number): Buffer => {
  if (compression === NO_COMPRESSION) return body
  try {
    switch (compression) {
      case GZIP:
        return zlib.gunzipSync(body, { maxOutputLength: room })
      case SNAPPY:
        if (snappyBytes(body) > room) break
        return compressionsAlgorithms.snappy.decompressSync(body)
      case LZ4:
        if (lz4Bytes(body) > room) break
        return compressionsAlgorithms.lz4.decompressSync(body)
      case ZSTD:
        return zlib.zstdDecompressSync(body, { maxOutputLength: room })
      default:
        throw new UnreadableBatch(
          `the batch at offset ${first} cannot be decompressed: it is of the unknown kind ${compression}`
        )
    }
  } catch (cause) {
    if (cause instanceof UnreadableBatch) throw cause
    const { code = "", message } = cause as NodeJS.ErrnoException
    if (code !== "ERR_BUFFER_TOO_LARGE") {
      // Snappy and LZ4 run in one instance for all, which a broken batch may break for those after it.
      const Fault = BAD_DATA.has(code) ? UnreadableBatch : KafkaUnreadable
      throw new Fault(`the batch at offset ${first} cannot be decompressed: ${message}`)
    }
  }
  throw new UnreadableBatch(
    `the batch at offset ${first} cannot be decompressed: it holds more than ${MAX_PLAIN_BYTES} bytes`
  )
}

/** What gzip and zstd say of the data itself; what they say of memory is the process's own. */
const BAD_DATA: ReadonlySet<string> = new Set([
  "Z_DATA_ERROR",
  "Z_BUF_ERROR",
  "ZSTD_error_prefix_unknown",
  "ZSTD_error_corruption_detected",
  "ZSTD_error_checksum_wrong",
  "ZSTD_error_literals_headerWrong",
  "ZSTD_error_srcSize_wrong"
])

const XERIAL = Buffer.from("\x82SNAPPY\0", "latin1")
const XERIAL_HEAD = 16

/** What a body compressed with Snappy holds, as its beginning says; the decoder writes no more than that. */
const snappyBytes = (body: Buffer): number => {
  if (!body.subarray(0, XERIAL.length).equals(XERIAL)) return snappyBlockBytes(body, 0)
  let bytes = 0
  for (let at = XERIAL_HEAD; at < body.length; at += 4 + body.readUInt32BE(at)) bytes += snappyBlockBytes(body, at + 4)
  return bytes
}

const snappyBlockBytes = (body: Buffer, start: number): number => {
  let bytes = 0
  for (let i = 0; i < 5; i++) {
    const byte = body[start + i] ?? 0
    bytes += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) break
  }
  return bytes
}

const LZ4_MAGIC = 0x184d2204

/** What a frame of LZ4 holds at most: as much as its blocks may have, and no byte of them stands for more than 255. */
const lz4Bytes = (body: Buffer): number => {
  if (body.readUInt32LE(0) !== LZ4_MAGIC) throw new Error("it is no frame of LZ4")
  const flags = body[4]!
  const largest = 2 ** (8 + 2 * ((body[5]! >> 4) & 7))
  let at = 7 + ((flags & 0x08) === 0 ? 0 : 8) + ((flags & 0x01) === 0 ? 0 : 4)
  let bytes = 0
  while (at + 4 <= body.length) {
    const size = body.readUInt32LE(at)
    if (size === 0) break
    const length = size % 2 ** 31
    bytes += Math.min(largest, size === length ? length * 255 : length)
    at += 4 + length + ((flags & 0x10) === 0 ? 0 : 4)
  }
  return bytes
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
    // Past the end every byte reads as none, every number as 0: no loop goes on for long.
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

const cut = (first: number, i: number): UnreadableBatch =>
  new UnreadableBatch(`record ${i} of the batch at offset ${first} is not whole`)

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

const ATTRIBUTES = 21
/** Bytes that lengths, deltas and attributes of one record may take at most, and those of one header. */
const RECORD_OVERHEAD = 24
const HEADER_OVERHEAD = 10

/** What a record may take in a batch at most. */
export const recordBytes = ({ key, value, headers }: NewRecord): number => {
  let bytes = RECORD_OVERHEAD
  if (key !== null) bytes += Buffer.byteLength(key)
  if (value !== null) bytes += value.length
  if (headers !== undefined) {
    for (const name in headers) bytes += HEADER_OVERHEAD + Buffer.byteLength(name) + Buffer.byteLength(headers[name]!)
  }
  return bytes
}

const varintBytes = (value: number): number => {
  const zigzag = value < 0 ? -2 * value - 1 : 2 * value
  return zigzag < 0x80 ? 1 : zigzag < 0x4000 ? 2 : zigzag < 0x20_0000 ? 3 : zigzag < 0x1000_0000 ? 4 : 5
}

/** Writes a length or delta, at most 2^30, and answers where it ended. */
const putVarint = (into: Buffer, start: number, value: number): number => {
  let at = start
  let zigzag = value < 0 ? -2 * value - 1 : 2 * value
  while (zigzag >= 0x80) {
    into[at++] = (zigzag & 0x7f) | 0x80
    zigzag >>>= 7
  }
  into[at++] = zigzag
  return at
}

/** A batch without producer and checksum, which `seal` sets. `bytes`: at least the sum of the records' `recordBytes`. */
export const encodeBatch = (records: ReadonlyArray<NewRecord>, bytes: number, timestampMs: number): Buffer => {
  const batch = Buffer.allocUnsafe(HEAD + bytes)
  let at = HEAD
  for (let i = 0; i < records.length; i++) {
    const { key, value, headers } = records[i]!
    const keyBytes = key === null ? 0 : Buffer.byteLength(key)
    let headerCount = 0
    let body = 2 + varintBytes(i) + varintBytes(key === null ? -1 : keyBytes) + keyBytes
    body += value === null ? 1 : varintBytes(value.length) + value.length
    if (headers !== undefined) {
      for (const name in headers) {
        headerCount++
        const nameBytes = Buffer.byteLength(name)
        const textBytes = Buffer.byteLength(headers[name]!)
        body += varintBytes(nameBytes) + nameBytes + varintBytes(textBytes) + textBytes
      }
    }
    body += varintBytes(headerCount)
    at = putVarint(batch, at, body)
    batch[at++] = 0 // attributes
    batch[at++] = 0 // all have the batch's timestamp
    at = putVarint(batch, at, i)
    at = putVarint(batch, at, key === null ? -1 : keyBytes)
    if (keyBytes > 0) at += batch.write(key!, at)
    at = putVarint(batch, at, value === null ? -1 : value.length)
    if (value !== null) {
      batch.set(value, at)
      at += value.length
    }
    at = putVarint(batch, at, headerCount)
    if (headers !== undefined) {
      for (const name in headers) {
        const text = headers[name]!
        at = putVarint(batch, at, Buffer.byteLength(name))
        at += batch.write(name, at)
        at = putVarint(batch, at, Buffer.byteLength(text))
        at += batch.write(text, at)
      }
    }
  }
  const stamp = BigInt(timestampMs)
  batch.writeBigInt64BE(0n, 0) // the broker gives the offset
  batch.writeInt32BE(at - PREFIX, 8)
  batch.writeInt32BE(-1, 12) // leader epoch, the broker's
  batch.writeInt8(2, 16)
  batch.writeInt16BE(0, ATTRIBUTES)
  batch.writeInt32BE(records.length - 1, 23)
  batch.writeBigInt64BE(stamp, 27)
  batch.writeBigInt64BE(stamp, 35)
  batch.writeInt32BE(records.length, 57)
  return batch.subarray(0, at)
}

/** Says who sends the batch, and where it stands in the partition's sequence. */
export const seal = (batch: Buffer, producer: ProducerIdentity, firstSequence: number): void => {
  batch.writeBigInt64BE(producer.id, 43)
  batch.writeInt16BE(producer.epoch, 51)
  batch.writeInt32BE(firstSequence, 53)
  batch.writeUInt32BE(crc32c(batch.subarray(ATTRIBUTES)), 17)
}
