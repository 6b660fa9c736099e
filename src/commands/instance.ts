/** Decides what a whole instance in one process is made of: the services that the settings name or embed, the groups, the server. */
import { mkdtempSync } from "node:fs"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { HttpSettings } from "../http/HttpSettings.ts"
import * as Server from "../http/Server.ts"
import { webSocket } from "../http/WebSocket.ts"
import { lock } from "../layers/DataDir.ts"
import * as Instruments from "../layers/Instruments.ts"
import * as MemoryClaims from "../layers/MemoryClaims.ts"
import * as MemoryLog from "../layers/MemoryLog.ts"
import * as MemoryRing from "../layers/MemoryRing.ts"
import * as MemorySnapshots from "../layers/MemorySnapshots.ts"
import * as ParquetFiles from "../layers/ParquetFiles.ts"
import * as PgliteLayer from "../layers/Pglite.ts"
import { Pglite } from "../layers/Pglite.ts"
import * as RawSink from "../layers/RawSink.ts"
import * as ReplayService from "../layers/ReplayService.ts"
import * as Timescale from "../layers/Timescale.ts"
import { StartError } from "../schema/Errors.ts"
import { readSettings, type Settings } from "../schema/Settings.ts"
import { broadcast } from "../streams/broadcast.ts"
import { Drain } from "../streams/Drain.ts"
import { FanOut } from "../streams/fanOut.ts"
import { Readiness } from "../streams/Readiness.ts"
import { audienceOf, ReplayAudience } from "../streams/ReplayAudience.ts"
import { Replays } from "../streams/Replays.ts"
import { describe } from "../streams/topology.ts"
import { groups, groupsWithArchive, supervise } from "./groups.ts"

/** The settings of this process; the first wrong one ends it with a line that names it. */
export const settings = Effect.suspend(() => Effect.fromResult(readSettings(process.env)))

/** The share of the embedded log that one archive object may hold: waiting for more would block the log. */
const ARCHIVE_SHARE_OF_LOG = 0.25

/** What an embedded instance may not do: hold more for the archive than its log can spare. */
export const embedded = (given: Settings): Settings => ({
  ...given,
  ARCHIVE_BATCH_TICKS: Math.max(
    1,
    Math.min(given.ARCHIVE_BATCH_TICKS, Math.floor(given.LOG_CAPACITY_RECORDS * ARCHIVE_SHARE_OF_LOG))
  )
})

/** A folder that is gone when the scope ends. */
const temporary = Effect.acquireRelease(
  Effect.try({
    try: () => mkdtempSync(join(tmpdir(), "mdp-")),
    catch: (cause) => new StartError({ message: `no folder can be made in ${tmpdir()}: ${(cause as Error).message}` })
  }),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

/** Fails once a service that this process cannot live without has died in it. */
export class Crashed extends Context.Service<Crashed, { readonly wait: Effect.Effect<never, StartError> }>()(
  "market-data-platform/commands/Crashed"
) {}

const embeddedStore = (folder: string) =>
  Layer.unwrap(
    Effect.map(Pglite, ({ url, crashed }) =>
      Layer.merge(
        Timescale.layer({ url, embedded: true }),
        Layer.succeed(Crashed, {
          wait: Effect.flatMap(crashed, (reason) =>
            Effect.fail(new StartError({ message: `the embedded database died: ${reason}` }))
          )
        })
      )
    )
  ).pipe(Layer.provide(PgliteLayer.layer({ dataDir: folder })))

/**
 * The store that DATABASE_URL names, else PGlite in `dataDir`, else PGlite in a folder that is gone at the end: in
 * memory it would grow with every tick.
 */
export const store = (given: Settings, dataDir: string | undefined) =>
  given.DATABASE_URL !== undefined
    ? Layer.merge(
        Timescale.layer({ url: given.DATABASE_URL, embedded: false }),
        Layer.succeed(Crashed, { wait: Effect.never })
      )
    : Layer.unwrap(Effect.map(dataDir === undefined ? temporary : Effect.succeed(dataDir), embeddedStore))

/** Runs what a layer builds until it is interrupted, or something in it crashes. */
export const launch = <E, R>(layer: Layer.Layer<Crashed, E, R>): Effect.Effect<never, E | StartError, R> =>
  Effect.scoped(Effect.flatMap(Layer.build(layer), (built) => Context.get(built, Crashed).wait))

const log = (given: Settings) =>
  MemoryLog.layer({
    partitions: given.PARTITIONS,
    capacity: given.LOG_CAPACITY_RECORDS,
    dlqCapacity: given.DLQ_CAPACITY_RECORDS,
    retained: given.LOG_RETAINED_RECORDS,
    batch: given.PROCESS_BATCH_RECORDS
  })

/** The server's reader: live ticks to the hub, replayed ones to their replays. */
const reader = Layer.effectDiscard(
  Effect.gen(function* () {
    const hub = yield* FanOut
    const replays = yield* Replays
    const part = broadcast(({ partition, ticks, replays: returned, publishedAt }) => {
      if (ticks.length > 0) hub.publish(ticks, publishedAt)
      if (returned.length > 0) replays.returned(partition, returned)
    })
    yield* Effect.forkScoped(supervise("server", part))
  })
)

const server = (given: Settings) =>
  Layer.unwrap(Effect.map(webSocket(given), (mount) => Server.layer([mount]))).pipe(
    Layer.provide(Layer.succeed(HttpSettings, { ...given, describe: () => describe(given) }))
  )

/**
 * Everything in one process. Built from the inside out, and so stopped from the outside in: the server first, then the
 * groups drain, then the services close.
 */
export const instance = (asked: Settings, dataDir: string | undefined) => {
  const given = embedded(asked)
  const archive = dataDir === undefined ? undefined : ParquetFiles.layer(join(dataDir, "archive"))
  const services = Layer.mergeAll(
    // Whatever of it lives in the folder: one process at a time.
    dataDir === undefined ? Layer.empty : Layer.effectDiscard(lock(dataDir)),
    log(given),
    store(given, dataDir),
    MemoryRing.layer({ perInstrument: given.RING_TICKS, total: given.HUB_TICKS }),
    MemoryClaims.layer(),
    MemorySnapshots.layer,
    Drain.layer
  ).pipe(Layer.provideMerge(Readiness.layer))
  const running = archive === undefined ? groups(given) : Layer.provide(groupsWithArchive(given), archive)
  const hub = FanOut.layer(given)
  const audience = Layer.effect(ReplayAudience, Effect.map(FanOut, audienceOf))
  return server(given).pipe(
    Layer.provideMerge(RawSink.layerLog),
    Layer.provideMerge(reader),
    Layer.provideMerge(ReplayService.layer(given)),
    Layer.provideMerge(audience),
    Layer.provideMerge(hub),
    Layer.provideMerge(Instruments.layer),
    Layer.provideMerge(running),
    Layer.provideMerge(services)
  )
}
