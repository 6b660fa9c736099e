/** Decides what the ring takes: live ticks of each instrument's newest day, partition by partition. */
import { Clock, Effect, Stream } from "effect"
import type { LogError } from "../schema/Errors.ts"
import { fromMetadata, toMetadata } from "./bookmark.ts"
import { crashPoint } from "./crashPoint.ts"
import { follow } from "./follow.ts"
import { type LostOffsetsSettings, lostOffsets } from "./lostOffsets.ts"
import * as metrics from "./metrics.ts"
import type { Readiness } from "./Readiness.ts"
import { RecentTicks } from "./RecentTicks.ts"
import { retrySink } from "./sinkRetry.ts"
import { type AssignedPartition, TickLog } from "./TickLog.ts"

export const writeRing = Effect.fnUntraced(function* (
  settings: LostOffsetsSettings
): Effect.fn.Return<void, LogError, TickLog | RecentTicks | Readiness> {
  const log = yield* TickLog
  const lost = yield* lostOffsets("recent", "normalized_ticks", settings)
  const ring = yield* RecentTicks
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const incarnation = log.incarnation("normalized_ticks")
  const received = metrics.bind(metrics.stageReceived, { stage: "ring" }, context)
  const sent = metrics.bind(metrics.stageSent, { stage: "ring" }, context)
  const old = metrics.bind(metrics.stageDiscarded, { stage: "ring", reason: "old" }, context)
  const replayed = metrics.bind(metrics.stageDiscarded, { stage: "ring", reason: "replay" }, context)
  const flush = metrics.bind(metrics.sinkFlush, { sink: "ring" }, context)

  const partition = (assigned: AssignedPartition) =>
    Effect.gen(function* () {
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
        follow({ reader: "follow-ring", partition: assigned.partition, incarnation, bookmark, context }),
        Stream.runForEach((batch) =>
          Effect.gen(function* () {
            const ticks = batch.ticks.filter((tick) => !tick.old)
            const started = clock.currentTimeMillisUnsafe()
            if (ticks.length > 0) yield* ring.append(ticks).pipe(retrySink("ring"))
            crashPoint("after-ring")
            flush.add((clock.currentTimeMillisUnsafe() - started) / 1000)
            const replays = batch.replays.filter((replay) => "tick" in replay).length
            received.add(batch.ticks.length + replays)
            if (replays > 0) replayed.add(replays)
            sent.add(ticks.length)
            if (ticks.length < batch.ticks.length) old.add(batch.ticks.length - ticks.length)
            yield* assigned
              .commit({ offset: batch.bookmark.offset, metadata: toMetadata(batch.bookmark.mark) })
              .pipe(Effect.catch((error) => Effect.logDebug(error.message)))
            crashPoint("after-ring-commit")
          })
        )
      )
    })

  yield* log
    .assignments("recent", "normalized_ticks")
    .pipe(Stream.mapEffect(partition, { concurrency: "unbounded" }), Stream.runDrain)
})
