/** Decides that a stop has begun: from then on sinks write what they have at once, so that the logs run empty. */
import { Context, Effect, Latch, Layer } from "effect"

export class Drain extends Context.Service<
  Drain,
  {
    readonly begin: Effect.Effect<void>
    /** Completes once a stop has begun. */
    readonly begun: Effect.Effect<void>
  }
>()("market-data-platform/streams/Drain") {
  static readonly layer = Layer.effect(
    Drain,
    Effect.map(Latch.make(false), (latch) => ({ begin: Effect.asVoid(latch.open), begun: latch.await }))
  )
}
