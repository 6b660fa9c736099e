import { assert, describe, it } from "@effect/vitest"
import type { LogRecord } from "../../../src/streams/log/TickLog.ts"
import { unclaimed } from "../../../src/streams/process/claim.ts"
import { makeStates, stages } from "../../../src/streams/process/process.ts"
import { checkpointOf, restore } from "../../../src/streams/process/recover.ts"
import { settings, TEN, tookOut } from "./stageTests.ts"

const marks = { rawIncarnation: "raw", rawOffset: 0, normalizedIncarnation: "normalized", normalizedOffset: 0 }

const pipeline = (states = makeStates()) => {
  const stage = stages(states, "raw", { partition: 0, partitions: 1 }, settings, () => {})
  const run = (records: ReadonlyArray<LogRecord>) =>
    stage.quote(stage.sequence(unclaimed(stage.deduplicate(stage.normalize(stage.decode(records))))))
  return { run, states }
}

/** A tick that is stamped, and taken in, `offset` seconds after ten. */
const tick = (offset: number, instrument_token: number, more: object = {}): LogRecord => ({
  offset,
  recordTime: TEN + offset * 1_000_000,
  key: null,
  value: Buffer.from(
    JSON.stringify({ instrument_token, exchange_ts: TEN + offset * 1_000_000, price: 100, volume: 1, ...more })
  )
})

describe("the state of a partition, kept and put back", () => {
  it("gives no gap up a second time that was given up after its instrument was kept", () => {
    const { run, states } = pipeline()
    run([tick(0, 1, { sequence_id: 1 }), tick(1, 1, { sequence_id: 4 })])
    const since = TEN + 1_000_000
    const first = checkpointOf(states, states.live.changedSince(0), since, marks)
    // The gap's time is over while its instrument is silent: what changed since does not name it.
    const later = [tick(9, 2, { sequence_id: 1 }), tick(10, 2, { sequence_id: 4 })]
    assert.strictEqual(run(later).count.lost, 2)
    const changed = states.live.changedSince(since + 1)
    const second = checkpointOf(states, changed, TEN + 10_000_000, marks)
    const kept = restore({ instruments: new Map([...first.instruments, ...second.instruments]) })!
    const after = pipeline(kept.states).run([tick(12, 1, { sequence_id: 5 }), tick(13, 1, { sequence_id: 2 })])
    assert.deepStrictEqual([after.count.lost, after.count.fills], [0, 0])
    // The one that was open stays so.
    assert.strictEqual(pipeline(kept.states).run([tick(14, 2, { sequence_id: 2 })]).count.fills, 1)
  })

  it("reads a state of before contents were kept: none of its numbers is in conflict, those that follow are", () => {
    const { run, states } = pipeline()
    run([1, 2, 3].map((id) => tick(id, 1, { sequence_id: id })))
    const { newest } = states.live.instruments.get(1)!
    const [session] = newest.sessions
    const ids = session!.ids.encode()
    const json = Buffer.from(
      JSON.stringify([
        {
          token: 1,
          day: newest.day,
          epoch: newest.epoch,
          position: 3,
          dma: newest.lastDma,
          published: 3,
          base: -1,
          touched: newest.touched,
          connections: [["dma", 0, -1, -1]],
          sessions: [
            { at: TEN, by: "dma", id: 1, ts: TEN, last: 3, missing: [], sizes: [ids.length, 0] },
            { at: TEN, by: "dma", id: 1, ts: TEN, last: -1, missing: [], sizes: [0, 8] }
          ]
        }
      ])
    )
    const head = Buffer.alloc(5)
    head[0] = 1
    head.writeUInt32LE(json.length, 1)
    const hashes = new Uint8Array(new Float64Array([77]).buffer)
    const marksOf = Buffer.concat([Buffer.from([1]), Buffer.from(JSON.stringify({ runs: [], time: TEN, lost: null }))])
    const instruments = new Map([
      [0, Uint8Array.from(marksOf)],
      [1, Uint8Array.from(Buffer.concat([head, json, ids, hashes]))]
    ])
    const kept = restore({ instruments })!
    assert.isTrue(kept.states.live.instruments.get(1)!.newest.sessions[1]!.hashes.has(77))
    const after = pipeline(kept.states).run([
      tick(4, 1, { sequence_id: 4 }),
      tick(5, 1, { sequence_id: 2, price: 7 }),
      tick(6, 1, { sequence_id: 4, price: 7 })
    ])
    assert.deepStrictEqual(
      after.ticks.map(({ tick }) => [tick.sequence_id, tick.position]),
      [[4, 4]]
    )
    assert.deepStrictEqual(
      after.dead.map(({ kind, record: { offset } }) => [kind, offset]),
      [["conflict", 6]]
    )
    assert.strictEqual(tookOut(after, "duplicate"), 1)
  })

  it("reads a state of before quotes were kept: nothing is known of book and day, and all else is", () => {
    const { run, states } = pipeline()
    run([tick(0, 1, { sequence_id: 1 })])
    const { instruments } = checkpointOf(states, [1], TEN, marks)
    const before = new Map([...instruments].map(([token, bytes]) => [token, Uint8Array.from(bytes)]))
    for (const bytes of before.values()) bytes[0] = 2
    const kept = restore({ instruments: before })!
    const after = pipeline(kept.states).run([tick(1, 1, { sequence_id: 2, quote: { oi: 1 } })])
    assert.deepStrictEqual(
      after.ticks.map(({ tick }) => tick.position),
      [2]
    )
    assert.deepStrictEqual(
      after.quotes.map(({ quote }) => [quote.oi, quote.bid]),
      [[1, undefined]]
    )
    for (const bytes of before.values()) bytes[0] = 4
    assert.isUndefined(restore({ instruments: before }))
  })

  it("knows the content of numbers again, contiguous or not", () => {
    const { run, states } = pipeline()
    const before = [
      ...[1, 2, 3].map((id) => tick(id, 1, { sequence_id: id })),
      ...[1, 5, 9].map((id) => tick(id, 2, { sequence_id: id, sequencing: "monotonic" }))
    ]
    run(before)
    const kept = restore(checkpointOf(states, [1, 2], TEN, marks))!
    const after = pipeline(kept.states).run([
      ...before,
      tick(10, 1, { sequence_id: 2 }),
      tick(11, 2, { sequence_id: 5, sequencing: "monotonic" })
    ])
    assert.deepStrictEqual([tookOut(after, "duplicate"), after.dead.length], [6, 2])
  })

  it("forgets the instruments silent longest where there are too many, the same ones over a restored state", () => {
    const max = 32
    /** Every instrument once, a third of them again and again, and now and then one that was forgotten. */
    const at = (i: number): LogRecord => {
      const token = i % 3 === 0 ? 1 + (i % 5) : i % 7 === 0 ? 6 + (i % 40) : 1000 + i
      const exchange_ts = TEN + Math.floor(i / 4) * 1_000_000
      return { ...tick(i, token, { sequence_id: i, exchange_ts }), recordTime: exchange_ts }
    }
    const records = Array.from({ length: 3000 }, (_, i) => at(i))
    const published = (out: ReturnType<ReturnType<typeof pipeline>["run"]>) => out.ticks.map(({ tick }) => tick)
    const whole = pipeline(makeStates(max))
    const expected = published(whole.run(records))
    assert.isAtMost(whole.states.live.instruments.size, max)
    for (const token of [1, 2, 3, 4, 5]) assert.strictEqual(whole.states.live.instruments.has(token), true)

    // Kept every 20 records, taken up again from there.
    const kept = new Map<number, Uint8Array>()
    let { states } = pipeline(makeStates(max))
    const found: typeof expected = []
    let since = Number.NEGATIVE_INFINITY
    let forgotten = 0
    for (let from = 0; from < records.length; from += 20) {
      const batch = pipeline(states).run(records.slice(from, from + 20))
      found.push(...published(batch))
      forgotten += batch.count.forgotten
      assert.strictEqual(batch.count.instruments, states.live.instruments.size)
      if (states.live.gone === "others") since = Number.NEGATIVE_INFINITY
      const { instruments, gone = [] } = checkpointOf(states, states.live.changedSince(since), batch.recordTime, marks)
      if (gone === "others") kept.clear()
      else for (const token of gone) kept.delete(token)
      for (const [token, bytes] of instruments) kept.set(token, bytes)
      since = batch.recordTime
      assert.isAtMost(kept.size, max + 1)
      states = restore({ instruments: kept }, max)!.states
    }
    assert.isAbove(forgotten, 1000)
    assert.deepStrictEqual(found, expected)
  })

  it("begins a later epoch where a forgotten instrument comes back, even in the second in which it began", () => {
    const { run } = pipeline(makeStates(16))
    const once = (offset: number, token: number): LogRecord => ({
      ...tick(0, token, { sequence_id: offset }),
      offset,
      recordTime: TEN + offset
    })
    const order = Array.from({ length: 400 }, (_, i) => once(i, 1 + (i % 20)))
    const epochs = new Map<number, number>()
    const positions = new Map<string, number>()
    for (const { tick } of run(order).ticks) {
      assert.isAtLeast(tick.epoch, epochs.get(tick.instrument_token) ?? 0)
      epochs.set(tick.instrument_token, tick.epoch)
      const key = `${tick.instrument_token} ${tick.epoch}`
      assert.strictEqual(tick.position, (positions.get(key) ?? 0) + 1)
      positions.set(key, tick.position)
    }
    assert.strictEqual(positions.size, 400)
  })

  it("begins a later epoch where an old day comes back that was dropped for another in the same second", () => {
    const { run } = pipeline()
    const day = (offset: number, ago: number): LogRecord => ({
      ...tick(0, 1, { exchange_ts: TEN - ago * 86_400_000_000 + offset, price: 1 }),
      offset,
      recordTime: TEN + offset
    })
    const ticks = run([0, 1, 2, 3, 4, 1, 2, 3, 4].map((ago, offset) => day(offset, ago))).ticks.map(({ tick }) => tick)
    const places = new Set(ticks.map(({ epoch, position }) => `${epoch} ${position}`))
    assert.strictEqual(places.size, ticks.length)
  })

  it("names all that is gone, and then no more than it holds: where nothing is kept, the list does not grow", () => {
    const { run, states } = pipeline(makeStates(16))
    run(Array.from({ length: 20 }, (_, i) => tick(i, 1 + i)))
    const { gone } = checkpointOf(states, [], TEN, marks)
    assert.deepStrictEqual(gone, [1, 2, 3, 4])
    run(Array.from({ length: 40 }, (_, i) => tick(20 + i, 100 + i)))
    assert.strictEqual(checkpointOf(states, [], TEN, marks).gone, "others")
  })

  it("goes on with a run beyond a jump where it was", () => {
    const { run, states } = pipeline()
    run([tick(0, 1, { sequence_id: 1 }), tick(1, 1, { sequence_id: 5e6 }), tick(2, 1, { sequence_id: 5e6 + 1 })])
    const kept = restore(checkpointOf(states, [1], TEN, marks))!
    const next = tick(3, 1, { sequence_id: 5e6 + 2 })
    const [third] = pipeline(kept.states).run([next]).ticks
    assert.deepStrictEqual(third?.tick, run([next]).ticks[0]!.tick)
  })
})
