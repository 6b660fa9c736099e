/**
 * Decides what bars are in SQL: exact at any moment, whatever they are materialised in. `candle_bars` holds one-minute
 * bars as of their last refresh and `candle_marks` the minutes that ticks have touched since; a bar without a mark is
 * read as it is, a marked one recomputed from its ticks, in the one snapshot of the statement around it.
 *
 * What `candle_bars` is, when a minute is marked and how it is refreshed differs: `barTable.ts` on plain PostgreSQL
 * and TimescaleDB Apache, `barAggregates.ts` on TimescaleDB Community.
 */
import type pg from "pg"
import { type Interval, intervalMinutes } from "../../schema/Candle.ts"
import { int8Array } from "./arrays.ts"
import { barOf, dayOf, seconds, TICK, TICK_ORDER, TICK_ORDER_REVERSED } from "./rows.ts"

/** Bars as they are materialised: by so many minutes, in this relation, recomputed by this function. */
export interface Materialised {
  readonly minutes: number
  readonly relation: string
  readonly recompute: string
}

export const MINUTE_BARS: Materialised = { minutes: 1, relation: "candle_bars", recompute: "candle_recompute" }

/**
 * SQL for exact bars out of materialised ones. `bars` and `marks` narrow `b` and `m` down, and may bound them; bars
 * wider than a minute must be asked for by whole ones, so that each is met by all its marks.
 */
export const exactBars = (
  { minutes, relation, recompute }: Materialised,
  narrow: {
    readonly bars: string
    readonly marks: string
    /** How many of each, the earliest ones. */
    readonly limit?: string
  }
): string => {
  const earliest = narrow.limit === undefined ? "" : `ORDER BY bucket LIMIT ${narrow.limit}`
  const marked =
    minutes === 1
      ? "m.bucket = b.bucket"
      : `m.bucket >= b.bucket AND m.bucket < b.bucket + INTERVAL '${minutes} minutes'`
  const marks =
    minutes === 1
      ? `SELECT m.instrument_token, m.bucket FROM candle_marks m WHERE ${narrow.marks} ${earliest}`
      : `SELECT DISTINCT m.instrument_token, ${barOf(minutes, "m.bucket")} AS bucket
         FROM candle_marks m WHERE ${narrow.marks} ${earliest}`
  return `
  (SELECT b.instrument_token, b.bucket, b.open, b.high, b.low, b.close, b.volume
   FROM ${relation} b
   WHERE ${narrow.bars} AND NOT EXISTS (
     SELECT FROM candle_marks m WHERE m.instrument_token = b.instrument_token AND ${marked})
   ${earliest})
  UNION ALL
  (SELECT r.instrument_token, r.bucket, r.open, r.high, r.low, r.close, r.volume
   FROM (
     SELECT m.instrument_token, ${dayOf("m.bucket")} AS day,
            array_agg(m.instrument_token) AS tokens, array_agg(m.bucket) AS buckets
     FROM (${marks}) m
     GROUP BY 1, 2) d
   CROSS JOIN LATERAL ${recompute}(d.day, d.tokens, d.buckets) r)`
}

/** SQL for bars of so many minutes out of rows of shorter ones. */
export const widerBars = (minutes: number, source: string): string => `
  SELECT m.instrument_token, ${barOf(minutes, "m.bucket")} AS bucket,
         (array_agg(m.open ORDER BY m.bucket))[1] AS open, max(m.high) AS high, min(m.low) AS low,
         (array_agg(m.close ORDER BY m.bucket DESC))[1] AS close, sum(m.volume) AS volume
  FROM (${source}) m
  GROUP BY 1, 2`

/**
 * The functions plan for one trading day at a time, with the day as a constant: only what holds that day is planned
 * and locked, however many days are kept. They read in the snapshot of the statement that calls them.
 */
const DAY_FUNCTION = "LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan"

/** The function that computes bars from their ticks; there is none where there are no ticks. */
export const recomputeFunction = ({ minutes, recompute }: Materialised): string => {
  const ticksOfBar = `
    t.instrument_token = k.token AND t.exchange_ts >= k.start AND t.exchange_ts < k.start + INTERVAL '${minutes} minutes'
      AND t.exchange_ts >= day AND t.exchange_ts < day_end`
  return `
CREATE FUNCTION ${recompute}(day timestamptz, tokens integer[], buckets timestamptz[])
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
    WHERE ${ticksOfBar}) a
  CROSS JOIN LATERAL (
    SELECT t.price FROM ticks t
    WHERE ${ticksOfBar}
    ORDER BY ${TICK_ORDER} LIMIT 1) o
  CROSS JOIN LATERAL (
    SELECT t.price FROM ticks t
    WHERE ${ticksOfBar}
    ORDER BY ${TICK_ORDER_REVERSED} LIMIT 1) c;
END $$;`
}

/** The function that finds the last tick of each of some minutes. */
export const LAST_TICKS_FUNCTION = `
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
END $$;`

/** SQL for the last open interest of the bar `c` of so many minutes, null where none is known. */
const lastOi = (minutes: number): string => `(
    SELECT o.oi FROM oi_1m o
    WHERE o.instrument_token = c.instrument_token
      AND o.minute >= c.bucket AND o.minute < c.bucket + INTERVAL '${minutes} minutes'
    ORDER BY o.minute DESC LIMIT 1)`

/**
 * One instrument's bars that start in [$2, $3), at most $5. Of the materialised ones at most $4 are read: a bar has no
 * more of them than its length.
 */
export const barsOfOne = (from: Materialised, interval: Interval): string => {
  const source = exactBars(from, {
    bars: "b.instrument_token = $1::integer AND b.bucket >= $2::timestamptz AND b.bucket < $3::timestamptz",
    marks: "m.instrument_token = $1::integer AND m.bucket >= $2::timestamptz AND m.bucket < $3::timestamptz",
    limit: "$4::bigint"
  })
  const minutes = intervalMinutes[interval]
  return `
  SELECT ${seconds("c.bucket")}, c.open, c.high, c.low, c.close, c.volume, ${lastOi(minutes)}
  FROM (
    SELECT * FROM (${minutes === from.minutes ? source : widerBars(minutes, source)}) b
    ORDER BY b.bucket LIMIT $5::bigint) c
  ORDER BY c.bucket`
}

/** A minute: `ticks_from`, its start, sums, the one epoch and session of its ticks or null, and its first and last tick. */
export type MinuteRow = readonly [
  ticksFrom: number,
  start: number,
  count: number,
  high: number,
  low: number,
  volume: number,
  epoch: number | null,
  session: number | null,
  open: string | null,
  close: string | null
]

const TICKS_OF_MINUTE = `
    t.instrument_token = $1::integer
      AND t.exchange_ts >= k.minute_start AND t.exchange_ts < k.minute_start + INTERVAL '1 minute'
      AND t.exchange_ts >= $5::timestamptz AND t.exchange_ts < $6::timestamptz
      AND (t.epoch IS NULL OR (t.epoch, t.position) < (k.before_epoch, k.before_position))`

/**
 * The minutes $2 of one instrument from their ticks, each of those before its place $3, $4; they lie in [$5, $6), which
 * the server plans for. Where nothing was dropped of them this is what every bar is made of.
 */
export const MINUTES = `
  SELECT (SELECT ${seconds("ticks_from")} FROM store_state), ${seconds("k.minute_start")},
         a.count, a.high, a.low, a.volume, a.epoch, a.session, o.tick, c.tick
  FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[]) AS k (minute_start, before_epoch, before_position)
  CROSS JOIN LATERAL (
    SELECT count(*), max(t.price) AS high, min(t.price) AS low, sum(t.volume) AS volume,
           CASE WHEN count(t.epoch) = count(*) AND min(t.epoch) = max(t.epoch) THEN min(t.epoch) END AS epoch,
           CASE WHEN min(t.session) = max(t.session) THEN min(t.session) END AS session
    FROM ticks t
    WHERE ${TICKS_OF_MINUTE}) a
  LEFT JOIN LATERAL (
    SELECT ${TICK} AS tick FROM ticks t
    WHERE ${TICKS_OF_MINUTE}
    ORDER BY ${TICK_ORDER} LIMIT 1) o ON true
  LEFT JOIN LATERAL (
    SELECT ${TICK} AS tick FROM ticks t
    WHERE ${TICKS_OF_MINUTE}
    ORDER BY ${TICK_ORDER_REVERSED} LIMIT 1) c ON true
  ORDER BY k.minute_start`

/**
 * The last tick of each of the instruments $1 and its trading day; `latest` is SQL for the last minute of `k.token`.
 * The bars are asked for one instrument after the other: a condition from outside reaches into an aggregate only so.
 */
export const daysSoFarOf = (latest: string): string => `
  WITH latest AS MATERIALIZED (
    SELECT k.token, ${latest} AS bucket FROM unnest($1::integer[]) AS k (token)),
  days AS MATERIALIZED (
    SELECT token, bucket, ${dayOf("bucket")} AS day FROM latest WHERE bucket IS NOT NULL),
  minutes AS (
    SELECT b.instrument_token, b.bucket, b.open, b.high, b.low, b.volume
    FROM days d
    CROSS JOIN LATERAL (
      SELECT * FROM candle_bars b
      WHERE b.instrument_token = d.token AND b.bucket >= d.day AND b.bucket < d.day + INTERVAL '24 hours' OFFSET 0) b
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

/** Marks the minutes $1, $2 of which `which` holds. */
export const markMinutes = (which: string): string => `
  INSERT INTO candle_marks (instrument_token, bucket, counter, marked_at)
  SELECT m.instrument_token, m.bucket, nextval('candle_mark_counter'), now()
  FROM unnest($1::integer[], $2::timestamptz[]) AS m (instrument_token, bucket)
  WHERE ${which}
  ORDER BY 1, 2
  ON CONFLICT (instrument_token, bucket) DO UPDATE SET counter = excluded.counter, marked_at = excluded.marked_at`

/** A mark whose row a writer holds is passed over: its counter is about to change, and the writer must not wait. */
const UNMARK = `
  DELETE FROM candle_marks m
  USING (
    SELECT instrument_token, bucket FROM candle_marks
    WHERE counter = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED) done
  WHERE m.instrument_token = done.instrument_token AND m.bucket = done.bucket`

/** Takes away the marks that are as they were before their minutes were refreshed; answers how many. */
export const unmark = async (client: pg.PoolClient, counters: ReadonlyArray<number>): Promise<number> => {
  if (counters.length === 0) return 0
  const gone = await client.query({ name: "unmark", text: UNMARK, values: [int8Array(counters, (counter) => counter)] })
  return gone.rowCount ?? 0
}

/** How bars are kept and read where they are materialised in one way or the other. */
export interface Bars {
  /** Marks minutes in the transaction that touched them; $1 tokens, $2 starts. */
  readonly mark: string
  readonly candles: (interval: Interval) => { readonly text: string; readonly sourceMinutes: number }
  readonly daysSoFar: string
  /** Every token with ticks in [$1, $2). */
  readonly tokens: string
  /** SQL that holds once nothing before `ticks_from` of `store_state` waits to be materialised. */
  readonly settled: string
  /** A bounded piece of what waits to be materialised; answers how many marks went. */
  readonly refresh: (pool: pg.Pool) => Promise<number>
}

/** SQL: no mark is left of what `ticks_from` drops. */
export const NO_MARKS_BEFORE_TICKS = "NOT EXISTS (SELECT FROM candle_marks m WHERE m.bucket < s.ticks_from)"
