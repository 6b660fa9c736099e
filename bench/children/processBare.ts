/**
 * Decides what process-json is held against: the same drivers in one plain loop, with a Map and a Set for its state and
 * nothing kept, recovered, counted or bounded. Two batches are under way at a time; a batch is claimed by one script.
 */
import { Consumer, type Message, Producer } from "@platformatic/kafka"
import { Redis } from "ioredis"
import { FlatArray } from "../../src/layers/redis/messagePack.ts"
import { report } from "../servers.ts"

const [ticks, distinct] = [Number(process.argv[2]), Number(process.argv[3])]
const into = process.argv[4]!
const bootstrapBrokers = [process.env.KAFKA_BROKERS!]
const BATCH = 5000
const MAX_RUN = 32
const BUCKET = 4096

const CLAIM = `
local runs = cmsgpack.unpack(ARGV[1])
local taken = 0
for i = 1, #runs, 4 do
  if redis.call('BITFIELD', runs[i], 'SET', runs[i + 1], runs[i + 2], runs[i + 3])[1] ~= 0 then taken = taken + 1 end
end
return taken`

interface Raw {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly price: number
  readonly volume: number
  readonly sequence_id: number
  readonly feed: string
}
interface State {
  last: number
  position: number
  readonly seen: Set<number>
}

const redis = new Redis(process.env.REDIS_URL!)
const claim = async (packed: Buffer): Promise<void> => {
  await redis.eval(CLAIM, 0, packed)
}
const states = new Map<number, State>()
const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({
  clientId: "bare",
  bootstrapBrokers,
  idempotent: true,
  acks: -1
})
const consumer = new Consumer<Buffer, Buffer, Buffer, Buffer>({
  clientId: "bare",
  groupId: `bare-${into}`,
  bootstrapBrokers,
  maxWaitTime: 500,
  autocommit: 1000,
  highWaterMark: 2 * BATCH
})

let read = 0
let published = 0
let underWay: Promise<unknown> = Promise.resolve()

const handle = async (messages: ReadonlyArray<Message<Buffer, Buffer, Buffer, Buffer>>): Promise<void> => {
  const out: Array<{ topic: string; partition: number; key: Buffer; value: Buffer }> = []
  const runs = new Map<number, { first: number; length: number }>()
  const packed = new FlatArray(65_536)
  const put = (token: number, first: number, length: number) => {
    packed.ascii(`bare:${token}:${Math.floor(first / BUCKET)}`)
    packed.ascii(`u${length}`)
    packed.ascii(String(first % BUCKET))
    packed.ascii(String(2 ** length - 1))
  }
  for (const message of messages) {
    const raw = JSON.parse(message.value.toString()) as Raw
    const token = raw.instrument_token
    const id = raw.sequence_id
    let state = states.get(token)
    if (state === undefined) {
      state = { last: 0, position: 0, seen: new Set() }
      states.set(token, state)
    }
    if (state.seen.has(id)) continue
    state.seen.add(id)
    const run = runs.get(token)
    if (run !== undefined && run.first + run.length === id && run.length < MAX_RUN && id % BUCKET !== 0) run.length++
    else {
      if (run !== undefined) put(token, run.first, run.length)
      runs.set(token, { first: id, length: 1 })
    }
    const status = state.last > 0 && id !== state.last + 1 ? "STALE" : "LIVE"
    if (id > state.last) state.last = id
    const received = Number(message.timestamp) * 1000
    const text =
      `{"instrument_token":${token},"exchange_ts":${raw.exchange_ts},"price":${raw.price},"volume":${raw.volume},` +
      `"sequence_id":${id},"status":"${status}","session":0,"sequencing":"contiguous","epoch":20468000033300,` +
      `"position":${++state.position},"feed":"${raw.feed}","received_ts":${received},` +
      `"source":["raw",${message.offset},0]}`
    out.push({ topic: into, partition: message.partition, key: message.key, value: Buffer.from(text) })
  }
  for (const [token, { first, length }] of runs) put(token, first, length)
  await claim(packed.finish())
  const sent = out.length > 0 ? producer.send({ messages: out }) : Promise.resolve()
  await underWay
  underWay = sent
  read += messages.length
  published += out.length
}

const cpu = process.cpuUsage()
const started = performance.now()
const stream = await consumer.consume({ topics: ["raw_ticks"], mode: "earliest" })
await new Promise<void>((resolve, reject) => {
  let waiting: Array<Message<Buffer, Buffer, Buffer, Buffer>> = []
  let busy = false
  const work = async () => {
    while (waiting.length > 0) {
      const batch = waiting.length <= BATCH ? waiting : waiting.slice(0, BATCH)
      waiting = waiting.length <= BATCH ? [] : waiting.slice(BATCH)
      if (waiting.length < BATCH) stream.resume()
      await handle(batch)
    }
    busy = false
    if (read < ticks) return
    await underWay
    resolve()
  }
  stream.on("error", reject)
  stream.on("data", (message) => {
    waiting.push(message)
    if (waiting.length >= 2 * BATCH) stream.pause()
    if (busy) return
    busy = true
    setImmediate(() => work().catch(reject))
  })
})
const seconds = (performance.now() - started) / 1000
const { user, system } = process.cpuUsage(cpu)
if (published !== distinct) throw new Error(`the bare loop published ${published}, not ${distinct}`)
report({ ticks, seconds, cpuSeconds: (user + system) / 1e6 })
await stream.close()
await consumer.close(true)
await producer.close()
redis.disconnect()
process.disconnect()
