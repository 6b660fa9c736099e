/**
 * Decides what is said of a connection that never came to be. Browsers tell a page nothing of it, and Node's own
 * WebSocket neither; what Node's client under it tells its diagnostics is heard, where there is one.
 */
import { retryAfterOf } from "./backoff.ts"

/** Why no connection came to be. */
export interface Failure {
  readonly reason: string
  /** What the handshake was answered with. */
  readonly status?: number
  readonly retryAfterMs?: number | undefined
}

/** What is heard of one handshake, until it is `over`. */
export interface Handshake {
  readonly failure: () => Failure | undefined
  readonly over: () => void
}

export const UNKNOWN: Failure = { reason: "the handshake failed, and this runtime does not say why" }

/** Codes of Node and OpenSSL for a certificate that does not hold. */
const UNTRUSTED = /CERT|UNABLE_TO_|SELF_SIGNED/

/** What an error says, the one that caused it included. */
export const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const { cause, code } = error as { readonly cause?: unknown; readonly code?: unknown }
  const inner = cause instanceof Error && cause.message !== "" ? `: ${cause.message}` : ""
  const text = `${error.message}${inner}`
  if (text === "") return String(code ?? error.name)
  return UNTRUSTED.test(String(code)) ? `the server's certificate is not trusted: ${text}` : text
}

/** A handshake that was answered otherwise than by a WebSocket. */
export const answeredWith = (status: number, text: string, retryAfter: string | undefined): Failure => ({
  reason: `the handshake was answered with ${status} ${text}`.trim(),
  status,
  retryAfterMs: retryAfterOf(retryAfter)
})

/** What is used of `node:diagnostics_channel`, and of what undici, the client in Node, tells there. */
interface Diagnostics {
  readonly subscribe: (channel: string, listener: (message: never) => void) => void
  readonly unsubscribe: (channel: string, listener: (message: never) => void) => void
}
interface ConnectError {
  readonly error: unknown
  readonly connectParams: { readonly host?: string }
}
interface Answered {
  readonly request: { readonly origin?: unknown; readonly path?: unknown }
  readonly response: {
    readonly statusCode: number
    readonly statusText?: string
    /** Names and values in turn, as bytes. */
    readonly headers: ReadonlyArray<{ toString(): string }>
  }
}

const CONNECT_ERROR = "undici:client:connectError"
const ANSWERED = "undici:request:headers"
const SWITCHED = 101

const diagnostics = (): Diagnostics | undefined => {
  const { process } = globalThis as {
    readonly process?: { readonly getBuiltinModule?: (name: string) => unknown }
  }
  return process?.getBuiltinModule?.("node:diagnostics_channel") as Diagnostics | undefined
}

/** Listens to what is told of a handshake with `url` (`ws:` or `wss:`), from before it begins. */
export const listenTo = (url: string): Handshake => {
  const channels = diagnostics()
  let found: Failure | undefined
  if (channels === undefined) return { failure: () => undefined, over: () => undefined }
  const { host, origin, pathname } = new URL(url.replace(/^ws/, "http"))
  const failed = ({ error, connectParams }: ConnectError): void => {
    if (connectParams.host === host) found = { reason: reasonOf(error) }
  }
  const answered = ({ request, response }: Answered): void => {
    const isOurs = String(request.origin) === origin && String(request.path).split("?")[0] === pathname
    if (!isOurs || response.statusCode === SWITCHED) return
    const headers = response.headers.map(String)
    const at = headers.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === "retry-after")
    found = answeredWith(response.statusCode, response.statusText ?? "", at < 0 ? undefined : headers[at + 1])
  }
  channels.subscribe(CONNECT_ERROR, failed)
  channels.subscribe(ANSWERED, answered)
  return {
    failure: () => found,
    over: () => {
      channels.unsubscribe(CONNECT_ERROR, failed)
      channels.unsubscribe(ANSWERED, answered)
    }
  }
}
