/**
 * Decides which replay runs a partition holds a state of. Anybody may write a record that names a run, so runs have a
 * bound and are forgotten: one that ended, one that nothing came of for long, and first of all one without a watermark,
 * which is none: a replay's ticks and their watermark are one append.
 */
import { PartitionState } from "./partitionState.ts"

/** Replay runs whose state a partition holds at a time; one more drops one without a watermark, else the one idle longest. */
export const MAX_RUNS = 64
/** A run that nothing came of for this long (µs of record time) is forgotten: a day, since a replay may be paused. */
export const RUN_HOLD_MICROS = 86_400_000_000
/** … and one without a watermark after this long. */
export const UNMARKED_HOLD_MICROS = 60_000_000

interface Run {
  /** The raw offset of its first record: from here on it is run again. */
  readonly since: number
  readonly state: PartitionState
  touched: number
  isMarked: boolean
}

const isOver = ({ touched, isMarked }: Run, recordTime: number): boolean =>
  touched + (isMarked ? RUN_HOLD_MICROS : UNMARKED_HOLD_MICROS) < recordTime

export class RunStates {
  readonly #runs = new Map<string, Run>()

  get size(): number {
    return this.#runs.size
  }

  /** The state of a run at a record of it, begun on its first tick. `recordTime`: the log's, not the tick's. */
  of(run: string, offset: number, recordTime: number): PartitionState {
    let found = this.#runs.get(run)
    if (found === undefined || isOver(found, recordTime)) {
      this.#runs.delete(run)
      if (this.#runs.size >= MAX_RUNS) this.#dropOne(recordTime)
      found = { since: offset, state: new PartitionState(), touched: recordTime, isMarked: false }
      this.#runs.set(run, found)
    }
    found.touched = recordTime
    return found.state
  }

  /** A watermark of a run came; one that ends it frees its state. A run without a tick here has none. */
  mark(run: string, end: boolean, recordTime: number): void {
    const found = this.#runs.get(run)
    if (found === undefined) return
    if (end || isOver(found, recordTime)) {
      this.#runs.delete(run)
      return
    }
    found.isMarked = true
    found.touched = recordTime
  }

  /** The raw offset of the first record of each run that goes on at a record time. */
  since(recordTime: number): Map<string, number> {
    const since = new Map<string, number>()
    for (const [name, run] of this.#runs) if (!isOver(run, recordTime)) since.set(name, run.since)
    return since
  }

  #dropOne(recordTime: number): void {
    let least: string | undefined
    let rank = Number.POSITIVE_INFINITY
    for (const [name, run] of this.#runs) {
      if (isOver(run, recordTime)) {
        least = name
        break
      }
      // Whatever has a watermark outlasts all that have none.
      const mine = run.touched + (run.isMarked ? Number.MAX_SAFE_INTEGER : 0)
      if (mine < rank) {
        rank = mine
        least = name
      }
    }
    if (least !== undefined) this.#runs.delete(least)
  }
}
