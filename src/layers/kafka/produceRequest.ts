/**
 * Decides how an append is put to a broker and what its answer says, on either engine: by the id of the topic where the
 * broker knows topics by it (Kafka 4.1 and newer), so that what was meant for a topic never lands in the one that was
 * recreated under its name; by name on older ones. Requests and responses of Kafka's protocol, `Produce` versions 9 and
 * 13 (the schemas of the `clients` module of Apache Kafka, `ProduceRequest.json` and `ProduceResponse.json`).
 */
import { type Appended, KafkaUnreadable, type OutBatch } from "./Wire.ts"

export const PRODUCE = 0
const BY_NAME = 9
const BY_ID = 13

const ACKS_ALL = -1

/** The version to use with a broker that understands all up to `most`. */
export const produceVersion = (most: number): number => (most >= BY_ID ? BY_ID : BY_NAME)

const varintBytes = (value: number): number => {
  let bytes = 1
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) bytes++
  return bytes
}

const writeVarint = (buffer: Buffer, value: number, at: number): number => {
  let rest = value
  let next = at
  while (rest > 0x7f) {
    buffer[next++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  buffer[next++] = rest
  return next
}

const uuidBytes = (id: string): Buffer => Buffer.from(id.replaceAll("-", ""), "hex")
const uuidOf = (bytes: Buffer): string =>
  bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")

/** The body of a request, after its header: acks=all, no transaction; no topic and partition twice. */
export const produceRequest = (version: number, batches: ReadonlyArray<OutBatch>, timeoutMs: number): Buffer => {
  const topics = [...Map.groupBy(batches, ({ topicId }) => topicId)].map(([topicId, mine]) => {
    const name = Buffer.from(mine[0]!.topic)
    return { id: version >= BY_ID ? uuidBytes(topicId) : name, mine }
  })
  let size = 1 + 2 + 4 + varintBytes(topics.length + 1) + 1
  for (const { id, mine } of topics) {
    size += (version >= BY_ID ? 0 : varintBytes(id.length + 1)) + id.length + varintBytes(mine.length + 1) + 1
    for (const { bytes } of mine) size += 4 + varintBytes(bytes.length + 1) + bytes.length + 1
  }
  const body = Buffer.allocUnsafe(size)
  let at = body.writeUInt8(0, 0) // no transaction
  at = body.writeInt16BE(ACKS_ALL, at)
  at = body.writeInt32BE(timeoutMs, at)
  at = writeVarint(body, topics.length + 1, at)
  for (const { id, mine } of topics) {
    if (version < BY_ID) at = writeVarint(body, id.length + 1, at)
    at += id.copy(body, at)
    at = writeVarint(body, mine.length + 1, at)
    for (const { partition, bytes } of mine) {
      at = body.writeInt32BE(partition, at)
      at = writeVarint(body, bytes.length + 1, at)
      at += bytes.copy(body, at)
      at = body.writeUInt8(0, at)
    }
    at = body.writeUInt8(0, at)
  }
  body.writeUInt8(0, at)
  return body
}

/** The answers of an answer's body, after its header. */
export const readProduced = (
  version: number,
  body: Buffer,
  asked: ReadonlyArray<OutBatch>
): ReadonlyArray<Appended> => {
  const ids = new Map(asked.map(({ topic, topicId }) => [topic, topicId]))
  let at = 0
  const varint = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = body.readUInt8(at++)
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value >>> 0
    }
  }
  /** A text or bytes; what is null has no length. */
  const skip = () => {
    const length = varint() - 1
    if (length > 0) at += length
  }
  const skipTagged = () => {
    for (let left = varint(); left > 0; left--) {
      varint()
      const length = varint()
      at += length
    }
  }
  const appended: Array<Appended> = []
  try {
    for (let topics = varint() - 1; topics > 0; topics--) {
      let topicId: string | undefined
      if (version >= BY_ID) {
        topicId = uuidOf(body.subarray(at, at + 16))
        at += 16
      } else {
        const length = varint() - 1
        topicId = ids.get(body.toString("utf8", at, at + length))
        at += length
      }
      for (let partitions = varint() - 1; partitions > 0; partitions--) {
        const partition = body.readInt32BE(at)
        const code = body.readInt16BE(at + 4)
        const baseOffset = Number(body.readBigInt64BE(at + 6))
        at += 30 // time of the append, start of the log
        for (let errors = varint() - 1; errors > 0; errors--) {
          at += 4
          skip()
          skipTagged()
        }
        skip()
        skipTagged()
        if (topicId !== undefined) appended.push({ topicId, partition, code, baseOffset })
      }
      skipTagged()
    }
  } catch (cause) {
    if (cause instanceof RangeError) throw new KafkaUnreadable(`produce: an answer of ${body.length} bytes breaks off`)
    throw cause
  }
  return appended
}
