/**
 * Decides what an exception in a stage costs: the tick it came of, which becomes a dead letter, and no other. A stage
 * catches it at the tick and goes on with the next on the state that it left, so that what is left of the one that failed
 * is the same however the partition is cut into arrays. The ticks that go on move up in the batch's own array: a function
 * called a tick and a second array cost a fifth of the stages.
 */
import { showText } from "../../schema/Explain.ts"
import type { DeadLetter, DecodedTick, StageName } from "./batch.ts"

/** Characters of an error that a dead letter says. */
const MAX_ERROR_CHARS = 200

/** The letter of a record on which a stage failed: a fault of the platform's own. */
export const defectOf = (
  stage: Exclude<StageName, "publish">,
  { record, index }: Pick<DecodedTick, "record" | "index">,
  error: unknown
): DeadLetter => {
  let text = "an exception that cannot be shown"
  try {
    text = String(error)
  } catch {
    // It has a `toString` of its own.
  }
  return { record, index, kind: "defect", stage, reason: `${stage} failed: ${showText(text, MAX_ERROR_CHARS)}` }
}
