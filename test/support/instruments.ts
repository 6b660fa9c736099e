/** Decides how tests make an instrument, a share that says no more than it has to unless a case gives more, and search some. */
import { building } from "../../src/layers/instruments/instrumentIndex.ts"
import { fullSymbol, type Instrument } from "../../src/schema/Instrument.ts"
import type { Meaning } from "../../src/schema/Meaning.ts"
import type { InstrumentSearch } from "../../src/streams/ports/Instruments.ts"
import { atOnce } from "../../src/streams/run/slices.ts"

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

/** The index of a list, built and searched without a pause. */
export const instrumentIndex = (list: Iterable<Instrument>) => {
  const index = atOnce(building(list))
  return { ...index, search: (search: InstrumentSearch) => atOnce(index.searching(search)) }
}

/** What is asked of instruments, of those that mean something on some days. */
export const lookups = (meanings: ReadonlyArray<Meaning>) => {
  const at = (token: number, day: number) =>
    meanings.find((one) => one.instrument.instrument_token === token && one.from <= day && day <= one.through)
      ?.instrument
  const everNamed = (symbol: string) =>
    meanings.filter(({ instrument }) => instrument.tradingsymbol === symbol || fullSymbol(instrument) === symbol)
  return {
    get: (token: number) => at(token, Infinity),
    named: (symbol: string) =>
      everNamed(symbol).flatMap(({ instrument, through }) => (through === Infinity ? [instrument] : [])),
    at,
    everNamed
  }
}

/** The same of instruments that have always been what they are. */
export const constant = (list: ReadonlyArray<Instrument>) =>
  lookups(list.map((instrument) => ({ instrument, from: -Infinity, through: Infinity })))
