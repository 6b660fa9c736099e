/** Decides what a whole instance in one process is made of: the services that the settings name or embed, the groups, the server. */
import { Context, Effect, Layer, Option } from "effect"
import { Flag } from "effect/cli"
import * as Access from "../http/access.ts"
import { connectionLimit } from "../http/front.ts"
import { HttpSettings } from "../http/HttpSettings.ts"
import * as KiteServer from "../http/kite/Server.ts"
import { checkResolves, isLoopbackHost } from "../http/listen.ts"
import * as Server from "../http/Server.ts"
import { webSocket } from "../http/WebSocket.ts"
import * as RawSink from "../layers/feeds/RawSink.ts"
import * as InstrumentsLayer from "../layers/instruments/Instruments.ts"
import * as ApiKeys from "../layers/keys/ApiKeys.ts"
import { readKeys } from "../layers/keys/KeysFile.ts"
import { lock } from "../layers/postgres/DataDir.ts"
import * as ReplayService from "../layers/replays/ReplayService.ts"
import { SettingError, StartError, type StoreError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import { FanOut } from "../streams/fanOut/Hub.ts"
import { knownQuotes } from "../streams/fanOut/history.ts"
import { replayAudience } from "../streams/fanOut/replayAudience.ts"
import { Overview } from "../streams/Overview.ts"
import type { Instruments } from "../streams/ports/Instruments.ts"
import { LastPrices } from "../streams/ports/LastPrices.ts"
import { LatestQuotes } from "../streams/ports/LatestQuotes.ts"
import { RecentQuotes } from "../streams/ports/RecentQuotes.ts"
import { TickStore } from "../streams/ports/TickStore.ts"
import { publishFigures } from "../streams/publishFigures.ts"
import { ReplayAudience } from "../streams/replay/ReplayAudience.ts"
import { announce } from "../streams/run/announce.ts"
import { Drain } from "../streams/run/Drain.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { watchLog, watchStore } from "../streams/run/watch.ts"
import { describe, STAGES, groups as table } from "../streams/topology.ts"
import { groups, supervise } from "./groups.ts"
import { lifeOf } from "./life.ts"
import { tell } from "./lines.ts"
import { boundMemory } from "./memory.ts"
import { partitionsKept } from "./partitions.ts"
import { archive, Crashed, caches, history, log, store } from "./services.ts"

/** The share of the embedded log that one archive object may hold: waiting for more would block the log. */
const ARCHIVE_SHARE_OF_LOG = 0.25
/** What a tick takes in the log, and more than most do. */
const TICK_BYTES = 512

/** What an embedded instance may not do: hold more for the archive than its log can spare. */
export const embedded = (given: Settings): Settings => ({
  ...given,
  ARCHIVE_BATCH_TICKS: Math.max(
    1,
    Math.min(
      given.ARCHIVE_BATCH_TICKS,
      Math.floor(given.LOG_CAPACITY_RECORDS * ARCHIVE_SHARE_OF_LOG),
      Math.floor((given.LOG_CAPACITY_BYTES / TICK_BYTES) * ARCHIVE_SHARE_OF_LOG)
    )
  )
})

/** Runs what a layer builds until it is interrupted, or something in it crashes. */
export const launch = <E, R>(layer: Layer.Layer<Crashed, E, R>): Effect.Effect<never, E | StartError, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.forkScoped(boundMemory)
      const built = yield* Layer.build(layer)
      return yield* Context.get(built, Crashed).wait
    })
  )

/** The server's own readers. */
const reader = (given: Settings) =>
  Layer.effectDiscard(
    Effect.andThen(
      announce(table.server.nodes),
      Effect.forEach(table.server.parts(given), ({ name, run }) => Effect.forkScoped(supervise(name, run)))
    )
  )

/** `--insecure`: listen on an address that others can reach, though nobody is asked for a key. */
export const insecureFlag = Flag.Boolean("insecure").pipe(
  Flag.withDescription("listen on a public HOST although everyone who reaches it may read and write"),
  Flag.withDefault(false)
)

/** A file of keys that cannot be used is refused before anything else is begun. */
export const checkKeys = ({ API_KEYS_FILE: file }: Settings): Effect.Effect<void, StartError> =>
  file === undefined
    ? Effect.void
    : Effect.asVoid(Effect.mapError(readKeys(file), ({ message }) => new StartError({ message })))

/**
 * Refuses a public address unless keys are asked for, or told otherwise: whoever reaches it could feed ticks and read
 * everything.
 */
export const checkHost = (given: Settings, insecure: boolean): Effect.Effect<void, SettingError | StartError> =>
  Effect.gen(function* () {
    yield* checkResolves(given.HOST, "HOST")
    if (given.API_KEYS_FILE !== undefined) return yield* checkKeys(given)
    if (insecure || isLoopbackHost(given.HOST)) return
    const message = `HOST: ${given.HOST} can be reached by others and no API keys are asked for: API_KEYS_FILE names some, --insecure does without`
    return yield* new SettingError({ setting: "HOST", message })
  })

/** Nobody is asked for a key unless a file of keys is named. */
export const access = (given: Settings) =>
  given.API_KEYS_FILE === undefined
    ? Access.layerOpen
    : Layer.provide(Access.layer(given), ApiKeys.layer(given.API_KEYS_FILE))

/** What is to be done before anybody is answered, such as registering the instruments that will be asked for. */
export type Beforehand = Layer.Layer<never, StoreError, Instruments>

/** `--kite-port`: the Kite gateway in the same process. */
export const kitePortFlag = Flag.Int("kite-port").pipe(
  Flag.withMetavar("PORT"),
  Flag.withDescription("port of the Kite Connect 3 gateway, 0 picks a free one (default: KITE_PORT, else none)"),
  Flag.filter(
    (port) => port >= 0 && port <= MAX_PORT,
    (port) => `Expected a port from 0 to ${MAX_PORT}, got ${port}`
  ),
  Flag.optional
)

/** The settings as the flag says. */
export const withKitePort = (given: Settings, port: Option.Option<number>): Settings =>
  Option.isSome(port) ? { ...given, KITE_PORT: port.value } : given

/** What would keep the gateway from starting, where there is to be one, is said before anything is begun. */
export const checkKite = (given: Settings): Effect.Effect<void, SettingError> =>
  given.KITE_PORT === undefined ? Effect.void : KiteServer.checkKiteHost(given)

/** REST, WebSocket, dashboard and replays, and the Kite gateway where KITE_PORT is set. */
export const serving = (given: Settings, beforehand: Beforehand = Layer.empty) => {
  const bounds = given.KITE_PORT === undefined ? {} : { connections: connectionLimit() - kiteConnections() }
  const server = Layer.unwrap(Effect.map(webSocket(given), (mount) => Server.layer([mount], bounds))).pipe(
    Layer.provide(Layer.succeed(HttpSettings, { ...given, describe: () => describe(given) }))
  )
  // Whether there is one is the settings' to say: who asks for it asks whether it is there.
  const kite: Layer.Layer<
    never,
    Layer.Error<ReturnType<typeof kiteLayer>>,
    Layer.Services<ReturnType<typeof kiteLayer>>
  > = given.KITE_PORT === undefined ? Layer.empty : kiteLayer(given)
  return onMarket(given, Layer.merge(server, kite), beforehand)
}

/** The Kite gateway alone. */
export const kiteServing = (given: Settings) => onMarket(given, kiteLayer(given))

const MAX_PORT = 65_535
/** Of the connections that the process may have, those of the gateway beside a server. */
const kiteConnections = (): number => Math.floor(connectionLimit() / 4)
const kiteLayer = (given: Settings) =>
  Layer.provide(KiteServer.layer(given, { connections: kiteConnections() }), access(given))

/** Says where the gateway listens, where there is one; after whatever says where the server does. */
export const toldKite = Layer.effectDiscard(
  Effect.gen(function* () {
    const kite = yield* Effect.serviceOption(KiteServer.KiteServer)
    if (Option.isSome(kite)) tell(`Kite gateway listening on ${kite.value.url}`, { kite_url: kite.value.url })
  })
)

/** What answers, on whatever log, store and caches there are: the market as clients see it, with replays. */
const onMarket = <A, E, R>(given: Settings, server: Layer.Layer<A, E, R>, beforehand: Beforehand = Layer.empty) => {
  const prices = Layer.effect(
    LastPrices,
    Effect.map(FanOut, (hub) => (token: number) => hub.live.lastPrice(token))
  )
  const quotes = Layer.effect(
    LatestQuotes,
    Effect.gen(function* () {
      const hub = yield* FanOut
      const find = knownQuotes(hub.live, yield* RecentQuotes, yield* TickStore)
      return (tokens: ReadonlyArray<number>) => Effect.map(find(tokens), ({ quotes }) => quotes)
    })
  )
  const audience = Layer.effect(ReplayAudience, Effect.map(FanOut, replayAudience))
  return server.pipe(
    Layer.provide([access(given), prices, quotes]),
    Layer.provideMerge(RawSink.layerLog),
    Layer.provideMerge(reader(given)),
    Layer.provideMerge(Layer.effectDiscard(Effect.andThen(Effect.forkScoped(watchStore), Effect.forkScoped(watchLog)))),
    Layer.provideMerge(ReplayService.layer(given)),
    Layer.provideMerge(audience),
    Layer.provideMerge(FanOut.layer(given)),
    Layer.provideMerge(beforehand),
    Layer.provideMerge(InstrumentsLayer.layer)
  )
}

/**
 * Everything in one process. Built from the inside out, and so stopped from the outside in: the server first, then the
 * groups drain, then the services close.
 */
export const instance = (asked: Settings, dataDir: string | undefined, beforehand?: Beforehand) => {
  const ownsLog = asked.KAFKA_BROKERS === undefined
  const given = ownsLog ? embedded(asked) : asked
  const services = Layer.mergeAll(
    // Whatever of it lives in the folder: one process at a time.
    dataDir === undefined ? Layer.empty : Layer.effectDiscard(lock(dataDir)),
    log(given),
    store(given, dataDir),
    caches(given),
    Drain.layer
  ).pipe(Layer.provideMerge(Readiness.layer))
  const kept = archive(given, dataDir)
  const all = Effect.map(lifeOf("instance", STAGES), (self) =>
    serving(given, beforehand).pipe(
      Layer.provideMerge(Overview.layer({ self, expected: STAGES })),
      Layer.provideMerge(publishFigures(self)),
      Layer.provideMerge(history(kept)),
      Layer.provideMerge(groups(given, { stages: STAGES, ownsLog, life: self.life }, kept)),
      Layer.provideMerge(partitionsKept),
      Layer.provideMerge(services)
    )
  )
  return Layer.unwrap(all)
}
