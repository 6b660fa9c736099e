/**
 * Decides when the state of a partition is kept, and what of it: what changed since the last time, whole where nothing
 * is known to be kept; and at once where a state was lost, since until then a kill would lose it once more.
 */
import { Clock, Effect } from "effect"
import * as metrics from "../metrics.ts"
import { Checkpoints } from "../ports/Checkpoints.ts"
import { crashPoint } from "../run/crashPoint.ts"
import type { PartitionStates } from "./batch.ts"
import { checkpointOf } from "./recover.ts"

export interface CheckpointOptions {
  readonly partition: number
  readonly states: PartitionStates
  readonly rawIncarnation: string
  readonly normalizedIncarnation: string
  /** The raw offset of the checkpoint that the state came of; undefined: it came of none. */
  readonly savedOffset: number | undefined
  /** Longest time between two, ms. */
  readonly everyMs: number
}

/** Where the pipeline stands. */
export interface CheckpointPlace {
  readonly rawOffset: number
  /** Where the next owner looks for what was published beyond it. */
  readonly normalizedOffset: number
  /** The newest record time in the state, µs. */
  readonly recordTime: number
}

/** Keeps the state where it is time to. What cannot be kept is kept the next time, and shown as degraded until then. */
export const checkpoint = (options: CheckpointOptions) =>
  Effect.gen(function* () {
    const { partition, states, rawIncarnation, normalizedIncarnation, everyMs } = options
    const checkpoints = yield* Checkpoints
    const clock = yield* Clock.Clock
    const degraded = metrics.bind(metrics.checkpointsDegraded, {}, yield* Effect.context<never>())
    /** The checkpoint that the next one changes; undefined: the next one is whole. */
    let { savedOffset } = options
    /** Record time of the newest record in it. */
    let savedTime = Number.NEGATIVE_INFINITY
    let savedAt = states.live.lost !== undefined && savedOffset === undefined ? 0 : clock.currentTimeMillisUnsafe()

    const save = ({ rawOffset, normalizedOffset, recordTime }: CheckpointPlace) => {
      const { live } = states
      // A whole one names all there are: what else is kept there is of nobody.
      if (savedOffset === undefined) live.gone = "others"
      else if (live.gone === "others") savedOffset = undefined
      const changed = live.changedSince(savedOffset === undefined ? Number.NEGATIVE_INFINITY : savedTime)
      savedAt = clock.currentTimeMillisUnsafe()
      const marks = { rawIncarnation, rawOffset, normalizedIncarnation, normalizedOffset }
      return checkpoints.save(partition, checkpointOf(states, changed, recordTime, marks), savedOffset).pipe(
        Effect.map((isKept) => {
          crashPoint("after-checkpoint")
          savedOffset = isKept ? rawOffset : undefined
          live.gone = new Set()
          savedTime = recordTime
          return degraded.add(0)
        }),
        Effect.catch((error) => {
          degraded.add(1)
          return Effect.logDebug(`partition ${partition}: checkpoint not kept: ${error.message}`)
        })
      )
    }

    return (place: CheckpointPlace): Effect.Effect<void> =>
      Effect.suspend(() => (clock.currentTimeMillisUnsafe() - savedAt >= everyMs ? save(place) : Effect.void))
  })
