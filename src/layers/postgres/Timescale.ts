/**
 * Decides how the store is made of PostgreSQL or TimescaleDB: a database brought to this program's schema in the layout
 * that its server can carry (`serverLevel.ts`), and the port's questions put to what that layout is made of, so that at any
 * moment what is read agrees with the ticks that are there.
 */
import { Clock, Effect, Layer, type Scope } from "effect"
import type pg from "pg"
import { barStart, boundedVolume, type Candle, intervalMinutes, withOi } from "../../schema/Candle.ts"
import type { StartError } from "../../schema/Errors.ts"
import { tradingDay } from "../../schema/Tick.ts"
import {
  type CandleQuery,
  type DaySoFar,
  type MinuteSum,
  type MinutesQuery,
  TickStore
} from "../../streams/ports/TickStore.ts"
import { int4Array, int8Array, timestampArray, timestampText } from "./arrays.ts"
import { barAggregates } from "./barAggregates.ts"
import { type Bars, MINUTES, type MinuteRow } from "./bars.ts"
import { barTable } from "./barTable.ts"
import { ask, type Connection, connect } from "./connection.ts"
import { type Days, makeChunks, makePartitions, partitionOf } from "./days.ts"
import { makeInstruments } from "./instruments.ts"
import { migrate } from "./migrations.ts"
import { makeQuoteReader } from "./quotes.ts"
import { micros, rows, storedTick } from "./rows.ts"
import type { Level } from "./serverLevel.ts"
import { makeReader, makeWriter } from "./ticks.ts"

export interface StoreOptions extends Connection {
  /** Days before today whose ticks are kept; older ones are dropped. Zero or undefined: all are. */
  readonly keepDays?: number
  /** Whether all levels of a quote's book are stored, beside the best of each side. */
  readonly depth?: boolean
}

/**
 * Bookmarks of logs that no longer exist go after so long. Those of the log that was written from last stay, however
 * long ago: without one its partition would be read from where the log begins, and what is lost before it not noticed.
 */
const BOOKMARK_DAYS = 30
const FORGET_OLD_BOOKMARKS = `
  DELETE FROM sink_offsets
  WHERE updated_at < now() - INTERVAL '${BOOKMARK_DAYS} days'
    AND incarnation <> (SELECT incarnation FROM sink_offsets ORDER BY updated_at DESC LIMIT 1)`

/** PGlite has no background workers: its dead rows and its write-ahead log are cleared from here. */
const CHECKPOINT_LOOK = "5 seconds"
const CHECKPOINT_WAL_BYTES = 67_108_864
const LOOKS_PER_VACUUM = 60

const MICROS_PER_MINUTE = 60_000_000

const barsAt: Record<Level, Bars> = { community: barAggregates, apache: barTable, plain: barTable }

const makeBarReader = (pool: pg.Pool, bars: Bars) => {
  const candles = async (query: CandleQuery): Promise<ReadonlyArray<Candle>> => {
    const { interval, limit } = query
    const width = intervalMinutes[interval]
    const { text, sourceMinutes } = bars.candles(interval)
    const startAtOrAfter = (time: number): number => {
      const start = barStart(time, interval)
      return start === time ? start : start + width * MICROS_PER_MINUTE
    }
    const found = await rows<readonly [number, number, number, number, number, number, number | null]>(
      pool,
      `candles_${interval}`,
      text,
      [
        query.instrument_token,
        timestampText(startAtOrAfter(query.from)),
        timestampText(startAtOrAfter(query.to)),
        limit * (width / sourceMinutes),
        limit
      ]
    )
    return found.map(([ts, open, high, low, close, volume, oi]) =>
      withOi({ ts: micros(ts), open, high, low, close, volume: boundedVolume(volume) }, oi)
    )
  }

  const minutes = async ({
    instrument_token,
    minutes: asked
  }: MinutesQuery): Promise<ReadonlyArray<MinuteSum> | undefined> => {
    if (asked.length === 0) return []
    const starts = asked.map(({ ts }) => ts)
    const first = Math.min(...starts)
    const found = await rows<MinuteRow>(pool, "minutes", MINUTES, [
      instrument_token,
      timestampArray(asked, ({ ts }) => ts),
      int8Array(asked, ({ before }) => before?.epoch ?? Number.MAX_SAFE_INTEGER),
      int8Array(asked, ({ before }) => before?.position ?? 0),
      timestampText(first),
      timestampText(Math.max(...starts) + MICROS_PER_MINUTE)
    ])
    if (first < micros(found[0]![0])) return undefined
    return found.flatMap(([, start, count, high, low, volume, epoch, session, open, close]) =>
      open === null || close === null
        ? []
        : [
            {
              ts: micros(start),
              count,
              open: storedTick([open]),
              high,
              low,
              close: storedTick([close]),
              volume: boundedVolume(volume),
              numbering: epoch === null || session === null ? undefined : { epoch, session }
            }
          ]
    )
  }

  const daysSoFar = async (tokens: ReadonlyArray<number>): Promise<ReadonlyMap<number, DaySoFar>> => {
    const answer = new Map<number, DaySoFar>()
    if (tokens.length === 0) return answer
    const distinct = [...new Set(tokens)]
    const found = await rows<readonly [tick: string, open: number, high: number, low: number, volume: number]>(
      pool,
      "daysSoFar",
      bars.daysSoFar,
      [int4Array(distinct, (token) => token)]
    )
    for (const row of found) {
      const last = storedTick([row[0]])
      answer.set(last.instrument_token, {
        last,
        open: row[1],
        high: row[2],
        low: row[3],
        volume: boundedVolume(row[4])
      })
    }
    return answer
  }

  return { candles, minutes, daysSoFar }
}

const dropper = (days: Days): TickStore["Service"]["dropDays"] => {
  let isHeld = false
  return (before) =>
    Effect.gen(function* () {
      const dropped = yield* ask("dropDays", () => days.drop(before))
      const wasHeld = isHeld
      isHeld = dropped === undefined
      if (isHeld && !wasHeld)
        yield* Effect.logWarning(
          "store: old days stay until whoever reads or locks their tables is done, as a backup is"
        )
      // The next look is soon enough: to ask again at once would hold up reads and writes each time.
      return dropped ?? 0
    })
}

const makeStore = (
  pool: pg.Pool,
  level: Level,
  { keepDays = 0, depth = false }: StoreOptions
): TickStore["Service"] => {
  const bars = barsAt[level]
  const days: Days = (level === "plain" ? makePartitions : makeChunks)(pool, bars.settled)
  const write = makeWriter(pool, days, bars, depth)
  const { bookmarks, ticks, ticksAfter, count, revision, tokens } = makeReader(pool, days, bars)
  const { candles, minutes, daysSoFar } = makeBarReader(pool, bars)
  const { quotePage, quoteTokens, latestQuotes, minuteOi, oiRevision } = makeQuoteReader(pool, days)
  const { instruments, instrumentsVersion, putInstruments } = makeInstruments(pool)

  return TickStore.of({
    write: (batch) => ask("write", () => write(batch)),
    bookmarks: (incarnation) => ask("bookmarks", () => bookmarks(incarnation)),
    ticks: (query) => ask("ticks", () => ticks(query)),
    candles: (query) => ask("candles", () => candles(query)),
    minutes: (query) => ask("minutes", () => minutes(query)),
    minuteOi: (query) => ask("minuteOi", () => minuteOi(query)),
    latestQuotes: (of) => ask("latestQuotes", () => latestQuotes(of)),
    quotePage: (query) => ask("quotePage", () => quotePage(query)),
    quoteTokens: (from, to) => ask("quoteTokens", () => quoteTokens(from, to)),
    daysSoFar: (of) => ask("daysSoFar", () => daysSoFar(of)),
    ticksAfter: (token, epoch, position, limit) => ask("ticksAfter", () => ticksAfter(token, epoch, position, limit)),
    count: (of, from, to) => ask("count", () => count(of, from, to)),
    revision: (of, from, to) =>
      ask("revision", async () => [await revision(of, from, to), await oiRevision(of, from, to)].join(" ").trim()),
    tokens: (from, to) => ask("tokens", () => tokens(from, to)),
    newestDays: (limit) => ask("newestDays", () => days.newest(limit)),
    held: ask("held", days.held),
    refreshCandles: ask("refreshCandles", () => bars.refresh(pool)),
    oldDays: keepDays === 0 ? Effect.undefined : ask("oldDays", () => days.old(keepDays)),
    dropDays: dropper(days),
    instruments: (limit) => ask("instruments", () => instruments(limit)),
    instrumentsVersion: ask("instrumentsVersion", instrumentsVersion),
    // `expired` counts the instruments whose expiry has passed (IST) since the put before, whether or not this one
    // names them: they stay to be looked up, and each is counted once.
    putInstruments: (given, day) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const today = tradingDay(now * 1000)
        return ask("putInstruments", () => putInstruments(given, day ?? today, today))
      })
  })
}

const forgetOldBookmarks = (pool: pg.Pool) => ask("forgetOldBookmarks", () => pool.query(FORGET_OLD_BOOKMARKS))

/** What is written in place: of quotes the day's own, since those of other days hardly change. */
export const vacuum = async (pool: pg.Pool, today: number): Promise<void> => {
  const quotes = partitionOf("quotes", today)
  const found = await pool.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [quotes])
  const tables = ["candle_marks", "candle_bars", "oi_1m", "sink_offsets", ...(found.rows[0]!.there ? [quotes] : [])]
  await pool.query(`VACUUM (ANALYZE) ${tables.join(", ")}`)
}

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
          Effect.flatMap(Clock.currentTimeMillis, (now) => ask("vacuum", () => vacuum(pool, tradingDay(now * 1000))))
        )
      }
    }
  })

/** The store on a database brought to this program's schema. */
export const make = (options: StoreOptions): Effect.Effect<TickStore["Service"], StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const pool = yield* connect(options)
    const { level, says } = yield* migrate(pool)
    yield* options.embedded ? Effect.logDebug(`store: ${says}`) : Effect.logInfo(`store: ${says}`)
    yield* Effect.ignore(forgetOldBookmarks(pool))
    if (options.embedded) yield* Effect.forkScoped(maintain(pool))
    return makeStore(pool, level, options)
  })

export const layer = (options: StoreOptions): Layer.Layer<TickStore, StartError> =>
  Layer.effect(TickStore, make(options))
