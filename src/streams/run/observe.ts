/** Decides what is measured beside the tick path: once a second, how far each group is behind and how full the logs are. */
import { Effect, Schedule } from "effect"
import type { Settings } from "../../schema/Settings.ts"
import { TickLog, TOPICS } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"

/** Samples for ever. */
export const observe = (
  settings: Pick<
    Settings,
    | "KAFKA_BROKERS"
    | "LOG_CAPACITY_RECORDS"
    | "LOG_CAPACITY_BYTES"
    | "LOG_RETAINED_BYTES"
    | "DLQ_CAPACITY_RECORDS"
    | "DLQ_CAPACITY_BYTES"
  >
): Effect.Effect<void, never, TickLog> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const context = yield* Effect.context<never>()
    const lagOf = new Map<string, { readonly add: (value: number) => void }>()
    const fill = {
      raw_ticks: metrics.bind(metrics.bufferSize, { buffer: "raw_ticks" }, context),
      normalized_ticks: metrics.bind(metrics.bufferSize, { buffer: "normalized_ticks" }, context),
      raw_ticks_dlq: metrics.bind(metrics.bufferSize, { buffer: "raw_ticks_dlq" }, context)
    }
    for (const gauge of Object.values(fill)) gauge.add(0)
    // Kafka keeps what its retention says, however many that are: there is no most to hold a fill against.
    const capacities =
      settings.KAFKA_BROKERS === undefined
        ? ([
            ["raw_ticks", settings.LOG_CAPACITY_RECORDS, settings.LOG_CAPACITY_BYTES + settings.LOG_RETAINED_BYTES],
            [
              "normalized_ticks",
              settings.LOG_CAPACITY_RECORDS,
              settings.LOG_CAPACITY_BYTES + settings.LOG_RETAINED_BYTES
            ],
            ["raw_ticks_dlq", settings.DLQ_CAPACITY_RECORDS, settings.DLQ_CAPACITY_BYTES]
          ] as const)
        : []
    for (const [buffer, records, bytes] of capacities) {
      metrics.bind(metrics.bufferMaxSize, { buffer }, context).add(records)
      metrics.bind(metrics.bufferMaxBytes, { buffer }, context).add(bytes)
    }
    const fillBytes = TOPICS.map(
      (topic) => [topic, metrics.bind(metrics.bufferBytes, { buffer: topic }, context)] as const
    )
    const sample = Effect.gen(function* () {
      const fullest = { raw_ticks: 0, normalized_ticks: 0, raw_ticks_dlq: 0 }
      for (const { group, topic, partition, records } of yield* log.lag) {
        const key = `${group} ${topic} ${partition}`
        let gauge = lagOf.get(key)
        if (gauge === undefined) {
          gauge = metrics.bind(metrics.consumerLag, { group, topic, partition: String(partition) }, context)
          lagOf.set(key, gauge)
        }
        gauge.add(records)
        fullest[topic] = Math.max(fullest[topic], records)
      }
      for (let partition = 0; partition < log.partitions; partition++) {
        const { start, end } = yield* log.bounds("raw_ticks_dlq", partition)
        fullest.raw_ticks_dlq = Math.max(fullest.raw_ticks_dlq, end - start)
      }
      fill.raw_ticks.add(fullest.raw_ticks)
      fill.normalized_ticks.add(fullest.normalized_ticks)
      fill.raw_ticks_dlq.add(fullest.raw_ticks_dlq)
      if (log.bytes === undefined) return
      const held = yield* log.bytes
      for (const [topic, gauge] of fillBytes) {
        gauge.add(held.reduce((most, one) => (one.topic === topic ? Math.max(most, one.bytes) : most), 0))
      }
    })
    yield* sample.pipe(
      Effect.catch((error) => Effect.logDebug(`lag cannot be read: ${error.message}`)),
      Effect.schedule(Schedule.spaced("1 second"))
    )
  })
