/** Decides which services a process uses: those that the settings name, and the embedded ones in place of the rest. */
import { mkdtempSync } from "node:fs"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer, Redacted } from "effect"
import * as Kafka from "../layers/Kafka.ts"
import * as MemoryClaims from "../layers/MemoryClaims.ts"
import * as MemoryCounters from "../layers/MemoryCounters.ts"
import * as MemoryLog from "../layers/MemoryLog.ts"
import * as MemoryRing from "../layers/MemoryRing.ts"
import * as MemorySnapshots from "../layers/MemorySnapshots.ts"
import * as ParquetFiles from "../layers/ParquetFiles.ts"
import * as PgliteLayer from "../layers/Pglite.ts"
import { Pglite } from "../layers/Pglite.ts"
import * as Redis from "../layers/Redis.ts"
import * as RedisClaims from "../layers/RedisClaims.ts"
import * as RedisCounters from "../layers/RedisCounters.ts"
import * as RedisRing from "../layers/RedisRing.ts"
import * as RedisSnapshots from "../layers/RedisSnapshots.ts"
import * as S3 from "../layers/S3.ts"
import * as Timescale from "../layers/Timescale.ts"
import { SettingError, StartError } from "../schema/Errors.ts"
import { readSettings, type Settings } from "../schema/Settings.ts"

/** The settings of this process; the first wrong one ends it with a line that names it. */
export const settings = Effect.suspend(() => Effect.fromResult(readSettings(process.env)))

/** A setting that this command cannot do without. */
export const required = <K extends keyof Settings>(given: Settings, name: K, why: string) => {
  const value = given[name]
  return value === undefined
    ? Effect.fail(new SettingError({ setting: name, message: `${name}: required ${why}` }))
    : Effect.succeed(value as NonNullable<Settings[K]>)
}

/** Kafka where KAFKA_BROKERS names it, else the log in this process's memory. */
export const log = (given: Settings) =>
  given.KAFKA_BROKERS !== undefined
    ? Kafka.layerOf(given)
    : MemoryLog.layer({
        partitions: given.PARTITIONS,
        capacity: given.LOG_CAPACITY_RECORDS,
        dlqCapacity: given.DLQ_CAPACITY_RECORDS,
        retained: given.LOG_RETAINED_RECORDS,
        batch: given.PROCESS_BATCH_RECORDS
      })

/** Claims, rings, snapshots and workers' figures: in Redis where REDIS_URL names it, else in this process's memory. */
export const caches = (given: Settings) => {
  if (given.REDIS_URL === undefined) {
    return Layer.mergeAll(
      MemoryRing.layer({ perInstrument: given.RING_TICKS, total: given.HUB_TICKS }),
      MemoryClaims.layer(),
      MemorySnapshots.layer,
      MemoryCounters.layer
    )
  }
  return Layer.mergeAll(
    RedisRing.layer({ perInstrument: given.RING_TICKS, keep: `${given.RING_DAYS} days` }),
    RedisClaims.layer({ keep: `${given.CLAIM_DAYS} days` }),
    RedisSnapshots.layer({ keep: `${given.STATE_DAYS} days` }),
    RedisCounters.layer
  ).pipe(
    Layer.provide(
      Redis.layer({
        url: Redacted.make(given.REDIS_URL, { label: "REDIS_URL" }),
        caFile: given.REDIS_CA_FILE,
        timeoutMs: given.REDIS_TIMEOUT_MS
      })
    )
  )
}

/** S3 where S3_BUCKET names it, else Parquet files in `dataDir`; undefined where there is neither. */
export const archive = (given: Settings, dataDir: string | undefined) => {
  const s3 = S3.optionsOf(given)
  if (s3 !== undefined) return S3.layer(s3)
  return dataDir === undefined ? undefined : ParquetFiles.layer(join(dataDir, "archive"))
}

/** What goes missing without the services that are not named, one line each. */
export const missing = (given: Settings): ReadonlyArray<string> => [
  ...(given.REDIS_URL === undefined
    ? ["REDIS_URL is not set: no claims across workers, no ring, and a restart runs the day's raw ticks again"]
    : []),
  ...(given.S3_BUCKET === undefined && given.DATA_DIR === undefined
    ? ["neither S3_BUCKET nor DATA_DIR is set: nothing is archived"]
    : [])
]

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

const embeddedStore = (folder: string, keepDays: number) =>
  Layer.unwrap(
    Effect.map(Pglite, ({ url, crashed }) =>
      Layer.merge(
        Timescale.layer({ url, embedded: true, keepDays }),
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
        Timescale.layer({
          url: Redacted.make(given.DATABASE_URL, { label: "DATABASE_URL" }),
          embedded: false,
          keepDays: given.STORE_DAYS
        }),
        Layer.succeed(Crashed, { wait: Effect.never })
      )
    : Layer.unwrap(
        Effect.map(dataDir === undefined ? temporary : Effect.succeed(dataDir), (folder) =>
          embeddedStore(folder, given.STORE_DAYS)
        )
      )
