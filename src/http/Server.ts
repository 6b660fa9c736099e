/**
 * Decides how the platform is reached: one uWebSockets.js app on HOST and PORT, over TLS where a certificate is named,
 * the guard before everything, routes through Effect's web handler, WebSockets and the like mounted natively beside them.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { LiveKey } from "../layers/keys/ApiKeys.ts"
import { StartError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import { bodyLimit } from "./Api.ts"
import { Access } from "./access.ts"
import { needOf, routeCheck, routeOf } from "./answers.ts"
import { Caller, callerOf } from "./caller.ts"
import type { TlsSettings } from "./certificate.ts"
import type { ClientLog } from "./clientLog.ts"
import { dashboardFiles } from "./dashboard.ts"
import { type Exchange, type Refusal, refuseAtOnce } from "./exchange.ts"
import { willStream } from "./exports/format.ts"
import { type Bounds, makeFront } from "./front.ts"
import { type Guard, guard, guardRules, isAllowedOrigin } from "./guard.ts"
import { type GunzipRefusal, gunzip } from "./gunzip.ts"
import { HttpSettings } from "./HttpSettings.ts"
import { type Head, header } from "./head.ts"
import { MAX_JSON_DEPTH, nestsTooDeep } from "./jsonDepth.ts"
import { listen, portOf, reachableHost } from "./listen.ts"
import { OPEN } from "./needs.ts"
import { figuresRefused, HEALTH_PATHS, isLoopback, namedReaders } from "./operators.ts"
import { OPENAPI_PATH, routes } from "./routes.ts"
import { SIMULATED_HEADER } from "./simulatedMark.ts"
import { checkTls, openApp } from "./tlsApp.ts"
import * as uWS from "./uws.ts"

export { requestOrigin } from "./head.ts"

/** Of the time that a stop may take, what requests under way are given to end. */
const DRAIN_SHARE = 0.5

/** What an operator asks: answered from memory, and also where everything else is full. */
const OPERATOR_PATHS = new Set(["/healthz", "/readyz", "/metrics", "/topology"])
/** In front of text, it says nothing: many editors put it there. */
const BOM = Buffer.from([0xef, 0xbb, 0xbf])
/** What they say is of the body as it was sent. */
const BODY_HEADERS = new Set(["content-length", "content-encoding", "transfer-encoding"])

/** What a native route needs of the server. */
export interface Mounting {
  /** To be asked by every upgrade, as it is by every request. */
  readonly guard: Guard
  /** Where refused and ended clients leave their line. */
  readonly log: ClientLog
}

/** Registers native routes on the app; what it answers runs before the app closes, such as saying goodbye. */
export type Mount = (app: uWS.TemplatedApp, mounting: Mounting) => Effect.Effect<void> | undefined

/** Answers a refused request or upgrade of a native route. */
export const refuse = (
  res: uWS.HttpResponse,
  status: number,
  body: Refusal["body"],
  headers: Readonly<Record<string, string>> = {},
  closes = false
): void => refuseAtOnce(res, "GET", { status, body, headers, reason: "" }, closes)

export class Server extends Context.Service<
  Server,
  {
    /** The port in use, also where PORT was 0. */
    readonly port: number
    /** Where to point a browser. */
    readonly url: string
  }
>()("market-data-platform/http/Server") {}

type Handler = (request: Request, context?: Context.Context<never>) => Promise<Response>

/** The request as the web handler takes it; `undefined` where its target or a header cannot be one. */
const webRequest = (path: string, query: string, init: RequestInit): Request | undefined => {
  if (!path.startsWith("/")) return undefined
  try {
    return new Request(`http://server${path}${query === "" ? "" : `?${query}`}`, init)
  } catch {
    return undefined
  }
}

const kindOf = (head: Head) => {
  if (OPERATOR_PATHS.has(head.path)) return "operator"
  // Of any other answer it shows only once it begins.
  if (willStream(head.path, head.query, header(head, "accept"))) return "stream"
  return takesBody(head) ? "body" : "ordinary"
}

/** The body of a GET means nothing, and is passed over. */
const takesBody = ({ method, hasBody }: Head): boolean => hasBody && method !== "GET" && method !== "HEAD"

const unpacked = (refusal: Exclude<GunzipRefusal, "refused">, limit: number): Refusal => {
  const told = {
    too_large: [413, "PayloadTooLarge", `body: expected at most ${limit} bytes unpacked`],
    bomb: [413, "PayloadTooLarge", "body: unpacks to more than 200 times its size"],
    not_gzip: [400, "BadRequest", "body: is not gzip, or not all of it"]
  } as const
  const [status, _tag, message] = told[refusal]
  return { status, reason: refusal, body: { _tag, message, parameter: "body" } }
}

/** What the settings say of who is let in; fails where one of them, or a file that they name, cannot be used. */
export const check = (
  settings: Pick<Settings, "HOST" | "ALLOWED_ORIGINS" | "ALLOWED_HOSTS" | "METRICS_ALLOW"> & TlsSettings
) =>
  Effect.gen(function* () {
    const { HOST, ALLOWED_ORIGINS, ALLOWED_HOSTS, METRICS_ALLOW } = settings
    const rules = yield* Effect.fromResult(guardRules(HOST, ALLOWED_ORIGINS, ALLOWED_HOSTS))
    const named = yield* Effect.fromResult(namedReaders(METRICS_ALLOW))
    yield* checkTls(settings)
    return { rules, named }
  })

/** Listens as soon as it is built, and no longer when its scope ends: requests under way are let end first. */
export const layer = (mounts: ReadonlyArray<Mount> = [], bounds: Bounds = {}) =>
  Layer.effect(
    Server,
    Effect.gen(function* () {
      const settings = yield* HttpSettings
      const { rules, named } = yield* check(settings)
      const guarding = guard(rules)
      const dashboard = yield* Effect.try({
        try: () => dashboardFiles(),
        catch: (error) => new StartError({ message: `the dashboard's files cannot be read: ${String(error)}` })
      })
      const built = yield* Layer.build(Layer.provideMerge(routes(dashboard), HttpRouter.layer))
      const context = Context.merge(yield* Effect.context<never>(), built)
      const handler: Handler = HttpEffect.toWebHandlerWith<
        HttpRouter.HttpRouter,
        HttpServerRequest.HttpServerRequest | Scope.Scope
      >(context)(Context.get(built, HttpRouter.HttpRouter).asHttpEffect())
      const pages = dashboard.map(({ path }) => path)
      const checkRoute = routeCheck([OPENAPI_PATH, ...pages])
      const need = needOf(OPENAPI_PATH, pages)
      const { keys } = yield* Access
      const front = yield* makeFront({ ...bounds, guard: guarding, routeOf, settings })

      const extraHeaders = (origin: string): ReadonlyArray<readonly [string, string]> => {
        const isForeign = origin !== "" && isAllowedOrigin(rules, origin.toLowerCase())
        return [
          ["x-content-type-options", "nosniff"],
          ["cache-control", "no-store"],
          ["cross-origin-resource-policy", isForeign ? "cross-origin" : "same-origin"],
          ...(isForeign
            ? ([
                ["access-control-allow-origin", origin],
                ["access-control-allow-headers", "authorization, content-type, content-encoding"],
                ["access-control-allow-methods", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"],
                ["access-control-expose-headers", `retry-after, etag, ${SIMULATED_HEADER}`],
                ["vary", "origin"]
              ] as const)
            : [])
        ]
      }

      const respond = async (exchange: Exchange, request: Request, extra: ReadonlyArray<readonly [string, string]>) => {
        try {
          const { head, key } = exchange
          const context =
            keys === undefined || key === undefined
              ? undefined
              : Context.make(Caller, callerOf(keys, key, head, front.log))
          const response = await handler(request, context)
          if (exchange.isOver) {
            await response.body?.cancel()
            return
          }
          await exchange.send(response, extra)
        } catch {
          // An answer that breaks off in the middle must not look whole: the connection goes with it. The route has
          // logged why.
          exchange.breakOff("failed")
        }
      }

      const take = (res: uWS.HttpResponse, req: uWS.HttpRequest): void => {
        // `req` is gone when this returns: everything is read from it here.
        const head = front.admit(res, req, kindOf)
        if (head === undefined) return
        const { method, path, query, headers } = head
        const extra = extraHeaders(head.origin.origin)
        const extraRecord = Object.fromEntries(extra)
        const kind = kindOf(head)
        const isFigures = kind === "operator" && !HEALTH_PATHS.has(path)
        // Where a key is asked for, it or an address that METRICS_ALLOW names will do: loopback may be a proxy's.
        const asked = keys === undefined ? undefined : isFigures && named?.(head.address) === true ? OPEN : need(head)
        // Before anything is said of what is there, and before a body is read.
        const key = keys === undefined || asked === OPEN ? undefined : keys.request(head, asked)
        if (key !== undefined && !(key instanceof LiveKey)) {
          front.refuse(res, head, kind, { ...key, headers: { ...extraRecord, ...key.headers } })
          return
        }
        const wrong = checkRoute(head, (name) => header(head, name))
        if (wrong?.status === 204) {
          front.answered(head, 204)
          res.cork(() => {
            res.writeStatus("204 No Content")
            for (const [name, value] of Object.entries({ ...extraRecord, ...wrong.headers })) {
              res.writeHeader(name, value)
            }
            res.endWithoutBody()
          })
          return
        }
        const refusal = (status: number, _tag: string, message: string, parameter?: string): Refusal => ({
          status,
          reason: _tag,
          body: { _tag, message, ...(parameter === undefined ? {} : { parameter }) },
          headers: extraRecord
        })
        if (wrong !== undefined) {
          const { status, tag, message, parameter } = wrong
          const told = refusal(status, tag, message, parameter)
          front.refuse(res, head, kind, { ...told, headers: { ...extraRecord, ...wrong.headers } })
          return
        }
        const isStranger = named !== undefined && !named(head.address) && !isLoopback(head.address)
        if (isFigures && keys === undefined && isStranger) {
          const refused = figuresRefused(head.address, path)
          front.refuse(res, head, kind, { ...refused, headers: extraRecord })
          return
        }
        const exchange = front.begin(res, head, kind, extraRecord)
        if (exchange === undefined) return
        exchange.headers = extraRecord
        exchange.key = key

        const start = (body: Uint8Array<ArrayBuffer> | undefined) => {
          const sent = body === undefined ? headers : headers.filter(([name]) => !BODY_HEADERS.has(name))
          const { signal } = exchange
          const init = { method, headers: sent.map(([name, value]): [string, string] => [name, value]), signal }
          const request = webRequest(path, query, body === undefined ? init : { ...init, body })
          if (request === undefined) {
            exchange.refuse(refusal(400, "BadRequest", "the request's target or one of its headers cannot be read"))
          } else void respond(exchange, request, extra)
        }
        if (kind === "operator") {
          start(undefined)
          return
        }
        const soon = (body: Uint8Array<ArrayBuffer> | undefined) =>
          front.soon(() => {
            if (!exchange.isOver) start(body)
          })
        if (!takesBody(head)) {
          // A route that takes a body gets an empty one.
          soon(method === "POST" || method === "PATCH" ? new Uint8Array(0) : undefined)
          return
        }
        const limit = bodyLimit(path)
        const isJson = header(head, "content-type").trim().toLowerCase().startsWith("application/json")
        const answer = (raw: Buffer<ArrayBuffer>) => {
          const body = raw.subarray(0, BOM.length).equals(BOM) ? raw.subarray(BOM.length) : raw
          if (isJson && nestsTooDeep(body)) {
            const message = `body: expected JSON of at most ${MAX_JSON_DEPTH} levels`
            exchange.refuse(refusal(400, "BadRequest", message, "body"))
          } else if (exchange.moveTo("ordinary")) soon(body)
        }
        exchange.receive(limit, (body) => {
          if (!header(head, "content-encoding").toLowerCase().includes("gzip")) {
            answer(body)
            return
          }
          void gunzip(body, limit, (bytes) => exchange.hold(bytes)).then((whole) => {
            if (exchange.isOver) return
            if (typeof whole !== "string") answer(whole)
            else if (whole !== "refused") exchange.refuse(unpacked(whole, limit))
          })
        })
      }

      if (keys !== undefined) {
        const forget = keys.ring.onEnded((ended) => {
          for (const exchange of front.under) {
            const { key } = exchange
            if (key !== undefined && ended.has(key)) front.soon(() => exchange.forsake(keys.gone(key)))
          }
        })
        yield* Effect.addFinalizer(() => Effect.sync(forget))
      }

      const app = yield* openApp(settings)
      const shielded = front.guarded(app)
      const goodbyes = mounts
        .map((mount) => mount(shielded, { guard: guarding, log: front.log }))
        .filter((goodbye) => goodbye !== undefined)
      shielded.any("/*", take)

      const socket = yield* Effect.acquireRelease(
        listen(app, settings.HOST, settings.PORT, "HOST and PORT"),
        (listening) =>
          Effect.gen(function* () {
            uWS.us_listen_socket_close(listening)
            const drained = Effect.callback<void>((resume) => {
              if (front.slots.size === 0) return resume(Effect.void)
              front.slots.idle = () => resume(Effect.void)
            })
            yield* Effect.all([drained, ...goodbyes], { concurrency: "unbounded", discard: true }).pipe(
              Effect.timeoutOption(settings.DRAIN_DEADLINE_MS * DRAIN_SHARE)
            )
            app.close()
          })
      )
      const port = portOf(socket)
      const scheme = settings.TLS_CERT_FILE === undefined ? "http" : "https"
      return Server.of({ port, url: `${scheme}://${reachableHost(settings.HOST)}:${port}` })
    })
  )
