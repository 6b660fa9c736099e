/**
 * Decides how the archive lives in a folder: `ticks/date=YYYY-MM-DD/<incarnation>-<partition>-<first>-<last>.parquet`,
 * whole or not at all. A manifest, created exclusively and named by the first offset, says first what a range will hold,
 * so that whoever comes after a crash completes that very range.
 *
 * An object's rows are sorted by primary key and hold each once. A reader goes through a day in parts small enough that
 * the keys it has seen fit in memory (`MAX_KEYS`, 21 bytes each), whatever number of objects hold them.
 */
import { promises as fs } from "node:fs"
import { join } from "node:path"
import { Effect, Layer, Schema, Stream } from "effect"
import { ArchiveError, StartError } from "../schema/Errors.ts"
import { dayOfDate } from "../schema/Sessions.ts"
import { type Tick, tradingDate, tradingDay } from "../schema/Tick.ts"
import { Archive, type ArchiveRange } from "../streams/Archive.ts"
import type { StoredTick } from "../streams/TickStore.ts"
import * as ParquetThread from "./ParquetThread.ts"
import { MAX_TOKENS } from "./PrimaryKeys.ts"
import { SCHEMA_VERSION, toColumns, toStoredTicks } from "./parquetSchema.ts"
import type { Part } from "./parquetWorker.ts"

export interface ParquetFilesOptions {
  /** Keys a reader remembers at a time; a day with more rows is read in more turns. */
  readonly maxKeys: number
}

/** 84 MB of keys. */
export const MAX_KEYS = 4_000_000

/** Rows handed to a reader at a time: building more at once would be felt by whoever shares the loop. */
const ROWS_AT_A_TIME = 4096

const Manifest = Schema.Struct({
  incarnation: Schema.String,
  partition: Schema.Int,
  first: Schema.Int,
  last: Schema.Int,
  /** Of the objects that make up the range. */
  dates: Schema.Array(Schema.String),
  schema_version: Schema.Int
})
type Manifest = typeof Manifest.Type
const decodeManifest = Schema.decodeUnknownEffect(Schema.fromJsonString(Manifest))

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

const io = <A>(operation: string, run: () => Promise<A>): Effect.Effect<A, ArchiveError> =>
  Effect.tryPromise({ try: run, catch: (cause) => new ArchiveError({ operation, message: messageOf(cause) }) })

/** Makes what happened to the names in a folder outlive a power cut. */
const syncFolder = async (folder: string): Promise<void> => {
  // Windows cannot open a folder, and keeps names by itself.
  if (process.platform === "win32") return
  const handle = await fs.open(folder, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const writeSynced = async (file: string, bytes: Uint8Array | string): Promise<void> => {
  const handle = await fs.open(file, "w")
  try {
    await handle.writeFile(bytes)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const exists = async (file: string): Promise<boolean> => {
  try {
    await fs.access(file)
    return true
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return false
    throw cause
  }
}

const INCARNATION = /^[A-Za-z0-9_-]{1,128}$/
const OBJECT = /^[A-Za-z0-9_-]+-(\d+)-(\d+)-\d+\.parquet$/

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

const make = (folder: string, options: ParquetFilesOptions) =>
  Effect.gen(function* () {
    const ticksFolder = join(folder, "ticks")
    const manifestFolder = join(folder, "manifests")
    const temporaryFolder = join(folder, "tmp")

    // What a crash left half done was never visible; here it goes.
    yield* Effect.tryPromise({
      try: async () => {
        await fs.rm(temporaryFolder, { recursive: true, force: true })
        for (const made of [folder, ticksFolder, manifestFolder, temporaryFolder]) {
          await fs.mkdir(made, { recursive: true })
        }
        await syncFolder(folder)
      },
      catch: (cause) => new StartError({ message: `archive in ${folder}: ${messageOf(cause)}` })
    })

    const thread = yield* ParquetThread.make
    let named = 0
    let readers = 0

    const temporary = (): string => {
      named += 1
      return join(temporaryFolder, `${process.pid}-${named}`)
    }

    const manifestFile = (incarnation: string, partition: number, first: number): string =>
      join(manifestFolder, `${incarnation}-${partition}-${first}.json`)

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
        const file = manifestFile(incarnation, partition, first)
        const text = yield* io(operation, async () => {
          try {
            return await fs.readFile(file, "utf8")
          } catch (cause) {
            if (codeOf(cause) === "ENOENT") return undefined
            throw cause
          }
        })
        if (text === undefined) return undefined
        return yield* decodeManifest(text).pipe(
          Effect.mapError((error) => new ArchiveError({ operation, message: `${file}: ${error.message}` }))
        )
      })

    /** Puts the manifest there unless one is; answers the one that is there then. */
    const begin = (range: ArchiveRange, dates: ReadonlyArray<string>): Effect.Effect<Manifest, ArchiveError> =>
      Effect.gen(function* () {
        const { incarnation, partition, first, last } = range
        const found = yield* readManifest("write", incarnation, partition, first)
        if (found !== undefined) {
          yield* io("write", () => syncFolder(manifestFolder))
          return found
        }
        const mine: Manifest = { incarnation, partition, first, last, dates, schema_version: SCHEMA_VERSION }
        const isMine = yield* io("write", async () => {
          const half = temporary()
          try {
            await writeSynced(half, `${JSON.stringify(mine)}\n`)
            // A link appears whole and fails where the name is taken, which a rename would not.
            await fs.link(half, manifestFile(incarnation, partition, first))
          } catch (cause) {
            if (codeOf(cause) !== "EEXIST") throw cause
            return false
          } finally {
            await fs.rm(half, { force: true })
          }
          await syncFolder(manifestFolder)
          return true
        })
        if (isMine) return mine
        const other = yield* readManifest("write", incarnation, partition, first)
        return other ?? (yield* new ArchiveError({ operation: "write", message: "a manifest came and went" }))
      })

    const writeObject = (
      range: ArchiveRange,
      date: string,
      ticks: ReadonlyArray<Tick>
    ): Effect.Effect<void, ArchiveError> =>
      Effect.gen(function* () {
        const { incarnation, partition, first, last } = range
        const dateFolder = join(ticksFolder, `date=${date}`)
        const file = join(dateFolder, `${incarnation}-${partition}-${first}-${last}.parquet`)
        if (yield* io("write", () => exists(file))) {
          yield* io("write", () => syncFolder(dateFolder))
          return
        }
        const bytes = yield* thread.ask({
          kind: "encode",
          columns: toColumns(ticks),
          metadata: {
            topic: "normalized_ticks",
            incarnation,
            partition: String(partition),
            first: String(first),
            last: String(last),
            date,
            schema_version: String(SCHEMA_VERSION)
          }
        })
        yield* io("write", async () => {
          await fs.mkdir(dateFolder, { recursive: true })
          await syncFolder(ticksFolder)
          const half = temporary()
          try {
            await writeSynced(half, bytes)
            await fs.rename(half, file)
          } catch (cause) {
            await fs.rm(half, { force: true })
            throw cause
          }
          await syncFolder(dateFolder)
        })
      })

    const write: Archive["Service"]["write"] = (range, ticks) =>
      Effect.gen(function* () {
        yield* checkIncarnation("write", range.incarnation)
        const byDate = new Map<string, Array<Tick>>()
        let lastDay = Number.NaN
        let ofDay: Array<Tick> = []
        for (const tick of ticks) {
          const day = tradingDay(tick.exchange_ts)
          if (day !== lastDay) {
            const date = tradingDate(day)
            ofDay = byDate.get(date) ?? []
            byDate.set(date, ofDay)
            lastDay = day
          }
          ofDay.push(tick)
        }
        const dates = [...byDate.keys()].sort()
        const manifest = yield* begin(range, dates)
        if (manifest.last !== range.last || manifest.dates.join() !== dates.join()) {
          return yield* new ArchiveError({
            operation: "write",
            message:
              `partition ${range.partition} from ${range.first}: the range begun ends at ${manifest.last} and holds ` +
              `[${manifest.dates.join(", ")}], got one that ends at ${range.last} and holds [${dates.join(", ")}]`
          })
        }
        for (const date of dates) yield* writeObject(range, date, byDate.get(date)!)
      })

    const begun: Archive["Service"]["begun"] = (incarnation, partition, first) =>
      Effect.gen(function* () {
        yield* checkIncarnation("begun", incarnation)
        const manifest = yield* readManifest("begun", incarnation, partition, first)
        return manifest === undefined ? undefined : { incarnation, partition, first, last: manifest.last }
      })

    /** The objects of a date in the order in which their ticks were published, so that a key's first row is the one. */
    const objectsOf = (date: string): Effect.Effect<ReadonlyArray<string>, ArchiveError> =>
      io("read", async () => {
        const dateFolder = join(ticksFolder, `date=${date}`)
        let entries: ReadonlyArray<string>
        try {
          entries = await fs.readdir(dateFolder)
        } catch (cause) {
          if (codeOf(cause) === "ENOENT") return []
          throw cause
        }
        return entries
          .flatMap((name) => {
            const [, partition, first] = OBJECT.exec(name) ?? []
            return partition === undefined ? [] : [{ name, partition: Number(partition), first: Number(first) }]
          })
          .sort((a, b) => a.partition - b.partition || a.first - b.first || (a.name < b.name ? -1 : 1))
          .map(({ name }) => join(dateFolder, name))
      })

    /** Every step of reading a date: a row group of an object in a part of the day. */
    const stepsOf = (date: string, tokens: ReadonlyArray<number> | undefined) =>
      Effect.gen(function* () {
        const day = dayOfDate(date)
        if (day === undefined) {
          return yield* new ArchiveError({ operation: "read", message: `date: expected YYYY-MM-DD, got ${date}` })
        }
        const wanted = tokens === undefined ? undefined : new Set(tokens)
        const rows = new Map<number, number>()
        const objects: Array<{
          readonly file: string
          readonly groups: number
          readonly low: number
          readonly high: number
        }> = []
        for (const file of yield* objectsOf(date)) {
          const survey = yield* thread.ask({ kind: "survey", file })
          for (let i = 0; i < survey.tokens.length; i++) {
            const token = survey.tokens[i]!
            if (wanted === undefined || wanted.has(token)) rows.set(token, (rows.get(token) ?? 0) + survey.counts[i]!)
          }
          objects.push({
            file,
            groups: survey.groups,
            low: survey.tokens[0] ?? 0,
            high: survey.tokens[survey.tokens.length - 1] ?? -1
          })
        }
        const counts = [...rows].sort(([a], [b]) => a - b)
        return { day, wanted, objects, parts: partsOf(counts, options.maxKeys) }
      })

    const read: Archive["Service"]["read"] = (date, tokens) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const { day, wanted, objects, parts } = yield* stepsOf(date, tokens)
          const reader = ++readers
          yield* Effect.addFinalizer(() => Effect.ignore(thread.ask({ kind: "end", reader })))
          const readPart = (part: (typeof parts)[number]): Stream.Stream<ReadonlyArray<StoredTick>, ArchiveError> => {
            const begun = thread.ask({
              kind: "begin",
              part: {
                ...part,
                reader,
                day,
                tokens:
                  wanted === undefined
                    ? undefined
                    : Int32Array.from(wanted).filter((token) => token >= part.fromToken && token <= part.toToken)
              }
            })
            const groups = objects
              .filter(({ low, high }) => low <= part.toToken && high >= part.fromToken)
              .flatMap(({ file, groups: count }) => Array.from({ length: count }, (_, group) => ({ file, group })))
            return Stream.fromEffect(begun).pipe(
              Stream.flatMap(() => Stream.fromIterable(groups, { chunkSize: 1 })),
              Stream.mapEffect(({ file, group }) => thread.ask({ kind: "rows", file, group, reader })),
              Stream.flatMap((columns) => {
                if (columns === null) return Stream.empty
                const length = columns.price.length
                const starts = Array.from({ length: Math.ceil(length / ROWS_AT_A_TIME) }, (_, i) => i * ROWS_AT_A_TIME)
                return Stream.fromIterable(starts, { chunkSize: 1 }).pipe(
                  Stream.map((from) => toStoredTicks(columns, from, Math.min(length, from + ROWS_AT_A_TIME)))
                )
              })
            )
          }
          return Stream.fromIterable(parts, { chunkSize: 1 }).pipe(Stream.flatMap(readPart))
        })
      )

    return { begun, write, read } satisfies Archive["Service"]
  })

/** The archive in a folder, made where it is not there yet. */
export const layer = (
  folder: string,
  options: ParquetFilesOptions = { maxKeys: MAX_KEYS }
): Layer.Layer<Archive, StartError> => Layer.effect(Archive, make(folder, options))
