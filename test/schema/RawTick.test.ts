import { assert, describe, it } from "@effect/vitest"
import { type QuoteState, unknownQuote } from "../../src/schema/Quote.ts"
import {
  encodeRawRecord,
  encodeRawTick,
  type RawRecord,
  type RawTick,
  readRawRecord,
  readRawTick
} from "../../src/schema/RawTick.ts"

const bases = [
  { volume: 5 },
  { day_volume: 700 },
  { day_volume: 0 },
  { sequence_id: 0 },
  { sequence_id: 7, sequencing: "monotonic" },
  { sequence_id: 7, sequencing: "none" },
  { feed: 'a"b', connection: "c\\d", reset: true },
  { occurrence: 3, received_ts: 1_768_448_700_000_000 },
  { price: -37.63 },
  { price: -0 },
  { price: 0.0000001, exchange_ts: "2026-01-15T09:15:00.123456+05:30" }
]

describe("a raw tick as JSON", () => {
  for (const fields of bases) {
    it(`reads back as it was: ${JSON.stringify(fields)}`, () => {
      const tick = readRawTick({ instrument_token: 1, exchange_ts: 1_768_448_700_000_000, price: 12.05, ...fields })
      assert.isObject(tick)
      assert.deepStrictEqual(readRawTick(JSON.parse(encodeRawTick(tick as never))), tick)
    })
  }

  it("keeps what only a replayed tick has", () => {
    const replayed = {
      instrument_token: 1,
      exchange_ts: 1_768_448_700_000_000,
      price: 1,
      sequence_id: -5,
      sequencing: "none",
      session: 2
    }
    const tick = readRawTick(replayed, true)
    assert.isObject(tick)
    assert.deepStrictEqual(readRawTick(JSON.parse(encodeRawTick(tick as never)), true), tick)
  })
})

const at = 1_768_448_700_000_000
const quote: Partial<QuoteState> = {
  bid: [
    [2500.45, 120, 3],
    [2500.4, 0, 0]
  ],
  ask: [],
  oi: 7,
  last_trade_ts: at - 1,
  open: -0.0000001
}

describe("a raw record with a quote", () => {
  const tick = { instrument_token: 1, exchange_ts: at, price: 12.05 }
  const alone = { instrument_token: 1, exchange_ts: at }

  for (const fields of [
    { ...tick, quote },
    { ...tick, feed: "snapshot", day_volume: 700, quote: {} },
    { ...tick, feed: "snapshot", connection: "c", received_ts: at + 3, sequence_id: 4, quote },
    { ...alone, quote },
    { ...alone, quote: {} },
    { ...alone, feed: 'a"b', day_volume: 0, received_ts: at + 3, quote: { bid: [] } }
  ]) {
    it(`reads back as it was: ${JSON.stringify(fields)}`, () => {
      const record = readRawRecord(fields)
      assert.isObject(record)
      assert.deepStrictEqual(readRawRecord(JSON.parse(encodeRawRecord(record as never))), record)
    })
  }

  it("is the tick that it would be without one, and the quote that says whose it is", () => {
    const fields = { ...tick, feed: "snapshot", day_volume: 700, received_ts: at + 3 }
    const without = readRawTick(fields) as RawTick
    assert.deepStrictEqual<RawRecord | string>(readRawRecord({ ...fields, quote }), {
      tick: without,
      quote: {
        instrument_token: 1,
        exchange_ts: at,
        feed: "snapshot",
        received_ts: at + 3,
        state: { ...unknownQuote(), ...quote, day_volume: 700 }
      }
    })
    assert.deepStrictEqual<RawRecord | string>(readRawRecord(fields), { tick: without, quote: undefined })
  })

  it("is a quote alone without a price, times as text included", () => {
    const text = "2026-01-15T09:15:00.000001+05:30"
    const read = readRawRecord({ ...alone, exchange_ts: text, received_ts: text, quote: { last_trade_ts: text } })
    assert.deepStrictEqual(read, {
      tick: undefined,
      quote: {
        instrument_token: 1,
        exchange_ts: at + 1,
        feed: "dma",
        received_ts: at + 1,
        state: { ...unknownQuote(), last_trade_ts: at + 1 }
      }
    })
  })

  it("keeps what a replay carries: its tick has a number, its quote alone has none", () => {
    const replayed = { ...alone, feed: "snapshot", day_volume: 5, received_ts: at, quote }
    assert.deepStrictEqual(readRawRecord(replayed, true), readRawRecord(replayed))
    assert.match(readRawRecord({ ...tick, quote }, true) as string, /^sequence_id: missing/)
  })

  const refused: ReadonlyArray<readonly [fields: object, sentence: RegExp]> = [
    [{ ...tick, quote: null }, /^quote: expected an object, got null$/],
    [{ ...tick, quote: [] }, /^quote: expected an object, got \[\]$/],
    [{ ...tick, quote: { bid: [[1, -2, 3]] } }, /^quote\.bid\.0\.1: .*got -2$/],
    [{ ...tick, quote: { ask: Array.from({ length: 6 }, () => [1, 1, 1]) } }, /^quote\.ask: /],
    [{ ...tick, quote: { open: 0.00000001 } }, /^quote\.open: .*7 decimals/],
    [{ ...tick, price: "1", quote: { oi: -1 } }, /^price: /],
    [{ ...tick, volume: 1, day_volume: 2, quote }, /^day_volume: expected volume or day_volume/],
    [{ ...alone, quote: null }, /^quote: expected an object, got null$/],
    [{ ...alone, quote: { bid: [[1, 2]] } }, /^quote\.bid\.0/],
    [{ ...alone, quote: { oi: 1.5 } }, /^quote\.oi: .*got 1\.5$/],
    [{ ...alone, quote: { last_trade_ts: "2026-01-15T09:15:00" } }, /^quote\.last_trade_ts: /],
    [{ ...alone, instrument_token: 0, quote }, /^instrument_token: .*got 0$/],
    [{ ...alone, exchange_ts: 1_768_448_700, quote }, /^exchange_ts: .*looks like seconds$/],
    [{ ...alone, day_volume: -1, quote }, /^day_volume: .*got -1$/],
    [{ ...alone, feed: "", quote }, /^feed: /],
    [{ ...alone, sequence_id: 4, quote }, /^price: missing, though sequence_id says/],
    [{ ...alone, volume: 0, quote }, /^price: missing, though volume says/],
    [{ exchange_ts: at, quote }, /^instrument_token: .*got nothing$/],
    [alone, /^price: /]
  ]
  for (const [fields, sentence] of refused) {
    it(`is refused by name: ${JSON.stringify(fields)}`, () => {
      assert.match(readRawRecord(fields) as string, sentence)
    })
  }

  it("is no record where it is no object", () => {
    for (const value of [null, 1, "x", [], undefined]) assert.isString(readRawRecord(value))
  })
})
