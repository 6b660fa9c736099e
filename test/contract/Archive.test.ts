import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Schema, type Scope, Stream } from "effect"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../src/layers/archive/S3.ts"
import type { ArchiveError, RangeTaken } from "../../src/schema/Errors.ts"
import { type Tick, tradingDate } from "../../src/schema/Tick.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { Archive, type ArchiveRange } from "../../src/streams/ports/Archive.ts"
import type { StoredTick } from "../../src/streams/ports/TickStore.ts"
import { emptyBucket } from "../support/buckets.ts"
import { s3 } from "../support/services.ts"
import { DAY, EPOCH, makeTick, OPEN, toStored } from "./ticks.ts"

/** A place for an archive, empty, gone with the scope; each use of the layer opens it anew. */
type Place = Effect.Effect<Layer.Layer<Archive>, never, Scope.Scope>

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
  ticks: ReadonlyArray<Tick>
): Effect.Effect<number, ArchiveError | RangeTaken, Archive> =>
  Effect.flatMap(Archive, (archive) => archive.write(of, toColumns(ticks)))

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

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const AnyRange = Schema.Array(
  Schema.Struct({ token: int(1, 3), ms: int(0, 3), id: int(-2, 4), price: int(0, 100_000) })
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
