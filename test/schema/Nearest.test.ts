import { assert, describe, it } from "@effect/vitest"
import { nearest, unknownName } from "../../src/schema/Nearest.ts"

const RANGE = ["instrument_token", "symbol", "from", "to", "limit", "cursor"]

describe("an unknown name", () => {
  it("is answered with the nearest known one, whatever its case and hyphens", () => {
    const cases: ReadonlyArray<readonly [string, string | undefined]> = [
      ["form", "from"],
      ["Limit", "limit"],
      ["limits", "limit"],
      ["instrument-token", "instrument_token"],
      ["instrumentToken", "instrument_token"],
      ["instrument", "instrument_token"],
      ["sybmol", "symbol"],
      ["cursr", "cursor"],
      ["speed", undefined],
      ["", undefined],
      ["x".repeat(100_000), undefined]
    ]
    for (const [name, wanted] of cases) assert.strictEqual(nearest(name, RANGE), wanted, name.slice(0, 20))
  })

  it("is refused in one short line that no terminal obeys", () => {
    assert.strictEqual(unknownName("parameter", "form", RANGE), "unknown parameter form: did you mean from?")
    assert.strictEqual(unknownName("key", "speed", ["a", "b"]), "unknown key speed: known: a, b")
    assert.strictEqual(unknownName("parameter", "x", []), "unknown parameter x: none is taken here")
    assert.strictEqual(unknownName("key", "\u001b[2J\n", ["a"]), "unknown key \\u001b[2J\\u000a: known: a")
    assert.isBelow(unknownName("key", "\u0000".repeat(1_000_000), ["a"]).length, 300)
  })
})
