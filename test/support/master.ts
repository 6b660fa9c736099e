/**
 * Decides how tests make a broker's whole file: a hundred thousand instruments of all exchanges, indices, shares and
 * what is derived from them, as named and numbered as a broker does.
 */
import type { Instrument } from "../../src/schema/Instrument.ts"
import { instrumentOf } from "./instruments.ts"

export const MASTER_SIZE = 100_000
/** The day that the file is of: what expired before it is in it as well. */
export const MASTER_DAY = "2026-08-03"

const INDICES = [
  ...["NIFTY 50", "NIFTY BANK", "NIFTY NEXT 50", "NIFTY FIN SERVICE", "NIFTY MID SELECT", "NIFTY 100", "NIFTY 500"],
  ...["NIFTY IT", "NIFTY AUTO", "NIFTY PHARMA", "NIFTY FMCG", "NIFTY METAL", "INDIA VIX"]
]
const NAMED: ReadonlyArray<readonly [symbol: string, name: string]> = [
  ["RELIANCE", "RELIANCE INDUSTRIES"],
  ["RPOWER", "RELIANCE POWER"],
  ["RELINFRA", "RELIANCE INFRASTRUCTURE"],
  ["M&M", "MAHINDRA & MAHINDRA"],
  ["M&MFIN", "M&M FIN. SERVICES"],
  ["BAJAJ-AUTO", "BAJAJ AUTO"],
  ["INFY", "INFOSYS"],
  ["HDFCBANK", "HDFC BANK"],
  ["BSE", "BSE"],
  ["TATAMOTORS", "TATA MOTORS"],
  ["SBIN", "STATE BANK OF INDIA"],
  ["360ONE", "360 ONE WAM"],
  ["BANKINDIA", "BANK OF INDIA"],
  ["IDEA", "VODAFONE IDEA"],
  ["NIFTYBEES", "NIPPON INDIA ETF NIFTY BEES"],
  ["BANKBEES", "NIPPON INDIA ETF NIFTY BANK BEES"]
]
const MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
const MONTHLY = ["2026-07-28", "2026-08-25", "2026-09-29", "2026-10-27"]
const WEEKLY = ["2026-07-21", "2026-08-04", "2026-08-11", "2026-08-18", "2026-09-01", "2026-09-08", "2026-09-15"]

const monthly = (expiry: string) => `${expiry.slice(2, 4)}${MONTHS[Number(expiry.slice(5, 7)) - 1]}`
const weekly = (expiry: string) => `${expiry.slice(2, 4)}${Number(expiry.slice(5, 7))}${expiry.slice(8)}`

/** A made-up name, the same for the same number. */
const syllables = [
  "KA",
  "VEN",
  "TRI",
  "SHO",
  "LAX",
  "MEH",
  "DUR",
  "GAN",
  "PRA",
  "NIR",
  "SUN",
  "JAY",
  "OM",
  "RAJ",
  "BHA",
  "CHI"
]
const madeUp = (n: number) => [n, n >> 4, n >> 8, n >> 12].map((digit) => syllables[digit % syllables.length]).join("")

/** The file, in no order of names. */
export const master = (size = MASTER_SIZE): ReadonlyArray<Instrument> => {
  const list: Array<Instrument> = []
  const add = (symbol: string, exchange: string, given: Partial<Instrument>) => {
    if (list.length < size) list.push(instrumentOf(list.length + 1, symbol, exchange, given))
  }
  const contracts = (
    root: string,
    exchange: string,
    given: { readonly at: number; readonly step: number; readonly strikes: number; readonly weeks: boolean }
  ) => {
    const { at, step, strikes, weeks } = given
    for (const expiry of MONTHLY) {
      add(`${root}${monthly(expiry)}FUT`, exchange, { asset_class: "FUT", name: root, expiry, strike: 0, lot_size: 75 })
    }
    for (const expiry of [...(weeks ? WEEKLY : []), ...MONTHLY.slice(0, 3)]) {
      const code = MONTHLY.includes(expiry) ? monthly(expiry) : weekly(expiry)
      for (let n = 0; n < strikes; n += 1) {
        const strike = at + (n - (strikes >> 1)) * step
        for (const option_type of ["CE", "PE"] as const) {
          const contract = { asset_class: "OPT", name: root, expiry, strike, option_type, lot_size: 75 } as const
          add(`${root}${code}${strike}${option_type}`, exchange, contract)
        }
      }
    }
  }
  for (const name of INDICES) add(name, "NSE", { asset_class: "INDEX", name })
  for (const name of ["SENSEX", "BANKEX"]) add(name, "BSE", { asset_class: "INDEX", name })
  for (const [symbol, name] of NAMED) for (const exchange of ["BSE", "NSE"]) add(symbol, exchange, { name })
  contracts("NIFTYNXT50", "NFO", { at: 68_000, step: 100, strikes: 100, weeks: false })
  contracts("NIFTY", "NFO", { at: 24_500, step: 50, strikes: 160, weeks: true })
  contracts("BANKNIFTY", "NFO", { at: 56_500, step: 100, strikes: 160, weeks: true })
  contracts("FINNIFTY", "NFO", { at: 26_500, step: 50, strikes: 100, weeks: false })
  contracts("SENSEX", "BFO", { at: 80_000, step: 100, strikes: 160, weeks: true })
  contracts("CRUDEOIL", "MCX", { at: 6000, step: 50, strikes: 60, weeks: false })
  contracts("CRUDEOILM", "MCX", { at: 6000, step: 50, strikes: 60, weeks: false })
  contracts("GOLD", "MCX", { at: 98_000, step: 500, strikes: 60, weeks: false })
  for (const [symbol] of NAMED.slice(0, 14)) contracts(symbol, "NFO", { at: 1500, step: 20, strikes: 60, weeks: false })
  contracts("NMDC", "NFO", { at: 67.5, step: 2.5, strikes: 20, weeks: false })
  for (let n = 1; n <= 160; n += 1) contracts(madeUp(n * 97), "NFO", { at: 1000, step: 10, strikes: 60, weeks: false })
  for (let n = 1; list.length < size; n += 1) {
    add(madeUp(n * 7), n % 5 < 2 ? "NSE" : "BSE", {
      name: `${madeUp(n * 7)} ${["LIMITED", "INDUSTRIES", "BANK"][n % 3]} ${n}`
    })
  }
  return list
}
