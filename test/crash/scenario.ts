/** Decides one run of the crash suite: a cluster, a feed, the faults of a seed, a drain, the oracle; then all killed once more. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Admin } from "@platformatic/kafka"
import { freePort } from "../../scripts/servers/Server.ts"
import { Mdp } from "../support/processes.ts"
import { s3Access } from "./access.ts"
import { Cluster, type Engine } from "./cluster.ts"
import { INJECTED_TOKENS, Injector } from "./injector.ts"
import { type Ground, plan, startWorkers, torment } from "./nemesis.ts"
import { drained, type Meant, readLedger, type Settled, settle } from "./oracle.ts"
import { Witness } from "./witness.ts"

const FIRST_TOKEN = 9_000_001
const SYMBOLS = 20
const DRAINS_WITHIN_MS = 90_000
const SEES_WITHIN_MS = 20_000

export interface RunOptions {
  readonly seed: number
  readonly faults: number
  readonly engine: Engine
  readonly kinds?: ReadonlyArray<string> | undefined
  readonly lanes?: number
  readonly rate?: number
  readonly tell?: (line: string) => void
}

export interface Report extends Settled {
  /** Faults that came about, by kind. */
  readonly done: ReadonlyMap<string, number>
  readonly missed: ReadonlyArray<string>
  readonly seconds: number
  readonly logs: string
}

class Stage {
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
      while (witness.checker.backfills < tokens.length) await sleep(50)
      return new Stage(cluster, ground, injector, witness)
    } catch (error) {
      await cluster.close()
      throw error
    }
  }

  /** Plays a market and the injector while `during` runs; answers what reached a feed. */
  async play(seed: number, rate: number, during: () => Promise<void>): Promise<ReadonlyArray<Meant>> {
    const ledger = join(this.cluster.folder, `ledger-${++this.#feeds}.ndjson`)
    const before = this.injector.meant.length
    const feed = new Mdp(
      [
        ...["feed", "sim", "--symbols", String(SYMBOLS), "--rate", String(rate), "--loss", "0.02"],
        ...["--duplicate", "0.03", "--reorder", "0.02", "--seed", String(seed), "--ledger", ledger]
      ],
      { ...this.cluster.settings, KAFKA_DELIVERY_TIMEOUT_MS: "120000" }
    )
    this.injector.start()
    try {
      while (!existsSync(ledger) && !feed.isOver) await sleep(50)
      await during()
    } finally {
      await this.injector.stop()
      feed.kill("SIGINT")
      const until = Date.now() + 60_000
      while (!feed.isOver && Date.now() < until) await sleep(20)
      feed.kill("SIGKILL")
    }
    if (feed.code !== 0)
      this.cluster.alarms.push(`the feed ended with ${feed.code ?? feed.signal}: ${feed.stderr.slice(-1000)}`)
    const meant = [...(await readLedger(ledger)), ...this.injector.meant.slice(before)].filter(
      ({ reached }) => reached.length > 0
    )
    for (const tick of meant) this.meant.push(tick)
    return meant
  }

  /** What the injector sends by itself, for some time. */
  async inject(ms: number): Promise<void> {
    const before = this.injector.meant.length
    this.injector.start()
    await sleep(ms)
    await this.injector.stop()
    for (const token of INJECTED_TOKENS) await this.injector.trade(token)
    this.meant.push(...this.injector.meant.slice(before))
  }

  async settle(inLog: ReadonlyArray<Meant>, anew: boolean): Promise<Settled> {
    const { cluster, injector, witness } = this
    const behind = await drained(injector.runtime, DRAINS_WITHIN_MS)
    if (behind !== undefined) cluster.alarms.push(`not drained within ${DRAINS_WITHIN_MS} ms: ${behind}`)
    const until = Date.now() + SEES_WITHIN_MS
    const all = new Set(this.meant.map((t) => `${t.instrument_token}/${t.sequence_id}/${t.exchange_ts}`)).size
    const seen = () => witness.checker.ticks + witness.checker.backfilled + witness.checker.evicted
    while (seen() < all && witness.broken === undefined && Date.now() < until) await sleep(50)
    await cluster.poll()
    return settle(
      cluster,
      injector.runtime,
      { inLog, ever: this.meant, anew },
      witness,
      s3Access(cluster.s3.settings())
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

const report = async (
  stage: Stage,
  started: number,
  settled: Settled,
  done: ReadonlyMap<string, number>
): Promise<Report> => {
  return {
    ...settled,
    done,
    missed: stage.ground.missed,
    seconds: (Date.now() - started) / 1000,
    logs: stage.cluster.logs()
  }
}

/** The faults of a seed under a feed; the account is settled, all workers are killed once more, and nothing has changed. */
export const run = async ({
  seed,
  faults,
  engine,
  kinds,
  lanes = 2,
  rate = 600,
  tell = () => {}
}: RunOptions): Promise<Report> => {
  const started = Date.now()
  const stage = await Stage.set(engine)
  try {
    let done: ReadonlyMap<string, number> = new Map()
    tell(`ready after ${((Date.now() - started) / 1000).toFixed(1)} s`)
    await stage.play(seed, rate, async () => {
      await sleep(1500)
      done = await torment(stage.ground, seed, plan(seed, faults, kinds), lanes, tell)
      await sleep(500)
    })
    tell("drain")
    const first = await stage.settle(stage.meant, false)
    if (first.problems.length > 0) return await report(stage, started, first, done)
    tell("all workers are killed once more")
    await Promise.all(stage.ground.workers.map((worker) => stage.cluster.kill(worker)))
    stage.ground.workers.splice(0, Number.POSITIVE_INFINITY, ...(await startWorkers(stage.cluster)))
    // Every instrument that trades on shows whether its state was there.
    await stage.inject(4000)
    const second = await stage.settle(stage.meant, false)
    await stage.stopAll()
    // No zombie was left that could have published it: who recovers publishes nothing that is there.
    const again = (second.figures.repeats ?? 0) - (first.figures.repeats ?? 0)
    const problems = [
      ...(again > 0 ? [`after one more kill: ${again} ticks were published again`] : []),
      ...second.problems.map((problem) => `after one more kill: ${problem}`),
      ...stage.cluster.alarms.filter((alarm) => !second.problems.some((problem) => problem.includes(alarm)))
    ]
    return await report(stage, started, { ...first, problems }, done)
  } finally {
    await stage.close()
  }
}

export const ANEW = ["raw_ticks", "normalized_ticks", "all topics"] as const

/**
 * Topics deleted and made anew between two markets: the store and the archive hold both, the log what was fed since, and
 * clients go on. Where only `normalized_ticks` is gone it is published again from the retained raw.
 */
export const runAnew = async (
  which: (typeof ANEW)[number],
  { seed, engine, rate = 600, tell = () => {} }: Omit<RunOptions, "faults">
): Promise<Report> => {
  const started = Date.now()
  const stage = await Stage.set(engine)
  try {
    const first = await stage.play(seed, rate, () => sleep(5000))
    const before = await stage.settle(stage.meant, false)
    if (before.problems.length > 0) return await report(stage, started, before, new Map())
    tell(`${which} deleted`)
    const topics = which === "all topics" ? ["raw_ticks", "normalized_ticks", "raw_ticks_dlq"] : [which]
    const admin = new Admin({
      clientId: "nemesis",
      bootstrapBrokers: [`127.0.0.1:${stage.cluster.kafka.port}`],
      retries: 10
    })
    await admin.deleteTopics({ topics })
    await admin.close()
    await sleep(4000)
    tell("the second market")
    const second = await stage.play(seed + 1, rate, () => sleep(6000))
    const inLog = which === "all topics" ? second : which === "raw_ticks" ? [...first, ...second] : stage.meant
    const after = await stage.settle(inLog, true)
    await stage.stopAll()
    return await report(stage, started, after, new Map([[`anew:${which}`, 1]]))
  } finally {
    await stage.close()
  }
}
