import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import { layer } from "../../../src/layers/instruments/Instruments.ts"
import { StoreError } from "../../../src/schema/Errors.ts"
import type { AssetClass, Instrument } from "../../../src/schema/Instrument.ts"
import { instrumentsLeftOut } from "../../../src/streams/metrics.ts"
import { Instruments } from "../../../src/streams/ports/Instruments.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { memoryStore, Rows } from "../../http/memoryStore.ts"
import { instrumentOf } from "../../support/instruments.ts"

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"
const FILE = [
  HEADER,
  "738561,2885,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.1,1,EQ,NSE,NSE",
  "128083204,500325,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.05,1,EQ,BSE,BSE",
  "5633,22,ACC,ACC,0,,0,0.05,1,EQ,NSE,NSE",
  "256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE",
  "x,1,BAD,BAD,0,,0,0.05,1,EQ,NSE,NSE",
  "12345602,1,RELIANCE26JANFUT,RELIANCE,0,2026-01-27,0,0.1,500,FUT,NFO-FUT,NFO",
  ""
].join("\r\n")

const provided = (rows: Rows, change: Parameters<typeof memoryStore>[1] = {}) =>
  layer.pipe(Layer.provideMerge(memoryStore(rows, change)), Layer.provideMerge(Readiness.layer))

describe("instruments in memory", () => {
  it.effect("take the broker's file, and are found at once by token, symbol and search", () =>
    Effect.gen(function* () {
      const instruments = yield* Instruments
      const report = yield* instruments.importFile(FILE)
      assert.deepStrictEqual(report, {
        added: 5,
        changed: 0,
        expired: 0,
        rejected: [{ line: 6, reason: 'instrument_token: expected a number between 1 and 2147483647, got "x"' }],
        rejected_total: 1
      })
      assert.strictEqual(instruments.get(738561)?.name, "RELIANCE INDUSTRIES")
      assert.strictEqual(instruments.get(1), undefined)
      assert.deepStrictEqual(
        instruments.named("nse:reliance").map((i) => i.instrument_token),
        [738561]
      )
      assert.strictEqual(instruments.named("Reliance").length, 2)
      assert.deepStrictEqual(
        (yield* instruments.search({ query: "relia", limit: 10 })).map((i) => `${i.exchange}:${i.tradingsymbol}`),
        ["NSE:RELIANCE", "BSE:RELIANCE", "NFO:RELIANCE26JANFUT"]
      )
      assert.deepInclude(yield* instruments.importFile(FILE), { added: 0, changed: 0 })
    }).pipe(Effect.provide(provided(new Rows())))
  )

  it.effect("refuse a file that is not the broker's, and change nothing", () =>
    Effect.gen(function* () {
      const instruments = yield* Instruments
      const refused = yield* Effect.flip(instruments.importFile("a,b\n1,2\n"))
      assert.strictEqual(refused._tag, "InstrumentFileRefused")
      assert.strictEqual((yield* Effect.flip(instruments.importFile("")))._tag, "InstrumentFileRefused")
      assert.deepStrictEqual(instruments.all(), [])
    }).pipe(Effect.provide(provided(new Rows())))
  )

  it.effect("know the segment: by class and derivatives, and of an unknown token by the broker's numbering", () =>
    Effect.gen(function* () {
      const instruments = yield* Instruments
      yield* instruments.importFile(FILE)
      assert.deepStrictEqual(
        [738561, 128083204, 5633, 256265, 12345602].map((token) => instruments.segment(token)),
        ["NSE_EQ_CAS", "BSE_EQ_CAS", "NSE_EQ", "NSE_INDEX", "NFO_FUT"]
      )
      assert.deepStrictEqual(
        [260105, 257, 263, 264].map((token) => instruments.segment(token)),
        ["NSE_INDEX", "NSE_EQ", "MCX", undefined]
      )
    }).pipe(Effect.provide(provided(new Rows())))
  )

  it.effect("list tokens that came and that none has, until one does", () =>
    Effect.gen(function* () {
      const instruments = yield* Instruments
      instruments.seen([5633, 42, 42, 738561])
      assert.deepStrictEqual(instruments.unknown(), { tokens: [5633, 42, 738561], unlisted: 0 })
      yield* instruments.importFile(FILE)
      assert.deepStrictEqual(instruments.unknown(), { tokens: [42], unlisted: 0 })
      instruments.seen(Array.from({ length: 20_000 }, (_, i) => 1_000_000 + i))
      const { tokens, unlisted } = instruments.unknown()
      assert.strictEqual(tokens.length, 10_000)
      assert.strictEqual(unlisted, 10_001)
    }).pipe(Effect.provide(provided(new Rows())))
  )

  it.effect("are read again within seconds of a token, symbol or search that none has, but not again and again", () => {
    const rows = new Rows()
    let reads = 0
    let looks = 0
    return Effect.gen(function* () {
      const instruments = yield* Instruments
      const store = yield* TickStore
      const put = (instrument_token: number, tradingsymbol: string) =>
        store.putInstruments([instrumentOf(instrument_token, tradingsymbol, "SIM")])
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(reads, 1)
      yield* put(1, "SIM1")
      instruments.seen([1])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(instruments.get(1)?.tradingsymbol, "SIM1")
      yield* put(2, "SIM2")
      assert.deepStrictEqual(instruments.named("SIM:SIM2"), [])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(instruments.named("SIM:SIM2").length, 1)
      yield* put(3, "THREE")
      assert.deepStrictEqual(yield* instruments.search({ query: "three", limit: 10 }), [])
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* instruments.search({ query: "three", limit: 10 })).length, 1)
      const before = [reads, looks] as const
      for (let i = 0; i < 30; i++) {
        instruments.named("NOBODY")
        yield* TestClock.adjust("100 millis")
      }
      // One look at once, one when the three seconds are over, and no read: nothing changed.
      assert.isAtMost(looks - before[1], 2)
      assert.strictEqual(reads, before[0])
      yield* TestClock.adjust("3 seconds")
      const settled = looks
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(looks, settled)
    }).pipe(
      Effect.provide(
        provided(rows, {
          instruments: () =>
            Effect.sync(() => {
              reads++
              return rows.known()
            }),
          instrumentsVersion: Effect.sync(() => {
            looks++
            return String(rows.puts)
          })
        })
      )
    )
  })

  it.effect("are read again every minute, kept while the store is silent, and that is told", () => {
    const rows = new Rows()
    let isSilent = false
    return Effect.gen(function* () {
      const instruments = yield* Instruments
      const readiness = yield* Readiness
      const store = yield* TickStore
      assert.isFalse(instruments.isSimulated([1]))
      yield* store.putInstruments([instrumentOf(1, "SIM1", "SIM")])
      assert.strictEqual(instruments.get(1), undefined)
      yield* TestClock.adjust("63 seconds")
      assert.strictEqual(instruments.get(1)?.tradingsymbol, "SIM1")
      assert.isTrue(instruments.isSimulated([5, 1]))
      assert.isFalse(instruments.isSimulated([5]))
      isSilent = true
      yield* TestClock.adjust("63 seconds")
      assert.strictEqual(instruments.get(1)?.tradingsymbol, "SIM1")
      assert.deepStrictEqual((yield* readiness.report).degraded, ["instruments"])
      isSilent = false
      yield* TestClock.adjust("63 seconds")
      assert.deepStrictEqual((yield* readiness.report).degraded, [])
    }).pipe(
      Effect.provide(
        provided(rows, {
          instrumentsVersion: Effect.suspend(() =>
            isSilent
              ? Effect.fail(new StoreError({ operation: "instruments", message: "gone", transient: true }))
              : Effect.succeed(String(rows.puts))
          )
        })
      )
    )
  })

  it.effect("start with whatever a database has: rows that are none are left out, long names cut, and counted", () => {
    const rows = new Rows()
    const row = (instrument_token: number, change: Partial<Instrument>): Instrument =>
      instrumentOf(instrument_token, `S${instrument_token}`, "NSE", { name: "WORD", lot_size: 1, ...change })
    const strange: ReadonlyArray<Partial<Instrument>> = [
      { tradingsymbol: "" },
      { tradingsymbol: "A\u001b[2J" },
      { tradingsymbol: "A".repeat(51) },
      { exchange: "nse" },
      { asset_class: "BOND" as AssetClass },
      { tick_size: Number.NaN },
      { tick_size: 1e300 },
      { strike: -1 },
      { lot_size: 1.5 },
      { expiry: "2026-02-31" },
      { option_type: "XX" as "CE" }
    ]
    const all = [
      row(1, { name: "a ".repeat(24_000) }),
      row(2, { name: "BELL\u0007 AND WHISTLE" }),
      row(3, {}),
      ...strange.map((change, i) => row(10 + i, change))
    ]
    for (const one of all) rows.instruments.set(one.instrument_token, one)
    return Effect.gen(function* () {
      const instruments = yield* Instruments
      assert.deepStrictEqual(
        instruments.all().map((i) => i.instrument_token),
        [1, 2, 3]
      )
      assert.strictEqual(instruments.get(1)?.name, "a ".repeat(100).trim())
      assert.deepStrictEqual(
        (yield* instruments.search({ query: "whistle", limit: 10 })).map((i) => [i.instrument_token, i.name]),
        [[2, "BELL  AND WHISTLE"]]
      )
      assert.deepInclude((yield* instruments.search({ query: "a a a", limit: 10 }))[0], { instrument_token: 1 })
      assert.strictEqual((yield* Metric.value(instrumentsLeftOut)).value, strange.length)
    }).pipe(Effect.provide(provided(rows)))
  })

  it.effect("rest after a long reading, so that whoever puts again and again waits, and nobody else", () => {
    const rows = new Rows()
    let reads = 0
    return Effect.gen(function* () {
      const instruments = yield* Instruments
      const put = (token: number) => instruments.importFile(`${HEADER}\n${token},1,S${token},S,0,,0,0.05,1,EQ,NSE,NSE`)
      const fiber = yield* Effect.forkChild(Effect.forEach([1, 2, 3, 4, 5], put), { startImmediately: true })
      const before = reads
      yield* TestClock.adjust("10 seconds")
      // Two seconds for a reading, five of rest at most, which is less than four times as long.
      assert.strictEqual(reads - before, 1)
      assert.strictEqual(instruments.get(1)?.tradingsymbol, "S1")
      yield* TestClock.adjust("60 seconds")
      yield* Fiber.join(fiber)
      assert.strictEqual(instruments.get(5)?.tradingsymbol, "S5")
    }).pipe(
      Effect.provide(
        provided(rows, {
          instruments: () =>
            Effect.suspend(() => {
              const found = Effect.sync(() => rows.known())
              return reads++ === 0 ? found : Effect.delay(found, "2 seconds")
            })
        })
      )
    )
  })

  it.effect("answer those who put at the same time with one reading after the one under way", () => {
    const rows = new Rows()
    let reads = 0
    return Effect.gen(function* () {
      const instruments = yield* Instruments
      const before = reads
      const tokens = Array.from({ length: 50 }, (_, i) => 300_000 + i)
      yield* Effect.forEach(
        tokens,
        (token) =>
          Effect.andThen(
            instruments.importFile(`${HEADER}\n${token},1,S${token},S,0,,0,0.05,1,EQ,NSE,NSE`),
            Effect.sync(() => assert.strictEqual(instruments.get(token)?.tradingsymbol, `S${token}`))
          ),
        { concurrency: "unbounded" }
      )
      assert.isAtMost(reads - before, 3)
    }).pipe(
      Effect.provide(
        provided(rows, {
          instruments: () =>
            Effect.andThen(
              Effect.yieldNow,
              Effect.sync(() => {
                reads++
                return rows.known()
              })
            )
        })
      )
    )
  })
})
