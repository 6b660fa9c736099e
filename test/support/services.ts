/**
 * Decides how a test file gets a real server: asked for at the top of the file, `undefined` where it is not installed.
 *
 * ```ts
 * const url = await redisUrl()
 * describe.skipIf(url === undefined)("Redis", …)
 * ```
 *
 * TEST_REDIS_URL, TEST_KAFKA_BROKERS, TEST_DATABASE_URL and TEST_S3_ENDPOINT, _BUCKET, _REGION, _ACCESS_KEY_ID and
 * _SECRET_ACCESS_KEY name servers to use instead; the tests may drop everything there. With SERVICES=required a missing
 * server is a failure. For a test that kills its server there are `ownRedis` and the like, and their classes.
 */
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, type Scope } from "effect"
import pg from "pg"
import { afterAll, inject } from "vitest"
import { type Installable, missing, type ServiceName } from "../../scripts/servers/install.ts"
import { KafkaServer, type SecureListener } from "../../scripts/servers/kafka.ts"
import { type PostgresOptions, PostgresServer } from "../../scripts/servers/postgres.ts"
import { RedisServer } from "../../scripts/servers/redis.ts"
import type { Server, ServerOptions } from "../../scripts/servers/Server.ts"
import { S3Server } from "../../scripts/servers/s3.ts"
import type { Answer } from "./servicesSetup.ts"

export { freePort, Server } from "../../scripts/servers/Server.ts"
export { KafkaServer, PostgresServer, RedisServer, S3Server }

const isRequired = process.env.SERVICES === "required"

const ask = async (service: ServiceName): Promise<Readonly<Record<string, string>> | undefined> => {
  const response = await fetch(`${inject("servicesAt")}${service}`)
  const answer = (await response.json()) as Answer
  if ("settings" in answer) return answer.settings
  if ("failed" in answer) throw new Error(answer.failed)
  if (isRequired) throw new Error(`SERVICES=required, but ${answer.missing} is not installed`)
  return undefined
}

/** A Redis database that no other file uses. */
export const redisUrl = async (): Promise<string | undefined> =>
  process.env.TEST_REDIS_URL || (await ask("redis"))?.REDIS_URL

/** Brokers that all files share: a test names its topics and groups as no other does. */
export const kafkaBrokers = async (): Promise<string | undefined> =>
  process.env.TEST_KAFKA_BROKERS || (await ask("kafka"))?.KAFKA_BROKERS

/** Of this advisory lock whoever has it is the file whose turn it is; no lock of the program has its first key. */
const TURN = "1952805748, 1"
const TURN_ASKED_EVERY_MS = 100

/** Waits until no other file is at this database, and keeps them away until this file is through. */
const untilOurTurn = async (url: string): Promise<void> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  // Asked for again and again: a case ends whoever waits for a lock in its database.
  const asked = `SELECT pg_try_advisory_lock(${TURN}) AS ours`
  while (!(await client.query<{ ours: boolean }>(asked)).rows[0]!.ours) await sleep(TURN_ASKED_EVERY_MS)
  afterAll(() => client.end())
}

let turn: Promise<void> | undefined

/** A PostgreSQL database that no other file uses meanwhile, empty unless it is TEST_DATABASE_URL's. */
export const databaseUrl = async (): Promise<string | undefined> => {
  const given = process.env.TEST_DATABASE_URL
  if (!given) return (await ask("postgres"))?.DATABASE_URL
  turn ??= untilOurTurn(given)
  await turn
  return given
}

export interface S3Access {
  readonly endpoint: string
  readonly bucket: string
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

/** A bucket that no other file uses. */
export const s3 = async (): Promise<S3Access | undefined> => {
  const given = process.env
  if (given.TEST_S3_ENDPOINT) {
    return {
      endpoint: given.TEST_S3_ENDPOINT,
      bucket: given.TEST_S3_BUCKET || "market",
      region: given.TEST_S3_REGION || "us-east-1",
      accessKeyId: given.TEST_S3_ACCESS_KEY_ID ?? "",
      secretAccessKey: given.TEST_S3_SECRET_ACCESS_KEY ?? ""
    }
  }
  const settings = await ask("s3")
  return settings === undefined ? undefined : s3Access(settings)
}

/** From an S3 server's settings. */
export const s3Access = (settings: Readonly<Record<string, string>>): S3Access => ({
  endpoint: settings.S3_ENDPOINT!,
  bucket: settings.S3_BUCKET!,
  region: settings.S3_REGION!,
  accessKeyId: settings.AWS_ACCESS_KEY_ID!,
  secretAccessKey: settings.AWS_SECRET_ACCESS_KEY!
})

/** Whether a server of one's own, or a browser, can be started; throws where it has to be there and is not. */
export const isInstalled = (service: Installable): boolean => {
  const lacking = missing(service)
  if (lacking !== "" && isRequired) throw new Error(`SERVICES=required, but ${lacking} is not installed`)
  return lacking === ""
}

/** A started server in a new folder; both are gone when the scope ends, in whatever state the test left them. */
const own = <S extends Server, O>(
  make: (options: O & ServerOptions) => S,
  options: O
): Effect.Effect<S, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = mkdtempSync(join(tmpdir(), "mdp-own-"))
      chmodSync(folder, 0o711)
      const server = make({ ...options, folder: join(folder, "server") })
      try {
        await server.start()
      } catch (error) {
        rmSync(folder, { recursive: true, force: true })
        throw error
      }
      return { server, folder }
    }),
    ({ server, folder }) =>
      Effect.promise(async () => {
        await server.kill()
        rmSync(folder, { recursive: true, force: true })
      })
  ).pipe(Effect.map(({ server }) => server))

export const ownKafka = own((options) => new KafkaServer(options), {})
export const ownSecureKafka = (secure: SecureListener) => own((options) => new KafkaServer({ ...options, secure }), {})
export const ownRedis = own((options) => new RedisServer(options), {})
export const ownS3 = own((options) => new S3Server(options), {})
export const ownPostgres = (options: Omit<PostgresOptions, "folder"> = {}) =>
  own((all: PostgresOptions) => new PostgresServer(all), options)
