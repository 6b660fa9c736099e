import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Logger, Schema, type Scope, Stream } from "effect"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../src/layers/archive/S3.ts"
import { barStart } from "../../src/schema/Candle.ts"
import type { ArchiveError, RangeTaken } from "../../src/schema/Errors.ts"
import { compareQuotes, type Quote } from "../../src/schema/Quote.ts"
import { toQuoteColumns } from "../../src/schema/QuoteColumns.ts"
import { compareTicks, type Tick, tradingDate, tradingDay } from "../../src/schema/Tick.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { Archive, type ArchiveRange } from "../../src/streams/ports/Archive.ts"
import type { StoredTick, TickCursor } from "../../src/streams/ports/TickStore.ts"
import { emptyBucket, objectIn, putInto } from "../support/buckets.ts"
import { quoteOf } from "../support/quotes.ts"
import { s3 } from "../support/services.ts"
import { DAY, EPOCH, makeQuote, makeTick, OPEN, toStored } from "./ticks.ts"

/** A place for an archive, empty, gone with the scope; each use of the layer opens it anew. */
type Place = Effect.Effect<Layer.Layer<Archive>, never, Scope.Scope>

/** The same, and a way to put any bytes where an object is, made of those that are there. */
type Spoiled = Effect.Effect<
  {
    readonly layer: Layer.Layer<Archive>
    readonly spoil: (key: string, of: (bytes: Uint8Array) => Uint8Array) => Promise<void>
  },
  never,
  Scope.Scope
>

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const access = await s3()

/** Every layer of the archive. */
const places: ReadonlyArray<{ readonly name: string; readonly place: Place }> = [
  { name: "files", place: Effect.map(folder, (made) => Layer.orDie(ParquetFiles.layer(made))) },
  {
    name: "files, a day read in many parts",
    place: Effect.map(folder, (made) => Layer.orDie(ParquetFiles.layer(made, { maxKeys: 3 })))
  },
  ...(access === undefined
    ? []
    : [
        { name: "S3", place: Effect.map(emptyBucket(access), (options) => Layer.orDie(S3.layer(options))) },
        {
          name: "S3, a day read in many parts",
          place: Effect.map(emptyBucket(access), (options) => Layer.orDie(S3.layer(options, { maxKeys: 3 })))
        }
      ])
]

/** Each kind of place once, with a way into it past the archive. */
const spoiled: ReadonlyArray<{ readonly name: string; readonly place: Spoiled }> = [
  {
    name: "files",
    place: Effect.map(folder, (made) => ({
      layer: Layer.orDie(ParquetFiles.layer(made)),
      spoil: async (key, of) => writeFileSync(join(made, key), of(readFileSync(join(made, key))))
    }))
  },
  ...(access === undefined
    ? []
    : [
        {
          name: "S3",
          place: Effect.map(
            emptyBucket(access),
            (options): Effect.Success<Spoiled> => ({
              layer: Layer.orDie(S3.layer(options)),
              spoil: async (key, of) => putInto(access, key, of(await objectIn(access, key)))
            })
          )
        }
      ])
]

const DATE = tradingDate(DAY)
const A_DAY = 86_400_000_000

const range = (first: number, last: number, partition = 0, incarnation = "normalized-1"): ArchiveRange => ({
  incarnation,
  partition,
  first,
  last
})

const sorted = (ticks: ReadonlyArray<StoredTick>): ReadonlyArray<StoredTick> =>
  ticks.toSorted(
    (a, b) => a.instrument_token - b.instrument_token || a.exchange_ts - b.exchange_ts || a.sequence_id - b.sequence_id
  )

const write = (
  of: ArchiveRange,
  ticks: ReadonlyArray<Tick>,
  quotes: ReadonlyArray<Quote> = []
): Effect.Effect<number, ArchiveError | RangeTaken, Archive> =>
  Effect.flatMap(Archive, (archive) => archive.write(of, toColumns(ticks), toQuoteColumns(quotes)))

const inOrder = (quotes: ReadonlyArray<Quote>): ReadonlyArray<Quote> =>
  quotes.toSorted((a, b) => a.instrument_token - b.instrument_token || compareQuotes(a, b))

/** The quotes of a day, by instrument and time. */
const readQuotes = (date: string, tokens?: ReadonlyArray<number>) =>
  Effect.flatMap(Archive, (archive) =>
    Effect.map(Stream.runCollect(archive.quotes(date, tokens)), (parts) => inOrder(parts.flat()))
  )

/** The ticks of a day, in the order of their primary keys. */
const readAll = (
  date: string,
  tokens?: ReadonlyArray<number>
): Effect.Effect<ReadonlyArray<StoredTick>, ArchiveError, Archive> =>
  Effect.gen(function* () {
    const archive = yield* Archive
    return sorted((yield* Stream.runCollect(archive.read(date, tokens))).flat())
  })

const run = (count: number, given: Partial<Tick> = {}): ReadonlyArray<Tick> =>
  Array.from({ length: count }, (_, i) =>
    makeTick({
      ...given,
      exchange_ts: (given.exchange_ts ?? OPEN) + i * 1000,
      sequence_id: i + 1,
      position: i + 1,
      price: 100 + i * 0.05
    })
  )

const quotesOf = (token: number, count: number, first = 0): ReadonlyArray<Quote> =>
  Array.from({ length: count }, (_, i) =>
    quoteOf(first + i, { instrument_token: token, exchange_ts: OPEN + (first + i) * 1000 })
  )

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const AnyRange = Schema.Array(
  Schema.Struct({ token: int(1, 3), ms: int(0, 3), id: int(-2, 4), price: int(0, 100_000) })
).pipe(Schema.check(Schema.isMaxLength(20)))

const AnyQuotes = Schema.Array(
  Schema.Struct({ token: int(1, 3), ms: int(0, 3), offset: int(0, 9), topic: int(0, 1), i: int(0, 50) })
).pipe(Schema.check(Schema.isMaxLength(20)))

for (const { name, place } of places) {
  describe(`Archive on ${name}`, () => {
    it.effect("gives back exactly what was written", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const ticks = [
          makeTick({
            instrument_token: 2_147_483_647,
            price: 83.1234567,
            sequence_id: 2 ** 53 - 1,
            volume: 2 ** 53 - 1
          }),
          makeTick({ instrument_token: 1, price: 0, sequence_id: -(2 ** 48), sequencing: "none", volume: 0 }),
          makeTick({
            instrument_token: 2,
            price: 1_000_000_000,
            sequencing: "monotonic",
            session: 999,
            feed: "snapshot"
          }),
          makeTick({ instrument_token: 3, price: 0.1 + 0.2, status: "STALE", gap_from: 17, feed: "my feed ☂" }),
          makeTick({ instrument_token: 4, price: 0.0000001, old: true, source: ["another-raw", 2 ** 53 - 1, 999] }),
          makeTick({ instrument_token: 5, exchange_ts: OPEN + 1, received_ts: OPEN + 86_399_999_999, epoch: EPOCH + 7 })
        ]
        yield* Effect.gen(function* () {
          yield* write(range(0, 5), ticks)
          assert.deepStrictEqual(yield* readAll(DATE), sorted(ticks.map(toStored)))
        }).pipe(Effect.provide(layer))
        const reopened = yield* readAll(DATE).pipe(Effect.provide(layer))
        assert.deepStrictEqual(reopened, sorted(ticks.map(toStored)))
      })
    )

    it.effect("remembers a range that was begun, by its first offset, also after it was closed", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          assert.isUndefined(yield* archive.begun("normalized-1", 0, 10))
          yield* write(range(10, 19), run(3))
          assert.deepStrictEqual(yield* archive.begun("normalized-1", 0, 10), range(10, 19))
        }).pipe(Effect.provide(layer))
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          assert.deepStrictEqual(yield* archive.begun("normalized-1", 0, 10), range(10, 19))
          assert.isUndefined(yield* archive.begun("normalized-1", 0, 11))
          assert.isUndefined(yield* archive.begun("normalized-1", 1, 10))
          assert.isUndefined(yield* archive.begun("normalized-2", 0, 10))
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("changes nothing when asked again, also after it was closed", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const ticks = run(20)
        for (let time = 0; time < 3; time++) {
          yield* Effect.gen(function* () {
            yield* write(range(0, 19), ticks)
            yield* write(range(0, 19), ticks)
            assert.deepStrictEqual(yield* readAll(DATE), ticks.map(toStored))
          }).pipe(Effect.provide(layer))
        }
      })
    )

    it.effect("refuses another range that starts where one was begun, and says which", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          yield* write(range(0, 9), run(3))
          const longer = yield* Effect.flip(write(range(0, 11), run(5)))
          assert.deepInclude(longer, { _tag: "RangeTaken", last: 9 })
          assert.match(longer.message, /ends at 9 .*got one that ends at 11/)
          const elsewhere = yield* Effect.flip(write(range(0, 9), run(3, { exchange_ts: OPEN + A_DAY })))
          assert.strictEqual(elsewhere._tag, "ArchiveError")
          assert.match(elsewhere.message, /2026-01-15.*2026-01-16/)
          assert.strictEqual((yield* readAll(DATE)).length, 3)
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("puts each tick under its trading day in India", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const midnight = OPEN - 33_300_000_000
        const ticks = [midnight - 1, midnight, midnight + A_DAY - 1, midnight + A_DAY].map((exchange_ts, i) =>
          makeTick({ exchange_ts, sequence_id: i })
        )
        yield* Effect.gen(function* () {
          yield* write(range(0, 3), ticks)
          const stored = ticks.map(toStored)
          assert.deepStrictEqual(yield* readAll("2026-01-14"), stored.slice(0, 1))
          assert.deepStrictEqual(yield* readAll(DATE), stored.slice(1, 3))
          assert.deepStrictEqual(yield* readAll("2026-01-16"), stored.slice(3))
          assert.deepStrictEqual(yield* readAll("2026-01-17"), [])
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("gives one row a primary key, within an object and across objects of any partition and topic", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const ticks = run(5)
        const again = ticks.map((tick): Tick => ({ ...tick, position: tick.position + 100 }))
        yield* Effect.gen(function* () {
          yield* write(range(0, 9), [...ticks, ...again])
          yield* write(range(10, 14), again)
          yield* write(range(0, 4, 1), again)
          yield* write(range(0, 5, 0, "normalized-2"), [...again, makeTick({ instrument_token: 9 })])
          const read = yield* readAll(DATE)
          assert.deepStrictEqual(
            read.map(({ instrument_token, exchange_ts, sequence_id }) => [instrument_token, exchange_ts, sequence_id]),
            [...ticks, makeTick({ instrument_token: 9 })]
              .map((tick) => [tick.instrument_token, tick.exchange_ts, tick.sequence_id])
              .toSorted(([a], [b]) => a! - b!)
          )
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("leaves out what it has under its key already, of another life of the topic or before, and says so", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const ticks = run(40)
        const more = run(20, { instrument_token: 9, exchange_ts: OPEN + 100 })
        // As a log that was started again gives them: other places, epochs and positions, the same keys.
        const again = [...ticks, ...more].map((tick): Tick => ({ ...tick, epoch: EPOCH + 9, position: 7 }))
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* write(range(0, 29), ticks.slice(0, 30)), 0)
          assert.strictEqual(yield* write(range(30, 39), ticks.slice(30)), 0)
          assert.strictEqual(yield* write(range(0, 59, 0, "normalized-2"), again), 40)
          // Whether that was the last step before a crash or not.
          assert.strictEqual(yield* write(range(0, 59, 0, "normalized-2"), again), 0)
          // All of it: there is no object then, and no harm in asking again.
          assert.strictEqual(yield* write(range(0, 59, 3, "normalized-3"), again), 60)
          assert.strictEqual(yield* write(range(0, 59, 3, "normalized-3"), again), 60)
          // The state of a day was lost, and its file sent again.
          assert.strictEqual(yield* write(range(60, 119, 0, "normalized-2"), again), 60)
          assert.deepStrictEqual(yield* readAll(DATE), sorted([...ticks, ...again.slice(40)].map(toStored)))
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("reads some instruments of a day, and refuses what is no day", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          yield* write(range(0, 9), [
            ...run(4, { instrument_token: 1 }),
            ...run(4, { instrument_token: 2 }),
            ...run(4, { instrument_token: 3 })
          ])
          yield* write(range(10, 19), run(4, { instrument_token: 3, exchange_ts: OPEN + 500 }))
          const tokensOf = (ticks: ReadonlyArray<StoredTick>) => ticks.map((tick) => tick.instrument_token)
          assert.deepStrictEqual(tokensOf(yield* readAll(DATE, [3, 1, 99])), [1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3])
          assert.deepStrictEqual(yield* readAll(DATE, []), [])
          assert.deepStrictEqual(yield* readAll(DATE, [99]), [])
          for (const date of ["2026-02-31", "../..", ""]) {
            const error = yield* Effect.flip(readAll(date))
            assert.match(error.message, /^date: expected YYYY-MM-DD/)
          }
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("takes a range that held no tick, and a name that is no incarnation not at all", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          yield* write(range(0, 9), [])
          assert.deepStrictEqual(yield* archive.begun("normalized-1", 0, 0), range(0, 9))
          const error = yield* Effect.flip(write(range(0, 9, 0, "../../etc"), run(1)))
          assert.match(error.message, /^incarnation: expected letters.*got \.\.\/\.\.\/etc/)
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("can be left in the middle of a day, and read again", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          for (let i = 0; i < 3; i++) yield* write(range(i, i), run(5, { instrument_token: i + 1 }))
          const some = yield* Stream.runCollect(archive.read(DATE, undefined).pipe(Stream.take(1)))
          assert.strictEqual(some.length, 1)
          assert.strictEqual((yield* readAll(DATE)).length, 15)
          // Two readers at once do not see each other's keys.
          const [a, b] = yield* Effect.all([readAll(DATE), readAll(DATE)], { concurrency: 2 })
          assert.deepStrictEqual(a, b)
          assert.strictEqual(a.length, 15)
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("gives one instrument's ticks by pages of any size, in the order of ticks, over days and objects", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const mine = (given: Partial<Tick>): Tick => makeTick({ instrument_token: 2, ...given })
        // Ties, late ones, a number twice, ticks without a number, and a row that a replay had added.
        const first = [
          ...run(9, { instrument_token: 2 }),
          mine({ exchange_ts: OPEN, sequence_id: -7, position: 90 }),
          mine({ exchange_ts: OPEN, sequence_id: -9, position: 80 }),
          mine({ exchange_ts: OPEN + A_DAY, sequence_id: 3, position: 1, epoch: EPOCH + A_DAY })
        ]
        const later = [
          mine({ exchange_ts: OPEN + 3500, sequence_id: 40, position: 12 }),
          mine({ exchange_ts: OPEN + 2000, sequence_id: 41, position: 13 }),
          mine({ exchange_ts: OPEN + 2000, sequence_id: -3, epoch: Number.NaN, position: Number.NaN })
        ]
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          yield* write(range(0, 20), [...first, ...run(5, { instrument_token: 1 }), ...run(5, { instrument_token: 3 })])
          yield* write(range(21, 30), [...later, first[4]!])
          const all = [...first, ...later]
            .map(toStored)
            .map((tick) => (Number.isNaN(tick.epoch) ? { ...tick, epoch: null, position: null } : tick))
            .sort(compareTicks)
          const pages = Effect.fnUntraced(function* (from: number, to: number, limit: number) {
            const found: Array<StoredTick> = []
            let after: TickCursor | undefined
            for (;;) {
              const query = { instrument_token: 2, from, to, limit, ...(after === undefined ? {} : { after }) }
              const page = yield* archive.ticks(query)
              found.push(...page)
              if (page.length < limit) return found
              after = page.at(-1)!
            }
          })
          for (const limit of [1, 2, 5, 1000]) {
            assert.deepStrictEqual(yield* pages(OPEN - A_DAY, OPEN + 2 * A_DAY, limit), all, String(limit))
            const [from, to] = [OPEN + 2000, OPEN + 3500]
            const some = all.filter(({ exchange_ts }) => exchange_ts >= from && exchange_ts < to)
            assert.deepStrictEqual(yield* pages(from, to, limit), some)
          }
          assert.deepStrictEqual(yield* archive.ticks({ instrument_token: 9, from: 0, to: OPEN * 2, limit: 5 }), [])
          // What is written meanwhile is in the next page.
          const late = mine({ exchange_ts: OPEN + 2500, sequence_id: 77, position: 99 })
          yield* write(range(31, 31), [late])
          const grown = [...all, toStored(late)].sort(compareTicks)
          assert.deepStrictEqual(yield* pages(OPEN - A_DAY, OPEN + 2 * A_DAY, 3), grown)
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("counts what there is of some instruments or all, and makes minutes of it", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          const minute = 60_000_000
          const ticks = [1, 2].flatMap((instrument_token) =>
            Array.from({ length: 10 }, (_, i) =>
              makeTick({
                instrument_token,
                exchange_ts: OPEN + Math.floor(i / 3) * minute + i,
                sequence_id: i + 1,
                position: i + 1,
                price: 100 + ((i * 7) % 5),
                volume: i
              })
            )
          )
          const nextDay = run(4, { instrument_token: 1, exchange_ts: OPEN + A_DAY })
          yield* write(range(0, 9), [...ticks.slice(0, 13), ...nextDay])
          yield* write(range(10, 19), ticks.slice(8))
          const counted = (tokens: ReadonlyArray<number> | undefined, from: number, to: number) =>
            Effect.map(archive.counts(tokens, from, to), (found) => [...found].sort(([a], [b]) => a - b))
          assert.deepStrictEqual(yield* counted(undefined, 0, OPEN + 2 * A_DAY), [
            [1, 14],
            [2, 10]
          ])
          assert.deepStrictEqual(yield* counted([2, 5], OPEN + minute, OPEN + 2 * minute), [[2, 3]])
          assert.deepStrictEqual(yield* counted([1], OPEN + A_DAY, OPEN + A_DAY + 2000), [[1, 2]])
          assert.deepStrictEqual(yield* counted(undefined, OPEN - 1, OPEN), [])
          const minutes = (from: number, to: number, limit: number) =>
            archive.minutes({ instrument_token: 1, from, to, limit })
          const expected = [0, 1, 2, 3].map((n) => {
            const own = ticks.filter(
              (t) => t.instrument_token === 1 && barStart(t.exchange_ts, "1m") === OPEN + n * minute
            )
            const prices = own.map(({ price }) => price)
            return {
              ts: OPEN + n * minute,
              open: prices[0]!,
              high: Math.max(...prices),
              low: Math.min(...prices),
              close: prices.at(-1)!,
              volume: own.reduce((sum, { volume }) => sum + volume, 0)
            }
          })
          assert.deepStrictEqual(yield* minutes(OPEN, OPEN + A_DAY, 100), expected)
          assert.deepStrictEqual(yield* minutes(OPEN + minute, OPEN + 3 * minute, 100), expected.slice(1, 3))
          assert.deepStrictEqual(yield* minutes(0, OPEN + 2 * A_DAY, 3), expected.slice(0, 3))
          // Of the minutes that have ticks those have an open interest that quotes told one in, the last.
          const told = [5, 30, 45, 190, 600].map((second, i) =>
            makeQuote({
              instrument_token: 1,
              exchange_ts: OPEN + second * 1_000_000,
              oi: 1000 + i,
              source: ["raw-1", i, 1]
            })
          )
          const nothing = { ...told[2]!, oi: undefined, source: ["raw-1", 9, 1] as const }
          yield* write(range(50, 50), [], [told[2]!, told[0]!, ...told.slice(3)])
          yield* write(range(51, 51), [], [told[1]!, nothing, makeQuote({ instrument_token: 2, oi: 7 })])
          const withOi = [{ ...expected[0]!, oi: 1002 }, expected[1]!, expected[2]!, { ...expected[3]!, oi: 1003 }]
          assert.deepStrictEqual(yield* minutes(OPEN, OPEN + A_DAY, 100), withOi)
          // A late tick is in its minute at once.
          yield* write(range(20, 20), [
            makeTick({ instrument_token: 1, exchange_ts: OPEN + 5, sequence_id: 90, price: 1 })
          ])
          const [changed] = yield* minutes(OPEN, OPEN + minute, 1)
          assert.deepInclude(changed, { low: 1, close: 1, volume: expected[0]!.volume + 100 })
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("gives back exactly the quotes that were written, every field and level of them", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const quotes = [
          ...quotesOf(7, 60),
          makeQuote({ instrument_token: 1 }),
          makeQuote({ instrument_token: 2, bid: [], ask: [], oi: 0, last_trade_ts: OPEN - A_DAY, received_ts: 0 }),
          makeQuote({
            instrument_token: 2_147_483_647,
            bid: [[-1_000_000_000, 2 ** 53 - 1, 2 ** 53 - 1]],
            ask: [[0.0000001, 0, 0]],
            total_buy_quantity: 2 ** 53 - 1,
            source: ["another-raw", 2 ** 53 - 1, 1],
            old: true
          })
        ]
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* write(range(0, 99), run(5), quotes), 0)
          assert.deepStrictEqual(yield* readQuotes(DATE), inOrder(quotes))
        }).pipe(Effect.provide(layer))
        yield* Effect.gen(function* () {
          assert.deepStrictEqual(yield* readQuotes(DATE), inOrder(quotes))
          assert.strictEqual((yield* readAll(DATE)).length, 5)
          const { objects } = yield* (yield* Archive).list(DATE)
          assert.deepStrictEqual(
            objects.map(({ kind, rows }) => [kind, rows]),
            [
              ["ticks", 5],
              ["quotes", quotes.length]
            ]
          )
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("has no object of quotes for a range without them, and none of ticks for one of quotes alone", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          const kinds = Effect.map(archive.list(DATE), ({ objects }) => objects.map(({ kind, name }) => [kind, name]))
          yield* write(range(0, 9), run(3))
          assert.deepStrictEqual(yield* kinds, [["ticks", "normalized-1-0-0-9.parquet"]])
          yield* write(range(10, 19), [], quotesOf(1, 3))
          assert.deepStrictEqual(yield* archive.begun("normalized-1", 0, 10), range(10, 19))
          // Asking again changes nothing.
          yield* write(range(10, 19), [], quotesOf(1, 3))
          assert.deepStrictEqual(yield* kinds, [
            ["ticks", "normalized-1-0-0-9.parquet"],
            ["quotes", "normalized-1-0-10-19.parquet"]
          ])
          const elsewhere = quotesOf(1, 3).map((quote) => ({ ...quote, exchange_ts: OPEN + A_DAY }))
          const refused = yield* Effect.flip(write(range(10, 19), [], elsewhere))
          assert.strictEqual(refused._tag, "ArchiveError")
          assert.match(refused.message, /quotes of \[2026-01-15\], got .* quotes of \[2026-01-16\]/)
          const longer = yield* Effect.flip(write(range(10, 20), [], quotesOf(1, 4)))
          assert.deepInclude(longer, { _tag: "RangeTaken", last: 19 })
          assert.deepStrictEqual(yield* readQuotes(DATE), quotesOf(1, 3))
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("gives one quote an instrument and instant, the later, in whatever object it is", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const at = (offset: number, given: Partial<Quote> = {}): Quote =>
          quoteOf(offset, { exchange_ts: OPEN, source: ["raw-1", offset, 1], received_ts: OPEN + 9, ...given })
        yield* Effect.gen(function* () {
          yield* write(range(0, 9), [], [at(5), at(8), at(7)])
          assert.deepStrictEqual(yield* readQuotes(DATE), [at(8)])
          // A later one, whose clock is behind, and an earlier one.
          yield* write(range(10, 19), [], [at(9, { received_ts: OPEN + 1 })])
          yield* write(range(20, 29, 1), [], [at(3)])
          assert.deepStrictEqual(yield* readQuotes(DATE), [at(9, { received_ts: OPEN + 1 })])
          // Of another raw topic, whose offsets say nothing of this one's: what came later.
          yield* write(range(30, 39), [], [at(2, { source: ["raw-2", 2, 1], received_ts: OPEN })])
          assert.deepStrictEqual(yield* readQuotes(DATE), [at(9, { received_ts: OPEN + 1 })])
          const newest = at(1, { source: ["raw-2", 3, 1], received_ts: OPEN + 2 })
          yield* write(range(40, 49), [], [newest])
          assert.deepStrictEqual(yield* readQuotes(DATE), [newest])
          const page = { instrument_token: newest.instrument_token, from: 0, to: OPEN * 2, limit: 9 }
          assert.deepStrictEqual(yield* (yield* Archive).quotePage(page), [newest])
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("gives quotes of some instruments of a day, and of one by pages over days and objects", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const mine = [0, 1, 2].flatMap((day) =>
          quotesOf(2, 9).map((quote) => ({ ...quote, exchange_ts: quote.exchange_ts + day * A_DAY }))
        )
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          yield* write(range(0, 9), run(3), [
            ...quotesOf(1, 4),
            ...mine.filter((_, i) => i % 2 === 0),
            ...quotesOf(3, 4)
          ])
          yield* write(range(10, 19), [], [...mine.filter((_, i) => i % 2 === 1), mine[4]!, ...quotesOf(3, 4, 4)])
          assert.deepStrictEqual(yield* readQuotes(DATE, [3, 1, 99]), [...quotesOf(1, 4), ...quotesOf(3, 8)])
          assert.deepStrictEqual(yield* readQuotes(DATE, []), [])
          assert.deepStrictEqual(yield* readQuotes(DATE, [99]), [])
          assert.deepStrictEqual(yield* readQuotes("2026-01-20"), [])
          assert.match((yield* Effect.flip(readQuotes("2026-02-31"))).message, /^date: expected YYYY-MM-DD/)
          const pages = Effect.fnUntraced(function* (from: number, to: number, limit: number) {
            const found: Array<Quote> = []
            let after: number | undefined
            for (;;) {
              const query = { instrument_token: 2, from, to, limit, ...(after === undefined ? {} : { after }) }
              const page = yield* archive.quotePage(query)
              found.push(...page)
              if (page.length < limit) return found
              after = page.at(-1)!.exchange_ts
            }
          })
          for (const limit of [1, 2, 5, 1000]) {
            assert.deepStrictEqual(yield* pages(0, OPEN * 2, limit), mine, String(limit))
            const [from, to] = [OPEN + 2000, OPEN + A_DAY + 3000]
            const some = mine.filter(({ exchange_ts }) => exchange_ts >= from && exchange_ts < to)
            assert.deepStrictEqual(yield* pages(from, to, limit), some)
          }
          // What is written meanwhile is in the next page.
          const late = quoteOf(70, { instrument_token: 2, exchange_ts: OPEN + 500 })
          yield* write(range(20, 20), [], [late])
          assert.deepStrictEqual(yield* pages(OPEN, OPEN + 2000, 2), [mine[0]!, late, mine[1]!])
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("gives the quotes of many instruments by time, then instrument, by pages over days and objects", () =>
      Effect.gen(function* () {
        const layer = yield* place
        const all = [3, 1, 2].flatMap((token) =>
          [0, 1].flatMap((day) =>
            quotesOf(token, 6).map((quote) => ({ ...quote, exchange_ts: quote.exchange_ts + day * A_DAY }))
          )
        )
        const byTime = (tokens: ReadonlyArray<number>, from: number, to: number) =>
          all
            .filter((q) => tokens.includes(q.instrument_token) && q.exchange_ts >= from && q.exchange_ts < to)
            .sort((a, b) => a.exchange_ts - b.exchange_ts || a.instrument_token - b.instrument_token)
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          yield* write(
            range(0, 9),
            run(3),
            all.filter((_, i) => i % 2 === 0)
          )
          yield* write(range(10, 19, 1), [], [...all.filter((_, i) => i % 2 === 1), all[4]!])
          const pages = Effect.fnUntraced(function* (
            given: ReadonlyArray<number>,
            from: number,
            to: number,
            limit = 4
          ) {
            const tokens = new Set(given)
            const found: Array<Quote> = []
            for (;;) {
              const after = found.at(-1)
              const page = yield* archive.quotesByTime({
                tokens,
                from,
                to,
                limit,
                ...(after === undefined ? {} : { after })
              })
              assert.isAtMost(page.length, limit)
              found.push(...page)
              if (page.length < limit) return found
            }
          })
          for (const limit of [1, 2, 5, 1000]) {
            assert.deepStrictEqual(yield* pages([2, 3, 1], 0, OPEN * 2, limit), byTime([1, 2, 3], 0, OPEN * 2))
            const [from, to] = [OPEN + 2000, OPEN + A_DAY + 3000]
            assert.deepStrictEqual(yield* pages([3, 99, 1], from, to, limit), byTime([1, 3], from, to))
          }
          assert.deepStrictEqual(yield* pages([], 0, OPEN * 2), [])
          assert.deepStrictEqual(yield* pages([99], 0, OPEN * 2), [])
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("names the instruments that have quotes in a time, also without a tick", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          const next = quotesOf(4, 1).map((quote) => ({ ...quote, exchange_ts: OPEN + A_DAY }))
          yield* write(range(0, 9), run(3), [...quotesOf(7, 3, 5), ...quotesOf(2, 6), ...next])
          yield* write(range(10, 19), [], quotesOf(9, 2))
          assert.deepStrictEqual(yield* archive.quoteTokens(0, OPEN * 2), [2, 4, 7, 9])
          const days = [tradingDay(OPEN + A_DAY), tradingDay(OPEN)]
          assert.deepStrictEqual(yield* archive.newestDays(5), days)
          assert.deepStrictEqual(yield* archive.newestDays(1), days.slice(0, 1))
          assert.deepStrictEqual(yield* archive.quoteTokens(OPEN, OPEN + A_DAY), [2, 7, 9])
          assert.deepStrictEqual(yield* archive.quoteTokens(OPEN + 2000, OPEN + 5000), [2])
          assert.deepStrictEqual(yield* archive.quoteTokens(OPEN + 5000, OPEN + 5001), [2, 7])
          assert.deepStrictEqual(yield* archive.quoteTokens(OPEN + A_DAY + 1, OPEN * 2), [])
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect("takes quotes from elsewhere than the log, once, beside those it has", () =>
      Effect.gen(function* () {
        const layer = yield* place
        yield* Effect.gen(function* () {
          const archive = yield* Archive
          yield* write(range(0, 9), [], quotesOf(1, 4))
          const others = toQuoteColumns([...quotesOf(1, 3, 3), ...quotesOf(2, 2)])
          yield* archive.add(toColumns([]), others)
          yield* archive.add(toColumns([]), others)
          assert.deepStrictEqual(yield* readQuotes(DATE), [...quotesOf(1, 6), ...quotesOf(2, 2)])
          const { objects } = yield* archive.list(DATE)
          assert.deepStrictEqual(
            objects.map(({ kind, rows }) => [kind, rows]),
            [
              ["quotes", 4],
              ["quotes", 5]
            ]
          )
        }).pipe(Effect.provide(layer))
      })
    )

    it.effect.prop(
      "agrees with a plain map on any ranges of quotes, joined or not",
      [Arbitrary.array(Arbitrary.schema(AnyQuotes), { maxLength: 5 })],
      ([ranges]) =>
        Effect.gen(function* () {
          const layer = yield* place
          /** By instrument and instant the later of each topic. */
          const naive = new Map<string, Map<string, Quote>>()
          yield* Effect.gen(function* () {
            const archive = yield* Archive
            for (const [n, rows] of ranges.entries()) {
              const quotes = rows.map(({ token, ms, offset, topic, i }, k) =>
                quoteOf(i, {
                  instrument_token: token,
                  exchange_ts: OPEN + ms * 1000,
                  received_ts: OPEN + i,
                  // No two have one place.
                  source: [`raw-${topic}`, offset * 1000 + n * 100 + k, 1]
                })
              )
              yield* write(range(n * 100, n * 100 + 99), [], quotes)
              for (const quote of quotes) {
                const key = `${quote.instrument_token} ${quote.exchange_ts}`
                const ofTopics = naive.get(key) ?? new Map<string, Quote>()
                naive.set(key, ofTopics)
                const [topic] = quote.source
                const before = ofTopics.get(topic)
                if (before === undefined || compareQuotes(before, quote) < 0) ofTopics.set(topic, quote)
              }
            }
            const latest = [...naive.values()].map((ofTopics) =>
              [...ofTopics.values()].reduce((a, b) =>
                b.received_ts > a.received_ts || (b.received_ts === a.received_ts && b.source[0] > a.source[0]) ? b : a
              )
            )
            for (let time = 0; time < 2; time++) {
              assert.deepStrictEqual(yield* readQuotes(DATE), inOrder(latest))
              const some = latest.filter(({ instrument_token }) => instrument_token !== 2)
              assert.deepStrictEqual(yield* readQuotes(DATE, [1, 3]), inOrder(some))
              yield* archive.compact("9999-01-01")
            }
          }).pipe(Effect.provide(layer))
        }),
      { arbitrary: { runs: 8 } }
    )

    it.effect.prop(
      "agrees with a plain map on any ranges",
      [Arbitrary.array(Arbitrary.schema(AnyRange), { maxLength: 5 })],
      ([ranges]) =>
        Effect.gen(function* () {
          const layer = yield* place
          const naive = new Map<string, StoredTick>()
          yield* Effect.gen(function* () {
            for (const [i, rows] of ranges.entries()) {
              const ticks = rows.map(({ token, ms, id, price }) =>
                makeTick({ instrument_token: token, exchange_ts: OPEN + ms * 1000, sequence_id: id, price: price / 20 })
              )
              yield* write(range(i * 100, i * 100 + 99), ticks)
              for (const tick of ticks) {
                const key = `${tick.instrument_token} ${tick.exchange_ts} ${tick.sequence_id}`
                if (!naive.has(key)) naive.set(key, toStored(tick))
              }
            }
            assert.deepStrictEqual(yield* readAll(DATE), sorted([...naive.values()]))
            const some = [...naive.values()].filter((tick) => tick.instrument_token !== 2)
            assert.deepStrictEqual(yield* readAll(DATE, [1, 3]), sorted(some))
          }).pipe(Effect.provide(layer))
        }),
      { arbitrary: { runs: 8 } }
    )
  })
}

/** What makes an object unreadable, in its footer or in its rows. */
const damages: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array>> = {
  "has no footer": (bytes) => bytes.subarray(0, 40),
  "is no Parquet": () => new TextEncoder().encode("not Parquet at all, but long enough to have a footer"),
  "has other bytes where its rows are": (bytes) => bytes.map((byte, i) => (i >= 4 && i < 200 ? 0xff : byte))
}

for (const { name, place } of spoiled) {
  describe(`Archive on ${name}, of which an object is corrupt`, () => {
    for (const [damage, of] of Object.entries(damages)) {
      it.effect(`names the one that ${damage}, and serves the others`, () =>
        Effect.gen(function* () {
          const { layer, spoil } = yield* place
          const said: Array<string> = []
          const logger = Logger.layer([
            Logger.make(({ message }) => {
              said.push(String(message))
            })
          ])
          const sound = run(4, { instrument_token: 2 })
          yield* Effect.gen(function* () {
            yield* write(range(0, 9), run(4, { instrument_token: 1 }))
            yield* write(range(10, 19), sound)
          }).pipe(Effect.provide(layer))
          const key = `ticks/date=${DATE}/normalized-1-0-0-9.parquet`
          yield* Effect.promise(() => spoil(key, of))
          yield* Effect.gen(function* () {
            const archive = yield* Archive
            const whole = { from: 0, to: OPEN * 2 }
            for (let time = 0; time < 2; time++) {
              assert.deepStrictEqual(yield* readAll(DATE), sound.map(toStored))
              const ticks = (instrument_token: number) => archive.ticks({ instrument_token, ...whole, limit: 10 })
              assert.deepStrictEqual(yield* ticks(1), [])
              assert.deepStrictEqual(yield* ticks(2), sound.map(toStored))
              assert.deepStrictEqual([...(yield* archive.counts(undefined, 0, OPEN * 2))], [[2, 4]])
            }
            // What it held comes again, and has a place of its own.
            yield* write(range(20, 29), run(4, { instrument_token: 1 }))
            assert.strictEqual((yield* readAll(DATE)).length, 8)
          }).pipe(Effect.provide(layer), Effect.provide(logger))
          const named = said.filter((line) => line.includes("serves the day without it"))
          assert.strictEqual(named.length, 1)
          assert.include(named[0], key)
        })
      )
    }

    it.effect("names an object of quotes that is corrupt, and serves the others", () =>
      Effect.gen(function* () {
        const { layer, spoil } = yield* place
        yield* write(range(0, 9), run(4), quotesOf(1, 4)).pipe(Effect.provide(layer))
        yield* write(range(10, 19), [], quotesOf(2, 4)).pipe(Effect.provide(layer))
        for (const of of Object.values(damages)) {
          yield* Effect.promise(() => spoil(`quotes/date=${DATE}/normalized-1-0-0-9.parquet`, of))
          yield* Effect.gen(function* () {
            const archive = yield* Archive
            assert.deepStrictEqual(yield* readQuotes(DATE), quotesOf(2, 4))
            const page = (instrument_token: number) =>
              archive.quotePage({ instrument_token, from: 0, to: OPEN * 2, limit: 10 })
            assert.deepStrictEqual(yield* page(1), [])
            assert.deepStrictEqual(yield* page(2), quotesOf(2, 4))
            const { unreadable } = yield* archive.list(DATE)
            assert.deepStrictEqual(
              unreadable.map(({ kind, name: object }) => [kind, object]),
              [["quotes", "normalized-1-0-0-9.parquet"]]
            )
            assert.strictEqual((yield* readAll(DATE)).length, 4)
          }).pipe(Effect.provide(layer))
        }
      })
    )
  })
}
