/**
 * Decides what the pipeline needs of a partitioned log, whichever log it is: appends that are acknowledged, reads that
 * the reader paces, and consumer groups as a stream of partition streams.
 */
import { type Array as Arr, Context, type Effect, type Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"

export const TOPICS = ["raw_ticks", "normalized_ticks", "raw_ticks_dlq"] as const
export type Topic = (typeof TOPICS)[number]

/** What a producer hands in. Header values are text. */
export interface NewRecord {
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** What a reader gets. */
export interface LogRecord extends NewRecord {
  readonly offset: number
  /**
   * The log's own stamp in epoch microseconds, the highest that its reader has met so far: it never falls in one
   * reading. A reading begun further on may start lower where the log's clock had stepped back.
   */
  readonly recordTime: number
  /**
   * Set where nobody can read what lies here: the record stands for a whole batch of so many records, up to its offset,
   * and its value is the batch as it lies in the log.
   */
  readonly unreadable?: { readonly message: string; readonly records: number } | undefined
}

/** How far a group has come in a partition, with what it wants to find again. */
export interface Commit {
  /** The next offset to read. */
  readonly offset: number
  readonly metadata: string
}

/** One partition that this member owns until `revoked` completes. Its state lives and dies with it. */
export interface AssignedPartition {
  readonly partition: number
  readonly committed: Commit | undefined
  /** Ends when the partition is revoked or `until` completes, also in the midst of a wait. */
  readonly read: (
    from: number,
    until?: Effect.Effect<void>
  ) => Stream.Stream<Arr.NonEmptyReadonlyArray<LogRecord>, LogError>
  /** Fails where this member no longer owns the partition. */
  readonly commit: (commit: Commit) => Effect.Effect<void, LogError>
  readonly revoked: Effect.Effect<void>
}

/** A piece of a partition. It may have no records and still go on: not all that has an offset is one. */
export interface Slice {
  readonly records: ReadonlyArray<LogRecord>
  readonly next: number
}

export class TickLog extends Context.Service<
  TickLog,
  {
    /** The partitions of every topic; they are equal and do not change under kept state. */
    readonly partitions: number
    /** Names one incarnation of a topic: recreated, it has another. Offsets mean nothing without it. */
    readonly incarnation: (topic: Topic) => string
    /** The same as the log itself says just now: a topic may have been recreated since this process last looked. */
    readonly latest: (topic: Topic) => Effect.Effect<string, LogError>
    /**
     * Appends in order and answers the first offset once the log has them for good. Waits where the log is full; one
     * append a partition may be under way. All or nothing, unless it fails with outcome `unknown`. Where it is meant
     * for one incarnation of the topic, it fails with reason `incarnation` once the topic is in another.
     */
    readonly append: (
      topic: Topic,
      partition: number,
      records: ReadonlyArray<NewRecord>,
      incarnation?: string
    ) => Effect.Effect<number, LogError>
    /** Reads from an offset to the end and on, for ever, at the reader's pace; no group. */
    readonly read: (
      topic: Topic,
      partition: number,
      from: number
    ) => Stream.Stream<Arr.NonEmptyReadonlyArray<LogRecord>, LogError>
    /**
     * What a partition holds from an offset on, or from its start where that is later: a piece of at most `limit`
     * records, without waiting for more. `next` is where the following piece starts; at the end it is `from`, or less.
     */
    readonly slice: (topic: Topic, partition: number, from: number, limit: number) => Effect.Effect<Slice, LogError>
    /** The oldest offset still held, and the next one to be given. */
    readonly bounds: (
      topic: Topic,
      partition: number
    ) => Effect.Effect<{ readonly start: number; readonly end: number }, LogError>
    /** What each partition takes of this process's memory; undefined where the log is not in it. */
    readonly bytes?: Effect.Effect<
      ReadonlyArray<{ readonly topic: Topic; readonly partition: number; readonly bytes: number }>
    >
    /** The first offset whose record time is at or after `micros`; the end where there is none. */
    readonly offsetAt: (topic: Topic, partition: number, micros: number) => Effect.Effect<number, LogError>
    /** A member of a group: each partition assigned to it, as it is assigned. */
    readonly assignments: (group: string, topic: Topic) => Stream.Stream<AssignedPartition, LogError>
    /** How far groups are behind, for display. */
    readonly lag: Effect.Effect<
      ReadonlyArray<{
        readonly group: string
        readonly topic: Topic
        readonly partition: number
        readonly records: number
      }>,
      LogError
    >
    /** How many members each group has, for display: a member that died counts until its session has timed out. */
    readonly members: Effect.Effect<ReadonlyArray<{ readonly group: string; readonly members: number }>, LogError>
  }
>()("market-data-platform/streams/TickLog") {}
