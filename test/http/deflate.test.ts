import type { Socket } from "node:net"
import { constants, deflateRawSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { DEFLATE_FROM_CHARS, Deflate, deflateOffer } from "../../src/http/deflate.ts"
import { MAX_MESSAGE_BYTES } from "../../src/schema/Protocol.ts"
import { EPOCH, tickOf } from "../support/hub.ts"
import { connect, serve, type TestClient } from "../support/webSocketServer.ts"

const run = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => tickOf(1, EPOCH, from + i))

const socketOf = ({ ws }: TestClient): Socket => (ws as unknown as { readonly _socket: Socket })._socket

/** A client's text frame that says that it is compressed, masked with zeros. */
const compressedFrame = (payload: Buffer): Buffer => {
  const head = Buffer.alloc(payload.length < 126 ? 2 : payload.length < 65_536 ? 4 : 10)
  head[0] = 0xc1
  if (payload.length < 126) head[1] = 0x80 | payload.length
  else if (payload.length < 65_536) {
    head[1] = 0x80 | 126
    head.writeUInt16BE(payload.length, 2)
  } else {
    head[1] = 0x80 | 127
    head.writeBigUInt64BE(BigInt(payload.length), 2)
  }
  return Buffer.concat([head, Buffer.alloc(4), payload])
}

/** As permessage-deflate writes it: without the empty block at its end. */
const deflated = (text: string): Buffer => {
  const whole = deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH })
  return whole.subarray(0, whole.length - 4)
}

describe("permessage-deflate", () => {
  it("answers the first offer that it can keep, and none that asks for a window of its own", () => {
    for (const offer of [
      "permessage-deflate",
      "permessage-deflate; client_max_window_bits",
      "x-webkit-deflate-frame, permessage-deflate;client_max_window_bits=10 ; server_no_context_takeover",
      "permessage-deflate; server_max_window_bits=9, permessage-deflate"
    ]) {
      assert.strictEqual(deflateOffer(offer), "permessage-deflate", offer)
    }
    for (const offer of [
      "",
      "x-webkit-deflate-frame",
      "permessage-deflate; server_max_window_bits=10",
      "permessage-"
    ]) {
      assert.strictEqual(deflateOffer(offer), "", offer)
    }
  })

  it("compresses as long as it takes a small part of the time, and sends the rest as it is", () => {
    let now = 0
    const deflate = new Deflate(() => now)
    const long = "x".repeat(DEFLATE_FROM_CHARS)
    const send = (text: string) =>
      deflate.send(text, (compress) => {
        if (compress) now += 1
        return compress
      })
    assert.isFalse(send(long.slice(1)))
    const sent = Array.from({ length: 50 }, () => send(long))
    assert.deepStrictEqual(sent.slice(0, 5), [true, true, true, true, true])
    assert.isFalse(sent.slice(8).includes(true))
    now += 1000
    assert.isTrue(send(long))
    let compressed = 0
    for (let i = 0; i < 1000; i++) {
      now += 1
      if (send(long)) compressed++
    }
    assert.isBelow(compressed, 300)
    assert.isAbove(compressed, 150)
  })

  it.live("is for those who ask for it and take arrays: everybody else's frames are as ever", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve()
        const cases = [
          { deflate: true, batch: true },
          { deflate: { serverMaxWindowBits: 10 }, batch: true },
          { deflate: true, batch: false },
          { deflate: false, batch: true },
          { deflate: false, batch: false }
        ]
        const clients: Array<TestClient> = []
        for (const { deflate, batch } of cases) {
          const client = yield* connect(url, { deflate })
          client.send({ action: "subscribe", tokens: [1], batch })
          yield* client.until(({ checker }) => checker.backfills === 1)
          clients.push(client)
        }
        const before = clients.map((client) => socketOf(client).bytesRead)
        hub.publish(run(1, 200))
        for (const client of clients) yield* client.until(({ checker }) => checker.ticks === 200)
        const read = clients.map((client, i) => socketOf(client).bytesRead - before[i]!)
        const plain = read[4]!
        assert.strictEqual(read[2], plain)
        assert.isBelow(read[0]!, read[3]! / 5)
        assert.strictEqual(read[1], read[3])
        assert.deepStrictEqual(
          clients.map(({ ws }) => ws.extensions),
          ["permessage-deflate", "", "permessage-deflate", "", ""]
        )
      })
    )
  )

  it.live("bounds what a client sends by what it is when it is inflated: a bomb ends it, and nobody else notices", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const ended: Array<string> = []
        const { hub, url } = yield* serve({
          counts: { ended: (why) => ended.push(why), upgradeRefused: () => undefined, messageRefused: () => undefined }
        })
        const good = yield* connect(url)
        good.send({ action: "subscribe", tokens: [1] })
        const send = (client: TestClient, text: string) => socketOf(client).write(compressedFrame(deflated(text)))

        // Compressed or not, a message is what it says.
        const fair = yield* connect(url)
        send(fair, JSON.stringify({ action: "ping" }))
        yield* fair.until(({ messages }) => messages.some((m) => m.type === "pong"))

        // Some hundred bytes on the wire each.
        const large = yield* connect(url)
        send(large, " ".repeat(MAX_MESSAGE_BYTES + 1))
        yield* large.until(({ closed }) => closed !== undefined)
        assert.strictEqual(large.closed?.code, 1009)

        const bomb = yield* connect(url)
        send(bomb, "[".repeat(50_000_000))
        yield* bomb.until(({ closed }) => closed !== undefined)
        assert.strictEqual(bomb.closed?.code, 1006)

        // Their sum counts inflated, too.
        const many = yield* connect(url)
        for (let i = 0; i < 6; i++) send(many, `{"action":"ping","id":"${" ".repeat(900)}"}${" ".repeat(250_000)}`)
        yield* many.until(({ closed }) => closed !== undefined)
        assert.deepStrictEqual(many.closed, { code: 1008, reason: "too many bytes" })

        const broken = yield* connect(url)
        socketOf(broken).write(compressedFrame(Buffer.from("no deflate at all, whatever its bits say")))
        yield* broken.until(({ closed }) => closed !== undefined)

        assert.deepStrictEqual(ended.slice(0, 3), ["too_large", "too_large", "too_many_bytes"])
        hub.publish(run(1, 3))
        yield* good.until(({ checker }) => checker.ticks === 3)
        assert.isUndefined(good.closed)
      })
    )
  )

  it.live("that nobody offered makes a compressed frame a breach", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* serve()
        const client = yield* connect(url, { deflate: false })
        socketOf(client).write(compressedFrame(deflated('{"action":"ping"}')))
        yield* client.until(({ closed }) => closed !== undefined)
        assert.strictEqual(client.closed?.code, 1006)
      })
    )
  )
})
