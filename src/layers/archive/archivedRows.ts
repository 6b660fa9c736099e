/**
 * Decides how one instrument's ticks or quotes, or the quotes of many by time, are read from the archive page by page: a
 * stretch of a day at a time, put in order, of which the last ones stay for the pages that follow.
 */
import { Effect } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import type { Quote } from "../../schema/Quote.ts"
import { QUOTE_WEIGHT, type QuoteColumns, quoteAt } from "../../schema/QuoteColumns.ts"
import { compareTicks, tradingDayStart } from "../../schema/Tick.ts"
import type { StoredColumns } from "../../schema/TickColumns.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { Archive, QuotesQuery } from "../../streams/ports/Archive.ts"
import type { StoredTick, TickCursor } from "../../streams/ports/TickStore.ts"
import { type DayObjects, type Days, groupsMeeting } from "./dayObjects.ts"
import { lowerBound } from "./lowerBound.ts"
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

/** Every row of some instruments in [from, through), as the day's objects were. */
interface Stretch<Columns> {
  readonly day: DayObjects
  readonly from: number
  readonly through: number
  readonly columns: Columns
}

/** Whose rows are asked for. */
interface Whose {
  /** The same for those who ask for the same. */
  readonly key: number
  /** Ascending. */
  readonly tokens: ArrayLike<number>
  readonly set: ReadonlySet<number> | undefined
}

interface RowQuery<After> {
  readonly whose: Whose
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly after?: After
}

type Stretched = Omit<TicksWanted, "token">

/** What there is to know of one kind of rows. */
interface RowKind<Columns, Row, After> {
  readonly read: (
    whose: Whose,
    wanted: Stretched
  ) => Effect.Effect<Pick<Stretch<Columns>, "columns" | "through">, ArchiveError>
  /** The rows `[from, to)`. */
  readonly rows: (columns: Columns, from: number, to: number) => ReadonlyArray<Row>
  readonly timeOf: (after: After) => number
  /** Whether a row stands at the cursor or before it. */
  readonly isPassed: (row: Row, after: After) => boolean
  /** How many ticks a row takes the room of. */
  readonly weight: number
}

/** Whether there may be rows of theirs among those of a lowest and a highest token. */
const isMet =
  ({ tokens }: Whose) =>
  (low: number, high: number): boolean => {
    const at = lowerBound(tokens, low)
    return at < tokens.length && tokens[at]! <= high
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

  /** By whose they are and date, those read last at the end. */
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

  const stretchAt = (date: string, whose: Whose, from: number, to: number, rows: number) =>
    days.reading(
      date,
      Effect.gen(function* () {
        const day = yield* days.of(date)
        const key = `${whose.key} ${date}`
        const fresh = (kept.get(key) ?? []).filter((stretch) => stretch.day === day)
        const known = fresh.find((stretch) => stretch.from <= from && from < stretch.through)
        if (known !== undefined) {
          keep(key, fresh)
          return known
        }
        const met = day.objects
          .map(({ source, footer }) => ({
            source,
            groups: groupsMeeting(footer, isMet(whose), from, to)
          }))
          .filter(({ groups }) => groups.length > 0)
        const { columns, through } = yield* read(whose, { objects: met, from, to, rows })
        const stretch: Stretch<Columns> = { day, from, through, columns }
        // A reader goes on; another one may be a little behind.
        keep(key, [...fresh.slice(-1), stretch])
        return stretch
      })
    )

  /** Whether a day may have a row of theirs in [from, to). */
  const mayHave = (date: string, whose: Whose, from: number, to: number) =>
    Effect.map(days.of(date), ({ objects }) =>
      objects.some(({ footer }) => groupsMeeting(footer, isMet(whose), from, to).length > 0)
    )

  return (query: RowQuery<After>): Effect.Effect<ReadonlyArray<Row>, ArchiveError> =>
    Effect.gen(function* () {
      const { whose, to, limit, after } = query
      // A cursor before the range has passed nothing of it.
      const from = Math.max(query.from, after === undefined ? query.from : timeOf(after))
      const rows = Math.min(MAX_ROWS, Math.max(MIN_ROWS, limit * PAGES_A_STRETCH))
      const dates = yield* days.between(from, to)
      const found: Array<Row> = []
      for (let i = 0; i < dates.length && found.length < limit; i += DAYS_AT_ONCE) {
        const some = dates.slice(i, i + DAYS_AT_ONCE)
        const has = yield* Effect.forEach(some, (date) => mayHave(date, whose, from, to), {
          concurrency: "unbounded"
        })
        for (const date of some.filter((_, n) => has[n])) {
          const start = tradingDayStart(dayOfDate(date)!)
          const end = Math.min(to, start + MICROS_PER_DAY)
          let at = Math.max(from, start)
          while (at < end && found.length < limit) {
            const stretch = yield* stretchAt(date, whose, at, end, rows)
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

/** One instrument's pages. */
const ofOne =
  <After, Row>(page: (query: RowQuery<After>) => Effect.Effect<ReadonlyArray<Row>, ArchiveError>) =>
  ({ instrument_token: token, ...query }: Omit<RowQuery<After>, "whose"> & { readonly instrument_token: number }) =>
    page({ whose: { key: token, tokens: [token], set: undefined }, ...query })

export const archivedTicks = (days: Days, thread: ParquetThread) =>
  ofOne<TickCursor, StoredTick>(
    archivedRows<StoredColumns, StoredTick, TickCursor>(days, {
      read: ({ tokens }, wanted) => thread.ask({ kind: "ticks", token: tokens[0]!, ...wanted }),
      rows: toStoredTicks,
      timeOf: ({ exchange_ts }) => exchange_ts,
      isPassed: (tick, after) => compareTicks(tick, after) <= 0,
      weight: 1
    })
  )

/** Quotes `[from, to)` of columns. */
export const toQuotes = (columns: QuoteColumns, from: number, to: number): ReadonlyArray<Quote> => {
  const quotes: Array<Quote> = []
  for (let row = from; row < to; row++) quotes.push(quoteAt(columns, row))
  return quotes
}

const quoteRows = (thread: ParquetThread) => ({
  read: ({ tokens, set }: Whose, wanted: Stretched) =>
    thread.ask({
      kind: "quotes",
      fromToken: tokens[0]!,
      toToken: tokens[tokens.length - 1]!,
      tokens: set,
      ...wanted
    }),
  rows: toQuotes,
  weight: QUOTE_WEIGHT
})

/** Of quotes there is one an instant: the cursor is a time. */
export const archivedQuotes = (days: Days, thread: ParquetThread) =>
  ofOne<number, Quote>(
    archivedRows<QuoteColumns, Quote, number>(days, {
      ...quoteRows(thread),
      timeOf: (exchange_ts) => exchange_ts,
      isPassed: ({ exchange_ts }, after) => exchange_ts <= after
    })
  )

/** Row groups hold one instrument after the other: whoever reads many at once decodes each group for all of them. */
export const archivedQuotesByTime = (days: Days, thread: ParquetThread): Archive["Service"]["quotesByTime"] => {
  const page = archivedRows<QuoteColumns, Quote, NonNullable<QuotesQuery["after"]>>(days, {
    ...quoteRows(thread),
    timeOf: ({ exchange_ts }) => exchange_ts,
    isPassed: (quote, after) =>
      quote.exchange_ts < after.exchange_ts ||
      (quote.exchange_ts === after.exchange_ts && quote.instrument_token <= after.instrument_token)
  })
  const known = new WeakMap<ReadonlySet<number>, Whose>()
  let keys = 0
  return ({ tokens: set, ...query }) => {
    if (set.size === 0) return Effect.succeed([])
    let whose = known.get(set)
    if (whose === undefined) {
      keys += 1
      whose = { key: keys, tokens: Float64Array.from(set).sort(), set }
      known.set(set, whose)
    }
    return page({ whose, ...query })
  }
}
