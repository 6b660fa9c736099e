/**
 * Decides which frames go compressed (permessage-deflate, RFC 7692): those of many messages, to a client that asks for it,
 * as long as compressing takes a small part of the time. Beyond that they go as they are, which the extension allows.
 */
import { Rate } from "./rate.ts"

/** Shorter frames go as they are: three ticks become half as long, one hardly any shorter. */
export const DEFLATE_FROM_CHARS = 512
/** Time that compressing may take at once, and then each second, of all clients together: the ticks of others wait for it. */
const BURST_MS = 4
const MS_PER_SECOND = 200
const MAX_OFFER_CHARS = 512
const NAME = "permessage-deflate"
/** What a client may say of its own side, and what the library does anyway. */
const KEPT: ReadonlySet<string> = new Set([
  "client_no_context_takeover",
  "client_max_window_bits",
  "server_no_context_takeover"
])

/**
 * What of `Sec-WebSocket-Extensions` the library is to answer; empty for none. Its compressor is one for all connections,
 * so that none keeps a window of its own: it can neither make it smaller nor keep it from one message to the next.
 */
export const deflateOffer = (header: string): string => {
  for (const offer of header.slice(0, MAX_OFFER_CHARS).split(",")) {
    const [name, ...parameters] = offer.split(";").map((part) => part.trim())
    if (name === NAME && parameters.every((parameter) => KEPT.has(parameter.split("=", 1)[0]!))) return NAME
  }
  return ""
}

/** The time that compressing takes, of all clients of a server. */
export class Deflate {
  private readonly time: Rate
  private readonly now: () => number

  /** `now` is in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.now = now
    this.time = new Rate(BURST_MS, MS_PER_SECOND, now())
  }

  /** Sends a frame by `send`, told whether to compress it. */
  send<A>(text: string, send: (compress: boolean) => A): A {
    if (text.length < DEFLATE_FROM_CHARS) return send(false)
    const from = this.now()
    if (!this.time.take(0, from)) return send(false)
    const sent = send(true)
    this.time.spend(this.now() - from)
    return sent
  }
}
