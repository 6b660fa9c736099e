/**
 * Decides how one instrument's ticks are read from the archive page by page: a stretch of a day at a time, put in order,
 * of which the last ones stay for the pages that follow.
 */
import { Effect } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import { compareTicks, tradingDayStart } from "../../schema/Tick.ts"
import type { StoredColumns } from "../../schema/TickColumns.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { StoredTick, TickCursor, TickQuery } from "../../streams/ports/TickStore.ts"
import { type DayObjects, type Days, groupsMeeting } from "./dayObjects.ts"
import { toStoredTicks } from "./parquetSchema.ts"
import type { ParquetThread } from "./parquetThread.ts"

/** Rows of a stretch: several pages, so that a row group is not decoded for each. */
const PAGES_A_STRETCH = 4
const MIN_ROWS = 1024
const MAX_ROWS = 32_768
/** Rows kept of the stretches that were read last: 75 bytes each. */
const KEPT_ROWS = 600_000
/** Days looked at together: of most there is nothing to read. */
const DAYS_AT_ONCE = 8
const MICROS_PER_DAY = 86_400_000_000

/** Every row of an instrument in [from, through), as the day's objects were. */
interface Stretch {
  readonly day: DayObjects
  readonly from: number
  readonly through: number
  readonly columns: StoredColumns
}

const rowsIn = ({ columns }: Stretch): number => columns.price.length

/** Empty stretches are kept as well. */
const weightOf = (stretch: Stretch): number => rowsIn(stretch) + 16

/** The first row that stands after the cursor, at or after a time. */
const firstRow = (stretch: Stretch, from: number, after: TickCursor | undefined): number => {
  const { columns } = stretch
  let low = 0
  let high = rowsIn(stretch)
  while (low < high) {
    const middle = (low + high) >>> 1
    const [tick] = toStoredTicks(columns, middle, middle + 1)
    const isBefore = tick!.exchange_ts < from || (after !== undefined && compareTicks(tick!, after) <= 0)
    if (isBefore) low = middle + 1
    else high = middle
  }
  return low
}

export const archivedTicks = (days: Days, thread: ParquetThread) => {
  /** By instrument and date, those read last at the end. */
  const kept = new Map<string, ReadonlyArray<Stretch>>()
  let keptRows = 0

  const keep = (key: string, stretches: ReadonlyArray<Stretch>): void => {
    for (const old of kept.get(key) ?? []) keptRows -= weightOf(old)
    kept.delete(key)
    if (stretches.length === 0) return
    kept.set(key, stretches)
    for (const one of stretches) keptRows += weightOf(one)
    for (const [oldest, of] of kept) {
      if (keptRows <= KEPT_ROWS) break
      kept.delete(oldest)
      for (const one of of) keptRows -= weightOf(one)
    }
  }

  const stretchAt = (date: string, token: number, from: number, to: number, rows: number) =>
    days.reading(
      date,
      Effect.gen(function* () {
        const day = yield* days.of(date)
        const key = `${token} ${date}`
        const fresh = (kept.get(key) ?? []).filter((stretch) => stretch.day === day)
        const known = fresh.find((stretch) => stretch.from <= from && from < stretch.through)
        if (known !== undefined) {
          keep(key, fresh)
          return known
        }
        const met = day.objects
          .map(({ source, footer }) => ({
            source,
            groups: groupsMeeting(footer, (low, high) => low <= token && token <= high, from, to),
            footer
          }))
          .filter(({ groups }) => groups.length > 0)
        const wanted = met.map(({ source, groups }) => ({ source, groups }))
        const { columns, through } = yield* thread.ask({ kind: "ticks", objects: wanted, token, from, to, rows })
        const stretch: Stretch = { day, from, through, columns }
        // A reader goes on; another one may be a little behind.
        keep(key, [...fresh.slice(-1), stretch])
        return stretch
      })
    )

  /** Whether a day may have a tick of the instrument in [from, to). */
  const mayHave = (date: string, token: number, from: number, to: number) =>
    Effect.map(days.of(date), ({ objects }) =>
      objects.some(
        ({ footer }) => groupsMeeting(footer, (low, high) => low <= token && token <= high, from, to).length > 0
      )
    )

  return (query: TickQuery): Effect.Effect<ReadonlyArray<StoredTick>, ArchiveError> =>
    Effect.gen(function* () {
      const { instrument_token: token, to, limit, after } = query
      // A cursor before the range has passed nothing of it.
      const from = Math.max(query.from, after?.exchange_ts ?? query.from)
      const rows = Math.min(MAX_ROWS, Math.max(MIN_ROWS, limit * PAGES_A_STRETCH))
      const dates = yield* days.between(from, to)
      const found: Array<StoredTick> = []
      for (let i = 0; i < dates.length && found.length < limit; i += DAYS_AT_ONCE) {
        const some = dates.slice(i, i + DAYS_AT_ONCE)
        const has = yield* Effect.forEach(some, (date) => mayHave(date, token, from, to), {
          concurrency: "unbounded"
        })
        for (const date of some.filter((_, n) => has[n])) {
          const start = tradingDayStart(dayOfDate(date)!)
          const end = Math.min(to, start + MICROS_PER_DAY)
          let at = Math.max(from, start)
          while (at < end && found.length < limit) {
            const stretch = yield* stretchAt(date, token, at, end, rows)
            const first = firstRow(stretch, at, after)
            const last = Math.min(rowsIn(stretch), first + limit - found.length)
            for (const tick of toStoredTicks(stretch.columns, first, last)) {
              if (tick.exchange_ts < end) found.push(tick)
            }
            at = stretch.through
          }
          if (found.length >= limit) break
        }
      }
      return found
    })
}
