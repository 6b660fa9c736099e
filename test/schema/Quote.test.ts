import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import {
  afterPacket,
  compareQuotes,
  decodeQuote,
  encodeQuote,
  isOutdated,
  type Level,
  MAX_LEVELS,
  type Quote,
  type QuoteFieldName,
  type QuoteState,
  quoteFields,
  quoteMembers,
  readQuote,
  sameQuote,
  unknownQuote
} from "../../src/schema/Quote.ts"

const at = 1_768_448_700_000_000
const bytes = (text: string) => new TextEncoder().encode(text)

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const paise = between(-1_000_000, 900_000_000)
const quantity = between(0, Number.MAX_SAFE_INTEGER)
const levels = Schema.Array(Schema.Tuple([paise, quantity, quantity])).check(Schema.isMaxLength(MAX_LEVELS))
const time = between(at - 86_400_000_000, at)
const kinds = { levels, price: paise, quantity, time }
const rupees = (value: unknown): unknown => (value as number) / 100
const Packet = Schema.Struct({
  said: Schema.Struct(
    Object.fromEntries(
      Object.entries(quoteFields).map(([name, { kind }]) => [
        name,
        Schema.optionalKey(kinds[kind] as Schema.Codec<unknown>)
      ])
    )
  ),
  day_volume: Schema.Union([Schema.Undefined, quantity]),
  offset: between(0, 2 ** 40),
  old: Schema.Boolean
})
const quoteWith = ({ said, day_volume, offset, old }: typeof Packet.Type): Quote => {
  const state = unknownQuote() as unknown as Record<string, unknown>
  for (const [name, value] of Object.entries(said)) {
    const { kind } = quoteFields[name as QuoteFieldName]
    if (kind === "price") state[name] = rupees(value)
    else if (kind !== "levels") state[name] = value
    else state[name] = (value as ReadonlyArray<Level>).map(([price, many, orders]) => [rupees(price), many, orders])
  }
  return {
    ...(state as unknown as QuoteState),
    day_volume,
    instrument_token: 256_265,
    exchange_ts: at,
    feed: 'snap"shot',
    received_ts: at + 5,
    source: ["raw-1", offset, 1],
    old
  }
}

describe("a quote of normalized_ticks", () => {
  it.prop("reads back as it was written", [Arbitrary.schema(Packet)], ([packet]) => {
    const quote = quoteWith(packet)
    assert.deepStrictEqual(decodeQuote(bytes(encodeQuote(quote))), quote)
  })

  it("says only what is known", () => {
    assert.strictEqual(quoteMembers(unknownQuote()), "")
    assert.strictEqual(
      quoteMembers({ ...unknownQuote(), bid: [[2500.5, 10, 2]], ask: [], oi: 7, day_volume: 9 }),
      ',"bid":[[2500.5,10,2]],"ask":[],"oi":7,"day_volume":9'
    )
  })

  const wire = {
    instrument_token: 1,
    exchange_ts: at,
    feed: "snapshot",
    received_ts: at,
    source: ["raw-1", 4, 1]
  }
  const no: ReadonlyArray<readonly [name: string, ...values: ReadonlyArray<unknown>]> = [
    ["instrument_token", undefined, null, "1", 0, 1.5, 2 ** 31],
    ["exchange_ts", undefined, null, "2026-01-15T03:45:00Z", 1_768_448_700],
    ["feed", undefined, 1, "a\0b", "x".repeat(129)],
    ["received_ts", undefined, 1.5],
    ["source", undefined, "raw-1", [], ["raw-1", 1], [1, 1, 1], ["raw-1", 1, 1.5], ["raw-1", 1, 0]],
    ["day_volume", -1, 1.5, "1"],
    ["bid", {}, [[1, 2]], [[1, 2, 3, 4]], [["1", 2, 3]], [[1, -2, 3]], Array.from({ length: 6 }, () => [1, 1, 1])],
    ["oi", -1, null, "1", 2 ** 53],
    ["open", 2e9, "1", null],
    ["last_trade_ts", 0, "2026-01-15T03:45:00Z"]
  ]
  for (const [name, ...values] of no) {
    it(`is none with a ${name} that the contract does not have`, () => {
      for (const value of values) {
        assert.isUndefined(decodeQuote(bytes(JSON.stringify({ ...wire, [name]: value }))), JSON.stringify(value))
      }
    })
  }

  it("is none of what is no JSON object", () => {
    for (const text of ["", "{", "null", "1", '"x"', "[]"]) assert.isUndefined(decodeQuote(bytes(text)), text)
  })

  it("is the later by its stamp, and within one by where it came from", () => {
    const of = (exchange_ts: number, offset: number): Pick<Quote, "exchange_ts" | "source"> => ({
      exchange_ts,
      source: ["raw-1", offset, 1]
    })
    assert.isBelow(compareQuotes(of(at, 9), of(at + 1, 1)), 0)
    assert.isBelow(compareQuotes(of(at, 1), of(at, 2)), 0)
    assert.strictEqual(compareQuotes(of(at, 2), of(at, 2)), 0)
  })
})

describe("the quote of a raw record", () => {
  it("takes times as text too, and the record's day volume with it", () => {
    const read = readQuote({ last_trade_ts: "2026-01-15T09:15:00+05:30", oi: 5, other: 1 }, 700)
    assert.deepStrictEqual(read, { ...unknownQuote(), last_trade_ts: at, oi: 5, day_volume: 700 })
  })

  const refused: ReadonlyArray<readonly [value: unknown, sentence: RegExp]> = [
    [null, /expected an object, got null/],
    [[], /expected an object/],
    [{ bid: [[1, -2, 3]] }, /^bid\.0\.1: .*got -2/],
    [{ bid: [[1, 2]] }, /^bid\.0/],
    [{ ask: Array.from({ length: 6 }, () => [1, 1, 1]) }, /^ask: /],
    [{ oi: 1.5 }, /^oi: .*got 1\.5/],
    [{ open: 0.00000001 }, /^open: .*7 decimals/],
    [{ last_trade_ts: "2026-01-15T09:15:00" }, /^last_trade_ts: /]
  ]
  for (const [value, sentence] of refused) {
    it(`is refused by name: ${JSON.stringify(value)}`, () => {
      assert.match(readQuote(value, undefined) as string, sentence)
    })
  }
})

describe("what is known of book and day", () => {
  it("keeps what a packet does not say, and takes what it says", () => {
    const known = { ...unknownQuote(), oi: 5, open: 10, bid: [[1, 2, 3]] as const, day_volume: 4 }
    const next = afterPacket(known, { ...unknownQuote(), oi: 6, bid: [] })
    assert.deepStrictEqual(next, { ...known, oi: 6, bid: [] })
    assert.strictEqual(known.oi, 5)
  })

  it.prop(
    "is the same after a packet once more",
    [Arbitrary.schema(Packet), Arbitrary.schema(Packet)],
    ([first, then]) => {
      const [a, b] = [quoteWith(first), quoteWith(then)]
      const once = afterPacket(a, b)
      assert.isTrue(sameQuote(afterPacket(once, b), once))
      assert.strictEqual(sameQuote(a, b), quoteMembers(a) === quoteMembers(b))
    }
  )

  it("is not changed by a packet that is older by its stamp, or by the day's volume within one", () => {
    const known = { exchange_ts: at, day_volume: 100 }
    assert.isTrue(isOutdated(known, { exchange_ts: at - 1, day_volume: 200 }))
    assert.isTrue(isOutdated(known, { exchange_ts: at, day_volume: 99 }))
    assert.isFalse(isOutdated(known, { exchange_ts: at, day_volume: 100 }))
    assert.isFalse(isOutdated(known, { exchange_ts: at, day_volume: undefined }))
    assert.isFalse(isOutdated({ exchange_ts: at, day_volume: undefined }, known))
    assert.isFalse(isOutdated(known, { exchange_ts: at + 1, day_volume: 0 }))
  })
})
