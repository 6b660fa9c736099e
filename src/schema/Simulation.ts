/** Decides what may be simulated: the made-up instruments of exchange `SIM`, and how a run may be asked for. */
import { Schema } from "effect"
import { type Instrument, SIMULATED_EXCHANGE } from "./Instrument.ts"

/** The first simulated token; the others follow it. No broker's segment reaches this range. */
export const FIRST_SIMULATED_TOKEN = 9_000_001
export const MAX_SIMULATED_INSTRUMENTS = 100_000
/** Rupees. */
export const SIMULATED_TICK_SIZE = 0.05

const finite = (minimum: number, maximum: number) =>
  Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const whole = (minimum: number, maximum: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Share = finite(0, 1)
const Text = Schema.String.pipe(Schema.check(Schema.isMinLength(1)))

/** Whether the snapshot feed carries the exchange's numbers, or none and the day's volume instead. */
export const SnapshotSequence = Schema.Literals(["exchange", "none"])
export type SnapshotSequence = typeof SnapshotSequence.Type

/** A run of the simulator. Shares are of the packets that a feed was meant to send. */
export const Simulation = Schema.Struct({
  symbols: whole(1, MAX_SIMULATED_INSTRUMENTS),
  /** Mean ticks a second, all instruments together. */
  rate: finite(0.1, 1_000_000),
  /** Forever where undefined. */
  durationMs: Schema.UndefinedOr(finite(1, 31_536_000_000)),
  loss: Share,
  duplicate: Share,
  reorder: Share,
  /** How much later than the DMA feed the snapshot feed sends. */
  delayMs: finite(0, 10_000),
  snapshotIntervalMs: finite(10, 60_000),
  snapshotSequence: SnapshotSequence,
  seed: whole(0, 0xffffffff),
  ledger: Schema.UndefinedOr(Text)
}).pipe(
  Schema.check(
    Schema.makeFilter(
      (s: { readonly loss: number; readonly duplicate: number; readonly reorder: number }) =>
        s.loss + s.duplicate + s.reorder <= 1 || "Expected loss, duplicate and reorder to make 1 at most together"
    )
  )
)
export type Simulation = typeof Simulation.Type

export const defaultSimulation: Simulation = {
  symbols: 50,
  rate: 2000,
  durationMs: undefined,
  loss: 0.01,
  duplicate: 0.02,
  reorder: 0.01,
  delayMs: 20,
  snapshotIntervalMs: 100,
  snapshotSequence: "exchange",
  seed: 1,
  ledger: undefined
}

type Contract = Pick<Instrument, "asset_class" | "strike" | "option_type">
const equity: Contract = { asset_class: "EQ", strike: null, option_type: null }
/** A simulated contract never expires: the same instruments are there whenever a market is played. */
const future: Contract = { asset_class: "FUT", strike: null, option_type: null }
const callAt = (strike: number): Contract => ({ asset_class: "OPT", strike, option_type: "CE" })

/** Symbol, name, a price in rupees to start from, and what it is where it is no equity. */
type Described = readonly [symbol: string, name: string, price: number, contract?: Contract]

const known: ReadonlyArray<Described> = [
  ["RELIANCE", "RELIANCE INDUSTRIES", 1480],
  ["HDFCBANK", "HDFC BANK", 990],
  ["ICICIBANK", "ICICI BANK", 1370],
  ["INFY", "INFOSYS", 1520],
  ["TCS", "TATA CONSULTANCY SERV LT", 3100],
  ["BHARTIARTL", "BHARTI AIRTEL", 1930],
  ["ITC", "ITC", 405],
  ["LT", "LARSEN & TOUBRO", 3720],
  ["SBIN", "STATE BANK OF INDIA", 890],
  ["AXISBANK", "AXIS BANK", 1180],
  ["KOTAKBANK", "KOTAK MAHINDRA BANK", 2120],
  ["M&M", "MAHINDRA & MAHINDRA", 3510],
  ["HINDUNILVR", "HINDUSTAN UNILEVER", 2480],
  ["BAJFINANCE", "BAJAJ FINANCE", 1030],
  ["SUNPHARMA", "SUN PHARMACEUTICAL IND L", 1640],
  ["MARUTI", "MARUTI SUZUKI INDIA", 16200],
  ["HCLTECH", "HCL TECHNOLOGIES", 1490],
  ["NTPC", "NTPC", 340],
  ["ULTRACEMCO", "ULTRATECH CEMENT", 12150],
  ["TITAN", "TITAN COMPANY", 3650],
  ["TATAMOTORS", "TATA MOTORS", 690],
  ["POWERGRID", "POWER GRID CORP", 288],
  ["TATASTEEL", "TATA STEEL", 172],
  ["ETERNAL", "ETERNAL", 330],
  ["BEL", "BHARAT ELECTRONICS", 412],
  ["ASIANPAINT", "ASIAN PAINTS", 2510],
  ["ONGC", "OIL AND NATURAL GAS CORP", 246],
  ["ADANIPORTS", "ADANI PORT & SEZ", 1440],
  ["BAJAJFINSV", "BAJAJ FINSERV", 2050],
  ["TRENT", "TRENT", 4720],
  ["JSWSTEEL", "JSW STEEL", 1150],
  ["GRASIM", "GRASIM INDUSTRIES", 2810],
  ["WIPRO", "WIPRO", 246],
  ["TECHM", "TECH MAHINDRA", 1460],
  ["COALINDIA", "COAL INDIA", 386],
  ["NESTLEIND", "NESTLE INDIA", 1180],
  ["JIOFIN", "JIO FIN SERVICES", 308],
  ["ADANIENT", "ADANI ENTERPRISES", 2530],
  ["HINDALCO", "HINDALCO INDUSTRIES", 770],
  ["CIPLA", "CIPLA", 1560],
  ["SBILIFE", "SBI LIFE INSURANCE CO", 1790],
  ["DRREDDY", "DR. REDDY S LABORATORIES", 1270],
  ["SHRIRAMFIN", "SHRIRAM FINANCE", 640],
  ["HINDALCOFUT", "HINDALCO INDUSTRIES", 760, future],
  ["EICHERMOT", "EICHER MOTORS", 6930],
  ["BAJAJ-AUTO", "BAJAJ AUTO", 8850],
  ["JSWSTEELFUT", "JSW STEEL", 1130, future],
  ["APOLLOHOSP", "APOLLO HOSPITALS ENTER. L", 7700],
  ["HEROMOTOCO", "HERO MOTOCORP", 5380],
  ["MARUTI15500CE", "MARUTI SUZUKI INDIA", 745, callAt(15_500)]
]

const heads = ["ADI", "BHA", "CHA", "DEV", "GAN", "HIM", "IND", "KAV", "LAK", "MAD", "NAV", "OM", "PRI", "RAJ", "SHA"]
const tails = ["CHEM", "FIN", "INFRA", "LAB", "MILL", "POWER", "STEEL", "TECH", "TEX", "PAPER", "MOTOR", "SUGAR"]

/** Of the made-up ones every tenth is a future. */
const FUTURES_EVERY = 10

const generated = (index: number): Described => {
  const head = heads[index % heads.length]!
  const tail = tails[Math.floor(index / heads.length) % tails.length]!
  const round = Math.floor(index / (heads.length * tails.length))
  const number = round === 0 ? "" : String(round + 1)
  // Spread over 20 to 5,000 rupees by a fixed scramble of the index.
  const price = 20 + ((Math.imul(index + 1, 0x9e3779b1) >>> 0) % 4_980)
  const isFuture = index % FUTURES_EVERY === FUTURES_EVERY - 1
  const symbol = `${head}${tail}${number}${isFuture ? "FUT" : ""}`
  return [symbol, `${head} ${tail}${number === "" ? "" : ` ${number}`}`, price, isFuture ? future : equity]
}

const describe = (index: number): Described => (index < known.length ? known[index]! : generated(index - known.length))

/** The first `n` instruments of exchange `SIM`: always the same ones. */
export const simulatedInstruments = (n: number): ReadonlyArray<Instrument> =>
  Array.from({ length: n }, (_, index) => {
    const [tradingsymbol, name, , contract] = describe(index)
    return {
      instrument_token: FIRST_SIMULATED_TOKEN + index,
      tradingsymbol,
      exchange: SIMULATED_EXCHANGE,
      ...(contract ?? equity),
      tick_size: SIMULATED_TICK_SIZE,
      name,
      expiry: null,
      lot_size: 1
    }
  })

/** The price in rupees that the instrument of this index starts from. */
export const simulatedBasePrice = (index: number): number => describe(index)[2]

const BROKER_HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"

/** The first `n` instruments as the broker's file, for `POST /api/v1/instruments`. */
export const simulatedInstrumentsCsv = (n: number): string => {
  const rows = simulatedInstruments(n).map(
    (i, index) =>
      `${i.instrument_token},${i.instrument_token >> 8},${i.tradingsymbol},${i.name},${simulatedBasePrice(index)},,${i.strike ?? 0},` +
      `${i.tick_size},${i.lot_size},${i.option_type ?? i.asset_class},${i.exchange},${i.exchange}`
  )
  return `${[BROKER_HEADER, ...rows].join("\n")}\n`
}
