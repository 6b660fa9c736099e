import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Market, type Watcher } from "../../../src/http/kite/Market.ts"
import { Sources } from "../../../src/http/kite/Sources.ts"
import type { Visitor } from "../../../src/http/kite/Visitors.ts"
import type { Channel } from "../../../src/streams/fanOut/Channel.ts"
import { Hub } from "../../../src/streams/fanOut/Hub.ts"
import { Replays } from "../../../src/streams/replay/Replays.ts"
import { EPOCH, hubSettings, tickOf } from "../../support/hub.ts"
import { OPEN } from "../memoryStore.ts"
import { PlayedReplays } from "./serving.ts"

const DAY = 20_469
const SOME = 408_065
const watcher = (): Watcher => ({
  changed: () => undefined,
  flush: () => undefined,
  restarted: () => undefined
})

/** Everything that an object holds in maps and sets of its own. */
const held = (object: object): number =>
  Object.values(object).reduce((sum, of) => sum + (of instanceof Map || of instanceof Set ? of.size : 0), 0)

describe("A market of the gateway", () => {
  for (const kind of ["live", "replay"] as const) {
    it(`keeps nothing of what nobody wants any more and nothing has come of: ${kind}`, () => {
      const hub = new Hub({ settings: hubSettings })
      const markets = new Map<Channel, Market>()
      hub.follow((channel) => {
        const market = new Market(channel)
        markets.set(channel, market)
        return market
      })
      const channel = kind === "live" ? hub.live : hub.open("r", DAY)
      const market = markets.get(channel)!
      for (let round = 0; round < 3; round++) {
        const [one, other] = [watcher(), watcher()]
        for (let token = 1; token <= 3000; token++) {
          market.watch(token, one)
          market.watch(token, other)
        }
        channel.publish([tickOf(SOME, EPOCH, round + 1)])
        for (let token = 1; token <= 3000; token++) market.unwatch(token, one)
        assert.isDefined(market.of(1))
        for (let token = 1; token <= 3000; token++) market.unwatch(token, other)
        assert.isUndefined(market.of(1))
        // What a replay has brought is there for who comes later.
        assert.strictEqual(market.of(SOME)?.figures.isKnown, kind === "live" ? undefined : true)
        assert.strictEqual(held(market), kind === "live" ? 0 : 1)
      }
    })
  }

  it.effect("is forgotten some time after it is over, and so is how it was asked for", () =>
    Effect.gen(function* () {
      const hub = new Hub({ settings: hubSettings })
      const played = new PlayedReplays()
      played.hub = hub
      const replays = yield* Effect.provide(Replays, played.layer)
      const sources = new Sources({ hub, replays, shifts: false, now: () => OPEN, started: () => undefined })
      const asked = (speed: number): Visitor => ({
        apiKey: "",
        accessToken: "",
        key: undefined,
        address: "",
        wish: { kind: "day", text: `2026-01-16@${speed}`, day: { date: "2026-01-16", speed } },
        identity: ""
      })
      const days = 100
      for (let n = 1; n <= days; n++) {
        const { begin, market } = yield* sources.of(asked(n), "connects")
        yield* begin
        played.put(market.key, OPEN, OPEN, "ended")
        hub.close(market.key)
        // Who asks once more is answered of the same.
        assert.strictEqual((yield* sources.of(asked(n))).market, market)
      }
      assert.isBelow(held(sources), 3 * 11)
    })
  )
})
