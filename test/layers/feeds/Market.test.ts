import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import {
  encodeLedgerLine,
  encodePacket,
  Market,
  type MeantTick,
  type Packet
} from "../../../src/layers/feeds/Market.ts"
import { readRawTick } from "../../../src/schema/RawTick.ts"
import { defaultSimulation, type Simulation } from "../../../src/schema/Simulation.ts"

const BEGUN_AT = 1_768_448_700_000_000

/** Plays a market for `seconds` in strides of `stride` µs; everything arrives. */
const play = (asked: Partial<Simulation>, seconds: number, stride = 10_000) => {
  const options: Simulation = { ...defaultSimulation, ledger: "kept", ...asked }
  const market = new Market(options)
  const packets: Array<Packet> = []
  const ledger: Array<MeantTick> = []
  const take = (sent: ReadonlyArray<Packet>) => {
    packets.push(...sent)
    market.acknowledge(sent)
    ledger.push(...market.takeSettled())
  }
  const end = seconds * 1_000_000
  for (let until = stride; market.time < end; until = Math.min(end, until + stride)) {
    do take(market.advance(until, BEGUN_AT, 200))
    while (market.time < until)
  }
  const ticksBeforeClose = market.counts.ticks
  take(market.close(BEGUN_AT))
  return { options, market, packets, ledger, ticksBeforeClose }
}

const id = (tick: MeantTick) => `${tick.instrument_token} ${tick.sequence_id}`
const dmaOf = (packets: ReadonlyArray<Packet>) => packets.filter((p) => p.feed === "dma")
const snapshotOf = (packets: ReadonlyArray<Packet>) => packets.filter((p) => p.feed === "snapshot")
const byToken = <A>(items: ReadonlyArray<A>, token: (item: A) => number) => Map.groupBy(items, token)

const Asked = Schema.Struct({
  seed: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 0xffffffff }))),
  symbols: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 120 }))),
  rate: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 20, maximum: 3000 }))),
  loss: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 40 }))),
  duplicate: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 30 }))),
  reorder: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 30 }))),
  delayMs: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 300 }))),
  snapshotSequence: Schema.Literals(["exchange", "none"])
})
const shares = (asked: typeof Asked.Type): Partial<Simulation> => ({
  ...asked,
  loss: asked.loss / 100,
  duplicate: asked.duplicate / 100,
  reorder: asked.reorder / 100
})

describe("a simulated market", () => {
  it.prop(
    "is the same for the same seed, however it is stepped",
    [Asked],
    ([asked]) => {
      const show = ({ options, packets }: ReturnType<typeof play>) =>
        packets.map((p) => encodePacket(p, options, "run"))
      assert.deepStrictEqual(show(play(shares(asked), 1, 10_000)), show(play(shares(asked), 1, 137_777)))
    },
    { arbitrary: { runs: 20 } }
  )

  it("is another for another seed", () => {
    const prices = (seed: number) => play({ seed }, 1).packets.map((p) => p.tick.price)
    assert.notDeepEqual(prices(1), prices(2))
  })

  it.prop(
    "accounts in its ledger for every packet and every tick",
    [Asked],
    ([asked]) => {
      const { ledger, market, packets } = play(shares(asked), 2)
      const { counts } = market
      assert.strictEqual(ledger.length, counts.ticks)
      assert.strictEqual(new Set(ledger.map(id)).size, counts.ticks)
      const arrived = (feed: string) => new Set(packets.filter((p) => p.feed === feed).map((p) => id(p.tick)))
      const reached = (feed: "dma" | "snapshot") => new Set(ledger.filter((t) => t[feed]).map(id))
      assert.deepStrictEqual(reached("dma"), arrived("dma"))
      assert.deepStrictEqual(reached("snapshot"), arrived("snapshot"))
      assert.strictEqual(dmaOf(packets).length, counts.dmaSent)
      assert.strictEqual(snapshotOf(packets).length, counts.snapshotSent)
      assert.strictEqual(counts.dmaSent, counts.ticks - counts.dmaLost + counts.dmaDuplicated)
      assert.strictEqual(reached("dma").size, counts.ticks - counts.dmaLost)
    },
    { arbitrary: { runs: 30 } }
  )

  it.prop(
    "numbers each instrument from 1, and its first and last numbers reach the DMA feed",
    [Asked],
    ([asked]) => {
      const { ledger } = play(shares(asked), 2)
      for (const ticks of byToken(ledger, (t) => t.instrument_token).values()) {
        const sorted = ticks.toSorted((a, b) => a.sequence_id - b.sequence_id)
        assert.deepStrictEqual(
          sorted.map((t) => t.sequence_id),
          sorted.map((_, i) => i + 1)
        )
        assert.isTrue(sorted[0]!.dma && sorted.at(-1)!.dma)
        for (let i = 1; i < sorted.length; i++) assert.isAbove(sorted[i]!.exchange_ts, sorted[i - 1]!.exchange_ts)
        let total = 0
        for (const tick of sorted) {
          total += tick.volume
          assert.strictEqual(tick.day_volume, total)
        }
      }
    },
    { arbitrary: { runs: 20 } }
  )

  it.prop(
    "resets each instrument once a feed, in its first packet, DMA before snapshot",
    [Asked],
    ([asked]) => {
      const { packets } = play(shares(asked), 2)
      for (const own of byToken(packets, (p) => p.tick.instrument_token).values()) {
        assert.strictEqual(own[0]!.feed, "dma")
        for (const feed of [dmaOf(own), snapshotOf(own)]) {
          assert.deepStrictEqual(
            feed.map((p) => p.reset),
            feed.map((_, i) => i === 0)
          )
        }
      }
    },
    { arbitrary: { runs: 20 } }
  )

  it("sends every tick once and in order where nothing goes wrong", () => {
    const { ledger, market, packets } = play({ loss: 0, duplicate: 0, reorder: 0 }, 3)
    for (const own of byToken(dmaOf(packets), (p) => p.tick.instrument_token).values()) {
      assert.deepStrictEqual(
        own.map((p) => p.tick.sequence_id),
        own.map((_, i) => i + 1)
      )
    }
    assert.isTrue(ledger.every((t) => t.dma))
    assert.strictEqual(market.counts.snapshotLost + market.counts.dmaReordered + market.counts.dmaDuplicated, 0)
  })

  it("loses, doubles and reorders about as many as asked", () => {
    const { market, packets, ticksBeforeClose } = play({ loss: 0.05, duplicate: 0.1, reorder: 0.1 }, 20)
    const { counts } = market
    assert.approximately(counts.dmaLost / ticksBeforeClose, 0.05, 0.01)
    assert.approximately(counts.dmaDuplicated / ticksBeforeClose, 0.1, 0.01)
    // Held packets of quiet instruments go out before another comes.
    assert.isAbove(counts.dmaReordered / ticksBeforeClose, 0.04)
    let falls = 0
    const highest = new Map<number, number>()
    const seen = new Set<string>()
    for (const { tick } of dmaOf(packets)) {
      if (seen.has(id(tick))) continue
      seen.add(id(tick))
      const before = highest.get(tick.instrument_token) ?? 0
      if (tick.sequence_id < before) falls += 1
      highest.set(tick.instrument_token, Math.max(before, tick.sequence_id))
    }
    assert.strictEqual(falls, counts.dmaReordered)
  })

  it("conflates on the snapshot feed: the newest tick of each interval, later by the delay", () => {
    const { options, packets } = play({ loss: 0, delayMs: 50, rate: 5000, symbols: 5 }, 2)
    const snapshots = snapshotOf(packets)
    const slots = new Set(
      snapshots.map((p) => `${p.tick.instrument_token} ${Math.ceil((p.tick.exchange_ts - BEGUN_AT) / 100_000)}`)
    )
    // The closing tick of an instrument may share an interval with its last snapshot.
    assert.isAtLeast(slots.size, snapshots.length - options.symbols)
    assert.isAtMost(snapshots.length, 21 * options.symbols)
    let newest = 0
    for (const packet of packets) {
      if (packet.feed === "dma") newest = Math.max(newest, packet.tick.exchange_ts)
      else if (packet.tick.sequence_id > 1) assert.isAtLeast(newest - packet.tick.exchange_ts, 0)
    }
  })

  it("means exactly its rate each second, after an opening in which every instrument ticks", () => {
    const { ledger, ticksBeforeClose } = play({ rate: 777, symbols: 200 }, 10)
    assert.strictEqual(ticksBeforeClose, 7770)
    assert.strictEqual(new Set(ledger.slice().map((t) => t.instrument_token)).size, 200)
    const perSecond = Map.groupBy(
      ledger.filter((t) => t.sequence_id > 0),
      (t) => Math.floor((t.exchange_ts - BEGUN_AT) / 1_000_000)
    )
    for (let second = 1; second < 9; second++) assert.approximately(perSecond.get(second)!.length, 777, 3)
  })

  it("comes in bursts of several times the mean, and mostly on few instruments", () => {
    const { ledger } = play({ rate: 2000 }, 20)
    const slots = [...Map.groupBy(ledger, (t) => Math.floor((t.exchange_ts - BEGUN_AT) / 20_000)).values()]
    assert.isAbove(Math.max(...slots.slice(10, -2).map((ticks) => ticks.length)), 3 * 40)
    const counts = [...byToken(ledger, (t) => t.instrument_token).values()].map((t) => t.length).sort((a, b) => b - a)
    assert.isAbove(counts[0]! / counts.at(-1)!, 8)
  })

  it("prices on the tick grid, near where each instrument began, moving together", () => {
    const { ledger } = play({ rate: 3000, symbols: 10 }, 30)
    const changes: Array<Array<number>> = []
    for (const own of byToken(ledger, (t) => t.instrument_token).values()) {
      const ticks = own.toSorted((a, b) => a.sequence_id - b.sequence_id)
      for (const { price } of ticks) {
        assert.isAbove(price, 0)
        assert.strictEqual(Math.round(price * 20) / 20, price)
      }
      assert.isAbove(new Set(ticks.map((t) => t.price)).size, 3)
      assert.approximately(ticks.at(-1)!.price / ticks[0]!.price, 1, 0.05)
      const closes = Array.from({ length: 30 }, (_, s) =>
        Math.log(ticks.findLast((t) => t.exchange_ts <= BEGUN_AT + (s + 1) * 1_000_000)!.price)
      )
      changes.push(closes.slice(1).map((x, i) => x - closes[i]!))
    }
    const mean = (xs: ReadonlyArray<number>) => xs.reduce((a, b) => a + b, 0) / xs.length
    const correlation = (a: ReadonlyArray<number>, b: ReadonlyArray<number>) => {
      const [ma, mb] = [mean(a), mean(b)]
      const cross = mean(a.map((x, i) => (x - ma) * (b[i]! - mb)))
      return cross / Math.sqrt(mean(a.map((x) => (x - ma) ** 2)) * mean(b.map((x) => (x - mb) ** 2)))
    }
    const pairs = changes.flatMap((a, i) => changes.slice(i + 1).map((b) => correlation(a, b)))
    assert.isAbove(mean(pairs), 0.05)
  })

  it("sends raw ticks that the platform takes, with or without the exchange's numbers", () => {
    for (const snapshotSequence of ["exchange", "none"] as const) {
      const { options, packets } = play({ snapshotSequence }, 1)
      for (const packet of packets) {
        const read = readRawTick(JSON.parse(encodePacket(packet, options, "r1")))
        assert.isObject(read)
        if (typeof read === "string") continue
        const { tick } = packet
        const numbered = packet.feed === "dma" || snapshotSequence === "exchange"
        assert.deepStrictEqual(read, {
          instrument_token: tick.instrument_token,
          exchange_ts: tick.exchange_ts,
          price: tick.price,
          feed: packet.feed,
          volume: numbered ? tick.volume : 0,
          day_volume: numbered ? -1 : tick.day_volume,
          sequence_id: numbered ? tick.sequence_id : undefined,
          sequencing: numbered ? "contiguous" : "none",
          reset: packet.reset,
          connection: `sim-r1-${packet.feed}`,
          occurrence: 0,
          received_ts: 0,
          session: -1
        })
      }
    }
  })

  it("writes its ledger as raw fields and the feeds that were reached", () => {
    const { ledger } = play({}, 1)
    const lost = ledger.find((t) => !t.dma && !t.snapshot)
    const both = ledger.find((t) => t.dma && t.snapshot)
    assert.isDefined(lost)
    assert.isDefined(both)
    assert.deepStrictEqual(JSON.parse(encodeLedgerLine(lost!)).reached, [])
    const { exchange_ts, instrument_token, price, sequence_id, volume } = both!
    assert.deepStrictEqual(JSON.parse(encodeLedgerLine(both!)), {
      instrument_token,
      exchange_ts,
      price,
      volume,
      sequence_id,
      reached: ["dma", "snapshot"]
    })
  })
})
