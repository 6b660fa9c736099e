/** What the log of a worker says where it takes over what another ran. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { LONG_MS } from "../support/guards.ts"
import { getMetrics, runToEnd, start } from "../support/processes.ts"
import { isInstalled, ownKafka, ownPostgres, ownRedis } from "../support/services.ts"

const isMissing = !(["kafka", "redis", "postgres"] as const).map(isInstalled).every((is) => is)

const GROUPS = ["process", "store", "recent"]
/** Whether a group has written something, and has nothing left. */
const committed = (figures: ReadonlyMap<string, number>, group: string): boolean => {
  const lags = [...figures].filter(
    ([name]) => name.startsWith("topology_consumer_lag_records") && name.includes(`"${group}"`)
  )
  const stage = { process: "publish", store: "store", recent: "ring" }[group]
  const sent = [...figures].find(
    ([name]) => name.startsWith("topology_stage_sent") && name.includes(`stage="${stage}"`)
  )
  return lags.length > 0 && lags.every(([, records]) => records === 0) && (sent?.[1] ?? 0) > 0
}

describe.skipIf(isMissing)("a worker that takes over", { timeout: LONG_MS }, () => {
  it.live("says which partitions of which group, whose they were and how long nobody ran them", () =>
    Effect.gen(function* () {
      const [kafka, redis, postgres] = [yield* ownKafka, yield* ownRedis, yield* ownPostgres()]
      const settings = {
        ...kafka.settings(),
        ...redis.settings(),
        ...postgres.settings(),
        PARTITIONS: "2",
        METRICS_PORT: "0",
        KAFKA_SESSION_TIMEOUT_MS: "6000"
      }
      const worker = Effect.gen(function* () {
        const mdp = yield* start(["worker"], settings)
        const url = yield* mdp.until(() => /(http:\/\/127\.0\.0\.1:\d+)\/metrics/.exec(mdp.stdout)?.[1], "its address")
        return { mdp, url }
      })
      const first = yield* worker
      const fed = yield* runToEnd(["feed", "sim", "--symbols", "8", "--rate", "200", "--duration", "2s"], settings)
      assert.strictEqual(fed.code, 0, fed.stderr)
      yield* getMetrics(first.url).pipe(
        Effect.map((figures) => GROUPS.every((group) => committed(figures, group))),
        Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("100 millis") })
      )
      // What nobody had begun before is not taken over.
      assert.notInclude(first.mdp.stderr, "takes over")
      const second = yield* worker
      first.mdp.kill("SIGKILL")
      const line = (group: string) =>
        new RegExp(
          `message="${group} takes over partitions? [0-9-]+ of worker \\S+:${first.mdp.child.pid}, silent for \\d+\\.\\d s; recovered in \\d+\\.\\d s"`
        )
      for (const group of GROUPS) {
        yield* second.mdp.until(() => (line(group).test(second.mdp.stderr) ? true : undefined), `the line of ${group}`)
      }
    }).pipe(Effect.scoped)
  )
})
