/**
 * Decides how the gateway is reached: Kite Connect's paths on a port of its own, behind the same front as the platform's
 * other port, each request let in by its pair, within its allowance, answered by one table of routes.
 */
import { Clock, Context, Effect, Layer } from "effect"
import { SettingError, type StartError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { FanOut } from "../../streams/fanOut/Hub.ts"
import { knownQuotes } from "../../streams/fanOut/history.ts"
import * as metrics from "../../streams/metrics.ts"
import { History } from "../../streams/ports/History.ts"
import { Instruments } from "../../streams/ports/Instruments.ts"
import { RecentQuotes } from "../../streams/ports/RecentQuotes.ts"
import { TickStore } from "../../streams/ports/TickStore.ts"
import { Replays } from "../../streams/replay/Replays.ts"
import { Readiness } from "../../streams/run/Readiness.ts"
import { Access } from "../access.ts"
import type { TlsSettings } from "../certificate.ts"
import type { Exchange } from "../exchange.ts"
import { type Bounds, type FrontSettings, makeFront } from "../front.ts"
import { guard } from "../guard.ts"
import { type Head, header } from "../head.ts"
import { isLoopbackHost, listen, portOf, reachableHost } from "../listen.ts"
import { check } from "../Server.ts"
import { openApp } from "../tlsApp.ts"
import * as uWS from "../uws.ts"
import {
  BAD_TOKEN,
  failure,
  type KiteAnswer,
  KiteRefusal,
  refusalOf,
  refused,
  storeRefusal,
  toldByKite
} from "./answers.ts"
import { makeFindDays } from "./findDays.ts"
import type { Asked, Gateway, GatewaySettings, Route } from "./Gateway.ts"
import { historicalRoutes } from "./historicalRoutes.ts"
import { instrumentRoutes } from "./instrumentRoutes.ts"
import { quoteRoutes } from "./quoteRoutes.ts"
import { Sources } from "./Sources.ts"
import { mountTicker, type TickerSettings } from "./ticker.ts"
import { userRoutes } from "./userRoutes.ts"
import { pairOf, type Visitor, Visitors } from "./Visitors.ts"

/** Bytes of a form. */
const MAX_FORM_BYTES = 65_536
const FORM_TYPE = "application/x-www-form-urlencoded"
const MAX_QUERY_PARAMETERS = 10_000
/** Of the time that a stop may take, what requests under way are given to end. */
const DRAIN_SHARE = 0.5
const EXTRA = [
  ["x-content-type-options", "nosniff"],
  ["cache-control", "no-store"]
] as const

export type KiteServerSettings = GatewaySettings &
  TickerSettings &
  FrontSettings &
  TlsSettings &
  Pick<
    Settings,
    "HOST" | "KITE_PORT" | "ALLOWED_HOSTS" | "ALLOWED_ORIGINS" | "METRICS_ALLOW" | "DRAIN_DEADLINE_MS" | "API_KEYS_FILE"
  >

export class KiteServer extends Context.Service<
  KiteServer,
  {
    /** The port in use, also where KITE_PORT was 0. */
    readonly port: number
    /** What a client takes for its root. */
    readonly url: string
  }
>()("market-data-platform/http/KiteServer") {}

/** Without keys everybody may ask, and so only this machine may. */
export const checkKiteHost = ({ API_KEYS_FILE, HOST }: Pick<Settings, "API_KEYS_FILE" | "HOST">) =>
  API_KEYS_FILE !== undefined || isLoopbackHost(HOST)
    ? Effect.void
    : Effect.fail(
        new SettingError({
          setting: "HOST",
          message: `HOST: the Kite gateway would be reached by others on ${HOST}, and without API keys it is for this machine alone: API_KEYS_FILE names some`
        })
      )

const routes: ReadonlyArray<Route> = [...historicalRoutes, ...instrumentRoutes, ...quoteRoutes, ...userRoutes]
const paths = routes.map(({ path }) => ({ path, parts: path.split("/") }))

/** What stands where a route's path has names; undefined where the path is not of the route. */
const within = (parts: ReadonlyArray<string>, asked: ReadonlyArray<string>): Record<string, string> | undefined => {
  const isOpen = parts.at(-1) === "*"
  const fixed = isOpen ? parts.slice(0, -1) : parts
  if (isOpen ? asked.length < fixed.length : asked.length !== fixed.length) return undefined
  const found: Record<string, string> = {}
  for (let i = 0; i < fixed.length; i++) {
    const [part, text] = [fixed[i]!, asked[i]!]
    if (part.startsWith("{") && text !== "") found[part.slice(1, -1)] = text
    else if (part !== text) return undefined
  }
  return found
}

/** As it stands in a path, where it can be read. */
const plain = (part: string): string => {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

interface Found {
  readonly route: Route
  readonly path: Readonly<Record<string, string>>
}

/** The route of a path and method; `other` where another method has it. */
const routeOf = (method: string, path: string): Found | "other" | undefined => {
  const asked = path.split("/").map(plain)
  let isOther = false
  for (let i = 0; i < routes.length; i++) {
    const found = within(paths[i]!.parts, asked)
    if (found === undefined) continue
    if (routes[i]!.method === method) return { route: routes[i]!, path: found }
    isOther = true
  }
  return isOther ? "other" : undefined
}

/** One of few names, whatever is asked for. */
const nameOf = (path: string): string => {
  const asked = path.split("/").map(plain)
  return `kite ${paths.find(({ parts }) => within(parts, asked) !== undefined)?.path ?? "other"}`
}

const queryOf = (head: Head): URLSearchParams | KiteRefusal => {
  const query = new URLSearchParams(head.query)
  return query.size <= MAX_QUERY_PARAMETERS
    ? query
    : refused("InputException", `query: expected at most ${MAX_QUERY_PARAMETERS} parameters, got ${query.size}`)
}

const takesBody = ({ hasBody, method }: Head): boolean => hasBody && method !== "GET" && method !== "HEAD"
const kindOf = (head: Head) => (takesBody(head) ? "body" : "ordinary")

/** Whoever asks for a token has none yet. */
const stranger = ({ address, peer }: Head): Visitor => ({
  apiKey: "",
  accessToken: "",
  key: undefined,
  address,
  wish: { kind: "live" },
  identity: `without ${peer}`
})

const responseOf = ({ body, headers, status, type }: KiteAnswer): Response =>
  new Response(body, {
    status,
    headers: { "content-type": type, "content-length": String(Buffer.byteLength(body)), ...headers }
  })

/** Listens as soon as it is built, and no longer when its scope ends: requests under way are let end first. */
export const layer = (
  settings: KiteServerSettings,
  bounds: Bounds = {}
): Layer.Layer<
  KiteServer,
  SettingError | StartError,
  Access | FanOut | History | Instruments | Readiness | RecentQuotes | Replays | TickStore
> =>
  Layer.effect(
    KiteServer,
    Effect.gen(function* () {
      yield* checkKiteHost(settings)
      const { rules } = yield* check(settings)
      const hub = yield* FanOut
      const history = yield* History
      const instruments = yield* Instruments
      const replays = yield* Replays
      const readiness = yield* Readiness
      const { keys } = yield* Access
      const clock = yield* Clock.Clock
      const context = yield* Effect.context<never>()
      const fork = Effect.runForkWith(context)
      const now = () => clock.currentTimeMillisUnsafe() * 1000
      const guarding = guard(rules)
      const front = yield* makeFront({
        ...bounds,
        guard: guarding,
        routeOf: nameOf,
        settings,
        listener: "kite",
        told: toldByKite
      })
      const sources = new Sources({
        hub,
        replays,
        shifts: settings.KITE_SHIFT === "true",
        now,
        started: ({ address, key }, { date, id, speed }) => {
          if (key === undefined) return
          keys?.audit.tell({ key: key.name, address }, "replay_start", { replay: id, date, instruments: "all", speed })
        }
      })
      const recent = yield* RecentQuotes
      const store = yield* TickStore
      const gateway: Gateway = {
        settings,
        history,
        instruments,
        visitors: new Visitors(keys, settings),
        sources,
        findDays: yield* makeFindDays(knownQuotes(hub.live, recent, store)),
        now
      }
      let wasReady = false
      const isReady = () => {
        wasReady ||= Effect.runSync(readiness.report).ready
        return wasReady
      }

      /** What stands before a route: who asks, whether there is one, and whether he may ask now. */
      const admitted = (head: Head): { readonly found: Found; readonly visitor: Visitor } | KiteRefusal => {
        const found = routeOf(head.method, head.path)
        const isOpen = typeof found === "object" && found.route.isOpen === true
        const pair = pairOf(header(head, "authorization"))
        const { address, peer } = head
        const visitor = isOpen
          ? stranger(head)
          : pair === undefined
            ? refused("TokenException", BAD_TOKEN)
            : gateway.visitors.enter(...pair, address, peer)
        if (visitor instanceof KiteRefusal) return visitor
        if (found === undefined) return refused("GeneralException", "Route not found", 404)
        if (found === "other") return refused("GeneralException", "Method not allowed", 405)
        if (!isReady()) {
          return refused("NetworkException", "the server is still reading what was published before its start")
        }
        return gateway.visitors.spent(visitor, found.route.allowance) ?? { found, visitor }
      }

      const respond = (
        exchange: Exchange,
        { found, visitor }: { readonly found: Found; readonly visitor: Visitor },
        form: URLSearchParams
      ) => {
        const { head } = exchange
        const query = queryOf(head)
        const asked: Asked | KiteRefusal =
          query instanceof KiteRefusal ? query : { head, path: found.path, query, form, visitor }
        const answered =
          asked instanceof KiteRefusal
            ? Effect.succeed(failure(asked))
            : found.route.answer(asked, gateway).pipe(
                Effect.catchTag("StoreError", (error) => Effect.fail(storeRefusal(error))),
                Effect.catchTag("KiteRefusal", (refusal) => Effect.succeed(failure(refusal)))
              )
        fork(
          Effect.matchCauseEffect(answered, {
            onFailure: (cause) =>
              Effect.andThen(
                Effect.logError("a route of the Kite gateway failed", cause),
                Effect.sync(() => exchange.refuse(refusalOf(refused("GeneralException", "internal error"))))
              ),
            onSuccess: (answer) =>
              Effect.sync(() => {
                if (exchange.isOver) return
                exchange.send(responseOf(answer), EXTRA).catch(() => exchange.breakOff("failed"))
              })
          })
        )
      }

      const take = (res: uWS.HttpResponse, req: uWS.HttpRequest): void => {
        const head = front.admit(res, req, kindOf)
        if (head === undefined) return
        const kind = kindOf(head)
        const visit = admitted(head)
        if (visit instanceof KiteRefusal) {
          front.refuse(res, head, kind, refusalOf(visit))
          return
        }
        const exchange = front.begin(res, head, kind, {})
        if (exchange === undefined) return
        exchange.headers = Object.fromEntries(EXTRA)
        exchange.key = visit.visitor.key
        const soon = (form: URLSearchParams) =>
          front.soon(() => {
            if (!exchange.isOver) respond(exchange, visit, form)
          })
        if (kind !== "body") {
          soon(new URLSearchParams())
          return
        }
        const isForm = header(head, "content-type").trim().toLowerCase().startsWith(FORM_TYPE)
        exchange.receive(MAX_FORM_BYTES, (body) => {
          if (exchange.moveTo("ordinary")) soon(new URLSearchParams(isForm ? body.toString("utf8") : ""))
        })
      }

      if (keys !== undefined) {
        const forget = keys.ring.onEnded((ended) => {
          for (const exchange of front.under) {
            const { key } = exchange
            if (key !== undefined && ended.has(key)) {
              front.soon(() => exchange.forsake(refusalOf(refused("TokenException", BAD_TOKEN))))
            }
          }
        })
        yield* Effect.addFinalizer(() => Effect.sync(forget))
      }

      const app = yield* openApp(settings)
      const shielded = front.guarded(app)
      const subscribed = metrics.bind(metrics.kiteSubscriptions, {}, context)
      const connected = metrics.bind(metrics.kiteConnections, {}, context)
      const counted = (subscriptions: number, connections: number) => {
        subscribed.add(subscriptions)
        connected.add(connections)
      }
      counted(0, 0)
      const goodbye = mountTicker(shielded, {
        gateway,
        settings,
        isReady,
        access: keys,
        guard: guarding,
        log: front.log,
        counted,
        run: (effect) => {
          fork(effect)
        }
      })
      shielded.any("/*", take)

      const socket = yield* Effect.acquireRelease(
        listen(app, settings.HOST, settings.KITE_PORT ?? 0, "HOST and KITE_PORT"),
        (listening) =>
          Effect.gen(function* () {
            uWS.us_listen_socket_close(listening)
            goodbye()
            yield* Effect.callback<void>((resume) => {
              if (front.slots.size === 0) return resume(Effect.void)
              front.slots.idle = () => resume(Effect.void)
            }).pipe(Effect.timeoutOption(settings.DRAIN_DEADLINE_MS * DRAIN_SHARE))
            app.close()
          })
      )
      const port = portOf(socket)
      const scheme = settings.TLS_CERT_FILE === undefined ? "http" : "https"
      return KiteServer.of({ port, url: `${scheme}://${reachableHost(settings.HOST)}:${port}` })
    })
  )
