import { assert, describe, it } from "@effect/vitest"
import { Penalties } from "../../src/http/penalties.ts"

describe("whoever sent too much", () => {
  const times = (penalties: Penalties, peer: string, n: number) => {
    for (let i = 0; i < n; i++) penalties.add(peer)
  }

  it("is let in at once the first times, then waits twice as long each time, up to a minute", () => {
    let now = 0
    const penalties = new Penalties(() => now)
    times(penalties, "a", 5)
    assert.strictEqual(penalties.left("a"), 0)
    const waits = Array.from({ length: 9 }, () => {
      penalties.add("a")
      const left = penalties.left("a")
      now += left
      assert.strictEqual(penalties.left("a"), 0)
      return left / 1000
    })
    assert.deepStrictEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert.strictEqual(penalties.left("b"), 0)
  })

  it("is forgotten after a minute without another", () => {
    let now = 0
    const penalties = new Penalties(() => now)
    times(penalties, "a", 7)
    now += penalties.left("a") + 60_001
    times(penalties, "a", 5)
    assert.strictEqual(penalties.left("a"), 0)
  })

  it("is one of ten thousand remembered at most: the one longest ago goes", () => {
    let now = 0
    const penalties = new Penalties(() => ++now)
    times(penalties, "first", 8)
    times(penalties, "second", 8)
    for (let i = 0; i < 9999; i++) penalties.add(`peer ${i}`)
    now = 20
    assert.strictEqual(penalties.left("first"), 0)
    assert.isAbove(penalties.left("second"), 0)
  })
})
