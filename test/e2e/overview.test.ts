import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { LONG_MS } from "../support/guards.ts"
import { getJson, start } from "../support/processes.ts"
import { isInstalled, ownKafka, ownPostgres, ownRedis } from "../support/services.ts"

const isMissing = !(["kafka", "redis", "postgres"] as const).map(isInstalled).every((is) => is)
/** A guard against a hang: what is waited for comes within seconds. */
const GUARD = "2 minutes"

interface Seen {
  readonly degraded: ReadonlyArray<string>
  readonly workers_known: boolean | null
  readonly workers: ReadonlyArray<{
    readonly life: string
    readonly worker: string
    readonly role: string
    readonly living: boolean
  }>
  readonly groups: ReadonlyArray<{
    readonly group: string
    readonly lag: number | null
    readonly run_by: ReadonlyArray<string> | null
  }>
}

// Long: real servers and workers are started, and some of them killed.
describe.skipIf(isMissing)("a server on real services", { timeout: LONG_MS }, () => {
  it.live(
    "shows its workers, names one that was killed and the groups that nobody runs, and a Redis that stopped",
    () =>
      Effect.gen(function* () {
        const kafka = yield* ownKafka
        const redis = yield* ownRedis
        const postgres = yield* ownPostgres()
        const settings = { ...kafka.settings(), ...redis.settings(), ...postgres.settings(), PARTITIONS: "2" }
        const server = yield* start(["server"], { ...settings, PORT: "0" })
        const url = yield* server.until(() => /http:\/\/127\.0\.0\.1:\d+/.exec(server.stdout)?.[0], "its address")
        const until = (what: string, is: (seen: Seen) => boolean) => {
          let last: unknown
          return Effect.map(getJson(`${url}/topology`), (seen) => {
            last = { ...(seen as Seen), nodes: undefined, edges: undefined, counters: undefined }
            return seen as Seen
          }).pipe(
            Effect.repeat({ until: is, schedule: Schedule.spaced("100 millis") }),
            Effect.timeoutOrElse({
              duration: GUARD,
              orElse: () => Effect.die(new Error(`not seen: ${what}; last ${JSON.stringify(last).slice(0, 2000)}`))
            })
          )
        }
        const degraded = Effect.map(getJson(`${url}/readyz`), (answer) => (answer as Seen).degraded)
        const nobody = ["process", "store", "recent"].map((group) => `${group}: nobody runs it`)

        // Nobody has been started yet.
        yield* until("groups without a worker", (seen) => nobody.every((name) => seen.degraded.includes(name)))

        const first = yield* start(["worker"], { ...settings, METRICS_PORT: "0" })
        const isRun = ({ groups }: Seen) => groups.every(({ run_by, lag }) => run_by?.length === 1 && lag === 0)
        const calm = yield* until("every group run", (seen) => isRun(seen) && seen.degraded.length === 0)

        first.kill("SIGKILL")
        const dead = `${calm.workers.find(({ role }) => role === "worker")?.worker}: silent`
        yield* until("the dead worker", (seen) => [dead, ...nobody].every((name) => seen.degraded.includes(name)))
        assert.includeMembers([...(yield* degraded)], nobody)

        // Another life: its groups are run again, and the dead one's figures stand apart.
        yield* start(["worker"], { ...settings, METRICS_PORT: "0" })
        const again = yield* until("every group run again", isRun)
        const lives = again.workers.filter(({ role, living }) => role === "worker" && living).map(({ life }) => life)
        assert.lengthOf(lives, 1)
        assert.notInclude(
          calm.workers.map(({ life }) => life),
          lives[0]
        )

        yield* Effect.promise(() => redis.kill())
        const blind = yield* until(
          "a Redis that is gone",
          (seen) => seen.degraded.includes("redis") && seen.workers_known === null
        )
        assert.isTrue(blind.groups.every(({ run_by }) => run_by === null))
      }).pipe(Effect.scoped)
  )
})
