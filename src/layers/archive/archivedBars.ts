/** Decides how one instrument's minutes are made of the archive's ticks, and which of them are kept for who asks again. */
import { Effect } from "effect"
import { addToBars, barStart, type Candle } from "../../schema/Candle.ts"
import type { ArchiveError } from "../../schema/Errors.ts"
import { tradingDayStart } from "../../schema/Tick.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { Archive } from "../../streams/ports/Archive.ts"
import type { StoredTick, TickCursor, TickQuery } from "../../streams/ports/TickStore.ts"
import type { DayObjects, Days } from "./dayObjects.ts"

/** Minutes kept of the days that were asked for last: 100 bytes each. */
const KEPT_MINUTES = 300_000
/** Ticks read at a time. */
const PAGE = 8192
/** Days whose objects are looked for together. */
const DAYS_AT_ONCE = 8
const MICROS_PER_DAY = 86_400_000_000

interface KeptDay {
  readonly day: DayObjects
  readonly minutes: ReadonlyArray<Candle>
}

export const archivedBars = (
  days: Days,
  ticks: (query: TickQuery) => Effect.Effect<ReadonlyArray<StoredTick>, ArchiveError>
): Archive["Service"]["minutes"] => {
  const kept = new Map<string, KeptDay>()
  let keptMinutes = 0

  /** A day without minutes takes room as well. */
  const weightOf = ({ minutes }: KeptDay): number => minutes.length + 4
  const drop = (key: string): void => {
    const old = kept.get(key)
    if (old === undefined) return
    kept.delete(key)
    keptMinutes -= weightOf(old)
  }
  const keep = (key: string, one: KeptDay): void => {
    drop(key)
    kept.set(key, one)
    keptMinutes += weightOf(one)
    for (const oldest of kept.keys()) {
      if (keptMinutes <= KEPT_MINUTES) break
      drop(oldest)
    }
  }

  const minutesOf = (date: string, token: number): Effect.Effect<ReadonlyArray<Candle>, ArchiveError> =>
    Effect.gen(function* () {
      const day = yield* days.of(date)
      const key = `${token} ${date}`
      const known = kept.get(key)
      if (known?.day === day) {
        keep(key, known)
        return known.minutes
      }
      const from = tradingDayStart(dayOfDate(date)!)
      const minutes: Array<Candle> = []
      let after: TickCursor | undefined
      for (;;) {
        const page: ReadonlyArray<StoredTick> = yield* ticks({
          instrument_token: token,
          from,
          to: from + MICROS_PER_DAY,
          limit: PAGE,
          ...(after === undefined ? {} : { after })
        })
        for (const { exchange_ts, price, volume } of page) {
          addToBars(minutes, barStart(exchange_ts, "1m"), {
            open: price,
            high: price,
            low: price,
            close: price,
            volume
          })
        }
        if (page.length < PAGE) break
        after = page[page.length - 1]!
      }
      // What came meanwhile is not in all of it: the next one who asks reads the day again.
      if ((yield* days.of(date)) === day) keep(key, { day, minutes })
      return minutes
    })

  return ({ instrument_token, from, to, limit }) =>
    Effect.gen(function* () {
      const found: Array<Candle> = []
      const dates = yield* days.between(from, to)
      for (const [i, date] of dates.entries()) {
        if (i % DAYS_AT_ONCE === 0) {
          yield* Effect.forEach(dates.slice(i, i + DAYS_AT_ONCE), days.of, { concurrency: "unbounded", discard: true })
        }
        for (const minute of yield* minutesOf(date, instrument_token)) {
          if (minute.ts >= from && minute.ts < to && found.length < limit) found.push(minute)
        }
        if (found.length >= limit) break
      }
      return found
    })
}
