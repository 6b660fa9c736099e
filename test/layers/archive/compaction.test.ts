import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { parquetMetadataAsync, parquetReadObjects } from "hyparquet"
import { joinsOf } from "../../../src/layers/archive/compaction.ts"
import type { ParquetOptions } from "../../../src/layers/archive/ParquetArchive.ts"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../../src/layers/archive/S3.ts"
import type { Quote } from "../../../src/schema/Quote.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { type Tick, tradingDate } from "../../../src/schema/Tick.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { ARCHIVED_KINDS, Archive } from "../../../src/streams/ports/Archive.ts"
import type { StoredTick } from "../../../src/streams/ports/TickStore.ts"
import type { SELDOM_CRASH_POINTS } from "../../../src/streams/run/crashPoint.ts"
import { DAY, EPOCH, makeTick, NO_QUOTES, OPEN } from "../../contract/ticks.ts"
import { emptyBucket, keysIn, objectIn, putInto } from "../../support/buckets.ts"
import { quoteOf } from "../../support/quotes.ts"
import { s3 } from "../../support/services.ts"

interface Place {
  readonly open: (options?: Partial<ParquetOptions>) => Layer.Layer<Archive>
  /** The keys of all objects of ticks and quotes. */
  readonly keys: () => Promise<ReadonlyArray<string>>
  readonly bytes: (key: string) => Promise<Uint8Array>
  readonly put: (key: string, bytes: Uint8Array) => Promise<void>
  /** For a process of its own. */
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
}

const access = await s3()
const places: ReadonlyArray<{ readonly name: string; readonly place: Effect.Effect<Place, never, Scope.Scope> }> = [
  {
    name: "files",
    place: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "compaction-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      ),
      (folder): Place => ({
        open: (options = {}) => Layer.orDie(ParquetFiles.layer(folder, options)),
        keys: async () => {
          const { readdirSync } = await import("node:fs")
          return ARCHIVED_KINDS.flatMap((kind) =>
            readdirSync(join(folder, kind), { recursive: true, withFileTypes: true })
          )
            .filter((entry) => entry.isFile())
            .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
            .sort()
        },
        bytes: async (key) => new Uint8Array(readFileSync(join(folder, key))),
        put: async (key, bytes) => writeFileSync(join(folder, key), bytes),
        args: [folder],
        env: {}
      })
    )
  },
  ...(access === undefined
    ? []
    : [
        {
          name: "S3",
          place: Effect.map(
            emptyBucket(access),
            (options): Place => ({
              open: (parquet = {}) => Layer.orDie(S3.layer(options, parquet)),
              keys: async () => (await keysIn(access)).filter((key) => /^(ticks|quotes)\//.test(key)),
              bytes: (key) => objectIn(access, key),
              put: (key, bytes) => putInto(access, key, bytes),
              args: [access.endpoint, access.bucket, access.region],
              env: { AWS_ACCESS_KEY_ID: access.accessKeyId, AWS_SECRET_ACCESS_KEY: access.secretAccessKey }
            })
          )
        }
      ])
]

const A_DAY = 86_400_000_000
const DATES = [tradingDate(DAY), tradingDate(DAY + 1)]
const OPTIONS = { joinRows: 40, coveredForMs: 600_000 }
const ALL = "9999-01-01"

/**
 * Ticks and quotes of two days in small ranges of two partitions and of two lives of the topic; every column has
 * something to say.
 */
const RANGES = Array.from({ length: 16 }, (_, n) => ({
  range: { incarnation: `life-${n % 2}`, partition: (n >> 1) % 2, first: n * 10, last: n * 10 + 9 },
  ticks: Array.from({ length: 7 }, (_, i): Tick => {
    const id = n * 7 + i + 1
    return makeTick({
      instrument_token: 1 + ((id * 5) % 3),
      exchange_ts: OPEN + (n % 4 === 3 ? A_DAY : 0) + ((id * 37) % 50) * 1000,
      sequence_id: id % 6 === 0 ? -id : id,
      sequencing: id % 6 === 0 ? "none" : "contiguous",
      gap_from: id % 9 === 0 ? id : 0,
      status: id % 9 === 0 ? "STALE" : "LIVE",
      epoch: id % 8 === 0 ? Number.NaN : EPOCH,
      position: id % 8 === 0 ? Number.NaN : id,
      feed: id % 2 === 0 ? "dma" : "odd feed ☂",
      old: id % 5 === 0,
      source: [`raw-${n % 2}`, id, id % 3]
    })
  }),
  quotes: Array.from({ length: 2 }, (_, i): Quote => {
    const id = n * 2 + i
    return quoteOf(id, {
      instrument_token: 1 + ((id * 5) % 3),
      exchange_ts: OPEN + (n % 4 === 3 ? A_DAY : 0) + ((id * 37) % 50) * 1000,
      source: [`raw-${n % 2}`, id, 1]
    })
  })
}))
/** Rows of both kinds. */
const ROWS = RANGES.length * (7 + 2)
/** Objects of both kinds. */
const OBJECTS = RANGES.length * 2

const fill = Effect.gen(function* () {
  const archive = yield* Archive
  for (const { range, ticks, quotes } of RANGES) {
    yield* archive.write(range, toColumns(ticks), toQuoteColumns(quotes))
  }
})

/** All that readers see: days as a whole, by instrument in order, and how many there are. */
const seen = Effect.gen(function* () {
  const archive = yield* Archive
  const days = yield* Effect.forEach(DATES, (date) =>
    Effect.map(Stream.runCollect(archive.read(date, undefined)), (all) =>
      all
        .flat()
        .toSorted(
          (a: StoredTick, b: StoredTick) =>
            a.instrument_token - b.instrument_token || a.exchange_ts - b.exchange_ts || a.sequence_id - b.sequence_id
        )
    )
  )
  const whole = { from: 0, to: OPEN * 2 }
  const pages = yield* Effect.forEach([1, 2, 3], (instrument_token) =>
    archive.ticks({ instrument_token, ...whole, limit: 1000 })
  )
  const counts = [...(yield* archive.counts(undefined, 0, OPEN * 2))].sort(([a], [b]) => a - b)
  const quotes = yield* Effect.forEach([1, 2, 3], (instrument_token) =>
    archive.quotePage({ instrument_token, ...whole, limit: 1000 })
  )
  const quoteDays = yield* Effect.forEach(DATES, (date) =>
    Effect.map(Stream.runCollect(archive.quotes(date, undefined)), (all) => all.flat().length)
  )
  return { days, pages, counts, quotes, quoteDays }
})

/** Every column of the rows in the objects that are listed, as a tool reads them that knows no more than Parquet. */
const asTheyLie = (place: Place) =>
  Effect.gen(function* () {
    const archive = yield* Archive
    const rows: Array<string> = []
    for (const date of DATES) {
      for (const { kind, name } of (yield* archive.list(date)).objects) {
        const bytes = yield* Effect.promise(() => place.bytes(`${kind}/date=${date}/${name}`))
        const found = yield* Effect.promise(() =>
          parquetReadObjects({
            file: { byteLength: bytes.length, slice: (from, to) => new Uint8Array(bytes.slice(from, to)).buffer },
            parsers: { timestampFromMicroseconds: String }
          })
        )
        for (const row of found) {
          rows.push(JSON.stringify(row, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value)))
        }
      }
    }
    return rows.sort()
  })

/** An object whose bytes of a column are none. */
const without = async (column: string, bytes: Uint8Array): Promise<Uint8Array> => {
  const slice = (from: number, to?: number) => new Uint8Array(bytes.slice(from, to)).buffer
  const { row_groups: groups } = await parquetMetadataAsync({ byteLength: bytes.length, slice })
  const damaged = Uint8Array.from(bytes)
  for (const { meta_data: data } of groups.flatMap(({ columns }) => columns)) {
    if (data?.path_in_schema[0] !== column) continue
    const start = Number(data.dictionary_page_offset ?? data.data_page_offset)
    damaged.fill(0xff, start, start + Number(data.total_compressed_size))
  }
  return damaged
}

const compact = Effect.flatMap(Archive, (archive) => archive.compact(ALL))
const objects = Effect.flatMap(Archive, (archive) =>
  Effect.map(
    Effect.forEach(DATES, (date) => archive.list(date)),
    (lists) => lists.flatMap((list) => list.objects)
  )
)
const child = fileURLToPath(new URL("./compactAndDie.ts", import.meta.url))
const killed = ({ args, env }: Place, at: string) =>
  Effect.promise(async () => {
    const started = spawn(process.execPath, [child, ...args], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, ...env, MDP_CRASH_AT: at }
    })
    const [code, signal] = (await once(started, "exit")) as [number | null, NodeJS.Signals | null]
    return signal ?? code
  })

describe("joinsOf", () => {
  it("puts neighbours together as long as they fit, and leaves large ones and those that stay alone", () => {
    const of = (...rows: ReadonlyArray<number>) =>
      joinsOf(
        rows.map((count, i) => ({ name: `${i}`, rows: count })),
        10
      )
    assert.deepStrictEqual(of(), [])
    assert.deepStrictEqual(of(1), [])
    assert.deepStrictEqual(of(1, 2, 3), [["0", "1", "2"]])
    assert.deepStrictEqual(of(4, 4, 4, 4, 1), [
      ["0", "1"],
      ["2", "3", "4"]
    ])
    assert.deepStrictEqual(of(1, 9, 1), [["0", "2"]])
    assert.deepStrictEqual(of(9, 6, 8), [])
  })
})

for (const { name, place } of places) {
  describe(`small objects of closed days, on ${name}`, () => {
    it.effect("become few, which readers and tools see no difference by, and what they covered goes later", () =>
      Effect.gen(function* () {
        const here = yield* place
        yield* Effect.gen(function* () {
          yield* fill
          const before = yield* seen
          const lying = yield* asTheyLie(here)
          assert.strictEqual(lying.length, ROWS)
          const archive = yield* Archive
          assert.strictEqual(yield* archive.compact(DATES[0]!), 0)
          assert.isAbove(yield* archive.compact(DATES[1]!), 0)
          // The second day has not closed.
          assert.strictEqual((yield* archive.list(DATES[1]!)).objects.length, 8)
          assert.isAbove(yield* compact, 0)
          const few = yield* objects
          assert.isBelow(few.length, 12)
          assert.deepStrictEqual(yield* seen, before)
          assert.deepStrictEqual(yield* asTheyLie(here), lying)
          // Who listed them before can still read them.
          const all = yield* Effect.promise(here.keys)
          assert.strictEqual(all.length, OBJECTS + few.length)
          assert.strictEqual(yield* compact, 0)
          yield* TestClock.adjust("11 minutes")
          assert.strictEqual(yield* compact, 0)
          assert.strictEqual((yield* Effect.promise(here.keys)).length, few.length)
          assert.deepStrictEqual(yield* seen, before)
          assert.deepStrictEqual(yield* asTheyLie(here), lying)
          assert.strictEqual(yield* compact, 0)

          // Fed again by another life, and by one that was killed before it committed: there is nothing to add.
          for (const { range, ticks, quotes } of RANGES) {
            assert.strictEqual(yield* archive.write(range, toColumns(ticks), toQuoteColumns(quotes)), 7)
            assert.strictEqual(
              yield* archive.write({ ...range, incarnation: "life-9" }, toColumns(ticks), NO_QUOTES),
              7
            )
          }
          assert.strictEqual((yield* Effect.promise(here.keys)).length, few.length)
          // What is new has a place, and is joined in its turn.
          const late = makeTick({ instrument_token: 2, sequence_id: 5000, position: 5000 })
          const last = { incarnation: "life-9", partition: 0, first: 9000, last: 9000 }
          assert.strictEqual(yield* archive.write(last, toColumns([late]), NO_QUOTES), 0)
          yield* compact
          const grown = yield* seen
          assert.isTrue(grown.days[0]!.some(({ sequence_id }) => sequence_id === 5000))
          assert.strictEqual((yield* asTheyLie(here)).length, lying.length + 1)
        }).pipe(Effect.provide(here.open(OPTIONS)))
        // As another process finds it.
        const again = yield* asTheyLie(here).pipe(Effect.provide(here.open(OPTIONS)))
        assert.strictEqual(again.length, ROWS + 1)
      })
    )

    it.effect("are read on by who was in the middle of them when they went", () =>
      Effect.gen(function* () {
        const here = yield* place
        yield* Effect.gen(function* () {
          yield* fill
          const archive = yield* Archive
          const keys: Array<string> = []
          const hasBegun = yield* Deferred.make<void>()
          const mayGoOn = yield* Deferred.make<void>()
          const reader = yield* Effect.forkChild(
            Stream.runForEach(archive.read(DATES[0]!, undefined), (ticks) =>
              Effect.gen(function* () {
                for (const { instrument_token, exchange_ts, sequence_id } of ticks) {
                  keys.push(`${instrument_token} ${exchange_ts} ${sequence_id}`)
                }
                yield* Deferred.succeed(hasBegun, undefined)
                yield* Deferred.await(mayGoOn)
              })
            )
          )
          yield* Deferred.await(hasBegun)
          yield* compact
          yield* compact
          assert.isBelow((yield* Effect.promise(here.keys)).length, 12)
          yield* Deferred.succeed(mayGoOn, undefined)
          yield* Fiber.join(reader)
          assert.strictEqual(keys.length, 12 * 7)
          assert.strictEqual(new Set(keys).size, 12 * 7)
        }).pipe(Effect.provide(here.open({ ...OPTIONS, coveredForMs: 0 })))
      })
    )

    it.effect("are joined by several at once, while ticks are written and read", () =>
      Effect.gen(function* () {
        const here = yield* place
        const options = { ...OPTIONS, coveredForMs: 0 }
        const before = yield* Effect.andThen(fill, seen).pipe(Effect.provide(here.open(options)))
        // Opening clears what was left half done: all are open before any begins.
        const opened = yield* Effect.forEach([1, 2, 3, 4, 5], () => Layer.build(Layer.fresh(here.open(options))))
        const [writer, reader, ...joiners] = opened as [(typeof opened)[0], (typeof opened)[0], ...typeof opened]
        const reading = Effect.gen(function* () {
          for (let time = 0; time < 5; time++) assert.deepStrictEqual(yield* seen, before)
        })
        yield* Effect.all(
          [
            Effect.andThen(fill, fill).pipe(Effect.provide(writer)),
            reading.pipe(Effect.provide(reader)),
            ...joiners.map((joiner) => Effect.andThen(compact, compact).pipe(Effect.provide(joiner)))
          ],
          { concurrency: "unbounded" }
        )
        const lying = yield* Effect.andThen(compact, asTheyLie(here)).pipe(Effect.provide(here.open(options)))
        assert.strictEqual(lying.length, ROWS)
        assert.strictEqual(new Set(lying).size, ROWS)
        assert.deepStrictEqual(yield* seen.pipe(Effect.provide(here.open(options))), before)
      })
    )

    it.effect("leave a corrupt one aside, named, and lose nothing of the others", () =>
      Effect.gen(function* () {
        const here = yield* place
        const key = `ticks/date=${DATES[0]}/life-0-0-0-9.parquet`
        yield* fill.pipe(Effect.provide(here.open(OPTIONS)))
        const bytes = yield* Effect.promise(() => here.bytes(key))
        yield* Effect.promise(() =>
          here.put(
            key,
            bytes.map((byte, i) => (i >= 4 && i < 100 ? 0xff : byte))
          )
        )
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          yield* compact
          const { objects: few, unreadable } = yield* archive.list(DATES[0]!)
          assert.strictEqual(
            few.reduce((sum, { kind, rows }) => sum + (kind === "ticks" ? rows : 0), 0),
            11 * 7
          )
          assert.deepStrictEqual(
            unreadable.map((one) => one.name),
            ["life-0-0-0-9.parquet"]
          )
          yield* TestClock.adjust("11 minutes")
          yield* compact
          assert.include(yield* Effect.promise(here.keys), key)
          // It comes again from elsewhere.
          yield* archive.add(toColumns(RANGES[0]!.ticks), NO_QUOTES)
          assert.strictEqual((yield* seen).days[0]!.length, 12 * 7)
        }).pipe(Effect.provide(here.open(OPTIONS)))
      })
    )

    it.effect.each(["instrument_token", "price"])(
      "that are covered are read where what covers them is corrupt: %s",
      (column) =>
        Effect.gen(function* () {
          const here = yield* place
          const before = yield* Effect.andThen(fill, seen).pipe(Effect.provide(here.open(OPTIONS)))
          yield* Effect.gen(function* () {
            yield* compact
            // What is listed, and what each object says of itself, is known by then.
            assert.deepStrictEqual(yield* seen, before)
            for (const key of (yield* Effect.promise(here.keys)).filter((one) => one.includes("joined-"))) {
              const bytes = yield* Effect.promise(() => here.bytes(key))
              yield* Effect.promise(async () => here.put(key, await without(column, bytes)))
            }
            assert.deepStrictEqual(yield* seen, before)
            assert.isNotEmpty((yield* (yield* Archive).list(DATES[0]!)).unreadable)
          }).pipe(Effect.provide(here.open(OPTIONS)))
        })
    )

    for (const at of [
      "after-plan",
      "after-joined-object",
      "after-joined-object:2",
      "after-joined-check",
      "after-joined-check:3",
      "after-covered-removed",
      "after-covered-removed:4",
      // The first ones are of ticks.
      "after-plan:3",
      "after-joined-object:6",
      "after-joined-check:6",
      "after-covered-removed:20"
    ] satisfies Array<`${(typeof SELDOM_CRASH_POINTS)[number]}${"" | `:${number}`}`>) {
      it.effect(
        `are all there once after a kill ${at.replaceAll(/[-:]/g, " ")}, and after the next one did the rest`,
        () =>
          Effect.gen(function* () {
            const here = yield* place
            const options = { ...OPTIONS, coveredForMs: 0 }
            const [before, lying] = yield* Effect.gen(function* () {
              yield* fill
              return [yield* seen, yield* asTheyLie(here)] as const
            }).pipe(Effect.provide(here.open(options)))
            assert.strictEqual(yield* killed(here, at), "SIGKILL")
            yield* Effect.gen(function* () {
              assert.deepStrictEqual(yield* seen, before)
              assert.deepStrictEqual(yield* asTheyLie(here), lying)
              yield* compact
              yield* compact
              assert.deepStrictEqual(yield* seen, before)
              assert.deepStrictEqual(yield* asTheyLie(here), lying)
              const few = yield* objects
              assert.isBelow(few.length, 12)
              assert.strictEqual((yield* Effect.promise(here.keys)).length, few.length)
            }).pipe(Effect.provide(here.open(options)))
          })
      )
    }
  })
}
