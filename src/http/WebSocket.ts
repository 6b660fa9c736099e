/**
 * Decides how clients listen live: `/ws`, its upgrade, how many are let in, and how each is ended. What they say is
 * their session's, the ticks are the hub's. Nothing that goes wrong with one client reaches the others, or the process.
 */
import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t, WebSocket } from "uWebSockets.js"
import { Effect } from "effect"
import { LiveKey } from "../layers/keys/ApiKeys.ts"
import { authorizedFrame, type ErrorCode, MAX_MESSAGE_BYTES } from "../schema/Protocol.ts"
import type { Settings } from "../schema/Settings.ts"
import type { ClientSocket, EndReason } from "../streams/fanOut/ClientQueue.ts"
import { FanOut, type Hub } from "../streams/fanOut/Hub.ts"
import * as metrics from "../streams/metrics.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { Access, ENDED, type KeyAccess, KeyConnections, keyInQuery } from "./access.ts"
import { addressOf, type ClientAbout, type ClientEvent, type ClientLog, peerOf } from "./clientLog.ts"
import { Deflate, deflateOffer } from "./deflate.ts"
import { Flight } from "./flight.ts"
import type { Guard } from "./guard.ts"
import { type Newcomer, Newcomers } from "./newcomers.ts"
import { Penalties } from "./penalties.ts"
import { type Mount, refuse, requestOrigin } from "./Server.ts"
import { ClientSession, type SessionSettings } from "./session.ts"
import { MESSAGES, Shares } from "./shares.ts"
import { SilentClients } from "./silentClients.ts"

export const WEBSOCKET_PATH = "/ws"

/** The longest that the library knows: who is silent is asked, and cut off, long before (`silentClients.ts`). */
const IDLE_SECONDS = 960
/** uWebSockets.js: no bound of its own on what waits in a socket; a bound there would drop frames without a word. */
const UNBOUNDED = 0
/**
 * uWebSockets.js: one window for all connections, so that none keeps its own. Frames go compressed where `send` says so;
 * what comes compressed is bounded by what it is when it has been inflated.
 */
const SHARED_COMPRESSOR = 1
/** What a peer that is ended may still have to read and be told why by the close frame behind it, without delay. */
const SMALL_BYTES = 16_384
/** How long a peer with more than that to read has, from when it last read some, before it is cut off. */
const LINGER_MS = 5_000
/**
 * A peer that is ended for what it did is asked with a ping before it is told why. Behind a close frame the library reads
 * on, some 16 s, whatever still comes, and no bound reaches it there: who does not read does not see the frame, and goes
 * on. One that reads, and goes on nevertheless, cannot be told apart before.
 */
const LAST_PING = "end"
/** What may come of it meanwhile, which is what was under way; more, or no answer in its time, and it is cut off. */
const GOES_ON_BYTES = 1024 * 1024
/** Whose key is over is cut off sooner: it may read nothing more. */
const KEY_LINGER_MS = 800
/** What a frame costs beside its bytes. */
const FRAME_BYTES = 16
/** Whoever has to wait and asks at once again costs a handshake each time: its answer comes late. */
const HOLD_MS = 1_000
/** So many at a time; one more is answered at once. */
const MAX_HELD = 256
/** The version of RFC 6455; others frame differently. */
const VERSION = "13"
/** None is spoken here, whichever are offered: whoever insists on one is told by its own library. */
const NO_PROTOCOL = ""
/** 16 bytes in base64. */
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/
/** Who is ended for these again and again waits before he is let in anew. */
const PENALIZED: ReadonlySet<EndReason> = new Set(["too_many_messages", "too_many_bytes", "bad_messages"])
/** Refusals that leave a line: the others are between the client and its own limits. */
const LOGGED: Readonly<Partial<Record<ErrorCode, ClientEvent>>> = {
  bad_message: "bad_input",
  unauthorized: "unauthorized",
  forbidden: "refused"
}

export type WebSocketSettings = SessionSettings &
  Pick<
    Settings,
    | "MAX_CLIENTS"
    | "CONNECTIONS_PER_ADDRESS"
    | "CONNECTIONS_PER_KEY"
    | "MAX_KEYLESS_CLIENTS"
    | "AUTH_TIMEOUT_MS"
    | "CLIENT_FLIGHT_BYTES"
  >

/** Why an upgrade is refused, as its figure is labelled. */
export type RefusalReason =
  | "forbidden"
  | "handshake"
  | "not_ready"
  | "stopping"
  | "full"
  | "address_full"
  | "address_waits"
  | "unauthorized"
  | "key_rate"
  | "key_full"
  | "failed"

/** What `/ws` tells whoever counts. */
export interface WebSocketObserver {
  /** A client is gone: the server ended it, what the library says of its frames, or it `left`. */
  readonly ended: (why: EndReason | LibraryReason | "left") => void
  readonly upgradeRefused: (why: RefusalReason) => void
  readonly messageRefused: (code: string) => void
}

const silent: WebSocketObserver = {
  ended: () => undefined,
  upgradeRefused: () => undefined,
  messageRefused: () => undefined
}

export interface WebSocketServices {
  readonly hub: Hub
  readonly instruments: Pick<Instruments["Service"], "get" | "named" | "at" | "everNamed">
  readonly settings: WebSocketSettings
  /** Whether the hub has read the log up to now: before that it knows less than a client that comes back. */
  readonly isReady: () => boolean
  readonly log?: ClientLog
  readonly observer?: WebSocketObserver
  /** Absent: nobody is asked for a key. */
  readonly access?: KeyAccess | undefined
  /** Milliseconds, by which those wait who sent too much, and others are behind; the process's own clock unless given. */
  readonly now?: () => number
  /** Milliseconds between two looks at who is silent. */
  readonly silenceLookMs?: number
}

interface Connection {
  readonly address: string
  readonly peer: string
  /** It reads compressed frames. */
  readonly deflates: boolean
  /** What is to be said of its handshake where it shows no key. */
  readonly hint: string
  /** By which it was let in, where a key is asked for. */
  key: LiveKey | undefined
  socket?: Socket
  session?: ClientSession
  /** It has yet to show its key. */
  newcomer?: Newcomer
}

/** One connection as the hub knows it. */
class Socket implements ClientSocket {
  private readonly ws: WebSocket<Connection>
  private readonly ending: (code: number, reason: string, why: EndReason, error: unknown) => void
  private sends: (() => void) | undefined
  private broken: unknown
  /** Waits to be told why it is ended, behind what it has to read. */
  private lingering: { readonly code: number; readonly reason: string; readonly timer: NodeJS.Timeout } | undefined
  why: EndReason | undefined
  /** Is told why once it has answered the last ping. */
  private settling: { readonly code: number; readonly reason: string; readonly timer: NodeJS.Timeout } | undefined
  /** What has come of it since it is being ended. */
  private bytesAfter = 0
  private isGone = false
  /** Looks at it since it was last heard. */
  silent = 0
  /** It was silent for too long. */
  isSilent = false
  private readonly deflate: Deflate | undefined
  private readonly flight: Flight

  /** `deflate` is there where the peer reads compressed frames. */
  constructor(
    ws: WebSocket<Connection>,
    deflate: Deflate | undefined,
    { now, settings }: Pick<WebSocketServices, "now" | "settings">,
    ending: (code: number, reason: string, why: EndReason, error: unknown) => void
  ) {
    this.ws = ws
    this.deflate = deflate
    this.ending = ending
    this.flight = new Flight(settings.CLIENT_FLIGHT_BYTES, (payload) => ws.ping(payload), now)
  }

  send(text: string, many = false): boolean {
    const sent =
      many && this.deflate !== undefined
        ? this.deflate.send(text, (compress) => this.ws.send(text, false, compress))
        : this.ws.send(text, false, false)
    // About its bytes, and before compression: what a peer reads is what it has to take in.
    this.flight.add(text.length)
    return sent === 1
  }

  buffered(): number {
    return this.ws.getBufferedAmount()
  }

  isBehind(): boolean {
    return this.flight.isFull
  }

  isSlow(): boolean {
    return this.flight.isSlow
  }

  /** What is thrown inside must not pass through the library, which would hand it to nobody. */
  cork(sends: () => void): void {
    this.sends = sends
    this.ws.cork(this.run)
    const { broken } = this
    if (broken === undefined) return
    this.broken = undefined
    throw broken
  }

  private readonly run = (): void => {
    try {
      this.sends!()
    } catch (error) {
      this.broken = error ?? new Error("nothing was thrown")
    }
  }

  end(code: number, reason: string, why: EndReason, error?: unknown): void {
    if (this.isGone || this.why !== undefined) return
    this.why = why
    this.ending(code, reason, why, error)
    // What it holds is wanted back now.
    if (why === "overload" && this.buffered() > SMALL_BYTES) this.ws.close()
    else if (why === "overload" || why === "stopping" || why === "failed" || why === "slow") this.tell(code, reason)
    else this.settle(code, reason, why === "key" ? KEY_LINGER_MS : LINGER_MS)
  }

  private tell(code: number, reason: string): void {
    if (this.buffered() <= SMALL_BYTES) this.ws.end(code, reason)
    else this.lingering = { code, reason, timer: setTimeout(() => this.cutOff(), LINGER_MS) }
  }

  private settle(code: number, reason: string, lingerMs: number): void {
    this.settling = { code, reason, timer: setTimeout(() => this.cutOff(), lingerMs) }
    this.ws.ping(LAST_PING)
  }

  /** Something comes of a peer that is being ended. Nothing is kept of it. */
  heard(bytes: number): void {
    this.bytesAfter += bytes + FRAME_BYTES
    if (this.bytesAfter > GOES_ON_BYTES) this.cutOff()
  }

  /**
   * A pong has come of it; false where nobody asked for it. What answers the last ping says that it has read all that went
   * before, and nothing else is to come.
   */
  answered(bytes: ArrayBuffer): boolean {
    const payload = Buffer.from(bytes).toString("latin1")
    if (this.flight.answered(payload)) {
      this.lingering?.timer.refresh()
      return true
    }
    const { settling } = this
    if (settling === undefined || payload !== LAST_PING) return false
    this.settling = undefined
    clearTimeout(settling.timer)
    this.tell(settling.code, settling.reason)
    return true
  }

  /** The kernel has taken something: the peer has read. */
  drained(): void {
    if (this.lingering === undefined) return
    const { code, reason, timer } = this.lingering
    if (this.buffered() > SMALL_BYTES) {
      timer.refresh()
      return
    }
    this.lingering = undefined
    clearTimeout(timer)
    this.ws.end(code, reason)
  }

  /** The connection is no more: nothing of it may be touched. */
  gone(): void {
    this.isGone = true
    clearTimeout(this.settling?.timer)
    this.settling = undefined
    clearTimeout(this.lingering?.timer)
    this.lingering = undefined
  }

  cutOff(): void {
    if (!this.isGone) this.ws.close()
  }

  /** A ping asks whether the peer is there. */
  ask(): void {
    if (!this.isGone) this.ws.ping()
  }

  /** The peer was silent for too long. */
  giveUp(): void {
    this.isSilent = true
    this.cutOff()
  }
}

/** Registers `/ws` on an app; what it answers ends every connection and lets no new one in. */
export const mountWebSocket = (app: TemplatedApp, guard: Guard, services: WebSocketServices): (() => void) => {
  const { hub, settings, instruments, isReady, log, access } = services
  const observer = services.observer ?? silent
  const shares = new Shares(MESSAGES)
  let isStopping = false
  /** Connections that are open, those that are being ended too: in all, and by peer. */
  let open = 0
  const peers = new Map<string, number>()
  const penalties = new Penalties(services.now)
  const deflate = new Deflate()
  const silence = new SilentClients(services.silenceLookMs)
  /** Refusals that are answered in a while. */
  let held = 0
  /** Where one address may have every connection it is a proxy's, and says nothing of who misbehaves behind it. */
  const isOnesOwn = settings.CONNECTIONS_PER_ADDRESS < settings.MAX_CLIENTS
  const connections = new KeyConnections<Connection>(settings.CONNECTIONS_PER_KEY, (key, change) =>
    access?.observer.figuresOf(key.name).connections(change)
  )
  const newcomers = access === undefined ? undefined : new Newcomers(access, { ...settings, isOnesOwn })

  const refusal = (req: HttpRequest, peer: string): Refusal | undefined => {
    const refused = guard(requestOrigin(req))
    if (refused !== undefined) return { why: "forbidden", status: 403, body: { _tag: "Forbidden", ...refused } }
    const wrong = handshakeProblem(req)
    if (wrong !== undefined) return wrong
    if (isStopping) return unavailable("stopping", "the server is stopping", "5")
    if (!isReady()) {
      const message = "the server is still reading what was published before its start"
      return { ...unavailable("not_ready", message, "1"), body: { _tag: "NotReady", message } }
    }
    if (open >= settings.MAX_CLIENTS) {
      return unavailable("full", `${settings.MAX_CLIENTS} clients are connected already`, "5")
    }
    if ((peers.get(peer) ?? 0) >= settings.CONNECTIONS_PER_ADDRESS) {
      const message = `${settings.CONNECTIONS_PER_ADDRESS} clients of ${peer} are connected already`
      const headers = { "retry-after": "5" }
      return { why: "address_full", status: 429, body: { _tag: "TooManyRequests", message }, headers }
    }
    const wait = Math.ceil(penalties.left(peer) / 1000)
    if (wait > 0) {
      const message = `clients of ${peer} were closed for what they sent again and again: expected to wait ${wait} s`
      const headers = { "retry-after": String(wait) }
      return { why: "address_waits", status: 429, body: { _tag: "TooManyRequests", message }, headers }
    }
    return undefined
  }

  const tooMany = (key: LiveKey): string =>
    `key "${key.name}" has ${settings.CONNECTIONS_PER_KEY} clients connected: CONNECTIONS_PER_KEY`

  /** The key that a handshake shows in its header, why it is refused, or `undefined`: then a message is to show it. */
  const keyOf = (req: HttpRequest, peer: string): LiveKey | Refusal | undefined => {
    if (access === undefined) return undefined
    const authorizations: Array<string> = []
    req.forEach((name, value) => {
      if (name === "authorization") authorizations.push(value)
    })
    const key = access.shown(authorizations, peer)
    if (key === undefined) return undefined
    if (!(key instanceof LiveKey)) {
      const { body, headers = {}, key: name, reason, status } = key
      return { why: reason === "key_rate" ? reason : "unauthorized", status, body, headers, key: name }
    }
    if (!connections.isFull(key)) return key
    access.observer.figuresOf(key.name).refused("connections")
    const body = { _tag: "TooManyRequests", message: tooMany(key) }
    return { why: "key_full", status: 429, body, headers: { "retry-after": "5" }, key: key.name }
  }

  const answer = (res: HttpResponse, address: string, refused: Refusal): void => {
    observer.upgradeRefused(refused.why)
    const { body, key, status, why } = refused
    const about = { status, reason: why, path: WEBSOCKET_PATH, key }
    log?.tell(why === "unauthorized" ? "unauthorized" : "refused", address, body.message, about)
    const say = () => refuse(res, refused.status, refused.body, refused.headers ?? {}, true)
    const hasToWait = refused.why === "address_waits" || (refused.why === "unauthorized" && refused.status === 429)
    if (hasToWait && held < MAX_HELD) hold(res, say)
    else say()
  }

  /** Answers in a while, where the peer is still there then. */
  const hold = (res: HttpResponse, say: () => void): void => {
    held++
    const timer = setTimeout(() => {
      held--
      say()
    }, HOLD_MS).unref()
    res.onAborted(() => {
      held--
      clearTimeout(timer)
    })
  }

  const upgrade = (res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void => {
    const address = addressOf(res.getRemoteAddressAsText())
    let refused: Refusal | undefined
    try {
      const peer = peerOf(address)
      const shown = refusal(req, peer) ?? keyOf(req, peer)
      if (shown === undefined || shown instanceof LiveKey) {
        const extension = deflateOffer(req.getHeader("sec-websocket-extensions"))
        const hint = keyInQuery(req.getQuery() ?? "")
        const connection: Connection = { address, peer, deflates: extension !== "", hint, key: shown }
        res.upgrade<Connection>(connection, req.getHeader("sec-websocket-key"), NO_PROTOCOL, extension, context)
        return
      }
      refused = shown
    } catch (error) {
      log?.tell("failed", address, textOf(error))
      refused = { why: "failed", status: 500, body: { _tag: "InternalError", message: "internal error" } }
    }
    answer(res, address, refused)
  }

  /** Something was heard of a client; whatever a handler throws ends this one client, and leaves a line. */
  const guarded = (ws: WebSocket<Connection>, run: (connection: Connection) => void): void => {
    const connection = ws.getUserData()
    if (connection.socket !== undefined) connection.socket.silent = 0
    try {
      run(connection)
    } catch (error) {
      if (connection.session !== undefined) hub.fail(connection.session.client.queue, error)
      else {
        log?.tell("failed", connection.address, textOf(error))
        ws.end(1011, "internal error")
      }
    }
  }

  /**
   * Pings are answered by the library, whether the peer reads or not: they count like messages, and what waits is bounded.
   * So do pongs that nobody asked for.
   */
  const control = ({ newcomer, session, socket }: Connection, bytes: ArrayBuffer): void => {
    if (socket?.why !== undefined) socket.heard(bytes.byteLength)
    else if (session !== undefined) session.count(bytes.byteLength)
    else newcomer?.count()
  }

  app.ws<Connection>(WEBSOCKET_PATH, {
    // The app itself cuts a larger message off without a word, so that it is told here up to some size.
    maxPayloadLength: MAX_MESSAGE_BYTES * 2,
    maxBackpressure: UNBOUNDED,
    idleTimeout: IDLE_SECONDS,
    sendPingsAutomatically: false,
    compression: SHARED_COMPRESSOR,
    upgrade,
    open: (ws) =>
      guarded(ws, (connection) => {
        const { address, peer, deflates, hint } = connection
        const about = (reason: string, key = connection.key?.name): ClientAbout => ({
          reason,
          path: WEBSOCKET_PATH,
          key
        })
        open++
        peers.set(peer, (peers.get(peer) ?? 0) + 1)
        const socket = new Socket(ws, deflates ? deflate : undefined, services, (code, reason, why, error) => {
          if (error !== undefined) log?.tell("failed", address, textOf(error))
          else if (why !== "stopping") log?.tell("ended", address, `${code} ${reason}`, { code, ...about(why) })
          if (isOnesOwn && PENALIZED.has(why)) penalties.add(peer)
        })
        connection.socket = socket
        const refused = (code: ErrorCode, text: string, key?: string) => {
          observer.messageRefused(code)
          const event = LOGGED[code]
          if (event !== undefined) log?.tell(event, address, text, about(code, key))
        }
        const begin = (key?: LiveKey): ClientSession => {
          const session = new ClientSession(
            { hub, instruments, settings, shares, observer: { refused }, access },
            socket,
            key
          )
          connection.session = session
          silence.add(socket, () => (session.client.queue.policy === "pause" ? hub.settings.CLIENT_PAUSE_MS : 0))
          if (key !== undefined) connections.add(key, connection)
          return session
        }
        if (newcomers === undefined || connection.key !== undefined) {
          begin(connection.key)
          return
        }
        connection.newcomer = newcomers.add({
          peer,
          hint,
          send: (text) => socket.send(text),
          end: (code, reason, why) => socket.end(code, reason, why),
          cutOff: () => socket.cutOff(),
          refused,
          welcome: (key, id) => {
            if (connections.isFull(key)) {
              access?.observer.figuresOf(key.name).refused("connections")
              return tooMany(key)
            }
            connection.key = key
            const { client } = begin(key)
            client.say(authorizedFrame(id, key))
            client.flush()
            return undefined
          }
        })
      }),
    message: (ws, bytes, isBinary) =>
      guarded(ws, ({ newcomer, session, socket }) => {
        if (socket?.why !== undefined) socket.heard(bytes.byteLength)
        else if (session !== undefined) session.message(bytes, isBinary)
        else newcomer?.message(bytes, isBinary)
      }),
    ping: (ws, bytes) => guarded(ws, (connection) => control(connection, bytes)),
    pong: (ws, bytes) =>
      guarded(ws, (connection) => {
        if (connection.socket?.answered(bytes) === true) connection.session?.client.flush()
        else control(connection, bytes)
      }),
    drain: (ws) =>
      guarded(ws, ({ session, socket }) => {
        session?.client.flush()
        socket?.drained()
      }),
    close: (ws, code, text) => {
      const connection = ws.getUserData()
      const { address, key, newcomer, peer, socket, session } = connection
      open--
      newcomer?.gone()
      if (key !== undefined) connections.remove(key, connection)
      const others = (peers.get(peer) ?? 1) - 1
      if (others > 0) peers.set(peer, others)
      else peers.delete(peer)
      const own = socket?.why ?? (socket?.isSilent === true ? "idle" : libraryReason(code, text))
      observer.ended(own ?? "left")
      if (own !== undefined && socket?.why === undefined) {
        const said = own === "idle" ? "nothing was heard of it" : Buffer.from(text).toString("utf8")
        log?.tell("ended", address, said, { code, reason: own, path: WEBSOCKET_PATH, key: key?.name })
      }
      if (socket !== undefined) silence.remove(socket)
      socket?.gone()
      try {
        session?.close()
      } catch (error) {
        log?.tell("failed", peer, textOf(error))
      }
    }
  })
  // What asks for `/ws` without the key of an upgrade comes here.
  app.get(WEBSOCKET_PATH, (res, req) => {
    const address = addressOf(res.getRemoteAddressAsText())
    const refused = guard(requestOrigin(req))
    answer(
      res,
      address,
      refused === undefined
        ? (handshakeProblem(req) ?? NO_UPGRADE)
        : { why: "forbidden", status: 403, body: { _tag: "Forbidden", ...refused } }
    )
  })

  // Some at a time: a key may have thousands.
  const forget = access?.ring.onEnded((ended) => {
    for (const key of ended) {
      const reason = `the API key ${ENDED[key.over ?? "revoked"]}`
      for (const { session } of connections.of(key)) {
        const step = () => {
          session?.client.queue.end(1008, reason, "key")
          return false
        }
        shares.add({ step })
      }
    }
  })

  return () => {
    isStopping = true
    forget?.()
    newcomers?.shutdown(1001, "the server is stopping")
    hub.shutdown(1001, "the server is stopping")
  }
}

/** Why the library closes a connection by itself, without a close code. */
export type LibraryReason = "too_large" | "bad_frames" | "idle"

/** What the library says where it has ended a connection; the texts are its own. */
const libraryReason = (code: number, text: ArrayBuffer): LibraryReason | undefined => {
  if (code !== 1006) return undefined
  const said = Buffer.from(text).toString("latin1")
  if (said.includes("too big")) return "too_large"
  if (said.includes("timed out")) return "idle"
  return said.startsWith("Received invalid") ? "bad_frames" : undefined
}

interface Refusal {
  readonly why: RefusalReason
  readonly status: number
  readonly body: { readonly _tag: string; readonly message: string; readonly parameter?: string }
  readonly headers?: Readonly<Record<string, string>>
  /** The name of the key that was shown, where it was one. */
  readonly key?: string | undefined
}

const unavailable = (why: RefusalReason, message: string, seconds: string): Refusal => ({
  why,
  status: 503,
  body: { _tag: "Unavailable", message },
  headers: { "retry-after": seconds }
})

const NO_UPGRADE: Refusal = {
  why: "handshake",
  status: 426,
  body: { _tag: "UpgradeRequired", message: "/ws is a WebSocket: expected the headers of an upgrade" },
  headers: { upgrade: "websocket", "sec-websocket-version": VERSION }
}

/** What is wrong with an upgrade's own headers: the library looks only at how long the key is. */
const handshakeProblem = (req: HttpRequest): Refusal | undefined => {
  const connection = req.getHeader("connection").toLowerCase()
  const isUpgrade =
    req.getHeader("upgrade").toLowerCase() === "websocket" &&
    connection.split(",").some((part) => part.trim() === "upgrade")
  if (!isUpgrade) return NO_UPGRADE
  const version = req.getHeader("sec-websocket-version")
  if (version !== VERSION) {
    const message = `Sec-WebSocket-Version: expected ${VERSION}, got ${version === "" ? "nothing" : version.slice(0, 20)}`
    return { ...NO_UPGRADE, body: { _tag: "UpgradeRequired", message } }
  }
  if (KEY.test(req.getHeader("sec-websocket-key"))) return undefined
  const message = "Sec-WebSocket-Key: expected 16 bytes in base64"
  return { why: "handshake", status: 400, body: { _tag: "BadRequest", message } }
}

const textOf = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error))

/** `/ws` as a mount of the server. */
export const webSocket = (
  settings: WebSocketSettings
): Effect.Effect<Mount, never, Access | FanOut | Instruments | Readiness> =>
  Effect.gen(function* () {
    const hub = yield* FanOut
    const instruments = yield* Instruments
    const readiness = yield* Readiness
    const { keys } = yield* Access
    const context = yield* Effect.context<never>()
    const counted = (metric: typeof metrics.clientsEnded, label: string) => {
      const series = new Map<string, { readonly add: (n: number) => void }>()
      return (value: string): void => {
        const one = series.get(value) ?? metrics.bind(metric, { [label]: value }, context)
        series.set(value, one)
        one.add(1)
      }
    }
    const observer: WebSocketObserver = {
      ended: counted(metrics.clientsEnded, "reason"),
      upgradeRefused: counted(metrics.upgradesRefused, "reason"),
      messageRefused: counted(metrics.messagesRefused, "code")
    }
    let wasReady = false
    const isReady = () => {
      wasReady ||= Effect.runSync(readiness.report).ready
      return wasReady
    }
    return (app, { guard, log }) =>
      Effect.sync(mountWebSocket(app, guard, { hub, instruments, settings, isReady, log, observer, access: keys }))
  })
