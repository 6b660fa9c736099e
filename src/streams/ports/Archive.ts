/** Decides what the platform needs of the cold archive: whole ranges of a partition kept once, days read back. */
import { Context, Effect, Stream } from "effect"
import type { Candle } from "../../schema/Candle.ts"
import type { ArchiveError, RangeTaken } from "../../schema/Errors.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { QuoteColumns } from "../../schema/QuoteColumns.ts"
import type { TickColumns } from "../../schema/TickColumns.ts"
import type { CandleQuery, QuoteQuery, StoredTick, TickQuery } from "./TickStore.ts"

/** A range of one `normalized_ticks` partition, both ends included. */
export interface ArchiveRange {
  readonly incarnation: string
  readonly partition: number
  readonly first: number
  readonly last: number
}

/** What an object holds. */
export const ARCHIVED_KINDS = ["ticks", "quotes"] as const
export type ArchivedKind = (typeof ARCHIVED_KINDS)[number]

/**
 * Each tick of the day that is archived is in one of the objects of ticks, once. A quote may be in several objects; of
 * those of one instrument and instant the later counts.
 */
export interface ArchivedObjects {
  readonly objects: ReadonlyArray<{
    readonly kind: ArchivedKind
    readonly name: string
    readonly bytes: number
    readonly rows: number
  }>
  readonly unreadable: ReadonlyArray<{ readonly kind: ArchivedKind; readonly name: string; readonly reason: string }>
}

export interface ArchivedObject {
  readonly bytes: number
  /** The bytes [from, to), piece by piece as they are asked for. */
  readonly read: (from: number, to: number) => Stream.Stream<Uint8Array, ArchiveError>
}

/** Quotes of some instruments stamped in [from, to), after that one of an instrument. */
export interface QuotesQuery {
  readonly tokens: ReadonlySet<number>
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly after?: Pick<Quote, "exchange_ts" | "instrument_token">
}

export class Archive extends Context.Service<
  Archive,
  {
    /**
     * Whether a range that starts here was begun before: its last offset, which the writer must then complete rather
     * than choose its own.
     */
    readonly begun: (
      incarnation: string,
      partition: number,
      first: number
    ) => Effect.Effect<ArchiveRange | undefined, ArchiveError>
    /**
     * Writes the range, one object of ticks and one of quotes a trading day that has any, and answers how many ticks it
     * left out: those that the archive has under their primary key already, of whatever incarnation of the topic, so that
     * each has one place in it. Asking again with the same range, ticks and quotes changes nothing. Where another writer
     * has begun one at the same offset that ends elsewhere, nothing is written: that one is to be completed.
     */
    readonly write: (
      range: ArchiveRange,
      ticks: TickColumns,
      quotes: QuoteColumns
    ) => Effect.Effect<number, ArchiveError | RangeTaken>
    /** Takes what comes from elsewhere than the log; ticks that it has under their primary key it leaves out. */
    readonly add: (ticks: TickColumns, quotes: QuoteColumns) => Effect.Effect<void, ArchiveError>
    /**
     * Joins small objects of the trading days before a date; answers how many. Asking again changes nothing that a reader
     * sees, wherever it was left off.
     */
    readonly compact: (before: string) => Effect.Effect<number, ArchiveError>
    /** The ticks of a trading day (`YYYY-MM-DD`), of some instruments or all, one row a primary key, unordered. */
    readonly read: (
      date: string,
      tokens: ReadonlyArray<number> | undefined
    ) => Stream.Stream<ReadonlyArray<StoredTick>, ArchiveError>
    /** The quotes of a trading day, of some instruments or all, one an instrument and instant, unordered. */
    readonly quotes: (
      date: string,
      tokens: ReadonlyArray<number> | undefined
    ) => Stream.Stream<ReadonlyArray<Quote>, ArchiveError>
    /** A page of one instrument's quotes, ascending. */
    readonly quotePage: (query: QuoteQuery) => Effect.Effect<ReadonlyArray<Quote>, ArchiveError>
    /** A page of the quotes of some instruments, by time, then instrument; the pages of one reader name the same set. */
    readonly quotesByTime: (query: QuotesQuery) => Effect.Effect<ReadonlyArray<Quote>, ArchiveError>
    /** Every token that has quotes in [from, to), ascending. */
    readonly quoteTokens: (from: number, to: number) => Effect.Effect<ReadonlyArray<number>, ArchiveError>
    /** A page of one instrument's ticks, ascending by `compareTicks`, one row a primary key. */
    readonly ticks: (query: TickQuery) => Effect.Effect<ReadonlyArray<StoredTick>, ArchiveError>
    /** One-minute bars of one instrument, ascending: those of its ticks, with the last open interest that its quotes told in them, at any moment. */
    readonly minutes: (query: Omit<CandleQuery, "interval">) => Effect.Effect<ReadonlyArray<Candle>, ArchiveError>
    /** How many ticks there are in [from, to) of some instruments or all, by those that have any. */
    readonly counts: (
      tokens: ReadonlyArray<number> | undefined,
      from: number,
      to: number
    ) => Effect.Effect<ReadonlyMap<number, number>, ArchiveError>
    /** The newest trading days (since 1970), at most so many, of which it has objects, descending. */
    readonly newestDays: (limit: number) => Effect.Effect<ReadonlyArray<number>, ArchiveError>
    /** The objects of a trading day that are to be read, and those that cannot be. */
    readonly list: (date: string) => Effect.Effect<ArchivedObjects, ArchiveError>
    /** One object of a trading day by its kind and name; undefined where there is none. */
    readonly object: (
      kind: ArchivedKind,
      date: string,
      name: string
    ) => Effect.Effect<ArchivedObject | undefined, ArchiveError>
  }
>()("market-data-platform/streams/Archive") {}

const refused = Effect.die("nothing is archived")
/** Where nothing is archived: nobody asks it. */
export const noArchive: Archive["Service"] = {
  begun: () => refused,
  write: () => refused,
  add: () => refused,
  compact: () => refused,
  newestDays: () => refused,
  list: () => refused,
  object: () => refused,
  read: () => Stream.die("nothing is archived"),
  quotes: () => Stream.die("nothing is archived"),
  quotePage: () => refused,
  quotesByTime: () => refused,
  quoteTokens: () => refused,
  ticks: () => refused,
  minutes: () => refused,
  counts: () => refused
}
