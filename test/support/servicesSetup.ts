/**
 * Decides that a test run starts each real server at most once, only when a test asks for it, and stops all at its end:
 * runs in the process that starts the test workers, which ask it over loopback.
 */
import { randomBytes } from "node:crypto"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { TestProject } from "vitest/node"
import { missing, type ServiceName, serviceNames } from "../../scripts/servers/install.ts"
import { KafkaServer } from "../../scripts/servers/kafka.ts"
import { PostgresServer } from "../../scripts/servers/postgres.ts"
import { REDIS_DATABASES, RedisServer } from "../../scripts/servers/redis.ts"
import { S3Server } from "../../scripts/servers/s3.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** Where `services.ts` asks. */
    readonly servicesAt: string
  }
}

/** What a service is reached by, or what it lacks. */
export type Answer =
  | { readonly settings: Readonly<Record<string, string>> }
  | { readonly missing: string }
  | { readonly failed: string }

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  let folder: string | undefined
  const stops: Array<() => Promise<void>> = []
  const folderOf = (service: ServiceName): string => {
    folder ??= mkdtempSync(join(tmpdir(), "mdp-test-"))
    // PostgreSQL's user has to reach what is below.
    chmodSync(folder, 0o711)
    return join(folder, service)
  }
  let asked = 0

  /**
   * By the number of the asker, its own part of the server: a database, a bucket. Kafka's topics are all in one: name
   * them apart.
   */
  type SettingsFor = (asker: number) => Promise<Readonly<Record<string, string>>>
  const starters: Readonly<Record<ServiceName, () => Promise<SettingsFor>>> = {
    kafka: async () => {
      const server = new KafkaServer({ folder: folderOf("kafka") })
      stops.push(() => server.kill())
      await server.start()
      return async () => server.settings()
    },
    redis: async () => {
      const server = new RedisServer({ folder: folderOf("redis") })
      stops.push(() => server.kill())
      await server.start()
      return async (asker) => ({ REDIS_URL: server.url(asker % REDIS_DATABASES) })
    },
    postgres: async () => {
      const server = new PostgresServer({ folder: folderOf("postgres"), configuration: { fsync: "off" } })
      stops.push(() => server.kill())
      await server.start()
      return async (asker) => ({ DATABASE_URL: await server.createDatabase(`test_${asker}`) })
    },
    s3: async () => {
      const server = new S3Server({ folder: folderOf("s3") })
      stops.push(() => server.kill())
      await server.start()
      return async (asker) => {
        const bucket = `test-${asker}`
        server.createBucket(bucket)
        return server.settings(bucket)
      }
    }
  }
  const started = new Map<ServiceName, ReturnType<(typeof starters)[ServiceName]>>()
  const told = new Set<ServiceName>()

  const answer = async (service: ServiceName): Promise<Answer> => {
    const lacking = missing(service)
    if (lacking !== "") {
      if (!told.has(service) && process.env.SERVICES !== "required") {
        process.stderr.write(
          `${lacking} is not installed: its tests are skipped. To install: npm run services -- install ${service}\n`
        )
      }
      told.add(service)
      return { missing: lacking }
    }
    // Kept from here on: others ask while the server is being started.
    const asker = ++asked
    try {
      let starting = started.get(service)
      if (starting === undefined) {
        starting = starters[service]()
        started.set(service, starting)
      }
      const settingsFor = await starting
      return { settings: await settingsFor(asker) }
    } catch (error) {
      return { failed: error instanceof Error ? error.message : String(error) }
    }
  }

  // No other program on this machine finds it.
  const path = `/${randomBytes(12).toString("hex")}/`
  const listener = createServer((request, response) => {
    // This process stands still while it makes a server's folder: a connection kept open may be over its time, and be
    // closed before what was asked on it meanwhile is read.
    response.shouldKeepAlive = false
    const service = serviceNames.find((name) => request.url === `${path}${name}`)
    if (service === undefined) {
      response.writeHead(404).end()
      return
    }
    void answer(service).then((answered) => response.end(JSON.stringify(answered)))
  })
  await new Promise<void>((listening) => listener.listen(0, "127.0.0.1", listening))
  project.provide("servicesAt", `http://127.0.0.1:${(listener.address() as AddressInfo).port}${path}`)

  return async () => {
    listener.close()
    listener.closeAllConnections()
    await Promise.all(stops.map((stop) => stop()))
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  }
}
