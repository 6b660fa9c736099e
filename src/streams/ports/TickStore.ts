/** Decides what the platform needs of the database: ticks, quotes, candles and bookmarks that agree, and instruments. */
import { Context, type Effect } from "effect"
import type { Candle, Interval } from "../../schema/Candle.ts"
import type { StoreError } from "../../schema/Errors.ts"
import type { Instrument } from "../../schema/Instrument.ts"
import type { Sighting } from "../../schema/Meaning.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { Tick, TickOrder } from "../../schema/Tick.ts"
import type { StoredName, tickFields } from "../../schema/tickFields.ts"
import type { Bookmark } from "../log/bookmark.ts"

type StoredValues = {
  readonly [N in StoredName]: Tick[N] | ((typeof tickFields)[N] extends { readonly unplaced: true } ? null : never)
}

/** A tick as the store has it: `epoch` and `position` are null where a replay added the row. */
export interface StoredTick extends StoredValues {}

/** What one transaction writes: ticks, quotes, and how far each partition has come with them. */
export interface StoreBatch {
  readonly ticks: ReadonlyArray<Tick>
  /** Ticks of replays: a missing row is added, without epoch and position. */
  readonly replayed: ReadonlyArray<Tick>
  /** Live quotes, those of old days included: of those of one instrument and stamp the later stays. */
  readonly quotes: ReadonlyArray<Quote>
  /** Quotes of replays: each is added where its stamp has none. */
  readonly replayedQuotes: ReadonlyArray<Quote>
  readonly bookmarks: ReadonlyArray<Bookmark>
}

export interface WriteResult {
  /** Rows that were new. */
  readonly added: number
  /** Ticks of days that the store has dropped, if any: they are the archive's only, and leave those days' bars alone. */
  readonly dropped?: number
  /** What became of quotes, where there were any: a later one of their stamp is there instead of the rest. */
  readonly quotes?: QuotesWritten
}

export interface QuotesWritten {
  /** Rows that were new, or say something else now. */
  readonly added: number
  /** Of days that the store has dropped: it keeps their open interest alone. */
  readonly dropped: number
}

/** Times before `before` that have ticks, each of a day or so, ascending. */
export interface OldDays {
  readonly before: number
  readonly days: ReadonlyArray<readonly [from: number, to: number]>
}

/** A place in one instrument's ticks: the row after which a page starts, in the order of `compareTicks`. */
export interface TickCursor {
  readonly exchange_ts: number
  readonly sequence_id: number
  readonly epoch: number | null
  readonly position: number | null
}

export interface TickQuery {
  readonly instrument_token: number
  /** Epoch microseconds, inclusive. */
  readonly from: number
  /** Epoch microseconds, exclusive. */
  readonly to: number
  readonly limit: number
  readonly after?: TickCursor
}

/** Quotes of one instrument stamped in [from, to), after the one stamped `after`. */
export interface QuoteQuery {
  readonly instrument_token: number
  readonly from: number
  readonly to: number
  readonly limit: number
  readonly after?: number
}

export interface CandleQuery {
  readonly instrument_token: number
  readonly interval: Interval
  /** Bars whose start lies in [from, to). */
  readonly from: number
  readonly to: number
  readonly limit: number
}

/** The last open interest that was known in a minute, by its start. */
export interface MinuteOi {
  readonly ts: number
  readonly oi: number
  /** The stamp of the quote that told it, and its offset in the raw log: -1 where a replay added it. */
  readonly exchange_ts: number
  readonly offset: number
}

/** The first or the last tick of a bar, with its place in the order of ticks. */
export interface BarEdge extends TickOrder {
  readonly price: number
}

/** Ticks of a bar, summed up so that sums of other ticks of it can be added to them exactly. */
export interface BarSum {
  readonly ts: number
  readonly count: number
  readonly open: BarEdge
  readonly high: number
  readonly low: number
  readonly close: BarEdge
  /** At most `MAX_VOLUME`. */
  readonly volume: number
}

/** Ticks of one minute. */
export interface MinuteSum extends BarSum {
  /** The numbering that all of them belong to; undefined where there are several, or a replay added some. */
  readonly numbering: { readonly epoch: number; readonly session: number } | undefined
}

/** Minutes of one instrument, all of one trading day. */
export interface MinutesQuery {
  readonly instrument_token: number
  /** `before`: ticks from this place of the stream on do not count; undefined: all do. */
  readonly minutes: ReadonlyArray<{
    readonly ts: number
    readonly before: { readonly epoch: number; readonly position: number } | undefined
  }>
}

/** The last tick of an instrument and its trading day so far. */
export interface DaySoFar {
  readonly last: StoredTick
  readonly open: number
  readonly high: number
  readonly low: number
  readonly volume: number
}

/** An instrument that a token was seen to be, and the first trading day (since 1970) on which it was, before another. */
export type KnownInstrument = Omit<Sighting, "last">

export class TickStore extends Context.Service<
  TickStore,
  {
    /** One transaction: rows, dirty marks of the bars they touch, bookmarks. */
    readonly write: (batch: StoreBatch) => Effect.Effect<WriteResult, StoreError>
    /** The bookmarks that the store's own writes left behind, by topic incarnation. */
    readonly bookmarks: (incarnation: string) => Effect.Effect<ReadonlyArray<Bookmark>, StoreError>
    /** A page of one instrument's ticks, ascending by `compareTicks`. */
    readonly ticks: (query: TickQuery) => Effect.Effect<ReadonlyArray<StoredTick>, StoreError>
    /** Bars ascending; equal at any moment to a recompute from the ticks. */
    readonly candles: (query: CandleQuery) => Effect.Effect<ReadonlyArray<Candle>, StoreError>
    /**
     * What these minutes hold, those without ticks left out; undefined where the store has dropped their day: its bars
     * stay as they are, whatever still comes.
     */
    readonly minutes: (query: MinutesQuery) => Effect.Effect<ReadonlyArray<MinuteSum> | undefined, StoreError>
    /** The last open interest of each minute that starts in the range, ascending; also of days that are dropped. */
    readonly minuteOi: (query: Omit<CandleQuery, "interval">) => Effect.Effect<ReadonlyArray<MinuteOi>, StoreError>
    /**
     * The latest quote of each instrument that has one among the newest days that are stored, a month of them at least:
     * with the levels that are stored, the best one at least.
     */
    readonly latestQuotes: (tokens: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, Quote>, StoreError>
    /** A page of one instrument's quotes, ascending, one a stamp. One that a replay added has no source. */
    readonly quotePage: (query: QuoteQuery) => Effect.Effect<ReadonlyArray<Quote>, StoreError>
    /** Every token that has quotes in [from, to). */
    readonly quoteTokens: (from: number, to: number) => Effect.Effect<ReadonlyArray<number>, StoreError>
    readonly daysSoFar: (tokens: ReadonlyArray<number>) => Effect.Effect<ReadonlyMap<number, DaySoFar>, StoreError>
    /**
     * Ticks of one instrument's trading day (the one that `epoch` names) that come after (epoch, position) in the
     * order of the resume token, ascending, at most `limit`: how a resuming client is served from the store.
     */
    readonly ticksAfter: (
      token: number,
      epoch: number,
      position: number,
      limit: number
    ) => Effect.Effect<ReadonlyArray<StoredTick>, StoreError>
    /** How many ticks there are of these instruments in [from, to). */
    readonly count: (tokens: ReadonlyArray<number>, from: number, to: number) => Effect.Effect<number, StoreError>
    /**
     * Another text after every change of these instruments' ticks in [from, to), or of what bars of that time tell of
     * open interest, and as a rule the same without one.
     */
    readonly revision: (tokens: ReadonlyArray<number>, from: number, to: number) => Effect.Effect<string, StoreError>
    /** Every token that has ticks in [from, to). */
    readonly tokens: (from: number, to: number) => Effect.Effect<ReadonlyArray<number>, StoreError>
    /** The newest trading days (since 1970), at most so many, of which there is a tick or a quote, descending. */
    readonly newestDays: (limit: number) => Effect.Effect<ReadonlyArray<number>, StoreError>
    /**
     * Ticks before this time are dropped, and the archive's to answer; from then on all that was written is there. It only
     * grows: what was read before it was asked for is whole where that begins no earlier.
     */
    readonly held: Effect.Effect<number, StoreError>
    /** Recomputes bars marked dirty that have ended, a bounded number at a time; answers how many marks went. */
    readonly refreshCandles: Effect.Effect<number, StoreError>
    /**
     * What the store is to keep no longer: from here on it takes no tick before `before`. Undefined until nothing before
     * it can change any more, and its bars are final.
     */
    readonly oldDays: Effect.Effect<OldDays | undefined, StoreError>
    /** Drops the ticks and quotes of old days that end by this time; their bars stay. Answers how many days went. */
    readonly dropDays: (before: number) => Effect.Effect<number, StoreError>
    /**
     * At most `limit` instruments by token and day, also what tokens meant before; where there are more, these are left
     * first, then those that expired longest ago. They are as the database has them, where anybody may have written:
     * `usable` tells what they are.
     */
    readonly instruments: (limit: number) => Effect.Effect<ReadonlyArray<KnownInstrument>, StoreError>
    /** Another text after every change of an instrument, whoever made it; costs next to nothing. */
    readonly instrumentsVersion: Effect.Effect<string, StoreError>
    /**
     * Takes what a file says of instruments on its trading day, today unless one is given; what a token meant on other
     * days is kept (`Meaning.ts`). `changed`: those whose meaning on some day is another now.
     */
    readonly putInstruments: (
      instruments: ReadonlyArray<Instrument>,
      day?: number
    ) => Effect.Effect<{ readonly added: number; readonly changed: number; readonly expired: number }, StoreError>
  }
>()("market-data-platform/streams/TickStore") {}
