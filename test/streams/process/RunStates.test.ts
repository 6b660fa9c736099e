/** Runs that anybody may name are bounded, and none of them costs a replay its state. */
import { assert, describe, it } from "@effect/vitest"
import { MAX_RUNS, RUN_HOLD_MICROS, RunStates, UNMARKED_HOLD_MICROS } from "../../../src/streams/process/RunStates.ts"

const TEN = Date.UTC(2026, 0, 15, 4, 30) * 1000

describe("the states of replay runs", () => {
  it("are kept of those with a watermark, however many others are named", () => {
    const runs = new RunStates()
    const state = runs.of("r.1", 7, TEN)
    runs.mark("r.1", false, TEN)
    for (let i = 0; i < 10_000; i++) runs.of(`x${i}`, 8 + i, TEN + 1 + i)
    assert.strictEqual(runs.size, MAX_RUNS)
    assert.strictEqual(runs.of("r.1", 20_000, TEN + 20_000), state)
    assert.strictEqual(runs.since(TEN + 20_000).get("r.1"), 7)
  })

  it("drop the run idle longest where all have a watermark", () => {
    const runs = new RunStates()
    const states = Array.from({ length: MAX_RUNS }, (_, i) => {
      const state = runs.of(`r.${i}`, i, TEN + i)
      runs.mark(`r.${i}`, false, TEN + i)
      return state
    })
    runs.mark("r.0", false, TEN + 1000)
    runs.of("one more", 100, TEN + 1001)
    assert.strictEqual(runs.of("r.0", 101, TEN + 1002), states[0])
    assert.isFalse(runs.since(TEN + 1002).has("r.1"))
  })

  it("are forgotten once nothing came of them for long, sooner without a watermark, and pin no offset then", () => {
    const runs = new RunStates()
    const stray = runs.of("stray", 1, TEN)
    const paused = runs.of("paused", 2, TEN)
    runs.mark("paused", false, TEN)
    assert.deepStrictEqual([...runs.since(TEN + UNMARKED_HOLD_MICROS).keys()], ["stray", "paused"])
    assert.deepStrictEqual([...runs.since(TEN + UNMARKED_HOLD_MICROS + 1).keys()], ["paused"])
    assert.notStrictEqual(runs.of("stray", 3, TEN + UNMARKED_HOLD_MICROS + 1), stray)
    assert.strictEqual(runs.of("paused", 4, TEN + RUN_HOLD_MICROS), paused)
    assert.strictEqual(runs.since(TEN + 2 * RUN_HOLD_MICROS + 1).size, 0)
  })
})
