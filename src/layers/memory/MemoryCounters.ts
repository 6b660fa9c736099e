/** Decides how figures of processes are kept in one process: the newest of each life, while it is listed. */
import { Clock, Effect, Layer } from "effect"
import {
  byName,
  finite,
  WORKER_SECONDS,
  WorkerCounters,
  type WorkerReport
} from "../../streams/ports/WorkerCounters.ts"

/** Lives kept; one more drops the one that published longest ago. */
const MAX_WORKERS = 1024

const make = (): WorkerCounters["Service"] => {
  const lives = new Map<string, WorkerReport & { readonly at: number }>()
  return {
    shared: false,
    publish: (report) =>
      Effect.gen(function* () {
        const at = (yield* Clock.currentTimeMillis) * 1000
        // Set anew, so that the lives stay in the order in which they published.
        lives.delete(report.life)
        if (lives.size >= MAX_WORKERS) lives.delete(lives.keys().next().value!)
        const figures = finite(report.figures).map((figure) => ({ ...figure, labels: { ...figure.labels } }))
        lives.set(report.life, { ...report, at, figures })
      }),
    withdraw: (life) =>
      Effect.sync(() => {
        lives.delete(life)
      }),
    all: Effect.gen(function* () {
      const now = (yield* Clock.currentTimeMillis) * 1000
      for (const [life, { at }] of lives) if (now - at >= WORKER_SECONDS * 1_000_000) lives.delete(life)
      return [...lives.values()].map((kept) => ({ ...kept, silent_ms: (now - kept.at) / 1000 })).sort(byName)
    })
  }
}

export const layer: Layer.Layer<WorkerCounters> = Layer.sync(WorkerCounters, make)
