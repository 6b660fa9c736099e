/** Decides, for the store on every database, what a row is: added once, given back whole, paged, counted and listed. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { epochOf, type Tick, tradingDay, tradingDayStart } from "../../../src/schema/Tick.ts"
import { MAX_MICROS, MIN_MICROS } from "../../../src/schema/Time.ts"
import type { Bookmark } from "../../../src/streams/log/bookmark.ts"
import { type StoredTick, TickStore } from "../../../src/streams/ports/TickStore.ts"
import { DAY, EPOCH, makeQuote, makeTick, OPEN, storeBatch } from "../ticks.ts"
import { asStored, candles, FROM, HOUR, newToken, pages, Rows, range, TO, write } from "./rows.ts"
import { onEachStore } from "./stores.ts"

onEachStore("ticks", (it) => {
  it.effect("adds each row once, however often and in whatever company it is written", () =>
    Effect.gen(function* () {
      const token = newToken()
      const tick = (n: number): Tick =>
        makeTick({ instrument_token: token, exchange_ts: OPEN + n, sequence_id: n, position: n })
      const first = [1, 2, 3].map(tick)
      assert.deepStrictEqual(yield* write(first), { added: 3 })
      assert.deepStrictEqual(yield* write(first), { added: 0 })
      // a repeated key within one batch, new ones beside known ones
      assert.deepStrictEqual(yield* write([3, 4, 4, 5].map(tick)), { added: 2 })
      assert.deepStrictEqual(
        yield* pages(token, 100),
        [1, 2, 3, 4, 5].map((n) => asStored(tick(n)))
      )
      assert.deepStrictEqual(yield* write([]), { added: 0 })
    })
  )

  it.effect("gives back every field as it came, to the microsecond and the last decimal", () =>
    Effect.gen(function* () {
      const token = newToken()
      const one = makeTick({
        instrument_token: token,
        exchange_ts: OPEN + 123_457,
        received_ts: OPEN + 999_999,
        price: 83.1234567,
        volume: Number.MAX_SAFE_INTEGER,
        sequence_id: -281_474_976_710_655,
        sequencing: "none",
        status: "STALE",
        session: 1439,
        feed: 'a "quoted", {odd} \\ name\té\n',
        position: 7
      })
      const two = {
        ...one,
        exchange_ts: OPEN + 123_458,
        price: 1e-7,
        sequencing: "monotonic",
        feed: "NULL"
      } as const
      const three = { ...one, exchange_ts: OPEN + 123_459, price: 999_999_999.5, sequencing: "contiguous" } as const
      yield* write([one, two, three])
      assert.deepStrictEqual(
        yield* pages(token, 2),
        [one, two, three].map((tick) => asStored(tick))
      )
    })
  )

  it.effect("takes a feed whose name no database can hold", () =>
    Effect.gen(function* () {
      const token = newToken()
      assert.deepStrictEqual(yield* write([makeTick({ instrument_token: token, feed: "a\0b" })]), { added: 1 })
      assert.strictEqual((yield* pages(token, 10))[0]?.feed, "a\ufffdb")
    })
  )

  it.effect("keeps ticks of any day from 1980 to 2100, however many days one batch spans", () =>
    Effect.gen(function* () {
      const token = newToken()
      const step = Math.floor((MAX_MICROS - MIN_MICROS) / 80)
      const ticks = range(80).map((n) => {
        const exchange_ts = MIN_MICROS + n * step + 7 * n
        const epoch = epochOf(tradingDay(exchange_ts), exchange_ts)
        return makeTick({ instrument_token: token, exchange_ts, received_ts: exchange_ts, epoch, position: 1 })
      })
      const bookmark: Bookmark = { partition: 0, incarnation: "any-day", offset: 80, mark: undefined }
      assert.deepStrictEqual(yield* write(ticks, [], [bookmark]), { added: 80 })
      assert.deepStrictEqual(
        yield* pages(token, 9),
        ticks.map((tick) => asStored(tick))
      )
      const { bookmarks, count, tokens } = yield* TickStore
      assert.deepStrictEqual(yield* bookmarks("any-day"), [bookmark])
      assert.strictEqual(yield* count([token], FROM, TO), 80)
      assert.include(yield* tokens(FROM, TO), token)
    })
  )

  it.effect("adds a replayed tick without a place in the day, which the live one brings", () =>
    Effect.gen(function* () {
      const token = newToken()
      const early = makeTick({
        instrument_token: token,
        exchange_ts: OPEN,
        sequence_id: -5,
        position: 4,
        price: 10
      })
      const late = { ...early, sequence_id: -9, position: 5, price: 20 }
      assert.deepStrictEqual(yield* write([], [early]), { added: 1 })
      assert.deepStrictEqual(yield* pages(token, 10), [asStored(early, true)])
      yield* write([late])
      yield* Effect.flatMap(TickStore, (s) => s.refreshCandles)
      // Without a position it counts as the last of its instant.
      assert.strictEqual((yield* candles(token, "1m"))[0]?.close, 10)
      assert.deepStrictEqual(yield* write([early], [late]), { added: 0 })
      assert.deepStrictEqual(yield* pages(token, 10), [asStored(early), asStored(late)])
      assert.strictEqual((yield* candles(token, "1m"))[0]?.close, 20)
      // A replay of what is there changes nothing.
      assert.deepStrictEqual(yield* write([], [early, late]), { added: 0 })
      assert.deepStrictEqual(yield* pages(token, 10), [asStored(early), asStored(late)])
    })
  )

  it.effect("writes all of a batch or nothing, and says that asking again is no use", () =>
    Effect.gen(function* () {
      const token = newToken()
      const { bookmarks, write, count } = yield* TickStore
      const good = makeTick({ instrument_token: token })
      for (const wrong of [
        { ...good, sequence_id: 2, session: 40_000 },
        { ...good, sequence_id: 2, price: Number.NEGATIVE_INFINITY, status: "NOT A STATUS" as Tick["status"] }
      ]) {
        const error = yield* Effect.flip(
          write(
            storeBatch({
              ticks: [good, wrong],
              bookmarks: [{ partition: 0, incarnation: "all-or-nothing", offset: 5, mark: undefined }]
            })
          )
        )
        assert.strictEqual(error.operation, "write")
        assert.isFalse(error.transient, error.message)
      }
      assert.strictEqual(yield* count([token], FROM, TO), 0)
      assert.deepStrictEqual(yield* bookmarks("all-or-nothing"), [])
    })
  )

  it.effect("pages through any range in the order of compareTicks", () =>
    Effect.gen(function* () {
      const token = newToken()
      const rows = new Rows()
      const ticks = range(300).map((n) =>
        makeTick({
          instrument_token: token,
          // over the midnight between two trading days, many to an instant
          exchange_ts: tradingDayStart(DAY) + ((n * 7) % 20) - 10,
          sequence_id: ((n * 31) % 50) - 25,
          epoch: EPOCH + (n % 2),
          position: (n * 17) % 300
        })
      )
      const replayed = range(50).map((n) =>
        makeTick({ instrument_token: token, exchange_ts: tradingDayStart(DAY) + (n % 5), sequence_id: n - 40 })
      )
      rows.write(ticks, replayed)
      yield* write(ticks, replayed)
      const sorted = rows.sorted()
      for (const limit of [1, 7, 1000]) assert.deepStrictEqual(yield* pages(token, limit), sorted)
      const [from, to] = [tradingDayStart(DAY) - 3, tradingDayStart(DAY) + 4]
      const within = sorted.filter((row) => row.exchange_ts >= from && row.exchange_ts < to)
      assert.deepStrictEqual(yield* pages(token, 6, from, to), within)
    })
  )

  it.effect("serves a resuming client its day after (epoch, position), rows without one left out", () =>
    Effect.gen(function* () {
      const token = newToken()
      const { ticksAfter } = yield* TickStore
      const at = (position: number, epoch: number, day = 0) =>
        makeTick({
          instrument_token: token,
          // later positions at earlier times: positions follow arrival
          exchange_ts: OPEN + day * 24 * HOUR + 1000 - position,
          sequence_id: position + (epoch - EPOCH) * 100,
          epoch,
          position
        })
      const today = [at(1, EPOCH), at(2, EPOCH), at(3, EPOCH), at(1, EPOCH + 60), at(2, EPOCH + 60)]
      const tomorrow = at(1, EPOCH + 1_000_000_000, 1)
      yield* write([...today, tomorrow], [at(50, EPOCH)])
      const from = (epoch: number, position: number, limit = 100) => ticksAfter(token, epoch, position, limit)
      const places = (rows: ReadonlyArray<StoredTick>) => rows.map((row) => [row.epoch, row.position])
      assert.deepStrictEqual(places(yield* from(EPOCH, 1)), [
        [EPOCH, 2],
        [EPOCH, 3],
        [EPOCH + 60, 1],
        [EPOCH + 60, 2]
      ])
      assert.deepStrictEqual(places(yield* from(EPOCH, 1, 2)), [
        [EPOCH, 2],
        [EPOCH, 3]
      ])
      assert.deepStrictEqual(yield* from(EPOCH + 60, 1), [asStored(at(2, EPOCH + 60))])
      assert.deepStrictEqual(yield* from(EPOCH + 60, 2), [])
    })
  )

  it.effect("counts and lists by half-open range", () =>
    Effect.gen(function* () {
      const { count, tokens } = yield* TickStore
      const [one, two] = [newToken(), newToken()]
      const tick = (instrument_token: number, n: number) =>
        makeTick({ instrument_token, exchange_ts: OPEN + n, sequence_id: n, position: n + 1 })
      yield* write([tick(one, 0), tick(one, 5), tick(two, 5), tick(two, 10)])
      assert.strictEqual(yield* count([one, two], OPEN, OPEN + 10), 3)
      assert.strictEqual(yield* count([two, two], OPEN, OPEN + 11), 2)
      assert.strictEqual(yield* count([], OPEN, OPEN + 10), 0)
      const ours = (found: ReadonlyArray<number>) => found.filter((token) => token === one || token === two)
      assert.deepStrictEqual(ours(yield* tokens(OPEN, OPEN + 5)), [one])
      assert.deepStrictEqual(ours(yield* tokens(OPEN + 5, OPEN + 6)), [one, two])
      assert.deepStrictEqual(ours(yield* tokens(OPEN + 6, OPEN + 10)), [])
      assert.deepStrictEqual(ours(yield* tokens(OPEN + 10, OPEN + 10)), [])
    })
  )

  it.effect("names the newest days that hold a tick or a quote, each once", () =>
    Effect.gen(function* () {
      const store = yield* TickStore
      const { newestDays } = store
      const token = newToken()
      // Past all that other cases write.
      const last = tradingDay(MAX_MICROS) - 2
      const at = (day: number, micros: number, n: number) =>
        makeTick({
          instrument_token: token,
          exchange_ts: tradingDayStart(day) + micros,
          sequence_id: n,
          position: n,
          epoch: tradingDayStart(day)
        })
      const night = 86_400_000_000 - 1
      yield* write([at(last, 0, 1), at(last - 2, night, 1), at(last - 2, 1, 2), at(last - 9, 1, 1)])
      assert.deepStrictEqual(yield* newestDays(3), [last, last - 2, last - 9])
      assert.deepStrictEqual(yield* newestDays(2), [last, last - 2])
      const quote = makeQuote({ instrument_token: token, exchange_ts: tradingDayStart(last - 1) })
      yield* store.write(storeBatch({ quotes: [quote] }))
      assert.deepStrictEqual(yield* newestDays(4), [last, last - 1, last - 2, last - 9])
    })
  )

  it.effect(
    "has another revision after a tick of those instruments and times came or found its place, and only then",
    () =>
      Effect.gen(function* () {
        const [one, two] = [newToken(), newToken()]
        const { revision } = yield* TickStore
        const of = (...tokens: ReadonlyArray<number>) => revision(tokens, OPEN, OPEN + 10)
        const tick = (instrument_token: number, n: number) =>
          makeTick({ instrument_token, exchange_ts: OPEN + n, sequence_id: n, position: n + 1 })
        const empty = yield* of(one)
        yield* write([tick(one, 1)])
        const first = yield* of(one)
        assert.notStrictEqual(first, empty)
        const both = yield* of(one, two)
        yield* write([tick(one, 1), tick(one, 10), tick(two, 3)])
        assert.strictEqual(yield* of(one), first)
        assert.notStrictEqual(yield* of(one, two), both)
        yield* write([], [tick(one, 2)])
        const replayed = yield* of(one)
        assert.notStrictEqual(replayed, first)
        yield* write([tick(one, 2)])
        const placed = yield* of(one)
        assert.notInclude([empty, first, replayed], placed)
        yield* write([tick(one, 2)], [tick(one, 1)])
        assert.strictEqual(yield* of(one), placed)
      })
  )
})
