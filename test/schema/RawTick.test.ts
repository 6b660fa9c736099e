import { assert, describe, it } from "@effect/vitest"
import { encodeRawTick, readRawTick } from "../../src/schema/RawTick.ts"

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
