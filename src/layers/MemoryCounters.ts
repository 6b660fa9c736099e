/** Decides how workers' figures are kept in one process: the newest of each, while it is fresh. */
import { Clock, Effect, Layer } from "effect"
import { WORKER_SECONDS, WorkerCounters, type WorkerFigures } from "../streams/WorkerCounters.ts"

/** Workers kept; one more drops the one that published longest ago. */
const MAX_WORKERS = 1024

const make = (): WorkerCounters["Service"] => {
  const workers = new Map<string, WorkerFigures>()
  return {
    publish: (worker, figures) =>
      Effect.gen(function* () {
        const at = (yield* Clock.currentTimeMillis) * 1000
        // Set anew, so that the workers stay in the order in which they published.
        workers.delete(worker)
        if (workers.size >= MAX_WORKERS) workers.delete(workers.keys().next().value!)
        workers.set(worker, {
          worker,
          at,
          figures: figures
            .filter(({ value }) => Number.isFinite(value))
            .map((figure) => ({ ...figure, labels: { ...figure.labels } }))
        })
      }),
    all: Effect.gen(function* () {
      const since = ((yield* Clock.currentTimeMillis) - WORKER_SECONDS * 1000) * 1000
      for (const [worker, { at }] of workers) if (at <= since) workers.delete(worker)
      return [...workers.values()].sort((a, b) => (a.worker < b.worker ? -1 : 1))
    })
  }
}

export const layer: Layer.Layer<WorkerCounters> = Layer.sync(WorkerCounters, make)
