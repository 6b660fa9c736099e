/**
 * Decides how bars are kept on TimescaleDB Community: `candle_bars` and `candle_bars_5m` are continuous aggregates,
 * one on top of the other. Bars that end by `bars_through` are materialised; TimescaleDB computes the others from the
 * ticks as they are read.
 *
 * A transaction marks a minute if a refresh may pass over it before the transaction is seen, or did so before: whoever
 * commits in its time touches nothing unmarked that is refreshed meanwhile. The program refreshes, not a policy of
 * TimescaleDB's: one that comes later than its window is long leaves a hole below the watermark, which nothing
 * reports, and none orders the levels or spares the bars of dropped days.
 */
import type pg from "pg"
import { timestampText } from "./arrays.ts"
import {
  type Bars,
  barsOfOne,
  daysSoFarOf,
  type Materialised,
  MINUTE_BARS,
  markMinutes,
  NO_MARKS_BEFORE_TICKS,
  unmark
} from "./bars.ts"
import { advisory, TRANSACTION_LIMIT_SECONDS } from "./connection.ts"
import { BAR_ORIGIN, barOf, micros, rows, seconds } from "./rows.ts"

export const FIVE_MINUTE_BARS: Materialised = {
  minutes: 5,
  relation: "candle_bars_5m",
  recompute: "candle_recompute_5m"
}
/** From the lower to the higher, as they are refreshed. */
const LEVELS = [MINUTE_BARS, FIVE_MINUTE_BARS]
const MICROS_PER_MINUTE = 60_000_000

/** How long ago bars ended that are materialised; more than a transaction may take, so that live ticks mark nothing. */
const END_OFFSET_SECONDS = 120
/** SQL: the minutes to be materialised by now; of wider bars those that they fill. */
export const MATERIALISE_THROUGH = barOf(1, `now() - INTERVAL '${END_OFFSET_SECONDS} seconds'`)

/** New time materialised by one call, and calls before marks have their turn again. */
const ADVANCE_MICROS = 30 * MICROS_PER_MINUTE
const ADVANCES = 48
/** What one refresh takes of the marks: each call recomputes a stretch of minutes for every instrument. */
const REFRESH_MARKS = 20_000
const REFRESH_STRETCHES = 16
const REFRESH_MINUTES = 60
/** A refresh works through ticks of every instrument: it may take longer than a question. */
const CALL_TIMEOUT_MS = 600_000

const bucket = (minutes: number, time: string): string =>
  `time_bucket('${minutes} minutes', ${time}, origin => ${BAR_ORIGIN})`

const aggregate = (level: Materialised, select: string): string => `
CREATE MATERIALIZED VIEW ${level.relation} WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
${select}
GROUP BY 1, 2 WITH NO DATA;
COMMENT ON VIEW ${level.relation} IS
  'bars as of their last refresh, which is the program''s to do; read candles_${level.minutes}m, which is exact';`

/** Sorts after every number there is. */
const LAST = "9223372036854775807"
/**
 * The order of ticks as bytes that sort so: within a minute, that of a time as it is sent; numbers as they are sent,
 * none of them negative; what is missing last. Nothing else that has an order of its own holds them all: a bare row
 * fails where the server aggregates chunk by chunk or in parallel, since it cannot read such a row back.
 */
const ORDER = `timestamptz_send(exchange_ts) || int8send(greatest(sequence_id, 0)) ||
             int8send(coalesce(epoch, ${LAST})) || int8send(coalesce(position, ${LAST})) ||
             int8send(sequence_id + 9007199254740992)`

/** The statements that make the aggregates. */
export const AGGREGATES = `
${aggregate(
  MINUTE_BARS,
  `SELECT instrument_token, ${bucket(1, "exchange_ts")} AS bucket,
       first(price, ${ORDER}) AS open, max(price) AS high, min(price) AS low,
       last(price, ${ORDER}) AS close, sum(volume) AS volume
FROM ticks`
)}
${aggregate(
  FIVE_MINUTE_BARS,
  `SELECT instrument_token, ${bucket(5, "bucket")} AS bucket,
       first(open, bucket) AS open, max(high) AS high, min(low) AS low, last(close, bucket) AS close,
       sum(volume) AS volume
FROM candle_bars`
)}`

/**
 * A refresh that starts within this transaction's time materialises nothing that ends later; nor did one before it,
 * unless the clock of the server was set back since.
 */
const MAY_BE_PASSED = `
  m.bucket + INTERVAL '1 minute' < now() + INTERVAL '${TRANSACTION_LIMIT_SECONDS - END_OFFSET_SECONDS} seconds'
  OR m.bucket < (SELECT bars_through FROM store_state)`

const LATEST = `(
  SELECT ${barOf(1, "t.exchange_ts")} FROM ticks t
  WHERE t.instrument_token = k.token ORDER BY t.exchange_ts DESC LIMIT 1)`

const TOKENS = `
  SELECT DISTINCT instrument_token FROM ticks
  WHERE exchange_ts >= $1::timestamptz AND exchange_ts < $2::timestamptz`

const ADVANCE_RANGE = `
  SELECT ${seconds("bars_through")}, ${seconds(MATERIALISE_THROUGH)} FROM store_state`

/** Nothing beyond what is materialised: a refresh of it would leave a hole before it. */
const PICK = `
  SELECT ${seconds("m.bucket")}, m.counter
  FROM candle_marks m, store_state s WHERE m.bucket < s.bars_through
  ORDER BY m.bucket LIMIT ${REFRESH_MARKS}`

type Stretch = readonly [from: number, to: number]

/** Materialises [from, to) anew, without asking whether TimescaleDB has noticed a change there. */
const call = async (client: pg.PoolClient, { relation }: Materialised, [from, to]: Stretch): Promise<void> => {
  const text = `CALL refresh_continuous_aggregate('${relation}', TIMESTAMPTZ '${timestampText(from)}', TIMESTAMPTZ '${timestampText(to)}', force => true)`
  const query: pg.QueryConfig & { readonly query_timeout: number } = { text, query_timeout: CALL_TIMEOUT_MS }
  await client.query(query)
}

/** The start of the bar of so many minutes that holds a time: both levels count from a whole hour as well. */
const startOf = (time: number, { minutes }: Materialised): number => time - (time % (minutes * MICROS_PER_MINUTE))

/** Brings both levels up to what is to be materialised by now, without a hole; answers up to where minutes are. */
const advance = async (client: pg.PoolClient): Promise<number> => {
  for (let step = 0; ; step++) {
    const [range] = await rows<readonly [number, number]>(client, "advance_range", ADVANCE_RANGE, [])
    const from = micros(range![0])
    const to = Math.min(micros(range![1]), from + ADVANCE_MICROS)
    if (from >= to || step === ADVANCES) return from
    for (const level of LEVELS) {
      const [start, end] = [startOf(from, level), startOf(to, level)]
      if (start < end) await call(client, level, [start, end])
    }
    await client.query(`UPDATE store_state SET bars_through = '${timestampText(to)}'`)
  }
}

/** The bars that hold these ascending minutes, as stretches without a gap. */
const stretchesOf = (minutes: ReadonlyArray<number>, level: Materialised): ReadonlyArray<Stretch> => {
  const stretches: Array<[number, number]> = []
  for (const minute of minutes) {
    const start = startOf(minute, level)
    const end = start + level.minutes * MICROS_PER_MINUTE
    const last = stretches[stretches.length - 1]
    if (last === undefined || last[1] < start) stretches.push([start, end])
    else last[1] = end
  }
  return stretches
}

/** The earliest marked minutes, as many as one refresh takes. */
const pick = async (client: pg.PoolClient) => {
  const found = await rows<readonly [number, number]>(client, "pick_marks", PICK, [])
  const minutes: Array<number> = []
  const counters: Array<number> = []
  let stretches = 0
  for (const [at, counter] of found) {
    const minute = micros(at)
    const last = minutes[minutes.length - 1]
    if (minute !== last) {
      if (minutes.length === REFRESH_MINUTES) break
      if (last === undefined || minute !== last + MICROS_PER_MINUTE) {
        if (stretches === REFRESH_STRETCHES) break
        stretches++
      }
      minutes.push(minute)
    }
    counters.push(counter)
  }
  return { minutes, counters }
}

/** A bar that is not materialised yet holds what its minutes do; it must not be before those that come before it. */
const settle = async (client: pg.PoolClient, through: number): Promise<number> => {
  const { minutes, counters } = await pick(client)
  for (const level of LEVELS) {
    const end = startOf(through, level)
    const stretches = stretchesOf(
      minutes.filter((minute) => minute < end),
      level
    )
    for (const stretch of stretches) await call(client, level, stretch)
  }
  return unmark(client, counters)
}

/** A refresh is several transactions, so its lock is the session's; a session in doubt is closed, and the lock with it. */
const refresh = async (pool: pg.Pool): Promise<number> => {
  const client = await pool.connect()
  try {
    // One refresher at a time: an older one must not overwrite a newer one, nor take its marks.
    const lock = await client.query<{ held: boolean }>(`SELECT pg_try_advisory_lock(${advisory("candles")}) AS held`)
    if (!lock.rows[0]!.held) {
      client.release()
      return 0
    }
    await client.query(`SET statement_timeout = ${CALL_TIMEOUT_MS}`)
    const gone = await settle(client, await advance(client))
    await client.query(`RESET statement_timeout; SELECT pg_advisory_unlock(${advisory("candles")})`)
    client.release()
    return gone
  } catch (cause) {
    client.release(true)
    throw cause
  }
}

export const barAggregates: Bars = {
  mark: markMinutes(MAY_BE_PASSED),
  candles: (interval) => {
    const level = interval === "1m" ? MINUTE_BARS : FIVE_MINUTE_BARS
    return { text: barsOfOne(level, interval), sourceMinutes: level.minutes }
  },
  daysSoFar: daysSoFarOf(LATEST),
  tokens: TOKENS,
  settled: `${NO_MARKS_BEFORE_TICKS} AND s.bars_through >= s.ticks_from`,
  refresh
}
