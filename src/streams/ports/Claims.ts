/** Decides how ticks are claimed beside the partition's own state, so that two writers of one tick are noticed. */
import { Context, type Effect } from "effect"
import type { CacheError } from "../../schema/Errors.ts"
import type { Tick } from "../../schema/Tick.ts"

/** Who claims, and how far its batch reaches. */
export interface Claimant {
  readonly incarnation: string
  readonly partition: number
  readonly through: number
  /**
   * What is found another's is acted on: it is kept with its source in the same step, and found again by whoever asks
   * again, also for this claimant after a kill.
   */
  readonly decides?: boolean
}

export class Claims extends Context.Service<
  Claims,
  {
    /**
     * Claims a batch, set-if-absent, in one round trip. First raises the offset claimed `through` of this raw
     * incarnation and partition. Answers the indexes of ticks found claimed whose source lies above what had been
     * claimed through before: another's. A claim at or below it is one's own asked again, and passes, unless it was
     * found another's by a call that decided.
     */
    readonly claim: (raw: Claimant, ticks: ReadonlyArray<Tick>) => Effect.Effect<ReadonlyArray<number>, CacheError>
  }
>()("market-data-platform/streams/Claims") {}
