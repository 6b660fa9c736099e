/** Decides the bare middle of the latency bench: what comes in one topic goes out into another, as it came. */
import { Consumer, type Message, Producer } from "@platformatic/kafka"

type Bytes = Message<Buffer, Buffer, Buffer, Buffer>

const [from, to] = [process.argv[2]!, process.argv[3]!]
const bootstrapBrokers = [process.env.KAFKA_BROKERS!]
const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({ clientId: "bare", bootstrapBrokers, acks: -1 })
const consumer = new Consumer<Buffer, Buffer, Buffer, Buffer>({
  clientId: "bare",
  groupId: `bare-${to}`,
  bootstrapBrokers,
  autocommit: 1000,
  maxWaitTime: 500
})
const stream = await consumer.consume({ topics: [from], mode: "latest" })
let waiting: Array<Bytes> = []
let busy = false
const work = async () => {
  while (waiting.length > 0) {
    const batch = waiting
    waiting = []
    await producer.send({
      messages: batch.map(({ key, value, partition }) => ({ topic: to, partition, key, value }))
    })
  }
  busy = false
}
stream.on("data", (message) => {
  waiting.push(message)
  if (busy) return
  busy = true
  setImmediate(() => void work())
})
process.send!({ ready: true })
process.once("disconnect", () => process.exit(0))
