/**
 * Decides how one socket is kept: opened when it is wanted, authorized by its first message, asked whether it lives when
 * nothing is heard, and made again by itself after a wait that its end asks for.
 */
import { failuresOf, type Reconnect, waitOf } from "./backoff.ts"
import { ConnectionFailed, type MarketDataError, Unauthorized } from "./errors.ts"
import { answeredWith, type Failure, type Handshake, listenTo, reasonOf, UNKNOWN } from "./handshake.ts"
import type { AuthorizedFrame, ClientMessage, ErrorFrame, ServerMessage } from "./messages.ts"

/** What the client needs of a WebSocket: the one of browsers and Node, or that of the package `ws`. */
export interface Socket {
  onopen: ((event: never) => void) | null
  onmessage: ((event: never) => void) | null
  onerror: ((event: never) => void) | null
  onclose: ((event: never) => void) | null
  send(data: string): void
  close(code?: number, reason?: string): void
}
export type SocketConstructor = new (url: string) => Socket

/** What `ws` has beside that. */
interface NodeSocket extends Socket {
  readonly on?: (event: "unexpected-response", listener: (request: Ended, response: Refusal) => void) => void
  readonly terminate?: () => void
  readonly pause?: () => void
  readonly resume?: () => void
}
interface Ended {
  readonly destroy: () => void
}
interface Refusal {
  readonly statusCode?: number
  readonly statusMessage?: string
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
}

/** An API key, or what gives one: asked anew for each connection and request, and again where one was refused. */
export type Key = string | (() => string | Promise<string>)

export interface Heartbeat {
  /** Nothing heard for so long, and the server is asked whether it is there. */
  readonly silenceMs: number
  /** It has so long to say anything. */
  readonly answerMs: number
}

export const HEARTBEAT: Heartbeat = { silenceMs: 10_000, answerMs: 10_000 }

export interface LinkOptions {
  readonly url: string
  readonly key: Key | undefined
  readonly WebSocket: SocketConstructor
  readonly reconnect: Reconnect
  readonly heartbeat: Heartbeat
  readonly connectTimeoutMs: number
}

export interface Down {
  readonly code: number
  /** In words, whatever the server or the runtime said. */
  readonly reason: string
  readonly retryInMs: number
}

/** What a link tells its owner. */
export interface LinkHooks {
  /** Messages may be sent; `attempt` counts from 1. */
  readonly opened: (attempt: number, authorized: AuthorizedFrame | undefined) => void
  readonly message: (message: ServerMessage) => void
  readonly down: (down: Down) => void
  /** It will not be made again. */
  readonly failed: (error: MarketDataError) => void
}

export type LinkState = "idle" | "connecting" | "open" | "waiting" | "closed"

/** A connection that held so long starts the counting of failures anew. */
const STEADY_MS = 5_000
/** Beside the time that an answer has, for what came while the application held up everything. */
const GRACE_MS = 250
const ABNORMAL = 1006
const UNAUTHORIZED = 401
/** Codes of our own, as an endpoint may use them. */
export const CODE_SILENT = 4900
export const CODE_RULE = 4901
export const CODE_ANEW = 4902
const CODE_TIMEOUT = 4903
const CODE_KEY = 4904

const elapsed = (): number => performance.now()

/** Browsers tell when the network comes and goes. */
const browser = globalThis as {
  readonly addEventListener?: (event: string, listener: () => void) => void
  readonly removeEventListener?: (event: string, listener: () => void) => void
}

export class Link {
  readonly #options: LinkOptions
  readonly #hooks: LinkHooks
  #state: LinkState = "idle"
  #socket: NodeSocket | undefined
  #handshake: Handshake | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #pulse: ReturnType<typeof setTimeout> | undefined
  #heardAt = 0
  #openedAt: number | undefined
  /** Since when it has been tried. */
  #triedSince = 0
  #wasOpen = false
  #failures = 0
  /** Tries since it was last open. */
  #attempts = 0
  /** Tells a try from one that was given up. */
  #turn = 0
  /** Why the last try came to nothing. */
  #reason = ""
  /** What the server said of a key that it will not have. */
  #refused: string | undefined
  /** The key function was asked again after a refusal. */
  #isRenewed = false
  #isHeld = false

  constructor(options: LinkOptions, hooks: LinkHooks) {
    this.#options = options
    this.#hooks = hooks
  }

  get state(): LinkState {
    return this.#state
  }

  get isOpen(): boolean {
    return this.#state === "open"
  }

  /** Whether this runtime's socket can be left unread. */
  get canHold(): boolean {
    const { prototype } = this.#options.WebSocket as { readonly prototype?: { readonly pause?: unknown } }
    return typeof prototype?.pause === "function"
  }

  start(): void {
    if (this.#state !== "idle") return
    this.#triedSince = elapsed()
    this.#attempts = 0
    this.#failures = 0
    this.#wasOpen = false
    browser.addEventListener?.("online", this.#online)
    browser.addEventListener?.("offline", this.#offline)
    void this.#connect()
  }

  /** Closes the socket, which may be started again. */
  stop(): void {
    if (this.#state === "closed") return
    this.#leave(1000, "")
    this.#state = "idle"
  }

  /** For good. */
  close(): void {
    this.stop()
    this.#state = "closed"
  }

  send(message: ClientMessage): void {
    this.#socket?.send(JSON.stringify(message))
  }

  /** Gives the connection up, and makes it again. */
  drop(code: number, reason: string): void {
    if (this.#socket !== undefined) this.#ended(code, reason)
  }

  /** Leaves the socket unread, so that the server sees a slow client; or reads on. */
  hold(isHeld: boolean): void {
    this.#isHeld = isHeld
    if (this.#state !== "open") return
    if (isHeld) this.#socket?.pause?.()
    else {
      this.#socket?.resume?.()
      this.#heardAt = elapsed()
    }
  }

  readonly #online = (): void => {
    if (this.#state !== "waiting") return
    clearTimeout(this.#timer)
    void this.#connect()
  }

  readonly #offline = (): void => {
    if (this.#state === "open") this.#ask()
  }

  async #connect(): Promise<void> {
    this.#state = "connecting"
    this.#attempts++
    const turn = ++this.#turn
    const { url, WebSocket, connectTimeoutMs, key: given } = this.#options
    const isOver = () => this.#state !== "connecting" || this.#turn !== turn
    // For all of it, the key function included.
    this.#timer = setTimeout(() => {
      if (!isOver()) this.#ended(CODE_TIMEOUT, `not open after ${connectTimeoutMs} ms`)
    }, connectTimeoutMs)
    let key: string | undefined
    try {
      // Told later than this call returns in any case: whoever starts a link listens first.
      key = await (typeof given === "function" ? given() : given)
    } catch (error) {
      if (!isOver()) this.#ended(CODE_KEY, `the key function failed: ${reasonOf(error)}`)
      return
    }
    if (isOver()) return
    const handshake = listenTo(url)
    this.#handshake = handshake
    let socket: NodeSocket
    try {
      socket = new WebSocket(url)
    } catch (error) {
      this.#ended(ABNORMAL, reasonOf(error))
      return
    }
    this.#socket = socket
    const isMine = () => this.#socket === socket
    let isShaken = false
    const failed = ({ reason, retryAfterMs, status }: Failure) => {
      if (status === UNAUTHORIZED) this.#refused = reason
      this.#ended(ABNORMAL, reason, retryAfterMs)
    }
    socket.onopen = () => {
      handshake.over()
      if (!isMine()) return
      isShaken = true
      if (key === undefined) this.#open(undefined)
      else this.send({ action: "auth", key, id: "auth" })
    }
    socket.onmessage = ({ data }: { readonly data: unknown }) => {
      if (isMine() && typeof data === "string") this.#heard(data)
    }
    // Some runtimes tell of a handshake that failed by this alone.
    socket.onerror = ({ message, error }: { readonly message?: string; readonly error?: unknown }) => {
      if (!isMine() || isShaken) return
      const reason = error === undefined ? message : reasonOf(error)
      failed(handshake.failure() ?? (reason === undefined || reason === "" ? UNKNOWN : { reason }))
    }
    socket.onclose = ({ code, reason }: { readonly code: number; readonly reason: string }) => {
      if (isMine()) this.#ended(code, reason)
    }
    socket.on?.("unexpected-response", (request, response) => {
      request.destroy()
      if (!isMine()) return
      const { statusCode = 0, statusMessage = "", headers } = response
      const header = headers["retry-after"]
      failed(answeredWith(statusCode, statusMessage, typeof header === "string" ? header : undefined))
    })
  }

  #open(authorized: AuthorizedFrame | undefined): void {
    clearTimeout(this.#timer)
    this.#state = "open"
    this.#openedAt = elapsed()
    this.#heardAt = this.#openedAt
    this.#wasOpen = true
    this.#listen()
    if (this.#isHeld) this.#socket?.pause?.()
    const attempts = this.#attempts
    this.#attempts = 0
    this.#hooks.opened(attempts, authorized)
  }

  #heard(text: string): void {
    this.#heardAt = elapsed()
    let frame: ServerMessage | ReadonlyArray<ServerMessage>
    try {
      frame = JSON.parse(text)
    } catch {
      this.drop(1007, "a frame that is no JSON")
      return
    }
    const socket = this.#socket
    if (!Array.isArray(frame)) this.#take(frame as ServerMessage)
    else {
      for (const message of frame as ReadonlyArray<ServerMessage>) {
        this.#take(message)
        // One of them may have been the reason to give the connection up.
        if (this.#socket !== socket) return
      }
    }
  }

  #take(message: ServerMessage): void {
    if (message.type === "error" && message.code === "unauthorized") {
      this.#refused = message.message
      this.#ended(1008, message.message)
    } else if (this.#state === "open") this.#hooks.message(message)
    else if (message.type === "authorized") this.#open(message)
    else if (message.type === "error") this.#unopened(message)
  }

  /** An error in answer to the key, other than that it is refused. */
  #unopened({ code, message }: ErrorFrame): void {
    // A server that has no keys wants none.
    if (code === "no_keys") this.#open(undefined)
    else this.#ended(1008, message)
  }

  /** Looks now and then whether anything was heard. */
  #listen(): void {
    clearTimeout(this.#pulse)
    const { silenceMs } = this.#options.heartbeat
    const left = this.#heardAt + silenceMs - elapsed()
    this.#pulse = setTimeout(
      () => {
        if (this.#isHeld || elapsed() - this.#heardAt < silenceMs) this.#listen()
        else this.#ask()
      },
      Math.max(left, this.#isHeld ? silenceMs : 0)
    )
  }

  /** Asks whether the server is there, and gives the connection up where nothing comes. */
  #ask(): void {
    clearTimeout(this.#pulse)
    const { answerMs } = this.#options.heartbeat
    const askedAt = elapsed()
    this.send({ action: "ping" })
    const look = (isLast: boolean) => {
      if (this.#heardAt >= askedAt || this.#isHeld) this.#listen()
      else if (isLast) this.#ended(CODE_SILENT, `silent for ${Math.round(elapsed() - this.#heardAt)} ms`)
      // Timers come before what waits to be read, where the application held everything up.
      else this.#pulse = setTimeout(look, GRACE_MS, true)
    }
    this.#pulse = setTimeout(look, answerMs, false)
  }

  /** The connection is over, or never came to be: decides what follows. */
  #ended(code: number, reason: string, retryAfterMs?: number): void {
    const wasSteady = this.#openedAt !== undefined && elapsed() - this.#openedAt >= STEADY_MS
    const wasOpen = this.#openedAt !== undefined
    this.#detach(code)
    this.#reason = reason !== "" ? reason : code === ABNORMAL ? "the connection was lost" : `closed with ${code}`
    if (wasSteady) {
      this.#failures = 0
      this.#isRenewed = false
    }
    if (wasOpen) this.#triedSince = elapsed()
    const refused = this.#refused
    this.#refused = undefined
    if (refused !== undefined) {
      const mayRenew = typeof this.#options.key === "function" && !this.#isRenewed
      if (!mayRenew) {
        this.#fail(new Unauthorized(refused))
        return
      }
      this.#isRenewed = true
    }
    const { reconnect } = this.#options
    const tried = elapsed() - this.#triedSince
    const forMs = this.#wasOpen ? reconnect.forMs : reconnect.firstForMs
    const wait = waitOf(failuresOf(this.#failures, code), reconnect, retryAfterMs)
    if (tried + wait > forMs) {
      this.#fail(new ConnectionFailed(this.#options.url, this.#attempts, tried, this.#reason))
      return
    }
    this.#failures++
    this.#state = "waiting"
    this.#timer = setTimeout(() => void this.#connect(), wait)
    this.#hooks.down({ code, reason: this.#reason, retryInMs: wait })
  }

  #fail(error: MarketDataError): void {
    this.#leave(1000, "")
    this.#state = "closed"
    this.#hooks.failed(error)
  }

  #leave(code: number, reason: string): void {
    this.#detach(code, reason)
    browser.removeEventListener?.("online", this.#online)
    browser.removeEventListener?.("offline", this.#offline)
  }

  /** Lets go of the socket: nothing that it says from now on counts. */
  #detach(code: number, reason = ""): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#pulse)
    const socket = this.#socket
    this.#handshake?.over()
    this.#handshake = undefined
    this.#socket = undefined
    this.#openedAt = undefined
    if (socket === undefined) return
    try {
      if (code === 1000) socket.close(code, reason)
      // A peer that is silent, or did not get through the handshake, would be waited for.
      else if (socket.terminate !== undefined) socket.terminate()
      else socket.close()
    } catch {
      // It never opened, or is gone.
    }
  }
}
