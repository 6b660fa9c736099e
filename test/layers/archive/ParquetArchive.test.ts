import { assert, describe, it } from "@effect/vitest"
import { partsOf } from "../../../src/layers/archive/ParquetArchive.ts"
import { MAX_TOKENS } from "../../../src/layers/archive/PrimaryKeys.ts"

describe("partsOf", () => {
  it("puts as many tokens together as fit", () => {
    const part = (fromToken: number, toToken: number, rows: number) => ({
      fromToken,
      toToken,
      rows,
      slice: 0,
      slices: 1
    })
    assert.deepStrictEqual(
      partsOf(
        [
          [1, 4],
          [5, 6],
          [7, 1],
          [8, 10],
          [9, 2]
        ],
        10
      ),
      [part(1, 5, 10), part(7, 7, 1), part(8, 8, 10), part(9, 9, 2)]
    )
    assert.deepStrictEqual(partsOf([], 10), [])
  })

  it("slices a token that does not fit alone, and never takes more tokens than it can number", () => {
    assert.deepStrictEqual(
      partsOf([[1, 11]], 10).map(({ slice, slices }) => [slice, slices]),
      [
        [0, 3],
        [1, 3],
        [2, 3]
      ]
    )
    const many = Array.from({ length: MAX_TOKENS + 1 }, (_, i) => [i + 1, 1] as const)
    assert.deepStrictEqual(
      partsOf(many, 10_000_000).map(({ rows }) => rows),
      [MAX_TOKENS, 1]
    )
  })
})
