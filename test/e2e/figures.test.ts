/** Which figures a process has before anything has gone through it: those of every stage that it runs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { describe as describeTopology, groups, STAGES } from "../../src/streams/topology.ts"
import { LONG_MS } from "../support/guards.ts"
import { folder, getMetrics, start, startInstance } from "../support/processes.ts"
import { isInstalled, ownKafka, ownPostgres } from "../support/services.ts"

type GroupName = keyof typeof groups

/** Labels in whatever order they come in. */
const seriesOf = (name: string): string => {
  const [, metric = name, labels = ""] = /^([^{]*)\{(.*)\}$/.exec(name) ?? []
  const sorted = labels
    .split(/,(?=\w+=)/)
    .filter((label) => !label.startsWith("unit="))
    .sort()
  return `${metric}{${sorted.join(",")}}`
}

const PARTITIONS = 2
/** What Kafka and Redis hold is no buffer of the process. */
const NOT_OWN = ["fetched", "ring"]

/** What a server counts of its clients and of the bars that it tells them. */
const OF_CLIENTS = [
  ...["evict-oldest", "conflate", "pause", "evict-longest"].map(
    (policy) => `topology_evictions_total{policy="${policy}"}`
  ),
  ...["full", "unanswered", "failed"].map((reason) => `topology_bars_given_up_total{reason="${reason}"}`),
  "topology_client_pauses_total{}",
  "topology_latest_dropped_total{}"
]

/** Every series of the stages of `names`, by the table of the topology. */
const expected = (names: ReadonlyArray<GroupName>, settings: Parameters<typeof describeTopology>[0]) => {
  const { edges } = describeTopology(settings)
  return names.flatMap((group) => {
    const counted = groups[group].nodes.filter(([, , , discards]) => discards !== undefined)
    const ids = new Set(groups[group].nodes.map(([id]) => id))
    const buffers = edges.filter(
      ({ to, buffer }) => ids.has(to) && buffer !== undefined && !NOT_OWN.includes(buffer.name)
    )
    const partitions = group === "server" ? [] : Array.from({ length: PARTITIONS }, (_, partition) => partition)
    return [
      ...counted.flatMap(([stage, kind, , discards = []]) => [
        `topology_stage_received_events_total{stage="${stage}"}`,
        `topology_stage_sent_events_total{stage="${stage}"}`,
        ...discards.map((reason) => `topology_stage_discarded_events_total{reason="${reason}",stage="${stage}"}`),
        ...(kind === "sink" ? [`topology_sink_flush_seconds_count{sink="${stage}"}`] : [])
      ]),
      ...(group === "server" ? OF_CLIENTS : []),
      ...buffers.map(({ buffer }) => `topology_buffer_size_events{buffer="${buffer?.name}"}`),
      ...partitions.map(
        (partition) =>
          `topology_consumer_lag_records{group="${group}",partition="${partition}",topic="${groups[group].reads}"}`
      )
    ]
  })
}

/** Waits until all are there, and answers what they are. */
const valuesOf = (url: string, names: ReadonlyArray<string>) =>
  Effect.map(getMetrics(url), (figures) => {
    const found = new Map([...figures].map(([name, value]) => [seriesOf(name), value]))
    return names.map((name) => [name, found.get(name)] as const)
  }).pipe(
    Effect.repeat({
      // Lag is what the log says, as soon as it has been asked.
      until: (values) => values.every(([name, value]) => value !== undefined || !name.includes("_lag_")),
      schedule: Schedule.spaced("100 millis")
    })
  )

const settings = { KAFKA_FETCH_BYTES: 1, LOG_CAPACITY_RECORDS: 1, LOG_CAPACITY_BYTES: 1, DLQ_CAPACITY_RECORDS: 1 }
const capacities = {
  ...settings,
  DLQ_CAPACITY_BYTES: 1,
  STORE_BATCH_TICKS: 1,
  ARCHIVE_BATCH_TICKS: 1,
  RING_TICKS: 1,
  CLIENT_CAPACITY: 1,
  REPLAY_WINDOW_TICKS: 1
}

describe("the figures of every stage that a process runs", { timeout: LONG_MS }, () => {
  it.live("are there from the start, at 0: of a whole instance", () =>
    Effect.gen(function* () {
      const { url } = yield* startInstance(["run"], { DATA_DIR: yield* folder, PARTITIONS: String(PARTITIONS) })
      const names = expected(Object.keys(groups) as ReadonlyArray<GroupName>, {
        ...capacities,
        KAFKA_BROKERS: undefined
      })
      assert.isAbove(names.length, 60)
      const values = yield* valuesOf(url, names)
      assert.deepStrictEqual(
        values.filter(([, value]) => value !== 0),
        []
      )
    }).pipe(Effect.scoped)
  )

  const isMissing = !isInstalled("kafka") || !isInstalled("postgres")
  it.live.skipIf(isMissing)("are there from the start, at 0: of a worker on Kafka", () =>
    Effect.gen(function* () {
      const [kafka, postgres] = [yield* ownKafka, yield* ownPostgres()]
      const worker = yield* start(["worker"], {
        ...kafka.settings(),
        ...postgres.settings(),
        PARTITIONS: String(PARTITIONS),
        DATA_DIR: yield* folder,
        METRICS_PORT: "0"
      })
      const url = yield* worker.until(
        () => /(http:\/\/127\.0\.0\.1:\d+)\/metrics/.exec(worker.stdout)?.[1],
        "its address"
      )
      const names = expected(STAGES, { ...capacities, KAFKA_BROKERS: "kafka:9092" })
      assert.isAbove(names.length, 50)
      const values = yield* valuesOf(url, names)
      assert.deepStrictEqual(
        values.filter(([, value]) => value !== 0),
        []
      )
    }).pipe(Effect.scoped)
  )
})
