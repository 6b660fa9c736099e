/**
 * Decides what an archived tick is in Parquet, and what a quote: their columns and types, and how rows come back.
 *
 * `price` is a DOUBLE: a price is by contract a JS number whose shortest decimal is exact, so eight bytes of it are the
 * price itself, and pandas and DuckDB compute with it at once; a DECIMAL would come out of pandas as slow objects, and
 * would have to be scaled on the way in and out.
 */
import type { SchemaElement } from "hyparquet"
import { type OiColumns, type QuoteColumns, quoteColumnFields } from "../../schema/QuoteColumns.ts"
import { type NameColumn, Names, rowReaderOf, type StoredColumns, type TickColumns } from "../../schema/TickColumns.ts"
import {
  type ColumnField,
  columnsOf,
  type FieldTable,
  storedOf,
  type TickField,
  tickFields
} from "../../schema/tickFields.ts"
import type { ArchivedKind } from "../../streams/ports/Archive.ts"
import type { StoredTick } from "../../streams/ports/TickStore.ts"

/** Stands in every object; goes up when a column changes its meaning. */
export const SCHEMA_VERSION = 1

/** Rows of a row group of ticks, and of others to be sent: what a reader holds in memory of an object at a time. */
export const ROW_GROUP_ROWS = 32_768
export const rowGroupRows = { ticks: ROW_GROUP_ROWS, quotes: 8192 } as const

type ElementType = Pick<SchemaElement, "type" | "converted_type" | "logical_type">
const INT32: ElementType = { type: "INT32" }
const INT64: ElementType = { type: "INT64" }
const TEXT: ElementType = { type: "BYTE_ARRAY", converted_type: "UTF8", logical_type: { type: "STRING" } }
const MICROS: ElementType = {
  type: "INT64",
  converted_type: "TIMESTAMP_MICROS",
  logical_type: { type: "TIMESTAMP", isAdjustedToUTC: true, unit: "MICROS" }
}

const elementTypes: Readonly<Record<ColumnField["kind"], ElementType>> = {
  token: INT32,
  index: INT32,
  small: INT32,
  micros: MICROS,
  price: { type: "DOUBLE" },
  whole: INT64,
  quantity: INT64,
  word: TEXT,
  name: TEXT,
  flag: { type: "BOOLEAN" }
}

/**
 * The fields as the archive has them: what a row may lack in the store, as one that a replay added lacks its place, it
 * lacks here as well; as a number in memory that is NaN.
 */
const archived = <F extends TickField>(field: F): F =>
  "unplaced" in field && field.absent === undefined ? { ...field, absent: null } : field
const archivedColumnsOf = (fields: FieldTable) =>
  columnsOf(Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, archived(field)])))
const archivedStoredOf = (fields: FieldTable) =>
  Object.fromEntries(Object.entries(storedOf(fields)).map(([name, field]) => [name, archived(field)]))

/** Whether a tick without the field has a null there; a flag is always one or the other. */
const isNullable = ({ kind, absent }: ColumnField): boolean => absent !== undefined && kind !== "flag"

/** The schema of ticks of such fields: their columns in the order of the wire. */
export const schemaOf = (fields: FieldTable, name = "tick"): Array<SchemaElement> => {
  const columns = archivedColumnsOf(fields).map(
    ({ name: column, field }): SchemaElement => ({
      name: column,
      ...elementTypes[field.kind],
      repetition_type: isNullable(field) ? "OPTIONAL" : "REQUIRED"
    })
  )
  return [{ name, num_children: columns.length }, ...columns]
}

/** What an instrument was called on the day of its tick; null where nobody knew. It lies behind all that is a tick's. */
const SYMBOL = "symbol"

/** A schema with the symbol as its last column. */
export const namedSchema = ([root, ...columns]: ReadonlyArray<SchemaElement>): Array<SchemaElement> => [
  { ...root!, num_children: columns.length + 1 },
  ...columns,
  { name: SYMBOL, ...TEXT, repetition_type: "OPTIONAL" }
]

const fieldsOf: Readonly<Record<ArchivedKind, FieldTable>> = { ticks: tickFields, quotes: quoteColumnFields }

export const schemas: Readonly<Record<ArchivedKind, Array<SchemaElement>>> = {
  ticks: namedSchema(schemaOf(tickFields)),
  quotes: namedSchema(schemaOf(quoteColumnFields, "quote"))
}

const COLUMNS = columnsOf(tickFields)
const STORED = archivedStoredOf(tickFields)

/** How many of the columns, from the first, `read` needs: what lies before those that only the archive keeps. */
export const READ_COLUMNS = COLUMNS.findLastIndex(({ name }) => name in STORED) + 1

/** The columns that `read` needs. */
export const STORED_COLUMNS: ReadonlyArray<string> = Object.keys(STORED)

/** How many of the columns, from the first, hold the primary key. */
export const KEY_COLUMNS = COLUMNS.findIndex(({ name }) => name === "sequence_id") + 1

type NumberColumn = Int32Array | Float64Array | Uint8Array

/** Of an object of either kind. */
export type AnyColumns = TickColumns | QuoteColumns
type ColumnsByName = Readonly<Record<string, NumberColumn | NameColumn>>

/** Some rows of a column as the writer takes them. */
const written = (field: ColumnField, column: NumberColumn | NameColumn, rows: Uint32Array) => {
  if ("indexes" in column) {
    const { names, indexes } = column
    if (field.absent !== null) return Array.from(rows, (row) => names[indexes[row]!]!)
    const orNull = names.map((name) => (name === "" ? null : name))
    return Array.from(rows, (row) => orNull[indexes[row]!]!)
  }
  switch (field.kind) {
    case "word":
      return Array.from(rows, (row) => field.words[column[row]!]!)
    case "flag":
      return Array.from(rows, (row) => column[row] === 1)
    case "price":
      if (field.absent === null) break
      return Float64Array.from(rows, (row) => column[row]!)
    case "token":
    case "index":
    case "small":
      return Int32Array.from(rows, (row) => column[row]!)
  }
  const { absent } = field
  if (absent === undefined) return BigInt64Array.from(rows, (row) => BigInt(column[row]!))
  return Array.from(rows, (row) => {
    const value = column[row]!
    if (value === absent || Number.isNaN(value)) return null
    return field.kind === "price" ? value : BigInt(value)
  })
}

/** Some rows of ticks of such fields, as the writer takes them. */
export const columnDataOf = (fields: FieldTable) => {
  const all = archivedColumnsOf(fields)
  return (columns: AnyColumns, rows: Uint32Array) =>
    all.map(({ name, field }) => ({
      name,
      data: written(field, (columns as ColumnsByName)[name]!, rows),
      ...("grows" in field ? { encoding: "DELTA_BINARY_PACKED" as const } : {})
    }))
}

const dataOf = { ticks: columnDataOf(tickFields), quotes: columnDataOf(quoteColumnFields) }

/** Some rows of an object and of their symbols, "" for none, as the writer takes them. */
export const columnData = (kind: ArchivedKind, columns: AnyColumns, symbols: NameColumn, rows: Uint32Array) => [
  ...dataOf[kind](columns, rows),
  { name: SYMBOL, data: Array.from(rows, (row) => symbols.names[symbols.indexes[row]!] || null) }
]

/** The symbols of rows of one trading day. */
export const symbolsOf = (tokens: ArrayLike<number>, name: (token: number) => string | undefined): NameColumn => {
  const names = new Names()
  const known = new Map<number, number>()
  const indexes = new Uint32Array(tokens.length)
  for (let row = 0; row < tokens.length; row++) {
    const token = tokens[row]!
    let index = known.get(token)
    if (index === undefined) {
      index = names.indexOf(name(token) ?? "")
      known.set(token, index)
    }
    indexes[row] = index
  }
  return { indexes, names: names.names }
}

/** Some rows of a column in memory, as the reader gives it. */
const kept = (field: ColumnField, values: ArrayLike<unknown>, rows: Uint32Array) => {
  switch (field.kind) {
    case "name": {
      const names = new Names()
      return { indexes: Uint32Array.from(rows, (row) => names.indexOf(values[row] as string)), names: names.names }
    }
    case "word": {
      // The same word stands in most rows.
      let last = field.otherwise
      const otherwise = field.words.indexOf(last)
      let index = otherwise
      return Uint8Array.from(rows, (row) => {
        const word = values[row] as string
        if (word === last) return index
        last = word
        const found = field.words.indexOf(word)
        index = found < 0 ? otherwise : found
        return index
      })
    }
    case "token":
    case "index":
    case "small":
      return Int32Array.from(rows, (row) => values[row] as number)
    case "flag":
      return Uint8Array.from(rows, (row) => (values[row] === true ? 1 : 0))
  }
  if (field.absent === undefined) return Float64Array.from(rows, (row) => Number(values[row]))
  const nothing = field.absent ?? Number.NaN
  return Float64Array.from(rows, (row) => (values[row] == null ? nothing : Number(values[row])))
}

/** Rows as columns of some fields. */
interface Kept<Columns> {
  readonly names: ReadonlySet<string>
  /**
   * Some rows of each column, which `read` answers whole. An object that is older than a column `has` none of it: its
   * rows are without that field.
   */
  readonly read: (
    read: (column: string) => Promise<ArrayLike<unknown>>,
    has: (column: string) => boolean,
    rows: Uint32Array
  ) => Promise<Columns>
  /** The rows put one after another. */
  readonly gather: (refs: ReadonlyArray<RowRef<Columns>>) => Columns
}

/** Where one row stands among those of several columns of one length each. */
export interface RowRef<Columns> {
  readonly columns: Columns
  readonly row: number
}

const gathered = <Columns>(field: ColumnField, name: keyof Columns, refs: ReadonlyArray<RowRef<Columns>>) => {
  if (field.kind === "name") {
    const names = new Names()
    const indexes = Uint32Array.from(refs, ({ columns, row }) => {
      const column = columns[name] as NameColumn
      return names.indexOf(column.names[column.indexes[row]!]!)
    })
    return { indexes, names: names.names }
  }
  const values = ({ columns, row }: RowRef<Columns>): number => (columns[name] as NumberColumn)[row]!
  switch (field.kind) {
    case "word":
    case "flag":
      return Uint8Array.from(refs, values)
    case "token":
    case "index":
    case "small":
      return Int32Array.from(refs, values)
    default:
      return Float64Array.from(refs, values)
  }
}

const keptOf = <Columns>(fields: Readonly<Record<string, ColumnField>>): Kept<Columns> => ({
  names: new Set(Object.keys(fields)),
  read: async (read, has, rows) => {
    const columns: Record<string, ReturnType<typeof kept>> = {}
    for (const [name, field] of Object.entries(fields)) {
      const isOlder = field.absent !== undefined && !has(name)
      columns[name] = kept(field, isOlder ? [] : await read(name), rows)
    }
    return columns as Columns
  },
  gather: (refs) =>
    Object.fromEntries(
      Object.entries(fields).map(([name, field]) => [name, gathered(field, name as keyof Columns & string, refs)])
    ) as Columns
})

/** What the store's ticks are made of. */
export const storedColumnsOf = (fields: FieldTable) => keptOf<StoredColumns>(archivedStoredOf(fields))
export const storedColumns = storedColumnsOf(tickFields)

const quoteFieldsOf = (names: ReadonlyArray<string>) =>
  Object.fromEntries(names.map((name) => [name, quoteColumnFields[name] as ColumnField]))
/** All that a quote is made of. */
export const quoteColumns = keptOf<QuoteColumns>(quoteFieldsOf(Object.keys(quoteColumnFields)))
/** Its open interest, with what tells which of two is the later. */
export const oiColumns = keptOf<OiColumns>(
  quoteFieldsOf([
    "instrument_token",
    "exchange_ts",
    "oi",
    "received_ts",
    "source_incarnation",
    "source_offset",
    "source_index"
  ] satisfies Array<keyof OiColumns>)
)

const storedTickOf = rowReaderOf<StoredTick>(STORED)

/** The rows `[from, to)` as ticks of the store. */
export const toStoredTicks = (columns: StoredColumns, from: number, to: number): ReadonlyArray<StoredTick> => {
  const ticks: Array<StoredTick> = []
  for (let i = from; i < to; i++) ticks.push(storedTickOf(columns, i))
  return ticks
}

/** Rows as they were read, by column; a column that is younger than the object is not among them. */
export interface RawRows {
  readonly length: number
  /** Of numbers and flags as numbers, NaN for none; of texts as they are. */
  readonly columns: ReadonlyMap<string, Float64Array | ReadonlyArray<unknown>>
}

/** A column as it is kept while objects are joined: an array of whole numbers, as it is read, takes four times as much. */
export const rawColumn = (
  { type }: SchemaElement,
  values: ArrayLike<unknown>
): Float64Array | ReadonlyArray<unknown> =>
  type === "BYTE_ARRAY"
    ? Array.from(values)
    : Float64Array.from(values, (value) => (value == null ? Number.NaN : Number(value)))

/** What an object lacks that is older than a column whose rows all have something. */
const NOTHING: Readonly<Record<string, unknown>> = { INT32: 0, INT64: 0n, DOUBLE: 0, BYTE_ARRAY: "", BOOLEAN: false }

const growingOf = (fields: FieldTable) =>
  new Set(columnsOf(fields).flatMap(({ name, field }) => ("grows" in field ? [name] : [])))
const growing = { ticks: growingOf(fieldsOf.ticks), quotes: growingOf(fieldsOf.quotes) }

/** Some rows of several objects as the writer takes them, every column of theirs that this version knows. */
export const joinedData = (kind: ArchivedKind, rows: ReadonlyArray<readonly [of: RawRows, row: number]>) =>
  schemas[kind].slice(1).map(({ name, type, repetition_type }) => {
    const isOptional = repetition_type === "OPTIONAL"
    const data = rows.map(([{ columns }, row]) => {
      const found = columns.get(name)?.[row]
      if (found == null || Number.isNaN(found)) return isOptional ? null : NOTHING[type!]
      if (type === "INT64") return BigInt(found as number)
      return type === "BOOLEAN" ? found === 1 : found
    })
    return { name, data, ...(growing[kind].has(name) ? { encoding: "DELTA_BINARY_PACKED" as const } : {}) }
  })
