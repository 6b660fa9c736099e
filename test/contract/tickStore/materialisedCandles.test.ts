/** Decides, for the store on every database, that bars which are kept stay what their ticks say, whatever comes late. */
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { epochOf, type Tick } from "../../../src/schema/Tick.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { DAY, EPOCH, makeTick, OPEN } from "../ticks.ts"
import {
  assertBars,
  candles,
  HOUR,
  MINUTE,
  marksOf,
  newToken,
  pages,
  Rows,
  range,
  refreshAll,
  thisMinute,
  write
} from "./rows.ts"
import { holding, onEachStore, sql } from "./stores.ts"

onEachStore("candles that are materialised", (it, { name, level }) => {
  it.effect("open and close as ties say: by number, then epoch, then position, what has none last", () =>
    Effect.gen(function* () {
      const token = newToken()
      const rows = new Rows()
      let price = 0
      const tick = (minute: number, sequence_id: number, epoch: number, position: number) =>
        makeTick({
          instrument_token: token,
          exchange_ts: OPEN + minute * MINUTE,
          sequence_id,
          epoch: EPOCH + epoch,
          position,
          price: ++price
        })
      // All of one stamp in each minute, written in no order; numbers of ten digits, which text would sort wrongly.
      const ticks = [
        ...[9, 2_000_000_000, 1, 10].map((n) => tick(0, n, 0, 3_000_000_000 - n)),
        ...[
          [0, 7],
          [1, 3],
          [0, 2],
          [1, 30]
        ].map(([epoch, position]) => tick(1, -price - 1, epoch!, position!)),
        ...[3, 1, 2].map((n) => tick(2, -n, 0, 5)),
        tick(3, -5, 0, 1)
      ]
      const replayed = [tick(3, -4, 0, 9), tick(3, -6, 0, 9)]
      rows.write(ticks, replayed)
      yield* write(ticks, replayed)
      yield* assertBars(token, rows)
      yield* refreshAll
      assert.strictEqual(yield* marksOf(token), 0)
      yield* assertBars(token, rows)
    })
  )

  it.effect("show a late tick at once, before and after it is refreshed", () =>
    Effect.gen(function* () {
      const token = newToken()
      const rows = new Rows()
      const tick = (n: number, price: number) =>
        makeTick({
          instrument_token: token,
          exchange_ts: OPEN + n * 20_000_000,
          sequence_id: n,
          position: n,
          price
        })
      const put = (ticks: ReadonlyArray<Tick>) =>
        Effect.sync(() => rows.write(ticks, [])).pipe(Effect.andThen(write(ticks)))
      yield* put(range(60).map((n) => tick(2 * n, 100)))
      yield* refreshAll
      assert.strictEqual(yield* marksOf(token), 0)
      yield* put([tick(41, 999), tick(42, 5)])
      assert.strictEqual((yield* candles(token, "1m"))[13]?.high, 999)
      yield* assertBars(token, rows)
      yield* refreshAll
      assert.strictEqual(yield* marksOf(token), 0)
      yield* assertBars(token, rows)
    })
  )

  it.effect.skipIf(name === "PGlite")(
    "hold what a transaction brings that was under way while a refresh passed over it",
    () =>
      Effect.gen(function* () {
        const { refreshCandles } = yield* TickStore
        const token = newToken()
        const rows = new Rows()
        const start = thisMinute() - 40 * MINUTE
        let position = 0
        const tick = (minute: number, price: number) =>
          makeTick({
            instrument_token: token,
            exchange_ts: start + minute * MINUTE,
            sequence_id: ++position,
            position,
            price
          })
        // What is over, and what is going on.
        const before = [tick(0, 100), tick(20, 100), tick(40, 100)]
        const slow = [tick(0, 999), tick(10, 50), tick(40, 7)]
        rows.write(before, [])
        yield* write(before)
        if (level === "community") yield* sql("UPDATE store_state SET bars_through = bars_through - INTERVAL '1 hour'")
        const other = yield* holding("LOCK TABLE sink_offsets IN SHARE ROW EXCLUSIVE MODE")
        const bookmark = { partition: 0, incarnation: `slow ${token}`, offset: 1, mark: undefined }
        const writing = yield* Effect.forkChild(write(slow, [], [bookmark]), { startImmediately: true })
        // Its rows are in, its bookmark waits.
        const waiting = Effect.promise(async () => {
          const found = await other.query(
            "SELECT FROM pg_locks WHERE relation = 'sink_offsets'::regclass AND NOT granted"
          )
          return found.rowCount
        })
        while ((yield* waiting) === 0);
        yield* assertBars(token, rows)
        while ((yield* refreshCandles) > 0);
        yield* assertBars(token, rows)
        yield* Effect.promise(() => other.query("COMMIT"))
        assert.deepStrictEqual(yield* Fiber.join(writing), { added: 3 })
        rows.write(slow, [])
        yield* assertBars(token, rows)
        yield* refreshAll
        yield* assertBars(token, rows)
      })
  )

  it.effect.skipIf(level !== "community")("are brought up to the clock without a hole, and unmarked", () =>
    Effect.gen(function* () {
      const token = newToken()
      const rows = new Rows()
      // Two hours ago, as if written then: live ticks leave no mark behind.
      const start = thisMinute() - 120 * MINUTE
      const ticks = range(90).map((n) =>
        makeTick({ instrument_token: token, exchange_ts: start + n * 71_000_000, sequence_id: n, position: n + 1 })
      )
      rows.write(ticks, [])
      yield* write(ticks)
      yield* sql(
        `DELETE FROM candle_marks WHERE instrument_token = ${token}`,
        "UPDATE store_state SET bars_through = bars_through - INTERVAL '2 hours'"
      )
      yield* refreshAll
      yield* assertBars(token, rows)
      // Just over, and not materialised yet: a marked minute must not be before those that have no mark.
      const near = [-2, -1].map((n) => ({
        ...ticks[0]!,
        exchange_ts: thisMinute() + n * MINUTE,
        sequence_id: 500 + n
      }))
      rows.write(near, [])
      yield* write(near)
      yield* sql(
        `DELETE FROM candle_marks WHERE instrument_token = ${token}`,
        `INSERT INTO candle_marks VALUES (${token}, to_timestamp(${near[1]!.exchange_ts / 1e6}), 0, now())`
      )
      yield* refreshAll
      yield* assertBars(token, rows)
      const late = { ...ticks[3]!, sequence_id: 1000, position: 1000, price: 9999 }
      rows.write([late], [])
      yield* write([late])
      yield* assertBars(token, rows)
      yield* refreshAll
      yield* assertBars(token, rows)
    })
  )

  it.effect.skipIf(level !== "community")("and ticks of a columnstore chunk take late ticks, repeats and places", () =>
    Effect.gen(function* () {
      const [one, two] = [newToken(), newToken()]
      const rows = new Rows()
      const { count, daysSoFar, ticksAfter, tokens } = yield* TickStore
      const start = OPEN + 60 * 24 * HOUR
      const epoch = epochOf(DAY + 60, start)
      const tick = (n: number): Tick =>
        makeTick({
          instrument_token: n % 2 === 0 ? one : two,
          exchange_ts: start + n * 1_000_000,
          sequence_id: n,
          epoch,
          position: n + 1,
          price: ((n * 37) % 101) + 1
        })
      const put = (ticks: ReadonlyArray<Tick>, replayed: ReadonlyArray<Tick> = []) =>
        Effect.gen(function* () {
          const added = rows.write(ticks, replayed)
          assert.deepStrictEqual(yield* write(ticks, replayed), { added })
        })
      const check = Effect.gen(function* () {
        for (const token of [one, two]) {
          yield* assertBars(token, rows)
          assert.deepStrictEqual(yield* pages(token, 700), rows.of(token))
          assert.strictEqual(yield* count([token], start, start + HOUR), rows.of(token).length)
          const { last } = (yield* daysSoFar([token])).get(token)!
          assert.deepStrictEqual(last, rows.of(token).at(-1))
        }
        assert.includeMembers([...(yield* tokens(start, start + HOUR))], [one, two])
      })
      const ticks = range(3000).map(tick)
      const unplaced = ticks.filter((_, n) => n % 500 === 250)
      yield* put(
        ticks.filter((_, n) => n % 100 !== 50),
        unplaced
      )
      yield* refreshAll
      const [chunk] = yield* sql(
        `SELECT format('%I.%I', chunk_schema, chunk_name) AS name FROM timescaledb_information.chunks
             WHERE hypertable_name = 'ticks' AND range_start <= to_timestamp(${start / 1e6}) AND range_end > to_timestamp(${start / 1e6})`
      )
      yield* sql(`CALL convert_to_columnstore('${String(chunk!.name)}')`)
      yield* check
      // What is missing, among what is there: 24 new rows, 6 places.
      yield* put(ticks)
      yield* check
      yield* put([], ticks.slice(0, 100))
      yield* refreshAll
      yield* check
      assert.strictEqual((yield* ticksAfter(one, epoch, 0, 10_000)).length, 1500)
    })
  )

  // The last of these cases: what it leaves materialised is ahead of the clock.
  it.effect.skipIf(level !== "community")("are exact after the server's clock was set back", () =>
    Effect.gen(function* () {
      const [ahead, token] = [newToken(), newToken()]
      const rows = new Rows()
      const start = thisMinute()
      const tick = (instrument_token: number, minute: number, n: number) =>
        makeTick({
          instrument_token,
          exchange_ts: start + minute * MINUTE + n,
          sequence_id: 10 * minute + n,
          position: 10 * minute + n + 1,
          price: 100 + n
        })
      const put = (ticks: ReadonlyArray<Tick>) =>
        Effect.sync(() => rows.write(ticks, [])).pipe(Effect.andThen(write(ticks)))
      // A quarter of an hour ahead: refreshed as far as such a clock says.
      yield* refreshAll
      yield* put(range(16).map((minute) => tick(ahead, minute, 0)))
      const through = `to_timestamp(${(start + 15 * MINUTE) / 1e6})`
      yield* sql(
        `CALL refresh_continuous_aggregate('candle_bars', to_timestamp(${(start - HOUR) / 1e6}), ${through}, force => true)`,
        `CALL refresh_continuous_aggregate('candle_bars_5m', to_timestamp(${(start - HOUR) / 1e6}), ${through}, force => true)`,
        `UPDATE store_state SET bars_through = ${through}`
      )
      yield* put(range(16).map((minute) => tick(token, minute, 1)))
      yield* put(range(16).map((minute) => tick(ahead, minute, 2)))
      for (const each of [token, ahead]) yield* assertBars(each, rows)
      yield* refreshAll
      for (const each of [token, ahead]) yield* assertBars(each, rows)
      yield* put([tick(token, 3, 5)])
      yield* assertBars(token, rows)
    })
  )
})
