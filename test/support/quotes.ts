/** Decides which quotes tests use that want every field to say something. */
import { type Level, MAX_LEVELS, type Quote } from "../../src/schema/Quote.ts"
import { makeQuote } from "../contract/ticks.ts"

const side = (best: number, step: number, levels: number, i: number): ReadonlyArray<Level> =>
  Array.from({ length: levels }, (_, n) => [best + step * n, 50 * (1 + ((i + n) % 9)), (i + n) % 4])

/** The i-th: no two say the same, some have no book, half a book or not every field. */
export const quoteOf = (i: number, given: Partial<Quote> = {}): Quote => {
  const { exchange_ts } = makeQuote(given)
  return makeQuote({
    bid: i % 7 === 6 ? undefined : side(100 + i, -0.05, i % (MAX_LEVELS + 1), i),
    ask: i % 11 === 10 ? undefined : side(100.05 + i, 0.05, MAX_LEVELS - (i % (MAX_LEVELS + 1)), i),
    total_buy_quantity: i * 1000,
    total_sell_quantity: i % 3 === 0 ? undefined : i * 999,
    oi: i % 5 === 4 ? undefined : 2 ** 40 + i,
    oi_day_high: 2 ** 41 + i,
    oi_day_low: i,
    average_price: 100.0000001 + i,
    last_quantity: i % 2,
    last_trade_ts: exchange_ts - i,
    open: 99.5,
    high: 101.25 + i,
    low: i % 13 === 12 ? undefined : -37.63,
    previous_close: 98.05,
    lower_circuit: 90,
    upper_circuit: 110,
    day_volume: i % 4 === 3 ? undefined : i * 7,
    feed: i % 2 === 0 ? "snapshot" : "odd feed ☂",
    source: ["raw-1", i, 1],
    old: i % 6 === 5,
    ...given
  })
}
