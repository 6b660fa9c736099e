/** Decides how tests meet `/ws` over real sockets: an app on a free port, and clients that check the rule. */
import { Effect, Result } from "effect"
import WebSocket, { type PerMessageDeflateOptions } from "ws"
import type { KeyAccess } from "../../src/http/access.ts"
import type { ClientLog } from "../../src/http/clientLog.ts"
import { guard, guardRules } from "../../src/http/guard.ts"
import * as uWS from "../../src/http/uws.ts"
import { mountWebSocket, type WebSocketObserver, type WebSocketSettings } from "../../src/http/WebSocket.ts"
import type { Instrument } from "../../src/schema/Instrument.ts"
import type { ServerMessage } from "../../src/schema/Protocol.ts"
import { Hub, type HubObserver } from "../../src/streams/fanOut/Hub.ts"
import type { History } from "../../src/streams/fanOut/history.ts"
import type { HubSettings } from "../../src/streams/fanOut/parts.ts"
import { hubSettings } from "./hub.ts"
import { constant } from "./instruments.ts"
import { RuleChecker } from "./RuleChecker.ts"

export interface Serving {
  readonly hub: Hub
  readonly url: string
  readonly port: number
  readonly stop: () => void
}

/** Serves `/ws` on a free port until the scope ends. */
export const serve = (
  options: {
    readonly hub?: Partial<HubSettings>
    readonly limits?: Partial<WebSocketSettings>
    readonly instruments?: ReadonlyArray<Instrument>
    readonly history?: History
    readonly observer?: Partial<HubObserver>
    readonly counts?: WebSocketObserver
    readonly log?: ClientLog
    readonly isReady?: () => boolean
    readonly now?: () => number
    readonly silenceLookMs?: number
    readonly access?: KeyAccess
  } = {}
) =>
  Effect.acquireRelease(
    Effect.callback<Serving & { readonly close: () => void }>((resume) => {
      const { history, observer } = options
      const hub = new Hub({
        settings: { ...hubSettings, ...options.hub },
        ...(history === undefined ? {} : { history }),
        ...(observer === undefined ? {} : { observer })
      })
      const list = options.instruments ?? []
      const app = uWS.App()
      const stop = mountWebSocket(app, guard(Result.getOrThrow(guardRules("127.0.0.1", undefined))), {
        hub,
        instruments: constant(list),
        settings: {
          MAX_CLIENTS: 1000,
          CONNECTIONS_PER_ADDRESS: 1000,
          CONNECTIONS_PER_KEY: 1000,
          MAX_KEYLESS_CLIENTS: 256,
          AUTH_TIMEOUT_MS: 5000,
          CLIENT_FLIGHT_BYTES: 262_144,
          MAX_CLIENT_TOKENS: 10_000,
          MAX_CLIENT_CAPACITY: 100_000,
          MAX_SUBSCRIPTIONS: 1_000_000,
          ...options.limits
        },
        isReady: options.isReady ?? (() => true),
        ...(options.log === undefined ? {} : { log: options.log }),
        ...(options.silenceLookMs === undefined ? {} : { silenceLookMs: options.silenceLookMs }),
        ...(options.now === undefined ? {} : { now: options.now }),
        ...(options.access === undefined ? {} : { access: options.access }),
        ...(options.counts === undefined ? {} : { observer: options.counts })
      })
      app.listen("127.0.0.1", 0, (socket) => {
        if (socket === false) return resume(Effect.die("no port"))
        const port = uWS.us_socket_local_port(socket as unknown as uWS.us_socket)
        resume(Effect.succeed({ hub, port, url: `ws://127.0.0.1:${port}/ws`, stop, close: () => app.close() }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

/** A real client: keeps what came, and checks the rule at every message. */
export class TestClient {
  readonly ws: WebSocket
  readonly checker: RuleChecker
  readonly messages: Array<ServerMessage> = []
  /** The first breach of the rule. */
  broken: unknown
  closed: { readonly code: number; readonly reason: string } | undefined
  private readonly waiters = new Set<() => void>()

  constructor(ws: WebSocket, checker: RuleChecker, keepMessages: boolean) {
    this.ws = ws
    this.checker = checker
    ws.on("message", (data: Buffer) => {
      const text = data.toString("utf8")
      try {
        checker.frame(text)
      } catch (error) {
        this.broken ??= error
      }
      if (keepMessages) this.messages.push(...[JSON.parse(text)].flat())
      for (const waiter of this.waiters) waiter()
    })
    ws.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString("utf8") }
      for (const waiter of this.waiters) waiter()
    })
    ws.on("error", () => undefined)
  }

  send(message: unknown): void {
    this.ws.send(typeof message === "string" ? message : JSON.stringify(message))
  }

  /** Waits until the client has seen what is asked, or has seen the rule broken. */
  until(condition: (client: TestClient) => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const check = () => {
        if (this.broken !== undefined) {
          this.waiters.delete(check)
          resume(Effect.die(this.broken))
        } else if (condition(this)) {
          this.waiters.delete(check)
          resume(Effect.void)
        }
      }
      this.waiters.add(check)
      check()
    })
  }
}

export const connect = (
  url: string,
  options: {
    readonly checker?: RuleChecker
    readonly keep?: boolean
    readonly headers?: Record<string, string>
    /** What of permessage-deflate the client offers; by default what its library does. */
    readonly deflate?: boolean | PerMessageDeflateOptions
  } = {}
) =>
  Effect.acquireRelease(
    Effect.callback<TestClient, Error>((resume) => {
      const ws = new WebSocket(url, {
        ...(options.headers === undefined ? {} : { headers: options.headers }),
        perMessageDeflate: options.deflate ?? true
      })
      const client = new TestClient(ws, options.checker ?? new RuleChecker(), options.keep !== false)
      ws.once("open", () => resume(Effect.succeed(client)))
      ws.once("error", (error) => resume(Effect.fail(error)))
    }),
    ({ ws }) => Effect.sync(() => ws.terminate())
  )
