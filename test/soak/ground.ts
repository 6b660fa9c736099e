/**
 * Decides what a soak run stands on: real servers, workers and a server of the platform with its own times, a market
 * that is played from a ledger, a witness, and the account that is closed at the end.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { Effect, ManagedRuntime, Result, Stream } from "effect"
import pg from "pg"
import * as Kafka from "../../src/layers/kafka/KafkaLog.ts"
import { readSettings, type Settings } from "../../src/schema/Settings.ts"
import { type LogRecord, TickLog } from "../../src/streams/log/TickLog.ts"
import { consumerGroups } from "../../src/streams/topology.ts"
import { s3Access } from "../crash/access.ts"
import { Cluster, type Engine, type Running } from "../crash/cluster.ts"
import { drained, type Meant, readLedger, settle } from "../crash/oracle.ts"
import { Witness } from "../crash/witness.ts"
import { type BarTick, barsOf } from "../support/candles.ts"
import { Mdp } from "../support/processes.ts"
import type { Report } from "./report.ts"

const FIRST_TOKEN = 9_000_001
/** The account is closed once the archive has everything too: it writes sooner than it would by itself. */
const ARCHIVE_FLUSH_MS = "10000"
const DRAINS_WITHIN_MS = 300_000
const SEES_WITHIN_MS = 30_000
const INTERVALS = ["1m", "5m"] as const

export interface SoakOptions {
  readonly engine: Engine
  /** How long the fault, or the burst, lasts. */
  readonly seconds: number
  /** Ticks a second that the market means. */
  readonly rate: number
  /** Of `misbehave`: which kinds; empty: all. */
  readonly kinds: ReadonlyArray<string>
}

/** A market under way. */
export interface Feed {
  /** Ends it in order; answers what reached a feed. */
  readonly stop: () => Promise<ReadonlyArray<Meant>>
}

const run = promisify(execFile)

/** Resident memory, MB, in the order asked for. */
export const residentMb = async (processes: ReadonlyArray<Running>): Promise<ReadonlyArray<number>> => {
  const pids = processes.map(({ mdp }) => String(mdp.child.pid))
  const { stdout } = await run("ps", ["-o", "pid=,rss=", "-p", pids.join(",")])
  const found = new Map(stdout.split("\n").map((line) => line.trim().split(/\s+/) as [string, string]))
  return pids.map((pid) => Number(found.get(pid)) / 1024)
}

/** The host's clock, µs. */
export const now = (): number => (performance.timeOrigin + performance.now()) * 1000

export class Ground {
  readonly cluster: Cluster
  readonly settings: Settings
  /** The one that is asked; a run may put another in its place. */
  server: Running
  readonly workers: Array<Running> = []
  readonly witness: Witness
  readonly tokens: ReadonlyArray<number>
  /** The log as the account reads it. */
  readonly runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>
  #feed: Mdp | undefined

  private constructor(cluster: Cluster, settings: Settings, server: Running, tokens: ReadonlyArray<number>) {
    this.cluster = cluster
    this.settings = settings
    this.server = server
    this.tokens = tokens
    this.runtime = ManagedRuntime.make(Kafka.layerOf(settings, consumerGroups))
    this.witness = new Witness(() => this.server.url, tokens)
  }

  static async set(engine: Engine, symbols: number): Promise<Ground> {
    const cluster = await Cluster.start(engine, { isPlain: true, settings: { ARCHIVE_FLUSH_MS } })
    let ground: Ground | undefined
    try {
      const server = await cluster.run("server", ["server"])
      const settings = Result.getOrThrow(readSettings(cluster.settings))
      const tokens = Array.from({ length: symbols }, (_, i) => FIRST_TOKEN + i)
      ground = new Ground(cluster, settings, server, tokens)
      await ground.worker()
      while (ground.witness.checker.backfills < tokens.length) await sleep(50)
      return ground
    } catch (error) {
      if (ground === undefined) await cluster.close()
      else await ground.close()
      throw error
    }
  }

  /** One more worker, ready. */
  async worker(): Promise<Running> {
    const worker = await this.cluster.worker(`worker ${this.workers.length + 1}`)
    this.workers.push(worker)
    while ((await fetch(`${worker.url}/readyz`)).status !== 200) await sleep(50)
    return worker
  }

  /** Plays a market; when this is done its first ticks are out. */
  async play(rate: number): Promise<Feed> {
    const ledger = join(this.cluster.folder, "ledger.ndjson")
    const feed = new Mdp(
      [
        ...["feed", "sim", "--symbols", String(this.tokens.length), "--rate", String(rate), "--loss", "0.01"],
        ...["--duplicate", "0.02", "--reorder", "0.01", "--seed", "1", "--ledger", ledger]
      ],
      this.cluster.settings
    )
    this.#feed = feed
    const { checker } = this.witness
    while (!feed.isOver && (!existsSync(ledger) || checker.ticks + checker.backfilled === 0)) await sleep(20)
    const stop = async () => {
      feed.kill("SIGINT")
      const until = Date.now() + 60_000
      while (!feed.isOver && Date.now() < until) await sleep(20)
      feed.kill("SIGKILL")
      if (feed.code !== 0)
        throw new Error(`the feed ended with ${feed.code ?? feed.signal}: ${feed.stderr.slice(-1000)}`)
      return (await readLedger(ledger)).filter(({ reached }) => reached.length > 0)
    }
    if (feed.isOver) await stop()
    return { stop }
  }

  log<A>(work: (log: TickLog["Service"]) => Effect.Effect<A, unknown>): Promise<A> {
    return this.runtime.runPromise(Effect.flatMap(TickLog, work))
  }

  /** The next offset of each partition of `normalized_ticks`. */
  ends(): Promise<ReadonlyArray<number>> {
    return this.log((log) =>
      Effect.forEach(Array.from({ length: log.partitions }), (_, partition) =>
        Effect.map(log.bounds("normalized_ticks", partition), ({ end }) => end)
      )
    )
  }

  /** Hands over every record of a partition of `normalized_ticks`, array by array. */
  read(partition: number, take: (records: ReadonlyArray<LogRecord>) => void): Promise<void> {
    return this.log((log) =>
      Effect.gen(function* () {
        const { start, end } = yield* log.bounds("normalized_ticks", partition)
        if (start === end) return
        yield* log.read("normalized_ticks", partition, start).pipe(
          Stream.takeUntil((records) => records[records.length - 1]!.offset >= end - 1),
          Stream.runForEach((records) => Effect.sync(() => take(records)))
        )
      })
    )
  }

  async sql<R extends pg.QueryResultRow>(text: string, values: Array<unknown> = []): Promise<ReadonlyArray<R>> {
    const client = new pg.Client({ connectionString: this.cluster.postgres.url(), connectionTimeoutMillis: 5000 })
    client.on("error", () => {})
    await client.connect()
    try {
      return (await client.query<R>(text, values)).rows
    } finally {
      await client.end().catch(() => {})
    }
  }

  async rows(): Promise<number> {
    return Number((await this.sql<{ n: string }>("SELECT count(*) AS n FROM ticks"))[0]!.n)
  }

  /** Waits until the store's own bookmarks are at these offsets or above; false where that does not come to be. */
  async storeReaches(ends: ReadonlyArray<number>, withinMs: number): Promise<boolean> {
    const incarnation = await this.log((log) => Effect.sync(() => log.incarnation("normalized_ticks")))
    const until = Date.now() + withinMs
    while (Date.now() < until) {
      const found = await this.sql<{ partition: number; next: string }>(
        "SELECT partition, next_offset::text AS next FROM sink_offsets WHERE incarnation = $1",
        [incarnation]
      )
      const next = new Map(found.map((row) => [row.partition, Number(row.next)]))
      if (ends.every((end, partition) => end === 0 || (next.get(partition) ?? 0) >= end)) return true
      await sleep(50)
    }
    return false
  }

  /** What a process says of a figure just now: its sum over the labels that are asked for. */
  async figure(process: Running, name: string, labels: string): Promise<number> {
    const text = await (await fetch(`${process.url}/metrics`)).text()
    return text
      .split("\n")
      .filter((line) => line.startsWith(`${name}{`) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0)
  }

  /** Drains everything and settles it; bars as REST answers them against a recompute from the rows. */
  async closeAccount(report: Report, meant: ReadonlyArray<Meant>): Promise<void> {
    const { cluster, runtime, witness } = this
    const behind = await drained(runtime, DRAINS_WITHIN_MS)
    if (behind !== undefined) cluster.alarms.push(`not drained within ${DRAINS_WITHIN_MS / 1000} s: ${behind}`)
    const until = Date.now() + SEES_WITHIN_MS
    const { checker } = witness
    while (checker.ticks + checker.backfilled + checker.evicted < meant.length && Date.now() < until) await sleep(50)
    await cluster.poll()
    const bars = await this.#barsThatDiffer()
    const access = s3Access(cluster.s3.settings())
    const { problems, figures } = await settle(cluster, { runtime }, { meant }, witness, access, this.server.url)
    report.check(
      "account closed: ledger = normalized_ticks = store = archive = witness, each tick once, positions without a hole in one epoch",
      problems.length === 0,
      Object.entries(figures)
        .map(([name, n]) => `${name} ${n}`)
        .join(", "),
      problems
    )
    report.check(
      `bars of ${INTERVALS.join(" and ")} as REST answers them equal a recompute from the rows`,
      bars.compared > 0 && bars.differing.length === 0,
      `${bars.compared} bars`,
      bars.differing.slice(0, 4)
    )
  }

  async #barsThatDiffer(): Promise<{ readonly compared: number; readonly differing: ReadonlyArray<string> }> {
    let compared = 0
    const differing: Array<string> = []
    for (const token of this.tokens) {
      const found = await this.sql<Record<keyof BarTick, string>>(
        `SELECT (extract(epoch FROM exchange_ts) * 1000000)::bigint::text AS exchange_ts, sequence_id::text, epoch::text,
                position::text, price::text, volume::text FROM ticks WHERE instrument_token = $1`,
        [token]
      )
      const ticks = found.map(
        (row): BarTick => ({
          exchange_ts: Number(row.exchange_ts),
          sequence_id: Number(row.sequence_id),
          epoch: Number(row.epoch),
          position: Number(row.position),
          price: Number(row.price),
          volume: Number(row.volume)
        })
      )
      for (const interval of INTERVALS) {
        const span = `from=${(Date.now() - 86_400_000) * 1000}&to=${(Date.now() + 3_600_000) * 1000}`
        const url = `${this.server.url}/api/v1/historical/candles?instrument_token=${token}&interval=${interval}&${span}`
        const answer = await fetch(url)
        const { candles = [] } = (await answer.json()) as { candles?: ReadonlyArray<Record<string, unknown>> }
        const shown = candles.map(({ ts, open, high, low, close, volume }) => ({ ts, open, high, low, close, volume }))
        const meant = barsOf(ticks, interval === "1m" ? 1 : 5)
        compared += meant.length
        if (JSON.stringify(shown) !== JSON.stringify(meant)) {
          differing.push(`${token} ${interval}: ${JSON.stringify(shown)}, recomputed ${JSON.stringify(meant)}`)
        }
      }
    }
    return { compared, differing }
  }

  async close(): Promise<void> {
    this.#feed?.kill("SIGKILL")
    this.witness.close()
    await this.runtime.dispose()
    await this.cluster.close()
  }
}
