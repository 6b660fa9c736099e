/** Decides how a process tells that the store or the log does not answer: each is asked every second for next to nothing. */
import { Effect } from "effect"
import { TickLog } from "../log/TickLog.ts"
import { TickStore } from "../ports/TickStore.ts"
import type { Readiness } from "./Readiness.ts"
import { retrySink } from "./sinkRetry.ts"

const LOOK = "1 second"
/** What is asked for next to nothing answers at once: hanging for so long is worth a word. */
const SILENT_MS = 3000
/** No log is called so: no bookmark is found. */
const NO_INCARNATION = "-"

/** `history` is degraded while the store does not answer. */
export const watchStore: Effect.Effect<never, never, TickStore | Readiness> = Effect.gen(function* () {
  const store = yield* TickStore
  return yield* store
    .bookmarks(NO_INCARNATION)
    .pipe(retrySink("history", { silentMs: SILENT_MS }), Effect.andThen(Effect.sleep(LOOK)), Effect.forever)
})

/** `log` is degraded while the log does not answer. */
export const watchLog: Effect.Effect<never, never, TickLog | Readiness> = Effect.gen(function* () {
  const log = yield* TickLog
  return yield* log
    .bounds("normalized_ticks", 0)
    .pipe(retrySink("log", { silentMs: SILENT_MS }), Effect.andThen(Effect.sleep(LOOK)), Effect.forever)
})
