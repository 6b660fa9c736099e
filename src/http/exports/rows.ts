/**
 * Decides in which order and how gently rows are read for an export: all instruments merged as a replay has them, by
 * keyset, in pages that together stay small however many instruments there are.
 */
import { Effect, Semaphore, type Stream } from "effect"
import { type Interval, intervalMicros } from "../../schema/Candle.ts"
import type { StoreError } from "../../schema/Errors.ts"
import type { Segment } from "../../schema/Sessions.ts"
import type { BarRow } from "../../schema/tables.ts"
import type { History } from "../../streams/ports/History.ts"
import type { StoredTick, TickCursor } from "../../streams/ports/TickStore.ts"
import { merge, type PageReader } from "../../streams/replay/merge.ts"
import { storedTicks } from "../../streams/replay/replay.ts"
import { bars, knowsHours } from "../bars.ts"

/** Rows that are read, and written, at a time: some 250 KB of text. */
const PAGE_ROWS = 1000
/** Rows that all pages of an export hold together: with many instruments the pages are smaller. */
const PAGES_ROWS = 300_000
const MIN_PAGE_ROWS = 20
/** Of all exports together, pages read at a time: more are no faster, and live ticks wait for them. */
const PAGES = 2

const pageRows = (instruments: number): number =>
  Math.min(PAGE_ROWS, Math.max(MIN_PAGE_ROWS, Math.floor(PAGES_ROWS / (2 * Math.max(1, instruments)))))

type Readable = Pick<History["Service"], "ticks" | "candles" | "minuteOi">

/** History as exports read it: a few pages at a time of all of them. */
export const gently = (store: History["Service"]): Effect.Effect<History["Service"]> =>
  Effect.map(Semaphore.make(PAGES), (pages) => ({
    ...store,
    ticks: (query) => pages.withPermits(1)(store.ticks(query)),
    minuteOi: (query) => pages.withPermits(1)(store.minuteOi(query)),
    candles: (query) => pages.withPermits(1)(store.candles(query)),
    revision: (tokens, from, to) => pages.withPermits(1)(store.revision(tokens, from, to))
  }))

export interface Span {
  readonly tokens: ReadonlyArray<number>
  readonly from: number
  readonly to: number
}

/** Ticks in the order of a replay; after a place where one instrument's stream goes on. */
export const tickRows = (
  store: Readable,
  { tokens, from, to }: Span,
  start?: TickCursor
): Stream.Stream<StoredTick, StoreError> => {
  const ticks: Readable["ticks"] =
    start === undefined
      ? store.ticks
      : (query) => store.ticks(query.after === undefined ? { ...query, after: start } : query)
  return storedTicks({ ticks }, { tokens, from, to, arraySize: PAGE_ROWS, rows: pageRows(tokens.length) })
}

export interface BarsAsked extends Span {
  readonly interval: Interval
  readonly fill: "none" | "previous"
  readonly session: "all" | "regular"
  readonly segment: (token: number) => Segment | undefined
  readonly now: number
}

/** Bars by start, then by instrument. */
export const barRows = (store: Readable, asked: BarsAsked): Stream.Stream<BarRow, StoreError> => {
  const { tokens, from, to, interval, fill, session, now } = asked
  const limit = pageRows(tokens.length)
  const width = intervalMicros(interval)
  const readerOf = (token: number): PageReader<BarRow, StoreError> => {
    const segment = asked.segment(token)
    return {
      pageSize: limit,
      page: (after) =>
        bars(store, {
          token,
          segment,
          interval,
          from: after === undefined ? from : after.ts + width,
          to,
          limit,
          fill,
          session,
          now
        }).pipe(
          Effect.map((page) =>
            page.bars.map((bar) => ({
              ...bar,
              instrument_token: token,
              known: segment !== undefined && knowsHours(segment, bar.ts, interval)
            }))
          )
        )
    }
  }
  return merge(tokens.map(readerOf), {
    order: (a, b) => a.ts - b.ts || a.instrument_token - b.instrument_token,
    arraySize: PAGE_ROWS,
    concurrency: PAGES
  })
}
