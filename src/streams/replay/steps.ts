/** Decides how far a step of a replay goes: so many ticks, or the bars that have ticks, each to its end. */
import { barStart, type Interval, intervalMicros } from "../../schema/Candle.ts"
import type { Steps } from "./pace.ts"
import { isTick, type Packet } from "./replay.ts"

/** Exactly so many ticks, and the quotes before the last of them. */
export const stepTicks = (ticks: number): Steps<Packet> => {
  let left = ticks
  return {
    admits: (packet) => {
      if (isTick(packet)) left--
      return true
    },
    isOver: () => left === 0,
    end: () => undefined
  }
}

/**
 * Everything up to the end of the so-many-th bar that has a tick, counted from the one that the next tick lies in; `open`
 * is what the bars are aligned on. Only what lies beyond says that it is over.
 */
export const stepBars = (bars: number, interval: Interval, open: number): Steps<Packet> => {
  let left = bars
  let end = Number.NEGATIVE_INFINITY
  let isOver = false
  return {
    admits: (packet) => {
      if (packet.exchange_ts < end) return true
      if (left === 0) {
        isOver = true
        return false
      }
      // A bar is made of ticks: a quote makes none.
      if (isTick(packet)) {
        left--
        end = barStart(packet.exchange_ts, interval, open) + intervalMicros(interval)
      }
      return true
    },
    isOver: () => isOver,
    end: () => (isOver ? end : undefined)
  }
}
