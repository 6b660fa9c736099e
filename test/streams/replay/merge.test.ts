import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, Effect, Exit, Schema, Stream } from "effect"
import { merge, type PageReader } from "../../../src/streams/replay/merge.ts"

interface Item {
  readonly at: number
  readonly source: number
  readonly n: number
}
const order = (a: Item, b: Item): number => a.at - b.at || a.source - b.source || a.n - b.n

/** Sources as gaps between items, so that each ascends; many zeros make ties. */
const small = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 3 })))
const sources = Arbitrary.array(Arbitrary.array(Arbitrary.schema(small), { maxLength: 60 }), { maxLength: 9 })
const sizes = Arbitrary.schema(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 20 }))))

const itemsOf = (gaps: ReadonlyArray<number>, source: number): ReadonlyArray<Item> => {
  let at = 0
  return gaps.map((gap, n) => {
    at += gap
    return { at, source, n }
  })
}

/** A reader over an array that counts what it has handed out. */
const reading = (
  items: ReadonlyArray<Item>,
  pageSize: number
): PageReader<Item> & { readonly read: { count: number } } => {
  const read = { count: 0 }
  return {
    read,
    pageSize,
    page: (after) =>
      Effect.gen(function* () {
        yield* Effect.yieldNow
        const from = after === undefined ? 0 : items.findIndex((item) => order(item, after) > 0)
        const page = from < 0 ? [] : items.slice(from, from + pageSize)
        read.count += page.length
        return page
      })
  }
}

describe("merge", () => {
  it.effect.prop(
    "equals a sort of everything, in arrays of the size asked for, whatever the pages are",
    [sources, sizes, sizes],
    ([given, pageSize, arraySize]) =>
      Effect.gen(function* () {
        const all = given.map(itemsOf)
        const arrays: Array<ReadonlyArray<Item>> = []
        yield* merge(
          all.map((items) => reading(items, pageSize)),
          { order, arraySize, concurrency: 2 }
        ).pipe(Stream.runForEachArray((array) => Effect.sync(() => arrays.push(array))))
        assert.deepStrictEqual(arrays.flat(), all.flat().sort(order))
        for (const array of arrays.slice(0, -1)) assert.strictEqual(array.length, arraySize)
      })
  )

  it.effect.prop(
    "never holds more of a source than one page and one being fetched",
    [sources, sizes],
    ([given, size]) =>
      Effect.gen(function* () {
        const readers = given.map((gaps, source) => reading(itemsOf(gaps, source), size))
        const out = given.map(() => 0)
        yield* merge(readers, { order, arraySize: 1, concurrency: 2 }).pipe(
          Stream.runForEachArray((array) =>
            Effect.gen(function* () {
              for (const { source } of array) out[source]!++
              // Let whatever it reads ahead arrive.
              for (let i = 0; i < 20; i++) yield* Effect.yieldNow
              readers.forEach(({ read }, source) => {
                assert.isAtMost(read.count - out[source]!, 2 * size, `source ${source}`)
              })
            })
          )
        )
      })
  )

  it.effect("fails with the reader's error after what came before it", () =>
    Effect.gen(function* () {
      const items = itemsOf([1, 1, 1], 0)
      const seen: Array<Item> = []
      const exit = yield* merge<Item, "gone">(
        [
          {
            pageSize: 2,
            page: (after) => (after === undefined ? Effect.succeed(items.slice(0, 2)) : Effect.fail("gone"))
          }
        ],
        { order, arraySize: 1, concurrency: 1 }
      ).pipe(
        Stream.runForEachArray((array) => Effect.sync(() => seen.push(...array))),
        Effect.exit
      )
      assert.deepStrictEqual(seen, items.slice(0, 2))
      assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === "gone")
    })
  )
})
