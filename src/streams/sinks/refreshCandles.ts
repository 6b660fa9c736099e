/** Decides when bars that ticks have touched are computed anew: every so often, and at once while more are waiting. */
import { Effect } from "effect"
import type { Settings } from "../../schema/Settings.ts"
import { TickStore } from "../ports/TickStore.ts"
import type { Readiness } from "../run/Readiness.ts"
import { retrySink } from "../run/sinkRetry.ts"

export const refreshCandles = (
  settings: Pick<Settings, "CANDLE_REFRESH_MS">
): Effect.Effect<never, never, TickStore | Readiness> =>
  Effect.gen(function* () {
    const store = yield* TickStore
    const once = store.refreshCandles.pipe(retrySink("candles", { isLong: true }))
    return yield* Effect.forever(
      Effect.flatMap(once, (marks) => (marks > 0 ? Effect.yieldNow : Effect.sleep(settings.CANDLE_REFRESH_MS)))
    )
  })
