/** Decides, for the store on every database, what the day so far is. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { Interval } from "../../../src/schema/Candle.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { makeTick, OPEN } from "../ticks.ts"
import { asStored, HOUR, newToken, write } from "./rows.ts"
import { onEachStore } from "./stores.ts"

onEachStore("days so far", (it) => {
  it.effect("show the last tick and its trading day, refreshed or not", () =>
    Effect.gen(function* () {
      const { daysSoFar, refreshCandles } = yield* TickStore
      const [one, two, none] = [newToken(), newToken(), newToken()]
      const tick = (instrument_token: number, at: number, price: number, sequence_id: number) =>
        makeTick({
          instrument_token,
          exchange_ts: OPEN + at,
          price,
          sequence_id,
          position: sequence_id,
          volume: 10
        })
      const last = tick(one, 3 * HOUR, 104, 6)
      const ticks = [
        tick(one, -24 * HOUR, 900, 1),
        tick(one, 0, 101, 2),
        tick(one, HOUR, 110, 3),
        tick(one, 2 * HOUR, 95, 4),
        tick(one, 3 * HOUR, 103, 5),
        last,
        tick(two, -48 * HOUR, 7, 9)
      ]
      yield* write(ticks)
      const expected = new Map([
        [one, { last: asStored(last), open: 101, high: 110, low: 95, volume: 50 }],
        [two, { last: asStored(ticks[6]!), open: 7, high: 7, low: 7, volume: 10 }]
      ])
      assert.deepStrictEqual(yield* daysSoFar([one, none, two, one]), expected)
      yield* refreshCandles
      assert.deepStrictEqual(yield* daysSoFar([one, two]), expected)
      assert.deepStrictEqual(yield* daysSoFar([]), new Map())
    })
  )

  it.effect("sum volumes up to the largest safe integer, as bars of every interval do, refreshed or not", () =>
    Effect.gen(function* () {
      const { daysSoFar, candles, refreshCandles } = yield* TickStore
      const token = newToken()
      const large = { instrument_token: token, volume: Number.MAX_SAFE_INTEGER }
      yield* write([
        makeTick({ ...large, sequence_id: 1, position: 1 }),
        makeTick({ ...large, sequence_id: 2, position: 2, exchange_ts: OPEN + 1 }),
        makeTick({ ...large, sequence_id: 3, position: 3, exchange_ts: OPEN + 60_000_000 })
      ])
      const check = Effect.gen(function* () {
        assert.strictEqual((yield* daysSoFar([token])).get(token)?.volume, Number.MAX_SAFE_INTEGER)
        for (const interval of Interval.literals) {
          const query = { instrument_token: token, interval, from: OPEN - 24 * HOUR, to: OPEN + HOUR, limit: 1 }
          assert.strictEqual((yield* candles(query))[0]?.volume, Number.MAX_SAFE_INTEGER, interval)
        }
      })
      yield* check
      yield* refreshCandles
      yield* check
    })
  )
})
