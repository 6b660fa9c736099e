import { assert, describe, it } from "@effect/vitest"
import WebSocket from "ws"
import { BufferFull, ClientClosed, Unsupported } from "../../src/client/errors.ts"
import type { SocketConstructor, StreamingOptions } from "../../src/client/index.ts"
import { backfill, client, failureOf, frame, take } from "../support/clients.ts"
import { EPOCH } from "../support/hub.ts"
import { scripted } from "../support/scriptedServer.ts"

const NodeWebSocket = WebSocket as unknown as SocketConstructor

const listening = async (options: StreamingOptions = {}, connection: Parameters<typeof client>[1] = {}) => {
  const server = await scripted()
  const { client: c, events } = client(server.url, connection)
  const stream = c.ticks([1, 2], options)
  const peer = await server.peer()
  await peer.accept()
  peer.say(backfill(1, 1, 0), backfill(2, 1, 0))
  await stream.accepted
  return { server, c, events, stream, peer }
}
/** Waits until the client has had so many ticks. */
const heard = async ({ c, events }: Pick<Awaited<ReturnType<typeof listening>>, "c" | "events">, count: number) => {
  while (events.tick.length < count) await c.once("tick")
}

describe("a stream of ticks", () => {
  it("is a loop, and leaving the loop unsubscribes", async () => {
    const { stream, peer } = await listening()
    peer.say(frame(1, 1), frame(2, 1), frame(1, 2))
    const seen: Array<string> = []
    for await (const tick of stream) {
      seen.push(`${tick.instrument_token}/${tick.position}`)
      if (seen.length === 3) break
    }
    assert.deepStrictEqual(seen, ["1/1", "2/1", "1/2"])
    assert.deepStrictEqual((await peer.next("unsubscribe")).tokens, [1, 2])
    assert.isTrue((await stream.next()).done)
  })

  it("knows the place of what the application has taken, not of what waits", async () => {
    const all = await listening()
    const { stream, peer } = all
    assert.deepStrictEqual(stream.places(), {})
    peer.say(frame(1, 1), frame(1, 2), frame(1, 3))
    await heard(all, 3)
    assert.strictEqual(stream.waiting, 3)
    await take(stream, 2)
    assert.deepStrictEqual(stream.places(), { 1: [EPOCH, 2] })
  })

  it("lets the oldest go where the application is slow, and tells which when it gets there", async () => {
    const all = await listening({ bufferSize: 2 })
    const { stream, peer, events } = all
    peer.say(frame(1, 1), frame(1, 2), frame(2, 1), frame(1, 3), frame(1, 4))
    await heard(all, 5)
    assert.strictEqual(stream.evicted, 3)
    assert.strictEqual(stream.waiting, 2)
    assert.isEmpty(events.missed)
    assert.deepStrictEqual(
      (await take(stream, 2)).map(({ position }) => position),
      [3, 4]
    )
    assert.deepStrictEqual(
      events.missed.map(({ instrument_token, from, to, reason }) => [instrument_token, from, to, reason]),
      [
        [1, 1, 2, "buffer"],
        [2, 1, 1, "buffer"]
      ]
    )
    assert.strictEqual(stream.missed, 3)
    // Other streams of the client lose nothing by it.
    assert.lengthOf(events.tick, 5)
  })

  it("fails where the application is slow and asked for that", async () => {
    const all = await listening({ bufferSize: 2, whenFull: "error" })
    const { stream, peer } = all
    peer.say(frame(1, 1), frame(1, 2), frame(1, 3))
    await heard(all, 3)
    const error = await failureOf(stream.next())
    assert.instanceOf(error, BufferFull)
    assert.strictEqual((error as BufferFull).bufferSize, 2)
    assert.deepStrictEqual((await peer.next("unsubscribe")).tokens, [1, 2])
  })

  it("leaves the socket unread where the application is slow and the runtime can, and loses nothing", async () => {
    const all = await listening({ bufferSize: 10, whenFull: "pause" }, { WebSocket: NodeWebSocket })
    const { stream, peer, events } = all
    const total = 300_000
    for (let position = 1; position <= total; position++) peer.say(frame(1, position))
    await heard(all, 10)
    // Until nothing comes any more, though most of it is yet to come: the server sees a slow client.
    for (let before = -1; before !== events.tick.length; ) {
      before = events.tick.length
      for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve))
    }
    assert.isBelow(events.tick.length, total / 2)
    assert.isAbove(peer.ws.bufferedAmount, 0)
    let position = 0
    for await (const tick of stream) {
      assert.strictEqual(tick.position, ++position)
      if (position === total) break
    }
    assert.strictEqual(stream.evicted, 0)
  })

  it("cannot leave the socket unread where the runtime cannot, and says so", async () => {
    const { client: c } = client("http://127.0.0.1:1")
    assert.throws(() => c.ticks(1, { whenFull: "pause" }), Unsupported, "whenFull")
    assert.strictEqual(c.state, "idle")
  })

  it("ends with the reason of its signal, at once", async () => {
    const stop = new AbortController()
    const all = await listening({ signal: stop.signal })
    const { stream, peer } = all
    const reason = new Error("enough")
    const next = failureOf(stream.next())
    stop.abort(reason)
    assert.strictEqual(await next, reason)
    assert.deepStrictEqual((await peer.next("unsubscribe")).tokens, [1, 2])
    const aborted = all.c.ticks(1, { signal: AbortSignal.abort(reason) })
    assert.strictEqual(await failureOf(aborted.next()), reason)
    assert.deepStrictEqual(await aborted.accepted, [])
  })

  it("gives what waits before it tells that the connection cannot be had any more", async () => {
    const all = await listening({}, { reconnect: { minMs: 1, maxMs: 1, forMs: 0 } })
    const { stream, peer, c } = all
    peer.say(frame(1, 1), frame(1, 2))
    await heard(all, 2)
    peer.ws.terminate()
    await c.once("closed")
    await take(stream, 2)
    assert.strictEqual(((await failureOf(stream.next())) as { _tag: string })._tag, "ConnectionFailed")
    assert.isTrue((await stream.next()).done)
  })

  it("ends where the client is closed, and so does whoever waits", async () => {
    const { stream, c, peer, events } = await listening()
    const waiting = stream.next()
    c.close()
    assert.isTrue((await waiting).done)
    assert.strictEqual(await peer.closed, 1000)
    assert.deepStrictEqual(events.closed, [{}])
    assert.instanceOf(await failureOf(c.ticks(1).next()), ClientClosed)
    assert.instanceOf(await failureOf(c.calendar("NSE", "2026-01-15")), ClientClosed)
  })

  it("serves several who wait, in order", async () => {
    const { stream, peer } = await listening()
    const both = Promise.all([stream.next(), stream.next()])
    peer.say(frame(1, 1), frame(1, 2))
    assert.deepStrictEqual(
      (await both).map(({ value }) => value?.position),
      [1, 2]
    )
  })
})

describe("events", () => {
  it("come without a stream, and know where each instrument stands", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const subscription = c.subscribe("NSE:A")
    const positions: Array<number> = []
    const off = c.on("tick", (tick) => positions.push(tick.position))
    const peer = await server.peer()
    assert.deepStrictEqual((await peer.accept({ "NSE:A": 11 })).channels, ["tick", "gap"])
    peer.say(backfill(11, 1, 2), frame(11, 3))
    while (positions.length < 3) await c.once("tick")
    assert.deepStrictEqual(subscription.places(), { 11: [EPOCH, 3] })
    off()
    peer.say(frame(11, 4))
    await c.once("tick")
    assert.deepStrictEqual(positions, [1, 2, 3])
    subscription.close()
    await peer.next("unsubscribe")
  })

  it("reach every listener though one throws, whose error is as any uncaught one", async () => {
    const { c, peer } = await listening()
    const uncaught = process.listeners("uncaughtException")
    process.removeAllListeners("uncaughtException")
    try {
      const thrown = new Promise((resolve) => process.once("uncaughtException", resolve))
      c.on("tick", () => {
        throw new Error("of the application")
      })
      const second = c.once("tick")
      peer.say(frame(1, 1))
      assert.strictEqual((await second).position, 1)
      assert.strictEqual(((await thrown) as Error).message, "of the application")
    } finally {
      for (const listener of uncaught) process.on("uncaughtException", listener)
    }
  })

  it("of errors are written where nobody listens", async () => {
    const server = await scripted()
    const { connect } = await import("../../src/client/index.ts")
    const c = connect({ url: server.url })
    const written: Array<unknown> = []
    const { error } = console
    console.error = (...what: ReadonlyArray<unknown>) => written.push(what)
    try {
      c.ticks(1)
      const peer = await server.peer()
      await peer.accept()
      peer.say({ type: "error", code: "other", message: "something" })
      await c.once("message")
      while (written.length === 0) await c.once("message")
    } finally {
      console.error = error
      c.close()
    }
    assert.match(String((written[0] as ReadonlyArray<unknown>)[1]), /MessageRefused: other: something/)
  })

  it("are waited for as long as a signal lets", async () => {
    const { client: c } = client("http://127.0.0.1:1")
    const reason = new Error("enough")
    const stop = new AbortController()
    const waiting = failureOf(c.once("tick", { signal: stop.signal }))
    stop.abort(reason)
    assert.strictEqual(await waiting, reason)
  })
})

describe("what an application asks for", () => {
  it("is looked through before the server sees it, and refused by name", () => {
    const { client: c } = client("http://127.0.0.1:1")
    const refusals: ReadonlyArray<readonly [() => unknown, RegExp]> = [
      [() => c.ticks([]), /^instruments: expected at least one/],
      [() => c.ticks(""), /^instruments: expected symbols such as NSE:INFY, or tokens .*got ""/],
      [() => c.ticks(0), /got 0$/],
      [() => c.ticks(1.5), /got 1.5$/],
      [() => c.ticks("x".repeat(65)), /^instruments/],
      [() => c.ticks(1, { backfill: -1 }), /^backfill: expected a whole number from 0 to 100000, got -1/],
      [() => c.ticks(1, { since: { a: [1, 2] } }), /^since.a/],
      [() => c.ticks(1, { since: { 1: [1] as unknown as [number, number] } }), /^since.1/],
      [() => c.ticks(1, { bufferSize: 0 }), /^bufferSize/],
      [() => c.ticks(1, { whenFull: "block" as "error" }), /^whenFull: expected one of evict-oldest, error, pause/],
      [() => c.candles(1, "1h" as "1m"), /^interval: expected "1m" or "5m"/],
      [() => c.messages(1, { channels: [] }), /^channels/],
      [() => c.messages(1, { channels: ["ticks" as "tick"] }), /^channels: .*got "ticks"/],
      [() => c.messages(1, { channels: ["state"], backfill: 1 }), /^backfill: goes with the channel tick/],
      [
        () => c.ticks("NSE:A", { since: Object.fromEntries(Array.from({ length: 2001 }, (_, i) => [i + 1, [1, 1]])) }),
        /^since: expected at most 2000 places with symbols/
      ],
      [() => client("ftp://h"), /^url: expected http, https, ws or wss, got "ftp:\/\/h"/],
      [() => client("localhost"), /^url: expected the server's address/]
    ]
    for (const [ask, message] of refusals) assert.throws(ask, Unsupported, message)
    assert.strictEqual(c.state, "idle")
  })

  it("is found behind any address of the server's", () => {
    const of = (url: string) => client(url).client.url
    assert.strictEqual(of("http://h:8080"), "ws://h:8080/ws")
    assert.strictEqual(of("https://h/"), "wss://h/ws")
    assert.strictEqual(of("ws://h:8080/ws"), "ws://h:8080/ws")
    assert.strictEqual(of("wss://h/market/ws"), "wss://h/market/ws")
    assert.strictEqual(of("https://h/market/"), "wss://h/market/ws")
  })
})
