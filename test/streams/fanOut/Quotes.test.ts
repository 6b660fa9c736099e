import { assert, describe, it } from "@effect/vitest"
import { afterEach, vi } from "vitest"
import type { Policy } from "../../../src/schema/Protocol.ts"
import type { Quote } from "../../../src/schema/Quote.ts"
import { Hub, type HubOptions } from "../../../src/streams/fanOut/Hub.ts"
import type { FoundQuotes, StoredMinutes } from "../../../src/streams/fanOut/history.ts"
import { TURN_FRAMES } from "../../../src/streams/fanOut/Listened.ts"
import type { HubSettings } from "../../../src/streams/fanOut/parts.ts"
import { replayAudience } from "../../../src/streams/fanOut/replayAudience.ts"
import { wantedOf } from "../../../src/streams/fanOut/sideChannels.ts"
import { settle } from "../../support/history.ts"
import { EPOCH, FakeSocket, hubSettings, NOW, quoteAt, randomFrom, tickOf } from "../../support/hub.ts"

afterEach(() => {
  vi.useRealTimers()
})

const make = (settings: Partial<HubSettings> = {}, options: Partial<HubOptions> = {}): Hub =>
  new Hub({ settings: { ...hubSettings, ...settings }, now: () => NOW, graceMs: 0, ...options })

/** A hub for which quotes are to be had outside memory. */
const remembering = (
  quotes: (tokens: ReadonlyArray<number>) => Promise<FoundQuotes>,
  options: Partial<HubOptions> = {},
  reached?: StoredMinutes["reached"]
): Hub => {
  const last = async () => ({ ticks: [], failed: false })
  const after = async () => ({ ticks: [], more: false, current: false, failed: false })
  const bars = { reached: reached!, minutes: async () => [], openInterest: async () => [] }
  return make({}, { history: { last, after, quotes, ...(reached === undefined ? {} : { bars }) }, ...options })
}

const found = (...quotes: ReadonlyArray<Quote>): FoundQuotes => ({
  quotes: new Map(quotes.map((quote) => [quote.instrument_token, quote])),
  failed: false
})

class Peer {
  readonly socket: FakeSocket
  readonly client: ReturnType<Hub["connect"]>

  constructor(hub: Hub, options: { key?: string; policy?: Policy; batch?: boolean; window?: number } = {}) {
    const { batch, key = "", policy, window } = options
    this.socket = new FakeSocket({ fast: window === undefined, ...(window === undefined ? {} : { window }) })
    this.client = hub.connect(this.socket)
    this.client.join(hub.channel(key)!)
    this.client.configure({ policy, batch })
  }

  subscribe(tokens: ReadonlyArray<number>, channels: Parameters<typeof wantedOf>[0] = ["tick", "gap", "quote"]): this {
    for (const token of tokens) {
      this.client.subscribe(token, { channels: wantedOf(channels), since: undefined, backfill: 0 })
    }
    this.client.flush()
    return this
  }

  /** The socket takes nothing more until it is read. */
  stop(): this {
    this.socket.isFast = false
    this.socket.waiting = 1_000_000
    return this
  }

  read(bytes = 1e12): void {
    this.socket.read(bytes)
    this.client.flush()
  }

  get quotes() {
    return this.socket.messages().filter(({ type }) => type === "quote")
  }

  /** [token, oi] of what was told. */
  get told() {
    return this.quotes.map(({ instrument_token, oi }) => [instrument_token, oi])
  }
}

const quotes = (hub: Hub, ...some: ReadonlyArray<Quote>): void => hub.publish([], NOW, undefined, some)

const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await settle()
}

describe("channel quote", () => {
  it("tells what is known of book and day as the contract writes it, to those who want it and to nobody else", () => {
    const hub = make()
    const ticks = new Peer(hub).subscribe([1], ["tick", "gap"])
    const both = new Peer(hub).subscribe([1])
    const alone = new Peer(hub).subscribe([1], ["quote"])
    const quote = quoteAt(1, NOW, 5, { bid: [[100.5, 10, 2]], ask: [], oi: 7, previous_close: 99, day_volume: 12 })
    hub.publish([tickOf(1, EPOCH, 1), tickOf(1, EPOCH, 2)], NOW, undefined, [quote])
    const types = ({ socket }: Peer) => socket.messages().map(({ type }) => type)
    assert.deepStrictEqual(types(ticks), ["backfill", "tick", "tick"])
    assert.deepStrictEqual(types(both), ["backfill", "tick", "tick", "quote"])
    assert.deepStrictEqual(types(alone), ["backfill", "quote"])
    const frame = {
      ...{ type: "quote", instrument_token: 1, exchange_ts: NOW, bid: [[100.5, 10, 2]], ask: [] },
      ...{ oi: 7, previous_close: 99, day_volume: 12 }
    }
    for (const peer of [both, alone]) assert.deepStrictEqual(peer.quotes as unknown, [frame])
  })

  it("begins with the one there is, and tells of one publish only the newest of each instrument", () => {
    const hub = make()
    quotes(hub, quoteAt(1, NOW, 1, { oi: 1 }))
    const peer = new Peer(hub).subscribe([1, 2])
    assert.deepStrictEqual(peer.told, [[1, 1]])
    quotes(hub, quoteAt(1, NOW + 1, 2, { oi: 2 }), quoteAt(2, NOW, 3, { oi: 3 }), quoteAt(1, NOW + 1, 4, { oi: 4 }))
    assert.deepStrictEqual(peer.told.slice(1), [
      [1, 4],
      [2, 3]
    ])
  })

  it("never goes back: an older stamp, a lower offset of one stamp and the same again are passed over", () => {
    const hub = make()
    const peer = new Peer(hub).subscribe([1])
    quotes(hub, quoteAt(1, NOW, 5, { oi: 5 }))
    quotes(hub, quoteAt(1, NOW - 1, 6, { oi: 6 }))
    quotes(hub, quoteAt(1, NOW, 4, { oi: 4 }))
    quotes(hub, quoteAt(1, NOW, 5, { oi: 5 }))
    assert.deepStrictEqual(peer.told, [[1, 5]])
    // Offsets of another log do not compare.
    quotes(hub, quoteAt(1, NOW, 0, { oi: 9, source: ["another", 0, 1] }))
    assert.deepStrictEqual(peer.told.at(-1), [1, 9])
  })

  it("is live: a quote of an old day is neither told nor kept", () => {
    const hub = make()
    const peer = new Peer(hub).subscribe([1])
    quotes(hub, quoteAt(1, NOW, 1, { oi: 1, old: true }))
    assert.deepStrictEqual(peer.told, [])
    assert.isUndefined(hub.live.quote(1))
  })

  it("costs one text however many clients there are, also those that come later", () => {
    const hub = make()
    const peers = Array.from({ length: 20 }, () => new Peer(hub).subscribe([1]))
    let texts = 0
    const quote = new Proxy(quoteAt(1, NOW, 1), {
      get: (target, name) => {
        if (name === "oi_day_high") texts++
        return Reflect.get(target, name)
      }
    })
    quotes(hub, quote)
    const late = new Peer(hub).subscribe([1])
    assert.strictEqual(texts, 1)
    for (const peer of [...peers, late]) assert.strictEqual(peer.quotes.length, 1)
  })

  it("is told in turns where many clients want many: the ticks of the next publish do not wait for it", async () => {
    const hub = make()
    const aTurn = TURN_FRAMES / 20
    const tokens = Array.from({ length: aTurn + 50 }, (_, i) => i + 1)
    const peers = Array.from({ length: 20 }, () => new Peer(hub).subscribe(tokens))
    quotes(hub, ...tokens.map((token) => quoteAt(token, NOW, token, { oi: token })))
    assert.strictEqual(peers[0]!.quotes.length, aTurn)
    hub.publish([tickOf(1, EPOCH, 1)])
    // What comes meanwhile takes the place of what waits.
    const last = tokens.at(-1)!
    quotes(hub, quoteAt(last, NOW + 1, 9_999, { oi: 0 }))
    assert.strictEqual(peers[0]!.socket.messages().at(-1)!.type, "tick")
    await turns()
    for (const { told } of peers) {
      assert.strictEqual(told.length, tokens.length)
      assert.deepStrictEqual(told.at(-1), [last, 0])
    }
  })

  it("of an instrument that nobody wants any more is told nobody", () => {
    const hub = make()
    const peer = new Peer(hub).subscribe([1])
    peer.client.unsubscribe(1)
    quotes(hub, quoteAt(1, NOW, 1))
    assert.deepStrictEqual(peer.told, [])
    peer.subscribe([1], ["tick"])
    quotes(hub, quoteAt(1, NOW + 1, 2))
    assert.deepStrictEqual(peer.told, [])
  })
})

describe("quotes and ticks", () => {
  const policies: ReadonlyArray<Policy> = ["evict-oldest", "conflate", "pause", "disconnect"]
  /** So much is read in each step: more than the ticks of any, less than they and the quotes are. */
  const READ = 420
  for (const policy of policies) {
    for (const batch of [false, true]) {
      it(`a client of policy ${policy} that reads fast enough for its ticks loses none for quotes${batch ? ", in arrays" : ""}`, () => {
        const random = randomFrom(7)
        const hub = make(
          { CLIENT_BUFFER_BYTES: 512, CLIENT_CAPACITY: 10 },
          { observer: { paused: () => assert.fail() } }
        )
        const peer = new Peer(hub, { policy, batch })
        peer.subscribe([1, 2, 3])
        peer.socket.isFast = false
        const positions = [0, 0, 0]
        const last = new Map<number, number>()
        let published = 0
        for (let oi = 0; oi < 2_000; ) {
          const ticks = Array.from({ length: random.below(3) }, () => {
            const i = random.below(3)
            return tickOf(i + 1, EPOCH, ++positions[i]!)
          })
          published += ticks.length
          const some = Array.from({ length: random.below(6) }, () => {
            const token = random.below(3) + 1
            last.set(token, ++oi)
            return quoteAt(token, NOW + oi, oi, { oi, bid: [[1, 2, 3]] })
          })
          hub.publish(ticks, NOW, undefined, some)
          peer.read(READ)
        }
        for (let i = 0; i < 20; i++) peer.read()
        assert.isUndefined(peer.socket.ended)
        assert.strictEqual(peer.socket.checker.evicted, 0)
        assert.strictEqual(peer.socket.messages().filter(({ type }) => type === "tick").length, published)
        // Some quotes gave way to newer ones, and of each instrument the newest is told in the end.
        assert.isBelow(peer.told.length, 1_500)
        assert.deepStrictEqual(
          [...new Map(peer.told as unknown as ReadonlyArray<[number, number]>)].sort(),
          [...last].sort()
        )
      })
    }
  }

  it("a quote waits while any tick does, and goes once none does, the newest of each instrument alone", () => {
    const hub = make({ CLIENT_BUFFER_BYTES: 1 })
    const peer = new Peer(hub).subscribe([1, 2]).stop()
    const ticks = Array.from({ length: 100 }, (_, i) => tickOf(1, EPOCH, i + 1))
    hub.publish(ticks, NOW, undefined, [quoteAt(1, NOW, 1, { oi: 1 })])
    for (let oi = 2; oi < 10; oi++) {
      quotes(hub, quoteAt(1, NOW + oi, oi, { oi }), quoteAt(2, NOW + oi, 100 + oi, { oi }))
    }
    for (let i = 0; i < 100; i++) {
      assert.deepStrictEqual(peer.told, [])
      peer.read()
    }
    peer.read()
    peer.read()
    assert.deepStrictEqual(peer.told, [
      [1, 9],
      [2, 9]
    ])
  })

  it("a quote is not handed to a peer that is about to be behind: a tick is", () => {
    const hub = make()
    const peer = new Peer(hub, { window: 2_000 }).subscribe([1])
    peer.socket.unread = 1_000
    quotes(hub, quoteAt(1, NOW, 1, { oi: 1 }))
    assert.deepStrictEqual(peer.told, [])
    hub.publish([tickOf(1, EPOCH, 1)])
    assert.strictEqual(peer.socket.messages().at(-1)!.type, "tick")
    peer.read()
    assert.deepStrictEqual(peer.told, [[1, 1]])
  })

  it("an array holds few quotes: a tick does not wait for many", () => {
    const hub = make()
    const peer = new Peer(hub, { batch: true })
    const tokens = Array.from({ length: 1_000 }, (_, i) => i + 1)
    peer.subscribe(tokens, ["quote"])
    const before = peer.socket.frames.length
    quotes(hub, ...tokens.map((token) => quoteAt(token, NOW, token, { oi: token })))
    assert.strictEqual(peer.quotes.length, 1_000)
    const frames = peer.socket.frames.slice(before)
    assert.isAbove(frames.length, 5)
    for (const frame of frames) assert.isBelow(frame.length, 10_000)
  })

  it("what waits of quotes for a client is bounded, and counted in what it holds", () => {
    const hub = make()
    const tokens = Array.from({ length: 1_000 }, (_, i) => i + 1)
    const peer = new Peer(hub).subscribe(tokens, ["quote"]).stop()
    for (let i = 0; i < 20; i++) quotes(hub, ...tokens.map((token) => quoteAt(token, NOW + i, i, { oi: i })))
    const held = hub.held.bytes - peer.socket.waiting
    assert.isAtLeast(held, 100 * 1_000)
    assert.isAtMost(held, 200 * 1_000)
    peer.socket.isFast = true
    peer.read()
    assert.strictEqual(peer.quotes.length, 1_000)
    hub.disconnect(peer.client)
    assert.deepStrictEqual(hub.held, { ticks: 0, bytes: 0 })
  })
})

describe("what waits of an instrument for a client that has left it", () => {
  const waiting = (hub: Hub, peer: Peer) => hub.held.bytes - peer.socket.waiting

  it("is let go of: nothing of its quotes is held, and nothing of its state is told any more", () => {
    const hub = make()
    const tokens = Array.from({ length: 100 }, (_, i) => i + 1)
    const peer = new Peer(hub).subscribe(tokens, ["quote", "state", "candle_1m"]).stop()
    hub.publish(
      tokens.map((token) => tickOf(token, EPOCH, 1)),
      NOW,
      undefined,
      tokens.map((token) => quoteAt(token, NOW, token, { oi: token }))
    )
    const held = waiting(hub, peer)
    for (const token of tokens.slice(1)) peer.client.unsubscribe(token)
    peer.client.flush()
    assert.isBelow(waiting(hub, peer), held - 99 * 90)
    peer.socket.isFast = true
    peer.read()
    const told = peer.socket.messages().filter(({ type }) => type === "quote" || type === "candle")
    assert.deepStrictEqual(
      told.map(({ type, instrument_token }) => [type, instrument_token]),
      [
        ["candle", 1],
        ["quote", 1]
      ]
    )
    assert.strictEqual(waiting(hub, peer), 0)
  })

  it("is let go of where it wants no quotes any more, and told again where it comes back", () => {
    const hub = make()
    const peer = new Peer(hub).subscribe([1, 2, 3], ["quote", "candle_1m"]).stop()
    const all = [1, 2, 3].map((token) => quoteAt(token, NOW, token, { oi: token }))
    hub.publish([tickOf(1, EPOCH, 1), tickOf(2, EPOCH, 1)], NOW, undefined, all)
    peer.client.unsubscribe(1)
    peer.subscribe([1], ["quote", "candle_1m"]).subscribe([2], ["candle_1m"]).subscribe([3], ["tick"])
    peer.socket.isFast = true
    peer.read()
    assert.deepStrictEqual(peer.told, [[1, 1]])
    const bars = peer.socket.messages().filter(({ type }) => type === "candle")
    assert.deepStrictEqual([...new Set(bars.map(({ instrument_token }) => instrument_token))].sort(), [1, 2])
  })

  it("is told no more where the client comes back: bars as they were when it left may be others by now", () => {
    const hub = make()
    const peer = new Peer(hub).subscribe([1, 2], ["candle_1m"]).stop()
    hub.publish([tickOf(1, EPOCH, 1), tickOf(2, EPOCH, 1)], NOW)
    peer.client.unsubscribe(1)
    hub.publish([tickOf(1, EPOCH, 2), tickOf(1, EPOCH, 70_000)], NOW)
    peer.subscribe([1], ["candle_1m"])
    peer.socket.isFast = true
    peer.read()
    const bars = peer.socket.messages().filter(({ type }) => type === "candle")
    assert.deepStrictEqual(
      bars.map(({ instrument_token, ts }) => [instrument_token, ts]),
      [
        [2, NOW],
        [1, NOW + 60_000_000]
      ]
    )
  })

  it("is told where the client only wants more of the instrument", () => {
    const hub = make()
    const peer = new Peer(hub).subscribe([1], ["candle_1m"]).stop()
    hub.publish([tickOf(1, EPOCH, 1), tickOf(1, EPOCH, 70_000)], NOW)
    peer.subscribe([1], ["candle_1m", "quote"])
    peer.socket.isFast = true
    peer.read()
    const bars = peer.socket.messages().filter(({ type }) => type === "candle")
    assert.deepStrictEqual(
      bars.map(({ ts }) => ts),
      [NOW, NOW + 60_000_000]
    )
  })
})

describe("the quotes that memory holds", () => {
  it("are bounded: those of instruments silent longest go, with all that is known of who had nothing else", () => {
    const hub = make({ HUB_QUOTES: 100 })
    for (let token = 1; token <= 1_000; token++) quotes(hub, quoteAt(token, NOW, token, { oi: token }))
    const { instruments, quotes: kept, seen } = hub.live.memory
    assert.isAtMost(kept, 100)
    assert.strictEqual(instruments, kept)
    assert.strictEqual(seen, kept)
    assert.isUndefined(hub.live.quote(1))
    assert.strictEqual(hub.live.quote(1_000)?.oi, 1_000)
  })

  it("of who trades go without its ticks, and of who is wanted without those who want it", () => {
    const hub = make({ HUB_QUOTES: 10 })
    hub.publish([tickOf(1, EPOCH, 1)])
    const peer = new Peer(hub).subscribe([2])
    for (let token = 1; token <= 30; token++) quotes(hub, quoteAt(token, NOW, token, { oi: token }))
    assert.isUndefined(hub.live.quote(1))
    assert.isUndefined(hub.live.quote(2))
    assert.deepStrictEqual(hub.live.place(1), { epoch: EPOCH, position: 1 })
    quotes(hub, quoteAt(2, NOW + 1, 99, { oi: 99 }))
    assert.deepStrictEqual(peer.told, [
      [2, 2],
      [2, 99]
    ])
  })

  it("go with their instruments where those are too many", () => {
    const hub = make({ HUB_INSTRUMENTS: 100 })
    for (let token = 1; token <= 1_000; token++) {
      const ticks = token % 2 === 0 ? [tickOf(token, EPOCH, 1)] : []
      hub.publish(ticks, NOW, undefined, [quoteAt(token, NOW, token)])
    }
    const { instruments, quotes: kept, seen } = hub.live.memory
    assert.isAtMost(instruments, 100)
    assert.strictEqual(kept, instruments)
    assert.strictEqual(seen, instruments)
  })
})

describe("quotes that memory does not hold", () => {
  it("are asked for outside it, many instruments at once, and told to all who wait for them", async () => {
    const asked: Array<ReadonlyArray<number>> = []
    const hub = remembering(async (tokens) => {
      asked.push(tokens)
      return found(...tokens.filter((token) => token % 2 === 0).map((token) => quoteAt(token, NOW, 1, { oi: token })))
    })
    const first = new Peer(hub).subscribe([1, 2, 3, 4])
    const second = new Peer(hub).subscribe([4])
    assert.deepStrictEqual(first.told, [])
    await turns()
    assert.deepStrictEqual(asked, [[1, 2, 3, 4]])
    assert.deepStrictEqual(first.told, [
      [2, 2],
      [4, 4]
    ])
    assert.deepStrictEqual(second.told, [[4, 4]])
    assert.deepStrictEqual(new Peer(hub).subscribe([2]).told, [[2, 2]])
  })

  it("give way to what has come meanwhile", async () => {
    let answer: (found: FoundQuotes) => void = () => undefined
    const asking = () =>
      new Promise<FoundQuotes>((resolve) => {
        answer = resolve
      })
    const hub = remembering(asking)
    const peer = new Peer(hub).subscribe([1])
    await turns()
    quotes(hub, quoteAt(1, NOW, 5, { oi: 5 }))
    answer(found(quoteAt(1, NOW, 4, { oi: 4 })))
    await turns()
    assert.deepStrictEqual(peer.told, [[1, 5]])
  })

  it("are asked for again where nothing answers, as long as somebody wants them", async () => {
    vi.useFakeTimers()
    let isUp = false
    let asked = 0
    const hub = remembering(async () => {
      asked++
      if (asked === 1) throw new Error("away")
      return isUp ? found(quoteAt(1, NOW, 1, { oi: 1 })) : { quotes: new Map(), failed: true }
    })
    const peer = new Peer(hub).subscribe([1])
    await vi.advanceTimersByTimeAsync(6_000)
    assert.strictEqual(asked, 2)
    assert.deepStrictEqual(peer.told, [])
    isUp = true
    await vi.advanceTimersByTimeAsync(6_000)
    assert.deepStrictEqual(peer.told, [[1, 1]])
    await vi.advanceTimersByTimeAsync(60_000)
    assert.strictEqual(asked, 3)
    isUp = false
    const other = new Peer(hub).subscribe([2])
    await vi.advanceTimersByTimeAsync(1_000)
    assert.strictEqual(asked, 4)
    other.client.unsubscribe(2)
    await vi.advanceTimersByTimeAsync(60_000)
    assert.strictEqual(asked, 4)
  })

  it("are asked for again once the store has come to where reading began: a newer one may have been on its way there", async () => {
    vi.useFakeTimers()
    let stored = 99
    let there = [quoteAt(1, NOW, 1, { oi: 1 }), quoteAt(2, NOW, 2, { oi: 2 })]
    const asked: Array<ReadonlyArray<number>> = []
    const answer = async (tokens: ReadonlyArray<number>) => {
      asked.push(tokens)
      return found(...there)
    }
    const hub = remembering(answer, {}, async () => new Map([[0, stored]]))
    hub.live.begin({ partition: 0, incarnation: "log", offset: 100 }, NOW)
    const peer = new Peer(hub).subscribe([1, 2, 3, 4])
    await vi.advanceTimersByTimeAsync(1_000)
    assert.deepStrictEqual(peer.told, [
      [1, 1],
      [2, 2]
    ])
    assert.isFalse(hub.live.hasNewestQuote(1))
    // What comes here is the newest, also where it is the one that was found.
    quotes(hub, quoteAt(4, NOW, 4, { oi: 4 }))
    assert.isTrue(hub.live.hasNewestQuote(4))
    await vi.advanceTimersByTimeAsync(60_000)
    assert.deepStrictEqual(asked, [[1, 2, 3, 4]])
    there = [quoteAt(1, NOW + 5, 5, { oi: 5 }), quoteAt(2, NOW, 2, { oi: 2 }), quoteAt(3, NOW, 3, { oi: 3 })]
    stored = 100
    await vi.advanceTimersByTimeAsync(10_000)
    assert.deepStrictEqual(asked.slice(1), [[1, 2, 3]])
    assert.deepStrictEqual(peer.told.slice(2), [
      [4, 4],
      [1, 5],
      [3, 3]
    ])
    for (const token of [1, 2, 3]) assert.isTrue(hub.live.hasNewestQuote(token))
    await vi.advanceTimersByTimeAsync(60_000)
    new Peer(hub).subscribe([1, 2, 3])
    await vi.advanceTimersByTimeAsync(60_000)
    assert.strictEqual(asked.length, 2)
  })

  it("are asked for anew where something was lost on its way here, also those that memory holds", async () => {
    vi.useFakeTimers()
    let there = quoteAt(1, NOW, 1, { oi: 1 })
    const place = { partition: 0, incarnation: "log", offset: 100 }
    const hub = remembering(
      async () => found(there),
      {},
      async () => new Map([[0, 200]])
    )
    hub.live.begin(place, NOW)
    const peer = new Peer(hub).subscribe([1])
    quotes(hub, there)
    assert.isTrue(hub.live.hasNewestQuote(1))
    there = quoteAt(1, NOW + 1, 2, { oi: 2 })
    hub.live.begin({ ...place, offset: 200 }, NOW)
    assert.isFalse(hub.live.hasNewestQuote(1))
    await vi.advanceTimersByTimeAsync(1_000)
    assert.deepStrictEqual(peer.told, [
      [1, 1],
      [1, 2]
    ])
    assert.isTrue(hub.live.hasNewestQuote(1))
  })

  it("are found once where the store has come to where reading began, and to where it is once something was forgotten", async () => {
    vi.useFakeTimers()
    let stored = 100
    const asked: Array<ReadonlyArray<number>> = []
    const answer = async (tokens: ReadonlyArray<number>) => {
      asked.push(tokens)
      return found()
    }
    const hub = remembering(
      answer,
      { settings: { ...hubSettings, HUB_QUOTES: 10 } },
      async () => new Map([[0, stored]])
    )
    const place = { partition: 0, incarnation: "log", offset: 100 }
    hub.live.begin(place, NOW)
    const publish = (offset: number, ...some: ReadonlyArray<Quote>) =>
      hub.publish([], NOW, { bookmark: { ...place, offset }, isBehind: false }, some)
    publish(110, quoteAt(1, NOW, 1))
    new Peer(hub).subscribe([2])
    await vi.advanceTimersByTimeAsync(60_000)
    assert.deepStrictEqual(asked, [[2]])
    assert.isTrue(hub.live.hasNewestQuote(2))
    for (let token = 10; token < 30; token++) publish(110 + token, quoteAt(token, NOW, token))
    assert.isUndefined(hub.live.quote(1))
    new Peer(hub).subscribe([1])
    await vi.advanceTimersByTimeAsync(60_000)
    assert.deepStrictEqual(asked.slice(1), [[1]])
    assert.isFalse(hub.live.hasNewestQuote(1))
    stored = 139
    await vi.advanceTimersByTimeAsync(60_000)
    assert.deepStrictEqual(asked.slice(2), [[1]])
    assert.isTrue(hub.live.hasNewestQuote(1))
  })

  it("are not taken for none where who wanted to know has left before the answer: who comes after is told", async () => {
    const answers: Array<(quotes: FoundQuotes) => void> = []
    const asking = () => new Promise<FoundQuotes>((resolve) => answers.push(resolve))
    const hub = remembering(asking, {}, async () => new Map([[0, 100]]))
    hub.live.begin({ partition: 0, incarnation: "log", offset: 100 }, NOW)
    new Peer(hub).subscribe([1], ["tick"])
    const peer = new Peer(hub).subscribe([1])
    await turns()
    peer.client.unsubscribe(1)
    answers.shift()!(found(quoteAt(1, NOW, 1, { oi: 1 })))
    await turns()
    assert.strictEqual(hub.live.hasNewestQuote(1), hub.live.quote(1) !== undefined)
    const late = new Peer(hub).subscribe([1])
    await turns()
    answers.shift()?.(found(quoteAt(1, NOW, 1, { oi: 1 })))
    await turns()
    assert.deepStrictEqual(late.told, [[1, 1]])
    assert.isTrue(hub.live.hasNewestQuote(1))
  })

  it("are asked for again only by who comes, where nobody knows what the store has", async () => {
    let asked = 0
    const hub = remembering(async () => {
      asked++
      return found(quoteAt(1, NOW + asked, 1, { oi: asked }))
    })
    new Peer(hub).subscribe([1])
    await turns()
    const late = new Peer(hub).subscribe([1])
    await turns()
    assert.strictEqual(asked, 2)
    assert.deepStrictEqual(late.told, [
      [1, 1],
      [1, 2]
    ])
  })

  it("are not told, nor those of memory, where the token meant another instrument then", async () => {
    const answer = async (tokens: ReadonlyArray<number>) =>
      found(...tokens.map((token) => quoteAt(token, NOW - 1, 1, { oi: token })))
    const hub = remembering(answer, { isCurrent: ({ exchange_ts }) => exchange_ts >= NOW })
    const peer = new Peer(hub).subscribe([1])
    await turns()
    quotes(hub, quoteAt(2, NOW - 1, 1, { oi: 2 }))
    peer.subscribe([2])
    assert.deepStrictEqual(peer.told, [])
    quotes(hub, quoteAt(2, NOW, 2, { oi: 3 }))
    assert.deepStrictEqual(peer.told, [[2, 3]])
  })
})

describe("quotes of a replay", () => {
  it("go to its own audience alone, begin with the one there is, and anew with its run", () => {
    const hub = make()
    hub.open("r", 20_468)
    const market = new Peer(hub).subscribe([1])
    const peer = new Peer(hub, { key: "r" }).subscribe([1])
    const audience = replayAudience(hub)
    audience.publish("r", [tickOf(1, EPOCH, 1)], [quoteAt(1, NOW, 1, { oi: 1 })])
    assert.deepStrictEqual(market.told, [])
    assert.isUndefined(hub.live.quote(1))
    assert.deepStrictEqual(peer.told, [[1, 1]])
    assert.deepStrictEqual(new Peer(hub, { key: "r" }).subscribe([1]).told, [[1, 1]])
    hub.open("r", 20_468)
    assert.deepStrictEqual(new Peer(hub, { key: "r" }).subscribe([1]).told, [])
    audience.publish("r", [], [quoteAt(1, NOW - 5, 9, { oi: 9 })])
    assert.deepStrictEqual(peer.told, [
      [1, 1],
      [1, 9]
    ])
  })
})
