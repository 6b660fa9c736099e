/** Decides how a test plays the server to a client: each connection is a peer that says what the test tells it to. */
import { createServer, type IncomingMessage } from "node:http"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"
import { onTestFinished } from "vitest"
import { type WebSocket, WebSocketServer } from "ws"
import type { ClientMessage, ServerMessage } from "../../src/client/messages.ts"

/** Answers an upgrade with a refusal: status line and headers; undefined lets it in. */
export type Refusal = { readonly status: string; readonly headers?: Readonly<Record<string, string>> } | undefined

/** Hands out what was put in, and waits where nothing is there. */
class Line<A> {
  private readonly items: Array<A> = []
  private readonly waiting: Array<(item: A) => void> = []

  put(item: A): void {
    const waiting = this.waiting.shift()
    if (waiting === undefined) this.items.push(item)
    else waiting(item)
  }

  take(): Promise<A> {
    const item = this.items.shift()
    return item === undefined ? new Promise((resolve) => this.waiting.push(resolve)) : Promise.resolve(item)
  }

  get size(): number {
    return this.items.length
  }
}

/** One connection of the client, as the server has it. */
export class Peer {
  readonly ws: WebSocket
  readonly request: IncomingMessage
  readonly messages = new Line<ClientMessage>()
  readonly closed: Promise<number>

  constructor(ws: WebSocket, request: IncomingMessage) {
    this.ws = ws
    this.request = request
    ws.on("message", (data) => this.messages.put(JSON.parse(String(data))))
    this.closed = new Promise((resolve) => ws.on("close", resolve))
  }

  /** The next message of a kind; a test says which it means. */
  async next<A extends ClientMessage["action"]>(action: A): Promise<Extract<ClientMessage, { action: A }>> {
    const message = await this.messages.take()
    if (message.action !== action) throw new Error(`expected ${action}, got ${JSON.stringify(message)}`)
    return message as Extract<ClientMessage, { action: A }>
  }

  say(...messages: ReadonlyArray<ServerMessage>): void {
    for (const message of messages) this.ws.send(JSON.stringify(message))
  }

  /** In one frame, as with `batch`. */
  batch(...messages: ReadonlyArray<ServerMessage>): void {
    this.ws.send(JSON.stringify(messages))
  }

  /** Accepts the next subscribe as it is; symbols get the tokens given. */
  async accept(tokens: Readonly<Record<string, number>> = {}) {
    const message = await this.next("subscribe")
    this.say({
      type: "subscribed",
      id: message.id,
      simulated: false,
      tokens: [
        ...(message.tokens ?? []).map((token) => ({ instrument_token: token, accepted: true, known: true }) as const),
        ...(message.symbols ?? []).map(
          (symbol) => ({ symbol, instrument_token: tokens[symbol]!, accepted: true, known: true }) as const
        )
      ]
    })
    return message
  }
}

export interface ScriptedServer {
  readonly url: string
  /** The next connection. */
  readonly peer: () => Promise<Peer>
  /** Connections and refused tries so far. */
  readonly tries: () => number
}

/** A server on a free port, gone with the test. */
export const scripted = async (refuse: (tries: number) => Refusal = () => undefined): Promise<ScriptedServer> => {
  const http = createServer()
  const sockets = new WebSocketServer({ noServer: true })
  const peers = new Line<Peer>()
  let tries = 0
  http.on("upgrade", (request, socket: Duplex, head) => {
    tries++
    const refusal = refuse(tries)
    if (refusal !== undefined) {
      const headers = Object.entries({ "content-length": "0", connection: "close", ...refusal.headers })
      socket.end(`HTTP/1.1 ${refusal.status}\r\n${headers.map(([k, v]) => `${k}: ${v}\r\n`).join("")}\r\n`)
      return
    }
    sockets.handleUpgrade(request, socket, head, (ws) => peers.put(new Peer(ws, request)))
  })
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve))
  onTestFinished(() => {
    for (const ws of sockets.clients) ws.terminate()
    http.closeAllConnections()
    http.close()
  })
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    peer: () => peers.take(),
    tries: () => tries
  }
}
