/** Decides how a sink that fails is asked again: for ever, with growing waits and jitter, shown as degraded meanwhile. */
import { Effect, Schedule } from "effect"
import { Readiness } from "./Readiness.ts"

/** 100 ms, doubling up to 5 s, each within ±20 %. */
const waits = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)

/** Asks until it succeeds. The first failure of a row is logged and degrades `sink`; success takes that back. */
export const retrySink =
  (sink: string) =>
  <A, E extends { readonly message: string }, R>(
    write: Effect.Effect<A, E, R>
  ): Effect.Effect<A, never, R | Readiness> =>
    Effect.gen(function* () {
      const readiness = yield* Readiness
      let failed = false
      const once = Effect.tapError(write, (error) => {
        if (failed) return Effect.void
        failed = true
        return Effect.andThen(
          Effect.logWarning(`${sink} fails and is asked again: ${error.message}`),
          readiness.degrade(sink, true)
        )
      })
      const result = yield* Effect.retry(once, waits).pipe(Effect.orDie)
      if (failed) {
        yield* readiness.degrade(sink, false)
        yield* Effect.logInfo(`${sink} works again`)
      }
      return result
    })
