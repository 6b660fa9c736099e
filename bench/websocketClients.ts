/**
 * Decides how the readers of the WebSocket bench read: a process of raw sockets that shake hands, count the bytes of what
 * is no ping, and answer pings.
 */
import { connect } from "node:net"

const [port, count] = [Number(process.argv[2]), Number(process.argv[3])]
const subscribe = process.argv[4] ?? ""

/** A client's text frame, masked with zeros. */
const frame = (text: string): Buffer => {
  const payload = Buffer.from(text)
  const head =
    payload.length < 126
      ? Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0])
      : Buffer.from([0x81, 0x80 | 126, payload.length >> 8, payload.length & 255, 0, 0, 0, 0])
  return Buffer.concat([head, payload])
}

const NOTHING = Buffer.alloc(0)
const PING = 0x89
const PONG = 0x8a

/** A client's pong, masked with zeros. */
const pong = (payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from([PONG, 0x80 | payload.length, 0, 0, 0, 0]), payload])

/** Looks at each frame's head, and no further, in pieces as they come. */
class Frames {
  private readonly answer: (pong: Buffer) => void
  /** Bytes of a frame's payload that are still to come. */
  private payload = 0
  /** What came of a head, or of a whole ping. */
  private begun = NOTHING

  constructor(answer: (pong: Buffer) => void) {
    this.answer = answer
  }

  /** Answers how many of the bytes are no ping's. */
  read(piece: Buffer): number {
    const bytes = this.begun.length === 0 ? piece : Buffer.concat([this.begun, piece])
    let counted = 0
    let at = 0
    if (this.payload > 0) {
      at = Math.min(this.payload, bytes.length)
      counted = at
      this.payload -= at
    }
    while (at + 1 < bytes.length) {
      let length = bytes[at + 1]!
      const head = length < 126 ? 2 : length === 126 ? 4 : 10
      if (at + head > bytes.length) break
      if (head === 4) length = (bytes[at + 2]! << 8) | bytes[at + 3]!
      else if (head === 10) length = Number(bytes.readBigUInt64BE(at + 2))
      const end = at + head + length
      if (bytes[at] === PING) {
        if (end > bytes.length) break
        this.answer(pong(bytes.subarray(at + head, end)))
        at = end
        continue
      }
      const last = Math.min(end, bytes.length)
      counted += last - at
      this.payload = end - last
      at = last
    }
    this.begun = at < bytes.length ? Buffer.from(bytes.subarray(at)) : NOTHING
    return counted
  }
}

let received = 0
let opened = 0
for (let i = 0; i < count; i++) {
  let isOpen = false
  const frames = new Frames((pong) => socket.write(pong))
  const socket = connect({
    port,
    host: "127.0.0.1",
    noDelay: true,
    onread: {
      buffer: Buffer.allocUnsafe(65_536),
      callback: (bytes, buffer) => {
        if (isOpen) {
          received += frames.read(Buffer.from(buffer.buffer, buffer.byteOffset, bytes))
          return true
        }
        const head = Buffer.from(buffer.buffer, buffer.byteOffset, bytes)
        const end = head.indexOf("\r\n\r\n")
        isOpen = true
        received += frames.read(head.subarray(end + 4))
        if (subscribe !== "") socket.write(frame(subscribe))
        if (++opened === count) process.send!({ opened })
        return true
      }
    }
  })
  socket.write(
    `GET /ws HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
  )
}

let told = -1
setInterval(() => {
  if (received === told) return
  told = received
  process.send!({ received })
}, 2)
process.on("disconnect", () => process.exit(0))
