/**
 * Decides what the log needs of a Kafka client library: one connection to one broker, asked one request at a time, each
 * with an answer, an error code or no answer within its time. All that the log promises is built above it, once, so
 * that it is the same on every engine.
 */
import type { Redacted } from "effect"

export interface Address {
  readonly host: string
  readonly port: number
}

export const SASL_MECHANISMS = ["plain", "scram-sha-256", "scram-sha-512"] as const

export interface WireOptions {
  readonly clientId: string
  readonly connectTimeoutMs: number
  /** How long an answer may take, where the request itself does not wait on purpose. */
  readonly requestTimeoutMs: number
  readonly sasl:
    | {
        readonly mechanism: (typeof SASL_MECHANISMS)[number]
        readonly username: string
        readonly password: Redacted.Redacted<string>
      }
    | undefined
  /** `ca`: the certificates trusted instead of the system's. */
  readonly tls: { readonly ca: Buffer | undefined } | undefined
}

/** Codes of Kafka's protocol that the log acts on. */
export const CODE = {
  NONE: 0,
  OFFSET_OUT_OF_RANGE: 1,
  UNKNOWN_TOPIC_OR_PARTITION: 3,
  LEADER_NOT_AVAILABLE: 5,
  NOT_LEADER_OR_FOLLOWER: 6,
  REQUEST_TIMED_OUT: 7,
  REPLICA_NOT_AVAILABLE: 9,
  MESSAGE_TOO_LARGE: 10,
  NETWORK_EXCEPTION: 13,
  COORDINATOR_LOAD_IN_PROGRESS: 14,
  COORDINATOR_NOT_AVAILABLE: 15,
  NOT_COORDINATOR: 16,
  RECORD_LIST_TOO_LARGE: 18,
  NOT_ENOUGH_REPLICAS: 19,
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: 20,
  ILLEGAL_GENERATION: 22,
  UNKNOWN_MEMBER_ID: 25,
  REBALANCE_IN_PROGRESS: 27,
  TOPIC_ALREADY_EXISTS: 36,
  OUT_OF_ORDER_SEQUENCE_NUMBER: 45,
  DUPLICATE_SEQUENCE_NUMBER: 46,
  INVALID_PRODUCER_EPOCH: 47,
  KAFKA_STORAGE_ERROR: 56,
  UNKNOWN_PRODUCER_ID: 59,
  FENCED_LEADER_EPOCH: 74,
  UNKNOWN_LEADER_EPOCH: 75,
  OFFSET_NOT_AVAILABLE: 78,
  MEMBER_ID_REQUIRED: 79,
  UNKNOWN_TOPIC_ID: 100,
  INCONSISTENT_TOPIC_ID: 103
} as const

/** The broker answered, and said no. */
export class KafkaRefusal extends Error {
  readonly code: number
  constructor(code: number, what: string) {
    super(`${what} (error ${code})`)
    this.code = code
  }
}

/** No answer: whether the request was carried out is not known, unless it is sure that it was never `sent`. */
export class KafkaSilence extends Error {
  readonly sent: boolean
  /** The broker was reached and does not let us in: asking again cannot help. */
  readonly refused: boolean
  constructor(message: string, options: { readonly sent: boolean; readonly refused?: boolean }) {
    super(message)
    this.sent = options.sent
    this.refused = options.refused ?? false
  }
}

/** An answer that came and cannot be read. */
export class KafkaUnreadable extends Error {}

export const NO_BYTES = Buffer.alloc(0)

/** Who appends: with it the broker tells a batch sent again from a new one. */
export interface ProducerIdentity {
  readonly id: bigint
  readonly epoch: number
}

/** A broker that knows topics by their names only takes it for whichever topic has that name. */
export interface OutBatch {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  /** A whole record batch. */
  readonly bytes: Buffer
}

export interface Appended {
  readonly topicId: string
  readonly partition: number
  readonly code: number
  readonly baseOffset: number
}

export interface Fetched {
  readonly code: number
  /** Record batches as they lie in the log; the last may be cut off. */
  readonly bytes: Buffer
  readonly aborted: ReadonlyArray<{ readonly producerId: bigint; readonly firstOffset: bigint }>
}

/** What stands for a partition that an answer leaves out. */
export const nothingFetched = (code: number): Fetched => ({ code, bytes: NO_BYTES, aborted: [] })

/** What is asked of one partition. */
export interface FetchPart {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly offset: number
  readonly maxBytes: number
}

export interface FetchRequest {
  /** Each partition at most once. */
  readonly parts: ReadonlyArray<FetchPart>
  /** Of all parts together; the first batch of the first part that has any comes whole. */
  readonly maxBytes: number
  readonly maxWaitMs: number
}

export interface JoinRequest {
  readonly group: string
  readonly memberId: string
  readonly sessionTimeoutMs: number
  readonly rebalanceTimeoutMs: number
  readonly protocol: string
  readonly metadata: Buffer
}

export interface Joined {
  readonly generation: number
  readonly memberId: string
  readonly leader: string
  readonly members: ReadonlyArray<{ readonly memberId: string; readonly metadata: Buffer }>
}

export interface Membership {
  readonly group: string
  readonly generation: number
  readonly memberId: string
}

/** Where a member's id comes back with the code that asks for it. */
export class MemberIdRequired extends KafkaRefusal {
  readonly memberId: string
  constructor(memberId: string) {
    super(CODE.MEMBER_ID_REQUIRED, "join")
    this.memberId = memberId
  }
}

/**
 * One connection of an engine. Every call ends within its time: with an answer, `KafkaRefusal`, `KafkaSilence` or
 * `KafkaUnreadable`.
 */
export interface KafkaWire {
  readonly isOpen: () => boolean
  readonly initProducer: () => Promise<ProducerIdentity>
  /** acks=all. The answers of all partitions, or no answer at all. */
  readonly produce: (batches: ReadonlyArray<OutBatch>, timeoutMs: number) => Promise<ReadonlyArray<Appended>>
  /** An answer to each part, in their order. */
  readonly fetch: (request: FetchRequest) => Promise<ReadonlyArray<Fetched>>
  readonly join: (request: JoinRequest) => Promise<Joined>
  /** `assignments` from the leader, else empty; answers the member's own. */
  readonly sync: (
    member: Membership,
    protocol: string,
    assignments: ReadonlyArray<{ readonly memberId: string; readonly assignment: Buffer }>
  ) => Promise<Buffer>
  readonly heartbeat: (member: Membership) => Promise<void>
  readonly leave: (group: string, memberId: string) => Promise<void>
  /** All of them, or the first refusal. */
  readonly commit: (member: Membership, topic: string, commits: ReadonlyArray<PartitionCommit>) => Promise<void>
  readonly close: () => void
}

/** How far a group has come in one partition. */
export interface PartitionCommit {
  readonly partition: number
  readonly offset: number
  readonly metadata: string
}

export interface KafkaEngine {
  readonly name: "platformatic" | "kafkajs"
  readonly connect: (address: Address, options: WireOptions) => Promise<KafkaWire>
}

export interface TopicMetadata {
  readonly id: string
  /** Leader of each partition; -1 where there is none just now. */
  readonly leaders: ReadonlyArray<number>
}

export interface Metadata {
  readonly brokers: ReadonlyMap<number, Address>
  readonly controller: number
  /** Topics that exist. */
  readonly topics: ReadonlyMap<string, TopicMetadata>
}

/** What is asked of the cluster outside the path of records. */
export interface KafkaAdmin {
  readonly isOpen: () => boolean
  readonly metadata: (topics: ReadonlyArray<string>) => Promise<Metadata>
  readonly createTopic: (
    topic: string,
    partitions: number,
    replicationFactor: number,
    config: Readonly<Record<string, string>>,
    timeoutMs: number
  ) => Promise<void>
  readonly topicConfig: (topic: string, name: string) => Promise<string | null>
  /** Offsets by partition: -1 the end, -2 the start, else the first at or after a time in ms (-1 where there is none). */
  readonly listOffsets: (
    topic: string,
    partitions: ReadonlyArray<number>,
    timestamp: number
  ) => Promise<ReadonlyMap<number, number>>
  readonly coordinator: (group: string) => Promise<Address>
  readonly committed: (
    group: string,
    topic: string,
    partitions: ReadonlyArray<number>
  ) => Promise<ReadonlyMap<number, { readonly offset: number; readonly metadata: string }>>
  /** How many members a group has, as its coordinator knows them. */
  readonly members: (group: string) => Promise<number>
  readonly close: () => void
}
