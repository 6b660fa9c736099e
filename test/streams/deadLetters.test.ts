import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as MemoryLog from "../../src/layers/memory/MemoryLog.ts"
import { retryLetters } from "../../src/streams/deadLetters.ts"
import { type NewRecord, TickLog } from "../../src/streams/log/TickLog.ts"

describe("dead letters sent again", () => {
  it.effect("stay a replay's where they were one: without the header they would be live ticks", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const value = Buffer.from(`{"instrument_token":1,"exchange_ts":1768448700000000,"price":1,"sequence_id":5}`)
      const letters: ReadonlyArray<NewRecord> = [
        { key: null, value, headers: { reason: "a", replay: "r.1" } },
        { key: null, value, headers: { reason: "a" } }
      ]
      yield* log.append("raw_ticks_dlq", 0, letters)
      const sent: Array<NewRecord> = []
      const done = yield* retryLetters(log, {}, { from: { partition: 0, offset: 0 }, ends: [2] }, (_, records) =>
        Effect.sync(() => sent.push(...records))
      )
      assert.strictEqual(done.sent, 2)
      assert.deepStrictEqual(
        sent.map(({ headers }) => headers),
        [{ replay: "r.1" }, undefined]
      )
    }).pipe(Effect.provide(MemoryLog.layer({ partitions: 1, capacity: 10, dlqCapacity: 10, retained: 10, batch: 5 })))
  )
})
