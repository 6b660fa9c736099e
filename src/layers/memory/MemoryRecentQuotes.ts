/**
 * Decides how each instrument's latest quote is kept in one process: so many instruments, full: those silent longest go.
 */
import { Effect, Layer } from "effect"
import type { Quote } from "../../schema/Quote.ts"
import { latestOf, RecentQuotes, supersedes } from "../../streams/ports/RecentQuotes.ts"

export interface MemoryRecentQuotesOptions {
  /** Instruments at a time. */
  readonly instruments?: number
}

/** Some 1.5 kB each, with five levels a side. */
const INSTRUMENTS = 20_000

const make = ({ instruments = INSTRUMENTS }: MemoryRecentQuotesOptions): RecentQuotes["Service"] => {
  /** Those silent longest first. */
  const kept = new Map<number, Quote>()

  const put = (token: number, quote: Quote): void => {
    const there = kept.get(token)
    if (there !== undefined && !supersedes(quote, there)) return
    kept.delete(token)
    kept.set(token, quote)
    if (kept.size > instruments) kept.delete(kept.keys().next().value!)
  }

  return {
    put: (quotes) =>
      Effect.sync(() => {
        for (const [token, quote] of latestOf(quotes)) put(token, quote)
      }),
    latest: (tokens) =>
      Effect.sync(() => {
        const found = new Map<number, Quote>()
        for (const token of tokens) {
          const quote = kept.get(token)
          if (quote !== undefined) found.set(token, quote)
        }
        return found
      })
  }
}

export const layer = (options: MemoryRecentQuotesOptions = {}): Layer.Layer<RecentQuotes> =>
  Layer.sync(RecentQuotes, () => make(options))
