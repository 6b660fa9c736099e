import { assert, describe, it } from "@effect/vitest"
import { Contents, RECENT_NUMBERS } from "../../../src/streams/process/Contents.ts"
import { contentPrint } from "../../../src/streams/process/identityHash.ts"

/** A small seeded generator (mulberry32). */
const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

describe("what is known of the content of numbers", () => {
  it("never takes the same tick for another, and every later one for what it is, in any order and after any restart", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const next = random(seed)
      let contents = new Contents()
      const known = new Map<number, readonly [stamp: number, print: number]>()
      let number = 1
      for (let i = 0; i < 3000; i++) {
        number += next() < 0.1 ? Math.floor(next() * 40) : 1
        const id = next() < 0.1 ? Math.max(0, number - Math.floor(next() * 900)) : number
        const stamp = 1_000_000 + i * 10 + Math.floor(next() * 30)
        const print = contentPrint(stamp, next())
        if (!known.has(id)) {
          known.set(id, [stamp, print])
          contents.put(id, stamp, print, i, "dma")
        }
        if (next() < 0.01) contents = Contents.decode(contents.encode())
      }
      const highest = Math.max(...known.keys())
      const newest = 1_000_000 + 3000 * 10 + 30
      for (const [id, [stamp, print]] of known) {
        assert.isFalse(contents.differs(id, stamp, print), `${id} of seed ${seed}`)
        assert.isTrue(contents.differs(id, newest + 1, contentPrint(newest + 1, 1)), `${id} of seed ${seed}, later`)
        const isRecent = id > highest - RECENT_NUMBERS
        if (isRecent) assert.isTrue(contents.differs(id, stamp, print === 1 ? 2 : print - 1), `${id}, another price`)
      }
    }
  })

  it("judges no number that was seen before contents were kept", () => {
    const contents = new Contents(10)
    contents.put(11, 500, 7, 0, "dma")
    assert.isFalse(contents.differs(10, 900, 8))
    assert.isTrue(contents.differs(11, 500, 8))
  })

  it("tells which feed brought a recent number, and when, until it is put back from its bytes", () => {
    const contents = new Contents()
    contents.put(1, 500, 7, 1000, "dma")
    assert.strictEqual(contents.otherTime(1, "snapshot"), 1000)
    assert.strictEqual(contents.feed(1), "dma")
    assert.strictEqual(contents.otherTime(1, "dma"), -1)
    assert.strictEqual(Contents.decode(contents.encode()).otherTime(1, "snapshot"), -1)
  })

  it("tells contents apart by stamp and by price, of either sign", () => {
    const prints = [
      contentPrint(1, 100),
      contentPrint(2, 100),
      contentPrint(1 + 2 ** 32, 100),
      contentPrint(1, 100.05),
      contentPrint(1, -100),
      contentPrint(1, 0),
      contentPrint(1, -0.0000001),
      contentPrint(1, 429.4967295)
    ]
    assert.strictEqual(new Set(prints).size, prints.length)
  })
})
