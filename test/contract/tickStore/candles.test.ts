/** Decides, for the store on every database, what a bar is: what its ticks say, whatever came when and was refreshed when. */
import { assert } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { intervalMinutes } from "../../../src/schema/Candle.ts"
import { type Tick, tradingDayStart } from "../../../src/schema/Tick.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { DAY, EPOCH, makeTick, OPEN } from "../ticks.ts"
import {
  assertBars,
  candles,
  HOUR,
  intervals,
  MINUTE,
  marksOf,
  newToken,
  pages,
  Rows,
  range,
  recompute,
  refreshAll,
  thisMinute,
  write
} from "./rows.ts"
import { onEachStore, sql } from "./stores.ts"

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/**
 * Few minutes, few instants in them and few numbers: ties, duplicates and late ticks are the rule. The minutes of an
 * old day: 14 January 15:29, midnight between two trading days, 09:14 to 09:16, 10:44 and 10:45. Of this day: what is
 * long over, just over, going on and to come.
 */
const MINUTES = {
  old: [-1066, -556, -555, -1, 0, 1, 89, 90],
  live: [-700, -61, -20, -7, -4, -1, 0, 3]
}
const AnyTick = Schema.Struct({
  minute: int(0, 7),
  instant: int(0, 3),
  sequence_id: int(-3, 4),
  price: int(1, 20),
  volume: int(0, 9),
  epoch: int(0, 1),
  status: Schema.Literals(["LIVE", "STALE"])
})
const Step = Schema.Union([
  Schema.TaggedStruct("write", {
    ticks: Schema.Array(AnyTick),
    replayed: Schema.Array(AnyTick),
    // whether a refresh runs meanwhile
    refreshing: Schema.Boolean
  }),
  Schema.TaggedStruct("refresh", {})
])
const Day = Schema.Literals(["old", "live"])
const steps = Arbitrary.array(Arbitrary.schema(Step), { minLength: 1, maxLength: 12 })

onEachStore("candles", (it, { level }) => {
  it.effect.prop(
    "equal a recompute from the ticks at every interval, whatever came when and was refreshed when",
    [steps, Arbitrary.schema(Day)],
    ([taken, day]) =>
      Effect.gen(function* () {
        const token = newToken()
        const rows = new Rows()
        const { refreshCandles } = yield* TickStore
        const first = day === "old" ? OPEN : thisMinute()
        let position = 0
        const tick = (t: typeof AnyTick.Type): Tick =>
          makeTick({
            instrument_token: token,
            exchange_ts: first + MINUTES[day][t.minute]! * MINUTE + t.instant * 19_999_999,
            sequence_id: t.sequence_id,
            price: t.price / 4,
            volume: t.volume,
            status: t.status,
            epoch: EPOCH + t.epoch,
            position: ++position
          })
        for (const step of taken) {
          if (step._tag === "refresh") {
            yield* refreshCandles
            continue
          }
          const ticks = step.ticks.map(tick)
          const replayed = step.replayed.map(tick)
          const written = write(ticks, replayed)
          const [{ added }] = step.refreshing
            ? yield* Effect.all([written, refreshCandles], { concurrency: "unbounded" })
            : [yield* written]
          assert.strictEqual(added, rows.write(ticks, replayed))
          yield* assertBars(token, rows)
        }
        assert.deepStrictEqual(yield* pages(token, 5), rows.sorted())
        yield* assertBars(token, rows)
      }),
    { arbitrary: { runs: 50 } }
  )

  it.effect(
    "start at 09:15 and its multiples, days at midnight, and answer from, to and limit by the bar's start",
    () =>
      Effect.gen(function* () {
        const token = newToken()
        const rows = new Rows()
        const ticks = range(600).map((n) =>
          makeTick({
            instrument_token: token,
            exchange_ts: OPEN - 2 * HOUR + n * MINUTE * 3,
            sequence_id: n,
            position: n + 1,
            price: ((n * 37) % 101) + 1
          })
        )
        rows.write(ticks, [])
        yield* write(ticks)
        const { candles, refreshCandles } = yield* TickStore
        // half of it materialised, half of it not
        yield* refreshCandles
        const late = { ...ticks[100]!, sequence_id: 10_000, position: 601, price: 5000 }
        rows.write([late], [])
        yield* write([late])
        const sorted = rows.sorted()
        for (const interval of intervals) {
          const all = recompute(sorted, interval)
          const origin = interval === "1d" ? tradingDayStart(DAY) : OPEN
          const width = intervalMinutes[interval] * MINUTE
          for (const bar of all) assert.isTrue(Number.isInteger((bar.ts - origin) / width), interval)
          for (const [from, to] of [
            [all[1]!.ts, all.at(-1)!.ts],
            [all[0]!.ts + 1, all.at(-1)!.ts + 1],
            [all[0]!.ts - 1, all[0]!.ts]
          ] as const) {
            const within = all.filter((bar) => bar.ts >= from && bar.ts < to)
            for (const limit of [1, 5, 10_000]) {
              assert.deepStrictEqual(
                yield* candles({ instrument_token: token, interval, from, to, limit }),
                within.slice(0, limit),
                `${interval} ${limit}`
              )
            }
          }
        }
      })
  )

  it.effect("are refreshed once their minute is over, and only while a mark says so", () =>
    Effect.gen(function* () {
      const token = newToken()
      const tick = makeTick({ instrument_token: token })
      yield* write([tick])
      assert.strictEqual(yield* marksOf(token), 1)
      yield* refreshAll
      assert.strictEqual(yield* marksOf(token), 0)
      yield* write([tick])
      yield* write([], [tick])
      assert.strictEqual(yield* marksOf(token), 0)
      // A minute that is not over is left until nothing has come to it for a while; an aggregate needs no mark for
      // what no refresh can have passed.
      const soon = (Date.now() + 3_600_000) * 1000
      yield* write([{ ...tick, exchange_ts: soon, received_ts: soon }])
      const came = (when: string) =>
        sql(`UPDATE candle_marks SET marked_at = now() ${when} INTERVAL '1 hour' WHERE instrument_token = ${token}`)
      yield* came("+")
      yield* refreshAll
      assert.strictEqual(yield* marksOf(token), level === "community" ? 0 : 1)
      yield* came("-")
      yield* refreshAll
      assert.strictEqual(yield* marksOf(token), 0)
      assert.strictEqual((yield* candles(token, "1m")).length, 2)
    })
  )
})
