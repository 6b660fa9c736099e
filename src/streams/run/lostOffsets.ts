/**
 * Decides what a group does in a partition whose next records retention has removed before the group took them, or
 * whose log ends before them since a broker lost its newest: loud and counted always, and then by ON_LOST_OFFSETS the
 * partition stops or goes on.
 */
import { type Array as Arr, Effect, Schedule, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { type AssignedPartition, type LogRecord, TickLog, type Topic } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { Readiness } from "./Readiness.ts"

export type LostOffsetsSettings = Pick<Settings, "ON_LOST_OFFSETS">

/** A leader that is behind the others for a moment is looked at so often before what it lacks counts as lost. */
const LOOKS = 10
const LOOK = "500 millis"
/** The wait before a place is asked for again that the log has and did not give. */
const AGAIN = "1 second"

export interface LostOffsets {
  /** Records from `next` up to `start` are gone. Completes where the group is to go on from `start`; else never. */
  readonly goOn: (partition: number, next: number, start: number) => Effect.Effect<void>
  /**
   * Waits where the log ends before `next`: what a broker lost. The records that take those numbers anew are lost to
   * the group, whose bookmarks, sources and archive ranges know these numbers as taken.
   */
  readonly reached: (partition: number, next: number) => Effect.Effect<void, LogError>
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
    /** Of each partition the offsets up to which its losses have been told: those of its start, and of its end. */
    const toldOfStart = new Map<number, number>()
    const toldOfEnd = new Map<number, number>()
    const isStop = settings.ON_LOST_OFFSETS === "fail"

    /** Counts and says a loss from `first` to `last`, each offset once, and stops the partition if it is to stop. */
    const lose = (
      loss: { readonly partition: number; readonly first: number; readonly last: number },
      told: Map<number, number>,
      what: string,
      goesOn: string
    ): Effect.Effect<void> => {
      const { partition, first, last } = loss
      const tell = Effect.suspend(() => {
        const from = Math.max(first, told.get(partition) ?? 0)
        if (from >= last) return Effect.void
        counters[partition]!.add(last - from)
        told.set(partition, last)
        return Effect.logError(
          isStop
            ? `${what}. The partition stops (ON_LOST_OFFSETS=fail); a start with ON_LOST_OFFSETS=continue goes on from ${goesOn}`
            : `${what}. It goes on from ${goesOn} (ON_LOST_OFFSETS=continue)`
        )
      })
      if (!isStop) return tell
      const stopped = `${what}; stopped (ON_LOST_OFFSETS=fail)`
      return Effect.andThen(tell, Effect.andThen(readiness.degrade(stopped, true), Effect.never)).pipe(
        Effect.ensuring(readiness.degrade(stopped, false))
      )
    }

    const goOn = (partition: number, next: number, start: number): Effect.Effect<void> =>
      lose(
        { partition, first: next, last: start },
        toldOfStart,
        `${group}: ${topic}-${partition} was to go on at offset ${next}, and the log starts at ${start}: ` +
          `${start - next} records are lost to it`,
        `${start}`
      )

    const reached = Effect.fnUntraced(function* (partition: number, next: number) {
      const endOf = Effect.map(log.bounds(topic, partition), ({ end }) => end)
      const ended = yield* endOf
      if (ended >= next) return
      const place = `${group}: ${topic}-${partition} was to go on at offset ${next}, and the log ends at ${ended}`
      for (let look = 0; look < LOOKS; look++) {
        yield* Effect.sleep(LOOK)
        // Written anew as fast as that, or a leader was behind for a moment: the log does not tell which.
        if ((yield* endOf) >= next) return yield* Effect.logWarning(`${place}; it has reached it meanwhile`)
      }
      const what = `${place}: a broker lost its newest, and ${next - ended} records that take their numbers are lost to it`
      yield* lose({ partition, first: ended, last: next }, toldOfEnd, what, `${next} once the log has reached it`)
      yield* readiness.degrade(what, true)
      yield* Effect.repeat(endOf, { until: (end) => end >= next, schedule: Schedule.spaced(AGAIN) }).pipe(
        Effect.ensuring(readiness.degrade(what, false))
      )
    })

    const held = (partition: number, next: number) =>
      Effect.gen(function* () {
        const { start, end } = yield* log.bounds(topic, partition)
        if (next > end) yield* reached(partition, next)
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
      type Reading = Stream.Stream<Arr.NonEmptyReadonlyArray<LogRecord>, LogError, TickLog>
      /** What is waited for before reading ends with the assignment; the reading itself does so anyway. */
      const unwrap = (waits: Effect.Effect<Reading, LogError, TickLog>): Reading =>
        Stream.unwrap(Effect.raceFirst(waits, Effect.as(assigned.revoked, Stream.empty)))
      const reading: Reading = Stream.suspend(() => unwrap(Effect.map(held(partition, at), from))).pipe(
        Stream.catchIf(
          (error) => error.reason === "not_held",
          (error) =>
            unwrap(
              Effect.gen(function* () {
                const { start, end } = yield* log.bounds(topic, partition)
                // Before the start or past the end is `held`'s to decide; else another look finds the log as it says.
                if (at >= start && at <= end) {
                  yield* Effect.logWarning(error.message)
                  yield* Effect.sleep(AGAIN)
                }
                return reading
              })
            )
        )
      )
      return reading
    }

    return { goOn, reached, held, read }
  })
