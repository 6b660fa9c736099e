import { existsSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { building } from "../../../src/layers/instruments/instrumentIndex.ts"
import { compact, typedWords, wordsOf, wordsOfExpiry } from "../../../src/layers/instruments/words.ts"
import { MAX_VISITS, VISITS_A_SLICE } from "../../../src/layers/instruments/wordTable.ts"
import { type AssetClass, fullSymbol, type Instrument } from "../../../src/schema/Instrument.ts"
import { instrumentLines } from "../../../src/schema/InstrumentFile.ts"
import { atOnce } from "../../../src/streams/run/slices.ts"
import { instrumentIndex, instrumentOf } from "../../support/instruments.ts"
import { MASTER_DAY, MASTER_SIZE, master } from "../../support/master.ts"

let token = 0
const instrument = (
  tradingsymbol: string,
  name: string | null = null,
  exchange = "NSE",
  asset_class: AssetClass = "EQ",
  given: Partial<Instrument> = {}
): Instrument => instrumentOf(++token, tradingsymbol, exchange, { asset_class, name, lot_size: 1, ...given })

const symbols = (found: ReadonlyArray<Instrument>) => found.map(fullSymbol)

describe("search over instruments", () => {
  it("puts the exact symbol first, then whole words, beginnings, and what is in the middle of a word", () => {
    const { search } = instrumentIndex([
      instrument("SABANKO"),
      instrument("AXISB", "AXIS BANK"),
      instrument("BANKA"),
      instrument("BANK")
    ])
    assert.deepStrictEqual(symbols(search({ query: "bank", limit: 10 })), [
      "NSE:BANK",
      "NSE:AXISB",
      "NSE:BANKA",
      "NSE:SABANKO"
    ])
  })

  it("knows no case, and takes a symbol with its exchange", () => {
    const { search } = instrumentIndex([instrument("INFY", "INFOSYS"), instrument("INFY", "INFOSYS", "BSE")])
    for (const query of ["nse:infy", "NSE:INFY", "NSE: InFy"]) {
      assert.deepStrictEqual(symbols(search({ query, limit: 10 })), ["NSE:INFY"])
    }
    assert.deepStrictEqual(symbols(search({ query: "infosys", limit: 10 })), ["NSE:INFY", "BSE:INFY"])
    assert.deepStrictEqual(symbols(search({ query: "infosys", exchange: "bse", limit: 10 })), ["BSE:INFY"])
    assert.deepStrictEqual(symbols(search({ query: "NSE:INFY", exchange: "bse", limit: 10 })), [])
    assert.deepStrictEqual(symbols(search({ query: "infy", exchange: "MCX", limit: 10 })), [])
  })

  it("finds words behind any sign, with it and without", () => {
    const { search } = instrumentIndex([instrument("M&M", "MAHINDRA & MAHINDRA"), instrument("BAJAJ-AUTO")])
    for (const query of ["auto", "bajaj-auto", "auto bajaj", "bajajauto", "baj-a"]) {
      assert.deepStrictEqual(symbols(search({ query, limit: 10 })), ["NSE:BAJAJ-AUTO"], query)
    }
    for (const query of ["m&m", "mm", "mahindra  &", "M & M"]) {
      assert.deepStrictEqual(symbols(search({ query, limit: 10 })), ["NSE:M&M"], query)
    }
    assert.deepStrictEqual(search({ query: "&", limit: 10 }), [])
  })

  it("names what is traded itself before its contracts, and keeps to a class and an exchange", () => {
    const { search } = instrumentIndex([
      instrument("NIFTY26JAN25000CE", "NIFTY", "NFO", "OPT", {
        expiry: "2026-01-27",
        strike: 25_000,
        option_type: "CE"
      }),
      instrument("NIFTY26JANFUT", "NIFTY", "NFO", "FUT", { expiry: "2026-01-27" }),
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
    assert.deepStrictEqual(search({ query: "", limit: 0 }), [])
  })

  it("puts strikes near the underlying's last price first, else near its future's, else those in their middle", () => {
    const strikes = [23_000, 23_500, 24_000, 24_500, 25_000]
    const index = instrument("NIFTY 50", "NIFTY 50", "NSE", "INDEX")
    const future = instrument("NIFTY26JANFUT", "NIFTY", "NFO", "FUT", { expiry: "2026-01-27" })
    const gone = instrument("NIFTY25DECFUT", "NIFTY", "NFO", "FUT", { expiry: "2025-12-30" })
    const options = strikes.map((strike) =>
      instrument(`NIFTY26JAN${strike}CE`, "NIFTY", "NFO", "OPT", { expiry: "2026-01-27", strike, option_type: "CE" })
    )
    const { search } = instrumentIndex([...options, gone, future, index])
    const first = (prices: ReadonlyArray<readonly [Instrument, number]>) => {
      const price = (of: number) => prices.find(([one]) => one.instrument_token === of)?.[1]
      return search({ query: "nifty ce", limit: 5, today: "2026-01-01", price }).map((one) => one.strike)
    }
    assert.deepStrictEqual(first([[index, 23_460]]), [23_500, 23_000, 24_000, 24_500, 25_000])
    assert.deepStrictEqual(first([[future, 24_900]]), [25_000, 24_500, 24_000, 23_500, 23_000])
    assert.deepStrictEqual(
      first([
        [index, 23_460],
        [future, 24_900]
      ])[0],
      23_500
    )
    // An expired future's price is of another time, and a price of 0 is none.
    assert.deepStrictEqual(
      first([
        [gone, 25_000],
        [index, 0]
      ]),
      [24_000, 23_500, 24_500, 23_000, 25_000]
    )
  })

  it("of a name of any length costs no more than its text", () => {
    const long = instrument("LONG", "a ".repeat(24_000))
    const { search } = instrumentIndex([long, instrument("AB", "a b")])
    assert.deepStrictEqual(symbols(search({ query: "long", limit: 10 })), ["NSE:LONG"])
    assert.deepStrictEqual(symbols(search({ query: "a a", limit: 10 })), ["NSE:AB", "NSE:LONG"])
    assert.deepStrictEqual(search({ query: "a ".repeat(24_000), limit: 10 }), [])
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
      assert.deepStrictEqual(
        atOnce(next.value.searching({ query, limit: 50 })),
        index.search({ query, limit: 50 }),
        query
      )
      assert.strictEqual(index.search({ query, limit: 50 }).length, 50, query)
    }
  })

  it("names the nearest of a symbol that nothing has", () => {
    const { nearest } = instrumentIndex(master(30_000))
    const cases: ReadonlyArray<readonly [symbol: string, near: string | undefined]> = [
      ["RELAINCE", "NSE:RELIANCE"],
      ["BSE:RELIANC", "BSE:RELIANCE"],
      ["NSE:NIFTY50", "NSE:NIFTY 50"],
      ["NIFYT26AUGFUT", "NFO:NIFTY26AUGFUT"],
      ["NFO:NIFTY26AUG24010CE", "NFO:NIFTY26AUG24000CE"],
      ["NSE:BANKNIFTY26AUGFUT", "NFO:BANKNIFTY26AUGFUT"],
      ["QQQQQQQQ", undefined],
      ["", undefined],
      ["?", undefined]
    ]
    for (const [symbol, near] of cases) {
      const found = atOnce(nearest(symbol, { today: MASTER_DAY }))
      assert.strictEqual(found === undefined ? undefined : fullSymbol(found), near, symbol)
    }
    const only = (one: Instrument) => one.exchange === "BSE"
    assert.strictEqual(fullSymbol(atOnce(nearest("RELAINCE", { only }))!), "BSE:RELIANCE")
  })
})

const FULL = master()
const INDEX = instrumentIndex(FULL)
const SPOTS: Readonly<Record<string, number>> = { "NIFTY 50": 24_480, "NIFTY BANK": 56_040, SENSEX: 80_010 }
const price = (of: number): number | undefined => SPOTS[FULL[of - 1]?.tradingsymbol ?? ""]
const search = (query: string, limit = 10) => INDEX.search({ query, limit, today: MASTER_DAY, price })

describe("a search of a hundred thousand instruments", () => {
  it("has as many of them as a broker", () => {
    assert.strictEqual(FULL.length, MASTER_SIZE)
    assert.strictEqual(new Set(FULL.map((one) => one.instrument_token)).size, MASTER_SIZE)
    assert.deepStrictEqual(INDEX.exchanges, ["NSE", "BSE", "NFO", "BFO", "MCX"])
  })

  const QUERIES: ReadonlyArray<readonly [query: string, first: ReadonlyArray<string>]> = [
    ["nifty 26 aug fut", ["NFO:NIFTY26AUGFUT"]],
    ["nifty fut", ["NFO:NIFTY26AUGFUT", "NFO:NIFTY26SEPFUT", "NFO:NIFTY26OCTFUT"]],
    ["banknifty 57000 ce", ["NFO:BANKNIFTY2680457000CE", "NFO:BANKNIFTY2681157000CE", "NFO:BANKNIFTY2681857000CE"]],
    ["bank nifty", ["NSE:NIFTY BANK"]],
    ["nifty bank", ["NSE:NIFTY BANK"]],
    ["banknifty", ["NSE:NIFTY BANK"]],
    ["nifty50", ["NSE:NIFTY 50"]],
    ["nifty", ["NSE:NIFTY 50"]],
    ["M&M FUT", ["NFO:M&M26AUGFUT", "NFO:M&M26SEPFUT", "NFO:M&M26OCTFUT"]],
    ["industries reliance", ["NSE:RELIANCE", "BSE:RELIANCE"]],
    ["bse reliance", ["BSE:RELIANCE"]],
    ["reliance", ["NSE:RELIANCE", "BSE:RELIANCE", "NSE:RELINFRA", "NSE:RPOWER"]],
    ["24000 ce nifty", ["NFO:NIFTY2680424000CE", "NFO:NIFTY2681124000CE", "NFO:NIFTY2681824000CE"]],
    ["24,000 call nifty 25 aug", ["NFO:NIFTY26AUG24000CE"]],
    ["nifty ce", ["NFO:NIFTY2680424500CE", "NFO:NIFTY2680424450CE", "NFO:NIFTY2680424550CE"]],
    ["BANKNIFTY26AUG57000PE", ["NFO:BANKNIFTY26AUG57000PE"]],
    ["nifty269152", ["NFO:NIFTY2691524500CE", "NFO:NIFTY2691524500PE"]],
    ["nifty 15 sep 2026 24500 pe", ["NFO:NIFTY2691524500PE"]],
    ["NFO:NMDC26AUG67.5CE", ["NFO:NMDC26AUG67.5CE"]],
    ["nmdc 67.50 put", ["NFO:NMDC26AUG67.5PE"]],
    ["sensex 80000 pe", ["BFO:SENSEX2680480000PE"]],
    ["mcx crudeoil fut", ["MCX:CRUDEOIL26AUGFUT", "MCX:CRUDEOIL26SEPFUT", "MCX:CRUDEOIL26OCTFUT"]],
    ["crude fut", ["MCX:CRUDEOIL26AUGFUT", "MCX:CRUDEOILM26AUGFUT", "MCX:CRUDEOIL26SEPFUT"]],
    ["infosys", ["NSE:INFY", "BSE:INFY"]],
    ["bees bank", ["NSE:BANKBEES", "BSE:BANKBEES"]],
    ["360 one", ["NSE:360ONE", "BSE:360ONE"]],
    ["bse", ["NSE:BSE", "BSE:BSE"]]
  ]
  for (const [query, first] of QUERIES) {
    it(`finds what is meant by ${query}`, () => {
      assert.deepStrictEqual(symbols(search(query)).slice(0, first.length), first)
    })
  }

  it("puts what has expired last, the latest first, but the exact symbol", () => {
    assert.strictEqual(symbols(search("nifty26julfut"))[0], "NFO:NIFTY26JULFUT")
    const futures = INDEX.search({ query: "nifty fut", limit: 1000, today: MASTER_DAY, exchange: "NFO" })
    const isExpired = futures.map((one) => one.expiry! < MASTER_DAY)
    assert.isAbove(isExpired.indexOf(true), 3)
    assert.strictEqual(isExpired.lastIndexOf(false), isExpired.indexOf(true) - 1)
    const options = search("nifty 24500 ce", 1000).filter((one) => one.expiry! < MASTER_DAY)
    assert.deepStrictEqual([...new Set(options.map((one) => one.expiry))], ["2026-07-28", "2026-07-21"])
  })

  it("comes in slices, and ends however much there is to be done", () => {
    for (const query of ["", "n", "a e i o u s t r", "nifty", "in an ar en or us ra va"]) {
      const work = INDEX.searching({ query, limit: 10_000 })
      let slices = 0
      while (work.next().done !== true) slices += 1
      // What is found is handed over in slices as well.
      assert.isAtMost(slices, MAX_VISITS / VISITS_A_SLICE + 10, query)
    }
  })

  it("prints how long searches take", () => {
    const typed = QUERIES.flatMap(([query]) => Array.from(query, (_, n) => query.slice(0, n + 1)))
    const times: Array<number> = []
    for (let n = 0; n < 5; n += 1) {
      for (const query of typed) {
        const begun = performance.now()
        search(query, 20)
        times.push(performance.now() - begun)
      }
    }
    times.sort((a, b) => a - b)
    const at = (share: number) => `${times[Math.floor(share * (times.length - 1))]!.toFixed(2)} ms`
    console.log(`${times.length} searches of ${FULL.length}: p50 ${at(0.5)}, p99 ${at(0.99)}, longest ${at(1)}`)
  })
})

const WORDS = [
  "nifty",
  "bank",
  "reliance",
  "26",
  "aug",
  "fut",
  "ce",
  "nse",
  "24500",
  "industries",
  "m&m",
  "bse",
  "n",
  "5"
]
const Words = Schema.Array(Schema.Literals(WORDS)).pipe(Schema.check(Schema.isBetweenLength(1, 4)))
/** A part of the hundred thousand, so that what is looked for in all of them takes no time. */
const SOME = FULL.filter((_, n) => n < 40 || n % 13 === 0)
const SOME_INDEX = instrumentIndex(SOME)

describe("whatever is typed", () => {
  const found = (query: string, limit = SOME.length) =>
    SOME_INDEX.search({ query, limit, today: MASTER_DAY, price }).map((one) => one.instrument_token)

  it.prop("the order of words does not matter", [Words], ([words]) => {
    assert.deepStrictEqual(found(words.toReversed().join(" ")), found(words.join(" ")))
    assert.deepStrictEqual(found(words.toSorted().join("  ")), found(words.join(" ")))
  })

  it.prop("what is found by words is found by their beginnings, and the first by all", [Words], ([words]) => {
    const all = found(words.join(" "))
    const shorter = words.map((word) => (word.length > 3 ? word.slice(0, -1) : word))
    const more = new Set(found(shorter.join(" ")))
    assert.isTrue(all.every((one) => more.has(one)))
    assert.deepStrictEqual(found(words.join(" "), 7), all.slice(0, 7))
  })

  it.prop("each word is met, and the order is kept", [Words], ([words]) => {
    const query = words.join(" ")
    const parts = [...new Set(typedWords(query).flatMap((typed) => typed.parts))]
    const list = SOME_INDEX.search({ query, limit: SOME.length, today: MASTER_DAY })
    const isMet = (one: Instrument, part: string): boolean => {
      const { asset_class, exchange, expiry, name, option_type, strike, tradingsymbol } = one
      const kind = { EQ: "eq equity", INDEX: "index", FUT: "future", OPT: "option" }[asset_class]
      const words = `${tradingsymbol} ${name} ${exchange} ${kind} ${expiry === null ? "" : wordsOfExpiry(expiry).join(" ")} ${strike} ${option_type} 5 NIFTY BANK`
      return compact(words).includes(part)
    }
    for (const one of list) for (const part of parts) assert.isTrue(isMet(one, part), `${fullSymbol(one)}: ${part}`)
    const isExact = (one: Instrument) => query === one.tradingsymbol.toLowerCase()
    const others = list.filter((one) => !isExact(one))
    const isExpired = others.map((one) => one.expiry !== null && one.expiry < MASTER_DAY)
    if (isExpired.includes(true)) assert.isAbove(isExpired.indexOf(true), isExpired.lastIndexOf(false))
  })

  const Text = Schema.Array(Schema.Literals(["a", "b", "-", " ", "1"])).pipe(Schema.check(Schema.isBetweenLength(1, 5)))
  const Asked = Schema.Struct({
    names: Schema.Array(Schema.Tuple([Text, Schema.NullOr(Text)])).pipe(Schema.check(Schema.isMaxLength(30))),
    query: Text
  })
  it.prop("finds all that a plain look at every word does", [Asked], ([asked]) => {
    const list = asked.names.map(([symbol, name]) => instrument(symbol.join(""), name?.join("") ?? null))
    const query = asked.query.join("")
    const parts = typedWords(query).flatMap((typed) => typed.parts)
    const meets = (one: Instrument): boolean => {
      const words = [...wordsOf(one.tradingsymbol), compact(one.tradingsymbol), ...wordsOf(one.name ?? ""), "nse", "eq"]
      return parts.length > 0 && parts.every((part) => words.some((word) => word.startsWith(part)))
    }
    const got = new Set(instrumentIndex(list).search({ query, limit: 100 }))
    for (const one of list) if (meets(one)) assert.isTrue(got.has(one), fullSymbol(one))
  })
})

const FILES = ["2025-07", "2026-08"].map((of) => ({
  today: `${of}-01`,
  month: of === "2025-07" ? "25JUL" : "26AUG",
  path: new URL(`../../../../shared/data/instruments-${of}.csv`, import.meta.url)
}))

describe.skipIf(!FILES.every(({ path }) => existsSync(path)))("a search of a broker's file", () => {
  for (const { month, path, today } of FILES) {
    it(`finds each of its instruments first by its symbol, and futures and options as they are typed: ${today}`, () => {
      const [header, ...rows] = readFileSync(path, "utf8").split("\n")
      const lines = Result.getOrThrow(instrumentLines(header!))
      const list = rows
        .filter((row) => row !== "")
        .map((row, n) => lines.read(row, n + 2))
        .filter((row) => typeof row !== "string")
      assert.strictEqual(list.length, 770)
      const index = instrumentIndex(list)
      for (const one of list) {
        assert.strictEqual(index.search({ query: one.tradingsymbol, limit: 1, today })[0], one, one.tradingsymbol)
        assert.strictEqual(index.search({ query: fullSymbol(one), limit: 1, today })[0], one, fullSymbol(one))
      }
      const first = (query: string) => index.search({ query, limit: 1, today })[0]?.tradingsymbol
      assert.strictEqual(first("nifty fut"), `NIFTY${month}FUT`)
      assert.strictEqual(first(`fut ${month.slice(2)} ${month.slice(0, 2)} bank nifty`), `BANKNIFTY${month}FUT`)
      assert.strictEqual(
        first("24000 ce nifty"),
        index.search({ query: "nifty 24000 call", limit: 1, today })[0]?.tradingsymbol
      )
    })
  }
})
