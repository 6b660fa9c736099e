/**
 * Decides how Parquet is encoded and decoded, on a thread of its own: both are synchronous and would stop the loop that
 * serves clients for a tenth of a second an object. While one request waits for bytes from afar, others are answered.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs"
import { parentPort } from "node:worker_threads"
import { type AsyncBuffer, type FileMetaData, type ParquetScan, parquetMetadataAsync, parquetScan } from "hyparquet"
import { ByteWriter, ParquetWriter } from "hyparquet-writer"
import type { ArchiveError } from "../../schema/Errors.ts"
import { countsOver } from "../../schema/Quote.ts"
import type { OiColumns, QuoteColumns } from "../../schema/QuoteColumns.ts"
import { compareTicks, type Source, type TickOrder } from "../../schema/Tick.ts"
import { type NameColumn, Names, type StoredColumns, type TickColumns } from "../../schema/TickColumns.ts"
import type { ArchivedKind } from "../../streams/ports/Archive.ts"
import { lowerBound } from "./lowerBound.ts"
import { nameOf, type ObjectSource } from "./objectSource.ts"
import { isInSlice, PrimaryKeys } from "./PrimaryKeys.ts"
import {
  type AnyColumns,
  columnData,
  joinedData,
  KEY_COLUMNS,
  oiColumns,
  quoteColumns,
  type RawRows,
  READ_COLUMNS,
  type RowRef,
  rawColumn,
  rowGroupRows,
  STORED_COLUMNS,
  schemas,
  storedColumns
} from "./parquetSchema.ts"

/** A part of a day's rows whose keys fit in memory: tokens in [fromToken, toToken], and of their keys one in `slices`. */
export interface Part {
  /** The requests of one reader share what they have seen of their part. */
  readonly reader: number
  readonly day: number
  /** Ascending; `undefined`: every token in the range. */
  readonly tokens: Int32Array | undefined
  /** Epoch microseconds, half-open. */
  readonly from: number
  readonly to: number
  readonly fromToken: number
  readonly toToken: number
  readonly slice: number
  readonly slices: number
  /** At most so many rows fall into the part. */
  readonly rows: number
}

export type Request =
  | ({
      readonly kind: "encode"
      /** "" where nobody knows one. */
      readonly symbols: NameColumn
      readonly metadata: Readonly<Record<string, string>>
    } & (
      | {
          readonly holds: "ticks"
          readonly columns: TickColumns
          /** Objects whose rows are left out of the new one. */
          readonly others: ReadonlyArray<ObjectSource>
        }
      | { readonly holds: "quotes"; readonly columns: QuoteColumns }
    ))
  | {
      readonly kind: "join"
      readonly holds: ArchivedKind
      readonly sources: ReadonlyArray<{
        readonly name: string
        readonly source: ObjectSource
        readonly covers: ReadonlyArray<string>
      }>
      readonly metadata: Readonly<Record<string, string>>
    }
  | { readonly kind: "check"; readonly holds: ArchivedKind; readonly source: ObjectSource }
  | { readonly kind: "footer"; readonly source: ObjectSource }
  | {
      readonly kind: "survey"
      readonly source: ObjectSource
      readonly groups: ReadonlyArray<number>
      readonly from: number
      readonly to: number
    }
  | { readonly kind: "begin"; readonly part: Part }
  | { readonly kind: "rows"; readonly source: ObjectSource; readonly group: number; readonly reader: number }
  | { readonly kind: "tally"; readonly source: ObjectSource; readonly group: number; readonly reader: number }
  | ({ readonly kind: "ticks" } & TicksWanted)
  | ({ readonly kind: "quotes" } & QuotesWanted)
  | ({ readonly kind: "oi" } & QuotesWanted)
  | { readonly kind: "end"; readonly reader: number }

export interface Encoded {
  /** Null where no row is left. */
  readonly bytes: Uint8Array<ArrayBuffer> | null
  /** Rows that other objects have. */
  readonly leftOut: number
  /** Of the other objects those that cannot be read, and why. */
  readonly unreadable: ReadonlyArray<string>
}

/** One object of what several held. */
export interface Joined {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly rows: number
  /** Of the objects those that it holds. */
  readonly names: ReadonlyArray<string>
  /** The others. */
  readonly corrupt: ReadonlyArray<{ readonly name: string; readonly reason: string }>
}

/** One instrument's rows in [from, to), of these groups of these objects; earlier objects' rows of a key go first. */
export interface TicksWanted {
  readonly objects: ReadonlyArray<{ readonly source: ObjectSource; readonly groups: ReadonlyArray<number> }>
  readonly token: number
  readonly from: number
  readonly to: number
  /** How many rows are enough; all of the last instant come along. */
  readonly rows: number
}

/** All rows there are in [from, through), in the order of ticks. */
export interface TicksFound {
  readonly columns: StoredColumns
  readonly through: number
}

/** Some instruments' quotes in [from, to), of these groups of these objects. */
export interface QuotesWanted {
  readonly objects: ReadonlyArray<{ readonly source: ObjectSource; readonly groups: ReadonlyArray<number> }>
  readonly fromToken: number
  readonly toToken: number
  /** Those of them; `undefined`: every token in the range. */
  readonly tokens: ReadonlySet<number> | undefined
  readonly from: number
  readonly to: number
  /** How many rows are enough; all of the last instant come along. */
  readonly rows: number
}

/** All quotes there are in [from, through), one an instrument and instant, by time, then instrument. */
export interface QuotesFound<Columns> {
  readonly columns: Columns
  readonly through: number
}

/** What an object says of itself: the lowest and the highest of each row group, one after the other. */
export interface Footer {
  readonly tokens: Float64Array<ArrayBuffer>
  readonly times: Float64Array<ArrayBuffer>
  readonly rows: Int32Array<ArrayBuffer>
  /** Names of the objects whose rows it holds, and that are to be read no longer. */
  readonly covers: ReadonlyArray<string>
}

export interface Survey {
  /** Each token of the object's groups, ascending in each, with how many rows it has. */
  readonly tokens: Int32Array<ArrayBuffer>
  readonly counts: Int32Array<ArrayBuffer>
}

/** What each request is answered with. */
export interface Answers {
  readonly encode: Encoded
  readonly join: Joined
  /** How many rows were read, every column of them. */
  readonly check: number
  readonly footer: Footer
  readonly survey: Survey
  readonly begin: null
  readonly rows: StoredColumns | null
  readonly tally: Survey
  readonly ticks: TicksFound
  readonly quotes: QuotesFound<QuoteColumns>
  readonly oi: QuotesFound<OiColumns>
  readonly end: null
}

/** What the thread is sent: a request, or bytes that it needed. */
export type Asked =
  | { readonly id: number; readonly request: Request }
  | { readonly need: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly need: number; readonly failure: string; readonly isGone: boolean }

/** What the thread sends: an answer, or what it needs for one: the bytes `[from, to)` of an object. */
export type Answered =
  | { readonly id: number; readonly answer: Answers[keyof Answers] }
  | { readonly id: number; readonly failure: string; readonly object?: NonNullable<ArchiveError["object"]> }
  | Need

export interface Need {
  readonly need: number
  readonly key: string
  readonly from: number
  readonly to: number
}

type Order = (a: number, b: number) => number

/** The rows from 0 on in an order, equal ones as they came; of each run of rows that are the same one goes. */
const sortedRows = (count: number, order: Order, isSame: (a: number, b: number) => boolean, goes: "first" | "last") => {
  const rows = new Uint32Array(count)
  for (let i = 0; i < rows.length; i++) rows[i] = i
  rows.sort((a, b) => order(a, b) || a - b)
  let kept = 0
  for (const row of rows) {
    if (kept === 0 || !isSame(rows[kept - 1]!, row)) kept += 1
    else if (goes === "first") continue
    rows[kept - 1] = row
  }
  return rows.subarray(0, kept)
}

/** What the order of an object's rows is made of; texts as their numbers among all that there are. */
interface RowKeys {
  readonly token: ArrayLike<number>
  readonly ts: ArrayLike<number>
}

/** One row a primary key, the first published. */
const sortedTicks = ({ token, ts, id }: RowKeys & { readonly id: ArrayLike<number> }): Uint32Array => {
  const order: Order = (a, b) => token[a]! - token[b]! || ts[a]! - ts[b]! || id[a]! - id[b]!
  return sortedRows(token.length, order, (a, b) => order(a, b) === 0, "first")
}

/**
 * Of each raw topic's quotes of an instrument's instant the last published. Which topic's counts is the readers' to
 * say, who know of all objects.
 */
const sortedQuotes = ({
  token,
  ts,
  incarnation,
  offset,
  index
}: RowKeys & {
  readonly incarnation: ArrayLike<number>
  readonly offset: ArrayLike<number>
  readonly index: ArrayLike<number>
}): Uint32Array => {
  const place: Order = (a, b) => token[a]! - token[b]! || ts[a]! - ts[b]! || incarnation[a]! - incarnation[b]!
  const order: Order = (a, b) => place(a, b) || offset[a]! - offset[b]! || index[a]! - index[b]!
  return sortedRows(token.length, order, (a, b) => place(a, b) === 0, "last")
}

const beginObject = (holds: ArchivedKind, metadata: Readonly<Record<string, string>>) => {
  const writer = new ByteWriter(1 << 20)
  const parquet = new ParquetWriter({
    writer,
    schema: schemas[holds],
    createdBy: "market-data-platform",
    kvMetadata: Object.entries(metadata).map(([key, value]) => ({ key, value }))
  })
  return { writer, parquet }
}

const encodeRows = (
  holds: ArchivedKind,
  columns: AnyColumns,
  symbols: NameColumn,
  rows: Uint32Array,
  metadata: Readonly<Record<string, string>>
): Uint8Array<ArrayBuffer> => {
  const { writer, parquet } = beginObject(holds, metadata)
  const size = rowGroupRows[holds]
  for (let start = 0; start < rows.length; start += size) {
    const group = rows.subarray(start, start + size)
    parquet.write({ rowGroupSize: size, columnData: columnData(holds, columns, symbols, group) })
  }
  parquet.finish()
  return new Uint8Array(writer.getBuffer())
}

/** Times come back as the microseconds they are. */
const parsers = { timestampFromMicroseconds: (micros: bigint): number => Number(micros) }

const port = parentPort
if (port === null) throw new Error("parquetWorker runs as a worker thread")

/** Bytes that the owner was asked for: at most one need of each request under way. */
const needed = new Map<number, PromiseWithResolvers<Uint8Array<ArrayBuffer>>>()
let needs = 0

const need = (key: string, from: number, to: number): Promise<Uint8Array<ArrayBuffer>> => {
  needs += 1
  const bytes = Promise.withResolvers<Uint8Array<ArrayBuffer>>()
  needed.set(needs, bytes)
  port.postMessage({ need: needs, key, from, to } satisfies Answered)
  return bytes.promise
}

/** Bytes that did not come. */
class NeedError extends Error {
  readonly isGone: boolean
  constructor(message: string, isGone: boolean) {
    super(message)
    this.isGone = isGone
  }
}

/** An object that cannot be read: it is gone, it is corrupt, or it may be read another time. */
class ObjectError extends Error {
  readonly object: ArchiveError["object"]
  constructor(name: string, error: unknown) {
    const reason = error instanceof Error ? error.message : String(error)
    super(`${name}: ${reason}`)
    const code = error instanceof Error && "code" in error ? error.code : undefined
    const isGone = error instanceof NeedError ? error.isGone : code === "ENOENT"
    const isPassing = !isGone && (error instanceof NeedError || code !== undefined)
    this.object = isPassing ? undefined : { name, is: isGone ? "gone" : "corrupt", reason }
  }
}

type ByteRange = readonly [from: number, to: number]

/** An object's bytes, and a way to say which will be asked for piece by piece. */
interface Opened {
  readonly buffer: AsyncBuffer
  readonly hold: (ranges: ReadonlyArray<ByteRange>) => Promise<void>
  readonly close: () => void
}

const openFile = (path: string): Opened => {
  const fd = openSync(path, "r")
  const byteLength = fstatSync(fd).size
  return {
    buffer: {
      byteLength,
      slice: (start, end = byteLength) => {
        const bytes = new Uint8Array(end - start)
        let at = 0
        while (at < bytes.length) {
          const read = readSync(fd, bytes, at, bytes.length - at, start + at)
          if (read === 0) throw new Error("ends early")
          at += read
        }
        return bytes.buffer
      }
    },
    hold: async () => {},
    close: () => closeSync(fd)
  }
}

/** Objects up to this are fetched whole, and the ends of larger ones, where the metadata is. */
const FETCH_BYTES = 1 << 19

/** Bytes from afar: a request costs more than its bytes, so what lies together comes together, one piece at a time. */
const openObject = async (key: string, byteLength: number, isKnown: boolean): Promise<Opened> => {
  const end =
    isKnown && byteLength > FETCH_BYTES
      ? new Uint8Array(0)
      : await need(key, Math.max(0, byteLength - FETCH_BYTES), byteLength)
  const pieces = [{ from: byteLength - end.length, bytes: end }]
  return {
    buffer: {
      byteLength,
      slice: async (start, stop = byteLength) => {
        const held = pieces.find(({ from, bytes }) => start >= from && stop <= from + bytes.length)
        if (held === undefined) return (await need(key, start, stop)).buffer
        return held.bytes.buffer.slice(start - held.from, stop - held.from)
      }
    },
    hold: async (ranges) => {
      pieces.length = 1
      for (const [from, to] of ranges) {
        if (from < byteLength - end.length) pieces.push({ from, bytes: await need(key, from, to) })
      }
    },
    close: () => {}
  }
}

/** Footers of the objects that were read last: an object never changes. */
const metadataOf = new Map<string, FileMetaData>()
const MAX_METADATA = 16

const withObject = async <A>(
  source: ObjectSource,
  use: (opened: Opened, metadata: FileMetaData) => Promise<A>
): Promise<A> => {
  const name = nameOf(source)
  let opened: Opened | undefined
  try {
    const known = metadataOf.get(name)
    metadataOf.delete(name)
    opened =
      source.kind === "file" ? openFile(source.path) : await openObject(source.key, source.size, known !== undefined)
    const metadata = known ?? (await parquetMetadataAsync(opened.buffer, { initialFetchSize: FETCH_BYTES, parsers }))
    if (metadataOf.size >= MAX_METADATA) metadataOf.delete(metadataOf.keys().next().value!)
    metadataOf.set(name, metadata)
    return await use(opened, metadata)
  } catch (error) {
    metadataOf.delete(name)
    throw new ObjectError(name, error)
  } finally {
    opened?.close()
  }
}

/** Bytes that are fetched along with what lies before and after them: a request costs more. */
const GAP_BYTES = 1 << 16

/** Where the bytes of a row group's columns lie, of those that are wanted; what is nearly together comes together. */
const groupBytes = (
  metadata: FileMetaData,
  group: number,
  isWanted: (column: string, index: number) => boolean
): ReadonlyArray<ByteRange> => {
  const ranges: Array<ByteRange> = []
  for (const [index, { meta_data: column }] of metadata.row_groups[group]!.columns.entries()) {
    if (column === undefined) return []
    if (!isWanted(column.path_in_schema[0]!, index)) continue
    const from = Number(column.dictionary_page_offset ?? column.data_page_offset)
    const to = from + Number(column.total_compressed_size)
    const last = ranges.at(-1)
    if (last !== undefined && from >= last[0] && from - last[1] <= GAP_BYTES) {
      ranges[ranges.length - 1] = [last[0], Math.max(last[1], to)]
    } else ranges.push([from, to])
  }
  return ranges
}

const everyColumn = () => true

/** First and last row of a row group in its file. */
const groupRange = (metadata: FileMetaData, group: number): readonly [from: number, to: number] => {
  let from = 0
  for (let i = 0; i < group; i++) from += Number(metadata.row_groups[i]!.num_rows)
  return [from, from + Number(metadata.row_groups[group]!.num_rows)]
}

/** The lowest and highest token of a row group, where its statistics say so. */
const tokenRange = (metadata: FileMetaData, group: number): readonly [low: number, high: number] => {
  const statistics = metadata.row_groups[group]!.columns[0]?.meta_data?.statistics
  const { min_value: low, max_value: high } = statistics ?? {}
  return [typeof low === "number" ? low : 0, typeof high === "number" ? high : Number.MAX_SAFE_INTEGER]
}

/** How many rows stamped in [from, to) each token has in some groups. */
const survey = ({ source, groups, from, to }: Request & { readonly kind: "survey" }): Promise<Survey> =>
  withObject(source, async ({ buffer }, metadata) => {
    const scan = await parquetScan({ file: buffer, metadata, parsers, columns: ["instrument_token", "exchange_ts"] })
    const tokens: Array<number> = []
    const counts: Array<number> = []
    for (const group of groups) {
      const [rowStart, rowEnd] = groupRange(metadata, group)
      const column = (await scan.readColumn({ column: "instrument_token", rowStart, rowEnd })) as ArrayLike<number>
      const [earliest, latest] = groupKeys(metadata, group).times
      const times =
        earliest >= from && latest < to
          ? undefined
          : ((await scan.readColumn({ column: "exchange_ts", rowStart, rowEnd })) as ArrayLike<number>)
      for (let i = 0; i < column.length; i++) {
        if (times !== undefined && (times[i]! < from || times[i]! >= to)) continue
        const token = column[i]!
        if (tokens[tokens.length - 1] === token) counts[counts.length - 1]! += 1
        else {
          tokens.push(token)
          counts.push(1)
        }
      }
    }
    return { tokens: Int32Array.from(tokens), counts: Int32Array.from(counts) }
  })

const footer = (source: ObjectSource): Promise<Footer> =>
  withObject(source, async (_, metadata) => {
    const keys = metadata.row_groups.map((_, group) => groupKeys(metadata, group))
    return {
      tokens: Float64Array.from(keys.flatMap(({ tokens }) => tokens)),
      times: Float64Array.from(keys.flatMap(({ times }) => times)),
      rows: Int32Array.from(metadata.row_groups, ({ num_rows }) => Number(num_rows)),
      covers: coversOf(metadata)
    }
  })

/** The key of what an object says of those that it took the place of. */
const COVERS = "covers"

const coversOf = ({ key_value_metadata: said = [] }: FileMetaData): ReadonlyArray<string> => {
  const text = said.find(({ key }) => key === COVERS)?.value
  const names: unknown = text === undefined ? [] : JSON.parse(text)
  if (Array.isArray(names) && names.every((name): name is string => typeof name === "string")) return names
  throw new Error(`${COVERS}: expected names of objects`)
}

/** Every row of an object, a row group after the other, with every column that it has and this version knows. */
const wholeOf = (holds: ArchivedKind, source: ObjectSource): Promise<ReadonlyArray<RawRows>> =>
  withObject(source, async ({ buffer, hold }, metadata) => {
    const has = presentIn(metadata)
    const groups: Array<RawRows> = []
    for (let group = 0; group < metadata.row_groups.length; group++) {
      await hold(groupBytes(metadata, group, everyColumn))
      const scan = await parquetScan({ file: buffer, metadata, parsers })
      const [rowStart, rowEnd] = groupRange(metadata, group)
      const columns = new Map<string, Float64Array | ReadonlyArray<unknown>>()
      for (const element of schemas[holds].slice(1)) {
        const { name: column } = element
        if (has(column)) columns.set(column, rawColumn(element, await scan.readColumn({ column, rowStart, rowEnd })))
      }
      groups.push({ columns, length: rowEnd - rowStart })
    }
    return groups
  })

/** A pause in which others are answered. */
const pause = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** The sources' rows in the order of an object, those that go left out. */
const joinedRows = (
  holds: ArchivedKind,
  parts: ReadonlyArray<RawRows>,
  starts: ReadonlyArray<number>,
  total: number
) => {
  const numbers = (name: string): Float64Array => {
    const values = new Float64Array(total)
    for (const [i, { columns }] of parts.entries()) values.set(columns.get(name) as Float64Array, starts[i])
    return values
  }
  const keys = { token: numbers("instrument_token"), ts: numbers("exchange_ts") }
  if (holds === "ticks") return sortedTicks({ ...keys, id: numbers("sequence_id") })
  const names = new Names()
  const incarnation = new Uint32Array(total)
  for (const [i, { columns }] of parts.entries()) {
    const texts = columns.get("source_incarnation") as ReadonlyArray<string>
    for (let row = 0; row < texts.length; row++) incarnation[starts[i]! + row] = names.indexOf(texts[row]!)
  }
  return sortedQuotes({ ...keys, incarnation, offset: numbers("source_offset"), index: numbers("source_index") })
}

const join = async ({ holds, sources, metadata }: Request & { readonly kind: "join" }): Promise<Joined> => {
  const names: Array<string> = []
  const covered: Array<string> = []
  const corrupt: Array<{ readonly name: string; readonly reason: string }> = []
  const parts: Array<RawRows> = []
  for (const { name, source, covers } of sources) {
    try {
      parts.push(...(await wholeOf(holds, source)))
      names.push(name)
      covered.push(name, ...covers)
    } catch (error) {
      if (!(error instanceof ObjectError) || error.object?.is !== "corrupt") throw error
      corrupt.push(error.object)
    }
    await pause()
  }
  /** Where each part's rows begin among all. */
  const starts: Array<number> = []
  let total = 0
  for (const { length } of parts) {
    starts.push(total)
    total += length
  }
  const kept = joinedRows(holds, parts, starts, total)
  const rowAt = (row: number): readonly [RawRows, number] => {
    const part = lowerBound(starts, row + 1) - 1
    return [parts[part]!, row - starts[part]!]
  }
  const { writer, parquet } = beginObject(holds, { ...metadata, [COVERS]: JSON.stringify(covered) })
  const size = rowGroupRows[holds]
  for (let start = 0; start < kept.length; start += size) {
    const group = Array.from(kept.subarray(start, start + size), rowAt)
    parquet.write({ rowGroupSize: size, columnData: joinedData(holds, group) })
    await pause()
  }
  parquet.finish()
  return { bytes: new Uint8Array(writer.getBuffer()), rows: kept.length, names, corrupt }
}

const check = async (holds: ArchivedKind, source: ObjectSource): Promise<number> =>
  (await wholeOf(holds, source)).reduce((sum, { length }) => sum + length, 0)

/** The keys that a row group may hold; what its statistics do not say, it may. */
interface GroupKeys {
  readonly tokens: readonly [low: number, high: number]
  readonly times: readonly [low: number, high: number]
}

/** The keys of objects read before: an object never changes. One more than so many drops the one that came first. */
const keysOf = new Map<string, ReadonlyArray<GroupKeys>>()
const MAX_KEYS_OF = 16_384

const groupKeys = (metadata: FileMetaData, group: number): GroupKeys => {
  const statistics = metadata.row_groups[group]!.columns[1]?.meta_data?.statistics
  const { min_value: low, max_value: high } = statistics ?? {}
  return {
    tokens: tokenRange(metadata, group),
    times: [
      typeof low === "number" ? low : Number.NEGATIVE_INFINITY,
      typeof high === "number" ? high : Number.POSITIVE_INFINITY
    ]
  }
}

const overlaps = (a: readonly [number, number], b: readonly [number, number]): boolean => a[0] <= b[1] && a[1] >= b[0]

/**
 * The sorted rows whose primary keys stand in none of the other objects. Of those only the groups are read, and only
 * the columns of their keys, that tokens and times of the rows fall into.
 */
const withoutThoseOf = async (columns: TickColumns, rows: Uint32Array, others: ReadonlyArray<ObjectSource>) => {
  const { instrument_token: token, exchange_ts: ts, sequence_id: id } = columns
  const has = new Uint8Array(rows.length)
  const unreadable: Array<string> = []
  const tokens = [token[rows[0]!]!, token[rows[rows.length - 1]!]!] as const
  let earliest = Number.POSITIVE_INFINITY
  let latest = Number.NEGATIVE_INFINITY
  for (const row of rows) {
    earliest = Math.min(earliest, ts[row]!)
    latest = Math.max(latest, ts[row]!)
  }
  const isMet = (keys: GroupKeys) => overlaps(keys.tokens, tokens) && overlaps(keys.times, [earliest, latest])
  /** Marks the row with that key, if there is one. */
  const mark = (ofToken: number, at: number, sequence: number): void => {
    let low = 0
    let high = rows.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const row = rows[middle]!
      const order = token[row]! - ofToken || ts[row]! - at || id[row]! - sequence
      if (order === 0) {
        has[middle] = 1
        return
      }
      if (order < 0) low = middle + 1
      else high = middle - 1
    }
  }
  for (const source of others) {
    const name = nameOf(source)
    if (keysOf.get(name)?.some(isMet) === false) continue
    try {
      await withObject(source, async ({ buffer, hold }, metadata) => {
        const keys = metadata.row_groups.map((_, group) => groupKeys(metadata, group))
        if (keysOf.size >= MAX_KEYS_OF) keysOf.delete(keysOf.keys().next().value!)
        keysOf.set(name, keys)
        if (!keys.some(isMet)) return
        const scan = await parquetScan({ file: buffer, metadata, parsers })
        for (let group = 0; group < keys.length; group++) {
          if (!isMet(keys[group]!)) continue
          await hold(groupBytes(metadata, group, (_, index) => index < KEY_COLUMNS))
          const [rowStart, rowEnd] = groupRange(metadata, group)
          const read = (column: string) => scan.readColumn({ column, rowStart, rowEnd })
          const theirTokens = (await read("instrument_token")) as ArrayLike<number>
          const theirTimes = (await read("exchange_ts")) as ArrayLike<number>
          const theirIds = (await read("sequence_id")) as ArrayLike<bigint>
          for (let i = 0; i < theirTokens.length; i++) mark(theirTokens[i]!, theirTimes[i]!, Number(theirIds[i]!))
        }
      })
    } catch (error) {
      // Bytes that do not come are asked for again, and one that is gone, in what took its place. No Parquet shows
      // nobody a tick.
      if (!(error instanceof ObjectError) || error.object?.is !== "corrupt") throw error
      unreadable.push(error instanceof Error ? error.message : String(error))
    }
  }
  return { rows: rows.filter((_, i) => has[i] === 0), unreadable }
}

/** The rows that go into an object. */
const encodedRows = async (request: Request & { readonly kind: "encode" }) => {
  if (request.holds === "quotes") {
    const { columns } = request
    const { source_incarnation, source_offset: offset, source_index: index } = columns
    const keys = { token: columns.instrument_token, ts: columns.exchange_ts }
    const rows = sortedQuotes({ ...keys, incarnation: source_incarnation.indexes, offset, index })
    return { rows, leftOut: 0, unreadable: [] }
  }
  const { columns, others } = request
  const sorted = sortedTicks({ token: columns.instrument_token, ts: columns.exchange_ts, id: columns.sequence_id })
  const { rows, unreadable } =
    others.length === 0 ? { rows: sorted, unreadable: [] } : await withoutThoseOf(columns, sorted, others)
  return { rows, leftOut: sorted.length - rows.length, unreadable }
}

const encode = async (request: Request & { readonly kind: "encode" }): Promise<Encoded> => {
  const { holds, columns, symbols, metadata } = request
  const { rows, leftOut, unreadable } = await encodedRows(request)
  return { bytes: rows.length === 0 ? null : encodeRows(holds, columns, symbols, rows, metadata), leftOut, unreadable }
}

/** What each reader has seen of the part it is reading. */
const readers = new Map<
  number,
  { readonly part: Part; readonly tokens: Set<number> | undefined; readonly seen: PrimaryKeys }
>()

const begin = (part: Part): null => {
  readers.set(part.reader, {
    part,
    tokens: part.tokens === undefined ? undefined : new Set(part.tokens),
    seen: new PrimaryKeys(part.day, part.rows)
  })
  return null
}

/** The columns of some rows of a row group; asked for twice they would be copied twice. */
type ReadColumn = (column: string) => Promise<ArrayLike<unknown>>

/** Reads the rows `[first, end)` of a row group, with what is known of them already. */
const columnsOf = (
  scan: ParquetScan,
  groupStart: number,
  first: number,
  end: number,
  known: ReadonlyArray<readonly [column: string, values: ArrayLike<unknown>]>
): ReadColumn => {
  const keys = new Map(known)
  return async (column) =>
    keys.get(column) ?? (await scan.readColumn({ column, rowStart: groupStart + first, rowEnd: groupStart + end }))
}

/**
 * The rows of a row group that fall into the reader's part and whose keys it has not seen yet, handed to `use` as their
 * keys and a way to read the rest; null where there is none.
 */
const unseenRows = <A>(
  source: ObjectSource,
  group: number,
  reader: number,
  columns: number,
  needed: (metadata: FileMetaData) => ReadonlyArray<string>,
  use: (tokens: ArrayLike<number>, rows: Uint32Array, read: ReadColumn, metadata: FileMetaData) => Promise<A>
): Promise<A | null> =>
  withObject(source, async ({ buffer, hold }, metadata) => {
    const reading = readers.get(reader)
    if (reading === undefined) throw new Error(`reader ${reader} has begun no part`)
    const { part, tokens, seen } = reading
    const [lowest, highest] = tokenRange(metadata, group)
    if (lowest > part.toToken || highest < part.fromToken) return null
    await hold(groupBytes(metadata, group, (_, index) => index < columns))
    const scan = await parquetScan({ file: buffer, metadata, parsers })
    const [groupStart, groupEnd] = groupRange(metadata, group)
    const tokenColumn = (await scan.readColumn({
      column: "instrument_token",
      rowStart: groupStart,
      rowEnd: groupEnd
    })) as ArrayLike<number>
    const first = lowerBound(tokenColumn, part.fromToken)
    const end = lowerBound(tokenColumn, part.toToken + 1)
    if (first === end) return null
    const readKey = columnsOf(scan, groupStart, first, end, [])
    const exchangeTs = (await readKey("exchange_ts")) as ArrayLike<number>
    const sequenceIds = (await readKey("sequence_id")) as ArrayLike<bigint>
    const ownTokens = Array.prototype.slice.call(tokenColumn, first, end) as ArrayLike<number>
    const kept = new Uint32Array(end - first)
    let met = 0
    for (let i = 0; i < kept.length; i++) {
      if (tokens !== undefined && !tokens.has(ownTokens[i]!)) continue
      if (exchangeTs[i]! < part.from || exchangeTs[i]! >= part.to) continue
      if (!isInSlice(exchangeTs[i]!, Number(sequenceIds[i]!), part.slice, part.slices)) continue
      kept[met] = i
      met += 1
    }
    if (met === 0) return null
    // Before any key counts as seen: rows that cannot be read are looked for elsewhere.
    const ahead: Array<readonly [column: string, values: ArrayLike<unknown>]> = []
    for (const column of needed(metadata)) ahead.push([column, await readKey(column)])
    let count = 0
    for (let at = 0; at < met; at++) {
      const i = kept[at]!
      if (!seen.add(ownTokens[i]!, exchangeTs[i]!, Number(sequenceIds[i]!))) continue
      kept[count] = i
      count += 1
    }
    if (count === 0) return null
    const read = columnsOf(scan, groupStart, first, end, [
      ["instrument_token", ownTokens],
      ["exchange_ts", exchangeTs],
      ["sequence_id", sequenceIds],
      ...ahead
    ])
    return use(ownTokens, kept.subarray(0, count), read, metadata)
  })

const presentIn = ({ schema }: FileMetaData): ((column: string) => boolean) => {
  const present = new Set(schema.map(({ name }) => name))
  return (column) => present.has(column)
}

const rowsOf = (source: ObjectSource, group: number, reader: number): Promise<StoredColumns | null> =>
  unseenRows(
    source,
    group,
    reader,
    READ_COLUMNS,
    (metadata) => STORED_COLUMNS.filter(presentIn(metadata)),
    (_, rows, read, metadata) => storedColumns.read(read, presentIn(metadata), rows)
  )

/** How many rows of each token the reader has not seen yet. */
const tally = async (source: ObjectSource, group: number, reader: number): Promise<Survey> => {
  const tokens: Array<number> = []
  const counts: Array<number> = []
  const none = () => []
  await unseenRows(source, group, reader, KEY_COLUMNS, none, async (of, rows) => {
    for (const row of rows) {
      if (tokens[tokens.length - 1] === of[row]) counts[counts.length - 1]! += 1
      else {
        tokens.push(of[row]!)
        counts.push(1)
      }
    }
  })
  return { tokens: Int32Array.from(tokens), counts: Int32Array.from(counts) }
}

/** A row of one instrument; `object` is the place of its object among all. */
interface FoundRow extends TickOrder, RowRef<StoredColumns> {
  readonly object: number
}

/** One instrument's rows of a row group in [from, to). */
const rowsOfOne = async (
  scan: ParquetScan,
  metadata: FileMetaData,
  group: number,
  { token, from }: TicksWanted,
  to: number
): Promise<StoredColumns | undefined> => {
  const [groupStart, groupEnd] = groupRange(metadata, group)
  const range = { rowStart: groupStart, rowEnd: groupEnd }
  const tokens = (await scan.readColumn({ column: "instrument_token", ...range })) as ArrayLike<number>
  const start = lowerBound(tokens, token)
  const stop = lowerBound(tokens, token + 1)
  if (start === stop) return undefined
  const times = (await columnsOf(scan, groupStart, start, stop, [])("exchange_ts")) as ArrayLike<number>
  const first = lowerBound(times, from)
  const end = lowerBound(times, to)
  if (first === end) return undefined
  const read = columnsOf(scan, groupStart, start + first, start + end, [])
  return storedColumns.read(
    read,
    presentIn(metadata),
    Uint32Array.from({ length: end - first }, (_, i) => i)
  )
}

const ticksOf = async (wanted: TicksWanted): Promise<TicksFound> => {
  const { objects, token, from, to, rows } = wanted
  let through = to
  let found: Array<FoundRow> = []
  /** One row a key, the first object's; no more instants than it takes for `rows`. */
  const cut = (): void => {
    found.sort((a, b) => a.exchange_ts - b.exchange_ts || a.sequence_id - b.sequence_id || a.object - b.object)
    found = found.filter(({ exchange_ts, sequence_id }, i) => {
      const before = found[i - 1]
      return before === undefined || before.exchange_ts !== exchange_ts || before.sequence_id !== sequence_id
    })
    if (found.length <= rows) return
    through = found[rows - 1]!.exchange_ts + 1
    found = found.filter(({ exchange_ts }) => exchange_ts < through)
  }
  for (const [object, { source, groups }] of objects.entries()) {
    await withObject(source, async ({ buffer, hold }, metadata) => {
      const scan = await parquetScan({ file: buffer, metadata, parsers })
      for (const group of groups) {
        const keys = groupKeys(metadata, group)
        if (!overlaps(keys.tokens, [token, token]) || !overlaps(keys.times, [from, through - 1])) continue
        await hold(groupBytes(metadata, group, (_, index) => index < READ_COLUMNS))
        const columns = await rowsOfOne(scan, metadata, group, wanted, through)
        if (columns === undefined) continue
        const { exchange_ts, sequence_id, epoch, position } = columns
        const placed = (value: number): number | null => (Number.isNaN(value) ? null : value)
        for (let row = 0; row < exchange_ts.length; row++) {
          found.push({
            exchange_ts: exchange_ts[row]!,
            sequence_id: sequence_id[row]!,
            epoch: placed(epoch[row]!),
            position: placed(position[row]!),
            object,
            columns,
            row
          })
        }
        if (found.length > rows * 2) cut()
      }
    })
  }
  cut()
  return { columns: storedColumns.gather(found.sort(compareTicks)), through }
}

/** A quote among those that were found. */
interface FoundQuote<Columns> extends RowRef<Columns> {
  readonly token: number
  readonly ts: number
  readonly received_ts: number
  readonly source: Source
}

const isSameInstant = (a: FoundQuote<unknown>, b: FoundQuote<unknown>): boolean => a.ts === b.ts && a.token === b.token

/** Some instruments' rows of a row group in [from, to). */
const quotesOfGroup = async <Columns extends OiColumns>(
  kept: typeof quoteColumns | typeof oiColumns,
  scan: ParquetScan,
  metadata: FileMetaData,
  group: number,
  { fromToken, toToken, tokens, from }: QuotesWanted,
  to: number
): Promise<Columns | undefined> => {
  const [groupStart, groupEnd] = groupRange(metadata, group)
  const range = { rowStart: groupStart, rowEnd: groupEnd }
  const all = (await scan.readColumn({ column: "instrument_token", ...range })) as ArrayLike<number>
  let first = lowerBound(all, fromToken)
  let end = lowerBound(all, toToken + 1)
  if (first === end) return undefined
  if (fromToken === toToken) {
    // Of one instrument the times ascend.
    const times = (await columnsOf(scan, groupStart, first, end, [])("exchange_ts")) as ArrayLike<number>
    end = first + lowerBound(times, to)
    first += lowerBound(times, from)
    if (first >= end) return undefined
  }
  const read = columnsOf(scan, groupStart, first, end, [])
  const times = (await read("exchange_ts")) as ArrayLike<number>
  const wanted: Array<number> = []
  for (let row = 0; row < end - first; row++) {
    if (times[row]! < from || times[row]! >= to) continue
    if (tokens === undefined || tokens.has(all[first + row]!)) wanted.push(row)
  }
  if (wanted.length === 0) return undefined
  return (await kept.read(read, presentIn(metadata), Uint32Array.from(wanted))) as unknown as Columns
}

const quotesOf = async <Columns extends OiColumns>(
  kept: typeof quoteColumns | typeof oiColumns,
  wanted: QuotesWanted
): Promise<QuotesFound<Columns>> => {
  const { objects, from, to, rows } = wanted
  let through = to
  let found: Array<FoundQuote<Columns>> = []
  /** One row an instant and raw topic; no more instants than it takes for `rows`. */
  const cut = (): void => {
    found.sort(
      (a, b) =>
        a.ts - b.ts ||
        a.token - b.token ||
        (a.source[0] < b.source[0] ? -1 : a.source[0] > b.source[0] ? 1 : 0) ||
        a.source[1] - b.source[1] ||
        a.source[2] - b.source[2]
    )
    found = found.filter((quote, i) => {
      const next = found[i + 1]
      return next === undefined || !isSameInstant(quote, next) || quote.source[0] !== next.source[0]
    })
    if (found.length <= rows) return
    through = found[rows - 1]!.ts + 1
    found = found.filter(({ ts }) => ts < through)
  }
  for (const { source, groups } of objects) {
    await withObject(source, async ({ buffer, hold }, metadata) => {
      const scan = await parquetScan({ file: buffer, metadata, parsers })
      for (const group of groups) {
        const keys = groupKeys(metadata, group)
        if (!overlaps(keys.tokens, [wanted.fromToken, wanted.toToken]) || !overlaps(keys.times, [from, through - 1]))
          continue
        await hold(groupBytes(metadata, group, (column) => kept.names.has(column)))
        await pause()
        const columns = await quotesOfGroup<Columns>(kept, scan, metadata, group, wanted, through)
        if (columns === undefined) continue
        const { instrument_token, exchange_ts, received_ts, source_incarnation, source_offset, source_index } = columns
        for (let row = 0; row < exchange_ts.length; row++) {
          // A later one of the same instant that does not say it takes nothing away.
          if (kept === oiColumns && Number.isNaN(columns.oi[row]!)) continue
          found.push({
            token: instrument_token[row]!,
            ts: exchange_ts[row]!,
            received_ts: received_ts[row]!,
            source: [
              source_incarnation.names[source_incarnation.indexes[row]!]!,
              source_offset[row]!,
              source_index[row]!
            ],
            columns,
            row
          })
        }
        if (found.length > rows * 2) cut()
      }
    })
  }
  cut()
  const latest: Array<FoundQuote<Columns>> = []
  for (const quote of found) {
    const other = latest.at(-1)
    if (other === undefined || !isSameInstant(other, quote)) latest.push(quote)
    else if (countsOver(quote, other)) latest[latest.length - 1] = quote
  }
  return { columns: kept.gather(latest as never) as unknown as Columns, through }
}

const answer = (request: Request): Answers[keyof Answers] | Promise<Answers[keyof Answers]> => {
  switch (request.kind) {
    case "encode":
      return encode(request)
    case "join":
      return join(request)
    case "check":
      return check(request.holds, request.source)
    case "footer":
      return footer(request.source)
    case "survey":
      return survey(request)
    case "begin":
      return begin(request.part)
    case "rows":
      return rowsOf(request.source, request.group, request.reader)
    case "tally":
      return tally(request.source, request.group, request.reader)
    case "ticks":
      return ticksOf(request)
    case "quotes":
      return quotesOf<QuoteColumns>(quoteColumns, request)
    case "oi":
      return quotesOf<OiColumns>(oiColumns, request)
    case "end":
      readers.delete(request.reader)
      return null
  }
}

const buffersOf = (columns: StoredColumns | OiColumns | QuoteColumns): Array<ArrayBuffer> =>
  Object.values<StoredColumns[keyof StoredColumns]>({ ...columns }).map((column) =>
    "indexes" in column ? column.indexes.buffer : column.buffer
  )

const transfers = (answered: Answers[keyof Answers]): Array<ArrayBuffer> => {
  if (answered === null || typeof answered === "number") return []
  if ("names" in answered) return [answered.bytes.buffer]
  if ("leftOut" in answered) return answered.bytes === null ? [] : [answered.bytes.buffer]
  if ("counts" in answered) return [answered.tokens.buffer, answered.counts.buffer]
  if ("times" in answered) return [answered.tokens.buffer, answered.times.buffer, answered.rows.buffer]
  return buffersOf("through" in answered ? answered.columns : answered)
}

port.on("message", (asked: Asked) => {
  if ("need" in asked) {
    const bytes = needed.get(asked.need)
    needed.delete(asked.need)
    if ("bytes" in asked) bytes?.resolve(asked.bytes)
    else bytes?.reject(new NeedError(asked.failure, asked.isGone))
    return
  }
  const { id, request } = asked
  const done = async () => {
    try {
      const answered = await answer(request)
      port.postMessage({ id, answer: answered } satisfies Answered, transfers(answered))
    } catch (error) {
      const failure = error instanceof Error ? error.message : String(error)
      const object = error instanceof ObjectError ? error.object : undefined
      port.postMessage({ id, failure, ...(object === undefined ? {} : { object }) } satisfies Answered)
    }
  }
  void done()
})
