import { assert, describe, it } from "@effect/vitest"
import { partitionOf } from "../../../src/schema/Partition.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { watermarkRecord } from "../../../src/streams/log/headers.ts"
import type { LogRecord } from "../../../src/streams/log/TickLog.ts"
import type { Quoted as Batch } from "../../../src/streams/process/batch.ts"
import { unclaimed } from "../../../src/streams/process/claim.ts"
import { makeStates, stages } from "../../../src/streams/process/process.ts"
import { toDeadRecords, toRecords } from "../../../src/streams/process/publish.ts"
import { handedOn, settings, TEN, tookOut } from "./stageTests.ts"

const pipeline = (
  place = { partition: 0, partitions: 1 },
  more: Partial<typeof settings | { ZERO_PRICE: "keep" }> = {}
) => {
  const leads: Array<readonly [string, number]> = []
  const states = makeStates()
  const stage = stages(states, "raw", place, { ...settings, ...more }, (winner, micros) => leads.push([winner, micros]))
  const run = (records: ReadonlyArray<LogRecord>): Batch =>
    stage.quote(stage.sequence(unclaimed(stage.deduplicate(stage.normalize(stage.decode(records))))))
  return { run, leads, states }
}

const record = (offset: number, recordTime: number, fields: object, headers?: Record<string, string>): LogRecord => ({
  offset,
  recordTime,
  key: null,
  value: Buffer.from(JSON.stringify(fields)),
  headers
})

/** A DMA tick of instrument 1; record n is stamped and taken in n seconds after ten. */
const dma = (offset: number, sequence_id: number, more: object = {}): LogRecord =>
  record(offset, TEN + offset * 1_000_000, {
    instrument_token: 1,
    exchange_ts: TEN + offset * 1_000_000,
    price: 100 + sequence_id,
    volume: 1,
    sequence_id,
    ...more
  })

/** The same packet, taken in again. */
const again = (offset: number, before: LogRecord): LogRecord => ({
  ...before,
  offset,
  recordTime: TEN + offset * 1_000_000
})

const ticksOf = (batch: Batch): ReadonlyArray<Tick> => batch.ticks.map(({ tick }) => tick)
const brief = (ticks: ReadonlyArray<Tick>) =>
  ticks.map((t) => [t.sequence_id, t.status, t.gap_from, t.session, t.position] as const)

describe("the stages of a partition", () => {
  it("cannot be joined in another order: the type of a batch says which it has been through", () => {
    // Never run: that it compiles is the test, and that what is expected not to does not.
    const joined = (stage: ReturnType<typeof stages>, records: ReadonlyArray<LogRecord>) => {
      const decoded = stage.decode(records)
      // @ts-expect-error: a raw tick has no identity yet that could have been seen
      stage.deduplicate(decoded)
      const normalized = stage.normalize(decoded)
      // @ts-expect-error: nor is it normalized twice
      stage.normalize(normalized)
      // @ts-expect-error: what may be a copy takes no place
      stage.sequence(normalized)
      const deduplicated = stage.deduplicate(normalized)
      // @ts-expect-error: others' claims come first
      stage.sequence(deduplicated)
      // @ts-expect-error: and without a place nothing is published
      toRecords(unclaimed(deduplicated))
      const sequenced = stage.sequence(unclaimed(deduplicated))
      // @ts-expect-error: nor is a quote of which nobody knows whether it changes anything
      toRecords(sequenced)
      return toRecords(stage.quote(sequenced))
    }
    assert.isFunction(joined)
  })

  it("give every new tick the next position and drop the same identity", () => {
    const { run } = pipeline()
    const batch = run([dma(0, 1), dma(1, 2), again(2, dma(1, 2)), dma(3, 3)])
    assert.deepStrictEqual(brief(ticksOf(batch)), [
      [1, "LIVE", 0, 0, 1],
      [2, "LIVE", 0, 0, 2],
      [3, "LIVE", 0, 0, 3]
    ])
    assert.strictEqual(tookOut(batch, "duplicate"), 1)
  })

  it("mark the tick that shows a gap, and the late one that fills it", () => {
    const { run } = pipeline()
    const batch = run([dma(0, 1), dma(1, 5), dma(2, 3), dma(3, 6)])
    assert.deepStrictEqual(brief(ticksOf(batch)), [
      [1, "LIVE", 0, 0, 1],
      [5, "STALE", 2, 0, 2],
      [3, "STALE", 0, 0, 3],
      [6, "LIVE", 0, 0, 4]
    ])
    assert.deepStrictEqual([batch.count.gaps, batch.count.fills, batch.count.lost], [1, 1, 0])
  })

  it("give a gap up after the hold, in record time, and still take its number when it comes", () => {
    const { run } = pipeline()
    run([dma(0, 1), dma(1, 4)])
    const later = run([dma(10, 5), dma(11, 2)])
    assert.strictEqual(later.count.lost, 2)
    assert.strictEqual(later.count.fills, 0)
    assert.deepStrictEqual(brief(ticksOf(later))[1], [2, "STALE", 0, 0, 4])
  })

  it("send a wild jump to the DLQ and go on as if it had not come", () => {
    const { run } = pipeline()
    const batch = run([dma(0, 1), dma(1, 1_000_002), dma(2, 2)])
    assert.deepStrictEqual(brief(ticksOf(batch)), [
      [1, "LIVE", 0, 0, 1],
      [2, "LIVE", 0, 0, 2]
    ])
    assert.match(batch.dead[0]!.reason, /^sequence_id: .* got 1000002$/)
  })

  it("open a session with the third number that goes on from beyond a jump, and let those before it fill theirs", () => {
    const { run } = pipeline()
    const batch = run([dma(0, 5_000_001), dma(1, 6_500_000), dma(2, 6_500_001), dma(3, 6_500_002), dma(4, 6_500_003)])
    assert.deepStrictEqual(brief(ticksOf(batch)), [
      [5_000_001, "LIVE", 0, 0, 1],
      [6_500_002, "STALE", 6_500_000, 1, 2],
      [6_500_003, "LIVE", 0, 1, 3]
    ])
    assert.deepStrictEqual(
      batch.dead.map(({ kind, record: { offset } }) => [kind, offset]),
      [
        ["jump", 1],
        ["jump", 2]
      ]
    )
    assert.deepStrictEqual([batch.count.jumps, batch.count.resets, batch.count.gaps], [1, 0, 1])
    // The dead letters, sent again.
    const letters = run([again(5, dma(1, 6_500_000)), again(6, dma(2, 6_500_001)), dma(7, 6_500_004)])
    assert.deepStrictEqual(brief(ticksOf(letters)), [
      [6_500_000, "STALE", 0, 1, 4],
      [6_500_001, "STALE", 0, 1, 5],
      [6_500_004, "LIVE", 0, 1, 6]
    ])
    assert.deepStrictEqual([letters.count.fills, letters.dead.length], [2, 0])
  })

  it("keep apart who jumps: neither stray numbers, nor those of several connections, make a session", () => {
    const { run } = pipeline()
    const far = (offset: number, sequence_id: number, connection: string) => dma(offset, sequence_id, { connection })
    const batch = run([
      far(0, 1, "a"),
      far(1, 5_000_000, "a"),
      far(2, 5_000_001, "a"),
      far(3, 2, "a"), // fits: what was there before it stood alone
      far(4, 5_000_002, "a"),
      far(5, 5_000_003, "b"),
      far(6, 5_000_002, "a"), // once more
      far(7, 7_000_000, "a"), // no neighbour
      far(8, 5_000_004, "b"),
      far(9, 3, "a")
    ])
    assert.deepStrictEqual(brief(ticksOf(batch)), [
      [1, "LIVE", 0, 0, 1],
      [2, "LIVE", 0, 0, 2],
      [3, "LIVE", 0, 0, 3]
    ])
    assert.strictEqual(batch.dead.length, 7)
    assert.strictEqual(batch.count.jumps, 0)
  })

  it("take the other feed along into the session that a jump opened, whatever it had in the one before", () => {
    const { run } = pipeline()
    const other = { feed: "snapshot", connection: "s" }
    const batch = run([
      dma(0, 1),
      dma(1, 2, other),
      dma(2, 4_000_000),
      dma(3, 4_000_000, other),
      dma(4, 4_000_002),
      dma(5, 4_000_001, other),
      dma(6, 4_000_004), // opens it, though the feed loses every other number
      dma(7, 4_000_005, other),
      dma(8, 4_000_001, other)
    ])
    assert.deepStrictEqual(brief(ticksOf(batch)), [
      [1, "LIVE", 0, 0, 1],
      [2, "LIVE", 0, 0, 2],
      [4_000_004, "STALE", 4_000_000, 1, 3],
      [4_000_005, "LIVE", 0, 1, 4],
      [4_000_001, "STALE", 0, 1, 5]
    ])
    assert.strictEqual(batch.dead.length, 4)
    assert.strictEqual(batch.count.jumps, 1)
  })

  it("keep what nothing of a feed's has: a value nested without end, a replay's number below 0, a reset of one", () => {
    const { run } = pipeline()
    const headers = { replay: "x" }
    const nested = `{"instrument_token":${"[".repeat(5000)}${"]".repeat(5000)}}`
    const batch = run([
      dma(0, 1),
      { ...dma(1, 2), value: Buffer.from(nested) },
      { ...dma(2, -5), headers },
      { ...dma(3, 3, { reset: true }), headers },
      { ...dma(4, 4, { day_volume: 5, volume: undefined }), headers },
      { ...dma(5, 5, { sequence_id: undefined }), headers },
      dma(6, 2)
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => t.sequence_id),
      [1, 2]
    )
    assert.deepStrictEqual(
      batch.dead.map(({ record, kind, reason }) => [record.offset, kind, reason.slice(0, reason.indexOf(":"))]),
      [
        [1, "invalid", "instrument_token"],
        [2, "invalid", "sequence_id"],
        [3, "invalid", "reset"],
        [4, "invalid", "day_volume"],
        [5, "invalid", "sequence_id"]
      ]
    )
  })

  it("take for a replay only what one writes: a run's name, a watermark's number, its end, and no value with it", () => {
    const { run, states } = pipeline()
    const empty = { ...dma(0, 1), value: Buffer.alloc(0) }
    const bad = [
      { replay: "x".repeat(65) },
      { replay: "a b" },
      { replay: "\u001b[2J" },
      { replay: "x", watermark: "" },
      { replay: "x", watermark: "NaN" },
      { replay: "x", watermark: "-1" },
      { replay: "x", watermark: "1e300" },
      { replay: "x", watermark: "9".repeat(16) },
      { replay: "x", watermark: "1", end: "yes" }
    ]
    const batch = run([
      ...bad.map((headers, offset) => ({ ...empty, offset, headers })),
      { ...dma(20, 1), headers: { replay: "x", watermark: "1" } },
      { ...empty, offset: 21, headers: { replay: "x.1", watermark: "7", end: "1" } },
      // Without a run they are anybody's headers.
      { ...dma(22, 1), headers: { watermark: "1", end: "1", codec: "packed", kind: "quote", source: "x" } }
    ])
    assert.deepStrictEqual(
      batch.dead.map(({ record, kind }) => [record.offset, kind]),
      [...bad.keys(), 20].map((offset) => [offset, "header"])
    )
    assert.isTrue(batch.dead.every(({ reason }) => reason.length < 200 && !reason.includes("\u001b")))
    assert.deepStrictEqual(
      batch.watermarks.map(({ run: of, number, end }) => [of, number, end]),
      [["x.1", 7, true]]
    )
    assert.strictEqual(batch.ticks.length, 1)
    assert.strictEqual(states.runs.size, 0)
  })

  it("set the one tick aside on which a stage fails, and are the same however they are cut", () => {
    const outcome = (size: number) => {
      const { run, states } = pipeline()
      const { live } = states
      // The instrument's day fails on one tick before anything is changed, and on another in the midst of it.
      const day = live.day.bind(live)
      let position = 0
      let given = 0
      live.day = (...asked) => {
        if (asked[2].sequence_id === 3) throw new RangeError("\u001b[2J at three")
        const found = day(...asked)
        Object.defineProperty(found, "position", {
          configurable: true,
          get: () => position,
          set: (to: number) => {
            if (++given === 4) throw new Error("at five")
            position = to
          }
        })
        return found
      }
      const records = [1, 2, 3, 4, 5, 6].map((id, offset) => dma(offset, id))
      const published: Array<string> = []
      const letters: Array<unknown> = []
      const count = { admitted: 0, sequenced: 0 }
      for (let at = 0; at < records.length; at += size) {
        const batch = run(records.slice(at, at + size))
        for (const { value } of toRecords(batch)) published.push(Buffer.from(value!).toString())
        for (const { headers } of toDeadRecords(batch.dead, 0)) letters.push([headers!.offset, headers!.reason])
        count.admitted += handedOn(batch, "deduplicate")
        count.sequenced += handedOn(batch, "sequence")
      }
      const ticks = published.map((text) => JSON.parse(text) as Tick)
      return { places: ticks.map((t) => [t.sequence_id, t.position]), letters, count }
    }
    const whole = outcome(6)
    assert.deepStrictEqual(whole, {
      places: [
        [1, 1],
        [2, 2],
        [4, 3],
        [6, 4]
      ],
      letters: [
        ["2", "deduplicate failed: RangeError: \\u001b[2J at three"],
        ["4", "sequence failed: Error: at five"]
      ],
      count: { admitted: 5, sequenced: 4 }
    })
    for (const size of [1, 2, 4]) assert.deepStrictEqual(outcome(size), whole)
  })

  it("begin a run anew after its end, wherever the array ends", () => {
    const headers = { replay: "r.1" }
    const records = [
      { ...dma(0, 1), headers },
      { ...dma(1, 2), headers },
      { ...dma(2, 0), value: null, headers: { ...headers, watermark: "1", end: "1" } },
      { ...dma(3, 1), headers },
      { ...dma(4, 2), headers }
    ]
    const positions = (size: number) => {
      const { run, states } = pipeline()
      const found = []
      for (let at = 0; at < records.length; at += size) found.push(...ticksOf(run(records.slice(at, at + size))))
      return [found.map((t) => t.position), [...states.runs.since(TEN)]]
    }
    assert.deepStrictEqual(positions(1), [[1, 2, 1, 2], [["r.1", 3]]])
    for (const size of [2, 3, 4, 5]) assert.deepStrictEqual(positions(size), positions(1))
  })

  it("refuse nothing of a replay for its number: it was let in when it was live", () => {
    const { run } = pipeline()
    const headers = { replay: "r.1" }
    const batch = run([
      { ...dma(0, 1, { session: 0 }), headers },
      { ...dma(1, 9_000_000, { session: 0 }), headers }
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => t.sequence_id),
      [1, 9_000_000]
    )
  })

  it("take prices below 0, each its own content", () => {
    const { run } = pipeline()
    const at = (offset: number, price: number) =>
      record(offset, TEN, { instrument_token: 1, exchange_ts: TEN, price, feed: "kite" })
    // The low 32 bits of −0.0000001 and 429.4967295, in ten-millionths, are the same.
    const batch = run([at(0, -37.63), at(1, 37.63), at(2, -0.0000001), at(3, 429.4967295), at(4, -37.63), at(5, -1e9)])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => t.price),
      [-37.63, 37.63, -0.0000001, 429.4967295, -1e9]
    )
    assert.strictEqual(tookOut(batch, "duplicate"), 1)
    assert.match(run([at(6, -1e9 - 1)]).dead[0]!.reason, /^price: expected a value between -1000000000 and 1000000000/)
  })

  it("leave out price 0 of a snapshot feed, which is none, and keep what it says of the day's volume", () => {
    const zero = (offset: number, more: object) =>
      record(offset, TEN + offset * 1_000_000, {
        instrument_token: 1,
        exchange_ts: TEN + offset * 1_000_000,
        price: 0,
        ...more
      })
    const records = [
      zero(0, { feed: "snapshot" }),
      zero(1, { feed: "kite", day_volume: 40 }),
      zero(2, { feed: "kite", day_volume: 100, price: 7 }),
      zero(3, { feed: "snapshot", sequence_id: 1, reset: true }),
      dma(4, 1), // its number was not taken
      zero(5, { sequence_id: 2 }) // a trade at 0
    ]
    const { run } = pipeline()
    const batch = run(records)
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => [t.price, t.volume, t.sequence_id > 0 ? t.sequence_id : 0, t.position]),
      [
        [7, 60, 0, 1],
        [101, 1, 1, 2],
        [0, 0, 2, 3]
      ]
    )
    assert.strictEqual(tookOut(batch, "zero_price"), 3)
    assert.strictEqual(handedOn(batch, "deduplicate"), handedOn(batch, "sequence") + tookOut(batch, "zero_price"))
    const kept = pipeline(undefined, { ZERO_PRICE: "keep" }).run(records)
    assert.deepStrictEqual(
      ticksOf(kept).map((t) => t.price),
      [0, 0, 7, 0, 101, 0]
    )
  })

  it("send a stamp too far ahead of record time to the DLQ, naming the field and the value", () => {
    const { run } = pipeline()
    const ahead = TEN + 5_000_001
    const batch = run([
      record(0, TEN, { instrument_token: 1, exchange_ts: ahead, price: 1 }),
      record(1, TEN, { instrument_token: 1, exchange_ts: ahead - 1, price: 1 })
    ])
    assert.strictEqual(batch.ticks.length, 1)
    assert.match(batch.dead[0]!.reason, new RegExp(`^exchange_ts: .* got ${ahead}$`))
  })

  it("open a session on reset, and join the one that the other feed just opened", () => {
    const { run } = pipeline()
    const batch = run([
      dma(0, 900),
      dma(101, 1, { connection: "a", reset: true }),
      dma(102, 1, { connection: "b", feed: "snapshot", reset: true, exchange_ts: TEN + 101_000_000 }),
      dma(103, 2, { connection: "b", feed: "snapshot" }),
      dma(104, 2, { connection: "a" }),
      // The same packet once more is no other reset.
      dma(105, 1, { connection: "a", reset: true, exchange_ts: TEN + 101_000_000 }),
      dma(106, 3, { connection: "a" }),
      dma(107, 1, { connection: "a", reset: true })
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => [t.session, t.sequence_id, t.feed]),
      [
        [0, 900, "dma"],
        [1, 1, "dma"],
        [1, 2, "snapshot"],
        [1, 3, "dma"],
        [2, 1, "dma"]
      ]
    )
  })

  it("take another stamp on the opening number as another numbering, however soon it comes", () => {
    const { run } = pipeline()
    const batch = run([
      dma(0, 1, { connection: "first run", reset: true }),
      dma(1, 2, { connection: "first run" }),
      dma(5, 1, { connection: "second run", reset: true }),
      dma(6, 2, { connection: "second run" })
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => [t.session, t.sequence_id]),
      [
        [0, 1],
        [0, 2],
        [1, 1],
        [1, 2]
      ]
    )
  })

  it("open a session where a connection not met before starts again without a word, and lose none of its ticks", () => {
    for (const sequencing of ["contiguous", "monotonic"]) {
      const { run } = pipeline()
      const batch = run([
        ...Array.from({ length: 600 }, (_, i) => dma(i, 1 + i, { connection: "a", sequencing })),
        // The last numbers are known by their content, the first by the stamps around them.
        ...Array.from({ length: 600 }, (_, i) => dma(600 + i, 1 + i, { connection: "b", sequencing })),
        // The other feed's copies, and the first connection once more.
        ...Array.from({ length: 600 }, (_, i) =>
          again(1200 + i, dma(600 + i, 1 + i, { connection: "c", feed: "snapshot", sequencing }))
        ),
        again(1800, dma(599, 600, { connection: "a", sequencing })),
        dma(1801, 601, { connection: "a", sequencing }),
        // A third that goes on with the first numbering under another name.
        again(1802, dma(1801, 601, { connection: "d", sequencing }))
      ])
      assert.deepStrictEqual(
        ticksOf(batch).map((t) => [t.session, t.sequence_id, t.status]),
        [
          ...Array.from({ length: 600 }, (_, i) => [0, 1 + i, "LIVE"]),
          ...Array.from({ length: 600 }, (_, i) => [1, 1 + i, "LIVE"]),
          [0, 601, "LIVE"],
          [1, 601, "LIVE"]
        ],
        sequencing
      )
      assert.deepStrictEqual(
        [batch.count.restarts, tookOut(batch, "duplicate"), batch.dead.length],
        [1, 601, 0],
        sequencing
      )
    }
  })

  it("open the next session on a reset soon after another's whose numbers have other contents", () => {
    const { run } = pipeline()
    const batch = run([
      dma(0, 5, { connection: "a", reset: true }),
      dma(1, 6, { connection: "a" }),
      dma(2, 6, { connection: "b", reset: true }),
      dma(3, 7, { connection: "b" }),
      // It agrees with the newest.
      again(4, dma(3, 7, { connection: "c", reset: true })),
      dma(5, 8, { connection: "c" })
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => [t.session, t.sequence_id]),
      [
        [0, 5],
        [0, 6],
        [1, 6],
        [1, 7],
        [1, 8]
      ]
    )
    assert.deepStrictEqual([batch.count.resets, tookOut(batch, "duplicate")], [1, 1])
  })

  it("keep what a known connection sends in conflict as dead letters, until later numbers follow one another", () => {
    const { run } = pipeline()
    const corrected = (offset: number, sequence_id: number) =>
      dma(offset, sequence_id, { exchange_ts: TEN + sequence_id, price: 7 })
    const batch = run([
      ...[0, 1, 2, 3, 4].map((offset) => dma(offset, 1 + offset)),
      // Put right afterwards: each stamped before the newest.
      corrected(5, 1),
      corrected(6, 2),
      corrected(7, 3),
      corrected(8, 4),
      // One stray number.
      dma(9, 2),
      dma(10, 6),
      // Started again under the same name.
      dma(11, 1),
      dma(12, 2),
      dma(13, 3),
      dma(14, 4),
      // Its first, sent again from the DLQ.
      again(15, dma(11, 1)),
      again(16, dma(12, 2))
    ])
    assert.deepStrictEqual(brief(ticksOf(batch)).slice(5), [
      [6, "LIVE", 0, 0, 6],
      [3, "STALE", 1, 1, 7],
      [4, "LIVE", 0, 1, 8],
      [1, "STALE", 0, 1, 9],
      [2, "STALE", 0, 1, 10]
    ])
    assert.deepStrictEqual(
      batch.dead.map(({ kind, record: { offset } }) => [kind, offset]),
      [5, 6, 7, 8, 9, 11, 12].map((offset) => ["conflict", offset])
    )
    assert.match(batch.dead[0]!.reason, /^sequence_id: 1 came before with another exchange_ts or price, .*"dma"/)
    assert.deepStrictEqual([batch.count.restarts, tookOut(batch, "duplicate")], [1, 0])
  })

  it("count what is sent again of long ago as duplicates, however far back its content is", () => {
    const { run } = pipeline()
    const day = Array.from({ length: 5000 }, (_, i) => dma(i, 1 + i))
    const batch = run([...day, ...day.map((record, i) => again(5000 + i, record))])
    assert.deepStrictEqual([tookOut(batch, "duplicate"), batch.dead.length, batch.ticks.length], [5000, 0, 5000])
  })

  it("let a snapshot without numbers pass only in a gap or in DMA silence, and count the rest", () => {
    const { run } = pipeline()
    const snapshot = (offset: number, price: number) =>
      record(offset, TEN + offset * 1_000_000, {
        instrument_token: 1,
        exchange_ts: TEN + offset * 1_000_000,
        price,
        feed: "snapshot"
      })
    const batch = run([
      snapshot(0, 1), // no DMA yet: silent
      dma(1, 1),
      snapshot(2, 2), // DMA speaks: suppressed
      dma(3, 3), // shows a gap
      snapshot(4, 4), // in the gap: passes
      dma(5, 4),
      dma(7, 5),
      snapshot(8, 5), // the gap's hold is over at 8: suppressed
      snapshot(10, 6) // 3 s of silence
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => [t.feed, t.price]),
      [
        ["snapshot", 1],
        ["dma", 101],
        ["dma", 103],
        ["snapshot", 4],
        ["dma", 104],
        ["dma", 105],
        ["snapshot", 6]
      ]
    )
    assert.strictEqual(tookOut(batch, "suppressed"), 2)
  })

  it("turn day totals into volumes: the first in mid-day sets the base, none is negative", () => {
    const { run } = pipeline()
    const total = (offset: number, day_volume: number) =>
      record(offset, TEN + offset * 1_000_000, {
        instrument_token: 1,
        exchange_ts: TEN + offset * 1_000_000,
        price: 1,
        feed: "kite",
        day_volume
      })
    const batch = run([total(0, 5000), total(1, 5100), total(2, 5050), total(3, 5250)])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => t.volume),
      [0, 100, 0, 150]
    )
  })

  it("take a first total as the segment of the instrument trades, whatever the time at NSE", () => {
    /** The volumes of two totals, the first of them at a time of 2026-01-14 or another date, IST. */
    const first = (token: number, clock: string, date = "2026-01-14") => {
      const at = Date.parse(`${date}T${clock}+05:30`) * 1000
      const total = (offset: number, day_volume: number) => {
        const exchange_ts = at + offset * 1_000_000
        return record(offset, exchange_ts, { instrument_token: token, exchange_ts, price: 1, feed: "kite", day_volume })
      }
      return ticksOf(pipeline().run([total(0, 50_000), total(1, 50_100)])).map((t) => t.volume)
    }
    const whole = [50_000, 100]
    const only = [0, 100]
    const MCX = 53_505_799
    assert.deepStrictEqual(first(MCX, "09:10:00"), only)
    assert.deepStrictEqual(first(MCX, "08:59:00"), whole)
    assert.deepStrictEqual(first(MCX, "09:00:59"), whole)
    assert.deepStrictEqual(first(MCX, "22:00:00"), only)
    // A holiday of NSE's and of the morning here, which opens at 17:00; a holiday of both.
    assert.deepStrictEqual(first(MCX, "17:00:30", "2026-01-15"), whole)
    assert.deepStrictEqual(first(MCX, "17:01:00", "2026-01-15"), only)
    assert.deepStrictEqual(first(738_561, "17:00:30", "2026-01-15"), only)
    assert.deepStrictEqual(first(MCX, "17:00:30", "2026-01-26"), only)
    for (const [token, segment] of [
      [738_561, "NSE"],
      [15_995_138, "NFO"],
      [128_083_204, "BSE"],
      [210_949_637, "BFO"],
      [256_265, "indices"],
      [1_000_000, "no code"]
    ] as const) {
      assert.deepStrictEqual(first(token, "09:10:00"), whole, segment)
      assert.deepStrictEqual(first(token, "09:15:30"), whole, segment)
      assert.deepStrictEqual(first(token, "09:16:00"), only, segment)
    }
    for (const token of [1_000_195, 1_000_198]) assert.deepStrictEqual(first(token, "09:05:00"), only, "currency")
    // The simulator's trade at all hours, whatever their low byte.
    for (const token of [9_000_001, 9_000_001 + 255]) assert.deepStrictEqual(first(token, "03:00:00"), only)
  })

  it("count the whole of a first total that comes with the open", () => {
    const { run } = pipeline()
    const open = Date.UTC(2026, 0, 14, 3, 45) * 1000
    const batch = run([record(0, open, { instrument_token: 1, exchange_ts: open, price: 1, day_volume: 70 })])
    assert.strictEqual(ticksOf(batch)[0]!.volume, 70)
  })

  it("give content without numbers one identity, whenever and however often it is sent", () => {
    const { run } = pipeline()
    const row = { instrument_token: 1, exchange_ts: TEN, price: 17525.1, feed: "kite" }
    const first = run([record(0, TEN, row), record(1, TEN, { ...row, occurrence: 1 }), record(2, TEN, row)])
    const again = pipeline().run([record(9, TEN + 99, { ...row, exchange_ts: "2026-01-15T10:00:00+05:30" })])
    assert.strictEqual(first.ticks.length, 2)
    assert.strictEqual(tookOut(first, "duplicate"), 1)
    assert.isBelow(ticksOf(first)[0]!.sequence_id, 0)
    assert.strictEqual(ticksOf(again)[0]!.sequence_id, ticksOf(first)[0]!.sequence_id)
  })

  it("mark ticks of an older day than the newest, and disturb neither", () => {
    const { run } = pipeline()
    const yesterday = { exchange_ts: TEN - 86_400_000_000 }
    const batch = run([
      dma(0, 1),
      dma(1, 1, { ...yesterday, price: 1 }),
      dma(2, 2),
      dma(3, 2, { ...yesterday, price: 2 }),
      dma(4, 3)
    ])
    assert.deepStrictEqual(
      ticksOf(batch).map((t) => [t.old, t.sequence_id, t.position, t.status]),
      [
        [false, 1, 1, "LIVE"],
        [true, 1, 1, "LIVE"],
        [false, 2, 2, "LIVE"],
        [true, 2, 2, "LIVE"],
        [false, 3, 3, "LIVE"]
      ]
    )
    const [today, before] = ticksOf(batch)
    assert.strictEqual(today!.epoch, 20468 * 1e9 + 36000)
    assert.strictEqual(before!.epoch, 20467 * 1e9 + 86400 + 36001)
  })

  it("tell which feed won and by how much", () => {
    const { run, leads } = pipeline()
    run([dma(0, 1), again(3, dma(0, 1, { feed: "snapshot" })), again(4, dma(0, 1))])
    assert.deepStrictEqual(leads, [["dma", 3_000_000]])
  })

  it("keep a replay's state apart from live and free it at its end", () => {
    const { run, states } = pipeline()
    const replayed = (offset: number, sequence_id: number) => ({
      ...dma(offset, sequence_id, { session: 2, received_ts: TEN + 5 }),
      headers: { replay: "r.1" }
    })
    const batch = run([
      dma(0, 1),
      replayed(1, 1),
      replayed(2, 2),
      dma(3, 2),
      { ...watermarkRecord({ run: "r.1", number: 1, end: true }), offset: 4, recordTime: TEN + 4_000_000 }
    ])
    assert.deepStrictEqual(
      batch.ticks.map(({ run: of, tick }) => [of, tick.session, tick.sequence_id, tick.position]),
      [
        ["", 0, 1, 1],
        ["r.1", 2, 1, 1],
        ["r.1", 2, 2, 2],
        ["", 0, 2, 2]
      ]
    )
    assert.strictEqual(batch.ticks[1]!.tick.received_ts, TEN + 5)
    assert.strictEqual(states.runs.size, 0)
    assert.deepStrictEqual(toRecords(batch)[4]!.headers, { replay: "r.1", watermark: "1", end: "1" })
  })

  it("let every row of a replay through, also numbers that were given again after the day's state was lost", () => {
    for (const sequencing of ["contiguous", "monotonic"] as const) {
      const { run } = pipeline()
      const replayed = (offset: number, second: number, sequence_id: number) => ({
        ...dma(offset, sequence_id, { session: 0, sequencing, exchange_ts: TEN + second * 1_000_000 }),
        headers: { replay: "r.1" }
      })
      const rows = [...[1, 2, 3].map((id) => [id, id] as const), ...[1, 2, 3].map((id) => [10 + id, id] as const)]
      // Records that are sent again bring the same rows.
      const sent = [0, 1, 0, 1, 2, 3, 4, 3, 4, 5].map((i) => rows[i]!)
      const batch = run(sent.map(([second, id], offset) => replayed(offset, second, id)))
      assert.deepStrictEqual(
        batch.ticks.map(({ tick }) => [tick.exchange_ts, tick.sequence_id, tick.session, tick.position, tick.status]),
        rows.map(([second, id], i) => [TEN + second * 1_000_000, id, 0, i + 1, "LIVE"])
      )
      assert.strictEqual(tookOut(batch, "duplicate"), 4)
    }
  })

  it("count no gap, fill or loss of a replay: what it misses was counted when it was live", () => {
    const { run } = pipeline()
    const replayed = (offset: number, sequence_id: number) => ({
      ...dma(offset, sequence_id, { session: 0 }),
      headers: { replay: "r.1" }
    })
    const batch = run([replayed(0, 1), replayed(1, 5), replayed(2, 3), replayed(20, 6)])
    assert.strictEqual(ticksOf(batch)[1]!.gap_from, 2)
    assert.deepStrictEqual([batch.count.gaps, batch.count.fills, batch.count.lost], [0, 0, 0])
  })

  it("send a tick found in a wrong partition on once, with the time it was received, then to the DLQ", () => {
    const right = partitionOf(1, 4)
    const wrong = (right + 1) % 4
    const misplaced = dma(3, 1)
    const first = pipeline({ partition: wrong, partitions: 4 }).run([misplaced])
    assert.strictEqual(first.ticks.length, 0)
    const [forward] = first.forwards
    assert.strictEqual(forward!.to, right)
    const there = { ...forward!.record, offset: 0, recordTime: TEN + 9_000_000 }
    const arrived = pipeline({ partition: right, partitions: 4 }).run([there])
    assert.strictEqual(ticksOf(arrived)[0]!.received_ts, misplaced.recordTime)
    assert.strictEqual(arrived.forwards.length, 0)
    const again = pipeline({ partition: wrong, partitions: 4 }).run([there])
    assert.strictEqual(again.forwards.length, 0)
    assert.match(again.dead[0]!.reason, new RegExp(`expected partition ${right} .* got ${wrong} again`))
  })

  it("take out every kind of unreadable record with its reason, bytes and place, and go on", () => {
    const { run } = pipeline()
    const of = (offset: number, value: Uint8Array | null): LogRecord => ({ offset, recordTime: TEN, key: "1", value })
    const text = (json: string) => Buffer.from(json)
    const good = `"instrument_token":1,"exchange_ts":${TEN}`
    const batch = run([
      of(0, null),
      of(1, Buffer.alloc(1_048_577, 32)),
      of(2, text("{")),
      of(3, text(`{${good},"price":NaN}`)),
      of(4, text(`{${good},"price":-1000000001}`)),
      of(5, text(`{${good},"price":1,"sequence_id":-4}`)),
      of(6, text(`[]`)),
      of(7, text(`{${good},"price":1}`)),
      of(8, text(`{${good},"price":1,"feed":"d\\u0000a"}`)),
      of(9, text(`{${good},"price":1,"connection":"\\u001b]0;x"}`)),
      of(10, text(`{${good},"price":1,"connection":"${"c".repeat(65)}"}`)),
      {
        ...of(11, Buffer.from("a batch")),
        key: null,
        unreadable: { message: "the batch at offset 9 is none", records: 3 }
      }
    ])
    assert.deepStrictEqual(
      batch.dead.map(({ kind, record: { offset } }) => [offset, kind]),
      [
        [0, "tombstone"],
        [1, "too_large"],
        [2, "undecodable"],
        [3, "undecodable"],
        [4, "invalid"],
        [5, "invalid"],
        [6, "invalid"],
        [8, "invalid"],
        [9, "invalid"],
        [10, "invalid"],
        [11, "undecodable"]
      ]
    )
    assert.strictEqual(batch.ticks.length, 1)
    assert.strictEqual(batch.nextOffset, 12)
    const [, , , , negative, , , nul, control, long, unreadable] = toDeadRecords(batch.dead, 3)
    assert.match(nul!.headers!.reason!, /^feed: expected a name without control characters/)
    assert.match(control!.headers!.reason!, /^connection: expected a name without control characters/)
    assert.match(long!.headers!.reason!, /^connection: /)
    assert.deepStrictEqual(unreadable!.headers, {
      reason: "the batch at offset 9 is none",
      topic: "raw_ticks",
      partition: "3",
      offset: "11",
      index: "0",
      batch: "1"
    })
    assert.deepStrictEqual(negative!.headers, {
      reason: "price: expected a value between -1000000000 and 1000000000, got -1000000001",
      topic: "raw_ticks",
      partition: "3",
      offset: "4",
      index: "0"
    })
    assert.strictEqual(negative!.value, batch.dead[4]!.record.value)
    // What was written before a kill is not written again.
    const later = toDeadRecords(batch.dead, 3, { offset: 4, index: 0 })
    assert.deepStrictEqual(
      later.map(({ headers }) => headers!.offset),
      ["5", "6", "8", "9", "10", "11"]
    )
  })
})

/** A small seeded generator (mulberry32). */
const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

/** Raw records of every kind that decides something: both feeds, resets, gaps, silence, old days, replays, poison. */
const mixed = (seed: number, length: number): ReadonlyArray<LogRecord> => {
  const next = random(seed)
  const last = [0, 0, 0]
  let time = TEN
  const made: Array<LogRecord> = []
  const make = (offset: number): LogRecord => {
    time += Math.floor(next() * 400_000)
    const token = Math.floor(next() * 3)
    const kind = next()
    if (kind < 0.02) return { offset, recordTime: time, key: null, value: Buffer.from("{") }
    if (kind < 0.04) return record(offset, time, { instrument_token: token + 1, exchange_ts: time + 6e6, price: 1 })
    const isNumbered = next() < 0.7
    const jump =
      next() < 0.1 ? Math.floor(next() * 5) : next() < 0.2 ? -Math.floor(next() * 6) : next() < 0.02 ? 3e6 : 1
    const sequence_id = Math.max(1, last[token]! + jump)
    if (isNumbered) last[token] = Math.max(last[token]!, sequence_id)
    const isOld = next() < 0.05
    const isReplay = next() < 0.1
    const isAgain = next() < 0.1 && offset > 0
    if (isAgain) return { ...made[Math.floor(next() * offset)]!, offset, recordTime: time }
    return record(
      offset,
      time,
      {
        instrument_token: token + 1,
        exchange_ts: time - (isOld ? 86_400_000_000 : 0),
        price: Math.floor(next() * 4) - 1,
        feed: next() < 0.5 ? "dma" : "snapshot",
        ...(isNumbered ? { sequence_id } : {}),
        ...(!isNumbered && next() < 0.5 ? { day_volume: Math.floor((time - TEN) / 1e5) } : { volume: 1 }),
        ...(isNumbered && !isReplay && next() < 0.03 ? { reset: true } : {}),
        ...(isReplay ? { sequence_id, session: 0 } : {})
      },
      isReplay ? { replay: "r.1" } : undefined
    )
  }
  for (let offset = 0; offset < length; offset++) made.push(make(offset))
  return made
}

describe("determinism (P2)", () => {
  it("publishes the same bytes however the partition is cut into arrays", () => {
    for (let seed = 1; seed <= 30; seed++) {
      const records = mixed(seed, 600)
      const cut = (sizes: () => number) => {
        const { run } = pipeline()
        const out: Array<string> = []
        const dead: Array<string> = []
        const counts: Record<string, number> = {}
        for (let at = 0; at < records.length; ) {
          const size = sizes()
          const batch = run(records.slice(at, at + size))
          at += size
          for (const { value, headers } of toRecords(batch)) {
            out.push(`${headers?.replay ?? ""} ${Buffer.from(value!).toString()}`)
          }
          for (const letter of batch.dead) dead.push(`${letter.record.offset} ${letter.reason}`)
          for (const [name, n] of Object.entries(batch.count)) counts[name] = (counts[name] ?? 0) + n
        }
        // What is counted as lost depends on when the count is read, not on what is published.
        return { out, dead: dead.sort(), duplicates: counts.duplicates, suppressed: counts.suppressed }
      }
      const whole = cut(() => records.length)
      const next = random(seed + 1000)
      assert.deepStrictEqual(
        cut(() => 1),
        whole,
        `seed ${seed}`
      )
      assert.deepStrictEqual(
        cut(() => 1 + Math.floor(next() * 50)),
        whole,
        `seed ${seed}`
      )
    }
  })

  it("closes the account of every batch (P1): read = published + duplicates + suppressed + priceless + dead", () => {
    const { run } = pipeline()
    const records = mixed(99, 5000)
    const batch = run(records)
    const [duplicates, suppressed, priceless] = ["duplicate", "suppressed", "zero_price"].map((reason) =>
      tookOut(batch, reason)
    ) as [number, number, number]
    const out = duplicates + suppressed + priceless + batch.dead.length
    assert.strictEqual(toRecords(batch).length + out, records.length)
    assert.isAbove(priceless, 0)
    assert.isAbove(duplicates, 0)
    assert.isAbove(batch.count.restarts, 0)
    assert.isAbove(batch.count.jumps, 0)
    assert.isAbove(suppressed, 0)
  })

  it("gives positions without a hole in each instrument, day and epoch, and only rising sources", () => {
    const { run } = pipeline()
    const batch = run(mixed(7, 5000))
    const positions = new Map<string, number>()
    let offset = -1
    for (const { tick, run: of } of batch.ticks) {
      const key = `${of} ${tick.instrument_token} ${tick.epoch}`
      assert.strictEqual(tick.position, (positions.get(key) ?? 0) + 1)
      positions.set(key, tick.position)
      assert.isAbove(tick.source[1], offset)
      offset = tick.source[1]
    }
  })
})
