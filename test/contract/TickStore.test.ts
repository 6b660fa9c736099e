import { assert, describe, layer } from "@effect/vitest"
import { Arbitrary, Context, Deferred, Effect, Fiber, Layer, Logger, Schema } from "effect"
import { TestClock } from "effect/testing"
import pg from "pg"
import { advisory } from "../../src/layers/postgres/connection.ts"
import { createTimescale } from "../../src/layers/postgres/migrations.ts"
import * as Pglite from "../../src/layers/postgres/Pglite.ts"
import { chooseLevel, findServer, type Level } from "../../src/layers/postgres/serverLevel.ts"
import * as Timescale from "../../src/layers/postgres/Timescale.ts"
import { barStart, type Candle, Interval, intervalMinutes } from "../../src/schema/Candle.ts"
import type { Instrument } from "../../src/schema/Instrument.ts"
import { compareTicks, epochOf, type Tick, tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import { MAX_MICROS, MIN_MICROS } from "../../src/schema/Time.ts"
import type { Bookmark } from "../../src/streams/log/bookmark.ts"
import { type StoredTick, type TickCursor, TickStore } from "../../src/streams/ports/TickStore.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { databaseUrl } from "../support/services.ts"
import { DAY, EPOCH, makeTick, OPEN } from "./ticks.ts"

/** The database under the store, for what its port does not say. */
class Database extends Context.Service<Database, { readonly url: string; readonly embedded: boolean }>()(
  "test/Database"
) {}

const store = Layer.effect(
  TickStore,
  Effect.flatMap(Database, (database) => TestClock.withLive(Timescale.make(database)))
)

const embedded = Layer.effect(
  Database,
  // A thread of its own keeps real time.
  Effect.map(TestClock.withLive(Pglite.start({ dataDir: undefined })), ({ url }) => ({ url, embedded: true }))
)

const DROP_EVERYTHING = `
DO $$ DECLARE made record; BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
    FOR made IN
      EXECUTE 'SELECT format(''%I.%I'', view_schema, view_name) AS name FROM timescaledb_information.continuous_aggregates'
    LOOP
      EXECUTE format('DROP MATERIALIZED VIEW IF EXISTS %s CASCADE', made.name);
    END LOOP;
  END IF;
  FOR made IN
    SELECT quote_ident(c.relname) AS name, c.relkind FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c')
      AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP %s IF EXISTS %s CASCADE', CASE made.relkind
      WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, made.name);
  END LOOP;
  FOR made IN
    SELECT p.oid::regprocedure::text AS name FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', made.name);
  END LOOP;
END $$`

const server = (url: string) =>
  Layer.effect(
    Database,
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: url })
      await client.connect()
      await client.query(DROP_EVERYTHING)
      await client.end()
      return { url, embedded: false }
    })
  )

interface Subject {
  readonly name: string
  readonly level: Level
  readonly database: typeof embedded
}

/** The real server, by what it is: the layout that a new database has on it, which this one then is. */
const serverSubject = async (url: string): Promise<Subject> => {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  await pool.query(DROP_EVERYTHING)
  await createTimescale(pool)
  const client = await pool.connect()
  const { level, says } = chooseLevel(await findServer(client), undefined)
  client.release()
  await pool.end()
  return { name: says.slice(0, says.indexOf(":")), level, database: server(url) }
}

const real = await databaseUrl()
const subjects: ReadonlyArray<Subject> = [
  { name: "PGlite", level: "plain", database: embedded },
  ...(real === undefined ? [] : [await serverSubject(real)])
]

/** Statements on a connection of their own, one after the other; rows of the last. */
const sql = (...texts: ReadonlyArray<string>) =>
  Effect.flatMap(Database, ({ url }) =>
    Effect.promise(async () => {
      const client = new pg.Client({ connectionString: url })
      await client.connect()
      let rows: ReadonlyArray<Readonly<Record<string, unknown>>> = []
      for (const text of texts) rows = (await client.query<Record<string, unknown>>(text)).rows
      await client.end()
      return rows
    })
  )

/** Marked minutes of an instrument. */
const marksOf = (token: number) =>
  Effect.map(sql(`SELECT FROM candle_marks WHERE instrument_token = ${token}`), (rows) => rows.length)

/** Refreshes until nothing is left to do. */
const refreshAll = Effect.gen(function* () {
  const { refreshCandles } = yield* TickStore
  while ((yield* refreshCandles) > 0);
})

const MINUTE = 60_000_000
/** The start of this minute, by the clock that the database has as well. */
const thisMinute = () => Math.floor((Date.now() * 1000) / MINUTE) * MINUTE
const HOUR = 60 * MINUTE
const intervals = Interval.literals

let lastToken = 1000
/** No case sees another one's instruments. */
const newToken = (): number => ++lastToken

const asStored = (tick: Tick, isReplayed = false): StoredTick => ({
  instrument_token: tick.instrument_token,
  exchange_ts: tick.exchange_ts,
  sequence_id: tick.sequence_id,
  price: tick.price,
  volume: tick.volume,
  status: tick.status,
  epoch: isReplayed ? null : tick.epoch,
  position: isReplayed ? null : tick.position,
  feed: tick.feed,
  session: tick.session,
  sequencing: tick.sequencing,
  received_ts: tick.received_ts
})

/** What the store is to hold, said with a map. */
class Rows {
  readonly #rows = new Map<string, StoredTick>()

  #put(tick: Tick, isReplayed: boolean): boolean {
    const key = `${tick.instrument_token} ${tick.exchange_ts} ${tick.sequence_id}`
    const row = this.#rows.get(key)
    if (row === undefined) {
      this.#rows.set(key, asStored(tick, isReplayed))
      return true
    }
    if (row.epoch === null && !isReplayed) {
      this.#rows.set(key, { ...row, epoch: tick.epoch, position: tick.position })
    }
    return false
  }

  /** How many rows were new; of a live and a replayed copy in one batch the live one counts. */
  write(ticks: ReadonlyArray<Tick>, replayed: ReadonlyArray<Tick>): number {
    let added = 0
    for (const tick of ticks) if (this.#put(tick, false)) added++
    for (const tick of replayed) if (this.#put(tick, true)) added++
    return added
  }

  sorted(): Array<StoredTick> {
    return [...this.#rows.values()].sort(compareTicks)
  }

  of(token: number): Array<StoredTick> {
    return this.sorted().filter((row) => row.instrument_token === token)
  }
}

const recompute = (sorted: ReadonlyArray<StoredTick>, interval: Interval): Array<Candle> => {
  const bars = new Map<number, { open: number; high: number; low: number; close: number; volume: number }>()
  for (const { exchange_ts, price, volume } of sorted) {
    const start = barStart(exchange_ts, interval)
    const bar = bars.get(start)
    if (bar === undefined) bars.set(start, { open: price, high: price, low: price, close: price, volume })
    else {
      bar.high = Math.max(bar.high, price)
      bar.low = Math.min(bar.low, price)
      bar.close = price
      bar.volume += volume
    }
  }
  return [...bars].map(([ts, bar]) => ({ ts, ...bar }))
}

const write = (
  ticks: ReadonlyArray<Tick>,
  replayed: ReadonlyArray<Tick> = [],
  bookmarks: ReadonlyArray<Bookmark> = []
) => Effect.flatMap(TickStore, (s) => s.write({ ticks, replayed, bookmarks }))

const FROM = MIN_MICROS
const TO = MAX_MICROS

const candles = (instrument_token: number, interval: Interval, limit = 10_000) =>
  Effect.flatMap(TickStore, (s) => s.candles({ instrument_token, interval, from: FROM, to: TO, limit }))

/** The bars of an instrument are at every interval what its rows say. */
const assertBars = (token: number, rows: Rows) =>
  Effect.forEach(
    intervals,
    (interval) =>
      Effect.map(candles(token, interval), (found) =>
        assert.deepStrictEqual(found, recompute(rows.of(token), interval), interval)
      ),
    { discard: true }
  )

/** Every row of an instrument, `limit` at a time. */
const pages = Effect.fnUntraced(function* (instrument_token: number, limit: number, from = FROM, to = TO) {
  const { ticks } = yield* TickStore
  const all: Array<StoredTick> = []
  let after: TickCursor | undefined
  for (;;) {
    const page = yield* ticks({ instrument_token, from, to, limit, ...(after === undefined ? {} : { after }) })
    all.push(...page)
    if (page.length < limit) return all
    after = page.at(-1)!
  }
})

const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

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

const instrument = (fields: Partial<Instrument>): Instrument => ({
  instrument_token: 1,
  tradingsymbol: "INFY",
  exchange: "NSE",
  asset_class: "EQ",
  tick_size: 0.05,
  name: "INFOSYS",
  expiry: null,
  strike: null,
  option_type: null,
  lot_size: null,
  ...fields
})

for (const { name, level, database } of subjects) {
  layer(store.pipe(Layer.provideMerge(database)))(`TickStore on ${name}`, (it) => {
    describe("ticks", () => {
      it.effect("adds each row once, however often and in whatever company it is written", () =>
        Effect.gen(function* () {
          const token = newToken()
          const tick = (n: number): Tick =>
            makeTick({ instrument_token: token, exchange_ts: OPEN + n, sequence_id: n, position: n })
          const first = [1, 2, 3].map(tick)
          assert.deepStrictEqual(yield* write(first), { added: 3 })
          assert.deepStrictEqual(yield* write(first), { added: 0 })
          // a repeated key within one batch, new ones beside known ones
          assert.deepStrictEqual(yield* write([3, 4, 4, 5].map(tick)), { added: 2 })
          assert.deepStrictEqual(
            yield* pages(token, 100),
            [1, 2, 3, 4, 5].map((n) => asStored(tick(n)))
          )
          assert.deepStrictEqual(yield* write([]), { added: 0 })
        })
      )

      it.effect("gives back every field as it came, to the microsecond and the last decimal", () =>
        Effect.gen(function* () {
          const token = newToken()
          const one = makeTick({
            instrument_token: token,
            exchange_ts: OPEN + 123_457,
            received_ts: OPEN + 999_999,
            price: 83.1234567,
            volume: Number.MAX_SAFE_INTEGER,
            sequence_id: -281_474_976_710_655,
            sequencing: "none",
            status: "STALE",
            session: 1439,
            feed: 'a "quoted", {odd} \\ name\té\n',
            position: 7
          })
          const two = {
            ...one,
            exchange_ts: OPEN + 123_458,
            price: 1e-7,
            sequencing: "monotonic",
            feed: "NULL"
          } as const
          const three = { ...one, exchange_ts: OPEN + 123_459, price: 999_999_999.5, sequencing: "contiguous" } as const
          yield* write([one, two, three])
          assert.deepStrictEqual(
            yield* pages(token, 2),
            [one, two, three].map((tick) => asStored(tick))
          )
        })
      )

      it.effect("takes a feed whose name no database can hold", () =>
        Effect.gen(function* () {
          const token = newToken()
          assert.deepStrictEqual(yield* write([makeTick({ instrument_token: token, feed: "a\0b" })]), { added: 1 })
          assert.strictEqual((yield* pages(token, 10))[0]?.feed, "a\ufffdb")
        })
      )

      it.effect("keeps ticks of any day from 1980 to 2100, however many days one batch spans", () =>
        Effect.gen(function* () {
          const token = newToken()
          const step = Math.floor((MAX_MICROS - MIN_MICROS) / 80)
          const ticks = range(80).map((n) => {
            const exchange_ts = MIN_MICROS + n * step + 7 * n
            const epoch = epochOf(tradingDay(exchange_ts), exchange_ts)
            return makeTick({ instrument_token: token, exchange_ts, received_ts: exchange_ts, epoch, position: 1 })
          })
          const bookmark: Bookmark = { partition: 0, incarnation: "any-day", offset: 80, mark: undefined }
          assert.deepStrictEqual(yield* write(ticks, [], [bookmark]), { added: 80 })
          assert.deepStrictEqual(
            yield* pages(token, 9),
            ticks.map((tick) => asStored(tick))
          )
          const { bookmarks, count, tokens } = yield* TickStore
          assert.deepStrictEqual(yield* bookmarks("any-day"), [bookmark])
          assert.strictEqual(yield* count([token], FROM, TO), 80)
          assert.include(yield* tokens(FROM, TO), token)
        })
      )

      it.effect("adds a replayed tick without a place in the day, which the live one brings", () =>
        Effect.gen(function* () {
          const token = newToken()
          const early = makeTick({
            instrument_token: token,
            exchange_ts: OPEN,
            sequence_id: -5,
            position: 4,
            price: 10
          })
          const late = { ...early, sequence_id: -9, position: 5, price: 20 }
          assert.deepStrictEqual(yield* write([], [early]), { added: 1 })
          assert.deepStrictEqual(yield* pages(token, 10), [asStored(early, true)])
          yield* write([late])
          yield* Effect.flatMap(TickStore, (s) => s.refreshCandles)
          // Without a position it counts as the last of its instant.
          assert.strictEqual((yield* candles(token, "1m"))[0]?.close, 10)
          assert.deepStrictEqual(yield* write([early], [late]), { added: 0 })
          assert.deepStrictEqual(yield* pages(token, 10), [asStored(early), asStored(late)])
          assert.strictEqual((yield* candles(token, "1m"))[0]?.close, 20)
          // A replay of what is there changes nothing.
          assert.deepStrictEqual(yield* write([], [early, late]), { added: 0 })
          assert.deepStrictEqual(yield* pages(token, 10), [asStored(early), asStored(late)])
        })
      )

      it.effect("writes all of a batch or nothing, and says that asking again is no use", () =>
        Effect.gen(function* () {
          const token = newToken()
          const { bookmarks, write, count } = yield* TickStore
          const good = makeTick({ instrument_token: token })
          for (const wrong of [
            { ...good, sequence_id: 2, session: 40_000 },
            { ...good, sequence_id: 2, price: Number.NEGATIVE_INFINITY, status: "NOT A STATUS" as Tick["status"] }
          ]) {
            const error = yield* Effect.flip(
              write({
                ticks: [good, wrong],
                replayed: [],
                bookmarks: [{ partition: 0, incarnation: "all-or-nothing", offset: 5, mark: undefined }]
              })
            )
            assert.strictEqual(error.operation, "write")
            assert.isFalse(error.transient, error.message)
          }
          assert.strictEqual(yield* count([token], FROM, TO), 0)
          assert.deepStrictEqual(yield* bookmarks("all-or-nothing"), [])
        })
      )

      it.effect("pages through any range in the order of compareTicks", () =>
        Effect.gen(function* () {
          const token = newToken()
          const rows = new Rows()
          const ticks = range(300).map((n) =>
            makeTick({
              instrument_token: token,
              // over the midnight between two trading days, many to an instant
              exchange_ts: tradingDayStart(DAY) + ((n * 7) % 20) - 10,
              sequence_id: ((n * 31) % 50) - 25,
              epoch: EPOCH + (n % 2),
              position: (n * 17) % 300
            })
          )
          const replayed = range(50).map((n) =>
            makeTick({ instrument_token: token, exchange_ts: tradingDayStart(DAY) + (n % 5), sequence_id: n - 40 })
          )
          rows.write(ticks, replayed)
          yield* write(ticks, replayed)
          const sorted = rows.sorted()
          for (const limit of [1, 7, 1000]) assert.deepStrictEqual(yield* pages(token, limit), sorted)
          const [from, to] = [tradingDayStart(DAY) - 3, tradingDayStart(DAY) + 4]
          const within = sorted.filter((row) => row.exchange_ts >= from && row.exchange_ts < to)
          assert.deepStrictEqual(yield* pages(token, 6, from, to), within)
        })
      )

      it.effect("serves a resuming client its day after (epoch, position), rows without one left out", () =>
        Effect.gen(function* () {
          const token = newToken()
          const { ticksAfter } = yield* TickStore
          const at = (position: number, epoch: number, day = 0) =>
            makeTick({
              instrument_token: token,
              // later positions at earlier times: positions follow arrival
              exchange_ts: OPEN + day * 24 * HOUR + 1000 - position,
              sequence_id: position + (epoch - EPOCH) * 100,
              epoch,
              position
            })
          const today = [at(1, EPOCH), at(2, EPOCH), at(3, EPOCH), at(1, EPOCH + 60), at(2, EPOCH + 60)]
          const tomorrow = at(1, EPOCH + 1_000_000_000, 1)
          yield* write([...today, tomorrow], [at(50, EPOCH)])
          const from = (epoch: number, position: number, limit = 100) => ticksAfter(token, epoch, position, limit)
          const places = (rows: ReadonlyArray<StoredTick>) => rows.map((row) => [row.epoch, row.position])
          assert.deepStrictEqual(places(yield* from(EPOCH, 1)), [
            [EPOCH, 2],
            [EPOCH, 3],
            [EPOCH + 60, 1],
            [EPOCH + 60, 2]
          ])
          assert.deepStrictEqual(places(yield* from(EPOCH, 1, 2)), [
            [EPOCH, 2],
            [EPOCH, 3]
          ])
          assert.deepStrictEqual(yield* from(EPOCH + 60, 1), [asStored(at(2, EPOCH + 60))])
          assert.deepStrictEqual(yield* from(EPOCH + 60, 2), [])
        })
      )

      it.effect("counts and lists by half-open range", () =>
        Effect.gen(function* () {
          const { count, tokens } = yield* TickStore
          const [one, two] = [newToken(), newToken()]
          const tick = (instrument_token: number, n: number) =>
            makeTick({ instrument_token, exchange_ts: OPEN + n, sequence_id: n, position: n + 1 })
          yield* write([tick(one, 0), tick(one, 5), tick(two, 5), tick(two, 10)])
          assert.strictEqual(yield* count([one, two], OPEN, OPEN + 10), 3)
          assert.strictEqual(yield* count([two, two], OPEN, OPEN + 11), 2)
          assert.strictEqual(yield* count([], OPEN, OPEN + 10), 0)
          const ours = (found: ReadonlyArray<number>) => found.filter((token) => token === one || token === two)
          assert.deepStrictEqual(ours(yield* tokens(OPEN, OPEN + 5)), [one])
          assert.deepStrictEqual(ours(yield* tokens(OPEN + 5, OPEN + 6)), [one, two])
          assert.deepStrictEqual(ours(yield* tokens(OPEN + 6, OPEN + 10)), [])
          assert.deepStrictEqual(ours(yield* tokens(OPEN + 10, OPEN + 10)), [])
        })
      )
    })

    describe("bookmarks", () => {
      it.effect("move forward only, each incarnation and partition for itself", () =>
        Effect.gen(function* () {
          const { bookmarks } = yield* TickStore
          const at = (offset: number, partition = 3, incarnation = "forward"): Bookmark => ({
            partition,
            incarnation,
            offset,
            mark: { incarnation: "raw-1", offset: offset * 2, index: 1, left: ["raw-0"] }
          })
          yield* write([], [], [at(10), at(20, 4), at(7, 3, "other")])
          yield* write([], [], [at(9), at(21, 4), at(2, 3, "other")])
          assert.deepStrictEqual(yield* bookmarks("forward"), [at(10), at(21, 4)])
          assert.deepStrictEqual(yield* bookmarks("other"), [at(7, 3, "other")])
          assert.deepStrictEqual(yield* bookmarks("never"), [])
          // the same partition twice in one batch
          yield* write([], [], [at(30), at(25)])
          assert.deepStrictEqual((yield* bookmarks("forward"))[0], at(30))
        })
      )
    })

    describe("candles", () => {
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

    describe("candles that are materialised", () => {
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
            const { url } = yield* Database
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
            if (level === "community")
              yield* sql("UPDATE store_state SET bars_through = bars_through - INTERVAL '1 hour'")
            const other = yield* Effect.acquireRelease(
              Effect.promise(async () => {
                const client = new pg.Client({ connectionString: url })
                await client.connect()
                await client.query("BEGIN; LOCK TABLE sink_offsets IN SHARE ROW EXCLUSIVE MODE")
                return client
              }),
              (client) => Effect.promise(() => client.end())
            )
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

      it.effect.skipIf(level !== "community")(
        "and ticks of a columnstore chunk take late ticks, repeats and places",
        () =>
          Effect.gen(function* () {
            const [one, two] = [newToken(), newToken()]
            const rows = new Rows()
            const { count, quotes, ticksAfter, tokens } = yield* TickStore
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
                const { last } = (yield* quotes([token])).get(token)!
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

    describe("quotes", () => {
      it.effect("show the last tick and its trading day, refreshed or not", () =>
        Effect.gen(function* () {
          const { quotes, refreshCandles } = yield* TickStore
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
          assert.deepStrictEqual(yield* quotes([one, none, two, one]), expected)
          yield* refreshCandles
          assert.deepStrictEqual(yield* quotes([one, two]), expected)
          assert.deepStrictEqual(yield* quotes([]), new Map())
        })
      )

      it.effect("sum volumes up to the largest safe integer, as bars of every interval do, refreshed or not", () =>
        Effect.gen(function* () {
          const { quotes, candles, refreshCandles } = yield* TickStore
          const token = newToken()
          const large = { instrument_token: token, volume: Number.MAX_SAFE_INTEGER }
          yield* write([
            makeTick({ ...large, sequence_id: 1, position: 1 }),
            makeTick({ ...large, sequence_id: 2, position: 2, exchange_ts: OPEN + 1 }),
            makeTick({ ...large, sequence_id: 3, position: 3, exchange_ts: OPEN + 60_000_000 })
          ])
          const check = Effect.gen(function* () {
            assert.strictEqual((yield* quotes([token])).get(token)?.volume, Number.MAX_SAFE_INTEGER)
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

    describe("concurrency", () => {
      it.effect("writers, refreshers and readers at once lose nothing and see exact bars", () =>
        Effect.gen(function* () {
          const database = yield* Database
          const token = newToken()
          const rows = new Rows()
          // What one session serves cannot be two stores; a server is given two, as two workers would be.
          const mine = yield* TickStore
          const other = database.embedded ? mine : yield* Timescale.make(database)
          const tick = (n: number): Tick =>
            makeTick({
              instrument_token: token + (n % 3),
              exchange_ts: OPEN + 30 * 24 * HOUR + ((n * 7919) % 997) * 1_000_000,
              sequence_id: n,
              position: n + 1,
              price: ((n * 31) % 97) + 1
            })
          lastToken += 3
          // Six writers whose batches overlap by half, in opposite directions.
          const batches = range(24).map((b) => {
            const ticks = range(200).map((i) => tick(b * 100 + i))
            return b % 2 === 0 ? ticks : ticks.reverse()
          })
          for (const batch of batches) rows.write(batch, [])
          // The day is there before anyone reads it: a partition is attached without a lock on its readers, so the
          // reader's own recompute, planned just before, would not look into it.
          let { added } = yield* mine.write({ ticks: batches[0]!.slice(0, 1), replayed: [], bookmarks: [] })
          let writing = 6
          // The last batch of each writer waits for it, however long the reader's connection takes to be made.
          const looked = yield* Deferred.make<void>()
          const writer = (w: number) =>
            Effect.gen(function* () {
              for (const [n, batch] of batches.filter((_, b) => b % 6 === w).entries()) {
                if (n === 3 && !database.embedded) yield* Deferred.await(looked)
                const one = yield* (w % 2 === 0 ? mine : other).write({ ticks: batch, replayed: [], bookmarks: [] })
                added += one.added
              }
            }).pipe(Effect.ensuring(Effect.sync(() => writing--)))
          const refresher = (s: TickStore["Service"]) =>
            Effect.gen(function* () {
              while (writing > 0) yield* s.refreshCandles
            })
          const differing = `
            WITH seen AS (
              SELECT instrument_token, bucket, open, high, low, close, volume FROM candles_1m
              WHERE instrument_token = ANY ($1)),
            truth AS (
              SELECT instrument_token, date_bin('1 minute', exchange_ts, TIMESTAMPTZ '2000-01-03 03:45+00'),
                     (array_agg(price ORDER BY exchange_ts, greatest(sequence_id, 0), epoch, position, sequence_id))[1],
                     max(price), min(price),
                     (array_agg(price ORDER BY exchange_ts DESC, greatest(sequence_id, 0) DESC, epoch DESC,
                                position DESC, sequence_id DESC))[1],
                     sum(volume)
              FROM ticks WHERE instrument_token = ANY ($1) GROUP BY 1, 2)
            SELECT count(*)::integer AS n
            FROM ((TABLE seen EXCEPT TABLE truth) UNION ALL (TABLE truth EXCEPT TABLE seen)) d`
          const reader = Effect.promise(async () => {
            let looks = 0
            if (database.embedded) return looks
            const client = new pg.Client({ connectionString: database.url })
            await client.connect()
            while (writing > 0) {
              const found = await client.query<{ n: number }>(differing, [[token, token + 1, token + 2]])
              assert.strictEqual(found.rows[0]?.n, 0)
              looks++
              Deferred.doneUnsafe(looked, Effect.void)
            }
            await client.end()
            return looks
          })
          const [looks] = yield* Effect.all([reader, ...range(6).map(writer), refresher(mine), refresher(other)], {
            concurrency: "unbounded"
          })
          assert.isTrue(database.embedded || looks > 0)
          const sorted = rows.sorted()
          assert.strictEqual(added, sorted.length)
          for (const each of [token, token + 1, token + 2]) {
            const own = sorted.filter((row) => row.instrument_token === each)
            assert.deepStrictEqual(yield* pages(each, 100), own)
            assert.deepStrictEqual(yield* candles(each, "1m"), recompute(own, "1m"))
          }
        })
      )

      it.effect.skipIf(name === "PGlite")(
        "a refresher leaves the marks to one that is at it: no older bar over a newer one",
        () =>
          Effect.gen(function* () {
            const { url } = yield* Database
            const { refreshCandles } = yield* TickStore
            yield* write([makeTick({ instrument_token: newToken() })])
            const other = yield* Effect.acquireRelease(
              Effect.promise(async () => {
                const client = new pg.Client({ connectionString: url })
                await client.connect()
                await client.query(`BEGIN; SELECT pg_advisory_xact_lock(${advisory("candles")})`)
                return client
              }),
              (client) => Effect.promise(() => client.end())
            )
            assert.strictEqual(yield* refreshCandles, 0)
            yield* Effect.promise(() => other.query("COMMIT"))
            assert.isAtLeast(yield* refreshCandles, 1)
          })
      )

      it.effect("writers that meet on new days make each day once", () =>
        Effect.gen(function* () {
          const database = yield* Database
          const token = newToken()
          const mine = yield* TickStore
          const other = database.embedded ? mine : yield* Timescale.make(database)
          const writes = range(12).map((n) =>
            (n % 2 === 0 ? mine : other).write({
              ticks: range(3).map((d) =>
                makeTick({
                  instrument_token: token,
                  exchange_ts: OPEN + (100 + d) * 24 * HOUR,
                  sequence_id: n,
                  position: n + 1
                })
              ),
              replayed: [],
              bookmarks: []
            })
          )
          const added = yield* Effect.all(writes, { concurrency: "unbounded" })
          assert.strictEqual(
            added.reduce((sum, one) => sum + one.added, 0),
            36
          )
        })
      )
    })

    describe("instruments", () => {
      it.effect("are added, changed and expired, each counted once, and a reused token keeps its older meaning", () =>
        Effect.gen(function* () {
          const { instruments, putInstruments } = yield* TickStore
          yield* TestClock.setTime(Date.parse("2026-01-29T04:00:00Z"))
          const equity = instrument({ instrument_token: 408065 })
          const option = instrument({
            instrument_token: 9_000_001,
            tradingsymbol: "NIFTY26JAN25000CE",
            exchange: "NFO",
            asset_class: "OPT",
            name: "NIFTY",
            expiry: "2026-01-29",
            strike: 25_000.5,
            option_type: "CE",
            lot_size: 75
          })
          assert.deepStrictEqual(yield* putInstruments([equity, option]), { added: 2, changed: 0, expired: 0 })
          assert.deepStrictEqual(yield* instruments(10), [equity, option])
          assert.deepStrictEqual(yield* putInstruments([equity, option]), { added: 0, changed: 0, expired: 0 })
          const smaller = { ...equity, tick_size: 0.01 }
          assert.deepStrictEqual(yield* putInstruments([equity, smaller]), { added: 0, changed: 1, expired: 0 })
          // The day after the option's last one; the file no longer names it.
          yield* TestClock.setTime(Date.parse("2026-01-30T04:00:00Z"))
          assert.deepStrictEqual(yield* putInstruments([smaller]), { added: 0, changed: 0, expired: 1 })
          assert.deepStrictEqual(yield* putInstruments([smaller]), { added: 0, changed: 0, expired: 0 })
          assert.deepStrictEqual(yield* instruments(10), [smaller, option])
          const reused = { ...option, tradingsymbol: "NIFTY26FEB25000CE", expiry: "2026-02-26" }
          assert.deepStrictEqual(yield* putInstruments([reused]), { added: 0, changed: 1, expired: 0 })
          assert.deepStrictEqual(yield* instruments(10), [smaller, reused])
          const { url } = yield* Database
          const kept = yield* Effect.promise(async () => {
            const client = new pg.Client({ connectionString: url })
            await client.connect()
            const found = await client.query({
              text: `SELECT tradingsymbol, to_char(expiry, 'YYYY-MM-DD'), known_since < known_until FROM instruments_history`,
              rowMode: "array"
            })
            await client.end()
            return found.rows
          })
          assert.deepStrictEqual(kept, [["NIFTY26JAN25000CE", "2026-01-29", true]])
        })
      )

      it.effect("change their version with every change, whoever makes it, and not when they are read", () =>
        Effect.gen(function* () {
          const { instruments, instrumentsVersion, putInstruments } = yield* TickStore
          const before = yield* instrumentsVersion
          yield* instruments(10)
          assert.strictEqual(yield* instrumentsVersion, before)
          yield* putInstruments([instrument({ instrument_token: 77_001 })])
          const put = yield* instrumentsVersion
          assert.notStrictEqual(put, before)
          const seen = [put]
          for (const text of [
            "UPDATE instruments SET name = 'B' WHERE instrument_token = 77001",
            "DELETE FROM instruments WHERE instrument_token = 77001"
          ]) {
            yield* sql(text)
            seen.push(yield* instrumentsVersion)
          }
          assert.strictEqual(new Set(seen).size, 3)
        })
      )

      it.effect("come whole up to a limit, names cut where anybody wrote long ones, expired ones left first", () =>
        Effect.gen(function* () {
          const { instruments, putInstruments } = yield* TickStore
          yield* TestClock.setTime(Date.parse("2026-01-30T04:00:00Z"))
          yield* sql("TRUNCATE instruments")
          const contract = (instrument_token: number, expiry: string) =>
            instrument({ instrument_token, tradingsymbol: `F${expiry}`, asset_class: "FUT", expiry })
          yield* putInstruments([
            contract(1, "2026-01-01"),
            contract(2, "2026-01-08"),
            contract(3, "2026-02-26"),
            instrument({ instrument_token: 4 })
          ])
          yield* sql("UPDATE instruments SET name = repeat('a ', 24000) WHERE instrument_token = 4")
          const found = yield* instruments(3)
          assert.deepStrictEqual(
            found.map((i) => i.instrument_token),
            [2, 3, 4]
          )
          assert.strictEqual(found[2]?.name?.length, 201)
        })
      )
    })
  })
}

/** Today by the clock that the database has as well. */
const today = () => tradingDay(Date.now() * 1000)
const KEEP_DAYS = 3

/** Days whose tables a backup reads are left alone, without a failure, and that is said once. */
const assertStayWhileRead = Effect.gen(function* () {
  const { url } = yield* Database
  const { dropOldDays } = yield* TickStore
  const said: Array<string> = []
  const logger = Logger.make(({ message }) => {
    said.push(String(message))
  })
  yield* Effect.scoped(
    Effect.gen(function* () {
      const backup = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const client = new pg.Client({ connectionString: url })
          await client.connect()
          await client.query("BEGIN; LOCK TABLE ticks IN ACCESS SHARE MODE")
          return client
        }),
        (client) => Effect.promise(() => client.end())
      )
      assert.strictEqual(yield* dropOldDays, 0)
      assert.strictEqual(yield* dropOldDays, 0)
      yield* Effect.promise(() => backup.query("SELECT count(*) FROM ticks"))
    })
  ).pipe(Effect.provide(Logger.layer([logger])))
  assert.deepStrictEqual(said, [
    "store: old days stay until whoever reads or locks their tables is done, as a backup is"
  ])
})

for (const { name, level, database } of subjects) {
  const keeping = Layer.effect(
    TickStore,
    Effect.flatMap(Database, (options) => TestClock.withLive(Timescale.make({ ...options, keepDays: KEEP_DAYS })))
  )
  layer(keeping.pipe(Layer.provideMerge(database)))(`days that ${name} drops`, (it) => {
    it.effect("leave their bars, which no later tick of theirs changes", () =>
      Effect.gen(function* () {
        yield* Effect.promise(() => withinOneDay(60_000))
        const { bookmarks, count, dropOldDays, quotes, ticks } = yield* TickStore
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
        assert.deepStrictEqual([...(yield* quotes([token, gone])).keys()], [token])

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
  })
}
