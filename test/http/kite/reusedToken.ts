/** Decides what tests mean by a token that was another contract's: of which days, and what is stored of it. */
import { tradingDay } from "../../../src/schema/Tick.ts"
import { instrumentOf } from "../../support/instruments.ts"
import { OPEN, Rows, storedTick } from "../memoryStore.ts"

export const REUSED = 13_568_258
export const REUSED_NAME = "NFO:NIFTY99JANFUT"
/** A day of the former contract, which expired after it and before `OPEN`. */
export const FORMER_OPEN = OPEN - 30 * 86_400_000_000
export const FORMER_PRICE = 52_000
export const PRICE = 24_000

/** The former contract's tick, and the present one's where that has traded. */
export const reusedRows = (hasTraded: boolean): Rows => {
  const rows = new Rows()
  const future = { asset_class: "FUT", lot_size: 75 } as const
  const former = instrumentOf(REUSED, "BANKNIFTY25DECFUT", "NFO", { ...future, expiry: "2025-12-30" })
  const present = instrumentOf(REUSED, "NIFTY99JANFUT", "NFO", { ...future, expiry: "2099-01-29" })
  const [before, day] = [tradingDay(FORMER_OPEN), tradingDay(OPEN)]
  rows.sightings.set(REUSED, [
    { instrument: former, first: before, last: before },
    { instrument: present, first: day, last: day }
  ])
  rows.ticks.push(storedTick({ instrument_token: REUSED, exchange_ts: FORMER_OPEN, price: FORMER_PRICE }))
  if (hasTraded) {
    rows.ticks.push(
      storedTick({ instrument_token: REUSED, exchange_ts: OPEN, price: PRICE, sequence_id: 2, position: 2 })
    )
  }
  return rows
}
