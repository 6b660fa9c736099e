import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { BYTE_BURST, MAX_STRIKES, MESSAGE_BURST } from "../../src/http/session.ts"
import { MESSAGES, Shares } from "../../src/http/shares.ts"
import { Hub } from "../../src/streams/fanOut/Hub.ts"
import { EPOCH, hubSettings, NOW, tickOf } from "../support/hub.ts"
import { Conversation } from "../support/session.ts"

const make = () => {
  const hub = new Hub({ settings: hubSettings, now: () => NOW, graceMs: 0 })
  hub.publish(Array.from({ length: 2000 }, (_, i) => tickOf(i + 1, EPOCH, 5)))
  return hub
}

const one = (token: number) => ({ action: "subscribe", tokens: [token] })
const TOO_MANY = { code: 1008, reason: "too many messages" }

/** Sends until the client is ended, so many at most; answers how many it took. */
const until = (peer: Conversation, most: number, message: (n: number) => object): number => {
  for (let n = 0; n < most; n++) {
    if (peer.socket.ended !== undefined) return n
    peer.send(message(n))
  }
  return peer.socket.ended === undefined ? Number.POSITIVE_INFINITY : most
}

afterEach(() => {
  vi.useRealTimers()
})

describe("what a client says", () => {
  it("counts by what it makes the server do: subscribing one by one is no flood, pings and what is refused are", () => {
    const hub = make()
    const floods: ReadonlyArray<(n: number) => object> = [
      () => ({ action: "ping" }),
      () => ({ action: "auth", key: "k" }),
      () => ({ action: "subscribe", tokens: [1], replay: "gone" })
    ]
    for (const flood of floods) {
      const peer = new Conversation(hub)
      const taken = until(peer, 10 * MESSAGE_BURST, flood)
      assert.deepStrictEqual(peer.socket.ended, TOO_MANY, JSON.stringify(flood(0)))
      assert.isBelow(taken, 2 * MESSAGE_BURST)
    }
    const broken = new Conversation(hub)
    assert.strictEqual(
      until(broken, 1000, () => ({ action: "subscrib" })),
      MAX_STRIKES
    )

    const peer = new Conversation(hub)
    assert.strictEqual(
      until(peer, 2000, (n) => one(n + 1)),
      Number.POSITIVE_INFINITY
    )
    assert.strictEqual(peer.client.tokens, 2000)
    assert.strictEqual(peer.all("backfill").length, 2000)
    // Both at once: each counts for itself.
    assert.strictEqual(
      until(peer, MESSAGE_BURST / 2, () => ({ action: "ping" })),
      Number.POSITIVE_INFINITY
    )
    assert.strictEqual(
      until(peer, 500, (n) => ({ action: "unsubscribe", tokens: [n + 1] })),
      Number.POSITIVE_INFINITY
    )
    assert.strictEqual(peer.client.tokens, 1500)
  })

  it("is closed where long lists of since come again and again", () => {
    const hub = make()
    const peer = new Conversation(hub)
    const tokens = Array.from({ length: 2000 }, (_, i) => i + 1)
    const since = Object.fromEntries(tokens.map((token) => [token, [EPOCH, 4]]))
    const taken = until(peer, 1000, () => ({ action: "subscribe", tokens, since }))
    assert.strictEqual(peer.socket.ended?.code, 1008)
    assert.isBelow(taken, (2 * BYTE_BURST) / JSON.stringify(since).length)
  })

  it("waits where the client is ahead of its allowance, in order, and is not closed for it", async () => {
    // The allowance fills with time: a slow machine would fill it while this is sent.
    vi.useFakeTimers({ toFake: ["performance", "setTimeout", "clearTimeout"] })
    const hub = make()
    const peer = new Conversation(hub, { settings: { MAX_CLIENT_TOKENS: 1000 } })
    // As much at once as subscribing one by one to all, and then as fast as the allowance fills.
    for (let n = 0; n < 1020; n++) {
      peer.send({ action: "subscribe", tokens: [1] })
      if (n % 100 === 99) peer.send({ action: "ping" })
    }
    assert.isUndefined(peer.socket.ended)
    assert.isBelow(peer.all("subscribed").length, 1020)
    await vi.advanceTimersByTimeAsync(10_000)
    assert.strictEqual(peer.all("subscribed").length, 1020)
    assert.isUndefined(peer.socket.ended)
    assert.strictEqual(peer.all("pong").length, 10)
    assert.deepStrictEqual(peer.refused, [])
  })

  it("waits where the client does not read what it is answered, and is closed where it goes on and on", async () => {
    const hub = make()
    const peer = new Conversation(hub, { fast: false })
    // Each answer says what is held: some ten thousand bytes.
    peer.send({ action: "subscribe", tokens: Array.from({ length: 2000 }, (_, i) => i + 1) })
    for (let n = 0; n < 1000; n++) peer.send({ action: "unsubscribe", tokens: [1] })
    assert.isBelow(peer.said.length, 200)
    assert.isBelow(hub.held.bytes, 2_000_000)
    const before = peer.said.length
    for (let i = 0; i < 200; i++) {
      peer.read(1e9)
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    assert.isAbove(peer.said.length, before)
    peer.socket.waiting = 1e6
    const taken = until(peer, 100_000, () => ({ action: "unsubscribe", tokens: [1] }))
    assert.deepStrictEqual(peer.socket.ended, TOO_MANY)
    assert.isAbove(taken, 15_000)
    hub.disconnect(peer.client)
    assert.deepStrictEqual(hub.held, { ticks: 0, bytes: 0 })
  })

  it("is let go of at once where its connection is gone, also while it waits", async () => {
    const hub = make()
    const peer = new Conversation(hub, { settings: { MAX_CLIENT_TOKENS: 1000 } })
    for (let n = 0; n < 1500; n++) peer.send(one(1))
    assert.isAbove(hub.held.bytes, 0)
    peer.session.close()
    assert.deepStrictEqual(hub.held, { ticks: 0, bytes: 0 })
    const said = peer.said.length
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.strictEqual(peer.said.length, said)
  })

  it("is answered in few writes where much is asked at once, and at once where little is", () => {
    const hub = make()
    let time = 0
    const later: Array<() => void> = []
    // A clock on which every look takes a while: the work is done in slices.
    const shares = new Shares(
      MESSAGES,
      () => (time += 0.1),
      (run) => later.push(run)
    )
    const peer = new Conversation(hub, { shares })
    peer.send(one(1))
    assert.strictEqual(peer.all("backfill").length, 1)
    const before = peer.socket.corks
    for (let n = 0; n < 1000; n++) peer.send(one(1 + (n % 2000)))
    while (later.length > 0) {
      time += 100
      later.shift()!()
    }
    assert.strictEqual(peer.all("subscribed").length, 1001)
    assert.isBelow(peer.socket.corks - before, 200)
  })
})
