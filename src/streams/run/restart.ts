/** Decides how a part that fails is started again, for how long it is shown as degraded, and that a partition fails alone. */
import { Cause, Effect, Fiber, Schedule } from "effect"
import type { AssignedPartition, Commit } from "../log/TickLog.ts"
import { Readiness } from "./Readiness.ts"
import { together } from "./together.ts"

/** A part that has run for so long works again. */
const STEADY = "1 minute"

/** A partition that failed is started again after 0.1 s, doubling to 5 s. */
const PARTITION_WAITS = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]).pipe(
  Schedule.jittered
)

/** What the world did is a sentence; only a defect of this software is told with where it happened. */
export const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const failure = Cause.findErrorOption(cause)
  if (failure._tag === "Some") {
    const { message } = failure.value as { readonly message?: unknown }
    if (typeof message === "string" && message !== "") return message
  }
  return Cause.pretty(cause)
}

/** Starts a part that fails again by `waits`; `name` is degraded from a failure until the part has run steadily. */
export const restart =
  (name: string, waits: Schedule.Schedule<unknown>, goesOn: () => boolean = () => true) =>
  <A, E, R>(part: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Readiness> =>
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const holder = {}
      const release = readiness.degrade(name, false, holder)
      const steady = Effect.sleep(STEADY).pipe(Effect.andThen(release), Effect.andThen(Effect.never))
      return yield* Effect.raceFirst(part, steady).pipe(
        Effect.tapError(() => readiness.degrade(name, true, holder)),
        Effect.retry({ schedule: waits, while: goesOn }),
        Effect.ensuring(release)
      )
    })

type Partition = Pick<AssignedPartition, "partition" | "revoked">

/**
 * Runs one partition's part of `who` again and again until it ends by itself or `revoked` completes: whatever it fails
 * of, a defect included, the other partitions go on. Degraded by its name, such as `store partition 3`.
 */
export const alone = (who: string) => {
  const sayOf = together(who, { isOnce: true })
  return <E, R>(
    { partition, revoked }: Partition,
    part: Effect.Effect<unknown, E, R>
  ): Effect.Effect<void, never, R | Readiness> =>
    Effect.gen(function* () {
      let isOver = false
      const watch = yield* Effect.forkChild(
        Effect.andThen(
          revoked,
          Effect.sync(() => {
            isOver = true
          })
        ),
        { startImmediately: true }
      )
      yield* part.pipe(
        Effect.tapCause((cause) =>
          Cause.hasInterruptsOnly(cause)
            ? Effect.void
            : sayOf(partition)(`fails and is started again: ${reasonOf(cause)}`)
        ),
        Effect.sandbox,
        restart(`${who} partition ${partition}`, PARTITION_WAITS, () => !isOver),
        Effect.catch((cause) => (isOver ? Effect.void : Effect.failCause(cause))),
        Effect.orDie,
        Effect.ensuring(Fiber.interrupt(watch))
      )
    })
}

/** The same for a group's member: what starts again goes on from what it committed itself. */
export const aloneInGroup = (group: string) => {
  const inTurn = alone(group)
  return <E, R>(run: (assigned: AssignedPartition) => Effect.Effect<unknown, E, R>) =>
    (assigned: AssignedPartition): Effect.Effect<void, never, R | Readiness> =>
      Effect.suspend(() => {
        let { committed } = assigned
        const commit = (next: Commit) =>
          Effect.map(assigned.commit(next), () => {
            committed = next
          })
        return inTurn(
          assigned,
          Effect.suspend(() => run({ ...assigned, committed, commit }))
        )
      })
}
