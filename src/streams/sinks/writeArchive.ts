/**
 * Decides what an archive object holds: a range of one partition, up to a number of ticks or a time, and the very range
 * that was begun before where one was. The offset is committed once the range is complete.
 */
import { Clock, Effect, Schedule, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { TickQueue } from "../../schema/TickColumns.ts"
import { type Bookmark, fromMetadata, toMetadata } from "../log/bookmark.ts"
import { commitLater } from "../log/commitLater.ts"
import { follow, type TickBatch } from "../log/follow.ts"
import { gather } from "../log/gather.ts"
import { type AssignedPartition, type LogRecord, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { Archive } from "../ports/Archive.ts"
import { crashPoint } from "../run/crashPoint.ts"
import { Drain } from "../run/Drain.ts"
import { type LostOffsetsSettings, lostOffsets } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { aloneInGroup } from "../run/restart.ts"
import { retrySink } from "../run/sinkRetry.ts"
import { together } from "../run/together.ts"

/** A batch whose ticks lie in the queue. */
interface Waiting {
  readonly ticks: number
  readonly replays: number
  readonly bookmark: Bookmark
}

export const writeArchive = (
  settings: Pick<Settings, "ARCHIVE_BATCH_TICKS" | "ARCHIVE_FLUSH_MS"> & LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | Archive | Readiness | Drain> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const archive = yield* Archive
    const lost = yield* lostOffsets("archive", "normalized_ticks", settings)
    const drain = yield* Drain
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const incarnation = log.incarnation("normalized_ticks")
    const received = metrics.bind(metrics.stageReceived, { stage: "archive" }, context)
    const sent = metrics.bind(metrics.stageSent, { stage: "archive" }, context)
    const replayed = metrics.bind(metrics.stageDiscarded, { stage: "archive", reason: "replay" }, context)
    const archived = metrics.bind(metrics.stageDiscarded, { stage: "archive", reason: "archived" }, context)
    const flush = metrics.bind(metrics.sinkFlush, { sink: "archive" }, context)

    const sayOf = together("archive")

    const partition = (assigned: AssignedPartition) =>
      Effect.gen(function* () {
        const say = sayOf(assigned.partition)
        const { committed } = assigned
        const commits = yield* commitLater(assigned, () => crashPoint("after-archive-commit"))
        const { start } = yield* log.bounds("normalized_ticks", assigned.partition)
        let bookmark: Bookmark | undefined =
          committed === undefined
            ? undefined
            : {
                partition: assigned.partition,
                incarnation,
                offset: committed.offset,
                mark: fromMetadata(committed.metadata)
              }
        let first = bookmark?.offset ?? start
        let queue = new TickQueue()
        /** How far was read: what lies between is gathered, and no one is behind with it. */
        let taken = first
        const held = metrics.bind(
          metrics.heldRecords,
          { group: "archive", topic: "normalized_ticks", partition: String(assigned.partition) },
          context
        )
        const enqueue = ({ ticks, replays, bookmark: next }: TickBatch): Waiting => {
          queue.append(ticks)
          taken = next.offset
          held.add(taken - first)
          const replayed = replays.reduce((n, replay) => ("tick" in replay ? n + 1 : n), 0)
          return { ticks: ticks.length, replays: replayed, bookmark: next }
        }
        const write = Effect.fnUntraced(function* (group: ReadonlyArray<Waiting>) {
          const newest = group[group.length - 1]
          if (newest === undefined) return
          const next = newest.bookmark
          const ticks = group.reduce((n, batch) => n + batch.ticks, 0)
          const replays = group.reduce((n, batch) => n + batch.replays, 0)
          const range = { incarnation, partition: assigned.partition, first, last: next.offset - 1 }
          const started = clock.currentTimeMillisUnsafe()
          let leftOut = 0
          if (ticks > 0) {
            const done = yield* archive
              .write(range, queue.peek(ticks))
              .pipe(Effect.catchTag("RangeTaken", Effect.succeed), retrySink("archive", { isLong: true, say }))
            if (typeof done !== "number") return yield* done
            leftOut = done
            queue.drop(ticks)
            crashPoint("after-archive-write")
          }
          bookmark = next
          first = next.offset
          held.add(Math.max(0, taken - first))
          flush.add((clock.currentTimeMillisUnsafe() - started) / 1000)
          received.add(ticks + replays)
          sent.add(ticks - leftOut)
          if (leftOut > 0) archived.add(leftOut)
          if (replays > 0) replayed.add(replays)
          commits.commit({ offset: next.offset, metadata: toMetadata(next.mark) })
        })
        const reader = { reader: "follow-archive", partition: assigned.partition, incarnation, log, context }
        /** Completes a range that was begun here, by this group before a crash or by a member that is one no longer. */
        const complete = (last: number) =>
          lost.read(assigned, first).pipe(
            Stream.map((records): ReadonlyArray<LogRecord> => {
              const mine = records.filter((record) => record.offset <= last)
              const beyond = records.find((record) => record.offset > last)
              // The range may end within a batch that was read then and cannot be now: of it there is only its end.
              if (beyond?.unreadable !== undefined && mine.at(-1)?.offset !== last) {
                mine.push({ ...beyond, offset: last })
              }
              return mine
            }),
            Stream.takeUntil((records) => records.length === 0 || records[records.length - 1]!.offset === last),
            Stream.filter((records) => records.length > 0),
            follow({ ...reader, bookmark }),
            Stream.map(enqueue),
            Stream.runCollect,
            Effect.flatMap((group) => (group.at(-1)?.bookmark.offset === last + 1 ? write(group) : Effect.void))
          )
        const fromHere = Effect.gen(function* () {
          queue = new TickQueue()
          held.add(0)
          // A range begun over what is gone cannot be completed: the next one begins where the log does.
          first = yield* lost.held(assigned.partition, first)
          for (;;) {
            const begun = yield* archive
              .begun(incarnation, assigned.partition, first)
              .pipe(retrySink("archive", { say }))
            if (begun === undefined) break
            yield* complete(begun.last)
            // The reader ended before the range did: the partition was taken away, or a stop has begun.
            if (first <= begun.last) return
          }
          yield* lost.read(assigned, first).pipe(
            follow({ ...reader, bookmark }),
            Stream.map(enqueue),
            gather({
              count: ({ ticks, replays }) => ticks + replays,
              ticks: settings.ARCHIVE_BATCH_TICKS,
              ms: settings.ARCHIVE_FLUSH_MS,
              drain: drain.begun
            }),
            Stream.runForEach(write)
          )
        })
        // Who finds a range begun where its own should begin reads on from there, and completes it.
        yield* Effect.retry(fromHere, {
          while: (error) => error._tag === "RangeTaken",
          schedule: Schedule.spaced("1 second")
        }).pipe(
          Effect.catchTag("RangeTaken", Effect.die),
          Effect.raceFirst(assigned.revoked),
          Effect.ensuring(Effect.sync(() => held.add(0)))
        )
        // What was written last is committed before the partition is let go, unless it is another's by now.
        yield* commits.settled
      }).pipe(Effect.scoped)

    yield* log
      .assignments("archive", "normalized_ticks")
      .pipe(Stream.mapEffect(aloneInGroup("archive")(partition), { concurrency: "unbounded" }), Stream.runDrain)
  })
