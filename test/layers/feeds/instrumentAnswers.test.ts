import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { InstanceAnswer } from "../../../src/layers/feeds/Instance.ts"
import { symbolParts, tickSizeOf, tokenOf } from "../../../src/layers/feeds/instrumentAnswers.ts"

/** 2025-07-10. */
const DAY = 20_279

const found = [
  { instrument_token: 1, tradingsymbol: "SBIN", exchange: "NSE" },
  { instrument_token: 2, tradingsymbol: "SBIN", exchange: "BSE" },
  { instrument_token: 3, tradingsymbol: "SBINGOLD", exchange: "NSE" }
]

/** An instance that answers every search with these. */
const asking = (instruments: unknown, status = 200) => {
  const paths: Array<string> = []
  const ask = (path: string): Effect.Effect<InstanceAnswer> => {
    paths.push(path)
    return Effect.succeed({ status, retryAfter: undefined, body: instruments })
  }
  return { paths, ask }
}
const token = (symbol: string, instruments: unknown, status = 200) => {
  const { ask, paths } = asking(instruments, status)
  return Effect.map(tokenOf(symbol, DAY, new Map([["nifty-i.nfo", 77]]), ask), ({ is }) => ({ answer: is, paths }))
}

describe("the token of a symbol", () => {
  it("is looked for on its exchange, written before or behind it", () => {
    assert.deepStrictEqual(symbolParts("nse:SBIN"), { exchange: "NSE", symbol: "SBIN" })
    assert.deepStrictEqual(symbolParts("20MICRONS.NSE"), { exchange: "NSE", symbol: "20MICRONS" })
    assert.deepStrictEqual(symbolParts("NIFTY 50.NSE_IDX"), { exchange: "NSE", symbol: "NIFTY 50" })
    assert.deepStrictEqual(symbolParts("M&M"), { exchange: undefined, symbol: "M&M" })
  })

  it.effect("is that of the one instrument that has it, in any case, and no other's", () =>
    Effect.gen(function* () {
      const { answer, paths } = yield* token("sbingold", { instruments: found })
      assert.deepStrictEqual(
        [answer, paths],
        [3, ["/api/v1/instruments/search?query=sbingold&as_of=2025-07-10&limit=50"]]
      )
      assert.strictEqual(
        (yield* token("NSE:M&M", { instruments: found })).paths[0]?.includes("query=M%26M&exchange=NSE"),
        true
      )
      assert.strictEqual(
        (yield* token("SBIN", { instruments: found })).answer,
        "expected one instrument, not NSE:SBIN or BSE:SBIN"
      )
      assert.strictEqual(
        (yield* token("SBI", { instruments: found })).answer,
        "expected the symbol of an instrument that the instance knows on 2025-07-10, or --tokens SYMBOL=TOKEN"
      )
      assert.match(String((yield* token("SBIN.NFO", {}, 400)).answer), /^expected the symbol of an instrument/)
      assert.deepStrictEqual(yield* token("NIFTY-I.NFO", undefined), { answer: 77, paths: [] })
      assert.match((yield* Effect.flip(token("SBIN", {}, 500))).message, /answered 500 to a search for "SBIN"/)
    })
  )

  it.effect("has a tick size where the instance says one", () =>
    Effect.gen(function* () {
      const size = (body: object, status?: number) =>
        Effect.map(tickSizeOf(5, DAY, asking(body, status).ask), ({ is }) => is)
      assert.strictEqual(yield* size({ tick_size: 0.05 }), 0.05)
      assert.strictEqual(yield* size({ tick_size: "x" }), 0)
      assert.strictEqual(yield* size({}, 404), 0)
    })
  )

  it.effect("is of the days that the instance says, and of all where it says none", () =>
    Effect.gen(function* () {
      const [sbin] = found
      const of = { ...sbin, valid_from: "2025-07-01", valid_through: null, tick_size: 0.05 }
      const { ask, paths } = asking({ instruments: [of] })
      assert.deepStrictEqual(yield* tokenOf("SBIN", DAY, new Map(), ask), { is: 1, from: 20_270, through: Infinity })
      assert.deepStrictEqual(yield* tickSizeOf(1, DAY, asking(of).ask), { is: 0.05, from: 20_270, through: Infinity })
      assert.deepStrictEqual(yield* tokenOf("SBIN", DAY, new Map(), asking({ instruments: [sbin] }).ask), {
        is: 1,
        from: -Infinity,
        through: Infinity
      })
      // What is not known on one day may be on another.
      const none = yield* tokenOf("NONE", DAY, new Map(), ask)
      assert.deepStrictEqual([none.from, none.through], [DAY, DAY])
      const dateless = yield* tokenOf("NONE", Infinity, new Map(), ask)
      assert.include(dateless.is, "that the instance knows, or")
      assert.include(paths[0], "&as_of=2025-07-10")
      assert.notInclude(paths.at(-1), "as_of")
    })
  )
})
