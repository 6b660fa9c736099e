/** Decides how tests reach Kafka: where it is, what is said where there is none, and a log of its own for each test. */
import { randomUUID } from "node:crypto"
import { Effect, Layer } from "effect"
import * as Kafka from "../../src/layers/kafka/KafkaLog.ts"
import { consumerGroups } from "../../src/streams/topology.ts"
import { kafkaBrokers } from "./services.ts"

export const ENGINES = ["platformatic", "kafkajs"] as const

/** The brokers that all test files share; where services are required, a missing Kafka fails here. */
export const brokers = await kafkaBrokers()

/** Why tests on Kafka are skipped, and what to do about it; `undefined` where there is one. */
export const kafkaMissing =
  brokers === undefined ? "skipped: no Kafka; set TEST_KAFKA_BROKERS or install it with npm run services" : undefined

/** Options for tests: quick to notice what changes, and a prefix that no other test has. */
export const kafkaOptions = (given: Partial<Kafka.KafkaOptions> = {}): Kafka.KafkaOptions => ({
  brokers: brokers ?? "",
  engine: "platformatic",
  sasl: undefined,
  tls: undefined,
  prefix: `test-${randomUUID().slice(0, 8)}.`,
  partitions: 2,
  replicationFactor: -1,
  startTimeoutMs: 20_000,
  connectTimeoutMs: 5000,
  requestTimeoutMs: 10_000,
  deliveryTimeoutMs: 20_000,
  sessionTimeoutMs: 6000,
  heartbeatMs: 100,
  fetchBytes: 65_536,
  fetchWaitMs: 300,
  fetchConnections: 3,
  batch: 25,
  maxRecordBytes: 4_194_304,
  metadataMs: 1000,
  groups: consumerGroups,
  ...given
})

/** A log with topics of its own, each time that it is built. */
export const kafkaLayer = (given: Partial<Kafka.KafkaOptions> = {}) =>
  Layer.unwrap(Effect.sync(() => Kafka.layer(kafkaOptions(given))))
