/**
 * Decides how a reply is lost after success: a TCP proxy in front of a server, which on demand lets a request through,
 * waits until the server has answered, and cuts the client off without passing the answer on.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import { Effect, type Scope } from "effect"

/** By then a server on this host has done what it was sent before. */
const ANSWERED_MS = 30

export class LossyProxy {
  readonly #server: Server
  readonly #pairs = new Set<readonly [client: Socket, upstream: Socket]>()
  #losing = false
  #losesReplyTo: { readonly matches: (request: Buffer) => boolean; done: boolean } | undefined
  #refusing = false
  /** Answers that were lost. */
  lost = 0

  /** `targetPort` is asked at each connection: a server that advertises this proxy has its own port only later. */
  constructor(targetPort: () => number) {
    this.#server = createServer((client) => {
      if (this.#refusing) {
        client.destroy()
        return
      }
      const upstream = connect(targetPort(), "127.0.0.1")
      const pair = [client, upstream] as const
      this.#pairs.add(pair)
      const cut = () => {
        client.destroy()
        upstream.destroy()
        this.#pairs.delete(pair)
      }
      for (const socket of pair) socket.on("error", cut).on("close", cut)
      let meant: { done: boolean } | undefined
      client.on("data", (request: Buffer) => {
        if (this.#losesReplyTo?.matches(request) === true) {
          meant = this.#losesReplyTo
          this.#losesReplyTo = undefined
        }
        upstream.write(request)
      })
      upstream.on("data", (answer) => {
        if (!this.#losing && meant === undefined) {
          client.write(answer)
          return
        }
        if (this.#losing) cut()
        // This may be the answer to an earlier request of several under way: the one that is meant is carried out too.
        else if (meant?.done === false) setTimeout(cut, ANSWERED_MS)
        if (meant !== undefined) meant.done = true
        this.#losing = false
        this.lost += 1
      })
    })
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** The next answer is lost, and its connection with it. */
  loseNextReply(): void {
    this.#losing = true
  }

  /** The answer to the next request that `matches` is lost, once: the request is what came in one piece. */
  loseReplyTo(matches: (request: Buffer) => boolean): { readonly done: boolean; readonly withdraw: () => void } {
    const loss = { matches, done: false }
    this.#losesReplyTo = loss
    return {
      get done() {
        return loss.done
      },
      withdraw: () => {
        if (this.#losesReplyTo === loss) this.#losesReplyTo = undefined
      }
    }
  }

  /** Whether new connections are cut off at once. */
  refuse(refusing: boolean): void {
    this.#refusing = refusing
  }

  listen(): Promise<void> {
    return new Promise((listening) => this.#server.listen(0, "127.0.0.1", listening))
  }

  close(): void {
    this.#server.close()
    for (const [client, upstream] of this.#pairs) {
      client.destroy()
      upstream.destroy()
    }
  }
}

/** A proxy in front of a loopback port, closed with the scope. */
export const lossyProxy = (targetPort: number): Effect.Effect<LossyProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const proxy = new LossyProxy(() => targetPort)
      await proxy.listen()
      return proxy
    }),
    (proxy) => Effect.sync(() => proxy.close())
  )
