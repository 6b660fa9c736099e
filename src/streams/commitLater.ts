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

/** Commits until the scope ends; a commit refused (the partition is another's) is only said. */
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
      yield* assigned.commit({ offset: sent, metadata: "" }).pipe(
        Effect.map(onCommitted),
        Effect.catch((error) => Effect.logDebug(error.message))
      )
      if (sent === offset) settled.openUnsafe()
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
