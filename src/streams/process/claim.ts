/**
 * Decides when others' claims are asked of a batch, and what they decide: on a day whose state was lost a claimed tick is
 * a duplicate; on any other the partition's own state has decided, and without an answer the platform goes on.
 */
import { Effect } from "effect"
import { isUpTo, type SourcePlace, sourceKey } from "../log/source.ts"
import * as metrics from "../metrics.ts"
import { Claims } from "../ports/Claims.ts"
import { crashPoint } from "../run/crashPoint.ts"
import type { AdmittedTick, Batch, Claimed, Deduplicated } from "./batch.ts"
import { discardClaimed } from "./lostDay.ts"

export interface ClaimOptions {
  /** Of the raw topic. */
  readonly incarnation: string
  readonly partition: number
  /** Up to here everything was published, or decided, before a recovery. */
  readonly through: SourcePlace
  /** The day whose state was lost here, with nothing of its records missing; else claims decide nothing. */
  readonly lostDay: number | undefined
  /** The live sources published on it since the checkpoint, where the log shows them all. */
  readonly published: ReadonlySet<string> | undefined
}

/** A batch of which nobody is asked. */
export const unclaimed = (batch: Deduplicated): Claimed => batch as Batch<AdmittedTick, string> as Claimed

/** One question a batch. */
export const claim = ({ incarnation, partition, through, lostDay, published }: ClaimOptions) =>
  Effect.gen(function* () {
    const claims = yield* Claims
    const context = yield* Effect.context<never>()
    const degraded = metrics.bind(metrics.claimsDegraded, {}, context)
    const foreign = metrics.bind(metrics.claimsForeign, {}, context)

    const isDecided = ({ tick, record, index }: AdmittedTick) =>
      isUpTo(through, record.offset, index) && !published!.has(sourceKey(tick.source))

    return (batch: Deduplicated): Effect.Effect<Claimed> => {
      if (lostDay !== undefined && published !== undefined) {
        discardClaimed(batch, lostDay, batch.ticks.filter(isDecided))
      }
      const asked = batch.ticks.filter(
        ({ run, record, isPriceless }) => run === "" && !isPriceless && record.offset > through.offset
      )
      const claimed = unclaimed(batch)
      if (asked.length === 0) return Effect.succeed(claimed)
      const ticks = asked.map(({ tick }) => tick)
      const claimant = { incarnation, partition, through: batch.nextOffset - 1, decides: lostDay !== undefined }
      const found = (others: ReadonlyArray<number>): void => {
        degraded.add(0)
        if (others.length > 0) foreign.add(others.length)
        if (lostDay === undefined) return
        const theirs = others.map((i) => asked[i]!)
        discardClaimed(batch, lostDay, theirs)
      }
      return claims.claim(claimant, ticks).pipe(
        Effect.map(found),
        Effect.catch(() => Effect.sync(() => degraded.add(1))),
        Effect.map(() => {
          crashPoint("after-claim")
          return claimed
        })
      )
    }
  })
