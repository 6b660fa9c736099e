/** Decides how instruments are written as the broker's file has them, for those that read it. */
import type { Instrument } from "../Instrument.ts"

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"

const quoted = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

const typeOf = ({ asset_class, option_type }: Instrument): string =>
  option_type ?? (asset_class === "FUT" ? "FUT" : "EQ")

/** The whole file. No line feed ends it: some clients would take an empty row for an instrument. */
export const instrumentsCsv = (
  instruments: ReadonlyArray<Instrument>,
  lastPriceOf: (token: number) => number = () => 0
): string =>
  [
    HEADER,
    ...instruments.map(
      (i) =>
        `${i.instrument_token},${i.instrument_token >> 8},${quoted(i.tradingsymbol)},${quoted(i.name ?? "")},` +
        `${lastPriceOf(i.instrument_token)},${i.expiry ?? ""},${i.strike ?? 0},${i.tick_size},${i.lot_size ?? 1},` +
        `${typeOf(i)},${i.asset_class === "INDEX" ? "INDICES" : i.exchange},${i.exchange}`
    )
  ].join("\n")
