/** Decides how the newest bars before a time are found: day by day backwards, over the days that have any. */
import { Effect } from "effect"
import { barStart, intervalMinutes } from "../schema/Candle.ts"
import type { StoreError } from "../schema/Errors.ts"
import { tradingDay, tradingDayStart } from "../schema/Tick.ts"
import { MIN_MICROS } from "../schema/Time.ts"
import type { TickStore } from "../streams/ports/TickStore.ts"
import type { Bar } from "./Api.ts"
import { type BarsQuery, bars } from "./bars.ts"

const MICROS_PER_DAY = 86_400_000_000
/** Days looked at first; each look at what lies before is of twice as many. */
const FIRST_DAYS = 8
/** Days in one look: a day has one bar of a day. */
const MAX_DAYS = 8192

type Store = Pick<TickStore["Service"], "candles" | "ticks" | "minuteOi">

/** The newest days, up to `count`, that have a tick and begin in [from, to), descending, by their start. */
const daysBefore = function* (store: Store, token: number, from: number, to: number, count: number) {
  const found: Array<number> = []
  let end = to
  for (let span = FIRST_DAYS; end > from && found.length < count; span = Math.min(span * 2, MAX_DAYS)) {
    const start = Math.max(from, end - span * MICROS_PER_DAY)
    const page = yield* store.candles({
      instrument_token: token,
      interval: "1d",
      from: start,
      to: end,
      limit: MAX_DAYS
    })
    for (let i = page.length - 1; i >= 0 && found.length < count; i--) found.push(page[i]!.ts)
    end = start
  }
  return found
}

/** Up to `limit` of the newest bars that start in [from, to), ascending. */
export const newestBars = (
  store: Store,
  query: Omit<BarsQuery, "fill">
): Effect.Effect<ReadonlyArray<Bar>, StoreError> =>
  Effect.gen(function* () {
    const { token, interval, limit, to } = query
    const from = Math.max(query.from, MIN_MICROS)
    const page = (since: number, until: number, count: number) =>
      Effect.map(bars(store, { ...query, fill: "none", from: since, to: until, limit: count }), (found) => found.bars)
    const perDay = Math.ceil(1440 / intervalMinutes[interval])
    let found: ReadonlyArray<Bar> = []
    let end = to
    while (end > from && found.length < limit) {
      const wanted = Math.max(1, Math.ceil((limit - found.length) / perDay))
      const days = yield* daysBefore(store, token, barStart(from, "1d"), end, wanted)
      const first = days.at(-1)
      if (first === undefined) break
      const last = tradingDayStart(tradingDay(days[0]!)) + MICROS_PER_DAY
      const start = Math.max(from, first)
      // A span of these days holds others without a bar only.
      const part = yield* page(start, Math.min(end, last), days.length * perDay)
      found = [...part, ...found]
      end = first
    }
    return found.slice(-limit)
  })
