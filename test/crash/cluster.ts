/**
 * Decides what the crash suite plays on: a Kafka, a Redis, a PostgreSQL and an S3 server of its own, each behind a proxy
 * that can lose a reply, and the platform's processes on them.
 */
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { KafkaServer } from "../../scripts/servers/kafka.ts"
import { PostgresServer } from "../../scripts/servers/postgres.ts"
import { RedisServer } from "../../scripts/servers/redis.ts"
import { isPaused, reapWith, type Server } from "../../scripts/servers/Server.ts"
import { S3Server } from "../../scripts/servers/s3.ts"
import { HttpProxy } from "../support/httpProxy.ts"
import { LossyProxy } from "../support/LossyProxy.ts"
import { Mdp } from "../support/processes.ts"

export const ENGINES = ["platformatic", "kafkajs"] as const
export type Engine = (typeof ENGINES)[number]

export const PARTITIONS = 8
/** How long a silent worker keeps its partitions. */
export const SESSION_MS = 3000
const STARTS_WITHIN_MS = 90_000

const withPort = (url: string, port: number): string => {
  const changed = new URL(url)
  changed.port = String(port)
  return changed.href
}

export interface ClusterOptions {
  /** No proxy in front of the servers, and the product's own times: as a deployment has it. */
  readonly isPlain?: boolean
  /** Settings besides, or instead. */
  readonly settings?: Readonly<Record<string, string>>
}

/** One process of the platform, and what is known of it. */
export interface Running {
  readonly name: string
  readonly mdp: Mdp
  /** Empty where it was paused before it said it. */
  readonly url: string
  /** Set by who ends it on purpose. */
  isMeantToEnd: boolean
}

export class Cluster {
  readonly folder: string
  readonly engine: Engine
  readonly kafka: KafkaServer
  readonly redis: RedisServer
  readonly postgres: PostgresServer
  readonly s3: S3Server
  readonly proxies: { kafka: LossyProxy; redis: LossyProxy; postgres: LossyProxy; s3: HttpProxy }
  /** Settings through the proxies, for the processes. */
  readonly settings: Readonly<Record<string, string>>
  /** Every process that was started. */
  readonly processes: Array<Running> = []
  /** What should never happen, whatever the nemesis does. */
  readonly alarms: Array<string> = []
  /** The newest figures of each process, the dead ones' last included. */
  readonly figures = new Map<Running, ReadonlyMap<string, number>>()
  /** When Redis last forgot everything, epoch ms. */
  redisErasedAt: number | undefined
  /** Set once the run is over: nothing is started any more. */
  isClosed = false
  /** Every child, those not up yet included. */
  readonly #children: Array<Mdp> = []
  #polling: NodeJS.Timeout | undefined

  private constructor(
    folder: string,
    engine: Engine,
    servers: Pick<Cluster, "kafka" | "redis" | "postgres" | "s3">,
    proxies: Cluster["proxies"],
    { isPlain = false, settings = {} }: ClusterOptions
  ) {
    this.folder = folder
    this.engine = engine
    this.kafka = servers.kafka
    this.redis = servers.redis
    this.postgres = servers.postgres
    this.s3 = servers.s3
    this.proxies = proxies
    if (isPlain) {
      const found = Object.values(servers).map((server) => server.settings())
      this.settings = Object.assign({ KAFKA_ENGINE: engine, METRICS_PORT: "0", PORT: "0" }, ...found, settings)
      return
    }
    this.settings = {
      KAFKA_ENGINE: engine,
      KAFKA_BROKERS: `127.0.0.1:${proxies.kafka.port}`,
      REDIS_URL: withPort(this.redis.url(), proxies.redis.port),
      DATABASE_URL: withPort(this.postgres.url(), proxies.postgres.port),
      ...this.s3.settings(),
      S3_ENDPOINT: proxies.s3.url,
      PARTITIONS: String(PARTITIONS),
      METRICS_PORT: "0",
      PORT: "0",
      // Everything that is waited for comes soon.
      KAFKA_SESSION_TIMEOUT_MS: String(SESSION_MS),
      KAFKA_HEARTBEAT_MS: "300",
      KAFKA_METADATA_MS: "1000",
      KAFKA_FETCH_WAIT_MS: "200",
      KAFKA_DELIVERY_TIMEOUT_MS: "20000",
      SNAPSHOT_MS: "500",
      ARCHIVE_FLUSH_MS: "2000",
      REDIS_TIMEOUT_MS: "1000",
      S3_TIMEOUT_MS: "3000",
      DRAIN_DEADLINE_MS: "20000",
      ...settings
    }
  }

  /** Where this process ends before its time: nothing of it goes on, and nothing is left. */
  readonly #atExit = (): void => {
    for (const mdp of this.#children) mdp.kill("SIGKILL")
    for (const server of [this.kafka, this.redis, this.postgres, this.s3]) server.signal("SIGKILL")
    try {
      rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
    } catch {
      // A server's last children write into it for a moment.
    }
  }

  static async start(engine: Engine, options: ClusterOptions = {}): Promise<Cluster> {
    const folder = mkdtempSync(join(tmpdir(), "mdp-crash-"))
    chmodSync(folder, 0o711)
    const kafkaProxy = new LossyProxy(() => servers.kafka.port)
    await kafkaProxy.listen()
    const servers = {
      kafka: new KafkaServer({
        folder: join(folder, "kafka"),
        ...(options.isPlain ? {} : { advertisedPort: kafkaProxy.port })
      }),
      redis: new RedisServer({ folder: join(folder, "redis") }),
      postgres: new PostgresServer({ folder: join(folder, "postgres"), configuration: { fsync: "off" } }),
      s3: new S3Server({ folder: join(folder, "s3") })
    }
    try {
      await Promise.all(Object.values(servers).map((server) => server.start()))
      const redis = new LossyProxy(() => servers.redis.port)
      const postgres = new LossyProxy(() => servers.postgres.port)
      const s3 = new HttpProxy(servers.s3.endpoint)
      await Promise.all([redis.listen(), postgres.listen(), s3.listen()])
      const cluster = new Cluster(folder, engine, servers, { kafka: kafkaProxy, redis, postgres, s3 }, options)
      process.on("exit", cluster.#atExit)
      cluster.#polling = setInterval(() => void cluster.poll(), 1500)
      return cluster
    } catch (error) {
      for (const server of Object.values(servers)) await server.kill()
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }

  /** Starts a command and waits until it says where it is; tried again where a server that is down makes it give up. */
  async run(
    name: string,
    args: ReadonlyArray<string>,
    environment: Readonly<Record<string, string>> = {},
    { mayPause = false }: { readonly mayPause?: boolean } = {}
  ): Promise<Running> {
    const until = Date.now() + STARTS_WITHIN_MS
    for (;;) {
      const mdp = this.spawn(args, environment)
      let url: string | undefined
      for (let look = 0; !mdp.isOver && Date.now() < until; look++) {
        url = /http:\/\/127\.0\.0\.1:\d+/.exec(mdp.stdout)?.[0]
        // It may come to its point before it has said where it is.
        if (url === undefined && mayPause && look % 25 === 24 && isPaused(mdp.child.pid!)) url = ""
        if (url !== undefined) break
        await sleep(20)
      }
      url ??= /http:\/\/127\.0\.0\.1:\d+/.exec(mdp.stdout)?.[0]
      if (url !== undefined) {
        const running: Running = { name, mdp, url, isMeantToEnd: false }
        this.processes.push(running)
        const ended = () => {
          if (running.isMeantToEnd || this.isClosed) return
          this.alarms.push(`${name} ended by itself with ${mdp.code ?? mdp.signal}: ${mdp.stderr.slice(-2000)}`)
        }
        // Who starts one that is meant to end says so before anything else can be.
        if (mdp.isOver) setImmediate(ended)
        else mdp.child.on("close", ended)
        return running
      }
      if (mdp.signal === "SIGKILL") throw new Error(`${name} was killed before it was up`)
      if (Date.now() > until) {
        mdp.kill("SIGKILL")
        throw new Error(`${name} did not start: ${mdp.stderr.slice(-2000)}`)
      }
      if (mdp.code !== 1) this.alarms.push(`${name} gave up its start with ${mdp.code}: ${mdp.stderr.slice(-2000)}`)
      await sleep(300)
    }
  }

  /** Starts a command; it ends with the run, or with this process, at the latest. */
  spawn(args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}): Mdp {
    if (this.isClosed) throw new Error("the run is over")
    const mdp = new Mdp(args, { ...this.settings, ...environment })
    this.#children.push(mdp)
    reapWith(mdp.child)
    return mdp
  }

  worker(
    name: string,
    environment: Readonly<Record<string, string>> = {},
    options?: { readonly mayPause?: boolean }
  ): Promise<Running> {
    return this.run(name, ["worker"], environment, options)
  }

  /** Restarts a server that was killed, unless the run is over. */
  async restart(server: Server): Promise<void> {
    if (this.isClosed) throw new Error("the run is over")
    await server.start()
  }

  async over(running: Running, withinMs: number): Promise<boolean> {
    const until = Date.now() + withinMs
    while (!running.mdp.isOver && Date.now() < until) await sleep(10)
    return running.mdp.isOver
  }

  /** `kill -9`, and waits until it is gone. */
  async kill(running: Running): Promise<void> {
    running.isMeantToEnd = true
    running.mdp.kill("SIGKILL")
    await this.over(running, 30_000)
  }

  /** SIGTERM, and waits; a stop that is not clean is an alarm only where nothing else was wrong meanwhile. */
  async stop(running: Running): Promise<number | null> {
    running.isMeantToEnd = true
    running.mdp.kill("SIGTERM")
    if (!(await this.over(running, 40_000))) {
      running.mdp.kill("SIGKILL")
      await this.over(running, 10_000)
    }
    return running.mdp.code
  }

  async poll(): Promise<void> {
    await Promise.all(
      this.processes
        .filter(({ mdp, url }) => !mdp.isOver && url !== "")
        .map(async (running) => {
          try {
            const answer = await fetch(`${running.url}/metrics`, { signal: AbortSignal.timeout(1000) })
            const figures = new Map<string, number>()
            for (const line of (await answer.text()).split("\n")) {
              const at = line.lastIndexOf(" ")
              if (at > 0 && !line.startsWith("#")) figures.set(line.slice(0, at), Number(line.slice(at + 1)))
            }
            this.figures.set(running, figures)
          } catch {
            // Stopped, or ending just now.
          }
        })
    )
  }

  /** The sum of a counter over all processes, by its labels. */
  total(metric: string): number {
    let sum = 0
    for (const figures of this.figures.values()) {
      for (const [name, n] of figures) if (name === metric || name.startsWith(`${metric}{`)) sum += n
    }
    return sum
  }

  /** What every process said, for who looks into a failure. */
  logs(): string {
    return this.processes
      .map(({ name, mdp }) => `=== ${name} (pid ${mdp.child.pid}) ended ${mdp.code ?? mdp.signal}\n${mdp.stderr}`)
      .join("\n")
  }

  async close(): Promise<void> {
    this.isClosed = true
    clearInterval(this.#polling)
    for (const mdp of this.#children) mdp.kill("SIGKILL")
    const until = Date.now() + 30_000
    while (this.#children.some((mdp) => !mdp.isOver) && Date.now() < until) await sleep(20)
    for (const proxy of Object.values(this.proxies)) proxy.close()
    await Promise.all([this.kafka, this.redis, this.postgres, this.s3].map((server) => server.kill()))
    process.off("exit", this.#atExit)
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  }
}
