/** Decides, for the store on every database, where a reader goes on after what was written. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { Bookmark } from "../../../src/streams/log/bookmark.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { write } from "./rows.ts"
import { onEachStore } from "./stores.ts"

onEachStore("bookmarks", (it) => {
  it.effect("move forward only, each incarnation and partition for itself", () =>
    Effect.gen(function* () {
      const { bookmarks } = yield* TickStore
      const at = (offset: number, partition = 3, incarnation = "forward"): Bookmark => ({
        partition,
        incarnation,
        offset,
        mark: { incarnation: "raw-1", offset: offset * 2, index: 1, left: ["raw-0"] }
      })
      yield* write([], [], [at(10), at(20, 4), at(7, 3, "other")])
      yield* write([], [], [at(9), at(21, 4), at(2, 3, "other")])
      assert.deepStrictEqual(yield* bookmarks("forward"), [at(10), at(21, 4)])
      assert.deepStrictEqual(yield* bookmarks("other"), [at(7, 3, "other")])
      assert.deepStrictEqual(yield* bookmarks("never"), [])
      // the same partition twice in one batch
      yield* write([], [], [at(30), at(25)])
      assert.deepStrictEqual((yield* bookmarks("forward"))[0], at(30))
    })
  )
})
