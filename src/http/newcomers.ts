/**
 * Decides what a WebSocket client may do before it has shown its key: send that one message, within a time, and little
 * else. Who has not shown one yet costs nothing of what clients have: there are few of them, and the oldest goes first.
 */
import { Result } from "effect"
import { LiveKey } from "../layers/keys/ApiKeys.ts"
import { decodeClientMessage, type ErrorCode, errorFrame } from "../schema/Protocol.ts"
import type { EndReason } from "../streams/fanOut/ClientQueue.ts"
import type { KeyAccess } from "./access.ts"

/** The largest message that is read of one: that with its key is far shorter. */
export const MAX_NEWCOMER_BYTES = 4_096
/** Messages that are not that one before it is closed. */
export const MAX_EARLY_MESSAGES = 3
/** Frames of it, pings and pongs too. */
export const MAX_EARLY_FRAMES = 20
/** One address has a quarter of the places, unless it is a proxy's. */
const SHARE_OF_ADDRESS = 0.25

/** What becomes of a newcomer. */
export interface NewcomerHost {
  readonly peer: string
  /** What is said of how it tried to show its key, behind what is expected. */
  readonly hint: string
  readonly send: (text: string) => void
  readonly end: (code: number, reason: string, why: EndReason) => void
  /** Ends it without a word. */
  readonly cutOff: () => void
  /** Its key holds; `id` is the client's own. It answers why it cannot be taken in, or `undefined`. */
  readonly welcome: (key: LiveKey, id: unknown) => string | undefined
  /** It was refused something; `key` is the name of the one that it showed, where it was one. */
  readonly refused: (code: ErrorCode, message: string, key?: string) => void
}

export interface NewcomerSettings {
  readonly MAX_KEYLESS_CLIENTS: number
  readonly AUTH_TIMEOUT_MS: number
  /** Whether an address is one client's own, and not that of a proxy. */
  readonly isOnesOwn: boolean
}

export class Newcomer {
  private readonly newcomers: Newcomers
  readonly host: NewcomerHost
  private readonly timer: NodeJS.Timeout
  private frames = 0
  private early = 0
  private isOver = false

  constructor(newcomers: Newcomers, host: NewcomerHost) {
    this.newcomers = newcomers
    this.host = host
    this.timer = setTimeout(() => this.late(), newcomers.settings.AUTH_TIMEOUT_MS)
  }

  /** Takes one message. */
  message(bytes: ArrayBuffer, isBinary: boolean): void {
    if (this.isOver || !this.count()) return
    if (isBinary || bytes.byteLength > MAX_NEWCOMER_BYTES) {
      const got = isBinary ? "binary" : `${bytes.byteLength} bytes`
      this.refuse(
        "unauthorized",
        `input: expected {"action":"auth","key":…} first, got ${got}${this.host.hint}`,
        undefined
      )
      return
    }
    const decoded = decodeClientMessage(Buffer.from(bytes).toString("utf8"))
    if (Result.isFailure(decoded)) {
      const { code, id, message } = decoded.failure
      this.refuse(code, message, id)
      return
    }
    const message = decoded.success
    if (message.action !== "auth") {
      this.refuse(
        "unauthorized",
        `${message.action}: expected {"action":"auth","key":…} first${this.host.hint}`,
        message.id
      )
      return
    }
    const key = this.newcomers.access.identify(message.key, this.host.peer)
    if (!(key instanceof LiveKey)) {
      const text = key.body.message.replace(/^Authorization: /, "key: ")
      this.host.refused("unauthorized", text, key.key)
      this.host.send(errorFrame({ code: "unauthorized", message: text, id: message.id }))
      this.end(1008, text.replace(/^key: /, ""), "unauthorized")
      return
    }
    const full = this.host.welcome(key, message.id)
    if (full === undefined) {
      this.settle()
      this.newcomers.left(this)
      return
    }
    this.host.refused("too_many_connections", full, key.name)
    this.host.send(errorFrame({ code: "too_many_connections", message: full, id: message.id }))
    this.end(1013, full, "unauthorized")
  }

  /** Counts a frame; false where it was one too many, and the client is ended. */
  count(): boolean {
    if (this.isOver) return false
    if (++this.frames <= MAX_EARLY_FRAMES) return true
    this.newcomers.access.observer.unauthorized("early")
    this.end(1008, "too many messages before a key was shown", "unauthorized")
    return false
  }

  /** The connection is gone. */
  gone(): void {
    this.settle()
    this.newcomers.left(this)
  }

  /** Others need its place. */
  giveWay(): void {
    this.settle()
    this.newcomers.left(this)
    this.host.cutOff()
  }

  private refuse(code: ErrorCode, message: string, id: unknown): void {
    this.newcomers.access.observer.unauthorized("early")
    this.host.refused(code, message)
    this.host.send(errorFrame({ code, message, id }))
    if (++this.early >= MAX_EARLY_MESSAGES) {
      this.end(1008, "too many messages before a key was shown", "unauthorized")
    }
  }

  private late(): void {
    this.newcomers.access.observer.unauthorized("late")
    this.end(1008, `no key was shown within ${this.newcomers.settings.AUTH_TIMEOUT_MS} ms`, "unauthorized")
  }

  /** Ends it; it keeps its place until the connection is gone. */
  end(code: number, reason: string, why: EndReason): void {
    this.settle()
    this.host.end(code, reason, why)
  }

  private settle(): void {
    this.isOver = true
    clearTimeout(this.timer)
  }
}

/** All of them, the oldest first. */
export class Newcomers {
  readonly access: KeyAccess
  readonly settings: NewcomerSettings
  private readonly ofAddress: number
  private readonly all = new Set<Newcomer>()
  private readonly peers = new Map<string, number>()

  constructor(access: KeyAccess, settings: NewcomerSettings) {
    this.access = access
    this.settings = settings
    const { MAX_KEYLESS_CLIENTS: most, isOnesOwn } = settings
    this.ofAddress = isOnesOwn ? Math.max(1, Math.floor(most * SHARE_OF_ADDRESS)) : most
  }

  get size(): number {
    return this.all.size
  }

  /** Ends all of them, as the server stops. */
  shutdown(code: number, reason: string): void {
    for (const newcomer of [...this.all]) newcomer.end(code, reason, "stopping")
  }

  add(host: NewcomerHost): Newcomer {
    const { peer } = host
    if ((this.peers.get(peer) ?? 0) >= this.ofAddress) this.oldest((other) => other.host.peer === peer)?.giveWay()
    else if (this.all.size >= this.settings.MAX_KEYLESS_CLIENTS) this.oldest(() => true)?.giveWay()
    const newcomer = new Newcomer(this, host)
    this.all.add(newcomer)
    this.peers.set(peer, (this.peers.get(peer) ?? 0) + 1)
    return newcomer
  }

  left(newcomer: Newcomer): void {
    if (!this.all.delete(newcomer)) return
    const { peer } = newcomer.host
    const others = (this.peers.get(peer) ?? 1) - 1
    if (others > 0) this.peers.set(peer, others)
    else this.peers.delete(peer)
  }

  private oldest(is: (newcomer: Newcomer) => boolean): Newcomer | undefined {
    for (const newcomer of this.all) if (is(newcomer)) return newcomer
    return undefined
  }
}
