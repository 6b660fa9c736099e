/** Decides how rows, times and ticks look in SQL and as they come from PostgreSQL, and in which order ticks are. */
import type pg from "pg"
import type { Sequencing } from "../../schema/Tick.ts"
import type { StoredTick } from "../../streams/ports/TickStore.ts"

/** int8, int2, int4, float4, float8, numeric: all within what a JS number holds exactly in this schema. */
const NUMBERS = new Set([20, 21, 23, 700, 701, 1700])
const asText = (text: string): string => text
const types = {
  getTypeParser: (oid: number) => (NUMBERS.has(oid) ? Number : asText)
} as unknown as pg.CustomTypesConfig

export type Value = number | string | null

/** Numbered parameters for a named statement; rows as arrays, numbers as numbers, everything else as text. */
export const rows = async <R extends ReadonlyArray<Value>>(
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
export const seconds = (time: string): string => `date_part('epoch', ${time})`
export const micros = (value: number): number => Math.round(value * 1_000_000)

/** The order of `compareTicks` among one instrument's rows. */
export const TICK_ORDER = "exchange_ts, greatest(sequence_id, 0), epoch, position, sequence_id"
/** Its exact reverse: what comes last ascending, the nulls, comes first descending. */
export const TICK_ORDER_REVERSED =
  "exchange_ts DESC, greatest(sequence_id, 0) DESC, epoch DESC, position DESC, sequence_id DESC"

/** A 09:15 IST and an IST midnight before every tick there can be; date_bin has rounded wrongly below its origin. */
export const BAR_ORIGIN = "TIMESTAMPTZ '1970-01-01 03:45:00+00'"
const DAY_ORIGIN = "TIMESTAMPTZ '1969-12-31 18:30:00+00'"

/** SQL for the start of the bar of so many minutes that holds a time. */
export const barOf = (minutes: number, time: string): string =>
  `date_bin(INTERVAL '${minutes} minutes', ${time}, ${minutes === 1440 ? DAY_ORIGIN : BAR_ORIGIN})`
/** SQL for the start of the trading day that holds a time. */
export const dayOf = (time: string): string => barOf(1440, time)

/**
 * A tick as one text, its fields apart by tabs and the feed, which may hold anything, at the end: three times as fast
 * to read as twelve columns.
 */
export const TICK =
  `concat_ws(E'\\t', instrument_token, ${seconds("exchange_ts")}, sequence_id, price, volume, status, ` +
  `coalesce(epoch::text, ''), coalesce(position::text, ''), session, sequencing, ${seconds("received_ts")}, feed)`
const FEED_FIELD = 11

export type TickRow = readonly [tick: string]

export const sequencingCode: Record<Sequencing, string> = { contiguous: "c", monotonic: "m", none: "n" }
const sequencingOf = (code: string): Sequencing => (code === "c" ? "contiguous" : code === "m" ? "monotonic" : "none")

export const storedTick = ([text]: TickRow): StoredTick => {
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
