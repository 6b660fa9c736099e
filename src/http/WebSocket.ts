/** Decides how clients listen live: `/ws`, its upgrade, its messages and their bounds. The ticks themselves are the hub's. */
import type { HttpRequest, TemplatedApp, WebSocket } from "uWebSockets.js"
import { Effect, Result } from "effect"
import { SIMULATED_EXCHANGE } from "../schema/Instrument.ts"
import {
  type Answer,
  decodeClientMessage,
  errorFrame,
  MAX_MESSAGE_BYTES,
  pongFrame,
  type Refused,
  type SubscribeMessage,
  subscribedFrame
} from "../schema/Protocol.ts"
import type { Settings } from "../schema/Settings.ts"
import { LIVE } from "../streams/channel.ts"
import type { ClientSocket } from "../streams/clientQueue.ts"
import { FanOut, type Hub } from "../streams/fanOut.ts"
import type { HubClient } from "../streams/hubClient.ts"
import { Instruments } from "../streams/Instruments.ts"
import { Readiness } from "../streams/Readiness.ts"
import type { Guard } from "./guard.ts"
import { type Mount, refuse, requestOrigin } from "./Server.ts"

export const WEBSOCKET_PATH = "/ws"

/** Without a word or a pong for so long a peer is gone; pings go out by themselves before. */
const IDLE_SECONDS = 120
/** Messages a client may send at once, and then each second; more close it with 1008. */
export const MESSAGE_BURST = 100
const MESSAGES_PER_SECOND = 20
/** Messages that do not read before a client is closed with 1008. */
export const MAX_STRIKES = 10
/** uWebSockets.js: no bound of its own on what waits in a socket; a bound there would drop frames without a word. */
const UNBOUNDED = 0

export type WebSocketSettings = Pick<Settings, "MAX_CLIENTS" | "MAX_CLIENT_TOKENS" | "MAX_CLIENT_CAPACITY">

export interface WebSocketServices {
  readonly hub: Hub
  readonly instruments: Pick<Instruments["Service"], "get" | "named">
  readonly settings: WebSocketSettings
  /** Whether the hub has read the log up to now: before that it knows less than a client that comes back. */
  readonly isReady: () => boolean
}

interface Connection {
  session?: Session
}

class Socket implements ClientSocket {
  private readonly ws: WebSocket<Connection>

  constructor(ws: WebSocket<Connection>) {
    this.ws = ws
  }

  send(text: string): boolean {
    return this.ws.send(text, false, false) === 1
  }

  buffered(): number {
    return this.ws.getBufferedAmount()
  }

  cork(sends: () => void): void {
    this.ws.cork(sends)
  }

  end(code: number, reason: string): void {
    this.ws.end(code, reason)
  }
}

/** One connection: reads what the client says, and answers through its queue, in order with the ticks. */
class Session {
  readonly client: HubClient
  private readonly services: WebSocketServices
  private strikes = 0
  private allowance = MESSAGE_BURST
  private allowedAt = performance.now()

  constructor(services: WebSocketServices, ws: WebSocket<Connection>) {
    this.services = services
    this.client = services.hub.connect(new Socket(ws))
  }

  /** Takes one message; the bytes are the app's own again when this returns. */
  message(bytes: ArrayBuffer, isBinary: boolean): void {
    if (this.client.queue.closed) return
    if (!this.isAllowed()) {
      this.client.queue.end(1008, "too many messages")
      return
    }
    if (bytes.byteLength > MAX_MESSAGE_BYTES) {
      this.client.queue.end(1009, `a message holds at most ${MAX_MESSAGE_BYTES} bytes`)
      return
    }
    const decoded = isBinary ? NOT_TEXT : decodeClientMessage(Buffer.from(bytes).toString("utf8"))
    if (Result.isFailure(decoded)) {
      this.refuse(decoded.failure)
      return
    }
    const message = decoded.success
    switch (message.action) {
      case "subscribe":
        this.subscribe(message)
        break
      case "unsubscribe":
        for (const token of message.tokens) this.client.unsubscribe(token)
        break
      case "auth":
        this.client.say(
          errorFrame({ code: "no_keys", message: "auth: no API keys are configured, none is needed", id: message.id })
        )
        break
      case "ping":
        this.client.say(pongFrame)
        break
    }
    this.client.flush()
  }

  private isAllowed(): boolean {
    const now = performance.now()
    const earned = ((now - this.allowedAt) / 1000) * MESSAGES_PER_SECOND
    this.allowance = Math.min(MESSAGE_BURST, this.allowance + earned) - 1
    this.allowedAt = now
    return this.allowance >= 0
  }

  private refuse(refused: Refused): void {
    this.client.say(errorFrame(refused))
    this.client.flush()
    if (refused.code === "bad_message" && ++this.strikes >= MAX_STRIKES) {
      this.client.queue.end(1008, "too many bad messages")
    }
  }

  private subscribe(message: SubscribeMessage): void {
    const { client } = this
    const { hub, settings } = this.services
    const { id, replay, capacity, since } = message
    if (capacity !== undefined && capacity > settings.MAX_CLIENT_CAPACITY) {
      const most = settings.MAX_CLIENT_CAPACITY
      this.refuse({ code: "bad_message", message: `capacity: expected at most ${most}, got ${capacity}`, id })
      return
    }
    const channel = hub.channel(replay ?? LIVE)
    if (channel === undefined) {
      const text = `replay: expected the id of a replay that runs, got ${JSON.stringify(replay)}`
      this.refuse({ code: "unknown_replay", message: text, id })
      return
    }
    if (!client.join(channel)) {
      const other = client.stream === LIVE ? "the market" : `replay ${client.stream}`
      const text = `replay: this connection listens to ${other}; open another one for a second stream`
      this.refuse({ code: "other_stream", message: text, id })
      return
    }
    if (message.batch !== undefined) client.queue.batch = message.batch
    if (capacity !== undefined) client.queue.resize(capacity)

    const { answers, tokens, simulated } = this.resolve(message)
    client.say(subscribedFrame(id, simulated, answers))
    const channels = message.channels ?? ["tick", "gap"]
    const wanted = { tick: channels.includes("tick"), gap: channels.includes("gap"), backfill: message.backfill ?? 0 }
    for (const token of tokens) {
      const place = since?.[token]
      client.subscribe(token, {
        ...wanted,
        since: place === undefined ? undefined : { epoch: place[0], position: place[1] }
      })
    }
    if (channel.lastClock !== undefined) client.say(channel.lastClock)
  }

  /** What becomes of each token or symbol asked for, in the order asked. */
  private resolve(message: SubscribeMessage) {
    const { instruments, settings } = this.services
    const answers: Array<Answer> = []
    const tokens = new Set<number>()
    let simulated = false
    let room = settings.MAX_CLIENT_TOKENS - this.client.tokens
    const take = (token: number, symbol?: string): void => {
      const named = symbol === undefined ? {} : { symbol }
      if (!tokens.has(token)) {
        if (!this.client.has(token) && room-- <= 0) {
          answers.push({ instrument_token: token, ...named, accepted: false, reason: "too_many_tokens" })
          return
        }
        tokens.add(token)
      } else if (symbol === undefined) return
      const instrument = instruments.get(token)
      simulated ||= instrument?.exchange === SIMULATED_EXCHANGE
      answers.push({ instrument_token: token, ...named, accepted: true, known: instrument !== undefined })
    }
    for (const token of message.tokens ?? []) take(token)
    for (const symbol of message.symbols ?? []) {
      const found = instruments.named(symbol)
      const [only] = found
      if (only !== undefined && found.length === 1) take(only.instrument_token, symbol)
      else answers.push({ symbol, accepted: false, reason: only === undefined ? "unknown_symbol" : "ambiguous_symbol" })
    }
    return { answers, tokens, simulated }
  }
}

const NOT_TEXT = Result.fail<Refused>({
  code: "bad_message",
  message: "input: expected text, got binary",
  id: undefined
})

/** Registers `/ws` on an app; what it answers ends every connection and lets no new one in. */
export const mountWebSocket = (app: TemplatedApp, guard: Guard, services: WebSocketServices): (() => void) => {
  const { hub, settings, isReady } = services
  let isStopping = false

  const refusal = (req: HttpRequest) => {
    const refused = guard(requestOrigin(req))
    if (refused !== undefined) return { status: 403, body: { _tag: "Forbidden", ...refused }, headers: {} }
    if (!isReady()) {
      const body = { _tag: "NotReady", message: "the server is still reading what was published before its start" }
      return { status: 503, body, headers: { "retry-after": "1" } }
    }
    if (isStopping || hub.size >= settings.MAX_CLIENTS) {
      const message = isStopping ? "the server is stopping" : `${settings.MAX_CLIENTS} clients are connected already`
      return { status: 503, body: { _tag: "Unavailable", message }, headers: { "retry-after": "5" } }
    }
    return undefined
  }

  app.ws<Connection>(WEBSOCKET_PATH, {
    // The app itself cuts a larger message off without a word, so that it is told here up to some size.
    maxPayloadLength: MAX_MESSAGE_BYTES * 8,
    maxBackpressure: UNBOUNDED,
    idleTimeout: IDLE_SECONDS,
    sendPingsAutomatically: true,
    // 0 is DISABLED: ticks are short, and compressing them costs more than sending them.
    compression: 0,
    upgrade: (res, req, context) => {
      const refused = refusal(req)
      if (refused !== undefined) {
        refuse(res, refused.status, refused.body, refused.headers, true)
        return
      }
      res.upgrade<Connection>(
        {},
        req.getHeader("sec-websocket-key"),
        req.getHeader("sec-websocket-protocol"),
        req.getHeader("sec-websocket-extensions"),
        context
      )
    },
    open: (ws) => {
      ws.getUserData().session = new Session(services, ws)
    },
    message: (ws, bytes, isBinary) => {
      ws.getUserData().session?.message(bytes, isBinary)
    },
    drain: (ws) => {
      ws.getUserData().session?.client.flush()
    },
    close: (ws) => {
      const { session } = ws.getUserData()
      if (session !== undefined) hub.disconnect(session.client)
    }
  })

  return () => {
    isStopping = true
    hub.shutdown(1001, "the server is stopping")
  }
}

/** `/ws` as a mount of the server. */
export const webSocket = (settings: WebSocketSettings): Effect.Effect<Mount, never, FanOut | Instruments | Readiness> =>
  Effect.gen(function* () {
    const hub = yield* FanOut
    const instruments = yield* Instruments
    const readiness = yield* Readiness
    let wasReady = false
    const isReady = () => {
      wasReady ||= Effect.runSync(readiness.report).ready
      return wasReady
    }
    return (app, { guard }) => Effect.sync(mountWebSocket(app, guard, { hub, instruments, settings, isReady }))
  })
