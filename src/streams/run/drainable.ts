/**
 * Decides how a member of a group stops in order: it takes no more, and is done once all that it took is committed.
 * The partitions stay its own until then.
 */
import { Effect, Schedule, Stream } from "effect"
import type { AssignedPartition, TickLog } from "../log/TickLog.ts"

const POLL = "20 millis"

/** A partition that this member has, by what it took of it. */
interface Taken {
  readonly group: string
  /** Where the reading began that took it. */
  from: number
  /** The next offset after what was handed out. */
  handed: number
  committed: number
}

const isUnderWay = ({ from, handed, committed }: Taken): boolean => handed > from && handed > committed

export interface Drainable {
  /** Its group members stop reading once the stop has begun. */
  readonly log: TickLog["Service"]
  /** Completes when they have committed what they took. */
  readonly drained: Effect.Effect<void>
  /** The groups that have yet to, with how many of their partitions. */
  readonly underWay: Effect.Effect<ReadonlyMap<string, number>>
}

export const drainable = (log: TickLog["Service"], begun: Effect.Effect<void>): Drainable => {
  const taken = new Set<Taken>()

  const stoppable = (assigned: AssignedPartition, mine: Taken): AssignedPartition => ({
    ...assigned,
    read: (from, until = Effect.never) =>
      Stream.suspend(() => {
        // What an earlier reading took beyond it, and did not come to commit, is not under way any more.
        if (from < mine.handed) {
          mine.from = from
          mine.handed = from
        }
        return Stream.map(assigned.read(from, Effect.raceFirst(begun, until)), (records) => {
          mine.handed = records[records.length - 1]!.offset + 1
          return records
        })
      }),
    // One that fails is not waited for less: it is sent again (`commitLater.ts`), or the partition is another's soon.
    commit: (commit) =>
      Effect.tap(assigned.commit(commit), () =>
        Effect.sync(() => {
          mine.committed = Math.max(mine.committed, commit.offset)
        })
      )
  })

  return {
    log: {
      ...log,
      assignments: (group, topic) =>
        Stream.unwrap(
          Effect.gen(function* () {
            const scope = yield* Effect.scope
            const ours = new Set<Taken>()
            const leave = (mine: Taken) => {
              ours.delete(mine)
              taken.delete(mine)
            }
            // A member that left, to join again or for good, has nothing under way.
            yield* Effect.addFinalizer(() => Effect.sync(() => [...ours].forEach(leave)))
            return Stream.mapEffect(log.assignments(group, topic), (assigned) => {
              const mine: Taken = { group, from: 0, handed: 0, committed: assigned.committed?.offset ?? 0 }
              ours.add(mine)
              taken.add(mine)
              // A partition that is another's now is not waited for.
              const gone = Effect.andThen(
                assigned.revoked,
                Effect.sync(() => leave(mine))
              )
              return Effect.as(Effect.forkIn(gone, scope, { startImmediately: true }), stoppable(assigned, mine))
            })
          })
        )
    },
    drained: Effect.sync(() => [...taken].some(isUnderWay)).pipe(
      Effect.repeat({ while: (is) => is, schedule: Schedule.spaced(POLL) }),
      Effect.asVoid
    ),
    underWay: Effect.sync(() => {
      const groups = new Map<string, number>()
      for (const mine of taken) if (isUnderWay(mine)) groups.set(mine.group, (groups.get(mine.group) ?? 0) + 1)
      return groups
    })
  }
}
