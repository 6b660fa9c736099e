/** Decides what a worker answers, on loopback only: its metrics, its health, and whether it is ready. */

import * as uWS from "uWebSockets.js"
import { Context, Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import type { StartError } from "../schema/Errors.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { type Bounds, makeFront } from "./front.ts"
import { guard, guardRules } from "./guard.ts"
import { listen, portOf } from "./listen.ts"

const HOST = "127.0.0.1"
/** Its requests are all operators'; and as only this machine reaches it, one address may have every place. */
const SETTINGS = { HTTP_REQUESTS: 1, HTTP_BODIES: 1, HTTP_STREAMS: 1, HTTP_ADDRESS_PERCENT: 100 }

const EXTRA = [
  ["x-content-type-options", "nosniff"],
  ["cache-control", "no-store"]
] as const

interface Answer {
  readonly status: number
  readonly type: string
  readonly body: string
}

export class Operator extends Context.Service<Operator, { readonly port: number; readonly url: string }>()(
  "market-data-platform/http/Operator"
) {}

/** Listens as soon as it is built. `port` 0 picks a free one. */
export const layer = (port: number, bounds: Bounds = {}): Layer.Layer<Operator, StartError, Readiness> =>
  Layer.effect(
    Operator,
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const context = yield* Effect.context<never>()
      const rules = yield* Effect.fromResult(guardRules(HOST, undefined)).pipe(Effect.orDie)
      const app = uWS.App()
      const routes = new Map<string, Effect.Effect<Answer>>()
      const routeOf = (path: string) => (routes.has(path) ? path : "other")
      const front = yield* makeFront({ ...bounds, guard: guard(rules), routeOf, settings: SETTINGS })

      const take = (res: uWS.HttpResponse, req: uWS.HttpRequest) => {
        const head = front.admit(res, req, () => "operator")
        if (head === undefined) return
        const wrong = (status: number, _tag: string, parameter: string, message: string) =>
          front.refuse(res, head, "operator", { status, reason: _tag, body: { _tag, message, parameter } })
        const respond = routes.get(head.path)
        if (respond === undefined) {
          return wrong(404, "NotFound", "path", `a worker has ${[...routes.keys()].join(", ")}`)
        }
        if (head.method !== "GET" && head.method !== "HEAD") {
          return wrong(405, "MethodNotAllowed", "method", "method: expected GET, HEAD")
        }
        const exchange = front.begin(res, head, "operator")
        if (exchange === undefined) return
        Effect.runCallback(Effect.provideContext(respond, context), {
          onExit: (exit) => {
            if (exchange.isOver) return
            if (exit._tag === "Success") {
              const { status, type, body } = exit.value
              const headers = { "content-type": type, "content-length": String(Buffer.byteLength(body)) }
              const answer = new Response(head.method === "HEAD" ? null : body, { status, headers })
              exchange.send(answer, EXTRA).catch(() => exchange.breakOff("failed"))
              return
            }
            const message = "the worker failed to answer"
            exchange.refuse({ status: 500, reason: "failed", body: { _tag: "InternalError", message } })
          }
        })
      }
      const json = (status: number, body: object) => ({ status, type: "application/json", body: JSON.stringify(body) })

      routes.set("/healthz", Effect.succeed(json(200, { status: "ok" })))
      routes.set(
        "/readyz",
        Effect.map(readiness.report, ({ ready, waiting, degraded }) =>
          ready
            ? json(200, { status: "ready", degraded })
            : json(503, { _tag: "NotReady", message: "not ready", waiting, degraded })
        )
      )
      routes.set(
        "/metrics",
        Effect.map(PrometheusMetrics.format(), (body) => ({
          status: 200,
          type: "text/plain; version=0.0.4; charset=utf-8",
          body
        }))
      )
      front.guarded(app).any("/*", take)

      const socket = yield* Effect.acquireRelease(listen(app, HOST, port, "METRICS_PORT"), () =>
        Effect.sync(() => app.close())
      )
      const used = portOf(socket)
      return Operator.of({ port: used, url: `http://${HOST}:${used}` })
    })
  )
