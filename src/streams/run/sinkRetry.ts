/** Decides how a sink that fails is asked again: for ever, with growing waits and jitter, shown as degraded meanwhile. */
import { Clock, Effect, Fiber, Schedule } from "effect"
import { Readiness } from "./Readiness.ts"
import type { Say } from "./together.ts"

/** 100 ms, doubling up to 5 s, each within ±20 %. */
const waits = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)

/** A failure that stays the same is said again this often. */
const SAY_AGAIN_MS = 60_000
/** One that neither answers nor fails for this long is shown as well: its own time limit may be far longer. */
const SILENT_MS = 10_000

const alone =
  (sink: string): Say =>
  (text) =>
    text === undefined ? Effect.logInfo(`${sink} works again`) : Effect.logWarning(`${sink} ${text}`)

export interface RetryOptions {
  /** What is asked is many steps' work, which may take minutes, so that only failures say something. */
  readonly isLong?: boolean
  /** How long it may give no answer before that is shown and said. */
  readonly silentMs?: number
  /** Says what is wrong, or that nothing is any more, where several ask the same sink. */
  readonly say?: Say
}

/**
 * Asks until it succeeds; `sink` is degraded from the first failure of a row, or the first ten seconds without an
 * answer, until then. A failure is logged where its reason is another than the last, and once a minute while it stays
 * the same.
 */
export const retrySink =
  (sink: string, { isLong = false, silentMs = SILENT_MS, say = alone(sink) }: RetryOptions = {}) =>
  <A, E extends { readonly message: string }, R>(
    write: Effect.Effect<A, E, R>
  ): Effect.Effect<A, never, R | Readiness> =>
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const clock = yield* Clock.Clock
      const holder = {}
      let said: { readonly reason: string; readonly at: number } | undefined
      const once = Effect.tapError(write, ({ message: reason }) => {
        const at = clock.currentTimeMillisUnsafe()
        if (said !== undefined && said.reason === reason && at - said.at < SAY_AGAIN_MS) return Effect.void
        said = { reason, at }
        return Effect.andThen(say(`fails and is asked again: ${reason}`), readiness.degrade(sink, true, holder))
      })
      const silence = yield* Effect.suspend(() => {
        if (said !== undefined || isLong) return Effect.void
        said = { reason: "silent", at: clock.currentTimeMillisUnsafe() }
        return Effect.andThen(say(`has not answered for ${silentMs / 1000} s`), readiness.degrade(sink, true, holder))
      }).pipe(Effect.delay(silentMs), Effect.forkChild)
      const result = yield* Effect.retry(once, waits).pipe(
        Effect.orDie,
        // Also where whoever asked is ended meanwhile.
        Effect.ensuring(Effect.andThen(Fiber.interrupt(silence), readiness.degrade(sink, false, holder)))
      )
      if (said !== undefined) yield* say(undefined)
      return result
    })
