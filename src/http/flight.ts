/**
 * Decides when a client is behind: a window of what was handed to it is on its way, and has been for a while. The kernels on
 * both sides hold megabytes of which nobody tells, so the peer is asked: behind every so many bytes goes a ping, and its
 * pong, which a WebSocket sends by itself and in order, says that all before it was read.
 */

/** Pings a window. */
const PINGS = 2
/** Who is sent much is asked no more often than this: each pong wakes the server once more. */
const ASK_MS = 200
/**
 * As long as a pong may take of a client that reads: however much comes at once goes to it at once. It is longer than any
 * round trip, and than what stops a program for a moment.
 */
export const PONG_MS = 500
/** Who takes longer than this, and has so large a share of a window on its way, is on its way to be behind. */
const SLOW_MS = 250
const SLOW_SHARE = 0.5

/** A ping that is yet to be answered. */
interface Asked {
  readonly payload: string
  /** Milliseconds. */
  readonly at: number
  /** Bytes between the ping before and this one. */
  readonly bytes: number
}

export class Flight {
  private readonly window: number
  private readonly ping: (payload: string) => void
  private readonly now: () => number
  private readonly asked: Array<Asked> = []
  private pings = 0
  /** Bytes handed over that the peer has not said to have read, and those of them that no ping stands behind. */
  private bytes = 0
  private unasked = 0
  /** Bytes since it was last looked at whether to ask. */
  private unlooked = 0
  private askedAt = Number.NEGATIVE_INFINITY

  /** `window` in bytes; `ping` sends one. */
  constructor(window: number, ping: (payload: string) => void, now: () => number = () => performance.now()) {
    this.window = window
    this.ping = ping
    this.now = now
  }

  /** The peer is behind; it stays so until it answers. */
  get isFull(): boolean {
    return this.bytes >= this.window && this.isLateBy(PONG_MS)
  }

  /** The peer may come to be behind. */
  get isSlow(): boolean {
    return this.bytes >= this.window * SLOW_SHARE && this.isLateBy(SLOW_MS)
  }

  private isLateBy(ms: number): boolean {
    const [oldest] = this.asked
    return oldest !== undefined && this.now() - oldest.at >= ms
  }

  /** Counts what was handed over. */
  add(bytes: number): void {
    this.bytes += bytes
    this.unasked += bytes
    this.unlooked += bytes
    if (this.unlooked * PINGS >= this.window) this.ask()
  }

  private ask(): void {
    this.unlooked = 0
    const at = this.now()
    if (at - this.askedAt < ASK_MS) return
    this.askedAt = at
    const payload = String(++this.pings)
    this.asked.push({ payload, at, bytes: this.unasked })
    this.unasked = 0
    this.ping(payload)
  }

  /** A pong has come; whether it answers one of these pings. Where one is answered, so are those before it. */
  answered(payload: string): boolean {
    const at = this.asked.findIndex((asked) => asked.payload === payload)
    for (const { bytes } of this.asked.splice(0, at + 1)) this.bytes -= bytes
    return at >= 0
  }
}
