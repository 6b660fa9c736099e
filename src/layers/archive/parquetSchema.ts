/**
 * Decides what an archived tick is in Parquet: its columns and types, and how rows come back as ticks.
 *
 * `price` is a DOUBLE: a price is by contract a JS number whose shortest decimal is exact, so eight bytes of it are the
 * price itself, and pandas and DuckDB compute with it at once; a DECIMAL would come out of pandas as slow objects, and
 * would have to be scaled on the way in and out.
 */
import type { SchemaElement } from "hyparquet"
import { type StoredColumns, sequencingOf, statusOf } from "../../schema/TickColumns.ts"
import type { StoredTick } from "../../streams/ports/TickStore.ts"

/** Stands in every object; goes up when a column changes its meaning. */
export const SCHEMA_VERSION = 1

/** Rows of a row group: what a reader holds in memory of an object at a time. */
export const ROW_GROUP_ROWS = 32_768

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

/** How many of the columns, from the first, hold the primary key. */
export const KEY_COLUMNS = COLUMNS.findIndex(({ name }) => name === "sequence_id") + 1

export const PARQUET_SCHEMA: Array<SchemaElement> = [{ name: "tick", num_children: COLUMNS.length }, ...COLUMNS]

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
