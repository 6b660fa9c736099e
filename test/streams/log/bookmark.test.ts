import { assert, describe, it } from "@effect/vitest"
import { fromMetadata, MarkTracker, toMetadata } from "../../../src/streams/log/bookmark.ts"

describe("the mark of a reader", () => {
  it("takes each source once, and none below the highest", () => {
    const tracker = new MarkTracker(undefined)
    assert.isUndefined(tracker.mark)
    const taken = [
      ["a", 5, 0],
      ["a", 5, 0],
      ["a", 5, 1],
      ["a", 4, 9],
      ["a", 6, 0],
      ["a", 5, 2]
    ].map(([incarnation, offset, index]) => tracker.take([incarnation as string, offset as number, index as number]))
    assert.deepStrictEqual(taken, [true, false, true, false, true, false])
    assert.deepStrictEqual(tracker.mark, { incarnation: "a", offset: 6, index: 0, left: [] })
  })

  it("begins anew with an incarnation it never met, and drops one it has left", () => {
    const tracker = new MarkTracker(undefined)
    assert.isTrue(tracker.take(["a", 900, 0]))
    assert.isTrue(tracker.take(["b", 0, 0]))
    assert.isFalse(tracker.take(["a", 901, 0]))
    assert.isTrue(tracker.take(["b", 1, 0]))
    assert.deepStrictEqual(tracker.mark, { incarnation: "b", offset: 1, index: 0, left: ["a"] })
  })

  it("goes on from where it was kept", () => {
    const kept = new MarkTracker(undefined)
    kept.take(["a", 1, 0])
    kept.take(["b", 7, 2])
    const tracker = new MarkTracker(kept.mark)
    assert.isFalse(tracker.take(["b", 7, 2]))
    assert.isFalse(tracker.take(["a", 99, 0]))
    assert.isTrue(tracker.take(["b", 7, 3]))
  })

  it("never drops the raw topic's own incarnation, whatever a mark says that others have left", () => {
    const poisoned = { incarnation: "foreign", offset: 9e15, index: 0, left: ["raw"] }
    const tracker = new MarkTracker(poisoned, "raw", 100)
    assert.isTrue(tracker.take(["raw", 7, 0]))
    assert.isFalse(tracker.take(["raw", 7, 0]))
    assert.isFalse(tracker.take(["foreign", 9e15, 1]))
    assert.deepStrictEqual(tracker.mark, { incarnation: "raw", offset: 7, index: 0, left: ["foreign"] })
  })

  it("is not taken up where it lies above all that the raw topic can have given", () => {
    const tracker = new MarkTracker({ incarnation: "raw", offset: 9e15, index: 0, left: [] }, "raw", 100)
    assert.isTrue(tracker.take(["raw", 7, 0]))
    assert.strictEqual(tracker.mark?.offset, 7)
  })

  it("has a place of its own for each incarnation of before the raw topic's", () => {
    const tracker = new MarkTracker(undefined, "raw")
    const old: ReadonlyArray<readonly [string, number]> = [
      ["a", 5],
      ["foreign", 9e15],
      ["a", 6],
      ["a", 6],
      ["foreign", 9e15],
      ["a", 7],
      ["raw", 0],
      ["a", 8],
      ["raw", 1]
    ]
    assert.deepStrictEqual(
      old.map(([incarnation, offset]) => tracker.take([incarnation, offset, 0])),
      [true, true, true, false, false, true, true, false, true]
    )
  })

  it("goes over to the recreated topic once that is known", () => {
    const tracker = new MarkTracker(undefined, "a")
    assert.isTrue(tracker.take(["a", 900, 0]))
    assert.isFalse(tracker.take(["b", 0, 0]))
    tracker.raw = "b"
    assert.isTrue(tracker.take(["b", 0, 0]))
    assert.isFalse(tracker.take(["a", 901, 0]))
  })

  it("remembers a bounded number of incarnations it has left", () => {
    const tracker = new MarkTracker(undefined)
    for (let i = 0; i < 100; i++) assert.isTrue(tracker.take([`i${i}`, 0, 0]))
    assert.strictEqual(tracker.mark?.left.length, 16)
    assert.isFalse(tracker.take(["i98", 1, 0]))
  })

  it("comes back from a commit's metadata as it was, and is none where somebody else made the commit", () => {
    const mark = { incarnation: "a", offset: 5, index: 1, left: ["b"] }
    assert.deepStrictEqual(fromMetadata(toMetadata(mark)), mark)
    assert.isUndefined(fromMetadata(toMetadata(undefined)))
    for (const other of ["", "reset by hand", "{}", "7", '{"incarnation":"a","offset":"5","index":0,"left":[]}']) {
      assert.isUndefined(fromMetadata(other), other)
    }
  })
})
