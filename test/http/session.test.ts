import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { BYTE_BURST, MAX_STRIKES, MESSAGE_BURST } from "../../src/http/session.ts"
import { MESSAGES, Shares } from "../../src/http/shares.ts"
import { LiveKey } from "../../src/layers/keys/ApiKeys.ts"
import { meaningsOf } from "../../src/schema/Meaning.ts"
import { Hub } from "../../src/streams/fanOut/Hub.ts"
import { EPOCH, hubSettings, NOW, quoteAt, tickOf } from "../support/hub.ts"
import { instrumentOf } from "../support/instruments.ts"
import { makeKey } from "../support/keys.ts"
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

/** What takes so long that everybody else has a turn after each step. */
const crowded = () => {
  let time = 0
  const runs: Array<() => void> = []
  const shares = new Shares(
    MESSAGES,
    () => time,
    (run) => {
      runs.push(run)
    }
  )
  shares.add({
    step: () => {
      time += 1000
      return false
    }
  })
  return {
    shares,
    spend: () => {
      time += 1000
    },
    settle: () => {
      while (runs.length > 0) {
        time += 1000
        for (const run of runs.splice(0)) run()
      }
    }
  }
}
const tokensTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1)

describe("what clients ask for in one moment", () => {
  it("is no more than MAX_SUBSCRIPTIONS, however they take turns", () => {
    const hub = new Hub({ settings: { ...hubSettings, MAX_SUBSCRIPTIONS: 200 }, now: () => NOW, graceMs: 0 })
    const { shares, settle } = crowded()
    const peers = Array.from(
      { length: 10 },
      () => new Conversation(hub, { shares, settings: { MAX_SUBSCRIPTIONS: 200 } })
    )
    for (const peer of peers) peer.send({ action: "subscribe", tokens: tokensTo(200) })
    settle()
    assert.deepStrictEqual([hub.subscriptions, hub.granted], [200, 0])
    const accepted = peers
      .flatMap((peer) => peer.all("subscribed").flatMap(({ tokens }) => tokens))
      .filter((one) => one.accepted)
    assert.lengthOf(accepted, 200)
  })

  it("gives back what it was granted where it goes in the midst", () => {
    const hub = new Hub({ settings: hubSettings, now: () => NOW, graceMs: 0 })
    const { shares, settle } = crowded()
    const peer = new Conversation(hub, { shares })
    peer.send({ action: "subscribe", tokens: tokensTo(1000) })
    peer.session.close()
    settle()
    assert.deepStrictEqual([hub.subscriptions, hub.granted], [0, 0])
  })

  it("of a replay that ends meanwhile leaves nothing behind", () => {
    const hub = new Hub({ settings: hubSettings, now: () => NOW, graceMs: 0 })
    hub.open("r")
    const { shares, spend, settle } = crowded()
    const peer = new Conversation(hub, { shares })
    peer.send({ action: "subscribe", tokens: tokensTo(1000), replay: "r" })
    const { session } = peer
    const { step } = session
    let steps = 0
    Object.assign(session, {
      step: () => {
        spend()
        if (++steps === 6) hub.close("r")
        return step()
      }
    })
    settle()
    assert.isAtLeast(steps, 6)
    assert.deepStrictEqual([hub.subscriptions, hub.granted], [0, 0])
  })
})

describe("a key for some instruments", () => {
  it("is told nothing of others by their symbols", () => {
    const hub = new Hub({ settings: hubSettings, now: () => NOW, graceMs: 0 })
    const key = new LiveKey(makeKey("bot", { instruments: ["NSE:INFY"] }).stored, "1")
    const instruments = [instrumentOf(1, "INFY", "NSE"), instrumentOf(2, "INFY", "BSE"), instrumentOf(9, "TCS", "NSE")]
    const peer = new Conversation(hub, { key, instruments })
    peer.send({ action: "subscribe", symbols: ["INFY", "TCS", "NOSUCH"] })
    assert.deepStrictEqual(peer.all("subscribed")[0]!.tokens, [
      { instrument_token: 1, symbol: "INFY", accepted: true, known: true },
      { symbol: "TCS", accepted: false, reason: "forbidden" },
      { symbol: "NOSUCH", accepted: false, reason: "forbidden" }
    ])
    peer.send({ action: "unsubscribe", symbols: ["TCS", "NOSUCH", "INFY"] })
    assert.deepStrictEqual(peer.all("unsubscribed")[0]!.tokens, [
      { symbol: "TCS", removed: false },
      { symbol: "NOSUCH", removed: false },
      { instrument_token: 1, symbol: "INFY", removed: true }
    ])
  })
})

describe("quotes", () => {
  it("of instruments that a key is not for are not told, neither those there are nor those that come", () => {
    const hub = new Hub({ settings: hubSettings, now: () => NOW, graceMs: 0 })
    const key = new LiveKey(makeKey("bot", { instruments: ["NSE:INFY"] }).stored, "1")
    const instruments = [instrumentOf(1, "INFY", "NSE"), instrumentOf(9, "TCS", "NSE")]
    const tell = (offset: number) =>
      hub.publish([], NOW, undefined, [quoteAt(1, NOW + offset, offset), quoteAt(9, NOW + offset, offset)])
    tell(1)
    const peer = new Conversation(hub, { key, instruments })
    peer.send({ action: "subscribe", tokens: [1, 9], channels: ["quote"] })
    tell(2)
    assert.deepStrictEqual(
      peer.all("quote").map(({ exchange_ts, instrument_token }) => [instrument_token, exchange_ts - NOW]),
      [
        [1, 1],
        [1, 2]
      ]
    )
  })
})

describe("symbols on a replay", () => {
  it("are what they were on its day, and those of the market are today's", () => {
    const hub = new Hub({ settings: hubSettings, now: () => NOW, graceMs: 0 })
    hub.open("r", 20_300)
    const meanings = meaningsOf([
      { instrument: instrumentOf(7, "OLD"), first: 20_300 },
      { instrument: instrumentOf(7, "NEW"), first: 20_600 }
    ])
    const answers = (replay?: string) => {
      const peer = new Conversation(hub, { meanings })
      peer.send({ action: "subscribe", symbols: ["OLD", "NEW"], ...(replay === undefined ? {} : { replay }) })
      peer.send({ action: "unsubscribe", symbols: ["OLD"] })
      return [peer.all("subscribed")[0]!.tokens, peer.all("unsubscribed")[0]!.tokens]
    }
    assert.deepStrictEqual(answers("r"), [
      [
        { instrument_token: 7, symbol: "OLD", accepted: true, known: true },
        { symbol: "NEW", accepted: false, reason: "unknown_symbol" }
      ],
      [{ instrument_token: 7, symbol: "OLD", removed: true }]
    ])
    assert.deepStrictEqual(answers(), [
      [
        { symbol: "OLD", accepted: false, reason: "unknown_symbol" },
        { instrument_token: 7, symbol: "NEW", accepted: true, known: true }
      ],
      [{ symbol: "OLD", removed: false }]
    ])
  })
})

describe("a client that left the policy pause", () => {
  it("is not ended for having paused, unless it asks for that again", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "Date"] })
    const settings = { ...hubSettings, CLIENT_BUFFER_BYTES: 2000, CLIENT_PAUSE_MS: 10_000 }
    const hub = new Hub({ settings, now: () => NOW, graceMs: 0 })
    hub.publish([tickOf(1, EPOCH, 1)])
    const peer = new Conversation(hub, { fast: false })
    peer.send({ action: "subscribe", tokens: [1], policy: "pause", capacity: 10 })
    peer.read(1e9)
    for (let i = 2; i < 200; i++) hub.publish([tickOf(1, EPOCH, i)])
    peer.send({ action: "subscribe", tokens: [1], policy: "evict-oldest" })
    vi.advanceTimersByTime(20_000)
    const endedAs = () => peer.socket.ended?.code
    assert.isUndefined(endedAs())
    peer.send({ action: "subscribe", tokens: [1], policy: "pause" })
    vi.advanceTimersByTime(20_000)
    assert.strictEqual(endedAs(), 4001)
  })
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
