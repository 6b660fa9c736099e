/**
 * Decides how the default engine, `@platformatic/kafka`, speaks to one broker: its connection and its codecs of the
 * protocol, called directly. Its Producer and Consumer are not used: the Producer keeps one sequence table for all
 * partitions, drops it whole when one of them fails, and sends again under a new identity what may have been written;
 * the Consumer commits without metadata, and cannot give up a lost partition at once.
 */
import { isIP } from "node:net"
import {
  AuthenticationError,
  apiVersionsV3,
  Connection,
  createTopicsV7,
  describeConfigsV4,
  describeGroupsV5,
  fetchV13,
  findCoordinatorV4,
  findErrorBy,
  GenericError,
  heartbeatV4,
  initProducerIdV4,
  joinGroupV7,
  leaveGroupV5,
  listOffsetsV7,
  metadataV12,
  NetworkError,
  offsetCommitV8,
  offsetFetchV8,
  ProtocolError,
  type Reader,
  ResponseError,
  syncGroupV5,
  Writer
} from "@platformatic/kafka"
import { Redacted } from "effect"
import { PRODUCE, produceRequest, produceVersion, readProduced } from "./produceRequest.ts"
import {
  type Address,
  CODE,
  type Fetched,
  type KafkaAdmin,
  type KafkaEngine,
  KafkaRefusal,
  KafkaSilence,
  KafkaUnreadable,
  type KafkaWire,
  MemberIdRequired,
  type Metadata,
  NO_BYTES,
  nothingFetched,
  type TopicMetadata,
  type WireOptions
} from "./Wire.ts"

const NO_TOPIC = "00000000-0000-0000-0000-000000000000"
/** Reads only what is decided: nothing of an open or aborted transaction. */
const READ_COMMITTED = 1
const GROUP_COORDINATOR = 0
const TOPIC_RESOURCE = 2
const IN_FLIGHT = 64

const open = async (address: Address, options: WireOptions): Promise<Connection> => {
  const { host, port } = address
  const connection = new Connection(options.clientId, {
    connectTimeout: options.connectTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    maxInflights: IN_FLIGHT,
    ...(options.tls === undefined
      ? {}
      : {
          tls: options.tls.ca === undefined ? {} : { ca: options.tls.ca },
          ...(isIP(host) === 0 ? { tlsServerName: host } : {})
        }),
    ...(options.sasl === undefined
      ? {}
      : {
          sasl: {
            mechanism: options.sasl.mechanism.toUpperCase() as "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512",
            username: options.sasl.username,
            password: Redacted.value(options.sasl.password)
          }
        })
  })
  // Every request in flight fails with it; an event nobody listens to would end the process.
  connection.on("error", () => undefined)
  try {
    await connection.connect(host, port)
  } catch (cause) {
    connection.socket?.destroy()
    throw new KafkaSilence(`${host}:${port} ${reason(cause)}`, { sent: false, refused: isAuthentication(cause) })
  }
  return connection
}

const isAuthentication = (cause: unknown): boolean =>
  cause instanceof Error &&
  (findErrorBy(cause, "code", AuthenticationError.code) !== null || isAuthentication(cause.cause))

/** The library finds out while it authenticates, and tells it as a refusal of the credentials. */
const requiresTls = (cause: unknown): boolean =>
  cause instanceof Error && (cause.message === "Broker requires TLS." || requiresTls(cause.cause))

/** The innermost cause says most: "connect ECONNREFUSED" rather than "Connection failed". */
const reason = (cause: unknown): string => {
  if (!(cause instanceof Error)) return "does not answer"
  if (requiresTls(cause)) return "requires TLS (KAFKA_TLS)"
  if (cause instanceof AuthenticationError) return "refused the credentials"
  if (cause.cause instanceof Error) return reason(cause.cause)
  return cause.message === "" ? "does not answer" : cause.message.split("\n", 1)[0]!
}

/** The answer, or why there is none. A refusal in the middle of an answer is thrown with the answer by the library. */
const ask = async <A>(what: string, request: Promise<A>): Promise<A> => {
  try {
    return await request
  } catch (cause) {
    throw understood(what, cause)
  }
}

const understood = (what: string, cause: unknown): Error => {
  if (cause instanceof ResponseError) {
    const first = cause.errors.find((error) => error instanceof ProtocolError)
    const code = first?.apiCode
    if (typeof code === "number") return new KafkaRefusal(code, `${what}: ${String(first?.apiId)}`)
  }
  if (cause instanceof GenericError && cause.code === NetworkError.code) {
    return new KafkaSilence(`${what}: ${reason(cause)}`, { sent: true })
  }
  return new KafkaUnreadable(`${what}: ${reason(cause)}`)
}

/** Takes the answer where some of its parts carry an error, for requests whose parts are looked at one by one. */
const askParts = async <A>(what: string, request: Promise<A>): Promise<A> => {
  try {
    return await request
  } catch (cause) {
    const { response } = cause as { readonly response?: A }
    if (cause instanceof ResponseError && response !== undefined) return response
    throw understood(what, cause)
  }
}

/** Appends in the version that the broker understands; the library itself knows none by the topic's id. */
const producer = (connection: Connection): KafkaWire["produce"] => {
  let version: Promise<number> | undefined
  return async (batches, timeoutMs) => {
    version ??= ask("versions", apiVersionsV3.api.async(connection, "market-data-platform", "0")).then(({ apiKeys }) =>
      produceVersion(apiKeys.find(({ apiKey }) => apiKey === PRODUCE)?.maxVersion ?? 0)
    )
    version.catch(() => {
      version = undefined
    })
    const agreed = await version
    const body = await ask(
      "produce",
      new Promise<Buffer>((resolve, reject) => {
        connection.send<Buffer>(
          PRODUCE,
          agreed,
          () => Writer.create().append(produceRequest(agreed, batches, timeoutMs)),
          (_correlation, _key, _version, reader) => reader.buffer.slice(reader.position),
          true,
          true,
          (error, answer) => {
            if (error !== null || answer === undefined) reject(error ?? new Error("no answer"))
            else resolve(answer)
          }
        )
      })
    )
    return readProduced(agreed, body, batches)
  }
}

/** The answers to two callers are one object each; a wire is both where the library is the engine. */
const wire = (connection: Connection): KafkaWire => ({
  isOpen: () => connection.isConnected(),
  initProducer: async () => {
    const { producerId, producerEpoch } = await ask("init producer", initProducerIdV4.api.async(connection, null, 0))
    return { id: producerId, epoch: producerEpoch }
  },
  produce: producer(connection),
  fetch: async ({ parts, maxBytes, maxWaitMs }) => {
    const topics = [...Map.groupBy(parts, ({ topicId }) => topicId)].map(([topicId, mine]) => ({
      topicId,
      partitions: mine.map(({ partition, offset, maxBytes: partitionMaxBytes }) => ({
        partition,
        currentLeaderEpoch: -1,
        fetchOffset: BigInt(offset),
        lastFetchedEpoch: -1,
        partitionMaxBytes
      }))
    }))
    // The library's own parser makes an object and a bigint of every record, and throws where one batch is unreadable.
    const { api, createRequest } = fetchV13
    const answers = await ask(
      "fetch",
      new Promise<FetchAnswer>((resolve, reject) => {
        connection.send<FetchAnswer>(
          api.key,
          api.version,
          () => createRequest(maxWaitMs, 1, maxBytes, READ_COMMITTED, 0, -1, topics, [], ""),
          readFetch,
          true,
          true,
          (error, answer) => {
            if (error !== null || answer === undefined) reject(error ?? new Error("no answer"))
            else resolve(answer)
          }
        )
      })
    )
    const { code, fetched } = answers
    const missing = nothingFetched(code === CODE.NONE ? CODE.UNKNOWN_TOPIC_ID : code)
    return parts.map(({ topicId, partition }) => fetched.get(`${topicId}/${partition}`) ?? missing)
  },
  join: async ({ group, memberId, sessionTimeoutMs, rebalanceTimeoutMs, protocol, metadata }) => {
    try {
      const joined = await joinGroupV7.api.async(
        connection,
        group,
        sessionTimeoutMs,
        rebalanceTimeoutMs,
        memberId,
        null,
        "consumer",
        [{ name: protocol, metadata }]
      )
      return {
        generation: joined.generationId,
        memberId: joined.memberId,
        leader: joined.leader,
        members: joined.members
      }
    } catch (cause) {
      const refusal = understood("join", cause)
      if (refusal instanceof KafkaRefusal && refusal.code === CODE.MEMBER_ID_REQUIRED) {
        const { response } = cause as { readonly response?: { readonly memberId: string } }
        if (response !== undefined) throw new MemberIdRequired(response.memberId)
      }
      throw refusal
    }
  },
  sync: async ({ group, generation, memberId }, protocol, assignments) => {
    const { assignment } = await ask(
      "sync",
      syncGroupV5.api.async(connection, group, generation, memberId, null, "consumer", protocol, [...assignments])
    )
    return assignment
  },
  heartbeat: async ({ group, generation, memberId }) => {
    await ask("heartbeat", heartbeatV4.api.async(connection, group, generation, memberId, null))
  },
  leave: async (group, memberId) => {
    await ask("leave", leaveGroupV5.api.async(connection, group, [{ memberId, groupInstanceId: null, reason: null }]))
  },
  commit: async ({ group, generation, memberId }, topic, commits) => {
    await ask(
      "commit",
      offsetCommitV8.api.async(connection, group, generation, memberId, null, [
        {
          name: topic,
          partitions: commits.map(({ partition, offset, metadata }) => ({
            partitionIndex: partition,
            committedOffset: BigInt(offset),
            committedLeaderEpoch: -1,
            committedMetadata: metadata
          }))
        }
      ])
    )
  },
  close: () => shut(connection)
})

/** The answer to a fetch: the request's own error, and by topic id and partition what came. */
interface FetchAnswer {
  readonly code: number
  readonly fetched: ReadonlyMap<string, Fetched>
}

/** The answer to a fetch, version 13. */
const readFetch = (_correlation: number, _key: number, _version: number, reader: Reader): FetchAnswer => {
  reader.readInt32() // throttle time
  const refused = reader.readInt16()
  reader.readInt32() // session
  const fetched = new Map<string, Fetched>()
  reader.readArray((topic) => {
    const topicId = topic.readUUID()
    topic.readArray((part) => {
      const partition = part.readInt32()
      const code = part.readInt16()
      part.readInt64() // high watermark
      part.readInt64() // last stable offset
      part.readInt64() // log start
      const aborted = part.readNullableArray((transaction) => ({
        producerId: transaction.readInt64(),
        firstOffset: transaction.readInt64()
      }))
      part.readInt32() // preferred replica
      const size = part.readUnsignedVarInt() - 1
      const { position } = part
      const bytes = size > 0 ? part.buffer.slice(position, position + size) : NO_BYTES
      if (size > 0) part.skip(size)
      fetched.set(`${topicId}/${partition}`, { code, bytes, aborted: aborted ?? [] })
    })
  })
  return { code: refused, fetched }
}

/** Closes at once; whatever is under way fails. */
const shut = (connection: Connection): void => {
  connection.close(() => undefined)
  connection.socket?.destroy()
}

export const platformatic: KafkaEngine = {
  name: "platformatic",
  connect: async (address, options) => wire(await open(address, options))
}

/** The cluster's own matters, asked through this library under either engine: kafkajs knows no topic ids. */
export const connectAdmin = async (address: Address, options: WireOptions): Promise<KafkaAdmin> => {
  const connection = await open(address, options)
  return {
    isOpen: () => connection.isConnected(),
    metadata: async (names): Promise<Metadata> => {
      const response = await askParts("metadata", metadataV12.api.async(connection, [...names], false, false))
      const topics = new Map<string, TopicMetadata>()
      for (const { name, topicId, errorCode, partitions } of response.topics) {
        if (name == null || errorCode !== 0 || topicId === NO_TOPIC) continue
        const leaders: Array<number> = new Array(partitions.length).fill(-1)
        for (const { partitionIndex, leaderId } of partitions) leaders[partitionIndex] = leaderId
        topics.set(name, { id: topicId, leaders })
      }
      return {
        brokers: new Map(response.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
        controller: response.controllerId,
        topics
      }
    },
    createTopic: async (topic, partitions, replicationFactor, config, timeoutMs) => {
      await ask(
        `create topic ${topic}`,
        createTopicsV7.api.async(
          connection,
          [
            {
              name: topic,
              numPartitions: partitions,
              replicationFactor,
              assignments: [],
              configs: Object.entries(config).map(([name, value]) => ({ name, value }))
            }
          ],
          timeoutMs,
          false
        )
      )
    },
    topicConfig: async (topic, name) => {
      const { results } = await ask(
        `configuration of ${topic}`,
        describeConfigsV4.api.async(
          connection,
          [{ resourceType: TOPIC_RESOURCE, resourceName: topic, configurationKeys: [name] }],
          false,
          false
        )
      )
      return results[0]?.configs.find((config) => config.name === name)?.value ?? null
    },
    listOffsets: async (topic, partitions, timestamp) => {
      const response = await ask(
        `offsets of ${topic}`,
        listOffsetsV7.api.async(connection, -1, READ_COMMITTED, [
          {
            name: topic,
            partitions: partitions.map((partitionIndex) => ({
              partitionIndex,
              currentLeaderEpoch: -1,
              timestamp: BigInt(timestamp)
            }))
          }
        ])
      )
      const offsets = new Map<number, number>()
      for (const { partitions: parts } of response.topics) {
        for (const { partitionIndex, offset } of parts) offsets.set(partitionIndex, Number(offset))
      }
      return offsets
    },
    coordinator: async (group) => {
      const { coordinators } = await askParts(
        `coordinator of ${group}`,
        findCoordinatorV4.api.async(connection, GROUP_COORDINATOR, [group])
      )
      const found = coordinators[0]
      if (found === undefined || found.errorCode !== 0) {
        throw new KafkaRefusal(found?.errorCode ?? CODE.COORDINATOR_NOT_AVAILABLE, `coordinator of ${group}`)
      }
      return { host: found.host, port: found.port }
    },
    committed: async (group, topic, partitions) => {
      const { groups } = await ask(
        `offsets of group ${group}`,
        offsetFetchV8.api.async(
          connection,
          [{ groupId: group, memberEpoch: -1, topics: [{ name: topic, partitionIndexes: [...partitions] }] }],
          true
        )
      )
      const committed = new Map<number, { readonly offset: number; readonly metadata: string }>()
      for (const { partitions: parts } of groups[0]?.topics ?? []) {
        for (const { partitionIndex, committedOffset, metadata } of parts) {
          if (committedOffset >= 0n) {
            committed.set(partitionIndex, { offset: Number(committedOffset), metadata: metadata ?? "" })
          }
        }
      }
      return committed
    },
    members: async (group) => {
      const { groups } = await ask(`members of group ${group}`, describeGroupsV5.api.async(connection, [group], false))
      const found = groups[0]
      if (found === undefined || found.errorCode !== 0) {
        throw new KafkaRefusal(found?.errorCode ?? CODE.COORDINATOR_NOT_AVAILABLE, `members of group ${group}`)
      }
      return found.members.length
    },
    close: () => shut(connection)
  }
}
