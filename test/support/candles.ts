/** Decides what bars should be: an independent recompute from ticks, with nothing of the product but the tick order. */
import { compareTicks } from "../../src/schema/Tick.ts"

export interface BarTick {
  readonly exchange_ts: number
  readonly sequence_id: number
  readonly epoch: number | null
  readonly position: number | null
  readonly price: number
  readonly volume: number
}

export interface Bar {
  readonly ts: number
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
}

/** Bars of `minutes`, ascending; every width up to an hour that divides 45 minutes past is aligned with 09:15 IST. */
export const barsOf = (ticks: ReadonlyArray<BarTick>, minutes: number): ReadonlyArray<Bar> => {
  const width = minutes * 60_000_000
  const bars = new Map<number, Bar>()
  for (const { exchange_ts, price, volume } of [...ticks].sort(compareTicks)) {
    const ts = exchange_ts - (exchange_ts % width)
    const bar = bars.get(ts)
    bars.set(
      ts,
      bar === undefined
        ? { ts, open: price, high: price, low: price, close: price, volume }
        : {
            ...bar,
            high: Math.max(bar.high, price),
            low: Math.min(bar.low, price),
            close: price,
            volume: bar.volume + volume
          }
    )
  }
  return [...bars.values()].sort((a, b) => a.ts - b.ts)
}
