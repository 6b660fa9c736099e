/** Decides how a process tells of itself: who it is, what it waits for, what is degraded, and its newest figures, every second. */
import { Effect, Layer, Metric } from "effect"
import { type Figure, type ProcessLife, WorkerCounters } from "./ports/WorkerCounters.ts"
import { Readiness } from "./run/Readiness.ts"

const EVERY = "1 second"
/** A stop waits no longer for its entry to be taken from the list. */
const WITHDRAW_WITHIN = "1 second"

/** Every counter and gauge of this process as data. */
export const figures: Effect.Effect<ReadonlyArray<Figure>> = Effect.map(Metric.snapshot, (metrics) =>
  metrics.flatMap((metric) => {
    const labels = metric.attributes ?? {}
    if (metric.type === "Counter") return [{ name: metric.id, labels, value: Number(metric.state.count) }]
    if (metric.type === "Gauge") return [{ name: metric.id, labels, value: Number(metric.state.value) }]
    return []
  })
)

/** `redis` is degraded while what this process tells of itself is not taken. */
export const publishFigures = (life: ProcessLife): Layer.Layer<never, never, WorkerCounters | Readiness> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      const readiness = yield* Readiness
      const publish = Effect.gen(function* () {
        const { waiting, degraded } = yield* readiness.report
        yield* counters.publish({ ...life, waiting, degraded, figures: yield* figures })
      })
      yield* Effect.addFinalizer(() =>
        counters.withdraw(life.life).pipe(Effect.timeout(WITHDRAW_WITHIN), Effect.ignore)
      )
      yield* publish.pipe(
        Effect.andThen(readiness.degrade("redis", false)),
        Effect.catch((error) =>
          Effect.andThen(Effect.logDebug(`figures not published: ${error.message}`), readiness.degrade("redis", true))
        ),
        Effect.andThen(Effect.sleep(EVERY)),
        Effect.forever,
        Effect.forkScoped
      )
    })
  )
