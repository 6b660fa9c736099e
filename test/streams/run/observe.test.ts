import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { observe } from "../../../src/streams/run/observe.ts"

const gauges = (id: string) =>
  Effect.map(Metric.snapshot, (all) =>
    all.flatMap((metric) => (metric.id === id ? [metric.attributes?.buffer as string | undefined] : [])).sort()
  )

const settings = {
  LOG_CAPACITY_RECORDS: 10,
  LOG_CAPACITY_BYTES: 10_000,
  LOG_RETAINED_BYTES: 1000,
  DLQ_CAPACITY_RECORDS: 10,
  DLQ_CAPACITY_BYTES: 10_000
}
const LOGS = ["normalized_ticks", "raw_ticks", "raw_ticks_dlq"]

describe("what is measured beside the tick path", () => {
  for (const [where, KAFKA_BROKERS, capacities] of [
    ["with the most that an embedded log holds", undefined, LOGS],
    ["with no capacity where Kafka keeps what its retention says", "kafka:9092", []]
  ] as const) {
    it.effect(`has how full the logs are, ${where}`, () =>
      Effect.gen(function* () {
        yield* Effect.forkScoped(observe({ ...settings, KAFKA_BROKERS }))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* gauges("topology_buffer_size_events"), LOGS)
        assert.deepStrictEqual(yield* gauges("topology_buffer_max_size_events"), [...capacities])
        assert.deepStrictEqual(yield* gauges("topology_buffer_size_bytes"), LOGS)
        assert.deepStrictEqual(yield* gauges("topology_buffer_max_size_bytes"), [...capacities])
      }).pipe(
        Effect.scoped,
        Effect.provide(MemoryLog.layer({ partitions: 1, capacity: 10, dlqCapacity: 10, retained: 10, batch: 1 })),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    )
  }
})
