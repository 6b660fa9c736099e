/** Decides how a part that fails is started again, and for how long it is shown as degraded. */
import { Effect, type Schedule } from "effect"
import { Readiness } from "./Readiness.ts"

/** A part that has run for so long works again. */
const STEADY = "1 minute"

/** Starts a part that fails again by `waits`; `name` is degraded from a failure until the part has run steadily. */
export const restart =
  (name: string, waits: Schedule.Schedule<unknown>) =>
  <A, E, R>(part: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Readiness> =>
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const holder = {}
      const release = readiness.degrade(name, false, holder)
      const steady = Effect.sleep(STEADY).pipe(Effect.andThen(release), Effect.andThen(Effect.never))
      return yield* Effect.raceFirst(part, steady).pipe(
        Effect.tapError(() => readiness.degrade(name, true, holder)),
        Effect.retry(waits),
        Effect.ensuring(release)
      )
    })
