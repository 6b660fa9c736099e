import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer as createSecureServer } from "node:https"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { onTestFinished } from "vitest"
import WebSocket from "ws"
import { ConnectionFailed, Unauthorized } from "../../src/client/errors.ts"
import type { SocketConstructor } from "../../src/client/index.ts"
import { hasOpenssl, makeAuthority, makeCertificate } from "../support/certificates.ts"
import { backfill, client, failureOf, frame, take } from "../support/clients.ts"
import { EPOCH } from "../support/hub.ts"
import { scripted } from "../support/scriptedServer.ts"

const NodeWebSocket = WebSocket as unknown as SocketConstructor
const refusedKey = { type: "error", code: "unauthorized", message: "auth: this key is not known" } as const

describe("a client's connection", () => {
  it("is opened by the first subscription, and closed once nothing is subscribed", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    assert.strictEqual(c.state, "idle")
    assert.strictEqual(server.tries(), 0)
    const stream = c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    await stream.accepted
    assert.strictEqual(c.state, "open")
    stream.close()
    assert.deepStrictEqual((await peer.next("unsubscribe")).tokens, [1])
    assert.strictEqual(await peer.closed, 1000)
    assert.strictEqual(c.state, "idle")
    // And opened anew by the next.
    c.ticks(2)
    assert.deepStrictEqual((await (await server.peer()).accept()).tokens, [2])
  })

  for (const [how, end] of [
    ["is cut off", (ws: WebSocket) => ws.terminate()],
    ["is closed for a restart (1001)", (ws: WebSocket) => ws.close(1001, "the server is stopping")],
    ["is closed as too slow (4001)", (ws: WebSocket) => ws.close(4001, "slow")],
    ["is closed for an overload (1013)", (ws: WebSocket) => ws.close(1013)],
    ["is closed for another reason than its key (1008)", (ws: WebSocket) => ws.close(1008, "too many messages")]
  ] as const) {
    it(`comes back where it ${how}, and goes on from the last place`, async () => {
      const server = await scripted()
      const { client: c, events } = client(server.url)
      const stream = c.ticks(1, { backfill: 2 })
      const first = await server.peer()
      assert.strictEqual((await first.accept()).backfill, 2)
      first.say(backfill(1, 9, 10), frame(1, 11))
      await take(stream, 3)
      end(first.ws)
      const second = await server.peer()
      const again = await second.accept()
      assert.deepStrictEqual(again.since, { 1: [EPOCH, 11] })
      assert.isUndefined(again.backfill)
      second.say(backfill(1, 12, 13), frame(1, 14))
      assert.deepStrictEqual(
        (await take(stream, 3)).map(({ position, live }) => [position, live]),
        [
          [12, false],
          [13, false],
          [14, true]
        ]
      )
      assert.lengthOf(events.disconnected, 1)
      assert.deepStrictEqual(
        events.connected.map(({ resumed }) => resumed),
        [false, true]
      )
      assert.isEmpty(events.error)
    })
  }

  it("is given up as failed where the first never comes to be, with why", async () => {
    const { client: c, events } = client("http://127.0.0.1:1", { reconnect: { minMs: 1, maxMs: 5, firstForMs: 60 } })
    const stream = c.ticks(1)
    const error = await failureOf(stream.next())
    assert.instanceOf(error, ConnectionFailed)
    assert.match(
      (error as ConnectionFailed).message,
      /^ws:\/\/127\.0\.0\.1:1\/ws: no connection in \d+ s, \d+ tries: ./
    )
    assert.isAbove((error as ConnectionFailed).attempts, 1)
    assert.strictEqual(c.state, "closed")
    assert.deepStrictEqual(events.closed, [{ error }])
    // Whoever asks later is told the same.
    assert.strictEqual(await failureOf(c.ticks(2).next()), error)
  })

  it("that is lost is told in words, whatever the runtime says of it", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    c.ticks(1)
    const first = await server.peer()
    await first.accept()
    first.ws.terminate()
    const second = await server.peer()
    await second.accept()
    second.ws.close(4001)
    await server.peer()
    assert.deepStrictEqual(
      events.disconnected.map(({ code, reason }) => [code, reason]),
      [
        [1006, "the connection was lost"],
        [4001, "closed with 4001"]
      ]
    )
  })

  for (const [whose, WebSocket] of [
    ["Node's own socket", undefined],
    ["the package ws", NodeWebSocket]
  ] as const) {
    const failing = (url: string) =>
      client(url, { ...(WebSocket === undefined ? {} : { WebSocket }), reconnect: { minMs: 1, maxMs: 2 } })
    const reasonAt = async (url: string) => {
      const { client: c } = failing(url)
      c.ticks(1)
      const { reason } = await c.once("disconnected")
      c.close()
      return reason
    }

    it(`that never comes to be is told with why, by ${whose}: nobody there, a refusal, no name`, async () => {
      const gone = createServer().listen(0, "127.0.0.1")
      await once(gone, "listening")
      const { port } = gone.address() as AddressInfo
      await new Promise((resolve) => gone.close(resolve))
      assert.strictEqual(await reasonAt(`http://127.0.0.1:${port}`), `connect ECONNREFUSED 127.0.0.1:${port}`)
      const server = await scripted(() => ({ status: "403 Forbidden" }))
      assert.strictEqual(await reasonAt(server.url), "the handshake was answered with 403 Forbidden")
      assert.match(await reasonAt("http://no-such-host.invalid"), /no-such-host\.invalid/)
    })

    it(`that is refused with 401 is not tried again, by ${whose}`, async () => {
      const server = await scripted(() => ({ status: "401 Unauthorized" }))
      const { client: c } = failing(server.url)
      assert.instanceOf(await failureOf(c.ticks(1).next()), Unauthorized)
      assert.strictEqual(server.tries(), 1)
    })

    it.skipIf(!hasOpenssl)(`that meets a certificate nobody vouches for is told so, by ${whose}`, async () => {
      const folder = mkdtempSync(join(tmpdir(), "mdp-"))
      onTestFinished(() => rmSync(folder, { recursive: true }))
      const { certificate, key } = makeCertificate(makeAuthority(folder), "server")
      const server = createSecureServer({ cert: readFileSync(certificate), key: readFileSync(key) }).listen(0)
      onTestFinished(() => void server.close())
      await once(server, "listening")
      const { port } = server.address() as AddressInfo
      assert.match(await reasonAt(`https://127.0.0.1:${port}`), /^the server's certificate is not trusted: ./)
    })
  }

  it("is tried again and again once it has been there", async () => {
    let isAway = false
    const server = await scripted(() => (isAway ? { status: "503 Service Unavailable" } : undefined))
    const { client: c, events } = client(server.url, { reconnect: { minMs: 1, maxMs: 2, firstForMs: 20 } })
    const stream = c.ticks(1)
    const first = await server.peer()
    await first.accept()
    first.say(backfill(1, 6, 5))
    await stream.accepted
    isAway = true
    first.ws.terminate()
    while (server.tries() < 30) await c.once("disconnected")
    isAway = false
    assert.deepStrictEqual((await (await server.peer()).accept()).since, { 1: [EPOCH, 5] })
    assert.isAbove(events.connected.at(-1)!.attempt, 20)
  })

  it("waits as long as a refusal says, where the runtime shows it", async () => {
    const server = await scripted((tries) =>
      tries === 1 ? { status: "429 Too Many Requests", headers: { "retry-after": "0.05" } } : undefined
    )
    const { client: c, events } = client(server.url, { WebSocket: NodeWebSocket })
    c.ticks(1)
    await (await server.peer()).accept()
    const [down] = events.disconnected
    assert.strictEqual(down!.reason, "the handshake was answered with 429 Too Many Requests")
    assert.isAtLeast(down!.retryInMs, 50)
  })

  it("is dropped where the server falls silent, however open the socket looks", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url, { heartbeat: { silenceMs: 20, answerMs: 20 } })
    const stream = c.ticks(1)
    const first = await server.peer()
    await first.accept()
    first.say(backfill(1, 2, 1))
    await stream.accepted
    await first.next("ping")
    first.say({ type: "pong" })
    await first.next("ping")
    // No answer to this one.
    await (await server.peer()).accept()
    assert.match(events.disconnected[0]!.reason, /^silent for \d+ ms$/)
  })

  it("is not taken for silent because the application held everything up", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url, { heartbeat: { silenceMs: 20, answerMs: 20 } })
    c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    await peer.next("ping")
    // The server is of this process, so it answers before, and nothing is read until the time is long over.
    peer.say({ type: "pong" })
    const until = performance.now() + 100
    while (performance.now() < until);
    await peer.next("ping")
    assert.isEmpty(events.disconnected)
  })

  it("is given up where it does not open in time", async () => {
    let tries = 0
    class Never {
      onopen = null
      onmessage = null
      onerror = null
      onclose = null
      constructor() {
        tries++
      }
      send() {}
      close() {}
    }
    const { client: c, events } = client("http://127.0.0.1:1", { WebSocket: Never, connectTimeoutMs: 5 })
    c.ticks(1)
    while (tries < 3) await c.once("disconnected")
    assert.strictEqual(events.disconnected[0]!.reason, "not open after 5 ms")
  })

  it("comes back at once where a browser is online again", async () => {
    const listeners = new Map<string, () => void>()
    const browser = globalThis as { addEventListener?: unknown; removeEventListener?: unknown }
    browser.addEventListener = (event: string, listener: () => void) => listeners.set(event, listener)
    browser.removeEventListener = (event: string) => listeners.delete(event)
    try {
      const server = await scripted()
      const { client: c } = client(server.url, { reconnect: { minMs: 3_600_000, maxMs: 3_600_000 } })
      c.ticks(1)
      const first = await server.peer()
      await first.accept()
      first.ws.terminate()
      await c.once("disconnected")
      listeners.get("online")!()
      await (await server.peer()).accept()
      c.close()
      assert.strictEqual(listeners.size, 0)
    } finally {
      delete browser.addEventListener
      delete browser.removeEventListener
    }
  })

  it("is dropped for a frame that is no JSON, and passes over what it does not know", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const stream = c.ticks(1)
    const first = await server.peer()
    await first.accept()
    first.ws.send(Buffer.from([1, 2, 3]))
    first.ws.send('{"type":"weather","sunny":true}')
    first.say(backfill(1, 1, 1))
    await take(stream, 1)
    first.ws.send("{")
    await (await server.peer()).accept()
    assert.strictEqual(events.disconnected[0]!.reason, "a frame that is no JSON")
    assert.deepInclude(events.message as ReadonlyArray<unknown>, { type: "weather", sunny: true })
  })
})

describe("a client's key", () => {
  it("goes in the first message, before anything is subscribed", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url, { key: "k1" })
    c.ticks(1)
    const peer = await server.peer()
    assert.strictEqual((await peer.next("auth")).key, "k1")
    const authorized = { type: "authorized", id: "auth", key: "bot", scopes: ["read"], expires: null } as const
    peer.say(authorized)
    await peer.accept()
    assert.deepStrictEqual(events.connected[0]!.authorized, authorized)
  })

  it("is waited for no longer than a connection may take", async () => {
    const server = await scripted()
    let asked = 0
    const never = () => {
      asked++
      return new Promise<string>(() => {})
    }
    const { client: c, events } = client(server.url, {
      key: never,
      connectTimeoutMs: 20,
      reconnect: { minMs: 1, maxMs: 2, firstForMs: 200 }
    })
    const error = await failureOf(c.ticks(1).next())
    assert.instanceOf(error, ConnectionFailed)
    assert.isAbove(asked, 1)
    assert.strictEqual(events.disconnected[0]!.reason, "not open after 20 ms")
  })

  it("is passed over by a server that has no keys", async () => {
    const server = await scripted()
    const { client: c } = client(server.url, { key: "k1" })
    c.ticks(1)
    const peer = await server.peer()
    await peer.next("auth")
    peer.say({ type: "error", code: "no_keys", message: "auth: none is needed", id: "auth" })
    await peer.accept()
  })

  it("that is refused ends everything, and nothing is tried again", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url, { key: "wrong" })
    const stream = c.ticks(1)
    const peer = await server.peer()
    await peer.next("auth")
    peer.say(refusedKey)
    peer.ws.close(1008, "key")
    const error = await failureOf(stream.next())
    assert.instanceOf(error, Unauthorized)
    assert.strictEqual((error as Unauthorized).message, "key: refused: auth: this key is not known")
    assert.deepStrictEqual(events.closed, [{ error }])
    assert.strictEqual(c.state, "closed")
    assert.strictEqual(server.tries(), 1)
  })

  it("that is missing ends everything where the server wants one", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const stream = c.ticks(1)
    const peer = await server.peer()
    await peer.next("subscribe")
    peer.say({ type: "error", code: "unauthorized", message: "auth: expected a key" })
    assert.instanceOf(await failureOf(stream.next()), Unauthorized)
  })

  it("of a function is asked for on each connection, and once more where one has expired", async () => {
    const server = await scripted()
    let asked = 0
    const { client: c } = client(server.url, { key: async () => `k${++asked}` })
    const stream = c.ticks(1)
    const authorize = async (key: string) => {
      const peer = await server.peer()
      assert.strictEqual((await peer.next("auth")).key, key)
      return peer
    }
    const first = await authorize("k1")
    first.say({ type: "authorized", key: "bot", scopes: ["read"], expires: 1 })
    await first.accept()
    first.say(backfill(1, 1, 1))
    await take(stream, 1)
    first.say({ type: "error", code: "unauthorized", message: "the key has expired" })
    first.ws.close(1008)
    const second = await authorize("k2")
    second.say({ type: "authorized", key: "bot", scopes: ["read"], expires: null })
    assert.deepStrictEqual((await second.accept()).since, { 1: [EPOCH, 1] })
    // Refused again before it had held: the function is asked no more.
    second.say(refusedKey)
    assert.instanceOf(await failureOf(stream.next()), Unauthorized)
    assert.strictEqual(asked, 2)
  })

  it("of a function that fails is asked for again later", async () => {
    const server = await scripted()
    let asked = 0
    const { client: c, events } = client(server.url, {
      key: () => {
        if (++asked === 1) throw new Error("the vault is away")
        return "k"
      }
    })
    c.ticks(1)
    const peer = await server.peer()
    await peer.next("auth")
    assert.strictEqual(events.disconnected[0]!.reason, "the key function failed: the vault is away")
  })
})
