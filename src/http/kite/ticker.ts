/**
 * Decides how the ticker's connections are let in, held and ended: the pair in the handshake's query, as many of one key
 * as Kite has, a sign of life every two seconds whatever the market does.
 */
import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t, WebSocket } from "uWebSockets.js"
import { Cause, Effect } from "effect"
import type { LiveKey } from "../../layers/keys/ApiKeys.ts"
import { StoreError } from "../../schema/Errors.ts"
import { errorText, MAX_KITE_TEXT_CHARS, readKiteRequest } from "../../schema/kite/messages.ts"
import { HEARTBEAT } from "../../schema/kite/packets.ts"
import type { Settings } from "../../schema/Settings.ts"
import { ENDED, type KeyAccess } from "../access.ts"
import { addressOf, type ClientLog, peerOf } from "../clientLog.ts"
import { refuseAtOnce } from "../exchange.ts"
import { Flight } from "../flight.ts"
import type { Guard } from "../guard.ts"
import { requestOrigin } from "../head.ts"
import { Rate } from "../rate.ts"
import { KiteRefusal, refusalOf, refused, tooMany } from "./answers.ts"
import type { Gateway } from "./Gateway.ts"
import type { Source } from "./Sources.ts"
import { TickerClient } from "./TickerClient.ts"
import type { Visitor } from "./Visitors.ts"

/** Clients give up on who is silent for five. */
export const HEARTBEAT_MS = 2000
/** A peer that answers no ping for so long is gone. */
const IDLE_SECONDS = 120
/** uWebSockets.js: no bound of its own; what waits is bounded by what is sent to who does not read. */
const UNBOUNDED = 0
/** Bytes in a client's socket, and then on its way, at which it is behind. */
const MAX_BUFFERED_BYTES = 262_144
const MAX_FLIGHT_BYTES = 1_048_576
/** Messages at once, and then each second; a long one counts as one more for each so many characters. */
const MESSAGE_BURST = 1000
const MESSAGES_PER_SECOND = 1000
const CHARS_OF_MESSAGE = 1000
/** Those beyond that wait, also while a replay is made ready: as many as 3,000 instruments one by one, each with its mode. */
const MAX_WAITING = 10_000
const MAX_WAITING_CHARS = 1_048_576
/** What waits is read in pieces: whoever asks one by one is to cost few questions. */
const READ_ON_MS = 50
/** Where clients look for it. */
export const TICKER_PATHS = ["/", "/ws"]
const MAX_BYTES = MAX_KITE_TEXT_CHARS * 3

export type TickerSettings = Pick<Settings, "MAX_CLIENTS" | "CONNECTIONS_PER_ADDRESS">

export interface TickerServices {
  readonly gateway: Gateway
  readonly settings: TickerSettings
  readonly isReady: () => boolean
  readonly access: KeyAccess | undefined
  readonly guard: Guard
  readonly log: ClientLog
  /** Instruments that all connections subscribe to, and how many connections there are. */
  readonly counted: (subscriptions: number, connections: number) => void
  /** Runs what has to wait for something; nothing of it fails. */
  readonly run: (effect: Effect.Effect<void>) => void
}

interface Connection {
  readonly address: string
  readonly peer: string
  readonly visitor: Visitor
  readonly rate: Rate
  /** What it said that is yet to be read. */
  readonly waiting: Waiting
  /** Has more of it read. */
  timer: NodeJS.Timeout | undefined
  socket?: Socket
  client?: TickerClient
  source?: Source
  isGone: boolean
}

/** Messages in the order they came, a bounded number of them. */
class Waiting {
  private texts: Array<string> = []
  private taken = 0
  private chars = 0

  get first(): string | undefined {
    return this.texts[this.taken]
  }

  /** False where they would be too many. */
  add(text: string): boolean {
    if (this.texts.length - this.taken >= MAX_WAITING || this.chars + text.length > MAX_WAITING_CHARS) return false
    this.texts.push(text)
    this.chars += text.length
    return true
  }

  drop(): void {
    this.chars -= this.texts[this.taken++]!.length
    if (this.taken < this.texts.length && this.taken < MAX_WAITING) return
    this.texts = this.texts.slice(this.taken)
    this.taken = 0
  }
}

class Socket {
  private readonly ws: WebSocket<Connection>
  readonly flight: Flight
  isGone = false

  constructor(ws: WebSocket<Connection>) {
    this.ws = ws
    this.flight = new Flight(MAX_FLIGHT_BYTES, (payload) => ws.ping(payload))
  }

  readonly send = (data: string | Uint8Array): void => {
    if (this.isGone) return
    this.ws.send(data, typeof data !== "string", false)
    this.flight.add(data.length)
  }

  /** Says what went wrong, to who reads. */
  readonly tell = (message: string): void => {
    if (!this.isBehind()) this.send(errorText(message))
  }

  readonly isBehind = (): boolean =>
    this.isGone || this.flight.isFull || this.ws.getBufferedAmount() > MAX_BUFFERED_BYTES

  end(code: number, reason: string): void {
    if (this.isGone) return
    // What a slow one has to read is not waited for.
    if (this.ws.getBufferedAmount() > MAX_BUFFERED_BYTES) this.ws.close()
    else this.ws.end(code, reason)
  }
}

const costOf = (length: number): number => 1 + length / CHARS_OF_MESSAGE

const failureOf = (cause: Cause.Cause<StoreError>): string => {
  const error = Cause.squash(cause)
  return error instanceof StoreError ? error.message : "internal error"
}

/** Registers the ticker on an app; what it answers ends every connection and lets no new one in. */
export const mountTicker = (app: TemplatedApp, services: TickerServices): (() => void) => {
  const { access, gateway, guard, log, run, settings } = services
  const open = new Set<Connection>()
  const peers = new Map<string, number>()
  const identities = new Map<string, number>()
  let subscriptions = 0
  let isStopping = false
  const tell = () => services.counted(subscriptions, open.size)
  const count = (map: Map<string, number>, key: string, change: number) => {
    const next = (map.get(key) ?? 0) + change
    if (next > 0) map.set(key, next)
    else map.delete(key)
  }

  const enter = (req: HttpRequest, address: string, peer: string): Visitor | KiteRefusal => {
    const foreign = guard(requestOrigin(req))
    if (foreign !== undefined) return refused("PermissionException", foreign.message)
    if (isStopping) return refused("NetworkException", "the server is stopping")
    if (!services.isReady()) {
      return refused("NetworkException", "the server is still reading what was published before its start")
    }
    if (open.size >= settings.MAX_CLIENTS) {
      return refused("NetworkException", `${settings.MAX_CLIENTS} clients are connected already`)
    }
    if ((peers.get(peer) ?? 0) >= settings.CONNECTIONS_PER_ADDRESS) {
      return tooMany(`${settings.CONNECTIONS_PER_ADDRESS} clients of ${peer} are connected already`)
    }
    const query = new URLSearchParams(req.getQuery() ?? "")
    const visitor = gateway.visitors.enter(query.get("api_key") ?? "", query.get("access_token") ?? "", address, peer)
    if (visitor instanceof KiteRefusal) return visitor
    const most = gateway.settings.KITE_CONNECTIONS
    if ((identities.get(visitor.identity) ?? 0) >= most) {
      return tooMany(`this key has ${most} connections already, by KITE_CONNECTIONS`)
    }
    return visitor
  }

  const upgrade = (res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void => {
    const address = addressOf(res.getRemoteAddressAsText())
    const peer = peerOf(address)
    const visitor = enter(req, address, peer)
    if (visitor instanceof KiteRefusal) {
      const refusal = refusalOf(visitor)
      const { message, status } = visitor
      const event = visitor.error_type === "TokenException" ? "unauthorized" : "refused"
      log.tell(event, address, message, { status, reason: visitor.error_type, path: req.getUrl() })
      refuseAtOnce(res, "GET", refusal, true)
      return
    }
    const rate = new Rate(MESSAGE_BURST, MESSAGES_PER_SECOND)
    const connection: Connection = {
      address,
      peer,
      visitor,
      rate,
      waiting: new Waiting(),
      timer: undefined,
      isGone: false
    }
    // None of the protocols and extensions that are offered: Kite's ticker has none.
    res.upgrade<Connection>(connection, req.getHeader("sec-websocket-key"), "", "", context)
  }

  const end = (connection: Connection, code: number, reason: string): void => {
    if (connection.isGone) return
    const { address, visitor } = connection
    log.tell("ended", address, `${code} ${reason}`, { code, reason: "ticker", key: visitor.key?.name })
    connection.socket?.end(code, reason)
  }

  const read = (connection: Connection, text: string): void => {
    const { address, client, socket, visitor } = connection
    const request = readKiteRequest(text)
    if (typeof request === "string") {
      log.tell("bad_input", address, request, { reason: "ticker", key: visitor.key?.name })
      socket!.tell(request)
      return
    }
    client!.ask(request)
    if (request.a === "subscribe") run(connection.source!.begin)
  }

  /** Reads what waits, as far as it may say so much by now; the rest once it may. */
  const readOn = (connection: Connection): void => {
    const { rate, waiting } = connection
    connection.timer = undefined
    for (let text = waiting.first; text !== undefined && !connection.isGone; text = waiting.first) {
      const cost = costOf(text.length)
      if (!rate.take(cost)) {
        connection.timer = setTimeout(readOn, Math.max(READ_ON_MS, rate.secondsUntil(cost) * 1000), connection)
        return
      }
      waiting.drop()
      read(connection, text)
    }
  }

  const welcome = (connection: Connection, source: Source): void => {
    if (connection.isGone) return
    const socket = connection.socket!
    const { visitor } = connection
    connection.source = source
    source.enter()
    connection.client = new TickerClient({
      gateway,
      socket,
      source,
      visitor,
      find: (tokens, done) => {
        const wanted = tokens.flatMap((token) => {
          const one = source.market.of(token)
          return one === undefined || one.isFound ? [] : [one]
        })
        if (wanted.length === 0) return done()
        run(
          Effect.matchCause(gateway.findDays.find(source.market, wanted, source.now()), {
            onFailure: (cause) => done(failureOf(cause)),
            onSuccess: () => done()
          })
        )
      },
      counted: (change) => {
        subscriptions += change
        tell()
      }
    })
    readOn(connection)
  }

  const behavior = {
    maxPayloadLength: MAX_BYTES,
    maxBackpressure: UNBOUNDED,
    idleTimeout: IDLE_SECONDS,
    sendPingsAutomatically: true,
    upgrade,
    open: (ws: WebSocket<Connection>) => {
      const connection = ws.getUserData()
      const { peer, visitor } = connection
      connection.socket = new Socket(ws)
      open.add(connection)
      count(peers, peer, 1)
      count(identities, visitor.identity, 1)
      access?.observer.figuresOf(visitor.key?.name ?? "").connections(1)
      tell()
      connection.socket.send(HEARTBEAT)
      run(
        Effect.matchEffect(gateway.sources.of(visitor, "connects"), {
          onFailure: (refusal) =>
            Effect.sync(() => {
              connection.socket!.tell(refusal.message)
              // Once it is open: before, the library ends it without a word.
              setImmediate(() => end(connection, 1008, "the market cannot be had"))
            }),
          onSuccess: (source) => Effect.sync(() => welcome(connection, source))
        })
      )
    },
    message: (ws: WebSocket<Connection>, bytes: ArrayBuffer, isBinary: boolean) => {
      const connection = ws.getUserData()
      if (isBinary) {
        if (connection.rate.take(costOf(bytes.byteLength))) {
          connection.socket!.tell("input: expected JSON text, got binary")
        } else end(connection, 1008, `more than ${MESSAGES_PER_SECOND} messages a second`)
        return
      }
      if (!connection.waiting.add(Buffer.from(bytes).toString("utf8"))) {
        const most = `${MAX_WAITING} messages, or ${MAX_WAITING_CHARS} characters of them`
        end(connection, 1008, `more than may wait: ${most}, at ${MESSAGES_PER_SECOND} messages a second`)
      } else if (connection.client !== undefined && connection.timer === undefined) readOn(connection)
    },
    pong: (ws: WebSocket<Connection>, payload: ArrayBuffer) => {
      const { client, socket } = ws.getUserData()
      if (socket?.flight.answered(Buffer.from(payload).toString("latin1")) === true) client?.readOn()
    },
    drain: (ws: WebSocket<Connection>) => ws.getUserData().client?.readOn(),
    close: (ws: WebSocket<Connection>) => {
      const connection = ws.getUserData()
      const { client, peer, socket, source, visitor } = connection
      connection.isGone = true
      clearTimeout(connection.timer)
      if (socket !== undefined) socket.isGone = true
      open.delete(connection)
      count(peers, peer, -1)
      count(identities, visitor.identity, -1)
      access?.observer.figuresOf(visitor.key?.name ?? "").connections(-1)
      client?.close()
      if (source !== undefined) run(source.leave())
      tell()
    }
  }
  for (const path of TICKER_PATHS) app.ws<Connection>(path, behavior)

  const beat = setInterval(() => {
    for (const { client, socket } of open) {
      if (client !== undefined) client.beat()
      else socket?.send(HEARTBEAT)
    }
  }, HEARTBEAT_MS)

  const forget = access?.ring.onEnded((ended: ReadonlySet<LiveKey>) => {
    for (const connection of [...open]) {
      const { key } = connection.visitor
      if (key !== undefined && ended.has(key)) end(connection, 1008, `the API key ${ENDED[key.over ?? "revoked"]}`)
    }
  })

  return () => {
    isStopping = true
    clearInterval(beat)
    forget?.()
    for (const connection of [...open]) connection.socket?.end(1001, "the server is stopping")
  }
}
