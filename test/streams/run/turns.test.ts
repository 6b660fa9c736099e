import { setImmediate as nextRound } from "node:timers/promises"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"

type Turns = typeof import("../../../src/streams/run/turns.ts")

/** Goes on by hand and over pauses only: a machine that stands still for a moment changes no turn. */
let clock = 0
const pauses: Array<number> = []

const blocked = (ms: number): void => {
  clock += ms
}

/** Of records: never in one turn with others. */
const TOO_MANY = 2000

const nowMicros = (): number => clock * 1000

describe("turns", () => {
  let turns: Turns
  beforeEach(async () => {
    vi.resetModules()
    turns = await import("../../../src/streams/run/turns.ts")
    clock = 100_000
    pauses.length = 0
    vi.spyOn(performance, "now").mockImplementation(() => clock)
    vi.spyOn(Date, "now").mockImplementation(() => clock)
    vi.spyOn(globalThis, "setTimeout").mockImplementation(((run: () => void, ms: number) => {
      pauses.push(ms)
      clock += ms
      return setImmediate(run)
    }) as unknown as typeof setTimeout)
  })
  afterEach(() => {
    vi.restoreAllMocks()
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

  it("come at once where no live ticks are read", async () => {
    const happened: Array<string> = []
    setImmediate(() => happened.push("other work"))
    await ask(happened, [250, 5000, 250])
    expect(happened).toEqual(["turn 0", "turn 1", "turn 2"])
  })

  it("come at once where the ticks that are read are late already", () => {
    turns.live(nowMicros() - 10_000_000)
    expect(turns.inTurns()).toBe(false)
    turns.live(nowMicros())
    expect(turns.inTurns()).toBe(true)
  })

  it("let the loop's other work come between two of them while live ticks are read", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    await ask(happened, [250, TOO_MANY], () => setImmediate(() => happened.push("other work")))
    expect(happened).toEqual(["turn 0", "other work", "turn 1"])
  })

  it("are shared by small pieces", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    await ask(happened, [60, 60, 60, 60, TOO_MANY], () => setImmediate(() => happened.push("other work")))
    expect(happened).toEqual(["turn 0", "turn 1", "turn 2", "turn 3", "other work", "turn 4"])
  })

  it("make a pause after each that grows with what it took", async () => {
    turns.live(nowMicros())
    await ask([], [250, TOO_MANY], () => blocked(4))
    await ask([], [250, TOO_MANY], () => blocked(15))
    expect(pauses).toEqual([12, 45])
  })

  it("make no long pause where the process was stopped in one", async () => {
    turns.live(nowMicros())
    await ask([], [250, TOO_MANY], () => blocked(400))
    expect(pauses).toEqual([50])
  })

  it("are larger where the loop was held up, so that busy sinks keep up", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    const all = ask(happened, Array(12).fill(250))
    blocked(20)
    await nextRound()
    expect(happened.length).toBe(6)
    await all
    expect(happened.length).toBe(12)
  })

  it("make shorter pauses once somebody has waited without a break for long: sinks do not keep up", async () => {
    const end = clock + 20_000
    for (let reader = 0; reader < 2; reader++) {
      void (async () => {
        while (clock < end) {
          turns.live(nowMicros())
          await turns.turn(TOO_MANY)
          clock += 10
        }
      })()
    }
    while (clock < end) await nextRound()
    expect(pauses[0]).toBe(30)
    expect(pauses.at(-1)).toBe(10)
  })

  it("end for all who wait once no live ticks are read any more", async () => {
    const happened: Array<string> = []
    turns.live(nowMicros())
    const all = ask(happened, Array(12).fill(TOO_MANY))
    blocked(1100)
    await nextRound()
    expect(happened.length).toBe(12)
    await all
  })
})
