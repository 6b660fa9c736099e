/**
 * Decides what the database looks like: every schema statement, in versions that are applied once and in order, for
 * each of the layouts (`serverLevel.ts`). A schema that a newer program made is refused, never altered.
 */
import { Effect } from "effect"
import type pg from "pg"
import { StartError } from "../../schema/Errors.ts"
import { AGGREGATES, FIVE_MINUTE_BARS, MATERIALISE_THROUGH } from "./barAggregates.ts"
import { exactBars, LAST_TICKS_FUNCTION, MINUTE_BARS, recomputeFunction, widerBars } from "./bars.ts"
import { advisory } from "./connection.ts"
import { EARLIEST_DAY } from "./days.ts"
import { type Chosen, checkServer, chooseLevel, couldHaveTimescale, findServer, type Level } from "./serverLevel.ts"

const EVERYTHING = { bars: "true", marks: "true" }

const TICKS = `
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
)`

const PARTITIONED_TICKS = `${TICKS} PARTITION BY RANGE (exchange_ts);
COMMENT ON TABLE ticks IS 'one partition an IST trading day, made when its first tick comes';`

// The key is the only index: another on the time would cost a third of the insert rate, and no question needs it.
const HYPERTABLE = `${TICKS};
SELECT create_hypertable('ticks', by_range('exchange_ts', INTERVAL '1 day'), create_default_indexes => false);`

const COLUMNSTORE = `
ALTER TABLE ticks SET (
  timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_token',
  timescaledb.orderby = 'exchange_ts, sequence_id');
CALL add_columnstore_policy('ticks', after => INTERVAL '3 days');`

const BAR_TABLE = `
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

`

const REST = `
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

${recomputeFunction(MINUTE_BARS)}
${LAST_TICKS_FUNCTION}
`

/** Views of exact bars: of the widths that are materialised, and wider ones on top of the last of them. */
const views = (materialised: ReadonlyArray<typeof MINUTE_BARS>): string => {
  const name = (minutes: number) => `candles_${minutes < 60 ? `${minutes}m` : minutes < 1440 ? "1h" : "1d"}`
  const own = materialised.map((level) => `CREATE VIEW ${name(level.minutes)} AS ${exactBars(level, EVERYTHING)};`)
  const widest = materialised[materialised.length - 1]!.minutes
  const wider = [5, 15, 30, 60, 1440]
    .filter((minutes) => minutes > widest)
    .map((minutes) => `CREATE VIEW ${name(minutes)} AS ${widerBars(minutes, `SELECT * FROM ${name(widest)}`)};`)
  return [...own, ...wider].join("\n")
}

const VERSION_1: Record<Level, string> = {
  plain: `${PARTITIONED_TICKS}${BAR_TABLE}${REST}${views([MINUTE_BARS])}`,
  apache: `${HYPERTABLE}${BAR_TABLE}${REST}${views([MINUTE_BARS])}`,
  community: `${HYPERTABLE}${COLUMNSTORE}${AGGREGATES}${REST}
${recomputeFunction(FIVE_MINUTE_BARS)}
${views([MINUTE_BARS, FIVE_MINUTE_BARS])}`
}

/** What a transaction needs to know of the store as a whole, in one row. */
const version2 = (level: Level): string => `
CREATE TABLE store_state (
  level text NOT NULL,
  ticks_from timestamptz NOT NULL DEFAULT '-infinity',
  ticks_from_raised_at timestamptz NOT NULL DEFAULT '-infinity',
  bars_through timestamptz NOT NULL
);
COMMENT ON COLUMN store_state.level IS 'the layout that this database was set up with';
COMMENT ON COLUMN store_state.ticks_from IS 'earlier ticks are dropped, and none is taken; their bars stay';
COMMENT ON COLUMN store_state.bars_through IS 'continuous aggregates have every bar that ends by then, without a hole';
-- What is older when the first ticks come is marked.
INSERT INTO store_state (level, bars_through) VALUES ('${level}', ${MATERIALISE_THROUGH});

CREATE FUNCTION assert_began_within(lasting interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF clock_timestamp() > now() + lasting THEN
    RAISE EXCEPTION 'the transaction took longer than %', lasting USING ERRCODE = 'query_canceled';
  END IF;
END $$;
`

/** Whether instruments changed is told by one row, so that nobody reads them all to find out. */
const INSTRUMENTS_VERSION = `
CREATE TABLE instruments_version (version bigint NOT NULL);
COMMENT ON TABLE instruments_version IS 'grows with every statement that changes instruments';
-- From the time of day: a database made anew does not look like the one before it.
INSERT INTO instruments_version VALUES ((date_part('epoch', clock_timestamp()) * 1000)::bigint);

CREATE FUNCTION instruments_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE instruments_version SET version = version + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER instruments_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON instruments
FOR EACH STATEMENT EXECUTE FUNCTION instruments_changed();
`

const INSTRUMENT_CONTENT =
  "tradingsymbol, exchange, asset_class, tick_size, name, expiry, strike, option_type, lot_size"
/** The trading day of a time. */
const istDay = (time: string): string => `(${time} AT TIME ZONE 'UTC' + INTERVAL '5 hours 30 minutes')::date`

/**
 * What a token means goes by the days of the files that said so, no longer by when they were imported; of those before,
 * only the day of the import is known, and that no contract is seen after its expiry.
 */
const INSTRUMENT_DAYS = `
CREATE TEMPORARY TABLE sightings ON COMMIT DROP AS
SELECT *, row_number() OVER (PARTITION BY instrument_token ORDER BY seen DESC) AS age FROM (
  SELECT DISTINCT ON (instrument_token, seen) * FROM (
    SELECT instrument_token, least(${istDay("known_since")}, expiry) AS seen, known_since, ${INSTRUMENT_CONTENT} FROM instruments
    UNION ALL
    SELECT instrument_token, least(${istDay("known_since")}, expiry), known_since, ${INSTRUMENT_CONTENT} FROM instruments_history
  ) AS every ORDER BY instrument_token, seen, known_since DESC
) AS distinct_days;
DELETE FROM instruments;
DELETE FROM instruments_history;
ALTER TABLE instruments DROP COLUMN known_since, ADD first_seen date NOT NULL, ADD last_seen date NOT NULL;
ALTER TABLE instruments_history DROP COLUMN known_since, DROP COLUMN known_until,
  ADD first_seen date NOT NULL, ADD last_seen date NOT NULL, ADD PRIMARY KEY (instrument_token, first_seen);
COMMENT ON COLUMN instruments.first_seen IS 'the trading day of the first file that said so, after any that said another';
COMMENT ON COLUMN instruments.last_seen IS 'the trading day of the last file that said so, at most the expiry';
COMMENT ON TABLE instruments_history IS 'what a reused token meant before';
INSERT INTO instruments (instrument_token, first_seen, last_seen, expired, ${INSTRUMENT_CONTENT})
SELECT instrument_token, seen, seen, coalesce(expiry < ${istDay("now()")}, false), ${INSTRUMENT_CONTENT}
FROM sightings WHERE age = 1;
INSERT INTO instruments_history (instrument_token, first_seen, last_seen, ${INSTRUMENT_CONTENT})
SELECT instrument_token, seen, seen, ${INSTRUMENT_CONTENT} FROM sightings WHERE age > 1;
CREATE TRIGGER instruments_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON instruments_history
FOR EACH STATEMENT EXECUTE FUNCTION instruments_changed();
`

/**
 * From when on all that was written is still there: what lies before is dropped, and who asks for it asks the archive.
 * `ticks_from` may be later by days that are still to be dropped. A database that dropped days before it knew this has
 * none left before what it still has.
 */
const droppedBefore = (level: Level): string => `
ALTER TABLE store_state ADD COLUMN dropped_before timestamptz NOT NULL DEFAULT '-infinity';
COMMENT ON COLUMN store_state.dropped_before IS 'ticks before it are dropped; later ones are all there';
UPDATE store_state SET dropped_before = least(ticks_from, coalesce((${EARLIEST_DAY[level]}), ticks_from));
`

/** See `quotes.ts`: who says what, and which of two stays. */
const QUOTES_TABLE = `
CREATE TABLE quotes (
  instrument_token integer NOT NULL,
  exchange_ts timestamptz NOT NULL,
  bid_price numeric,
  bid_quantity bigint,
  bid_orders bigint,
  ask_price numeric,
  ask_quantity bigint,
  ask_orders bigint,
  total_buy_quantity bigint,
  total_sell_quantity bigint,
  oi bigint,
  oi_day_high bigint,
  oi_day_low bigint,
  average_price numeric,
  last_quantity bigint,
  last_trade_ts timestamptz,
  open numeric,
  high numeric,
  low numeric,
  previous_close numeric,
  lower_circuit numeric,
  upper_circuit numeric,
  day_volume bigint,
  feed text NOT NULL,
  received_ts timestamptz NOT NULL,
  source_incarnation text NOT NULL,
  source_offset bigint NOT NULL,
  depth bytea,
  PRIMARY KEY (instrument_token, exchange_ts)
)`

const QUOTES_LAYOUT: Record<Level, string> = {
  plain: " PARTITION BY RANGE (exchange_ts);",
  apache: `;
SELECT create_hypertable('quotes', by_range('exchange_ts', INTERVAL '1 day'), create_default_indexes => false);`,
  community: `;
SELECT create_hypertable('quotes', by_range('exchange_ts', INTERVAL '1 day'), create_default_indexes => false);
ALTER TABLE quotes SET (
  timescaledb.enable_columnstore, timescaledb.segmentby = 'instrument_token', timescaledb.orderby = 'exchange_ts');
CALL add_columnstore_policy('quotes', after => INTERVAL '3 days');`
}

const quotes = (level: Level): string => `
${QUOTES_TABLE}${QUOTES_LAYOUT[level]}
COMMENT ON TABLE quotes IS 'all that was known of book and day at a stamp: the last of each';
COMMENT ON COLUMN quotes.bid_quantity IS '0 without a price: nobody bids; null: not known';
COMMENT ON COLUMN quotes.ask_quantity IS '0 without a price: nobody offers; null: not known';
COMMENT ON COLUMN quotes.source_offset IS 'in raw_ticks; -1 where a replay added the row';
COMMENT ON COLUMN quotes.depth IS
  'with STORE_DEPTH: number of bids and of asks, a byte each (255: not known), then bids and asks, best first, as three 64-bit big-endian integers: price in 0.0000001, quantity, orders';

CREATE TABLE oi_1m (
  instrument_token integer NOT NULL,
  minute timestamptz NOT NULL,
  exchange_ts timestamptz NOT NULL,
  oi bigint NOT NULL,
  source_incarnation text NOT NULL,
  source_offset bigint NOT NULL,
  PRIMARY KEY (instrument_token, minute)
) WITH (fillfactor = 50);
COMMENT ON TABLE oi_1m IS 'the last open interest of each minute, for bars; it stays when the quotes of its day are dropped';
`

/** Statements of each version; version n is entry n - 1. One that was released is never edited, only followed. */
const VERSIONS: ReadonlyArray<(level: Level) => string> = [
  (level) => VERSION_1[level],
  version2,
  () => INSTRUMENTS_VERSION,
  () => INSTRUMENT_DAYS,
  droppedBefore,
  quotes
]

/** The schema version that this program reads and writes. */
export const SCHEMA_VERSION = VERSIONS.length

export interface Migrated extends Chosen {
  /** How many versions were applied. */
  readonly applied: number
}

/** The layout of a database at this version; before version 2 there was one. */
const levelAt = async (client: pg.PoolClient, version: number): Promise<Level | undefined> => {
  if (version === 0) return undefined
  if (version === 1) return "plain"
  const found = await client.query<{ level: Level }>("SELECT level FROM store_state")
  return found.rows[0]!.level
}

const apply = async (client: pg.PoolClient): Promise<Migrated> => {
  const server = await findServer(client)
  checkServer(server)
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
    const chosen = chooseLevel(server, await levelAt(client, version))
    for (let next = version + 1; next <= SCHEMA_VERSION; next++) {
      await client.query(VERSIONS[next - 1]!(chosen.level))
      await client.query("INSERT INTO schema_version (version) VALUES ($1)", [next])
    }
    await client.query("COMMIT")
    return { ...chosen, applied: SCHEMA_VERSION - version }
  } catch (cause) {
    // Of a connection that is gone nothing is to be rolled back; why it went is the reason.
    await client.query("ROLLBACK").catch(() => undefined)
    throw cause
  }
}

/**
 * A new database on a server that has TimescaleDB gets it, where that is allowed. A server that has it and does not
 * load it ends the connection, so it is one of its own; whatever goes wrong, what is then found decides.
 */
export const createTimescale = async (pool: pg.Pool): Promise<void> => {
  const client = await pool.connect()
  client.on("error", () => undefined)
  try {
    const isNew = await client.query<{ isNew: boolean }>(`SELECT to_regclass('schema_version') IS NULL AS "isNew"`)
    if (!isNew.rows[0]!.isNew || !couldHaveTimescale(await findServer(client))) return
    await client.query("CREATE EXTENSION IF NOT EXISTS timescaledb")
  } catch {
    // Not loaded, not allowed, or another process just did it.
  } finally {
    // The library is there for connections that begin after it.
    client.release(true)
  }
}

const migrated = async (pool: pg.Pool): Promise<Migrated> => {
  await createTimescale(pool)
  const client = await pool.connect()
  try {
    const result = await apply(client)
    client.release()
    return result
  } catch (cause) {
    client.release(true)
    throw cause
  }
}

/** Brings the schema to this program's version, in the layout that the server can carry; safe to run at once. */
export const migrate = (pool: pg.Pool): Effect.Effect<Migrated, StartError> =>
  Effect.tryPromise({
    try: () => migrated(pool),
    catch: (cause) =>
      cause instanceof StartError
        ? cause
        : new StartError({ message: `database: its schema cannot be brought up to date: ${(cause as Error).message}` })
  })
