/**
 * Decides what an exception in a stage costs: the tick it came of, which becomes a dead letter, and no other. A stage
 * goes through its ticks one after the other, each on the state that those before have left, so that what is left of
 * the one that failed is the same however the partition is cut into arrays.
 */
import { showText } from "../schema/Explain.ts"
import type { Batch, Candidate, DeadLetter, StageName } from "./batch.ts"
import type { LogRecord } from "./TickLog.ts"

/** Characters of an error that a dead letter says. */
const MAX_ERROR_CHARS = 200

/** The letter of a record on which a stage failed: a fault of the platform's own. */
export const defectOf = (stage: StageName, record: LogRecord, index: number, error: unknown): DeadLetter => {
  let text = "an exception that cannot be shown"
  try {
    text = String(error)
  } catch {
    // It has a `toString` of its own.
  }
  return { record, index, kind: "defect", stage, reason: `${stage} failed: ${showText(text, MAX_ERROR_CHARS)}` }
}

/**
 * Runs `step` on each tick of the batch; answers those on which it threw, which are dead letters then. The batch's own
 * array stays as it is. What throws is caught outside the loop: a tick pays nothing for it.
 */
export const eachTick = (
  batch: Batch,
  stage: StageName,
  step: (candidate: Candidate) => void
): ReadonlyArray<Candidate> => {
  const { ticks } = batch
  const { length } = ticks
  let failed: ReadonlyArray<Candidate> = NONE
  let at = 0
  while (at < length) {
    try {
      while (at < length) step(ticks[at++]!)
    } catch (error) {
      const candidate = ticks[at - 1]!
      batch.dead.push(defectOf(stage, candidate.record, candidate.index, error))
      failed = [...failed, candidate]
    }
  }
  return failed
}

const NONE: ReadonlyArray<Candidate> = []
