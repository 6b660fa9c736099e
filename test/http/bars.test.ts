import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { type BarsQuery, bars } from "../../src/http/bars.ts"
import { barStart, type Interval, intervalMinutes, withOi } from "../../src/schema/Candle.ts"
import type { Quote } from "../../src/schema/Quote.ts"
import { barOpen, barPhase, sessionDay } from "../../src/schema/Sessions.ts"
import { tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import { type StoredTick, TickStore } from "../../src/streams/ports/TickStore.ts"
import { makeQuote } from "../contract/ticks.ts"
import { barsOf, memoryStore, Rows } from "./memoryStore.ts"

const MINUTE = 60_000_000
/** 2026-01-16, a Friday, 09:15 IST. */
const OPEN = 1_768_535_100_000_000
const DAY = tradingDayStart(tradingDay(OPEN))
const LATER = OPEN + 365 * 1440 * MINUTE

const tick = (exchange_ts: number, price: number, sequence_id: number): StoredTick => ({
  instrument_token: 1,
  exchange_ts,
  sequence_id,
  price,
  volume: 10,
  status: "LIVE",
  epoch: null,
  position: null,
  feed: "dma",
  session: 0,
  sequencing: "contiguous",
  received_ts: exchange_ts
})

const stored = (ticks: ReadonlyArray<StoredTick>, quotes: ReadonlyArray<Quote> = []) => {
  const rows = new Rows()
  rows.ticks.push(...ticks)
  rows.quotes.push(...quotes)
  return Effect.map(Layer.build(memoryStore(rows)), (context) => Context.get(context, TickStore))
}

const query = (asked: Partial<BarsQuery>): BarsQuery => ({
  token: 1,
  segment: "NSE_EQ",
  interval: "1m",
  from: DAY,
  to: DAY + 1440 * MINUTE,
  limit: 10_000,
  fill: "none",
  session: "all",
  now: LATER,
  ...asked
})

describe("bars of a candle request", () => {
  it.effect("say the phase of their start, and are final once their time is over", () =>
    Effect.gen(function* () {
      const store = yield* stored([
        tick(OPEN - 10 * MINUTE, 99, 1),
        tick(OPEN, 100, 2),
        tick(OPEN + 90_000_000, 101, 3),
        tick(OPEN + 400 * MINUTE, 102, 4)
      ])
      const { bars: answered } = yield* bars(store, query({ now: OPEN + 2 * MINUTE }))
      assert.deepStrictEqual(
        answered.map(({ ts, phase, final }) => [(ts - OPEN) / MINUTE, phase, final]),
        [
          [-10, "PRE_OPEN", true],
          [0, "CONTINUOUS", true],
          [1, "CONTINUOUS", true],
          [400, "POST_CLOSE", false]
        ]
      )
    })
  )

  it.effect("of the regular session leave out pre-open and post-close, also inside a day bar", () =>
    Effect.gen(function* () {
      const store = yield* stored([
        tick(OPEN - 10 * MINUTE, 500, 1),
        tick(OPEN, 100, 2),
        tick(OPEN + 374 * MINUTE, 101, 3),
        tick(OPEN + 400 * MINUTE, 1, 4)
      ])
      const minutes = yield* bars(store, query({ session: "regular" }))
      assert.deepStrictEqual(
        minutes.bars.map(({ ts }) => (ts - OPEN) / MINUTE),
        [0, 374]
      )
      const days = yield* bars(store, query({ session: "regular", interval: "1d" }))
      assert.deepStrictEqual(days.bars, [
        { ts: DAY, open: 100, high: 101, low: 100, close: 101, volume: 20, phase: "CONTINUOUS", final: true }
      ])
      const all = yield* bars(store, query({ interval: "1d" }))
      assert.deepInclude(all.bars[0], { open: 500, high: 500, low: 1, close: 1, volume: 40 })
    })
  )

  it.effect("fill continuous trading after the day's first bar, and nothing else", () =>
    Effect.gen(function* () {
      const store = yield* stored([tick(OPEN + 2 * MINUTE, 100, 1), tick(OPEN + 5 * MINUTE, 105, 2)])
      const { bars: answered } = yield* bars(store, query({ fill: "previous" }))
      assert.strictEqual(answered.length, 375 - 2)
      assert.deepStrictEqual(
        answered.slice(0, 5).map(({ ts, open, close, volume }) => [(ts - OPEN) / MINUTE, open, close, volume]),
        [
          [2, 100, 100, 10],
          [3, 100, 100, 0],
          [4, 100, 100, 0],
          [5, 105, 105, 10],
          [6, 105, 105, 0]
        ]
      )
      assert.strictEqual((answered.at(-1)!.ts - OPEN) / MINUTE, 374)
      const during = yield* bars(store, query({ fill: "previous", now: OPEN + 8 * MINUTE + 1 }))
      assert.strictEqual((during.bars.at(-1)!.ts - OPEN) / MINUTE, 8)
      assert.isFalse(during.bars.at(-1)!.final)
    })
  )

  it.effect("start filled where the day's earlier bars lie before the range", () =>
    Effect.gen(function* () {
      const store = yield* stored([tick(OPEN, 100, 1)])
      const { bars: answered } = yield* bars(
        store,
        query({ fill: "previous", from: OPEN + 10 * MINUTE + 1, to: OPEN + 13 * MINUTE })
      )
      assert.deepStrictEqual(
        answered.map(({ ts, close }) => [(ts - OPEN) / MINUTE, close]),
        [
          [11, 100],
          [12, 100]
        ]
      )
    })
  )

  it.effect("of days are filled over trading days, for 31 days", () =>
    Effect.gen(function* () {
      const store = yield* stored([tick(OPEN, 100, 1)])
      const { bars: answered } = yield* bars(
        store,
        query({ fill: "previous", interval: "1d", to: DAY + 100 * 1440 * MINUTE })
      )
      const days = Array.from({ length: 32 }, (_, i) => tradingDay(OPEN) + i).filter(
        (day) => sessionDay("NSE_EQ", day).phases.length > 0
      )
      assert.deepStrictEqual(
        answered.map(({ ts }) => tradingDay(ts)),
        days
      )
      assert.isBelow(days.length, 32)
    })
  )

  const Asked = Schema.Struct({
    minutes: Schema.Array(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 2 * 1440 - 1 })))).pipe(
      Schema.check(Schema.isBetweenLength(1, 40))
    ),
    quoted: Schema.Array(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 2 * 1440 - 1 })))).pipe(
      Schema.check(Schema.isMaxLength(40))
    ),
    interval: Schema.Literals(["1m", "5m", "15m", "30m", "1h", "1d"]),
    fill: Schema.Literals(["none", "previous"]),
    session: Schema.Literals(["all", "regular"]),
    segment: Schema.Literals(["NSE_EQ", "SIM", "MCX"]),
    from: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 2 * 1440 }))),
    limit: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 50 })))
  })

  it.effect.prop(
    "are the same by pages as at once, wherever pages are cut, and the same as the ticks give",
    [Asked],
    ([asked]) =>
      Effect.gen(function* () {
        const ticks = asked.minutes.map((minute, i) => tick(DAY + minute * MINUTE + i + 1, 100 + (i % 7), i + 1))
        // In minutes of ticks and in others.
        const quotes = [...asked.minutes.slice(0, 10), ...asked.quoted].map((minute, i) =>
          makeQuote({ instrument_token: 1, exchange_ts: DAY + minute * MINUTE + 60 * i, oi: i % 9 })
        )
        const store = yield* stored(ticks, quotes)
        const interval: Interval = asked.interval
        const q = query({
          interval,
          fill: asked.fill,
          session: asked.session,
          segment: asked.segment,
          from: DAY + asked.from * MINUTE,
          to: DAY + 2 * 1440 * MINUTE
        })
        const whole = yield* bars(store, { ...q, limit: 100_000 })
        assert.strictEqual(whole.next, undefined)
        const pages: Array<(typeof whole.bars)[number]> = []
        let from: number | undefined = q.from
        while (from !== undefined) {
          const page: Effect.Success<ReturnType<typeof bars>> = yield* bars(store, { ...q, from, limit: asked.limit })
          assert.isAtMost(page.bars.length, asked.limit)
          pages.push(...page.bars)
          from = page.next
        }
        assert.deepStrictEqual(pages, whole.bars)

        const width = intervalMinutes[interval] * MINUTE
        const isRegular = (ts: number, end: number) =>
          sessionDay(asked.segment, tradingDay(ts)).phases.some(
            (p) => (p.phase === "CONTINUOUS" || p.phase === "CAS") && p.from < end && ts < p.to
          )
        const start = (ts: number) => barStart(ts, interval, barOpen(asked.segment))
        const counted = ticks
          .toSorted((a, b) => a.exchange_ts - b.exchange_ts || a.sequence_id - b.sequence_id)
          .filter(({ exchange_ts }) => {
            const minute = barStart(exchange_ts, "1m")
            return asked.session === "all" || isRegular(minute, minute + MINUTE)
          })
        const oi = new Map(
          quotes
            .toSorted((a, b) => a.exchange_ts - b.exchange_ts)
            .map((quote) => [barStart(quote.exchange_ts, "1m"), quote.oi] as const)
            .filter(([minute]) => asked.session === "all" || isRegular(minute, minute + MINUTE))
            .map(([minute, oi]) => [start(minute), oi] as const)
        )
        const first = interval === "1d" ? barStart(q.from, "1d") : q.from
        const expected = barsOf(counted, interval, start).filter(({ ts }) => ts >= first && ts < q.to)
        const traded = whole.bars.filter(({ volume }) => volume > 0)
        assert.deepStrictEqual(
          traded,
          expected.map((bar) => ({
            ...withOi(bar, oi.get(bar.ts)),
            phase: barPhase(asked.segment, bar.ts, width),
            final: true
          }))
        )
        if (asked.fill === "none") assert.strictEqual(traded.length, whole.bars.length)
        for (const [i, bar] of whole.bars.entries()) {
          if (i > 0) assert.isAbove(bar.ts, whole.bars[i - 1]!.ts)
          assert.strictEqual(bar.ts, start(bar.ts))
          if (bar.volume > 0) continue
          const before = barsOf(counted, interval, start).findLast(({ ts }) => ts < bar.ts)
          assert.strictEqual(bar.close, before?.close)
          assert.isTrue(isRegular(bar.ts, bar.ts + width))
        }
      })
  )
})
