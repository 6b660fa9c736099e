/** Decides when the platform says it is ready, and what it says is missing or degraded. */
import { Context, Effect, Layer } from "effect"

export interface ReadinessReport {
  readonly ready: boolean
  /** Conditions not yet met, in the order they were named. */
  readonly waiting: ReadonlyArray<string>
  /** What works less well than it should; the platform stays ready. */
  readonly degraded: ReadonlyArray<string>
}

/**
 * Parts name their conditions when they are built, so none is forgotten by whoever asks early, and meet them once.
 * Degradations come and go by name; a name is degraded while anyone who said so holds to it.
 */
export class Readiness extends Context.Service<
  Readiness,
  {
    /** Names a condition; answers what meets it. A condition met stays met. */
    readonly condition: (name: string) => Effect.Effect<Effect.Effect<void>>
    /**
     * Names what is degraded, such as `claims: redis does not answer`, or takes it back. Where several may say so of
     * one name, each gives a holder of its own and takes back only what it said itself.
     */
    readonly degrade: (name: string, degraded: boolean, holder?: object) => Effect.Effect<void>
    readonly report: Effect.Effect<ReadinessReport>
  }
>()("market-data-platform/streams/Readiness") {
  static readonly layer = Layer.sync(Readiness, () => {
    const conditions = new Map<string, boolean>()
    const degraded = new Map<string, Set<object>>()
    const anyone = {}
    return Readiness.of({
      condition: (name) =>
        Effect.sync(() => {
          if (!conditions.has(name)) conditions.set(name, false)
          return Effect.sync(() => {
            conditions.set(name, true)
          })
        }),
      degrade: (name, isDegraded, holder = anyone) =>
        Effect.sync(() => {
          const holders = degraded.get(name)
          if (!isDegraded) {
            holders?.delete(holder)
            if (holders?.size === 0) degraded.delete(name)
          } else if (holders === undefined) degraded.set(name, new Set([holder]))
          else holders.add(holder)
        }),
      report: Effect.sync(() => {
        const waiting = [...conditions].filter(([, met]) => !met).map(([name]) => name)
        return { ready: waiting.length === 0, waiting, degraded: [...degraded.keys()] }
      })
    })
  })
}
