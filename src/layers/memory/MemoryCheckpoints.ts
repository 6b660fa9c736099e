/** Decides how partition states are kept in one process: the newest of each partition, for the newest two raw topics. */
import { Effect, Layer } from "effect"
import { type Checkpoint, Checkpoints } from "../../streams/ports/Checkpoints.ts"

/** Raw incarnations kept for each partition; one more drops the one that came first. */
const MAX_INCARNATIONS = 2

interface Kept extends Checkpoint {
  readonly instruments: Map<number, Uint8Array>
}

const make = (): Checkpoints["Service"] => {
  const partitions = new Map<number, Map<string, Kept>>()
  const counts = new Map<string, number>()
  return {
    partitions: (rawIncarnation, count) =>
      Effect.sync(() => {
        const kept = counts.get(rawIncarnation)
        if (kept !== undefined) return kept
        if (counts.size >= MAX_INCARNATIONS) counts.delete(counts.keys().next().value!)
        counts.set(rawIncarnation, count)
        return count
      }),
    load: (rawIncarnation, partition) =>
      Effect.sync(() => {
        const kept = partitions.get(partition)?.get(rawIncarnation)
        return kept === undefined ? undefined : { ...kept, instruments: new Map(kept.instruments) }
      }),
    save: (partition, { gone = [], ...changed }, since) =>
      Effect.sync(() => {
        let incarnations = partitions.get(partition)
        if (incarnations === undefined) {
          incarnations = new Map()
          partitions.set(partition, incarnations)
        }
        const before = incarnations.get(changed.rawIncarnation)
        // One who lost the partition and does not know it yet must not put its older state over the new owner's.
        if (before !== undefined && changed.rawOffset < before.rawOffset) return true
        if (since !== undefined && (before === undefined || before.rawOffset < since)) return false
        if (before === undefined && incarnations.size >= MAX_INCARNATIONS) {
          incarnations.delete(incarnations.keys().next().value!)
        }
        const instruments = (gone === "others" ? undefined : before?.instruments) ?? new Map<number, Uint8Array>()
        if (gone !== "others") for (const token of gone) instruments.delete(token)
        for (const [token, state] of changed.instruments) instruments.set(token, state.slice())
        incarnations.set(changed.rawIncarnation, { ...changed, instruments })
        return true
      })
  }
}

export const layer: Layer.Layer<Checkpoints> = Layer.sync(Checkpoints, make)
