/**
 * Decides when offsets that only display and the next owner's start hang on are committed: beside the work, one commit
 * at a time, the newest of those that came meanwhile.
 */
import { Effect, Latch, type Scope } from "effect"
import type { AssignedPartition } from "./TickLog.ts"

export interface CommitLater {
  readonly commit: (offset: number) => void
  /** Completes once nothing waits. */
  readonly settled: Effect.Effect<void>
}

/** A commit that failed is sent again after so long, unless a newer one comes: the last of a day shows as lag till then. */
const AGAIN = "1 second"

/**
 * Commits until the scope ends. A commit that fails (the group rebalances for long, the partition is another's by now)
 * is said, and sent again; nobody waits for that.
 */
export const commitLater = (
  assigned: AssignedPartition,
  onCommitted: () => void
): Effect.Effect<CommitLater, never, Scope.Scope> =>
  Effect.gen(function* () {
    const wanted = yield* Latch.make(false)
    const settled = yield* Latch.make(true)
    let offset = 0
    let sent = 0
    yield* Effect.gen(function* () {
      yield* wanted.await
      wanted.closeUnsafe()
      sent = offset
      const isCommitted = yield* assigned.commit({ offset: sent, metadata: "" }).pipe(
        Effect.map(() => {
          onCommitted()
          return true
        }),
        Effect.catch((error) => Effect.as(Effect.logDebug(error.message), false))
      )
      if (sent === offset) settled.openUnsafe()
      if (isCommitted) return
      yield* Effect.raceFirst(Effect.sleep(AGAIN), wanted.await)
      wanted.openUnsafe()
    }).pipe(Effect.forever, Effect.forkScoped)
    return {
      commit: (next) => {
        offset = next
        settled.closeUnsafe()
        wanted.openUnsafe()
      },
      settled: settled.await
    }
  })
