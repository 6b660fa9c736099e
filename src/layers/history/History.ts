/**
 * Decides where the past is read from: times that the store holds from the store, times that it has dropped from the
 * archive, as one answer. Days may be dropped meanwhile, so the store is asked from when on it holds ticks after it was
 * read, and what was read in vain is read again.
 */
import { Effect, Layer } from "effect"
import { addToBars, barStart, type Candle, type Interval, intervalMicros } from "../../schema/Candle.ts"
import { type ArchiveError, StoreError } from "../../schema/Errors.ts"
import { Archive } from "../../streams/ports/Archive.ts"
import { History, type PastTicks } from "../../streams/ports/History.ts"
import { type CandleQuery, type QuoteQuery, type TickQuery, TickStore } from "../../streams/ports/TickStore.ts"
import { withLastOi } from "./lastOi.ts"

const MICROS_PER_MINUTE = 60_000_000
/** Minutes read at a time: several days of one instrument. */
const MINUTES = 4000

/** Who reads history knows of one place that may not answer. */
const asStoreError = ({ operation, message }: ArchiveError): StoreError =>
  new StoreError({ operation: `${operation} of the archive`, message, transient: true })

const fromArchive = (archive: Archive["Service"]) => {
  const counts = (tokens: ReadonlyArray<number> | undefined, from: number, to: number) =>
    Effect.mapError(archive.counts(tokens, from, to), asStoreError)
  return {
    ticks: (query) => Effect.mapError(archive.ticks(query), asStoreError),
    quotePage: (query) => Effect.mapError(archive.quotePage(query), asStoreError),
    archivedQuotes: {
      before: Effect.succeed(Number.POSITIVE_INFINITY),
      page: (query) => Effect.mapError(archive.quotesByTime(query), asStoreError)
    },
    count: (tokens, from, to) =>
      Effect.map(counts(tokens, from, to), (found) => [...found.values()].reduce((sum, rows) => sum + rows, 0)),
    tokens: (from, to) => Effect.map(counts(undefined, from, to), (found) => [...found.keys()].sort((a, b) => a - b)),
    quoteTokens: (from, to) => Effect.mapError(archive.quoteTokens(from, to), asStoreError),
    newestDays: (limit) => Effect.mapError(archive.newestDays(limit), asStoreError)
  } satisfies PastTicks
}

export const make = (store: TickStore["Service"], archive: Archive["Service"]): History["Service"] => {
  const cold = fromArchive(archive)
  /** As it was found last: where the store will answer, it is asked first. */
  let held = Number.NEGATIVE_INFINITY

  /**
   * What is asked of times from `from` on: of the store where it holds them all, else of both with the time at which the
   * store begins; again where it has dropped more meanwhile.
   */
  const across = <A>(
    from: number,
    ofStore: Effect.Effect<A, StoreError>,
    ofBoth: (held: number) => Effect.Effect<A, StoreError>
  ): Effect.Effect<A, StoreError> =>
    Effect.gen(function* () {
      for (;;) {
        const isStores = from >= held
        const known = held
        const answer = yield* isStores ? ofStore : ofBoth(known)
        held = yield* store.held
        if (isStores ? from >= held : held === known) return answer
      }
    })

  const tokensAcross = (of: "tokens" | "quoteTokens") => (from: number, to: number) =>
    across(from, store[of](from, to), (known) =>
      Effect.zipWith(
        cold[of](from, Math.min(to, known)),
        to <= known ? Effect.succeed([]) : store[of](known, to),
        (old, kept) => [...new Set([...old, ...kept])].sort((a, b) => a - b)
      )
    )

  const ticksOfBoth = (query: TickQuery, from: number, known: number) =>
    Effect.gen(function* () {
      const old = yield* cold.ticks({ ...query, to: Math.min(query.to, known) })
      if (old.length >= query.limit || query.to <= known) return old
      const { after: _, ...rest } = query
      return [
        ...old,
        ...(yield* store.ticks({ ...rest, from: Math.max(from, known), limit: query.limit - old.length }))
      ]
    })

  const quotesOfBoth = (query: QuoteQuery, known: number) =>
    Effect.gen(function* () {
      const old = yield* cold.quotePage({ ...query, to: Math.min(query.to, known) })
      if (old.length >= query.limit || query.to <= known) return old
      const { after = Number.NEGATIVE_INFINITY, ...rest } = query
      const from = Math.max(query.from, after + 1, known)
      return [...old, ...(yield* store.quotePage({ ...rest, from, limit: query.limit - old.length }))]
    })

  /** Bars of the archive's ticks with their open interest, of which the store keeps what it was told of any day. */
  const withStoredOi = (token: number, interval: Interval, bars: ReadonlyArray<Candle>) =>
    withLastOi(store, { token, interval, start: (minute) => barStart(minute, interval) }, bars)

  const candlesOfBoth = (query: CandleQuery, start: number, known: number) =>
    Effect.gen(function* () {
      const { instrument_token, interval, to, limit } = query
      const width = intervalMicros(interval)
      const bars: Array<Candle> = []
      if (to <= start) return bars
      const end = barStart(to - 1, interval) + width
      const until = Math.min(end, known)
      let at = start
      // One bar more than asked for, so that the last one asked for is whole.
      while (at < until && bars.length <= limit) {
        const page = yield* Effect.mapError(
          archive.minutes({ instrument_token, from: at, to: until, limit: MINUTES }),
          asStoreError
        )
        for (const minute of page) addToBars(bars, barStart(minute.ts, interval), minute)
        at = page.length < MINUTES ? until : page[page.length - 1]!.ts + MICROS_PER_MINUTE
      }
      if (bars.length > limit || end <= known) {
        return yield* withStoredOi(instrument_token, interval, bars.slice(0, limit))
      }
      // The bar in whose time the store begins is of both.
      const shared = barStart(known, interval)
      if (shared < known) {
        const minutes = yield* store.candles({
          instrument_token,
          interval: "1m",
          from: known,
          to: shared + width,
          limit: width / MICROS_PER_MINUTE
        })
        for (const minute of minutes) addToBars(bars, shared, minute)
      }
      const archived = yield* withStoredOi(instrument_token, interval, bars.slice(0, limit))
      const left = limit - archived.length
      const from = shared < known ? shared + width : known
      return left > 0 && from < to
        ? [...archived, ...(yield* store.candles({ ...query, from, limit: left }))]
        : archived
    })

  return {
    ticks: (query) => {
      const from = Math.max(query.from, query.after?.exchange_ts ?? query.from)
      return across(from, store.ticks(query), (known) => ticksOfBoth(query, from, known))
    },
    quotePage: (query) =>
      across(query.after === undefined ? query.from : query.after + 1, store.quotePage(query), (known) =>
        quotesOfBoth(query, known)
      ),
    archivedQuotes: { ...cold.archivedQuotes, before: store.held },
    candles: (query) => {
      // Bars start at whole ones of their width: what lies before the first is not asked for.
      const start = barStart(query.from + intervalMicros(query.interval) - 1, query.interval)
      return across(start, store.candles(query), (known) => candlesOfBoth(query, start, known))
    },
    minuteOi: store.minuteOi,
    count: (tokens, from, to) =>
      across(from, store.count(tokens, from, to), (known) =>
        Effect.zipWith(
          cold.count(tokens, from, Math.min(to, known)),
          to <= known ? Effect.succeed(0) : store.count(tokens, known, to),
          (old, kept) => old + kept
        )
      ),
    tokens: tokensAcross("tokens"),
    quoteTokens: tokensAcross("quoteTokens"),
    newestDays: (limit) =>
      Effect.zipWith(cold.newestDays(limit), store.newestDays(limit), (old, kept) =>
        [...new Set([...old, ...kept])].sort((a, b) => b - a).slice(0, limit)
      ),
    revision: (tokens, from, to) =>
      across(from, store.revision(tokens, from, to), (known) =>
        Effect.zipWith(
          cold.count(tokens, from, Math.min(to, known)),
          // Of dropped days too: their open interest is still the store's.
          store.revision(tokens, from, to),
          // What is archived never changes, and has its place or never gets one.
          (old, kept) => `archived ${old} ${kept}`
        )
      ),
    of: (source) => (source === "store" ? store : cold),
    archive
  }
}

/** History of the store and the archive. */
export const layer: Layer.Layer<History, never, TickStore | Archive> = Layer.effect(
  History,
  Effect.gen(function* () {
    return make(yield* TickStore, yield* Archive)
  })
)

/** History of the store alone, where nothing is archived. */
export const layerOfStore: Layer.Layer<History, never, TickStore> = Layer.effect(
  History,
  Effect.map(TickStore, (store) =>
    History.of({
      ticks: store.ticks,
      quotePage: store.quotePage,
      candles: store.candles,
      minuteOi: store.minuteOi,
      count: store.count,
      tokens: store.tokens,
      quoteTokens: store.quoteTokens,
      newestDays: store.newestDays,
      revision: store.revision,
      of: (source) => (source === "store" ? store : undefined),
      archive: undefined
    })
  )
)
