/**
 * Decides the course of one request: its body taken in within its bounds, its answer handed over as fast as the client
 * takes it, and what of either may last how long.
 */

import type { HttpResponse } from "uWebSockets.js"
import { STATUS_CODES } from "node:http"
import type { LiveKey } from "../layers/keys/ApiKeys.ts"
import type { Allowance, Spent } from "./allowance.ts"
import type { Head } from "./head.ts"
import type { Kind, Slots } from "./slots.ts"

/** Up to this a socket takes an answer whole, and where connections are scarce its own ends with it. */
const CLOSING_BYTES = 65_536

/**
 * Bytes of a streamed answer written at a time. The library gathers 16 KiB before it writes; what does not fit in there
 * behind a chunk's own head is lost, and the answer is no answer any more, where the socket has no room for that head
 * (docs/decisions/0031).
 */
const PIECE_BYTES = 16_000

/** An answer that says why there is none. */
export interface Refusal {
  readonly status: number
  readonly body: { readonly _tag: string; readonly message: string; readonly parameter?: string }
  readonly headers?: Readonly<Record<string, string>>
  /** For `topology_http_refused_total`. */
  readonly reason: string
  /** The name of the key that was shown, where it was one: for the log. */
  readonly key?: string | undefined
}

/** How long, and how slow, the parts of a request may be. */
export interface Times {
  /** A body has so long before its rate counts. */
  readonly bodyGraceMs: number
  /** What a body must then have come at, on average: what the library's own limit is in a row of 10 s. */
  readonly bodyBytesPerSecond: number
  /** The longest time of any body. */
  readonly bodyMs: number
  /** A client that goes on sending what was refused is let do so for so long, and so many bytes. */
  readonly drainMs: number
  readonly drainBytes: number
  /** … or until it has sent nothing for so long. */
  readonly drainIdleMs: number
  /** A client that takes nothing of its answer for so long is ended. The library would, a second later. */
  readonly unreadMs: number
}

/** What a request needs of the front that let it in. */
export interface ExchangeHost {
  readonly slots: Slots
  /** Bytes of bodies held, and of answers not taken yet. */
  readonly bodies: Allowance
  readonly unread: Allowance
  readonly times: Times
  /** Requests under way. */
  readonly under: Set<Exchange>
  /** Whether so many connections are open that none is kept for another request. */
  readonly isCrowded: boolean
  /** The answer to a request that finds no place. */
  readonly spentRefusal: (kind: Kind, spent: Spent) => Refusal
  /** A failure's body as whoever asks at a path reads it. */
  readonly told: (path: string, body: Refusal["body"]) => Refusal["body"]
  /** Counts a refused request, and leaves its line. */
  readonly count: (head: Head, kind: Kind, refusal: Refusal) => void
  /** Counts a request whose answer was broken off, and leaves its line. */
  readonly countEnded: (head: Head, kind: Kind, reason: string, key: string | undefined) => void
  /** Counts a request that is being answered. */
  readonly answered: (head: Head, status: number) => void
  /** Counts bytes of a body that came in, kept or not. */
  readonly received: (bytes: number) => void
}

const writeRefusal = (res: HttpResponse, refusal: Refusal, closes: boolean): void => {
  res.writeStatus(`${refusal.status} ${STATUS_CODES[refusal.status] ?? ""}`)
  const all = {
    "content-type": "application/json",
    "x-content-type-options": "nosniff",
    ...refusal.headers,
    ...(closes ? { connection: "close" } : {})
  }
  for (const [name, value] of Object.entries(all)) res.writeHeader(name, value)
}

/**
 * Ends an answer that says how long its body would be. The library's own way to say it leaves the answer open, and
 * drops the connection at the next request.
 */
const endHead = (res: HttpResponse, length: number): void => {
  res.writeHeader("content-length", String(length))
  res.endWithoutBody()
}

/** Answers a refusal at once, and ends the connection after it where the client may still be sending. */
export const refuseAtOnce = (res: HttpResponse, method: string, refusal: Refusal, closes: boolean): void => {
  const text = JSON.stringify(refusal.body)
  res.cork(() => {
    writeRefusal(res, refusal, closes)
    if (method === "HEAD") endHead(res, Buffer.byteLength(text))
    else res.end(text, closes)
  })
}

export class Exchange {
  readonly res: HttpResponse
  readonly head: Head
  /** Of every answer, also of those that say why there is none. */
  headers: Readonly<Record<string, string>> = {}
  /** The key that it was let in by, where one is asked for. */
  key: LiveKey | undefined
  readonly #front: ExchangeHost
  readonly #abort = new AbortController()
  #kind: Kind
  /** Called where the socket takes bytes again, or never will. */
  #resume: (() => void) | undefined
  #isOver = false
  #isListening = false
  /** No byte of the body is to come any more. */
  #isWhole: boolean
  #startedAt = performance.now()
  /** When the body or the socket last moved; `undefined` where nothing is waited for. */
  #movedAt: number | undefined
  #received = 0
  #held = 0
  #unread = 0

  /** For a request that has a place of the kind. */
  constructor(front: ExchangeHost, res: HttpResponse, head: Head, kind: Kind) {
    this.#front = front
    this.res = res
    this.head = head
    this.#kind = kind
    this.#isWhole = kind !== "body" && kind !== "drain"
    front.under.add(this)
    res.onAborted(() => {
      this.#end()
      this.#abort.abort()
      this.#resume?.()
    })
  }

  /** Fires where the client has gone. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** The response may no longer be touched. */
  get isOver(): boolean {
    return this.#isOver
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    const { slots, bodies, unread, under } = this.#front
    const { peer } = this.head
    under.delete(this)
    if (this.#held > 0) bodies.free(peer, this.#held)
    if (this.#unread > 0) unread.free(peer, this.#unread)
    slots.leave(this.#kind, peer)
  }

  /** Takes a place of another kind for the one it has. Where there is none, the request is refused: `false`. */
  moveTo(kind: Kind): boolean {
    const spent = this.#front.slots.move(this.#kind, kind, this.head.peer)
    if (spent === undefined) {
      this.#kind = kind
      return true
    }
    this.refuse(this.#front.spentRefusal(kind, spent), kind)
    return false
  }

  /** Answers a refusal. A client that is still sending is let go on for a while, so that it comes to read why. */
  refuse(given: Refusal, kind: Kind = this.#kind): void {
    if (this.#isOver) return
    const body = this.#front.told(this.head.path, given.body)
    const refusal = { key: this.key?.name, ...given, body, headers: { ...this.headers, ...given.headers } }
    this.#front.count(this.head, kind, refusal)
    const { slots } = this.#front
    const { res, head } = this
    const canDrain =
      !this.#isWhole &&
      refusal.status !== 408 &&
      (this.#kind === "drain" || slots.move(this.#kind, "drain", head.peer) === undefined)
    if (!canDrain) {
      refuseAtOnce(res, head.method, refusal, !this.#isWhole)
      this.#end()
      return
    }
    this.#kind = "drain"
    this.#startedAt = performance.now()
    this.#movedAt = this.#startedAt
    if (this.#held > 0) this.#front.bodies.free(head.peer, this.#held)
    this.#held = 0
    this.#received = 0
    res.cork(() => {
      writeRefusal(res, refusal, true)
      res.write(JSON.stringify(refusal.body))
    })
  }

  /**
   * Ends an answer to a client that has sent all, or as much as is looked at: then with the connection. The head has
   * said that it closes; the library's own way to close after `end` would write that header into the answer's body.
   */
  #drained(): void {
    const { res } = this
    const isWhole = this.#isWhole
    this.#end()
    if (isWhole) res.cork(() => res.end())
    else res.close()
  }

  /**
   * Takes the body in and hands it on once it is whole, or refuses it above `limit` bytes. To be called as soon as the
   * request came. The bytes handed on count as held until the exchange is over.
   */
  receive(limit: number, done: (body: Buffer<ArrayBuffer>) => void): void {
    const parts: Array<Uint8Array> = []
    const length = this.head.length
    // Before the library is asked for data: a refusal waits for it in the same way.
    this.res.onData((chunk, isLast) => {
      if (this.#isOver) return
      this.#isWhole = isLast
      this.#received += chunk.byteLength
      this.#front.received(chunk.byteLength)
      this.#movedAt = performance.now()
      if (this.#kind === "drain") {
        parts.length = 0
        if (isLast || this.#received > this.#front.times.drainBytes) this.#drained()
        return
      }
      if (this.#received > limit) {
        this.refuse(tooLarge(limit))
        return
      }
      if (!this.hold(chunk.byteLength)) return
      // The chunk's memory is the app's own again when this returns.
      parts.push(new Uint8Array(chunk.slice(0)))
      if (!isLast) return
      this.#movedAt = undefined
      done(Buffer.concat(parts))
    })
    if (length !== undefined && length > limit) this.refuse(tooLarge(limit))
  }

  /** Counts bytes of the body as held. Where no more may be, the request is refused: `false`. */
  hold(bytes: number): boolean {
    if (this.#isOver) return false
    const spent = this.#front.bodies.take(this.head.peer, bytes)
    if (spent === undefined) {
      this.#held += bytes
      return true
    }
    const whose = spent === "address" ? "one address" : "the server"
    this.refuse({
      status: 429,
      reason: spent,
      body: {
        _tag: "TooManyRequests",
        message: `body: ${whose} has as many bytes of bodies under way as may be`,
        parameter: "body"
      },
      headers: { "retry-after": "1" }
    })
    return false
  }

  /** Ends what lasts too long, whichever side it waits for. */
  check(now: number): void {
    if (this.#isOver || this.#movedAt === undefined) return
    const { times } = this.#front
    const elapsed = now - this.#startedAt
    if (this.#kind === "drain") {
      if (elapsed > times.drainMs || now - this.#movedAt > times.drainIdleMs) this.#drained()
    } else if (this.#kind === "body") {
      const isSlow = elapsed > times.bodyGraceMs && this.#received * 1000 < times.bodyBytesPerSecond * elapsed
      if (!isSlow && elapsed <= times.bodyMs) return
      const message = isSlow
        ? `body: expected at least ${times.bodyBytesPerSecond} bytes a second`
        : `body: expected within ${times.bodyMs / 1000} seconds`
      this.refuse({ status: 408, reason: "slow", body: { _tag: "RequestTimeout", message, parameter: "body" } })
    } else if (now - this.#movedAt > times.unreadMs) this.breakOff("unread")
  }

  /** Its key is no more: what still comes in is refused, what is being answered ends with its connection. */
  forsake(refusal: Refusal): void {
    if (this.#kind === "body") this.refuse(refusal)
    else this.breakOff("key")
  }

  /** Ends the connection in the middle of an answer: it must not look whole. */
  breakOff(reason: string): void {
    if (this.#isOver) return
    this.#front.countEnded(this.head, this.#kind, reason, this.key?.name)
    this.res.close()
  }

  /** Waits until the socket has taken what it was given. */
  #writable(): Promise<void> {
    // Registered once: a handler that is registered while it runs, as a promise going on inside it would, is put back
    // to the old one by the library.
    if (!this.#isListening) {
      this.#isListening = true
      this.res.onWritable(() => {
        this.#resume?.()
        return true
      })
    }
    this.#movedAt = performance.now()
    return new Promise((resolve) => {
      this.#resume = () => {
        this.#movedAt = undefined
        resolve()
      }
    })
  }

  /** Sends an answer; one of unknown length piece by piece, the next only when the socket has taken the last. */
  async send(response: Response, extra: ReadonlyArray<readonly [string, string]>): Promise<void> {
    const { res } = this
    this.#front.answered(this.head, response.status)
    const length = response.headers.get("content-length")
    if (response.body === null) {
      res.cork(() => {
        writeHead(res, response, extra)
        if (response.status === 204 || response.status === 304) res.endWithoutBody()
        else endHead(res, Number(length ?? 0))
      })
      return this.#end()
    }
    // Of what parts can be asked for, the whole may be more than is to lie in memory.
    const isLong = response.headers.has("accept-ranges") && Number(length) > 0
    if (length !== null && !isLong) {
      const bytes = new Uint8Array(await response.arrayBuffer())
      if (!this.#isOver) this.#sendWhole(bytes, () => writeHead(res, response, extra))
      return
    }
    const hasPlace = this.#kind === "operator" || this.#kind === "stream" || this.moveTo("stream")
    if (!hasPlace) return response.body.cancel()
    const reader = response.body.getReader()
    if (length !== null) return this.#sendLong(reader, Number(length), () => writeHead(res, response, extra))
    res.cork(() => writeHead(res, response, extra))
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (this.#isOver) return
        if (done) break
        for (let at = 0; at < value.byteLength; at += PIECE_BYTES) {
          const piece = value.subarray(at, at + PIECE_BYTES)
          let isTaken = true
          res.cork(() => {
            isTaken = res.write(piece)
          })
          if (!isTaken) await this.#writable()
          if (this.#isOver) return
        }
      }
      res.cork(() => res.end())
      this.#end()
    } finally {
      // Where the client has gone, the rest is never asked for.
      if (this.#isOver) reader.cancel().catch(() => undefined)
    }
  }

  /** Sends an answer of known length that is not to lie in memory, as one of unknown length is sent. */
  async #sendLong(
    reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>,
    length: number,
    head: () => void
  ): Promise<void> {
    const { res } = this
    let sent = 0
    try {
      res.cork(head)
      for (;;) {
        const { done, value } = await reader.read()
        if (this.#isOver) return
        // It says to be longer: it must not look whole.
        if (done) return this.breakOff("failed")
        for (let at = 0; at < value.byteLength; ) {
          const piece = value.subarray(at, at + Math.min(PIECE_BYTES, length - sent))
          let isTaken = true
          let isAll = false
          res.cork(() => {
            ;[isTaken, isAll] = res.tryEnd(piece, length)
          })
          if (isAll) return this.#end()
          const taken = res.getWriteOffset() - sent
          sent += taken
          at += taken
          if (!isTaken) await this.#writable()
          if (this.#isOver) return
        }
      }
    } finally {
      reader.cancel().catch(() => undefined)
    }
  }

  /**
   * Sends an answer of known length. What the socket does not take at once stays here, and the request its place: the
   * library would keep it without a bound, however many answers a client asks for and never reads.
   */
  #sendWhole(bytes: Uint8Array<ArrayBuffer>, head: () => void): void {
    const { res } = this
    const closes = this.#front.isCrowded && bytes.byteLength <= CLOSING_BYTES
    // Of nothing, the library never says that it is done.
    if (closes || bytes.byteLength === 0) {
      res.cork(() => {
        head()
        if (closes) res.writeHeader("connection", "close")
        res.end(bytes, closes)
      })
      this.#end()
      return
    }
    let isDone = false
    res.cork(() => {
      head()
      isDone = res.tryEnd(bytes, bytes.byteLength)[1]
    })
    if (isDone) {
      this.#end()
      return
    }
    const left = bytes.byteLength - res.getWriteOffset()
    const spent = this.#front.unread.take(this.head.peer, left)
    if (spent !== undefined) {
      this.breakOff(spent)
      return
    }
    this.#unread = left
    this.#movedAt = performance.now()
    res.onWritable((offset) => {
      this.#movedAt = performance.now()
      const [isTaken, isAll] = res.tryEnd(bytes.subarray(offset), bytes.byteLength)
      if (isAll) this.#end()
      return isTaken
    })
  }
}

const tooLarge = (limit: number): Refusal => ({
  status: 413,
  reason: "too_large",
  body: { _tag: "PayloadTooLarge", message: `body: expected at most ${limit} bytes`, parameter: "body" }
})

const writeHead = (res: HttpResponse, response: Response, extra: ReadonlyArray<readonly [string, string]>) => {
  res.writeStatus(`${response.status} ${STATUS_CODES[response.status] ?? ""}`)
  for (const [name, value] of response.headers) if (name !== "content-length") res.writeHeader(name, value)
  // What an answer varies by adds up.
  for (const [name, value] of extra) if (name === "vary" || !response.headers.has(name)) res.writeHeader(name, value)
}
