/** Decides where a client's missing ticks come from when memory does not reach back: the ring, then the store. */
import { Effect } from "effect"
import type { Place, TickFields } from "../../schema/Protocol.ts"
import { countsOver, type Quote } from "../../schema/Quote.ts"
import { tradingDay } from "../../schema/Tick.ts"
import type { RecentQuotes } from "../ports/RecentQuotes.ts"
import type { RecentTicks } from "../ports/RecentTicks.ts"
import type { MinuteOi, MinuteSum, MinutesQuery, StoredTick, TickStore } from "../ports/TickStore.ts"

const MICROS_PER_MINUTE = 60_000_000
/** Ticks asked for at a time. */
export const HISTORY_PAGE = 2_000

/** What is known of an instrument outside this memory. It does not fail: what cannot be had is not in the answer. */
export interface History {
  /** The newest ticks, ascending. */
  readonly last: (token: number, limit: number) => Promise<LastTicks>
  /** Ticks above a place, ascending. */
  readonly after: (token: number, place: Place, limit: number) => Promise<HistoryPage>
  /** Absent: bars that are not in memory are not to be had. */
  readonly bars?: StoredMinutes
  /** The newest quotes of instruments. Absent: what is not in memory is not to be had. */
  readonly quotes?: (tokens: ReadonlyArray<number>) => Promise<FoundQuotes>
}

export interface FoundQuotes {
  readonly quotes: ReadonlyMap<number, Quote>
  /** Something did not answer: of those that are not among them there may be one. */
  readonly failed: boolean
}

/** The store, as bars need it. It fails where the store does. */
export interface StoredMinutes {
  /** Up to which offset of a log the store has each partition. */
  readonly reached: (incarnation: string) => Promise<ReadonlyMap<number, number>>
  readonly minutes: (query: MinutesQuery) => Promise<ReadonlyArray<MinuteSum> | undefined>
  /** What quotes of the minutes in [from, to) said last of the open interest, those of which nothing is known left out. */
  readonly openInterest: (query: {
    readonly instrument_token: number
    readonly from: number
    readonly to: number
  }) => Promise<ReadonlyArray<MinuteOi>>
}

export const storedMinutesOf = (
  store: Pick<TickStore["Service"], "bookmarks" | "minutes" | "minuteOi">
): StoredMinutes => ({
  reached: (incarnation) =>
    Effect.runPromise(
      Effect.map(
        store.bookmarks(incarnation),
        (bookmarks) => new Map(bookmarks.map(({ partition, offset }) => [partition, offset]))
      )
    ),
  minutes: (query) => Effect.runPromise(store.minutes(query)),
  openInterest: (query) =>
    Effect.runPromise(store.minuteOi({ ...query, limit: (query.to - query.from) / MICROS_PER_MINUTE }))
})

/** Of Redis and the store either may be behind, so that neither's word is enough. What is kept near has every level. */
const isLater = (stored: Quote, near: Quote): boolean =>
  stored.exchange_ts > near.exchange_ts || (stored.exchange_ts === near.exchange_ts && countsOver(stored, near))

/** The newest quotes outside memory: the later of Redis's and the store's. It has failed where the store has. */
export const quotesFrom =
  (recent: Pick<RecentQuotes["Service"], "latest">, store: Pick<TickStore["Service"], "latestQuotes">) =>
  (tokens: ReadonlyArray<number>): Effect.Effect<FoundQuotes> =>
    Effect.gen(function* () {
      const [near, stored] = yield* Effect.all(
        [
          Effect.orElseSucceed(recent.latest(tokens), () => new Map<number, Quote>()),
          Effect.orElseSucceed(store.latestQuotes(tokens), () => undefined)
        ],
        { concurrency: 2 }
      )
      const quotes = new Map(near)
      for (const [token, quote] of stored ?? []) {
        const there = near.get(token)
        if (there === undefined || isLater(quote, there)) quotes.set(token, quote)
      }
      return { quotes, failed: stored === undefined }
    })

/** The quotes that memory holds. */
export interface QuotesInMemory {
  readonly quote: (token: number) => Quote | undefined
  /** Whether what it holds of an instrument, if only that there is none, is known to be the newest. */
  readonly hasNewestQuote: (token: number) => boolean
}

/** The newest quotes of instruments: those of memory where they are that for sure, else the later of them and those outside. */
export const knownQuotes =
  (
    memory: QuotesInMemory,
    recent: Pick<RecentQuotes["Service"], "latest">,
    store: Pick<TickStore["Service"], "latestQuotes">
  ) =>
  (tokens: ReadonlyArray<number>): Effect.Effect<FoundQuotes> =>
    Effect.suspend(() => {
      const known = new Map<number, Quote>()
      for (const token of tokens) {
        const quote = memory.quote(token)
        if (quote !== undefined) known.set(token, quote)
      }
      const rest = tokens.filter((token) => !memory.hasNewestQuote(token))
      if (rest.length === 0) return Effect.succeed({ quotes: known, failed: false })
      return Effect.map(quotesFrom(recent, store)(rest), ({ failed, quotes }) => {
        for (const [token, quote] of quotes) {
          // Looked up again: one may have come meanwhile.
          const there = memory.quote(token) ?? known.get(token)
          known.set(token, there === undefined || isLater(quote, there) ? quote : there)
        }
        return { quotes: known, failed }
      })
    })

export interface LastTicks {
  readonly ticks: ReadonlyArray<TickFields>
  /** Something did not answer: there may be more. */
  readonly failed: boolean
}

export interface HistoryPage {
  readonly ticks: ReadonlyArray<TickFields>
  /** Ask again after the last of them. */
  readonly more: boolean
  /** The place itself is known to be the newest. */
  readonly current: boolean
  /** Something did not answer. */
  readonly failed: boolean
}

/** Rows that a replay added have no place in the stream. */
const placed = (rows: ReadonlyArray<StoredTick>): ReadonlyArray<TickFields> =>
  rows.filter((row): row is StoredTick & TickFields => row.epoch !== null && row.position !== null)

/** `now` in epoch microseconds. */
export const historyOf = (
  recent: Pick<RecentTicks["Service"], "last" | "after">,
  store: Pick<TickStore["Service"], "ticksAfter">,
  now: () => number
): History => {
  const stored = (token: number, epoch: number, position: number, limit: number) =>
    store.ticksAfter(token, epoch, position, limit).pipe(
      Effect.map(placed),
      Effect.catch(() => Effect.succeed(undefined))
    )
  const last = (token: number, limit: number) =>
    recent.last(token, limit).pipe(
      Effect.map((ticks): LastTicks => ({ ticks, failed: false })),
      Effect.catch(() => Effect.succeed<LastTicks>({ ticks: [], failed: true }))
    )

  return {
    last: (token, limit) => Effect.runPromise(last(token, limit)),
    after: (token, place, limit) =>
      Effect.runPromise(
        Effect.gen(function* () {
          const { epoch, position } = place
          const ring = yield* recent
            .after(token, epoch, position)
            .pipe(Effect.catch(() => Effect.succeed({ ticks: [], complete: false })))
          if (ring.complete) {
            const newest = ring.ticks.length > 0 ? undefined : (yield* last(token, 1)).ticks[0]
            const current = newest?.epoch === epoch && newest.position === position
            return { ticks: ring.ticks, more: false, current, failed: false }
          }
          let rows = yield* stored(token, epoch, position, limit)
          let failed = rows === undefined
          // The store answers for one trading day: what the client missed may begin on a later one.
          const today = tradingDay(now())
          for (let day = Math.floor(epoch / 1_000_000_000) + 1; !rows?.length && day <= today; day++) {
            rows = yield* stored(token, day * 1_000_000_000, 0, limit)
            failed ||= rows === undefined
          }
          if (rows !== undefined && rows.length > 0) return { ticks: rows, more: true, current: false, failed }
          return { ticks: ring.ticks, more: false, current: false, failed }
        })
      )
  }
}
