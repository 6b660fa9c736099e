/**
 * Decides which objects of a trading day are read, in which order, and what is known of each without reading its rows.
 * One that cannot be read is named and set aside; the others are served.
 */
import { Clock, Effect } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import { tradingDate, tradingDay } from "../../schema/Tick.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { ArchivedKind } from "../../streams/ports/Archive.ts"
import { nameOf, type ObjectSource } from "./objectSource.ts"
import type { ObjectStore } from "./objectStore.ts"
import type { ParquetThread } from "./parquetThread.ts"
import type { Footer } from "./parquetWorker.ts"

/** What others have put or taken away meanwhile is seen after so long. */
const LISTED_FOR_MS = 5000
/** Days whose lists are kept, and objects whose footers are: 40 bytes a row group. */
const MAX_LISTS = 4096
const MAX_FOOTERS = 32_768
/** One that could not be read is tried again after so long: it may have been put right. */
const ASIDE_FOR_MS = 600_000
const MAX_ASIDE = 1000
/** Objects of a day whose footers are asked for at a time. */
const AT_ONCE = 8
/** A read that found an object gone or corrupt begins again without it; after so many times it is given up. */
export const MAX_RETRIES = 100

const OBJECT = /^([A-Za-z0-9_-]+)-(\d+)-(\d+)-\d+\.parquet$/

/** What the name of an object says. */
export const parseName = (name: string) => {
  const [, incarnation, partition, first] = OBJECT.exec(name) ?? []
  return incarnation === undefined ? undefined : { incarnation, partition: Number(partition), first: Number(first) }
}

/** Names objects that took the place of others. */
const JOINED = "joined"
export const isJoined = (incarnation: string): boolean => incarnation.startsWith(`${JOINED}-`)
/** The name of one that takes the place of others: of what it holds, and where its first one stood in the order. */
export const joinedName = (hash: string, first: string): string => {
  const { partition = 0, first: offset = 0 } = parseName(first) ?? {}
  return `${JOINED}-${hash}-${partition}-${offset}-0.parquet`
}

export interface DayObject {
  readonly name: string
  readonly source: ObjectSource
  readonly footer: Footer
}

/** The readable objects of a day; another one where anything changed of them. */
export interface DayObjects {
  readonly date: string
  readonly objects: ReadonlyArray<DayObject>
}

/** The first that was put in goes where one more than so many come. */
class Bounded<K, V> extends Map<K, V> {
  readonly #most: number
  constructor(most: number) {
    super()
    this.#most = most
  }
  override set(key: K, value: V): this {
    this.delete(key)
    while (this.size >= this.#most) this.delete(this.keys().next().value!)
    return super.set(key, value)
  }
}

export const dateFolder = (kind: ArchivedKind, date: string): string => `${kind}/date=${date}/`

/** Which row groups of an object may hold a row of the tokens and times. */
export const groupsMeeting = (
  { tokens, times, rows }: Footer,
  isWanted: (low: number, high: number) => boolean,
  from: number,
  to: number
): ReadonlyArray<number> => {
  const met: Array<number> = []
  for (let group = 0; group < rows.length; group++) {
    if (times[group * 2]! >= to || times[group * 2 + 1]! < from) continue
    if (isWanted(tokens[group * 2]!, tokens[group * 2 + 1]!)) met.push(group)
  }
  return met
}

/** The days of one kind of objects. */
export const makeDays = (store: ObjectStore, thread: ParquetThread, kind: ArchivedKind) => {
  const lists = new Bounded<string, { readonly at: number; readonly day: DayObjects }>(MAX_LISTS)
  const footers = new Bounded<string, Footer>(MAX_FOOTERS)
  const aside = new Bounded<string, { readonly at: number; readonly reason: string }>(MAX_ASIDE)
  /** Objects that cannot be read, each said once. */
  const told = new Bounded<string, true>(MAX_ASIDE)
  let dates: { readonly at: number; readonly dates: ReadonlyArray<string> } | undefined

  const setAside = (name: string, reason: string): Effect.Effect<void> =>
    Effect.gen(function* () {
      aside.set(name, { at: yield* Clock.currentTimeMillis, reason })
      footers.delete(name)
      if (told.has(name)) return
      told.set(name, true)
      yield* Effect.logError(
        `the archive has an object that cannot be read, and serves the day without it: ${name}: ${reason}`
      )
    })

  const footerOf = (source: ObjectSource): Effect.Effect<Footer, ArchiveError> =>
    Effect.suspend(() => {
      const key = `${nameOf(source)} ${source.size}`
      const known = footers.get(key)
      if (known !== undefined) return Effect.succeed(known)
      return Effect.tap(thread.ask({ kind: "footer", source }), (footer) => Effect.sync(() => footers.set(key, footer)))
    })

  /** What is listed, in the order in which its ticks were published, so that a key's first row is the one. */
  const ordered = (date: string) =>
    Effect.map(store.list(dateFolder(kind, date)), (listed) =>
      listed
        .flatMap(({ name, source }) => {
          const parsed = parseName(name)
          return parsed === undefined ? [] : [{ name, source, ...parsed }]
        })
        .sort((a, b) => a.partition - b.partition || a.first - b.first || (a.name < b.name ? -1 : 1))
    )

  const isAside = (source: ObjectSource, now: number): boolean => {
    const found = aside.get(nameOf(source))
    return found !== undefined && now - found.at < ASIDE_FOR_MS
  }

  const look = (date: string): Effect.Effect<DayObjects, ArchiveError> =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const listed = (yield* ordered(date)).filter(({ source }) => !isAside(source, now))
      const joined = yield* Effect.forEach(
        listed.filter(({ incarnation }) => isJoined(incarnation)),
        ({ source }) => footerOf(source),
        { concurrency: AT_ONCE }
      )
      const covered = new Set(joined.flatMap(({ covers }) => covers))
      const readable = listed.filter(({ name }) => !covered.has(name))
      const objects = yield* Effect.forEach(
        readable,
        ({ name, source }) => Effect.map(footerOf(source), (footer): DayObject => ({ name, source, footer })),
        { concurrency: AT_ONCE }
      )
      const before = lists.get(date)?.day
      const isSame =
        before !== undefined &&
        before.objects.length === objects.length &&
        before.objects.every(({ footer }, i) => footer === objects[i]!.footer)
      const day = isSame ? before : { date, objects }
      lists.set(date, { at: now, day })
      return day
    })

  /** Forgets what was listed of a day: something of it changed. */
  const changed = (date: string): void => {
    lists.delete(date)
    dates = undefined
  }

  /** Takes note of an object that could not be read, so that what is read next is read without it. */
  const missed = (date: string, error: ArchiveError): Effect.Effect<void, ArchiveError> => {
    const { object } = error
    if (object === undefined) return Effect.fail(error)
    changed(date)
    return object.is === "corrupt" ? setAside(object.name, object.reason) : Effect.void
  }

  /**
   * Does what reads objects of a day; again, without what was found gone or corrupt meanwhile. `read` must be one that may
   * be done again.
   */
  const reading = <A>(date: string, read: Effect.Effect<A, ArchiveError>): Effect.Effect<A, ArchiveError> => {
    const attempt = (left: number): Effect.Effect<A, ArchiveError> =>
      Effect.catch(read, (error) =>
        left === 0 ? Effect.fail(error) : Effect.andThen(missed(date, error), attempt(left - 1))
      )
    return attempt(MAX_RETRIES)
  }

  const of = (date: string): Effect.Effect<DayObjects, ArchiveError> =>
    Effect.gen(function* () {
      const known = lists.get(date)
      if (known !== undefined && (yield* Clock.currentTimeMillis) - known.at < LISTED_FOR_MS) return known.day
      return yield* reading(date, look(date))
    })

  /** Every day that there is a folder of, ascending. */
  const all: Effect.Effect<ReadonlyArray<string>, ArchiveError> = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (dates === undefined || now - dates.at >= LISTED_FOR_MS) {
      const found = (yield* store.folders(`${kind}/`))
        .map((folder) => folder.replace(/^date=/, ""))
        .filter((date) => dayOfDate(date) !== undefined)
      dates = { at: now, dates: found.sort() }
    }
    return dates.dates
  })

  /** The days, ascending, that may have rows in [from, to). */
  const between = (from: number, to: number): Effect.Effect<ReadonlyArray<string>, ArchiveError> => {
    if (to <= from) return Effect.succeed([])
    const first = tradingDate(tradingDay(from))
    const last = tradingDate(tradingDay(to - 1))
    return Effect.map(all, (found) => found.filter((date) => date >= first && date <= last))
  }

  /** The objects of a day that are set aside, and why. */
  const unreadable = (date: string) =>
    Effect.gen(function* () {
      yield* of(date)
      const now = yield* Clock.currentTimeMillis
      return (yield* ordered(date)).flatMap(({ name, source }) =>
        isAside(source, now) ? [{ name, reason: aside.get(nameOf(source))!.reason }] : []
      )
    })

  return {
    kind,
    all,
    /** All that lies there of a day, what is covered and what is set aside too. */
    ordered,
    unreadable,
    setAside,
    of,
    between,
    changed,
    reading,
    missed
  }
}
export type Days = ReturnType<typeof makeDays>
