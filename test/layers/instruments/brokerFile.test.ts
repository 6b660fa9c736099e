import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  type BrokerOptions,
  brokerReader,
  expiryOf,
  IMPORT_HEADER
} from "../../../src/layers/instruments/brokerFile.ts"
import { JsonObjects } from "../../../src/layers/instruments/jsonObjects.ts"
import type { Instrument } from "../../../src/schema/Instrument.ts"
import { instrumentLines } from "../../../src/schema/InstrumentFile.ts"

/** What an import makes of a broker's record. */
const read = (options: Partial<BrokerOptions>, record: Readonly<Record<string, string>>) => {
  const reader = brokerReader({ broker: "kite", isJson: false, tokens: "kite", map: new Map(), ...options })
  const done = reader.read((column) => record[column])
  if (typeof done === "string") return done
  return Result.getOrThrow(instrumentLines(IMPORT_HEADER)).read(done.line, 2)
}

const columns = (names: string, values: string) =>
  Object.fromEntries(names.split(",").map((name, at) => [name, values.split(",")[at] ?? ""]))

const DHAN =
  "SEM_EXM_EXCH_ID,SEM_SEGMENT,SEM_SMST_SECURITY_ID,SEM_INSTRUMENT_NAME,SEM_EXPIRY_CODE,SEM_TRADING_SYMBOL,SEM_LOT_UNITS,SEM_CUSTOM_SYMBOL,SEM_EXPIRY_DATE,SEM_STRIKE_PRICE,SEM_OPTION_TYPE,SEM_TICK_SIZE,SEM_EXPIRY_FLAG,SEM_EXCH_INSTRUMENT_TYPE,SEM_SERIES,SM_SYMBOL_NAME"
const UPSTOX =
  "instrument_key,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,option_type,exchange"
const SHOONYA = "Exchange,Token,LotSize,Symbol,TradingSymbol,Expiry,Instrument,OptionType,StrikePrice,TickSize"
const OPENALGO = "symbol,brsymbol,name,exchange,brexchange,token,expiry,strike,lotsize,instrumenttype,tick_size"
const fyers = (values: string) => Object.fromEntries(values.split(",").map((value, at) => [String(at + 1), value]))

/** The August future of AUROPHARMA and an option, as Kite has them. */
const FUTURE: Partial<Instrument> = {
  instrument_token: 53_249 * 256 + 2,
  exchange: "NFO",
  asset_class: "FUT",
  expiry: "2025-07-31",
  strike: null,
  option_type: null,
  tick_size: 0.1,
  lot_size: 550
}
const OPTION: Partial<Instrument> = {
  instrument_token: 57_920 * 256 + 2,
  exchange: "NFO",
  asset_class: "OPT",
  expiry: "2026-08-28",
  strike: 22_000,
  option_type: "CE",
  tick_size: 0.05,
  lot_size: 75
}

describe("a broker's instruments file", () => {
  it("gives the same instrument, by Kite's token, whoever's it is", () => {
    const futures = [
      read(
        { broker: "upstox" },
        columns(UPSTOX, "NSE_FO|53249,53249,AUROPHARMA25JULFUT,AUROPHARMA,0,2025-07-31,0,0.1,550,FUTSTK,,NSE_FO")
      ),
      read(
        { broker: "upstox", isJson: true },
        columns(
          "segment,exchange_token,trading_symbol,name,expiry,strike_price,tick_size,lot_size,instrument_type,exchange",
          "NSE_FO,53249,AUROPHARMA FUT 31 JUL 25,AUROPHARMA,1753986599000,0,10,550,FUT,NSE"
        )
      ),
      read(
        { broker: "dhan" },
        columns(
          DHAN,
          "NSE,D,53249,FUTSTK,0,AUROPHARMA-Jul2025-FUT,550.0,AUROPHARMA JUL FUT,2025-07-31 14:30:00,-0.01000,XX,10.0000,M,FUT,,AUROPHARMA"
        )
      ),
      read(
        { broker: "angel", isJson: true },
        {
          token: "53249",
          symbol: "AUROPHARMA31JUL25FUT",
          name: "AUROPHARMA",
          expiry: "31JUL2025",
          strike: "-1.000000",
          lotsize: "550",
          instrumenttype: "FUTSTK",
          exch_seg: "NFO",
          tick_size: "10.000000"
        }
      ),
      read(
        { broker: "fyers" },
        fyers(
          "101125073153249,AUROPHARMA 31 Jul 25 FUT,13,550,0.1,,0915-1530:,2025-07-01,1753956000,NSE:AUROPHARMA25JULFUT,10,11,53249,AUROPHARMA,275,-1.0,XX,10100000000275,None,0,0.0"
        )
      ),
      read(
        { broker: "shoonya" },
        columns(SHOONYA, "NFO,53249,550,AUROPHARMA,AUROPHARMA31JUL25F,31-JUL-2025,FUTSTK,XX,0,0.1")
      ),
      read(
        { broker: "openalgo" },
        columns(OPENALGO, "AUROPHARMA31JUL25FUT,AUROPHARMA25JULFUT,AUROPHARMA,NFO,NFO,53249,31-JUL-25,0,550,FUT,0.1")
      )
    ]
    for (const future of futures) assert.deepInclude(future, FUTURE)
    const options = [
      read(
        { broker: "upstox" },
        columns(UPSTOX, "NSE_FO|57920,57920,NIFTY26AUG22000CE,NIFTY,0,2026-08-28,22000.0,0.05,75,OPTIDX,CE,NSE_FO")
      ),
      read(
        { broker: "dhan" },
        columns(
          DHAN,
          "NSE,D,57920,OPTIDX,0,NIFTY-Aug2026-22000-CE,75.0,NIFTY 28 AUG 22000 CALL,2026-08-28 14:30:00,22000.00000,CE,5.0000,M,OP,,"
        )
      ),
      read(
        { broker: "angel", isJson: true },
        {
          token: "57920",
          symbol: "NIFTY28AUG2622000CE",
          name: "NIFTY",
          expiry: "28AUG2026",
          strike: "2200000.000000",
          lotsize: "75",
          instrumenttype: "OPTIDX",
          exch_seg: "NFO",
          tick_size: "5.000000"
        }
      ),
      read(
        { broker: "shoonya" },
        columns(SHOONYA, "NFO,57920,75,NIFTY,NIFTY28AUG26C22000,28-AUG-2026,OPTIDX,CE,22000,0.05")
      ),
      read(
        { broker: "openalgo" },
        columns(OPENALGO, "NIFTY28AUG2622000CE,x,NIFTY,NFO,NSE_FO,NSE_FO|57920,28-AUG-26,22000.0,75,CE,0.05")
      )
    ]
    for (const option of options) assert.deepInclude(option, OPTION)
  })

  it("knows equities, indices and currencies apart", () => {
    const reliance: Partial<Instrument> = {
      instrument_token: 738_561,
      exchange: "NSE",
      tradingsymbol: "RELIANCE",
      asset_class: "EQ"
    }
    assert.deepInclude(
      read(
        { broker: "angel", isJson: true },
        {
          token: "2885",
          symbol: "RELIANCE-EQ",
          name: "RELIANCE",
          expiry: "",
          strike: "-1.000000",
          lotsize: "1",
          instrumenttype: "",
          exch_seg: "NSE",
          tick_size: "10.000000"
        }
      ),
      reliance
    )
    assert.deepInclude(
      read(
        { broker: "shoonya" },
        columns(
          "Exchange,Token,LotSize,Symbol,TradingSymbol,Instrument,TickSize",
          "NSE,2885,1,RELIANCE,RELIANCE-EQ,EQ,0.10"
        )
      ),
      reliance
    )
    assert.deepInclude(
      read(
        { broker: "dhan", tokens: "own" },
        columns(DHAN, "NSE,E,2885,EQUITY,0,RELIANCE,1.0,Reliance,,,XX,10.0000,NA,ES,EQ,RELIANCE")
      ),
      { ...reliance, instrument_token: 2885 }
    )
    assert.deepInclude(
      read({ broker: "dhan" }, columns(DHAN, "NSE,I,13,INDEX,0,NIFTY,1.0,Nifty 50,,,XX,5.0000,NA,INDEX,,Nifty 50")),
      { exchange: "NSE", asset_class: "INDEX" }
    )
    assert.deepInclude(
      read(
        { broker: "angel", isJson: true },
        {
          token: "99926000",
          symbol: "Nifty 50",
          name: "NIFTY",
          expiry: "",
          strike: "0",
          lotsize: "1",
          instrumenttype: "AMXIDX",
          exch_seg: "NSE",
          tick_size: "0"
        }
      ),
      { instrument_token: 26_000 * 256 + 9, asset_class: "INDEX" }
    )
    assert.deepInclude(
      read(
        { broker: "dhan" },
        columns(
          DHAN,
          "NSE,C,1234,FUTCUR,0,USDINR-Aug2026-FUT,1000.0,USDINR AUG FUT,2026-08-28 12:30:00,-0.01,XX,0.2500,M,FUT,,USDINR"
        )
      ),
      { exchange: "CDS", tick_size: 0.0025 }
    )
  })

  it("says which column of a record is wrong, and with which value", () => {
    const base = "NFO,53249,550,AUROPHARMA,AUROPHARMA31JUL25F,31-JUL-2025,FUTSTK,XX,0,0.1"
    const shoonya = (values: string) => read({ broker: "shoonya" }, columns(SHOONYA, values))
    assert.strictEqual(
      shoonya(base.replace("31-JUL-2025", "03/04/2025")),
      'expiry: expected a date that is one day, such as 2026-08-28 or 28-Aug-2026, got "03/04/2025"'
    )
    assert.strictEqual(
      shoonya(base.replace("NFO", "NYSE")),
      'exchange: expected an exchange that is known, such as NSE or NSE_FO, got "NYSE"'
    )
    assert.strictEqual(shoonya(base.replace("53249", "abc")), 'instrument_token: expected a whole number, got "abc"')
    assert.match(String(shoonya(base.replace("550", "many"))), /^lot_size: .*got "many"$/)
  })

  it("reads expiries in all their forms", () => {
    for (const text of [
      "2026-08-28",
      "28-Aug-2026",
      "28AUG2026",
      "28-AUG-26",
      "28 Aug 26",
      "2026-08-28 14:30:00",
      "1787904000",
      "1787941799000",
      "28/08/2026"
    ]) {
      assert.strictEqual(expiryOf(text), "2026-08-28", text)
    }
    for (const text of ["", "0", "-1", "nan", "0001-01-01"]) assert.strictEqual(expiryOf(text), "", text)
    for (const text of ["soon", "2026-02-30", "03/04/2026"]) assert.isUndefined(expiryOf(text), text)
  })
})

describe("the objects of a JSON list", () => {
  it("are cut apart wherever the text is", () => {
    const objects = [{ a: 'x"}{[' }, { b: { c: "\\" } }, { d: '\\"' }]
    const text = JSON.stringify(objects)
    for (let size = 1; size < text.length; size++) {
      const reader = new JsonObjects()
      const found: Array<unknown> = []
      for (let at = 0; at < text.length; at += size) {
        found.push(...reader.take(text.slice(at, at + size)).map((one) => JSON.parse(one)))
      }
      assert.deepStrictEqual(found, objects, String(size))
    }
    assert.throws(() => new JsonObjects().take(`[{"a":"${"x".repeat(70_000)}`), "65536 characters")
  })
})
