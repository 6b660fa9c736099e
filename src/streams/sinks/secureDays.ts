/**
 * Decides whether the archive holds all that the store has of some time, ticks and quotes, by reading it back: what it
 * lacks, as rows that a replay added or that were never archived before a kill, is handed to it first, and looked for again.
 */
import { Effect } from "effect"
import { countsOver, type Quote } from "../../schema/Quote.ts"
import { QUOTE_WEIGHT, toQuoteColumns } from "../../schema/QuoteColumns.ts"
import { type Tick, tradingDate, tradingDay } from "../../schema/Tick.ts"
import { toColumns } from "../../schema/TickColumns.ts"
import { Archive } from "../ports/Archive.ts"
import { type StoredTick, type TickCursor, TickStore } from "../ports/TickStore.ts"
import { crashPoint } from "../run/crashPoint.ts"
import { retrySink } from "../run/sinkRetry.ts"

/** Rows compared at a time: live ticks wait for no more. */
const PAGE = 2000
/** Rows handed over at a time. */
const HANDED = 50_000

/** A row of the store as the archive takes it: of the log that it came from nothing is known any more. */
const asTick = (row: StoredTick): Tick => ({
  ...row,
  epoch: row.epoch ?? Number.NaN,
  position: row.position ?? Number.NaN,
  gap_from: 0,
  source: ["store", 0, 0],
  old: false
})

const keyOf = ({ exchange_ts, sequence_id }: StoredTick): string => `${exchange_ts} ${sequence_id}`

/** The trading dates of [from, to). */
const datesOf = (from: number, to: number): ReadonlyArray<string> =>
  Array.from({ length: tradingDay(to - 1) - tradingDay(from) + 1 }, (_, i) => tradingDate(tradingDay(from) + i))

/** Why days of [from, to) must not be dropped; undefined where the archive holds all of them. */
export const secureDays = (from: number, to: number) =>
  Effect.gen(function* () {
    const store = yield* TickStore
    const archive = yield* Archive
    const ask = retrySink("old days", { isLong: true })

    const keysBetween = Effect.fnUntraced(function* (token: number, first: number, last: number) {
      const keys = new Set<string>()
      let after: TickCursor | undefined
      for (;;) {
        const page: ReadonlyArray<StoredTick> = yield* ask(
          archive.ticks({
            instrument_token: token,
            from: first,
            to: last + 1,
            limit: PAGE,
            ...(after === undefined ? {} : { after })
          })
        )
        for (const tick of page) keys.add(keyOf(tick))
        if (page.length < PAGE) return keys
        after = page[page.length - 1]!
      }
    })

    /** Hands every row of an instrument that the archive lacks to `lacking`. */
    const compare = Effect.fnUntraced(function* <E, R>(
      token: number,
      lacking: (rows: ReadonlyArray<StoredTick>) => Effect.Effect<void, E, R>
    ) {
      let after: TickCursor | undefined
      for (;;) {
        const page: ReadonlyArray<StoredTick> = yield* ask(
          store.ticks({ instrument_token: token, from, to, limit: PAGE, ...(after === undefined ? {} : { after }) })
        )
        if (page.length > 0) {
          const keys = yield* keysBetween(token, page[0]!.exchange_ts, page[page.length - 1]!.exchange_ts)
          const rows = page.filter((row) => !keys.has(keyOf(row)))
          if (rows.length > 0) yield* lacking(rows)
          yield* Effect.yieldNow
        }
        if (page.length < PAGE) return
        after = page[page.length - 1]!
      }
    })

    const archivedQuotes = Effect.fnUntraced(function* (token: number, first: number, last: number) {
      const found = new Map<number, Quote>()
      let after: number | undefined
      for (;;) {
        const range = { instrument_token: token, from: first, to: last + 1, limit: PAGE }
        const page: ReadonlyArray<Quote> = yield* ask(
          archive.quotePage({ ...range, ...(after === undefined ? {} : { after }) })
        )
        for (const quote of page) found.set(quote.exchange_ts, quote)
        if (page.length < PAGE) return found
        after = page[page.length - 1]!.exchange_ts
      }
    })

    /** Hands every quote of an instrument that the archive lacks, or of whose instant it has an earlier one, to `lacking`. */
    const compareQuotes = Effect.fnUntraced(function* <E, R>(
      token: number,
      lacking: (quotes: ReadonlyArray<Quote>) => Effect.Effect<void, E, R>
    ) {
      let after: number | undefined
      for (;;) {
        const page: ReadonlyArray<Quote> = yield* ask(
          store.quotePage({ instrument_token: token, from, to, limit: PAGE, ...(after === undefined ? {} : { after }) })
        )
        if (page.length > 0) {
          const found = yield* archivedQuotes(token, page[0]!.exchange_ts, page[page.length - 1]!.exchange_ts)
          const quotes = page.filter((quote) => {
            const there = found.get(quote.exchange_ts)
            return there === undefined || countsOver(quote, there)
          })
          if (quotes.length > 0) yield* lacking(quotes)
          yield* Effect.yieldNow
        }
        if (page.length < PAGE) return
        after = page[page.length - 1]!.exchange_ts
      }
    })

    let waiting: Array<StoredTick> = []
    let waitingQuotes: Array<Quote> = []
    let handed = 0
    let handedQuotes = 0
    const handOver = Effect.gen(function* () {
      if (waiting.length + waitingQuotes.length === 0) return
      const [rows, quotes] = [waiting, waitingQuotes]
      waiting = []
      waitingQuotes = []
      yield* ask(archive.add(toColumns(rows.map(asTick)), toQuoteColumns(quotes)))
      crashPoint("after-handed-over")
      handed += rows.length
      handedQuotes += quotes.length
    })
    const handOverWhenMany = Effect.suspend(() =>
      waiting.length + waitingQuotes.length * QUOTE_WEIGHT >= HANDED ? handOver : Effect.void
    )
    const lacked = new Set<number>()
    for (const token of yield* ask(store.tokens(from, to))) {
      yield* compare(token, (rows) => {
        lacked.add(token)
        waiting.push(...rows)
        return handOverWhenMany
      })
    }
    const lackedQuotes = new Set<number>()
    for (const token of yield* ask(store.quoteTokens(from, to))) {
      yield* compareQuotes(token, (quotes) => {
        lackedQuotes.add(token)
        waitingQuotes.push(...quotes)
        return handOverWhenMany
      })
    }
    yield* handOver
    for (const [what, count] of [
      ["ticks", handed],
      ["quotes", handedQuotes]
    ] as const) {
      if (count === 0) continue
      yield* Effect.logInfo(
        `archive: ${count} ${what} that only the store had were handed to it, before their day is dropped`
      )
    }
    let missing = 0
    let missingQuotes = 0
    for (const token of lacked) {
      yield* compare(token, (rows) =>
        Effect.sync(() => {
          missing += rows.length
        })
      )
    }
    for (const token of lackedQuotes) {
      yield* compareQuotes(token, (quotes) =>
        Effect.sync(() => {
          missingQuotes += quotes.length
        })
      )
    }
    for (const date of datesOf(from, to)) {
      const [corrupt] = (yield* ask(archive.list(date))).unreadable
      if (corrupt !== undefined)
        return `the archive's object ${corrupt.kind === "ticks" ? "" : `${corrupt.kind}/`}${corrupt.name} of ${date} cannot be read: ${corrupt.reason}`
    }
    crashPoint("after-read-back")
    if (missing > 0) return `the archive does not give back ${missing} ticks that it was handed`
    return missingQuotes > 0 ? `the archive does not give back ${missingQuotes} quotes that it was handed` : undefined
  })
