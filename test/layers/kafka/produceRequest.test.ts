import { assert, describe, it } from "@effect/vitest"
import { Reader } from "@platformatic/kafka"
import { produceRequest, produceVersion, readProduced } from "../../../src/layers/kafka/produceRequest.ts"
import { KafkaUnreadable, type OutBatch } from "../../../src/layers/kafka/Wire.ts"

const RAW = "0189d2a0-1c5e-7b44-8d1e-93a2f0c1b2d3"
const CLEAN = "ffffffff-0000-4000-8000-000000000001"

const batches: ReadonlyArray<OutBatch> = [
  { topic: "raw_ticks", topicId: RAW, partition: 11, bytes: Buffer.alloc(300, 1) },
  { topic: "normalized_ticks ☂", topicId: CLEAN, partition: 0, bytes: Buffer.alloc(127, 2) },
  { topic: "raw_ticks", topicId: RAW, partition: 2, bytes: Buffer.alloc(20_000, 3) }
]

/** What the library reads of a request. */
const parsed = (version: number, request: Buffer) => {
  const reader = Reader.from(request)
  assert.isNull(reader.readNullableString())
  const acks = reader.readInt16()
  const timeout = reader.readInt32()
  const topics = reader.readArray((r) => ({
    topic: version === 13 ? r.readUUID() : r.readString(),
    partitions: r.readArray((part) => ({ partition: part.readInt32(), bytes: part.readBytes() }))
  }))
  reader.readTaggedFields()
  assert.strictEqual(reader.remaining, 0)
  return { acks, timeout, topics }
}

/** An answer as a broker gives it: with errors, texts, null texts and tagged fields in it. */
const answer = (version: number): Buffer => {
  const id = (uuid: string, name: string) =>
    version === 13
      ? Buffer.from(uuid.replaceAll("-", ""), "hex")
      : Buffer.concat([Buffer.from([Buffer.byteLength(name) + 1]), Buffer.from(name)])
  const partition = (index: number, code: number, offset: bigint, rest: ReadonlyArray<number>) => {
    const fixed = Buffer.alloc(30)
    fixed.writeInt32BE(index, 0)
    fixed.writeInt16BE(code, 4)
    fixed.writeBigInt64BE(offset, 6)
    return Buffer.concat([fixed, Buffer.from(rest)])
  }
  const tagged = [1, 0, 3, 9, 9, 9]
  return Buffer.concat([
    Buffer.from([3]),
    id(RAW, "raw_ticks"),
    Buffer.from([3]),
    partition(11, 0, 2n ** 40n, [1, 0, 0]),
    // One record in error with a text, one without, a text for all.
    partition(2, 87, -1n, [3, 0, 0, 0, 1, 3, 97, 98, 0, 0, 0, 0, 2, 0, 0, 4, 99, 100, 101, ...tagged]),
    Buffer.from([0]),
    id(CLEAN, "normalized_ticks ☂"),
    Buffer.from([2]),
    partition(0, 3, -1n, [0, 0, 0]),
    Buffer.from(tagged),
    Buffer.alloc(4),
    Buffer.from([0])
  ])
}

describe("an append on the wire", () => {
  it("is by the topic's id where the broker knows topics by it, by name where it does not", () => {
    assert.deepStrictEqual([9, 12, 13, 14].map(produceVersion), [9, 9, 13, 13])
  })

  for (const version of [9, 13]) {
    it(`is read by others as it was meant, and its answer too (version ${version})`, () => {
      const { acks, timeout, topics } = parsed(version, produceRequest(version, batches, 8000))
      assert.strictEqual(acks, -1)
      assert.strictEqual(timeout, 8000)
      const [raw, clean] = version === 13 ? [RAW, CLEAN] : ["raw_ticks", "normalized_ticks ☂"]
      assert.deepStrictEqual(
        topics.map(({ topic, partitions }) => [topic, partitions.map(({ partition }) => partition)]),
        [
          [raw, [11, 2]],
          [clean, [0]]
        ]
      )
      assert.isTrue(topics[0]!.partitions[1]!.bytes.equals(batches[2]!.bytes))
      assert.deepStrictEqual(readProduced(version, answer(version), batches), [
        { topicId: RAW, partition: 11, code: 0, baseOffset: 2 ** 40 },
        { topicId: RAW, partition: 2, code: 87, baseOffset: -1 },
        { topicId: CLEAN, partition: 0, code: 3, baseOffset: -1 }
      ])
    })

    it(`is not understood where its answer breaks off (version ${version})`, () => {
      const whole = answer(version)
      for (const length of [0, 1, 20, 60, whole.length - 20]) {
        assert.throws(() => readProduced(version, whole.subarray(0, length), batches), KafkaUnreadable)
      }
    })
  }
})
