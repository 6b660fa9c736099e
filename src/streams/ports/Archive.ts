/** Decides what the platform needs of the cold archive: whole ranges of a partition kept once, days read back. */
import { Context, type Effect, type Stream } from "effect"
import type { Candle } from "../../schema/Candle.ts"
import type { ArchiveError, RangeTaken } from "../../schema/Errors.ts"
import type { TickColumns } from "../../schema/TickColumns.ts"
import type { CandleQuery, StoredTick, TickQuery } from "./TickStore.ts"

/** A range of one `normalized_ticks` partition, both ends included. */
export interface ArchiveRange {
  readonly incarnation: string
  readonly partition: number
  readonly first: number
  readonly last: number
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
     * Writes the range, one object a trading day, and answers how many ticks it left out: those that the archive has
     * under their primary key already, of whatever incarnation of the topic, so that each has one place in it. Asking again with the same range and ticks changes nothing. Where
     * another writer has begun one at the same offset that ends elsewhere, nothing is written: that one is to be completed.
     */
    readonly write: (range: ArchiveRange, ticks: TickColumns) => Effect.Effect<number, ArchiveError | RangeTaken>
    /** The ticks of a trading day (`YYYY-MM-DD`), of some instruments or all, one row a primary key, unordered. */
    readonly read: (
      date: string,
      tokens: ReadonlyArray<number> | undefined
    ) => Stream.Stream<ReadonlyArray<StoredTick>, ArchiveError>
    /** A page of one instrument's ticks, ascending by `compareTicks`, one row a primary key. */
    readonly ticks: (query: TickQuery) => Effect.Effect<ReadonlyArray<StoredTick>, ArchiveError>
    /** One-minute bars of one instrument, ascending: those of its ticks, at any moment. */
    readonly minutes: (query: Omit<CandleQuery, "interval">) => Effect.Effect<ReadonlyArray<Candle>, ArchiveError>
    /** How many ticks there are in [from, to) of some instruments or all, by those that have any. */
    readonly counts: (
      tokens: ReadonlyArray<number> | undefined,
      from: number,
      to: number
    ) => Effect.Effect<ReadonlyMap<number, number>, ArchiveError>
  }
>()("market-data-platform/streams/Archive") {}
