/** Decides how a test speaks HTTP by hand: what it sends to the byte, and what came back so far. */
import { connect, type Socket } from "node:net"
import { Effect, type Scope } from "effect"

export interface RawClient {
  readonly socket: Socket
  /** Everything that came, in latin1. */
  readonly text: () => string
  readonly write: (bytes: string | Uint8Array) => void
  /** Waits until what came matches, and answers it; what had come where the connection ends before. */
  readonly until: (pattern: RegExp) => Effect.Effect<string>
  /** Waits until the connection ends, and answers all that came. */
  readonly ended: Effect.Effect<string>
}

/** A connection for as long as the scope. */
export const rawClient = (
  port: number,
  first: string | Uint8Array = ""
): Effect.Effect<RawClient, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<RawClient>((resume) => {
      let text = ""
      let isOver = false
      const waiting = new Set<() => void>()
      const tell = () => {
        for (const look of waiting) look()
      }
      const socket = connect(port, "127.0.0.1")
      const write = (bytes: string | Uint8Array) => {
        socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes)
      }
      const when = (isThere: () => boolean) =>
        Effect.callback<string>((done) => {
          const look = () => {
            if (!isOver && !isThere()) return
            waiting.delete(look)
            done(Effect.succeed(text))
          }
          waiting.add(look)
          look()
          return Effect.sync(() => {
            waiting.delete(look)
          })
        })
      socket.on("data", (data) => {
        text += data.toString("latin1")
        tell()
      })
      const over = () => {
        isOver = true
        tell()
      }
      socket.on("error", over)
      socket.on("end", over)
      socket.on("close", over)
      socket.on("connect", () => {
        if (first.length > 0) write(first)
        resume(
          Effect.succeed({
            socket,
            text: () => text,
            write,
            until: (pattern) => when(() => pattern.test(text)),
            ended: when(() => false)
          })
        )
      })
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

/** A request whose body is said to have `length` bytes, and of which only `sent` come. */
export const halfPost = (path: string, length: number, sent = "", headers = ""): string =>
  `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n${headers}` +
  `Content-Length: ${length}\r\n\r\n${sent}`
