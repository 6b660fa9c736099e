/**
 * Decides what the log says of clients: one line for each that is refused, ended or sends what cannot be read, with its
 * address, few a second however many there are, and how many were left out.
 */
import { printableUpTo } from "../schema/printable.ts"

/** Lines of one kind at once, and then each second. */
export const LINE_BURST = 10
const LINES_PER_SECOND = 0.2
/** What was left out is told when the kind has been silent for so long, at the latest. */
const TELL_MS = 10_000
const MAX_DETAIL_CHARS = 1_000
const MAX_PATH_CHARS = 200

/** What happened; each kind has its own allowance, so that a flood of one hides none of the others. */
export type ClientEvent = "refused" | "ended" | "bad_input" | "failed" | "unauthorized"

interface Allowance {
  lines: number
  at: number
  left: number
  timer: NodeJS.Timeout | undefined
}

/** What else is known of it. */
export interface ClientAbout {
  /** The code that a WebSocket is closed with. */
  readonly code?: number
  /** The status that a request or handshake is answered with. */
  readonly status?: number
  /** Why, as the figures are labelled. */
  readonly reason?: string
  readonly method?: string
  readonly path?: string
  /** The name of the key that was shown, also of one that holds no more. */
  readonly key?: string | undefined
}

/** What a line says to a program besides: what happened, to whom or how often, and what is known of it. */
export type ClientFields = { readonly event: ClientEvent } & (
  | ({ readonly address: string } & Readonly<Record<string, string | number>>)
  | { readonly left: number }
)

const fieldsOf = ({ path, ...about }: ClientAbout): Readonly<Record<string, string | number>> => {
  const fields: Record<string, string | number> = {}
  for (const [name, value] of Object.entries(about)) if (value !== undefined) fields[name] = value
  return path === undefined ? fields : { ...fields, path: printableUpTo(path, MAX_PATH_CHARS) }
}

/** `write` takes a finished line, and what it says as fields; `now` is in milliseconds. */
export class ClientLog {
  private readonly write: (line: string, fields: ClientFields) => void
  private readonly now: () => number
  private readonly kinds = new Map<ClientEvent, Allowance>()

  constructor(write: (line: string, fields: ClientFields) => void, now: () => number = () => performance.now()) {
    this.write = write
    this.now = now
  }

  /**
   * One line, such as `client 127.0.0.1 (key desk) ended: 1008 the API key was revoked`, and beside it what is known as
   * fields; whatever is foreign is escaped.
   */
  tell(event: ClientEvent, address: string, detail: string, about: ClientAbout = {}): void {
    const now = this.now()
    let kind = this.kinds.get(event)
    if (kind === undefined) {
      kind = { lines: LINE_BURST, at: now, left: 0, timer: undefined }
      this.kinds.set(event, kind)
    }
    kind.lines = Math.min(LINE_BURST, kind.lines + ((now - kind.at) / 1000) * LINES_PER_SECOND)
    kind.at = now
    if (kind.lines < 1) {
      kind.left++
      const told = kind
      kind.timer ??= setTimeout(() => this.tellLeft(event, told), TELL_MS).unref()
      return
    }
    kind.lines--
    this.tellLeft(event, kind)
    const who = printableUpTo(address, 64)
    const by = about.key === undefined ? who : `${who} (key ${about.key})`
    const text = printableUpTo(detail, MAX_DETAIL_CHARS)
    this.write(`client ${by} ${inWords(event)}: ${text}`, { event, address: who, ...fieldsOf(about) })
  }

  /** Says what was left out and has not been told yet. */
  close(): void {
    for (const [event, kind] of this.kinds) this.tellLeft(event, kind)
  }

  private tellLeft(event: ClientEvent, kind: Allowance): void {
    clearTimeout(kind.timer)
    kind.timer = undefined
    if (kind.left === 0) return
    const { left } = kind
    kind.left = 0
    this.write(`clients ${inWords(event)}: ${left} more without a line`, { event, left })
  }
}

const inWords = (event: ClientEvent): string => event.replace("_", " ")

const MAPPED = /^0000:0000:0000:0000:0000:ffff:([0-9a-f]{4}):([0-9a-f]{4})$/

/** A peer's address as it is written, from the text that uWebSockets.js gives; IPv4 also where it came over IPv6. */
export const addressOf = (text: ArrayBuffer): string => {
  const address = Buffer.from(text).toString("latin1")
  const mapped = MAPPED.exec(address)
  if (mapped === null) return address
  const [high, low] = [Number.parseInt(mapped[1]!, 16), Number.parseInt(mapped[2]!, 16)]
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}

/** What counts as one peer: an IPv4 address, or the network of 64 bits that an IPv6 address belongs to. */
export const peerOf = (address: string): string =>
  address.includes(":") ? `${address.split(":").slice(0, 4).join(":")}::/64` : address
