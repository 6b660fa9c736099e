import { assert, describe, it } from "@effect/vitest"
import type { Place } from "../../../src/schema/Protocol.ts"
import { epochOf, type Tick } from "../../../src/schema/Tick.ts"
import { Hub } from "../../../src/streams/fanOut/Hub.ts"
import type { HubClient } from "../../../src/streams/fanOut/HubClient.ts"
import type { History } from "../../../src/streams/fanOut/history.ts"
import type { HubSettings } from "../../../src/streams/fanOut/parts.ts"
import { wantedOf } from "../../../src/streams/fanOut/sideChannels.ts"
import { historyFrom, settle } from "../../support/history.ts"
import { EPOCH, FakeSocket, hubSettings, NOW, priceOf, randomFrom, tickOf } from "../../support/hub.ts"
import { RuleBroken, RuleChecker } from "../../support/RuleChecker.ts"

const both = { channels: wantedOf(["tick", "gap"]) }
const plain = { ...both, since: undefined, backfill: 0 }

const make = (settings: Partial<HubSettings> = {}, history?: History) =>
  new Hub({
    settings: { ...hubSettings, ...settings },
    now: () => NOW,
    graceMs: 0,
    ...(history === undefined ? {} : { history })
  })

const connect = (hub: Hub, options: { readonly fast?: boolean; readonly key?: string; checker?: RuleChecker } = {}) => {
  const socket = new FakeSocket({
    fast: options.fast ?? true,
    ...(options.checker === undefined ? {} : { checker: options.checker })
  })
  const client = hub.connect(socket)
  client.join(hub.channel(options.key ?? "")!)
  return { socket, client }
}

const run = (token: number, from: number, to: number, epoch = EPOCH): Array<Tick> =>
  Array.from({ length: to - from + 1 }, (_, i) => tickOf(token, epoch, from + i))

const types = (socket: FakeSocket) => socket.messages().map((m) => m.type)

describe("the hub", () => {
  it("joins backfill and live without a seam, in one step", () => {
    const hub = make()
    hub.publish(run(1, 1, 10))
    const { socket, client } = connect(hub)
    client.subscribe(1, { ...plain, backfill: 4 })
    client.flush()
    hub.publish(run(1, 11, 12))
    const [backfill, ...ticks] = socket.messages()
    assert.strictEqual(backfill!.from, 7)
    assert.strictEqual(backfill!.to, 10)
    assert.strictEqual(backfill!.recovered, true)
    assert.deepStrictEqual(
      ticks.map((t) => t.position),
      [11, 12]
    )
    assert.strictEqual(ticks[0]!.price, priceOf(1, EPOCH, 11))
  })

  it("answers every accepted token with a backfill, empty with from above to", () => {
    const hub = make()
    hub.publish(run(1, 1, 3))
    const { socket, client } = connect(hub)
    client.subscribe(1, plain)
    client.subscribe(2, { ...plain, backfill: 10 })
    client.flush()
    hub.publish(run(2, 1, 2))
    assert.deepStrictEqual(
      socket
        .messages()
        .map(({ type, instrument_token: token, epoch, from, to, position }) =>
          type === "tick" ? [token, position] : [token, epoch, from, to]
        ),
      [
        [1, EPOCH, 4, 3],
        [2, 0, 1, 0],
        [2, 1],
        [2, 2]
      ]
    )
  })

  it("evicts the oldest of a client that does not read, and tells exactly which before the next one", () => {
    const hub = make({ CLIENT_CAPACITY: 10, CLIENT_BUFFER_BYTES: 1 })
    const { socket, client } = connect(hub, { fast: false })
    client.subscribe(1, plain)
    client.subscribe(2, plain)
    client.flush()
    socket.read(1e9)
    client.flush()
    socket.read(1e9)
    hub.publish(run(1, 1, 1))
    for (let i = 2; i <= 30; i++) hub.publish([...run(1, i, i), ...run(2, i, i)])
    assert.strictEqual(client.queue.size, 10)
    for (let i = 0; i < 40; i++) {
      socket.read(1e9)
      client.flush()
    }
    const told = socket.messages().filter((m) => m.type === "evicted" || m.type === "tick")
    assert.deepStrictEqual(
      told.map((m) => (m.type === "tick" ? [m.instrument_token, m.position] : [m.instrument_token, m.from, m.to])),
      [
        [1, 1],
        [1, 2, 25],
        [1, 26],
        [2, 2, 25],
        [2, 26],
        ...[27, 28, 29, 30].flatMap((p) => [
          [1, p],
          [2, p]
        ])
      ]
    )
  })

  it("tells what was lost of an instrument that no tick follows of, once the queue has drained", () => {
    const hub = make({ CLIENT_CAPACITY: 2, CLIENT_BUFFER_BYTES: 1 })
    const { socket, client } = connect(hub, { fast: false })
    for (const token of [1, 2]) client.subscribe(token, plain)
    for (let i = 0; i < 4; i++) {
      client.flush()
      socket.read(1e9)
    }
    socket.waiting = 100
    hub.publish(run(1, 1, 3))
    hub.publish(run(2, 1, 2))
    for (let i = 0; i < 6; i++) {
      socket.read(1e9)
      client.flush()
    }
    const last = socket.messages().at(-1)!
    assert.deepStrictEqual([last.type, last.instrument_token, last.from, last.to, last.count], ["evicted", 1, 1, 3, 3])
  })

  it("does not evict from a client that reads, though one publish brings more than its capacity", () => {
    const hub = make({ CLIENT_CAPACITY: 10 })
    const { socket, client } = connect(hub)
    client.subscribe(1, plain)
    hub.publish(run(1, 1, 500))
    assert.strictEqual(socket.checker.ticks, 500)
    assert.strictEqual(socket.checker.evicted, 0)
  })

  it("sends each client at most one write a publish", () => {
    const hub = make()
    const { socket, client } = connect(hub)
    client.subscribe(1, plain)
    client.flush()
    const before = socket.corks
    hub.publish(run(1, 1, 200))
    assert.strictEqual(socket.corks, before + 1)
    assert.strictEqual(socket.sends, 201)
  })

  it("sends arrays of messages to a client that asked for batches", () => {
    const hub = make()
    const { socket, client } = connect(hub)
    client.queue.batch = true
    client.subscribe(1, plain)
    hub.publish(run(1, 1, 50))
    assert.strictEqual(socket.sends, 1)
    const frame = JSON.parse(socket.frames[0]!)
    assert.strictEqual(frame.length, 51)
    assert.strictEqual(frame[0].type, "backfill")
    assert.strictEqual(socket.checker.ticks, 50)
  })

  it("passes over ticks of old days and ticks that come again, and tells a hole in the log as evicted", () => {
    const hub = make()
    const { socket, client } = connect(hub)
    client.subscribe(1, plain)
    hub.publish([...run(1, 1, 3), tickOf(1, EPOCH - 1_000_000_000, 900, { old: true }), ...run(1, 2, 3)])
    hub.publish(run(1, 6, 6))
    hub.publish(run(1, 3, 3, EPOCH + 60))
    hub.publish(run(1, 7, 7))
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.epoch, m.position ?? m.from]),
      [
        ["backfill", 0, 1],
        ["tick", EPOCH, 1],
        ["tick", EPOCH, 2],
        ["tick", EPOCH, 3],
        ["evicted", EPOCH, 4],
        ["tick", EPOCH, 6],
        ["evicted", EPOCH + 60, 1],
        ["tick", EPOCH + 60, 3]
      ]
    )
  })

  it("tells gaps and fills before their tick, alone to those who want only them", () => {
    const hub = make()
    const all = connect(hub)
    const ticks = connect(hub)
    const gaps = connect(hub)
    all.client.subscribe(1, plain)
    ticks.client.subscribe(1, { ...plain, channels: wantedOf(["tick"]) })
    gaps.client.subscribe(1, { ...plain, channels: wantedOf(["gap"]) })
    hub.publish([
      tickOf(1, EPOCH, 1, { sequence_id: 40 }),
      tickOf(1, EPOCH, 2, { sequence_id: 45, status: "STALE", gap_from: 41 }),
      tickOf(1, EPOCH, 3, { sequence_id: 42, status: "STALE" }),
      tickOf(1, EPOCH, 4, { sequence_id: 44, status: "STALE", sequencing: "monotonic" })
    ])
    for (const { client } of [all, ticks, gaps]) client.flush()
    assert.deepStrictEqual(types(all.socket), ["backfill", "tick", "gap", "tick", "gap_filled", "tick", "tick"])
    assert.deepStrictEqual(types(ticks.socket), ["backfill", "tick", "tick", "tick", "tick"])
    const [, gap, filled, ...more] = gaps.socket.messages()
    assert.deepStrictEqual(gap, { type: "gap", instrument_token: 1, from: 41, to: 44 })
    assert.deepStrictEqual(filled, { type: "gap_filled", instrument_token: 1, from: 42, to: 42 })
    assert.deepStrictEqual(more, [])
  })

  it("goes on where it was when a token is subscribed twice, or left and taken again", () => {
    const hub = make()
    hub.publish(run(1, 1, 20))
    const { socket, client } = connect(hub)
    client.subscribe(1, { ...plain, backfill: 5 })
    hub.publish(run(1, 21, 22))
    client.subscribe(1, { ...plain, backfill: 50 })
    hub.publish(run(1, 23, 24))
    client.unsubscribe(1)
    hub.publish(run(1, 25, 60))
    client.subscribe(1, { ...plain, backfill: 10 })
    hub.publish(run(1, 61, 61))
    client.unsubscribe(1)
    hub.publish(run(1, 62, 64))
    client.subscribe(1, { ...plain, backfill: 10 })
    client.flush()
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.position ?? m.from, m.position ?? m.to]),
      [
        ["backfill", 16, 20],
        ["tick", 21, 21],
        ["tick", 22, 22],
        ["backfill", 23, 22],
        ["tick", 23, 23],
        ["tick", 24, 24],
        ["evicted", 25, 50],
        ["backfill", 51, 60],
        ["tick", 61, 61],
        ["backfill", 62, 64]
      ]
    )
  })

  it("keeps the newest ticks within its totals: every ring alike gives up its older half", () => {
    const hub = make({ RING_TICKS: 100, HUB_TICKS: 400 })
    for (let position = 1; position <= 200; position++) {
      hub.publish(Array.from({ length: 8 }, (_, i) => tickOf(i + 1, EPOCH, position)))
      assert.isAtMost(hub.live.memory.ticks, 400)
    }
    assert.strictEqual(hub.live.memory.ring, 50)
    const { socket, client } = connect(hub)
    client.subscribe(3, { ...plain, backfill: 1000 })
    client.flush()
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.from, m.to]),
      [
        ["evicted", 1, 150],
        ["backfill", 151, 200]
      ]
    )
  })

  it("lets rings that gave way to those of many instruments grow again when these are silent", () => {
    const hub = make({ RING_TICKS: 100, HUB_TICKS: 400, HUB_INSTRUMENTS: 10 })
    let position = 0
    const publish = (tokens: ReadonlyArray<number>) => {
      position++
      hub.publish(tokens.map((token) => tickOf(token, EPOCH, position)))
    }
    const many = Array.from({ length: 10 }, (_, i) => i + 1)
    for (let i = 0; i < 100; i++) publish(many)
    assert.isAtMost(hub.live.memory.ring, 50)
    // Others come and go meanwhile, so that those which fell silent are forgotten.
    for (let i = 0; i < 3000; i++) publish([1, 2, 100 + (i % 1000)])
    assert.strictEqual(hub.live.memory.ring, 100)
    assert.isAtMost(hub.live.memory.ticks, 400)
    const { socket, client } = connect(hub)
    client.subscribe(1, { ...plain, backfill: 100 })
    client.flush()
    assert.strictEqual(socket.checker.backfilled, 100)
    assert.strictEqual(socket.checker.evicted, 0)
  })

  it("knows the last price of an instrument, as long as it remembers it", () => {
    const hub = make()
    assert.isUndefined(hub.live.lastPrice(1))
    hub.publish([...run(1, 1, 3), ...run(2, 1, 9)])
    assert.strictEqual(hub.live.lastPrice(1), priceOf(1, EPOCH, 3))
    assert.strictEqual(hub.live.lastPrice(2), priceOf(2, EPOCH, 9))
  })

  it("remembers a bounded number of instruments: those silent longest go, but for the place of those that are wanted", () => {
    const hub = make({ HUB_INSTRUMENTS: 1000 })
    const { socket, client } = connect(hub)
    hub.publish([tickOf(1, EPOCH, 5), tickOf(2, EPOCH, 5)])
    client.subscribe(1, plain)
    for (let token = 10; token < 20_010; token++) hub.publish([tickOf(token, EPOCH, 1), tickOf(3, EPOCH, token)])
    assert.isAtMost(hub.live.memory.instruments, 1100)
    assert.isUndefined(hub.live.place(2))
    assert.deepStrictEqual(hub.live.place(1), { epoch: EPOCH, position: 5 })
    assert.deepStrictEqual(hub.live.place(3), { epoch: EPOCH, position: 20_009 })
    hub.publish([tickOf(1, EPOCH, 5), tickOf(1, EPOCH, 6)])
    client.flush()
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.position ?? m.from]),
      [
        ["backfill", 6],
        ["tick", 6]
      ]
    )
  })

  it("remembers nothing of a token that no tick came of once nobody subscribes to it", () => {
    const hub = make()
    const { client } = connect(hub)
    for (let token = 1; token <= 500; token++) client.subscribe(token, plain)
    assert.strictEqual(hub.live.memory.instruments, 500)
    assert.strictEqual(hub.subscriptions, 500)
    for (let token = 1; token <= 400; token++) client.unsubscribe(token)
    assert.strictEqual(hub.live.memory.instruments, 100)
    hub.disconnect(client)
    assert.strictEqual(hub.live.memory.instruments, 0)
    assert.strictEqual(hub.subscriptions, 0)
  })

  it("lets a client that is gone leave step by step, while ticks go on to the others", () => {
    const hub = make()
    const [gone, other] = [connect(hub), connect(hub)]
    for (let token = 1; token <= 1000; token++) gone.client.subscribe(token, plain)
    for (const token of [1, 999]) other.client.subscribe(token, plain)
    let step = (): boolean => false
    hub.disconnect(gone.client, (given) => {
      step = given
    })
    // What it had is free for whoever comes next, before it is worked off.
    assert.strictEqual(hub.subscriptions, 2)
    let steps = 0
    do {
      steps++
      hub.publish([tickOf(1, EPOCH, steps), tickOf(500, EPOCH, steps), tickOf(999, EPOCH, steps)])
    } while (step())
    assert.isAbove(steps, 3)
    assert.deepStrictEqual(other.socket.messages().filter(({ type }) => type === "tick").length, 2 * steps)
    assert.strictEqual(gone.socket.messages().filter(({ type }) => type === "tick").length, 0)
    assert.strictEqual(hub.subscriptions, 2)
    // Of the rest only the instrument that a tick came of.
    assert.strictEqual(hub.live.memory.instruments, 3)
  })

  it("keeps a client that waits for an instrument on it where its stream begins anew", () => {
    const hub = make()
    hub.open("r")
    const { client, socket } = connect(hub, { key: "r" })
    hub.channel("r")!.publish([tickOf(1, EPOCH, 5)])
    client.subscribe(1, { ...plain, since: { epoch: EPOCH, position: 5 } })
    client.unsubscribe(1)
    hub.open("r")
    client.subscribe(1, { ...plain, since: { epoch: EPOCH, position: 2 } })
    hub.open("r")
    hub.channel("r")!.publish([tickOf(1, EPOCH + 1, 1)])
    assert.deepStrictEqual(
      socket
        .messages()
        .filter(({ type }) => type === "tick")
        .map(({ position }) => position),
      [1]
    )
  })

  it("looks up nothing more for a client that is gone", async () => {
    const asked: Array<number> = []
    const hub = make(
      {},
      {
        last: (token) => {
          asked.push(token)
          return new Promise((resolve) => setTimeout(() => resolve({ ticks: [], failed: false }), 1))
        },
        after: () => Promise.resolve({ ticks: [], more: false, current: true, failed: false })
      }
    )
    const { client } = connect(hub)
    for (let token = 1; token <= 100; token++) client.subscribe(token, { ...plain, backfill: 10 })
    const before = asked.length
    hub.disconnect(client)
    await new Promise((resolve) => setTimeout(resolve, 20))
    assert.strictEqual(asked.length, before)
    assert.strictEqual(hub.subscriptions, 0)
    assert.strictEqual(hub.live.memory.instruments, 0)
  })

  it("takes from the longest queues where all clients together are behind too far, and tells each exactly", () => {
    const evicted: Record<string, number> = {}
    const hub = new Hub({
      settings: { ...hubSettings, CLIENT_BUFFER_BYTES: 1, CLIENTS_TICKS: 1000 },
      now: () => NOW,
      observer: {
        evicted: (ticks, policy) => {
          evicted[policy] = (evicted[policy] ?? 0) + ticks
        }
      }
    })
    const peers = [1, 2, 3].map((token) => {
      const peer = connect(hub, { fast: false })
      peer.client.queue.resize(100_000)
      peer.client.subscribe(token, plain)
      peer.client.flush()
      peer.socket.waiting = 1
      return peer
    })
    hub.publish(run(3, 1, 100))
    for (let from = 1; from <= 2000; from += 100) {
      hub.publish([...run(1, from, from + 99), ...run(2, from, from + 99)])
      assert.isAtMost(hub.held.ticks, 1000)
    }
    assert.strictEqual(peers[2]!.client.queue.size, 100)
    assert.isAbove(evicted["evict-longest"]!, 3000)
    assert.isUndefined(evicted["evict-oldest"])
    for (const { socket, client } of peers) {
      for (let i = 0; i < 3000 && client.queue.size > 0; i++) {
        socket.read(1e9)
        client.flush()
      }
      const { ticks, evicted: told } = socket.checker
      assert.strictEqual(ticks + told, socket.checker.place(3) === undefined ? 2000 : 100)
    }
    assert.strictEqual(hub.held.ticks, 0)
  })

  it("ends those that hold most where all clients together hold too many bytes, and nobody else", () => {
    const hub = make({ CLIENT_BUFFER_BYTES: 1, CLIENTS_BYTES: 1_000_000 })
    const peers = Array.from({ length: 5 }, () => connect(hub, { fast: false }))
    for (const { socket } of peers) socket.waiting = 1
    const say = (i: number, bytes: number) => {
      peers[i]!.client.say("x".repeat(bytes))
      peers[i]!.client.flush()
    }
    for (let i = 0; i < 5; i++) say(i, 1000)
    for (let n = 0; n < 50; n++) for (const i of [1, 3]) say(i, 20_000)
    const codes = peers.map(({ socket }) => socket.ended?.code)
    assert.deepStrictEqual([codes[0], codes[2], codes[4]], [undefined, undefined, undefined])
    assert.include(codes, 1013)
    assert.isAtMost(hub.held.bytes, 1_000_000)
    for (const { client } of peers) hub.disconnect(client)
    assert.strictEqual(hub.held.bytes, 0)
  })

  it("hands one client a bounded piece at a time, and goes on when others had their turn", async () => {
    const hub = make({ CLIENT_CAPACITY: 10_000, CLIENT_BUFFER_BYTES: 1 })
    const { socket, client } = connect(hub, { fast: false })
    client.subscribe(1, plain)
    client.flush()
    socket.waiting = 1
    hub.publish(run(1, 1, 5000))
    socket.isFast = true
    socket.waiting = 0
    client.flush()
    const first = socket.checker.ticks
    assert.isAbove(first, 500)
    assert.isBelow(first, 2500)
    for (let i = 0; i < 20; i++) await settle()
    assert.strictEqual(socket.checker.ticks, 5000)
  })

  it("ends the one client that something breaks for, with 1011, and serves the others", () => {
    const hub = make()
    const bad = connect(hub)
    const good = connect(hub)
    for (const { client } of [bad, good]) client.subscribe(1, plain)
    for (const { client } of [bad, good]) client.flush()
    Object.assign(bad.socket, {
      cork: () => {
        throw new Error("broken")
      }
    })
    hub.publish(run(1, 1, 3))
    assert.strictEqual(bad.socket.ended?.code, 1011)
    assert.strictEqual(good.socket.checker.ticks, 3)
  })

  it("says what of a backfill is not to be had: where a limit cut it, or memory does not reach back", () => {
    const hub = make({ RING_TICKS: 100 })
    hub.publish(run(1, 1, 500))
    hub.publish(run(2, 1, 30))
    hub.publish(run(3, 71, 100))
    const { socket, client } = connect(hub)
    for (const token of [1, 2, 3]) client.subscribe(token, { ...plain, backfill: 300 })
    client.flush()
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.instrument_token, m.from, m.to, m.recovered]),
      [
        ["evicted", 1, 201, 400, undefined],
        ["backfill", 1, 401, 500, false],
        ["backfill", 2, 1, 30, true],
        ["evicted", 3, 1, 70, undefined],
        ["backfill", 3, 71, 100, false]
      ]
    )
  })

  it("keeps replays apart from the market, in the order given, and forgets a run when the next begins", () => {
    const hub = make()
    const replay = hub.open("r1")
    const market = connect(hub)
    const watcher = connect(hub, { key: "r1" })
    for (const { client } of [market, watcher]) for (const token of [1, 2]) client.subscribe(token, plain)
    assert.isFalse(watcher.client.join(hub.live))
    assert.strictEqual(hub.clients("r1"), 1)
    const order = [tickOf(2, EPOCH, 1), tickOf(1, EPOCH, 1), tickOf(2, EPOCH, 2)]
    replay.clock(1, NOW, "running")
    replay.publish(order)
    hub.open("r1")
    replay.clock(2, null, "running")
    replay.publish(order)
    replay.clock(2, NOW, "ended")
    hub.close("r1")
    market.client.flush()
    assert.deepStrictEqual(types(market.socket), ["backfill", "backfill"])
    const seen = [
      ["tick", 2, 1],
      ["tick", 1, 1],
      ["tick", 2, 2]
    ]
    assert.deepStrictEqual(
      watcher.socket
        .messages()
        .slice(2)
        .map((m) => (m.type === "clock" ? ["clock", m.run, m.state] : [m.type, m.instrument_token, m.position])),
      [["clock", 1, "running"], ...seen, ["clock", 2, "running"], ...seen, ["clock", 2, "ended"]]
    )
    assert.strictEqual(hub.clients("r1"), 0)
    assert.isUndefined(hub.channel("r1"))
  })

  it("does not take the ticks of a new run for those that a slow client is owed of the last", () => {
    const hub = make({ CLIENT_BUFFER_BYTES: 1 })
    const replay = hub.open("r1")
    replay.publish(run(1, 1, 10))
    const { socket, client } = connect(hub, { key: "r1", fast: false })
    socket.waiting = 1
    client.subscribe(1, { ...both, since: { epoch: EPOCH, position: 2 }, backfill: 0 })
    hub.open("r1")
    replay.clock(2, null, "running")
    replay.publish(run(1, 1, 4))
    for (let i = 0; i < 10; i++) {
      socket.read(1e9)
      client.flush()
    }
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.position ?? m.from ?? m.run]),
      [
        ["evicted", 3],
        ["backfill", 11],
        ["clock", 2],
        ["tick", 1],
        ["tick", 2],
        ["tick", 3],
        ["tick", 4]
      ]
    )
  })

  it("ends a client that asks and asks and never reads the answers", () => {
    const hub = make({ CLIENT_BUFFER_BYTES: 1 })
    hub.publish(run(1, 1, 5))
    const { socket, client } = connect(hub, { fast: false })
    let asked = 0
    while (socket.ended === undefined && asked < 100_000) {
      client.say(`{"type":"pong","pad":"${"x".repeat(10_000)}"}`)
      client.flush()
      asked++
    }
    assert.strictEqual(socket.ended?.code, 1008)
    assert.isBelow(asked, 2_000)
  })

  it("reads the ring only when the answer can be sent, and tells what went meanwhile", () => {
    const hub = make({ RING_TICKS: 10, CLIENT_BUFFER_BYTES: 1, CLIENT_CAPACITY: 5 })
    hub.publish(run(1, 1, 10))
    const { socket, client } = connect(hub, { fast: false, checker: new RuleChecker({ keep: true }) })
    socket.waiting = 1
    client.subscribe(1, { ...both, since: { epoch: EPOCH, position: 2 }, backfill: 0 })
    client.flush()
    hub.publish(run(1, 11, 16))
    for (let i = 0; i < 20; i++) {
      socket.read(1e9)
      client.flush()
    }
    assert.deepStrictEqual(
      socket.messages().map((m) => [m.type, m.position ?? m.from, m.position ?? m.to]),
      [["evicted", 3, 6], ["backfill", 7, 10], ["evicted", 11, 11], ...[12, 13, 14, 15, 16].map((p) => ["tick", p, p])]
    )
  })
})

describe("coming back with since", () => {
  const world = (options: { ring?: number; lag?: number; up?: () => boolean } = {}) => {
    const all = new Map<number, Array<Tick>>()
    const { history, asked } = historyFrom(all, {
      ring: options.ring ?? 50,
      store: () => options.lag ?? 0,
      up: options.up ?? (() => true)
    })
    const hub = make({ RING_TICKS: 20 }, history)
    const remember = (ticks: ReadonlyArray<Tick>) => {
      for (const tick of ticks) {
        const list = all.get(tick.instrument_token)
        if (list === undefined) all.set(tick.instrument_token, [tick])
        else list.push(tick)
      }
    }
    const publish = (ticks: ReadonlyArray<Tick>) => {
      remember(ticks)
      hub.publish(ticks)
    }
    const resume = async (since: Place | undefined, backfill = 0, live: ReadonlyArray<Tick> = []) => {
      const checker = new RuleChecker({ keep: true })
      if (since !== undefined) checker.places.set(1, { ...since })
      const { socket, client } = connect(hub, { checker })
      client.subscribe(1, { ...both, since, backfill })
      client.flush()
      if (live.length > 0) publish(live)
      for (let i = 0; i < 60; i++) await settle()
      return { socket, client, checker }
    }
    return { hub, publish, remember, resume, asked }
  }
  const shown = (socket: FakeSocket) =>
    socket
      .messages()
      .map((m) =>
        m.type === "backfill"
          ? [m.type, m.epoch, m.from, m.to, m.recovered]
          : [m.type, m.epoch, m.position ?? m.from, m.position ?? m.to]
      )

  it("is served from memory where it reaches back", async () => {
    const { publish, resume, asked } = world()
    publish(run(1, 1, 30))
    const { socket } = await resume({ epoch: EPOCH, position: 10 })
    publish(run(1, 31, 31))
    assert.deepStrictEqual(shown(socket), [
      ["backfill", EPOCH, 11, 30, true],
      ["tick", EPOCH, 31, 31]
    ])
    assert.deepStrictEqual(asked, [])
  })

  it("is served from the ring, then the store, with live ticks going on meanwhile", async () => {
    const { publish, resume, asked } = world()
    publish(run(1, 1, 5000))
    const near = await resume({ epoch: EPOCH, position: 4960 }, 0, run(1, 5001, 5010))
    assert.deepStrictEqual(shown(near.socket), [["backfill", EPOCH, 4961, 5010, true]])
    assert.deepStrictEqual(asked, ["after"])
    const far = await resume({ epoch: EPOCH, position: 3 }, 0, run(1, 5011, 5040))
    publish(run(1, 5041, 5041))
    assert.strictEqual(far.checker.backfilled, 5037)
    assert.strictEqual(far.checker.ticks, 1)
    assert.strictEqual(far.checker.evicted, 0)
    assert.strictEqual(far.checker.unrecovered, 0)
  })

  it("gets one backfill an epoch, ascending, when its epoch is an older one", async () => {
    const { publish, resume } = world({ ring: 5 })
    publish([...run(1, 1, 8), ...run(1, 1, 30, EPOCH + 60), ...run(1, 1, 40, EPOCH + 90)])
    const { socket } = await resume({ epoch: EPOCH, position: 6 })
    const frames = shown(socket)
    assert.deepStrictEqual(frames[0], ["backfill", EPOCH, 7, 8, true])
    assert.deepStrictEqual(frames[1], ["backfill", EPOCH + 60, 1, 30, true])
    assert.strictEqual(frames[2]![1], EPOCH + 90)
    assert.strictEqual(frames[2]![2], 1)
    assert.strictEqual(socket.checker.place(1)!.position, 40)
  })

  it("is told exactly what is not to be had, and that it was not recovered", async () => {
    let up = true
    const { publish, resume } = world({ ring: 25, lag: 10_000, up: () => up })
    publish(run(1, 1, 100))
    const lost = await resume({ epoch: EPOCH, position: 40 })
    assert.deepStrictEqual(shown(lost.socket), [
      ["evicted", EPOCH, 41, 75],
      ["backfill", EPOCH, 76, 100, false]
    ])
    up = false
    const down = await resume({ epoch: EPOCH, position: 40 })
    assert.deepStrictEqual(shown(down.socket), [
      ["evicted", EPOCH, 41, 80],
      ["backfill", EPOCH, 81, 100, false]
    ])
  })

  it("is not sent again what another server was quicker to send", async () => {
    const { hub, publish, remember, resume } = world()
    publish(run(1, 1, 30))
    remember(run(1, 31, 33))
    const { socket } = await resume({ epoch: EPOCH, position: 33 })
    hub.publish(run(1, 31, 33))
    hub.publish(run(1, 34, 35))
    assert.deepStrictEqual(shown(socket), [
      ["backfill", EPOCH, 34, 33, true],
      ["tick", EPOCH, 34, 34],
      ["tick", EPOCH, 35, 35]
    ])
  })

  it("is served by a server that has not seen the instrument yet, which then goes on from there", async () => {
    const { hub, remember, resume } = world()
    remember(run(1, 1, 60))
    const { socket } = await resume({ epoch: EPOCH, position: 20 })
    hub.publish(run(1, 50, 61))
    assert.deepStrictEqual(shown(socket), [
      ["backfill", EPOCH, 21, 60, true],
      ["tick", EPOCH, 61, 61]
    ])
    const { socket: second } = await resume(undefined, 10)
    assert.deepStrictEqual(shown(second), [["backfill", EPOCH, 52, 61, true]])
  })

  it("gets a plain backfill from the ring where memory does not hold so much yet", async () => {
    const { hub, remember, resume } = world()
    remember(run(1, 1, 60))
    const { socket, checker } = await resume(undefined, 15)
    hub.publish(run(1, 58, 62))
    assert.deepStrictEqual(shown(socket)[0], ["backfill", EPOCH, 46, 60, true])
    assert.deepStrictEqual(checker.place(1), { epoch: EPOCH, position: 62 })
    remember(run(1, 61, 62))
    const { socket: second } = await resume(undefined, 12)
    assert.deepStrictEqual(shown(second), [["backfill", EPOCH, 51, 62, true]])
  })

  it("goes on from what there is where nobody knows its place", async () => {
    const { hub, publish, resume } = world()
    for (const since of [
      { epoch: EPOCH + 999, position: 4 },
      { epoch: EPOCH, position: 90_000_000 },
      { epoch: EPOCH + 50_000_000_000, position: 1 }
    ]) {
      const checker = new RuleChecker()
      const { socket, client } = connect(hub, { checker })
      publish(run(1, (hub.live.place(1)?.position ?? 0) + 1, (hub.live.place(1)?.position ?? 0) + 30))
      const last = hub.live.place(1)!
      client.subscribe(1, { ...both, since, backfill: 0 })
      client.flush()
      for (let i = 0; i < 10; i++) await settle()
      publish(run(1, last.position + 1, last.position + 1))
      assert.deepStrictEqual(shown(socket), [
        ["backfill", EPOCH, last.position + 1, last.position, false],
        ["tick", EPOCH, last.position + 1, last.position + 1]
      ])
    }
    const old = await resume({ epoch: epochOf(100, 0), position: 7 })
    assert.strictEqual(old.checker.unrecovered, 1)
    assert.strictEqual(old.checker.place(1)!.position, hub.live.place(1)!.position)
  })

  it("is not sent again what another server was quicker to send, also where only the log knows it yet", async () => {
    const { history } = historyFrom(new Map([[1, run(1, 1, 30)]]), { ring: 50, store: () => 0, up: () => true })
    const hub = new Hub({ settings: hubSettings, now: () => NOW, history, graceMs: 60_000 })
    hub.publish(run(1, 1, 30))
    const checker = new RuleChecker()
    checker.places.set(1, { epoch: EPOCH, position: 33 })
    const { socket, client } = connect(hub, { checker })
    client.subscribe(1, { ...both, since: { epoch: EPOCH, position: 33 }, backfill: 0 })
    for (let i = 0; i < 10; i++) await settle()
    hub.publish(run(1, 31, 35))
    while (socket.frames.length === 0) await settle()
    hub.publish(run(1, 36, 36))
    assert.deepStrictEqual(shown(socket), [
      ["backfill", EPOCH, 34, 35, true],
      ["tick", EPOCH, 36, 36]
    ])
  })

  it("is told at once where the stream stands where its place is ahead of what exists, and goes on live", async () => {
    for (const kept of [world(), undefined]) {
      const hub = kept?.hub ?? make()
      const checker = new RuleChecker()
      for (const token of [1, 2]) checker.places.set(token, { epoch: EPOCH, position: 40 })
      const { socket, client } = connect(hub, { checker })
      hub.publish(run(1, 1, 30))
      for (const token of [1, 2]) {
        client.subscribe(token, { ...both, since: { epoch: EPOCH, position: 40 }, backfill: 0 })
      }
      client.flush()
      for (let i = 0; i < 10; i++) await settle()
      hub.publish([...run(1, 31, 31), ...run(2, 7, 8)])
      client.flush()
      assert.deepStrictEqual(
        socket.messages().map((m) => [m.type, m.instrument_token, m.position ?? m.from, m.recovered]),
        [
          ["backfill", 1, 31, false],
          // Nobody has seen it: that is told now, and where it stands when it is known.
          ["backfill", 2, 41, false],
          ["backfill", 2, 7, false],
          ["tick", 1, 31, undefined],
          ["tick", 2, 7, undefined],
          ["tick", 2, 8, undefined]
        ]
      )
    }
  })

  it("that is left off between two pages goes on after the page that was sent", async () => {
    const history: History = {
      last: async () => ({ ticks: [], failed: false }),
      after: async (token, place) => ({
        ticks: run(token, place.position + 1, place.position + 5),
        more: true,
        current: false,
        failed: false
      })
    }
    const hub = make({ RING_TICKS: 10, CLIENT_BUFFER_BYTES: 1 }, history)
    hub.publish(run(1, 1, 50))
    const { socket, client } = connect(hub, { fast: false })
    client.subscribe(1, { ...both, since: { epoch: EPOCH, position: 1 }, backfill: 0 })
    for (let i = 0; i < 5; i++) await settle()
    client.unsubscribe(1)
    client.subscribe(1, plain)
    for (let i = 0; i < 5; i++) {
      socket.read(1e9)
      client.flush()
    }
    assert.deepStrictEqual(shown(socket), [
      ["backfill", EPOCH, 2, 6, true],
      ["evicted", EPOCH, 7, 50],
      ["backfill", EPOCH, 51, 50, false]
    ])
  })

  it("asks few at a time, and the next only when the client has taken the answer", async () => {
    let open = 0
    let most = 0
    const asked = new Set<number>()
    const history: History = {
      last: async () => ({ ticks: [], failed: false }),
      after: async (token, place) => {
        most = Math.max(most, ++open)
        asked.add(token)
        await settle()
        open--
        return {
          ticks: run(token, place.position + 1, place.position + 5),
          more: false,
          current: false,
          failed: false
        }
      }
    }
    const hub = make({ CLIENT_BUFFER_BYTES: 1 }, history)
    const slow = connect(hub, { fast: false })
    slow.socket.waiting = 1
    for (let token = 1; token <= 100; token++) {
      slow.client.subscribe(token, { ...both, since: { epoch: EPOCH, position: 1 }, backfill: 0 })
    }
    for (let i = 0; i < 50; i++) await settle()
    assert.strictEqual(asked.size, 4)
    assert.strictEqual(most, 4)
    const fast = connect(hub)
    fast.client.subscribe(200, { ...both, since: { epoch: EPOCH, position: 1 }, backfill: 0 })
    fast.client.flush()
    for (let i = 0; i < 20; i++) await settle()
    assert.strictEqual(fast.socket.checker.backfilled, 5)
    hub.disconnect(slow.client)
    for (let i = 0; i < 50; i++) await settle()
    assert.strictEqual(asked.size, 5)
  })
})

describe("the rule, whatever happens", () => {
  const SEEDS = 150

  it("holds at every prefix for random publishes, subscriptions, slow clients and histories", async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      try {
        await scenario(seed)
      } catch (error) {
        throw error instanceof RuleBroken ? new Error(`seed ${seed}: ${error.message}`) : error
      }
    }
  })

  const scenario = async (seed: number): Promise<void> => {
    const random = randomFrom(seed)
    const tokens = 1 + random.below(6)
    const all = new Map<number, Array<Tick>>()
    const lag = random.below(60)
    const { history } = historyFrom(all, {
      ring: 10 + random.below(60),
      store: () => lag,
      up: () => random.chance(0.9)
    })
    const hub = make(
      {
        RING_TICKS: 5 + random.below(60),
        HUB_TICKS: 100 + random.below(300),
        CLIENT_CAPACITY: 1 + random.below(40),
        CLIENT_BUFFER_BYTES: 1 + random.below(4000)
      },
      random.chance(0.8) ? history : undefined
    )
    const places = new Map<number, { epoch: number; position: number }>()
    type Peer = { socket: FakeSocket; client: HubClient; wanted: Set<number> }
    const peers: Array<Peer> = []
    const publish = () => {
      const ticks: Array<Tick> = []
      for (let i = random.below(30); i > 0; i--) {
        const token = 1 + random.below(tokens)
        const place = places.get(token) ?? { epoch: EPOCH, position: random.chance(0.5) ? 0 : random.below(100) }
        if (random.chance(0.01)) {
          place.epoch += 60
          place.position = 0
        }
        // Now and then the log itself has a hole.
        place.position += random.chance(0.02) ? 1 + random.below(5) : 1
        places.set(token, place)
        const gap = random.chance(0.1) ? { status: "STALE" as const, gap_from: random.chance(0.5) ? 1 : 0 } : {}
        const tick = tickOf(token, place.epoch, place.position, gap)
        ticks.push(tick)
        const list = all.get(token)
        if (list === undefined) all.set(token, [tick])
        else list.push(tick)
      }
      hub.publish(ticks)
      // And now and then something comes again.
      if (random.chance(0.05)) hub.publish(ticks)
    }
    const join = (checker: RuleChecker): Peer => {
      const { socket, client } = connect(hub, { fast: random.chance(0.4), checker })
      client.configure({
        batch: random.chance(0.3),
        policy: (["evict-oldest", "conflate", "pause"] as const)[random.below(3)]
      })
      const peer = { socket, client, wanted: new Set<number>() }
      peers.push(peer)
      return peer
    }
    for (let step = 0; step < 120; step++) {
      if (random.chance(0.5)) publish()
      if (random.chance(0.15)) join(new RuleChecker({ keep: true }))
      const peer = peers[random.below(peers.length)]
      if (peer !== undefined) {
        const token = 1 + random.below(tokens)
        if (random.chance(0.3)) {
          peer.client.subscribe(token, {
            ...plain,
            channels: wantedOf(random.chance(0.7) ? ["tick", "gap"] : ["tick"]),
            backfill: random.below(50)
          })
          peer.wanted.add(token)
        } else if (random.chance(0.1)) {
          peer.client.unsubscribe(token)
          peer.wanted.delete(token)
        } else if (random.chance(0.05)) {
          // The connection breaks; the client comes back with what it has.
          const { checker } = peer.socket
          const since = new Map([...checker.places].map(([t, p]) => [t, { ...p }]))
          for (const t of [...checker.places.keys()]) if (!peer.wanted.has(t)) checker.places.delete(t)
          hub.disconnect(peer.client)
          peers.splice(peers.indexOf(peer), 1)
          const again = join(checker)
          for (const t of peer.wanted) {
            again.client.subscribe(t, { ...plain, since: since.get(t), backfill: 0 })
            again.wanted.add(t)
          }
        } else if (random.below(20) === 0) {
          peer.client.queue.resize(1 + random.below(40))
        }
        peer.client.flush()
      }
      for (const { socket, client } of peers) {
        if (socket.isFast || random.chance(0.5)) continue
        socket.read(random.below(6000))
        client.flush()
      }
      if (random.chance(0.5)) await settle()
      for (const { socket } of peers) if (socket.broken !== undefined) throw socket.broken
    }
    for (let i = 0; i < 400; i++) {
      for (const { socket, client } of peers) {
        socket.isFast = true
        socket.waiting = 0
        client.flush()
      }
      await settle()
    }
    publish()
    for (const { socket, client, wanted } of peers) {
      client.flush()
      assert.strictEqual(client.queue.size, 0, `seed ${seed}`)
      for (const token of wanted) {
        const place = places.get(token)
        if (place !== undefined && hub.live.place(token) !== undefined) {
          assert.deepStrictEqual(socket.checker.place(token), place, `seed ${seed}, instrument ${token}`)
        }
      }
      for (const message of socket.messages()) {
        const ticks = message.type === "backfill" ? (message.data as ReadonlyArray<typeof message>) : [message]
        for (const tick of ticks) {
          if (tick.type !== "tick") continue
          const price = priceOf(tick.instrument_token as number, tick.epoch as number, tick.position as number)
          assert.strictEqual(tick.price, price, `seed ${seed}`)
        }
      }
    }
  }
})

describe("who follows the hub", () => {
  it("is told of the market and of every replay from its beginning, of what was lost, of runs that begin anew and of the end", () => {
    const hub = make()
    const told: Array<string> = []
    hub.follow(({ key }) => ({
      published: (ticks, quotes) =>
        told.push(`${key}: ${ticks.map(({ position }) => position).join()} ${quotes.length}`),
      missed: () => told.push(`${key}: missed`),
      restart: () => told.push(`${key}: anew`),
      close: () => told.push(`${key}: over`)
    }))
    hub.live.begin({ partition: 0, incarnation: "a", offset: 0 }, 0)
    hub.publish(run(1, 1, 2))
    hub.live.begin({ partition: 0, incarnation: "a", offset: 9 }, 0)
    hub.open("r1", 20_468)
    hub.channel("r1")!.publish(run(1, 1, 1))
    hub.open("r1")
    hub.close("r1")
    assert.deepStrictEqual(told, [": 1,2 0", ": missed", "r1: 1 0", "r1: anew", "r1: over"])
  })

  it("counts those who listen by way of it as listeners of a replay", () => {
    const hub = make()
    const nothing = () => undefined
    hub.follow(() => ({ published: nothing, missed: nothing, restart: nothing, close: nothing }))
    const channel = hub.open("r1", 20_468)
    assert.strictEqual(hub.clients("r1"), 0)
    channel.guests = 2
    connect(hub, { key: "r1" })
    assert.strictEqual(hub.clients("r1"), 3)
  })
})
