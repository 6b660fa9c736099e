/**
 * Decides what the ring takes: live ticks of each instrument's newest day, partition by partition; and that a ring that
 * does not answer holds no stop up: what it lacks is in the store, and the next run goes on from the group's offset.
 */
import { Clock, Effect, Schedule, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { fromMetadata, toMetadata } from "../log/bookmark.ts"
import { commitLater } from "../log/commitLater.ts"
import { follow } from "../log/follow.ts"
import { type AssignedPartition, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { RecentTicks } from "../ports/RecentTicks.ts"
import { crashPoint } from "../run/crashPoint.ts"
import { Drain } from "../run/Drain.ts"
import { type LostOffsetsSettings, lostOffsets } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { aloneInGroup } from "../run/restart.ts"
import { retrySink } from "../run/sinkRetry.ts"
import { together } from "../run/together.ts"

/** Once a stop has begun, an append that takes longer is given up, and the group with it. */
const GIVE_UP_MS = 2000
const LOOK = "100 millis"

/** Runs until it is interrupted, or gives up in a stop. */
export const writeRing = Effect.fnUntraced(function* (
  settings: LostOffsetsSettings
): Effect.fn.Return<void, LogError, TickLog | RecentTicks | Readiness | Drain> {
  const log = yield* TickLog
  const lost = yield* lostOffsets("recent", "normalized_ticks", settings)
  const ring = yield* RecentTicks
  const drain = yield* Drain
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const incarnation = log.incarnation("normalized_ticks")
  const received = metrics.bind(metrics.stageReceived, { stage: "ring" }, context)
  const sent = metrics.bind(metrics.stageSent, { stage: "ring" }, context)
  const old = metrics.bind(metrics.stageDiscarded, { stage: "ring", reason: "old" }, context)
  const replayed = metrics.bind(metrics.stageDiscarded, { stage: "ring", reason: "replay" }, context)
  const flush = metrics.bind(metrics.sinkFlush, { sink: "ring" }, context)

  /** Since when each partition's append has been under way, ms. */
  const writing = new Map<number, number>()
  const giveUp = Effect.gen(function* () {
    yield* drain.begun
    const begun = clock.currentTimeMillisUnsafe()
    const isLate = () => {
      const late = clock.currentTimeMillisUnsafe() - GIVE_UP_MS
      return begun <= late && [...writing.values()].some((since) => since <= late)
    }
    yield* Effect.sync(isLate).pipe(Effect.repeat({ until: (is) => is, schedule: Schedule.spaced(LOOK) }))
    yield* Effect.logWarning("the ring does not answer: the stop goes on without it, what it lacks is in the store")
  })

  const sayOf = together("ring")

  const partition = (assigned: AssignedPartition) =>
    Effect.gen(function* () {
      const say = sayOf(assigned.partition)
      const commits = yield* commitLater(assigned, () => crashPoint("after-ring-commit"))
      const { start } = yield* log.bounds("normalized_ticks", assigned.partition)
      const { committed } = assigned
      const bookmark =
        committed === undefined
          ? undefined
          : {
              partition: assigned.partition,
              incarnation,
              offset: committed.offset,
              mark: fromMetadata(committed.metadata)
            }
      yield* lost.read(assigned, bookmark?.offset ?? start).pipe(
        follow({ reader: "follow-ring", partition: assigned.partition, incarnation, log, bookmark, context }),
        Stream.runForEach((batch) =>
          Effect.gen(function* () {
            const ticks = batch.ticks.filter((tick) => !tick.old)
            const started = clock.currentTimeMillisUnsafe()
            writing.set(assigned.partition, started)
            if (ticks.length > 0) yield* ring.append(ticks).pipe(retrySink("ring", { say }))
            writing.delete(assigned.partition)
            crashPoint("after-ring")
            flush.add((clock.currentTimeMillisUnsafe() - started) / 1000)
            const replays = batch.replays.filter((replay) => "tick" in replay).length
            received.add(batch.ticks.length + replays)
            if (replays > 0) replayed.add(replays)
            sent.add(ticks.length)
            if (ticks.length < batch.ticks.length) old.add(batch.ticks.length - ticks.length)
            commits.commit({ offset: batch.bookmark.offset, metadata: toMetadata(batch.bookmark.mark) })
          })
        )
      )
      // What was taken last is committed before the partition is let go, unless it is another's by now.
      yield* commits.settled
    }).pipe(Effect.ensuring(Effect.sync(() => writing.delete(assigned.partition))), Effect.scoped)

  yield* log
    .assignments("recent", "normalized_ticks")
    .pipe(
      Stream.mapEffect(aloneInGroup("ring")(partition), { concurrency: "unbounded" }),
      Stream.runDrain,
      Effect.raceFirst(giveUp)
    )
})
