/**
 * Decides how the log lives in Kafka, whichever client library is the engine: what it is opened with, what is refused at the
 * start, and which part does what: `topics.ts`, `reader.ts`, `assignments.ts`, `lag.ts`, `producer.ts`.
 */
import { readFileSync } from "node:fs"
import { Effect, Layer, Redacted } from "effect"
import { LogError, StartError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import { TickLog, type Topic } from "../../streams/log/TickLog.ts"
import { kafkaAssignments } from "./assignments.ts"
import { inOneLine, isPassing, KafkaCluster } from "./cluster.ts"
import { kafkajs } from "./kafkajs.ts"
import { kafkaLag } from "./lag.ts"
import { platformatic } from "./platformatic.ts"
import { KafkaProducer } from "./producer.ts"
import { kafkaReads } from "./reader.ts"
import { failure, recreated, Topics, topicNames } from "./topics.ts"
import { type Address, KafkaSilence, type WireOptions } from "./Wire.ts"

export interface KafkaOptions {
  /** As in KAFKA_BROKERS: host:port, comma-separated. */
  readonly brokers: string
  readonly engine: "platformatic" | "kafkajs"
  readonly sasl: WireOptions["sasl"]
  readonly tls: { readonly caFile: string | undefined } | undefined
  /** Goes before the name of every topic and group, so that several platforms can share a cluster. */
  readonly prefix: string
  /** Partitions and replicas of topics that are made; those that exist keep theirs. */
  readonly partitions: number
  readonly replicationFactor: number
  readonly startTimeoutMs: number
  readonly connectTimeoutMs: number
  readonly requestTimeoutMs: number
  readonly deliveryTimeoutMs: number
  readonly sessionTimeoutMs: number
  readonly heartbeatMs: number
  readonly fetchBytes: number
  readonly fetchWaitMs: number
  readonly fetchConnections: number
  /** Records handed to a reader at a time. */
  readonly batch: number
  readonly maxRecordBytes: number
  /** How often it is looked at whether topics were recreated. */
  readonly metadataMs: number
  /** The groups whose lag is told of besides those joined here, and what each reads. */
  readonly groups: ReadonlyMap<string, Topic>
}

/** Requests a broker has to answer before the next goes: what comes meanwhile goes together (2: no faster, p50 +40 %). */
const IN_FLIGHT = 1
const parseBrokers = (brokers: string): ReadonlyArray<Address> | StartError => {
  const addresses: Array<Address> = []
  for (const text of brokers.split(",").map((part) => part.trim())) {
    const found = /^(?:\[([0-9a-fA-F:]+)\]|([^:\s/@]+)):(\d{1,5})$/.exec(text)
    const port = Number(found?.[3])
    if (found === null || port < 1 || port > 65_535) {
      // What stands before an @ may be a secret in the wrong place.
      const shown = text.includes("@") ? "an address with an @" : JSON.stringify(text)
      return new StartError({ message: `KAFKA_BROKERS: expected host:port, comma-separated, got ${shown}` })
    }
    addresses.push({ host: (found[1] ?? found[2])!, port })
  }
  return addresses
}

const make = Effect.fnUntraced(function* (options: KafkaOptions) {
  const addresses = parseBrokers(options.brokers)
  if (addresses instanceof StartError) return yield* addresses
  let ca: Buffer | undefined
  if (options.tls?.caFile !== undefined) {
    const { caFile } = options.tls
    ca = yield* Effect.try({
      try: () => readFileSync(caFile),
      catch: (cause) =>
        new StartError({
          message: `KAFKA_TLS_CA_FILE: cannot read ${caFile} (${(cause as NodeJS.ErrnoException).code})`
        })
    })
  }
  const context = yield* Effect.context<never>()
  const say = (log: Effect.Effect<void>): void => {
    Effect.runForkWith(context)(log)
  }
  const cluster = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new KafkaCluster(
          options.engine === "kafkajs" ? kafkajs : platformatic,
          addresses,
          topicNames(options.prefix),
          {
            clientId: "market-data-platform",
            connectTimeoutMs: options.connectTimeoutMs,
            requestTimeoutMs: options.requestTimeoutMs,
            sasl: options.sasl,
            tls: options.tls === undefined ? undefined : { ca }
          },
          Math.max(options.fetchWaitMs, options.sessionTimeoutMs)
        )
    ),
    (open) => Effect.sync(() => open.close())
  )
  const topics = new Topics(cluster, options, {
    warn: (message) => say(Effect.logWarning(message)),
    error: (message) => say(Effect.logError(message))
  })
  const check = yield* Effect.tryPromise({
    try: () => topics.open(options.startTimeoutMs),
    catch: (cause) => {
      const refused = cause instanceof KafkaSilence && cause.refused
      const setting = refused ? "KAFKA_BROKERS, KAFKA_SASL_* or KAFKA_TLS" : "KAFKA_BROKERS"
      const waited = isPassing(cause) ? ` within ${options.startTimeoutMs} ms` : ""
      return new StartError({
        message: `${setting}: cannot use Kafka at ${options.brokers}${waited}: ${inOneLine(cause)}`
      })
    }
  })
  const unfit = yield* Effect.tryPromise({
    try: check,
    catch: (cause) =>
      new StartError({ message: `KAFKA_BROKERS: cannot use Kafka at ${options.brokers}: ${inOneLine(cause)}` })
  })
  if (unfit !== undefined) {
    return yield* new StartError({ message: `KAFKA_BROKERS: ${options.brokers}: ${unfit}` })
  }

  const producer = new KafkaProducer(cluster, {
    deliveryTimeoutMs: options.deliveryTimeoutMs,
    requestTimeoutMs: options.requestTimeoutMs,
    maxRecordBytes: options.maxRecordBytes,
    inFlight: IN_FLIGHT,
    onRecreated: () => topics.look()
  })
  topics.onGone = (incarnation) => producer.forget(incarnation)
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.sleep(options.metadataMs),
        Effect.catch(Effect.tryPromise({ try: () => topics.look(), catch: inOneLine }), (why) =>
          Effect.logDebug(`the topics could not be looked at: ${why}`)
        )
      )
    )
  )

  const reads = kafkaReads(cluster, topics, options)
  const { read, slice, bounds, offsetAt } = reads
  const joined = new Map<string, Topic>()
  const assignments = kafkaAssignments(cluster, topics, reads, options, (group, topic) => joined.set(group, topic))
  const { lag, members } = kafkaLag(topics, options.prefix, () => new Map([...options.groups, ...joined]))

  return {
    partitions: topics.partitions,
    incarnation: (topic) => topics.of(topic).incarnation,
    latest: (topic) =>
      Effect.tryPromise({
        try: () => topics.latest(topic),
        catch: (cause) => failure("read", topics.of(topic), -1, inOneLine(cause))
      }),
    append: (topic, partition, records, incarnation) =>
      Effect.suspend((): Effect.Effect<number, LogError> => {
        const state = topics.known(topic, partition)
        if (incarnation !== undefined && incarnation !== state.incarnation) return recreated("append", state, partition)
        if (records.length === 0) return Effect.map(bounds(topic, partition), ({ end }) => end)
        return Effect.callback<number, LogError>((resume) => {
          const takeBack = producer.append(topic, state.name, state.incarnation, partition, records, (outcome) =>
            resume(outcome instanceof LogError ? Effect.fail(outcome) : Effect.succeed(outcome))
          )
          return Effect.sync(takeBack)
        })
      }),
    read,
    slice,
    bounds,
    offsetAt,
    assignments,
    lag,
    members
  } satisfies TickLog["Service"]
})

/** The log in Kafka; everything it opened is closed with the scope. */
export const layer = (options: KafkaOptions): Layer.Layer<TickLog, StartError> => Layer.effect(TickLog, make(options))

type KafkaSettings = Pick<
  Settings,
  | "KAFKA_BROKERS"
  | "KAFKA_ENGINE"
  | "KAFKA_SASL_MECHANISM"
  | "KAFKA_SASL_USERNAME"
  | "KAFKA_SASL_PASSWORD"
  | "KAFKA_TLS"
  | "KAFKA_TLS_CA_FILE"
  | "KAFKA_REPLICATION_FACTOR"
  | "KAFKA_START_TIMEOUT_MS"
  | "KAFKA_CONNECT_TIMEOUT_MS"
  | "KAFKA_REQUEST_TIMEOUT_MS"
  | "KAFKA_DELIVERY_TIMEOUT_MS"
  | "KAFKA_SESSION_TIMEOUT_MS"
  | "KAFKA_HEARTBEAT_MS"
  | "KAFKA_FETCH_BYTES"
  | "KAFKA_FETCH_WAIT_MS"
  | "KAFKA_FETCH_CONNECTIONS"
  | "KAFKA_READ_BATCH_RECORDS"
  | "KAFKA_MAX_RECORD_BYTES"
  | "KAFKA_METADATA_MS"
  | "PARTITIONS"
>

/** The options that the settings name; what does not go together is refused with the setting's name. */
export const optionsOf = (
  settings: KafkaSettings,
  groups: KafkaOptions["groups"]
): Effect.Effect<KafkaOptions, StartError> => {
  const refuse = (message: string) => Effect.fail(new StartError({ message }))
  if (settings.KAFKA_BROKERS === undefined) return refuse("KAFKA_BROKERS: required for the log in Kafka")
  const mechanism = settings.KAFKA_SASL_MECHANISM
  const username = settings.KAFKA_SASL_USERNAME
  const password = settings.KAFKA_SASL_PASSWORD
  if (mechanism === undefined && (username !== undefined || password !== undefined)) {
    return refuse("KAFKA_SASL_MECHANISM: required where KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is set")
  }
  if (mechanism !== undefined && username === undefined) {
    return refuse(`KAFKA_SASL_USERNAME: required with KAFKA_SASL_MECHANISM=${mechanism}`)
  }
  if (mechanism !== undefined && password === undefined) {
    return refuse(`KAFKA_SASL_PASSWORD: required with KAFKA_SASL_MECHANISM=${mechanism}`)
  }
  const tls = settings.KAFKA_TLS === "true"
  if (!tls && settings.KAFKA_TLS_CA_FILE !== undefined) {
    return refuse("KAFKA_TLS: KAFKA_TLS_CA_FILE is set, and KAFKA_TLS is not true")
  }
  return Effect.succeed({
    brokers: settings.KAFKA_BROKERS,
    engine: settings.KAFKA_ENGINE,
    sasl:
      mechanism === undefined
        ? undefined
        : { mechanism, username: username!, password: Redacted.make(password!, { label: "KAFKA_SASL_PASSWORD" }) },
    tls: tls ? { caFile: settings.KAFKA_TLS_CA_FILE } : undefined,
    prefix: "",
    partitions: settings.PARTITIONS,
    replicationFactor: settings.KAFKA_REPLICATION_FACTOR,
    startTimeoutMs: settings.KAFKA_START_TIMEOUT_MS,
    connectTimeoutMs: settings.KAFKA_CONNECT_TIMEOUT_MS,
    requestTimeoutMs: settings.KAFKA_REQUEST_TIMEOUT_MS,
    deliveryTimeoutMs: settings.KAFKA_DELIVERY_TIMEOUT_MS,
    sessionTimeoutMs: settings.KAFKA_SESSION_TIMEOUT_MS,
    heartbeatMs: settings.KAFKA_HEARTBEAT_MS,
    fetchBytes: settings.KAFKA_FETCH_BYTES,
    fetchWaitMs: settings.KAFKA_FETCH_WAIT_MS,
    fetchConnections: settings.KAFKA_FETCH_CONNECTIONS,
    batch: settings.KAFKA_READ_BATCH_RECORDS,
    maxRecordBytes: settings.KAFKA_MAX_RECORD_BYTES,
    metadataMs: settings.KAFKA_METADATA_MS,
    groups
  })
}

/** The log in Kafka as the settings name it; `groups`: see `KafkaOptions`. */
export const layerOf = (settings: KafkaSettings, groups: KafkaOptions["groups"]): Layer.Layer<TickLog, StartError> =>
  Layer.unwrap(Effect.map(optionsOf(settings, groups), layer))
