import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Stream } from "effect"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import * as HistoryLayer from "../../../src/layers/history/History.ts"
import { compareQuotes } from "../../../src/schema/Quote.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { tradingDate, tradingDay } from "../../../src/schema/Tick.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive, noArchive } from "../../../src/streams/ports/Archive.ts"
import { type StoredTick, type TickQuery, TickStore } from "../../../src/streams/ports/TickStore.ts"
import type { SELDOM_CRASH_POINTS } from "../../../src/streams/run/crashPoint.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { dropOldDays, retention } from "../../../src/streams/sinks/retention.ts"
import { NO_QUOTES, toStored } from "../../contract/ticks.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { withinOneDay } from "../../support/oneDay.ts"
import { oldQuotes, oldTicks } from "./oldTicks.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "retention-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const child = fileURLToPath(new URL("./dropAndDie.ts", import.meta.url))
/** How it ended: its exit code, or the signal. */
const run = (made: string, what: "fill" | "drop", crashAt = "") =>
  Effect.promise(async () => {
    const env = { ...process.env, MDP_CRASH_AT: crashAt }
    const started = spawn(process.execPath, [child, made, what], { stdio: ["ignore", "ignore", "inherit"], env })
    const [code, signal] = (await once(started, "exit")) as [number | null, NodeJS.Signals | null]
    return signal ?? code
  })

/** Whole days, as the store has them. */
const MICROS_PER_DAY = 86_400_000_000

/** A store that has two old days and one that it keeps, and an archive in a folder that has some of it. */
const world = Effect.gen(function* () {
  yield* Effect.promise(() => withinOneDay(20_000))
  const made = yield* folder
  const rows = new Rows()
  const ticks = oldTicks()
  rows.ticks.push(...ticks.map(toStored))
  const quotes = oldQuotes()
  rows.quotes.push(...quotes)
  const first = ticks[0]!.exchange_ts - 10 * 3_600_000_000
  const days = [0, 1].map((n) => [first + n * MICROS_PER_DAY, first + (n + 1) * MICROS_PER_DAY] as const)
  const dropped: Array<number> = []
  const store = memoryStore(rows, {
    oldDays: Effect.sync(() => ({ before: days[1]![1], days: days.filter(([, to]) => !dropped.includes(to)) })),
    dropDays: (before) =>
      Effect.sync(() => {
        const gone = days.filter(([, to]) => to <= before && !dropped.includes(to))
        dropped.push(...gone.map(([, to]) => to))
        return gone.length
      })
  })
  const archive = yield* Effect.map(Layer.build(ParquetFiles.layer(made)), (built) => built)
  return {
    made,
    ticks,
    quotes,
    days,
    dropped,
    layer: Layer.mergeAll(store, Layer.succeedContext(archive), Readiness.layer)
  }
})

const dateOf = (micros: number): string => tradingDate(tradingDay(micros))
const archived = (date: string) =>
  Effect.flatMap(Archive, (archive) =>
    Effect.map(Stream.runCollect(archive.read(date, undefined)), (all) => all.flat())
  )
const quotesOf = (date: string) =>
  Effect.flatMap(Archive, (archive) =>
    Effect.map(Stream.runCollect(archive.quotes(date, undefined)), (all) => all.flat().toSorted(compareQuotes))
  )
const range = { incarnation: "normalized-1", partition: 0, first: 0, last: 9 }

describe("days that the store is to keep no longer", () => {
  it.live("go once the archive was read back, which is handed what it lacked", () =>
    Effect.gen(function* () {
      const { ticks, quotes, days, dropped, layer } = yield* world
      yield* Effect.gen(function* () {
        const archive = yield* Archive
        // Some it lacks, of one it has the depth that the store has not, of another an earlier one of its instant.
        const deep = { ...quotes[4]!, bid: [...quotes[4]!.bid!, [99, 1, 1] as const] }
        const earlier = { ...quotes[5]!, oi: 1, source: ["raw-1", 3, 1] as const }
        const some = quotes.filter((_, i) => i % 3 === 0 && i !== 4 && i !== 5)
        const columns = toQuoteColumns([...some, deep, earlier])
        yield* archive.write(range, toColumns(ticks.filter((_, i) => i % 3 !== 0)), columns)
        assert.deepStrictEqual(yield* dropOldDays, { dropped: 2, reason: undefined })
        assert.deepStrictEqual(dropped, [days[0]![1], days[1]![1]])
        for (const [from] of days) {
          const wanted = ticks.filter(({ exchange_ts }) => dateOf(exchange_ts) === dateOf(from)).map(toStored)
          const sorted = (all: ReadonlyArray<StoredTick>) =>
            all.toSorted((a, b) => a.instrument_token - b.instrument_token || a.sequence_id - b.sequence_id)
          assert.deepStrictEqual(sorted(yield* archived(dateOf(from))), sorted(wanted))
          const expected = quotes.filter(({ exchange_ts }) => dateOf(exchange_ts) === dateOf(from))
          assert.deepStrictEqual(
            yield* quotesOf(dateOf(from)),
            expected.map((quote) => (quote === quotes[4] ? deep : quote))
          )
        }
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.scoped)
  )

  it.live("stay where an object of theirs is corrupt, those after them too, and are named until it is put right", () =>
    Effect.gen(function* () {
      const { made, ticks, days, dropped, layer } = yield* world
      const date = dateOf(days[1]![0])
      const object = join(made, "ticks", `date=${date}`, "normalized-1-0-10-19.parquet")
      yield* Effect.gen(function* () {
        const archive = yield* Archive
        yield* archive.write(range, toColumns(ticks), NO_QUOTES)
        writeFileSync(object, "no Parquet")
        const { dropped: gone, reason } = yield* dropOldDays
        assert.strictEqual(gone, 1)
        assert.match(
          reason!,
          new RegExp(`^${date}: the archive's object normalized-1-0-10-19.parquet of ${date} cannot`)
        )
        assert.deepStrictEqual(dropped, [days[0]![1]])
        // The rest is there, and what the object may have held is looked for in vain.
        assert.strictEqual((yield* archived(date)).length, 50)
      }).pipe(Effect.provide(layer))
      rmSync(object)
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* dropOldDays, { dropped: 1, reason: undefined })
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.scoped)
  )

  it.live("stay where nothing is archived, which is said", () =>
    Effect.gen(function* () {
      const said: Array<string> = []
      const logger = Logger.layer([Logger.make(({ message }) => void said.push(String(message)))])
      const store = memoryStore(new Rows(), { oldDays: Effect.die("is not asked") })
      const told = Effect.gen(function* () {
        while (said.length === 0) yield* Effect.yieldNow
      })
      yield* Effect.raceFirst(retention({ STORE_DAYS: 3 }), told).pipe(
        Effect.provide([store, Layer.succeed(Archive, noArchive), Readiness.layer, logger])
      )
      assert.deepStrictEqual(said, ["store: STORE_DAYS is set, but nothing is archived: all days stay"])
    })
  )

  it.live("are read again where they were dropped while they were read", () =>
    Effect.gen(function* () {
      const { ticks, days, layer } = yield* world
      yield* Effect.gen(function* () {
        const archive = yield* Archive
        yield* archive.write(range, toColumns(ticks), NO_QUOTES)
        const store = yield* TickStore
        let held = Number.NEGATIVE_INFINITY
        const dropping: TickStore["Service"] = {
          ...store,
          held: Effect.sync(() => held),
          // The first page is read while the first day goes, the second while the other does.
          ticks: (query: TickQuery) =>
            Effect.suspend(() => {
              const next = days.find(([, to]) => to > held)
              held = next?.[1] ?? held
              return store.ticks({ ...query, from: Math.max(query.from, held) })
            })
        }
        const history = HistoryLayer.make(dropping, archive)
        const query = { instrument_token: 1, from: days[0]![0], to: Number.MAX_SAFE_INTEGER, limit: 1000 }
        assert.deepStrictEqual(yield* history.ticks(query), yield* store.ticks(query))
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.scoped)
  )

  for (const point of ["after-handed-over", "after-read-back", "after-days-dropped"] satisfies Array<
    (typeof SELDOM_CRASH_POINTS)[number]
  >) {
    it.live(`are whole in one place or the other after a kill ${point.replaceAll("-", " ")}`, () =>
      Effect.gen(function* () {
        yield* Effect.promise(() => withinOneDay(60_000))
        const made = yield* folder
        assert.strictEqual(yield* run(made, "fill"), 0)
        assert.strictEqual(yield* run(made, "drop", point), "SIGKILL")
        assert.strictEqual(yield* run(made, "drop"), 0)
        const ticks = oldTicks()
        yield* Effect.gen(function* () {
          for (const date of new Set(ticks.map(({ exchange_ts }) => dateOf(exchange_ts)))) {
            const keys = (yield* archived(date)).map((tick) => `${tick.instrument_token} ${tick.sequence_id}`)
            const isOld = date < dateOf((Date.now() - 3 * 86_400_000) * 1000)
            assert.strictEqual(new Set(keys).size, keys.length)
            if (isOld) assert.strictEqual(keys.length, 50, date)
            const wanted = oldQuotes().filter(({ exchange_ts }) => dateOf(exchange_ts) === date)
            assert.deepStrictEqual(yield* quotesOf(date), isOld ? wanted : [])
            // Handed over twice it would lie there twice.
            const objects = readdirSync(join(made, "archive", "ticks", `date=${date}`))
            assert.strictEqual(objects.length, isOld ? 2 : 1)
          }
        }).pipe(Effect.provide(ParquetFiles.layer(join(made, "archive"))))
      }).pipe(Effect.scoped)
    )
  }
})
