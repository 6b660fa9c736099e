/**
 * Decides how one instrument's ticks or quotes are read from the archive page by page: a stretch of a day at a time, put
 * in order, of which the last ones stay for the pages that follow.
 */
import { Effect } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import type { Quote } from "../../schema/Quote.ts"
import { QUOTE_WEIGHT, type QuoteColumns, quoteAt } from "../../schema/QuoteColumns.ts"
import { compareTicks, tradingDayStart } from "../../schema/Tick.ts"
import type { StoredColumns } from "../../schema/TickColumns.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { StoredTick, TickCursor } from "../../streams/ports/TickStore.ts"
import { type DayObjects, type Days, groupsMeeting } from "./dayObjects.ts"
import { toStoredTicks } from "./parquetSchema.ts"
import type { ParquetThread } from "./parquetThread.ts"
import type { TicksWanted } from "./parquetWorker.ts"

/** Rows of a stretch: several pages, so that a row group is not decoded for each. */
const PAGES_A_STRETCH = 4
const MIN_ROWS = 1024
const MAX_ROWS = 32_768
/** Rows kept of the stretches that were read last, in ticks: 75 bytes each. */
const KEPT_ROWS = 600_000
/** Days looked at together: of most there is nothing to read. */
const DAYS_AT_ONCE = 8
const MICROS_PER_DAY = 86_400_000_000

/** Every row of an instrument in [from, through), as the day's objects were. */
interface Stretch<Columns> {
  readonly day: DayObjects
  readonly from: number
  readonly through: number
  readonly columns: Columns
}

interface RowQuery<After> {
  readonly instrument_token: number
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly after?: After
}

/** What there is to know of one kind of rows. */
interface RowKind<Columns, Row, After> {
  readonly read: (wanted: TicksWanted) => Effect.Effect<Pick<Stretch<Columns>, "columns" | "through">, ArchiveError>
  /** The rows `[from, to)`. */
  readonly rows: (columns: Columns, from: number, to: number) => ReadonlyArray<Row>
  readonly timeOf: (after: After) => number
  /** Whether a row stands at the cursor or before it. */
  readonly isPassed: (row: Row, after: After) => boolean
  /** How many ticks a row takes the room of. */
  readonly weight: number
}

const rowsIn = ({ columns }: Stretch<{ readonly exchange_ts: Float64Array }>): number => columns.exchange_ts.length

const archivedRows = <
  Columns extends { readonly exchange_ts: Float64Array },
  Row extends { readonly exchange_ts: number },
  After
>(
  days: Days,
  { read, rows: rowsOf, timeOf, isPassed, weight }: RowKind<Columns, Row, After>
) => {
  /** Empty stretches are kept as well. */
  const weightOf = (stretch: Stretch<Columns>): number => rowsIn(stretch) * weight + 16

  /** The first row that stands after the cursor, at or after a time. */
  const firstRow = (stretch: Stretch<Columns>, from: number, after: After | undefined): number => {
    let low = 0
    let high = rowsIn(stretch)
    while (low < high) {
      const middle = (low + high) >>> 1
      const [row] = rowsOf(stretch.columns, middle, middle + 1)
      const isBefore = row!.exchange_ts < from || (after !== undefined && isPassed(row!, after))
      if (isBefore) low = middle + 1
      else high = middle
    }
    return low
  }

  /** By instrument and date, those read last at the end. */
  const kept = new Map<string, ReadonlyArray<Stretch<Columns>>>()
  let keptRows = 0

  const keep = (key: string, stretches: ReadonlyArray<Stretch<Columns>>): void => {
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
        const { columns, through } = yield* read({ objects: wanted, token, from, to, rows })
        const stretch: Stretch<Columns> = { day, from, through, columns }
        // A reader goes on; another one may be a little behind.
        keep(key, [...fresh.slice(-1), stretch])
        return stretch
      })
    )

  /** Whether a day may have a row of the instrument in [from, to). */
  const mayHave = (date: string, token: number, from: number, to: number) =>
    Effect.map(days.of(date), ({ objects }) =>
      objects.some(
        ({ footer }) => groupsMeeting(footer, (low, high) => low <= token && token <= high, from, to).length > 0
      )
    )

  return (query: RowQuery<After>): Effect.Effect<ReadonlyArray<Row>, ArchiveError> =>
    Effect.gen(function* () {
      const { instrument_token: token, to, limit, after } = query
      // A cursor before the range has passed nothing of it.
      const from = Math.max(query.from, after === undefined ? query.from : timeOf(after))
      const rows = Math.min(MAX_ROWS, Math.max(MIN_ROWS, limit * PAGES_A_STRETCH))
      const dates = yield* days.between(from, to)
      const found: Array<Row> = []
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
            for (const row of rowsOf(stretch.columns, first, last)) {
              if (row.exchange_ts < end) found.push(row)
            }
            at = stretch.through
          }
          if (found.length >= limit) break
        }
      }
      return found
    })
}

export const archivedTicks = (days: Days, thread: ParquetThread) =>
  archivedRows<StoredColumns, StoredTick, TickCursor>(days, {
    read: (wanted) => thread.ask({ kind: "ticks", ...wanted }),
    rows: toStoredTicks,
    timeOf: ({ exchange_ts }) => exchange_ts,
    isPassed: (tick, after) => compareTicks(tick, after) <= 0,
    weight: 1
  })

/** Quotes `[from, to)` of columns. */
export const toQuotes = (columns: QuoteColumns, from: number, to: number): ReadonlyArray<Quote> => {
  const quotes: Array<Quote> = []
  for (let row = from; row < to; row++) quotes.push(quoteAt(columns, row))
  return quotes
}

/** Of quotes there is one an instant: the cursor is a time. */
export const archivedQuotes = (days: Days, thread: ParquetThread) =>
  archivedRows<QuoteColumns, Quote, number>(days, {
    read: ({ token, ...wanted }) =>
      thread.ask({ kind: "quotes", fromToken: token, toToken: token, tokens: undefined, ...wanted }),
    rows: toQuotes,
    timeOf: (exchange_ts) => exchange_ts,
    isPassed: ({ exchange_ts }, after) => exchange_ts <= after,
    weight: QUOTE_WEIGHT
  })
