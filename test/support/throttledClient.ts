/**
 * Decides how tests read a WebSocket as slowly as they like, to the byte: what was not read lies in the kernels, and pings
 * are answered when they are read, as by any client.
 */
import { connect, type Socket } from "node:net"
import { Effect, type Scope } from "effect"
import type { ServerMessage } from "../../src/schema/Protocol.ts"
import { RuleChecker } from "./RuleChecker.ts"

const TEXT = 1
const CLOSE = 8
const PING = 9
const PONG = 10

/** A client's frame of up to 64 KiB, masked with zeros. */
const frame = (opcode: number, payload: Buffer): Buffer => {
  const { length } = payload
  const size = length < 126 ? [0x80 | length] : [0x80 | 126, length >> 8, length & 255]
  return Buffer.concat([Buffer.from([0x80 | opcode, ...size, 0, 0, 0, 0]), payload])
}

export class ThrottledClient {
  readonly checker = new RuleChecker()
  readonly messages: Array<ServerMessage> = []
  /** Payloads of the pings that were read. */
  readonly pings: Array<string> = []
  closed: { readonly code: number; readonly reason: string } | undefined
  /** Nothing more comes. */
  isOver = false
  private readonly socket: Socket
  private readonly answers: boolean
  private rest = Buffer.alloc(0)
  isOpen = false

  constructor(socket: Socket, answers: boolean) {
    this.socket = socket
    this.answers = answers
    socket.on("error", () => undefined)
    for (const event of ["end", "close"]) {
      socket.on(event, () => {
        this.isOver = true
      })
    }
  }

  send(message: object): void {
    this.socket.write(frame(TEXT, Buffer.from(JSON.stringify(message))))
  }

  pong(payload: string): void {
    this.socket.write(frame(PONG, Buffer.from(payload)))
  }

  /** Reads so many bytes, as soon as they are there, or what comes before the end; all that has come where none are named. */
  read(bytes?: number): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const { socket } = this
      const events = ["readable", "end", "close"]
      const look = () => {
        const data = socket.read(bytes) as Buffer | null
        if (data === null && !this.isOver) return
        for (const event of events) socket.off(event, look)
        if (data !== null) this.take(data)
        resume(Effect.void)
      }
      for (const event of events) socket.on(event, look)
      look()
    })
  }

  /** Reads until it has seen what is asked, or the end. */
  readUntil(condition: (client: ThrottledClient) => boolean): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      while (!condition(this) && !this.isOver) yield* this.read()
    })
  }

  private take(data: Buffer): void {
    this.rest = Buffer.concat([this.rest, data])
    if (!this.isOpen) {
      const end = this.rest.indexOf("\r\n\r\n")
      if (end < 0) return
      this.isOpen = true
      this.rest = this.rest.subarray(end + 4)
    }
    while (this.rest.length >= 2) {
      const [first = 0, second = 0] = this.rest
      const head = second < 126 ? 2 : second === 126 ? 4 : 10
      if (this.rest.length < head) return
      const length = head === 2 ? second : head === 4 ? this.rest.readUInt16BE(2) : Number(this.rest.readBigUInt64BE(2))
      if (this.rest.length < head + length) return
      const payload = this.rest.subarray(head, head + length)
      this.rest = this.rest.subarray(head + length)
      this.takeFrame(first & 15, payload)
    }
  }

  private takeFrame(opcode: number, payload: Buffer): void {
    const text = payload.toString("utf8")
    if (opcode === CLOSE) this.closed = { code: payload.readUInt16BE(0), reason: text.slice(2) }
    else if (opcode === PING) {
      this.pings.push(text)
      if (this.answers) this.pong(text)
    } else {
      this.checker.frame(text)
      this.messages.push(...[JSON.parse(text)].flat())
    }
  }
}

/** A client for as long as the scope; one that `answers` no ping breaks what every WebSocket keeps. */
export const throttledClient = (port: number, answers = true): Effect.Effect<ThrottledClient, never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => connect(port, "127.0.0.1")),
      (socket) => Effect.sync(() => socket.destroy())
    )
    const client = new ThrottledClient(socket, answers)
    socket.write(
      `GET /ws HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    yield* client.readUntil(({ isOpen }) => isOpen)
    return client
  })
