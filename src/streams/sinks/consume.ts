/**
 * Decides what every sink on `normalized_ticks` has in common: where a partition goes on and what was taken of it
 * before, what is lost to it, how a write that fails is asked again, when offsets are committed, how a stop ends it, what
 * is counted, and where the crash suite may come between. A sink brings what it writes, and how much at a time.
 */
import { Clock, Effect, Scope, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { type Bookmark, fromMetadata, toMetadata } from "../log/bookmark.ts"
import { commitLater } from "../log/commitLater.ts"
import { follow, quotesOf, type TickBatch } from "../log/follow.ts"
import { type AssignedPartition, type Commit, type LogRecord, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { crashPoint } from "../run/crashPoint.ts"
import { Drain } from "../run/Drain.ts"
import { type LostOffsetsSettings, lostOffsets } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { alone } from "../run/restart.ts"
import { type RetryOptions, retrySink } from "../run/sinkRetry.ts"
import { together } from "../run/together.ts"

export interface SinkOptions<Reason extends string> {
  /** The consumer group. */
  readonly group: string
  /** The sink in figures and log lines. */
  readonly sink: string
  /** Why a tick that came is not in it afterwards. */
  readonly discards: ReadonlyArray<Reason>
  /** Ticks that may wait in the process, where they do. */
  readonly capacity?: number
}

/** Those of what was taken that are not in the sink. */
type Discarded<Reason extends string> = Readonly<Partial<Record<Reason, number>>>

/** What became of ticks and quotes that were taken together. */
export interface Written<Reason extends string> {
  readonly ticks: number
  readonly discarded: Discarded<Reason>
  /** Of a sink that takes quotes; counted apart. */
  readonly quotes?: { readonly taken: number; readonly discarded: Discarded<Reason> }
  /** When the sink was first asked, ms. */
  readonly startedAt: number
}

type Records = Stream.Stream<ReadonlyArray<LogRecord>, LogError, TickLog>

/** One partition for as long as it is this member's. */
export interface SinkPartition {
  readonly partition: number
  readonly revoked: Effect.Effect<void>
  /** What the group has committed, here or elsewhere before; undefined: nothing of this log. */
  readonly committed: Bookmark | undefined
  /** The log's first record. */
  readonly start: Effect.Effect<number, LogError>
  /** Where the group goes on that was to go on at `next`: later where the log has lost what was there. */
  readonly held: (next: number) => Effect.Effect<number, LogError, TickLog>
  /** Its records from `next` on as ticks, without those that `bookmark` has; `select`: only some of the records. */
  readonly read: (
    next: number,
    bookmark: Bookmark | undefined,
    select?: (records: Records) => Records
  ) => Stream.Stream<TickBatch, LogError, TickLog>
  /** Asks the sink until it succeeds. */
  readonly ask: <A, E extends { readonly message: string }, R>(
    write: Effect.Effect<A, E, R>,
    options?: Pick<RetryOptions, "isLong">
  ) => Effect.Effect<A, never, R | Readiness>
  /** Everything up to the bookmark is written. Does not wait; nothing happens where the partition is another's by now. */
  readonly done: (bookmark: Bookmark) => void
}

export interface Consumer<Reason extends string> {
  /** Of `normalized_ticks`. */
  readonly incarnation: string
  /** Completes when a stop has begun: nothing may wait any more for others to be written with. */
  readonly stopping: Effect.Effect<void>
  /** Counts what was written, between the crash points. */
  readonly written: (written: Written<Reason>) => void
  /** Shows how much waits; `of`: whichever of several buffers. The fullest is shown. */
  readonly waiting: (of: number, ticks: number) => void
  /** Runs each partition that is assigned, each alone: what fails is started again from what is committed. */
  readonly each: <E, R>(
    run: (partition: SinkPartition) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<void, LogError, R | Readiness>
}

export const consume = <Reason extends string>(
  { group, sink, discards, capacity }: SinkOptions<Reason>,
  settings: LostOffsetsSettings
): Effect.Effect<Consumer<Reason>, never, TickLog | Readiness | Drain | Scope.Scope> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const drain = yield* Drain
    const clock = yield* Clock.Clock
    const lost = yield* lostOffsets(group, "normalized_ticks", settings)
    const context = yield* Effect.context<never>()
    const scope = yield* Effect.scope
    const incarnation = log.incarnation("normalized_ticks")

    const countersOf = (stage: string) => {
      const received = metrics.bind(metrics.stageReceived, { stage }, context)
      const sent = metrics.bind(metrics.stageSent, { stage }, context)
      const discarded = discards.map(
        (reason) => [reason, metrics.bind(metrics.stageDiscarded, { stage, reason }, context)] as const
      )
      return (taken: number, by: Discarded<Reason>): void => {
        received.add(taken)
        let left = taken
        for (const [reason, counter] of discarded) {
          const n = by[reason] ?? 0
          if (n === 0) continue
          counter.add(n)
          left -= n
        }
        sent.add(left)
      }
    }
    const countTicks = countersOf(sink)
    const countQuotes = countersOf(quotesOf(sink))
    const flush = metrics.bind(metrics.sinkFlush, { sink }, context)
    const buffer = metrics.bind(metrics.bufferSize, { buffer: sink }, context)
    if (capacity !== undefined) {
      buffer.add(0)
      metrics.bind(metrics.bufferMaxSize, { buffer: sink }, context).add(capacity)
    }
    const fills = new Map<number, number>()

    const runAlone = alone(sink)
    const sayOf = together(sink)

    const each: Consumer<Reason>["each"] = (run) => {
      const member = (given: AssignedPartition) =>
        Effect.gen(function* () {
          const { partition } = given
          let { committed } = given
          const assigned: AssignedPartition = {
            ...given,
            commit: (next: Commit) =>
              Effect.map(given.commit(next), () => {
                committed = next
              })
          }
          const say = sayOf(partition)
          // Until the partition is another's: what was taken last may be written after its reading has ended.
          const commits = yield* Scope.provide(
            commitLater(assigned, () => crashPoint(`after-${sink}-commit`)),
            scope
          )
          const mine = (): SinkPartition => ({
            partition,
            revoked: given.revoked,
            committed:
              committed === undefined
                ? undefined
                : { partition, incarnation, offset: committed.offset, mark: fromMetadata(committed.metadata) },
            start: Effect.map(log.bounds("normalized_ticks", partition), ({ start }) => start),
            held: (next) => lost.held(partition, next),
            read: (next, bookmark, select = (records) => records) =>
              select(lost.read(assigned, next)).pipe(
                follow({ reader: `follow-${sink}`, partition, incarnation, log, bookmark, context })
              ),
            ask: (write, options = {}) => retrySink(sink, { ...options, say })(write),
            done: ({ offset, mark }) => commits.commit({ offset, metadata: toMetadata(mark) })
          })
          yield* runAlone(
            given,
            Effect.suspend(() => run(mine()))
          )
          // What was written last is committed before the partition is let go, unless it is another's by now.
          yield* commits.settled
        })
      return log
        .assignments(group, "normalized_ticks")
        .pipe(Stream.mapEffect(member, { concurrency: "unbounded" }), Stream.runDrain)
    }

    return {
      incarnation,
      stopping: drain.begun,
      written: ({ ticks, discarded, quotes, startedAt }) => {
        crashPoint(`after-${sink}-write`)
        flush.add((clock.currentTimeMillisUnsafe() - startedAt) / 1000)
        countTicks(ticks, discarded)
        if (quotes !== undefined) countQuotes(quotes.taken, quotes.discarded)
      },
      waiting: (of, ticks) => {
        fills.set(of, ticks)
        buffer.add(Math.max(...fills.values()))
      },
      each
    }
  })
