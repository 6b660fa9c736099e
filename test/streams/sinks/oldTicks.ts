/** Decides which ticks and quotes the tests of old days have: the same in every process of a day. */
import type { Quote } from "../../../src/schema/Quote.ts"
import { type Tick, tradingDay, tradingDayStart } from "../../../src/schema/Tick.ts"
import { makeQuote, makeTick } from "../../contract/ticks.ts"

export const KEEP_DAYS = 3
/** Days before today: two that are to be dropped, one that is kept. */
const DAYS_AGO = [6, 5, 1]
const HOUR = 3_600_000_000

export const oldTicks = (): ReadonlyArray<Tick> => {
  const today = tradingDay(Date.now() * 1000)
  return DAYS_AGO.flatMap((ago) =>
    Array.from({ length: 50 }, (_, i) =>
      makeTick({
        instrument_token: 1 + (i % 2),
        exchange_ts: tradingDayStart(today - ago) + 10 * HOUR + i * 1000,
        sequence_id: i + 1,
        position: i + 1,
        price: 100 + i
      })
    )
  )
}

/** Of two instruments, of which one never trades, with as much of the book as the store keeps. */
export const oldQuotes = (): ReadonlyArray<Quote> => {
  const today = tradingDay(Date.now() * 1000)
  return DAYS_AGO.flatMap((ago) =>
    Array.from({ length: 20 }, (_, i) =>
      makeQuote({
        instrument_token: i % 2 === 0 ? 1 : 9,
        exchange_ts: tradingDayStart(today - ago) + 10 * HOUR + i * 1000,
        bid: [[100 + i, 50, 2]],
        ask: [],
        oi: 1000 + i,
        source: ["raw-1", 100 + i, 1]
      })
    )
  )
}
