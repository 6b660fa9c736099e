import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as MemoryRing from "../../../src/layers/memory/MemoryRing.ts"
import { CacheError, StoreError } from "../../../src/schema/Errors.ts"
import type { Quote } from "../../../src/schema/Quote.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { historyOf, knownQuotes, quotesFrom } from "../../../src/streams/fanOut/history.ts"
import { RecentTicks } from "../../../src/streams/ports/RecentTicks.ts"
import type { StoredTick } from "../../../src/streams/ports/TickStore.ts"
import { EPOCH, NOW, quoteAt, tickOf } from "../../support/hub.ts"

const DAY = 1_000_000_000
const run = (from: number, to: number, epoch = EPOCH): Array<Tick> =>
  Array.from({ length: to - from + 1 }, (_, i) => tickOf(1, epoch, from + i))
const noCache = new CacheError({ operation: "after", message: "down" })
const noStore = new StoreError({ operation: "ticksAfter", message: "down", transient: true })

const storeOf = (rows: ReadonlyArray<StoredTick>, up = true) => {
  const asked: Array<readonly [epoch: number, position: number]> = []
  return {
    asked,
    ticksAfter: (token: number, epoch: number, position: number, limit: number) => {
      asked.push([epoch, position])
      const day = Math.floor(epoch / DAY)
      const found = rows.filter(
        (row) =>
          row.instrument_token === token &&
          Math.floor((row.epoch ?? 0) / DAY) === day &&
          ((row.epoch ?? 0) > epoch || (row.epoch === epoch && (row.position ?? 0) > position))
      )
      return up ? Effect.succeed(found.slice(0, limit)) : Effect.fail(noStore)
    }
  }
}

const withRing = (ticks: ReadonlyArray<Tick>) =>
  Effect.gen(function* () {
    const ring = yield* RecentTicks
    yield* ring.append(ticks)
    return ring
  }).pipe(Effect.provide(MemoryRing.layer({ perInstrument: 10, total: 1000 })))

const positions = (page: { readonly ticks: ReadonlyArray<{ readonly epoch: number; readonly position: number }> }) =>
  page.ticks.map(({ epoch, position }) => [epoch, position])

describe("history", () => {
  it.effect("answers from the ring where it reaches back, and says where a place is the newest", () =>
    Effect.gen(function* () {
      const store = storeOf([])
      const history = historyOf(yield* withRing(run(1, 30)), store, () => NOW)
      const page = yield* Effect.promise(() => history.after(1, { epoch: EPOCH, position: 27 }, 100))
      assert.deepStrictEqual(
        positions(page),
        [28, 29, 30].map((p) => [EPOCH, p])
      )
      assert.isFalse(page.more)
      const newest = yield* Effect.promise(() => history.after(1, { epoch: EPOCH, position: 30 }, 100))
      assert.deepInclude(newest, { ticks: [], current: true, failed: false })
      const ahead = yield* Effect.promise(() => history.after(1, { epoch: EPOCH, position: 99 }, 100))
      assert.isFalse(ahead.current)
      assert.deepStrictEqual(store.asked, [])
    })
  )

  it.effect("answers from the store before that, page by page, then from its later days", () =>
    Effect.gen(function* () {
      const rows = [...run(1, 8, EPOCH - 2 * DAY), ...run(1, 30)]
      const replayed: StoredTick = { ...tickOf(1, EPOCH, 3), epoch: null, position: null }
      const store = storeOf([...rows, replayed])
      const history = historyOf(yield* withRing(run(1, 30)), store, () => NOW)
      const old = { epoch: EPOCH - 2 * DAY, position: 6 }
      const first = yield* Effect.promise(() => history.after(1, old, 5))
      assert.deepStrictEqual(
        positions(first),
        [7, 8].map((p) => [EPOCH - 2 * DAY, p])
      )
      assert.isTrue(first.more)
      const next = yield* Effect.promise(() => history.after(1, { epoch: EPOCH - 2 * DAY, position: 8 }, 5))
      assert.deepStrictEqual(
        positions(next),
        [1, 2, 3, 4, 5].map((p) => [EPOCH, p])
      )
      assert.isTrue(next.more)
    })
  )

  it.effect("says that something failed, and gives what is left", () =>
    Effect.gen(function* () {
      const history = historyOf(yield* withRing(run(1, 30)), storeOf([], false), () => NOW)
      const page = yield* Effect.promise(() => history.after(1, { epoch: EPOCH, position: 2 }, 100))
      assert.deepInclude(page, { more: false, failed: true })
      assert.strictEqual(page.ticks.length, 10)
      const down = { last: () => Effect.fail(noCache), after: () => Effect.fail(noCache) }
      const nothing = historyOf(down, storeOf(run(1, 5)), () => NOW)
      assert.deepStrictEqual(yield* Effect.promise(() => nothing.last(1, 5)), { ticks: [], failed: true })
      const stored = yield* Effect.promise(() => nothing.after(1, { epoch: EPOCH, position: 2 }, 100))
      assert.deepStrictEqual(
        positions(stored),
        [3, 4, 5].map((p) => [EPOCH, p])
      )
      assert.isFalse(stored.failed)
    })
  )
})

const mapOf = (...quotes: ReadonlyArray<Quote>): ReadonlyMap<number, Quote> =>
  new Map(quotes.map((quote) => [quote.instrument_token, quote]))
const near = (...quotes: ReadonlyArray<Quote>) => ({ latest: () => Effect.succeed(mapOf(...quotes)) })
const stored = (...quotes: ReadonlyArray<Quote>) => ({ latestQuotes: () => Effect.succeed(mapOf(...quotes)) })

describe("the newest quotes outside memory", () => {
  it.effect("are the later of what is kept near and what is stored, of one of both the one with every level", () =>
    Effect.gen(function* () {
      const levels = quoteAt(3, NOW, 7, { bid: Array.from({ length: 5 }, (_, i) => [1, i, 1] as const) })
      const kept = [quoteAt(1, NOW, 9), quoteAt(2, NOW + 5, 2), levels, quoteAt(4, NOW, 9), quoteAt(5, NOW, 1)]
      const best = quoteAt(3, NOW, 7, { bid: [[1, 0, 1]] })
      const later = [quoteAt(1, NOW + 1, 3), quoteAt(2, NOW, 9), best, quoteAt(4, NOW, 10), quoteAt(6, NOW, 1)]
      const { quotes, failed } = yield* quotesFrom(near(...kept), stored(...later))([1, 2, 3, 4, 5, 6, 7])
      assert.isFalse(failed)
      assert.deepStrictEqual(quotes, mapOf(later[0]!, kept[1]!, levels, later[3]!, kept[4]!, later[4]!))
    })
  )

  it.effect("are those of the one that answers, which is not all where it is not the store", () =>
    Effect.gen(function* () {
      const noNear = { latest: () => Effect.fail(noCache) }
      const away = { latestQuotes: () => Effect.fail(noStore) }
      const one = quoteAt(1, NOW, 1)
      assert.deepStrictEqual(yield* quotesFrom(noNear, stored(one))([1]), { quotes: mapOf(one), failed: false })
      assert.deepStrictEqual(yield* quotesFrom(near(one), away)([1]), { quotes: mapOf(one), failed: true })
    })
  )

  it.effect("are asked for where memory's may not be the newest, and never older than that", () =>
    Effect.gen(function* () {
      const inMemory = mapOf(quoteAt(1, NOW, 1), quoteAt(2, NOW, 2), quoteAt(3, NOW + 9, 3))
      const outside = mapOf(...[1, 2, 3, 4, 5].map((token) => quoteAt(token, NOW + 5, token)))
      const asked: Array<ReadonlyArray<number>> = []
      const latest = (tokens: ReadonlyArray<number>) => {
        asked.push(tokens)
        return Effect.succeed(mapOf(...tokens.flatMap((token) => outside.get(token) ?? [])))
      }
      const memory = {
        quote: (token: number) => inMemory.get(token),
        hasNewestQuote: (token: number) => token === 1 || token === 5
      }
      assert.deepStrictEqual(yield* knownQuotes(memory, { latest }, stored())([1, 2, 3, 4, 5, 6]), {
        quotes: mapOf(inMemory.get(1)!, outside.get(2)!, inMemory.get(3)!, outside.get(4)!),
        failed: false
      })
      assert.deepStrictEqual(asked, [[2, 3, 4, 6]])
    })
  )
})
