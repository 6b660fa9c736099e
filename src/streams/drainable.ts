/**
 * Decides how a member of a group stops in order: it takes no more, and is done once all that it took is committed.
 * The partitions stay its own until then.
 */
import { Effect, Schedule, Stream } from "effect"
import type { AssignedPartition, TickLog } from "./TickLog.ts"

const POLL = "20 millis"

interface Taken {
  /** The next offset after what was handed out. */
  handed: number
  committed: number
}

/** A log whose group members stop reading once `begun` completes. `drained` completes when they have committed. */
export const drainable = (
  log: TickLog["Service"],
  begun: Effect.Effect<void>
): { readonly log: TickLog["Service"]; readonly drained: Effect.Effect<void> } => {
  const taken = new Set<Taken>()

  const stoppable = (assigned: AssignedPartition, mine: Taken): AssignedPartition => ({
    ...assigned,
    read: (from, until = Effect.never) =>
      Stream.map(assigned.read(from, Effect.raceFirst(begun, until)), (records) => {
        mine.handed = Math.max(mine.handed, records[records.length - 1]!.offset + 1)
        return records
      }),
    commit: (commit) =>
      Effect.tap(assigned.commit(commit), () =>
        Effect.sync(() => {
          mine.committed = Math.max(mine.committed, commit.offset)
        })
      ).pipe(Effect.tapError(() => Effect.sync(() => taken.delete(mine))))
  })

  return {
    log: {
      ...log,
      assignments: (group, topic) =>
        Stream.unwrap(
          Effect.gen(function* () {
            const scope = yield* Effect.scope
            return Stream.mapEffect(log.assignments(group, topic), (assigned) => {
              const mine: Taken = { handed: 0, committed: assigned.committed?.offset ?? 0 }
              taken.add(mine)
              // A partition that is another's now is not waited for.
              const gone = Effect.andThen(
                assigned.revoked,
                Effect.sync(() => taken.delete(mine))
              )
              return Effect.as(Effect.forkIn(gone, scope, { startImmediately: true }), stoppable(assigned, mine))
            })
          })
        )
    },
    drained: Effect.sync(() => [...taken].every(({ handed, committed }) => committed >= handed)).pipe(
      Effect.repeat({ until: (done) => done, schedule: Schedule.spaced(POLL) }),
      Effect.asVoid
    )
  }
}
