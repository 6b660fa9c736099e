/** Decides how a file of ticks, CSV or NDJSON, becomes raw ticks: which column is which field, and what a bad row does. */
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { basename } from "node:path"
import type { Readable } from "node:stream"
import { createGunzip } from "node:zlib"
import { Clock, Effect } from "effect"
import { FeedError, type LogError, type Overloaded } from "../../schema/Errors.ts"
import { showValue } from "../../schema/Explain.ts"
import { splitCsvLine } from "../../schema/InstrumentFile.ts"
import { isNaive, type Zone } from "../../schema/NaiveTime.ts"
import { encodeRawTick, type RawTick, rawFields, readRawTick } from "../../schema/RawTick.ts"
import { isTime, MIN_MICROS, parseIso, timeHint } from "../../schema/Time.ts"
import { publishPatiently, RawSink, type RawSinkTick } from "../../streams/ports/RawSink.ts"
import { type BarInterval, barProblem, barTicks, type FileBar } from "./barTicks.ts"
import { ahead } from "./RawSink.ts"

type Reading = "number" | "time" | "text" | "flag"

/** How a field's text is read, by its kind. */
const readings: Readonly<Record<(typeof rawFields)[keyof typeof rawFields]["kind"], Reading>> = {
  token: "number",
  time: "time",
  price: "number",
  name: "text",
  quantity: "number",
  number: "number",
  sequencing: "text",
  flag: "flag"
}

const { session: _, ...ofFeeds } = rawFields
type OfFeeds = typeof ofFeeds

const kinds = {
  ...(Object.fromEntries(Object.entries(ofFeeds).map(([name, { kind }]) => [name, readings[kind]])) as {
    readonly [N in keyof OfFeeds]: Reading
  }),
  open: "number",
  high: "number",
  low: "number",
  close: "number"
} as const
export type FileField = keyof typeof kinds
export const fileFields = Object.keys(kinds) as ReadonlyArray<FileField>

const PRICES = ["open", "high", "low", "close"] as const
/** Fields of a file of bars. What numbers a tick is not among them: each bar becomes four. */
const BAR_FIELDS: ReadonlyArray<FileField> = [
  "instrument_token",
  "exchange_ts",
  ...PRICES,
  "volume",
  "feed",
  "connection"
]
const TICK_FIELDS = fileFields.filter((field) => !(PRICES as ReadonlyArray<FileField>).includes(field))
const fieldsOf = (options: RowOptions): ReadonlyArray<FileField> =>
  options.bars === undefined ? TICK_FIELDS : BAR_FIELDS
const requiredOf = (options: RowOptions): ReadonlyArray<FileField> =>
  options.bars === undefined
    ? ["instrument_token", "exchange_ts", "price"]
    : ["instrument_token", "exchange_ts", ...PRICES]

export const isFileField = (name: string): name is FileField => Object.hasOwn(kinds, name)

export interface RowOptions {
  readonly format: "csv" | "ndjson"
  readonly hasHeader: boolean
  /** Where a field stands: a column's name, or its number from 1; in NDJSON a key. */
  readonly map: ReadonlyMap<FileField, string>
  /** Fields that are the same in every row, as text. */
  readonly set: ReadonlyMap<FileField, string>
  /** What naive times are meant in; without one they are refused. */
  readonly zone: Zone | undefined
  /** Rows are bars of this interval, `exchange_ts` their start; without it they are ticks. */
  readonly bars?: BarInterval
}

export interface FileFeedOptions extends RowOptions {
  /** A path, or `-` for standard input. */
  readonly file: string
  readonly onError: "fail" | "skip"
  /** Called with each row skipped, in words. */
  readonly onSkip?: (reason: string) => void
  /**
   * How far ahead of this machine's clock a row may be, in milliseconds: where nobody answers each tick, one that is
   * further would only be found in the DLQ. Without it that is for the sink to say.
   */
  readonly maxAheadMs?: number
  /** How many ticks the sink took from here and did not let in, so far; they count as skipped. */
  readonly refused?: () => number
  /** Called once a second, and last with `isFinal`, however it ended. */
  readonly progress?: (progress: FileProgress, isFinal: boolean) => void
}

export interface FileProgress {
  readonly bytes: number
  /** The file's size; `undefined` for standard input and pipes. */
  readonly totalBytes: number | undefined
  readonly rows: number
  readonly sent: number
  readonly skipped: number
}

/** The longest line taken. */
export const MAX_LINE_CHARS = 1024 * 1024
/** Contents remembered to tell the same content met again: the newest this many for sure, twice as many at most. */
export const MIN_CONTENTS = 131_072
/** Ticks published at a time. */
const BATCH_TICKS = 5000
const READ_BYTES = 256 * 1024
/** What of a file names its connection. */
const NAMED_BY_BYTES = 64 * 1024
const MAX_CONNECTION_CHARS = 64
/** Of the columns that there are, named where one is missing. */
const MAX_NAMES_CHARS = 500

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/
const DIGITS = /^\d+$/
const WANTED_TIME = "expected epoch microseconds or ISO-8601 with an offset"

const microsOf = (micros: number): number | string => {
  if (isTime(micros)) return micros
  return `${WANTED_TIME}, got ${micros}${timeHint(micros)}`
}

/** A time in epoch microseconds; a sentence where it is none. */
const timeOf = (value: unknown, zone: Zone | undefined): number | string => {
  if (typeof value === "number") return microsOf(value)
  if (typeof value !== "string") return `${WANTED_TIME}, got ${showValue(value)}`
  if (DIGITS.test(value)) return microsOf(Number(value))
  if (isNaive(value)) {
    if (zone === undefined) return `${WANTED_TIME}, or --tz for times without one, got ${showValue(value)}`
    const parsed = zone.parse(value)
    return typeof parsed === "number" ? parsed : `${parsed}, got ${showValue(value)}`
  }
  return parseIso(value) ?? `${WANTED_TIME}, got ${showValue(value)}`
}

/** A field of a CSV row or of `--set` as the value that JSON would have; what does not fit stays text, to be refused. */
const typed = (field: FileField, text: string): unknown => {
  const kind = kinds[field]
  if (kind === "number") return NUMBER.test(text) ? Number(text) : text
  if (kind === "flag") return text === "true" ? true : text === "false" ? false : text
  return text
}

/** What is wrong with `--map` and `--set` before any row is read; undefined where nothing is. */
export const checkRowOptions = (options: RowOptions): string | undefined => {
  const { format, hasHeader, map, set, zone } = options
  for (const field of [...map.keys(), ...set.keys()]) {
    if (fieldsOf(options).includes(field)) continue
    return options.bars === undefined
      ? `${field} is of bars: --bars says that the rows are some`
      : `${field} is none of a bar's fields, which are ${BAR_FIELDS.join(", ")}`
  }
  for (const [field, column] of map) {
    if (set.has(field)) return `${field} is both mapped and set`
    if (format === "csv" && !hasHeader && !/^[1-9]\d{0,5}$/.test(column)) {
      return `${field}=${column}: without a header a column goes by its number from 1`
    }
  }
  if (set.has("volume") && set.has("day_volume")) return "volume and day_volume are both set"
  for (const field of PRICES) {
    const text = set.get(field)
    if (text !== undefined && typeof typed(field, text) !== "number") {
      return `${field}: expected number, got ${showValue(text)}`
    }
  }
  const sample: Record<string, unknown> = { instrument_token: 1, exchange_ts: MIN_MICROS, price: 1 }
  for (const [field, text] of set) {
    if (kinds[field] === "time") {
      const time = timeOf(text, zone)
      if (typeof time === "string") return `${field}: ${time}`
      sample[field] = time
    } else {
      sample[field] = typed(field, text)
    }
  }
  // A number may come from a column, so a missing one is not yet wrong.
  if (set.has("sequencing") && !set.has("sequence_id")) sample.sequence_id = 0
  const read = readRawTick(sample)
  if (typeof read === "string") return read
  if (format === "csv" && !hasHeader) {
    const missing = requiredOf(options).find((field) => !map.has(field) && !set.has(field))
    if (missing !== undefined) return `${missing} is neither mapped nor set, and there is no header to find it by`
  }
  return undefined
}

/**
 * Counts how often the very same content was met: 0 the first time. Remembers a bounded number of contents, in two
 * generations: taking the oldest out of one map, row after row, would be far slower.
 */
export class Occurrences {
  #young = new Map<string, number>()
  #old = new Map<string, number>()

  next(tick: RawTick): number {
    const quantity = tick.day_volume >= 0 ? `d${tick.day_volume}` : `v${tick.volume}`
    const content = `${tick.instrument_token} ${tick.exchange_ts} ${tick.price} ${quantity}`
    const before = this.#young.get(content) ?? this.#old.get(content)
    const count = before === undefined ? 0 : before + 1
    this.#young.set(content, count)
    if (this.#young.size >= MIN_CONTENTS) {
      this.#old = this.#young
      this.#young = new Map()
    }
    return count
  }
}

/** The names of columns as far as they fit in a line. */
const showNames = (names: ReadonlyArray<string>): string => {
  const all = names.join(", ")
  return all.length > MAX_NAMES_CHARS ? `${all.slice(0, MAX_NAMES_CHARS)}…` : all
}

/** A row that is no tick. */
export class BadRow {
  readonly reason: string
  /** The field that it should have been; empty where the line as a whole is wrong. */
  readonly field: string
  /** From 1; 0 where it is not known. */
  readonly column: number

  constructor(reason: string, field = "", column = 0) {
    this.reason = reason
    this.field = field
    this.column = column
  }
}

/**
 * Reads lines one by one. A row that carries no number of its own gets its `occurrence`, so that the same file gives
 * the same identities however often it is fed.
 */
export class RowReader {
  readonly #options: RowOptions
  readonly #connection: string
  readonly #constants: Record<string, unknown> = {}
  readonly #occurrences = new Occurrences()
  readonly #connections = new Map<string, string>()
  #columns: ReadonlyArray<readonly [FileField, number]> | undefined
  /** Fields that a row of a file with a header must have; 0: any number. */
  #width = 0

  /** `connection` names this file run, before the feed's name. */
  constructor(options: RowOptions, connection: string) {
    this.#options = options
    this.#connection = connection
    for (const [field, text] of options.set) this.#constants[field] = typed(field, text)
    if (options.format === "csv" && !options.hasHeader) {
      this.#columns = [...options.map].map(([field, column]) => [field, Number(column) - 1] as const)
    }
  }

  /** The ticks of a line; undefined for a blank line and for the header; or what is wrong. */
  read(line: string): ReadonlyArray<RawTick> | BadRow | undefined {
    if (line.trim() === "") return undefined
    if (this.#options.format === "ndjson") return this.#finish(this.#object(line))
    if (this.#columns === undefined) return this.#header(line)
    return this.#finish(this.#row(line, this.#columns))
  }

  /** Whether a line that could not be read leaves nothing to read the others by. */
  get needsHeader(): boolean {
    return this.#options.format === "csv" && this.#columns === undefined
  }

  #header(line: string): BadRow | undefined {
    const names = splitCsvLine(line)?.map((name) => name.trim())
    if (names === undefined) return new BadRow("a quote is not closed, or text follows a closing quote")
    const columns: Array<readonly [FileField, number]> = []
    for (const field of fieldsOf(this.#options)) {
      if (this.#options.set.has(field)) continue
      const wanted = this.#options.map.get(field)
      let at = names.indexOf(wanted ?? field)
      if (at < 0 && wanted !== undefined && DIGITS.test(wanted)) {
        const number = Number(wanted)
        if (number >= 1 && number <= names.length) at = number - 1
      }
      if (at >= 0) columns.push([field, at])
      else if (wanted !== undefined)
        return new BadRow(`no column ${showValue(wanted)} for it, there are ${showNames(names)}`, field)
      else if (requiredOf(this.#options).includes(field))
        return new BadRow(`no column of that name (--map ${field}=COLUMN), there are ${showNames(names)}`, field)
    }
    // A column named by its number is found in any line, so also in one that is data.
    if (!(this.#finish(this.#row(line, columns)) instanceof BadRow)) {
      return new BadRow("it reads as a tick, not as the names of columns: --no-header takes it as one")
    }
    this.#columns = columns
    this.#width = names.length
    return undefined
  }

  #row(line: string, columns: ReadonlyArray<readonly [FileField, number]>): Record<string, unknown> | BadRow {
    const fields = splitCsvLine(line)
    if (fields === undefined) return new BadRow("a quote is not closed, or text follows a closing quote")
    if (this.#width > 0 && fields.length !== this.#width) {
      return new BadRow(`expected ${this.#width} fields, got ${fields.length}`)
    }
    const row: Record<string, unknown> = { ...this.#constants }
    for (const [field, at] of columns) {
      const text = fields[at]?.trim()
      if (text === undefined) return new BadRow(`the row has only ${fields.length} fields`, field, at + 1)
      if (text !== "") row[field] = typed(field, text)
    }
    return row
  }

  #object(line: string): Record<string, unknown> | BadRow {
    let parsed: unknown
    try {
      parsed = JSON.parse(line)
    } catch (error) {
      // The parser quotes the line's beginning; the column says more.
      const what = (error as Error).message.replace(/(, (\.\.\.)?".*| in JSON at position .*| \(line .*)$/s, "")
      return new BadRow(`not JSON: ${what}`, "", brokenAt(line))
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
      return new BadRow(`expected a JSON object, got ${showValue(parsed)}`)
    }
    const given = parsed as Record<string, unknown>
    for (const [field, key] of this.#options.map) {
      const value = given[key]
      if (value === undefined) delete given[field]
      else given[field] = value
    }
    return Object.assign(given, this.#constants)
  }

  #finish(given: Record<string, unknown> | BadRow): ReadonlyArray<RawTick> | BadRow {
    if (given instanceof BadRow) return given
    for (const field of ["exchange_ts", "received_ts"] as const) {
      if (given[field] === undefined) continue
      const time = timeOf(given[field], this.#options.zone)
      if (typeof time === "string") return new BadRow(time, field, this.#columnOf(field))
      given[field] = time
    }
    if (this.#options.bars !== undefined) return this.#bar(given, this.#options.bars)
    const tick = this.#tick(given)
    return tick instanceof BadRow ? tick : [tick]
  }

  #bar(given: Record<string, unknown>, interval: BarInterval): ReadonlyArray<RawTick> | BadRow {
    for (const field of ["exchange_ts", ...PRICES] as const) {
      const value = given[field]
      if (typeof value === "number") continue
      return new BadRow(`expected number, got ${showValue(value)}`, field, this.#columnOf(field))
    }
    const { close, connection, exchange_ts, feed, high, instrument_token, low, open, volume = 0 } = given
    if (typeof volume !== "number" || !Number.isSafeInteger(volume) || volume < 0) {
      return new BadRow(`expected a whole number from 0, got ${showValue(volume)}`, "volume", this.#columnOf("volume"))
    }
    const bar = { exchange_ts, open, high, low, close, volume } as FileBar
    const problem = barProblem(bar, interval)
    if (problem !== undefined) return new BadRow(problem.reason, problem.field, this.#columnOf(problem.field))
    const ticks: Array<RawTick> = []
    for (const tick of barTicks(bar, interval)) {
      const read = this.#tick({ instrument_token, feed, connection, ...tick })
      if (read instanceof BadRow) return read
      ticks.push(read)
    }
    return ticks
  }

  #tick(given: Record<string, unknown>): RawTick | BadRow {
    const tick = readRawTick(given)
    if (typeof tick === "string") {
      const field = /^(\w+): /.exec(tick)?.[1] ?? ""
      return isFileField(field)
        ? new BadRow(tick.slice(field.length + 2), field, this.#columnOf(field))
        : new BadRow(tick.replace(/^input: /, ""))
    }
    if (given.connection === undefined) tick.connection = this.#connectionOf(tick.feed)
    if (tick.sequence_id === undefined && given.occurrence === undefined) {
      tick.occurrence = this.#occurrences.next(tick)
    }
    return tick
  }

  #connectionOf(feed: string): string {
    let name = this.#connections.get(feed)
    if (name === undefined) {
      if (this.#connections.size >= 1024) this.#connections.clear()
      name = `${this.#connection}-${feed}`.slice(0, MAX_CONNECTION_CHARS)
      this.#connections.set(feed, name)
    }
    return name
  }

  #columnOf(field: FileField): number {
    const column = this.#columns?.find(([name]) => name === field)
    return column === undefined ? 0 : column[1] + 1
  }
}

/** Whether JSON text is whole, or could still become so with more text after it. */
const isJsonSoFar = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch (error) {
    const { message } = error as Error
    if (message.startsWith("Unexpected end") || message.startsWith("Unterminated string")) return true
    return /position (\d+)/.exec(message)?.[1] === String(text.length)
  }
}

/** The column, from 1, of the first character that cannot stand where it does: not every parser error tells. */
const brokenAt = (line: string): number => {
  let good = 0
  let broken = line.length + 1
  while (broken - good > 1) {
    const middle = (good + broken) >> 1
    if (isJsonSoFar(line.slice(0, middle))) good = middle
    else broken = middle
  }
  return broken
}

/** Where a row is and what is wrong with it, in one line. */
const describeBad = (name: string, line: number, { column, field, reason }: BadRow): string => {
  const place =
    column === 0 ? (field === "" ? "" : `, ${field}`) : `, column ${column}${field === "" ? "" : ` (${field})`}`
  return `${name} line ${line}${place}: ${reason}`
}

interface FileSource {
  readonly chunks: Readable
  /** Of the file, before it is unzipped; undefined where the chunks are counted instead. */
  readonly bytesRead: (() => number) | undefined
  readonly totalBytes: number | undefined
  /** How it is called in messages. */
  readonly name: string
  /** The same for the same content, so that a reset met again is known to be the same one. */
  readonly connection: string
  readonly close: () => void
}

const openSource = async (file: string): Promise<FileSource> => {
  if (file === "-") {
    return {
      chunks: process.stdin,
      bytesRead: undefined,
      totalBytes: undefined,
      name: "standard input",
      connection: "stdin",
      close: () => process.stdin.destroy()
    }
  }
  const handle = await open(file, "r")
  try {
    return await sourceOf(handle, file)
  } catch (error) {
    await handle.close()
    throw error
  }
}

const sourceOf = async (handle: FileHandle, file: string): Promise<FileSource> => {
  const status = await handle.stat()
  if (status.isDirectory()) throw new Error("it is a folder")
  let connection = "pipe"
  let isZipped = file.endsWith(".gz")
  if (status.isFile()) {
    const head = Buffer.alloc(Math.min(NAMED_BY_BYTES, status.size))
    await handle.read(head, 0, head.byteLength, 0)
    connection = `file-${createHash("sha256").update(head).digest("hex").slice(0, 16)}`
    isZipped = head[0] === 0x1f && head[1] === 0x8b
  }
  const raw = createReadStream(file, {
    fd: handle,
    highWaterMark: READ_BYTES,
    ...(status.isFile() ? { start: 0 } : {})
  })
  let chunks: Readable = raw
  if (isZipped) {
    const unzipped = createGunzip({ chunkSize: READ_BYTES })
    raw.on("error", (error) => unzipped.destroy(error))
    chunks = raw.pipe(unzipped)
  }
  return {
    chunks,
    totalBytes: status.isFile() ? status.size : undefined,
    bytesRead: () => raw.bytesRead,
    name: basename(file),
    connection,
    close: () => {
      raw.destroy()
      chunks.destroy()
    }
  }
}

interface Counts {
  bytes: number
  rows: number
  skipped: number
}

/** Lines of a source with their numbers; `undefined` for a line that is too long. */
async function* linesOf(chunks: Readable, counts: Counts): AsyncGenerator<ReadonlyArray<string | undefined>> {
  const decoder = new TextDecoder("utf-8")
  let rest = ""
  let isSkippingLong = false
  for await (const chunk of chunks) {
    counts.bytes += (chunk as Uint8Array).byteLength
    rest += decoder.decode(chunk as Uint8Array, { stream: true })
    const end = rest.lastIndexOf("\n")
    if (end < 0) {
      if (rest.length > MAX_LINE_CHARS) {
        isSkippingLong = true
        rest = ""
      }
      continue
    }
    const lines: Array<string | undefined> = rest.slice(0, end).split("\n")
    rest = rest.slice(end + 1)
    if (isSkippingLong) lines[0] = undefined
    isSkippingLong = false
    yield lines
  }
  rest += decoder.decode()
  if (rest !== "" || isSkippingLong) yield [isSkippingLong ? undefined : rest]
}

/** Batches of ticks as they are read; what a bad row does is decided here, after the good ones before it. */
async function* batchesOf(
  source: FileSource,
  options: FileFeedOptions,
  counts: Counts,
  nowMicros: () => number
): AsyncGenerator<ReadonlyArray<RawSinkTick>> {
  const reader = new RowReader(options, source.connection)
  const maxAhead = options.maxAheadMs === undefined ? Number.POSITIVE_INFINITY : options.maxAheadMs * 1000
  let number = 0
  let batch: Array<RawSinkTick> = []
  for await (const lines of linesOf(source.chunks, counts)) {
    const now = nowMicros()
    for (const line of lines) {
      number += 1
      const isHeader = reader.needsHeader
      let read =
        line === undefined || line.length > MAX_LINE_CHARS
          ? new BadRow(`longer than ${MAX_LINE_CHARS} characters`)
          : reader.read(line.endsWith("\r") ? line.slice(0, -1) : line)
      if (read === undefined) continue
      if (!(read instanceof BadRow)) {
        const last = read[read.length - 1]!.exchange_ts
        if (last - now > maxAhead) read = new BadRow(ahead((last - now) / 1000, "this machine's clock"), "exchange_ts")
      }
      if (!isHeader) counts.rows += 1
      if (read instanceof BadRow) {
        const reason = describeBad(source.name, number, read)
        if (options.onError === "fail" || isHeader) {
          if (batch.length > 0) yield batch
          throw new FeedError({ message: reason })
        }
        counts.skipped += 1
        options.onSkip?.(reason)
        continue
      }
      for (const tick of read) {
        batch.push({ token: tick.instrument_token, value: Buffer.from(encodeRawTick(tick)) })
      }
      if (batch.length >= BATCH_TICKS) {
        yield batch
        batch = []
      }
    }
    if (batch.length > 0) {
      yield batch
      batch = []
    }
  }
}

const refuse = (file: string, error: unknown): FeedError =>
  error instanceof FeedError
    ? error
    : new FeedError({ message: `cannot read ${file}: ${error instanceof Error ? error.message : String(error)}` })

/**
 * Feeds a file into the sink, in order, at the sink's pace: one batch is read while the one before it is published,
 * and no more. Interrupted, it ends after the batch under way.
 */
export const run = (
  options: FileFeedOptions
): Effect.Effect<FileProgress, LogError | Overloaded | FeedError, RawSink> =>
  Effect.acquireUseRelease(
    Effect.tryPromise({ try: () => openSource(options.file), catch: (error) => refuse(options.file, error) }),
    (source) => {
      const counts: Counts = { bytes: 0, rows: 0, skipped: 0 }
      let sent = 0
      const refused = options.refused ?? (() => 0)
      const progress = (): FileProgress => ({
        bytes: source.bytesRead?.() ?? counts.bytes,
        totalBytes: source.totalBytes,
        rows: counts.rows,
        sent: sent - refused(),
        skipped: counts.skipped + refused()
      })
      return Effect.gen(function* () {
        const sink = yield* RawSink
        const clock = yield* Clock.Clock
        const batches = batchesOf(source, options, counts, () => clock.currentTimeMillisUnsafe() * 1000)
        const read = () => {
          const next = batches.next()
          // A failure is met when this batch is awaited, which may be a while from now.
          next.catch(() => undefined)
          return next
        }
        let next = read()
        let reportAt = (yield* Clock.currentTimeMillis) + 1000
        for (;;) {
          const { done, value } = yield* Effect.tryPromise({
            try: () => next,
            catch: (error) => refuse(options.file, error)
          })
          if (done === true) break
          next = read()
          // Counted with it: what is sent while a stop comes is in the log.
          yield* Effect.uninterruptible(
            Effect.map(publishPatiently(sink, value), () => {
              sent += value.length
            })
          )
          const now = yield* Clock.currentTimeMillis
          if (now >= reportAt) {
            reportAt = now + 1000
            options.progress?.(progress(), false)
          }
        }
        const over = progress()
        if (over.sent === 0) {
          const what = over.rows === 0 ? "it has no rows" : `none of its ${over.rows} rows is a tick that was taken`
          return yield* new FeedError({ message: `nothing of ${source.name} went in: ${what}` })
        }
        return over
      }).pipe(Effect.onExit(() => Effect.sync(() => options.progress?.(progress(), true))))
    },
    (source) => Effect.sync(source.close)
  )
