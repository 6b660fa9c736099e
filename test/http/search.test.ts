import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Instrument } from "../../src/schema/Instrument.ts"
import { LastPrices } from "../../src/streams/ports/LastPrices.ts"
import { instrumentOf } from "../support/instruments.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { ask, serve } from "./serving.ts"

/** Of a day that no test reaches. */
const expiry = "2099-12-29"
const option = (token: number, strike: number) =>
  instrumentOf(token, `NIFTY99DEC${strike}CE`, "NFO", {
    asset_class: "OPT",
    name: "NIFTY",
    expiry,
    strike,
    option_type: "CE"
  })

const open = (prices: ReadonlyMap<number, number> = new Map()) => {
  const rows = new Rows()
  const list: ReadonlyArray<Instrument> = [
    instrumentOf(1, "NIFTY 50", "NSE", { asset_class: "INDEX", name: "NIFTY 50" }),
    instrumentOf(2, "RELIANCE", "NSE", { name: "RELIANCE INDUSTRIES" }),
    instrumentOf(3, "RELIANCE", "BSE", { name: "RELIANCE INDUSTRIES" }),
    instrumentOf(4, "NIFTY99DECFUT", "NFO", { asset_class: "FUT", name: "NIFTY", expiry }),
    instrumentOf(5, "NIFTY20JANFUT", "NFO", { asset_class: "FUT", name: "NIFTY", expiry: "2020-01-30" }),
    ...[23_000, 24_000, 25_000].map((strike, i) => option(6 + i, strike))
  ]
  for (const one of list) rows.instruments.set(one.instrument_token, one)
  return Effect.map(
    Effect.provideService(serve({ store: memoryStore(rows) }), LastPrices, (token) => prices.get(token)),
    ({ port }) => ({
      port,
      tokens: (query: string) =>
        Effect.map(ask(port, `/api/v1/instruments/search?${query}`), ({ json }) =>
          (json as { readonly instruments: ReadonlyArray<Instrument> }).instruments.map((one) => one.instrument_token)
        )
    })
  )
}

describe("GET /instruments/search", () => {
  it.live("answers what is meant first, strikes near the last price, and what has expired last", () =>
    Effect.gen(function* () {
      const { tokens } = yield* open(new Map([[1, 24_900]]))
      assert.deepStrictEqual(yield* tokens("query=industries+reliance"), [2, 3])
      assert.deepStrictEqual(yield* tokens("query=bse+reliance"), [3])
      assert.deepStrictEqual(yield* tokens("query=nifty50"), [1])
      assert.deepStrictEqual(yield* tokens("query=fut+nifty"), [4, 5])
      assert.deepStrictEqual(yield* tokens("query=ce+nifty"), [8, 7, 6])
    }).pipe(Effect.scoped)
  )

  it.live("takes an exchange and a class in any case, and names those there are for one that is not", () =>
    Effect.gen(function* () {
      const { port, tokens } = yield* open()
      assert.deepStrictEqual(yield* tokens("exchange=bse"), [3])
      assert.deepStrictEqual(yield* tokens("asset_class=fut&exchange=Nfo"), [4, 5])
      const other = yield* ask(port, "/api/v1/instruments/search?asset_class=CRYPTO")
      assert.deepStrictEqual(
        [other.status, (other.json as { readonly message: string }).message],
        [400, 'asset_class: expected one of EQ, FUT, OPT, INDEX, got "CRYPTO"']
      )
      const unknown = yield* ask(port, "/api/v1/instruments/search?query=nifty&exchange=nasdaq")
      assert.strictEqual(unknown.status, 400)
      assert.deepStrictEqual(unknown.json, {
        _tag: "BadRequest",
        parameter: "exchange",
        message: 'exchange: expected one of NSE, BSE, NFO, got "nasdaq"'
      })
    }).pipe(Effect.scoped)
  )

  it.live("finds nothing where nothing is known, whatever the exchange", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(new Rows()) })
      const answer = yield* ask(port, "/api/v1/instruments/search?exchange=NSE")
      assert.deepStrictEqual([answer.status, answer.json], [200, { instruments: [] }])
    }).pipe(Effect.scoped)
  )
})

describe("a symbol that no instrument has", () => {
  it.live("is refused with the nearest one, by history and by replays", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const message = (answer: { readonly json: unknown }) => (answer.json as { readonly message: string }).message
      const ticks = yield* ask(port, "/api/v1/historical/ticks?symbol=NSE:RELAINCE")
      assert.strictEqual(ticks.status, 404)
      assert.strictEqual(message(ticks), 'symbol: no instrument is "NSE:RELAINCE": did you mean NSE:RELIANCE?')
      const replay = yield* ask(port, "/api/v1/replays", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ symbols: ["NIFTY99FUT"], date: "2026-01-16" })
      })
      assert.strictEqual(replay.status, 404)
      assert.strictEqual(
        message(replay),
        "symbols: no instrument is called NIFTY99FUT: did you mean NFO:NIFTY99DECFUT?"
      )
    }).pipe(Effect.scoped)
  )
})
