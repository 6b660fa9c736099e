/**
 * Decides what a worker answers, and whom: its health and whether it is ready whoever reaches METRICS_HOST, its metrics
 * only loopback, the addresses that METRICS_ALLOW names, and who shows an API key that may read.
 */
import { Context, Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { LiveKey } from "../layers/keys/ApiKeys.ts"
import { SettingError, type StartError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { Access } from "./access.ts"
import { type Bounds, makeFront } from "./front.ts"
import { guard, guardRules } from "./guard.ts"
import { isLoopbackHost, listen, portOf, reachableHost } from "./listen.ts"
import { READ, whole } from "./needs.ts"
import { figuresRefused, HEALTH_PATHS, isLoopback, namedReaders } from "./operators.ts"
import * as uWS from "./uws.ts"

export type OperatorSettings = Pick<
  Settings,
  "METRICS_HOST" | "METRICS_PORT" | "METRICS_ALLOW" | "API_KEYS_FILE" | "ALLOWED_HOSTS" | "HTTP_ADDRESS_PERCENT"
>

/** What a key has to be that reads them. */
const FIGURES = whole(READ)
/** Its requests are all operators'. */
const PLACES = { HTTP_REQUESTS: 1, HTTP_BODIES: 1, HTTP_STREAMS: 1 }

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

/** What the settings say of who may ask what; fails where others reach it, and nobody is named who may. */
export const check = (settings: OperatorSettings) =>
  Effect.gen(function* () {
    const { METRICS_HOST: host, METRICS_ALLOW: allowed } = settings
    const rules = yield* Effect.fromResult(guardRules(host, undefined, settings.ALLOWED_HOSTS))
    const named = yield* Effect.fromResult(namedReaders(allowed))
    const mayRead = (address: string) => isLoopback(address) || named?.(address) === true
    const isSaid = allowed !== undefined || settings.API_KEYS_FILE !== undefined
    if (isLoopbackHost(host) || isSaid) return { rules, mayRead }
    const message = `METRICS_HOST: ${host} can be reached by others: METRICS_ALLOW, such as 10.0.0.0/8, or API_KEYS_FILE has to say who may read /metrics`
    return yield* new SettingError({ setting: "METRICS_HOST", message })
  })

/** Listens as soon as it is built. */
export const layer = (
  settings: OperatorSettings,
  bounds: Bounds = {}
): Layer.Layer<Operator, SettingError | StartError, Access | Readiness> =>
  Layer.effect(
    Operator,
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const { keys } = yield* Access
      const context = yield* Effect.context<never>()
      const { METRICS_HOST: host, METRICS_PORT: port } = settings
      const { rules, mayRead } = yield* check(settings)
      // Where only this machine reaches it, one address may have every place.
      const percent = isLoopbackHost(host) ? 100 : settings.HTTP_ADDRESS_PERCENT
      const places = { ...PLACES, HTTP_ADDRESS_PERCENT: percent }
      const app = uWS.App()
      const routes = new Map<string, Effect.Effect<Answer>>()
      const routeOf = (path: string) => (routes.has(path) ? path : "other")
      const front = yield* makeFront({ ...bounds, guard: guard(rules), routeOf, settings: places })

      const take = (res: uWS.HttpResponse, req: uWS.HttpRequest) => {
        const head = front.admit(res, req, () => "operator")
        if (head === undefined) return
        const wrong = (status: number, _tag: string, parameter: string, message: string) =>
          front.refuse(res, head, "operator", { status, reason: _tag, body: { _tag, message, parameter } })
        if (!HEALTH_PATHS.has(head.path) && !mayRead(head.address)) {
          const key = keys?.request(head, FIGURES) ?? figuresRefused(head.address, head.path)
          if (!(key instanceof LiveKey)) return front.refuse(res, head, "operator", key)
        }
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

      const socket = yield* Effect.acquireRelease(listen(app, host, port, "METRICS_HOST and METRICS_PORT"), () =>
        Effect.sync(() => app.close())
      )
      const used = portOf(socket)
      return Operator.of({ port: used, url: `http://${reachableHost(host)}:${used}` })
    })
  )
