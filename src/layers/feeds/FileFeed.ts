/**
 * Decides how a file of ticks, quotes or bars is fed: what is looked at before anything is sent, what a bad row does, and at
 * which pace rows go out.
 */
import { Clock, Effect } from "effect"
import { FeedError, type LogError, type Overloaded } from "../../schema/Errors.ts"
import { encodeRawRecord, type RawRecord } from "../../schema/RawTick.ts"
import type { DateOrder } from "../../schema/WrittenTime.ts"
import { publishPatiently, RawSink, type RawSinkTick } from "../../streams/ports/RawSink.ts"
import type { RowOptions } from "./fileFields.ts"
import { BadRow, BarStarts, Known, Occurrences, RowReader, type Seen, Wanted } from "./fileRows.ts"
import { type FileSource, linesOf, MAX_LINE_CHARS, openSource } from "./fileSource.ts"
import type { OfDays } from "./instrumentAnswers.ts"
import { LastRows } from "./LastRows.ts"
import { ahead } from "./RawSink.ts"

/**
 * What an instance knows of instruments on a trading day (since 1970): the token of a symbol, or why there is none; a
 * token's tick size, 0 for none.
 */
export interface InstrumentAnswers {
  readonly token: (symbol: string, day: number) => Promise<OfDays<number | string>>
  /** Without it, only `tickSize` holds prices to a grid. */
  readonly tickSize?: (token: number, day: number) => Promise<OfDays<number>>
}

export interface FileFeedOptions extends RowOptions {
  /** A path, or `-` for standard input. */
  readonly file: string
  /** A bad row keeps the whole file out, as far as it can be read twice; or is skipped. */
  readonly onError: "fail" | "skip"
  /** Called with each row skipped, in words. */
  readonly onSkip?: (reason: string) => void
  /** Called with each thing that was seen in the file and not told by a flag. */
  readonly onSeen?: (what: string) => void
  readonly instruments?: InstrumentAnswers | undefined
  /**
   * How far ahead of this machine's clock a row may be, in milliseconds: where nobody answers each tick, one that is
   * further would only be found in the DLQ. Without it that is for the sink to say.
   */
  readonly maxAheadMs?: number
  /** How many records the sink took from here and did not let in, so far; they count as skipped. */
  readonly refused?: () => number
  /** Called once a second, and last with `isFinal`, however it ended. */
  readonly progress?: (progress: FileProgress, isFinal: boolean) => void
}

export interface FileProgress {
  readonly bytes: number
  /** The file's size; `undefined` for standard input and pipes. */
  readonly totalBytes: number | undefined
  /** Rows are looked at, and nothing is sent yet. */
  readonly isChecking: boolean
  readonly rows: number
  /** Records, of which `quotes` have a quote: beside a tick, or alone. */
  readonly sent: number
  readonly quotes: number
  readonly skipped: number
  /** Rows that are bad, by what is wrong with them. */
  readonly reasons: ReadonlyMap<string, number>
}

/** Records published at a time. */
const BATCH_RECORDS = 5000
/** Lines that are looked at to see what separates columns. */
const LOOKED_AT = 20
/** Reasons that are counted apart; further ones are one. */
const MAX_REASONS = 50
const OTHER_REASONS = "other reasons"
/** Reasons that a message has; of the others, how many there are. */
export const MAX_TOLD_REASONS = 20
/** Columns that a message names. */
const MAX_TOLD_COLUMNS = 40

/** Where a row is and what is wrong with it, in one line. */
const describeBad = (name: string, line: number, bad: BadRow): string => {
  const { column, field, reason } = bad
  const place =
    column === 0 ? (field === "" ? "" : `, ${field}`) : `, column ${column}${field === "" ? "" : ` (${field})`}`
  return `${name} line ${line}${place}: ${reason}`
}

/** Bad rows by what is wrong with them, whatever their values are. */
class Reasons {
  readonly counts = new Map<string, number>()
  total = 0

  add({ field, reason }: BadRow): void {
    const what = reason.replace(/(, got | \().*$/s, "").replace(/ on \d{4}-\d{2}-\d{2}(?=,|$)/, "")
    const key = field === "" ? what : `${field}: ${what}`
    const isNew = !this.counts.has(key) && this.counts.size >= MAX_REASONS
    const counted = isNew ? OTHER_REASONS : key
    this.counts.set(counted, (this.counts.get(counted) ?? 0) + 1)
    this.total += 1
  }
}

/** Reasons with how often each was met, the most first. */
export const describeReasons = (counts: ReadonlyMap<string, number>): string => {
  const all = [...counts].sort(([, a], [, b]) => b - a)
  const told = all.slice(0, MAX_TOLD_REASONS).map(([reason, count]) => `${count} × ${reason}`)
  const more = all.length - told.length
  return more > 0 ? `${told.join("; ")}; and ${more} more` : told.join("; ")
}

interface Counts {
  bytes: number
  rows: number
  isChecking: boolean
  /** Quotes that stand behind a newer one of their instrument's day. */
  outdated: number
}

interface Row {
  /** From 1. */
  readonly line: number
  readonly isHeader: boolean
  /** Its date is the first that has only one order. */
  readonly isDeciding: boolean
  readonly read: ReadonlyArray<RawRecord> | BadRow
}

/** Some rows of one part, in order. */
interface Rows {
  readonly name: string
  readonly rows: ReadonlyArray<Row>
  readonly reader: RowReader
}

interface Reading {
  readonly options: FileFeedOptions
  readonly known: Known
  readonly occurrences: Occurrences
  readonly counts: Counts
  readonly nowMicros: () => number
}

const ask = async (wanted: Wanted, { known, options: { instruments } }: Reading): Promise<void> => {
  const { day, symbol, token } = wanted
  const always = { from: -Infinity, through: Infinity }
  if (symbol !== undefined) {
    const none = "no instance is asked for tokens (--tokens SYMBOL=TOKEN)"
    known.setToken(symbol, day, (await instruments?.token(symbol, day)) ?? { is: none, ...always })
  } else {
    known.setSize(token, day, (await instruments?.tickSize?.(token, day)) ?? { is: 0, ...always })
  }
}

/** All rows of a source, as they are read, a piece at a time. */
async function* rowsOf(
  source: FileSource,
  reading: Reading,
  dates: DateOrder | undefined,
  isChecking: boolean
): AsyncGenerator<Rows> {
  const { counts, known, occurrences, options } = reading
  const maxAhead = options.maxAheadMs === undefined ? Number.POSITIVE_INFINITY : options.maxAheadMs * 1000
  const asked = dates === undefined ? options : { ...options, dates }
  const starts = options.bars === undefined ? undefined : new BarStarts(options.bars)
  const last = new LastRows()
  counts.bytes = 0
  counts.rows = 0
  counts.isChecking = isChecking
  for await (const part of source.parts()) {
    const reader = new RowReader(asked, source.connection, part.name, { known, occurrences, last, starts, isChecking })
    let line = 0
    for await (const lines of linesOf(part.chunks, (bytes) => (counts.bytes += bytes))) {
      const now = reading.nowMicros()
      if (reader.needsDelimiter) {
        reader.look(
          lines.flatMap((text) => (text === undefined || text.trim() === "" ? [] : [text.trim()])).slice(0, LOOKED_AT)
        )
      }
      const rows: Array<Row> = []
      for (const whole of lines) {
        line += 1
        const isHeader = reader.needsHeader
        const isUndecided = reader.order === undefined
        let read: ReturnType<RowReader["read"]>
        if (whole === undefined || whole.length > MAX_LINE_CHARS) {
          read = new BadRow(`longer than ${MAX_LINE_CHARS} characters`)
        } else {
          const text = whole.endsWith("\r") ? whole.slice(0, -1) : whole
          read = reader.read(text)
          while (read instanceof Wanted) {
            await ask(read, reading)
            read = reader.read(text)
          }
        }
        if (read === undefined) continue
        if (!(read instanceof BadRow)) {
          const { quote, tick } = read[read.length - 1]!
          const ts = (tick ?? quote!).exchange_ts
          if (ts - now > maxAhead) read = new BadRow(ahead((ts - now) / 1000, "this machine's clock"), "exchange_ts")
        }
        if (!isHeader) counts.rows += 1
        rows.push({ line, isHeader, isDeciding: isUndecided && reader.order !== undefined, read })
      }
      if (rows.length > 0) yield { name: part.name, rows, reader }
    }
  }
  counts.outdated = last.outdated
}

const OTHER_ORDER = new BadRow("expected a date in the order of the rows before", "date")

/** What a file turned out to be before anything of it was sent. */
interface Checked {
  /** The order of its dates, where a row decides it. */
  readonly dates: DateOrder | undefined
  readonly decidedBy: string | undefined
}

/**
 * Reads a file through and sends nothing of it. Where a bad row is to keep it out, all of it is read; where one is
 * skipped, no more than is needed to know the order of its dates.
 */
const check = async (source: FileSource, reading: Reading, order?: DateOrder): Promise<Checked> => {
  const isWhole = reading.options.onError === "fail"
  let first: string | undefined
  let unclear: string | undefined
  let decided: Checked | undefined
  const bad = new Reasons()
  for await (const { name, reader, rows } of rowsOf(source, reading, order, true)) {
    for (const { isDeciding, isHeader, line, read } of rows) {
      const isBad = read instanceof BadRow
      if (isBad && isHeader) throw new FeedError({ message: describeBad(name, line, read) })
      if (isBad && read.isUnclear) unclear ??= describeBad(name, line, read)
      else if (isBad && isWhole) first ??= describeBad(name, line, read)
      if (isBad) bad.add(read)
      if (isDeciding) {
        // Another table of a zip may have another order: then one of the two is wrong.
        if (decided !== undefined && decided.dates !== reader.order) unclear ??= describeBad(name, line, OTHER_ORDER)
        decided ??= { dates: reader.order, decidedBy: `${name} line ${line}` }
      }
      if (!isWhole && (decided !== undefined || (!isBad && unclear === undefined))) break
    }
    if (!isWhole && (decided !== undefined || unclear === undefined)) break
  }
  if (unclear !== undefined && decided !== undefined && order === undefined) {
    // What stood before the row that decides is looked at once more, now that it can be read.
    if (isWhole) await check(source, reading, decided.dates)
    return decided
  }
  const message = isWhole ? (first ?? unclear) : undefined
  if (message !== undefined) {
    const others =
      bad.total === 1 ? "" : `; ${bad.total} of ${reading.counts.rows} rows are bad: ${describeReasons(bad.counts)}`
    throw new FeedError({ message: `${message}${others}; nothing of ${source.name} went in` })
  }
  return { dates: decided?.dates ?? order, decidedBy: decided?.decidedBy }
}

/** What is published at a time, and how many of it have a quote. */
class Batch {
  readonly records: Array<RawSinkTick> = []
  quotes = 0

  add(record: RawRecord): void {
    const token = (record.tick ?? record.quote!).instrument_token
    this.records.push({ token, value: Buffer.from(encodeRawRecord(record)) })
    if (record.quote !== undefined) this.quotes += 1
  }
}

/** Batches of records as they are read; what a bad row does is decided here, after the good ones before it. */
async function* batchesOf(
  source: FileSource,
  reading: Reading,
  reasons: Reasons,
  onSeen: (seen: Seen) => void
): AsyncGenerator<Batch> {
  const { options } = reading
  let dates = options.dates
  if (source.isRepeatable && (options.onError === "fail" || dates === undefined)) {
    const checked = await check(source, reading)
    dates ??= checked.dates
    if (checked.decidedBy !== undefined && checked.dates !== undefined && options.dates === undefined) {
      options.onSeen?.(`dates are read in the order --dates ${checked.dates}: ${checked.decidedBy} has no other`)
    }
  }
  let batch = new Batch()
  let seen: RowReader | undefined
  for await (const { name, reader, rows } of rowsOf(source, reading, dates, false)) {
    for (const { isHeader, line, read } of rows) {
      if (read instanceof BadRow) {
        const reason = describeBad(name, line, read)
        if (options.onError === "fail" || isHeader) {
          if (batch.records.length > 0) yield batch
          throw new FeedError({ message: reason })
        }
        reasons.add(read)
        options.onSkip?.(reason)
        continue
      }
      for (const record of read) batch.add(record)
      if (batch.records.length >= BATCH_RECORDS) {
        yield batch
        batch = new Batch()
      }
    }
    if (seen === undefined) {
      seen = reader
      onSeen(reader.seen)
    }
    if (batch.records.length > 0) {
      yield batch
      batch = new Batch()
    }
  }
}

const DELIMITER_NAMES: Readonly<Record<string, string>> = { ";": "a semicolon", "\t": "a tab", "|": "a pipe" }
const UNIT_WORDS = { s: "seconds", ms: "milliseconds", us: "microseconds", ns: "nanoseconds" } as const

/** What was seen in a file and not told, a sentence each. */
export const describeSeen = ({ delimiter, unit, unused }: Seen): ReadonlyArray<string> => {
  const separated = DELIMITER_NAMES[delimiter ?? ""]
  const shown = unused.slice(0, MAX_TOLD_COLUMNS).join(", ")
  return [
    ...(separated === undefined ? [] : [`columns are separated by ${separated} (--delimiter)`]),
    ...(unit === undefined || unit === "us"
      ? []
      : [`times are epoch ${UNIT_WORDS[unit]} by their size (--unit ${unit})`]),
    ...(unused.length === 0 ? [] : [`columns not used: ${shown}${unused.length > MAX_TOLD_COLUMNS ? ", …" : ""}`])
  ]
}

const refuse = (file: string, error: unknown): FeedError =>
  error instanceof FeedError
    ? error
    : new FeedError({ message: `cannot read ${file}: ${error instanceof Error ? error.message : String(error)}` })

const readingOf = (options: FileFeedOptions, nowMicros: () => number): Reading => ({
  options,
  known: new Known(options.tickSize === undefined && options.instruments?.tickSize !== undefined),
  occurrences: new Occurrences(),
  counts: { bytes: 0, rows: 0, isChecking: false, outdated: 0 },
  nowMicros
})

const opened = (file: string) =>
  Effect.tryPromise({ try: () => openSource(file), catch: (error) => refuse(file, error) })

/** The first rows of a file as they are understood. */
export interface Preview {
  readonly name: string
  readonly seen: Seen
  readonly rows: ReadonlyArray<{ readonly line: number; readonly records: ReadonlyArray<RawRecord> | string }>
}

/** Reads the first rows of a file, and sends nothing: not even a question to an instance. */
export const preview = (options: FileFeedOptions, most: number): Effect.Effect<Preview, FeedError> =>
  Effect.acquireUseRelease(
    opened(options.file),
    (source) =>
      Effect.tryPromise({
        try: async (): Promise<Preview> => {
          const reading = readingOf(
            { ...options, onError: "skip", onSeen: () => undefined },
            () => Number.POSITIVE_INFINITY
          )
          const checked = source.isRepeatable ? await check(source, reading) : undefined
          for await (const { name, reader, rows } of rowsOf(source, reading, options.dates ?? checked?.dates, true)) {
            const shown = rows.slice(0, most).map(({ line, read }) => ({
              line,
              records: read instanceof BadRow ? describeBad(name, line, read) : read
            }))
            return { name, seen: reader.seen, rows: shown }
          }
          throw new FeedError({ message: `${source.name} has no rows` })
        },
        catch: (error) => refuse(options.file, error)
      }),
    (source) => Effect.sync(source.close)
  )

/**
 * Feeds a file into the sink, in order, at the sink's pace: one batch is read while the one before it is published,
 * and no more. Interrupted, it ends after the batch under way.
 */
export const run = (
  options: FileFeedOptions
): Effect.Effect<FileProgress, LogError | Overloaded | FeedError, RawSink> =>
  Effect.acquireUseRelease(
    opened(options.file),
    (source) => {
      const reasons = new Reasons()
      let sent = 0
      let quotes = 0
      const refused = options.refused ?? (() => 0)
      return Effect.gen(function* () {
        const sink = yield* RawSink
        const clock = yield* Clock.Clock
        const reading = readingOf(options, () => clock.currentTimeMillisUnsafe() * 1000)
        const { counts, known } = reading
        const progress = (): FileProgress => ({
          bytes: source.bytesRead?.() ?? counts.bytes,
          totalBytes: source.totalBytes,
          isChecking: counts.isChecking,
          rows: counts.rows,
          sent: sent - refused(),
          quotes,
          skipped: reasons.total + refused(),
          reasons: reasons.counts
        })
        const feeding = Effect.gen(function* () {
          const batches = batchesOf(source, reading, reasons, (seen) => {
            for (const what of describeSeen(seen)) options.onSeen?.(what)
          })
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
              Effect.map(publishPatiently(sink, value.records), () => {
                sent += value.records.length
                quotes += value.quotes
              })
            )
            const now = yield* Clock.currentTimeMillis
            if (now >= reportAt) {
              reportAt = now + 1000
              options.progress?.(progress(), false)
            }
          }
          if (known.rounded > 0) options.onSeen?.(`prices rounded to their tick size: ${known.rounded} (--round)`)
          if (counts.outdated > 0) {
            const what = "quotes behind a newer one of their day, of which only the newest is kept"
            options.onSeen?.(`${what}: ${counts.outdated} (sort the file by time)`)
          }
          const over = progress()
          if (over.sent === 0) {
            const what = over.rows === 0 ? "it has no rows" : `none of its ${over.rows} rows is a tick that was taken`
            return yield* new FeedError({ message: `nothing of ${source.name} went in: ${what}` })
          }
          return over
        })
        return yield* Effect.onExit(feeding, () => Effect.sync(() => options.progress?.(progress(), true)))
      })
    },
    (source) => Effect.sync(source.close)
  )
