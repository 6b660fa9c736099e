import { assert, describe, it } from "@effect/vitest"
import { RecentMap } from "../../../src/streams/log/recentMap.ts"

describe("what is remembered by key", () => {
  it("is bounded however many keys come, and keeps those in use", () => {
    const map = new RecentMap<number, { n: number }>(100)
    map.set(-1, { n: -1 })
    for (let i = 0; i < 10_000; i++) {
      map.set(i, { n: i })
      assert.deepStrictEqual(map.get(-1), { n: -1 })
      assert.isAtMost(map.size, 200)
    }
    assert.deepStrictEqual(map.get(9_950), { n: 9_950 })
    assert.isUndefined(map.get(0))
  })
})
