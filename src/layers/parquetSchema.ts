/**
 * Decides what an archived tick is in Parquet: its columns and types, and how ticks become columns and come back.
 *
 * `price` is a DOUBLE: a price is by contract a JS number whose shortest decimal is exact, so eight bytes of it are the
 * price itself, and pandas and DuckDB compute with it at once; a DECIMAL would come out of pandas as slow objects, and
 * would have to be scaled on the way in and out.
 */
import type { SchemaElement } from "hyparquet"
import type { Sequencing, Tick, TickStatus } from "../schema/Tick.ts"
import type { StoredTick } from "../streams/TickStore.ts"

/** Stands in every object; goes up when a column changes its meaning. */
export const SCHEMA_VERSION = 1

/** Rows of a row group: what a reader holds in memory of an object at a time. */
export const ROW_GROUP_ROWS = 32_768

const STATUSES: ReadonlyArray<TickStatus> = ["LIVE", "STALE"]
const SEQUENCINGS: ReadonlyArray<Sequencing> = ["contiguous", "monotonic", "none"]

const int64 = (name: string): SchemaElement => ({ name, type: "INT64", repetition_type: "REQUIRED" })
const int32 = (name: string): SchemaElement => ({ name, type: "INT32", repetition_type: "REQUIRED" })
const text = (name: string): SchemaElement => ({
  name,
  type: "BYTE_ARRAY",
  converted_type: "UTF8",
  logical_type: { type: "STRING" },
  repetition_type: "REQUIRED"
})
const micros = (name: string): SchemaElement => ({
  name,
  type: "INT64",
  converted_type: "TIMESTAMP_MICROS",
  logical_type: { type: "TIMESTAMP", isAdjustedToUTC: true, unit: "MICROS" },
  repetition_type: "REQUIRED"
})

/** The columns in the order of a normalized tick's fields; `gap_from` is null where the tick shows no gap. */
const COLUMNS: ReadonlyArray<SchemaElement> = [
  int32("instrument_token"),
  micros("exchange_ts"),
  { name: "price", type: "DOUBLE", repetition_type: "REQUIRED" },
  int64("volume"),
  int64("sequence_id"),
  text("status"),
  { name: "gap_from", type: "INT64", repetition_type: "OPTIONAL" },
  int32("session"),
  text("sequencing"),
  int64("epoch"),
  int64("position"),
  text("feed"),
  micros("received_ts"),
  text("source_incarnation"),
  int64("source_offset"),
  int32("source_index"),
  { name: "old", type: "BOOLEAN", repetition_type: "REQUIRED" }
]

/** How many of the columns, from the first, `read` needs: what lies before those that only the archive keeps. */
export const READ_COLUMNS = COLUMNS.findIndex(({ name }) => name === "source_incarnation")

export const PARQUET_SCHEMA: Array<SchemaElement> = [{ name: "tick", num_children: COLUMNS.length }, ...COLUMNS]

/** Names that recur, each by its index in `names`. */
export interface NameColumn {
  readonly names: ReadonlyArray<string>
  readonly indexes: Uint32Array<ArrayBuffer>
}

/** Ticks as flat columns, which pass between threads without being copied. */
export interface TickColumns {
  readonly instrument_token: Int32Array<ArrayBuffer>
  readonly exchange_ts: Float64Array<ArrayBuffer>
  readonly price: Float64Array<ArrayBuffer>
  readonly volume: Float64Array<ArrayBuffer>
  readonly sequence_id: Float64Array<ArrayBuffer>
  /** Index in `STATUSES`. */
  readonly status: Uint8Array<ArrayBuffer>
  readonly gap_from: Float64Array<ArrayBuffer>
  readonly session: Int32Array<ArrayBuffer>
  /** Index in `SEQUENCINGS`. */
  readonly sequencing: Uint8Array<ArrayBuffer>
  readonly epoch: Float64Array<ArrayBuffer>
  readonly position: Float64Array<ArrayBuffer>
  readonly feed: NameColumn
  readonly received_ts: Float64Array<ArrayBuffer>
  readonly source_incarnation: NameColumn
  readonly source_offset: Float64Array<ArrayBuffer>
  readonly source_index: Int32Array<ArrayBuffer>
  readonly old: Uint8Array<ArrayBuffer>
}

/** What `read` needs of an object's rows. */
export type StoredColumns = Omit<
  TickColumns,
  "gap_from" | "source_incarnation" | "source_offset" | "source_index" | "old"
>

/** Numbers names as they are met. */
export class Names {
  readonly names: Array<string> = []
  readonly #indexes = new Map<string, number>()
  #last = ""
  #lastIndex = -1

  indexOf(name: string): number {
    if (name === this.#last && this.#lastIndex >= 0) return this.#lastIndex
    let index = this.#indexes.get(name)
    if (index === undefined) {
      index = this.names.length
      this.names.push(name)
      this.#indexes.set(name, index)
    }
    this.#last = name
    this.#lastIndex = index
    return index
  }
}

export const toColumns = (ticks: ReadonlyArray<Tick>): TickColumns => {
  const n = ticks.length
  const feeds = new Names()
  const incarnations = new Names()
  const columns: TickColumns = {
    instrument_token: new Int32Array(n),
    exchange_ts: new Float64Array(n),
    price: new Float64Array(n),
    volume: new Float64Array(n),
    sequence_id: new Float64Array(n),
    status: new Uint8Array(n),
    gap_from: new Float64Array(n),
    session: new Int32Array(n),
    sequencing: new Uint8Array(n),
    epoch: new Float64Array(n),
    position: new Float64Array(n),
    feed: { names: feeds.names, indexes: new Uint32Array(n) },
    received_ts: new Float64Array(n),
    source_incarnation: { names: incarnations.names, indexes: new Uint32Array(n) },
    source_offset: new Float64Array(n),
    source_index: new Int32Array(n),
    old: new Uint8Array(n)
  }
  for (let i = 0; i < n; i++) {
    const tick = ticks[i]!
    columns.instrument_token[i] = tick.instrument_token
    columns.exchange_ts[i] = tick.exchange_ts
    columns.price[i] = tick.price
    columns.volume[i] = tick.volume
    columns.sequence_id[i] = tick.sequence_id
    columns.status[i] = tick.status === "LIVE" ? 0 : 1
    columns.gap_from[i] = tick.gap_from
    columns.session[i] = tick.session
    columns.sequencing[i] = sequencingIndex(tick.sequencing)
    columns.epoch[i] = tick.epoch
    columns.position[i] = tick.position
    columns.feed.indexes[i] = feeds.indexOf(tick.feed)
    columns.received_ts[i] = tick.received_ts
    columns.source_incarnation.indexes[i] = incarnations.indexOf(tick.source[0])
    columns.source_offset[i] = tick.source[1]
    columns.source_index[i] = tick.source[2]
    columns.old[i] = tick.old ? 1 : 0
  }
  return columns
}

export const statusOf = (index: number): TickStatus => STATUSES[index]!
export const statusIndex = (status: string): number => (status === "LIVE" ? 0 : 1)
export const sequencingOf = (index: number): Sequencing => SEQUENCINGS[index]!
export const sequencingIndex = (sequencing: string): number =>
  sequencing === "contiguous" ? 0 : sequencing === "monotonic" ? 1 : 2

/** The buffers to hand over with a message rather than copy. */
export const buffersOf = (columns: TickColumns | StoredColumns): Array<ArrayBuffer> =>
  Object.values(columns).map((column) => ("indexes" in column ? column.indexes.buffer : column.buffer))

/** The rows `[from, to)` as ticks of the store. */
export const toStoredTicks = (columns: StoredColumns, from: number, to: number): ReadonlyArray<StoredTick> => {
  const ticks: Array<StoredTick> = []
  for (let i = from; i < to; i++) {
    ticks.push({
      instrument_token: columns.instrument_token[i]!,
      exchange_ts: columns.exchange_ts[i]!,
      sequence_id: columns.sequence_id[i]!,
      price: columns.price[i]!,
      volume: columns.volume[i]!,
      status: statusOf(columns.status[i]!),
      epoch: columns.epoch[i]!,
      position: columns.position[i]!,
      feed: columns.feed.names[columns.feed.indexes[i]!]!,
      session: columns.session[i]!,
      sequencing: sequencingOf(columns.sequencing[i]!),
      received_ts: columns.received_ts[i]!
    })
  }
  return ticks
}
