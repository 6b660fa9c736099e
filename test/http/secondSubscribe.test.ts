/**
 * What becomes of `since` and `backfill` on an instrument that is or was subscribed, of a place that nobody has yet, and of
 * a backfill that cannot be had whole: each case with what is answered and all that is told.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Tick } from "../../src/schema/Tick.ts"
import { Hub } from "../../src/streams/fanOut/Hub.ts"
import type { History } from "../../src/streams/fanOut/history.ts"
import type { HubSettings } from "../../src/streams/fanOut/parts.ts"
import { historyFrom, settle } from "../support/history.ts"
import { EPOCH, hubSettings, NOW, tickOf } from "../support/hub.ts"
import { Conversation } from "../support/session.ts"

type Place = readonly [epoch: number, position: number]

interface World {
  readonly hub: Hub
  readonly all: Map<number, Array<Tick>>
}

const run = (from: number, to: number, epoch = EPOCH): Array<Tick> =>
  Array.from({ length: to - from + 1 }, (_, i) => tickOf(1, epoch, from + i))

const remember = ({ all }: World, ticks: ReadonlyArray<Tick>) => all.set(1, [...(all.get(1) ?? []), ...ticks])
const publish = (world: World, ticks: ReadonlyArray<Tick>) => {
  remember(world, ticks)
  world.hub.publish(ticks)
}

/** `history` plays Redis with so many ticks, and a store with all but the newest so many. */
const make = (
  settings: Partial<HubSettings> = {},
  history?: { readonly ring: number; readonly lag?: number; readonly up?: () => boolean }
): World => {
  const all = new Map<number, Array<Tick>>()
  const { ring = 0, lag = 0, up = () => true } = history ?? {}
  const outside: { history?: History } =
    history === undefined ? {} : { history: historyFrom(all, { ring, store: () => lag, up }).history }
  const hub = new Hub({ settings: { ...hubSettings, ...settings }, now: () => NOW, graceMs: 0, ...outside })
  return { hub, all }
}

interface Step {
  /** What happens before it. */
  readonly before?: (world: World) => void
  readonly send: object
  /** What the instrument is answered: "accepted" or why it is not, and where the stream stands if that is told. */
  readonly answer?: readonly [string, Place?]
}

interface Case {
  readonly name: string
  readonly world: () => World
  readonly steps: ReadonlyArray<Step>
  /** What happens in the end. */
  readonly after?: (world: World) => void
  /** All that is told of the instrument but answers: [type, from, to], and of a backfill whether all before it was had. */
  readonly told: ReadonlyArray<readonly [string, number, number, boolean?]>
  /** Where the client's stream stood before it came. */
  readonly stood?: Place
}

const subscribe = (options: object = {}): object => ({ action: "subscribe", tokens: [1], ...options })
const since = (position: number, epoch = EPOCH) => ({ since: { 1: [epoch, position] } })
const unsubscribe = { action: "unsubscribe", tokens: [1] }
const ticking = (from: number, to: number) => (world: World) => publish(world, run(from, to))
const seen =
  (to: number, settings: Partial<HubSettings> = {}) =>
  () => {
    const world = make(settings)
    publish(world, run(1, to))
    return world
  }

const cases: ReadonlyArray<Case> = [
  {
    name: "subscribed: since where the stream stands goes on as it was",
    world: seen(20),
    steps: [
      { send: subscribe({ backfill: 5 }), answer: ["accepted"] },
      { before: ticking(21, 22), send: subscribe(since(22)), answer: ["accepted"] }
    ],
    after: ticking(23, 23),
    told: [
      ["backfill", 16, 20, true],
      ["tick", 21, 21],
      ["tick", 22, 22],
      ["backfill", 23, 22, true],
      ["tick", 23, 23]
    ]
  },
  {
    name: "subscribed: since older than what was sent is refused with where the stream stands",
    world: seen(20),
    steps: [
      { send: subscribe({ backfill: 5 }), answer: ["accepted"] },
      { before: ticking(21, 22), send: subscribe(since(21)), answer: ["already_subscribed", [EPOCH, 22]] },
      { send: subscribe(since(900, EPOCH - 60)), answer: ["already_subscribed", [EPOCH, 22]] }
    ],
    after: ticking(23, 23),
    told: [
      ["backfill", 16, 20, true],
      ["tick", 21, 21],
      ["tick", 22, 22],
      ["tick", 23, 23]
    ]
  },
  {
    name: "subscribed: since ahead of the stream is answered with where it stands, and goes on from there",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: subscribe(since(25)), answer: ["accepted", [EPOCH, 20]] },
      { send: subscribe(since(3, EPOCH + 60)), answer: ["accepted", [EPOCH, 20]] }
    ],
    after: ticking(21, 21),
    told: [
      ["backfill", 21, 20, true],
      ["backfill", 21, 20, false],
      ["backfill", 21, 20, false],
      ["tick", 21, 21]
    ]
  },
  {
    name: "subscribed: backfill is refused where ticks are on their way, and asked for with none it is not",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: subscribe({ backfill: 5 }), answer: ["already_subscribed", [EPOCH, 20]] },
      { send: subscribe({ backfill: 0 }), answer: ["accepted"] },
      // Since goes before backfill.
      { send: subscribe({ backfill: 5, ...since(20) }), answer: ["accepted"] },
      { send: subscribe({ channels: ["tick"] }), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 21, 20, true],
      ["backfill", 21, 20, true],
      ["backfill", 21, 20, true],
      ["backfill", 21, 20, true]
    ]
  },
  {
    name: "subscribed: backfill of an instrument that no tick has come of here is had from where it is known",
    world: () => make({}, { ring: 100 }),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      {
        before: (world) => remember(world, run(1, 30)),
        send: subscribe({ backfill: 5 }),
        answer: ["accepted"]
      }
    ],
    after: (world) => world.hub.publish(run(29, 31)),
    told: [
      ["backfill", 1, 0, true],
      ["backfill", 26, 30, true],
      ["tick", 31, 31]
    ]
  },
  {
    name: "subscribed: a backfill asked for while another is looked up takes its place, and both are answered",
    world: () => {
      const world = make({}, { ring: 100 })
      remember(world, run(1, 30))
      return world
    },
    steps: [{ send: [subscribe({ backfill: 2 }), subscribe({ backfill: 4 })], answer: ["accepted"] }],
    told: [
      ["backfill", 27, 30, true],
      ["backfill", 31, 30, true]
    ]
  },
  {
    name: "subscribed: since and backfill of one that wants gaps alone are as at first",
    world: seen(20),
    steps: [
      { send: subscribe({ channels: ["gap"] }), answer: ["accepted"] },
      { send: subscribe({ backfill: 3 }), answer: ["accepted"] },
      { send: subscribe({ channels: ["gap"] }), answer: ["accepted"] },
      { before: ticking(21, 25), send: subscribe(since(20)), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 1, 0, true],
      ["backfill", 18, 20, true],
      ["backfill", 21, 20, true],
      ["backfill", 21, 25, true]
    ]
  },
  {
    name: "left: subscribed again it goes on from there, and what is not asked for is told",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(21, 30), send: subscribe({ backfill: 4 }), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(31, 35), send: subscribe({ backfill: 50 }), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(36, 36), send: subscribe(), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 21, 20, true],
      ["evicted", 21, 26],
      ["backfill", 27, 30, false],
      ["backfill", 31, 35, true],
      ["evicted", 36, 36],
      ["backfill", 37, 36, false]
    ]
  },
  {
    name: "left: since where it was left gives all that came meanwhile",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(21, 30), send: subscribe(since(20)), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 21, 20, true],
      ["backfill", 21, 30, true]
    ]
  },
  {
    name: "left: since older than where it was left is refused with that place",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { before: ticking(21, 22), send: unsubscribe },
      { before: ticking(23, 30), send: subscribe(since(21)), answer: ["already_sent", [EPOCH, 22]] },
      { send: subscribe(since(22)), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 21, 20, true],
      ["tick", 21, 21],
      ["tick", 22, 22],
      ["backfill", 23, 30, true]
    ]
  },
  {
    name: "left: since newer than where it was left is honoured, and what lies between is told",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(21, 30), send: subscribe(since(25)), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(31, 33), send: subscribe(since(33)), answer: ["accepted"] }
    ],
    after: ticking(34, 34),
    told: [
      ["backfill", 21, 20, true],
      ["evicted", 21, 25],
      ["backfill", 26, 30, false],
      ["evicted", 31, 33],
      ["backfill", 34, 33, false],
      ["tick", 34, 34]
    ]
  },
  {
    name: "left: since newer, that only the store knows, likewise",
    world: () => {
      const world = make({ RING_TICKS: 5 }, { ring: 5 })
      publish(world, run(1, 20))
      return world
    },
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(21, 90), send: subscribe(since(40)), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 21, 20, true],
      ["evicted", 21, 40],
      ["backfill", 41, 90, false]
    ]
  },
  {
    name: "left: since ahead of what exists is told at once where the stream stands, and what was missed since it was left",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(21, 30), send: subscribe(since(90)), answer: ["accepted", [EPOCH, 30]] }
    ],
    after: ticking(31, 31),
    told: [
      ["backfill", 21, 20, true],
      ["evicted", 21, 30],
      ["backfill", 31, 30, false],
      ["tick", 31, 31]
    ]
  },
  {
    name: "left: a place in an epoch that is over, and one in a later epoch",
    world: seen(20),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      {
        before: (world) => publish(world, run(1, 9, EPOCH + 60)),
        send: subscribe(since(4, EPOCH + 60)),
        answer: ["accepted"]
      },
      { send: unsubscribe },
      { send: subscribe(since(30)), answer: ["already_sent", [EPOCH + 60, 9]] }
    ],
    told: [
      ["backfill", 21, 20, true],
      ["evicted", 1, 4],
      ["backfill", 5, 9, false]
    ]
  },
  {
    name: "left before any tick came: subscribed again it begins as at first",
    world: () => make(),
    steps: [
      { send: subscribe(), answer: ["accepted"] },
      { send: unsubscribe },
      { before: ticking(1, 8), send: subscribe({ backfill: 3 }), answer: ["accepted"] }
    ],
    told: [
      ["backfill", 1, 0, true],
      ["backfill", 6, 8, true]
    ]
  },
  {
    name: "a place that nobody has yet: told at once where the stream stands, and live from there",
    world: seen(20),
    stood: [EPOCH, 50],
    steps: [{ send: subscribe(since(50)), answer: ["accepted", [EPOCH, 20]] }],
    after: ticking(21, 21),
    told: [
      ["backfill", 21, 20, false],
      ["tick", 21, 21]
    ]
  },
  {
    name: "a place that nobody has yet, left and asked for again: no tick is kept back until the stream passes it",
    world: () => make(),
    stood: [EPOCH, 50],
    steps: [
      { send: subscribe(since(50)), answer: ["accepted"] },
      { send: unsubscribe },
      { send: subscribe({ backfill: 10 }), answer: ["accepted"] }
    ],
    after: ticking(7, 8),
    told: [
      ["backfill", 51, 50, false],
      ["backfill", 51, 50, false],
      ["backfill", 7, 6, false],
      ["tick", 7, 7],
      ["tick", 8, 8]
    ]
  },
  {
    name: "a place of another epoch that nobody has",
    world: seen(20),
    stood: [EPOCH + 60, 4],
    steps: [{ send: subscribe(since(4, EPOCH + 60)), answer: ["accepted", [EPOCH, 20]] }],
    told: [["backfill", 21, 20, false]]
  },
  {
    name: "a backfill longer than a ring says what is missing",
    world: seen(50, { RING_TICKS: 10 }),
    steps: [{ send: subscribe({ backfill: 30 }), answer: ["accepted"] }],
    told: [
      ["evicted", 21, 40],
      ["backfill", 41, 50, false]
    ]
  },
  {
    name: "a backfill longer than the day has all of it",
    world: seen(8),
    steps: [{ send: subscribe({ backfill: 100_000 }), answer: ["accepted"] }],
    told: [["backfill", 1, 8, true]]
  },
  {
    name: "a backfill that Redis has more of than memory is had from there, and told where it has too little",
    world: () => {
      const world = make({ RING_TICKS: 10, HUB_TICKS: 100 }, { ring: 6 })
      publish(world, run(1, 4))
      remember(world, run(5, 40))
      publish(world, run(41, 44))
      return world
    },
    steps: [{ send: subscribe({ backfill: 9 }), answer: ["accepted"] }],
    told: [
      ["evicted", 36, 38],
      ["backfill", 39, 44, false]
    ]
  },
  {
    name: "a backfill that nobody answers for",
    world: () => make({}, { ring: 6, up: () => false }),
    steps: [{ send: subscribe({ backfill: 9 }), answer: ["accepted"] }],
    after: ticking(1, 1),
    told: [
      ["backfill", 1, 0, false],
      ["tick", 1, 1]
    ]
  }
]

describe("a second subscribe, and what cannot be had", () => {
  for (const { name, world: made, steps, after, told, stood } of cases) {
    it(name, async () => {
      const world = made()
      const peer = new Conversation(world.hub)
      if (stood !== undefined) peer.checker.places.set(1, { epoch: stood[0], position: stood[1] })
      for (const { before, send, answer } of steps) {
        before?.(world)
        for (const message of [send].flat()) {
          peer.send(message)
          if (answer === undefined) continue
          const [what, at] = answer
          const expected = what === "accepted" ? { accepted: true, known: false } : { accepted: false, reason: what }
          assert.deepStrictEqual(peer.answers, [
            { instrument_token: 1, ...expected, ...(at === undefined ? {} : { at }) }
          ] as never)
        }
        for (let i = 0; i < 10; i++) await settle()
      }
      after?.(world)
      const shown = peer.messages.flatMap((m) => {
        if (m.type === "tick") return [["tick", m.position, m.position]]
        if (m.type === "evicted") return [["evicted", m.from, m.to]]
        return m.type === "backfill" ? [["backfill", m.from, m.to, m.recovered]] : []
      })
      assert.deepStrictEqual(shown, told as never)
      assert.deepStrictEqual(peer.refused, [])
    })
  }

  it("says so where a connection has had as many instruments as it may, those that it left too", () => {
    const { hub } = make({ MAX_CLIENT_TOKENS: 3 })
    const peer = new Conversation(hub, { settings: { MAX_CLIENT_TOKENS: 3 } })
    hub.publish([1, 2, 3, 4, 5, 6, 7].map((token) => tickOf(token, EPOCH, 1)))
    for (let token = 1; token <= 6; token++) {
      peer.send({ action: "subscribe", tokens: [token] })
      peer.send({ action: "unsubscribe", tokens: [token] })
    }
    peer.send({ action: "subscribe", tokens: [7, 1], backfill: 5 })
    assert.deepStrictEqual(peer.answers, [
      { instrument_token: 7, accepted: false, reason: "too_many_left" },
      { instrument_token: 1, accepted: true, known: false }
    ])
    assert.deepStrictEqual(peer.checker.place(1), { epoch: EPOCH, position: 1 })
  })
})
