/** Decides what is known of an instrument besides its ticks. */
import { Schema } from "effect"
import { cleaned, isPrintable } from "./printable.ts"
import { InstrumentToken } from "./RawValues.ts"

/** The longest symbol and name: a broker's are below half of it. */
export const MAX_SYMBOL_CHARS = 50
export const MAX_NAME_CHARS = 200
/** Rupees of a tick or a strike, and pieces of a lot, at most. */
export const MAX_RUPEES = 1_000_000_000
export const MAX_INT32 = 2_147_483_647

export const AssetClass = Schema.Literals(["EQ", "FUT", "OPT", "INDEX"])
export type AssetClass = typeof AssetClass.Type

/** The simulator's exchange: open at all hours, never a real market. */
export const SIMULATED_EXCHANGE = "SIM"

export const Instrument = Schema.Struct({
  instrument_token: InstrumentToken,
  tradingsymbol: Schema.String,
  exchange: Schema.String,
  asset_class: AssetClass,
  /** Rupees. */
  tick_size: Schema.Finite,
  name: Schema.NullOr(Schema.String),
  /** `YYYY-MM-DD`. */
  expiry: Schema.NullOr(Schema.String),
  /** Rupees. */
  strike: Schema.NullOr(Schema.Finite),
  option_type: Schema.NullOr(Schema.Literals(["CE", "PE"])),
  lot_size: Schema.NullOr(Schema.Int)
}).annotate({ identifier: "Instrument" })
export type Instrument = typeof Instrument.Type

/** `EXCHANGE:TRADINGSYMBOL`, the name that is unique. */
export const fullSymbol = (instrument: Instrument): string => `${instrument.exchange}:${instrument.tradingsymbol}`

export const isExchange = (text: string): boolean => /^[A-Z0-9]{1,10}$/.test(text)

/** Whether a text is a day of the calendar, `YYYY-MM-DD`, from year 1 on. */
export const isDate = (text: string): boolean => {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) return false
  const day = new Date(`${text}T00:00:00Z`)
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text) && !text.startsWith("0000")
}

const isRupees = (value: number): boolean => value >= 0 && value <= MAX_RUPEES
const isWhole = (value: number, minimum: number): boolean =>
  Number.isInteger(value) && value >= minimum && value <= MAX_INT32

/**
 * An instrument as a database has it, which anybody may have written: itself where all is well; with its name cut where
 * only that is too long or not printable; `undefined` where it is none. Told by hand: a hundred thousand come at a time.
 */
export const usable = (instrument: Instrument): Instrument | undefined => {
  const { instrument_token, tradingsymbol, exchange, asset_class, tick_size, name, expiry, strike, lot_size } =
    instrument
  if (
    !isWhole(instrument_token, 1) ||
    tradingsymbol.length === 0 ||
    tradingsymbol.length > MAX_SYMBOL_CHARS ||
    !isPrintable(tradingsymbol) ||
    !isExchange(exchange) ||
    !AssetClass.literals.includes(asset_class) ||
    !isRupees(tick_size) ||
    (expiry !== null && !isDate(expiry)) ||
    (strike !== null && !isRupees(strike)) ||
    (instrument.option_type !== null && instrument.option_type !== "CE" && instrument.option_type !== "PE") ||
    (lot_size !== null && !isWhole(lot_size, 0))
  ) {
    return undefined
  }
  if (name === null || (name.length <= MAX_NAME_CHARS && isPrintable(name))) return instrument
  return { ...instrument, name: cleaned(name, MAX_NAME_CHARS) || null }
}
