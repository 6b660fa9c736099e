import { assert, describe, it } from "@effect/vitest"
import type { Place, Policy } from "../../../src/schema/Protocol.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { Hub } from "../../../src/streams/fanOut/Hub.ts"
import type { HubClient, Wishes } from "../../../src/streams/fanOut/HubClient.ts"
import type { History } from "../../../src/streams/fanOut/history.ts"
import type { HubSettings } from "../../../src/streams/fanOut/parts.ts"
import { wantedOf } from "../../../src/streams/fanOut/sideChannels.ts"
import { historyFrom, settle } from "../../support/history.ts"
import { EPOCH, FakeSocket, hubSettings, NOW, tickOf } from "../../support/hub.ts"
import { RuleChecker } from "../../support/RuleChecker.ts"

const both = { channels: wantedOf(["tick", "gap"]) }

const run = (token: number, from: number, to: number, epoch = EPOCH): Array<Tick> =>
  Array.from({ length: to - from + 1 }, (_, i) => tickOf(token, epoch, from + i))

/** A hub whose sockets are full with the first byte, so that a peer that does not read has everything queued. */
const make = (settings: Partial<HubSettings> = {}, history?: History) => {
  const figures = { evicted: new Map<string, number>(), pauses: 0 }
  const hub = new Hub({
    settings: { ...hubSettings, CLIENT_BUFFER_BYTES: 1, ...settings },
    now: () => NOW,
    graceMs: 0,
    observer: {
      evicted: (ticks, policy) => figures.evicted.set(policy, (figures.evicted.get(policy) ?? 0) + ticks),
      paused: () => {
        figures.pauses++
      }
    },
    ...(history === undefined ? {} : { history })
  })
  return { hub, figures }
}

/** All that was ever published is to be had outside memory. */
const remembering = (settings: Partial<HubSettings> = {}, part: { ring?: number; up?: () => boolean } = {}) => {
  const all = new Map<number, Array<Tick>>()
  const { history, asked } = historyFrom(all, {
    ring: part.ring ?? 10,
    store: () => 0,
    up: part.up ?? (() => true)
  })
  const made = make({ RING_TICKS: 5, ...settings }, history)
  const publish = (ticks: ReadonlyArray<Tick>) => {
    for (const tick of ticks) {
      const list = all.get(tick.instrument_token)
      if (list === undefined) all.set(tick.instrument_token, [tick])
      else list.push(tick)
    }
    made.hub.publish(ticks)
  }
  return { ...made, asked, publish }
}

class Peer {
  readonly socket: FakeSocket
  readonly client: HubClient

  constructor(hub: Hub, wishes: Wishes & { readonly key?: string; readonly checker?: RuleChecker; window?: number }) {
    const { checker = new RuleChecker({ keep: true }), window } = wishes
    this.socket = new FakeSocket({ fast: window === undefined, checker, ...(window === undefined ? {} : { window }) })
    this.client = hub.connect(this.socket)
    this.client.join(hub.channel(wishes.key ?? "")!)
    this.client.configure(wishes)
  }

  subscribe(tokens: ReadonlyArray<number>, options: { since?: Place; backfill?: number } = {}): this {
    for (const token of tokens) {
      this.client.subscribe(token, { ...both, since: options.since, backfill: options.backfill ?? 0 })
    }
    this.client.flush()
    return this
  }

  /** From now on the peer does not read. */
  stop(): this {
    this.socket.isFast = false
    this.socket.waiting = 1
    return this
  }

  /** The peer reads one socketful. */
  read(): void {
    this.socket.waiting = 0
    this.client.flush()
  }

  /** The peer reads all that there is. */
  async readAll(): Promise<void> {
    this.socket.isFast = true
    for (let i = 0; i < 40; i++) {
      this.read()
      await settle()
    }
    if (this.socket.broken !== undefined) throw this.socket.broken
  }

  get checker() {
    return this.socket.checker
  }

  /** What was sent of ticks, as [type, token, first position, last position]. */
  get told() {
    return this.socket
      .messages()
      .filter((m) => m.type === "tick" || m.type === "evicted" || m.type === "backfill")
      .map((m) => [m.type, m.instrument_token, m.position ?? m.from, m.position ?? m.to])
  }
}

const positions = (peer: Peer, token: number) =>
  (peer.checker.received.get(token) ?? []).map(({ position }) => position)

describe("a client with policy conflate", () => {
  it("gets every tick while it keeps up, also in arrays", () => {
    for (const batch of [false, true]) {
      const { hub, figures } = make()
      const peer = new Peer(hub, { policy: "conflate", batch }).subscribe([1, 2])
      for (let i = 1; i <= 50; i++) hub.publish([...run(1, 4 * i - 3, 4 * i), ...run(2, i, i)])
      assert.strictEqual(peer.checker.ticks, 250)
      assert.strictEqual(peer.checker.evicted, 0)
      assert.strictEqual(figures.evicted.size, 0)
    }
  })

  it("has one tick of each instrument waiting, the newest, and is told exactly what it took the place of", async () => {
    const { hub, figures } = make()
    const peer = new Peer(hub, { policy: "conflate" }).subscribe([1, 2, 3])
    hub.publish([...run(1, 1, 2), ...run(3, 1, 1)])
    peer.stop()
    for (let i = 0; i < 100; i++) hub.publish([...run(1, 3 + 2 * i, 4 + 2 * i), ...run(2, 1 + i, 1 + i)])
    assert.strictEqual(peer.client.queue.size, 2)
    assert.strictEqual(hub.held.ticks, 2)
    // Nothing follows: the last tick of the burst comes all the same.
    await peer.readAll()
    assert.deepStrictEqual(peer.told.slice(6), [
      ["evicted", 1, 3, 201],
      ["tick", 1, 202, 202],
      ["evicted", 2, 1, 99],
      ["tick", 2, 100, 100]
    ])
    assert.deepStrictEqual([...figures.evicted], [["conflate", 199 + 99]])
    hub.publish(run(2, 101, 101))
    assert.deepStrictEqual(peer.told.at(-1), ["tick", 2, 101, 101])
  })

  it("has room for every instrument that it may subscribe to, unless it names a capacity", async () => {
    const tokens = Array.from({ length: 3000 }, (_, i) => i + 1)
    for (const capacity of [undefined, 100]) {
      const { hub } = make({ CLIENT_CAPACITY: 10 })
      const peer = new Peer(hub, { policy: "conflate", capacity }).subscribe(tokens)
      await peer.readAll()
      peer.stop()
      for (let i = 1; i <= 5; i++) hub.publish(tokens.map((token) => tickOf(token, EPOCH, i)))
      assert.strictEqual(peer.client.queue.size, capacity ?? 3000)
      await peer.readAll()
      assert.strictEqual(peer.checker.ticks, capacity ?? 3000)
      assert.strictEqual(peer.checker.ticks + peer.checker.evicted, 15_000)
    }
  })

  it("keeps a bounded account of what it gave up, whatever came first", async () => {
    const { hub } = make()
    const peer = new Peer(hub, { policy: "conflate", capacity: 2 }).subscribe([1, 2, 3])
    peer.stop()
    for (let i = 1; i <= 20_000; i++) hub.publish([1, 2, 3].map((token) => tickOf(token, EPOCH, i)))
    const before = peer.told.length
    await peer.readAll()
    assert.isBelow(peer.told.length - before, 12)
    assert.strictEqual(peer.checker.ticks + peer.checker.evicted, 60_000)
  })

  it("is answered in the place where its stream stands: a tick after an answer takes the place of none before it", async () => {
    const { hub } = make()
    const peer = new Peer(hub, { policy: "conflate" }).subscribe([1, 2]).stop()
    hub.publish([...run(1, 1, 5), ...run(2, 1, 5)])
    peer.subscribe([1])
    hub.publish([...run(1, 6, 9), ...run(2, 6, 9)])
    peer.client.unsubscribe(2)
    peer.subscribe([2], { backfill: 3 })
    hub.publish(run(2, 10, 12))
    await peer.readAll()
    assert.deepStrictEqual(peer.told.slice(2), [
      ["evicted", 1, 1, 4],
      ["tick", 1, 5, 5],
      ["evicted", 2, 1, 8],
      ["tick", 2, 9, 9],
      ["backfill", 1, 6, 5],
      ["evicted", 1, 6, 8],
      ["tick", 1, 9, 9],
      ["backfill", 2, 10, 9],
      ["evicted", 2, 10, 11],
      ["tick", 2, 12, 12]
    ])
  })

  it("gets the newest of every epoch under way, and never two runs of a replay for one", async () => {
    const { hub } = make()
    const replay = hub.open("r1")
    const peer = new Peer(hub, { policy: "conflate", key: "r1" }).subscribe([1]).stop()
    replay.clock(1, NOW, "running")
    replay.publish([...run(1, 1, 4), ...run(1, 1, 3, EPOCH + 60)])
    for (let i = 1; i < 9; i++) replay.clock(1, NOW + i, "running")
    assert.strictEqual(peer.client.queue.size, 3)
    hub.open("r1")
    replay.clock(2, NOW, "running")
    replay.publish(run(1, 1, 6))
    replay.clock(2, NOW + 1, "ended")
    await peer.readAll()
    assert.deepStrictEqual(
      peer.socket.messages().map((m) => [m.type, m.run ?? m.epoch, m.position ?? m.from ?? m.ts, m.to]),
      [
        ["backfill", 0, 1, 0],
        ["clock", 1, NOW, undefined],
        ["evicted", EPOCH, 1, 4],
        ["evicted", EPOCH + 60, 1, 2],
        ["tick", EPOCH + 60, 3, undefined],
        // The clocks behind one another are one: the newest, also of the next run.
        ["clock", 2, NOW, undefined],
        ["evicted", EPOCH, 1, 5],
        ["tick", EPOCH, 6, undefined],
        ["clock", 2, NOW + 1, undefined]
      ]
    )
  })

  it("gives up what it has waiting where all clients together are behind too far, and is told", async () => {
    const { hub, figures } = make({ CLIENTS_TICKS: 100 })
    const tokens = Array.from({ length: 400 }, (_, i) => i + 1)
    const peer = new Peer(hub, { policy: "conflate" }).subscribe(tokens)
    await peer.readAll()
    peer.stop()
    for (let i = 1; i <= 3; i++) hub.publish(tokens.map((token) => tickOf(token, EPOCH, i)))
    assert.isAtMost(hub.held.ticks, 100)
    assert.isAbove(figures.evicted.get("evict-longest") ?? 0, 0)
    await peer.readAll()
    assert.strictEqual(peer.checker.ticks + peer.checker.evicted, 1200)
  })
})

describe("a client with policy pause", () => {
  it("loses nothing: what it did not read it gets from memory, once, and then goes on live", async () => {
    const { hub, figures } = make()
    const peer = new Peer(hub, { policy: "pause", capacity: 10 }).subscribe([1, 2])
    hub.publish([...run(1, 1, 3), ...run(2, 1, 3)])
    peer.stop()
    for (let i = 4; i <= 200; i++) hub.publish([...run(1, i, i), ...run(2, i, i)])
    assert.strictEqual(peer.client.queue.size, 10)
    assert.strictEqual(hub.pausedClients, 1)
    await peer.readAll()
    hub.publish([...run(1, 201, 201), ...run(2, 201, 201)])
    assert.deepStrictEqual(peer.told.slice(-8), [
      ...[7, 8].flatMap((i) => [
        ["tick", 1, i, i],
        ["tick", 2, i, i]
      ]),
      ["backfill", 1, 9, 200],
      ["backfill", 2, 9, 200],
      ["tick", 1, 201, 201],
      ["tick", 2, 201, 201]
    ])
    assert.strictEqual(peer.checker.evicted, 0)
    assert.strictEqual(peer.checker.unrecovered, 0)
    assert.strictEqual(hub.pausedClients, 0)
    assert.strictEqual(figures.pauses, 1)
    assert.strictEqual(figures.evicted.size, 0)
  })

  it("gets what memory has let go of from Redis and the store, in order and in bounded pieces, while ticks go on", async () => {
    const { hub, publish, asked } = remembering()
    const peer = new Peer(hub, { policy: "pause", capacity: 4 }).subscribe([1, 2, 3])
    await peer.readAll()
    peer.stop()
    for (let i = 1; i <= 5000; i++) publish([1, 2, 3].map((token) => tickOf(token, EPOCH, i)))
    publish(run(1, 1, 50, EPOCH + 60))
    assert.strictEqual(peer.client.queue.size, 4)
    assert.isAtMost(hub.held.bytes, 1)
    let at = 50
    for (let i = 0; i < 60; i++) {
      peer.read()
      await settle()
      assert.isAtMost(peer.client.queue.size, 4)
      assert.isBelow(hub.held.bytes, 4_000_000)
      if (i % 3 === 0) publish([tickOf(1, EPOCH + 60, ++at), tickOf(2, EPOCH, 5000 + at), tickOf(3, EPOCH, 5000 + at)])
    }
    await peer.readAll()
    assert.isAbove(asked.length, 3)
    assert.deepStrictEqual(peer.checker.place(1), { epoch: EPOCH + 60, position: at })
    assert.deepStrictEqual(peer.checker.place(2), { epoch: EPOCH, position: 5000 + at })
    assert.strictEqual(positions(peer, 1).length, 5000 + at)
    // Of the others the log itself had the numbers 5001 to 5050 never.
    assert.strictEqual(positions(peer, 2).length, 5000 + at - 50)
    assert.strictEqual(peer.checker.evicted, 100)
  })

  it("loses nothing where it reads slowly all the time, and is paused again and again", async () => {
    const { hub, publish, figures } = remembering({ RING_TICKS: 20 })
    const tokens = [1, 2, 3, 4, 5, 6]
    const peer = new Peer(hub, { policy: "pause", capacity: 8, batch: true }).subscribe(tokens)
    peer.stop()
    for (let i = 1; i <= 400; i++) {
      publish(tokens.map((token) => tickOf(token, EPOCH, i)))
      if (i % 7 === 0) peer.read()
      if (i % 3 === 0) await settle()
    }
    await peer.readAll()
    for (const token of tokens) assert.strictEqual(positions(peer, token).length, 400)
    assert.strictEqual(peer.checker.evicted, 0)
    assert.isAbove(figures.pauses, 3)
  })

  it("is told exactly what nobody has any more when it reads on", async () => {
    let up = true
    const { hub, publish, figures } = remembering({}, { up: () => up })
    const peer = new Peer(hub, { policy: "pause", capacity: 2 }).subscribe([1])
    peer.stop()
    publish(run(1, 1, 50))
    up = false
    await peer.readAll()
    assert.deepStrictEqual(peer.told.slice(1), [
      ["tick", 1, 1, 1],
      ["tick", 1, 2, 2],
      ["evicted", 1, 3, 45],
      ["backfill", 1, 46, 50]
    ])
    assert.strictEqual(peer.checker.unrecovered, 1)
    assert.deepStrictEqual([...figures.evicted], [["pause", 43]])
  })

  it("gets all of what it asks for with since, however late it reads it", async () => {
    const { hub, publish } = remembering({ RING_TICKS: 30 })
    publish([...run(1, 1, 30), ...run(2, 1, 30)])
    const peer = new Peer(hub, { policy: "pause" }).stop()
    peer.checker.places.set(1, { epoch: EPOCH, position: 4 })
    peer.checker.places.set(2, { epoch: EPOCH, position: 4 })
    peer.subscribe([1, 2], { since: { epoch: EPOCH, position: 4 } })
    // Memory moves on before it is read.
    publish([...run(1, 31, 300), ...run(2, 31, 300)])
    await peer.readAll()
    for (const token of [1, 2]) assert.strictEqual(positions(peer, token).length, 296)
    assert.strictEqual(peer.checker.evicted, 0)
  })

  it("may subscribe again, leave and come back while it is paused, and its stream goes on where it stood", async () => {
    const { hub, publish } = remembering({ RING_TICKS: 50 })
    const peer = new Peer(hub, { policy: "pause", capacity: 4 }).subscribe([1, 2, 3])
    peer.stop()
    publish([1, 2, 3].flatMap((token) => run(token, 1, 10)))
    // Of the first the queue has all that it has room for; of the others nothing.
    peer.subscribe([1, 2])
    assert.deepStrictEqual(peer.client.verdict(1, { ...both, backfill: 0, since: { epoch: EPOCH, position: 3 } }), {
      reason: "already_subscribed",
      at: { epoch: EPOCH, position: 4 }
    })
    peer.client.unsubscribe(1)
    peer.client.unsubscribe(3)
    publish([1, 2, 3].flatMap((token) => run(token, 11, 20)))
    peer.subscribe([1], { backfill: 5 })
    peer.subscribe([3], { since: { epoch: EPOCH, position: 0 } })
    publish([1, 2, 3].flatMap((token) => run(token, 21, 22)))
    await peer.readAll()
    assert.deepStrictEqual(
      peer.told.slice(3).filter(([, token]) => token === 1),
      [
        ...[1, 2, 3, 4].map((i) => ["tick", 1, i, i]),
        ["backfill", 1, 5, 4],
        ["evicted", 1, 5, 15],
        ["backfill", 1, 16, 22]
      ]
    )
    assert.deepStrictEqual(
      positions(peer, 2),
      Array.from({ length: 22 }, (_, i) => i + 1)
    )
    assert.deepStrictEqual(
      positions(peer, 3),
      Array.from({ length: 22 }, (_, i) => i + 1)
    )
  })

  it("gives up none of what waits where all clients together are behind too far: it is left out, and read later", async () => {
    const { hub, publish, figures } = remembering({ CLIENTS_TICKS: 100, RING_TICKS: 300 })
    const peer = new Peer(hub, { policy: "pause", capacity: 1000 }).subscribe([1, 2]).stop()
    publish([...run(1, 1, 40), ...run(2, 1, 40)])
    publish([...run(1, 41, 80), ...run(2, 41, 80)])
    assert.isAtMost(hub.held.ticks, 100)
    await peer.readAll()
    assert.strictEqual(peer.checker.evicted, 0)
    for (const token of [1, 2]) assert.strictEqual(positions(peer, token).length, 80)
    assert.strictEqual(figures.evicted.size, 0)
  })

  it("is ended with its places where it is behind for longer than it may be, and one that caught up is not", async () => {
    const { hub, publish } = remembering({ CLIENT_PAUSE_MS: 30, RING_TICKS: 50 })
    const late = new Peer(hub, { policy: "pause", capacity: 3 }).subscribe([1, 2])
    const good = new Peer(hub, { policy: "pause", capacity: 3 }).subscribe([1])
    late.stop()
    good.stop()
    publish([...run(1, 1, 10), ...run(2, 1, 10)])
    await good.readAll()
    while (late.socket.ended === undefined) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.deepStrictEqual(late.socket.ended, { code: 4001, reason: "paused for longer than 30 ms" })
    assert.deepStrictEqual(late.socket.messages().at(-1), {
      type: "closing",
      code: 4001,
      reason: "paused for longer than 30 ms",
      since: { 1: [EPOCH, 0], 2: [EPOCH, 0] }
    })
    await new Promise((resolve) => setTimeout(resolve, 60))
    assert.isUndefined(good.socket.ended)
    assert.strictEqual(good.checker.ticks + good.checker.backfilled, 10)
  })

  it("that wants gaps alone is told in which positions it may have missed one", async () => {
    const { hub } = make()
    const peer = new Peer(hub, { policy: "pause", capacity: 1 })
    peer.client.subscribe(1, { channels: wantedOf(["gap"]), since: undefined, backfill: 0 })
    peer.client.flush()
    peer.stop()
    const gap = (position: number) => tickOf(1, EPOCH, position, { status: "STALE", gap_from: 1, sequence_id: 9 })
    hub.publish([tickOf(1, EPOCH, 1), gap(2), tickOf(1, EPOCH, 3), gap(4), gap(5), tickOf(1, EPOCH, 6)])
    await peer.readAll()
    assert.deepStrictEqual(
      peer.socket.messages().map((m) => [m.type, m.from, m.to]),
      [
        ["backfill", 1, 0],
        ["gap", 1, 8],
        ["evicted", 4, 6]
      ]
    )
  })
})

describe("a client with policy disconnect", () => {
  it("is closed with 4001 where its queue is full, and told where each stream stands: coming back there is exact", async () => {
    for (const batch of [false, true]) {
      const { hub } = make()
      const peer = new Peer(hub, { policy: "disconnect", capacity: 5, batch }).subscribe([1, 2, 3, 4])
      hub.publish([...run(1, 1, 2), ...run(2, 1, 1)])
      peer.stop()
      hub.publish([...run(1, 3, 5), ...run(2, 2, 3)])
      peer.client.unsubscribe(4)
      peer.subscribe([5], { backfill: 10 })
      assert.isUndefined(peer.socket.ended)
      hub.publish([...run(2, 4, 4), ...run(3, 1, 6)])
      const reason = "the queue is full: 5 ticks wait"
      assert.deepStrictEqual(peer.socket.ended, { code: 4001, reason })
      const { since, ...closing } = peer.socket.messages().at(-1)!
      assert.deepStrictEqual(closing, { type: "closing", code: 4001, reason })
      // What waited was not read, and what was not put in the queue any more neither.
      const places = since as Record<string, [number, number]>
      assert.deepStrictEqual(places[1], [EPOCH, 2])
      assert.deepStrictEqual(places[2], [EPOCH, 1])
      assert.deepStrictEqual(places[3], [EPOCH, 0])
      assert.isUndefined(places[4])
      hub.disconnect(peer.client)
      const again = new Peer(hub, { checker: peer.checker })
      for (const [token, [epoch, position]] of Object.entries(places)) {
        again.subscribe([Number(token)], { since: { epoch, position } })
      }
      hub.publish(run(3, 7, 7))
      assert.deepStrictEqual(
        [1, 2, 3].map((token) => again.checker.place(token)?.position),
        [5, 4, 7]
      )
      assert.strictEqual(peer.checker.evicted, 0)
    }
  })

  it("is told the place before a backfill that it was not sent, and before what a policy before this one gave up", async () => {
    const { hub } = make({ RING_TICKS: 100 })
    hub.publish([...run(1, 1, 50), ...run(2, 1, 50)])
    const peer = new Peer(hub, { policy: "conflate", capacity: 4 }).subscribe([1]).stop()
    hub.publish(run(1, 51, 53))
    peer.subscribe([2], { backfill: 20 })
    peer.client.configure({ policy: "disconnect" })
    hub.publish(run(1, 54, 60))
    assert.deepStrictEqual(peer.socket.messages().at(-1)!.since, { 1: [EPOCH, 50], 2: [EPOCH, 30] })
  })

  it("is closed too where all clients together are behind too far, and others go on", async () => {
    const { hub } = make({ CLIENTS_TICKS: 100 })
    const peer = new Peer(hub, { policy: "disconnect", capacity: 1000 }).subscribe([1]).stop()
    const other = new Peer(hub, {}).subscribe([1])
    hub.publish(run(1, 1, 200))
    assert.strictEqual(peer.socket.ended?.code, 4001)
    assert.deepStrictEqual(peer.socket.messages().at(-1)!.since, { 1: [EPOCH, 0] })
    assert.strictEqual(hub.held.ticks, 0)
    assert.strictEqual(other.checker.ticks, 200)
  })

  it("is not closed while it reads, though one publish brings more than its capacity", () => {
    const { hub } = make()
    const peer = new Peer(hub, { policy: "disconnect", capacity: 10 }).subscribe([1])
    hub.publish(run(1, 1, 5000))
    assert.isUndefined(peer.socket.ended)
    assert.strictEqual(peer.checker.ticks, 5000)
  })
})

describe("a client that does not read what its socket took", () => {
  const WINDOW = 4000
  const behind = (policy: Policy, batch: boolean) => {
    const made = remembering({ RING_TICKS: 1000 })
    const peer = new Peer(made.hub, { policy, capacity: 10, batch, window: WINDOW }).subscribe([1, 2])
    for (let i = 1; i <= 100; i++) made.publish([...run(1, 2 * i - 1, 2 * i), ...run(2, i, i)])
    return { ...made, peer }
  }
  /** It reads half of what it may have, again and again. */
  const readOn = async ({ client, socket }: Peer) => {
    for (let i = 0; i < 40; i++) {
      socket.read(WINDOW / 2)
      client.flush()
      await settle()
    }
    if (socket.broken !== undefined) throw socket.broken
  }

  for (const batch of [false, true]) {
    it(`is handed no more than a window and what goes at once, and goes on when it has read${batch ? ", in arrays" : ""}`, async () => {
      for (const policy of ["conflate", "evict-oldest"] as const) {
        const { hub, peer, publish, figures } = behind(policy, batch)
        assert.strictEqual(hub.behindClients, 1)
        assert.isBelow(peer.socket.unread, WINDOW + 1000)
        assert.strictEqual(peer.client.queue.size, policy === "conflate" ? 2 : 10)
        await readOn(peer)
        assert.strictEqual(hub.behindClients, 0)
        publish(run(1, 201, 201))
        assert.strictEqual(peer.checker.ticks + peer.checker.evicted, 301)
        assert.strictEqual(figures.evicted.get(policy), peer.checker.evicted)
        // The newest came, and nothing between it and what lay in the socket.
        if (policy === "conflate") assert.deepStrictEqual(positions(peer, 2).at(-1), 100)
        if (policy === "conflate") assert.isBelow(positions(peer, 2).at(-2)!, 20)
      }
    })

    it(`is paused, and loses nothing${batch ? ", in arrays" : ""}`, async () => {
      const { hub, peer, publish, figures } = behind("pause", batch)
      assert.strictEqual(hub.pausedClients, 1)
      await readOn(peer)
      publish(run(1, 201, 201))
      assert.strictEqual(peer.checker.ticks + peer.checker.backfilled, 301)
      assert.strictEqual(figures.evicted.size, 0)
    })

    it(`is closed with its places behind a window${batch ? ", in arrays" : ""}`, () => {
      const { peer } = behind("disconnect", batch)
      assert.strictEqual(peer.socket.ended?.code, 4001)
      assert.isBelow(peer.socket.unread, WINDOW + 1000)
      const { type, since } = peer.socket.messages().at(-1)!
      assert.deepStrictEqual([type, since], ["closing", peer.checker.since()])
    })
  }
})

describe("a policy", () => {
  it("may be changed at any time, and what waits stays exact", async () => {
    const policies: ReadonlyArray<Policy> = ["evict-oldest", "conflate", "pause"]
    for (const first of policies) {
      for (const second of policies) {
        const { hub } = make({ RING_TICKS: 1000 })
        const peer = new Peer(hub, { policy: first, capacity: 6 }).subscribe([1, 2, 3]).stop()
        const publish = (from: number, to: number) => {
          for (let i = from; i <= to; i++) hub.publish([1, 2, 3].map((token) => tickOf(token, EPOCH, i)))
        }
        publish(1, 10)
        peer.client.configure({ policy: second })
        publish(11, 20)
        peer.subscribe([2])
        publish(21, 30)
        await peer.readAll()
        publish(31, 31)
        for (const token of [1, 2, 3]) {
          assert.deepStrictEqual(peer.checker.place(token), { epoch: EPOCH, position: 31 }, `${first} to ${second}`)
        }
        const { ticks, backfilled, evicted } = peer.checker
        assert.strictEqual(ticks + backfilled + evicted, 93)
        if (first === "pause" && second === "pause") assert.strictEqual(evicted, 0)
        // Of each instrument the newest came.
        if (second === "conflate") assert.strictEqual(positions(peer, 3).at(-2), 30)
      }
    }
  })
})
