/**
 * Decides how the archive lives in objects, wherever they are kept (`ObjectStore`):
 * `ticks/date=YYYY-MM-DD/<incarnation>-<partition>-<first>-<last>.parquet`, whole or not at all, and the quotes of the
 * same range under `quotes/`. A manifest, put only where none is and named by the first offset, says first what a range
 * will hold, so that whoever comes after a crash completes that very range.
 *
 * An object's rows are sorted by primary key and hold each once, and a tick has one place in all objects of a day: a
 * writer leaves out what stands in another already, such as one of an earlier incarnation of the topic (docs/decisions/0018), so
 * that whoever reads the files as they lie need not know of any of this. Of objects written before that was so, a reader
 * gives each key once. It goes through a day in parts small enough that
 * the keys it has seen fit in memory (`MAX_KEYS`, 21 bytes each), whatever number of objects hold them.
 *
 * Of an instrument's quotes of one instant the later counts. It may come after another was put, so several objects may
 * hold such a quote, and a reader, who sees all objects at once, gives the one (docs/decisions/0041).
 */
import { createHash } from "node:crypto"
import { Cause, Effect, Option, Schema, type Scope, Stream } from "effect"
import { ArchiveError, RangeTaken } from "../../schema/Errors.ts"
import { pickQuotes, type QuoteColumns } from "../../schema/QuoteColumns.ts"
import { tradingDate, tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import { pickRows, type TickColumns } from "../../schema/TickColumns.ts"
import { dayOfDate } from "../../schema/Time.ts"
import {
  ARCHIVED_KINDS,
  type Archive,
  type ArchivedKind,
  type ArchivedObjects,
  type ArchiveRange
} from "../../streams/ports/Archive.ts"
import { Symbols } from "../../streams/ports/Symbols.ts"
import { crashPoint } from "../../streams/run/crashPoint.ts"
import { archivedBars } from "./archivedBars.ts"
import { archivedQuotes, archivedQuotesByTime, archivedTicks, toQuotes } from "./archivedRows.ts"
import { COVERED_FOR_MS, type CompactionOptions, JOIN_ROWS, makeCompaction } from "./compaction.ts"
import {
  type DayObjects,
  type Days,
  dateFolder,
  groupsMeeting,
  MAX_RETRIES,
  makeDays,
  parseName
} from "./dayObjects.ts"
import type { ObjectSource } from "./objectSource.ts"
import type { ObjectStore } from "./objectStore.ts"
import { MAX_TOKENS } from "./PrimaryKeys.ts"
import { SCHEMA_VERSION, symbolsOf, toStoredTicks } from "./parquetSchema.ts"
import * as ParquetThread from "./parquetThread.ts"
import type { Answers, Part } from "./parquetWorker.ts"

export interface ParquetOptions extends CompactionOptions {
  /** Keys a reader remembers at a time; a day with more rows is read in more turns. */
  readonly maxKeys: number
}

/** 84 MB of keys. */
export const MAX_KEYS = 4_000_000

/** Quotes read at a time, some 20 MB. */
const QUOTES_AT_ONCE = 50_000

/** Rows handed to a reader at a time: building more at once would be felt by whoever shares the loop. */
const ROWS_AT_A_TIME = 4096

/** What an object is handed out in. */
const PIECE_BYTES = 1 << 20

/** Names objects of ticks that came from the store rather than a log. */
const FROM_STORE = "store"

const MAX_TOLD = 1000
const MICROS_PER_DAY = 86_400_000_000

const Manifest = Schema.Struct({
  incarnation: Schema.String,
  partition: Schema.Int,
  first: Schema.Int,
  last: Schema.Int,
  /** Of the objects that make up the range. */
  dates: Schema.Array(Schema.String),
  /** Likewise of those of quotes; not said in one that was begun by a version that knew none. */
  quote_dates: Schema.optionalKey(Schema.Array(Schema.String)),
  schema_version: Schema.Int
})
type Manifest = typeof Manifest.Type
const decodeManifest = Schema.decodeUnknownEffect(Schema.fromJsonString(Manifest))

const INCARNATION = /^[A-Za-z0-9_-]{1,128}$/

/** Parts of a day, in ascending order of tokens: as many tokens as fit, and one that alone does not fit in slices. */
export const partsOf = (
  counts: ReadonlyArray<readonly [token: number, rows: number]>,
  maxKeys: number
): ReadonlyArray<Pick<Part, "fromToken" | "toToken" | "slice" | "slices" | "rows">> => {
  const parts: Array<Pick<Part, "fromToken" | "toToken" | "slice" | "slices" | "rows">> = []
  let open: { fromToken: number; toToken: number; rows: number; tokens: number } | undefined
  const close = (): void => {
    if (open === undefined) return
    const { fromToken, toToken, rows } = open
    parts.push({ fromToken, toToken, rows, slice: 0, slices: 1 })
    open = undefined
  }
  for (const [token, rows] of counts) {
    if (open !== undefined && open.rows + rows <= maxKeys && open.tokens < MAX_TOKENS) {
      open.toToken = token
      open.rows += rows
      open.tokens += 1
      continue
    }
    close()
    if (rows <= maxKeys) {
      open = { fromToken: token, toToken: token, rows, tokens: 1 }
      continue
    }
    // Slices of a hash are never quite equal: twice as many as would fit, each with room for the whole maximum.
    const slices = Math.ceil((rows / maxKeys) * 2)
    for (let slice = 0; slice < slices; slice++) {
      parts.push({ fromToken: token, toToken: token, rows: maxKeys, slice, slices })
    }
  }
  close()
  return parts
}

/** Rows by the date of their trading day. */
const datesOf = <Columns extends { readonly exchange_ts: Float64Array }>(
  columns: Columns,
  pick: (columns: Columns, rows: ReadonlyArray<number>) => Columns
): ReadonlyMap<string, Columns> => {
  const { exchange_ts: times } = columns
  const rows = new Map<number, Array<number>>()
  let lastDay = Number.NaN
  let ofDay: Array<number> = []
  for (let row = 0; row < times.length; row++) {
    const day = tradingDay(times[row]!)
    if (day !== lastDay) {
      ofDay = rows.get(day) ?? []
      rows.set(day, ofDay)
      lastDay = day
    }
    ofDay.push(row)
  }
  return new Map(
    [...rows].map(([day, of]) => [tradingDate(day), of.length === times.length ? columns : pick(columns, of)])
  )
}
const ticksByDate = (ticks: TickColumns) => datesOf(ticks, pickRows)
const quotesByDate = (quotes: QuoteColumns) => datesOf(quotes, pickQuotes)

/** What one object is made of. */
type Content =
  | { readonly holds: "ticks"; readonly columns: TickColumns }
  | { readonly holds: "quotes"; readonly columns: QuoteColumns }

/** Rows of columns, some at a time. */
const inPieces = <Columns extends { readonly exchange_ts: Float64Array }, Row>(
  columns: Columns,
  rows: (columns: Columns, from: number, to: number) => ReadonlyArray<Row>
): Stream.Stream<ReadonlyArray<Row>> => {
  const { length } = columns.exchange_ts
  const starts = Array.from({ length: Math.ceil(length / ROWS_AT_A_TIME) }, (_, i) => i * ROWS_AT_A_TIME)
  return Stream.fromIterable(starts, { chunkSize: 1 }).pipe(
    Stream.map((from) => rows(columns, from, Math.min(length, from + ROWS_AT_A_TIME)))
  )
}

/** The archive on an object store. */
export const make = (
  store: ObjectStore,
  { maxKeys = MAX_KEYS, joinRows = JOIN_ROWS, coveredForMs = COVERED_FOR_MS }: Partial<ParquetOptions> = {}
): Effect.Effect<Archive["Service"], never, Scope.Scope> =>
  Effect.gen(function* () {
    const thread = yield* ParquetThread.make(store.readRange)
    const symbols = yield* Symbols
    const days = makeDays(store, thread, "ticks")
    const quoteDays = makeDays(store, thread, "quotes")
    const daysOf: Readonly<Record<ArchivedKind, Days>> = { ticks: days, quotes: quoteDays }
    const compactions = {
      ticks: makeCompaction(store, thread, days, { joinRows, coveredForMs }),
      quotes: makeCompaction(store, thread, quoteDays, { joinRows, coveredForMs })
    }
    const quotesAtOnce = Math.min(QUOTES_AT_ONCE, maxKeys)
    let readers = 0
    /** Objects that cannot be read, each said once. */
    const told = new Set<string>()

    const manifestKey = (incarnation: string, partition: number, first: number): string =>
      `manifests/${incarnation}-${partition}-${first}.json`

    const checkIncarnation = (operation: string, incarnation: string): Effect.Effect<void, ArchiveError> =>
      INCARNATION.test(incarnation)
        ? Effect.void
        : new ArchiveError({ operation, message: `incarnation: expected letters, digits, - and _, got ${incarnation}` })

    const readManifest = (
      operation: string,
      incarnation: string,
      partition: number,
      first: number
    ): Effect.Effect<Manifest | undefined, ArchiveError> =>
      Effect.gen(function* () {
        const key = manifestKey(incarnation, partition, first)
        const bytes = yield* store.get(key)
        if (bytes === undefined) return undefined
        const manifest = yield* decodeManifest(new TextDecoder().decode(bytes)).pipe(
          Effect.mapError((error) => new ArchiveError({ operation, message: `${key}: ${error.message}` }))
        )
        if (manifest.last >= first) return manifest
        const message = `${key}: last: expected at least ${first}, got ${manifest.last}`
        return yield* new ArchiveError({ operation, message })
      })

    /** Puts the manifest there unless one is; answers the one that is there then. */
    const begin = (
      range: ArchiveRange,
      dates: ReadonlyArray<string>,
      quoteDates: ReadonlyArray<string>
    ): Effect.Effect<{ readonly manifest: Manifest; readonly isNew: boolean }, ArchiveError> =>
      Effect.gen(function* () {
        const { incarnation, partition, first, last } = range
        const mine: Manifest = {
          incarnation,
          partition,
          first,
          last,
          dates,
          quote_dates: quoteDates,
          schema_version: SCHEMA_VERSION
        }
        const text = `${JSON.stringify(mine)}\n`
        const isNew = yield* store.putNew(manifestKey(incarnation, partition, first), new TextEncoder().encode(text))
        if (isNew) return { manifest: mine, isNew }
        const other = yield* readManifest("write", incarnation, partition, first)
        if (other !== undefined) return { manifest: other, isNew }
        return yield* new ArchiveError({ operation: "write", message: "a manifest came and went" })
      })

    /**
     * The objects of a date that may hold ticks of a range under the same keys: those of another incarnation of the topic, as of
     * an embedded log before it was started again, and those of the same partition.
     */
    const othersOf = ({ incarnation, partition }: ArchiveRange, date: string, own: string) =>
      Effect.map(store.list(dateFolder("ticks", date)), (listed) =>
        listed.flatMap(({ name, source }) => {
          const of = parseName(name)
          const isOther =
            of !== undefined && name !== own && (of.incarnation !== incarnation || of.partition === partition)
          return isOther ? [source] : []
        })
      )

    /** Answers how many rows it left out. */
    const writeObject = (
      range: ArchiveRange,
      date: string,
      content: Content,
      isBegun: boolean
    ): Effect.Effect<number, ArchiveError> =>
      Effect.gen(function* () {
        const { incarnation, partition, first, last } = range
        const name = `${incarnation}-${partition}-${first}-${last}.parquet`
        const { holds, columns } = content
        const key = `${dateFolder(holds, date)}${name}`
        const day = dayOfDate(date)!
        // No object is there before its manifest.
        if (isBegun && (yield* store.sizeOf(key)) !== undefined) return 0
        // Rows of ticks are looked for in what took the object's place; quotes would be put again, and passed over.
        if (isBegun && holds === "quotes") {
          const { objects } = yield* quoteDays.of(date)
          if (objects.some(({ footer }) => footer.covers.includes(name))) return 0
        }
        const metadata = {
          topic: "normalized_ticks",
          incarnation,
          partition: String(partition),
          first: String(first),
          last: String(last),
          date,
          schema_version: String(SCHEMA_VERSION)
        }
        const named = symbolsOf(columns.instrument_token, (token) => symbols.of(token, day))
        const asked = { kind: "encode", symbols: named, metadata } as const
        const { bytes, leftOut, unreadable } =
          content.holds === "quotes"
            ? yield* thread.ask({ ...asked, ...content })
            : // What is gone meanwhile has its rows in an object that was not listed yet.
              yield* Effect.flatMap(othersOf(range, date, name), (others) =>
                thread.ask({ ...asked, ...content, others })
              ).pipe(Effect.retry({ while: ({ object }) => object?.is === "gone", times: MAX_RETRIES }))
        // Where another writer of this range was quicker, its object holds the same rows.
        if (bytes !== null) yield* store.putNew(key, bytes)
        daysOf[holds].changed(date)
        compactions[holds].changed(date)
        crashPoint("after-object")
        for (const reason of unreadable) {
          if (told.has(reason)) continue
          if (told.size < MAX_TOLD) told.add(reason)
          yield* Effect.logWarning(`the archive has an object that cannot be read, and takes its ticks anew: ${reason}`)
        }
        return leftOut
      })

    const write: Archive["Service"]["write"] = (range, ticks, quotes) =>
      Effect.gen(function* () {
        yield* checkIncarnation("write", range.incarnation)
        const [byDate, quotesOf] = [ticksByDate(ticks), quotesByDate(quotes)]
        const dates = [...byDate.keys()].sort()
        const quoteDates = [...quotesOf.keys()].sort()
        const { manifest, isNew } = yield* begin(range, dates, quoteDates)
        const said = (of: ReadonlyArray<string>, ofQuotes: ReadonlyArray<string> = quoteDates): string =>
          `[${of.join(", ")}]${ofQuotes.length === 0 ? "" : ` and quotes of [${ofQuotes.join(", ")}]`}`
        const [begunOf, mine] = [said(manifest.dates, manifest.quote_dates), said(dates)]
        if (manifest.last !== range.last || begunOf !== mine) {
          const message =
            `partition ${range.partition} from ${range.first}: the range begun ends at ${manifest.last} and holds ` +
            `${begunOf}, got one that ends at ${range.last} and holds ${mine}`
          if (manifest.last !== range.last) return yield* new RangeTaken({ last: manifest.last, message })
          return yield* new ArchiveError({ operation: "write", message })
        }
        crashPoint("after-manifest")
        yield* symbols.refresh
        let leftOut = 0
        for (const date of dates) {
          leftOut += yield* writeObject(range, date, { holds: "ticks", columns: byDate.get(date)! }, !isNew)
        }
        for (const date of quoteDates) {
          yield* writeObject(range, date, { holds: "quotes", columns: quotesOf.get(date)! }, !isNew)
        }
        return leftOut
      })

    /** Names an object after the rows that it is made of: handed over twice, by two or after a kill, they are put once. */
    const addObject = (date: string, content: Content, keys: ReadonlyArray<ArrayLike<number>>) => {
      const hash = createHash("sha256")
      const rows = content.columns.exchange_ts.length
      for (let i = 0; i < rows; i++) hash.update(`${keys.map((key) => key[i]).join(" ")}\n`)
      const incarnation = `${FROM_STORE}-${hash.digest("hex").slice(0, 16)}`
      return writeObject({ incarnation, partition: 0, first: 0, last: rows - 1 }, date, content, true)
    }

    const add: Archive["Service"]["add"] = (ticks, quotes) =>
      Effect.gen(function* () {
        yield* symbols.refresh
        for (const [date, columns] of ticksByDate(ticks)) {
          const { instrument_token, exchange_ts, sequence_id } = columns
          yield* addObject(date, { holds: "ticks", columns }, [instrument_token, exchange_ts, sequence_id])
        }
        for (const [date, columns] of quotesByDate(quotes)) {
          const { instrument_token, exchange_ts, source_offset } = columns
          yield* addObject(date, { holds: "quotes", columns }, [instrument_token, exchange_ts, source_offset])
        }
      })

    const begun: Archive["Service"]["begun"] = (incarnation, partition, first) =>
      Effect.gen(function* () {
        yield* checkIncarnation("begun", incarnation)
        const manifest = yield* readManifest("begun", incarnation, partition, first)
        return manifest === undefined ? undefined : { incarnation, partition, first, last: manifest.last }
      })

    interface Wanted {
      readonly tokens: ReadonlySet<number> | undefined
      readonly from: number
      readonly to: number
    }

    /** The row groups of a day's objects that may hold what is wanted of some tokens. */
    const groupsOf = ({ objects }: DayObjects, { tokens, from, to }: Wanted, lowest: number, highest: number) => {
      const sorted = tokens === undefined ? undefined : [...tokens].sort((a, b) => a - b)
      const isWanted = (low: number, high: number): boolean =>
        low <= highest &&
        high >= lowest &&
        (sorted === undefined || sorted.some((token) => token >= low && token <= high))
      return objects.map(({ source, footer }) => ({ source, groups: groupsMeeting(footer, isWanted, from, to) }))
    }

    /** How many rows there are of what is wanted of a day, copies of a key not left out. */
    const roughCounts = (of: Days, date: string, wanted: Wanted) =>
      of.reading(
        date,
        Effect.gen(function* () {
          const rows = new Map<number, number>()
          for (const { source, groups } of groupsOf(yield* of.of(date), wanted, 0, Number.MAX_SAFE_INTEGER)) {
            if (groups.length === 0) continue
            const { tokens, counts } = yield* thread.ask({
              kind: "survey",
              source,
              groups,
              from: wanted.from,
              to: wanted.to
            })
            for (let i = 0; i < tokens.length; i++) {
              const token = tokens[i]!
              if (wanted.tokens?.has(token) === false) continue
              rows.set(token, (rows.get(token) ?? 0) + counts[i]!)
            }
          }
          return [...rows].sort(([a], [b]) => a - b)
        })
      )

    const dayOf = (date: string): Effect.Effect<number, ArchiveError> => {
      const day = dayOfDate(date)
      if (day !== undefined) return Effect.succeed(day)
      return Effect.fail(new ArchiveError({ operation: "read", message: `date: expected YYYY-MM-DD, got ${date}` }))
    }

    /**
     * What the thread answers of each row group of a day, part after part: of each key only the first row that is met. Where an
     * object is gone meanwhile or corrupt, the day is listed again, and read on without it.
     */
    const readDay = <K extends "rows" | "tally">(
      kind: K,
      date: string,
      wanted: Wanted
    ): Stream.Stream<Answers[K], ArchiveError> =>
      Stream.unwrap(
        Effect.gen(function* () {
          const day = yield* dayOf(date)
          const parts = partsOf(yield* roughCounts(days, date, wanted), maxKeys)
          const reader = ++readers
          yield* Effect.addFinalizer(() => Effect.ignore(thread.ask({ kind: "end", reader })))
          const readPart = (part: (typeof parts)[number]): Stream.Stream<Answers[K], ArchiveError> => {
            let queue: ReadonlyArray<{ readonly source: ObjectSource; readonly group: number }> | undefined
            let retries = 0
            const begin = thread.ask({
              kind: "begin",
              part: {
                ...part,
                reader,
                day,
                from: wanted.from,
                to: wanted.to,
                tokens:
                  wanted.tokens === undefined
                    ? undefined
                    : Int32Array.from(wanted.tokens).filter((token) => token >= part.fromToken && token <= part.toToken)
              }
            })
            const list = Effect.gen(function* () {
              const found = groupsOf(yield* days.of(date), wanted, part.fromToken, part.toToken)
              queue = found.flatMap(({ source, groups }) => groups.map((group) => ({ source, group })))
            })
            const pull: Effect.Effect<readonly [Answers[K]], ArchiveError | Cause.Done> = Effect.suspend(() => {
              if (queue === undefined) return Effect.andThen(Effect.andThen(begin, list), pull)
              const [next] = queue
              if (next === undefined) return Cause.done()
              queue = queue.slice(1)
              return Effect.matchEffect(thread.ask({ kind, ...next, reader }), {
                onSuccess: (answer) => Effect.succeed([answer as Answers[K]] as const),
                onFailure: (error) =>
                  Effect.gen(function* () {
                    retries += 1
                    if (retries > MAX_RETRIES) return yield* error
                    yield* days.missed(date, error)
                    // What of it was read is not met again: its keys have been seen. The rest may lie in what took its
                    // place, or in what it took the place of.
                    yield* list
                    return yield* pull
                  })
              })
            })
            return Stream.fromPull(Effect.succeed(pull))
          }
          return Stream.fromIterable(parts, { chunkSize: 1 }).pipe(Stream.flatMap(readPart))
        })
      )

    const read: Archive["Service"]["read"] = (date, tokens) =>
      readDay("rows", date, {
        tokens: tokens === undefined ? undefined : new Set(tokens),
        from: Number.NEGATIVE_INFINITY,
        to: Number.POSITIVE_INFINITY
      }).pipe(Stream.flatMap((columns) => (columns === null ? Stream.empty : inPieces(columns, toStoredTicks))))

    /** A part after the other, each of as many instruments as fit; one that alone does not, a stretch of time at a time. */
    const quotes: Archive["Service"]["quotes"] = (date, tokens) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const start = tradingDayStart(yield* dayOf(date))
          const end = start + MICROS_PER_DAY
          const wanted: Wanted = { tokens: tokens === undefined ? undefined : new Set(tokens), from: start, to: end }
          const parts = partsOf(yield* roughCounts(quoteDays, date, wanted), quotesAtOnce).filter(
            ({ slice }) => slice === 0
          )
          const stretch = ({ fromToken, toToken }: (typeof parts)[number], from: number) =>
            quoteDays.reading(
              date,
              Effect.gen(function* () {
                const met = groupsOf(yield* quoteDays.of(date), { ...wanted, from }, fromToken, toToken)
                const objects = met.filter(({ groups }) => groups.length > 0)
                const range = { fromToken, toToken, tokens: wanted.tokens, from, to: end }
                return yield* thread.ask({ kind: "quotes", objects, ...range, rows: quotesAtOnce })
              })
            )
          return Stream.fromIterable(parts, { chunkSize: 1 }).pipe(
            Stream.flatMap((part) =>
              Stream.paginate(start, (from: number) =>
                Effect.map(stretch(part, from), ({ columns, through }) => {
                  const next = through < end ? Option.some(through) : Option.none<number>()
                  return [[columns], next] as const
                })
              )
            ),
            Stream.flatMap((columns) => inPieces(columns, toQuotes))
          )
        })
      )

    const counts: Archive["Service"]["counts"] = (tokens, from, to) =>
      Effect.gen(function* () {
        const found = new Map<number, number>()
        const wanted = { tokens: tokens === undefined ? undefined : new Set(tokens), from, to }
        for (const date of yield* days.between(from, to)) {
          yield* Stream.runForEach(readDay("tally", date, wanted), ({ tokens: of, counts: rows }) =>
            Effect.sync(() => {
              for (let i = 0; i < of.length; i++) found.set(of[i]!, (found.get(of[i]!) ?? 0) + rows[i]!)
            })
          )
        }
        return found
      })

    const quoteTokens: Archive["Service"]["quoteTokens"] = (from, to) =>
      Effect.gen(function* () {
        const found = new Set<number>()
        for (const date of yield* quoteDays.between(from, to)) {
          for (const [token] of yield* roughCounts(quoteDays, date, { tokens: undefined, from, to })) found.add(token)
        }
        return [...found].sort((a, b) => a - b)
      })

    const ticks = archivedTicks(days, thread)
    const minutes = archivedBars(days, quoteDays, thread, ticks)

    const newestDays: Archive["Service"]["newestDays"] = (limit) =>
      Effect.zipWith(days.all, quoteDays.all, (traded, quoted) =>
        [...new Set([...traded, ...quoted])]
          .sort()
          .reverse()
          .slice(0, limit)
          .map((date) => dayOfDate(date)!)
      )

    const list: Archive["Service"]["list"] = (date) =>
      Effect.gen(function* () {
        const objects: Array<ArchivedObjects["objects"][number]> = []
        const unreadable: Array<ArchivedObjects["unreadable"][number]> = []
        for (const kind of ARCHIVED_KINDS) {
          for (const { name, source, footer } of (yield* daysOf[kind].of(date)).objects) {
            objects.push({ kind, name, bytes: source.size, rows: footer.rows.reduce((sum, rows) => sum + rows, 0) })
          }
          for (const one of yield* daysOf[kind].unreadable(date)) unreadable.push({ kind, ...one })
        }
        return { objects, unreadable }
      })

    const object: Archive["Service"]["object"] = (kind, date, name) => {
      const key = `${dateFolder(kind, date)}${name}`
      return Effect.map(store.sizeOf(key), (bytes) =>
        bytes === undefined
          ? undefined
          : {
              bytes,
              read: (from, to) =>
                Stream.paginate(from, (at: number) => {
                  const end = Math.min(to, at + PIECE_BYTES)
                  if (end <= at) return Effect.succeed([[], Option.none()] as const)
                  return Effect.map(
                    store.readRange(key, at, end),
                    (piece) => [[piece], end < to ? Option.some(end) : Option.none<number>()] as const
                  )
                })
            }
      )
    }

    const compact: Archive["Service"]["compact"] = (before) =>
      Effect.zipWith(compactions.ticks.compact(before), compactions.quotes.compact(before), (a, b) => a + b)

    return {
      begun,
      write,
      add,
      compact,
      newestDays,
      list,
      object,
      read,
      quotes,
      quotePage: archivedQuotes(quoteDays, thread),
      quotesByTime: archivedQuotesByTime(quoteDays, thread),
      quoteTokens,
      ticks,
      minutes,
      counts
    } satisfies Archive["Service"]
  })
