/** Decides one run of the crash suite: a feed, the faults of a seed, a drain, the oracle; then all killed once more. */
import { setTimeout as sleep } from "node:timers/promises"
import type { Engine } from "./cluster.ts"
import { plan, startWorkers, torment } from "./nemesis.ts"
import { onStage, type Report } from "./stage.ts"

/** What a fault takes at most on a slow machine, one after the other. */
const FAULT_MS = 60_000
const REST_MS = 900_000

/** Of the last workers: one that is taken for dead hands over what it runs, and may have had some of it under way. */
const PATIENT = { KAFKA_SESSION_TIMEOUT_MS: "60000" }

export interface RunOptions {
  readonly seed: number
  readonly faults: number
  readonly engine: Engine
  readonly kinds?: ReadonlyArray<string> | undefined
  readonly lanes?: number
  readonly rate?: number
  readonly tell?: (line: string) => void
}

/** The faults of a seed under a feed; the account is settled, all workers are killed once more, and nothing has changed. */
export const run = ({
  seed,
  faults,
  engine,
  kinds,
  lanes = 2,
  rate = 600,
  tell = () => {}
}: RunOptions): Promise<Report> =>
  onStage(engine, REST_MS + faults * FAULT_MS, tell, async (stage) => {
    let done: ReadonlyMap<string, number> = new Map()
    await stage.play(seed, rate, async () => {
      await sleep(1500)
      done = await torment(stage.ground, seed, plan(seed, faults, kinds), lanes, tell)
      await sleep(500)
    })
    tell("drain")
    const first = await stage.settle()
    if (first.problems.length > 0) return { ...first, done }
    tell("all workers are killed once more")
    await Promise.all(stage.ground.workers.map((worker) => stage.cluster.kill(worker)))
    stage.ground.workers.splice(0, Number.POSITIVE_INFINITY, ...(await startWorkers(stage.cluster, PATIENT)))
    // Who comes second takes over from who came first, likewise.
    await stage.share()
    // Every instrument that trades on shows whether its state was there.
    await stage.inject(4000)
    const second = await stage.settle()
    await stage.stopAll()
    // No zombie was left that could have published it: who recovers publishes nothing that is there.
    const again = (second.figures.repeats ?? 0) - (first.figures.repeats ?? 0)
    const problems = [
      ...(again > 0 ? [`after one more kill: ${again} ticks were published again`] : []),
      ...second.problems.map((problem) => `after one more kill: ${problem}`),
      ...stage.cluster.alarms.filter((alarm) => !second.problems.some((problem) => problem.includes(alarm)))
    ]
    return { ...first, problems, done }
  })
