/** Decides when the archive's small objects are joined: once a trading day has closed, and again where more came for it. */
import { Clock, Effect } from "effect"
import { tradingDate, tradingDay } from "../../schema/Tick.ts"
import { Archive } from "../ports/Archive.ts"
import type { Readiness } from "../run/Readiness.ts"
import { retrySink } from "../run/sinkRetry.ts"

const LOOK = "10 minutes"
/** So long after its midnight a day counts as closed: what was gathered of it is written by then, as a rule. */
const CLOSED_AFTER_MS = 3_600_000

export const compactDays: Effect.Effect<never, never, Archive | Readiness> = Effect.gen(function* () {
  const archive = yield* Archive
  return yield* Effect.forever(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const joined = yield* archive
        .compact(tradingDate(tradingDay((now - CLOSED_AFTER_MS) * 1000)))
        .pipe(retrySink("compaction", { isLong: true }))
      if (joined > 0) yield* Effect.logInfo(`archive: ${joined} small objects of closed days joined`)
      yield* Effect.sleep(LOOK)
    })
  )
})
