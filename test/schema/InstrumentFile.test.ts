import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { splitLine } from "../../src/schema/delimited.ts"
import { instrumentLines } from "../../src/schema/InstrumentFile.ts"

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"

const lines = (header = HEADER) => Result.getOrThrow(instrumentLines(header))

describe("the broker's instruments file", () => {
  it("takes stocks, indices, futures and options", () => {
    const { read } = lines()
    assert.deepStrictEqual(read("738561,2885,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.1,1,EQ,NSE,NSE", 2), {
      instrument_token: 738561,
      tradingsymbol: "RELIANCE",
      exchange: "NSE",
      asset_class: "EQ",
      tick_size: 0.1,
      name: "RELIANCE INDUSTRIES",
      expiry: null,
      strike: null,
      option_type: null,
      lot_size: 1
    })
    assert.deepInclude(read("256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE", 3), { asset_class: "INDEX" })
    assert.deepInclude(read("9000962,1,NIFTY26JANFUT,NIFTY,0,2026-01-27,0,0.1,65,FUT,NFO-FUT,NFO", 4), {
      asset_class: "FUT",
      expiry: "2026-01-27",
      strike: null
    })
    assert.deepInclude(read("9000963,1,NIFTY26JAN25000CE,NIFTY,0,2026-01-27,25000,0.05,65,CE,NFO-OPT,NFO", 5), {
      asset_class: "OPT",
      strike: 25_000,
      option_type: "CE",
      lot_size: 65
    })
  })

  it("finds columns by name, among others and in any order", () => {
    const { read } = lines(`isin,${HEADER.split(",").reverse().join(",")}`)
    assert.deepInclude(read("INE002A01018,NSE,NSE,EQ,1,0.1,0,,0,RELIANCE INDUSTRIES,RELIANCE,2885,738561", 2), {
      instrument_token: 738561,
      exchange: "NSE"
    })
  })

  it("reads quoted fields with commas and quotes in them", () => {
    assert.deepStrictEqual(splitLine('1,"A, B",,"say ""hi""",'), ["1", "A, B", "", 'say "hi"', ""])
    assert.deepInclude(lines().read('5633,22,ACC,"ACC, LIMITED",0,,0,0.05,1,EQ,NSE,NSE', 2), { name: "ACC, LIMITED" })
  })

  it("says of a refused line which column and value it was", () => {
    const { read } = lines()
    const refusals: ReadonlyArray<readonly [string, string]> = [
      ["x,1,A,A,0,,0,0.05,1,EQ,NSE,NSE", 'instrument_token: expected a number between 1 and 2147483647, got "x"'],
      ["0,1,A,A,0,,0,0.05,1,EQ,NSE,NSE", "instrument_token: expected a value between 1 and 2147483647, got 0"],
      ["1,1,,A,0,,0,0.05,1,EQ,NSE,NSE", 'tradingsymbol: expected a value with a length between 1 and 50, got ""'],
      ["1,1,A,A,0,,0,0.05,1,XX,NSE,NSE", 'instrument_type: expected EQ, FUT, CE or PE, got "XX"'],
      ["1,1,A,A,0,2026-02-31,0,0.05,1,FUT,NFO-FUT,NFO", 'expiry: expected YYYY-MM-DD, got "2026-02-31"'],
      ["1,1,A,A,0,,0,-1,1,EQ,NSE,NSE", "tick_size: expected a value between 0 and 1000000000, got -1"],
      ["1,1,A,A,0,,0,1000000001,1,EQ,NSE,NSE", "tick_size: expected a value between 0 and 1000000000, got 1000000001"],
      [`1,1,A,A,0,,${"9".repeat(400)},1,1,CE,NFO-OPT,NFO`, "strike: expected a finite number, got Infinity"],
      [
        `1,1,A,${"a ".repeat(200)},0,,0,0.05,1,EQ,NSE,NSE`,
        `name: expected at most 200 characters, not 399, got "${"a ".repeat(39)}a…`
      ],
      ["1,1,A,B\u001b[2J,0,,0,0.05,1,EQ,NSE,NSE", 'name: expected text without control characters, got "B\\u001b[2J"'],
      [
        "1,1,A\u009bX,B,0,,0,0.05,1,EQ,NSE,NSE",
        'tradingsymbol: expected text without control characters, got "A\\u009bX"'
      ],
      [
        "1,1,A\u202eX,B,0,,0,0.05,1,EQ,NSE,NSE",
        'tradingsymbol: expected text without control characters, got "A\\u202eX"'
      ],
      [`1,1,A,${"a ".repeat(24_000)},0,,0,0.05,1,EQ,NSE,NSE`, "expected at most 4096 characters a line, got 48029"],
      ["1,1,A,A,0,,0,0.05,1.5,EQ,NSE,NSE", "lot_size: expected an integer, got 1.5"],
      [
        "1,1,A,A,0,,0,0.05,2147483648,EQ,NSE,NSE",
        "lot_size: expected a value between 0 and 2147483647, got 2147483648"
      ],
      ["1,1,A,A,0,0000-01-01,0,0.05,1,FUT,NFO-FUT,NFO", 'expiry: expected YYYY-MM-DD, got "0000-01-01"'],
      ["1,1,A,A\0B,0,,0,0.05,1,EQ,NSE,NSE", 'name: expected text without control characters, got "A\\u0000B"'],
      [
        "1,1,A\ud83d,A,0,,0,0.05,1,EQ,NSE,NSE",
        'tradingsymbol: expected text without control characters, got "A\\ud83d"'
      ],
      ["1,1,A,A,0,,,0.05,1,CE,NFO-OPT,NFO", 'strike: expected a number between 0 and 1000000000 or null, got ""'],
      ["1,1,A,A,0,,0,0.05,1,EQ,NSE,nse!", 'exchange: expected 1 to 10 capitals or digits, got "nse!"'],
      ["1,1,A", "expected 12 fields, got 3"],
      ['1,1,"A,A,0,,0,0.05,1,EQ,NSE,NSE', "a quote is not closed, or text follows a closing quote"]
    ]
    for (const [line, reason] of refusals) assert.strictEqual(read(line, 2), reason)
  })

  it("refuses a token that an earlier line has", () => {
    const { read } = lines()
    read("7,1,A,A,0,,0,0.05,1,EQ,NSE,NSE", 2)
    assert.strictEqual(read("7,1,B,B,0,,0,0.05,1,EQ,NSE,NSE", 9), "instrument_token: 7 is on line 2 already")
  })

  it("refuses a file without the needed columns whole, naming the first that is missing", () => {
    const refused = instrumentLines("token,price")
    assert(Result.isFailure(refused))
    assert.strictEqual(refused.failure.message, 'line 1: column instrument_token is missing, got "token,price"')
  })
})
