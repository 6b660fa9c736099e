import { assert, describe, it } from "@effect/vitest"
import { createRecordsBatch, Reader, readRecordsBatches } from "@platformatic/kafka"
import { decodeBatches, encodeBatch, recordBytes, seal } from "../../src/layers/KafkaRecords.ts"
import { KafkaUnreadable } from "../../src/layers/KafkaWire.ts"
import type { NewRecord } from "../../src/streams/TickLog.ts"

const bytesOf = (records: ReadonlyArray<NewRecord>) => records.reduce((sum, record) => sum + recordBytes(record), 0)

/** A batch as the broker would keep it at an offset. */
const batchAt = (offset: number, records: ReadonlyArray<NewRecord>, stampMs = 1_000_000): Buffer => {
  const batch = encodeBatch(records, bytesOf(records), stampMs)
  seal(batch, { id: 7n, epoch: 3 }, 42)
  batch.writeBigInt64BE(BigInt(offset), 0)
  return batch
}

const text = (value: string): NewRecord => ({ key: "738561", value: Buffer.from(value) })

const awkward: ReadonlyArray<NewRecord> = [
  { key: null, value: null },
  { key: "", value: Buffer.alloc(0), headers: {} },
  { key: "007", value: Buffer.from("leading zero") },
  { key: "0", value: Buffer.from("zero") },
  { key: "ключ €", value: Buffer.from("é"), headers: { "h é": "€".repeat(100), empty: "" } },
  { key: "x".repeat(200), value: Buffer.alloc(20_000, 1) },
  { key: "4294967296", value: Buffer.from("large token") },
  { key: "-5", value: Buffer.from("negative") }
]

describe("record batches", () => {
  it("come back as they were, whatever keys, values and headers", () => {
    const { records, next, recordTime } = decodeBatches(batchAt(90, awkward), 90, 0, [])
    assert.deepStrictEqual(
      records.map(({ key, value, headers }) => ({ key, value: value && Buffer.from(value), headers: headers ?? {} })),
      awkward.map(({ key, value, headers }) => ({ key, value: value && Buffer.from(value), headers: headers ?? {} }))
    )
    assert.deepStrictEqual(
      records.map(({ offset }) => offset),
      [90, 91, 92, 93, 94, 95, 96, 97]
    )
    assert.deepStrictEqual([next, recordTime], [98, 1_000_000_000])
  })

  it("are what another library writes and reads", () => {
    const [theirs] = readRecordsBatches(Reader.from(batchAt(5, awkward)))
    assert.deepStrictEqual(
      theirs!.records.map(({ key, offsetDelta }) => [key === null ? null : key.toString(), offsetDelta]),
      awkward.map(({ key }, i) => [key, i])
    )
    assert.deepStrictEqual([theirs!.producerId, theirs!.producerEpoch, theirs!.firstSequence], [7n, 3, 42])
    const messages = awkward.map(({ key, value }) => ({
      topic: "t",
      partition: 0,
      timestamp: 1_000_000n,
      key: (key === null ? null : Buffer.from(key)) as Buffer,
      value: value as Buffer,
      headers: new Map<Buffer, Buffer>()
    }))
    for (const compression of ["none", "gzip", "snappy", "lz4", "zstd"] as const) {
      const bytes = createRecordsBatch(messages, { compression }).buffer
      const { records } = decodeBatches(bytes, 0, 0, [])
      assert.deepStrictEqual(
        records.map(({ key }) => key),
        awkward.map(({ key }) => key)
      )
    }
  })

  it("carry the broker's stamp, which never falls", () => {
    const stamped = (offset: number, createdMs: number, appendedMs: number) => {
      const batch = batchAt(offset, [text("a"), text("b")], createdMs)
      batch.writeInt16BE(0x08, 21)
      batch.writeBigInt64BE(BigInt(appendedMs), 35)
      return batch
    }
    const bytes = Buffer.concat([stamped(0, 1, 5000), stamped(2, 9_999_999, 4000), stamped(4, 1, 6000)])
    const { records } = decodeBatches(bytes, 0, 0, [])
    assert.deepStrictEqual(
      records.map(({ recordTime }) => recordTime / 1000),
      [5000, 5000, 5000, 5000, 6000, 6000]
    )
    assert.strictEqual(decodeBatches(stamped(6, 1, 5000), 6, 6_000_000, []).recordTime, 6_000_000)
  })

  it("are read from the asked offset on; one that is cut off is left for the next fetch", () => {
    const bytes = Buffer.concat([batchAt(0, [text("a"), text("b")]), batchAt(2, [text("c"), text("d")])])
    assert.deepStrictEqual(
      decodeBatches(bytes, 1, 0, []).records.map(({ offset }) => offset),
      [1, 2, 3]
    )
    for (const cut of [1, 20, 60]) {
      const { records, next } = decodeBatches(bytes.subarray(0, bytes.length - cut), 0, 0, [])
      assert.deepStrictEqual([records.length, next], [2, 2])
    }
  })

  it("pass over markers and what was aborted, and move on", () => {
    const transactional = (offset: number, attributes: number) => {
      const batch = batchAt(offset, [text("x")])
      batch.writeInt16BE(attributes, 21)
      return batch
    }
    const bytes = Buffer.concat([
      transactional(0, 0x10),
      transactional(1, 0x30),
      transactional(2, 0x10),
      transactional(3, 0x30)
    ])
    const { records, next } = decodeBatches(bytes, 0, 0, [{ producerId: 7n, firstOffset: 0n }])
    assert.deepStrictEqual(
      records.map(({ offset }) => offset),
      [2]
    )
    assert.strictEqual(next, 4)
  })

  it("that are not readable say so with their offset, and never hang or skip", () => {
    const good = batchAt(100, [text("a"), text("b")])
    const broken = (change: (batch: Buffer) => void) => {
      const batch = Buffer.from(good)
      change(batch)
      return () => decodeBatches(batch, 100, 0, [])
    }
    const unreadable = (change: (batch: Buffer) => void, message: RegExp) => {
      try {
        broken(change)()
      } catch (error) {
        assert.instanceOf(error, KafkaUnreadable)
        assert.match((error as Error).message, message)
        return
      }
      assert.fail("it was read")
    }
    unreadable((b) => b.writeInt8(1, 16), /offset 100 has the unknown format 1/)
    unreadable((b) => b.writeInt16BE(7, 21), /offset 100 has the unknown compression 7/)
    unreadable((b) => b.writeInt16BE(1, 21), /offset 100 cannot be decompressed/)
    unreadable((b) => b.writeInt32BE(3, 57), /record 2 of the batch at offset 100 is not whole/)
    unreadable((b) => b.writeInt8(0x7f, 61), /record 0 of the batch at offset 100 is not whole/)
    unreadable((b) => b.writeInt32BE(-5, 8), /has the length -5/)
    // Any other damage is either seen or leaves a record's bytes changed; it never reads past the batch.
    for (let at = 61; at < good.length; at++) {
      for (const byte of [0x00, 0x7f, 0x80, 0xff]) {
        try {
          const { next } = broken((b) => b.writeUInt8(byte, at))()
          assert.strictEqual(next, 102)
        } catch (error) {
          assert.instanceOf(error, KafkaUnreadable)
        }
      }
    }
  })
})
