/**
 * Decides how Parquet is encoded and decoded, on a thread of its own: both are synchronous and would stop the loop that
 * serves clients for a tenth of a second an object. While one request waits for bytes from afar, others are answered.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs"
import { parentPort } from "node:worker_threads"
import { type AsyncBuffer, type FileMetaData, parquetMetadataAsync, parquetScan } from "hyparquet"
import { ByteWriter, ParquetWriter } from "hyparquet-writer"
import type { StoredColumns, TickColumns } from "../../schema/TickColumns.ts"
import { isInSlice, PrimaryKeys } from "./PrimaryKeys.ts"
import {
  columnData,
  KEY_COLUMNS,
  PARQUET_SCHEMA,
  READ_COLUMNS,
  ROW_GROUP_ROWS,
  readStoredColumns
} from "./parquetSchema.ts"

/** A part of a day's rows whose keys fit in memory: tokens in [fromToken, toToken], and of their keys one in `slices`. */
export interface Part {
  /** The requests of one reader share what they have seen of their part. */
  readonly reader: number
  readonly day: number
  /** Ascending; `undefined`: every token in the range. */
  readonly tokens: Int32Array | undefined
  readonly fromToken: number
  readonly toToken: number
  readonly slice: number
  readonly slices: number
  /** At most so many rows fall into the part. */
  readonly rows: number
}

/** Where the thread finds the bytes of an object: in a file, or with its owner, who reads them from afar. */
export type ObjectSource =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "object"; readonly key: string; readonly size: number }

export type Request =
  | {
      readonly kind: "encode"
      readonly columns: TickColumns
      readonly metadata: Readonly<Record<string, string>>
      /** Objects whose rows are left out of the new one. */
      readonly others: ReadonlyArray<ObjectSource>
    }
  | { readonly kind: "survey"; readonly source: ObjectSource }
  | { readonly kind: "begin"; readonly part: Part }
  | { readonly kind: "rows"; readonly source: ObjectSource; readonly group: number; readonly reader: number }
  | { readonly kind: "end"; readonly reader: number }

export interface Encoded {
  /** Null where no row is left. */
  readonly bytes: Uint8Array<ArrayBuffer> | null
  /** Rows that other objects have. */
  readonly leftOut: number
  /** Of the other objects those that cannot be read, and why. */
  readonly unreadable: ReadonlyArray<string>
}

export interface Survey {
  readonly groups: number
  /** Each token of the object, ascending, with how many rows it has. */
  readonly tokens: Int32Array<ArrayBuffer>
  readonly counts: Int32Array<ArrayBuffer>
}

/** What each request is answered with. */
export interface Answers {
  readonly encode: Encoded
  readonly survey: Survey
  readonly begin: null
  readonly rows: StoredColumns | null
  readonly end: null
}

/** What the thread is sent: a request, or bytes that it needed. */
export type Asked =
  | { readonly id: number; readonly request: Request }
  | { readonly need: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly need: number; readonly failure: string }

/** What the thread sends: an answer, or what it needs for one: the bytes `[from, to)` of an object. */
export type Answered =
  | { readonly id: number; readonly answer: Answers[keyof Answers] }
  | { readonly id: number; readonly failure: string }
  | Need

export interface Need {
  readonly need: number
  readonly key: string
  readonly from: number
  readonly to: number
}

/** The order of rows within an object, and which of them go: one row a primary key, the first published. */
const sortedRows = (columns: TickColumns): Uint32Array => {
  const { instrument_token: token, exchange_ts: ts, sequence_id: id } = columns
  const rows = new Uint32Array(token.length)
  for (let i = 0; i < rows.length; i++) rows[i] = i
  rows.sort((a, b) => token[a]! - token[b]! || ts[a]! - ts[b]! || id[a]! - id[b]! || a - b)
  let kept = 0
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!
    const before = kept === 0 ? -1 : rows[kept - 1]!
    if (before >= 0 && token[row] === token[before] && ts[row] === ts[before] && id[row] === id[before]) continue
    rows[kept] = row
    kept += 1
  }
  return rows.subarray(0, kept)
}

const encodeRows = (
  columns: TickColumns,
  rows: Uint32Array,
  metadata: Readonly<Record<string, string>>
): Uint8Array<ArrayBuffer> => {
  const writer = new ByteWriter(1 << 20)
  const parquet = new ParquetWriter({
    writer,
    schema: PARQUET_SCHEMA,
    createdBy: "market-data-platform",
    kvMetadata: Object.entries(metadata).map(([key, value]) => ({ key, value }))
  })
  for (let start = 0; start < rows.length; start += ROW_GROUP_ROWS) {
    const group = rows.subarray(start, start + ROW_GROUP_ROWS)
    parquet.write({ rowGroupSize: ROW_GROUP_ROWS, columnData: columnData(columns, group) })
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
class NeedError extends Error {}

/** An object that cannot be read; `isPassing` where it may be read another time. */
class ObjectError extends Error {
  readonly isPassing: boolean
  constructor(message: string, isPassing: boolean) {
    super(message)
    this.isPassing = isPassing
  }
}

/** An object's bytes, and a way to say which will be asked for piece by piece. */
interface Opened {
  readonly buffer: AsyncBuffer
  readonly hold: (from: number, to: number) => Promise<void>
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
const openObject = async (key: string, byteLength: number): Promise<Opened> => {
  const end = await need(key, Math.max(0, byteLength - FETCH_BYTES), byteLength)
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
    hold: async (from, to) => {
      if (from >= byteLength - end.length) return
      pieces[1] = { from, bytes: await need(key, from, to) }
    },
    close: () => {}
  }
}

const withObject = async <A>(
  source: ObjectSource,
  use: (opened: Opened, metadata: FileMetaData) => Promise<A>
): Promise<A> => {
  let opened: Opened | undefined
  try {
    opened = source.kind === "file" ? openFile(source.path) : await openObject(source.key, source.size)
    return await use(opened, await parquetMetadataAsync(opened.buffer, { initialFetchSize: FETCH_BYTES, parsers }))
  } catch (error) {
    const named = source.kind === "file" ? source.path : source.key
    const code = error instanceof Error && "code" in error ? error.code : undefined
    const isPassing = error instanceof NeedError || (code !== undefined && code !== "ENOENT")
    throw new ObjectError(`${named}: ${error instanceof Error ? error.message : String(error)}`, isPassing)
  } finally {
    opened?.close()
  }
}

/** Where the bytes of a row group's columns lie, up to `columns` of them: next to each other, in their order. */
const groupBytes = (
  metadata: FileMetaData,
  group: number,
  columns: number
): readonly [from: number, to: number] | undefined => {
  let from = Number.MAX_SAFE_INTEGER
  let to = 0
  for (const { meta_data: column } of metadata.row_groups[group]!.columns.slice(0, columns)) {
    if (column === undefined) return undefined
    const start = Number(column.dictionary_page_offset ?? column.data_page_offset)
    from = Math.min(from, start)
    to = Math.max(to, start + Number(column.total_compressed_size))
  }
  return to > from ? [from, to] : undefined
}

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

const survey = (source: ObjectSource): Promise<Survey> =>
  withObject(source, async ({ buffer }, metadata) => {
    const scan = await parquetScan({ file: buffer, metadata, columns: ["instrument_token"] })
    const tokens: Array<number> = []
    const counts: Array<number> = []
    for (let group = 0; group < metadata.row_groups.length; group++) {
      const [rowStart, rowEnd] = groupRange(metadata, group)
      const column = (await scan.readColumn({ column: "instrument_token", rowStart, rowEnd })) as ArrayLike<number>
      for (let i = 0; i < column.length; i++) {
        const token = column[i]!
        if (tokens[tokens.length - 1] === token) counts[counts.length - 1]! += 1
        else {
          tokens.push(token)
          counts.push(1)
        }
      }
    }
    return { groups: metadata.row_groups.length, tokens: Int32Array.from(tokens), counts: Int32Array.from(counts) }
  })

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
    const name = source.kind === "file" ? source.path : source.key
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
          const bytes = groupBytes(metadata, group, KEY_COLUMNS)
          if (bytes !== undefined) await hold(...bytes)
          const [rowStart, rowEnd] = groupRange(metadata, group)
          const read = (column: string) => scan.readColumn({ column, rowStart, rowEnd })
          const theirTokens = (await read("instrument_token")) as ArrayLike<number>
          const theirTimes = (await read("exchange_ts")) as ArrayLike<number>
          const theirIds = (await read("sequence_id")) as ArrayLike<bigint>
          for (let i = 0; i < theirTokens.length; i++) mark(theirTokens[i]!, theirTimes[i]!, Number(theirIds[i]!))
        }
      })
    } catch (error) {
      // Bytes that do not come are asked for again. One that is gone, or no Parquet, shows nobody a tick.
      if (error instanceof ObjectError && error.isPassing) throw error
      unreadable.push(error instanceof Error ? error.message : String(error))
    }
  }
  return { rows: rows.filter((_, i) => has[i] === 0), unreadable }
}

const encode = async ({ columns, metadata, others }: Request & { readonly kind: "encode" }): Promise<Encoded> => {
  const sorted = sortedRows(columns)
  const { rows, unreadable } =
    others.length === 0 ? { rows: sorted, unreadable: [] } : await withoutThoseOf(columns, sorted, others)
  return {
    bytes: rows.length === 0 ? null : encodeRows(columns, rows, metadata),
    leftOut: sorted.length - rows.length,
    unreadable
  }
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

/** The first index in an ascending column whose value is at least `wanted`. */
const lowerBound = (column: ArrayLike<number>, wanted: number): number => {
  let low = 0
  let high = column.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (column[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}

/** The rows of a row group that fall into the reader's part and whose keys it has not seen yet. */
const rowsOf = (source: ObjectSource, group: number, reader: number): Promise<StoredColumns | null> =>
  withObject(source, async ({ buffer, hold }, metadata) => {
    const reading = readers.get(reader)
    if (reading === undefined) throw new Error(`reader ${reader} has begun no part`)
    const { part, tokens, seen } = reading
    const [lowest, highest] = tokenRange(metadata, group)
    if (lowest > part.toToken || highest < part.fromToken) return null
    const bytes = groupBytes(metadata, group, READ_COLUMNS)
    if (bytes !== undefined) await hold(...bytes)
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
    // The keys are asked for twice: the scan, which has them still, would make another copy.
    const read = async (column: string): Promise<ArrayLike<unknown>> =>
      keys.get(column) ?? (await scan.readColumn({ column, rowStart: groupStart + first, rowEnd: groupStart + end }))
    const keys = new Map<string, ArrayLike<unknown>>()
    const exchangeTs = (await read("exchange_ts")) as ArrayLike<number>
    const sequenceIds = (await read("sequence_id")) as ArrayLike<bigint>
    keys.set("exchange_ts", exchangeTs).set("sequence_id", sequenceIds)
    keys.set("instrument_token", Array.prototype.slice.call(tokenColumn, first, end))
    const kept = new Uint32Array(end - first)
    let count = 0
    for (let i = 0; i < kept.length; i++) {
      const token = tokenColumn[first + i]!
      if (tokens !== undefined && !tokens.has(token)) continue
      const sequenceId = Number(sequenceIds[i]!)
      if (!isInSlice(exchangeTs[i]!, sequenceId, part.slice, part.slices)) continue
      if (!seen.add(token, exchangeTs[i]!, sequenceId)) continue
      kept[count] = i
      count += 1
    }
    if (count === 0) return null
    const present = new Set(metadata.schema.map(({ name }) => name))
    return readStoredColumns(read, (column) => present.has(column), kept.subarray(0, count))
  })

const answer = (request: Request): Answers[keyof Answers] | Promise<Answers[keyof Answers]> => {
  switch (request.kind) {
    case "encode":
      return encode(request)
    case "survey":
      return survey(request.source)
    case "begin":
      return begin(request.part)
    case "rows":
      return rowsOf(request.source, request.group, request.reader)
    case "end":
      readers.delete(request.reader)
      return null
  }
}

const transfers = (answered: Answers[keyof Answers]): Array<ArrayBuffer> => {
  if (answered === null) return []
  if ("leftOut" in answered) return answered.bytes === null ? [] : [answered.bytes.buffer]
  if ("counts" in answered) return [answered.tokens.buffer, answered.counts.buffer]
  return Object.values(answered).map((column) => ("indexes" in column ? column.indexes.buffer : column.buffer))
}

port.on("message", (asked: Asked) => {
  if ("need" in asked) {
    const bytes = needed.get(asked.need)
    needed.delete(asked.need)
    if ("bytes" in asked) bytes?.resolve(asked.bytes)
    else bytes?.reject(new NeedError(asked.failure))
    return
  }
  const { id, request } = asked
  const done = async () => {
    try {
      const answered = await answer(request)
      port.postMessage({ id, answer: answered } satisfies Answered, transfers(answered))
    } catch (error) {
      port.postMessage({ id, failure: error instanceof Error ? error.message : String(error) } satisfies Answered)
    }
  }
  void done()
})
