import { assert, describe, it } from "@effect/vitest"
import { MessageRefused, RuleViolated, SubscriptionRefused } from "../../src/client/errors.ts"
import type { Message } from "../../src/client/messages.ts"
import { backfill, client, evicted, failureOf, frame, take } from "../support/clients.ts"
import { EPOCH } from "../support/hub.ts"
import { type Peer, scripted } from "../support/scriptedServer.ts"

const places = (messages: ReadonlyArray<Message>) =>
  messages.map((message) => (message.type === "tick" ? message.position : message))
const missed = (from: number, to: number, reason: "slow" | "gone", token = 1) => ({
  type: "missed" as const,
  instrument_token: token,
  epoch: EPOCH,
  from,
  to,
  count: to - from + 1,
  reason
})
const refused = (peer: Peer, id: unknown, instrument_token: number, reason: string) =>
  peer.say({ type: "subscribed", id, simulated: false, tokens: [{ instrument_token, accepted: false, reason }] })

describe("what a client subscribes", () => {
  it("goes in one message for what is asked in one turn, with the options of the connection", async () => {
    const server = await scripted()
    const { client: c } = client(server.url, { policy: "conflate", capacity: 500, batch: false })
    const [a, b] = [c.ticks(["NSE:A", "NSE:B"]), c.ticks([1, 2])]
    c.subscribe("NSE:C", { channels: ["tick"] })
    const peer = await server.peer()
    const byToken = await peer.accept()
    const bySymbol = await peer.accept({ "NSE:A": 11, "NSE:B": 12, "NSE:C": 13 })
    const common = { action: "subscribe", channels: ["tick"], batch: false, policy: "conflate", capacity: 500 }
    assert.deepStrictEqual({ ...byToken, id: 0 }, { ...common, tokens: [1, 2], id: 0 })
    assert.deepStrictEqual({ ...bySymbol, id: 0 }, { ...common, symbols: ["NSE:A", "NSE:B", "NSE:C"], id: 0 })
    assert.deepStrictEqual(
      (await a.accepted).map((answer) => answer.instrument_token),
      [11, 12]
    )
    assert.lengthOf(await b.accepted, 2)
  })

  it("is cut into messages that a server takes, each with the places of its own instruments", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const tokens = Array.from({ length: 4_500 }, (_, i) => i + 1)
    const since = Object.fromEntries(tokens.map((token) => [token, [EPOCH, token] as const]))
    c.ticks(tokens, { since })
    const peer = await server.peer()
    const sent = [await peer.accept(), await peer.accept(), await peer.accept()]
    assert.deepStrictEqual(
      sent.map((message) => message.tokens!.length),
      [2_000, 2_000, 500]
    )
    for (const message of sent) {
      assert.deepStrictEqual(Object.keys(message.since!).map(Number), [...message.tokens!])
    }
    assert.deepStrictEqual(
      sent.flatMap((message) => message.tokens!),
      tokens
    )
  })

  it("is cut likewise where it has no places, by token, by symbol and when it is left", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const names = Array.from({ length: 2_500 }, (_, i) => i + 1)
    const symbols = names.map((n) => `NSE:${n}`)
    const streams = [c.ticks(names), c.ticks(symbols)]
    const peer = await server.peer()
    const tokens = Object.fromEntries(names.map((n) => [`NSE:${n}`, 10_000 + n]))
    const sent = [await peer.accept(), await peer.accept(), await peer.accept(tokens), await peer.accept(tokens)]
    assert.deepStrictEqual(
      sent.map((message) => (message.tokens ?? message.symbols)!.length),
      [2_000, 500, 2_000, 500]
    )
    for (const stream of streams) assert.lengthOf(await stream.accepted, 2_500)
    for (const stream of streams) stream.close()
    const left = [await peer.next("unsubscribe"), await peer.next("unsubscribe"), await peer.next("unsubscribe")]
    assert.deepStrictEqual(
      left.map((message) => message.tokens!.length),
      [2_000, 2_000, 1_000]
    )
  })

  it("is paced: a thousand subscriptions one by one are no flood of messages", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const first = c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    await first.accepted
    for (let token = 2; token <= 200; token++) {
      c.ticks(token)
      await Promise.resolve()
    }
    // Whatever there is no room for goes together a little later.
    const tokens: Array<number> = []
    let messages = 0
    while (tokens.length < 199) {
      tokens.push(...(await peer.accept()).tokens!)
      messages++
    }
    assert.isBelow(messages, 60)
    assert.deepStrictEqual(
      tokens.sort((a, b) => a - b),
      Array.from({ length: 199 }, (_, i) => i + 2)
    )
  })

  it("is held once however many want it, with all the channels that they want", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const ticks = c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    peer.say(backfill(1, 6, 5))
    await ticks.accepted
    const candles = c.candles(1, "1m")
    assert.deepStrictEqual((await peer.accept()).channels, ["tick", "candle_1m"])
    peer.say(backfill(1, 6, 5), frame(1, 6))
    const bar = { ts: 1, open: 1, high: 1, low: 1, close: 1, volume: 1, revision: 1, final: false }
    peer.say({ type: "candle", instrument_token: 1, interval: "1m", ...bar })
    peer.say({ type: "candle", instrument_token: 1, interval: "5m", ...bar })
    assert.deepStrictEqual(places(await take(ticks, 1)), [6])
    assert.deepInclude((await take(candles, 1))[0], bar)
    const other = c.ticks(1)
    assert.deepStrictEqual(await other.accepted, [{ instrument_token: 1, accepted: true, known: true }])
    ticks.close()
    peer.say(frame(1, 7))
    assert.deepStrictEqual(places(await take(other, 1)), [7])
    other.close()
    // The bars go on without ticks.
    assert.deepStrictEqual((await peer.accept()).channels, ["candle_1m"])
    assert.strictEqual(candles.waiting, 0)
    candles.close()
    assert.deepStrictEqual((await peer.next("unsubscribe")).tokens, [1])
  })

  it("by a symbol and by its token is one instrument", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const candles = c.candles(11, "5m")
    const peer = await server.peer()
    await peer.accept()
    await candles.accepted
    const ticks = c.ticks("NSE:A")
    const bySymbol = await peer.accept({ "NSE:A": 11 })
    assert.deepStrictEqual(bySymbol.channels, ["tick", "candle_5m"])
    peer.say(backfill(11, 1, 1))
    await take(ticks, 1)
    candles.close()
    const narrower = await peer.accept()
    assert.deepStrictEqual([narrower.tokens, narrower.channels], [[11], ["tick"]])
  })

  it("that is asked for again with a backfill is refused by name, as it would break the order", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const first = c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    await first.accepted
    const error = await failureOf(c.ticks(1, { backfill: 10 }).next())
    assert.instanceOf(error, SubscriptionRefused)
    assert.strictEqual((error as SubscriptionRefused).message, "1: not subscribed: already_subscribed")
    peer.say(backfill(1, 1, 0), frame(1, 1))
    assert.deepStrictEqual(places(await take(first, 1)), [1])
  })

  it("that is refused ends its stream by name, or is an event where the others are to go on", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const strict = c.ticks(["NSE:A", "NSE:NOPE"])
    const lenient = c.ticks(["NSE:B", "NSE:NOPE"], { strict: false })
    const peer = await server.peer()
    const asked = await peer.next("subscribe")
    assert.deepStrictEqual(asked.symbols, ["NSE:A", "NSE:NOPE", "NSE:B"])
    peer.say({
      type: "subscribed",
      id: asked.id,
      simulated: false,
      tokens: [
        { symbol: "NSE:A", instrument_token: 11, accepted: true, known: true },
        { symbol: "NSE:NOPE", accepted: false, reason: "unknown_symbol" },
        { symbol: "NSE:B", instrument_token: 12, accepted: true, known: true }
      ]
    })
    const error = await failureOf(strict.next())
    assert.strictEqual((error as Error).message, "NSE:NOPE: not subscribed: unknown_symbol")
    assert.deepStrictEqual(
      (await lenient.accepted).map(({ accepted }) => accepted),
      [true, false]
    )
    assert.deepStrictEqual(events.error.map(String), ["SubscriptionRefused: NSE:NOPE: not subscribed: unknown_symbol"])
    assert.deepStrictEqual((await peer.next("unsubscribe")).tokens, [11])
    peer.say(backfill(12, 1, 0), frame(12, 1))
    assert.deepStrictEqual(places(await take(lenient, 1)), [1])
    // Once it has ended, it has.
    assert.isTrue((await strict.next()).done)
  })

  it("that a server has no room for after a reconnect is asked for until it has", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const stream = c.ticks(1)
    const first = await server.peer()
    await first.accept()
    first.say(backfill(1, 1, 1))
    await take(stream, 1)
    first.ws.terminate()
    const second = await server.peer()
    const asked = await second.next("subscribe")
    refused(second, asked.id, 1, "server_full")
    assert.deepStrictEqual((await second.accept()).since, { 1: [EPOCH, 1] })
    second.say(backfill(1, 2, 2))
    assert.deepStrictEqual(places(await take(stream, 1)), [2])
    assert.deepStrictEqual(events.error.map(String), ["SubscriptionRefused: 1: not subscribed: server_full"])
  })

  it("that may not be seen any more after a reconnect ends its stream", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const stream = c.ticks(1)
    const first = await server.peer()
    await first.accept()
    await stream.accepted
    first.ws.terminate()
    const second = await server.peer()
    refused(second, (await second.next("subscribe")).id, 1, "forbidden")
    assert.strictEqual(((await failureOf(stream.next())) as Error).message, "1: not subscribed: forbidden")
  })

  it("is asked for again a little later where it was too much at once", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const stream = c.ticks(1)
    const peer = await server.peer()
    const { id } = await peer.next("subscribe")
    peer.say({ type: "error", code: "too_fast", message: "tokens: these 1 can be in 1 s", id })
    await peer.accept()
    await stream.accepted
    assert.strictEqual((events.error[0] as MessageRefused).code, "too_fast")
  })

  it("that the server does not understand ends the streams concerned with its words, and no others", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const ticks = c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    await ticks.accepted
    const states = c.states(2)
    const { id } = await peer.next("subscribe")
    peer.say({ type: "error", code: "unsupported", message: "channels: this server serves tick", id })
    const error = await failureOf(states.next())
    assert.instanceOf(error, MessageRefused)
    assert.strictEqual((error as MessageRefused).message, "unsupported: channels: this server serves tick")
    peer.say(backfill(1, 1, 0), frame(1, 1))
    assert.deepStrictEqual(places(await take(ticks, 1)), [1])
  })

  it("from before what was sent on the connection is had on another, once", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const other = c.ticks(2)
    const first = await server.peer()
    await first.accept()
    first.say(backfill(2, 1, 1))
    await take(other, 1)
    const stream = c.ticks(1, { since: { 1: [EPOCH, 3] } })
    refused(first, (await first.next("subscribe")).id, 1, "already_sent")
    const second = await server.peer()
    assert.deepStrictEqual((await second.accept()).since, { 1: [EPOCH, 3], 2: [EPOCH, 1] })
    second.say(backfill(2, 2, 2), backfill(1, 4, 5))
    assert.deepStrictEqual(places(await take(stream, 2)), [4, 5])
    assert.deepStrictEqual(places(await take(other, 1)), [2])
    assert.isEmpty(events.error)
    // Where another connection does not have it either, that is that.
    const none = c.ticks(3, { since: { 3: [EPOCH, 3] } })
    refused(second, (await second.next("subscribe")).id, 3, "already_sent")
    const third = await server.peer()
    refused(third, (await third.next("subscribe")).id, 3, "already_sent")
    assert.strictEqual(((await failureOf(none.next())) as Error).message, "3: not subscribed: already_sent")
  })

  it("again after it was ended hears nothing that was on its way for the subscription before", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const other = c.ticks(2)
    const first = c.ticks(1)
    const peer = await server.peer()
    await peer.accept()
    peer.say(backfill(1, 5, 5))
    await take(first, 1)
    first.close()
    await peer.next("unsubscribe")
    const second = c.ticks(1, { since: { 1: [EPOCH, 3] } })
    const { id } = await peer.next("subscribe")
    // Sent before the server read what the client said.
    peer.say(frame(1, 6))
    peer.say({
      type: "subscribed",
      id,
      simulated: false,
      tokens: [{ instrument_token: 1, accepted: true, known: true }]
    })
    peer.say(backfill(1, 4, 6), frame(1, 7))
    assert.deepStrictEqual(places(await take(second, 4)), [4, 5, 6, 7])
    assert.isEmpty(events.error)
    other.close()
  })
})

describe("what has a newest", () => {
  it("takes quotes as events and one by one, between ticks and without a word of the rule", async () => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const ticks = c.ticks(1)
    const quotes = c.quoteUpdates(1)
    const peer = await server.peer()
    assert.deepStrictEqual((await peer.accept()).channels, ["tick", "quote"])
    const first = { type: "quote", instrument_token: 1, exchange_ts: 5, bid: [[100, 5, 1]], oi: 0 } as const
    const second = { ...first, exchange_ts: 6, oi: 7 } as const
    peer.say(backfill(1, 1, 0), first, frame(1, 1), second, frame(1, 2))
    assert.deepStrictEqual((await take(quotes, 2)) as unknown, [first, second])
    assert.deepStrictEqual(
      (await take(ticks, 2)).map(({ position }) => position),
      [1, 2]
    )
    assert.deepStrictEqual(events.quote as ReadonlyArray<unknown>, [first, second])
    assert.deepStrictEqual(events.error, [])
    // Whoever comes later begins with the newest.
    assert.deepStrictEqual((await c.quoteUpdates(1).next()).value as unknown, second)
    ticks.close()
    quotes.close()
  })

  it("is where a later stream begins: the state there is, and the bar under way", async () => {
    const server = await scripted()
    const { client: c } = client(server.url)
    const first = c.messages(1, { channels: ["state", "candle_1m"] })
    const peer = await server.peer()
    await peer.accept()
    const state = { type: "state", instrument_token: 1, state: "closed", since: 5 } as const
    const bar = {
      type: "candle",
      instrument_token: 1,
      interval: "1m",
      ts: 120,
      open: 1,
      high: 1,
      low: 1,
      close: 1
    } as const
    const now = { ...bar, volume: 1, revision: 2, final: false }
    peer.say(state, now, { ...now, ts: 60, revision: 9 })
    for (let i = 0; i < 3; i++) await first.next()
    assert.deepStrictEqual((await c.states(1).next()).value as unknown, state)
    assert.deepStrictEqual((await c.candles(1, "1m").next()).value as unknown, now)
  })
})

describe("what an application is told of its ticks", () => {
  const listening = async (options: Parameters<ReturnType<typeof client>["client"]["messages"]>[1] = {}) => {
    const server = await scripted()
    const { client: c, events } = client(server.url)
    const stream = c.messages(1, options)
    const peer = await server.peer()
    const asked = await peer.accept()
    return { server, c, events, stream, peer, asked }
  }

  it("is what was evicted for its slowness, right where it is missing", async () => {
    const { stream, peer, events } = await listening()
    peer.batch(backfill(1, 1, 0), frame(1, 1), evicted(1, 2, 30), frame(1, 31))
    assert.deepStrictEqual(places(await take(stream, 3)), [1, missed(2, 30, "slow"), 31])
    assert.deepStrictEqual(events.missed, [missed(2, 30, "slow")])
    assert.strictEqual(stream.missed, 29)
  })

  it("is what a backfill could not give, and what a resume could not", async () => {
    const { stream, peer, server, asked } = await listening({ backfill: 100 })
    assert.strictEqual(asked.backfill, 100)
    peer.say(evicted(1, 1, 40), backfill(1, 41, 42, false))
    assert.deepStrictEqual(places(await take(stream, 3)), [missed(1, 40, "gone"), 41, 42])
    peer.ws.terminate()
    const next = await server.peer()
    await next.accept()
    next.say(evicted(1, 43, 50), backfill(1, 51, 51, false))
    assert.deepStrictEqual(places(await take(stream, 2)), [missed(43, 50, "gone"), 51])
  })

  it("is that something is missing where nobody knows what", async () => {
    const { stream, peer, server } = await listening()
    peer.say(backfill(1, 6, 5))
    peer.ws.terminate()
    const next = await server.peer()
    assert.deepStrictEqual((await next.accept()).since, { 1: [EPOCH, 5] })
    next.say(backfill(1, 6, 6, false))
    assert.deepStrictEqual(places(await take(stream, 2)), [
      { ...missed(0, 0, "gone"), from: null, to: null, count: null },
      6
    ])
  })

  it("is nothing of what it never asked for", async () => {
    const { stream, peer, events } = await listening()
    // Where this connection's subscription before it had ended.
    peer.say(evicted(1, 1, 40), backfill(1, 41, 40, false), frame(1, 41))
    assert.deepStrictEqual(places(await take(stream, 1)), [41])
    assert.isEmpty(events.missed)
  })

  it("is that an epoch has begun, and why", async () => {
    const { stream, peer, server } = await listening()
    peer.say(backfill(1, 1, 500))
    await take(stream, 500)
    peer.ws.terminate()
    const next = await server.peer()
    await next.accept()
    next.say(backfill(1, 501, 502), backfill(1, 1, 2, true, EPOCH + 60), frame(1, 3, EPOCH + 60))
    const change = { type: "epoch" as const, instrument_token: 1, reason: "lost" as const }
    assert.deepStrictEqual(places(await take(stream, 6)), [
      501,
      502,
      { ...change, from: [EPOCH, 502], to: [EPOCH + 60, 0] },
      1,
      2,
      3
    ])
    assert.deepStrictEqual(stream.places(), { 1: [EPOCH + 60, 3] })
  })

  it("is nothing twice where another server is behind", async () => {
    const { stream, peer, server, events } = await listening()
    peer.say(backfill(1, 1, 10))
    await take(stream, 10)
    peer.ws.terminate()
    const next = await server.peer()
    await next.accept()
    next.say(backfill(1, 9, 8, false), frame(1, 9), backfill(1, 10, 11), frame(1, 12))
    assert.deepStrictEqual(places(await take(stream, 2)), [11, 12])
    assert.isEmpty(events.missed)
    assert.isEmpty(events.error)
  })

  it("is a breach of the rule, and what was broken is asked for again from the last right place", async () => {
    const { stream, peer, server, events } = await listening()
    // What stands behind it in the same frame counts no more.
    const other = { type: "error", code: "other", message: "of the connection that is given up" } as const
    peer.batch(backfill(1, 1, 0), frame(1, 1), frame(1, 3), frame(1, 4), other)
    const next = await server.peer()
    assert.deepStrictEqual((await next.accept()).since, { 1: [EPOCH, 1] })
    next.say(backfill(1, 2, 4))
    assert.deepStrictEqual(places(await take(stream, 4)), [1, 2, 3, 4])
    assert.lengthOf(events.error, 1)
    assert.lengthOf(events.disconnected, 1)
    assert.instanceOf(events.error[0], RuleViolated)
    assert.strictEqual(events.error[0]!.message, `instrument 1 stood at ${EPOCH}/1: tick ${EPOCH}/3, expected 2`)
    assert.deepStrictEqual(places(events.tick), [1, 2, 3, 4])
  })

  it("is what lies between where the same place is broken again, and the stream goes on", async () => {
    const { stream, peer, server, events } = await listening()
    peer.say(backfill(1, 1, 0), frame(1, 1), frame(1, 3))
    const next = await server.peer()
    await next.accept()
    next.say(backfill(1, 3, 4), frame(1, 5), frame(1, 5), frame(1, 6))
    // A tick that comes again is another place: once more from there.
    const last = await server.peer()
    assert.deepStrictEqual((await last.accept()).since, { 1: [EPOCH, 5] })
    last.say(frame(1, 5), frame(1, 6))
    assert.deepStrictEqual(places(await take(stream, 6)), [1, missed(2, 2, "gone"), 3, 4, 5, 6])
    assert.lengthOf(events.error, 4)
  })

  it("is every gap, the time of its instruments, and the server's warning", async () => {
    const { stream, peer, events, c } = await listening({ channels: ["tick", "gap", "state"] })
    peer.say(backfill(1, 1, 0), frame(1, 1))
    peer.say({ type: "gap", instrument_token: 1, from: 43, to: 44 })
    peer.say({ type: "gap_filled", instrument_token: 1, from: 43, to: 43 })
    peer.say({ type: "state", instrument_token: 1, state: "stale", since: 5 })
    peer.say({ type: "closing", code: 4001, reason: "slow", since: { 1: [EPOCH, 1] } })
    assert.deepStrictEqual(
      (await take(stream, 4)).map(({ type }) => type),
      ["tick", "gap", "gap_filled", "state"]
    )
    assert.deepStrictEqual([events.gap.length, events.gap_filled.length, events.state.length], [1, 1, 1])
    if (events.closing.length === 0) await c.once("closing")
    assert.strictEqual(events.closing[0]!.code, 4001)
  })
})
