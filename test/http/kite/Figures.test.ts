import { assert, describe, it } from "@effect/vitest"
import { Figures } from "../../../src/http/kite/Figures.ts"
import { type Quote, unknownQuote } from "../../../src/schema/Quote.ts"
import { tradingDay } from "../../../src/schema/Tick.ts"
import { tickOf } from "../../support/hub.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { OPEN } from "../memoryStore.ts"

const INFY = 408_065
const SECOND = 1_000_000
const tick = (position: number, price: number, volume: number, at = position) =>
  tickOf(INFY, 1, position, { exchange_ts: OPEN + at * SECOND, price, volume })
const quote = (at: number, fields: Partial<Quote>, offset = at): Quote => ({
  ...unknownQuote(),
  instrument_token: INFY,
  exchange_ts: OPEN + at * SECOND,
  feed: "snapshot",
  received_ts: OPEN,
  source: ["raw", offset, 1],
  old: false,
  ...fields
})
const shown = (figures: Figures, shift = 0) => figures.snapshot(instrumentOf(INFY, "INFY"), shift)!

describe("What is known of an instrument", () => {
  it("is nothing before there is a price, and of trades alone the day's own with zeros for the rest", () => {
    const figures = new Figures(INFY)
    assert.isUndefined(figures.snapshot(undefined, 0))
    for (const one of [tick(1, 100, 10), tick(2, 104, 30), tick(3, 99, 0)]) assert.isTrue(figures.take(one))
    assert.isFalse(figures.take(tick(3, 99, 0)))
    assert.containsSubset(shown(figures), {
      lastPrice: 99,
      lastQuantity: 0,
      volume: 40,
      open: 100,
      high: 104,
      low: 99,
      close: 0,
      change: 0,
      averagePrice: 103,
      buyQuantity: 0,
      oi: 0,
      lowerCircuit: 0,
      lastTradeSeconds: OPEN / SECOND + 3
    })
  })

  it("is what the packet says where it does, and what trades went beyond it", () => {
    const figures = new Figures(INFY)
    figures.take(tick(1, 100, 10))
    assert.isTrue(
      figures.takeQuote(
        quote(2, {
          open: 98,
          high: 101,
          low: 97.5,
          previous_close: 96,
          day_volume: 5000,
          average_price: 99.25,
          last_quantity: 7,
          total_buy_quantity: 11,
          total_sell_quantity: 12,
          oi: 13,
          oi_day_high: 14,
          oi_day_low: 10,
          bid: [[99.5, 1, 2]],
          ask: [],
          lower_circuit: 80,
          upper_circuit: 120
        })
      )
    )
    assert.containsSubset(shown(figures), {
      lastPrice: 100,
      lastQuantity: 7,
      open: 98,
      high: 101,
      low: 97.5,
      close: 96,
      change: 4,
      volume: 5000,
      averagePrice: 99.25,
      buyQuantity: 11,
      sellQuantity: 12,
      oi: 13,
      oiDayHigh: 14,
      oiDayLow: 10,
      lowerCircuit: 80,
      upperCircuit: 120,
      exchangeSeconds: OPEN / SECOND + 2,
      lastTradeSeconds: OPEN / SECOND + 1
    })
    assert.deepStrictEqual(shown(figures).bid, [[99.5, 1, 2], ...Array.from({ length: 4 }, () => [0, 0, 0])] as never)
    assert.isFalse(figures.takeQuote(quote(1, { oi: 1 })))
    assert.isFalse(figures.takeQuote(quote(1, { oi: 1, source: ["another", 99, 1] })))
    figures.take(tick(2, 102, 20, 3))
    assert.containsSubset(shown(figures), { lastPrice: 102, lastQuantity: 20, high: 102, low: 97.5, oi: 13 })
  })

  it("of a day that is over closes it, and of a late tick tells the day but not its last trade", () => {
    const figures = new Figures(INFY)
    figures.take(tick(1, 100, 10, 0))
    figures.take(tick(2, 110, 10, 5))
    assert.isTrue(figures.take(tick(3, 90, 1, 2)))
    assert.containsSubset(shown(figures), { lastPrice: 110, low: 90, volume: 21 })
    figures.take(tickOf(INFY, 2, 1, { exchange_ts: OPEN + 86_400 * SECOND, price: 120, volume: 2 }))
    assert.containsSubset(shown(figures), { close: 110, open: 120, low: 120, volume: 2, change: 10 })
  })

  it("is the most that was seen of the day where what was found lacks some of it, and the later of both last trades", () => {
    const figures = new Figures(INFY)
    for (const one of [tick(6, 90, 5), tick(7, 120, 5), tick(8, 100, 5)]) figures.take(one)
    figures.lacksDay = true
    assert.containsSubset(shown(figures), { lastPrice: 100, volume: 0, open: 0, high: 0, low: 0 })
    const found = (volume: number, position: number) => {
      const day = new Figures(INFY)
      day.begin({
        day: tradingDay(OPEN),
        price: 103,
        volume: 1,
        exchange_ts: OPEN + position * SECOND,
        place: { epoch: 1, position },
        so_far: { open: 101, high: 103, low: 99, close: 103, volume },
        turnover: 102 * volume,
        previousClose: { price: 95, day: tradingDay(OPEN) - 1 }
      })
      return day
    }
    const earlier = found(7, 3)
    earlier.take(tick(8, 100, 5))
    figures.learn(earlier)
    figures.lacksDay = false
    assert.containsSubset(shown(figures), { lastPrice: 100, open: 101, high: 120, low: 90, volume: 15, close: 95 })
    assert.isFalse(figures.take(tick(8, 100, 5)))
    figures.learn(found(40, 9))
    assert.containsSubset(shown(figures), { lastPrice: 103, high: 120, low: 90, volume: 40, averagePrice: 102 })
    assert.isFalse(figures.take(tick(9, 100, 5)))
  })

  it("is told by the packet of a new day before its first trade, which the old day's bar is no part of", () => {
    const figures = new Figures(INFY)
    figures.take(tick(1, 100, 10))
    figures.takeQuote(quote(86_400, { total_buy_quantity: 5 }))
    assert.containsSubset(shown(figures), { lastPrice: 100, open: 0, high: 0, volume: 0, close: 100, buyQuantity: 5 })
  })

  it("is of the days that may be told alone: the last price, what a packet said, and what the day before closed at", () => {
    const figures = new Figures(INFY)
    const today = tradingDay(OPEN)
    const since = (first: number) => (day: number) => day >= first
    const told = (first: number) => figures.snapshot(instrumentOf(INFY, "INFY"), 0, since(first))
    figures.closedAt({ price: 90, day: today - 3 })
    figures.take(tick(1, 100, 10))
    assert.containsSubset(told(today - 3), { lastPrice: 100, close: 90 })
    assert.containsSubset(told(today - 2), { lastPrice: 100, close: 0 })
    assert.isUndefined(told(today + 1))
    assert.deepStrictEqual([figures.isAllOf(since(today - 3)), figures.isAllOf(since(today - 2))], [true, false])
    // A packet of tomorrow tells nothing of itself to whom today may not be told.
    figures.takeQuote(quote(86_400, { total_buy_quantity: 5 }))
    assert.isUndefined(told(today + 1))
    assert.strictEqual(told(today)!.buyQuantity, 5)
    const only = figures.snapshot(instrumentOf(INFY, "INFY"), 0, (day) => day === today)!
    assert.deepStrictEqual([only.buyQuantity, only.lastPrice], [0, 100])
    // The next day's first trade makes today's price its close.
    figures.take(tickOf(INFY, 2, 1, { exchange_ts: OPEN + 86_400 * SECOND, price: 120, volume: 2 }))
    assert.strictEqual(told(today)!.close, 100)
    assert.strictEqual(told(today + 1)!.close, 0)
  })

  it("has its stamps moved as asked, is written once a state, and nothing of a run is kept over its beginning", () => {
    const figures = new Figures(INFY)
    figures.take(tick(1, 100, 10))
    assert.strictEqual(shown(figures, 86_400 * SECOND).lastTradeSeconds, OPEN / SECOND + 1 + 86_400)
    let written = 0
    const write = () => {
      written++
      return Uint8Array.of(written)
    }
    assert.strictEqual(figures.packet("full", write), figures.packet("full", write))
    figures.take(tick(2, 101, 1))
    assert.deepStrictEqual(figures.packet("full", write), Uint8Array.of(2))
    figures.forget()
    assert.isUndefined(figures.snapshot(undefined, 0))
  })
})
