import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { IdSet } from "../../../src/streams/process/IdSet.ts"

const int = (minimum: number, maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))

/** Runs of ids: dense, stepping, far apart, and back over what was there. */
const Run = Schema.Struct({
  base: Schema.Union([int(0, 9000), int(0, Number.MAX_SAFE_INTEGER - 10_000_000)]),
  step: Schema.Union([Schema.Literals([1, 2, 127, 4096]), int(1, 9000)]),
  length: int(1, 300)
})
const runs = Arbitrary.array(Arbitrary.schema(Run), { maxLength: 12 })

const idsOf = (given: ReadonlyArray<typeof Run.Type>): ReadonlyArray<number> =>
  given.flatMap(({ base, step, length }) => Array.from({ length }, (_, i) => base + i * step))

const filled = (ids: Iterable<number>): IdSet => {
  const set = new IdSet()
  for (const id of ids) set.add(id)
  return set
}

describe("IdSet", () => {
  it.prop("agrees with a Set on every add, has, size and highest", [runs, runs], ([given, asked]) => {
    const naive = new Set<number>()
    const set = new IdSet()
    for (const id of idsOf(given)) {
      assert.strictEqual(set.add(id), !naive.has(id), `add ${id}`)
      naive.add(id)
      assert.isTrue(set.has(id))
    }
    assert.strictEqual(set.size, naive.size)
    assert.strictEqual(set.highest, naive.size === 0 ? -1 : [...naive].reduce((a, b) => Math.max(a, b)))
    for (const id of idsOf(asked)) assert.strictEqual(set.has(id), naive.has(id), `has ${id}`)
  })

  it.prop("comes back from its bytes, and goes on from there", [runs, runs], ([given, more]) => {
    const naive = new Set(idsOf(given))
    const back = IdSet.decode(filled(naive).encode())
    assert.strictEqual(back.size, naive.size)
    for (const id of idsOf(more)) {
      assert.strictEqual(back.add(id), !naive.has(id))
      naive.add(id)
    }
    assert.strictEqual(back.size, naive.size)
  })

  it.prop("equal sets have equal bytes, whatever the order of adding", [runs], ([given]) => {
    const ids = idsOf(given)
    assert.deepStrictEqual(filled(ids).encode(), filled(ids.toReversed()).encode())
  })

  it("takes the ends of the range and of pages", () => {
    const ends = [0, 31, 32, 4095, 4096, 8191, 2 ** 31 - 1, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER]
    const set = filled(ends)
    assert.strictEqual(set.size, ends.length)
    for (const id of ends) assert.isTrue(set.has(id))
    assert.isFalse(set.has(2 ** 31 + 1))
    const back = IdSet.decode(set.encode())
    for (const id of ends) assert.isFalse(back.add(id))
    assert.strictEqual(back.highest, Number.MAX_SAFE_INTEGER)
  })

  it("writes a day without losses in 13 bytes per 4,096 ids", () => {
    const set = new IdSet()
    for (let id = 1; id <= 1_000_000; id++) set.add(id)
    assert.strictEqual(set.encode().length, Math.ceil(1_000_001 / 4096) * 13)
  })

  it("refuses what is no id, and bytes that are not its own", () => {
    for (const id of [-1, 0.5, Number.NaN, 2 ** 53]) assert.throws(() => new IdSet().add(id), RangeError)
    const bytes = filled([1, 2, 3, 9, 5000]).encode()
    assert.throws(() => IdSet.decode(bytes.subarray(0, bytes.length - 1)), RangeError)
    assert.throws(() => IdSet.decode(Uint8Array.of(...bytes, ...bytes)), RangeError)
    const wrongKind = bytes.slice()
    wrongKind[8] = 9
    assert.throws(() => IdSet.decode(wrongKind), RangeError)
  })
})
