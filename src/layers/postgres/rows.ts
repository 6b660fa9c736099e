/** Decides how rows, times and ticks look in SQL and as they come from PostgreSQL, and in which order ticks are. */
import type pg from "pg"
import {
  composed,
  type FieldTable,
  firstThatHolds,
  mayBeNull,
  storedOf,
  storedWord,
  tickFields,
  type ValueField
} from "../../schema/tickFields.ts"
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

/** The SQL of a field in the text of a tick. */
const textOf = (name: string, field: ValueField): string => {
  if (field.kind === "micros") return seconds(name)
  return mayBeNull(field) ? `coalesce(${name}::text, '')` : name
}

/** The expression of a field's value in a tick read from that text, whose pieces are `field`. */
const expressionOf = (field: ValueField, i: number): string => {
  const piece = `field[${i}]`
  if (field.kind === "name") return `field.length === ${i + 1} ? ${piece} : field.slice(${i}).join("\\t")`
  if (field.kind === "micros") return `micros(Number(${piece}))`
  if (field.kind === "word") {
    const cases = field.words.map((word) => [`${piece} === "${storedWord(field, word)}"`, `"${word}"`] as const)
    return firstThatHolds(cases, `"${field.otherwise}"`)
  }
  return mayBeNull(field) ? `${piece} === "" ? null : Number(${piece})` : `Number(${piece})`
}

/** How a tick is read as one text: its SQL, and what makes a tick of the text. */
export const tickTextOf = (fields: FieldTable) => {
  const stored = Object.entries(storedOf(fields))
  // What may hold anything, tabs too, stands at the end.
  const inText = [
    ...stored.filter(([, { kind }]) => kind !== "name"),
    ...stored.filter(([, { kind }]) => kind === "name")
  ]
  const members = inText.map(([name, field], i) => `${name}: ${expressionOf(field, i)}`)
  return {
    sql: `concat_ws(E'\\t', ${inText.map(([name, field]) => textOf(name, field)).join(", ")})`,
    read: composed<(text: string) => StoredTick>(
      `(text) => { const field = text.split("\\t"); return { ${members.join(", ")} } }`,
      { micros }
    )
  }
}

const text = tickTextOf(tickFields)

/**
 * A tick as one text, its fields apart by tabs and the feed, which may hold anything, at the end: three times as fast
 * to read as a column each.
 */
export const TICK = text.sql

export type TickRow = readonly [tick: string]

export const storedTick = ([tick]: TickRow): StoredTick => text.read(tick)
