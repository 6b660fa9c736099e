/** Which broker is asked for the metadata. The brokers here speak Kafka's protocol as far as the cluster is asked for. */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Writer } from "@platformatic/kafka"
import { afterEach } from "vitest"
import { KafkaCluster } from "../../src/layers/KafkaCluster.ts"
import { platformatic } from "../../src/layers/KafkaPlatformatic.ts"
import { KafkaSilence } from "../../src/layers/KafkaWire.ts"

const TOPIC = "raw_ticks"
const TOPIC_ID = "12345678-1234-4234-8234-123456789abc"
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
          const correlation = held.readInt32BE(8)
          held = held.subarray(4 + held.readInt32BE(0))
          this.asked++
          if (!this.isSilent) socket.write(this.#metadata(correlation))
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

  /** The answer to a request for metadata, version 12. */
  #metadata(correlation: number): Buffer {
    const body = Writer.create()
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
    const head = Buffer.alloc(9)
    head.writeInt32BE(5 + body.length, 0)
    head.writeInt32BE(correlation, 4)
    return Buffer.concat([head, body])
  }
}

describe("the metadata of a cluster", () => {
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
  const clusterOf = (...bootstrap: ReadonlyArray<Broker>) => {
    const options = {
      clientId: "test",
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      requestTimeoutMs: CONNECT_TIMEOUT_MS,
      sasl: undefined,
      tls: undefined
    }
    const addresses = bootstrap.map(({ address }) => address)
    const cluster = new KafkaCluster(platformatic, addresses, [TOPIC], options, 0)
    open.unshift(cluster)
    return cluster
  }

  it("is asked of every broker known, not only of those that the settings name", async () => {
    const [first, second, third] = await brokers(3)
    const cluster = clusterOf(first!)
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

  it("comes from the next where a broker is silent, which is met once", async () => {
    const [first, second] = await brokers(2)
    const cluster = clusterOf(first!, second!)
    await cluster.metadata()
    first!.isSilent = true
    second!.leader = 2
    cluster.stale()
    assert.deepStrictEqual(await cluster.leader(TOPIC, 0), second!.address)
    const asked = first!.asked
    for (let again = 0; again < 3; again++) {
      cluster.stale()
      await cluster.metadata()
    }
    assert.strictEqual(first!.asked, asked)
  })

  it("that is stale is never answered from what was", async () => {
    const [only] = await brokers(1)
    const cluster = clusterOf(only!)
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
})
