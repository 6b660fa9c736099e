/**
 * Decides how ticks, bars, bookmarks and instruments are written to and read from PostgreSQL, so that at any moment
 * what is read agrees with the ticks that are there.
 */
import { Clock, Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import pg from "pg"
import { barStart, type Candle, type Interval, intervalMinutes } from "../schema/Candle.ts"
import { StartError, StoreError } from "../schema/Errors.ts"
import type { Instrument } from "../schema/Instrument.ts"
import { type Sequencing, type Tick, tradingDate, tradingDay, tradingDayStart } from "../schema/Tick.ts"
import type { Bookmark, Mark } from "../streams/bookmark.ts"
import {
  type CandleQuery,
  type Quote,
  type StoreBatch,
  type StoredTick,
  type TickQuery,
  TickStore
} from "../streams/TickStore.ts"
import { advisory, barOf, dayOf, migrate, minuteBars, TICK_ORDER, widerBars } from "./migrations.ts"
import { int2Array, int4Array, int8Array, textArray, timestampArray, timestampText, wordArray } from "./pgArrays.ts"

export interface StoreOptions {
  /** `postgres://user:password@host:port/database`. */
  readonly url: string | Redacted.Redacted<string>
  /** True for PGlite behind its socket: one session serves every connection, so there must be one only. */
  readonly embedded: boolean
}

/** Connections to a server: writes run side by side, one a partition at most, and reads beside them. */
const POOL_CONNECTIONS = 8
const STATEMENT_TIMEOUT_MS = 30_000
const LOCK_TIMEOUT_MS = 10_000
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
/** A server that does not answer at all; PGlite knows none of the timeouts above, so this is its only one. */
const QUERY_TIMEOUT_MS = 40_000
/** How long a query waits for a free connection, or for one to be made. */
const CONNECT_TIMEOUT_MS = 10_000
const EMBEDDED_CONNECT_TIMEOUT_MS = 60_000
const END_TIMEOUT_MS = 5_000

/** Attempts at start wait 0.5, 1, 2 and 4 seconds in between. */
const START_RETRIES = 4

/** A transaction that inserts into more partitions than this would hold too many locks; it is split. */
const MAX_DAYS_PER_TRANSACTION = 64
/** A statement that reads plans and locks every partition of its range; a wider range is read in pieces. */
const MAX_DAYS_PER_READ = 31

/** After a row was found to be there already, so many writes look before they insert. */
const CAREFUL_WRITES = 20

/** Marked minutes recomputed in one transaction. */
const REFRESH_MINUTES = 500
/** Ticks of a minute still come for a moment after its end; a minute nothing comes to is quiet after a while. */
const SETTLE_SECONDS = 2
const QUIET_SECONDS = 5

/** Instruments put in one statement. */
const INSTRUMENT_ROWS = 5_000

/** Bookmarks of a log that no longer exists; an idle partition's comes back from the retained log. */
const BOOKMARK_DAYS = 30

/** PGlite has no background workers: its dead rows and its write-ahead log are cleared from here. */
const CHECKPOINT_LOOK = "5 seconds"
const CHECKPOINT_WAL_BYTES = 67_108_864
const LOOKS_PER_VACUUM = 60

const MICROS_PER_MINUTE = 60_000_000
const MICROS_PER_DAY = 86_400_000_000

// --- errors -----------------------------------------------------------------------------------------------------

const stateOf = (cause: unknown): string | undefined =>
  cause instanceof pg.DatabaseError && typeof cause.code === "string" ? cause.code : undefined

const UNIQUE_VIOLATION = "23505"
/** "no partition of relation found for row" */
const NO_PARTITION = "23514"
const STARTING_UP = "57P03"
const TOO_MANY_CONNECTIONS = "53300"

/** A number that its column has no room for fails before it is sent. */
const isUnsendable = (cause: unknown): boolean => cause instanceof RangeError || cause instanceof TypeError

/** Classes of SQLSTATE that say the request itself is wrong: data, constraint, syntax or name, limit, unsupported. */
const LASTING = /^(22|23|42|54|0A)/

const storeError = (operation: string, cause: unknown): StoreError => {
  const state = stateOf(cause)
  const message = cause instanceof Error ? cause.message : String(cause)
  return new StoreError({
    operation,
    message: state === undefined ? message : `${message} (${state})`,
    transient: state === undefined ? !isUnsendable(cause) : !LASTING.test(state)
  })
}

const ask = <A>(operation: string, run: () => Promise<A>): Effect.Effect<A, StoreError> =>
  Effect.tryPromise({ try: run, catch: (cause) => storeError(operation, cause) }).pipe(
    Effect.withSpan(`TickStore.${operation}`)
  )

// --- connections ------------------------------------------------------------------------------------------------

const wrongUrl = () => new StartError({ message: "DATABASE_URL: expected postgres://user:password@host:port/database" })

/** What may be shown of a connection URL: host, port and database. */
const serverName = (url: string): string | undefined => {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    return undefined
  }
  if (parsed.protocol !== "postgres:" && parsed.protocol !== "postgresql:") return undefined
  const host = parsed.hostname || parsed.searchParams.get("host") || "localhost"
  return `${host}:${parsed.port || "5432"}${parsed.pathname === "/" ? "" : parsed.pathname}`
}

const ignore = (): void => {}

const makePool = (url: string, embedded: boolean): pg.Pool => {
  const pool = new pg.Pool({
    connectionString: url,
    max: embedded ? 1 : POOL_CONNECTIONS,
    connectionTimeoutMillis: embedded ? EMBEDDED_CONNECT_TIMEOUT_MS : CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    lock_timeout: LOCK_TIMEOUT_MS,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
    keepAlive: true,
    application_name: "market-data-platform",
    onConnect: async (client) => {
      // A connection that dies while it is out reports to the query under way; without a listener it ends the process.
      client.on("error", ignore)
      // PGlite's one session outlives its connections: a new one starts clean.
      if (embedded) await client.query("DISCARD ALL")
      // A plan kept for any parameters would lock every partition there is; planning for the day at hand is cheap.
      await client.query("SET plan_cache_mode = force_custom_plan")
    }
  })
  pool.on("error", ignore)
  return pool
}

const endPool = (pool: pg.Pool): Effect.Effect<void> =>
  Effect.promise(() => {
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, END_TIMEOUT_MS)
    return Promise.race([pool.end().catch(ignore), late]).finally(() => clearTimeout(timer))
  })

/** A pool that has reached its server, closed with the scope. */
export const connect = (options: StoreOptions): Effect.Effect<pg.Pool, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const url = Redacted.isRedacted(options.url) ? Redacted.value(options.url) : options.url
    const server = serverName(url)
    if (server === undefined) return yield* wrongUrl()
    const pool = yield* Effect.acquireRelease(
      Effect.try({ try: () => makePool(url, options.embedded), catch: wrongUrl }),
      endPool
    )
    yield* Effect.tryPromise({ try: () => pool.query("SELECT 1"), catch: (cause) => cause }).pipe(
      Effect.retry({
        times: START_RETRIES,
        schedule: Schedule.exponential("500 millis"),
        while: (cause) => {
          const state = stateOf(cause)
          return state === undefined || state === STARTING_UP || state === TOO_MANY_CONNECTIONS
        }
      }),
      Effect.mapError((cause) => {
        const said = cause instanceof AggregateError ? cause.errors[0] : cause
        const reason = said instanceof Error ? said.message : String(said)
        return new StartError({ message: `DATABASE_URL: cannot use PostgreSQL at ${server}: ${reason}` })
      })
    )
    return pool
  })

/** Everything in `work` or nothing of it. A connection in doubt is closed, which undoes what it had under way. */
const transaction = async <A>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<A>): Promise<A> => {
  const client = await pool.connect()
  try {
    await client.query("BEGIN")
    const answer = await work(client)
    await client.query("COMMIT")
    client.release()
    return answer
  } catch (cause) {
    // The server answered, so the connection is sound once the transaction is rolled back.
    if (stateOf(cause) === undefined) client.release(true)
    else
      await client.query("ROLLBACK").then(
        () => client.release(),
        () => client.release(true)
      )
    throw cause
  }
}

// --- rows as they come ------------------------------------------------------------------------------------------

/** int8, int2, int4, float4, float8, numeric: all within what a JS number holds exactly in this schema. */
const NUMBERS = new Set([20, 21, 23, 700, 701, 1700])
const asText = (text: string): string => text
const types = {
  getTypeParser: (oid: number) => (NUMBERS.has(oid) ? Number : asText)
} as unknown as pg.CustomTypesConfig

type Value = number | string | null

/** Numbered parameters for a named statement; rows as arrays, numbers as numbers, everything else as text. */
const rows = async <R extends ReadonlyArray<Value>>(
  client: pg.Pool | pg.PoolClient,
  name: string,
  text: string,
  values: Array<unknown>
): Promise<ReadonlyArray<R>> => {
  const result = await client.query<Array<Value>>({ name, text, values, rowMode: "array", types })
  return result.rows as unknown as ReadonlyArray<R>
}

/**
 * A time as seconds whose shortest decimal has the microseconds exactly: until 2100 a float8 is finer than half of one.
 */
const seconds = (time: string): string => `date_part('epoch', ${time})`
const micros = (value: number): number => Math.round(value * 1_000_000)

/**
 * A tick as one text, its fields apart by tabs and the feed, which may hold anything, at the end: three times as fast
 * to read as twelve columns.
 */
const TICK =
  `concat_ws(E'\\t', instrument_token, ${seconds("exchange_ts")}, sequence_id, price, volume, status, ` +
  `coalesce(epoch::text, ''), coalesce(position::text, ''), session, sequencing, ${seconds("received_ts")}, feed)`
const FEED_FIELD = 11

type TickRow = readonly [tick: string]

const sequencingCode: Record<Sequencing, string> = { contiguous: "c", monotonic: "m", none: "n" }
const sequencingOf = (code: string): Sequencing => (code === "c" ? "contiguous" : code === "m" ? "monotonic" : "none")

const storedTick = ([text]: TickRow): StoredTick => {
  const field = text.split("\t")
  return {
    instrument_token: Number(field[0]),
    exchange_ts: micros(Number(field[1])),
    sequence_id: Number(field[2]),
    price: Number(field[3]),
    volume: Number(field[4]),
    status: field[5] === "STALE" ? "STALE" : "LIVE",
    epoch: field[6] === "" ? null : Number(field[6]),
    position: field[7] === "" ? null : Number(field[7]),
    feed: field.length === FEED_FIELD + 1 ? field[FEED_FIELD]! : field.slice(FEED_FIELD).join("\t"),
    session: Number(field[8]),
    sequencing: sequencingOf(field[9]!),
    received_ts: micros(Number(field[10]))
  }
}

// --- statements -------------------------------------------------------------------------------------------------

// Sorted by the key: pages of the index are met one after the other, which makes it half as fast again, and two
// writers of the same rows wait for each other rather than for ever.
const INSERT = `
  INSERT INTO ticks (instrument_token, exchange_ts, sequence_id, price, volume, status, epoch, position, feed, session,
                     sequencing, received_ts)
  SELECT * FROM unnest($1::integer[], $2::timestamptz[], $3::bigint[], $4::numeric[], $5::bigint[], $6::varchar[],
                       $7::bigint[], $8::bigint[], $9::text[], $10::smallint[], $11::"char"[], $12::timestamptz[])
         AS t (instrument_token, exchange_ts, sequence_id, price, volume, status, epoch, position, feed, session,
               sequencing, received_ts)
  ORDER BY instrument_token, exchange_ts, sequence_id`

const TOUCHED = (rowsChanged: string) => `
  SELECT instrument_token, ${seconds(barOf(1, "exchange_ts"))}, count(*), count(epoch)
  FROM ${rowsChanged} GROUP BY 1, 2`

const INSERT_MISSING = `
  WITH added AS (${INSERT} ON CONFLICT DO NOTHING RETURNING instrument_token, exchange_ts, epoch) ${TOUCHED("added")}`

/** A replay may have added a row before the live tick came: the live one brings its place in the day. */
const FILL_POSITIONS = `
  WITH filled AS (
    UPDATE ticks t SET epoch = l.epoch, position = l.position
    FROM unnest($1::integer[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[])
         AS l (instrument_token, exchange_ts, sequence_id, epoch, position)
    WHERE t.instrument_token = l.instrument_token AND t.exchange_ts = l.exchange_ts
      AND t.sequence_id = l.sequence_id AND t.epoch IS NULL
      AND t.exchange_ts >= $6::timestamptz AND t.exchange_ts <= $7::timestamptz
    RETURNING t.instrument_token, t.exchange_ts, t.epoch)
  ${TOUCHED("filled")}`

const MARK_MINUTES = `
  INSERT INTO candle_marks (instrument_token, bucket, counter, marked_at)
  SELECT m.instrument_token, m.bucket, nextval('candle_mark_counter'), now()
  FROM unnest($1::integer[], $2::timestamptz[]) AS m (instrument_token, bucket)
  ORDER BY 1, 2
  ON CONFLICT (instrument_token, bucket) DO UPDATE SET counter = excluded.counter, marked_at = excluded.marked_at`

const PUT_BOOKMARKS = `
  INSERT INTO sink_offsets (incarnation, partition, next_offset, mark, updated_at)
  SELECT b.incarnation, b.partition, b.next_offset, b.mark, now()
  FROM json_to_recordset($1::json) AS b (incarnation text, partition integer, next_offset bigint, mark jsonb)
  ORDER BY 1, 2
  ON CONFLICT (incarnation, partition) DO UPDATE
  SET next_offset = excluded.next_offset, mark = excluded.mark, updated_at = excluded.updated_at
  WHERE excluded.next_offset > sink_offsets.next_offset`

/**
 * The key's order is the ticks' but for ties, so a page is what the index gives first, with all ties of its last
 * instant, and only that is sorted. Without this a day that was never analyzed is sorted whole for every page.
 */
const pageOf = (passed: string): string => `
  SELECT ${TICK} FROM (
    SELECT * FROM ticks
    WHERE instrument_token = $1::integer AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz ${passed}
    ORDER BY exchange_ts FETCH FIRST ($4::bigint) ROWS WITH TIES) t
  ORDER BY ${TICK_ORDER} LIMIT $4::bigint`

const PAGE = pageOf("")
const LAST_BIGINT = "9223372036854775807"
/** The page that starts at a cursor's time leaves out what the cursor has passed of it. */
export const PAGE_AFTER = pageOf(`
    AND (exchange_ts > $2::timestamptz OR
         (greatest(sequence_id, 0), coalesce(epoch, ${LAST_BIGINT}), coalesce(position, ${LAST_BIGINT}), sequence_id)
         > (greatest($5::bigint, 0), coalesce($6::bigint, ${LAST_BIGINT}), coalesce($7::bigint, ${LAST_BIGINT}),
            $5::bigint))`)

const AFTER_POSITION = `
  SELECT ${TICK} FROM ticks
  WHERE instrument_token = $1::integer AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz
    AND (epoch, position) > ($4::bigint, $5::bigint)
  ORDER BY epoch, position LIMIT $6::bigint`

const COUNT = `
  SELECT count(*) FROM ticks
  WHERE instrument_token = ANY ($1::integer[]) AND exchange_ts >= $2::timestamptz AND exchange_ts < $3::timestamptz`

/** Every token there is has a bar or a mark; from one to the next by their keys, then a look into the range. */
const TOKENS = `
  WITH RECURSIVE known AS (
    SELECT min(instrument_token) AS token FROM candle_bars
    UNION ALL
    SELECT (SELECT min(b.instrument_token) FROM candle_bars b WHERE b.instrument_token > known.token)
    FROM known WHERE known.token IS NOT NULL)
  SELECT k.token
  FROM (SELECT token FROM known WHERE token IS NOT NULL UNION SELECT DISTINCT instrument_token FROM candle_marks) k
  WHERE EXISTS (SELECT FROM ticks t WHERE t.instrument_token = k.token
                AND t.exchange_ts >= $1::timestamptz AND t.exchange_ts < $2::timestamptz)`

const minutesOfOne = minuteBars({
  bars: "b.instrument_token = $1::integer AND b.bucket >= $2::timestamptz AND b.bucket < $3::timestamptz",
  barsLimit: "ORDER BY b.bucket LIMIT $4::bigint",
  marks: "m.instrument_token = $1::integer AND m.bucket >= $2::timestamptz AND m.bucket < $3::timestamptz",
  marksLimit: "ORDER BY m.bucket LIMIT $4::bigint"
})

/** $4 bounds the minutes read (a bar has no more of them than its length), $5 the bars answered. */
export const candlesSql = (interval: Interval): string => `
  SELECT ${seconds("c.bucket")}, c.open, c.high, c.low, c.close, c.volume
  FROM (${interval === "1m" ? minutesOfOne : widerBars(intervalMinutes[interval], minutesOfOne)}) c
  ORDER BY c.bucket LIMIT $5::bigint`

const QUOTES = `
  WITH latest AS MATERIALIZED (
    SELECT k.token, greatest(
             (SELECT max(b.bucket) FROM candle_bars b WHERE b.instrument_token = k.token),
             (SELECT max(m.bucket) FROM candle_marks m WHERE m.instrument_token = k.token)) AS bucket
    FROM unnest($1::integer[]) AS k (token)),
  days AS MATERIALIZED (
    SELECT token, bucket, ${dayOf("bucket")} AS day FROM latest WHERE bucket IS NOT NULL),
  minutes AS (
    SELECT b.instrument_token, b.bucket, b.open, b.high, b.low, b.volume
    FROM days d
    JOIN candle_bars b
      ON b.instrument_token = d.token AND b.bucket >= d.day AND b.bucket < d.day + INTERVAL '24 hours'
    WHERE NOT EXISTS (
      SELECT FROM candle_marks m WHERE m.instrument_token = b.instrument_token AND m.bucket = b.bucket)
    UNION ALL
    SELECT r.instrument_token, r.bucket, r.open, r.high, r.low, r.volume
    FROM (
      SELECT d.day, array_agg(m.instrument_token) AS tokens, array_agg(m.bucket) AS buckets
      FROM days d
      JOIN candle_marks m
        ON m.instrument_token = d.token AND m.bucket >= d.day AND m.bucket < d.day + INTERVAL '24 hours'
      GROUP BY d.day) g
    CROSS JOIN LATERAL candle_recompute(g.day, g.tokens, g.buckets) r),
  day_bars AS (
    SELECT instrument_token, (array_agg(open ORDER BY bucket))[1] AS open, max(high) AS high, min(low) AS low,
           sum(volume) AS volume
    FROM minutes GROUP BY 1)
  SELECT ${TICK}, open, high, low, day_volume
  FROM (
    SELECT t.*, b.open, b.high, b.low, b.volume AS day_volume
    FROM (SELECT day, array_agg(token) AS tokens, array_agg(bucket) AS buckets FROM days GROUP BY day) g
    CROSS JOIN LATERAL last_ticks(g.day, g.tokens, g.buckets) t
    JOIN day_bars b USING (instrument_token)) q`

const REFRESH = `
  WITH picked AS MATERIALIZED (
    SELECT instrument_token, bucket, counter FROM candle_marks
    WHERE bucket < now() - INTERVAL '${60 + SETTLE_SECONDS} seconds'
       OR marked_at < now() - INTERVAL '${QUIET_SECONDS} seconds'
    ORDER BY bucket, instrument_token LIMIT ${REFRESH_MINUTES}),
  put AS (
    INSERT INTO candle_bars (instrument_token, bucket, open, high, low, close, volume)
    SELECT r.instrument_token, r.bucket, r.open, r.high, r.low, r.close, r.volume
    FROM (
      SELECT ${dayOf("bucket")} AS day, array_agg(instrument_token) AS tokens, array_agg(bucket) AS buckets
      FROM picked GROUP BY 1) d
    CROSS JOIN LATERAL candle_recompute(d.day, d.tokens, d.buckets) r
    ON CONFLICT (instrument_token, bucket) DO UPDATE
    SET open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume)
  SELECT counter FROM picked`

/** A mark whose row a writer holds is passed over: its counter is about to change, and the writer must not wait. */
const UNMARK = `
  DELETE FROM candle_marks m
  USING (
    SELECT instrument_token, bucket FROM candle_marks
    WHERE counter = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED) done
  WHERE m.instrument_token = done.instrument_token AND m.bucket = done.bucket`

const INSTRUMENT_COLUMNS =
  "instrument_token, tradingsymbol, exchange, asset_class, tick_size, name, expiry, strike, option_type, lot_size"
const listed = (alias: string, columns: string): string =>
  columns
    .split(", ")
    .map((column) => `${alias}.${column}`)
    .join(", ")
const CONTENT = INSTRUMENT_COLUMNS.replace("instrument_token, ", "")
/** A token that comes with another of these stands for something else. */
const MEANING = "exchange, tradingsymbol, expiry"

const GIVEN_INSTRUMENTS = `
  SELECT * FROM json_to_recordset($1::json) AS g (
    instrument_token integer, tradingsymbol varchar(50), exchange varchar(10), asset_class varchar(20),
    tick_size numeric, name text, expiry date, strike numeric, option_type varchar(2), lot_size integer)`

const PUT_INSTRUMENTS = `
  WITH given AS MATERIALIZED (${GIVEN_INSTRUMENTS}),
  kept AS (
    INSERT INTO instruments_history (instrument_token, known_since, known_until, ${CONTENT})
    SELECT i.instrument_token, i.known_since, now(), ${listed("i", CONTENT)}
    FROM instruments i JOIN given g USING (instrument_token)
    WHERE (${listed("i", MEANING)}) IS DISTINCT FROM (${listed("g", MEANING)})
    ON CONFLICT DO NOTHING),
  put AS (
    INSERT INTO instruments AS i (${INSTRUMENT_COLUMNS}, known_since)
    SELECT ${INSTRUMENT_COLUMNS}, now() FROM given ORDER BY instrument_token
    ON CONFLICT (instrument_token) DO UPDATE
    SET (${CONTENT}) = ROW (${listed("excluded", CONTENT)}),
        known_since = CASE WHEN (${listed("i", MEANING)}) IS DISTINCT FROM (${listed("excluded", MEANING)})
                           THEN excluded.known_since ELSE i.known_since END,
        expired = i.expired AND i.expiry IS NOT DISTINCT FROM excluded.expiry
    WHERE (${listed("i", CONTENT)}) IS DISTINCT FROM (${listed("excluded", CONTENT)})
    RETURNING xmax = 0 AS added)
  SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM put`

const EXPIRE_INSTRUMENTS = "UPDATE instruments SET expired = true WHERE expiry < $1::date AND NOT expired"

// --- the store --------------------------------------------------------------------------------------------------

type Touched = readonly [token: number, minuteSeconds: number, rows: number, positioned: number]

/** Minutes of instruments, each once. */
class Minutes {
  readonly tokens: Array<number> = []
  readonly starts: Array<number> = []
  readonly #seen = new Set<string>()
  readonly #last = new Map<number, number>()

  add(token: number, minute: number): void {
    if (this.#last.get(token) === minute) return
    this.#last.set(token, minute)
    const key = `${token} ${minute}`
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    this.tokens.push(token)
    this.starts.push(minute)
  }
}

const daysOf = (...lists: ReadonlyArray<ReadonlyArray<Tick>>): Set<number> => {
  const days = new Set<number>()
  let last = Number.NaN
  for (const ticks of lists) {
    for (const tick of ticks) {
      const day = tradingDay(tick.exchange_ts)
      if (day === last) continue
      last = day
      days.add(day)
    }
  }
  return days
}

const minuteStart = (time: number): number => Math.floor(time / MICROS_PER_MINUTE) * MICROS_PER_MINUTE

/** The first of each key that is not in `seen` yet. */
const firstOfKeys = (ticks: ReadonlyArray<Tick>, seen: Set<string>): ReadonlyArray<Tick> =>
  ticks.filter(({ instrument_token, exchange_ts, sequence_id }) => {
    const size = seen.size
    return seen.add(`${instrument_token} ${exchange_ts} ${sequence_id}`).size > size
  })

/** Ticks first, then replayed ones, which have no place in the day. */
const tickColumns = (ticks: ReadonlyArray<Tick>, replayed: ReadonlyArray<Tick>): Array<unknown> => {
  const all = replayed.length === 0 ? ticks : [...ticks, ...replayed]
  const live = ticks.length
  return [
    int4Array(all, (t) => t.instrument_token),
    timestampArray(all, (t) => t.exchange_ts),
    int8Array(all, (t) => t.sequence_id),
    wordArray(all, (t) => t.price),
    int8Array(all, (t) => t.volume),
    wordArray(all, (t) => t.status),
    int8Array(all, (t, i) => (i < live ? t.epoch : null)),
    int8Array(all, (t, i) => (i < live ? t.position : null)),
    textArray(all, (t) => t.feed),
    int2Array(all, (t) => t.session),
    wordArray(all, (t) => sequencingCode[t.sequencing]),
    timestampArray(all, (t) => t.received_ts)
  ]
}

const putBookmarks = async (client: pg.PoolClient, bookmarks: ReadonlyArray<Bookmark>): Promise<void> => {
  if (bookmarks.length === 0) return
  const furthest = new Map<string, Bookmark>()
  for (const bookmark of bookmarks) {
    const key = `${bookmark.partition} ${bookmark.incarnation}`
    const other = furthest.get(key)
    if (other === undefined || other.offset < bookmark.offset) furthest.set(key, bookmark)
  }
  const json = JSON.stringify(
    [...furthest.values()].map((b) => ({
      incarnation: b.incarnation,
      partition: b.partition,
      next_offset: b.offset,
      mark: b.mark ?? null
    }))
  )
  await client.query({ name: "put_bookmarks", text: PUT_BOOKMARKS, values: [json] })
}

/** The day partitions of this database, made as their first tick comes. */
const makePartitions = (pool: pg.Pool) => {
  /** Days known to be there: at most one for each day of the calendar. */
  const known = new Set<number>()

  const create = async (day: number): Promise<void> => {
    const name = `ticks_${tradingDate(day).replaceAll("-", "")}`
    await transaction(pool, async (client) => {
      await client.query(`SELECT pg_advisory_xact_lock(${advisory("partitions")})`)
      const found = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [name])
      if (found.rows[0]!.there) return
      // Made apart and then attached: readers and writers of other days go on meanwhile.
      await client.query(`CREATE TABLE ${name} (LIKE ticks INCLUDING ALL)`)
      await client.query(
        `ALTER TABLE ticks ATTACH PARTITION ${name} FOR VALUES ` +
          `FROM ('${timestampText(tradingDayStart(day))}') TO ('${timestampText(tradingDayStart(day + 1))}')`
      )
    })
    known.add(day)
  }

  return {
    ensure: async (days: Iterable<number>): Promise<void> => {
      for (const day of days) if (!known.has(day)) await create(day)
    },
    /** Somebody dropped one: look again. */
    forget: () => known.clear(),
    /** [from, to) in pieces of few enough partitions, ascending. */
    windows: async (from: number, to: number): Promise<ReadonlyArray<readonly [from: number, to: number]>> => {
      if (to <= from) return []
      if (to - from <= MAX_DAYS_PER_READ * MICROS_PER_DAY) return [[from, to]]
      const found = await rows<readonly [number]>(
        pool,
        "days",
        `SELECT to_date(right(c.relname, 8), 'YYYYMMDD') - DATE '1970-01-01'
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'ticks'::regclass ORDER BY 1`,
        []
      )
      const first = tradingDay(from)
      const last = tradingDay(to - 1)
      const days = found.map(([day]) => day).filter((day) => day >= first && day <= last)
      const windows: Array<readonly [number, number]> = []
      for (let i = 0; i < days.length; i += MAX_DAYS_PER_READ) {
        const end = days[Math.min(i + MAX_DAYS_PER_READ, days.length) - 1]!
        windows.push([Math.max(from, tradingDayStart(days[i]!)), Math.min(to, tradingDayStart(end + 1))])
      }
      return windows
    }
  }
}

const makeStore = (pool: pg.Pool): TickStore["Service"] => {
  const partitions = makePartitions(pool)
  let careful = 0

  const mark = async (client: pg.PoolClient, minutes: Minutes): Promise<void> => {
    if (minutes.tokens.length === 0) return
    await client.query({
      name: "mark_minutes",
      text: MARK_MINUTES,
      values: [int4Array(minutes.tokens, (token) => token), timestampArray(minutes.starts, (start) => start)]
    })
  }

  /** Every row is new, else it fails with a unique violation: a third faster than asking row by row. */
  const insertNew = (ticks: ReadonlyArray<Tick>, bookmarks: ReadonlyArray<Bookmark>): Promise<number> =>
    transaction(pool, async (client) => {
      const minutes = new Minutes()
      for (const tick of ticks) minutes.add(tick.instrument_token, minuteStart(tick.exchange_ts))
      await client.query({ name: "insert", text: INSERT, values: tickColumns(ticks, []) })
      await mark(client, minutes)
      await putBookmarks(client, bookmarks)
      return ticks.length
    })

  const insertMissing = ({ ticks: given, replayed: repeated, bookmarks }: StoreBatch): Promise<number> =>
    transaction(pool, async (client) => {
      const seen = new Set<string>()
      // Of a live and a replayed copy of a tick the live one counts.
      const ticks = firstOfKeys(given, seen)
      const replayed = firstOfKeys(repeated, seen)
      const minutes = new Minutes()
      let added = 0
      let live = 0
      if (ticks.length + replayed.length > 0) {
        const inserted = await rows<Touched>(client, "insert_missing", INSERT_MISSING, tickColumns(ticks, replayed))
        for (const [token, start, count, positioned] of inserted) {
          minutes.add(token, micros(start))
          added += count
          live += positioned
        }
      }
      if (live < ticks.length) {
        let first = Number.POSITIVE_INFINITY
        let last = 0
        for (const { exchange_ts } of ticks) {
          if (exchange_ts < first) first = exchange_ts
          if (exchange_ts > last) last = exchange_ts
        }
        const filled = await rows<Touched>(client, "fill_positions", FILL_POSITIONS, [
          int4Array(ticks, (t) => t.instrument_token),
          timestampArray(ticks, (t) => t.exchange_ts),
          int8Array(ticks, (t) => t.sequence_id),
          int8Array(ticks, (t) => t.epoch),
          int8Array(ticks, (t) => t.position),
          timestampText(first),
          timestampText(last)
        ])
        for (const [token, start] of filled) minutes.add(token, micros(start))
      }
      await mark(client, minutes)
      await putBookmarks(client, bookmarks)
      return added
    })

  const writeOnce = async (batch: StoreBatch): Promise<number> => {
    const { ticks, replayed, bookmarks } = batch
    if (ticks.length > 0 && replayed.length === 0 && careful === 0) {
      try {
        return await insertNew(ticks, bookmarks)
      } catch (cause) {
        if (stateOf(cause) !== UNIQUE_VIOLATION) throw cause
        careful = CAREFUL_WRITES
      }
    }
    const added = await insertMissing(batch)
    if (ticks.length > 0 && replayed.length === 0) {
      careful = added === ticks.length ? Math.max(0, careful - 1) : CAREFUL_WRITES
    }
    return added
  }

  const writeDays = async (batch: StoreBatch, days: ReadonlySet<number>): Promise<number> => {
    await partitions.ensure(days)
    try {
      return await writeOnce(batch)
    } catch (cause) {
      if (stateOf(cause) !== NO_PARTITION) throw cause
      partitions.forget()
      await partitions.ensure(days)
      return await writeOnce(batch)
    }
  }

  const write = async (batch: StoreBatch): Promise<{ readonly added: number }> => {
    if (batch.ticks.length + batch.replayed.length + batch.bookmarks.length === 0) return { added: 0 }
    const days = daysOf(batch.ticks, batch.replayed)
    if (days.size <= MAX_DAYS_PER_TRANSACTION) return { added: await writeDays(batch, days) }
    // Only a file of very many days comes here. The bookmarks go with the last piece, so none runs ahead of its rows.
    const ordered = [...days].sort((a, b) => a - b)
    let added = 0
    for (let i = 0; i < ordered.length; i += MAX_DAYS_PER_TRANSACTION) {
      const piece = new Set(ordered.slice(i, i + MAX_DAYS_PER_TRANSACTION))
      const within = (tick: Tick) => piece.has(tradingDay(tick.exchange_ts))
      const bookmarks = i + MAX_DAYS_PER_TRANSACTION < ordered.length ? [] : batch.bookmarks
      const part = { ticks: batch.ticks.filter(within), replayed: batch.replayed.filter(within), bookmarks }
      added += await writeDays(part, piece)
    }
    return { added }
  }

  const bookmarks = async (incarnation: string): Promise<ReadonlyArray<Bookmark>> => {
    const found = await rows<readonly [number, number, string | null]>(
      pool,
      "bookmarks",
      "SELECT partition, next_offset, mark FROM sink_offsets WHERE incarnation = $1::text ORDER BY partition",
      [incarnation]
    )
    return found.map(([partition, offset, mark]) => ({
      partition,
      incarnation,
      offset,
      mark: mark === null ? undefined : (JSON.parse(mark) as Mark)
    }))
  }

  const page = async (
    query: TickQuery,
    from: number,
    to: number,
    limit: number
  ): Promise<ReadonlyArray<StoredTick>> => {
    const { after } = query
    const within = [query.instrument_token, timestampText(from), timestampText(to), limit]
    const found =
      after !== undefined && after.exchange_ts === from
        ? await rows<TickRow>(pool, "page_after", PAGE_AFTER, [
            ...within,
            after.sequence_id,
            after.epoch,
            after.position
          ])
        : await rows<TickRow>(pool, "page", PAGE, within)
    return found.map(storedTick)
  }

  const ticks = async (query: TickQuery): Promise<ReadonlyArray<StoredTick>> => {
    // A cursor before the range has passed nothing of it.
    const from = Math.max(query.from, query.after?.exchange_ts ?? query.from)
    const windows = await partitions.windows(from, query.to)
    let found: ReadonlyArray<StoredTick> = []
    for (const [start, end] of windows) {
      const more = await page(query, start, end, query.limit - found.length)
      found = found.length === 0 ? more : [...found, ...more]
      if (found.length >= query.limit) break
    }
    return found
  }

  const candles = async (query: CandleQuery): Promise<ReadonlyArray<Candle>> => {
    const { interval, limit } = query
    const width = intervalMinutes[interval]
    const startAtOrAfter = (time: number): number => {
      const start = barStart(time, interval)
      return start === time ? start : start + width * MICROS_PER_MINUTE
    }
    const found = await rows<readonly [number, number, number, number, number, number]>(
      pool,
      `candles_${interval}`,
      candlesSql(interval),
      [
        query.instrument_token,
        timestampText(startAtOrAfter(query.from)),
        timestampText(startAtOrAfter(query.to)),
        limit * width,
        limit
      ]
    )
    return found.map(([ts, open, high, low, close, volume]) => ({ ts: micros(ts), open, high, low, close, volume }))
  }

  const quotes = async (tokens: ReadonlyArray<number>): Promise<ReadonlyMap<number, Quote>> => {
    const answer = new Map<number, Quote>()
    if (tokens.length === 0) return answer
    const distinct = [...new Set(tokens)]
    const found = await rows<readonly [tick: string, open: number, high: number, low: number, volume: number]>(
      pool,
      "quotes",
      QUOTES,
      [int4Array(distinct, (token) => token)]
    )
    for (const row of found) {
      const last = storedTick([row[0]])
      answer.set(last.instrument_token, { last, open: row[1], high: row[2], low: row[3], volume: row[4] })
    }
    return answer
  }

  const ticksAfter = async (
    token: number,
    epoch: number,
    position: number,
    limit: number
  ): Promise<ReadonlyArray<StoredTick>> => {
    const day = Math.floor(epoch / 1_000_000_000)
    const found = await rows<TickRow>(pool, "after_position", AFTER_POSITION, [
      token,
      timestampText(tradingDayStart(day)),
      timestampText(tradingDayStart(day + 1)),
      epoch,
      position,
      limit
    ])
    return found.map(storedTick)
  }

  const count = async (tokens: ReadonlyArray<number>, from: number, to: number): Promise<number> => {
    if (tokens.length === 0) return 0
    const distinct = [...new Set(tokens)]
    let sum = 0
    for (const [start, end] of await partitions.windows(from, to)) {
      const found = await rows<readonly [number]>(pool, "count", COUNT, [
        int4Array(distinct, (token) => token),
        timestampText(start),
        timestampText(end)
      ])
      sum += found[0]![0]
    }
    return sum
  }

  const tokens = async (from: number, to: number): Promise<ReadonlyArray<number>> => {
    const all = new Set<number>()
    for (const [start, end] of await partitions.windows(from, to)) {
      const found = await rows<readonly [number]>(pool, "tokens", TOKENS, [timestampText(start), timestampText(end)])
      for (const [token] of found) all.add(token)
    }
    return [...all].sort((a, b) => a - b)
  }

  const refresh = (): Promise<number> =>
    transaction(pool, async (client) => {
      // One refresher at a time: an older recompute must not overwrite a newer one.
      const lock = await client.query<{ held: boolean }>(
        `SELECT pg_try_advisory_xact_lock(${advisory("candles")}) AS held`
      )
      if (!lock.rows[0]!.held) return 0
      const done = await rows<readonly [number]>(client, "refresh", REFRESH, [])
      if (done.length === 0) return 0
      const unmarked = await client.query({
        name: "unmark",
        text: UNMARK,
        values: [int8Array(done, ([counter]) => counter)]
      })
      return unmarked.rowCount ?? 0
    })

  const instruments = async (): Promise<ReadonlyArray<Instrument>> => {
    const found = await rows<
      readonly [
        number,
        string,
        string,
        Instrument["asset_class"],
        number,
        string | null,
        string | null,
        number | null,
        Instrument["option_type"],
        number | null
      ]
    >(
      pool,
      "instruments",
      `SELECT ${INSTRUMENT_COLUMNS.replace("expiry", "to_char(expiry, 'YYYY-MM-DD')")} FROM instruments ORDER BY instrument_token`,
      []
    )
    return found.map((row) => ({
      instrument_token: row[0],
      tradingsymbol: row[1],
      exchange: row[2],
      asset_class: row[3],
      tick_size: row[4],
      name: row[5],
      expiry: row[6],
      strike: row[7],
      option_type: row[8],
      lot_size: row[9]
    }))
  }

  const putInstruments = (given: ReadonlyArray<Instrument>, today: string) =>
    transaction(pool, async (client) => {
      await client.query(`SELECT pg_advisory_xact_lock(${advisory("instruments")})`)
      const distinct = [...new Map(given.map((instrument) => [instrument.instrument_token, instrument])).values()]
      let added = 0
      let changed = 0
      for (let i = 0; i < distinct.length; i += INSTRUMENT_ROWS) {
        const json = JSON.stringify(distinct.slice(i, i + INSTRUMENT_ROWS))
        const put = await rows<readonly [number, number]>(client, "put_instruments", PUT_INSTRUMENTS, [json])
        added += put[0]![0]
        changed += put[0]![1]
      }
      const expired = await client.query({ name: "expire", text: EXPIRE_INSTRUMENTS, values: [today] })
      return { added, changed, expired: expired.rowCount ?? 0 }
    })

  return TickStore.of({
    write: (batch) => ask("write", () => write(batch)),
    bookmarks: (incarnation) => ask("bookmarks", () => bookmarks(incarnation)),
    ticks: (query) => ask("ticks", () => ticks(query)),
    candles: (query) => ask("candles", () => candles(query)),
    quotes: (of) => ask("quotes", () => quotes(of)),
    ticksAfter: (token, epoch, position, limit) => ask("ticksAfter", () => ticksAfter(token, epoch, position, limit)),
    count: (of, from, to) => ask("count", () => count(of, from, to)),
    tokens: (from, to) => ask("tokens", () => tokens(from, to)),
    refreshCandles: ask("refreshCandles", refresh),
    instruments: ask("instruments", instruments),
    // `expired` counts the instruments whose expiry has passed (IST) since the put before, whether or not this one
    // names them: they stay to be looked up, and each is counted once.
    putInstruments: (given) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        ask("putInstruments", () => putInstruments(given, tradingDate(tradingDay(now * 1000))))
      )
  })
}

const forgetOldBookmarks = (pool: pg.Pool) =>
  ask("forgetOldBookmarks", () =>
    pool.query(`DELETE FROM sink_offsets WHERE updated_at < now() - INTERVAL '${BOOKMARK_DAYS} days'`)
  )

const maintain = (pool: pg.Pool): Effect.Effect<never> =>
  Effect.gen(function* () {
    let checkpointed = "0/0"
    for (let look = 1; ; look++) {
      yield* Effect.sleep(CHECKPOINT_LOOK)
      // What fails here may wait for the next time: nothing is wrong without it but space.
      yield* Effect.ignore(
        ask("checkpoint", async () => {
          const found = await pool.query<{ at: string; bytes: string }>(
            "SELECT pg_current_wal_insert_lsn() AS at, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1) AS bytes",
            [checkpointed]
          )
          const { at, bytes } = found.rows[0]!
          if (Number(bytes) < CHECKPOINT_WAL_BYTES) return
          await pool.query("CHECKPOINT")
          checkpointed = at
        })
      )
      if (look % LOOKS_PER_VACUUM === 0) {
        yield* Effect.ignore(
          ask("vacuum", () => pool.query("VACUUM (ANALYZE) candle_marks, candle_bars, sink_offsets"))
        )
      }
    }
  })

/** The store on a database brought to this program's schema. */
export const make = (options: StoreOptions): Effect.Effect<TickStore["Service"], StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const pool = yield* connect(options)
    yield* migrate(pool)
    yield* Effect.ignore(forgetOldBookmarks(pool))
    if (options.embedded) yield* Effect.forkScoped(maintain(pool))
    return makeStore(pool)
  })

export const layer = (options: StoreOptions): Layer.Layer<TickStore, StartError> =>
  Layer.effect(TickStore, make(options))
