/**
 * Decides what is answered where no route answers: unknown paths, wrong methods and media types, inputs that their
 * schema refuses, and defects. All of it in the contract's form.
 */
import { Cause, Context, Effect, type Layer, Option, type Types } from "effect"
import { HttpRouter, HttpServerError, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiMiddleware } from "effect/http-api"
import { explain, showValue } from "../schema/Explain.ts"
import { Api, SchemaRefusals } from "./Api.ts"
import { BadRequest } from "./errors.ts"
import { type Need, Needs, OPEN, READ } from "./needs.ts"
import { answeredAt } from "./udfErrors.ts"

interface Route {
  readonly method: string
  /** As the API writes it, `:id` for what stands there. */
  readonly template: string
  readonly path: RegExp
  /** Media types of the body; empty where it takes none. */
  readonly bodies: ReadonlyArray<string>
}

interface ApiRoute extends Route {
  readonly need: Need
}

const pathPattern = (path: string): RegExp =>
  new RegExp(`^${path.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replace(/:[A-Za-z]+/g, "[^/]+")}$`)

const apiRoutes: ReadonlyArray<ApiRoute> = Object.values(Api.groups).flatMap((group) =>
  Object.values(group.endpoints).map((endpoint) => ({
    method: endpoint.method,
    template: endpoint.path,
    path: pathPattern(endpoint.path),
    bodies: [...endpoint.payload.keys()],
    // It throws where an endpoint does not say: nobody is to find out at the first request.
    need: Context.get(endpoint.annotations as Context.Context<Needs>, Needs)
  }))
)

/**
 * What a request asks of a key, by its route. `openApi` is the path of the API's description, `open` are those that are
 * open to everybody. `undefined` where there is no such route: any key will do to learn that.
 */
export const needOf = (openApi: string, open: ReadonlyArray<string>) => {
  const others = new Map<string, Need>([[openApi, READ], ...open.map((path) => [path, OPEN] as const)])
  return ({ method, path }: { readonly method: string; readonly path: string }): Need | undefined => {
    // What a page of another origin asks before it may send a key; the answer says which methods there are.
    if (method === "OPTIONS") return OPEN
    const wanted = method === "HEAD" ? "GET" : method
    const here = apiRoutes.filter((route) => route.method === wanted && route.path.test(path))
    // As the router does: what is written out goes before a name for anything.
    const route = here.find(({ template }) => template === path) ?? here[0]
    return route?.need ?? (wanted === "GET" ? others.get(path) : undefined)
  }
}

/** What is no route of the API: the dashboard's files, the API's own description, and what is not there. */
const OTHER = "other"

/** The route of the API that a path belongs to, as the API writes it: one of few, whatever is asked for. */
export const routeOf = (path: string): string => apiRoutes.find((route) => route.path.test(path))?.template ?? OTHER

/** An error outside any endpoint. */
export const errorResponse = (
  status: number,
  tag: string,
  message: string,
  options: { readonly parameter?: string; readonly headers?: Readonly<Record<string, string>> } = {}
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(
    { _tag: tag, message, ...(options.parameter === undefined ? {} : { parameter: options.parameter }) },
    { status, ...(options.headers === undefined ? {} : { headers: options.headers }) }
  )

const internalError = errorResponse(500, "InternalError", "the server failed to answer; its log says why")

const pathOf = (request: HttpServerRequest.HttpServerRequest): string => request.url.split("?", 1)[0]!
const mediaType = (header: string | undefined): string => (header ?? "").split(";", 1)[0]!.trim().toLowerCase()

const METHODS = ["GET", "HEAD", "QUERY", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"]

/** What is wrong with a request before its route is asked; 204 is the answer to OPTIONS. */
export interface RouteRefusal {
  readonly status: 204 | 404 | 405 | 415 | 501
  readonly tag: string
  readonly message: string
  readonly parameter: string
  readonly headers?: Readonly<Record<string, string>>
}

const notFound = (path: string): RouteRefusal => ({
  status: 404,
  tag: "NotFound",
  message: `path: nothing is at ${showValue(path)}`,
  parameter: "path"
})

/** Content codings that a body may have; empty: none. */
const CODINGS = new Set(["", "identity", "gzip", "x-gzip"])

/**
 * Answers what is wrong with a request by its head alone, so that nobody sends a body that no route will take.
 * `paths` are those outside the API: the dashboard's files and the API's own description.
 */
export const routeCheck = (paths: ReadonlyArray<string>) => {
  const routes = [
    ...apiRoutes,
    ...paths.map((path): Route => ({ method: "GET", template: path, path: pathPattern(path), bodies: [] }))
  ]
  return (
    request: { readonly method: string; readonly path: string },
    header: (name: string) => string
  ): RouteRefusal | undefined => {
    const { method, path } = request
    if (!METHODS.includes(method)) {
      const message = `method: ${showValue(method)} is not known here`
      return { status: 501, tag: "NotImplemented", message, parameter: "method" }
    }
    const here = routes.filter((route) => route.path.test(path))
    if (here.length === 0) return notFound(path)
    const methods = [...new Set(here.flatMap((route) => (route.method === "GET" ? ["GET", "HEAD"] : [route.method])))]
    const allow = [...methods, "OPTIONS"].join(", ")
    if (method === "OPTIONS") return { status: 204, tag: "", message: "", parameter: "", headers: { allow } }
    const wanted = method === "HEAD" ? "GET" : method
    const matching = here.filter((route) => route.method === wanted)
    if (matching.length === 0) {
      const message = `method: expected ${allow}, got ${method}`
      return { status: 405, tag: "MethodNotAllowed", message, parameter: "method", headers: { allow } }
    }
    const bodies = matching.flatMap((route) => route.bodies)
    if (bodies.length === 0) return undefined
    const type = mediaType(header("content-type"))
    if (!bodies.includes(type)) {
      const message = `content-type: expected ${bodies.join(" or ")}, got ${type === "" ? "nothing" : showValue(type)}`
      return { status: 415, tag: "UnsupportedMediaType", message, parameter: "content-type" }
    }
    const coding = header("content-encoding").trim().toLowerCase()
    if (!CODINGS.has(coding)) {
      const message = `content-encoding: expected gzip or none, got ${showValue(coding)}`
      const headers = { "accept-encoding": "gzip" }
      return { status: 415, tag: "UnsupportedMediaType", message, parameter: "content-encoding", headers }
    }
    return undefined
  }
}

const UNTYPED: Readonly<Record<number, readonly [tag: string, message: string]>> = {
  400: ["BadRequest", "the request cannot be read"],
  404: ["NotFound", "path: nothing is there"],
  413: ["PayloadTooLarge", "body: larger than its route takes"],
  415: ["UnsupportedMediaType", "content-type: not one that its route takes"],
  503: ["Unavailable", "the server is stopping"]
}

/** A failure that some library put in its own words, or in none, in the contract's. */
const typed = (response: HttpServerResponse.HttpServerResponse): HttpServerResponse.HttpServerResponse => {
  if (response.status < 400 || response.headers["content-type"]?.startsWith("application/json") === true) {
    return response
  }
  const known = UNTYPED[response.status]
  return known === undefined ? internalError : errorResponse(response.status, known[0], known[1])
}

/** The answer to a failure of the router itself, or of reading the body; `undefined` for any other. */
const routerFailure = (
  error: unknown,
  request: HttpServerRequest.HttpServerRequest
): HttpServerResponse.HttpServerResponse | undefined => {
  if (!HttpServerError.isHttpServerError(error)) return undefined
  // The path has the form of a route, but cannot be one: a percent sign that is no escape.
  if (error.reason._tag === "RouteNotFound") {
    const { status, tag, message, parameter } = notFound(pathOf(request))
    return errorResponse(status, tag, message, { parameter })
  }
  return error.reason._tag === "RequestParseError"
    ? errorResponse(400, "BadRequest", "body: cannot be read", { parameter: "body" })
    : undefined
}

/** Around every route. */
export const layerTypedAnswers: Layer.Layer<never, never, HttpRouter.HttpRouter> = HttpRouter.use((router) =>
  router.addGlobalMiddleware((route) =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
      route.pipe(
        Effect.map(typed),
        Effect.map((response) => answeredAt(request.url, response)),
        Effect.catchCause((cause): Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled> => {
          // The client has gone: nobody is left to answer.
          if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
          const failure = routerFailure(Option.getOrUndefined(Cause.findErrorOption(cause)), request)
          if (failure !== undefined) return Effect.succeed(answeredAt(request.url, failure))
          return Effect.as(
            Effect.logError(`${request.method} ${pathOf(request)} failed`, cause),
            answeredAt(request.url, internalError)
          )
        })
      )
    )
  )
)

/** What a schema refused, named and quoted, as the contract has it. What an answer's schema refuses is a defect. */
export const layerSchemaRefusals: Layer.Layer<SchemaRefusals> = HttpApiMiddleware.layerSchemaErrorTransform(
  SchemaRefusals,
  (error) =>
    Effect.gen(function* () {
      if (error.kind === "Body" || error.kind === "ResponseHeaders") return yield* Effect.die(error.cause)
      const request = yield* HttpServerRequest.HttpServerRequest
      const input: unknown =
        error.kind === "Query"
          ? yield* HttpServerRequest.ParsedSearchParams
          : error.kind === "Params"
            ? (yield* HttpRouter.RouteContext).params
            : error.kind === "Headers"
              ? request.headers
              : yield* Effect.orElseSucceed(
                  Effect.catch(request.json, () => request.text),
                  () => undefined
                )
      const { path, message } = explain(error.cause.issue, input)
      if (path !== "") return yield* new BadRequest({ message, parameter: path.split(".", 1)[0]! })
      const parameter = error.kind === "Payload" ? "body" : error.kind.toLowerCase()
      return yield* new BadRequest({ message: message.replace(/^input:/, `${parameter}:`), parameter })
    })
)
