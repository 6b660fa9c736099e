/**
 * Decides how bars are kept on plain PostgreSQL and on TimescaleDB Apache: `candle_bars` is a table, every minute that
 * ticks touch is marked, and a marked minute is recomputed into it once it is over.
 */
import type pg from "pg"
import { type Bars, barsOfOne, daysSoFarOf, MINUTE_BARS, markMinutes, NO_MARKS_BEFORE_TICKS, unmark } from "./bars.ts"
import { advisory, transaction } from "./connection.ts"
import { dayOf, rows } from "./rows.ts"

/** Marked minutes recomputed in one transaction. */
const REFRESH_MINUTES = 500
/** Ticks of a minute still come for a moment after its end; a minute nothing comes to is quiet after a while. */
const SETTLE_SECONDS = 2
const QUIET_SECONDS = 5

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

const LATEST = `greatest(
  (SELECT max(b.bucket) FROM candle_bars b WHERE b.instrument_token = k.token),
  (SELECT max(m.bucket) FROM candle_marks m WHERE m.instrument_token = k.token))`

export const barTable: Bars = {
  mark: markMinutes("true"),
  candles: (interval) => ({ text: barsOfOne(MINUTE_BARS, interval), sourceMinutes: MINUTE_BARS.minutes }),
  daysSoFar: daysSoFarOf(LATEST),
  tokens: TOKENS,
  settled: NO_MARKS_BEFORE_TICKS,
  refresh: (pool: pg.Pool) =>
    transaction(pool, async (client) => {
      // One refresher at a time: an older recompute must not overwrite a newer one.
      const lock = await client.query<{ held: boolean }>(
        `SELECT pg_try_advisory_xact_lock(${advisory("candles")}) AS held`
      )
      if (!lock.rows[0]!.held) return 0
      const done = await rows<readonly [number]>(client, "refresh", REFRESH, [])
      return unmark(
        client,
        done.map(([counter]) => counter)
      )
    })
}
