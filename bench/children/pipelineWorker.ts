/** Decides how the pipeline bench runs its worker: every stage as `mdp worker` has them, until no group is behind. */
import { Effect, Layer } from "effect"
import { groups } from "../../src/commands/groups.ts"
import { archive, caches, log, store } from "../../src/commands/services.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { TickLog } from "../../src/streams/log/TickLog.ts"
import { TickStore } from "../../src/streams/ports/TickStore.ts"
import { Drain } from "../../src/streams/run/Drain.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { STAGES } from "../../src/streams/topology.ts"
import { report } from "../servers.ts"

const [ticks, distinct] = [Number(process.argv[2]), Number(process.argv[3])]

await Effect.gen(function* () {
  const settings = yield* Effect.fromResult(readSettings(process.env))
  const services = yield* Layer.build(
    Layer.mergeAll(log(settings), store(settings, undefined), caches(settings), Drain.layer).pipe(
      Layer.provideMerge(Readiness.layer)
    )
  )
  yield* Effect.gen(function* () {
    const topics = yield* TickLog
    const cpu = process.cpuUsage()
    const started = performance.now()
    yield* Layer.build(
      groups(settings, { stages: STAGES, ownsLog: false, life: "bench" }, archive(settings, settings.DATA_DIR))
    )
    // What process has yet to publish is no lag of the sinks', so its own has to be seen gone before theirs.
    for (const topic of ["raw_ticks", "normalized_ticks"]) {
      for (;;) {
        const behind = (yield* topics.lag).filter((group) => group.topic === topic && group.records > 0)
        if (behind.length === 0) break
        yield* Effect.sleep("100 millis")
      }
    }
    const seconds = (performance.now() - started) / 1000
    const { user, system } = process.cpuUsage(cpu)
    const tickStore = yield* TickStore
    const tokens = yield* tickStore.tokens(0, Number.MAX_SAFE_INTEGER / 4)
    const stored = yield* tickStore.count(tokens, 0, Number.MAX_SAFE_INTEGER / 4)
    if (stored !== distinct) throw new Error(`${stored} ticks are in the store, not ${distinct}`)
    report({ ticks, seconds, cpuSeconds: (user + system) / 1e6 })
  }).pipe(Effect.provide(services))
}).pipe(Effect.scoped, Effect.runPromise)
process.disconnect()
