import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { decodeDepth, encodeDepth } from "../../../src/layers/postgres/depth.ts"
import type { Level } from "../../../src/schema/Quote.ts"
import { isExactPrice } from "../../../src/schema/RawValues.ts"

const Whole = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })))
const Units = Schema.Int.pipe(
  Schema.check(Schema.isBetween({ minimum: -Number.MAX_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }))
)
const AnyLevel = Schema.Tuple([Units, Whole, Whole])
const Side = Schema.UndefinedOr(Schema.Array(AnyLevel).pipe(Schema.check(Schema.isMaxLength(5))))
const sideOf = (side: typeof Side.Type): ReadonlyArray<Level> | undefined =>
  side
    ?.map(([units, quantity, orders]) => [units / 10_000_000, quantity, orders] as const)
    // Of the largest prices not every one of seven decimals is a number, and no feed may send it.
    .filter(([price]) => isExactPrice(price))

describe("the binary form of a book", () => {
  it.prop("keeps every price of seven decimals and every safe integer", [Side, Side], ([bid, ask]) => {
    const book = { bid: sideOf(bid), ask: sideOf(ask) }
    const bytes = encodeDepth(book)
    if (bytes === null) {
      assert.isUndefined(book.bid ?? book.ask)
      return
    }
    assert.strictEqual(bytes.length, 2 + 24 * ((book.bid?.length ?? 0) + (book.ask?.length ?? 0)))
    assert.deepStrictEqual(decodeDepth(bytes), book)
  })

  it("keeps the largest prices, on either side of nothing", () => {
    const levels = [1_000_000_000, -1_000_000_000, 0.0000001, -0.0000001, 99_999_999.1234567].map(
      (price): Level => [price, 1, 2]
    )
    assert.deepStrictEqual(decodeDepth(encodeDepth({ bid: levels, ask: [] })!), { bid: levels, ask: [] })
  })

  it("has its numbers where they are said to be", () => {
    const bytes = encodeDepth({ bid: [[2500.05, 75, 3]], ask: undefined })!
    assert.deepStrictEqual([...bytes.subarray(0, 2)], [1, 255])
    assert.deepStrictEqual(
      [2, 10, 18].map((at) => bytes.readBigInt64BE(at)),
      [25_000_500_000n, 75n, 3n]
    )
  })

  it.prop(
    "is refused where bytes are none of it",
    [
      Arbitrary.array(
        Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 255 }))).pipe(Arbitrary.schema),
        { maxLength: 60 }
      )
    ],
    ([bytes]) => {
      const book = decodeDepth(Buffer.from(bytes))
      if (book !== undefined)
        assert.strictEqual(bytes.length, 2 + 24 * ((book.bid?.length ?? 0) + (book.ask?.length ?? 0)))
    }
  )
})
