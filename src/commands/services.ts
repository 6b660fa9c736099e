/** Decides which services a process uses: those that the settings name, and the embedded ones in place of the rest. */
import { mkdtempSync } from "node:fs"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Fiber, Layer, Redacted, Result } from "effect"
import * as ParquetFiles from "../layers/archive/ParquetFiles.ts"
import * as S3 from "../layers/archive/S3.ts"
import * as History from "../layers/history/History.ts"
import * as SymbolsLayer from "../layers/instruments/Symbols.ts"
import * as Kafka from "../layers/kafka/KafkaLog.ts"
import * as MemoryCheckpoints from "../layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../layers/memory/MemoryClaims.ts"
import * as MemoryCounters from "../layers/memory/MemoryCounters.ts"
import * as MemoryLog from "../layers/memory/MemoryLog.ts"
import * as MemoryRecentQuotes from "../layers/memory/MemoryRecentQuotes.ts"
import * as MemoryRing from "../layers/memory/MemoryRing.ts"
import * as PgliteLayer from "../layers/postgres/Pglite.ts"
import { Pglite } from "../layers/postgres/Pglite.ts"
import * as Timescale from "../layers/postgres/Timescale.ts"
import * as Redis from "../layers/redis/connection.ts"
import * as RedisCheckpoints from "../layers/redis/RedisCheckpoints.ts"
import * as RedisClaims from "../layers/redis/RedisClaims.ts"
import * as RedisCounters from "../layers/redis/RedisCounters.ts"
import * as RedisRecentQuotes from "../layers/redis/RedisRecentQuotes.ts"
import * as RedisRing from "../layers/redis/RedisRing.ts"
import { SettingError, StartError } from "../schema/Errors.ts"
import { readSettings, type Settings } from "../schema/Settings.ts"
import type { Archive } from "../streams/ports/Archive.ts"
import { consumerGroups } from "../streams/topology.ts"
import { withSecretFiles } from "./secretFiles.ts"

/** The settings of this process; the first wrong one ends it with a line that names it. */
export const settings = Effect.suspend(() =>
  Effect.fromResult(Result.flatMap(withSecretFiles(process.env), readSettings))
)

/** A setting that this command cannot do without. */
export const required = <K extends keyof Settings>(given: Settings, name: K, why: string) => {
  const value = given[name]
  return value === undefined
    ? Effect.fail(new SettingError({ setting: name, message: `${name}: required ${why}` }))
    : Effect.succeed(value as NonNullable<Settings[K]>)
}

/** How long a start waits for a service in silence. */
const SILENCE = "2 seconds"

/** A service that does not answer at once is waited for; who looks on is told for what, and for how long. */
const awaited =
  (what: string, limit: string) =>
  <A, E, R>(service: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
    Layer.effectContext(
      Effect.gen(function* () {
        const scope = yield* Effect.scope
        const tell = Effect.delay(Effect.logInfo(`waiting for ${what}: ${limit}`), SILENCE)
        const telling = yield* Effect.forkChild(tell)
        return yield* Layer.buildWithScope(service, scope).pipe(Effect.ensuring(Fiber.interrupt(telling)))
      })
    )

/** Attempts at start that Redis, PostgreSQL and S3 get. */
const ATTEMPTS = "5 attempts at most"

/** Where a URL leads, without user and password; undefined where it is none, which the layer says better. */
const placeOf = (url: string): string | undefined => {
  if (!URL.canParse(url)) return undefined
  const { host, pathname } = new URL(url)
  return `${host}${pathname === "/" ? "" : pathname}`
}

/** Kafka where KAFKA_BROKERS names it, else the log in this process's memory. */
export const log = (given: Settings) =>
  given.KAFKA_BROKERS !== undefined
    ? Kafka.layerOf(given, consumerGroups).pipe(
        awaited(
          `Kafka at ${given.KAFKA_BROKERS.includes("@") ? "KAFKA_BROKERS" : given.KAFKA_BROKERS} (KAFKA_BROKERS)`,
          `${given.KAFKA_START_TIMEOUT_MS} ms at most (KAFKA_START_TIMEOUT_MS)`
        )
      )
    : MemoryLog.layer({
        partitions: given.PARTITIONS,
        capacity: given.LOG_CAPACITY_RECORDS,
        dlqCapacity: given.DLQ_CAPACITY_RECORDS,
        retained: given.LOG_RETAINED_RECORDS,
        batch: given.PROCESS_BATCH_RECORDS,
        bytes: {
          capacity: given.LOG_CAPACITY_BYTES,
          dlqCapacity: given.DLQ_CAPACITY_BYTES,
          retained: given.LOG_RETAINED_BYTES
        }
      })

/** Claims, rings, latest quotes, checkpoints and workers' figures: in Redis where REDIS_URL names it, else in this process's memory. */
export const caches = (given: Settings) => {
  if (given.REDIS_URL === undefined) {
    return Layer.mergeAll(
      MemoryRing.layer({ perInstrument: given.RING_TICKS, total: given.HUB_TICKS, instruments: given.HUB_INSTRUMENTS }),
      MemoryRecentQuotes.layer(),
      MemoryClaims.layer(),
      MemoryCheckpoints.layer,
      MemoryCounters.layer
    )
  }
  return Layer.mergeAll(
    RedisRing.layer({ perInstrument: given.RING_TICKS, keep: `${given.RING_DAYS} days` }),
    RedisRecentQuotes.layer({ keep: `${given.RING_DAYS} days` }),
    RedisClaims.layer({ keep: `${given.CLAIM_DAYS} days` }),
    RedisCheckpoints.layer({ keep: `${given.STATE_DAYS} days` }),
    RedisCounters.layer
  ).pipe(
    Layer.provide(
      Redis.layer({
        url: Redacted.make(given.REDIS_URL, { label: "REDIS_URL" }),
        caFile: given.REDIS_TLS_CA_FILE,
        certFile: given.REDIS_TLS_CERT_FILE,
        keyFile: given.REDIS_TLS_KEY_FILE,
        timeoutMs: given.REDIS_TIMEOUT_MS
      }).pipe(awaited(`Redis at ${placeOf(given.REDIS_URL)} (REDIS_URL)`, ATTEMPTS))
    )
  )
}

/**
 * S3 where S3_BUCKET names it, else Parquet files in `dataDir`; undefined where there is neither. Who only reads leaves
 * everything as it finds it.
 */
export const archive = (given: Settings, dataDir: string | undefined, readsOnly = false) => {
  const s3 = S3.optionsOf(given)
  if (s3 !== undefined) {
    const place = s3.endpoint === undefined ? "AWS" : placeOf(s3.endpoint)
    return S3.layer({ ...s3, readsOnly }).pipe(
      awaited(`S3 at ${place} (S3_ENDPOINT)`, ATTEMPTS),
      Layer.provide(SymbolsLayer.layer)
    )
  }
  return dataDir === undefined
    ? undefined
    : Layer.provide(ParquetFiles.layer(join(dataDir, "archive"), { readsOnly }), SymbolsLayer.layer)
}

/** The past of the store and of the archive, where there is one. */
export const history = <E, R>(kept: Layer.Layer<Archive, E, R> | undefined) =>
  kept === undefined ? History.layerOfStore : Layer.provide(History.layer, kept)

/** What goes missing in a process without the services that are not named, one line each. */
export const missing = (given: Settings, role: "worker" | "server"): ReadonlyArray<string> => {
  const lines: Array<string> = []
  if (given.REDIS_URL === undefined) {
    lines.push(
      role === "worker"
        ? "REDIS_URL is not set: no claims across workers, no ring, a restart runs the day's raw ticks again, and " +
            "servers do not see this worker"
        : "REDIS_URL is not set: no ring, so that backfill comes from this process and the store, and workers are not " +
            "seen: of each group only whether anybody runs it"
    )
  }
  if (role === "worker" && given.S3_BUCKET === undefined && given.DATA_DIR === undefined) {
    lines.push("neither S3_BUCKET nor DATA_DIR is set: nothing is archived")
  }
  return lines
}

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

const storeOptions = (given: Settings) => ({ keepDays: given.STORE_DAYS, depth: given.STORE_DEPTH === "true" })

const embeddedStore = (folder: string, given: Settings) =>
  Layer.unwrap(
    Effect.map(Pglite, ({ url, crashed }) =>
      Layer.merge(
        Timescale.layer({ ...storeOptions(given), url, embedded: true }),
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
export const store = (given: Settings, dataDir: string | undefined) => {
  if (given.DATABASE_URL === undefined) {
    return Layer.unwrap(
      Effect.map(dataDir === undefined ? temporary : Effect.succeed(dataDir), (folder) => embeddedStore(folder, given))
    )
  }
  const place = placeOf(given.DATABASE_URL)
  const server = Timescale.layer({
    url: Redacted.make(given.DATABASE_URL, { label: "DATABASE_URL" }),
    embedded: false,
    ...storeOptions(given)
  }).pipe(
    Layer.catch((error) => Layer.effectContext(Effect.fail(at(place, error)))),
    awaited(`PostgreSQL at ${place} (DATABASE_URL)`, ATTEMPTS)
  )
  return Layer.merge(server, Layer.succeed(Crashed, { wait: Effect.never }))
}

/** What is wrong with a database, said with its place. */
const at = (place: string | undefined, { message }: StartError): StartError =>
  new StartError({
    message:
      place === undefined || /PostgreSQL at |: expected /.test(message)
        ? message
        : `DATABASE_URL: cannot use PostgreSQL at ${place}: ${message.replace(/^(DATABASE_URL|database): /, "")}`
  })
