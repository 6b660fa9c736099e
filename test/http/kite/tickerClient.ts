/** Decides how a test listens to the gateway's ticker: a plain WebSocket whose frames are read as what they are. */
import { Effect, type Scope } from "effect"
import { WebSocket } from "ws"
import { decodeFrame, isHeartbeat, type KitePacket } from "../../../src/schema/kite/packets.ts"

export class Ticker {
  readonly packets: Array<KitePacket> = []
  readonly texts: Array<{ readonly type: string; readonly data: unknown }> = []
  /** When each sign of life came, in milliseconds. */
  readonly beats: Array<number> = []
  closed: { readonly code: number; readonly reason: string } | undefined
  readonly socket: WebSocket
  private readonly waiting = new Set<() => void>()

  constructor(socket: WebSocket) {
    this.socket = socket
    socket.on("message", (data: Buffer, isBinary) => {
      if (!isBinary) this.texts.push(JSON.parse(data.toString("utf8")))
      else if (isHeartbeat(data)) this.beats.push(performance.now())
      else {
        const frame = decodeFrame(data)!
        if (frame.skipped.length > 0) throw new Error(frame.skipped[0]!.message)
        this.packets.push(...frame.packets)
      }
      this.wake()
    })
    socket.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString("utf8") }
      this.wake()
    })
  }

  private wake(): void {
    for (const look of this.waiting) look()
  }

  say(message: unknown): void {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message))
  }

  /** Of one instrument, in order. */
  of(token: number): ReadonlyArray<KitePacket> {
    return this.packets.filter((packet) => packet.token === token)
  }

  until<A>(find: () => A | undefined | false): Effect.Effect<A> {
    return Effect.callback((resume) => {
      const look = () => {
        const found = find()
        if (found === undefined || found === false) return
        this.waiting.delete(look)
        resume(Effect.succeed(found))
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }
}

/** A ticker that is open, or the answer to a handshake that was refused. */
export const connectTicker = (
  port: number,
  query: string,
  path = "/"
): Effect.Effect<Ticker | { readonly status: number; readonly text: string }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{
      readonly socket: WebSocket
      readonly ticker?: Ticker
      readonly status?: number
      readonly text?: string
    }>((resume) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}${path}${query}`)
      const ticker = new Ticker(socket)
      socket.on("open", () => resume(Effect.succeed({ socket, ticker })))
      socket.on("unexpected-response", (_, response) => {
        let text = ""
        response.on("data", (chunk: Buffer) => {
          text += chunk.toString("utf8")
        })
        response.on("end", () => resume(Effect.succeed({ socket, status: response.statusCode ?? 0, text })))
      })
      socket.on("error", () => undefined)
    }),
    ({ socket }) => Effect.sync(() => socket.terminate())
  ).pipe(Effect.map(({ ticker, status, text }) => ticker ?? { status: status!, text: text! }))

/** One that is let in. */
export const openTicker = (port: number, query = "?api_key=any&access_token=token", path = "/") =>
  Effect.map(connectTicker(port, query, path), (ticker) => {
    if (!(ticker instanceof Ticker)) throw new Error(`refused with ${ticker.status}: ${ticker.text}`)
    return ticker
  })
