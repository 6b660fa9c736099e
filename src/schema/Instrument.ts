/** Decides what is known of an instrument besides its ticks. */
import { Schema } from "effect"
import { InstrumentToken } from "./RawTick.ts"

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
