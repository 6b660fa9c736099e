/**
 * Decides how the log lives in Kafka, whichever client library is the engine: the topics and what is checked of them,
 * reads partition by partition at the reader's pace, appends, groups, and what a topic deleted and made anew means.
 */
import { readFileSync } from "node:fs"
import { type Array as Arr, Cause, Deferred, Effect, Layer, Queue, Redacted, Stream } from "effect"
import { LogError, StartError } from "../../schema/Errors.ts"
import type { Settings } from "../../schema/Settings.ts"
import {
  type AssignedPartition,
  type Commit,
  type LogRecord,
  type Slice,
  TickLog,
  TOPICS,
  type Topic
} from "../../streams/log/TickLog.ts"
import { inTurns, live, TURN_RECORDS, turn } from "../../streams/run/turns.ts"
import { backoff, inOneLine, isPassing, isStale, KafkaCluster, pause } from "./cluster.ts"
import { KafkaFetcher, type Place } from "./fetcher.ts"
import { KafkaMember } from "./groupMember.ts"
import { kafkajs } from "./kafkajs.ts"
import { platformatic } from "./platformatic.ts"
import { KafkaProducer } from "./producer.ts"
import { decodeBatches } from "./recordBatch.ts"
import {
  type Address,
  CODE,
  type Fetched,
  KafkaRefusal,
  KafkaSilence,
  KafkaUnreadable,
  type Metadata,
  type WireOptions
} from "./Wire.ts"

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
  /** How often it is looked at whether topics were made anew. */
  readonly metadataMs: number
  /** The groups whose lag is told of besides those joined here, and what each reads. */
  readonly groups: ReadonlyMap<string, Topic>
}

const DAY_MS = 86_400_000
const RETENTION_MS: Readonly<Record<Topic, number>> = {
  raw_ticks: 3 * DAY_MS,
  normalized_ticks: 3 * DAY_MS,
  raw_ticks_dlq: 14 * DAY_MS
}

/** How long a broker may wait for records of a piece that is asked for: the piece is what is there. */
const SLICE_WAIT_MS = 1

const START = -2
const END = -1
/** Requests a broker has to answer before the next goes: what comes meanwhile goes together (2: no faster, p50 +40 %). */
const IN_FLIGHT = 1
/**
 * Sinks write in batches: at the end of their partitions they look this often, so that a tick is not a fetch and a batch
 * for each of them.
 */
const SINK_LOOK_MS = 50
/** What sinks ask of a partition while live ticks are read: it is decoded in one go. */
const SINK_FETCH_BYTES = 131_072
/**
 * On the way to live clients ticks of several partitions that come within so short a time share an answer
 * (figures in docs/decisions/0009).
 */
const LIVE_LOOK_MS = 1
/** What reads without a group, as a server does. No group is named like this. */
const UNGROUPED = ""
/** What stays wrong with the topics is said again this often. */
const SAY_AGAIN_MS = 60_000
/** Longest time a stop waits for the group to be told. */
const LEAVE_MS = 2000
/** A broker may learn so much later than the others that a topic was made anew. */
const PROPAGATION_MS = 250

type Records = Arr.NonEmptyReadonlyArray<LogRecord>

/** One topic, in the life it is in. */
interface TopicState {
  readonly topic: Topic
  readonly name: string
  incarnation: string
  /** Told when it is found to have been made anew. */
  readonly listeners: Set<() => void>
}

/**
 * Every commit names the life of its topic before what it says: a member that has not noticed yet that the topic was
 * made anew may still commit, and Kafka knows topics by their names only.
 */
const named = (incarnation: string, { offset, metadata }: Commit): Commit => ({
  offset,
  metadata: `${incarnation} ${metadata}`
})

/** A commit as it was given; undefined where it was made in another life. What another tool has set is taken as it is. */
const ofLife = (incarnation: string, commit: Commit | undefined): Commit | undefined => {
  const [, made, metadata] = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) (.*)$/s.exec(commit?.metadata ?? "") ?? []
  if (commit === undefined || metadata === undefined) return commit
  return made === incarnation ? { offset: commit.offset, metadata } : undefined
}

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
  const topics = new Map<Topic, TopicState>()
  for (const topic of TOPICS) {
    topics.set(topic, { topic, name: options.prefix + topic, incarnation: "", listeners: new Set() })
  }
  const states = [...topics.values()]
  const cluster = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new KafkaCluster(
          options.engine === "kafkajs" ? kafkajs : platformatic,
          addresses,
          states.map(({ name }) => name),
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
  const context = yield* Effect.context<never>()
  const warn = (message: string): void => {
    Effect.runForkWith(context)(Effect.logWarning(message))
  }

  const ask = <A>(request: (cluster: KafkaCluster) => Promise<A>, withinMs = options.requestTimeoutMs): Promise<A> =>
    cluster.persist(request, withinMs)

  /** Makes the topics that are missing and answers the metadata of all. */
  const haveTopics = async (withinMs: number): Promise<Metadata> => {
    const deadline = Date.now() + withinMs
    let metadata = await ask((open) => open.refresh(), withinMs)
    for (const { topic, name } of states) {
      if (metadata.topics.has(name)) continue
      try {
        await ask(async (open) => {
          const admin = await open.anyAdmin()
          await admin.createTopic(
            name,
            options.partitions,
            options.replicationFactor,
            {
              "retention.ms": String(RETENTION_MS[topic]),
              "max.message.bytes": String(options.maxRecordBytes + 65_536),
              "message.timestamp.type": "LogAppendTime"
            },
            options.requestTimeoutMs
          )
        }, withinMs)
      } catch (cause) {
        // Another process starts at the same time.
        if (!(cause instanceof KafkaRefusal && cause.code === CODE.TOPIC_ALREADY_EXISTS)) throw cause
      }
    }
    for (let attempt = 0; ; attempt++) {
      const missing = states.find(({ name }) => {
        const found = metadata.topics.get(name)
        return found === undefined || found.leaders.some((leader) => leader < 0)
      })
      if (missing === undefined) return metadata
      if (Date.now() >= deadline) {
        throw new KafkaRefusal(CODE.LEADER_NOT_AVAILABLE, `${missing.name} has partitions without a leader`)
      }
      await pause(backoff(attempt))
      metadata = await ask((open) => open.refresh(), Math.max(1, deadline - Date.now()))
    }
  }

  /** What is wrong with the topics, in one line. */
  const wrong = async (metadata: Metadata): Promise<string | undefined> => {
    const counts = states.map(({ name }) => ({ name, count: metadata.topics.get(name)!.leaders.length }))
    if (new Set(counts.map(({ count }) => count)).size > 1) {
      const numbers = counts.map(({ name, count }) => `${name} has ${count}`).join(", ")
      return `topics must have the same number of partitions: ${numbers}`
    }
    const { name } = topics.get("raw_ticks")!
    const stamp = await ask(async (open) => (await open.anyAdmin()).topicConfig(name, "message.timestamp.type"))
    if (stamp !== "LogAppendTime") {
      return `topic ${name} must have message.timestamp.type=LogAppendTime, it has ${stamp ?? "none"}`
    }
    return undefined
  }

  const metadata = yield* Effect.tryPromise({
    try: () => haveTopics(options.startTimeoutMs),
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
    try: () => wrong(metadata),
    catch: (cause) =>
      new StartError({ message: `KAFKA_BROKERS: cannot use Kafka at ${options.brokers}: ${inOneLine(cause)}` })
  })
  if (unfit !== undefined) {
    return yield* new StartError({ message: `KAFKA_BROKERS: ${options.brokers}: ${unfit}` })
  }
  for (const state of states) state.incarnation = metadata.topics.get(state.name)!.id
  const partitions = metadata.topics.get(options.prefix + TOPICS[0])!.leaders.length

  const producer = new KafkaProducer(cluster, {
    deliveryTimeoutMs: options.deliveryTimeoutMs,
    requestTimeoutMs: options.requestTimeoutMs,
    maxRecordBytes: options.maxRecordBytes,
    inFlight: IN_FLIGHT,
    onAnew: () => look()
  })

  /** The number of partitions that was told of last. */
  let toldCount = partitions
  let toldAt = 0
  let looking: Promise<void> | undefined
  /** Looks whether the topics are still those of the start; those who ask at once share one look. */
  const look = (): Promise<void> => {
    looking ??= (async () => {
      const now = await haveTopics(options.requestTimeoutMs)
      const other = states.find(({ name }) => now.topics.get(name)!.leaders.length !== partitions)
      const count = other === undefined ? partitions : now.topics.get(other.name)!.leaders.length
      if (other !== undefined && (count !== toldCount || Date.now() - toldAt > SAY_AGAIN_MS)) {
        const what = `topic ${other.name} has ${count} partitions, this process was started with ${partitions}`
        Effect.runForkWith(context)(Effect.logError(`${what}: ticks in the others are read by nobody`))
        toldAt = Date.now()
      }
      toldCount = count
      const anew = states.filter(({ name, incarnation }) => now.topics.get(name)!.id !== incarnation)
      if (anew.length === 0) return
      const fault = await wrong(now)
      if (fault !== undefined) warn(fault)
      for (const state of anew) {
        warn(`topic ${state.name} was deleted and made anew: what reads and writes it begins again`)
        producer.forget(state.incarnation)
        state.incarnation = now.topics.get(state.name)!.id
        for (const listener of [...state.listeners]) listener()
      }
    })().finally(() => {
      looking = undefined
    })
    return looking
  }
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.sleep(options.metadataMs),
        Effect.catch(Effect.tryPromise({ try: look, catch: inOneLine }), (why) =>
          Effect.logDebug(`the topics could not be looked at: ${why}`)
        )
      )
    )
  )

  const failure = (
    operation: LogError["operation"],
    state: TopicState,
    partition: number,
    message: string,
    reason?: LogError["reason"]
  ): LogError =>
    new LogError({
      operation,
      topic: state.topic,
      partition,
      outcome: "failed",
      message,
      ...(reason === undefined ? {} : { reason })
    })

  const madeAnew = (operation: LogError["operation"], state: TopicState, partition: number): LogError =>
    failure(operation, state, partition, `topic ${state.name} was deleted and made anew`, "incarnation")

  const known = (topic: Topic, partition: number): TopicState => {
    if (!(partition >= 0 && partition < partitions)) throw new RangeError(`${topic} has no partition ${partition}`)
    return topics.get(topic)!
  }

  const query = <A>(
    topic: Topic,
    partition: number,
    request: (cluster: KafkaCluster, name: string) => Promise<A>
  ): Effect.Effect<A, LogError> =>
    Effect.suspend(() => {
      const state = known(topic, partition)
      return Effect.tryPromise({
        try: () => ask((open) => request(open, state.name)),
        catch: (cause) => failure("read", state, partition, inOneLine(cause))
      })
    })

  const bounds = (topic: Topic, partition: number) =>
    query(topic, partition, async (open, name) => {
      const [start, end] = await Promise.all([
        open.offsets(name, [partition], START),
        open.offsets(name, [partition], END)
      ])
      return { start: start.get(partition)!, end: end.get(partition)! }
    })

  const slice = (topic: Topic, partition: number, from: number, limit: number): Effect.Effect<Slice, LogError> => {
    const { incarnation } = topics.get(topic)!
    return Effect.flatMap(
      query(topic, partition, async (open, name) => {
        const wire = await open.patient("slice", await open.leader(name, partition))
        const part = { topic: name, topicId: incarnation, partition, offset: from, maxBytes: options.fetchBytes }
        const [fetched] = await wire.fetch({ parts: [part], maxBytes: options.fetchBytes, maxWaitMs: SLICE_WAIT_MS })
        const { code, bytes, aborted } = fetched!
        if (code === CODE.OFFSET_OUT_OF_RANGE) return undefined
        if (code !== CODE.NONE) throw new KafkaRefusal(code, "fetch")
        const { records, next } = decodeBatches(bytes, from, 0, aborted)
        return records.length <= limit
          ? { records, next }
          : { records: records.slice(0, limit), next: records[limit - 1]!.offset + 1 }
      }),
      (found) => {
        if (found !== undefined) return Effect.succeed(found)
        return Effect.flatMap(bounds(topic, partition), ({ start }) =>
          start > from ? slice(topic, partition, start, limit) : Effect.succeed({ records: [], next: from })
        )
      }
    )
  }

  const isLive = (group: string): boolean => group === UNGROUPED || group === "process"

  const fetchers = new Map<string, KafkaFetcher>()
  /** Readers of one group share their fetches, and so do all who read without a group. */
  const fetcherOf = (group: string): KafkaFetcher => {
    let fetcher = fetchers.get(group)
    if (fetcher === undefined) {
      fetcher = new KafkaFetcher(cluster, group, {
        maxWaitMs: options.fetchWaitMs,
        connections: options.fetchConnections,
        lookMs: isLive(group) ? LIVE_LOOK_MS : SINK_LOOK_MS
      })
      fetchers.set(group, fetcher)
    }
    return fetcher
  }

  /** One reader of one partition: `next` answers the next array and waits for it; `stop` ends a wait. */
  class Reader {
    readonly #state: TopicState
    readonly #partition: number
    readonly #incarnation: string
    readonly #fetcher: KafkaFetcher
    readonly #isLive: boolean
    #offset: number
    /** Bytes that the fetch under way may bring. */
    #asked = 0
    #recordTime = 0
    #ready: Array<LogRecord> = []
    #taken = 0
    #ahead: Promise<Fetched> | undefined
    #stopped = false
    #place: Place = "end"

    constructor(state: TopicState, partition: number, from: number, incarnation: string, group: string) {
      this.#state = state
      this.#partition = partition
      this.#offset = from
      this.#incarnation = incarnation
      this.#isLive = isLive(group)
      this.#fetcher = fetcherOf(group)
    }

    stop(): void {
      this.#stopped = true
    }

    #fetch(): Promise<Fetched> {
      const isSmall = !this.#isLive && inTurns()
      this.#asked = isSmall ? Math.min(options.fetchBytes, SINK_FETCH_BYTES) : options.fetchBytes
      const part = {
        topic: this.#state.name,
        topicId: this.#incarnation,
        partition: this.#partition,
        offset: this.#offset,
        maxBytes: this.#asked
      }
      return this.#fetcher.fetch(part, this.#place, () => !this.#stopped)
    }

    async next(): Promise<Records | LogError> {
      let silentSince: number | undefined
      for (let attempt = 0; this.#taken >= this.#ready.length; ) {
        if (this.#stopped) return failure("read", this.#state, this.#partition, "the reader was stopped")
        if (this.#state.incarnation !== this.#incarnation) return madeAnew("read", this.#state, this.#partition)
        if (cluster.closed) return failure("read", this.#state, this.#partition, "the log was closed")
        let fetched: Fetched
        try {
          fetched = await (this.#ahead ?? this.#fetch())
          this.#ahead = undefined
          if (fetched.code !== CODE.NONE && fetched.code !== CODE.OFFSET_OUT_OF_RANGE) {
            throw new KafkaRefusal(fetched.code, "fetch")
          }
          if (fetched.code === CODE.NONE) this.#take(fetched)
        } catch (cause) {
          this.#ahead = undefined
          if (cause instanceof KafkaUnreadable) {
            const where = `${this.#state.name}-${this.#partition} from offset ${this.#offset} on`
            const message = `${where} cannot be read: ${inOneLine(cause)}`
            return failure("read", this.#state, this.#partition, message)
          }
          if (!isPassing(cause)) return failure("read", this.#state, this.#partition, inOneLine(cause))
          // A broker away is waited for: nothing is lost by it, and nobody else could read either.
          if (silentSince === undefined) {
            silentSince = Date.now()
            if (attempt > 2) warn(`${this.#state.name}-${this.#partition} cannot be read just now: ${inOneLine(cause)}`)
          } else if (Date.now() - silentSince > 30_000) silentSince = undefined
          cluster.stale()
          if (cause instanceof KafkaRefusal && isStale(cause.code)) await look().catch(() => undefined)
          await pause(backoff(attempt++))
          continue
        }
        attempt = 0
        if (fetched.code === CODE.OFFSET_OUT_OF_RANGE) {
          const out = await this.#outOfRange()
          if (out === undefined) continue
          return out
        }
        // The next fetch is under way while the reader works on this one: one ahead, never more.
        if (this.#ready.length > 0) {
          this.#ahead = this.#fetch()
          this.#ahead.catch(() => undefined)
        }
      }
      const left = this.#ready.length - this.#taken
      let batch = Math.min(left, options.batch)
      if (!this.#isLive) {
        if (inTurns()) batch = Math.min(batch, TURN_RECORDS)
        await turn(batch)
      } else live(this.#recordTime)
      if (batch === this.#ready.length) {
        const all = this.#ready
        this.#ready = []
        return all as unknown as Records
      }
      const some = this.#ready.slice(this.#taken, this.#taken + batch)
      this.#taken += some.length
      if (this.#taken >= this.#ready.length) {
        this.#ready = []
        this.#taken = 0
      }
      return some as unknown as Records
    }

    async #outOfRange(): Promise<LogError | undefined> {
      try {
        await look()
        if (this.#state.incarnation !== this.#incarnation) return madeAnew("read", this.#state, this.#partition)
        const [starts, ends] = await ask((open) =>
          Promise.all([
            open.offsets(this.#state.name, [this.#partition], START),
            open.offsets(this.#state.name, [this.#partition], END)
          ])
        )
        const start = starts.get(this.#partition)!
        const end = ends.get(this.#partition)!
        // A replica that has just become leader may be a moment behind.
        if (this.#offset >= start && this.#offset <= end) return undefined
        const message =
          this.#offset < start
            ? `offset ${this.#offset} is no longer held: the log starts at ${start}`
            : `offset ${this.#offset} is not held: the log ends at ${end}`
        return failure("read", this.#state, this.#partition, message, "not_held")
      } catch (cause) {
        const message = `offset ${this.#offset} is not held, and where the log starts is not known: ${inOneLine(cause)}`
        return failure("read", this.#state, this.#partition, message, "not_held")
      }
    }

    #take({ bytes, aborted }: Fetched): void {
      const { records, next, recordTime } = decodeBatches(bytes, this.#offset, this.#recordTime, aborted)
      const isCut = bytes.length > 0 && next === this.#offset
      // One at most, the first.
      const unreadable = records[0]?.unreadable
      if (unreadable !== undefined) {
        warn(`${this.#state.name}-${this.#partition}: ${unreadable.message}; it is passed over`)
      }
      this.#place = isCut ? "cut" : bytes.length >= this.#asked / 4 ? "behind" : "end"
      this.#offset = next
      this.#recordTime = recordTime
      this.#ready = records
      this.#taken = 0
    }
  }

  const readFrom = (
    state: TopicState,
    partition: number,
    from: number,
    incarnation: string,
    group: string,
    until: Effect.Effect<void> = Effect.never
  ): Stream.Stream<Records, LogError> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const reader = yield* Effect.acquireRelease(
          Effect.sync(() => new Reader(state, partition, from, incarnation, group)),
          (open) => Effect.sync(() => open.stop())
        )
        // Not Stream.interruptWhen: its queue costs every batch two fibers' turns, and its sets of waiters keep alive
        // what went through them until the heap is collected as a whole (docs/decisions/0012).
        let isOver = false
        let end = () => {}
        const over = Effect.sync(() => {
          isOver = true
          end()
        })
        yield* Effect.forkScoped(Effect.andThen(until, over), { startImmediately: true })
        return Stream.fromEffectRepeat(
          Effect.callback<Records, LogError | Cause.Done>((resume) => {
            if (isOver) return resume(Cause.done())
            end = () => resume(Cause.done())
            reader.next().then(
              (got) => resume(got instanceof LogError ? Effect.fail(got) : Effect.succeed(got)),
              (cause) => resume(Effect.die(cause))
            )
          })
        )
      })
    )

  const joined = new Map<string, Topic>()

  const assignments = (group: string, topic: Topic): Stream.Stream<AssignedPartition, LogError> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const state = topics.get(topic)!
        const { incarnation } = state
        joined.set(group, topic)
        // At most one entry a partition and rebalance; the member takes them as they come.
        const queue = yield* Queue.make<AssignedPartition, LogError | Cause.Done>({ capacity: partitions * 64 })
        const owned = new Map<number, Deferred.Deferred<void>>()
        const lost = (partition: number) => {
          const revoked = owned.get(partition)
          owned.delete(partition)
          if (revoked !== undefined) Deferred.doneUnsafe(revoked, Effect.void)
        }
        const fail = (error: LogError) => {
          for (const partition of [...owned.keys()]) lost(partition)
          Queue.failCauseUnsafe(queue, Cause.fail(error))
        }
        const member = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const opened: KafkaMember = new KafkaMember(
              cluster,
              `member ${group} ${memberCount++}`,
              options.prefix + group,
              state.name,
              partitions,
              {
                sessionTimeoutMs: options.sessionTimeoutMs,
                rebalanceTimeoutMs: options.sessionTimeoutMs,
                heartbeatMs: options.heartbeatMs,
                requestTimeoutMs: options.requestTimeoutMs
              },
              {
                gained: ({ partition, committed }) => {
                  const revoked = Deferred.makeUnsafe<void>()
                  owned.set(partition, revoked)
                  const owns = () => owned.get(partition) === revoked
                  Queue.offerUnsafe(queue, {
                    partition,
                    committed: ofLife(incarnation, committed),
                    revoked: Deferred.await(revoked),
                    read: (from, until = Effect.never) => {
                      const over = Effect.raceFirst(Deferred.await(revoked), until)
                      return readFrom(state, partition, from, incarnation, group, over)
                    },
                    commit: (commit) =>
                      Effect.tryPromise({
                        try: () => opened.commit(partition, named(incarnation, commit), owns),
                        catch: (cause) => failure("commit", state, partition, inOneLine(cause))
                      })
                  })
                },
                lost,
                warned: (message) => warn(`group ${options.prefix + group}: ${message}`),
                failed: (message) => fail(failure("assign", state, -1, `group ${options.prefix + group}: ${message}`))
              }
            )
            return opened
          }),
          (open) => Effect.promise(() => open.leave(LEAVE_MS))
        )
        const anew = () => {
          fail(madeAnew("assign", state, -1))
          void member.leave(LEAVE_MS)
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            state.listeners.add(anew)
          }),
          () => Effect.sync(() => state.listeners.delete(anew))
        )
        return Stream.fromQueue(queue)
      })
    )
  let memberCount = 0

  const lag = Effect.suspend(() => {
    const groups = new Map([...options.groups, ...joined])
    return Effect.tryPromise({
      try: async () => {
        const all = Array.from({ length: partitions }, (_, partition) => partition)
        const bound = async (topic: Topic, which: number) =>
          [topic, await ask((open) => open.offsets(topics.get(topic)!.name, all, which))] as const
        const asked = [...new Set(groups.values())]
        const starts = new Map(await Promise.all(asked.map((topic) => bound(topic, START))))
        const committed = await Promise.all(
          [...groups].map(async ([group, topic]) => {
            const id = options.prefix + group
            const { name, incarnation } = topics.get(topic)!
            const found = await ask(async (open) => (await open.coordinatorAdmin(id)).committed(id, name, all))
            return new Map(all.map((partition) => [partition, ofLife(incarnation, found.get(partition))]))
          })
        )
        // The ends last, so that no group is ever shown ahead of its log.
        const ends = new Map(await Promise.all(asked.map((topic) => bound(topic, END))))
        return [...groups].flatMap(([group, topic], i) =>
          all.map((partition) => {
            const from = committed[i]!.get(partition)?.offset ?? starts.get(topic)!.get(partition)!
            return { group, topic, partition, records: Math.max(0, ends.get(topic)!.get(partition)! - from) }
          })
        )
      },
      catch: (cause) => failure("read", topics.get("raw_ticks")!, -1, `lag: ${inOneLine(cause)}`)
    })
  })

  const members = Effect.suspend(() =>
    Effect.tryPromise({
      try: () =>
        Promise.all(
          [...new Map([...options.groups, ...joined]).keys()].map(async (group) => {
            const id = options.prefix + group
            return { group, members: await ask(async (open) => (await open.coordinatorAdmin(id)).members(id)) }
          })
        ),
      catch: (cause) => failure("read", topics.get("raw_ticks")!, -1, `members of groups: ${inOneLine(cause)}`)
    })
  )

  return {
    partitions,
    incarnation: (topic) => topics.get(topic)!.incarnation,
    latest: (topic) =>
      Effect.suspend(() => {
        const state = topics.get(topic)!
        const before = state.incarnation
        const lookTwice = async () => {
          // A look under way may have begun before what made its asker ask.
          await looking?.catch(() => undefined)
          await look()
          if (state.incarnation !== before) return
          await pause(PROPAGATION_MS)
          await look()
        }
        return Effect.map(
          Effect.tryPromise({ try: lookTwice, catch: (cause) => failure("read", state, -1, inOneLine(cause)) }),
          () => state.incarnation
        )
      }),
    append: (topic, partition, records, incarnation) =>
      Effect.suspend((): Effect.Effect<number, LogError> => {
        const state = known(topic, partition)
        if (incarnation !== undefined && incarnation !== state.incarnation) return madeAnew("append", state, partition)
        if (records.length === 0) return Effect.map(bounds(topic, partition), ({ end }) => end)
        return Effect.callback<number, LogError>((resume) => {
          const takeBack = producer.append(topic, state.name, state.incarnation, partition, records, (outcome) =>
            resume(outcome instanceof LogError ? Effect.fail(outcome) : Effect.succeed(outcome))
          )
          return Effect.sync(takeBack)
        })
      }),
    read: (topic, partition, from) =>
      Stream.suspend(() => {
        const state = known(topic, partition)
        return readFrom(state, partition, from, state.incarnation, UNGROUPED)
      }),
    slice,
    bounds,
    offsetAt: (topic, partition, micros) =>
      query(topic, partition, async (open, name) => {
        const at = await open.offsets(name, [partition], Math.max(0, Math.ceil(micros / 1000)))
        const found = at.get(partition)!
        return found >= 0 ? found : (await open.offsets(name, [partition], END)).get(partition)!
      }),
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
  groups: KafkaOptions["groups"] = new Map()
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
export const layerOf = (settings: KafkaSettings, groups?: KafkaOptions["groups"]): Layer.Layer<TickLog, StartError> =>
  Layer.unwrap(Effect.map(optionsOf(settings, groups), layer))
