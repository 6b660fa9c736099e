/**
 * Decides how the files are read that vendors of Indian market data send: their columns, the order of their dates, and
 * which instant of a bar they stamp.
 */
import type { DateOrder } from "../../schema/WrittenTime.ts"
import type { BarStamp } from "./barTicks.ts"
import { BY_NAME, type Columns, type FileField } from "./fileFields.ts"

export const PRESETS = ["gdfl", "truedata", "truedata-api", "kite"] as const
export type PresetName = (typeof PRESETS)[number]

export interface FilePreset {
  readonly columns: Columns
  readonly hasHeader: boolean
  readonly dates: DateOrder | undefined
  readonly tz: string | undefined
  readonly stamp: BarStamp | undefined
  /** What a row without a trade is: these files have one for each change of the book. */
  readonly untraded: "tick" | "quote"
  /** What every row's symbol is, where no column has it. */
  readonly symbol: string | undefined
}

const columns = (names: Partial<Record<FileField, ReadonlyArray<string>>>): Columns =>
  new Map(Object.entries(names) as ReadonlyArray<readonly [FileField, ReadonlyArray<string>]>)

const numbered = (...fields: ReadonlyArray<FileField>): Columns =>
  new Map(fields.map((field, at) => [field, [String(at + 1)]] as const))

/**
 * Global Datafeeds: `Ticker,Date,Time,LTP,BuyPrice,BuyQty,SellPrice,SellQty,LTQ,OpenInterest` for ticks; LTQ is what was
 * traded since the row before, and a row with LTQ 0 mostly a change of the book alone; `Ticker,Date,Time,Open,High,Low,Close,Volume,Open Interest` for bars, each with its
 * last second, 09:15:59. Dates are day/month/year. As public readers of these files have it, of archives from 2018 on
 * (GDFLNFO_TICK_…, GDFLNFO_BACKADJUSTED_…, GDFLCM_STOCK_…).
 */
const gdfl: FilePreset = {
  columns: columns({
    symbol: ["Ticker"],
    price: ["LTP"],
    volume: ["LTQ"],
    bid_price: ["BuyPrice"],
    bid_quantity: ["BuyQty"],
    ask_price: ["SellPrice"],
    ask_quantity: ["SellQty"],
    oi: ["OpenInterest", "Open Interest"]
  }),
  hasHeader: true,
  dates: "dmy",
  tz: "Asia/Kolkata",
  stamp: "last",
  untraded: "quote",
  symbol: undefined
}

/**
 * TrueData's archives (NSE_FUT_TICK_20221003.zip and alike): one file an instrument, named by it, without a header:
 * `20221003,09:07:41,38444.90,0,0` for an index, volume and open interest, bid, ask and their quantities for the others.
 */
const trueData: FilePreset = {
  columns: numbered("date", "time", "price", "volume", "oi", "bid_price", "bid_quantity", "ask_price", "ask_quantity"),
  hasHeader: false,
  dates: "ymd",
  tz: "Asia/Kolkata",
  stamp: undefined,
  untraded: "quote",
  symbol: BY_NAME
}

/** What TrueData's Python package (truedata-ws) gives a table of: `timestamp,ltp,volume,oi,bid,bidqty,ask,askqty`. */
const trueDataApi: FilePreset = {
  columns: columns({
    exchange_ts: ["timestamp", "time"],
    price: ["ltp"],
    bid_price: ["bid"],
    bid_quantity: ["bidqty"],
    ask_price: ["ask"],
    ask_quantity: ["askqty"]
  }),
  hasHeader: true,
  dates: "ymd",
  tz: "Asia/Kolkata",
  stamp: "start",
  untraded: "quote",
  symbol: BY_NAME
}

/** Kite Connect's candles, `date,open,high,low,close,volume,oi`, the date with its offset or in IST. */
const kite: FilePreset = {
  columns: columns({ exchange_ts: ["date"] }),
  hasHeader: true,
  dates: "ymd",
  tz: "Asia/Kolkata",
  stamp: "start",
  untraded: "tick",
  symbol: undefined
}

export const presetOf = (name: PresetName): FilePreset =>
  ({ gdfl, truedata: trueData, "truedata-api": trueDataApi, kite })[name]
