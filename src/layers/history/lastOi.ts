/** Decides what bars that are made of shorter ones tell of open interest: the last of any minute of their time. */
import { Effect } from "effect"
import { type Candle, type Interval, intervalMicros, withOi } from "../../schema/Candle.ts"
import type { StoreError } from "../../schema/Errors.ts"
import type { TickStore } from "../../streams/ports/TickStore.ts"

const MICROS_PER_MINUTE = 60_000_000
/** Minutes read at a time. */
const PAGE = 10_000

export interface OiOf {
  readonly token: number
  readonly interval: Interval
  /** The bar that a minute lies in, by its start; undefined where it lies in none. */
  readonly start: (minute: number) => number | undefined
}

/**
 * Ascending bars with the open interest of their time: a quote in a minute without a tick, of which no shorter bar is
 * made, counts as well.
 */
export const withLastOi = (
  store: Pick<TickStore["Service"], "minuteOi">,
  { token, interval, start }: OiOf,
  bars: ReadonlyArray<Candle>
): Effect.Effect<ReadonlyArray<Candle>, StoreError> =>
  Effect.gen(function* () {
    const [first, last] = [bars[0], bars.at(-1)]
    if (first === undefined || last === undefined) return bars
    const end = last.ts + intervalMicros(interval)
    const known = new Map<number, number>()
    let at = first.ts
    while (at < end) {
      const page = yield* store.minuteOi({ instrument_token: token, from: at, to: end, limit: PAGE })
      for (const { ts, oi } of page) {
        const bar = start(ts)
        if (bar !== undefined) known.set(bar, oi)
      }
      at = page.length < PAGE ? end : page[page.length - 1]!.ts + MICROS_PER_MINUTE
    }
    return known.size === 0 ? bars : bars.map((bar) => withOi(bar, known.get(bar.ts)))
  })
