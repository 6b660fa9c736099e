import { assert, describe, it } from "@effect/vitest"
import {
  chooseInstruments,
  exchangesOf,
  listedIn,
  MAX_FEED_INSTRUMENTS,
  partsOf,
  readAsked,
  readInstruments
} from "../../../src/layers/kite/instruments.ts"
import { instrumentsCsv } from "../../../src/schema/kite/instrumentsCsv.ts"

const FILE = [
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange",
  "408065,1594,INFY,INFOSYS,0,,0,0.1,1,EQ,NSE,NSE",
  "256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE",
  '519937,2031,M&M,"MAHINDRA, MAHINDRA",0,,0,0.05,1,EQ,NSE,NSE',
  "14848258,58001,NIFTY26JANFUT,NIFTY,0,2026-01-27,0,0.1,65,FUT,NFO-FUT,NFO",
  "x,1,BROKEN,,0,,0,0.05,1,EQ,NSE,NSE"
].join("\n")
const known = () => {
  const read = readInstruments(FILE)
  if (typeof read === "string") throw new Error(read)
  return read
}

const where = () => "--symbols"

describe("the instruments of a feed", () => {
  it("are the broker's own, line by line; what is none is counted", () => {
    const { instruments, rejected } = known()
    assert.deepStrictEqual(
      instruments.map(({ asset_class, exchange, instrument_token, tradingsymbol }) => [
        instrument_token,
        `${exchange}:${tradingsymbol}`,
        asset_class
      ]),
      [
        [408_065, "NSE:INFY", "EQ"],
        [256_265, "NSE:NIFTY 50", "INDEX"],
        [519_937, "NSE:M&M", "EQ"],
        [14_848_258, "NFO:NIFTY26JANFUT", "FUT"]
      ]
    )
    assert.strictEqual(rejected, 1)
    assert.isString(readInstruments('{"status":"error"}'))
    assert.isString(readInstruments(""))
  })

  it("are written as they are read", () => {
    const { instruments } = known()
    assert.deepStrictEqual(readInstruments(instrumentsCsv(instruments)), { instruments, rejected: 0 })
    assert.isFalse(instrumentsCsv(instruments).endsWith("\n"))
  })

  it("are asked for by name in any case, by token and by exchange, each once", () => {
    const asked = readAsked(listedIn("nse:infy # the first\n\n# none\r\n408065\nNSE:Nifty 50\n"), ["NFO"], where)
    assert.isObject(asked)
    if (typeof asked === "string") return
    assert.deepStrictEqual(exchangesOf(asked), ["NFO", "NSE"])
    const chosen = chooseInstruments(asked, known().instruments, where)
    assert.isObject(chosen)
    if (typeof chosen === "string") return
    assert.deepStrictEqual(chosen.tokens, [408_065, 256_265, 14_848_258])
    assert.strictEqual(chosen.known.length, 3)
  })

  it("need not be known where they are tokens", () => {
    const asked = readAsked(["77"], [], where)
    if (typeof asked === "string") throw new Error(asked)
    assert.deepStrictEqual(chooseInstruments(asked, [], where), { tokens: [77], known: [] })
  })

  const refused: ReadonlyArray<readonly [names: ReadonlyArray<string>, exchanges: ReadonlyArray<string>, RegExp]> = [
    [
      ["INFY"],
      [],
      /^--symbols: expected a symbol with its exchange such as NSE:INFY, or an instrument token, got "INFY"/
    ],
    [["NSE:"], [], /got "NSE:"/],
    [["0"], [], /from 1 to 2147483647, got 0/],
    [["9999999999"], [], /got 9999999999/],
    [[], ["N-S-E"], /^--exchange: expected an exchange such as NSE, got "N-S-E"/]
  ]
  for (const [names, exchanges, sentence] of refused) {
    it(`are refused by name: ${[...names, ...exchanges].join()}`, () => {
      assert.match(readAsked(names, exchanges, where) as string, sentence)
    })
  }

  it("that the broker does not have are refused with the nearest that it has", () => {
    const choose = (names: ReadonlyArray<string>, exchanges: ReadonlyArray<string> = []) => {
      const asked = readAsked(names, exchanges, where)
      return typeof asked === "string" ? asked : chooseInstruments(asked, known().instruments, where)
    }
    assert.match(
      choose(["NSE:INFI"]) as string,
      /^--symbols: the broker's file has no instrument "NSE:INFI"; did you mean NSE:INFY\?/
    )
    assert.match(
      choose(["NSE:QQQQQQ"]) as string,
      /has no instrument "NSE:QQQQQQ"; write it as .* EXCHANGE:TRADINGSYMBOL such as NSE:INFY/
    )
    assert.match(
      choose([], ["MCX"]) as string,
      /^--exchange: .* has no instrument of exchange MCX; it has those of NFO, NSE$/
    )
  })

  it("are at most those of three connections, which share them evenly", () => {
    const tokens = Array.from({ length: MAX_FEED_INSTRUMENTS }, (_, i) => String(i + 1))
    const choose = (names: ReadonlyArray<string>) => {
      const asked = readAsked(names, [], where)
      return typeof asked === "string" ? asked : chooseInstruments(asked, [], where)
    }
    assert.isObject(choose(tokens))
    assert.match(
      choose([...tokens, "9001"]) as string,
      /^--symbols, --file, --exchange: 9001 instruments are more than the 9000 that one key may have: 3 connections of 3000$/
    )
    const of = (n: number) => partsOf(Array.from({ length: n }, (_, i) => i + 1))
    assert.deepStrictEqual(
      [1, 3000, 3001, 9000].map((n) => of(n).map((part) => part.length)),
      [[1], [3000], [1501, 1500], [3000, 3000, 3000]]
    )
    assert.deepStrictEqual(
      of(7000).flat(),
      Array.from({ length: 7000 }, (_, i) => i + 1)
    )
  })
})
