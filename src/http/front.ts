/**
 * Decides what stands in front of every route and listener: how many connections and requests are let in, of which kind
 * and from whom, what each may hold and for how long, and that nothing thrown in a handler of the library gets out.
 */
import type { HttpRequest, HttpResponse, TemplatedApp, WebSocket, WebSocketBehavior } from "uWebSockets.js"
import { Effect, type Scope } from "effect"
import type { Settings } from "../schema/Settings.ts"
import * as metrics from "../streams/metrics.ts"
import { withFields } from "../streams/run/fields.ts"
import { Allowance, type Spent } from "./allowance.ts"
import { addressOf, ClientLog, peerOf } from "./clientLog.ts"
import { Exchange, type ExchangeHost, type Refusal, refuseAtOnce, type Times } from "./exchange.ts"
import type { Guard } from "./guard.ts"
import { type Head, type HeadRefusal, headRefusal, readHead, upgradeRefusal } from "./head.ts"
import { REQUESTS, Shares } from "./shares.ts"
import { type Kind, Slots } from "./slots.ts"
import { toldAt } from "./udfErrors.ts"

/** Bytes of bodies held at a time, all requests together; more are refused with 429. */
export const MAX_BODIES_BYTES = 128 * 1024 * 1024
/** Bytes of answers of known length that clients have yet to take, all together; above, the connection ends. */
export const MAX_UNREAD_BYTES = 128 * 1024 * 1024
/** Requests of operators, each answered from memory. */
const MAX_OPERATOR_REQUESTS = 64
/** Refused requests whose clients go on sending. */
const MAX_DRAINS = 64
/** File descriptors kept from connections: for Kafka, Redis, PostgreSQL, S3 and files. */
export const RESERVED_DESCRIPTORS = 128
/** Where a process's limit is not to be had, as on Windows. */
const UNKNOWN_DESCRIPTORS = 8192
/** The library ends a connection that is silent for so long at the latest: 10 s, by its timer of 4 s. */
const CONNECTION_IDLE_MS = 14_000
/** Addresses whose connects are counted; the rest are not. */
const MAX_ADDRESSES = 10_000
const SWEEP_MS = 500
/** Requests looked at in one step of it. */
const SWEEP_STEP = 16
/** Failures of handlers are logged with their cause once in so long, and counted all. */
const FAILURE_MS = 1000
const BAD_INPUT = new Set([400, 413, 415, 501])
const RETRY_AFTER = { "retry-after": "1" }

const NO_UPGRADE: HeadRefusal = {
  status: 426,
  parameter: "upgrade",
  message: "upgrade: expected the handshake of a WebSocket"
}

export const TIMES: Times = {
  bodyGraceMs: 5000,
  bodyBytesPerSecond: 16_384,
  bodyMs: 120_000,
  drainMs: 5000,
  drainBytes: 64 * 1024 * 1024,
  drainIdleMs: 500,
  unreadMs: 7000
}

export type FrontSettings = Pick<Settings, "HTTP_REQUESTS" | "HTTP_BODIES" | "HTTP_STREAMS" | "HTTP_ADDRESS_PERCENT">

/** Bounds that a test may put elsewhere. */
export interface Bounds {
  readonly times?: Partial<Times>
  /** Connections at a time; what the process's file descriptors allow unless given. */
  readonly connections?: number
}

export interface FrontOptions extends Bounds {
  readonly guard: Guard
  /** The route of a path as figures name it: one of few, whatever is asked for. */
  readonly routeOf: (path: string) => string
  readonly settings: FrontSettings
  /** What its figures are told apart by from those of another front of the process. */
  readonly listener?: string
  /** A failure's body as whoever asks at a path reads it; as the platform's own routes tell it unless given. */
  readonly told?: (path: string, body: Refusal["body"]) => Refusal["body"]
}

/** File descriptors that this process may have open; `undefined` where the system does not say. */
const descriptorLimit = (): number | undefined => {
  // Not yet in the types: without it, the names of all peers are looked up.
  const source = process.report as NodeJS.ProcessReport & { excludeNetwork?: boolean }
  const before = source.excludeNetwork ?? false
  source.excludeNetwork = true
  const report = source.getReport() as { readonly userLimits?: { readonly open_files?: { readonly soft?: unknown } } }
  source.excludeNetwork = before
  const soft = Number(report.userLimits?.open_files?.soft)
  return Number.isFinite(soft) ? soft : undefined
}

/** Connections that leave the drivers their descriptors; at least half of what there is. */
export const connectionLimit = (descriptors = descriptorLimit() ?? UNKNOWN_DESCRIPTORS): number =>
  Math.max(descriptors - RESERVED_DESCRIPTORS, Math.floor(descriptors / 2))

/** Connects of each address in the last while, in two halves, so that old ones go by themselves. */
class Connects {
  private recent = new Map<string, number>()
  private before = new Map<string, number>()
  private turnedAt = performance.now()

  /** Counts one more, and answers how many the address has made in the time that a silent connection lives. */
  add(peer: string): number {
    const now = performance.now()
    if (now - this.turnedAt > CONNECTION_IDLE_MS) {
      this.before = now - this.turnedAt > 2 * CONNECTION_IDLE_MS ? new Map() : this.recent
      this.recent = new Map()
      this.turnedAt = now
    }
    const known = this.recent.get(peer)
    if (known === undefined && this.recent.size >= MAX_ADDRESSES) return 1
    const count = (known ?? 0) + 1
    this.recent.set(peer, count)
    return count + (this.before.get(peer) ?? 0)
  }
}

export class Front implements ExchangeHost {
  readonly slots: Slots
  readonly bodies: Allowance
  readonly unread: Allowance
  readonly times: Times
  readonly log: ClientLog
  /** Requests under way. */
  readonly under = new Set<Exchange>()
  private readonly guard: Guard
  private readonly maxConnections: number
  private readonly connectionShare: number
  private readonly connects = new Connects()
  private readonly connectionGauge: { readonly add: (value: number) => void }
  private readonly refusedCount: (kind: string, reason: string) => void
  private readonly answeredCount: (route: string, status: number) => void
  private readonly routeOf: (path: string) => string
  readonly told: (path: string, body: Refusal["body"]) => Refusal["body"]
  private readonly bodyBytes: { readonly add: (value: number) => void }
  private readonly failure: (error: unknown) => void
  private connections = 0
  private readonly shares = new Shares(REQUESTS)
  /** Not behind the requests: those that wait would put off the end of those that last too long. */
  private readonly sweeps = new Shares(REQUESTS)
  private isSweeping = false

  constructor(
    { guard, routeOf, settings, times, connections = connectionLimit(), told = toldAt }: FrontOptions,
    services: {
      readonly slots: Slots
      readonly log: ClientLog
      readonly gauge: Front["connectionGauge"]
      readonly refused: Front["refusedCount"]
      readonly answered: Front["answeredCount"]
      readonly bodyBytes: Front["bodyBytes"]
      readonly failure: Front["failure"]
    }
  ) {
    const percent = settings.HTTP_ADDRESS_PERCENT
    this.guard = guard
    this.times = { ...TIMES, ...times }
    this.slots = services.slots
    this.log = services.log
    this.bodies = new Allowance(MAX_BODIES_BYTES, percent)
    this.unread = new Allowance(MAX_UNREAD_BYTES, percent)
    this.maxConnections = connections
    this.connectionShare = Math.max(1, Math.floor((connections * percent) / 100))
    this.connectionGauge = services.gauge
    this.refusedCount = services.refused
    this.answeredCount = services.answered
    this.routeOf = routeOf
    this.told = told
    this.bodyBytes = services.bodyBytes
    this.failure = services.failure
  }

  /** Whether so many connections are open that none is kept for another request. */
  get isCrowded(): boolean {
    return this.connections > this.maxConnections / 2
  }

  /** Ends what lasts too long, some at a time: hundreds that came at once are too slow at once. */
  sweep(): void {
    // One at a time: where they are many it may take longer than it is until the next.
    if (this.isSweeping) return
    this.isSweeping = true
    const left = [...this.under]
    const step = () => {
      const now = performance.now()
      for (const exchange of left.splice(-SWEEP_STEP)) {
        try {
          exchange.check(now)
        } catch (error) {
          this.failure(error)
        }
      }
      this.isSweeping = left.length > 0
      return this.isSweeping
    }
    this.sweeps.add({ step })
  }

  /** Counts a refused request, and leaves its line. */
  count(head: Head, kind: string, refusal: Refusal): void {
    this.refusedCount(kind, refusal.reason)
    this.answered(head, refusal.status)
    // Who asks for what is not there is mostly a person who mistypes, and reads the answer.
    if (refusal.status === 404 || refusal.status === 405) return
    const event =
      refusal.reason === "unauthorized" ? "unauthorized" : BAD_INPUT.has(refusal.status) ? "bad_input" : "refused"
    const { key, reason, status } = refusal
    const { method, path } = head
    this.log.tell(event, head.address, `${method} ${path}: ${refusal.body.message}`, {
      status,
      reason,
      method,
      path,
      key
    })
  }

  /** Counts a request that is being answered. */
  answered({ path }: Head, status: number): void {
    this.answeredCount(this.routeOf(path), status)
  }

  /** Counts bytes of a body that came in, kept or not. */
  received(bytes: number): void {
    this.bodyBytes.add(bytes)
  }

  /** Counts a request whose answer was broken off, and leaves its line. */
  countEnded({ address, method, path }: Head, kind: Kind, reason: string, key: string | undefined): void {
    this.refusedCount(kind, reason)
    const about = { reason, method, path, key }
    this.log.tell("ended", address, `${method} ${path}: its answer was broken off (${reason})`, about)
  }

  /** The answer to a request that finds no place. */
  spentRefusal(kind: Kind, spent: Spent, headers: Readonly<Record<string, string>> = {}): Refusal {
    const all = { ...headers, ...RETRY_AFTER }
    return spent === "full"
      ? {
          status: 503,
          reason: spent,
          body: { _tag: "Unavailable", message: `as many requests (${kind}) are under way as may be` },
          headers: all
        }
      : {
          status: 429,
          reason: spent,
          body: {
            _tag: "TooManyRequests",
            message: `your address has as many requests (${kind}) under way as one may have: HTTP_ADDRESS_PERCENT`
          },
          headers: all
        }
  }

  /** Refuses a request that has no place yet. */
  refuse(res: HttpResponse, head: Head, kind: Kind, why: Refusal): void {
    const refusal = { ...why, body: this.told(head.path, why.body) }
    if (head.hasBody && this.slots.enter("drain", head.peer) === undefined) {
      const exchange = new Exchange(this, res, head, "drain")
      exchange.receive(Number.POSITIVE_INFINITY, () => {})
      exchange.refuse(refusal, kind)
      return
    }
    this.count(head, kind, refusal)
    refuseAtOnce(res, head.method, refusal, head.hasBody)
  }

  /** Reads a request's head; what may not pass, by its form or by where it comes from, is answered here. */
  admit(res: HttpResponse, req: HttpRequest, kind: (head: Head) => Kind): Head | undefined {
    const head = readHead(res, req)
    const malformed = headRefusal(head)
    if (malformed !== undefined) {
      this.refuseHead(res, head, kind(head), malformed)
      return undefined
    }
    const asked = kind(head)
    const refused = this.guard(head.origin, asked === "operator")
    if (refused === undefined) return head
    this.refuse(res, head, asked, {
      status: 403,
      reason: refused.parameter.toLowerCase(),
      body: { _tag: "Forbidden", ...refused }
    })
    return undefined
  }

  /** Refuses a request by its form. Where it ends nobody can say: nothing of what follows is read. */
  private refuseHead(res: HttpResponse, head: Head, kind: string, { status, parameter, message }: HeadRefusal): void {
    const tags = { 400: "BadRequest", 426: "UpgradeRequired", 501: "NotImplemented" }
    const headers = status === 426 ? { upgrade: "websocket", "sec-websocket-version": "13" } : {}
    const body = this.told(head.path, { _tag: tags[status], message, parameter })
    const refusal = { status, reason: "malformed", body, headers }
    this.count(head, kind, refusal)
    refuseAtOnce(res, head.method, refusal, true)
  }

  /** Reads the head of a WebSocket's handshake; one that is none is answered here. Where it comes from, its route asks. */
  private admitUpgrade(res: HttpResponse, req: HttpRequest): boolean {
    const head = readHead(res, req)
    const malformed = headRefusal(head) ?? upgradeRefusal(head)
    if (malformed !== undefined) this.refuseHead(res, head, "websocket", malformed)
    return malformed === undefined
  }

  /** A request that has its place; where there is none it is refused. */
  begin(res: HttpResponse, head: Head, kind: Kind, headers?: Readonly<Record<string, string>>): Exchange | undefined {
    const spent = this.slots.enter(kind, head.peer)
    if (spent === undefined) return new Exchange(this, res, head, kind)
    this.refuse(res, head, kind, this.spentRefusal(kind, spent, headers))
    return undefined
  }

  /** Begins work, each in its order: fifty searches that came at once hold up no tick for longer than one of them does. */
  soon(work: () => void): void {
    const step = () => {
      try {
        work()
      } catch (error) {
        this.failure(error)
      }
      return false
    }
    this.shares.add({ step })
  }

  private connected(res: HttpResponse, change: number): void {
    if (change < 0) {
      this.left()
      return
    }
    this.connections += 1
    this.connectionGauge.add(this.connections)
    const peer = peerOf(addressOf(res.getRemoteAddressAsText()))
    const isFull = this.connections > this.maxConnections
    const hasShare = this.connects.add(peer) > this.connectionShare && this.connections > this.connectionShare
    if (!isFull && !hasShare) return
    const most = isFull ? this.maxConnections : this.connectionShare
    this.refusedCount("connection", isFull ? "full" : "address")
    const text = `${most} connections are open${isFull ? "" : " and of one address"} already`
    this.log.tell("refused", peer, text, { reason: isFull ? "full" : "address" })
    // The library takes the connection out of its count at once, in this same function.
    res.close()
  }

  private left(): void {
    this.connections -= 1
    this.connectionGauge.add(this.connections)
  }

  /**
   * The app as whoever puts routes on it sees it: its connections counted, and nothing thrown in a handler gets out of
   * it, as that would end the process.
   */
  guarded(app: TemplatedApp): TemplatedApp {
    app.filter((res, change) => this.shielded(() => this.connected(res, change)))
    const over = new Set(["get", "post", "options", "del", "patch", "put", "head", "connect", "trace", "any"])
    const guardedApp: TemplatedApp = new Proxy(app, {
      get: (target, name: keyof TemplatedApp) => {
        if (name === "ws") {
          return <Data>(pattern: string, behavior: WebSocketBehavior<Data>) => {
            target.ws(pattern, this.guardedBehavior(behavior))
            // What the library takes for no handshake at all, as it has no key.
            target.any(pattern, (res, req) =>
              this.shielded(
                () =>
                  this.admit(res, req, () => "ordinary") &&
                  this.refuseHead(res, readHead(res, req), "websocket", NO_UPGRADE),
                () => res.close()
              )
            )
            return guardedApp
          }
        }
        if (over.has(name)) {
          return (pattern: string, handler: (res: HttpResponse, req: HttpRequest) => void) => {
            const route = target[name] as TemplatedApp["any"]
            route.call(target, pattern, (res, req) =>
              this.shielded(
                () => handler(res, req),
                () => res.close()
              )
            )
            return guardedApp
          }
        }
        const value: unknown = Reflect.get(target, name)
        return typeof value === "function" ? value.bind(target) : value
      }
    })
    return guardedApp
  }

  private guardedBehavior<Data>(behavior: WebSocketBehavior<Data>): WebSocketBehavior<Data> {
    const { upgrade, open, message, drain, close, ping, pong } = behavior
    const end = (ws: WebSocket<Data>) => () => ws.end(1011, "the server failed")
    return {
      ...behavior,
      ...(upgrade && {
        upgrade: (res, req, context) =>
          this.shielded(
            () => this.admitUpgrade(res, req) && upgrade(res, req, context),
            () => res.close()
          )
      }),
      ...(open && { open: (ws) => this.shielded(() => open(ws), end(ws)) }),
      ...(message && { message: (ws, bytes, isBinary) => this.shielded(() => message(ws, bytes, isBinary), end(ws)) }),
      ...(drain && { drain: (ws) => this.shielded(() => drain(ws), end(ws)) }),
      ...(ping && { ping: (ws, bytes) => this.shielded(() => ping(ws, bytes), end(ws)) }),
      ...(pong && { pong: (ws, bytes) => this.shielded(() => pong(ws, bytes), end(ws)) }),
      close: (ws, code, reason) => {
        // A connection that became a WebSocket is not taken out of the library's own count.
        this.left()
        this.shielded(() => close?.(ws, code, reason))
      }
    }
  }

  private shielded(run: () => unknown, end: () => void = () => {}): void {
    const failed = (error: unknown) => {
      this.failure(error)
      try {
        end()
      } catch {
        // It was over already.
      }
    }
    try {
      const result = run()
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }
}

/** A front for as long as its scope. */
export const makeFront = (options: FrontOptions): Effect.Effect<Front, never, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const run = Effect.runForkWith(context)
    const { settings } = options
    const log = new ClientLog((line, fields) => {
      run(withFields(Effect.logWarning(line), fields))
    })
    const most = options.connections ?? connectionLimit()
    const labels = options.listener === undefined ? {} : { listener: options.listener }
    metrics.bind(metrics.httpMaxConnections, labels, context).add(most)
    const slots = new Slots(
      {
        operator: MAX_OPERATOR_REQUESTS,
        body: settings.HTTP_BODIES,
        ordinary: settings.HTTP_REQUESTS,
        stream: settings.HTTP_STREAMS,
        drain: MAX_DRAINS
      },
      settings.HTTP_ADDRESS_PERCENT,
      context,
      labels
    )
    const refused = (kind: string, reason: string) =>
      metrics.bind(metrics.httpRefused, { kind, reason }, context).add(1)
    let failedAt = Number.NEGATIVE_INFINITY
    const front = new Front(
      { ...options, connections: most },
      {
        slots,
        log,
        gauge: metrics.bind(metrics.httpConnections, labels, context),
        refused,
        answered: (route, status) =>
          metrics.bind(metrics.httpAnswers, { route, status: String(status) }, context).add(1),
        bodyBytes: metrics.bind(metrics.httpBodyBytes, {}, context),
        failure: (error) => {
          refused("handler", "failed")
          const now = performance.now()
          if (now - failedAt < FAILURE_MS) return
          failedAt = now
          run(Effect.logError("a handler of the server failed", error))
        }
      }
    )
    yield* Effect.acquireRelease(
      Effect.sync(() => setInterval(() => front.sweep(), SWEEP_MS).unref()),
      (timer) => Effect.sync(() => clearInterval(timer))
    )
    yield* Effect.addFinalizer(() => Effect.sync(() => log.close()))
    return front
  })
