/** Decides what a worker answers, on loopback only: its metrics, its health, and whether it is ready. */

import * as uWS from "uWebSockets.js"
import { Context, Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { StartError } from "../schema/Errors.ts"
import { Readiness } from "../streams/Readiness.ts"
import { guard, guardRules } from "./guard.ts"
import { refuse, requestOrigin } from "./Server.ts"

const HOST = "127.0.0.1"
/** `LIBUS_LISTEN_EXCLUSIVE_PORT`: two workers may not share a port. */
const EXCLUSIVE = 1

export class Operator extends Context.Service<Operator, { readonly port: number; readonly url: string }>()(
  "market-data-platform/http/Operator"
) {}

/** Listens as soon as it is built. `port` 0 picks a free one. */
export const layer = (port: number): Layer.Layer<Operator, StartError, Readiness> =>
  Layer.effect(
    Operator,
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const context = yield* Effect.context<never>()
      const rules = yield* Effect.fromResult(guardRules(HOST, undefined)).pipe(Effect.orDie)
      const check = guard(rules)
      const app = uWS.App()
      const answer = (path: string, respond: Effect.Effect<{ status: string; type: string; body: string }>) =>
        app.get(path, (res, req) => {
          const refusal = check(requestOrigin(req))
          if (refusal !== undefined) return refuse(res, 403, { _tag: "Forbidden", ...refusal })
          let isGone = false
          res.onAborted(() => {
            isGone = true
          })
          Effect.runCallback(Effect.provideContext(respond, context), {
            onExit: (exit) => {
              if (isGone) return
              res.cork(() => {
                if (exit._tag === "Failure") {
                  res.writeStatus("500 Internal Server Error").end()
                  return
                }
                const { status, type, body } = exit.value
                res.writeStatus(status).writeHeader("content-type", type).end(body)
              })
            }
          })
        })
      const json = (status: string, body: object) => ({ status, type: "application/json", body: JSON.stringify(body) })

      answer("/healthz", Effect.succeed(json("200 OK", { status: "ok" })))
      answer(
        "/readyz",
        Effect.map(readiness.report, ({ ready, waiting, degraded }) =>
          ready
            ? json("200 OK", { status: "ready", degraded })
            : json("503 Service Unavailable", { _tag: "NotReady", message: "not ready", waiting, degraded })
        )
      )
      answer(
        "/metrics",
        Effect.map(PrometheusMetrics.format(), (body) => ({
          status: "200 OK",
          type: "text/plain; version=0.0.4; charset=utf-8",
          body
        }))
      )
      app.any("/*", (res) =>
        refuse(res, 404, { _tag: "NotFound", message: "a worker has /metrics, /healthz and /readyz" })
      )

      const listenOn = app.listen.bind(app) as unknown as (
        host: string,
        port: number,
        options: number,
        done: (socket: uWS.us_listen_socket | false) => void
      ) => void
      const socket = yield* Effect.acquireRelease(
        Effect.callback<uWS.us_listen_socket, StartError>((resume) => {
          listenOn(HOST, port, EXCLUSIVE, (listening) =>
            resume(
              listening === false
                ? Effect.fail(
                    new StartError({ message: `METRICS_PORT: cannot listen on ${HOST}:${port}: the port is in use` })
                  )
                : Effect.succeed(listening)
            )
          )
        }),
        () => Effect.sync(() => app.close())
      )
      const used = uWS.us_socket_local_port(socket as unknown as uWS.us_socket)
      return Operator.of({ port: used, url: `http://${HOST}:${used}` })
    })
  )
