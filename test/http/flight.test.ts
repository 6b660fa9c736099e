import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ClientLog } from "../../src/http/clientLog.ts"
import { Flight, PONG_MS } from "../../src/http/flight.ts"
import { MESSAGE_BURST } from "../../src/http/session.ts"
import { type Policy, tickFrame } from "../../src/schema/Protocol.ts"
import { EPOCH, randomFrom, tickOf } from "../support/hub.ts"
import { type ThrottledClient, throttledClient } from "../support/throttledClient.ts"
import { serve } from "../support/webSocketServer.ts"

describe("what is on its way to a client", () => {
  it("is what was handed over after the newest ping that it has answered: a window of it, for a while, and it is behind", () => {
    const random = randomFrom(7)
    for (let round = 0; round < 200; round++) {
      const window = 1024 + random.below(100_000)
      /** Where every step takes longer than a pong may, it is bytes alone that count. */
      const step = random.chance(0.5) ? PONG_MS : 20
      let time = 0
      /** All that was handed over, and where each ping stands in it. */
      let handed = 0
      let largest = 0
      let pings: Array<{ readonly payload: string; readonly at: number; readonly time: number }> = []
      let read = 0
      let answered = 0
      const flight = new Flight(
        window,
        (payload) => pings.push({ payload, at: handed, time }),
        () => time
      )
      for (let i = 0; i < 400; i++) {
        time += step
        if (random.chance(0.7) && !flight.isFull) {
          const bytes = 1 + random.below(2000)
          largest = Math.max(largest, bytes)
          handed += bytes
          flight.add(bytes)
        } else {
          read = Math.min(handed, read + random.below(window))
          // As a WebSocket may: the newest that it has read alone, or all of them.
          const due = pings.filter(({ at }) => at <= read)
          pings = pings.filter(({ at }) => at > read)
          for (const { payload, at } of random.chance(0.5) ? due.slice(-1) : due) {
            if (!flight.answered(payload)) assert.fail(payload)
            answered = at
          }
        }
        const isBehind = handed - answered >= window && time - (pings[0]?.time ?? time) >= PONG_MS
        if (flight.isFull !== isBehind) assert.fail(`full: ${flight.isFull}`)
        if (step === PONG_MS && handed - read >= window + largest) assert.fail(`${handed - read} to be read`)
        // Whoever has read all may have most of a window: it is never behind for want of a ping.
        if (step === PONG_MS && read === handed && handed - answered >= window / 2 + largest)
          assert.fail(`${handed - answered} not asked for`)
      }
    }
  })

  it("is not less for a pong that nobody asked for, that comes twice, or too early", () => {
    const pings: Array<string> = []
    let time = 0
    const flight = new Flight(
      1000,
      (payload) => pings.push(payload),
      () => time
    )
    for (const payload of ["", "1", "0", "end", "NaN", "1e3"]) assert.isFalse(flight.answered(payload))
    flight.add(999)
    assert.deepStrictEqual(pings, ["1"])
    assert.isFalse(flight.answered("2"))
    assert.isFalse(flight.answered("01"))
    flight.add(1)
    assert.isFalse(flight.isFull)
    time += PONG_MS
    assert.isTrue(flight.isFull)
    assert.isTrue(flight.answered("1"))
    assert.isFalse(flight.isFull)
    assert.isFalse(flight.answered("1"))
    flight.add(999)
    time += PONG_MS
    assert.isTrue(flight.isFull)
  })
})

const WINDOW = 65_536
const CAPACITY = 100
const TOKENS = 5
/** Positions of each instrument in a publish. */
const EACH = 4
const tokens = Array.from({ length: TOKENS }, (_, i) => i + 1)
/** More than the kernels hold, some 6 MB. */
const ROUNDS = 4000
const PUBLISH_BYTES = TOKENS * EACH * (tickFrame(tickOf(1, EPOCH, 10_000)).length + 4)
/** One that reads a quarter of what comes. */
const READ_BYTES = Math.floor(PUBLISH_BYTES / 4)
/** A window of frames on the wire, their heads and pings included: the shortest frames have some 80 bytes. */
const WINDOW_ON_WIRE = WINDOW * 1.1

/** A server with a market that goes on, and a client that reads a little of it. */
const market = (
  policy: Policy,
  options: { readonly batch?: boolean; readonly answers?: boolean; readonly buffer?: number } = {}
) =>
  Effect.gen(function* () {
    const ended: Array<string> = []
    let evicted = 0
    let isToldOf = false
    let time = 0
    const server = yield* serve({
      hub: { RING_TICKS: 100_000, CLIENT_BUFFER_BYTES: options.buffer ?? 65_536 },
      limits: { CLIENT_FLIGHT_BYTES: WINDOW },
      now: () => time,
      log: new ClientLog((line) => {
        isToldOf ||= line.includes("4001")
      }),
      observer: {
        evicted: (n) => {
          evicted += n
        }
      },
      counts: { ended: (why) => ended.push(why), upgradeRefused: () => undefined, messageRefused: () => undefined }
    })
    const client = yield* throttledClient(server.port, options.answers)
    client.send({ action: "subscribe", tokens, policy, capacity: CAPACITY, batch: options.batch ?? false })
    yield* client.readUntil(({ checker }) => checker.backfills === TOKENS)
    let position = 0
    return {
      client,
      hub: server.hub,
      ended,
      /** The server has decided that it is too slow. */
      isSlow: () => isToldOf,
      evicted: () => evicted,
      position: () => position,
      /** What was published before could have been answered by now, unless told otherwise. */
      publish: (ms = PONG_MS) => {
        time += ms
        for (let i = 0; i < EACH; i++) {
          position++
          server.hub.publish(tokens.map((token) => tickOf(token, EPOCH, position)))
        }
      }
    }
  })

const newest = ({ checker }: ThrottledClient): number => Math.max(...tokens.map((t) => checker.place(t)?.position ?? 0))
/** Lets what is under way between server and client arrive. */
const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

describe("a client that reads a quarter of what comes", { timeout: 20_000 }, () => {
  for (const policy of ["conflate", "evict-oldest"] as const) {
    for (const batch of [false, true]) {
      it.live(
        `reads ticks that lie at most a window and its queue behind: ${policy}${batch ? ", in arrays" : ""}`,
        () =>
          Effect.scoped(
            Effect.gen(function* () {
              const { client, evicted, position, publish } = yield* market(policy, { batch })
              // What is published while a window is read, and what waited before it was handed over.
              const most = Math.ceil(WINDOW_ON_WIRE / READ_BYTES) * EACH + CAPACITY / TOKENS + EACH
              let worst = 0
              for (let round = 0; round < ROUNDS; round++) {
                publish()
                yield* client.read(READ_BYTES)
                worst = Math.max(worst, position() - newest(client))
              }
              assert.isAtMost(worst, most, `positions behind, of ${position()}`)
              yield* client.readUntil(({ checker }) => tokens.every((t) => checker.place(t)?.position === position()))
              assert.strictEqual(client.checker.ticks + client.checker.evicted, position() * TOKENS)
              assert.strictEqual(client.checker.evicted, evicted())
              assert.isAbove(evicted(), (position() * TOKENS) / 2)
            })
          )
      )
    }
  }

  it.live("is paused a window behind, and loses nothing", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { client, evicted, hub, position, publish } = yield* market("pause")
        while (hub.pausedClients === 0) {
          publish()
          yield* client.read(READ_BYTES)
        }
        assert.isAtMost(position(), Math.ceil((WINDOW_ON_WIRE / READ_BYTES) * 2) * EACH + CAPACITY / TOKENS)
        yield* client.readUntil(({ checker }) => tokens.every((t) => checker.place(t)?.position === position()))
        assert.strictEqual(client.checker.ticks + client.checker.backfilled, position() * TOKENS)
        assert.strictEqual(evicted(), 0)
      })
    )
  )

  it.live("is told that it is closed and why, with its places, within a window of what it has yet to read", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { client, ended, isSlow, publish } = yield* market("disconnect")
        while (!isSlow()) {
          publish()
          yield* client.read(READ_BYTES)
        }
        let read = 0
        while (client.closed === undefined && !client.isOver) {
          yield* client.read(READ_BYTES)
          read += READ_BYTES
        }
        assert.strictEqual(client.closed?.code, 4001)
        assert.deepStrictEqual(ended, ["slow"])
        const last = client.messages.at(-1)
        assert.strictEqual(last?.type, "closing")
        // Where the rule checker saw each stream end is where it is told to go on.
        assert.deepStrictEqual(last?.type === "closing" && last.since, client.checker.since())
        assert.isAtMost(read, WINDOW_ON_WIRE + 1024)
      })
    )
  )
})

describe("a client that reads", { timeout: 20_000 }, () => {
  for (const policy of ["evict-oldest", "disconnect"] as const) {
    it.live(`is not behind for what comes at once, however much: ${policy}`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { client, ended, evicted, hub, position, publish } = yield* market(policy, { buffer: 10_000_000 })
          for (let burst = 0; burst < 5; burst++) {
            for (let bytes = 0; bytes < 8 * WINDOW; bytes += PUBLISH_BYTES) publish(0)
            assert.strictEqual(hub.held.ticks, 0)
            yield* client.readUntil(({ checker }) => tokens.every((t) => checker.place(t)?.position === position()))
          }
          assert.strictEqual(client.checker.ticks, position() * TOKENS)
          assert.strictEqual(evicted(), 0)
          assert.deepStrictEqual(ended, [])
        })
      )
    )
  }
})

describe("pongs", { timeout: 20_000 }, () => {
  it.live("that were asked for are no messages of the client's: whoever reads fast is not ended for them", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { client, ended, evicted, position, publish } = yield* market("evict-oldest")
        while (client.pings.length < 3 * MESSAGE_BURST && !client.isOver) {
          publish()
          yield* client.readUntil(({ checker }) => tokens.every((t) => checker.place(t)?.position === position()))
        }
        assert.deepStrictEqual(ended, [])
        assert.strictEqual(evicted(), 0)
      })
    )
  )

  it.live("that nobody asked for count as messages, and get a client nothing", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { client, ended, evicted, hub, publish } = yield* market("evict-oldest", { answers: false })
        for (let i = 0; i < 100; i++) publish()
        assert.isAbove(evicted(), 0)
        assert.strictEqual(hub.behindClients, 1)
        for (let i = 0; i <= MESSAGE_BURST; i++) client.pong(`${1000 + i}`)
        while (hub.held.ticks > 0) {
          assert.deepStrictEqual(hub.held, { ticks: CAPACITY, bytes: hub.held.bytes })
          assert.strictEqual(hub.behindClients, 1)
          yield* turn
        }
        yield* client.readUntil(({ pings }) => pings.includes("end"))
        client.pong("end")
        yield* client.readUntil(({ closed }) => closed !== undefined)
        assert.strictEqual(client.closed?.code, 1008)
        assert.deepStrictEqual(ended, ["too_many_messages"])
      })
    )
  )
})
