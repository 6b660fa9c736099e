/** Decides what the platform needs of whoever keeps each instrument's latest quote, for clients that come. */
import { Context, type Effect } from "effect"
import type { CacheError } from "../../schema/Errors.ts"
import { compareQuotes, type Quote } from "../../schema/Quote.ts"

export class RecentQuotes extends Context.Service<
  RecentQuotes,
  {
    /** Takes live quotes in any order; of each instrument only the later one stays. */
    readonly put: (quotes: ReadonlyArray<Quote>) => Effect.Effect<void, CacheError>
    /** The latest quote of each instrument that has one. */
    readonly latest: (tokens: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, Quote>, CacheError>
  }
>()("market-data-platform/streams/RecentQuotes") {}

/**
 * Whether a quote that comes takes the place of one that is there: the later stamp does, of one stamp the higher source;
 * sources of two incarnations do not compare, so there it is the one that comes.
 */
export const supersedes = (quote: Quote, there: Quote): boolean =>
  (quote.exchange_ts === there.exchange_ts && quote.source[0] !== there.source[0]) || compareQuotes(quote, there) > 0

/** The latest of each instrument among live quotes; those of old days are left out. */
export const latestOf = (quotes: ReadonlyArray<Quote>): ReadonlyMap<number, Quote> => {
  const latest = new Map<number, Quote>()
  for (const quote of quotes) {
    if (quote.old) continue
    const there = latest.get(quote.instrument_token)
    if (there === undefined || supersedes(quote, there)) latest.set(quote.instrument_token, quote)
  }
  return latest
}
