/**
 * Decides what claims decide: on a day whose state was lost, and on no other, what somebody had claimed is a duplicate.
 * What was decided so before a recovery shows in the log: up to `through` whatever is not published was claimed.
 */
import type { Batch, Candidate } from "./batch.ts"

/** Takes out live ticks of a day as duplicates. They stay in the batch, marked, until each has shown its number. */
export const discardClaimed = (batch: Batch, day: number, candidates: Iterable<Candidate>): void => {
  for (const candidate of candidates) {
    if (candidate.run !== "" || candidate.day !== day) continue
    if (candidate.isClaimed || candidate.isPriceless) continue
    candidate.isClaimed = true
    batch.count.claimed++
    batch.count.admitted--
  }
}
