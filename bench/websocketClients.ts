/** Decides how the readers of the WebSocket bench read: a process of raw sockets that shake hands and count bytes. */
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

let received = 0
let opened = 0
for (let i = 0; i < count; i++) {
  let isOpen = false
  const socket = connect({
    port,
    host: "127.0.0.1",
    noDelay: true,
    onread: {
      buffer: Buffer.allocUnsafe(65_536),
      callback: (bytes, buffer) => {
        if (isOpen) {
          received += bytes
          return true
        }
        const head = Buffer.from(buffer.buffer, buffer.byteOffset, bytes)
        const end = head.indexOf("\r\n\r\n")
        isOpen = true
        received += bytes - end - 4
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
