/**
 * Decides what the topics in Kafka must be, that those missing are made, and what it means that one was deleted and made
 * anew: it has another id, and whatever reads or writes it begins again.
 */
import { LogError } from "../../schema/Errors.ts"
import { TOPICS, type Topic } from "../../streams/log/TickLog.ts"
import { backoff, type KafkaCluster, pause } from "./cluster.ts"
import { CODE, KafkaRefusal, type Metadata } from "./Wire.ts"

const DAY_MS = 86_400_000
const RETENTION_MS: Readonly<Record<Topic, number>> = {
  raw_ticks: 3 * DAY_MS,
  normalized_ticks: 3 * DAY_MS,
  raw_ticks_dlq: 14 * DAY_MS
}

/** What stays wrong with the topics is said again this often. */
const SAY_AGAIN_MS = 60_000
/** A broker may learn so much later than the others that a topic was recreated. */
const PROPAGATION_MS = 250

/** One topic, in the incarnation it is in. */
export interface TopicState {
  readonly topic: Topic
  readonly name: string
  incarnation: string
  /** Told when it is found to have been recreated. */
  readonly listeners: Set<() => void>
}

export interface TopicsOptions {
  readonly prefix: string
  readonly partitions: number
  readonly replicationFactor: number
  readonly requestTimeoutMs: number
  readonly maxRecordBytes: number
}

/** Says something of the topics: what is wrong for good, and what may pass. */
export interface TopicsVoice {
  readonly warn: (message: string) => void
  readonly error: (message: string) => void
}

export const failure = (
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

export const recreated = (operation: LogError["operation"], state: TopicState, partition: number): LogError =>
  failure(operation, state, partition, `topic ${state.name} was deleted and recreated`, "incarnation")

/** The names that the topics have in Kafka. */
export const topicNames = (prefix: string): ReadonlyArray<string> => TOPICS.map((topic) => prefix + topic)

export class Topics {
  /** Of each topic alike, as they were at the start. */
  partitions = 0
  /** Told of an incarnation that is no more. */
  onGone: (incarnation: string) => void = () => {}
  readonly warn: (message: string) => void
  private readonly error: (message: string) => void
  private readonly cluster: KafkaCluster
  private readonly options: TopicsOptions
  private readonly states: ReadonlyArray<TopicState>
  /** The number of partitions that was told of last. */
  private toldCount = 0
  private toldAt = 0
  private looking: Promise<void> | undefined

  constructor(cluster: KafkaCluster, options: TopicsOptions, voice: TopicsVoice) {
    this.cluster = cluster
    this.options = options
    this.warn = voice.warn
    this.error = voice.error
    this.states = TOPICS.map((topic) => ({
      topic,
      name: options.prefix + topic,
      incarnation: "",
      listeners: new Set()
    }))
  }

  of(topic: Topic): TopicState {
    return this.states.find((state) => state.topic === topic)!
  }

  /** The topic of a partition that there is. */
  known(topic: Topic, partition: number): TopicState {
    if (!(partition >= 0 && partition < this.partitions)) {
      throw new RangeError(`${topic} has no partition ${partition}`)
    }
    return this.of(topic)
  }

  /** Asks the cluster, and again while what fails is passing. */
  ask<A>(request: (cluster: KafkaCluster) => Promise<A>, withinMs = this.options.requestTimeoutMs): Promise<A> {
    return this.cluster.persist(request, withinMs)
  }

  /** Has all topics; answers what is wrong with them, in one line. */
  async open(withinMs: number): Promise<() => Promise<string | undefined>> {
    const metadata = await this.have(withinMs)
    return async () => {
      const fault = await this.wrong(metadata)
      if (fault !== undefined) return fault
      for (const state of this.states) state.incarnation = metadata.topics.get(state.name)!.id
      this.partitions = metadata.topics.get(this.states[0]!.name)!.leaders.length
      this.toldCount = this.partitions
      return undefined
    }
  }

  /** Looks whether the topics are still those of the start; those who ask at once share one look. */
  look(): Promise<void> {
    this.looking ??= this.lookNow().finally(() => {
      this.looking = undefined
    })
    return this.looking
  }

  private async lookNow(): Promise<void> {
    const { states, partitions } = this
    const now = await this.have(this.options.requestTimeoutMs)
    const other = states.find(({ name }) => now.topics.get(name)!.leaders.length !== partitions)
    const count = other === undefined ? partitions : now.topics.get(other.name)!.leaders.length
    if (other !== undefined && (count !== this.toldCount || Date.now() - this.toldAt > SAY_AGAIN_MS)) {
      const what = `topic ${other.name} has ${count} partitions, this process was started with ${partitions}`
      this.error(`${what}: ticks in the others are read by nobody`)
      this.toldAt = Date.now()
    }
    this.toldCount = count
    const anew = states.filter(({ name, incarnation }) => now.topics.get(name)!.id !== incarnation)
    if (anew.length === 0) return
    const fault = await this.wrong(now)
    if (fault !== undefined) this.warn(fault)
    for (const state of anew) {
      this.warn(`topic ${state.name} was deleted and recreated: what reads and writes it begins again`)
      this.onGone(state.incarnation)
      state.incarnation = now.topics.get(state.name)!.id
      for (const listener of [...state.listeners]) listener()
    }
  }

  /** The incarnation of a topic as the brokers know it now, and not as they knew it a moment ago. */
  async latest(topic: Topic): Promise<string> {
    const state = this.of(topic)
    const before = state.incarnation
    // A look under way may have begun before what made its asker ask.
    await this.looking?.catch(() => undefined)
    await this.look()
    if (state.incarnation !== before) return state.incarnation
    await pause(PROPAGATION_MS)
    await this.look()
    return state.incarnation
  }

  /** Makes the topics that are missing and answers the metadata of all. */
  private async have(withinMs: number): Promise<Metadata> {
    const { options } = this
    const deadline = Date.now() + withinMs
    let metadata = await this.ask((open) => open.refresh(), withinMs)
    for (const { topic, name } of this.states) {
      if (metadata.topics.has(name)) continue
      try {
        await this.ask(async (open) => {
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
      const missing = this.states.find(({ name }) => {
        const found = metadata.topics.get(name)
        return found === undefined || found.leaders.some((leader) => leader < 0)
      })
      if (missing === undefined) return metadata
      if (Date.now() >= deadline) {
        throw new KafkaRefusal(CODE.LEADER_NOT_AVAILABLE, `${missing.name} has partitions without a leader`)
      }
      await pause(backoff(attempt))
      metadata = await this.ask((open) => open.refresh(), Math.max(1, deadline - Date.now()))
    }
  }

  /** What is wrong with the topics, in one line. */
  private async wrong(metadata: Metadata): Promise<string | undefined> {
    const counts = this.states.map(({ name }) => ({ name, count: metadata.topics.get(name)!.leaders.length }))
    if (new Set(counts.map(({ count }) => count)).size > 1) {
      const numbers = counts.map(({ name, count }) => `${name} has ${count}`).join(", ")
      return `topics must have the same number of partitions: ${numbers}`
    }
    const { name } = this.of("raw_ticks")
    const stamp = await this.ask(async (open) => (await open.anyAdmin()).topicConfig(name, "message.timestamp.type"))
    if (stamp !== "LogAppendTime") {
      return `topic ${name} must have message.timestamp.type=LogAppendTime, it has ${stamp ?? "none"}`
    }
    return undefined
  }
}
