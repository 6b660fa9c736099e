/** Decides, for the store on every database, what is left of days that are dropped, and what such a day still takes. */
import { assert } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { type Tick, tradingDay, tradingDayStart } from "../../../src/schema/Tick.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { withinOneDay } from "../../support/oneDay.ts"
import { makeQuote, makeTick, storeBatch } from "../ticks.ts"
import {
  assertBars,
  candles,
  dropOldDays,
  HOUR,
  MINUTE,
  marksOf,
  newToken,
  Rows,
  range,
  refreshAll,
  write
} from "./rows.ts"
import { Database, holding, onEachStore, sql } from "./stores.ts"

/** Today by the clock that the database has as well. */
const today = () => tradingDay(Date.now() * 1000)
const KEEP_DAYS = 3

/** Days whose tables a backup reads are left alone, without a failure, and that is said once. */
const assertStayWhileRead = Effect.gen(function* () {
  const said: Array<string> = []
  const logger = Logger.make(({ message }) => {
    said.push(String(message))
  })
  yield* Effect.scoped(
    Effect.gen(function* () {
      const backup = yield* holding("LOCK TABLE ticks IN ACCESS SHARE MODE")
      assert.strictEqual(yield* dropOldDays, 0)
      assert.strictEqual(yield* dropOldDays, 0)
      yield* Effect.promise(() => backup.query("SELECT count(*) FROM ticks"))
    })
  ).pipe(Effect.provide(Logger.layer([logger])))
  assert.deepStrictEqual(said, [
    "store: old days stay until whoever reads or locks their tables is done, as a backup is"
  ])
})

onEachStore(
  "days that are dropped",
  (it, { level }) => {
    it.effect("leave their bars, which no later tick of theirs changes", () =>
      Effect.gen(function* () {
        yield* Effect.promise(() => withinOneDay(20_000))
        const { bookmarks, count, minutes, daysSoFar, ticks } = yield* TickStore
        const [token, gone] = [newToken(), newToken()]
        const rows = new Rows()
        let position = 0
        const tick = (daysAgo: number, minute: number, instrument_token = token) => {
          position++
          return makeTick({
            instrument_token,
            exchange_ts: tradingDayStart(today() - daysAgo) + 10 * HOUR + minute * MINUTE,
            sequence_id: position,
            position,
            price: ((position * 37) % 101) + 1
          })
        }
        const put = (given: ReadonlyArray<Tick>) =>
          Effect.sync(() => rows.write(given, [])).pipe(Effect.andThen(write(given)))
        const old = [...range(40).map((n) => tick(9, n * 3)), ...range(20).map((n) => tick(6, n))]
        const kept = range(30).map((n) => tick(1 + (n % 3), n))
        yield* put([...old, ...kept, tick(7, 0, gone)])
        const from = tradingDayStart(today() - 20)
        const to = tradingDayStart(today() - 5)
        const here = count([token], from, to)

        // Someone may be writing still who began before it was said that these days go.
        assert.strictEqual(yield* dropOldDays, 0)
        assert.strictEqual(yield* here, old.length)
        assert.deepStrictEqual(yield* write([tick(9, 1)]), { added: 0, dropped: 1 })
        // What is older than all that there is has its place elsewhere from now on.
        const { held } = yield* TickStore
        const begins = yield* held
        assert.isAbove(begins, tradingDayStart(today() - 1000))
        assert.isAtMost(begins, old[0]!.exchange_ts)
        assert.deepStrictEqual(yield* write([tick(500, 1)]), { added: 0, dropped: 1 })
        yield* sql("UPDATE store_state SET ticks_from_raised_at = now() - INTERVAL '1 hour'")
        // Their bars are not final yet.
        assert.isAbove(yield* marksOf(token), 0)
        assert.strictEqual(yield* dropOldDays, 0)
        assert.strictEqual(yield* here, old.length)
        yield* refreshAll
        if (!(yield* Database).embedded) yield* assertStayWhileRead
        assert.isAtLeast(yield* dropOldDays, 2)
        assert.strictEqual(yield* here, 0)
        assert.strictEqual(yield* count([token], to, tradingDayStart(today())), kept.length)
        assert.strictEqual(yield* dropOldDays, 0)
        yield* assertBars(token, rows)
        assert.deepStrictEqual([...(yield* daysSoFar([token, gone])).keys()], [token])

        // Nobody takes what a dropped minute has no ticks of for an empty one.
        const minuteOf = ({ exchange_ts }: Tick) => ({ ts: exchange_ts - (exchange_ts % MINUTE), before: undefined })
        assert.isUndefined(yield* minutes({ instrument_token: token, minutes: [minuteOf(old[0]!)] }))
        assert.isDefined(yield* minutes({ instrument_token: token, minutes: [minuteOf(kept[0]!)] }))

        // Late ticks, repeats and replays of these days, alone and among others.
        const bookmark = { partition: 2, incarnation: "dropped", offset: 77, mark: undefined }
        assert.deepStrictEqual(yield* write([tick(9, 1), old[0]!], [tick(6, 2)], [bookmark]), { added: 0, dropped: 3 })
        assert.deepStrictEqual(yield* bookmarks("dropped"), [bookmark])
        const mixed = tick(1, 500)
        rows.write([mixed], [])
        assert.deepStrictEqual(yield* write([tick(9, 2), mixed]), { added: 1, dropped: 1 })
        yield* assertBars(token, rows)
        yield* refreshAll
        yield* assertBars(token, rows)
        assert.deepStrictEqual(yield* ticks({ instrument_token: token, from, to, limit: 10 }), [])
        const made =
          level === "plain"
            ? "SELECT FROM pg_inherits WHERE inhparent = 'ticks'::regclass"
            : "SELECT FROM timescaledb_information.chunks WHERE hypertable_name = 'ticks'"
        assert.strictEqual((yield* sql(made)).length, 3)
      })
    )
  },
  { keepDays: KEEP_DAYS }
)

onEachStore(
  "quotes of days that are dropped",
  (it) => {
    it.effect("go with them, and their open interest stays, that of late ones too", () =>
      Effect.gen(function* () {
        yield* Effect.promise(() => withinOneDay(20_000))
        const { held, latestQuotes, minuteOi, quotePage, write } = yield* TickStore
        const [token, other] = [newToken(), newToken()]
        const at = (daysAgo: number, minute: number) => tradingDayStart(today() - daysAgo) + 10 * HOUR + minute * MINUTE
        let offset = 0
        const quote = (daysAgo: number, minute: number, oi: number | undefined, instrument_token = token) =>
          makeQuote({ instrument_token, exchange_ts: at(daysAgo, minute), oi, source: ["raw-1", offset++, 1] })
        const tick = makeTick({ instrument_token: token, exchange_ts: at(9, 0) })
        const all = [quote(9, 0, 90), quote(9, 7, 97), quote(9, 20, undefined), quote(1, 0, 10)]
        // A day that has quotes alone is one of the store's days as well.
        const alone = quote(8, 0, 80, other)
        yield* write(storeBatch({ ticks: [tick], quotes: [...all, alone] }))
        const page = quotePage({ instrument_token: token, from: at(10, 0), to: at(0, 0), limit: 10 })
        assert.deepStrictEqual(yield* page, all)
        assert.deepStrictEqual(
          yield* latestQuotes([token, other]),
          new Map([
            [token, all[3]!],
            [other, alone]
          ])
        )
        yield* dropOldDays
        yield* sql("UPDATE store_state SET ticks_from_raised_at = now() - INTERVAL '1 hour'")
        yield* refreshAll
        assert.strictEqual(yield* dropOldDays, 2)
        assert.isAtLeast(yield* held, at(8, 0))
        assert.deepStrictEqual(yield* page, [all[3]!])
        assert.deepStrictEqual(yield* latestQuotes([token, other]), new Map([[token, all[3]!]]))

        // What comes late, again or of a replay is counted; the last of its minute is still told.
        const late = [quote(9, 7, 98), { ...quote(9, 0, 1), exchange_ts: at(9, 0) - 1 }, quote(9, 21, undefined)]
        const replayedQuotes = [{ ...quote(9, 0, 2), exchange_ts: at(9, 0) }, quote(9, 30, 99)]
        const written = yield* write(storeBatch({ quotes: late, replayedQuotes }))
        assert.deepStrictEqual(written, { added: 0, quotes: { added: 0, dropped: 5 } })
        assert.deepStrictEqual(yield* page, [all[3]!])
        const oi = (given: ReadonlyArray<readonly [daysAgo: number, minute: number, oi: number]>) =>
          given.map(([daysAgo, minute, oi]) => ({ ts: at(daysAgo, minute), oi }))
        assert.deepStrictEqual(
          (yield* minuteOi({ instrument_token: token, from: at(10, 0), to: at(0, 0), limit: 10 })).map(
            ({ ts, oi }) => ({ ts, oi })
          ),
          [
            ...[{ ts: at(9, -1), oi: 1 }],
            ...oi([
              [9, 0, 90],
              [9, 7, 98],
              [9, 30, 99],
              [1, 0, 10]
            ])
          ]
        )
        const bars = yield* candles(token, "1d")
        assert.deepStrictEqual(
          bars.map(({ oi }) => oi),
          [99]
        )
      })
    )
  },
  { keepDays: KEEP_DAYS }
)
