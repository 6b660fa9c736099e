/**
 * Decides what the database looks like: every schema statement, in versions that are applied once and in order. A
 * schema that a newer program made is refused, never altered.
 *
 * This is plain PostgreSQL, 14 and later. Where a TimescaleDB server does it otherwise (a hypertable in place of the
 * partitions, continuous aggregates in place of `candle_bars`), its statements belong here as well.
 */
import { Effect } from "effect"
import type pg from "pg"
import { StartError } from "../schema/Errors.ts"

/** The order of `compareTicks` among one instrument's rows. */
export const TICK_ORDER = "exchange_ts, greatest(sequence_id, 0), epoch, position, sequence_id"
/** Its exact reverse: what comes last ascending, the nulls, comes first descending. */
const TICK_ORDER_REVERSED =
  "exchange_ts DESC, greatest(sequence_id, 0) DESC, epoch DESC, position DESC, sequence_id DESC"

/** A 09:15 IST and an IST midnight before every tick there can be; date_bin has rounded wrongly below its origin. */
const BAR_ORIGIN = "TIMESTAMPTZ '1970-01-01 03:45:00+00'"
const DAY_ORIGIN = "TIMESTAMPTZ '1969-12-31 18:30:00+00'"

/** SQL for the start of the bar of so many minutes that holds a time. */
export const barOf = (minutes: number, time: string): string =>
  `date_bin(INTERVAL '${minutes} minutes', ${time}, ${minutes === 1440 ? DAY_ORIGIN : BAR_ORIGIN})`
/** SQL for the start of the trading day that holds a time. */
export const dayOf = (time: string): string => barOf(1440, time)

/** Advisory locks of this program; its first key is ours, the second says what is locked. */
const LOCK_SPACE = 0x6d6470
const LOCKS = { schema: 1, partitions: 2, candles: 3, instruments: 4 } as const
export const advisory = (lock: keyof typeof LOCKS): string => `${LOCK_SPACE}, ${LOCKS[lock]}`

/**
 * SQL for one-minute bars that are exact at any moment: the materialised ones that no mark covers, and a recompute of
 * the marked ones, in the one snapshot of the statement around it. `bars` and `marks` narrow the tables `b` and `m`
 * down, and may bound them.
 */
export const minuteBars = (narrow: {
  readonly bars: string
  readonly marks: string
  readonly barsLimit?: string
  readonly marksLimit?: string
}): string => `
  (SELECT b.instrument_token, b.bucket, b.open, b.high, b.low, b.close, b.volume
   FROM candle_bars b
   WHERE ${narrow.bars} AND NOT EXISTS (
     SELECT FROM candle_marks m WHERE m.instrument_token = b.instrument_token AND m.bucket = b.bucket)
   ${narrow.barsLimit ?? ""})
  UNION ALL
  (SELECT r.instrument_token, r.bucket, r.open, r.high, r.low, r.close, r.volume
   FROM (
     SELECT m.instrument_token, ${dayOf("m.bucket")} AS day,
            array_agg(m.instrument_token) AS tokens, array_agg(m.bucket) AS buckets
     FROM (
       SELECT m.instrument_token, m.bucket FROM candle_marks m WHERE ${narrow.marks} ${narrow.marksLimit ?? ""}) m
     GROUP BY 1, 2) d
   CROSS JOIN LATERAL candle_recompute(d.day, d.tokens, d.buckets) r)`

/** SQL for bars of so many minutes out of rows of one-minute bars. */
export const widerBars = (minutes: number, source: string): string => `
  SELECT m.instrument_token, ${barOf(minutes, "m.bucket")} AS bucket,
         (array_agg(m.open ORDER BY m.bucket))[1] AS open, max(m.high) AS high, min(m.low) AS low,
         (array_agg(m.close ORDER BY m.bucket DESC))[1] AS close, sum(m.volume) AS volume
  FROM (${source}) m
  GROUP BY 1, 2`

const widerView = (name: string, minutes: number): string =>
  `CREATE VIEW ${name} AS ${widerBars(minutes, "SELECT * FROM candles_1m")};`

/**
 * The functions plan for one trading day at a time, with the day as a constant: only its partition is planned and
 * locked, however many days are kept. They read in the snapshot of the statement that calls them.
 */
const DAY_FUNCTION = "LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan"

const VERSION_1 = `
CREATE TABLE ticks (
  instrument_token integer NOT NULL,
  exchange_ts timestamptz NOT NULL,
  sequence_id bigint NOT NULL,
  price numeric NOT NULL,
  volume bigint NOT NULL,
  status varchar(10) NOT NULL,
  epoch bigint,
  position bigint,
  feed text NOT NULL,
  session smallint NOT NULL,
  sequencing "char" NOT NULL,
  received_ts timestamptz NOT NULL,
  PRIMARY KEY (instrument_token, exchange_ts, sequence_id)
) PARTITION BY RANGE (exchange_ts);
COMMENT ON TABLE ticks IS 'one partition an IST trading day, made when its first tick comes';

CREATE TABLE candle_bars (
  instrument_token integer NOT NULL,
  bucket timestamptz NOT NULL,
  open numeric NOT NULL,
  high numeric NOT NULL,
  low numeric NOT NULL,
  close numeric NOT NULL,
  volume numeric NOT NULL,
  PRIMARY KEY (instrument_token, bucket)
);
COMMENT ON TABLE candle_bars IS 'one-minute bars as of their last refresh; read candles_1m, which is exact';

-- Numbers that are never given twice: a mark that went and came back is not mistaken for the one read before.
CREATE SEQUENCE candle_mark_counter CACHE 64;
CREATE TABLE candle_marks (
  instrument_token integer NOT NULL,
  bucket timestamptz NOT NULL,
  counter bigint NOT NULL,
  marked_at timestamptz NOT NULL,
  PRIMARY KEY (instrument_token, bucket)
) WITH (fillfactor = 50);
COMMENT ON TABLE candle_marks IS 'minutes whose ticks changed since candle_bars was refreshed';

CREATE TABLE sink_offsets (
  incarnation text NOT NULL,
  partition integer NOT NULL,
  next_offset bigint NOT NULL,
  mark jsonb,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (incarnation, partition)
);
COMMENT ON TABLE sink_offsets IS 'how far the ticks of each normalized_ticks partition are in this database';

CREATE TABLE instruments (
  instrument_token integer PRIMARY KEY,
  tradingsymbol varchar(50) NOT NULL,
  exchange varchar(10) NOT NULL,
  asset_class varchar(20) NOT NULL,
  tick_size numeric NOT NULL,
  name text,
  expiry date,
  strike numeric,
  option_type varchar(2),
  lot_size integer,
  known_since timestamptz NOT NULL,
  expired boolean NOT NULL DEFAULT false
);
CREATE TABLE instruments_history (
  instrument_token integer NOT NULL,
  known_since timestamptz NOT NULL,
  known_until timestamptz NOT NULL,
  tradingsymbol varchar(50) NOT NULL,
  exchange varchar(10) NOT NULL,
  asset_class varchar(20) NOT NULL,
  tick_size numeric NOT NULL,
  name text,
  expiry date,
  strike numeric,
  option_type varchar(2),
  lot_size integer,
  PRIMARY KEY (instrument_token, known_since)
);
COMMENT ON TABLE instruments_history IS 'what a reused token meant before';

CREATE FUNCTION candle_recompute(day timestamptz, tokens integer[], buckets timestamptz[])
RETURNS TABLE (
  instrument_token integer, bucket timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric)
${DAY_FUNCTION} AS $$
#variable_conflict use_column
DECLARE
  day_end timestamptz := day + INTERVAL '24 hours';
BEGIN
  RETURN QUERY
  SELECT k.token, k.start, o.price, a.high, a.low, c.price, a.volume
  FROM unnest(tokens, buckets) AS k(token, start)
  CROSS JOIN LATERAL (
    SELECT max(t.price) AS high, min(t.price) AS low, sum(t.volume) AS volume
    FROM ticks t
    WHERE t.instrument_token = k.token AND t.exchange_ts >= k.start AND t.exchange_ts < k.start + INTERVAL '1 minute'
      AND t.exchange_ts >= day AND t.exchange_ts < day_end) a
  CROSS JOIN LATERAL (
    SELECT t.price FROM ticks t
    WHERE t.instrument_token = k.token AND t.exchange_ts >= k.start AND t.exchange_ts < k.start + INTERVAL '1 minute'
      AND t.exchange_ts >= day AND t.exchange_ts < day_end
    ORDER BY ${TICK_ORDER} LIMIT 1) o
  CROSS JOIN LATERAL (
    SELECT t.price FROM ticks t
    WHERE t.instrument_token = k.token AND t.exchange_ts >= k.start AND t.exchange_ts < k.start + INTERVAL '1 minute'
      AND t.exchange_ts >= day AND t.exchange_ts < day_end
    ORDER BY ${TICK_ORDER_REVERSED} LIMIT 1) c;
END $$;

-- The last tick of each of these minutes.
CREATE FUNCTION last_ticks(day timestamptz, tokens integer[], buckets timestamptz[]) RETURNS SETOF ticks
${DAY_FUNCTION} AS $$
#variable_conflict use_column
DECLARE
  day_end timestamptz := day + INTERVAL '24 hours';
BEGIN
  RETURN QUERY
  SELECT l.*
  FROM unnest(tokens, buckets) AS k(token, start)
  CROSS JOIN LATERAL (
    SELECT t.* FROM ticks t
    WHERE t.instrument_token = k.token AND t.exchange_ts >= k.start AND t.exchange_ts < k.start + INTERVAL '1 minute'
      AND t.exchange_ts >= day AND t.exchange_ts < day_end
    ORDER BY ${TICK_ORDER_REVERSED} LIMIT 1) l;
END $$;

CREATE VIEW candles_1m AS ${minuteBars({ bars: "true", marks: "true" })};
${widerView("candles_5m", 5)}
${widerView("candles_15m", 15)}
${widerView("candles_30m", 30)}
${widerView("candles_1h", 60)}
${widerView("candles_1d", 1440)}
`

/** Statements of each version; version n is entry n - 1. One that was released is never edited, only followed. */
const VERSIONS: ReadonlyArray<string> = [VERSION_1]

/** The schema version that this program reads and writes. */
export const SCHEMA_VERSION = VERSIONS.length

const OLDEST_SERVER = 140_000

const apply = async (client: pg.PoolClient): Promise<number> => {
  const server = await client.query<{ version: string }>("SELECT current_setting('server_version_num') AS version")
  if (Number(server.rows[0]!.version) < OLDEST_SERVER) {
    throw new StartError({
      message: `DATABASE_URL: PostgreSQL 14 or later is needed, this is ${server.rows[0]!.version}`
    })
  }
  await client.query("BEGIN")
  try {
    await client.query(`SELECT pg_advisory_xact_lock(${advisory("schema")})`)
    await client.query(
      "CREATE TABLE IF NOT EXISTS schema_version (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    const found = await client.query<{ version: number }>(
      "SELECT coalesce(max(version), 0)::integer AS version FROM schema_version"
    )
    const version = found.rows[0]!.version
    if (version > SCHEMA_VERSION) {
      throw new StartError({
        message: `database: its schema is version ${version}, made by a newer program; this one knows ${SCHEMA_VERSION} and leaves it alone`
      })
    }
    for (let next = version + 1; next <= SCHEMA_VERSION; next++) {
      await client.query(VERSIONS[next - 1]!)
      await client.query("INSERT INTO schema_version (version) VALUES ($1)", [next])
    }
    await client.query("COMMIT")
    return SCHEMA_VERSION - version
  } catch (cause) {
    await client.query("ROLLBACK")
    throw cause
  }
}

const migrated = async (pool: pg.Pool): Promise<number> => {
  const client = await pool.connect()
  try {
    const applied = await apply(client)
    client.release()
    return applied
  } catch (cause) {
    client.release(true)
    throw cause
  }
}

/** Brings the schema to this program's version and answers how many versions were applied; safe to run at once. */
export const migrate = (pool: pg.Pool): Effect.Effect<number, StartError> =>
  Effect.tryPromise({
    try: () => migrated(pool),
    catch: (cause) =>
      cause instanceof StartError
        ? cause
        : new StartError({ message: `database: its schema cannot be brought up to date: ${(cause as Error).message}` })
  })
