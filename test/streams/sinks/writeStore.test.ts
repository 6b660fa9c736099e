import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric, Result } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { StoreError } from "../../../src/schema/Errors.ts"
import { decodeQuote, encodeQuote, type Quote } from "../../../src/schema/Quote.ts"
import { readSettings } from "../../../src/schema/Settings.ts"
import { decodeTick, encodeTick } from "../../../src/schema/TickJson.ts"
import { retryLetters } from "../../../src/streams/deadLetters.ts"
import { KIND_HEADER, QUOTE_KIND, REPLAY_HEADER } from "../../../src/streams/log/headers.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import type { StoreBatch } from "../../../src/streams/ports/TickStore.ts"
import { Drain } from "../../../src/streams/run/Drain.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { writeStore } from "../../../src/streams/sinks/writeStore.ts"
import { makeQuote, makeTick, OPEN } from "../../contract/ticks.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { countedOf } from "../../support/counted.ts"

const COUNT = 100
const Log = MemoryLog.layer({ partitions: 1, capacity: 1000, dlqCapacity: 10, retained: 1000, batch: 7 })
const settings = Result.getOrThrow(readSettings({ STORE_FLUSH_MS: "10" }))

const records = (count: number) =>
  Array.from({ length: count }, (_, n) => ({
    key: "1",
    value: Buffer.from(
      encodeTick(
        makeTick({
          instrument_token: 1,
          exchange_ts: OPEN + n,
          sequence_id: n,
          position: n + 1,
          source: ["raw-1", n, 0]
        })
      )
    )
  }))

const quoteRecord = (offset: number, given: Partial<Quote> = {}, run?: string) => ({
  key: "1",
  value: Buffer.from(
    encodeQuote(makeQuote({ instrument_token: 1, exchange_ts: OPEN + offset, source: ["raw-1", offset, 1], ...given }))
  ),
  headers: { [KIND_HEADER]: QUOTE_KIND, ...(run === undefined ? {} : { [REPLAY_HEADER]: run }) }
})

/** Of every five ticks the store has dropped the day of two and has one already. */
const store = memoryStore(new Rows(), {
  write: ({ ticks }) => {
    const of = (rest: number) => ticks.filter((tick) => tick.sequence_id % 5 === rest).length
    return Effect.succeed({ added: ticks.length - of(0) - of(1) - of(2), dropped: of(0) + of(1) })
  },
  bookmarks: () => Effect.succeed([])
})

/** What the store's sink counted, by what became of the ticks. */
const counted = countedOf("store")

describe("the store's sink", () => {
  it.live("accounts for every tick: stored, there already, or of a day that the store has dropped", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("normalized_ticks", 0, records(COUNT))
      const sink = yield* Effect.forkChild(writeStore(settings))
      while ((yield* counted).received !== COUNT) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
      assert.deepInclude(yield* counted, { received: 100, sent: 40, absorbed: 20, "dropped-day": 40 })
    }).pipe(
      Effect.provide(Layer.mergeAll(Log, store, Readiness.layer, Drain.layer)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )

  it.live("commits what was written before, though nothing comes after it", () => {
    const mark = { incarnation: "raw-1", offset: COUNT - 1, index: 0, left: [] }
    const written = memoryStore(new Rows(), {
      bookmarks: (incarnation) => Effect.succeed([{ partition: 0, incarnation, offset: COUNT, mark }])
    })
    return Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("normalized_ticks", 0, records(COUNT))
      const sink = yield* Effect.forkChild(writeStore(settings))
      const isCommitted = Effect.map(log.lag, (lags) =>
        lags.some(({ group, records: n }) => group === "store" && n === 0)
      )
      while (!(yield* isCommitted)) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
    }).pipe(
      Effect.provide(Layer.mergeAll(Log, written, Readiness.layer, Drain.layer)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.effect(
    "asks a store too slow for a whole batch for parts of it, the bookmarks with the last, and grows back",
    () => {
      const kept: Array<StoreBatch> = []
      let rowsASecond = 100
      let failures = 0
      const slow = memoryStore(new Rows(), {
        write: (batch) =>
          Effect.gen(function* () {
            const ms = (batch.ticks.length / rowsASecond) * 1000
            yield* Effect.sleep(Math.min(ms, 3000))
            if (ms > 3000) {
              failures++
              return yield* new StoreError({ operation: "write", message: "statement timeout", transient: true })
            }
            kept.push(batch)
            return { added: batch.ticks.length }
          })
      })
      const total = 4000
      return Effect.gen(function* () {
        const log = yield* TickLog
        yield* log.append("normalized_ticks", 0, records(total))
        yield* Effect.forkScoped(writeStore({ ...settings, STORE_BATCH_TICKS: 1000 }))
        const written = () => kept.reduce((sum, { ticks }) => sum + ticks.length, 0)
        const until = (count: number) =>
          TestClock.adjust("100 millis").pipe(Effect.repeat({ until: () => written() >= count }))
        yield* until(2000)
        // 1000 and 500 ticks are not to be had in three seconds, 250 are.
        assert.strictEqual(failures, 2)
        assert.isTrue(kept.every(({ ticks }) => ticks.length <= 250))
        rowsASecond = 100_000
        yield* until(total)
        assert.strictEqual(failures, 2)
        assert.isAbove(Math.max(...kept.map(({ ticks }) => ticks.length)), 500)
        assert.deepStrictEqual(
          kept.flatMap(({ ticks }) => ticks.map(({ sequence_id }) => sequence_id)),
          Array.from({ length: total }, (_, i) => i)
        )
        // No bookmark stands above what was written with it and before.
        let so = 0
        for (const { ticks, bookmarks } of kept) {
          so += ticks.length
          for (const { offset } of bookmarks) assert.strictEqual(offset, so)
        }
        assert.strictEqual(kept.at(-1)!.bookmarks.length, 1)
      }).pipe(
        Effect.scoped,
        Effect.provide([
          MemoryLog.layer({ partitions: 1, capacity: 10_000, dlqCapacity: 10, retained: 10_000, batch: 100 }),
          Drain.layer,
          Readiness.layer,
          slow
        ])
      )
    }
  )

  it.live("sets a row aside in the DLQ that the store refuses for good, and the rest and the bookmarks go on", () => {
    const isRefused = ({ sequence_id }: { readonly sequence_id: number }) => sequence_id === 37 || sequence_id === 99
    const kept: Array<StoreBatch> = []
    const picky = memoryStore(new Rows(), {
      write: (batch) =>
        batch.ticks.some(isRefused)
          ? Effect.fail(new StoreError({ operation: "write", message: "value out of range (22003)", transient: false }))
          : Effect.sync(() => {
              kept.push(batch)
              return { added: batch.ticks.length }
            }),
      bookmarks: () => Effect.succeed([])
    })
    return Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("normalized_ticks", 0, records(COUNT))
      const sink = yield* Effect.forkChild(writeStore(settings))
      while ((yield* counted).received !== COUNT) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
      assert.deepInclude(yield* counted, { received: 100, sent: 98, refused: 2 })
      assert.deepStrictEqual(
        kept.flatMap(({ ticks }) => ticks.map(({ sequence_id }) => sequence_id)),
        Array.from({ length: COUNT }, (_, n) => n).filter((n) => !isRefused({ sequence_id: n }))
      )
      assert.deepStrictEqual(kept.flatMap(({ bookmarks }) => bookmarks.map(({ offset }) => offset)).at(-1), COUNT)
      const { records: letters } = yield* log.slice("raw_ticks_dlq", 0, 0, 10)
      assert.deepStrictEqual(
        letters.map(({ value, headers }) => [decodeTick(value!)?.sequence_id, headers?.reason, headers?.sink]),
        [37, 99].map((id) => [id, "store: value out of range (22003)", "store"])
      )
      // It is published: sent again as a raw tick it would be another.
      const all = { from: { partition: 0, offset: 0 }, ends: [2] }
      const again = yield* retryLetters(log, {}, all, () => Effect.die("sent again"))
      assert.deepInclude(again, { sent: 0, cut: 2 })
    }).pipe(
      Effect.provide(Layer.mergeAll(Log, picky, Readiness.layer, Drain.layer)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.live("writes quotes with the ticks beside them, and counts them apart", () => {
    const kept: Array<StoreBatch> = []
    const taking = memoryStore(new Rows(), {
      write: (batch) =>
        Effect.sync(() => {
          kept.push(batch)
          const quotes = batch.quotes.length + batch.replayedQuotes.length
          return { added: batch.ticks.length, ...(quotes === 0 ? {} : { quotes: { added: quotes - 2, dropped: 1 } }) }
        }),
      bookmarks: () => Effect.succeed([])
    })
    return Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("normalized_ticks", 0, [
        ...records(3),
        quoteRecord(3),
        quoteRecord(4, { old: true }),
        quoteRecord(5),
        quoteRecord(6, {}, "run.1")
      ])
      const sink = yield* Effect.forkChild(writeStore({ ...settings, STORE_FLUSH_MS: 100 }))
      while ((yield* countedOf("store-quotes")).received !== 4) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
      assert.deepInclude(yield* countedOf("store-quotes"), { received: 4, sent: 2, absorbed: 1, "dropped-day": 1 })
      assert.deepStrictEqual(yield* counted, { received: 3, sent: 3 })
      const offsets = (quotes: ReadonlyArray<Quote>) => quotes.map(({ source }) => source[1])
      assert.deepStrictEqual(offsets(kept.flatMap(({ quotes }) => quotes)), [3, 4, 5])
      assert.deepStrictEqual(offsets(kept.flatMap(({ replayedQuotes }) => replayedQuotes)), [6])
      assert.deepStrictEqual(kept.at(-1)!.bookmarks[0]!.offset, 7)
    }).pipe(
      Effect.provide(Layer.mergeAll(Log, taking, Readiness.layer, Drain.layer)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.live("sets a quote aside that the store refuses for good: its ticks lose nothing and wait for nothing", () => {
    const isRefused = ({ source }: Quote) => source[1] === COUNT + 5
    const kept: Array<StoreBatch> = []
    let refusals = 0
    const picky = memoryStore(new Rows(), {
      write: (batch) =>
        Effect.suspend(() => {
          if (batch.quotes.some(isRefused)) {
            refusals++
            return Effect.fail(
              new StoreError({ operation: "write", message: "out of range (22003)", transient: false })
            )
          }
          kept.push(batch)
          const { length } = batch.quotes
          return Effect.succeed({
            added: batch.ticks.length,
            ...(length === 0 ? {} : { quotes: { added: length, dropped: 0 } })
          })
        }),
      bookmarks: () => Effect.succeed([])
    })
    const quotes = Array.from({ length: 10 }, (_, n) => quoteRecord(COUNT + n))
    return Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("normalized_ticks", 0, [...records(COUNT), ...quotes])
      const sink = yield* Effect.forkChild(writeStore({ ...settings, STORE_FLUSH_MS: 1000 }))
      while ((yield* countedOf("store-quotes")).received !== 10) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
      assert.deepStrictEqual(yield* counted, { received: 100, sent: 100 })
      assert.deepInclude(yield* countedOf("store-quotes"), { received: 10, sent: 9, refused: 1 })
      // All ticks of the transaction that was refused went in at once, in one of their own.
      assert.isAbove(refusals, 0)
      assert.strictEqual(kept.filter(({ ticks }) => ticks.length > 0).length, 1)
      assert.deepStrictEqual(
        kept.flatMap(({ bookmarks }) => bookmarks.map(({ offset }) => offset)),
        [COUNT + 10]
      )
      const { records: letters } = yield* log.slice("raw_ticks_dlq", 0, 0, 10)
      assert.deepStrictEqual(
        letters.map(({ value, headers }) => [decodeQuote(value!)?.source[1], headers]),
        [
          [
            COUNT + 5,
            {
              reason: "store: out of range (22003)",
              topic: "normalized_ticks",
              sink: "store",
              [KIND_HEADER]: QUOTE_KIND
            }
          ]
        ]
      )
      const all = { from: { partition: 0, offset: 0 }, ends: [1] }
      assert.deepInclude(yield* retryLetters(log, {}, all, () => Effect.die("sent again")), { sent: 0, cut: 1 })
    }).pipe(
      Effect.provide(Layer.mergeAll(Log, picky, Readiness.layer, Drain.layer)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })
})
