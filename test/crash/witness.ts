/**
 * Decides what a client does that never gives up: subscribes before the first tick, resumes with `since` wherever its
 * connection ends, and holds every message to the rule.
 */
import WebSocket from "ws"
import { RuleChecker } from "../support/RuleChecker.ts"

const AGAIN_MS = 200

export class Witness {
  readonly checker = new RuleChecker({ keep: true })
  /** The first breach of the rule. */
  broken: unknown
  connections = 0
  readonly #url: () => string
  readonly #tokens: ReadonlyArray<number>
  #socket: WebSocket | undefined
  #isOver = false

  /** `url` is asked before each connection: a server that is started again may have another. */
  constructor(url: () => string, tokens: ReadonlyArray<number>) {
    this.#url = url
    this.#tokens = tokens
    this.#connect()
  }

  #connect(): void {
    if (this.#isOver) return
    const socket = new WebSocket(`${this.#url().replace("http:", "ws:")}/ws`)
    this.#socket = socket
    socket.on("open", () => {
      this.connections++
      const since = this.checker.since()
      socket.send(
        JSON.stringify({ action: "subscribe", tokens: this.#tokens, since, capacity: 100_000, backfill: 1000 })
      )
    })
    socket.on("message", (data: Buffer) => {
      // What a connection that was given up still brings is not this stream's.
      if (socket !== this.#socket || this.broken !== undefined) return
      try {
        this.checker.frame(data.toString())
      } catch (error) {
        this.broken = error
      }
    })
    socket.on("error", () => {})
    socket.on("close", () => setTimeout(() => this.#connect(), AGAIN_MS))
  }

  close(): void {
    this.#isOver = true
    this.#socket?.terminate()
  }
}
