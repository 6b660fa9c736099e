/** Decides how a test reads what a stage counted: received, sent, and by reason what it left out. */
import { Effect, Metric } from "effect"

export const countedOf = (stage: string) =>
  Effect.map(Metric.snapshot, (metrics) =>
    Object.fromEntries(
      metrics
        .filter(({ attributes }) => attributes?.stage === stage)
        .map(({ id, attributes, state }) => [
          attributes?.reason ?? id.replace(/^topology_stage_|_events_total$/g, ""),
          Number((state as { readonly count: number }).count)
        ])
    )
  )
