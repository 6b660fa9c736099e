/**
 * Decides how one instrument's minutes are made of the archive's ticks, with the open interest of its quotes, and which
 * of them are kept for who asks again.
 */
import { Effect } from "effect"
import { addToBars, barStart, type Candle, withOi } from "../../schema/Candle.ts"
import type { ArchiveError } from "../../schema/Errors.ts"
import { tradingDayStart } from "../../schema/Tick.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { Archive } from "../../streams/ports/Archive.ts"
import type { StoredTick, TickCursor, TickQuery } from "../../streams/ports/TickStore.ts"
import { type DayObjects, type Days, groupsMeeting } from "./dayObjects.ts"
import type { ParquetThread } from "./parquetThread.ts"

/** Minutes kept of the days that were asked for last: 100 bytes each. */
const KEPT_MINUTES = 300_000
/** Ticks read at a time. */
const PAGE = 8192
/** Quotes read at a time, of which there is no more than the open interest. */
const QUOTES = 65_536
/** Days whose objects are looked for together. */
const DAYS_AT_ONCE = 8
const MICROS_PER_DAY = 86_400_000_000

interface KeptDay {
  readonly day: DayObjects
  readonly quotes: DayObjects
  readonly minutes: ReadonlyArray<Candle>
}

export const archivedBars = (
  days: Days,
  quoteDays: Days,
  thread: ParquetThread,
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

  /** The last open interest that was told in each minute of a day, as the day's objects are. */
  const oiOf = ({ objects }: DayObjects, token: number, start: number) =>
    Effect.gen(function* () {
      const end = start + MICROS_PER_DAY
      const oi = new Map<number, number>()
      for (let from = start; from < end; ) {
        const met = objects
          .map(({ source, footer }) => ({
            source,
            groups: groupsMeeting(footer, (low, high) => low <= token && token <= high, from, end)
          }))
          .filter(({ groups }) => groups.length > 0)
        if (met.length === 0) break
        const wanted = { objects: met, fromToken: token, toToken: token, tokens: undefined, from, to: end }
        const { columns, through } = yield* thread.ask({ kind: "oi", ...wanted, rows: QUOTES })
        for (const [row, ts] of columns.exchange_ts.entries()) oi.set(barStart(ts, "1m"), columns.oi[row]!)
        from = through
      }
      return oi
    })

  const minutesOf = (date: string, token: number): Effect.Effect<ReadonlyArray<Candle>, ArchiveError> =>
    Effect.gen(function* () {
      const day = yield* days.of(date)
      const quotes = yield* quoteDays.of(date)
      const key = `${token} ${date}`
      const known = kept.get(key)
      if (known?.day === day && known.quotes === quotes) {
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
      const oi = yield* quoteDays.reading(
        date,
        Effect.flatMap(quoteDays.of(date), (of) => oiOf(of, token, from))
      )
      const told = oi.size === 0 ? minutes : minutes.map((minute) => withOi(minute, oi.get(minute.ts)))
      // What came meanwhile is not in all of it: the next one who asks reads the day again.
      const isSame = (yield* days.of(date)) === day && (yield* quoteDays.of(date)) === quotes
      if (isSame) keep(key, { day, quotes, minutes: told })
      return told
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
