/** Decides what the platform needs of the ring: each instrument's newest ticks, for clients that come or come back. */
import { Context, type Effect } from "effect"
import type { CacheError } from "../../schema/Errors.ts"
import type { Tick } from "../../schema/Tick.ts"

export class RecentTicks extends Context.Service<
  RecentTicks,
  {
    /** Takes live ticks in order; those not above the ring's last epoch and position are passed over. */
    readonly append: (ticks: ReadonlyArray<Tick>) => Effect.Effect<void, CacheError>
    /** The newest `limit` ticks of an instrument, ascending. */
    readonly last: (token: number, limit: number) => Effect.Effect<ReadonlyArray<Tick>, CacheError>
    /**
     * The ring's ticks above (epoch, position), ascending. `complete` is false where the ring no longer reaches back
     * that far, so something in between may be missing.
     */
    readonly after: (
      token: number,
      epoch: number,
      position: number
    ) => Effect.Effect<{ readonly ticks: ReadonlyArray<Tick>; readonly complete: boolean }, CacheError>
  }
>()("market-data-platform/streams/RecentTicks") {}
