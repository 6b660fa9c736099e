import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { bars } from "../../src/http/bars.ts"
import { newestBars } from "../../src/http/newestBars.ts"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../src/layers/archive/S3.ts"
import * as HistoryLayer from "../../src/layers/history/History.ts"
import { barStart, Interval, withOi } from "../../src/schema/Candle.ts"
import type { Quote } from "../../src/schema/Quote.ts"
import { compareTicks, type Tick, tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { MAX_MICROS, MIN_MICROS } from "../../src/schema/Time.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import type { History, PastTicks } from "../../src/streams/ports/History.ts"
import { type StoredTick, type TickCursor, TickStore } from "../../src/streams/ports/TickStore.ts"
import { storedPackets } from "../../src/streams/replay/replay.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { dropOldDays } from "../../src/streams/sinks/retention.ts"
import { emptyBucket } from "../support/buckets.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { s3 } from "../support/services.ts"
import { HOUR, MINUTE, newToken, range, recompute, refreshAll } from "./tickStore/rows.ts"
import { onEachStore, sql } from "./tickStore/stores.ts"
import { makeQuote, makeTick, NO_QUOTES, storeBatch } from "./ticks.ts"

const access = await s3()

const places = [
  {
    name: "files",
    layer: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "history-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      ),
      (folder) => Layer.orDie(ParquetFiles.layer(folder))
    )
  },
  ...(access === undefined
    ? []
    : [{ name: "S3", layer: Effect.map(emptyBucket(access), (options) => Layer.orDie(S3.layer(options))) }])
]

/** Today by the clock that the database has as well. */
const today = () => tradingDay(Date.now() * 1000)
const KEEP_DAYS = 3

const pages = Effect.fnUntraced(function* (past: Pick<PastTicks, "ticks">, token: number, limit: number, from: number) {
  const all: Array<StoredTick> = []
  let after: TickCursor | undefined
  for (;;) {
    const query = { instrument_token: token, from, to: MAX_MICROS, limit, ...(after === undefined ? {} : { after }) }
    const page = yield* past.ticks(query)
    all.push(...page)
    if (page.length < limit) return all
    after = page.at(-1)!
  }
})

const quotePages = Effect.fnUntraced(function* (past: Pick<PastTicks, "quotePage">, token: number, limit: number) {
  const all: Array<Quote> = []
  let after: number | undefined
  for (;;) {
    const query = { instrument_token: token, from: MIN_MICROS, to: MAX_MICROS, limit }
    const page = yield* past.quotePage(after === undefined ? query : { ...query, after })
    all.push(...page)
    if (page.length < limit) return all
    after = page.at(-1)!.exchange_ts
  }
})

/** All that is ever asked of the past of two instruments. */
const everything = Effect.fnUntraced(function* (history: History["Service"], tokens: readonly [number, number]) {
  const [token] = tokens
  const from = tradingDayStart(today() - 12)
  const asked: Record<string, unknown> = {}
  for (const limit of [7, 1000]) asked[`ticks by ${limit}`] = yield* pages(history, token, limit, MIN_MICROS)
  for (const limit of [7, 1000]) asked[`quotes by ${limit}`] = yield* quotePages(history, token, limit)
  asked.part = yield* pages(history, token, 10, tradingDayStart(today() - 6) + 10 * HOUR + 3 * MINUTE)
  for (const interval of Interval.literals) {
    for (const limit of [2, 10_000]) {
      const found = []
      let at = MIN_MICROS
      for (;;) {
        const page = yield* history.candles({ instrument_token: token, interval, from: at, to: MAX_MICROS, limit })
        found.push(...page)
        if (page.length < limit) break
        at = page.at(-1)!.ts + 1
      }
      asked[`${interval} by ${limit}`] = found
    }
    const query = { token, segment: "NSE_EQ", interval, from, to: MAX_MICROS, now: MAX_MICROS, session: "all" } as const
    asked[`${interval} regular`] = yield* bars(history, { ...query, limit: 100, fill: "none", session: "regular" })
    asked[`${interval} newest`] = yield* newestBars(history, { ...query, limit: 5 })
  }
  asked.tokens = (yield* history.tokens(from, MAX_MICROS)).filter((one) => tokens.includes(one))
  asked.days = yield* history.newestDays(100)
  asked.count = yield* history.count([...tokens, token], from, MAX_MICROS)
  asked.replay = [
    ...(yield* Stream.runCollect(storedPackets(history, { tokens: [...tokens], from, to: MAX_MICROS, arraySize: 50 })))
  ]
  return asked
})

for (const { name, layer } of places) {
  onEachStore(
    `history, with the archive on ${name}`,
    (it, { level }) => {
      it.effect(
        "is the same to the byte before and after days were dropped, of which the archive lacked some rows",
        () =>
          Effect.gen(function* () {
            yield* Effect.promise(() => withinOneDay(20_000))
            const store = yield* TickStore
            const archive = yield* Archive
            const tokens = [newToken(), newToken()] as const
            let position = 0
            const tick = (daysAgo: number, minute: number, given: Partial<Tick> = {}) => {
              position++
              const exchange_ts = tradingDayStart(today() - daysAgo) + 10 * HOUR + minute * MINUTE
              return makeTick({
                instrument_token: tokens[position % 5 === 0 ? 1 : 0],
                exchange_ts,
                sequence_id: position % 4 === 0 ? -position : position,
                sequencing: position % 4 === 0 ? "none" : "contiguous",
                position,
                price: ((position * 37) % 101) + 1.05,
                volume: position % 13,
                ...given
              })
            }
            // Old days, one of them with a tick just before and just after its midnight, ties, and late ones.
            const old = [
              ...range(90).map((n) => tick(9, Math.floor((n * 7) % 300))),
              tick(8, -10 * 60 - 1),
              tick(8, -10 * 60),
              ...range(60).map((n) => tick(6, (n * 11) % 400)),
              tick(3, -10 * 60 - 1)
            ]
            // The hour from 23:15 on is of a dropped day and of one that is kept.
            const kept = [
              ...range(60).map((n) => tick(1 + (n % 3), n * 3)),
              tick(3, -10 * 60 + 2),
              tick(3, -10 * 60 + 9)
            ]
            const unplaced = tick(6, 7, { instrument_token: tokens[0], sequence_id: 9_000_001 })
            // Minutes with a tick and minutes without one, several in a minute, at both ends of a day that goes.
            const quote = (daysAgo: number, minute: number, offset = 0) =>
              makeQuote({
                instrument_token: tokens[0],
                exchange_ts: tradingDayStart(today() - daysAgo) + 10 * HOUR + minute * MINUTE + offset,
                oi: 1000 + daysAgo * 100 + ((minute * 7 + offset) % 97),
                source: ["raw-1", daysAgo * 1000 + minute + offset, 1]
              })
            const quotes = [
              ...range(60).map((n) => quote(9, (n * 13) % 310, n % 3)),
              quote(9, 14 * 60 - 1),
              quote(3, -10 * 60 - 1),
              quote(3, -10 * 60 + 5),
              ...range(20).map((n) => quote(1 + (n % 2), n * 9))
            ]
            /** The bars of ticks with the last open interest of their time. */
            const expected = (ticks: ReadonlyArray<StoredTick>, interval: Interval) => {
              const oi = new Map(
                quotes
                  .toSorted((a, b) => a.exchange_ts - b.exchange_ts)
                  .map((one) => [barStart(one.exchange_ts, interval), one.oi])
              )
              return recompute(ticks, interval).map((bar) => withOi(bar, oi.get(bar.ts)))
            }
            yield* store.write(storeBatch({ ticks: [...old, ...kept], replayed: [unplaced], quotes }))
            const incarnation = `normalized-${tokens[0]}`
            // Of what came last before a kill, and of what replays added, the archive has nothing.
            const archived = [...old, ...kept].filter((_, i) => i % 10 !== 7)
            yield* archive.write(
              { incarnation, partition: 0, first: 0, last: 99 },
              toColumns(archived.slice(0, 100)),
              NO_QUOTES
            )
            yield* archive.write(
              { incarnation, partition: 0, first: 100, last: 299 },
              toColumns(archived.slice(100)),
              NO_QUOTES
            )
            yield* refreshAll

            const history = HistoryLayer.make(store, archive)
            const before = yield* everything(history, tokens)
            assert.deepStrictEqual(before["1m by 2"], expected(before["ticks by 7"] as ReadonlyArray<StoredTick>, "1m"))
            assert.strictEqual(
              (before["ticks by 7"] as ReadonlyArray<unknown>).length,
              [...old, ...kept, unplaced].filter((t) => t.instrument_token === tokens[0]).length
            )
            for (const asked of ["quotes by 7", "quotes by 1000"]) {
              assert.deepStrictEqual(
                (before[asked] as ReadonlyArray<Quote>).map(({ exchange_ts, oi }) => [exchange_ts, oi]),
                [...new Map(quotes.map(({ exchange_ts, oi }) => [exchange_ts, oi]))].sort(([a], [b]) => a - b),
                asked
              )
            }
            assert.deepStrictEqual(
              (before.replay as ReadonlyArray<object>).filter((one) => !("price" in one)),
              before["quotes by 7"]
            )
            assert.deepStrictEqual(yield* dropOldDays, { dropped: 0, reason: undefined })
            yield* sql("UPDATE store_state SET ticks_from_raised_at = now() - INTERVAL '1 hour'")
            const { dropped, reason } = yield* dropOldDays
            assert.isUndefined(reason)
            // Of nine, eight, six and four days ago. TimescaleDB's chunks are days of UTC: its first has the ticks of nine
            // and eight, and that of four stays for the day after, which is kept and begins in it.
            assert.isAtLeast(dropped, level === "plain" ? 4 : 2)
            const query = { instrument_token: tokens[0], from: MIN_MICROS, to: MAX_MICROS, limit: 1000 }
            assert.isBelow(
              (yield* store.ticks(query)).length,
              (before["ticks by 1000"] as ReadonlyArray<unknown>).length
            )
            assert.isAbove(yield* store.held, tradingDayStart(today() - 6))
            // One that has asked before, and one that asks for the first time.
            for (const one of [history, HistoryLayer.make(store, archive)]) {
              const after = yield* everything(one, tokens)
              for (const [asked, answer] of Object.entries(before)) assert.deepStrictEqual(after[asked], answer, asked)
            }

            // A tick that comes after its day was dropped is the archive's, and in its bar at once.
            const late = tick(9, 5, { instrument_token: tokens[0], sequence_id: 9_000_002, price: 5000 })
            quotes.push(quote(9, 299, 50), quote(9, 600))
            assert.deepStrictEqual(yield* store.write(storeBatch({ ticks: [late], quotes: quotes.slice(-2) })), {
              added: 0,
              dropped: 1,
              quotes: { added: 0, dropped: 2 }
            })
            yield* archive.write({ incarnation, partition: 0, first: 301, last: 301 }, toColumns([late]), NO_QUOTES)
            const ticks = yield* pages(history, tokens[0], 100, MIN_MICROS)
            assert.deepStrictEqual(ticks, [...ticks].sort(compareTicks))
            assert.isTrue(ticks.some(({ sequence_id }) => sequence_id === 9_000_002))
            for (const interval of Interval.literals) {
              const asked = { instrument_token: tokens[0], interval, from: MIN_MICROS, to: MAX_MICROS, limit: 10_000 }
              assert.deepStrictEqual(yield* history.candles(asked), expected(ticks, interval), interval)
            }
          }).pipe(Effect.provide([Layer.unwrap(layer), Readiness.layer]))
      )
    },
    { keepDays: KEEP_DAYS }
  )
}
