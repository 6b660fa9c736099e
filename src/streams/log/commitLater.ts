/**
 * Decides when offsets that only display and the next owner's start hang on are committed: beside the work, one commit
 * at a time, the newest of those that came meanwhile.
 */
import { Effect, Latch, type Scope } from "effect"
import type { AssignedPartition, Commit } from "./TickLog.ts"

export interface CommitLater {
  readonly commit: (commit: Commit) => void
  /** Completes once the newest is committed, or cannot be any more: the partition is another's. */
  readonly settled: Effect.Effect<void>
}

/** A commit that failed is sent again after so long, unless a newer one comes: the last of a day shows as lag till then. */
const AGAIN = "1 second"

/**
 * Commits until the scope ends or the partition is another's. A commit that fails (the group rebalances for long, the
 * broker does not answer) is said, and sent again; only a stop waits for that.
 */
export const commitLater = (
  assigned: AssignedPartition,
  onCommitted: () => void
): Effect.Effect<CommitLater, never, Scope.Scope> =>
  Effect.gen(function* () {
    const wanted = yield* Latch.make(false)
    const settled = yield* Latch.make(true)
    let isOver = false
    let newest: Commit | undefined
    yield* Effect.gen(function* () {
      yield* wanted.await
      wanted.closeUnsafe()
      const sent = newest!
      const isCommitted = yield* assigned.commit(sent).pipe(
        Effect.map(() => {
          onCommitted()
          return true
        }),
        Effect.catch((error) => Effect.as(Effect.logDebug(error.message), false))
      )
      if (isCommitted) {
        if (sent === newest) settled.openUnsafe()
        return
      }
      yield* Effect.raceFirst(Effect.sleep(AGAIN), wanted.await)
      wanted.openUnsafe()
    }).pipe(
      Effect.forever,
      Effect.raceFirst(assigned.revoked),
      Effect.ensuring(
        Effect.sync(() => {
          isOver = true
          settled.openUnsafe()
        })
      ),
      Effect.forkScoped
    )
    return {
      commit: (next) => {
        if (isOver) return
        newest = next
        settled.closeUnsafe()
        wanted.openUnsafe()
      },
      settled: settled.await
    }
  })
