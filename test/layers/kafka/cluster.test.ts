/** Which broker is asked for the metadata, and over which connections. The brokers here speak Kafka's protocol as far as the cluster is asked for. */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Writer } from "@platformatic/kafka"
import { afterEach, vi } from "vitest"
import { KafkaCluster } from "../../../src/layers/kafka/cluster.ts"
import { kafkajs } from "../../../src/layers/kafka/kafkajs.ts"
import { platformatic } from "../../../src/layers/kafka/platformatic.ts"
import { KafkaSilence } from "../../../src/layers/kafka/Wire.ts"

const TOPIC = "raw_ticks"
const TOPIC_ID = "12345678-1234-4234-8234-123456789abc"
const METADATA = 3
const HEARTBEAT = 12
/** No error, one key with its least and highest version, no throttling. */
const VERSIONS = Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 1, 0, HEARTBEAT, 0, 0, 0, 3]), Buffer.alloc(4)])
/** No error; from version 4 on with tagged fields. */
const heartbeat = (version: number): Buffer => Buffer.alloc(version >= 4 ? 8 : 6)

/** Above this, a broker that is silent was waited for. */
const CONNECT_TIMEOUT_MS = 20_000

/** One of several brokers: tells which there are and that it is `leader` who leads the one partition. */
class Broker {
  asked = 0
  /** Takes what it is sent and answers nothing. */
  isSilent = false
  leader = 1
  members: ReadonlyArray<Broker> = [this]
  readonly address = { host: "127.0.0.1", port: 0 }
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor() {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket)
      socket.on("error", () => undefined)
      let held = Buffer.alloc(0)
      socket.on("data", (bytes: Buffer) => {
        held = Buffer.concat([held, bytes])
        while (held.length >= 4 && held.length >= 4 + held.readInt32BE(0)) {
          const [key, version, correlation] = [held.readInt16BE(4), held.readInt16BE(6), held.readInt32BE(8)]
          held = held.subarray(4 + held.readInt32BE(0))
          this.asked++
          if (this.isSilent) continue
          const body = key === METADATA ? this.#metadata() : key === HEARTBEAT ? heartbeat(version) : VERSIONS
          const head = Buffer.alloc(8)
          head.writeInt32BE(4 + body.length, 0)
          head.writeInt32BE(correlation, 4)
          socket.write(Buffer.concat([head, body]))
        }
      })
    })
  }

  static async start(): Promise<Broker> {
    const broker = new Broker()
    await new Promise<void>((listening) => broker.#server.listen(0, "127.0.0.1", listening))
    broker.address.port = (broker.#server.address() as AddressInfo).port
    return broker
  }

  stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    return new Promise((closed) => this.#server.close(() => closed()))
  }

  /** Version 12. */
  #metadata(): Buffer {
    return Writer.create()
      .appendTaggedFields()
      .appendInt32(0)
      .appendArray([...this.members.entries()], (to, [at, { address }]) => {
        to.appendInt32(at + 1)
          .appendString(address.host)
          .appendInt32(address.port)
          .appendString(null)
      })
      .appendString("cluster")
      .appendInt32(1)
      .appendArray([TOPIC], (to, topic) => {
        to.appendInt16(0)
          .appendString(topic)
          .appendUUID(TOPIC_ID)
          .appendBoolean(false)
          .appendArray([0], (part, index) => {
            part.appendInt16(0).appendInt32(index).appendInt32(this.leader).appendInt32(0)
            for (let lists = 0; lists < 3; lists++) part.appendArray([], () => undefined)
          })
          .appendInt32(0)
      })
      .appendTaggedFields().buffer
  }
}

describe("a cluster", () => {
  const open: Array<{ readonly close: () => unknown }> = []
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close()
  })

  const brokers = async (count: number) => {
    const started = await Promise.all(Array.from({ length: count }, () => Broker.start()))
    for (const broker of started) {
      broker.members = started
      open.unshift({ close: () => broker.stop() })
    }
    return started
  }
  const clusterOf = (
    bootstrap: ReadonlyArray<Broker>,
    engine = platformatic,
    requestTimeoutMs = CONNECT_TIMEOUT_MS
  ) => {
    const addresses = bootstrap.map(({ address }) => address)
    const options = {
      clientId: "test",
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      requestTimeoutMs,
      sasl: undefined,
      tls: undefined
    }
    const cluster = new KafkaCluster(engine, addresses, [TOPIC], options, 0)
    open.unshift(cluster)
    return cluster
  }

  it("asks every broker known for the metadata, not only those that the settings name", async () => {
    const [first, second, third] = await brokers(3)
    const cluster = clusterOf([first!])
    assert.deepStrictEqual(await cluster.leader(TOPIC, 0), first!.address)
    second!.leader = third!.leader = 2
    await first!.stop()
    // As after every request that is not answered.
    for (let failure = 0; failure < 3; failure++) cluster.stale()
    assert.deepStrictEqual(await cluster.leader(TOPIC, 0), second!.address)
    await second!.stop()
    third!.leader = 3
    cluster.stale()
    assert.deepStrictEqual(await cluster.leader(TOPIC, 0), third!.address)
  })

  it("asks the next where a broker is silent, which is met once", async () => {
    const [first, second] = await brokers(2)
    const cluster = clusterOf([first!, second!])
    await cluster.metadata()
    // How long a broker may be silent goes by here alone: one that answers is not taken for silent by a busy machine.
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    open.push({ close: () => vi.useRealTimers() })
    first!.isSilent = true
    second!.leader = 2
    cluster.stale()
    const leader = cluster.leader(TOPIC, 0)
    await vi.advanceTimersByTimeAsync(CONNECT_TIMEOUT_MS / 10)
    assert.deepStrictEqual(await leader, second!.address)
    const asked = first!.asked
    for (let again = 0; again < 3; again++) {
      cluster.stale()
      await cluster.metadata()
    }
    assert.strictEqual(first!.asked, asked)
  })

  it("never answers from what was where that is stale", async () => {
    const [only] = await brokers(1)
    const cluster = clusterOf([only!])
    assert.strictEqual((await cluster.metadata()).topics.get(TOPIC)?.id, TOPIC_ID)
    assert.strictEqual(only!.asked, 1)
    await cluster.metadata()
    assert.strictEqual(only!.asked, 1)
    cluster.stale()
    await Promise.all([cluster.metadata(), cluster.leader(TOPIC, 0)])
    assert.strictEqual(only!.asked, 2)
    cluster.stale()
    await only!.stop()
    const failure = await cluster.metadata().catch((cause: unknown) => cause)
    assert.instanceOf(failure, KafkaSilence)
  })
  for (const engine of [platformatic, kafkajs]) {
    it(`uses no connection again on which a request went unanswered (${engine.name})`, async () => {
      const [broker] = await brokers(1)
      const cluster = clusterOf([broker!], engine, 3000)
      const member = { group: "g", generation: 1, memberId: "m" }
      const dead = await cluster.wire("test", broker!.address)
      await dead.heartbeat(member)
      assert.isTrue(dead.isOpen())
      broker!.isSilent = true
      const failures = await Promise.all([1, 2].map(() => dead.heartbeat(member).catch((cause: unknown) => cause)))
      for (const failure of failures) assert.isTrue(failure instanceof KafkaSilence && failure.sent)
      assert.isFalse(dead.isOpen())
      broker!.isSilent = false
      await (await cluster.wire("test", broker!.address)).heartbeat(member)
    })
  }
})
