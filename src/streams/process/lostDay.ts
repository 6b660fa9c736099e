/**
 * Decides what claims decide: on a day whose state was lost, and on no other, what somebody had claimed is a duplicate.
 * What was decided so before a recovery shows in the log: up to `through` whatever is not published was claimed.
 */
import type { AdmittedTick, Deduplicated } from "./batch.ts"

/** Takes out live ticks of a day as duplicates. They stay in the batch, marked, until each has shown its number. */
export const discardClaimed = (batch: Deduplicated, day: number, candidates: Iterable<AdmittedTick>): void => {
  const count = batch.passed[batch.passed.length - 1]!
  if (count.stage !== "deduplicate") return
  for (const candidate of candidates) {
    if (candidate.run !== "" || candidate.day !== day) continue
    if (candidate.isClaimed || candidate.isPriceless) continue
    candidate.isClaimed = true
    count.discarded.claimed = (count.discarded.claimed ?? 0) + 1
    count.sent--
  }
}
