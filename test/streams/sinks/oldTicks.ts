/** Decides which ticks the tests of old days have: the same in every process of a day. */
import { type Tick, tradingDay, tradingDayStart } from "../../../src/schema/Tick.ts"
import { makeTick } from "../../contract/ticks.ts"

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
