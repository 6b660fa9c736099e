import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import type { Tick } from "../../src/schema/Tick.ts"
import { decodeTick, encodeTick } from "../../src/schema/TickJson.ts"
import { readTickBytes } from "../../src/schema/TickJsonBytes.ts"
import { makeTick } from "../contract/ticks.ts"

const bytes = (json: string) => new TextEncoder().encode(json)

/** As `JSON.parse` reads it: with a blank in front it is not what is written here. */
const parsed = (json: string) => decodeTick(bytes(` ${json}`))

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const safe = between(-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
/** Rupees with up to seven decimals, and amounts of all sizes. */
const Price = Schema.Struct({ digits: between(-999_999_999_999, 999_999_999_999), decimals: between(0, 7) })

const Fields = Schema.Struct({
  instrument_token: between(-2_147_483_648, 2_147_483_647),
  exchange_ts: between(1_500_000_000_000_000, 1_900_000_000_000_000),
  price: Price,
  volume: safe,
  sequence_id: safe,
  status: Schema.Literals(["LIVE", "STALE"]),
  gap_from: Schema.Union([Schema.Literal(0), safe]),
  session: between(0, 32_767),
  sequencing: Schema.Literals(["contiguous", "monotonic", "none"]),
  epoch: safe,
  position: safe,
  feed: Schema.Union([Schema.Literals(["dma", "snapshot", "x", ""]), Schema.String]),
  received_ts: safe,
  incarnation: Schema.Union([Schema.Literals(["6f1cSxyzQmSm3kAbcdEfgh", "raw-1"]), Schema.String]),
  offset: safe,
  index: between(-2_147_483_648, 2_147_483_647),
  old: Schema.Boolean
})

const tickOf = ({ incarnation, index, offset, price, ...fields }: typeof Fields.Type): Tick => ({
  ...fields,
  price: price.digits / 10 ** price.decimals,
  source: [incarnation, offset, index]
})

describe("a tick read from the bytes that are written here", () => {
  it.prop("is what JSON.parse makes of them", [Arbitrary.schema(Fields)], ([fields]) => {
    const tick = tickOf(fields)
    const json = encodeTick(tick)
    const expected = parsed(json)
    assert.deepStrictEqual(decodeTick(bytes(json)), expected)
    if (!/[^\x20-\x7e]|\\/.test(json) && !/e[+-]/.test(String(tick.price))) {
      assert.deepStrictEqual(readTickBytes(bytes(json)), expected)
    }
  })

  /** What might stand anywhere: of JSON, of numbers, and of neither. */
  const pieces = [
    "",
    "0",
    "-",
    "1",
    "9007199254740993",
    ".",
    ".5",
    "e3",
    "00",
    '"',
    "\\",
    ",",
    "]",
    "}",
    " ",
    "\u0000",
    "é"
  ]
  const Change = Schema.Struct({ at: between(0, 400), drop: between(0, 3), piece: Schema.Literals(pieces) })
  it.prop(
    "is what JSON.parse makes of them when they are changed anywhere",
    [Arbitrary.schema(Fields), Arbitrary.schema(Change)],
    ([fields, { at, drop, piece }]) => {
      const json = encodeTick(tickOf(fields))
      const from = at % (json.length + 1)
      const changed = json.slice(0, from) + piece + json.slice(from + drop)
      assert.deepStrictEqual(decodeTick(bytes(changed)), parsed(changed), changed)
    },
    { arbitrary: { runs: 5000 } }
  )

  it("has every number as JSON.parse has it, at the edges of what is exact too", () => {
    const numbers = [
      ...["0", "-0", "1", "-1", "01", "-01", "00", "-", "+1", "1.", ".5", "0.5", "-0.0", "1.0", "1e3", "1E-2", "0x1"],
      ...["9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740991", "9007199254740951"],
      ...["99999999999999999999", "123456789012.345", "1234567890123.456", "0.1234567", "0.000000123456789", "2500.05"],
      ...["92233720.36854775807", "999999999.9999999", "0.30000000000000004", "1".repeat(400)]
    ]
    for (const name of ["price", "volume", "sequence_id", "epoch", "position", "received_ts", "session"]) {
      for (const number of numbers) {
        const json = encodeTick(makeTick()).replace(new RegExp(`"${name}":[^,]+`), `"${name}":${number}`)
        assert.deepStrictEqual(decodeTick(bytes(json)), parsed(json), json)
      }
    }
  })

  it("ends where its record does, wherever that lies in memory", () => {
    const json = encodeTick(makeTick())
    const more = bytes(`}}${json}${json}`)
    const record = more.subarray(2, 2 + json.length)
    assert.deepStrictEqual(readTickBytes(record), parsed(json))
    assert.deepStrictEqual(readTickBytes(more.subarray(2 + json.length)), parsed(json))
    for (let length = 0; length < json.length; length++) {
      assert.isUndefined(readTickBytes(more.subarray(2, 2 + length)))
    }
    assert.isUndefined(readTickBytes(more.subarray(2)))
  })

  it("has its names right however many there are", () => {
    const names = Array.from({ length: 40 }, (_, i) => `feed-${i % 13}`)
    for (const feed of [...names, ...names.map((name) => name.slice(0, 5)), "é".repeat(100), "x".repeat(127)]) {
      const tick = makeTick({ feed, source: [`${feed}!`, 7, 0] })
      assert.deepStrictEqual(decodeTick(bytes(encodeTick(tick))), tick)
    }
  })
})
