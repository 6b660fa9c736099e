/**
 * Decides how the platform is reached: one uWebSockets.js app on HOST and PORT, the guard before everything, routes
 * through Effect's web handler, WebSockets and the like mounted natively beside them.
 */

import * as uWS from "uWebSockets.js"
import { STATUS_CODES } from "node:http"
import { Context, Effect, Layer, type Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { StartError } from "../schema/Errors.ts"
import { Instruments } from "../streams/Instruments.ts"
import { bodyLimit } from "./Api.ts"
import { ClientLog } from "./clientLog.ts"
import { dashboardFiles } from "./dashboard.ts"
import { type Guard, guard, guardRules, isAllowedOrigin, type RequestOrigin } from "./guard.ts"
import { HttpSettings } from "./HttpSettings.ts"
import { routes } from "./routes.ts"

/** Requests under way at a time; more are refused with 503. */
export const MAX_REQUESTS = 1024
/** Bytes of bodies held at a time, all requests together; more are refused with 429. */
export const MAX_BODIES_BYTES = 128 * 1024 * 1024
/** Of the time that a stop may take, what requests under way are given to end. */
const DRAIN_SHARE = 0.5

/** `LIBUS_LISTEN_EXCLUSIVE_PORT`, which the package exports but does not declare. */
const LISTEN_EXCLUSIVE_PORT = 1

const METHODS = new Set(["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"])

/** What a native route needs of the server. */
export interface Mounting {
  /** To be asked by every upgrade, as it is by every request. */
  readonly guard: Guard
  /** Where refused and ended clients leave their line. */
  readonly log: ClientLog
}

/** Registers native routes on the app; what it answers runs before the app closes, such as saying goodbye. */
export type Mount = (app: uWS.TemplatedApp, mounting: Mounting) => Effect.Effect<void> | undefined

/** The headers that the guard asks for, of a request to a native route. */
export const requestOrigin = (req: uWS.HttpRequest): RequestOrigin => ({
  host: req.getHeader("host"),
  origin: req.getHeader("origin"),
  secFetchSite: req.getHeader("sec-fetch-site"),
  secFetchMode: req.getHeader("sec-fetch-mode")
})

/** Answers a refused request or upgrade of a native route. */
export const refuse = (
  res: uWS.HttpResponse,
  status: number,
  body: { readonly _tag: string; readonly message: string; readonly parameter?: string },
  headers: Readonly<Record<string, string>> = {},
  closes = false
): void => {
  res.cork(() => {
    res.writeStatus(`${status} ${STATUS_CODES[status] ?? ""}`)
    const all = { "content-type": "application/json", "x-content-type-options": "nosniff", ...headers }
    for (const [name, value] of Object.entries(all)) res.writeHeader(name, value)
    res.end(JSON.stringify(body), closes)
  })
}

export class Server extends Context.Service<
  Server,
  {
    /** The port in use, also where PORT was 0. */
    readonly port: number
    /** Where to point a browser. */
    readonly url: string
  }
>()("market-data-platform/http/Server") {}

type Handler = (request: Request) => Promise<Response>

/** One request under way. */
class Exchange {
  readonly res: uWS.HttpResponse
  readonly abort = new AbortController()
  readonly #left: () => void
  /** Called where the socket takes bytes again, or never will. */
  #resume: (() => void) | undefined
  #isOver = false
  #isListening = false

  constructor(res: uWS.HttpResponse, left: () => void) {
    this.res = res
    this.#left = left
    res.onAborted(() => {
      this.end()
      this.abort.abort()
      this.#resume?.()
    })
  }

  /** The response may no longer be touched. */
  get isOver(): boolean {
    return this.#isOver
  }

  end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#left()
  }

  /**
   * Waits until the socket has taken what it was given. The handler is registered once: one that is registered while
   * it runs, as a promise going on inside it would, is put back to the old one by the library.
   */
  writable(): Promise<void> {
    if (!this.#isListening) {
      this.#isListening = true
      this.res.onWritable(() => {
        this.#resume?.()
        return true
      })
    }
    return new Promise((resolve) => {
      this.#resume = resolve
    })
  }
}

const writeHead = (res: uWS.HttpResponse, response: Response, extra: ReadonlyArray<readonly [string, string]>) => {
  res.writeStatus(`${response.status} ${STATUS_CODES[response.status] ?? ""}`)
  for (const [name, value] of response.headers) if (name !== "content-length") res.writeHeader(name, value)
  for (const [name, value] of extra) if (!response.headers.has(name)) res.writeHeader(name, value)
}

/** Sends an answer; one of unknown length piece by piece, the next only when the socket has taken the last. */
const send = async (
  exchange: Exchange,
  response: Response,
  extra: ReadonlyArray<readonly [string, string]>
): Promise<void> => {
  const { res } = exchange
  const length = response.headers.get("content-length")
  if (response.body === null) {
    res.cork(() => {
      writeHead(res, response, extra)
      if (response.status === 204) res.endWithoutBody()
      else res.endWithoutBody(Number(length ?? 0))
    })
    return exchange.end()
  }
  if (length !== null) {
    const bytes = await response.arrayBuffer()
    if (exchange.isOver) return
    res.cork(() => {
      writeHead(res, response, extra)
      res.end(bytes)
    })
    return exchange.end()
  }
  const reader = response.body.getReader()
  res.cork(() => writeHead(res, response, extra))
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (exchange.isOver) return
      if (done) break
      let isTaken = true
      res.cork(() => {
        isTaken = res.write(value as Uint8Array<ArrayBuffer>)
      })
      if (!isTaken) await exchange.writable()
      if (exchange.isOver) return
    }
    res.cork(() => res.end())
    exchange.end()
  } finally {
    // Where the client has gone, the rest is never asked for.
    if (exchange.isOver) reader.cancel().catch(() => undefined)
  }
}

/** The request as the web handler takes it; `undefined` where its target or a header cannot be one. */
const webRequest = (path: string, query: string, init: RequestInit): Request | undefined => {
  if (!path.startsWith("/")) return undefined
  try {
    return new Request(`http://server${path}${query === "" ? "" : `?${query}`}`, init)
  } catch {
    return undefined
  }
}

/** `[::1]` for `::1`. */
const urlHost = (host: string): string => (host.includes(":") && !host.startsWith("[") ? `[${host}]` : host)

const listen = (app: uWS.TemplatedApp, host: string, port: number): Effect.Effect<uWS.us_listen_socket, StartError> =>
  Effect.callback((resume) => {
    // Exclusive: otherwise two processes could share the port, each getting some of the connections. The types of
    // the package leave out the form of `listen` that takes both an address and an option.
    const listenOn = app.listen.bind(app) as unknown as (
      host: string,
      port: number,
      options: number,
      done: (socket: uWS.us_listen_socket | false) => void
    ) => void
    listenOn(host, port, LISTEN_EXCLUSIVE_PORT, (socket) =>
      resume(
        socket === false
          ? Effect.fail(
              new StartError({
                message: `HOST and PORT: cannot listen on ${urlHost(host)}:${port}: the port is in use, or the address is not this machine's`
              })
            )
          : Effect.succeed(socket)
      )
    )
  })

/** Listens as soon as it is built, and no longer when its scope ends: requests under way are let end first. */
export const layer = (mounts: ReadonlyArray<Mount> = []) =>
  Layer.effect(
    Server,
    Effect.gen(function* () {
      const settings = yield* HttpSettings
      const instruments = yield* Instruments
      const rules = yield* Effect.fromResult(guardRules(settings.HOST, settings.ALLOWED_ORIGINS))
      const check = guard(rules)
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

      const logged = Effect.runForkWith(context)
      const log = new ClientLog((line) => {
        logged(Effect.logWarning(line))
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => log.close()))

      let requests = 0
      let bodies = 0
      let idle: (() => void) | undefined

      const extraHeaders = (origin: string): ReadonlyArray<readonly [string, string]> => {
        const isForeign = origin !== "" && isAllowedOrigin(rules, origin.toLowerCase())
        return [
          ["x-content-type-options", "nosniff"],
          ["cache-control", "no-store"],
          ["cross-origin-resource-policy", isForeign ? "cross-origin" : "same-origin"],
          ...(isForeign
            ? ([
                ["access-control-allow-origin", origin],
                ["access-control-allow-headers", "authorization, content-type"],
                ["access-control-allow-methods", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"],
                ["access-control-expose-headers", "retry-after, x-simulated"],
                ["vary", "origin"]
              ] as const)
            : []),
          ...(instruments.simulated() ? ([["x-simulated", "true"]] as const) : [])
        ]
      }

      const respond = async (exchange: Exchange, request: Request, extra: ReadonlyArray<readonly [string, string]>) => {
        try {
          const response = await handler(request)
          if (exchange.isOver) {
            await response.body?.cancel()
            return
          }
          await send(exchange, response, extra)
        } catch {
          // An answer that breaks off in the middle must not look whole: the connection goes with it. The route has
          // logged why.
          if (!exchange.isOver) exchange.res.close()
        }
      }

      const take = (res: uWS.HttpResponse, req: uWS.HttpRequest): void => {
        // `req` is gone when this returns: everything is read from it here.
        const method = req.getCaseSensitiveMethod().toUpperCase()
        const path = req.getUrl()
        const query = req.getQuery()
        const origin = requestOrigin(req)
        const headers: Array<[string, string]> = []
        req.forEach((name, value) => {
          headers.push([name, value])
        })
        const contentLength = req.getHeader("content-length")
        const hasBody = contentLength !== "" || req.getHeader("transfer-encoding") !== ""

        const refusal = check(origin)
        if (refusal !== undefined) {
          refuse(res, 403, { _tag: "Forbidden", ...refusal }, {}, hasBody)
          return
        }
        const extra = extraHeaders(origin.origin)
        const extraRecord = Object.fromEntries(extra)
        if (!METHODS.has(method)) {
          const message = `method: ${method} is not known here`
          refuse(res, 405, { _tag: "MethodNotAllowed", message, parameter: "method" }, extraRecord, true)
          return
        }
        if (requests >= MAX_REQUESTS) {
          const message = `${MAX_REQUESTS} requests are under way already`
          refuse(res, 503, { _tag: "Unavailable", message }, { ...extraRecord, "retry-after": "1" }, true)
          return
        }

        requests += 1
        let held = 0
        const exchange = new Exchange(res, () => {
          requests -= 1
          bodies -= held
          held = 0
          if (requests === 0) idle?.()
        })
        const { signal } = exchange.abort
        const start = (body: Uint8Array<ArrayBuffer> | undefined) => {
          const request = webRequest(path, query, {
            method,
            headers,
            signal,
            ...(body === undefined ? {} : { body })
          })
          if (request === undefined)
            stop(400, "BadRequest", "the request's target or one of its headers cannot be read")
          else void respond(exchange, request, extra)
        }
        const stop = (status: number, tag: string, message: string, more: Readonly<Record<string, string>> = {}) => {
          refuse(
            res,
            status,
            { _tag: tag, message, ...(status === 400 ? {} : { parameter: "body" }) },
            { ...extraRecord, ...more },
            true
          )
          exchange.end()
        }
        if (!hasBody || method === "GET" || method === "HEAD") {
          start(undefined)
          return
        }
        const limit = bodyLimit(path)
        const parts: Array<Uint8Array> = []
        const tooLarge = () => stop(413, "PayloadTooLarge", `body: expected at most ${limit} bytes`)
        if (Number(contentLength) > limit) {
          tooLarge()
          return
        }
        res.onData((chunk, isLast) => {
          if (exchange.isOver) return
          held += chunk.byteLength
          bodies += chunk.byteLength
          if (held > limit) {
            tooLarge()
            return
          }
          if (bodies > MAX_BODIES_BYTES) {
            stop(429, "TooManyRequests", "body: the server holds as many bytes of bodies as it may", {
              "retry-after": "1"
            })
            return
          }
          // The chunk's memory is the app's own again when this returns.
          parts.push(new Uint8Array(chunk.slice(0)))
          if (isLast) start(Buffer.concat(parts))
        })
      }

      const app = uWS.App()
      const goodbyes = mounts
        .map((mount) => mount(app, { guard: check, log }))
        .filter((goodbye) => goodbye !== undefined)
      app.any("/*", take)

      const socket = yield* Effect.acquireRelease(listen(app, settings.HOST, settings.PORT), (listening) =>
        Effect.gen(function* () {
          uWS.us_listen_socket_close(listening)
          const drained = Effect.callback<void>((resume) => {
            if (requests === 0) return resume(Effect.void)
            idle = () => resume(Effect.void)
          })
          yield* Effect.all([drained, ...goodbyes], { concurrency: "unbounded", discard: true }).pipe(
            Effect.timeoutOption(settings.DRAIN_DEADLINE_MS * DRAIN_SHARE)
          )
          app.close()
        })
      )
      const port = uWS.us_socket_local_port(socket as unknown as uWS.us_socket)
      const wildcard = settings.HOST === "0.0.0.0" || settings.HOST === "::"
      return Server.of({ port, url: `http://${wildcard ? "127.0.0.1" : urlHost(settings.HOST)}:${port}` })
    })
  )
