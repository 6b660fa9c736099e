import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import type { Tick } from "../../src/schema/Tick.ts"
import { pickRows, type TickColumns, TickQueue, toColumns } from "../../src/schema/TickColumns.ts"
import { tickFields } from "../../src/schema/tickFields.ts"
import { makeTick, OPEN } from "../contract/ticks.ts"

/** The ticks again, field by field. */
const ticksOf = (columns: TickColumns): ReadonlyArray<Tick> =>
  Array.from(columns.price, (price, i) => ({
    instrument_token: columns.instrument_token[i]!,
    exchange_ts: columns.exchange_ts[i]!,
    price,
    volume: columns.volume[i]!,
    sequence_id: columns.sequence_id[i]!,
    status: tickFields.status.words[columns.status[i]!]!,
    gap_from: columns.gap_from[i]!,
    session: columns.session[i]!,
    sequencing: tickFields.sequencing.words[columns.sequencing[i]!]!,
    epoch: columns.epoch[i]!,
    position: columns.position[i]!,
    feed: columns.feed.names[columns.feed.indexes[i]!]!,
    received_ts: columns.received_ts[i]!,
    source: [
      columns.source_incarnation.names[columns.source_incarnation.indexes[i]!]!,
      columns.source_offset[i]!,
      columns.source_index[i]!
    ],
    old: columns.old[i] === 1
  }))

/** Ticks of which no two are alike, their names and flags in turns. */
const run = (from: number, count: number): ReadonlyArray<Tick> =>
  Array.from({ length: count }, (_, n) => {
    const i = from + n
    return makeTick({
      instrument_token: 2_147_483_647 - i,
      exchange_ts: OPEN + i,
      price: 0.1 + i,
      volume: 2 ** 53 - 1 - i,
      sequence_id: i % 5 === 0 ? -(2 ** 48) : i,
      status: i % 3 === 0 ? "STALE" : "LIVE",
      gap_from: i % 3 === 0 ? i : 0,
      session: i % 1000,
      sequencing: (["contiguous", "monotonic", "none"] as const)[i % 3]!,
      position: i + 1,
      feed: i % 7 === 0 ? "snapshot" : `feed ${Math.floor(i / 3000)} ☂`,
      source: [`raw-${Math.floor(i / 5000)}`, 2 ** 53 - 1 - i, i % 11],
      old: i % 13 === 0
    })
  })

const count = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 5000 })))
/** So many ticks are put in, then up to so many taken out. */
const steps = Arbitrary.array(Arbitrary.schema(Schema.Struct({ append: count, drop: count })), { maxLength: 6 })

describe("columns of ticks", () => {
  it("give back every field exactly", () => {
    const ticks = run(0, 200)
    assert.deepStrictEqual(ticksOf(toColumns(ticks)), ticks)
    assert.deepStrictEqual(ticksOf(toColumns([])), [])
  })

  it("give some of their rows in the order asked for, with the names of those alone", () => {
    const ticks = run(2990, 30)
    const picked = pickRows(toColumns(ticks), [29, 0, 7])
    assert.deepStrictEqual(ticksOf(picked), [ticks[29]!, ticks[0]!, ticks[7]!])
    assert.deepStrictEqual(picked.feed.names, [ticks[29]!.feed, ticks[0]!.feed])
  })

  it("survive the way to another thread, which leaves them as they are", () => {
    const ticks = run(0, 50)
    const columns = toColumns(ticks)
    assert.deepStrictEqual(ticksOf(structuredClone(columns)), ticks)
    assert.deepStrictEqual(ticksOf(columns), ticks)
  })
})

describe("a queue of ticks", () => {
  it.effect.prop("agrees with a list on whatever is put in and taken out", [steps], ([given]) =>
    Effect.sync(() => {
      const queue = new TickQueue()
      let list: ReadonlyArray<Tick> = []
      let made = 0
      for (const { append, drop } of given) {
        const ticks = run(made, append)
        made += append
        queue.append(ticks)
        list = [...list, ...ticks]
        const taken = Math.min(drop, list.length)
        assert.deepStrictEqual(ticksOf(queue.peek(taken)), list.slice(0, taken))
        if (append % 2 === 0) queue.drop(taken)
        else assert.deepStrictEqual(queue.take(taken), list.slice(0, taken))
        list = list.slice(taken)
        assert.strictEqual(queue.length, list.length)
      }
      assert.deepStrictEqual(ticksOf(queue.peek(queue.length)), list)
    })
  )
})
