/**
 * Decides how one connection to Kite's ticker is opened and how it ends: bounded in time, in the size of a frame, and in
 * what is read of a refusal.
 */
import WebSocket from "ws"

/** A connection's 3,000 instruments in one frame take little more than half of it. */
const MAX_FRAME_BYTES = 1_048_576
/** Of the body of a refused handshake. */
const MAX_REFUSAL_CHARS = 1000

/** How a connection ended, or why there was none. */
export type SocketEnd =
  /** The server answered the handshake with another code than 101. */
  | { readonly kind: "refused"; readonly status: number; readonly reason: string }
  /** Nobody answered, or the connection broke. */
  | { readonly kind: "failed"; readonly reason: string }
  /** 1005 and 1006 where the server gave no code, or did not say that it closes. */
  | { readonly kind: "closed"; readonly code: number; readonly reason: string }

export interface SocketEvents {
  readonly onOpen: () => void
  readonly onFrame: (bytes: Uint8Array) => void
  readonly onText: (text: string) => void
  /** Once, and last. */
  readonly onEnd: (end: SocketEnd) => void
}

export interface Socket {
  readonly send: (text: string) => void
  /** Stops reading: what the server sends then waits in its own socket. */
  readonly pause: () => void
  readonly resume: () => void
  /** Says that it closes, and is gone soon after. */
  readonly close: () => void
  /** Gone at once. */
  readonly drop: () => void
}

const codeOf = (error: Error): string => {
  const { code } = error as NodeJS.ErrnoException
  return typeof code === "string" && !error.message.includes(code) ? `${code}: ${error.message}` : error.message
}

/** Opens a connection; every event comes after this has returned. */
export const openSocket = (url: string, handshakeMs: number, events: SocketEvents): Socket => {
  const ws = new WebSocket(url, {
    handshakeTimeout: handshakeMs,
    maxPayload: MAX_FRAME_BYTES,
    // Ticks hardly shrink, and unpacking is memory that somebody else decides.
    perMessageDeflate: false,
    followRedirects: false,
    headers: { "X-Kite-Version": "3", "User-Agent": "market-data-platform" }
  })
  let isOver = false
  let failure: string | undefined
  const end = (how: SocketEnd) => {
    if (isOver) return
    isOver = true
    events.onEnd(how)
  }
  ws.on("unexpected-response", (_request, response) => {
    let body = ""
    const done = () => {
      end({ kind: "refused", status: response.statusCode ?? 0, reason: body })
      ws.terminate()
    }
    response.setEncoding("utf8")
    response.on("data", (chunk: string) => {
      body = (body + chunk).slice(0, MAX_REFUSAL_CHARS)
      if (body.length === MAX_REFUSAL_CHARS) done()
    })
    response.on("end", done).on("error", done)
    // A refusal whose end never comes is one all the same.
    setTimeout(done, handshakeMs).unref()
  })
  ws.on("open", () => events.onOpen())
  ws.on("message", (data, isBinary) => {
    if (isOver) return
    const bytes = data as Buffer
    if (isBinary) events.onFrame(bytes)
    else events.onText(bytes.toString("utf8"))
  })
  ws.on("error", (error) => {
    failure = codeOf(error)
  })
  ws.on("close", (code, reason) => {
    const isSaid = code !== 1006
    if (failure !== undefined && !isSaid) end({ kind: "failed", reason: failure })
    else end({ kind: "closed", code, reason: reason.toString("utf8") || (failure ?? "") })
  })
  return {
    send: (text) => {
      if (ws.readyState === WebSocket.OPEN) ws.send(text)
    },
    pause: () => ws.pause(),
    resume: () => ws.resume(),
    close: () => ws.close(1000),
    drop: () => {
      // What is not read any more would keep it from ending.
      ws.resume()
      ws.terminate()
    }
  }
}
