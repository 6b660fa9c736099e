/**
 * Decides what a group does in a partition whose next records retention has removed before the group took them: loud
 * and counted always, and then by ON_LOST_OFFSETS the partition stops or goes on where the log starts.
 */
import { type Array as Arr, Effect, Stream } from "effect"
import type { LogError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import * as metrics from "./metrics.ts"
import { Readiness } from "./Readiness.ts"
import { type AssignedPartition, type LogRecord, TickLog, type Topic } from "./TickLog.ts"

export type LostOffsetsSettings = Pick<Settings, "ON_LOST_OFFSETS">

export interface LostOffsets {
  /** Records from `next` up to `start` are gone. Completes where the group is to go on from `start`; else never. */
  readonly goOn: (partition: number, next: number, start: number) => Effect.Effect<void>
  /** Where a group goes on that was to go on at `next`. */
  readonly held: (partition: number, next: number) => Effect.Effect<number, LogError, TickLog>
  /** Reads an assigned partition from `next`, or from where the log starts by then, also where it is overtaken later. */
  readonly read: (
    assigned: AssignedPartition,
    next: number
  ) => Stream.Stream<Arr.NonEmptyReadonlyArray<LogRecord>, LogError, TickLog>
}

/** What one group does; it counts and says each loss once. */
export const lostOffsets = (
  group: string,
  topic: Topic,
  settings: LostOffsetsSettings
): Effect.Effect<LostOffsets, never, TickLog | Readiness> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const readiness = yield* Readiness
    const context = yield* Effect.context<never>()
    const counters = Array.from({ length: log.partitions }, (_, partition) =>
      metrics.bind(metrics.lostRecords, { group, topic, partition: String(partition) }, context)
    )
    // A figure that nothing has moved yet is 0, not absent.
    for (const counter of counters) counter.add(0)
    /** Of each partition the offset up to which its losses have been told. */
    const told = new Map<number, number>()

    const goOn = (partition: number, next: number, start: number): Effect.Effect<void> => {
      const isStop = settings.ON_LOST_OFFSETS === "fail"
      const what =
        `${group}: ${topic}-${partition} was to go on at offset ${next}, and the log starts at ${start}: ` +
        `${start - next} records are lost to it`
      const tell = Effect.suspend(() => {
        const from = Math.max(next, told.get(partition) ?? 0)
        if (from >= start) return Effect.void
        counters[partition]!.add(start - from)
        told.set(partition, start)
        return Effect.logError(
          isStop
            ? `${what}. The partition stops (ON_LOST_OFFSETS=fail); a start with ON_LOST_OFFSETS=continue goes on from ${start}`
            : `${what}. It goes on from ${start} (ON_LOST_OFFSETS=continue)`
        )
      })
      if (!isStop) return tell
      const stopped = `${what}; stopped (ON_LOST_OFFSETS=fail)`
      return Effect.andThen(tell, Effect.andThen(readiness.degrade(stopped, true), Effect.never)).pipe(
        Effect.ensuring(readiness.degrade(stopped, false))
      )
    }

    const held = (partition: number, next: number) =>
      Effect.gen(function* () {
        const { start } = yield* log.bounds(topic, partition)
        if (next >= start) return next
        yield* goOn(partition, next, start)
        return start
      })

    const read = (assigned: AssignedPartition, next: number) => {
      const { partition } = assigned
      let at = next
      const from = (offset: number) =>
        Stream.map(assigned.read(offset), (records) => {
          at = records[records.length - 1]!.offset + 1
          return records
        })
      const reading: Stream.Stream<Arr.NonEmptyReadonlyArray<LogRecord>, LogError, TickLog> = Stream.suspend(() =>
        Stream.unwrap(Effect.map(held(partition, at), from))
      ).pipe(
        Stream.catchIf(
          (error) => error.reason === "not_held",
          (error) =>
            Stream.unwrap(
              // Not held may also be what the log has yet to get.
              Effect.map(log.bounds(topic, partition), ({ start }) => (at < start ? reading : Stream.fail(error)))
            )
        )
      )
      return Stream.interruptWhen(reading, assigned.revoked)
    }

    return { goOn, held, read }
  })
