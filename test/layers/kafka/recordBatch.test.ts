import { gzipSync, zstdCompressSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { compressionsAlgorithms, createRecordsBatch, Reader, readRecordsBatches } from "@platformatic/kafka"
import {
  decodeBatches,
  encodeBatch,
  MAX_PLAIN_BYTES,
  recordBytes,
  seal
} from "../../../src/layers/kafka/recordBatch.ts"
import { KafkaUnreadable } from "../../../src/layers/kafka/Wire.ts"
import type { NewRecord } from "../../../src/streams/log/TickLog.ts"

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

  it("that are not readable say so with their offset, stand as one record for it, and never hang", () => {
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
    // Where its end cannot be told there is nothing to go on from.
    unreadable((b) => b.writeInt8(1, 16), /offset 100 has the unknown format 1/)
    unreadable((b) => b.writeInt32BE(-5, 8), /has the length -5/)
    unreadable((b) => b.writeInt32BE(-5, 23), /offset 100 ends at 95/)
    // Nor where it is not as it was sent: another fetch may bring it whole.
    unreadable((b) => b.writeInt16BE(1, 21), /offset 100 is damaged: its checksum is another/)
    unreadable((b) => b.writeInt32BE(3, 57), /offset 100 is damaged/)
    const standsFor = (change: (batch: Buffer) => void, message: RegExp) => {
      const damaged = Buffer.from(good)
      change(damaged)
      seal(damaged, { id: 7n, epoch: 3 }, 42)
      const { records, next } = decodeBatches(damaged, 100, 0, [])
      assert.lengthOf(records, 1)
      const [record] = records
      assert.match(record!.unreadable!.message, message)
      assert.strictEqual(record!.unreadable!.records, 2)
      assert.deepStrictEqual([record!.offset, record!.key, record!.headers], [101, null, undefined])
      assert.isTrue(damaged.equals(record!.value!))
      assert.strictEqual(next, 102)
    }
    standsFor((b) => b.writeInt16BE(7, 21), /offset 100 cannot be decompressed: it is of the unknown kind 7 \(2 rec/)
    standsFor((b) => b.writeInt16BE(1, 21), /offset 100 cannot be decompressed.* up to offset 101\)/)
    standsFor((b) => b.writeInt32BE(3, 57), /record 2 of the batch at offset 100 is not whole/)
    standsFor((b) => b.writeInt8(0x7f, 61), /record 0 of the batch at offset 100 is not whole/)
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
  /** A batch whose records are the body, compressed as its attributes say. */
  const compressed = (offset: number, compression: number, body: Buffer): Buffer => {
    const batch = Buffer.concat([batchAt(offset, [text("x")]).subarray(0, 61), body])
    batch.writeInt32BE(batch.length - 12, 8)
    batch.writeInt16BE(compression, 21)
    seal(batch, { id: 7n, epoch: 3 }, 42)
    return batch
  }
  /** Why the first batch was not read. */
  const message = (bytes: Buffer, from: number): string => {
    const [record] = decodeBatches(bytes, from, 0, []).records
    return record?.unreadable?.message ?? assert.fail("it was read")
  }

  it("that hold more than fits into memory are not read, however they are compressed", () => {
    const zeros = Buffer.alloc(MAX_PLAIN_BYTES + 1)
    const xerial = Buffer.concat([
      Buffer.from("\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", "latin1"),
      ...Array.from({ length: 3 }, () => {
        const chunk = compressionsAlgorithms.snappy.compressSync(Buffer.alloc(MAX_PLAIN_BYTES / 2)) as Buffer
        const length = Buffer.alloc(4)
        length.writeUInt32BE(chunk.length)
        return Buffer.concat([length, chunk])
      })
    ])
    const bodies: ReadonlyArray<readonly [compression: number, body: Buffer]> = [
      [1, gzipSync(zeros)],
      [2, compressionsAlgorithms.snappy.compressSync(zeros) as Buffer],
      [2, xerial],
      [3, compressionsAlgorithms.lz4.compressSync(zeros) as Buffer],
      [4, zstdCompressSync(zeros)]
    ]
    for (const [compression, body] of bodies) {
      assert.strictEqual(
        message(compressed(100, compression, body), 100),
        `the batch at offset 100 cannot be decompressed: it holds more than ${MAX_PLAIN_BYTES} bytes (1 record, up to offset 100)`
      )
    }
    // A long record, within the limit, is read by each.
    const batch = batchAt(100, [{ key: null, value: Buffer.alloc(MAX_PLAIN_BYTES / 2) }]).subarray(61)
    for (const compression of ["gzip", "snappy", "lz4", "zstd"] as const) {
      const { bitmask, compressSync } = compressionsAlgorithms[compression]
      const { records } = decodeBatches(compressed(100, bitmask, compressSync(batch) as Buffer), 100, 0, [])
      assert.strictEqual(records[0]!.value!.length, MAX_PLAIN_BYTES / 2)
    }
  })

  it("that Snappy or LZ4 cannot decompress are not passed over: their decoder may be what is broken", () => {
    for (const compression of [2, 3]) {
      const body = Buffer.alloc(40, 0x55)
      if (compression === 3) body.writeUInt32LE(0x184d2204, 0)
      assert.throws(() => decodeBatches(compressed(100, compression, body), 100, 0, []), KafkaUnreadable)
    }
    for (const compression of [1, 4]) {
      assert.match(message(compressed(100, compression, Buffer.alloc(40, 0x55)), 100), /cannot be decompressed/)
    }
  })

  it("that hold too much together are read one fetch after the other", () => {
    const body = zstdCompressSync(batchAt(0, [{ key: null, value: Buffer.alloc(MAX_PLAIN_BYTES / 2) }]).subarray(61))
    const bytes = Buffer.concat([0, 1, 2].map((offset) => compressed(offset, 4, body)))
    const steps: Array<readonly [number, number]> = []
    for (let from = 0; from < 3; ) {
      const { records, next } = decodeBatches(bytes, from, 0, [])
      steps.push([records.length, next])
      from = next
    }
    assert.deepStrictEqual(steps, [
      [1, 1],
      [1, 2],
      [1, 3]
    ])
  })

  it("before one that is not readable are read, which then is the first to be asked for", () => {
    const broken = batchAt(102, [text("c"), text("d")])
    broken.writeInt32BE(3, 57)
    seal(broken, { id: 7n, epoch: 3 }, 42)
    const bytes = Buffer.concat([batchAt(100, [text("a"), text("b")]), broken])
    const { records, next } = decodeBatches(bytes, 100, 0, [])
    assert.deepStrictEqual(
      records.map(({ offset }) => offset),
      [100, 101]
    )
    assert.strictEqual(next, 102)
    assert.strictEqual(
      message(bytes, 102),
      "record 2 of the batch at offset 102 is not whole (3 records, up to offset 103)"
    )
  })
})
