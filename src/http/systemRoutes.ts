/** Decides what an operator reads over HTTP: health, readiness, metrics, and the topology with its counters. */
import { Effect, Metric } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import { Instruments } from "../streams/Instruments.ts"
import { Readiness } from "../streams/Readiness.ts"
import { WorkerCounters } from "../streams/WorkerCounters.ts"
import { Api } from "./Api.ts"
import { NotReady } from "./errors.ts"
import { HttpSettings } from "./HttpSettings.ts"

/** Every counter and gauge as data. */
const counters = Effect.map(Metric.snapshot, (metrics) =>
  metrics.flatMap((metric) => {
    if (metric.type === "Counter") {
      return [{ name: metric.id, labels: metric.attributes ?? {}, value: Number(metric.state.count) }]
    }
    if (metric.type === "Gauge") {
      return [{ name: metric.id, labels: metric.attributes ?? {}, value: Number(metric.state.value) }]
    }
    return []
  })
)

export const systemRoutes = HttpApiBuilder.group(
  Api,
  "system",
  Effect.fnUntraced(function* (handlers) {
    const readiness = yield* Readiness
    const instruments = yield* Instruments
    const workers = yield* WorkerCounters
    const { describe } = yield* HttpSettings
    return handlers.handleAll({
      healthz: () => Effect.succeed({ status: "ok" as const }),
      readyz: () =>
        Effect.flatMap(readiness.report, ({ ready, waiting, degraded }) =>
          ready
            ? Effect.succeed({ status: "ready" as const, degraded })
            : Effect.fail(new NotReady({ message: `waiting for ${waiting.join(", ")}`, waiting, degraded }))
        ),
      metrics: () => PrometheusMetrics.format(),
      topology: () =>
        Effect.gen(function* () {
          const figures = yield* counters
          const others = yield* Effect.orElseSucceed(workers.all, () => [])
          const { tokens, unlisted } = instruments.unknown()
          return HttpServerResponse.jsonUnsafe({
            ...describe(),
            simulated: instruments.simulated(),
            unknown_tokens: tokens,
            unknown_tokens_unlisted: unlisted,
            counters: figures,
            workers: others
          })
        })
    })
  })
)
