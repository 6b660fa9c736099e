import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Metric, Stream } from "effect"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { compareQuotes, encodeQuote } from "../../../src/schema/Quote.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { tradingDate } from "../../../src/schema/Tick.ts"
import { pickRows, toColumns } from "../../../src/schema/TickColumns.ts"
import { encodeTick } from "../../../src/schema/TickJson.ts"
import { KIND_HEADER, QUOTE_KIND, REPLAY_HEADER } from "../../../src/streams/log/headers.ts"
import { type LogRecord, TickLog } from "../../../src/streams/log/TickLog.ts"
import { Archive, type ArchiveRange } from "../../../src/streams/ports/Archive.ts"
import { Drain } from "../../../src/streams/run/Drain.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { writeArchive } from "../../../src/streams/sinks/writeArchive.ts"
import { DAY, makeTick, NO_QUOTES, OPEN } from "../../contract/ticks.ts"
import { quoteOf } from "../../support/quotes.ts"

const Log = MemoryLog.layer({ partitions: 1, capacity: 10_000, dlqCapacity: 10, retained: 10_000, batch: 4 })
const DATE = tradingDate(DAY)
const COUNT = 40
const TICKS = Array.from({ length: COUNT }, (_, i) =>
  makeTick({ exchange_ts: OPEN + i, sequence_id: i, position: i + 1, source: ["raw", i, 0] })
)

const archiveFolder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const appendAll = Effect.flatMap(TickLog, (log) =>
  log.append(
    "normalized_ticks",
    0,
    TICKS.map((tick) => ({ key: String(tick.instrument_token), value: Buffer.from(encodeTick(tick)) }))
  )
)

/** Runs the group until it has committed everything, and answers the sequence ids that the archive then holds. */
const archived = Effect.gen(function* () {
  const log = yield* TickLog
  const archive = yield* Archive
  yield* Effect.forkScoped(writeArchive({ ARCHIVE_BATCH_TICKS: 8, ARCHIVE_FLUSH_MS: 50, ON_LOST_OFFSETS: "fail" }))
  yield* Effect.map(log.lag, (groups) => groups.length > 0 && groups.every(({ records }) => records === 0)).pipe(
    Effect.repeat({ until: (done) => done })
  )
  const read = (yield* Stream.runCollect(archive.read(DATE, undefined))).flat()
  return read.map((tick) => tick.sequence_id).sort((a, b) => a - b)
})

const ALL = TICKS.map((tick) => tick.sequence_id)

describe("the group that archives", () => {
  it.live("completes a range that was begun before it came, and goes on behind it", () =>
    Effect.gen(function* () {
      yield* appendAll
      const archive = yield* Archive
      const log = yield* TickLog
      const range = { incarnation: log.incarnation("normalized_ticks"), partition: 0, first: 0, last: 2 }
      yield* archive.write(range, toColumns(TICKS.slice(0, 3)), NO_QUOTES)
      yield* archive.write({ ...range, first: 3, last: 13 }, toColumns(TICKS.slice(3, 14)), NO_QUOTES)
      assert.deepStrictEqual(yield* archived, ALL)
      assert.deepStrictEqual(yield* archive.begun(range.incarnation, 0, 3), { ...range, first: 3, last: 13 })
      assert.isDefined(yield* archive.begun(range.incarnation, 0, 14))
    }).pipe(
      Effect.provide([
        Log,
        Drain.layer,
        Readiness.layer,
        Layer.unwrap(Effect.map(archiveFolder, (folder) => ParquetFiles.layer(folder)))
      ])
    )
  )

  it.live(
    "puts the quotes of a range beside its ticks, completes those of one that was begun, and leaves out replays",
    () =>
      Effect.gen(function* () {
        const log = yield* TickLog
        const archive = yield* Archive
        const quotes = TICKS.map(({ exchange_ts }, i) => quoteOf(i, { exchange_ts, source: ["raw", i, 1] }))
        const header = { [KIND_HEADER]: QUOTE_KIND }
        yield* log.append(
          "normalized_ticks",
          0,
          TICKS.flatMap((tick, i) => {
            const key = String(tick.instrument_token)
            const value = Buffer.from(encodeQuote(quotes[i]!))
            return [
              { key, value: Buffer.from(encodeTick(tick)) },
              { key, value, headers: header }
            ]
          })
        )
        const replayed = quoteOf(9, { exchange_ts: OPEN + 99_000, source: ["raw", COUNT, 1] })
        const headers = { ...header, [REPLAY_HEADER]: "run.1" }
        yield* log.append("normalized_ticks", 0, [{ key: "1", value: Buffer.from(encodeQuote(replayed)), headers }])
        const range = { incarnation: log.incarnation("normalized_ticks"), partition: 0, first: 0, last: 4 }
        yield* archive.write(range, toColumns(TICKS.slice(0, 3)), toQuoteColumns(quotes.slice(0, 2)))
        assert.deepStrictEqual(yield* archived, ALL)
        const found = (yield* Stream.runCollect(archive.quotes(DATE, undefined))).flat()
        assert.deepStrictEqual(found.toSorted(compareQuotes), quotes)
        const { objects } = yield* archive.list(DATE)
        const names = (kind: string) => objects.flatMap((object) => (object.kind === kind ? [object.name] : []))
        assert.deepStrictEqual(names("quotes"), names("ticks"))
        // A quote waits as five ticks do: a range has half as many records as it would otherwise.
        assert.isAbove(names("quotes").length, COUNT / 3)
      }).pipe(
        Effect.provide([
          Log,
          Drain.layer,
          Readiness.layer,
          Layer.unwrap(Effect.map(archiveFolder, (folder) => ParquetFiles.layer(folder)))
        ])
      )
  )

  it.live("completes a range that one who is no longer a member begins under its eyes", () =>
    Effect.gen(function* () {
      const folder = yield* archiveFolder
      const attempts: Array<ArchiveRange> = []
      /** Lets a zombie begin a shorter range just before the first write and the fifth. */
      const withZombie = Layer.effect(
        Archive,
        Effect.map(Archive, (archive) => ({
          ...archive,
          write: (range, ticks) =>
            Effect.gen(function* () {
              attempts.push(range)
              if (attempts.length === 1 || attempts.length === 5) {
                yield* Effect.ignore(
                  archive.write({ ...range, last: range.first + 2 }, pickRows(ticks, [0, 1, 2]), NO_QUOTES)
                )
              }
              return yield* archive.write(range, ticks, NO_QUOTES)
            })
        }))
      ).pipe(Layer.provide(ParquetFiles.layer(folder)))
      yield* Effect.gen(function* () {
        yield* appendAll
        assert.deepStrictEqual(yield* archived, ALL)
      }).pipe(Effect.provide([Log, Drain.layer, Readiness.layer, withZombie]))
      assert.strictEqual(attempts.filter(({ first, last }) => last === first + 2).length, 2)
    })
  )

  it.live("leaves a range to its next owner where the partition is taken away before the range is read", () =>
    Effect.gen(function* () {
      const folder = yield* archiveFolder
      let asked = 0
      let read = 0
      let written = 0
      const counting = Layer.effect(
        Archive,
        Effect.map(Archive, (archive) => ({
          ...archive,
          begun: (...at) => {
            asked++
            return archive.begun(...at)
          },
          write: (...what) => {
            written++
            return archive.write(...what)
          }
        }))
      ).pipe(Layer.provide(ParquetFiles.layer(folder)))
      yield* Effect.gen(function* () {
        yield* appendAll
        const log = yield* TickLog
        const archive = yield* Archive
        const range = { incarnation: log.incarnation("normalized_ticks"), partition: 0, first: 0, last: 13 }
        yield* archive.write(range, toColumns(TICKS.slice(0, 14)), NO_QUOTES)
        // The reader of a partition that is taken away ends in the midst of it.
        const takenAway = Layer.succeed(TickLog, {
          ...log,
          assignments: (group, topic) =>
            Stream.map(Stream.take(log.assignments(group, topic), 1), (assigned) => ({
              ...assigned,
              read: (from) => {
                read++
                return Stream.take(assigned.read(from), 1)
              }
            }))
        })
        yield* writeArchive({ ARCHIVE_BATCH_TICKS: 8, ARCHIVE_FLUSH_MS: 50, ON_LOST_OFFSETS: "fail" }).pipe(
          Effect.provide(takenAway)
        )
      }).pipe(Effect.provide([Log, Drain.layer, Readiness.layer, counting]))
      assert.deepStrictEqual({ asked, read, written }, { asked: 1, read: 1, written: 1 })
    })
  )

  it.live("completes a range that ends within a batch which nobody can read by now, and goes on behind the batch", () =>
    Effect.gen(function* () {
      const folder = yield* archiveFolder
      yield* Effect.gen(function* () {
        yield* appendAll
        const log = yield* TickLog
        const archive = yield* Archive
        const range = { incarnation: log.incarnation("normalized_ticks"), partition: 0, first: 0, last: 5 }
        yield* archive.write(range, toColumns(TICKS.slice(0, 6)), NO_QUOTES)
        /** Offsets 3 to 8 are the batch. */
        const damaged = (records: ReadonlyArray<LogRecord>): ReadonlyArray<LogRecord> =>
          records.flatMap((record) => {
            if (record.offset < 3 || record.offset > 8) return [record]
            const unreadable = { message: "no batch", records: 6 }
            return record.offset === 8 ? [{ ...record, key: null, unreadable }] : []
          })
        const withDamage = Layer.succeed(TickLog, {
          ...log,
          assignments: (group, topic) =>
            Stream.map(log.assignments(group, topic), (assigned) => ({
              ...assigned,
              read: (from, until) =>
                Stream.map(assigned.read(from, until), damaged).pipe(Stream.filter(Arr.isReadonlyArrayNonEmpty))
            }))
        })
        // What the range's object holds since it was begun stays.
        assert.deepStrictEqual(yield* Effect.provide(archived, withDamage), [...ALL.slice(0, 6), ...ALL.slice(9)])
        assert.isDefined(yield* archive.begun(range.incarnation, 0, 6))
      }).pipe(Effect.provide([Log, Drain.layer, Readiness.layer, ParquetFiles.layer(folder)]))
    })
  )

  it.live("says what it gathers, and that it gathers nothing once that is written or the partition is gone", () =>
    Effect.gen(function* () {
      const held = Effect.map(Metric.snapshot, (all) => {
        const found = all.find(({ id }) => id === "topology_group_held_records")
        return found?.type === "Gauge"
          ? { value: Number(found.state.value), labels: found.attributes as unknown }
          : undefined
      })
      const until = (value: number) => Effect.repeat(held, { until: (found) => found?.value === value })
      const settings = { ARCHIVE_BATCH_TICKS: 24, ARCHIVE_FLUSH_MS: 3_600_000, ON_LOST_OFFSETS: "fail" } as const
      const log = yield* TickLog
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Effect.forkScoped(writeArchive(settings))
          yield* appendAll
          // 24 are written and committed, 16 wait for the next object.
          const found = yield* until(COUNT - 24)
          assert.deepStrictEqual(found?.labels, { group: "archive", topic: "normalized_ticks", partition: "0" })
          assert.strictEqual((yield* log.lag)[0]?.records, COUNT - 24)
        })
      )
      yield* until(0)
    }).pipe(
      Effect.provide([
        Log,
        Drain.layer,
        Readiness.layer,
        Layer.unwrap(Effect.map(archiveFolder, (folder) => ParquetFiles.layer(folder)))
      ]),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )
})
