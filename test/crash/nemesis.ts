/**
 * Decides what goes wrong, by a seed: which faults in which order, and how each is done to the real processes. Several
 * lanes work at once, so that faults meet.
 */
import { connect } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect } from "effect"
import pg from "pg"
import { isPaused, type Server } from "../../scripts/servers/Server.ts"
import { TickLog, type Topic } from "../../src/streams/log/TickLog.ts"
import { CRASH_POINTS, type CrashPoint } from "../../src/streams/run/crashPoint.ts"
import { type Cluster, PARTITIONS, type Running, SESSION_MS } from "./cluster.ts"
import { type Injector, POISON_KINDS } from "./injector.ts"
import { between, type Random, random, shuffled } from "./random.ts"

/** Workers that are always meant to run. */
const WORKERS = 2
/** So long is waited for what may never come: far more than a slow machine needs. */
const CRASHES_WITHIN_MS = 90_000
const REPLY_LOST_WITHIN_MS = 60_000
/** No fault takes longer, whatever others do to the same servers. */
const FAULT_WITHIN_MS = 240_000

export interface Ground {
  readonly cluster: Cluster
  readonly injector: Injector
  readonly workers: Array<Running>
  server: Running
  readonly serverPort: number
  /** Faults that were asked for and did not come about, by kind. */
  readonly missed: Array<string>
}

interface Kind {
  /** What it needs to itself. */
  readonly holds: string | undefined
  readonly run: (ground: Ground, next: Random) => Promise<void>
}

let number = 0

/** Points that one partition passes only every few seconds. */
const SELDOM = /dead-letters|forward/
/**
 * What an owner had gathered when a partition was taken from it, it still writes: the first range of each partition that
 * moved here is written twice. Later ones are this worker's alone, and nobody else makes good what it leaves undone.
 */
const ARCHIVE = /archive|manifest|object/
const timesOf = (point: CrashPoint): number => (SELDOM.test(point) ? 3 : ARCHIVE.test(point) ? 10 : 6)

const crash = (point: CrashPoint): Kind => ({
  holds: undefined,
  run: async ({ cluster, missed }, next) => {
    const at = `${point}:${between(next, 1, timesOf(point))}`
    // One more joins, takes its share, and dies.
    let worker: Running
    try {
      worker = await cluster.worker(`worker ${++number} to die ${at}`, { MDP_CRASH_AT: at })
    } catch (error) {
      if (String(error).includes("was killed before")) return
      throw error
    }
    worker.isMeantToEnd = true
    if (!(await cluster.over(worker, CRASHES_WITHIN_MS))) missed.push(`crash:${at}`)
    else if (worker.mdp.signal !== "SIGKILL") {
      cluster.alarms.push(`${worker.name} ended with ${worker.mdp.code}: ${worker.mdp.stderr.slice(-2000)}`)
    }
    await cluster.kill(worker)
  }
})

/** Stands still between two steps until others have its partitions, then goes on as if nothing had been. */
const zombie = (point: CrashPoint): Kind => ({
  holds: undefined,
  run: async ({ cluster, missed }, next) => {
    const at = `${point}:${between(next, 1, 3)}:SIGSTOP`
    const args = { MDP_CRASH_AT: at }
    const worker = await cluster.worker(`worker ${++number} to pause ${at}`, args, { mayPause: true })
    const pid = worker.mdp.child.pid!
    const until = Date.now() + CRASHES_WITHIN_MS
    while (!isPaused(pid) && !worker.mdp.isOver && Date.now() < until) await sleep(100)
    if (isPaused(pid)) {
      await sleep(SESSION_MS + between(next, 1000, 3000))
      worker.mdp.kill("SIGCONT")
      await sleep(between(next, 300, 2500))
    } else missed.push(`zombie:${at}`)
    await cluster.kill(worker)
  }
})

const restarted = (name: string, server: (cluster: Cluster) => Server, isErased = false): Kind => ({
  holds: name,
  run: async ({ cluster }, next) => {
    const it = server(cluster)
    await it.kill()
    if (isErased) {
      it.erase()
      cluster.redisErasedAt = Date.now()
    }
    await sleep(between(next, 0, 1500))
    await cluster.restart(it)
  }
})

/** Loses the reply of the next request that `matches`, and waits until it happened. */
const replyLost = (of: "kafka" | "redis" | "postgres", what: string, matches: (request: Buffer) => boolean): Kind => ({
  holds: of,
  run: async ({ cluster, missed }) => {
    const proxy = cluster.proxies[of]
    const until = Date.now() + REPLY_LOST_WITHIN_MS
    const loss = proxy.loseReplyTo(matches)
    while (!loss.done && Date.now() < until) await sleep(20)
    if (!loss.done) missed.push(`lost:${what}`)
    loss.withdraw()
  }
})

const PRODUCE = 0
const OFFSET_COMMIT = 8
/** A Kafka request of a kind; the topic's name or id is in the clear. */
const isKafka = (api: number, topic: string | Buffer) => (request: Buffer) =>
  request.length > 8 && request.readInt16BE(4) === api && request.includes(topic)

/** Appends go by the topic's id. */
const produceLost = (what: string, topic: Topic): Kind => ({
  holds: "kafka",
  run: async (ground, next) => {
    const id = await ground.injector.runtime.runPromise(Effect.map(TickLog, (log) => log.incarnation(topic)))
    const matches = isKafka(PRODUCE, Buffer.from(id.replaceAll("-", ""), "hex"))
    await replyLost("kafka", what, matches).run(ground, next)
  }
})

/** A script that changes something: its keys and what it puts are in the clear. */
const isRedis = (changes: RegExp) => (request: Buffer) => {
  const text = request.toString("latin1")
  return /EVAL/i.test(text) && changes.test(text)
}

const onPostgres = async (cluster: Cluster, run: (client: pg.Client) => Promise<unknown>): Promise<void> => {
  const client = new pg.Client({
    connectionString: cluster.postgres.url(),
    connectionTimeoutMillis: 5000,
    query_timeout: 30_000
  })
  client.on("error", () => {})
  await client.connect()
  try {
    await run(client)
  } finally {
    await Promise.race([client.end().catch(() => {}), sleep(5000)])
  }
}

const flushRedis = async (cluster: Cluster): Promise<void> => {
  const { port, password } = new URL(cluster.redis.url())
  await new Promise<void>((resolve, reject) => {
    const socket = connect(Number(port), "127.0.0.1", () => socket.write(`AUTH ${password}\r\nFLUSHALL\r\n`))
    let answer = ""
    socket.setTimeout(5000, () => socket.destroy())
    socket.on("error", reject)
    socket.on("close", () => reject(new Error("Redis closed the connection")))
    socket.on("data", (chunk) => {
      answer += chunk.toString()
      if (answer.split("\r\n").length <= 2) return
      socket.destroy()
      if (answer.includes("-")) reject(new Error(`Redis: ${answer}`))
      else resolve()
    })
  })
  cluster.redisErasedAt = Date.now()
}

/** Where one that goes on later could do harm. */
const ZOMBIE_POINTS: ReadonlyArray<CrashPoint> = [
  "after-claim",
  "after-publish",
  "after-store-write",
  "after-ring-write",
  "after-manifest",
  "after-archive-write"
]

const kinds: Readonly<Record<string, Kind>> = {
  ...Object.fromEntries(CRASH_POINTS.map((point) => [`crash:${point}`, crash(point)])),
  ...Object.fromEntries(ZOMBIE_POINTS.map((point) => [`zombie:${point}`, zombie(point)])),
  "worker-kill": {
    holds: "workers",
    run: async ({ cluster, workers }, next) => {
      const slot = between(next, 0, workers.length - 1)
      await cluster.kill(workers[slot]!)
      await sleep(between(next, 0, 1000))
      workers[slot] = await cluster.worker(`worker ${++number}`)
    }
  },
  /** Silent for longer than its session, and back: a zombie. */
  "worker-pause": {
    holds: "workers",
    run: async ({ workers }, next) => {
      const worker = workers[between(next, 0, workers.length - 1)]!
      worker.mdp.kill("SIGSTOP")
      await sleep(SESSION_MS + between(next, 500, 4000))
      worker.mdp.kill("SIGCONT")
    }
  },
  "worker-join-leave": {
    holds: undefined,
    run: async ({ cluster }, next) => {
      const worker = await cluster.worker(`worker ${++number}, a visitor`)
      await sleep(between(next, 500, 3000))
      await cluster.stop(worker)
    }
  },
  "worker-stop": {
    holds: "workers",
    run: async ({ cluster, workers }, next) => {
      const slot = between(next, 0, workers.length - 1)
      await cluster.stop(workers[slot]!)
      workers[slot] = await cluster.worker(`worker ${++number}`)
    }
  },
  "server-kill": {
    holds: "server",
    run: async (ground, next) => {
      await ground.cluster.kill(ground.server)
      await sleep(between(next, 0, 500))
      ground.server = await ground.cluster.run(`server ${++number}`, ["server"], { PORT: String(ground.serverPort) })
    }
  },
  "kafka-kill": restarted("kafka", ({ kafka }) => kafka),
  "redis-kill": restarted("redis", ({ redis }) => redis),
  "redis-erased": restarted("redis", ({ redis }) => redis, true),
  "redis-flushall": { holds: "redis", run: ({ cluster }) => flushRedis(cluster) },
  /** All state is gone, some of it is saved anew, and then everyone who has the rest of it in memory. */
  "redis-flushall-kill": {
    holds: "workers",
    run: async ({ cluster, workers }) => {
      await flushRedis(cluster)
      await sleep(1500)
      await Promise.all(workers.map((worker) => cluster.kill(worker)))
      workers.splice(0, Number.POSITIVE_INFINITY, ...(await startWorkers(cluster)))
    }
  },
  "postgres-kill": restarted("postgres", ({ postgres }) => postgres),
  "postgres-terminate": {
    holds: "postgres",
    run: ({ cluster }) =>
      onPostgres(cluster, (client) =>
        client.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
      )
  },
  "postgres-lock": {
    holds: "postgres",
    run: ({ cluster }, next) =>
      onPostgres(cluster, async (client) => {
        await client.query("BEGIN")
        await client.query("LOCK TABLE ticks IN ACCESS EXCLUSIVE MODE")
        await sleep(between(next, 1000, 4000))
        await client.query("ROLLBACK")
      })
  },
  "s3-kill": restarted("s3", ({ s3 }) => s3),
  "lost:kafka-produce": produceLost("kafka-produce", "normalized_ticks"),
  "lost:kafka-raw-produce": produceLost("kafka-raw-produce", "raw_ticks"),
  "lost:kafka-commit": replyLost("kafka", "kafka-commit", isKafka(OFFSET_COMMIT, "_ticks")),
  "lost:redis-claim": replyLost("redis", "redis-claim", isRedis(/claim:\d+:\d+:\d+:/)),
  "lost:redis-checkpoint": replyLost("redis", "redis-checkpoint", isRedis(/state:\d+:/)),
  "lost:redis-ring": replyLost("redis", "redis-ring", isRedis(/ring:\d+.*"epoch":/s)),
  "lost:postgres-commit": replyLost("postgres", "postgres-commit", (request) => /COMMIT/i.test(request.toString())),
  "lost:s3-put": {
    holds: "s3",
    run: async ({ cluster, missed }) => {
      const { s3 } = cluster.proxies
      let isLost = false
      s3.fate = ({ method }) => {
        if (isLost || method !== "PUT") return "pass"
        isLost = true
        return "lose the reply"
      }
      const until = Date.now() + REPLY_LOST_WITHIN_MS
      while (!isLost && Date.now() < until) await sleep(20)
      s3.fate = () => "pass"
      if (!isLost) missed.push("lost:s3-put")
    }
  },
  poison: {
    holds: undefined,
    run: async ({ injector }, next) => {
      for (const kind of shuffled(next, POISON_KINDS)) {
        await injector.poison(kind, between(next, 0, PARTITIONS - 1))
      }
    }
  }
}

export const KINDS = Object.keys(kinds)

/** The faults of a seed: every kind once before any comes again. */
export const plan = (seed: number, faults: number, only: ReadonlyArray<string> = KINDS): ReadonlyArray<string> => {
  const next = random(seed)
  const planned: Array<string> = []
  while (planned.length < faults) planned.push(...shuffled(next, only))
  return planned.slice(0, faults)
}

export const startWorkers = (
  cluster: Cluster,
  environment: Readonly<Record<string, string>> = {}
): Promise<Array<Running>> =>
  Promise.all(Array.from({ length: WORKERS }, () => cluster.worker(`worker ${++number}`, environment)))

/** Does the faults of a plan, `lanes` at a time; answers how many of each kind came about. */
export const torment = async (
  ground: Ground,
  seed: number,
  planned: ReadonlyArray<string>,
  lanes: number,
  tell: (line: string) => void
): Promise<ReadonlyMap<string, number>> => {
  const done = new Map<string, number>()
  const held = new Set<string>()
  const waiting = planned.map((kind, i) => ({ kind, i }))
  const lane = async (): Promise<void> => {
    for (;;) {
      if (waiting.length === 0) return
      const at = waiting.findIndex(({ kind }) => !held.has(kinds[kind]!.holds ?? ""))
      if (at < 0) {
        await sleep(50)
        continue
      }
      const [{ kind, i }] = waiting.splice(at, 1) as [{ kind: string; i: number }]
      const { holds, run } = kinds[kind]!
      // A fault's own numbers do not depend on what the others drew before it.
      const next = random(seed * 1000 + i)
      if (holds !== undefined) held.add(holds)
      await sleep(between(next, 0, 600))
      const missedBefore = ground.missed.length
      tell(`${kind} …`)
      const started = Date.now()
      try {
        let late: NodeJS.Timeout | undefined
        await Promise.race([
          run(ground, next),
          new Promise((_, reject) => {
            late = setTimeout(() => reject(new Error(`not done within ${FAULT_WITHIN_MS} ms`)), FAULT_WITHIN_MS)
          })
        ]).finally(() => clearTimeout(late))
      } catch (error) {
        // PostgreSQL may just be ended by another lane.
        ground.missed.push(`${kind}: ${error instanceof Error ? error.message : String(error)}`)
      } finally {
        if (holds !== undefined) held.delete(holds)
      }
      tell(`${kind} done in ${Date.now() - started} ms`)
      // Another lane's fault may have been missed meanwhile.
      const isMissed = ground.missed.slice(missedBefore).some((what) => `${what}:`.startsWith(`${kind}:`))
      if (!isMissed) done.set(kind, (done.get(kind) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  return done
}
