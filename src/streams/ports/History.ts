/** Decides what is asked of the past, whatever its age: what the store holds and what the archive has as one. */
import { Context, type Effect } from "effect"
import type { StoreError } from "../../schema/Errors.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { Archive, QuotesQuery } from "./Archive.ts"
import type { TickStore } from "./TickStore.ts"

/** Ticks and quotes as whoever replays them asks for them. */
export interface PastTicks
  extends Pick<TickStore["Service"], "ticks" | "quotePage" | "count" | "tokens" | "quoteTokens" | "newestDays"> {
  /** Where an archive has some of it. */
  readonly archivedQuotes?: ArchivedQuotes
}

/** Quotes that lie one instrument after the other, where a page of one costs nearly as much as one of all. */
export interface ArchivedQuotes {
  /** Those stamped before this are the archive's, and stay so. */
  readonly before: Effect.Effect<number, StoreError>
  /** Of those: by time, then instrument; the pages of one reader name the same set. */
  readonly page: (query: QuotesQuery) => Effect.Effect<ReadonlyArray<Quote>, StoreError>
}

export class History extends Context.Service<
  History,
  PastTicks &
    Pick<TickStore["Service"], "candles" | "minuteOi" | "revision"> & {
      /** One of the two alone; undefined where there is no archive. */
      readonly of: (source: "store" | "archive") => PastTicks | undefined
      /** What the archive's own objects are; undefined where there is none. */
      readonly archive: Pick<Archive["Service"], "list" | "object"> | undefined
    }
>()("market-data-platform/streams/History") {}
