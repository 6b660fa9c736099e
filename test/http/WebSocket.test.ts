import { request } from "node:http"
import type { Socket } from "node:net"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ClientLog } from "../../src/http/clientLog.ts"
import { MAX_STRIKES, MESSAGE_BURST } from "../../src/http/session.ts"
import { type Answer, MAX_MESSAGE_BYTES } from "../../src/schema/Protocol.ts"
import type { Hub } from "../../src/streams/fanOut/Hub.ts"
import { EPOCH, randomFrom, tickOf } from "../support/hub.ts"
import { instrumentOf } from "../support/instruments.ts"
import { connect, serve, type TestClient } from "../support/webSocketServer.ts"
import { rawClient } from "./rawClient.ts"

const TOKENS = 20

/** Publishes batches of ticks of random instruments, a turn of the event loop apart. */
const load = (hub: Hub, seed: number) => {
  const random = randomFrom(seed)
  const positions = new Map<number, number>()
  let isOn = true
  let published = 0
  const turn = () => {
    if (!isOn) return
    const ticks = Array.from({ length: 1 + random.below(40) }, () => {
      const token = 1 + random.below(TOKENS)
      const position = (positions.get(token) ?? 0) + 1
      positions.set(token, position)
      return tickOf(token, EPOCH, position, random.chance(0.05) ? { status: "STALE", gap_from: 1 } : {})
    })
    published += ticks.length
    hub.publish(ticks)
    setImmediate(turn)
  }
  turn()
  return {
    published: () => published,
    stop: () => {
      isOn = false
    }
  }
}

/** What is in use once all that is not has been collected: the resident set grows when the collector likes. */
const heldBytes = (): number => {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc") as () => void
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

const turns = (count: number) =>
  Effect.promise(async () => {
    for (let i = 0; i < count; i++) await new Promise<void>((resolve) => setImmediate(resolve))
  })

/** Where the hub stands, the client must come to stand. */
const caughtUp = (hub: Hub, client: TestClient, tokens: ReadonlyArray<number>) =>
  client.until(({ checker }) => tokens.every((t) => checker.place(t)?.position === hub.live.place(t)?.position))

/** What a raw request for `/ws` is answered. */
const statusOf = (port: number, headers: Readonly<Record<string, string>>) =>
  Effect.promise(
    () =>
      new Promise<number>((resolve, reject) => {
        const asked = request({ host: "127.0.0.1", port, path: "/ws", headers, agent: false }, (response) => {
          response.resume()
          resolve(response.statusCode ?? 0)
        })
        asked.on("upgrade", (_, socket) => {
          socket.destroy()
          resolve(101)
        })
        asked.on("error", reject)
        asked.end()
      })
  )

const allTokens = Array.from({ length: TOKENS }, (_, i) => i + 1)

describe("a client of /ws", () => {
  it.live("that subscribes at 200 random instants under load sees neither hole nor repeat", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve({ hub: { RING_TICKS: 200 } })
        const random = randomFrom(7)
        const running = load(hub, 42)
        const clients: Array<{ client: TestClient; tokens: ReadonlyArray<number> }> = []
        for (let i = 0; i < 200; i++) {
          yield* turns(random.below(6))
          const client = yield* connect(url, { keep: false })
          const tokens = allTokens.filter(() => random.chance(0.3))
          if (tokens.length === 0) tokens.push(1)
          client.send({
            action: "subscribe",
            tokens,
            backfill: random.below(150),
            capacity: 100_000,
            batch: random.chance(0.3)
          })
          clients.push({ client, tokens })
          yield* client.until(({ checker }) => checker.backfills >= tokens.length && checker.ticks > 0)
          if (clients.length > 20) clients.shift()!.client.ws.terminate()
        }
        running.stop()
        for (const { client, tokens } of clients) {
          yield* caughtUp(hub, client, tokens)
          assert.strictEqual(client.checker.evicted, 0)
        }
        assert.isAbove(running.published(), 1000)
      })
    )
  )

  it.live("that breaks off and comes back with since goes on where it was", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve({ hub: { RING_TICKS: 20_000, HUB_TICKS: 1_000_000 } })
        const running = load(hub, 3)
        let checker = (yield* connect(url)).checker
        for (let i = 0; i < 20; i++) {
          const client: TestClient = yield* connect(url, { checker, keep: false })
          const before = checker.ticks
          client.send({ action: "subscribe", tokens: allTokens, since: checker.since(), capacity: 100_000 })
          yield* client.until(({ checker: { ticks } }) => ticks > before + 200)
          client.ws.terminate()
          yield* client.until(({ closed }) => closed !== undefined)
          checker = client.checker
        }
        running.stop()
        assert.strictEqual(checker.unrecovered, 0)
        assert.strictEqual(checker.evicted, 0)
      })
    )
  )

  it.live("that stops reading is told its exact loss when it reads again, and fifty others lose nothing", () =>
    Effect.scoped(
      Effect.gen(function* () {
        let evicted = 0
        const { hub, url } = yield* serve({
          observer: {
            evicted: (n) => {
              evicted += n
            }
          }
        })
        const slow = yield* connect(url, { keep: false })
        slow.send({ action: "subscribe", tokens: [1, 2, 3], capacity: 500 })
        yield* slow.until(({ checker }) => checker.backfills === 3)
        const others: Array<TestClient> = []
        for (let i = 0; i < 50; i++) {
          const client = yield* connect(url, { keep: false })
          client.send({ action: "subscribe", tokens: [1], capacity: 100_000, batch: true })
          yield* client.until(({ checker }) => checker.backfills === 1)
          others.push(client)
        }
        slow.ws.pause()
        const held: Array<number> = []
        const waiting: Array<number> = []
        let position = 0
        let fast = 0
        /** What lives once the fast clients, which are in this process too, have all that is under way to them. */
        const quiet = Effect.gen(function* () {
          for (const client of others) yield* client.until(({ checker }) => checker.place(1)?.position === fast)
          // Buffers of sockets are given back a turn after the collection that finds them.
          heldBytes()
          yield* turns(50)
          return heldBytes()
        })
        // Until the kernel's buffers are full and thousands are evicted, and then as much again.
        while (evicted < 100_000) {
          if (evicted >= 50_000 && held.length === 0) held.push(yield* quiet)
          for (let i = 0; i < 200; i++) {
            position++
            hub.publish([2, 3].map((token) => tickOf(token, EPOCH, position)))
            if (i % 20 === 0) hub.publish([tickOf(1, EPOCH, ++fast)])
          }
          for (const client of others) {
            yield* client.until(({ checker }) => (checker.place(1)?.position ?? 0) > fast - 200)
          }
          if (evicted > 0) {
            waiting.push(hub.fullest.size)
          }
        }
        held.push(yield* quiet)
        for (const client of others) {
          assert.strictEqual(client.checker.evicted, 0)
          assert.strictEqual(client.checker.ticks, fast)
        }
        assert.isAtMost(Math.max(...waiting), 500)
        // Half of all that was evicted came since: kept, it would be far more than this.
        assert.isBelow(held[1]! - held[0]!, 50_000 * 20)

        slow.ws.resume()
        yield* caughtUp(hub, slow, [1, 2, 3])
        assert.strictEqual(slow.checker.evicted + slow.checker.ticks, 2 * position + fast)
        assert.strictEqual(slow.checker.evicted, evicted)
        assert.isAbove(slow.checker.ticks, 500)
      })
    )
  )

  it.live("is answered token by token, by symbol too, and told where the market is simulated", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* serve({
          instruments: [
            instrumentOf(1, "ALPHA", "SIM"),
            instrumentOf(2, "BETA", "NSE"),
            instrumentOf(3, "BETA", "BSE"),
            instrumentOf(4, "GAMMA", "NSE")
          ],
          limits: { MAX_CLIENT_TOKENS: 3 }
        })
        const client = yield* connect(url)
        client.send({ action: "subscribe", symbols: ["NSE:BETA", "BETA", "NOPE", "GAMMA"], id: "a" })
        client.send({ action: "subscribe", tokens: [1, 77, 1], id: { n: 2 } })
        client.send({ action: "ping" })
        yield* client.until(({ messages }) => messages.some((m) => m.type === "pong"))
        assert.deepStrictEqual(
          client.messages.filter((m) => m.type === "subscribed"),
          [
            {
              type: "subscribed",
              id: "a",
              simulated: false,
              tokens: [
                { instrument_token: 2, symbol: "NSE:BETA", accepted: true, known: true },
                { symbol: "BETA", accepted: false, reason: "ambiguous_symbol" },
                { symbol: "NOPE", accepted: false, reason: "unknown_symbol" },
                { instrument_token: 4, symbol: "GAMMA", accepted: true, known: true }
              ]
            },
            {
              type: "subscribed",
              id: { n: 2 },
              simulated: true,
              tokens: [
                { instrument_token: 1, accepted: true, known: true },
                { instrument_token: 77, accepted: false, reason: "too_many_tokens" }
              ]
            }
          ]
        )
        const backfills = client.messages.flatMap((m) => (m.type === "backfill" ? [m.instrument_token] : []))
        assert.deepStrictEqual(backfills, [2, 4, 1])
      })
    )
  )

  it.live("hears what is wrong with a message and stays, a bounded number of times", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve()
        hub.open("r1")
        const client = yield* connect(url)
        client.send({ action: "subscribe", tokens: [1], capacity: 1e9, id: 1 })
        client.send({ action: "subscribe", tokens: [1], replay: "r1", policy: "pause", id: 2 })
        client.send({ action: "subscribe", tokens: [1], channels: ["candles"], id: 3 })
        client.send({ action: "subscribe", tokens: [1], replay: "gone", id: 4 })
        client.send({ action: "auth", key: "k", id: 5 })
        client.ws.send(Buffer.from([1, 2, 3]))
        client.send("{")
        yield* client.until(({ messages }) => messages.length === 7)
        const errors = client.messages.map((m) => (m.type === "error" ? [m.id, m.code, m.message] : [m.type]))
        assert.deepStrictEqual(errors, [
          [1, "bad_message", "capacity: expected at most 100000, got 1000000000"],
          [2, "unsupported", 'policy: a replay keeps nothing to go on from: expected another than "pause"'],
          [
            3,
            "bad_message",
            `channels.0: expected "tick" or "gap" or "quote" or "candle_1m" or "candle_5m" or "state", got "candles"`
          ],
          [4, "unknown_replay", `replay: expected the id of a replay that runs, got "gone"`],
          [5, "no_keys", "auth: no API keys are configured, none is needed"],
          [undefined, "bad_message", "input: expected text, got binary"],
          [undefined, "bad_message", `input: expected JSON, got "{"`]
        ])
        for (let i = 0; i < MAX_STRIKES; i++) client.send("x")
        yield* client.until(({ closed }) => closed !== undefined)
        assert.deepStrictEqual(client.closed, { code: 1008, reason: "too many bad messages" })
      })
    )
  )

  it.live("is closed where it says too much at once, or one thing too large", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve()
        const fast = yield* connect(url)
        // Until it is closed, in one go each time: how long the server takes to read them earns some more.
        let rounds = 0
        for (; fast.closed === undefined && rounds < 20; rounds++) {
          for (let i = 0; i < MESSAGE_BURST * 2; i++) fast.send({ action: "ping" })
          yield* turns(1)
        }
        yield* fast.until(({ closed }) => closed !== undefined)
        assert.deepStrictEqual(fast.closed, { code: 1008, reason: "too many messages" })
        const large = yield* connect(url)
        large.send({ action: "subscribe", symbols: ["x".repeat(MAX_MESSAGE_BYTES)] })
        yield* large.until(({ closed }) => closed !== undefined)
        assert.strictEqual(large.closed!.code, 1009)
        assert.strictEqual(hub.size, 0)
      })
    )
  )

  it.live("that sends nesting without end hears so, wherever it is, and nobody else notices", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve()
        const good = yield* connect(url)
        good.send({ action: "subscribe", tokens: [1] })
        const deep = `${"[".repeat(4500)}${"]".repeat(4500)}`
        const bad = yield* connect(url)
        const frames = [
          deep,
          `{"action":${deep}}`,
          `{"action":"subscribe","tokens":${deep}}`,
          `{"action":"subscribe","tokens":[1],"since":${deep}}`,
          `{"action":"ping","id":${deep}}`
        ]
        for (const frame of frames) bad.send(frame)
        bad.send({ action: "ping", id: 1 })
        yield* bad.until(({ messages }) => messages.length === frames.length + 1)
        assert.deepStrictEqual(
          bad.messages.map((m) => (m.type === "error" ? m.code : m.type)),
          [...frames.map(() => "bad_message"), "pong"]
        )
        yield* good.until(({ checker }) => checker.backfills === 1)
        hub.publish([tickOf(1, EPOCH, 1)])
        yield* good.until(({ checker }) => checker.ticks === 1)
      })
    )
  )

  it.live("that the server breaks for is closed with 1011 and leaves a line, and nobody else notices", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const lines: Array<string> = []
        const ended: Array<string> = []
        const { hub, url } = yield* serve({
          log: new ClientLog((line) => lines.push(line)),
          counts: { ended: (why) => ended.push(why), upgradeRefused: () => undefined, messageRefused: () => undefined },
          instruments: [
            new Proxy(instrumentOf(13, "BROKEN", "NSE"), {
              get: (target, key) => {
                if (key === "exchange") throw new Error("a defect\u001b[2J")
                return Reflect.get(target, key)
              }
            })
          ]
        })
        const good = yield* connect(url)
        good.send({ action: "subscribe", tokens: [1] })
        const bad = yield* connect(url)
        bad.send({ action: "subscribe", tokens: [13] })
        yield* bad.until(({ closed }) => closed !== undefined)
        assert.deepStrictEqual(bad.closed, { code: 1011, reason: "internal error" })
        assert.deepStrictEqual(ended, ["failed"])
        assert.match(lines[0]!, /^client 127\.0\.0\.1 failed: Error: a defect\\u001b\[2J/)
        yield* good.until(({ checker }) => checker.backfills === 1)
        hub.publish([tickOf(1, EPOCH, 1)])
        yield* good.until(({ checker }) => checker.ticks === 1)
      })
    )
  )

  it.live("that is back at once with too many messages, again and again, waits before it is let in anew", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const refusals: Array<string> = []
        const { url } = yield* serve({
          limits: { CONNECTIONS_PER_ADDRESS: 100 },
          now: () => 0,
          counts: {
            ended: () => undefined,
            upgradeRefused: (why) => refusals.push(why),
            messageRefused: () => undefined
          }
        })
        const good = yield* connect(url)
        for (let time = 0; time < 6; time++) {
          const flood = yield* connect(url)
          for (let i = 0; i < 20 * MESSAGE_BURST; i++) flood.ws.ping()
          yield* flood.until(({ closed }) => closed !== undefined)
          assert.strictEqual(flood.closed?.reason, "too many messages")
        }
        const askedAt = performance.now()
        assert.include((yield* Effect.flip(connect(url))).message, "429")
        assert.deepStrictEqual(refusals, ["address_waits"])
        // Not at once, so that asking again and again costs little.
        assert.isAtLeast(performance.now() - askedAt, 900)
        // Whoever is connected already stays, of whatever address.
        good.send({ action: "ping" })
        yield* good.until(({ messages }) => messages.some((m) => m.type === "pong"))
      })
    )
  )

  it.live("that is back at once with bad messages, again and again, waits before it is let in anew", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* serve({ limits: { CONNECTIONS_PER_ADDRESS: 100 }, now: () => 0 })
        for (let time = 0; time < 6; time++) {
          const confused = yield* connect(url)
          for (let i = 0; i < MAX_STRIKES; i++) confused.send("x")
          yield* confused.until(({ closed }) => closed !== undefined)
          assert.strictEqual(confused.closed?.reason, "too many bad messages")
        }
        assert.include((yield* Effect.flip(connect(url))).message, "429")
      })
    )
  )

  it.live("that offers subprotocols is told that none of them is spoken", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port } = yield* serve()
        const client = yield* rawClient(
          port,
          "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
            "Sec-WebSocket-Protocol: graphql-ws, mqtt\r\n\r\n"
        )
        const said = yield* client.until(/\r\n\r\n/)
        assert.match(said, /^HTTP\/1\.1 101 /)
        assert.notInclude(said.toLowerCase(), "sec-websocket-protocol")
      })
    )
  )

  it.live("that is ended, reads nothing and goes on sending is cut off: the library would read on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* serve()
        const flood = yield* connect(url)
        flood.ws.pause()
        const bytes = Buffer.alloc(125, "p")
        const timer = setInterval(() => {
          for (let i = 0; i < 2000 && flood.ws.bufferedAmount < 1_000_000; i++) flood.ws.ping(bytes)
        }, 1)
        yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
        const { _socket: socket } = flood.ws as unknown as { readonly _socket: Socket }
        yield* Effect.callback<void>((resume) => {
          const look = setInterval(() => {
            if (flood.ws.readyState === flood.ws.OPEN) return
            clearInterval(look)
            resume(Effect.void)
          }, 10)
          return Effect.sync(() => clearInterval(look))
        })
        // What both ends hold of a connection, and no more: read on, it would be hundreds of MB.
        assert.isBelow(socket.bytesWritten, 64 * 1024 * 1024)
      })
    )
  )

  it.live("costs nobody behind the same proxy the way in: there one address may have every connection", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* serve({ limits: { CONNECTIONS_PER_ADDRESS: 1000, MAX_CLIENTS: 1000 } })
        for (let time = 0; time < 7; time++) {
          const flood = yield* connect(url)
          for (let i = 0; i < 20 * MESSAGE_BURST; i++) flood.ws.ping()
          yield* flood.until(({ closed }) => closed !== undefined)
        }
        yield* connect(url)
      })
    )
  )

  it.live(
    "that pings without end, or sends too many bytes, is told so and closed, and cut off where it does not read",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const ended: Array<string> = []
          const lines: Array<string> = []
          const { hub, url } = yield* serve({
            log: new ClientLog((line) => lines.push(line)),
            counts: {
              ended: (why) => ended.push(why),
              upgradeRefused: () => undefined,
              messageRefused: () => undefined
            }
          })
          for (const isReading of [true, false]) {
            const pinging = yield* connect(url)
            if (!isReading) pinging.ws.pause()
            const bytes = Buffer.alloc(125)
            for (let i = 0; i < 20 * MESSAGE_BURST; i++) pinging.ws.ping(bytes)
            yield* Effect.promise(async () => {
              while (hub.size > 0) await new Promise<void>((resolve) => setImmediate(resolve))
            })
            pinging.ws.resume()
            yield* pinging.until(({ closed }) => closed !== undefined)
            const told = { code: 1008, reason: "too many messages" }
            assert.deepStrictEqual(pinging.closed, isReading ? told : { code: 1006, reason: "" })
          }
          const large = yield* connect(url)
          for (let i = 0; i < 5; i++) large.send({ action: "auth", key: "x".repeat(MAX_MESSAGE_BYTES - 100) })
          yield* large.until(({ closed }) => closed !== undefined)
          assert.deepStrictEqual(large.closed, { code: 1008, reason: "too many bytes" })
          assert.deepStrictEqual(ended, ["too_many_messages", "too_many_messages", "too_many_bytes"])
          assert.deepStrictEqual(
            lines.filter((line) => line.includes("ended")),
            [
              "client 127.0.0.1 ended: 1008 too many messages",
              "client 127.0.0.1 ended: 1008 too many messages",
              "client 127.0.0.1 ended: 1008 too many bytes"
            ]
          )
        })
      )
  )

  it.live("that the library ends for its frames is counted by what they were", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const ended: Array<string> = []
        const lines: Array<string> = []
        const { url } = yield* serve({
          log: new ClientLog((line) => lines.push(line)),
          counts: { ended: (why) => ended.push(why), upgradeRefused: () => undefined, messageRefused: () => undefined }
        })
        for (const frame of [Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), Buffer.alloc(3 * MAX_MESSAGE_BYTES, "x")]) {
          const client = yield* connect(url, { deflate: false })
          client.ws.send(frame, { binary: false })
          yield* client.until(({ closed }) => closed !== undefined)
        }
        const gone = yield* connect(url)
        gone.ws.close()
        yield* gone.until(({ closed }) => closed !== undefined)
        yield* Effect.promise(async () => {
          while (ended.length < 3) await new Promise<void>((resolve) => setImmediate(resolve))
        })
        assert.deepStrictEqual(ended, ["bad_frames", "too_large", "left"])
        assert.deepStrictEqual(lines, [
          "client 127.0.0.1 ended: Received invalid UTF-8",
          "client 127.0.0.1 ended: Received too big message"
        ])
      })
    )
  )

  it.live("is refused more instruments than it may ask for at a time, and told when it may", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url } = yield* serve({ limits: { MAX_CLIENT_TOKENS: 1000 } })
        const client = yield* connect(url)
        const tokens = Array.from({ length: 1000 }, (_, i) => i + 1)
        for (let i = 0; i < 10; i++) {
          client.send({ action: "subscribe", tokens, id: i })
          client.send({ action: "unsubscribe", tokens, id: i })
        }
        client.send({ action: "ping" })
        yield* client.until(({ messages }) => messages.some((m) => m.type === "pong"))
        const refused = client.messages.flatMap((m) => (m.type === "error" ? [m] : []))
        assert.isAbove(refused.length, 10)
        for (const { code, message } of refused) {
          assert.strictEqual(code, "too_fast")
          assert.match(message, /^tokens: too many instruments were asked for lately; these 1000 can be in \d+ s$/)
        }
        assert.isUndefined(client.closed)
      })
    )
  )

  it.live("that asks again for what it was sent is refused by name, and its stream goes on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve({ limits: { MAX_SUBSCRIPTIONS: 2 } })
        hub.publish(Array.from({ length: 20 }, (_, i) => tickOf(1, EPOCH, i + 1)))
        const client = yield* connect(url)
        client.send({ action: "subscribe", tokens: [1], backfill: 5 })
        client.send({ action: "subscribe", tokens: [1, 2, 3], backfill: 10 })
        client.send({ action: "subscribe", tokens: [1], since: { "1": [EPOCH, 3] } })
        client.send({ action: "subscribe", tokens: [1], since: { "2": [EPOCH, 3] } })
        client.send({ action: "ping" })
        yield* client.until(({ messages }) => messages.some((m) => m.type === "pong"))
        const refused: Answer = { instrument_token: 1, accepted: false, reason: "already_subscribed", at: [EPOCH, 20] }
        const accepted = (token: number): Answer => ({ instrument_token: token, accepted: true, known: false })
        assert.deepStrictEqual(
          client.messages.flatMap((m) => (m.type === "subscribed" ? [m.tokens] : [])),
          [
            [accepted(1)],
            [refused, accepted(2), { instrument_token: 3, accepted: false, reason: "server_full" }],
            [refused],
            [accepted(1)]
          ]
        )
        hub.publish([tickOf(1, EPOCH, 21)])
        yield* client.until(({ checker }) => checker.ticks === 1)
        assert.strictEqual(client.checker.backfilled, 5)
      })
    )
  )

  it.live("that subscribes to 10,000 instruments one by one is served, and unsubscribes likewise", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve()
        const other = yield* connect(url)
        const client = yield* connect(url, { keep: false })
        hub.publish(Array.from({ length: 10_000 }, (_, i) => tickOf(i + 1, EPOCH, 5)))
        for (let token = 1; token <= 10_000; token++) {
          client.send({ action: "subscribe", tokens: [token], backfill: 1, id: `subscription of instrument ${token}` })
        }
        // Whoever asks for little meanwhile is not behind all of that.
        other.send({ action: "subscribe", tokens: [1] })
        yield* other.until(({ checker }) => checker.backfills === 1)
        yield* client.until(({ checker }) => checker.backfills === 10_000)
        assert.strictEqual(client.checker.backfilled, 10_000)
        assert.strictEqual(hub.subscriptions, 10_001)
        const before = client.checker.messages.length
        for (let token = 10_000; token > 9_950; token--) client.send({ action: "unsubscribe", tokens: [token] })
        yield* client.until(({ checker }) => checker.messages.length === before + 50)
        assert.strictEqual(hub.subscriptions, 10_001)
        assert.isUndefined(client.closed)
      })
    )
  )

  it.live("is told what it left and what it still has, by token and by symbol", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve({
          instruments: [instrumentOf(1, "ALPHA", "SIM"), instrumentOf(2, "BETA", "NSE"), instrumentOf(3, "BETA", "BSE")]
        })
        const client = yield* connect(url)
        client.send({ action: "unsubscribe", tokens: [1], id: 0 })
        client.send({ action: "subscribe", tokens: [1, 2, 4, 5], id: 1 })
        client.send({ action: "unsubscribe", symbols: ["ALPHA", "BETA", "NOPE", "BSE:BETA", "ALPHA"], id: { n: 2 } })
        yield* client.until(({ checker }) => checker.messages.length === 3)
        hub.publish([tickOf(1, EPOCH, 1), tickOf(2, EPOCH, 1)])
        client.send({ action: "unsubscribe", tokens: [5, 77, 5] })
        yield* client.until(({ checker }) => checker.messages.length === 4)
        hub.publish([tickOf(1, EPOCH, 2), tickOf(2, EPOCH, 2), tickOf(5, EPOCH, 1)])
        yield* client.until(({ checker }) => checker.place(2)?.position === 2)
        assert.deepStrictEqual(
          client.messages.filter(({ type }) => type === "unsubscribed"),
          [
            { type: "unsubscribed", id: 0, tokens: [{ instrument_token: 1, removed: false }], held: [] },
            {
              type: "unsubscribed",
              id: { n: 2 },
              tokens: [
                { instrument_token: 1, symbol: "ALPHA", removed: true },
                { symbol: "BETA", removed: false },
                { symbol: "NOPE", removed: false },
                { instrument_token: 3, symbol: "BSE:BETA", removed: false },
                { instrument_token: 1, symbol: "ALPHA", removed: false }
              ],
              held: [2, 4, 5]
            },
            {
              type: "unsubscribed",
              tokens: [
                { instrument_token: 5, removed: true },
                { instrument_token: 77, removed: false },
                { instrument_token: 5, removed: false }
              ],
              held: [2, 4]
            }
          ]
        )
        assert.deepStrictEqual(
          client.messages.flatMap((m) => (m.type === "tick" ? [[m.instrument_token, m.position]] : [])),
          [
            [2, 1],
            [2, 2]
          ]
        )
      })
    )
  )

  it.live("is one of a bounded number of its address, and not let in without the handshake of RFC 6455", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const refusals: Array<string> = []
        const lines: Array<string> = []
        const { hub, url, port } = yield* serve({
          limits: { CONNECTIONS_PER_ADDRESS: 2 },
          log: new ClientLog((line) => lines.push(line)),
          counts: {
            ended: () => undefined,
            upgradeRefused: (why) => refusals.push(why),
            messageRefused: () => undefined
          }
        })
        const first = yield* connect(url)
        yield* connect(url)
        assert.include((yield* Effect.flip(connect(url))).message, "429")
        first.ws.close()
        yield* first.until(({ closed }) => closed !== undefined)
        yield* Effect.promise(async () => {
          while (hub.size > 1) await new Promise<void>((resolve) => setImmediate(resolve))
        })
        yield* connect(url)
        assert.deepStrictEqual(lines, ["client 127.0.0.1 refused: 2 clients of 127.0.0.1 are connected already"])

        const key = "dGhlIHNhbXBsZSBub25jZQ=="
        const whole = {
          upgrade: "websocket",
          connection: "Upgrade",
          "sec-websocket-version": "13",
          "sec-websocket-key": key
        }
        const cases: ReadonlyArray<readonly [number, Record<string, string>]> = [
          [426, { ...whole, "sec-websocket-version": "8" }],
          [426, { "sec-websocket-key": key, "sec-websocket-version": "13" }],
          [426, {}],
          [400, { ...whole, "sec-websocket-key": "????????????????????????" }],
          [400, { ...whole, "sec-websocket-key": "short" }],
          [429, whole]
        ]
        for (const [status, headers] of cases) {
          assert.strictEqual(yield* statusOf(port, headers), status, JSON.stringify(headers))
        }
        assert.deepStrictEqual(refusals, [
          "address_full",
          "handshake",
          "handshake",
          "handshake",
          "handshake",
          "handshake",
          "address_full"
        ])
      })
    )
  )

  it.live("is bound to one stream, and hears a replay's clock and ticks in their order", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url } = yield* serve()
        const replay = hub.open("r1")
        replay.clock(1, null, "paused")
        const client = yield* connect(url)
        client.send({ action: "subscribe", tokens: [1, 2], replay: "r1" })
        yield* client.until(({ messages }) => messages.some((m) => m.type === "clock"))
        assert.strictEqual(hub.clients("r1"), 1)
        hub.publish([tickOf(1, EPOCH, 1)])
        replay.publish([tickOf(2, EPOCH, 1), tickOf(1, EPOCH, 1)])
        replay.clock(1, EPOCH, "ended")
        hub.close("r1")
        client.send({ action: "subscribe", tokens: [1], id: 9 })
        yield* client.until(({ messages }) => messages.some((m) => m.type === "error"))
        assert.deepStrictEqual(
          client.messages.map((m) =>
            m.type === "tick" ? m.instrument_token : m.type === "clock" ? m.state : m.type === "error" ? m.code : m.type
          ),
          ["subscribed", "backfill", "backfill", "paused", 2, 1, "ended", "other_stream"]
        )
      })
    )
  )

  it.live(
    "is let in once the server has read what was published before its start: it must not know less than a client",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          let isReady = false
          const { url } = yield* serve({ isReady: () => isReady })
          assert.include((yield* Effect.flip(connect(url))).message, "503")
          isReady = true
          yield* connect(url)
        })
      )
  )

  it.live("is let in only from its own page, while there is room, and until the server stops", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { hub, url, port, stop } = yield* serve({ limits: { MAX_CLIENTS: 2 } })
        const refused = (headers?: Record<string, string>) =>
          Effect.flip(connect(url, headers === undefined ? {} : { headers })).pipe(Effect.map((e) => e.message))
        assert.include(yield* refused({ origin: "http://evil.example" }), "403")
        assert.include(yield* refused({ host: "evil.example" }), "403")
        const own = yield* connect(url, { headers: { origin: `http://127.0.0.1:${port}` } })
        const other = yield* connect(url)
        assert.include(yield* refused(), "503")
        other.ws.close()
        yield* other.until(({ closed }) => closed !== undefined)
        yield* Effect.promise(async () => {
          while (hub.size > 1) await new Promise<void>((resolve) => setImmediate(resolve))
        })
        yield* connect(url)
        stop()
        yield* own.until(({ closed }) => closed !== undefined)
        assert.deepStrictEqual(own.closed, { code: 1001, reason: "the server is stopping" })
        assert.include(yield* refused(), "503")
      })
    )
  )
})
