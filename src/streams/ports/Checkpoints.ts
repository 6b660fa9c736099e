/** Decides where a partition's state is kept so that another owner of the partition can go on from it. */
import { Context, type Effect } from "effect"
import type { CacheError } from "../../schema/Errors.ts"

/** A partition's state at one instant: every publish up to `normalizedOffset` came of raw records below `rawOffset`. */
export interface Checkpoint {
  readonly rawIncarnation: string
  readonly rawOffset: number
  readonly normalizedIncarnation: string
  readonly normalizedOffset: number
  /** Instrument states by token, each encoded on its own so that only what changed is written. */
  readonly instruments: ReadonlyMap<number, Uint8Array>
}

/** What of a partition's state is put into its checkpoint. */
export interface ChangedState extends Checkpoint {
  /** Instruments that are taken out of it; `others`: all that are not named. */
  readonly gone?: ReadonlyArray<number> | "others"
}

export class Checkpoints extends Context.Service<
  Checkpoints,
  {
    /** How many partitions states of this incarnation of `raw_ticks` are kept for: so many, where none was ever kept. */
    readonly partitions: (rawIncarnation: string, partitions: number) => Effect.Effect<number, CacheError>
    readonly load: (rawIncarnation: string, partition: number) => Effect.Effect<Checkpoint | undefined, CacheError>
    /**
     * Puts the changed instruments and the marks, and takes out those gone, in one step; the others keep what they had. `since` is the raw
     * offset of the checkpoint that they changed from; undefined: all instruments are named. False: that checkpoint is gone,
     * nothing was put, and all of them are to be saved.
     */
    readonly save: (partition: number, changed: ChangedState, since?: number) => Effect.Effect<boolean, CacheError>
  }
>()("market-data-platform/streams/Checkpoints") {}
