/** Decides how a server tells that history is not to be had: the store is asked every few seconds for next to nothing. */
import { Effect } from "effect"
import type { Readiness } from "./Readiness.ts"
import { retrySink } from "./sinkRetry.ts"
import { TickStore } from "./TickStore.ts"

const LOOK = "5 seconds"
/** No log is called so: no bookmark is found. */
const NO_INCARNATION = "-"

export const watchStore: Effect.Effect<never, never, TickStore | Readiness> = Effect.gen(function* () {
  const store = yield* TickStore
  return yield* store
    .bookmarks(NO_INCARNATION)
    .pipe(retrySink("history"), Effect.andThen(Effect.sleep(LOOK)), Effect.forever)
})
