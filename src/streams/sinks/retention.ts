/** Decides when days that the store is no longer to keep are looked for: every minute, where STORE_DAYS says so. */
import { Effect } from "effect"
import type { Settings } from "../../schema/Settings.ts"
import { TickStore } from "../ports/TickStore.ts"
import type { Readiness } from "../run/Readiness.ts"
import { retrySink } from "../run/sinkRetry.ts"

const LOOK = "1 minute"

export const retention = (settings: Pick<Settings, "STORE_DAYS">): Effect.Effect<never, never, TickStore | Readiness> =>
  Effect.gen(function* () {
    if (settings.STORE_DAYS === 0) return yield* Effect.never
    const store = yield* TickStore
    const once = store.dropOldDays.pipe(retrySink("old days", { isLong: true }))
    return yield* Effect.forever(
      Effect.gen(function* () {
        const dropped = yield* once
        if (dropped > 0)
          yield* Effect.logInfo(`store: ${dropped} days of ticks older than ${settings.STORE_DAYS} days dropped`)
        yield* Effect.sleep(LOOK)
      })
    )
  })
