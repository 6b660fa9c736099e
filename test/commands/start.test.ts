/** A service that is not there, refuses, or is too new or too old at start: what a person sees in the terminal. */
import { type AddressInfo, connect, createServer, type Server } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import pg from "pg"
import { afterAll, beforeAll } from "vitest"
import { chooseLevel } from "../../src/layers/postgres/serverLevel.ts"
import { brokers, ENGINES } from "../support/kafka.ts"
import { start } from "../support/processes.ts"
import { databaseUrl, redisUrl, s3 } from "../support/services.ts"

const redis = await redisUrl()
const database = await databaseUrl()
const bucket = await s3()

/** A guard against a hang: the longest of the waits is five times ten seconds. */
const TOGETHER_MS = 900_000

/** In every wrong setting, and in no line. */
const SECRET = "s3cret"

/** Ports where nobody answers as hoped. */
const listeners: Array<Server> = []
const listen = (onData: (text: string) => string | undefined): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer((socket) => {
      socket.on("error", () => {})
      socket.on("data", (data) => {
        const answer = onData(data.toString())
        if (answer !== undefined) socket.write(answer)
      })
    })
    listeners.push(server)
    server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port))
  })
/** A port on which nobody listens and, since a connection has it, nobody else can while this file runs. */
const closedPort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const socket = connect((server.address() as AddressInfo).port, "127.0.0.1", () => resolve(socket.localPort!))
      socket.on("error", reject)
    })
    listeners.push(server)
  })
const port = { closed: 0, silent: 0, web: 0, oldRedis: 0 }

/** A Redis of 2018, as far as a start asks: it answers each command of a pipeline. */
const oldRedis = (text: string): string =>
  (text.match(/\*\d+\r\n\$\d+\r\n\w+/g) ?? [])
    .map((command) => {
      if (!/info$/i.test(command)) return "+OK\r\n"
      const info = "# Server\r\nredis_version:4.0.14\r\nredis_mode:standalone\r\n"
      return `$${info.length}\r\n${info}\r\n`
    })
    .join("")

beforeAll(async () => {
  port.closed = await closedPort()
  port.silent = await listen(() => undefined)
  port.web = await listen(() => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
  port.oldRedis = await listen(oldRedis)
})
afterAll(() => {
  for (const listener of listeners) listener.close()
})

type Environment = Readonly<Record<string, string>>

/** All that a worker needs, and it is there; on a busy machine each may take its time. */
const sound = (): Environment => ({
  METRICS_PORT: "0",
  KAFKA_BROKERS: brokers!,
  REDIS_URL: redis!,
  DATABASE_URL: database!,
  S3_ENDPOINT: bucket!.endpoint,
  S3_BUCKET: bucket!.bucket,
  S3_REGION: bucket!.region,
  AWS_ACCESS_KEY_ID: bucket!.accessKeyId,
  AWS_SECRET_ACCESS_KEY: bucket!.secretAccessKey,
  KAFKA_START_TIMEOUT_MS: "120000",
  REDIS_TIMEOUT_MS: "20000",
  S3_TIMEOUT_MS: "20000"
})

/** For those who wait for the one that does not answer. */
const SHORT = {
  kafka: { KAFKA_START_TIMEOUT_MS: "4000", KAFKA_REQUEST_TIMEOUT_MS: "1000" },
  redis: { REDIS_TIMEOUT_MS: "300" },
  s3: { S3_TIMEOUT_MS: "300" }
}

const changed = (url: string, change: (url: URL) => void): string => {
  const parsed = new URL(url)
  change(parsed)
  return parsed.href
}

interface Case {
  readonly title: string
  readonly environment: () => Environment
  /** The last line on standard error. */
  readonly line: () => string | RegExp
  /** What it says while it waits; undefined: it need not wait. */
  readonly waiting?: () => string
}

const at = (host: number): string => `127.0.0.1:${host}`
const kafkaWaits = (host: number) =>
  `waiting for Kafka at ${at(host)} (KAFKA_BROKERS): 4000 ms at most (KAFKA_START_TIMEOUT_MS)`
const redisWaits = (host: number) => `waiting for Redis at ${at(host)}/0 (REDIS_URL): 5 attempts at most`
const postgresWaits = (host: number) =>
  `waiting for PostgreSQL at ${at(host)}/market (DATABASE_URL): 5 attempts at most`
const s3Waits = (host: number) => `waiting for S3 at ${at(host)} (S3_ENDPOINT): 5 attempts at most`
const redisAt = (host: number): Environment => ({ REDIS_URL: `redis://feed:${SECRET}@${at(host)}/0` })
const postgresAt = (host: number): Environment => ({ DATABASE_URL: `postgres://feed:${SECRET}@${at(host)}/market` })
const s3At = (host: number): Environment => ({
  S3_ENDPOINT: `http://${at(host)}`,
  AWS_SECRET_ACCESS_KEY: SECRET
})
const placeOfS3 = (name = bucket!.bucket, endpoint = bucket!.endpoint) => `S3_BUCKET ${name} at S3_ENDPOINT ${endpoint}`
const databaseAt = () => `${new URL(database!).host}${new URL(database!).pathname}`

const cases: ReadonlyArray<Case> = [
  // The longest first: it waits for most of its time.
  {
    title: "PostgreSQL that accepts and never answers",
    environment: () => postgresAt(port.silent),
    line: () =>
      `DATABASE_URL: cannot use PostgreSQL at ${at(port.silent)}/market: Connection terminated due to connection timeout`,
    waiting: () => postgresWaits(port.silent)
  },
  ...ENGINES.flatMap(
    (KAFKA_ENGINE): ReadonlyArray<Case> => [
      {
        title: `Kafka that is not there (${KAFKA_ENGINE})`,
        environment: () => ({ KAFKA_ENGINE, KAFKA_BROKERS: at(port.closed), ...SHORT.kafka }),
        line: () => new RegExp(`^KAFKA_BROKERS: cannot use Kafka at ${at(port.closed)} within 4000 ms: .*ECONNREFUSED`),
        waiting: () => kafkaWaits(port.closed)
      },
      {
        title: `Kafka that accepts and never answers (${KAFKA_ENGINE})`,
        environment: () => ({ KAFKA_ENGINE, KAFKA_BROKERS: at(port.silent), ...SHORT.kafka }),
        line: () => new RegExp(`^KAFKA_BROKERS: cannot use Kafka at ${at(port.silent)} within 4000 ms: .*timed out`),
        waiting: () => kafkaWaits(port.silent)
      }
    ]
  ),
  {
    title: "a secret among the brokers",
    environment: () => ({ KAFKA_BROKERS: `feed:${SECRET}@${at(port.closed)}` }),
    line: () => "KAFKA_BROKERS: expected host:port, comma-separated, got an address with an @"
  },
  {
    title: "Redis that is not there",
    environment: () => redisAt(port.closed),
    line: () =>
      `REDIS_URL: cannot use Redis at ${at(port.closed)}: connect ECONNREFUSED ${at(port.closed)} (5 attempts)`,
    waiting: () => redisWaits(port.closed)
  },
  {
    title: "Redis that accepts and never answers",
    environment: () => ({ ...redisAt(port.silent), ...SHORT.redis }),
    line: () => `REDIS_URL: cannot use Redis at ${at(port.silent)}: no answer within 300 ms (5 attempts)`,
    waiting: () => redisWaits(port.silent)
  },
  {
    title: "a web server where Redis should be",
    environment: () => redisAt(port.web),
    line: () =>
      `REDIS_URL: cannot use Redis at ${at(port.web)}: what answers there does not speak Redis's protocol (5 attempts)`,
    waiting: () => redisWaits(port.web)
  },
  {
    title: "Redis with a wrong password",
    environment: () => ({
      REDIS_URL: changed(redis!, (url) => {
        url.password = SECRET
      })
    }),
    line: () => new RegExp(`^REDIS_URL: cannot use Redis at ${new URL(redis!).host}: WRONGPASS`)
  },
  {
    title: "Redis without that database",
    environment: () => ({
      REDIS_URL: changed(redis!, (url) => {
        url.pathname = "/99999"
      })
    }),
    line: () => `REDIS_URL: cannot use Redis at ${new URL(redis!).host}: database 99999: ERR DB index is out of range`
  },
  {
    title: "Redis that is too old",
    environment: () => redisAt(port.oldRedis),
    line: () => `REDIS_URL: cannot use Redis at ${at(port.oldRedis)}: it is version 4.0.14; 5.0 or newer is needed`
  },
  {
    title: "PostgreSQL that is not there",
    environment: () => postgresAt(port.closed),
    line: () =>
      `DATABASE_URL: cannot use PostgreSQL at ${at(port.closed)}/market: connect ECONNREFUSED ${at(port.closed)}`,
    waiting: () => postgresWaits(port.closed)
  },
  {
    title: "PostgreSQL with a wrong password",
    environment: () => ({
      DATABASE_URL: changed(database!, (url) => {
        url.password = SECRET
      })
    }),
    line: () =>
      `DATABASE_URL: cannot use PostgreSQL at ${databaseAt()}: password authentication failed for user "${new URL(database!).username}"`
  },
  {
    title: "PostgreSQL without that database",
    environment: () => ({
      DATABASE_URL: changed(database!, (url) => {
        url.pathname = "/nowhere"
      })
    }),
    line: () =>
      `DATABASE_URL: cannot use PostgreSQL at ${new URL(database!).host}/nowhere: database "nowhere" does not exist`
  },
  {
    title: "S3 that is not there",
    environment: () => s3At(port.closed),
    line: () =>
      `${placeOfS3(undefined, `http://${at(port.closed)}`)}: connect ECONNREFUSED ${at(port.closed)} (5 attempts)`,
    waiting: () => s3Waits(port.closed)
  },
  {
    title: "S3 that accepts and never answers",
    environment: () => ({ ...s3At(port.silent), ...SHORT.s3 }),
    line: () => `${placeOfS3(undefined, `http://${at(port.silent)}`)}: no answer within 300 ms (5 attempts)`,
    waiting: () => s3Waits(port.silent)
  },
  {
    title: "S3 with wrong credentials",
    environment: () => ({ AWS_SECRET_ACCESS_KEY: SECRET }),
    line: () =>
      new RegExp(`^${placeOfS3()}: the credentials \\(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY\\) were refused`)
  },
  {
    title: "S3 without that bucket",
    environment: () => ({ S3_BUCKET: "nowhere" }),
    line: () => `${placeOfS3("nowhere")}: there is no such bucket; it is not made by itself`
  }
]

/** Runs a worker to its end; what it printed, in lines. */
const ended = (environment: Environment) =>
  Effect.gen(function* () {
    const mdp = yield* start(["worker"], { ...sound(), ...environment })
    yield* mdp.until(() => (mdp.isOver ? true : undefined), "its end")
    return { code: mdp.code, stdout: mdp.stdout, lines: mdp.stderr.trimEnd().split("\n") }
  }).pipe(Effect.scoped)

type Ended = Effect.Success<ReturnType<typeof ended>>

/** Causes are shown too, for debugging. */
const shown = (): ReadonlyArray<Environment> =>
  [
    { REDIS_URL: changed(redis!, (url) => Object.assign(url, { password: SECRET })) },
    { DATABASE_URL: changed(database!, (url) => Object.assign(url, { password: SECRET })) },
    { AWS_SECRET_ACCESS_KEY: SECRET }
  ].map((environment) => ({ ...environment, MDP_DEBUG: "1" }))

const isMissing = [brokers, redis, database, bucket].includes(undefined)
const title = `a worker at start${isMissing ? " (skipped: not every service is installed)" : ""}`

describe.skipIf(isMissing)(title, () => {
  const outcomes = new Map<string, Ended>()
  let debugged: ReadonlyArray<Ended> = []

  // Most of them wait most of the time, so they wait together.
  beforeAll(async () => {
    const each = Effect.forEach(
      cases,
      ({ title: name, environment }) => Effect.map(ended(environment()), (outcome) => outcomes.set(name, outcome)),
      { concurrency: 6, discard: true }
    )
    await Effect.runPromise(each)
    debugged = await Effect.runPromise(Effect.forEach(shown(), ended, { concurrency: 3 }))
  }, TOGETHER_MS)

  for (const { title: name, line, waiting } of cases) {
    it(name, () => {
      const { code, stdout, lines } = outcomes.get(name)!
      assert.strictEqual(code, 1, lines.join("\n"))
      assert.strictEqual(stdout, "")
      const last = lines.at(-1)!.replace(/^mdp: /, "")
      const expected = line()
      if (typeof expected === "string") assert.strictEqual(last, expected)
      else assert.match(last, expected)
      const before = lines.slice(0, -1)
      const waits = before.filter((text) => text.includes("waiting for"))
      // On a busy machine another service may be slow as well.
      if (waiting !== undefined) assert.include(waits.join("\n"), waiting())
      // Besides, at most what the store found.
      const others = before.filter((text) => !text.includes("waiting for") && !text.includes("store: PostgreSQL"))
      assert.deepStrictEqual(others, [])
      assert.notInclude(lines.join("\n"), SECRET)
    })
  }

  it("a cause shown for debugging holds no secret either", () => {
    const secrets = [SECRET, ...[redis!, database!].map((url) => new URL(url).password), bucket!.secretAccessKey]
    assert.strictEqual(debugged.length, 3)
    for (const { lines } of debugged) {
      assert.isAbove(lines.length, 2)
      for (const secret of secrets) assert.notInclude(lines.join("\n"), secret)
    }
  })

  it.live("a schema of a newer program is refused, and left as it is", () =>
    Effect.gen(function* () {
      // A database of its own: the others use that of this file.
      const name = "newer_schema"
      const admin = new pg.Client({ connectionString: database! })
      yield* Effect.promise(() => admin.connect())
      yield* Effect.promise(() => admin.query(`CREATE DATABASE ${name}`))
      const url = changed(database!, (to) => {
        to.pathname = `/${name}`
      })
      const client = new pg.Client({ connectionString: url })
      yield* Effect.promise(() => client.connect())
      yield* Effect.promise(() =>
        client.query(
          "CREATE TABLE schema_version (version integer PRIMARY KEY, applied_at timestamptz); INSERT INTO schema_version VALUES (1000, NULL)"
        )
      )
      const { code, lines } = yield* ended({ DATABASE_URL: url })
      assert.strictEqual(code, 1)
      assert.match(
        lines.at(-1)!,
        new RegExp(
          `^mdp: DATABASE_URL: cannot use PostgreSQL at ${new URL(url).host}/${name}: its schema is version 1000, made by a newer program; this one knows \\d+ and leaves it alone$`
        )
      )
      const tables = yield* Effect.promise(() =>
        client.query<{ relname: string }>(
          "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
        )
      )
      assert.deepStrictEqual(
        tables.rows.map(({ relname }) => relname),
        ["schema_version", "schema_version_pkey"]
      )
      const versions = yield* Effect.promise(() => client.query("SELECT * FROM schema_version"))
      assert.deepStrictEqual(versions.rows, [{ version: 1000, applied_at: null }])
      yield* Effect.promise(() => client.end())
      yield* Effect.promise(() => admin.query(`DROP DATABASE ${name}`))
      yield* Effect.promise(() => admin.end())
    })
  )
})

describe("PostgreSQL that is too old", () => {
  it("is refused with the version found and the one that is needed", () => {
    const found = { number: 130_012, version: "13.12", timescale: undefined, available: undefined }
    assert.throws(
      () => chooseLevel(found, undefined),
      /^DATABASE_URL: PostgreSQL 14 or later is needed, this is 13\.12$/
    )
  })
})
