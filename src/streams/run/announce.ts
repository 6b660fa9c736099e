/**
 * Decides which figures are there before anything has happened: those of every stage that a process runs, at 0. A rate
 * is of two values, and what a figure begins with would be lost to it.
 */
import { Effect } from "effect"
import * as metrics from "../metrics.ts"

/** A node of the topology; `discards`: why it takes out what it does, where it counts what goes through it. */
export type AnnouncedNode = readonly [id: string, kind: string, does: string, discards?: ReadonlyArray<string>]

export const announce = (nodes: ReadonlyArray<AnnouncedNode>): Effect.Effect<void> =>
  Effect.map(Effect.context<never>(), (context) => {
    for (const [stage, kind, , discards] of nodes) {
      if (discards === undefined) continue
      metrics.bind(metrics.stageReceived, { stage }, context).add(0)
      metrics.bind(metrics.stageSent, { stage }, context).add(0)
      for (const reason of discards) metrics.bind(metrics.stageDiscarded, { stage, reason }, context).add(0)
      // A histogram is there once it is looked at: it has no value that adds nothing.
      if (kind === "sink") metrics.sinkFlush.labelled({ sink: stage }).valueUnsafe(context)
    }
  })
