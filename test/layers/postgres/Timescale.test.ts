import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import pg from "pg"
import { barTable } from "../../../src/layers/postgres/barTable.ts"
import { advisory, connect } from "../../../src/layers/postgres/connection.ts"
import { migrate, SCHEMA_VERSION } from "../../../src/layers/postgres/migrations.ts"
import * as Pglite from "../../../src/layers/postgres/Pglite.ts"
import * as Timescale from "../../../src/layers/postgres/Timescale.ts"
import { PAGE_AFTER } from "../../../src/layers/postgres/ticks.ts"
import { tradingDate, tradingDay } from "../../../src/schema/Tick.ts"
import { makeQuote, makeTick, OPEN, storeBatch } from "../../contract/ticks.ts"
import { databaseUrl, freePort } from "../../support/services.ts"

const real = await databaseUrl()
const database = Effect.map(Pglite.start({ dataDir: undefined }), ({ url }) => ({ url, embedded: true }))

/** One question on a connection of its own. */
const ask = <R extends pg.QueryResultRow>(url: string, text: string) =>
  Effect.promise(async () => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    // Several statements in one text are answered one by one.
    const answers = [(await client.query<R>(text)) as pg.QueryResult<R> | ReadonlyArray<pg.QueryResult<R>>].flat()
    await client.end()
    return answers[answers.length - 1]!.rows
  })

const DAY = 24 * 3_600_000_000

/** Take back what came after a version. */
const TO_VERSION_5 = "DROP TABLE quotes, oi_1m"
const TO_VERSION_3 = `
  ${TO_VERSION_5};
  ALTER TABLE store_state DROP COLUMN dropped_before;
  ALTER TABLE instruments DROP COLUMN first_seen, DROP COLUMN last_seen, ADD known_since timestamptz NOT NULL;
  DROP TRIGGER instruments_changed ON instruments_history;
  ALTER TABLE instruments_history DROP COLUMN first_seen, DROP COLUMN last_seen,
    ADD known_since timestamptz NOT NULL, ADD known_until timestamptz NOT NULL,
    ADD PRIMARY KEY (instrument_token, known_since)`

describe("the schema", () => {
  it.live("is made once, and that of a newer program is refused and left as it is", () =>
    Effect.gen(function* () {
      const options = yield* database
      const tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
      yield* Effect.scoped(
        Effect.gen(function* () {
          const pool = yield* connect(options)
          assert.strictEqual((yield* migrate(pool)).applied, SCHEMA_VERSION)
          assert.strictEqual((yield* migrate(pool)).applied, 0)
        })
      )
      yield* ask(options.url, `DROP VIEW candles_1d; INSERT INTO schema_version VALUES (${SCHEMA_VERSION + 1})`)
      const before = yield* ask(options.url, tables)
      const error = yield* Effect.flip(Effect.scoped(Timescale.make(options)))
      assert.strictEqual(
        error.message,
        `database: its schema is version ${SCHEMA_VERSION + 1}, made by a newer program; ` +
          `this one knows ${SCHEMA_VERSION} and leaves it alone`
      )
      assert.deepStrictEqual(yield* ask(options.url, tables), before)
    })
  )

  it.live("of version 1, which knew no layouts, goes on with its partitions", () =>
    Effect.gen(function* () {
      const options = yield* database
      yield* Effect.scoped(Effect.flatMap(connect(options), migrate))
      yield* ask(
        options.url,
        `${TO_VERSION_3}; DROP TABLE store_state, instruments_version; DROP FUNCTION assert_began_within;
         DROP FUNCTION instruments_changed CASCADE; DELETE FROM schema_version WHERE version > 1`
      )
      const again = yield* Effect.scoped(Effect.flatMap(connect(options), migrate))
      assert.strictEqual(again.level, "plain")
      assert.strictEqual(again.applied, SCHEMA_VERSION - 1)
      const store = yield* Timescale.make(options)
      assert.deepStrictEqual(yield* store.write(storeBatch({ ticks: [makeTick()] })), { added: 1 })
      assert.deepStrictEqual(yield* ask(options.url, "SELECT level, ticks_from FROM store_state"), [
        { level: "plain", ticks_from: Number.NEGATIVE_INFINITY }
      ])
    })
  )

  it.live(
    "of version 5, which knew no quotes, takes them of days that it has ticks of, and drops those days whole",
    () =>
      Effect.gen(function* () {
        const options = yield* database
        yield* Effect.scoped(
          Effect.gen(function* () {
            const store = yield* Timescale.make(options)
            yield* store.write(storeBatch({ ticks: [makeTick(), makeTick({ exchange_ts: OPEN - DAY })] }))
          })
        )
        yield* ask(options.url, `${TO_VERSION_5}; DELETE FROM schema_version WHERE version > 5`)
        const store = yield* Timescale.make({ ...options, keepDays: 1 })
        const quote = makeQuote({ oi: 7 })
        const written = yield* store.write(storeBatch({ quotes: [quote] }))
        assert.deepStrictEqual(written, { added: 0, quotes: { added: 1, dropped: 0 } })
        const query = { instrument_token: quote.instrument_token, from: OPEN - 1, to: OPEN + 1, limit: 10 }
        assert.deepStrictEqual(yield* store.quotePage(query), [quote])
        assert.deepStrictEqual((yield* store.candles({ ...query, interval: "1m" }))[0]?.oi, 7)
        yield* store.oldDays
        yield* ask(options.url, "UPDATE store_state SET ticks_from_raised_at = now() - INTERVAL '1 hour'")
        while ((yield* store.refreshCandles) > 0);
        const old = yield* store.oldDays
        assert.strictEqual(yield* store.dropDays(old!.before), 2)
        assert.deepStrictEqual(yield* store.quotePage(query), [])
        assert.deepStrictEqual((yield* store.candles({ ...query, interval: "1m" }))[0]?.oi, 7)
      })
  )

  it.live("clears the day's quotes of the rows that later ones took the place of, and needs none to be there", () =>
    Effect.gen(function* () {
      const { url, ...options } = yield* database
      const store = yield* Timescale.make({ url, ...options })
      const pool = yield* connect({ url, embedded: true })
      const clear = Effect.promise(() => Timescale.vacuum(pool, tradingDay(OPEN)))
      yield* clear
      const quotes = (offset: number) =>
        Array.from({ length: 200 }, (_, i) =>
          makeQuote({ instrument_token: i + 1, oi: offset, source: ["raw-1", offset + i, 1] })
        )
      const size = ask<{ bytes: string }>(url, "SELECT pg_relation_size('quotes_20260115') AS bytes")
      let bytes = 0
      for (let time = 1; time <= 12; time++) {
        yield* store.write(storeBatch({ quotes: quotes(time * 1000) }))
        yield* clear
        const [now] = yield* size
        // Twice the rows: what was replaced, and what came instead. From then on there is room.
        if (time === 3) bytes = Number(now!.bytes)
      }
      assert.strictEqual(Number((yield* size)[0]!.bytes), bytes)
    })
  )

  it.live("of version 3 has its instruments seen on the days of their imports, and no later than they expire", () =>
    Effect.gen(function* () {
      const options = yield* database
      yield* Effect.scoped(Effect.flatMap(connect(options), migrate))
      yield* ask(
        options.url,
        `${TO_VERSION_3}; DELETE FROM schema_version WHERE version > 3;
         UPDATE store_state SET ticks_from = '2026-01-14 18:30+00';
         INSERT INTO instruments (instrument_token, tradingsymbol, exchange, asset_class, tick_size, expiry, known_since) VALUES
           (1, 'INFY', 'NSE', 'EQ', 0.05, NULL, '2026-08-20 19:00+00'),
           (2, 'NIFTY25JULFUT', 'NFO', 'FUT', 0.1, '2025-07-31', '2026-08-22 04:00+00');
         INSERT INTO instruments_history
           (instrument_token, known_since, known_until, tradingsymbol, exchange, asset_class, tick_size, expiry) VALUES
           (2, '2026-08-21 04:00+00', '2026-08-22 04:00+00', 'NIFTY26AUGFUT', 'NFO', 'FUT', 0.1, '2026-08-25'),
           (2, '2026-08-21 03:00+00', '2026-08-21 04:00+00', 'NIFTY26AUGFUTURE', 'NFO', 'FUT', 0.1, '2026-08-25')`
      )
      const store = yield* Timescale.make(options)
      // It had dropped days before it said so.
      assert.strictEqual(yield* store.held, Date.parse("2026-01-14T18:30:00Z") * 1000)
      const found = yield* store.instruments(10)
      assert.deepStrictEqual(
        found.map(({ first, instrument }) => [instrument.tradingsymbol, tradingDate(first)]),
        [
          ["INFY", "2026-08-21"],
          ["NIFTY25JULFUT", "2025-07-31"],
          ["NIFTY26AUGFUT", "2026-08-21"]
        ]
      )
      assert.deepStrictEqual(yield* ask(options.url, "SELECT tradingsymbol FROM instruments ORDER BY 1"), [
        { tradingsymbol: "INFY" },
        { tradingsymbol: "NIFTY26AUGFUT" }
      ])
    })
  )

  it.live.skipIf(real === undefined)("says why it could not be made where the server ended the connection", () =>
    Effect.gen(function* () {
      const url = real!
      const pool = yield* connect({ url, embedded: false })
      // Someone else is at it, so that this one waits.
      const other = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const client = new pg.Client({ connectionString: url })
          await client.connect()
          await client.query(`BEGIN; SELECT pg_advisory_xact_lock(${advisory("schema")})`)
          return client
        }),
        (client) => Effect.promise(() => client.end())
      )
      const migrating = yield* Effect.forkChild(Effect.flip(migrate(pool)), { startImmediately: true })
      // The server is shared: who waits in another file's database is left alone.
      const ended = Effect.promise(() =>
        other.query(
          `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
        )
      )
      while ((yield* ended).rowCount === 0);
      assert.strictEqual(
        (yield* Fiber.join(migrating)).message,
        "database: its schema cannot be brought up to date: terminating connection due to administrator command"
      )
    })
  )

  it.live("lets a transaction with ticks end in its time only", () =>
    Effect.gen(function* () {
      const options = yield* database
      yield* Effect.scoped(Effect.flatMap(connect(options), migrate))
      yield* ask(options.url, "SELECT assert_began_within(INTERVAL '1 minute')")
      const refused = yield* ask(
        options.url,
        `DO $$ BEGIN
           PERFORM assert_began_within(INTERVAL '-1 minute');
           RAISE 'it was let pass';
         EXCEPTION WHEN query_canceled THEN PERFORM set_config('mdp.said', SQLERRM, false); END $$;
         SELECT current_setting('mdp.said') AS said`
      )
      assert.deepStrictEqual(refused, [{ said: "the transaction took longer than -00:01:00" }])
    })
  )

  it.live("lets a read touch only the days it asks for, through the primary key", () =>
    Effect.gen(function* () {
      const options = yield* database
      const store = yield* Timescale.make(options)
      const ticks = Array.from({ length: 2000 }, (_, n) =>
        makeTick({
          instrument_token: n % 20,
          exchange_ts: OPEN + (n % 4) * DAY + n * 1000,
          sequence_id: n,
          position: n
        })
      )
      yield* store.write(storeBatch({ ticks }))
      const explained = (text: string) =>
        Effect.map(ask<Record<string, string>>(options.url, `EXPLAIN ${text}`), (rows) =>
          rows.map((row) => row["QUERY PLAN"]).join("\n")
        )
      const literal = (text: string) =>
        text
          .replaceAll("$1::integer", "7")
          .replaceAll("$2::timestamptz", "TIMESTAMPTZ '2026-01-16 00:00+05:30'")
          .replaceAll("$3::timestamptz", "TIMESTAMPTZ '2026-01-17 00:00+05:30'")
          .replace(/\$\d::bigint/g, "100")
      const page = yield* explained(literal(PAGE_AFTER))
      assert.match(page, /Index Scan using ticks_20260116_pkey/)
      assert.notMatch(page, /ticks_20260115|ticks_20260117|ticks_20260118|Seq Scan/)
      const bars = yield* explained(literal(barTable.candles("5m").text))
      assert.match(bars, /candle_bars_pkey/)
      assert.notMatch(bars, /Seq Scan/)
    })
  )
})

describe("bookmarks at start", () => {
  it.live("are forgotten a month after their log was left, never those of the log written from last", () =>
    Effect.gen(function* () {
      const options = yield* database
      const bookmark = (incarnation: string, partition: number) => ({
        incarnation,
        partition,
        offset: 7,
        mark: undefined
      })
      const last = [bookmark("last", 0), bookmark("last", 1)]
      const left = [bookmark("left", 0), bookmark("left", 1)]
      const kept = (incarnation: string) =>
        Effect.scoped(Effect.flatMap(Timescale.make(options), (store) => store.bookmarks(incarnation)))
      yield* Effect.scoped(
        Effect.flatMap(Timescale.make(options), (store) => store.write(storeBatch({ bookmarks: [...left, ...last] })))
      )
      const age = (incarnation: string, partition: number, days: number) =>
        ask(
          options.url,
          `UPDATE sink_offsets SET updated_at = now() - INTERVAL '${days} days'
           WHERE incarnation = '${incarnation}' AND partition = ${partition}`
        )
      yield* age("left", 0, 60)
      yield* age("left", 1, 45)
      yield* age("last", 0, 50)
      // Nothing was written for more than a month.
      yield* age("last", 1, 40)
      assert.deepStrictEqual(yield* kept("last"), last)
      assert.deepStrictEqual(yield* kept("left"), [])
    })
  )
})

describe("DATABASE_URL", () => {
  it.live("of a server that does not answer is named in one line with its host, and without its password", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(() => freePort())
      const url = Redacted.make(`postgres://someone:hunter2@127.0.0.1:${port}/market`)
      const error = yield* Effect.flip(Effect.scoped(Timescale.make({ url, embedded: false })))
      assert.strictEqual(
        error.message,
        `DATABASE_URL: cannot use PostgreSQL at 127.0.0.1:${port}/market: connect ECONNREFUSED 127.0.0.1:${port}`
      )
    })
  )

  it.live("that is none is refused without being shown", () =>
    Effect.gen(function* () {
      for (const url of [
        "hunter2",
        "http://someone:hunter2@host/market",
        "postgres://someone:hunter2@host:99999/market"
      ]) {
        const error = yield* Effect.flip(Effect.scoped(Timescale.make({ url, embedded: false })))
        assert.strictEqual(error.message, "DATABASE_URL: expected postgres://user:password@host:port/database")
      }
    })
  )
})
