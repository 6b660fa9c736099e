/** Decides what bars should be: an independent recompute from ticks, with nothing of the product but the tick order. */
import { compareTicks, isAfter } from "../../src/schema/Tick.ts"
import type { MinuteSum, MinutesQuery, StoredTick } from "../../src/streams/ports/TickStore.ts"

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

/** What a store with these rows has of some minutes. */
export const minutesOf = (rows: ReadonlyArray<StoredTick>, query: MinutesQuery): ReadonlyArray<MinuteSum> =>
  query.minutes.flatMap(({ ts, before }) => {
    const ticks = rows
      .filter((row) => row.instrument_token === query.instrument_token)
      .filter((row) => row.exchange_ts >= ts && row.exchange_ts < ts + 60_000_000)
      .filter(({ epoch, position }) => epoch === null || before === undefined || !isAtOrAfter(epoch, position!, before))
      .sort(compareTicks)
    const [bar] = barsOf(ticks, 1)
    if (bar === undefined) return []
    const [{ epoch, session }] = ticks as [StoredTick]
    const isOne = epoch !== null && ticks.every((tick) => tick.epoch === epoch && tick.session === session)
    return [
      {
        ts,
        count: ticks.length,
        open: ticks[0]!,
        high: bar.high,
        low: bar.low,
        close: ticks.at(-1)!,
        volume: bar.volume,
        numbering: isOne ? { epoch, session } : undefined
      }
    ]
  })

const isAtOrAfter = (epoch: number, position: number, place: { readonly epoch: number; readonly position: number }) =>
  (epoch === place.epoch && position === place.position) || isAfter(epoch, position, place)
