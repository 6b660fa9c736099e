/** Decides where a run of the crash suite is played: a cluster, a server, workers, an injector and a client. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { freePort } from "../../scripts/servers/Server.ts"
import type { Mdp } from "../support/processes.ts"
import { s3Access } from "./access.ts"
import { Cluster, type Engine, PARTITIONS } from "./cluster.ts"
import { INJECTED_TOKENS, Injector } from "./injector.ts"
import { type Ground, startWorkers } from "./nemesis.ts"
import { drained, type Meant, readLedger, type Settled, settle, type TakenAway } from "./oracle.ts"
import { Witness } from "./witness.ts"

const FIRST_TOKEN = 9_000_001
const SYMBOLS = 20
/** Longest time in which a partition that is behind comes no further. */
const DRAINS_WITHIN_MS = 90_000
/** Longest time in which the client sees nothing more, though not all. */
const SEES_WITHIN_MS = 90_000
/** The feed's ledger is the account: it gets the time that it needs to close its market. */
const CLOSES_WITHIN_MS = 180_000
const SUBSCRIBED_WITHIN_MS = 180_000
const SHARES_WITHIN_MS = 180_000
const RUNS_PROCESS = /^topology_partition_assigned\{.*group="process"/

export interface Report extends Settled {
  /** Faults that came about, by kind. */
  readonly done: ReadonlyMap<string, number>
  readonly missed: ReadonlyArray<string>
  readonly seconds: number
  readonly logs: string
}

export class Stage {
  readonly cluster: Cluster
  readonly ground: Ground
  readonly injector: Injector
  readonly witness: Witness
  readonly meant: Array<Meant> = []
  #feeds = 0

  private constructor(cluster: Cluster, ground: Ground, injector: Injector, witness: Witness) {
    this.cluster = cluster
    this.ground = ground
    this.injector = injector
    this.witness = witness
  }

  static async set(engine: Engine): Promise<Stage> {
    const cluster = await Cluster.start(engine)
    try {
      const serverPort = await freePort()
      // The first makes the schema and the topics.
      const server = await cluster.run("server", ["server"], { PORT: String(serverPort) })
      const injector = new Injector(cluster.settings)
      const workers = await startWorkers(cluster)
      const ground: Ground = { cluster, injector, workers, server, serverPort, missed: [] }
      const tokens = [...Array.from({ length: SYMBOLS }, (_, i) => FIRST_TOKEN + i), ...INJECTED_TOKENS]
      const witness = new Witness(() => `http://127.0.0.1:${serverPort}`, tokens)
      const until = Date.now() + SUBSCRIBED_WITHIN_MS
      while (witness.checker.backfills < tokens.length) {
        if (Date.now() > until)
          throw new Error(`the client is not subscribed: ${String(witness.broken ?? server.mdp.stderr)}`)
        await sleep(50)
      }
      return new Stage(cluster, ground, injector, witness)
    } catch (error) {
      await cluster.close()
      throw error
    }
  }

  /** Plays a market and the injector while `during` runs; answers what reached a feed. */
  async play(seed: number, rate: number, during: (feed: Mdp) => Promise<void>): Promise<void> {
    const ledger = join(this.cluster.folder, `ledger-${++this.#feeds}.ndjson`)
    const before = this.injector.meant.length
    const feed = this.cluster.spawn(
      [
        ...["feed", "sim", "--symbols", String(SYMBOLS), "--rate", String(rate), "--loss", "0.02"],
        ...["--duplicate", "0.03", "--reorder", "0.02", "--seed", String(seed), "--ledger", ledger]
      ],
      { KAFKA_DELIVERY_TIMEOUT_MS: "120000", DRAIN_DEADLINE_MS: String(CLOSES_WITHIN_MS) }
    )
    this.injector.start()
    try {
      while (!existsSync(ledger) && !feed.isOver) await sleep(50)
      await during(feed)
    } finally {
      await this.injector.stop()
      feed.kill("SIGINT")
      const until = Date.now() + CLOSES_WITHIN_MS
      while (!feed.isOver && Date.now() < until) await sleep(20)
      feed.kill("SIGKILL")
    }
    if (feed.code !== 0)
      this.cluster.alarms.push(`the feed ended with ${feed.code ?? feed.signal}: ${feed.stderr.slice(-1000)}`)
    for (const tick of [...(await readLedger(ledger)), ...this.injector.meant.slice(before)]) {
      if (tick.reached.length > 0) this.meant.push(tick)
    }
  }

  /** Waits until every worker runs an even share of `process`: from then on none is handed over while all live. */
  async share(): Promise<void> {
    const { cluster, ground } = this
    const until = Date.now() + SHARES_WITHIN_MS
    const shares = () =>
      ground.workers.map((worker) => {
        const figures = [...(cluster.figures.get(worker) ?? [])]
        return figures.filter(([name, value]) => value === 1 && RUNS_PROCESS.test(name)).length
      })
    while (shares().some((share) => share !== PARTITIONS / ground.workers.length)) {
      if (Date.now() > until)
        throw new Error(`partitions of process: ${PARTITIONS} are run as ${shares().join(" and ")}`)
      await sleep(50)
      await cluster.poll()
    }
  }

  /** What the injector sends by itself, for some time. */
  async inject(ms: number): Promise<void> {
    const before = this.injector.meant.length
    this.injector.start()
    await sleep(ms)
    await this.injector.stop()
    for (const token of INJECTED_TOKENS) await this.injector.trade(token)
    for (const tick of this.injector.meant.slice(before)) this.meant.push(tick)
  }

  async settle(takenAway?: TakenAway): Promise<Settled> {
    const { cluster, injector, witness } = this
    const behind = await drained(injector.runtime, DRAINS_WITHIN_MS)
    if (behind !== undefined) cluster.alarms.push(`not drained, no further for ${DRAINS_WITHIN_MS} ms: ${behind}`)
    const all = new Set(this.meant.map((t) => `${t.instrument_token}/${t.sequence_id}/${t.exchange_ts}`)).size
    const seen = () => witness.checker.ticks + witness.checker.backfilled + witness.checker.evicted
    let [most, at] = [seen(), Date.now()]
    while (seen() < all && witness.broken === undefined && Date.now() < at + SEES_WITHIN_MS) {
      await sleep(50)
      if (seen() > most) [most, at] = [seen(), Date.now()]
    }
    await cluster.poll()
    return settle(
      cluster,
      injector,
      { meant: this.meant, takenAway },
      witness,
      s3Access(cluster.s3.settings()),
      this.ground.server.url
    )
  }

  /** Ends every worker as a person would; what it says to that. */
  async stopAll(): Promise<void> {
    for (const worker of this.ground.workers) {
      const code = await this.cluster.stop(worker)
      if (code !== 0) this.cluster.alarms.push(`${worker.name} stopped with ${code}: ${worker.mdp.stderr.slice(-1500)}`)
    }
  }

  async close(): Promise<void> {
    this.witness.close()
    await this.injector.close()
    await this.cluster.close()
  }
}

const SETS_WITHIN_MS = 600_000

/**
 * Plays a run from its start to its end: it always ends, in `withinMs` at most, nothing of it goes on, and what every
 * process said is in the report.
 */
export const onStage = async (
  engine: Engine,
  withinMs: number,
  tell: (line: string) => void,
  play: (stage: Stage) => Promise<Settled & { readonly done: ReadonlyMap<string, number> }>
): Promise<Report> => {
  const started = Date.now()
  const stage = await within(Stage.set(engine), SETS_WITHIN_MS, "the stage was not set")
  const report = (settled: Settled & { readonly done: ReadonlyMap<string, number> }): Report => ({
    ...settled,
    missed: stage.ground.missed,
    seconds: (Date.now() - started) / 1000,
    logs: stage.cluster.logs()
  })
  try {
    tell(`ready after ${((Date.now() - started) / 1000).toFixed(1)} s`)
    return report(await within(play(stage), withinMs, "the run did not end"))
  } catch (error) {
    const problem = error instanceof Error ? (error.stack ?? error.message) : String(error)
    return report({ problems: [problem, ...stage.cluster.alarms], figures: {}, done: new Map() })
  } finally {
    await stage.close()
  }
}

const within = <A>(promise: Promise<A>, ms: number, what: string): Promise<A> => {
  let late: NodeJS.Timeout | undefined
  return Promise.race([
    promise,
    new Promise<never>((_, reject) => {
      late = setTimeout(() => reject(new Error(`${what} within ${ms / 1000} s`)), ms)
    })
  ]).finally(() => clearTimeout(late))
}
