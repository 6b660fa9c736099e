/** Decides what an operator reads over HTTP: health, readiness, metrics, and the topology with its counters. */
import { Clock, Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import { Overview } from "../streams/Overview.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { figures } from "../streams/publishFigures.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { Api } from "./Api.ts"
import { NotReady } from "./errors.ts"
import { HttpSettings } from "./HttpSettings.ts"

export const systemRoutes = HttpApiBuilder.group(
  Api,
  "system",
  Effect.fnUntraced(function* (handlers) {
    const readiness = yield* Readiness
    const instruments = yield* Instruments
    const overview = yield* Overview
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
          const counters = yield* figures
          const { ready, waiting, degraded } = yield* readiness.report
          const { processes, shared, groups } = yield* overview.report
          const { self } = overview
          // Of itself a process knows the newest, also while nobody else can be asked.
          const me = {
            ...self,
            waiting,
            degraded,
            at: (yield* Clock.currentTimeMillis) * 1000,
            silent_ms: 0,
            living: true,
            figures: counters
          }
          const { tokens, unlisted } = instruments.unknown()
          return HttpServerResponse.jsonUnsafe({
            ...describe(),
            unknown_tokens: tokens,
            unknown_tokens_unlisted: unlisted,
            ready,
            waiting,
            degraded,
            groups,
            self: self.life,
            // Whether the list has all processes: null while that cannot be told.
            workers_known: processes === null ? null : shared,
            workers: [me, ...(processes ?? []).filter(({ life }) => life !== self.life)],
            counters
          })
        })
    })
  })
)
