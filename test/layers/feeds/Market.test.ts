import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import {
  encodeLedgerLine,
  encodePacket,
  Market,
  type MeantTick,
  type Packet
} from "../../../src/layers/feeds/Market.ts"
import { type QuoteState, readQuote } from "../../../src/schema/Quote.ts"
import { readRawTick } from "../../../src/schema/RawTick.ts"
import { defaultSimulation, type Simulation, simulatedInstruments } from "../../../src/schema/Simulation.ts"

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

  it("has the ticks that it had before its snapshots had quotes", () => {
    const ticksOf = (asked: Partial<Simulation>) => {
      const hash = createHash("sha256")
      for (const { feed, reset, tick: t } of play(asked, 2).packets) {
        const what = [feed, reset, t.instrument_token, t.exchange_ts, t.price, t.volume, t.day_volume, t.sequence_id]
        hash.update(JSON.stringify(what))
      }
      return hash.digest("hex")
    }
    const other = { seed: 7, symbols: 120, rate: 3000, loss: 0.05, duplicate: 0.1, reorder: 0.1 }
    assert.strictEqual(ticksOf({}), "e327180d87cc33ec2a480e0c41c06a00656cd594bc4c67004316c96b2d3d5f2f")
    assert.strictEqual(
      ticksOf({ ...other, snapshotSequence: "none" }),
      "aa730ced9f3c61e3bf3d6bc6772a738132c9ce270117540180cb1a31e9cebfef"
    )
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

  it.prop(
    "says beside each snapshot a book of five levels around its price, and the day so far",
    [Asked],
    ([asked]) => {
      const { ledger, options, packets } = play(shares(asked), 2)
      const instruments = new Map(simulatedInstruments(options.symbols).map((i) => [i.instrument_token, i]))
      const days = byToken(
        ledger.toSorted((a, b) => a.sequence_id - b.sequence_id),
        (t) => t.instrument_token
      )
      const circuits = new Map<number, string>()
      for (const packet of packets) {
        const { tick } = packet
        const { instrument_token: token, price } = tick
        const wire = JSON.parse(encodePacket(packet, options, "run"))
        if (packet.feed === "dma") {
          assert.isUndefined(wire.quote)
          continue
        }
        const quote = readQuote(wire.quote, wire.day_volume) as QuoteState
        assert.deepStrictEqual(quote, tick.quote)
        const { ask, bid } = quote as { readonly [N in "ask" | "bid"]: NonNullable<QuoteState["ask"]> }
        assert.isTrue(bid[0]![0] === price || ask[0]![0] === price)
        assert.isBelow(bid[0]![0], ask[0]![0])
        assert.isAtMost(ask[0]![0] - bid[0]![0], 0.16)
        for (const [side, step] of [
          [bid, -0.05],
          [ask, 0.05]
        ] as const) {
          assert.strictEqual(side.length, 5)
          for (const [level, [at, quantity, orders]] of side.entries()) {
            assert.strictEqual(at, Math.round((side[0]![0] + step * level) * 20) / 20)
            assert.isTrue(quantity >= orders && orders >= 1)
          }
          const total = side === bid ? quote.total_buy_quantity! : quote.total_sell_quantity!
          assert.isAbove(
            total,
            side.reduce((sum, [, quantity]) => sum + quantity, 0)
          )
        }
        const day = days.get(token)!.slice(0, tick.sequence_id)
        const prices = day.map((t) => t.price)
        const volume = day.reduce((sum, t) => sum + t.volume, 0)
        const turnover = day.reduce((sum, t) => sum + t.price * t.volume, 0)
        const { average_price, high, last_quantity, last_trade_ts, low, lower_circuit, open, upper_circuit } = quote
        assert.deepStrictEqual([open, high, low], [prices[0], Math.max(...prices), Math.min(...prices)])
        assert.deepStrictEqual([last_quantity, last_trade_ts], [tick.volume, tick.exchange_ts])
        assert.approximately(average_price!, turnover / volume, 0.0051)
        assert.strictEqual(quote.day_volume, options.snapshotSequence === "none" ? volume : undefined)
        const limits = `${lower_circuit} ${quote.previous_close} ${upper_circuit}`
        assert.strictEqual(limits, circuits.get(token) ?? limits)
        circuits.set(token, limits)
        assert.isTrue(lower_circuit! < price && price < upper_circuit!, limits)
        const { oi, oi_day_high, oi_day_low } = quote
        if (instruments.get(token)!.asset_class === "EQ") {
          assert.deepStrictEqual([oi, oi_day_high, oi_day_low], [undefined, undefined, undefined])
        } else assert.isTrue(oi_day_low! <= oi! && oi! <= oi_day_high! && oi! >= 0)
      }
    },
    { arbitrary: { runs: 10 } }
  )

  it("moves the open interest of its futures and options, and keeps the day's highest and lowest", () => {
    const { packets } = play({ rate: 3000 }, 5)
    const derived = simulatedInstruments(defaultSimulation.symbols).filter((i) => i.asset_class !== "EQ")
    for (const { instrument_token: token } of derived) {
      const quotes = snapshotOf(packets).flatMap(({ tick }) => (tick.instrument_token === token ? [tick.quote!] : []))
      assert.isAbove(new Set(quotes.map(({ oi }) => oi)).size, 3)
      for (let i = 1; i < quotes.length; i++) {
        const [before, now] = [quotes[i - 1]!, quotes[i]!]
        assert.strictEqual(now.oi_day_high, Math.max(before.oi_day_high!, now.oi!))
        assert.strictEqual(now.oi_day_low, Math.min(before.oi_day_low!, now.oi!))
      }
    }
  })

  it("writes its ledger as raw fields, the feeds that were reached, and the quote that stood beside the tick", () => {
    const { ledger } = play({}, 1)
    const lost = ledger.find((t) => !t.dma && !t.snapshot)
    const both = ledger.find((t) => t.dma && t.snapshot)
    assert.isDefined(lost)
    assert.isDefined(both)
    const line = JSON.parse(encodeLedgerLine(lost!))
    assert.deepStrictEqual(line.reached, [])
    const { exchange_ts, instrument_token, price, quote, sequence_id, volume } = both!
    const { quote: written, ...tick } = JSON.parse(encodeLedgerLine(both!))
    assert.deepStrictEqual(tick, {
      instrument_token,
      exchange_ts,
      price,
      volume,
      sequence_id,
      reached: ["dma", "snapshot"]
    })
    assert.deepStrictEqual(readQuote(written, written.day_volume), quote)
    for (const t of ledger) assert.strictEqual(t.snapshot, t.snapshot && t.quote !== undefined)
  })
})
