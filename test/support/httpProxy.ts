/** Decides how a test stands between a client and an HTTP server: passes requests on, and spoils those it is told to. */
import { once } from "node:events"
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect, type Scope } from "effect"

/** What becomes of a request. */
export type Fate =
  | "pass"
  /** It is carried out; the reply is lost with the connection. */
  | "lose the reply"
  /** It never arrives, and the connection breaks. */
  | "break"
  /** It never arrives, and nothing is answered. */
  | "stall"
  /** It is carried out; half of the reply's body comes. */
  | "cut the body"
  /** It never arrives; this is answered instead. */
  | { readonly status: number; readonly body: string }
  /** It is carried out; where the reply has this status it says 200. */
  | { readonly okFor: number }

export interface Seen {
  readonly method: string
  readonly path: string
  /** Bytes of the reply's body. */
  received: number
}

export class HttpProxy {
  readonly seen: Array<Seen> = []
  /** Asked before each request, with what was seen up to it. */
  fate: (seen: Seen, index: number) => Fate = () => "pass"
  /** Runs once a request was carried out and before its reply goes back. */
  done: (seen: Seen) => void = () => {}
  url = ""
  readonly #target: URL
  readonly #server = createServer((incoming, outgoing) => this.#handle(incoming, outgoing))

  constructor(target: string) {
    this.#target = new URL(target)
  }

  async listen(): Promise<void> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const seen: Seen = { method: incoming.method ?? "", path: incoming.url ?? "", received: 0 }
    const fate = this.fate(seen, this.seen.push(seen) - 1)
    if (fate === "stall") return void incoming.resume()
    if (fate === "break") return void incoming.socket.destroy()
    if (typeof fate === "object" && "body" in fate) {
      incoming
        .resume()
        .on("end", () => outgoing.writeHead(fate.status, { "content-type": "application/xml" }).end(fate.body))
      return
    }
    const { hostname, port } = this.#target
    // The host that was signed is the one the client named.
    const headers = { ...incoming.headers }
    delete headers.expect
    const forwarded = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, (reply) => {
      const chunks: Array<Buffer> = []
      reply.on("data", (chunk: Buffer) => chunks.push(chunk))
      reply.on("end", () => {
        const body = Buffer.concat(chunks)
        seen.received = body.length
        this.done(seen)
        if (fate === "lose the reply") {
          incoming.socket.destroy()
          return
        }
        if (typeof fate === "object" && fate.okFor === reply.statusCode) {
          outgoing.writeHead(200).end()
          return
        }
        outgoing.writeHead(reply.statusCode ?? 502, reply.headers)
        if (fate !== "cut the body") {
          outgoing.end(body)
          return
        }
        outgoing.write(body.subarray(0, body.length >> 1), () => incoming.socket.destroy())
      })
    })
    forwarded.on("error", () => incoming.socket.destroy())
    incoming.pipe(forwarded)
  }
}

export const httpProxy = (target: string): Effect.Effect<HttpProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const proxy = new HttpProxy(target)
      await proxy.listen()
      return proxy
    }),
    (proxy) => Effect.sync(() => proxy.close())
  )
