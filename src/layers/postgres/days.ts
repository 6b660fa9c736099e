/**
 * Decides where the ticks and quotes of a day are and how old days go. On plain PostgreSQL a trading day is a partition of
 * each table, both made as its first tick or quote comes; on TimescaleDB a chunk is a day of UTC and makes itself.
 *
 * `ticks_from` in `store_state` is the earliest time whose ticks the store takes. It only grows, and days before it are
 * dropped once no transaction can be under way that began under an older one, and once their bars are final: the bars
 * stay, and what comes later for such a day leaves them alone.
 */
import type pg from "pg"
import { type Tick, tradingDate, tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import type { OldDays } from "../../streams/ports/TickStore.ts"
import { timestampText } from "./arrays.ts"
import {
  advisory,
  LOCK_NOT_AVAILABLE,
  stateOf,
  TRANSACTION_LIMIT_SECONDS,
  tickTransaction,
  transaction
} from "./connection.ts"
import { dayOf, micros, rows, seconds } from "./rows.ts"
import type { Level } from "./serverLevel.ts"

/** A statement that reads plans and locks every day of its range; a wider range is read in pieces. */
const MAX_DAYS_PER_READ = 31
const MICROS_PER_DAY = 86_400_000_000
/** A drop waits no longer for a reader: whoever reads or writes after it waits as well. */
const DROP_LOCK_TIMEOUT = "200ms"

export interface Days {
  /** Makes a place for ticks of these days, but for those that are dropped. */
  readonly ensure: (days: Iterable<number>) => Promise<void>
  /** Somebody dropped one: look again. */
  readonly forget: () => void
  /** Ticks before it are dropped; from then on all that was written is there. */
  readonly held: () => Promise<number>
  /** [from, to) in pieces of few enough days, ascending. */
  readonly windows: (from: number, to: number) => Promise<ReadonlyArray<readonly [from: number, to: number]>>
  /** The newest trading days, at most so many, that hold a tick or a quote, descending. */
  readonly newest: (limit: number) => Promise<ReadonlyArray<number>>
  /** Takes nothing older than `keep` days before today from here on; what there is of it, once it may go. */
  readonly old: (keep: number) => Promise<OldDays | undefined>
  /**
   * Drops days that end by `before`; answers how many partitions or chunks went, `undefined` where somebody holds on to
   * them: a backup reads every table for as long as it takes.
   */
  readonly drop: (before: number) => Promise<number | undefined>
}

export const daysOf = (...lists: ReadonlyArray<ReadonlyArray<Pick<Tick, "exchange_ts">>>): Set<number> => {
  const days = new Set<number>()
  let last = Number.NaN
  for (const ticks of lists) {
    for (const { exchange_ts } of ticks) {
      const day = tradingDay(exchange_ts)
      if (day === last) continue
      last = day
      days.add(day)
    }
  }
  return days
}

type Range = readonly [start: number, end: number]

/** Stretches of [from, to) that hold few enough of the ranges there are (ascending, apart), and all of them. */
const windowsOf = (ranges: ReadonlyArray<Range>, from: number, to: number): ReadonlyArray<Range> => {
  const within = ranges.filter(([start, end]) => end > from && start < to)
  const windows: Array<Range> = []
  for (let i = 0; i < within.length; i += MAX_DAYS_PER_READ) {
    const end = within[Math.min(i + MAX_DAYS_PER_READ, within.length) - 1]![1]
    windows.push([Math.max(from, within[i]![0]), Math.min(to, end)])
  }
  return windows
}

/** How ticks are laid out, for what both layouts do alike. */
interface Layout {
  readonly ranges: () => Promise<ReadonlyArray<Range>>
  /** SQL for where the earliest day begins that there is a place for, null where there is none. */
  readonly earliest: string
  /** SQL for the latest time before which a layout can drop, up to `time`. */
  readonly dropsBefore: (time: string) => string
  /** How many went, and before when none is left. */
  readonly drop: (client: pg.PoolClient, before: number) => Promise<readonly [gone: number, before: number]>
}

/** In the transaction that drops them, so that whoever finds them gone is told so. */
const DROPPED_BEFORE = "UPDATE store_state SET dropped_before = $1 WHERE dropped_before < $1"

/**
 * Raises `ticks_from`, and `dropped_before` with it as far as there is no place for a tick: what is fed for such days is
 * the archive's from now on, also while a later day must stay. Answers `ticks_from` where what lies before may go, by SQL for whether its bars are final. Whoever began
 * under an older one did so before this was committed, and both have their time.
 */
const raise = (pool: pg.Pool, layout: Layout, keep: number, settled: string): Promise<number | undefined> =>
  tickTransaction(pool, async (client) => {
    await client.query(`SELECT pg_advisory_xact_lock(${advisory("days")})`)
    const target = layout.dropsBefore(`${dayOf("now()")} - INTERVAL '${Math.trunc(keep)} days'`)
    await client.query(
      `UPDATE store_state SET ticks_from = ${target}, ticks_from_raised_at = now() WHERE ticks_from < ${target}`
    )
    await client.query(
      `UPDATE store_state s SET dropped_before = e.before
       FROM (SELECT least(ticks_from, coalesce((${layout.earliest}), ticks_from)) AS before FROM store_state) e
       WHERE s.dropped_before < e.before`
    )
    const [state] = await rows<readonly [number, string]>(
      client,
      "days_to_drop",
      `SELECT ${seconds("s.ticks_from")},
              s.ticks_from_raised_at < now() - INTERVAL '${2 * TRANSACTION_LIMIT_SECONDS} seconds' AND ${settled}
       FROM store_state s`,
      []
    )
    return state![1] === "t" ? micros(state![0]) : undefined
  })

const HAS_ROWS = `
  SELECT EXISTS (SELECT FROM ticks WHERE exchange_ts >= $1 AND exchange_ts < $2)
      OR EXISTS (SELECT FROM quotes WHERE exchange_ts >= $1 AND exchange_ts < $2)`

const common = (
  pool: pg.Pool,
  layout: Layout,
  settled: string
): Pick<Days, "held" | "windows" | "newest" | "old" | "drop"> => ({
  held: async () => {
    const [state] = await rows<readonly [number]>(
      pool,
      "held",
      `SELECT ${seconds("dropped_before")} FROM store_state`,
      []
    )
    return micros(state![0])
  },
  windows: async (from, to) => {
    if (to <= from) return []
    if (to - from <= MAX_DAYS_PER_READ * MICROS_PER_DAY) return [[from, to]]
    return windowsOf(await layout.ranges(), from, to)
  },
  newest: async (limit) => {
    const found: Array<number> = []
    let next = Number.POSITIVE_INFINITY
    for (const [start, end] of [...(await layout.ranges())].reverse()) {
      // A chunk is of two trading days, and a day of two chunks.
      for (let day = Math.min(tradingDay(end - 1), next - 1); day >= tradingDay(start); day--) {
        if (found.length >= limit) return found
        next = day
        const bounds = [timestampText(tradingDayStart(day)), timestampText(tradingDayStart(day + 1))]
        const [row] = await rows<readonly [string]>(pool, "day_has_rows", HAS_ROWS, bounds)
        if (row![0] === "t") found.push(day)
      }
    }
    return found
  },
  old: async (keep) => {
    const before = await raise(pool, layout, keep, settled)
    return before === undefined
      ? undefined
      : { before, days: (await layout.ranges()).filter(([, end]) => end <= before) }
  },
  drop: (before) => {
    const dropping = transaction(pool, async (client) => {
      await client.query(`SET LOCAL lock_timeout = '${DROP_LOCK_TIMEOUT}'`)
      // Another worker's drop is as good as this one's.
      const lock = await client.query<{ held: boolean }>(
        `SELECT pg_try_advisory_xact_lock(${advisory("days")}) AS held`
      )
      if (!lock.rows[0]!.held) return 0
      // Whatever is asked, what the store still takes stays.
      const [state] = await rows<readonly [number]>(
        client,
        "drop_before",
        `SELECT ${seconds("least(ticks_from, $1::timestamptz)")} FROM store_state`,
        [timestampText(before)]
      )
      const [gone, goneBefore] = await layout.drop(client, micros(state![0]))
      await client.query(DROPPED_BEFORE, [timestampText(goneBefore)])
      return gone
    })
    return dropping.catch((cause: unknown) => {
      if (stateOf(cause) !== LOCK_NOT_AVAILABLE) throw cause
      return undefined
    })
  }
})

// --- plain PostgreSQL -------------------------------------------------------------------------------------------

const PARTITIONS = `
  SELECT to_date(right(c.relname, 8), 'YYYYMMDD') - DATE '1970-01-01'
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'ticks'::regclass ORDER BY 1`
/** Every day has a partition of each, so those of ticks tell the days there are. */
const TABLES = ["ticks", "quotes"] as const
export const partitionOf = (table: (typeof TABLES)[number], day: number): string =>
  `${table}_${tradingDate(day).replaceAll("-", "")}`
const FIRST_PARTITION = `
  SELECT (min(to_date(right(c.relname, 8), 'YYYYMMDD'))::timestamp AT TIME ZONE 'UTC') - INTERVAL '330 minutes'
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'ticks'::regclass`
/** Each drop locks the partitions of a day and their indexes: so many fit in one transaction. */
const MAX_DROPS = 50

export const makePartitions = (pool: pg.Pool, settled: string): Days => {
  /** Days known to be there: at most one for each day of the calendar. */
  const known = new Set<number>()
  let ticksFrom = Number.NEGATIVE_INFINITY
  const isDropped = (day: number): boolean => tradingDayStart(day) < ticksFrom

  const create = (day: number): Promise<void> =>
    tickTransaction(pool, async (client, takenFrom) => {
      ticksFrom = Math.max(ticksFrom, takenFrom)
      if (isDropped(day)) return
      await client.query(`SELECT pg_advisory_xact_lock(${advisory("days")})`)
      for (const table of TABLES) {
        const name = partitionOf(table, day)
        const found = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [name])
        if (found.rows[0]!.there) continue
        // Made apart and then attached: readers and writers of other days go on meanwhile.
        await client.query(`CREATE TABLE ${name} (LIKE ${table} INCLUDING ALL)`)
        await client.query(
          `ALTER TABLE ${table} ATTACH PARTITION ${name} FOR VALUES ` +
            `FROM ('${timestampText(tradingDayStart(day))}') TO ('${timestampText(tradingDayStart(day + 1))}')`
        )
      }
      known.add(day)
    })

  const days = async (client: pg.Pool | pg.PoolClient): Promise<ReadonlyArray<number>> =>
    (await rows<readonly [number]>(client, "partitions", PARTITIONS, [])).map(([day]) => day)

  const layout: Layout = {
    ranges: async () => (await days(pool)).map((day): Range => [tradingDayStart(day), tradingDayStart(day + 1)]),
    earliest: FIRST_PARTITION,
    dropsBefore: (time) => time,
    drop: async (client, before) => {
      const all = (await days(client)).filter((day) => tradingDayStart(day + 1) <= before)
      const old = all.slice(0, MAX_DROPS)
      for (const day of old) {
        // A day of before there were quotes has none of them.
        for (const table of TABLES) await client.query(`DROP TABLE IF EXISTS ${partitionOf(table, day)}`)
        known.delete(day)
      }
      return [old.length, old.length < all.length ? tradingDayStart(all[old.length]!) : before]
    }
  }

  return {
    ...common(pool, layout, settled),
    ensure: async (wanted) => {
      for (const day of wanted) if (!known.has(day) && !isDropped(day)) await create(day)
    },
    forget: () => known.clear()
  }
}

// --- TimescaleDB ------------------------------------------------------------------------------------------------

const CHUNKS = `
  SELECT DISTINCT ${seconds("range_start")}, ${seconds("range_end")} FROM timescaledb_information.chunks
  WHERE hypertable_schema = current_schema() AND hypertable_name IN ('ticks', 'quotes') ORDER BY 1`

const FIRST_CHUNK = `
  SELECT min(range_start) FROM timescaledb_information.chunks
  WHERE hypertable_schema = current_schema() AND hypertable_name IN ('ticks', 'quotes')`

export const makeChunks = (pool: pg.Pool, settled: string): Days => {
  const layout: Layout = {
    ranges: async () =>
      (await rows<Range>(pool, "chunks", CHUNKS, [])).map(([start, end]): Range => [micros(start), micros(end)]),
    earliest: FIRST_CHUNK,
    // A chunk goes as a whole: the day that is kept first may keep what lies before it in its chunk.
    dropsBefore: (time) => `date_bin(INTERVAL '1 day', ${time}, TIMESTAMPTZ '1970-01-01 00:00:00+00')`,
    drop: async (client, before) => {
      const gone = async (table: string): Promise<number> => {
        const chunks = await client.query(
          `SELECT drop_chunks('${table}', older_than => TIMESTAMPTZ '${timestampText(before)}')`
        )
        return chunks.rowCount ?? 0
      }
      return [Math.max(await gone("ticks"), await gone("quotes")), before]
    }
  }
  return {
    ...common(pool, layout, settled),
    ensure: () => Promise.resolve(),
    forget: () => {}
  }
}

/** SQL for where the earliest day begins that there is a place for, null where there is none. */
export const EARLIEST_DAY: Readonly<Record<Level, string>> = {
  plain: FIRST_PARTITION,
  apache: FIRST_CHUNK,
  community: FIRST_CHUNK
}
