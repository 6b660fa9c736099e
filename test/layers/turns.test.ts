import { setImmediate as nextRound } from "node:timers/promises"
import { beforeEach, describe, expect, it, vi } from "vitest"

type Turns = typeof import("../../src/layers/turns.ts")

const blocked = (ms: number): void => {
  const until = performance.now() + ms
  while (performance.now() < until) {}
}

const nowMicros = (): number => Date.now() * 1000

describe("turns", () => {
  let turns: Turns
  beforeEach(async () => {
    vi.resetModules()
    turns = await import("../../src/layers/turns.ts")
  })

  /** Asks for turns of these sizes; what happens is told in the order in which it does. */
  const ask = (happened: Array<string>, sizes: ReadonlyArray<number>, first?: () => void) =>
    Promise.all(
      sizes.map((size, i) =>
        turns.turn(size).then(() => {
          happened.push(`turn ${i}`)
          if (i === 0) first?.()
        })
      )
    )

  it("come at once and whole where no live ticks are read", async () => {
    const happened: Array<string> = []
    setImmediate(() => happened.push("other work"))
    await ask(happened, [250, 5000, 250])
    expect(happened).toEqual(["turn 0", "turn 1", "turn 2"])
    expect(turns.turnRecords()).toBe(Number.POSITIVE_INFINITY)
  })

  it("come at once where the ticks that are read are late already", async () => {
    turns.live(nowMicros() - 10_000_000)
    expect(turns.turnRecords()).toBe(Number.POSITIVE_INFINITY)
  })

  it("let the loop's other work come between two of them while live ticks are read", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    expect(turns.turnRecords()).toBe(250)
    await ask(happened, [250, 250], () => setImmediate(() => happened.push("other work")))
    expect(happened).toEqual(["turn 0", "other work", "turn 1"])
  })

  it("are shared by small pieces", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    await ask(happened, [60, 60, 60, 60, 60], () => setImmediate(() => happened.push("other work")))
    expect(happened).toEqual(["turn 0", "turn 1", "turn 2", "turn 3", "other work", "turn 4"])
  })

  it("come with a piece of any size", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    await ask(happened, [100_000, 100_000])
    expect(happened).toEqual(["turn 0", "turn 1"])
  })

  it("make a pause after each that is several times as long as it was", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    await ask(happened, [250, 250], () => {
      blocked(20)
      setTimeout(() => happened.push("a timer of 30 ms"), 30)
    })
    expect(happened).toEqual(["turn 0", "a timer of 30 ms", "turn 1"])
  })

  it("are larger where the loop was held up, so that busy sinks keep up", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    const all = ask(
      happened,
      Array.from({ length: 12 }, () => 250)
    )
    blocked(20)
    await nextRound()
    expect(happened.length).toBeGreaterThanOrEqual(6)
    expect(happened.length).toBeLessThanOrEqual(8)
    await all
    expect(happened.length).toBe(12)
  })
})
