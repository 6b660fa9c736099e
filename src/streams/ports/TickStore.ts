/** Decides what the platform needs of the database: ticks, candles and bookmarks that agree, and instruments. */
import { Context, type Effect } from "effect"
import type { Candle, Interval } from "../../schema/Candle.ts"
import type { StoreError } from "../../schema/Errors.ts"
import type { Instrument } from "../../schema/Instrument.ts"
import type { Sighting } from "../../schema/Meaning.ts"
import type { Tick, TickOrder } from "../../schema/Tick.ts"
import type { StoredName, tickFields } from "../../schema/tickFields.ts"
import type { Bookmark } from "../log/bookmark.ts"

type StoredValues = {
  readonly [N in StoredName]: Tick[N] | ((typeof tickFields)[N] extends { readonly unplaced: true } ? null : never)
}

/** A tick as the store has it: `epoch` and `position` are null where a replay added the row. */
export interface StoredTick extends StoredValues {}

/** What one transaction writes: ticks, and how far each partition has come with them. */
export interface StoreBatch {
  readonly ticks: ReadonlyArray<Tick>
  /** Ticks of replays: a missing row is added, without epoch and position. */
  readonly replayed: ReadonlyArray<Tick>
  readonly bookmarks: ReadonlyArray<Bookmark>
}

export interface WriteResult {
  /** Rows that were new. */
  readonly added: number
  /** Ticks of days that the store has dropped, if any: they are the archive's only, and leave those days' bars alone. */
  readonly dropped?: number
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

export interface CandleQuery {
  readonly instrument_token: number
  readonly interval: Interval
  /** Bars whose start lies in [from, to). */
  readonly from: number
  readonly to: number
  readonly limit: number
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
    /** Another text after every change of these instruments' ticks in [from, to), and as a rule the same without one. */
    readonly revision: (tokens: ReadonlyArray<number>, from: number, to: number) => Effect.Effect<string, StoreError>
    /** Every token that has ticks in [from, to). */
    readonly tokens: (from: number, to: number) => Effect.Effect<ReadonlyArray<number>, StoreError>
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
    /** Drops the ticks of old days that end by this time; their bars stay. Answers how many days went. */
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
