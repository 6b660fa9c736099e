/**
 * Decides how the instruments files of India's brokers are read: which column of each is what, in which units and forms,
 * and which token an instrument has. Each becomes a line of the one file that an import takes.
 */
import { showValue } from "../../schema/Explain.ts"
import { readingsOf } from "../../schema/WrittenTime.ts"

/** The columns of the file that an import takes. */
export const IMPORT_COLUMNS = [
  "instrument_token",
  "tradingsymbol",
  "name",
  "expiry",
  "strike",
  "tick_size",
  "lot_size",
  "instrument_type",
  "segment",
  "exchange"
] as const
/** What a broker's column may be; an option's side is a column of its own in some files. */
export const BROKER_FIELDS = [...IMPORT_COLUMNS, "option_type"] as const
export type BrokerField = (typeof BROKER_FIELDS)[number]

export const BROKERS = ["kite", "upstox", "dhan", "angel", "fyers", "shoonya", "openalgo"] as const
export type Broker = (typeof BROKERS)[number]

/** Whose numbers tokens are: Kite's, made of the exchange's as Kite does, or the file's own. */
export const TOKEN_KINDS = ["kite", "own"] as const
export type TokenKind = (typeof TOKEN_KINDS)[number]

interface Layout {
  /** Names of columns, the first that is there counts; by number from 1 where there is no header. */
  readonly columns: Readonly<Partial<Record<BrokerField, ReadonlyArray<string>>>>
  readonly hasHeader: boolean
  /** Of `strike` and `tick_size`: hundredths of a rupee, in a JSON file or in any. */
  readonly strikeInPaise?: true
  readonly tickInPaise?: "json" | "any"
  /** Tokens are Kite's already. */
  readonly hasKiteTokens?: true
}

/**
 * Sources: kite.trade/docs/connect/v3/market-quotes; upstox.com/developer/api-documentation/instruments (CSV and JSON);
 * dhanhq.co/docs/v2/instruments (compact and detailed); Angel's OpenAPIScripMaster.json, Fyers' sym_details, Shoonya's
 * *_symbols.txt.zip and openalgo's own table as openalgo's readers of them have it (broker/*\/database/master_contract_db.py).
 */
const layouts: Readonly<Record<Broker, Layout>> = {
  kite: {
    columns: Object.fromEntries(IMPORT_COLUMNS.map((column) => [column, [column]])),
    hasHeader: true,
    hasKiteTokens: true
  },
  upstox: {
    columns: {
      instrument_token: ["exchange_token"],
      tradingsymbol: ["tradingsymbol", "trading_symbol"],
      name: ["name"],
      expiry: ["expiry"],
      strike: ["strike", "strike_price"],
      tick_size: ["tick_size"],
      lot_size: ["lot_size"],
      instrument_type: ["instrument_type"],
      option_type: ["option_type"],
      exchange: ["segment", "exchange"]
    },
    hasHeader: true,
    tickInPaise: "json"
  },
  dhan: {
    columns: {
      instrument_token: ["SEM_SMST_SECURITY_ID", "SECURITY_ID"],
      tradingsymbol: ["SEM_TRADING_SYMBOL", "SYMBOL_NAME"],
      name: ["SM_SYMBOL_NAME", "UNDERLYING_SYMBOL"],
      expiry: ["SEM_EXPIRY_DATE", "SM_EXPIRY_DATE"],
      strike: ["SEM_STRIKE_PRICE", "STRIKE_PRICE"],
      tick_size: ["SEM_TICK_SIZE", "TICK_SIZE"],
      lot_size: ["SEM_LOT_UNITS", "LOT_SIZE"],
      instrument_type: ["SEM_INSTRUMENT_NAME", "INSTRUMENT"],
      option_type: ["SEM_OPTION_TYPE", "OPTION_TYPE"],
      segment: ["SEM_SEGMENT", "SEGMENT"],
      exchange: ["SEM_EXM_EXCH_ID", "EXCH_ID"]
    },
    hasHeader: true,
    tickInPaise: "any"
  },
  angel: {
    columns: {
      instrument_token: ["token"],
      tradingsymbol: ["symbol"],
      name: ["name"],
      expiry: ["expiry"],
      strike: ["strike"],
      tick_size: ["tick_size"],
      lot_size: ["lotsize"],
      instrument_type: ["instrumenttype"],
      exchange: ["exch_seg"]
    },
    hasHeader: true,
    strikeInPaise: true,
    tickInPaise: "any"
  },
  fyers: {
    columns: {
      instrument_token: ["13"],
      tradingsymbol: ["10"],
      name: ["2"],
      expiry: ["9"],
      strike: ["16"],
      tick_size: ["5"],
      lot_size: ["4"],
      instrument_type: ["3"],
      option_type: ["17"],
      segment: ["12"],
      exchange: ["11"]
    },
    hasHeader: false
  },
  shoonya: {
    columns: {
      instrument_token: ["Token"],
      tradingsymbol: ["TradingSymbol"],
      name: ["Symbol"],
      expiry: ["Expiry"],
      strike: ["StrikePrice", "Strike"],
      tick_size: ["TickSize"],
      lot_size: ["LotSize"],
      instrument_type: ["Instrument"],
      option_type: ["OptionType"],
      exchange: ["Exchange"]
    },
    hasHeader: true
  },
  openalgo: {
    columns: {
      instrument_token: ["token"],
      tradingsymbol: ["symbol"],
      name: ["name"],
      expiry: ["expiry"],
      strike: ["strike"],
      tick_size: ["tick_size"],
      lot_size: ["lotsize"],
      instrument_type: ["instrumenttype"],
      exchange: ["exchange"]
    },
    hasHeader: true
  }
}

export const hasHeader = (broker: Broker): boolean => layouts[broker].hasHeader

/** An exchange as Kite calls it, by what brokers call it; Dhan's and Fyers' with their segment. */
const EXCHANGES: Readonly<Record<string, string>> = {
  NSE: "NSE",
  BSE: "BSE",
  NFO: "NFO",
  BFO: "BFO",
  CDS: "CDS",
  BCD: "BCD",
  MCX: "MCX",
  NSE_EQ: "NSE",
  BSE_EQ: "BSE",
  NSE_FO: "NFO",
  BSE_FO: "BFO",
  NCD_FO: "CDS",
  BCD_FO: "BCD",
  MCX_FO: "MCX",
  NSE_INDEX: "NSE",
  BSE_INDEX: "BSE",
  MCX_INDEX: "MCX",
  "NSE E": "NSE",
  "NSE D": "NFO",
  "NSE C": "CDS",
  "NSE I": "NSE",
  "BSE E": "BSE",
  "BSE D": "BFO",
  "BSE C": "BCD",
  "BSE I": "BSE",
  "MCX M": "MCX",
  "MCX I": "MCX",
  "10 10": "NSE",
  "10 11": "NFO",
  "10 12": "CDS",
  "12 10": "BSE",
  "12 11": "BFO",
  "12 12": "BCD",
  "11 20": "MCX"
}

/** Kite's number of a segment, the last byte of its tokens. M: gokiteconnect ticker/ticker.go. */
const SEGMENTS: Readonly<Record<string, number>> = { NSE: 1, NFO: 2, CDS: 3, BSE: 4, BFO: 5, BCD: 6, MCX: 7 }
const INDICES = 9
/** Angel's tokens of indices are the exchange's with these digits before them. */
const ANGEL_INDEX = /^999(\d{5})$/

const NUMBER = /^-?\d+(\.\d+)?$/
const NO_EXPIRY = /^(|0|-1|nan|null|none|nat|xx|0001-01-01.*|1980-01-01.*)$/i
const IST_OFFSET_MS = 19_800_000

/** `YYYY-MM-DD` of an expiry; empty where there is none; undefined where it is no date that is one day. */
export const expiryOf = (text: string): string | undefined => {
  if (NO_EXPIRY.test(text)) return ""
  const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
  if (/^\d{9,13}(\.0+)?$/.test(text)) {
    const number = Number(text)
    return dateOf((number < 100_000_000_000 ? number * 1000 : number) + IST_OFFSET_MS)
  }
  const readings = new Set(
    readingsOf(text.replace(/[T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?$/, "")).values()
  )
  const [day] = readings
  return readings.size === 1 ? dateOf(day! * 86_400_000) : undefined
}

const scaled = (text: string, by: number): string =>
  by === 1 || !NUMBER.test(text) ? text : String(Number((Number(text) / by).toFixed(7)))

const quoted = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

/** A line of the file that an import takes; its column names are the first. */
export const IMPORT_HEADER = IMPORT_COLUMNS.join(",")

/** Reads one record of a file, by what each of its columns holds. */
export interface BrokerReader {
  /** The line, or what is wrong: `field: …, got …`. */
  readonly read: (record: (column: string) => string | undefined) => { readonly line: string } | string
}

export interface BrokerOptions {
  readonly broker: Broker
  readonly isJson: boolean
  readonly tokens: TokenKind
  /** Columns that are named otherwise than the broker's are. */
  readonly map: ReadonlyMap<BrokerField, string>
}

/** What of these columns a file lacks that cannot do without; undefined where it has them. */
export const missingColumn = (
  { broker, map }: Pick<BrokerOptions, "broker" | "map">,
  has: (column: string) => boolean
): string | undefined => {
  const { columns } = layouts[broker]
  const needed: ReadonlyArray<BrokerField> =
    broker === "kite" && map.size === 0 ? IMPORT_COLUMNS : ["instrument_token", "tradingsymbol", "exchange"]
  for (const field of needed) {
    const own = map.get(field)
    const names = own === undefined ? (columns[field] ?? []) : [own]
    if (!names.some(has)) return names[0] ?? field
  }
  return [...map.values()].find((column) => !has(column))
}

export const brokerReader = ({ broker, isJson, map, tokens }: BrokerOptions): BrokerReader => {
  const layout = layouts[broker]
  const tickScale = layout.tickInPaise === "any" || (layout.tickInPaise === "json" && isJson) ? 100 : 1

  return {
    read: (record) => {
      const value = (field: BrokerField): string => {
        const own = map.get(field)
        for (const column of own === undefined ? (layout.columns[field] ?? []) : [own]) {
          const text = record(column)?.trim()
          if (text !== undefined && text !== "") return text
        }
        return ""
      }
      const bad = (field: BrokerField, expected: string) =>
        `${field}: expected ${expected}, got ${showValue(value(field))}`
      const expiry = expiryOf(value("expiry"))
      if (expiry === undefined) return bad("expiry", "a date that is one day, such as 2026-08-28 or 28-Aug-2026")
      const line = (fields: Readonly<Record<(typeof IMPORT_COLUMNS)[number], string>>) => ({
        line: IMPORT_COLUMNS.map((column) => quoted(fields[column])).join(",")
      })
      if (layout.hasKiteTokens === true) {
        const fields = Object.fromEntries(IMPORT_COLUMNS.map((column) => [column, value(column)]))
        return line({ ...(fields as Record<(typeof IMPORT_COLUMNS)[number], string>), expiry })
      }

      const named = value("exchange").toUpperCase()
      const segment = value("segment").toUpperCase()
      const exchange = EXCHANGES[segment === "" ? named : `${named} ${segment}`] ?? EXCHANGES[named]
      if (exchange === undefined) return bad("exchange", "an exchange that is known, such as NSE or NSE_FO")
      const symbol = value("tradingsymbol")
        .replace(/^[A-Z]+:/, "")
        .replace(/-EQ$/, "")
      const type = value("instrument_type").toUpperCase()
      const side = value("option_type").toUpperCase()
      const isIndex =
        named.endsWith("_INDEX") ||
        /^(INDEX|AMXIDX|UNDIND)$/.test(type) ||
        (broker === "fyers" && type === "10") ||
        (broker === "dhan" && segment === "I")
      const isOption = /^(CE|PE)$/.test(side) || /^(CE|PE)$/.test(type) || /^OPT/.test(type)
      const isDerivative = exchange !== "NSE" && exchange !== "BSE"
      const ending = /(CE|PE)$/.exec(symbol.toUpperCase())?.[1]
      const right = /^(CE|PE)$/.test(side) ? side : /^(CE|PE)$/.test(type) ? type : ending
      if (isOption && right === undefined) return bad("option_type", "CE or PE")
      const kind = isIndex ? "EQ" : isOption ? right! : isDerivative ? "FUT" : "EQ"
      const strike = value("strike")
      const strikeScale = layout.strikeInPaise !== true ? 1 : exchange === "CDS" ? 10_000_000 : 100

      const token = value("instrument_token")
      // openalgo keeps a broker's own forms: two numbers, or the exchange before one.
      const both = /^(\d+)::::\d+$/.exec(token)
      const number =
        both?.[1] ??
        /(\d+)$/.exec(token.includes("|") ? token : /^\d+(\.0+)?$/.test(token) ? token.replace(/\.0+$/, "") : "")?.[1]
      if (number === undefined) return bad("instrument_token", "a whole number")
      const ofExchange = ANGEL_INDEX.exec(number)?.[1] ?? number
      const own = isIndex ? INDICES : SEGMENTS[exchange]!
      const isMade = tokens === "kite" && both === null
      return line({
        instrument_token: isMade ? String(Number(ofExchange) * 256 + own) : number,
        tradingsymbol: symbol,
        name: value("name"),
        expiry: kind === "EQ" ? "" : expiry,
        strike: isOption ? scaled(strike, strikeScale) : "0",
        tick_size: scaled(value("tick_size") === "" ? "0" : value("tick_size"), tickScale),
        lot_size: value("lot_size").replace(/\.0+$/, ""),
        instrument_type: kind,
        segment: isIndex ? "INDICES" : exchange,
        exchange
      })
    }
  }
}
