/** Decides how the gateway is started for a test: on a store in memory, with a hub and replays that the test plays itself. */
import { Context, Effect, Layer, Result } from "effect"
import * as Access from "../../../src/http/access.ts"
import type { Bounds } from "../../../src/http/front.ts"
import * as KiteServer from "../../../src/http/kite/Server.ts"
import * as History from "../../../src/layers/history/History.ts"
import * as InstrumentsLayer from "../../../src/layers/instruments/Instruments.ts"
import * as MemoryRecentQuotes from "../../../src/layers/memory/MemoryRecentQuotes.ts"
import * as MemoryRing from "../../../src/layers/memory/MemoryRing.ts"
import { Overloaded, type StartError } from "../../../src/schema/Errors.ts"
import { readSettings, type Settings } from "../../../src/schema/Settings.ts"
import { tradingDay } from "../../../src/schema/Tick.ts"
import { FanOut, type Hub } from "../../../src/streams/fanOut/Hub.ts"
import { RecentQuotes } from "../../../src/streams/ports/RecentQuotes.ts"
import type { TickStore } from "../../../src/streams/ports/TickStore.ts"
import {
  type NothingStored,
  type Replay,
  type ReplayRequest,
  Replays,
  UnknownReplay
} from "../../../src/streams/replay/Replays.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { type Asked, ask } from "../serving.ts"

const settings = Result.getOrThrow(readSettings({}))

export interface KiteServing {
  readonly store: Layer.Layer<TickStore>
  readonly settings?: Partial<Settings>
  readonly bounds?: Bounds
  readonly access?: Layer.Layer<Access.Access, StartError>
}

/** Replays that go as far as the test says. */
export class PlayedReplays {
  readonly all = new Map<string, Replay>()
  readonly asked: Array<ReplayRequest> = []
  /** The instruments of those that are not of all. */
  readonly named = new Map<string, ReadonlySet<number>>()
  hub: Hub | undefined
  /** How many may run. */
  room = Number.POSITIVE_INFINITY
  /** Why none starts. */
  refusal: NothingStored | undefined

  /** Puts one there, as `from` µs and so much of it played. */
  put(id: string, from: number, clock: number | null, state: Replay["state"] = "paused"): void {
    if (!this.all.has(id)) this.hub!.open(id, tradingDay(from))
    this.all.set(id, { id, state, speed: 1, clock, run: 1, from, to: from + 86_400_000_000, sent: 0, total: 1 })
  }

  readonly layer = Layer.sync(Replays, () =>
    Replays.of({
      start: (request) =>
        Effect.suspend((): ReturnType<Replays["Service"]["start"]> => {
          if (this.refusal !== undefined) return Effect.fail(this.refusal)
          const running = [...this.all.values()].filter(({ state }) => state !== "ended").length
          if (running >= this.room) {
            return Effect.fail(new Overloaded({ message: `replays: ${running} run already`, retryAfterSeconds: 10 }))
          }
          this.asked.push(request)
          const id = `da${this.asked.length}`
          this.put(id, Date.parse(`${request.date}T00:00:00+05:30`) * 1000, null)
          return Effect.succeed(this.all.get(id)!)
        }),
      list: Effect.sync(() => [...this.all.values()]),
      get: (id) =>
        Effect.suspend(() => {
          const found = this.all.get(id)
          return found === undefined
            ? Effect.fail(new UnknownReplay({ parameter: "id", message: "none" }))
            : Effect.succeed(found)
        }),
      change: (id, { state }) =>
        Effect.sync(() => {
          const next = { ...this.all.get(id)!, ...(state === undefined ? {} : { state }) }
          this.all.set(id, next)
          return next
        }),
      stop: (id) =>
        Effect.sync(() => {
          const found = this.all.get(id)
          if (found !== undefined) this.all.set(id, { ...found, state: "ended" })
        }),
      isSimulated: () => false,
      holds: (id) => (token) => this.named.get(id)?.has(token) ?? this.all.has(id),
      returned: () => undefined
    })
  )
}

/** The gateway for as long as the scope; without limits on how often it may be asked unless given. */
export const serveKite = (asked: KiteServing) => Effect.suspend(() => serving(asked))

const serving = ({ store, settings: given, bounds, access = Access.layerOpen }: KiteServing) => {
  const replays = new PlayedReplays()
  const all = {
    ...settings,
    KITE_PORT: 0,
    KITE_QUOTE_RATE: 10_000,
    KITE_HISTORICAL_RATE: 10_000,
    KITE_REQUEST_RATE: 10_000,
    HTTP_ADDRESS_PERCENT: 100,
    ...given
  }
  const services = Layer.mergeAll(access, replays.layer, FanOut.layer(all)).pipe(
    Layer.provideMerge(InstrumentsLayer.layer),
    Layer.provideMerge(History.layerOfStore),
    Layer.provideMerge(store),
    Layer.provideMerge(
      Layer.mergeAll(
        Readiness.layer,
        MemoryRecentQuotes.layer(),
        MemoryRing.layer({ perInstrument: 100, total: 10_000, instruments: 1000 })
      )
    )
  )
  return Layer.build(KiteServer.layer(all, bounds).pipe(Layer.provideMerge(services))).pipe(
    Effect.map((context) => {
      const hub = Context.get(context, FanOut)
      const recent = Context.get(context, RecentQuotes)
      const { port } = Context.get(context, KiteServer.KiteServer)
      replays.hub = hub
      /** Asks as somebody with this pair does. */
      const by = (pair: string, path: string, more: Asked = {}) =>
        ask(port, path, {
          ...more,
          headers: { authorization: `token ${pair}`, "x-kite-version": "3", ...more.headers }
        })
      return { port, hub, recent, replays, by, get: (path: string) => by("any:token", path) }
    })
  )
}
