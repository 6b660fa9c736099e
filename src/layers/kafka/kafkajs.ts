/**
 * Decides how the second engine, kafkajs, speaks to one broker: through its Broker, which negotiates versions and
 * authenticates, and its codecs of the protocol. Its Producer and Consumer are not used: the Consumer heartbeats only
 * between the batches it hands out, tells of a lost partition only after the next one is given, and stops in silence on
 * some errors; and what it fetches is taken as bytes, since its own decoder knows gzip only, takes a batch it cannot read
 * for the cut-off end of an answer, and skips it. The library's last version is 2.2.4, so its inner modules are as
 * settled as its front.
 */
import { Redacted } from "effect"
import {
  apiKeys,
  Broker,
  ConnectionPool,
  createLogger,
  type JsConnection,
  LEVELS,
  requests,
  socketFactory
} from "./kafkajsModules.ts"
import { PRODUCE, produceRequest, produceVersion, readProduced } from "./produceRequest.ts"
import {
  type Address,
  CODE,
  type Fetched,
  type KafkaEngine,
  KafkaRefusal,
  KafkaSilence,
  KafkaUnreadable,
  type KafkaWire,
  MemberIdRequired,
  NO_BYTES,
  nothingFetched,
  type WireOptions
} from "./Wire.ts"

const NO_TAGS = Buffer.alloc(1)

/** Errors come back to the caller, who knows what they mean; the library's own log would only say them twice. */
const logger = createLogger({ level: LEVELS.NOTHING, logCreator: () => () => undefined })

interface JsError extends Error {
  readonly code?: unknown
  readonly type?: unknown
  readonly memberId?: string
}

const understood = (what: string, cause: unknown): Error => {
  if (cause instanceof KafkaUnreadable || cause instanceof KafkaRefusal) return cause
  const error = cause as JsError
  if (typeof error.code === "number" && typeof error.type === "string") {
    if (error.code === CODE.MEMBER_ID_REQUIRED && error.memberId !== undefined)
      return new MemberIdRequired(error.memberId)
    return new KafkaRefusal(error.code, `${what}: ${error.type}`)
  }
  return new KafkaSilence(`${what}: ${error.message}`, { sent: true })
}

const connect = async (address: Address, options: WireOptions): Promise<KafkaWire> => {
  const { host, port } = address
  const pool = new ConnectionPool({
    host,
    port,
    clientId: options.clientId,
    logger,
    socketFactory,
    connectionTimeout: options.connectTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    enforceRequestTimeout: true,
    ssl: options.tls === undefined ? null : options.tls.ca === undefined ? true : { ca: options.tls.ca },
    sasl:
      options.sasl === undefined
        ? null
        : {
            mechanism: options.sasl.mechanism,
            username: options.sasl.username,
            password: Redacted.value(options.sasl.password)
          }
  })
  // The pool keeps a second connection for fetches; a wire is one connection, used for one kind of request.
  const connection = pool.pool[0]!
  tame(connection)
  const broker = new Broker({
    connectionPool: Object.assign(pool, { getConnectionByRequest: async () => connection }),
    logger,
    authenticationTimeout: options.requestTimeoutMs,
    allowAutoTopicCreation: false
  })
  const shut = () => {
    connection.rejectRequests(new Error("the connection was closed"))
    connection.disconnect().catch(() => undefined)
    connection.socket?.destroy()
  }
  /** The answer, or why there is none. The library would go on with a connection on which nobody answers. */
  const ask = async <A>(what: string, request: Promise<A>): Promise<A> => {
    try {
      return await request
    } catch (cause) {
      if ((cause as JsError).name === "KafkaJSRequestTimeoutError") shut()
      throw understood(what, cause)
    }
  }
  try {
    await broker.connect()
  } catch (cause) {
    shut()
    const error = cause as JsError
    const refused = error.name === "KafkaJSSASLAuthenticationError"
    throw new KafkaSilence(`${host}:${port} ${refused ? "refused the credentials" : error.message}`, {
      sent: false,
      refused
    })
  }

  return {
    isOpen: () => connection.isConnected(),
    initProducer: async () => {
      const { producerId, producerEpoch } = await ask(
        "init producer",
        broker.initProducerId({ transactionalId: null, transactionTimeout: 0 })
      )
      return { id: BigInt(producerId), epoch: producerEpoch }
    },
    produce: async (batches, timeoutMs) => {
      const version = produceVersion(broker.versions[PRODUCE]?.maxVersion ?? 0)
      const body = await ask(
        "produce",
        connection.send<Buffer>({
          request: {
            apiKey: PRODUCE,
            apiVersion: version,
            apiName: "Produce",
            // The library knows no requests whose header ends with tagged fields: there are none.
            encode: async () => {
              const buffer = Buffer.concat([NO_TAGS, produceRequest(version, batches, timeoutMs)])
              return { buf: buffer, buffer }
            }
          },
          response: {
            decode: async (payload) => payload.subarray(NO_TAGS.length),
            parse: async (payload) => payload as Buffer
          }
        })
      )
      return readProduced(version, body, batches)
    },
    fetch: async ({ parts, maxBytes, maxWaitMs }) => {
      const fetch = broker.lookupRequest<FetchAnswer>(apiKeys.Fetch, requests.Fetch)
      const protocol = fetch({
        maxWaitTime: maxWaitMs,
        minBytes: 1,
        maxBytes,
        isolationLevel: 1,
        topics: [...Map.groupBy(parts, ({ topic }) => topic)].map(([topic, mine]) => ({
          topic,
          partitions: mine.map(({ partition, offset, maxBytes: most }) => ({
            partition,
            fetchOffset: String(offset),
            maxBytes: most
          }))
        })),
        rackId: ""
      })
      const { code, fetched } = await ask(
        "fetch",
        connection.send({
          ...protocol,
          response: {
            decode: async (payload) => payload,
            parse: async (payload) => readFetch(payload as Buffer)
          }
        })
      )
      const missing = nothingFetched(code === CODE.NONE ? CODE.UNKNOWN_TOPIC_OR_PARTITION : code)
      return parts.map(({ topic, partition }) => fetched.get(`${topic}/${partition}`) ?? missing)
    },
    join: async ({ group, memberId, sessionTimeoutMs, rebalanceTimeoutMs, protocol, metadata }) => {
      const join = broker.lookupRequest<{
        readonly generationId: number
        readonly memberId: string
        readonly leaderId: string
        readonly members: ReadonlyArray<{ readonly memberId: string; readonly memberMetadata: Buffer }>
      }>(apiKeys.JoinGroup, requests.JoinGroup)
      const joined = await ask(
        "join",
        connection.send(
          join({
            groupId: group,
            sessionTimeout: sessionTimeoutMs,
            rebalanceTimeout: rebalanceTimeoutMs,
            memberId,
            protocolType: "consumer",
            groupProtocols: [{ name: protocol, metadata }]
          })
        )
      )
      return {
        generation: joined.generationId,
        memberId: joined.memberId,
        leader: joined.leaderId,
        members: joined.members.map((member) => ({ memberId: member.memberId, metadata: member.memberMetadata }))
      }
    },
    sync: async ({ group, generation, memberId }, _protocol, assignments) => {
      const { memberAssignment } = await ask(
        "sync",
        broker.syncGroup({
          groupId: group,
          generationId: generation,
          memberId,
          groupAssignment: assignments.map((given) => ({
            memberId: given.memberId,
            memberAssignment: given.assignment
          }))
        })
      )
      return memberAssignment
    },
    heartbeat: async ({ group, generation, memberId }) => {
      await ask("heartbeat", broker.heartbeat({ groupId: group, groupGenerationId: generation, memberId }))
    },
    leave: async (group, memberId) => {
      await ask("leave", broker.leaveGroup({ groupId: group, memberId }))
    },
    commit: async ({ group, generation, memberId }, topic, commits) => {
      await ask(
        "commit",
        broker.offsetCommit({
          groupId: group,
          groupGenerationId: generation,
          memberId,
          topics: [
            {
              topic,
              partitions: commits.map(({ partition, offset, metadata }) => ({
                partition,
                offset: String(offset),
                metadata
              }))
            }
          ]
        })
      )
    },
    close: shut
  }
}

/** A connected client re-arms a 1 ms timer for ever, idle or not (kafkajs issue 1751): only where something waits. */
const tame = (connection: JsConnection): void => {
  const queue = connection.requestQueue
  const schedule = queue.scheduleCheckPendingRequests.bind(queue)
  queue.scheduleCheckPendingRequests = () => {
    if (queue.pending.length > 0 || queue.throttledUntil > Date.now()) schedule()
  }
}

/** The answer to a fetch: the request's own error, and by topic and partition what came. */
interface FetchAnswer {
  readonly code: number
  readonly fetched: ReadonlyMap<string, Fetched>
}

/** The answer to a fetch, versions 7 to 11. */
const readFetch = (payload: Buffer): FetchAnswer => {
  let at = 4 // throttle time
  const int16 = () => {
    at += 2
    return payload.readInt16BE(at - 2)
  }
  const int32 = () => {
    at += 4
    return payload.readInt32BE(at - 4)
  }
  const int64 = () => {
    at += 8
    return payload.readBigInt64BE(at - 8)
  }
  const code = int16()
  at += 4 // session
  const fetched = new Map<string, Fetched>()
  for (let topics = int32(); topics > 0; topics--) {
    const length = int16()
    const topic = payload.toString("utf8", at, at + length)
    at += length
    for (let parts = int32(); parts > 0; parts--) {
      const partition = int32()
      const refused = int16()
      at += 24 // high watermark, last stable offset, log start
      const aborted: Array<{ readonly producerId: bigint; readonly firstOffset: bigint }> = []
      for (let left = int32(); left > 0; left--) aborted.push({ producerId: int64(), firstOffset: int64() })
      at += 4 // preferred replica
      const size = Math.max(0, int32())
      fetched.set(`${topic}/${partition}`, {
        code: refused,
        bytes: size === 0 ? NO_BYTES : payload.subarray(at, at + size),
        aborted
      })
      at += size
    }
  }
  return { code, fetched }
}

export const kafkajs: KafkaEngine = { name: "kafkajs", connect }
