/** Decides how tests make an instrument: a share that says no more than it has to, unless a case gives more. */
import type { Instrument } from "../../src/schema/Instrument.ts"

export const instrumentOf = (
  token: number,
  symbol: string,
  exchange = "NSE",
  given: Partial<Instrument> = {}
): Instrument => ({
  instrument_token: token,
  tradingsymbol: symbol,
  exchange,
  asset_class: "EQ",
  tick_size: 0.05,
  name: null,
  expiry: null,
  strike: null,
  option_type: null,
  lot_size: null,
  ...given
})
