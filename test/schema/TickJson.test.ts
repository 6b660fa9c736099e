import { assert, describe, it } from "@effect/vitest"
import { decodeTick, encodeTick } from "../../src/schema/TickJson.ts"
import { makeTick } from "../contract/ticks.ts"

const bytes = (json: string) => new TextEncoder().encode(json)
const wire = JSON.parse(encodeTick(makeTick())) as Record<string, unknown>

describe("a normalized tick as JSON", () => {
  it("is read as it was written", () => {
    const ticks = [
      makeTick(),
      makeTick({ status: "STALE", gap_from: 7, sequence_id: -(2 ** 47), old: true, instrument_token: 2_147_483_647 }),
      makeTick({ feed: 'a"b', sequencing: "none", session: 32_767, volume: 0, price: 0.0000001, source: ["", 0, 3] })
    ]
    for (const tick of ticks) assert.deepStrictEqual(decodeTick(bytes(encodeTick(tick))), tick)
  })

  it("is no tick without each of its fields", () => {
    for (const name of Object.keys(wire)) {
      assert.isUndefined(decodeTick(bytes(JSON.stringify({ ...wire, [name]: undefined }))), name)
    }
  })

  // What the sinks' columns do not hold: one such record would stop each of them for good.
  const no: ReadonlyArray<readonly [name: string, ...values: ReadonlyArray<string>]> = [
    ["instrument_token", "null", '"1"', "1.5", "2147483648", "[1]"],
    ["exchange_ts", "null", '"2026-01-15T03:45:00Z"', "1768448700000000.5", "1e15000", "1768448700", "9e15"],
    ["price", "null", '"2500.5"', "1e999", "1e300"],
    ["volume", "null", "1.5", "1e16"],
    ["sequence_id", "null", "1.5", "1e16", '"1"'],
    ["status", "null", '"live"', "0"],
    ["gap_from", "null", "1.5", '"1"'],
    ["session", "null", "1.5", "-1", "32768"],
    ["sequencing", "null", '"Contiguous"', '"c"'],
    ["epoch", "null", "1.5", "1e20"],
    ["position", "null", "1.5", "1e20"],
    ["feed", "null", "1", '"a\\u0000b"'],
    ["received_ts", "null", "1.5", "1e20"],
    [
      "source",
      "null",
      '"raw-1"',
      "[]",
      '["raw-1",0]',
      '["x","0",0]',
      '["x",0,1.5]',
      "[1,0,0]",
      '["a\\u0000b",0,0]',
      "{}"
    ]
  ]
  for (const [name, ...values] of no) {
    it(`is no tick with another ${name} than the contract has: ${values.join(", ")}`, () => {
      for (const value of values) {
        const rest = Object.entries(wire).filter(([field]) => field !== name)
        const json = `{${rest.map(([field, of]) => `"${field}":${JSON.stringify(of)}`).join(",")},"${name}":${value}}`
        assert.isUndefined(decodeTick(bytes(json)), value)
      }
    })
  }

  it("is no tick with a field nested without end, or a name without end", () => {
    const nested = `${"[".repeat(5000)}1${"]".repeat(5000)}`
    for (const name of Object.keys(wire)) {
      const rest = Object.entries(wire).filter(([field]) => field !== name)
      const json = `{${rest.map(([field, of]) => `"${field}":${JSON.stringify(of)}`).join(",")},"${name}":${nested}}`
      assert.isUndefined(decodeTick(bytes(json)), name)
    }
    const index = JSON.stringify({ ...wire, source: ["x", 0, "here"] }).replace('"here"', nested)
    assert.isUndefined(decodeTick(bytes(index)))
    const name = "x".repeat(100_000)
    assert.isUndefined(decodeTick(bytes(JSON.stringify({ ...wire, feed: name }))))
    assert.isUndefined(decodeTick(bytes(JSON.stringify({ ...wire, source: [name, 0, 0] }))))
    assert.deepStrictEqual(decodeTick(bytes(JSON.stringify({ ...wire, source: ["x", 1, 2, name] })))?.source, [
      "x",
      1,
      2
    ])
  })

  it("is no tick where the bytes are something else", () => {
    for (const json of ["", "null", "1", '"text"', "[]", "{}", "{", '{"instrument_token":1,"source":["x",0,0]}']) {
      assert.isUndefined(decodeTick(bytes(json)), json)
    }
    assert.isUndefined(decodeTick(new Uint8Array([0xff, 0xfe])))
  })
})
