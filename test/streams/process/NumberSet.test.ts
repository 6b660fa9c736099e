import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { NEW, NumberSet, OTHER, SAME } from "../../../src/streams/process/NumberSet.ts"

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** Small numbers that meet again, hashes (negative, 48 bits), and rising ids of any size. */
const SomeNumber = Schema.Union([
  int(-20, 20),
  int(-(2 ** 48), -1),
  int(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
])
const numbers = Arbitrary.array(Arbitrary.schema(SomeNumber), { maxLength: 400 })

describe("NumberSet", () => {
  it.prop("agrees with a Set on every add, has and size", [numbers, numbers], ([given, asked]) => {
    const naive = new Set<number>()
    const set = new NumberSet()
    for (const n of given) {
      assert.strictEqual(set.add(n), !naive.has(n), `add ${n}`)
      naive.add(n)
    }
    assert.strictEqual(set.size, naive.size)
    for (const n of [...given, ...asked]) assert.strictEqual(set.has(n), naive.has(n), `has ${n}`)
  })

  it.prop("comes back from its bytes, and goes on from there", [numbers, numbers], ([given, more]) => {
    const naive = new Set(given)
    const set = new NumberSet()
    for (const n of given) set.add(n)
    const back = NumberSet.decode(set.encode())
    assert.strictEqual(back.size, naive.size)
    for (const n of more) {
      assert.strictEqual(back.add(n), !naive.has(n))
      naive.add(n)
    }
  })

  it.prop(
    "tells a number with another content from the same one, also after it came back from its bytes",
    [numbers],
    ([given]) => {
      const naive = new Map<number, number>()
      const set = new NumberSet()
      given.forEach((n, i) => {
        const print = 1 + (i % 3)
        const known = naive.get(n)
        assert.strictEqual(set.put(n, print), known === undefined ? NEW : known === print ? SAME : OTHER)
        if (known === undefined) naive.set(n, print)
      })
      for (const kept of [set, NumberSet.decode(set.encode(), set.encodePrints())]) {
        for (const [n, print] of naive) {
          assert.isFalse(kept.differs(n, print))
          assert.isTrue(kept.differs(n, print + 1))
        }
      }
      // Numbers without contents agree with all.
      const without = NumberSet.decode(set.encode())
      for (const n of naive.keys()) assert.isFalse(without.differs(n, 9))
    }
  )

  it("keeps a million stamps a microsecond, a second or 2^32 apart within 28 bytes each", () => {
    for (const step of [1, 1_000_000, 2 ** 32]) {
      const set = new NumberSet()
      let added = 0
      for (let i = 0; i < 2_000_000; i++) if (set.add(1 + (i % 1_000_000) * step)) added += 1
      assert.strictEqual(added, 1_000_000)
      assert.strictEqual(set.size, 1_000_000)
      assert.isAtMost(set.bytes, 28_000_000)
    }
  })

  it("refuses bytes that are not its own", () => {
    assert.throws(() => NumberSet.decode(new Uint8Array(7)), RangeError)
    assert.throws(() => NumberSet.decode(new Uint8Array(8), new Uint8Array(8)), RangeError)
    assert.throws(() => NumberSet.decode(new Uint8Array(new Float64Array([0.5]).buffer)), RangeError)
  })
})
