import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Segment } from "../../../src/schema/Sessions.ts"
import { Hub, sweep } from "../../../src/streams/fanOut/Hub.ts"
import { LEAST_SILENCE, LONGEST_SILENCE, Silence, UNKNOWN_SILENCE } from "../../../src/streams/fanOut/Silence.ts"
import { BarClient, BarWorld, MINUTE, OPEN, SECOND } from "../../support/barWorld.ts"
import { FakeSocket, hubSettings, randomFrom, tickOf } from "../../support/hub.ts"

const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** A market by the hours of these segments, and one client that wants the states. */
const market = (segments: Readonly<Record<number, Segment>>, now: number) => {
  const world = new BarWorld({ now, hub: { segment: (token) => segments[token] } })
  const client = world.connect()
  const states = (token: number) =>
    client.of("state").flatMap((m) => (m.instrument_token === token ? [[m.state, m.since]] : []))
  /** Ticks so far apart, and a look at each second between them. */
  const trade = (token: number, gap: number, count: number) => {
    for (let i = 0; i < count; i++) {
      pass(gap)
      world.tick(token, world.now)
    }
  }
  const pass = (micros: number) => {
    for (const end = world.now + micros; world.now < end; ) {
      world.now = Math.min(end, world.now + SECOND)
      world.sweep()
    }
  }
  return { world, client, states, trade, pass }
}

describe("the state of an instrument", () => {
  it("is told on subscribe and on each change: live, stale after more silence than is usual, live with the next tick", () => {
    const { world, client, states, trade, pass } = market({ 1: "NSE_EQ" }, OPEN)
    trade(1, SECOND, 60)
    client.subscribe(1, ["state"])
    assert.deepStrictEqual(states(1), [["live", OPEN]])
    const last = world.now
    pass(5 * SECOND)
    assert.strictEqual(states(1).length, 1)
    pass(5 * SECOND)
    assert.deepStrictEqual(states(1).slice(1), [["stale", last]])
    pass(60 * SECOND)
    assert.strictEqual(states(1).length, 2)
    world.tick(1, world.now)
    assert.deepStrictEqual(states(1).slice(2), [["live", world.now]])
    trade(1, SECOND, 60)
    assert.strictEqual(states(1).length, 3)
  })

  it("is judged by how often the instrument itself trades", () => {
    const { client, states, trade, pass } = market({ 1: "NSE_EQ", 2: "NSE_EQ" }, OPEN)
    trade(1, SECOND, 120)
    trade(2, 30 * MINUTE, 10)
    client.subscribe(2, ["state"])
    pass(55 * MINUTE)
    assert.deepStrictEqual(
      states(2).map(([state]) => state),
      ["live"]
    )
    pass(6 * MINUTE)
    assert.deepStrictEqual(
      states(2).map(([state]) => state),
      ["live", "stale"]
    )
  })

  it("is closed outside the hours of its own segment, and live again where they begin", () => {
    const friday = OPEN
    const { world, client, states, trade, pass } = market({ 1: "NSE_EQ", 2: "MCX", 3: "SIM" }, friday + 374 * MINUTE)
    for (const token of [1, 2, 3]) trade(token, SECOND, 10)
    for (const token of [1, 2, 3]) client.subscribe(token, ["state"])
    const closes = friday + 375 * MINUTE
    pass(2 * MINUTE)
    assert.deepStrictEqual(states(1).at(-1), ["closed", closes])
    // What trades after hours is no news of the market.
    world.tick(1, world.now)
    assert.deepStrictEqual(states(1).at(-1), ["closed", closes])
    assert.notStrictEqual(states(2).at(-1)![0], "closed")
    assert.notStrictEqual(states(3).at(-1)![0], "closed")
    // The closing session from 15:40, the weekend, and the pre-open of Monday.
    pass(20 * MINUTE)
    assert.deepStrictEqual(states(1).at(-1), ["live", friday + 385 * MINUTE])
    pass(40 * MINUTE)
    assert.deepStrictEqual(states(1).at(-1), ["closed", friday + 405 * MINUTE])
    world.now = friday + 3 * DAY - 16 * MINUTE
    world.sweep()
    assert.deepStrictEqual(states(1).at(-1), ["closed", friday + 405 * MINUTE])
    world.now += 2 * MINUTE
    world.sweep()
    assert.deepStrictEqual(states(1).at(-1), ["live", friday + 3 * DAY - 15 * MINUTE])
    assert.deepStrictEqual(
      states(3)
        .map(([state]) => state)
        .includes("closed"),
      false
    )
  })

  it("is closed on a holiday, since the last session before it", () => {
    // 2026-01-26, a Monday; the Friday before it closes at 16:00.
    const republicDay = OPEN + 10 * DAY
    const { client, states } = market({ 1: "NSE_EQ" }, republicDay + HOUR)
    client.subscribe(1, ["state"])
    assert.deepStrictEqual(states(1), [["closed", republicDay - 3 * DAY + 405 * MINUTE]])
  })

  it("does not take the silence of a night or an auction for a usual one", () => {
    const { world, client, states, trade, pass } = market({ 1: "NSE_EQ" }, OPEN + 300 * MINUTE)
    trade(1, SECOND, 100)
    world.now = OPEN + 3 * DAY - 10 * MINUTE
    world.tick(1, world.now)
    world.now = OPEN + 3 * DAY
    world.tick(1, world.now)
    client.subscribe(1, ["state"])
    pass(10 * SECOND)
    assert.deepStrictEqual(
      states(1).map(([state]) => state),
      ["live", "stale"]
    )
  })

  it("is stale where nothing has come since trading began", () => {
    const { world, client, states, trade, pass } = market({ 1: "NSE_EQ" }, OPEN)
    trade(1, SECOND, 100)
    world.now = OPEN + 3 * DAY - 10 * MINUTE
    client.subscribe(1, ["state"])
    pass(11 * MINUTE)
    assert.deepStrictEqual(states(1).slice(1), [["stale", OPEN + 3 * DAY]])
  })

  it("of instruments whose hours nobody knows is never closed, and of one never heard stale only after a while", () => {
    const { world, client, states, trade, pass } = market({}, OPEN + 900 * MINUTE)
    trade(1, SECOND, 20)
    client.subscribe(1, ["state"])
    client.subscribe(2, ["state"])
    pass(15 * MINUTE)
    assert.deepStrictEqual(
      [1, 2].map((token) => states(token).map(([state]) => state)),
      [
        ["live", "stale"],
        ["live", "stale"]
      ]
    )
    world.tick(2, world.now)
    assert.strictEqual(states(2).at(-1)![0], "live")
  })

  it("goes by when ticks come, whatever their feed's clock says", () => {
    const { world, client, states, pass } = market({ 1: "NSE_EQ" }, OPEN + HOUR)
    for (let i = 0; i < 30; i++) {
      pass(SECOND)
      world.tick(1, world.now - 2 * HOUR, { received_ts: world.now - 2 * HOUR })
    }
    client.subscribe(1, ["state"])
    pass(3 * SECOND)
    assert.deepStrictEqual(
      states(1).map(([state]) => state),
      ["live"]
    )
  })

  it("takes what lay in the log before a server began for as old as it is", () => {
    const { world, client, states } = market({ 1: "NSE_EQ" }, OPEN)
    for (let i = 0; i < 60; i++) {
      world.now += SECOND
      world.add(1, world.now)
    }
    const last = world.now
    world.now += MINUTE
    const bookmark = { partition: 0, incarnation: "log", offset: 60, mark: undefined }
    for (let i = 0; i < 60; i++) {
      world.hub.publish([world.log[i]!], world.recordedAt[i]!, { bookmark, isBehind: true })
    }
    client.subscribe(1, ["state"])
    assert.deepStrictEqual(states(1), [["stale", last]])
  })

  it("reaches a slow client as it is when it reads, and who comes later as it is then", () => {
    const { world, client: slow, trade, pass } = market({ 1: "NSE_EQ" }, OPEN)
    trade(1, SECOND, 60)
    slow.subscribe(1, ["state"])
    slow.socket.waiting = 1e6
    pass(MINUTE)
    world.tick(1, world.now)
    pass(MINUTE)
    const stale = world.now - MINUTE
    slow.socket.waiting = 0
    slow.client.flush()
    assert.deepStrictEqual(
      slow.of("state").map((m) => [m.state, m.since]),
      [
        ["live", OPEN],
        ["stale", stale]
      ]
    )
    const late = world.connect()
    late.subscribe(1, ["state"])
    assert.deepStrictEqual(
      late.of("state").map((m) => [m.state, m.since]),
      [["stale", stale]]
    )
  })

  it("of a replay goes by its clock", () => {
    const world = new BarWorld({ now: OPEN + 30 * DAY, hub: { segment: () => "NSE_EQ" } })
    const channel = world.hub.open("r")
    const socket = new FakeSocket({ fast: true })
    const client = world.hub.connect(socket)
    client.join(channel)
    const listener = new BarClient(socket, client)
    listener.subscribe(1, ["state"])
    assert.deepStrictEqual(listener.of("state"), [])
    for (let i = 1; i <= 60; i++) {
      const exchange_ts = OPEN + i * SECOND
      channel.publish([tickOf(1, 20_469_000_000_000, i, { exchange_ts })])
      channel.clock(1, exchange_ts, "running")
    }
    channel.clock(1, OPEN + 90 * SECOND, "running")
    channel.clock(1, OPEN + 376 * MINUTE, "running")
    assert.deepStrictEqual(
      listener.of("state").map((m) => [m.state, m.since]),
      [
        ["live", OPEN + SECOND],
        ["stale", OPEN + 60 * SECOND],
        ["closed", OPEN + 375 * MINUTE]
      ]
    )
  })

  it.effect("is looked at each second by the server's clock, with the bars that end on one", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(OPEN / 1000)
      const clock = yield* Effect.clockWith(Effect.succeed)
      const hub = new Hub({
        settings: hubSettings,
        time: () => clock.currentTimeMillisUnsafe() * 1000,
        segment: () => "NSE_EQ"
      })
      const fiber = yield* Effect.forkChild(sweep(hub))
      const socket = new FakeSocket({ fast: true })
      const client = hub.connect(socket)
      client.join(hub.live)
      const listener = new BarClient(socket, client)
      listener.subscribe(1, ["candle_1m", "state"])
      yield* TestClock.adjust("59 seconds")
      hub.publish([tickOf(1, 20_469_000_000_000, 1, { exchange_ts: OPEN + 59 * SECOND })])
      assert.deepStrictEqual(
        listener.candles().map(({ final }) => final),
        [false]
      )
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(listener.candles().length, 1)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(
        listener.candles().map(({ final }) => final),
        [false, true]
      )
      yield* TestClock.adjust("11 minutes")
      assert.deepStrictEqual(
        listener.of("state").map(({ state }) => state),
        ["live", "stale"]
      )
      yield* Fiber.interrupt(fiber)
    })
  )
})

describe("a silence", () => {
  const usualAfter = (gaps: ReadonlyArray<number>): number => {
    const silence = new Silence()
    let at = OPEN
    for (const gap of [0, ...gaps]) {
      at += gap
      if (silence.hear(at)) silence.count(at, () => false)
    }
    return silence.usual
  }

  it("is usual up to some seconds for whatever ticks all the time, and up to a bound for what hardly does", () => {
    assert.strictEqual(usualAfter(Array.from({ length: 1000 }, () => 10_000)), LEAST_SILENCE)
    assert.strictEqual(usualAfter(Array.from({ length: 50 }, () => 50 * MINUTE)), LONGEST_SILENCE)
    assert.strictEqual(usualAfter([]), UNKNOWN_SILENCE)
    assert.strictEqual(usualAfter([SECOND, SECOND]), UNKNOWN_SILENCE)
  })

  it("is not met by chance: one in a thousand gaps of an instrument that trades at random is longer", () => {
    for (const mean of [1, 7, 40]) {
      const random = randomFrom(mean)
      const gap = () => Math.ceil(-Math.log(1 - random.next()) * mean * SECOND)
      const silence = new Silence()
      let at = OPEN
      let longer = 0
      for (let i = 0; i < 20_000; i++) {
        const next = gap()
        if (i > 50 && next > silence.usual) longer++
        at += next
        if (silence.hear(at)) silence.count(at, () => false)
      }
      assert.isAtMost(longer, 40, `mean ${mean}`)
      assert.isAtMost(silence.usual, Math.max(10, 20 * mean) * SECOND, `mean ${mean}`)
    }
  })

  it("of who trades twice an hour is not found unusual for a cluster of ticks", () => {
    const gaps = Array.from({ length: 12 }, (_, i) => [30 * MINUTE, SECOND, 200_000, SECOND, 2 * SECOND][i % 5]!)
    assert.isAbove(usualAfter(gaps), 35 * MINUTE)
  })
})
