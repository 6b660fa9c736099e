import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { building, instrumentIndex } from "../../../src/layers/instruments/instrumentIndex.ts"
import type { AssetClass, Instrument } from "../../../src/schema/Instrument.ts"
import { instrumentOf } from "../../support/instruments.ts"

let token = 0
const instrument = (
  tradingsymbol: string,
  name: string | null = null,
  exchange = "NSE",
  asset_class: AssetClass = "EQ"
): Instrument => instrumentOf(++token, tradingsymbol, exchange, { asset_class, name, lot_size: 1 })

const symbols = (found: ReadonlyArray<Instrument>) => found.map((i) => `${i.exchange}:${i.tradingsymbol}`)

describe("search over instruments", () => {
  it("puts exact before prefix before word before substring", () => {
    const { search } = instrumentIndex([
      instrument("SABANKO"),
      instrument("AXISB", "AXIS BANK"),
      instrument("BANKA"),
      instrument("BANK")
    ])
    assert.deepStrictEqual(symbols(search({ query: "bank", limit: 10 })), [
      "NSE:BANK",
      "NSE:BANKA",
      "NSE:AXISB",
      "NSE:SABANKO"
    ])
  })

  it("knows no case, and takes a symbol with its exchange", () => {
    const { search } = instrumentIndex([instrument("INFY", "INFOSYS"), instrument("INFY", "INFOSYS", "BSE")])
    for (const query of ["nse:infy", "NSE:INFY", "NSE: InFy"]) {
      assert.deepStrictEqual(symbols(search({ query, limit: 10 })), ["NSE:INFY"])
    }
    assert.deepStrictEqual(symbols(search({ query: "infosys", limit: 10 })), ["BSE:INFY", "NSE:INFY"])
    assert.deepStrictEqual(symbols(search({ query: "NSE:INFY", exchange: "bse", limit: 10 })), [])
  })

  it("finds words behind any sign, and words together", () => {
    const { search } = instrumentIndex([instrument("M&M", "MAHINDRA & MAHINDRA"), instrument("BAJAJ-AUTO")])
    assert.deepStrictEqual(symbols(search({ query: "auto", limit: 10 })), ["NSE:BAJAJ-AUTO"])
    assert.deepStrictEqual(symbols(search({ query: "mahindra  &", limit: 10 })), ["NSE:M&M"])
    assert.deepStrictEqual(symbols(search({ query: "m&m", limit: 10 })), ["NSE:M&M"])
  })

  it("names what is traded itself before its contracts, and keeps to a class and an exchange", () => {
    const { search } = instrumentIndex([
      instrument("NIFTY26JAN25000CE", "NIFTY", "NFO", "OPT"),
      instrument("NIFTY26JANFUT", "NIFTY", "NFO", "FUT"),
      instrument("NIFTY 50", "NIFTY 50", "NSE", "INDEX"),
      instrument("NIFTYBEES")
    ])
    assert.deepStrictEqual(symbols(search({ query: "nift", limit: 10 })), [
      "NSE:NIFTY 50",
      "NSE:NIFTYBEES",
      "NFO:NIFTY26JANFUT",
      "NFO:NIFTY26JAN25000CE"
    ])
    assert.deepStrictEqual(symbols(search({ query: "nift", asset_class: "OPT", limit: 10 })), ["NFO:NIFTY26JAN25000CE"])
    assert.deepStrictEqual(symbols(search({ query: "", exchange: "NSE", limit: 1 })), ["NSE:NIFTY 50"])
  })

  it("of a name of any length costs no more than its text", () => {
    const long = instrument("LONG", "a ".repeat(24_000))
    const { search } = instrumentIndex([long, instrument("AB", "a b")])
    assert.deepStrictEqual(symbols(search({ query: "long", limit: 10 })), ["NSE:LONG"])
    assert.deepStrictEqual(symbols(search({ query: "a a", limit: 10 })), ["NSE:LONG"])
    assert.deepStrictEqual(search({ query: "a ".repeat(24_000), limit: 10 }), [])
  })

  it("looks at a bounded number of places, and answers what it has then", () => {
    // Each of the many is met again at each of its words, and adds nothing.
    const many = Array.from({ length: 12_000 }, (_, i) => instrument(`X${i}`, `x${i} ${"x ".repeat(20)}`))
    const { search } = instrumentIndex([...many, instrument("AX")])
    assert.strictEqual(search({ query: "x", limit: 20_000 }).length, 12_000)
    assert.deepStrictEqual(symbols(search({ query: "ax", limit: 10_000 })), ["NSE:AX"])
  })

  it("is built in slices, and the same as at once", () => {
    const list = Array.from({ length: 5000 }, (_, i) =>
      instrument(`S${(i * 7919) % 5000}`, `WORD${i % 97} NUMBER ${i}`, i % 2 === 0 ? "NSE" : "BSE")
    )
    const work = building(list)
    let slices = 0
    let next = work.next()
    for (; next.done !== true; next = work.next()) slices += 1
    assert.isAbove(slices, 20)
    const index = instrumentIndex(list)
    for (const query of ["s1", "word3", "number 4", "ord5", ""]) {
      assert.deepStrictEqual(next.value.search({ query, limit: 50 }), index.search({ query, limit: 50 }))
      assert.strictEqual(index.search({ query, limit: 50 }).length, 50)
    }
  })

  const Text = Schema.Array(Schema.Literals(["a", "b", "-", " ", "1"])).pipe(Schema.check(Schema.isBetweenLength(1, 5)))
  const Asked = Schema.Struct({
    names: Schema.Array(Schema.Tuple([Text, Schema.NullOr(Text)])).pipe(Schema.check(Schema.isMaxLength(30))),
    query: Text,
    limit: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 10 })))
  })
  it.prop("answers what a plain scan of the list does, in the same ranks, up to the limit", [Asked], ([asked]) => {
    const list = asked.names.map(([symbol, name]) => instrument(symbol.join(""), name?.join("") ?? null))
    const plain = (text: string) => text.toLowerCase().replace(/\s+/g, " ").trim()
    const query = asked.query.join("")
    const q = plain(query)
    const rank = (i: Instrument): number =>
      Math.min(
        ...[i.tradingsymbol, i.name ?? ""].map((text) => {
          const key = plain(text)
          if (key === "" || !key.includes(q)) return 4
          if (key === q) return 0
          if (key.startsWith(q)) return 1
          for (let at = key.indexOf(q, 1); at >= 0; at = key.indexOf(q, at + 1)) {
            if (/[a-z0-9]/.test(key[at]!) && !/[a-z0-9]/.test(key[at - 1]!)) return 2
          }
          return 3
        })
      )
    const expected = list
      .map(rank)
      .filter((r) => r < 4)
      .sort()
    const found = instrumentIndex(list).search({ query, limit: asked.limit })
    assert.strictEqual(new Set(found).size, found.length)
    if (q !== "") assert.deepStrictEqual(found.map(rank), expected.slice(0, asked.limit))
  })
})
