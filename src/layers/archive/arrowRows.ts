/**
 * Decides what rows are in an Arrow IPC stream: one schema, then a record batch for each part of them. The types are
 * Parquet's: times in microseconds of UTC, prices as doubles, whole numbers as 64 bits, words and names as text.
 */
import {
  batchType,
  bool,
  Column,
  type DataType,
  float64,
  int32,
  int64,
  TimeUnit,
  tableFromColumns,
  tableToIPC,
  timestamp,
  utf8
} from "@uwdata/flechette"
import type { NameColumn } from "../../schema/TickColumns.ts"
import type { RowColumns } from "../../schema/tables.ts"
import { type ColumnField, columnsOf, type FieldTable } from "../../schema/tickFields.ts"
import type { RowFile } from "./rowFile.ts"

const types: Readonly<Record<ColumnField["kind"], DataType>> = {
  token: int32(),
  index: int32(),
  small: int32(),
  micros: timestamp(TimeUnit.MICROSECOND, "UTC"),
  price: float64(),
  whole: int64(),
  quantity: int64(),
  word: utf8(),
  name: utf8(),
  flag: bool()
}

/** What ends a stream. */
const END_BYTES = 8
const WHOLE: ReadonlySet<ColumnField["kind"]> = new Set(["micros", "whole", "quantity"])

/** A bit for each row: one where it is not null. Empty where none is. */
class Validity {
  readonly bits: Uint8Array
  nulls = 0

  constructor(count: number) {
    this.bits = new Uint8Array((count + 7) >> 3).fill(0xff)
  }

  setNull(row: number): void {
    this.bits[row >> 3]! &= ~(1 << (row & 7))
    this.nulls += 1
  }
}

/** Whole numbers, each below 2^53; what is no number is null. */
const wholes = (column: Float64Array, count: number, validity: Validity): BigInt64Array => {
  const values = new BigInt64Array(count)
  for (let row = 0; row < count; row++) {
    const value = column[row]!
    if (Number.isNaN(value)) validity.setNull(row)
    else values[row] = BigInt(value)
  }
  return values
}

/** The text of each row, by its index; one that is `undefined` is null. */
const texts = (
  written: ReadonlyArray<Uint8Array | undefined>,
  indexes: ArrayLike<number>,
  count: number,
  validity: Validity
) => {
  const offsets = new Int32Array(count + 1)
  let bytes = 0
  for (let row = 0; row < count; row++) {
    const text = written[indexes[row]!]
    if (text === undefined) validity.setNull(row)
    else bytes += text.length
    offsets[row + 1] = bytes
  }
  const values = new Uint8Array(bytes)
  for (let row = 0; row < count; row++) {
    const text = written[indexes[row]!]
    if (text !== undefined) values.set(text, offsets[row]!)
  }
  return { offsets, values }
}

const bits = (column: ArrayLike<number>, count: number): Uint8Array => {
  const values = new Uint8Array((count + 7) >> 3)
  for (let row = 0; row < count; row++) if (column[row] === 1) values[row >> 3]! |= 1 << (row & 7)
  return values
}

const encoder = new TextEncoder()

const buffersOf = (field: ColumnField, column: unknown, count: number, validity: Validity) => {
  if (field.kind === "name") {
    const { names, indexes } = column as NameColumn
    const isNull = (name: string) => name === "" && field.absent === null
    const written = names.map((name) => (isNull(name) ? undefined : encoder.encode(name)))
    return texts(written, indexes, count, validity)
  }
  if (field.kind === "word") {
    const written = field.words.map((word) => encoder.encode(word))
    return texts(written, column as Uint8Array, count, validity)
  }
  if (field.kind === "flag") return { values: bits(column as Uint8Array, count) }
  if (WHOLE.has(field.kind)) return { values: wholes(column as Float64Array, count, validity) }
  return { values: (column as Float64Array | Int32Array).subarray(0, count) }
}

const columnOf = (field: ColumnField, column: unknown, count: number): Column<unknown> => {
  const type = types[field.kind]
  const validity = new Validity(count)
  const buffers = buffersOf(field, column, count, validity)
  const { bits: valid, nulls } = validity
  const Batch = batchType(type)
  const batch = new Batch({
    length: count,
    nullCount: nulls,
    type,
    validity: nulls === 0 ? new Uint8Array(0) : valid,
    ...buffers
  })
  return new Column([batch], type)
}

/** Rows of such fields as a stream. The library writes whole ones: of each after the first only the batch is new. */
export const arrowRows = (fields: FieldTable): RowFile => {
  const columns = columnsOf(fields)
  const encoded = (columnOfField: (name: string, field: ColumnField) => Column<unknown>): Uint8Array<ArrayBuffer> => {
    const table = tableFromColumns(columns.map(({ name, field }) => [name, columnOfField(name, field)]))
    return tableToIPC(table, { format: "stream" }) as Uint8Array<ArrayBuffer>
  }
  const empty = encoded((_, { kind }) => new Column<unknown>([], types[kind]))
  const head = empty.length - END_BYTES
  return {
    begin: () => empty.slice(0, head),
    rows: ({ columns: given, count }: RowColumns) =>
      encoded((name, field) => columnOf(field, given[name as keyof typeof given], count)).slice(head, -END_BYTES),
    end: () => empty.slice(head)
  }
}
