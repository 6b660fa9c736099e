import { assert, describe, it } from "@effect/vitest"
import { BAR_ORIGIN_MICROS, NINE_O_CLOCK_MICROS } from "../../../src/schema/Candle.ts"
import type { Steps } from "../../../src/streams/replay/pace.ts"
import { isTick, type Packet } from "../../../src/streams/replay/replay.ts"
import { stepBars, stepTicks } from "../../../src/streams/replay/steps.ts"
import { OPEN, recordedQuotes, recordedTicks } from "./replaying.ts"

const minute = (n: number) => OPEN + n * 60_000_000
const [tickOf] = recordedTicks({ seed: 1, tokens: [1], ticks: 1, spanMicros: 1 })
const [quoteOf] = recordedQuotes({ seed: 1, tokens: [1], quotes: 1, spanMicros: 1 })
const tick = (exchange_ts: number): Packet => ({ ...tickOf!, exchange_ts })
const quote = (exchange_ts: number): Packet => ({ ...quoteOf!, exchange_ts })

/** How many of the packets belong to a step. */
const taken = (step: Steps<Packet>, packets: ReadonlyArray<Packet>): number => {
  let count = 0
  while (count < packets.length && !step.isOver() && step.admits(packets[count]!)) count++
  return count
}

describe("a step", () => {
  it("of ticks ends with the last of them, and quotes are not counted", () => {
    const packets = [quote(OPEN), tick(OPEN), quote(OPEN), tick(OPEN), quote(OPEN), tick(OPEN)]
    assert.deepStrictEqual(
      [1, 2, 3].map((ticks) => taken(stepTicks(ticks), packets)),
      [2, 4, 6]
    )
    const step = stepTicks(2)
    taken(step, packets)
    assert.deepStrictEqual([step.isOver(), step.end()], [true, undefined])
  })

  it("of bars counts those that have ticks, the one of the next tick first, whatever lies between", () => {
    const packets = [
      quote(minute(0)),
      tick(minute(1) - 1),
      tick(minute(1)),
      quote(minute(3)),
      quote(minute(4)),
      tick(minute(7) + 5),
      tick(minute(8))
    ]
    const ends = [1, 2, 3].map((bars) => {
      const step = stepBars(bars, "1m", BAR_ORIGIN_MICROS)
      return [taken(step, packets), step.end()]
    })
    assert.deepStrictEqual(ends, [
      [2, minute(1)],
      [3, minute(2)],
      [6, minute(8)]
    ])
    const last = stepBars(4, "1m", BAR_ORIGIN_MICROS)
    assert.deepStrictEqual([taken(last, packets), last.isOver(), last.end()], [7, false, undefined])
    assert.strictEqual(packets.filter(isTick).length, 4)
  })

  it("of every interval ends where that bar ends", () => {
    const ends = (["1m", "5m", "15m", "30m", "1h", "1d"] as const).map((interval) => {
      const step = stepBars(1, interval, BAR_ORIGIN_MICROS)
      taken(step, [tick(minute(2)), tick(minute(5000))])
      return step.end()
    })
    assert.deepStrictEqual(ends, [minute(3), minute(5), minute(15), minute(30), minute(60), minute(14.75 * 60)])
    const early = stepBars(1, "30m", NINE_O_CLOCK_MICROS)
    taken(early, [tick(minute(2)), tick(minute(5000))])
    assert.strictEqual(early.end(), minute(15))
  })
})
