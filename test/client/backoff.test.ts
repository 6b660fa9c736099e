import { assert, describe, it } from "@effect/vitest"
import { failuresOf, RECONNECT, retryAfterOf, waitOf } from "../../src/client/backoff.ts"

const LARGEST = () => 1
const SMALLEST = () => 0

describe("the wait before a client connects again", () => {
  it("is any time up to a bound that doubles with each failure and has an end", () => {
    assert.deepStrictEqual(
      [0, 1, 2, 3, 4, 5, 6, 1000].map((failures) => waitOf(failures, RECONNECT, 0, LARGEST)),
      [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]
    )
    assert.strictEqual(waitOf(5, RECONNECT, 0, SMALLEST), 0)
  })

  it("begins after what the server asked for", () => {
    assert.strictEqual(waitOf(0, RECONNECT, 5_000, SMALLEST), 5_000)
    assert.strictEqual(waitOf(1, RECONNECT, 5_000, LARGEST), 5_500)
    // Also where that is longer than any wait of its own.
    assert.strictEqual(waitOf(20, RECONNECT, 60_000, LARGEST), 70_000)
  })

  it("is longer after an overload, a restart or a refusal than after a loss or being slow", () => {
    assert.deepStrictEqual(
      [1006, 4001, 1001, 1012, 1013, 1008, 1009].map((code) => failuresOf(0, code)),
      [0, 0, 2, 2, 3, 3, 3]
    )
    assert.strictEqual(failuresOf(6, 1013), 6)
  })

  it("reads Retry-After in seconds and as a date", () => {
    const now = Date.parse("2026-01-15T03:45:00Z")
    assert.strictEqual(retryAfterOf("3", now), 3_000)
    assert.strictEqual(retryAfterOf("Thu, 15 Jan 2026 03:45:10 GMT", now), 10_000)
    assert.strictEqual(retryAfterOf("Thu, 15 Jan 2026 03:44:00 GMT", now), 0)
    for (const none of [null, undefined, "", "soon"]) assert.isUndefined(retryAfterOf(none, now))
  })
})
