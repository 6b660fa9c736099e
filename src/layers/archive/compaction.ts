/**
 * Decides how small objects of a trading day become few large ones. A plan, put only where none of its number is, says
 * first which objects become one, so that whoever comes after a crash, or at the same time, does the very same. A joined
 * object names those that it took the place of: from when it is there, readers pass over them. They go some time after it
 * was read back, so that who has listed them before can still read them.
 */
import { createHash } from "node:crypto"
import { Clock, Effect, Schema } from "effect"
import { ArchiveError } from "../../schema/Errors.ts"
import { QUOTE_WEIGHT } from "../../schema/QuoteColumns.ts"
import type { ArchivedKind } from "../../streams/ports/Archive.ts"
import { crashPoint } from "../../streams/run/crashPoint.ts"
import { type DayObject, type Days, dateFolder, joinedName, MAX_RETRIES } from "./dayObjects.ts"
import type { ObjectStore } from "./objectStore.ts"
import { SCHEMA_VERSION } from "./parquetSchema.ts"
import type { ParquetThread } from "./parquetThread.ts"

/** Rows of a joined object at most, some 5 MB of ticks; quotes, which take more room, are fewer. */
export const JOIN_ROWS = 250_000
const rowsShare: Readonly<Record<ArchivedKind, number>> = { ticks: 1, quotes: 1 / QUOTE_WEIGHT }
/** How long what is covered stays. */
export const COVERED_FOR_MS = 600_000
/** Names that an object may say it covers; one that says more is joined no further. */
const MAX_COVERS = 20_000
/** Bytes of an object read back at a time. */
const PIECE_BYTES = 1 << 20

export interface CompactionOptions {
  readonly joinRows: number
  readonly coveredForMs: number
}

const Plan = Schema.Struct({ date: Schema.String, joins: Schema.Array(Schema.Array(Schema.String)) })
type Plan = typeof Plan.Type
const decodePlan = Schema.decodeUnknownEffect(Schema.fromJsonString(Plan))

const planFolders: Readonly<Record<ArchivedKind, string>> = { ticks: "compactions/", quotes: "compactions/quotes/" }
const PLAN = /^(\d{1,9})\.json$/

const outputOf = (key: string, names: ReadonlyArray<string>): string =>
  joinedName(
    createHash("sha256")
      .update([key, ...names].join("\n"))
      .digest("hex")
      .slice(0, 16),
    names[0]!
  )

const rowsIn = ({ footer }: Pick<DayObject, "footer">): number => footer.rows.reduce((sum, rows) => sum + rows, 0)

/** Which objects become one: neighbours in their order, as many as fit; large ones stay as they are. */
export const joinsOf = (
  objects: ReadonlyArray<{ readonly name: string; readonly rows: number }>,
  joinRows: number
): ReadonlyArray<ReadonlyArray<string>> => {
  const joins: Array<Array<string>> = []
  let open: Array<string> = []
  let rows = 0
  for (const object of objects) {
    if (object.rows * 2 > joinRows) continue
    if (rows + object.rows > joinRows) {
      joins.push(open)
      open = []
      rows = 0
    }
    open.push(object.name)
    rows += object.rows
  }
  joins.push(open)
  return joins.filter((names) => names.length > 1)
}

export const makeCompaction = (
  store: ObjectStore,
  thread: ParquetThread,
  days: Days,
  { joinRows, coveredForMs }: CompactionOptions
) => {
  const { kind } = days
  const planFolder = (date: string): string => `${planFolders[kind]}date=${date}/`
  /** Days of which nothing is left to do until something is put. */
  const settled = new Set<string>()
  /** Since when a joined object is known to be there and whole. */
  const wholeSince = new Map<string, number>()

  const sourcesOf = (date: string) =>
    Effect.map(days.ordered(date), (listed) => new Map(listed.map(({ name, source }) => [name, source])))

  /** Reads all of an object, to the last column. */
  const checked = (date: string, name: string) =>
    Effect.gen(function* () {
      const source = (yield* sourcesOf(date)).get(name)
      return source === undefined ? undefined : yield* thread.ask({ kind: "check", holds: kind, source })
    })

  const holdsBytes = (key: string, bytes: Uint8Array): Effect.Effect<boolean, ArchiveError> =>
    Effect.gen(function* () {
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        const end = Math.min(bytes.length, at + PIECE_BYTES)
        const piece = yield* store.readRange(key, at, end)
        if (Buffer.compare(piece, bytes.subarray(at, end)) !== 0) return false
      }
      return true
    })

  /** Makes one object of some, as a plan says, unless it is there; answers how many it took the place of. */
  const join = (plan: string, date: string, names: ReadonlyArray<string>): Effect.Effect<number, ArchiveError> =>
    Effect.gen(function* () {
      const output = outputOf(plan, names)
      const listed = yield* sourcesOf(date)
      if (listed.has(output)) return 0
      const known = new Map((yield* days.of(date)).objects.map(({ name, footer }) => [name, footer.covers]))
      const sources = names.flatMap((name) => {
        const source = listed.get(name)
        return source === undefined ? [] : [{ name, source, covers: known.get(name) ?? [] }]
      })
      // Nothing of it is left: somebody took it away past the archive.
      if (sources.length === 0) return 0
      const joined = yield* thread.ask({
        kind: "join",
        holds: kind,
        sources,
        metadata: { topic: "normalized_ticks", date, schema_version: String(SCHEMA_VERSION) }
      })
      for (const { name, reason } of joined.corrupt) yield* days.setAside(name, reason)
      if (joined.corrupt.length > 0) days.changed(date)
      if (joined.names.length < 2) return 0
      const key = `${dateFolder(kind, date)}${output}`
      // The bytes are copied: who hands them on may not have them any more.
      const isNew = yield* store.putNew(key, joined.bytes)
      crashPoint("after-joined-object")
      days.changed(date)
      const isWhole = !isNew || (yield* holdsBytes(key, joined.bytes))
      const rows = isWhole ? yield* checked(date, output) : undefined
      if (rows === undefined || (isNew && rows !== joined.rows)) {
        yield* store.remove(key)
        days.changed(date)
        return yield* new ArchiveError({ operation: "compact", message: `${key} does not hold what was put there` })
      }
      crashPoint("after-joined-check")
      wholeSince.set(`${date} ${output}`, yield* Clock.currentTimeMillis)
      return isNew ? joined.names.length : 0
    }).pipe(
      // What is gone meanwhile is in the object that another one made of the same.
      Effect.retry({ while: ({ object }) => object?.is === "gone", times: MAX_RETRIES })
    )

  const readPlan = (key: string): Effect.Effect<Plan, ArchiveError> =>
    Effect.gen(function* () {
      const bytes = yield* store.get(key)
      if (bytes === undefined) return yield* new ArchiveError({ operation: "compact", message: `${key} is gone` })
      return yield* decodePlan(new TextDecoder().decode(bytes)).pipe(
        Effect.mapError((error) => new ArchiveError({ operation: "compact", message: `${key}: ${error.message}` }))
      )
    })

  const carryOut = (key: string, date: string): Effect.Effect<number, ArchiveError> =>
    Effect.flatMap(readPlan(key), ({ joins }) =>
      Effect.map(
        Effect.forEach(joins, (names) => join(key, date, names)),
        (counts) => counts.reduce((sum, count) => sum + count, 0)
      )
    )

  /** Takes away what joined objects took the place of; answers whether some of it is to stay for a while. */
  const clear = (date: string): Effect.Effect<boolean, ArchiveError> =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const listed = yield* sourcesOf(date)
      let isLeft = false
      for (const { name, footer } of (yield* days.of(date)).objects) {
        const covered = footer.covers.filter((one) => listed.has(one))
        if (covered.length === 0) continue
        const known = `${date} ${name}`
        if (!wholeSince.has(known)) {
          yield* checked(date, name)
          wholeSince.set(known, now)
        }
        if (now - wholeSince.get(known)! < coveredForMs) {
          isLeft = true
          continue
        }
        for (const one of covered) {
          yield* store.remove(`${dateFolder(kind, date)}${one}`)
          crashPoint("after-covered-removed")
        }
        wholeSince.delete(known)
        days.changed(date)
      }
      return isLeft
    })

  const compactOnce = (date: string): Effect.Effect<number, ArchiveError> =>
    Effect.gen(function* () {
      settled.add(date)
      days.changed(date)
      const plans = (yield* store.list(planFolder(date))).flatMap(({ name }) => {
        const [, number] = PLAN.exec(name) ?? []
        return number === undefined ? [] : [Number(number)]
      })
      const last = plans.reduce((most, number) => Math.max(most, number), 0)
      let joined = last === 0 ? 0 : yield* carryOut(`${planFolder(date)}${last}.json`, date)
      const small = (yield* days.of(date)).objects
        .filter(({ footer }) => footer.covers.length < MAX_COVERS)
        .map((object) => ({ name: object.name, rows: rowsIn(object) }))
      const joins = joinsOf(small, joinRows * rowsShare[kind])
      if (joins.length > 0) {
        const key = `${planFolder(date)}${last + 1}.json`
        const plan: Plan = { date, joins }
        yield* store.putNew(key, new TextEncoder().encode(`${JSON.stringify(plan)}\n`))
        crashPoint("after-plan")
        joined += yield* carryOut(key, date)
      }
      if (yield* clear(date)) settled.delete(date)
      return joined
    })

  const compactDay = (date: string): Effect.Effect<number, ArchiveError> =>
    days.reading(date, compactOnce(date)).pipe(Effect.tapError(() => Effect.sync(() => settled.delete(date))))

  return {
    /** Something was put: the day is looked at again. */
    changed: (date: string): void => void settled.delete(date),
    compact: (before: string): Effect.Effect<number, ArchiveError> =>
      Effect.gen(function* () {
        let joined = 0
        for (const date of yield* days.all) {
          if (date < before && !settled.has(date)) joined += yield* compactDay(date)
        }
        return joined
      })
  }
}
