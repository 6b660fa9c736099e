/** Decides how the product's share of process-json runs: the group `process` alone, until it has read every raw tick. */
import { Effect, Layer, Metric } from "effect"
import { caches, log } from "../../src/commands/services.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { TickLog } from "../../src/streams/log/TickLog.ts"
import { runProcess } from "../../src/streams/process/runProcess.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { report } from "../servers.ts"

const [ticks, distinct] = [Number(process.argv[2]), Number(process.argv[3])]

const handled = Effect.map(Metric.snapshot, (all) =>
  all.reduce(
    (sum, metric) =>
      metric.type === "Counter" &&
      metric.id === "topology_stage_received_events_total" &&
      metric.attributes?.stage === "decode"
        ? sum + Number(metric.state.count)
        : sum,
    0
  )
)

await Effect.gen(function* () {
  const settings = yield* Effect.fromResult(readSettings(process.env))
  const services = yield* Layer.build(Layer.mergeAll(log(settings), caches(settings), Readiness.layer))
  yield* Effect.gen(function* () {
    const topics = yield* TickLog
    const cpu = process.cpuUsage()
    const started = performance.now()
    // Counted once published and acknowledged.
    const finished = Effect.gen(function* () {
      while ((yield* handled) < ticks) yield* Effect.sleep("10 millis")
    })
    yield* Effect.raceFirst(finished, Effect.andThen(runProcess(settings), Effect.die("the pipeline ended")))
    const seconds = (performance.now() - started) / 1000
    const { user, system } = process.cpuUsage(cpu)
    let published = 0
    for (let p = 0; p < topics.partitions; p++) published += (yield* topics.bounds("normalized_ticks", p)).end
    if (published !== distinct) throw new Error(`${published} ticks were published, not ${distinct}`)
    report({ ticks, seconds, cpuSeconds: (user + system) / 1e6 })
  }).pipe(Effect.provide(services))
}).pipe(Effect.scoped, Effect.runPromise)
process.disconnect()
