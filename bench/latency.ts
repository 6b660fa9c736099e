/**
 * Decides how long a tick takes, at 2,000 a second, from its sending into Kafka to a WebSocket client: through a worker
 * with all its stages and a server, processes of their own, beside two hops through Kafka by bare loops. Each tick
 * carries the moment of its sending; this process sends and receives, so one clock tells both.
 */
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Consumer, Producer } from "@platformatic/kafka"
import { WebSocket } from "ws"
import { partitionOf } from "../src/schema/Partition.ts"
import { makeTopic } from "./rawTopic.ts"
import { median, type Row } from "./row.ts"
import { child, withServers } from "./servers.ts"

const RATE = 2000
/** Before the first round, for the compilers of worker, server and broker; and before each. */
const COLD_S = 30
const WARM_UP_S = 5
const SECONDS = Number(process.env.BENCH_SECONDS ?? 20)
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
const INSTRUMENTS = 50
const FIRST_TOKEN = 1000
const PARTITIONS = 12
/** What may still be under way once the last tick was sent. */
const ARRIVE_MS = 10_000

interface Percentiles {
  readonly p50: number
  readonly p99: number
  readonly p999: number
}

const now = (): number => Math.round((performance.timeOrigin + performance.now()) * 1000)

const percentiles = (micros: Array<number>): Percentiles => {
  const sorted = Float64Array.from(micros).sort()
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]! / 1000
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

/** Sends ticks at an even pace, one request at a time; what comes due meanwhile goes with the next. */
const send = async (brokers: string, topic: string, sequences: Array<number>, seconds: number): Promise<number> => {
  const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({
    clientId: "bench",
    bootstrapBrokers: [brokers],
    acks: -1
  })
  const keys = Array.from({ length: INSTRUMENTS }, (_, i) => Buffer.from(String(FIRST_TOKEN + i)))
  const places = Array.from({ length: INSTRUMENTS }, (_, i) => partitionOf(FIRST_TOKEN + i, PARTITIONS))
  const total = RATE * seconds
  let made = 0
  let waiting: Array<{ topic: string; partition: number; key: Buffer; value: Buffer }> = []
  let underWay = false
  let failure: unknown
  const flush = async () => {
    underWay = true
    while (waiting.length > 0) {
      const messages = waiting
      waiting = []
      await producer.send({ messages })
    }
    underWay = false
  }
  const started = performance.now()
  while (made < total && failure === undefined) {
    const due = Math.min(total, Math.floor(((performance.now() - started) * RATE) / 1000))
    for (; made < due; made++) {
      const i = made % INSTRUMENTS
      const value = Buffer.from(
        `{"feed":"dma","instrument_token":${FIRST_TOKEN + i},"exchange_ts":${now()},"price":2500.5,"volume":100,` +
          `"sequence_id":${++sequences[i]!}}`
      )
      waiting.push({ topic, partition: places[i]!, key: keys[i]!, value })
    }
    if (!underWay && waiting.length > 0) {
      flush().catch((cause: unknown) => {
        failure = cause
      })
    }
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  while (underWay && failure === undefined) await new Promise((resolve) => setTimeout(resolve, 5))
  await producer.close()
  if (failure !== undefined) throw failure
  return total
}

/** Takes the age of each tick as it comes; what was sent in the first seconds does not count. */
class Ages {
  readonly micros: Array<number> = []
  came = 0
  take(exchangeTs: number): void {
    if (++this.came > RATE * WARM_UP_S) this.micros.push(now() - exchangeTs)
  }
  async all(sent: number): Promise<Percentiles> {
    const until = performance.now() + ARRIVE_MS
    while (this.came < sent && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20))
    if (this.came !== sent) throw new Error(`${sent} ticks were sent, ${this.came} came`)
    return percentiles(this.micros)
  }
}

/** One command of the product, until it says where it listens. */
const start = async (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>, says: RegExp) => {
  const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))
  const started = spawn(process.execPath, [...process.execArgv, main, ...args], {
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", ...environment },
    stdio: ["ignore", "pipe", "inherit"]
  })
  const ended = new Promise<number | null>((resolve) => started.once("exit", resolve))
  const said = await new Promise<RegExpExecArray>((resolve, reject) => {
    createInterface(started.stdout).on("line", (line) => {
      const found = says.exec(line)
      if (found !== null) resolve(found)
    })
    void ended.then((code) => reject(new Error(`mdp ${args.join(" ")} ended with ${code}`)))
  })
  return {
    said,
    stop: async () => {
      started.kill("SIGTERM")
      const code = await ended
      if (code !== 0) throw new Error(`mdp ${args.join(" ")} ended with ${code} on SIGTERM`)
    }
  }
}

const ready = async (url: string): Promise<void> => {
  for (;;) {
    const answer = await fetch(`${url}/readyz`).catch(() => undefined)
    if (answer?.status === 200) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

export const run = (): Promise<Row> =>
  withServers(["kafka", "redis", "postgres"], async ({ settings: found, folder }) => {
    const settings = {
      ...found,
      PARTITIONS: String(PARTITIONS),
      DATA_DIR: folder,
      PORT: "0",
      METRICS_PORT: "0"
    }
    const brokers = found.KAFKA_BROKERS!
    const running: Array<Awaited<ReturnType<typeof start>>> = []
    const closing: Array<() => unknown> = []
    const ours: Array<Percentiles> = []
    const theirs: Array<Percentiles> = []
    try {
      const worker = await start(["worker"], settings, /(http:\/\/127\.0\.0\.1:\d+)\/metrics/)
      running.push(worker)
      const server = await start(["server"], settings, /(http:\/\/127\.0\.0\.1:\d+)/)
      running.push(server)
      await ready(worker.said[1]!)
      await ready(server.said[1]!)
      const numbers = new Array<number>(INSTRUMENTS).fill(0)
      let ages = new Ages()
      const socket = new WebSocket(`${server.said[1]!.replace("http", "ws")}/ws`)
      closing.push(() => socket.close())
      await new Promise<void>((resolve, reject) => {
        socket.once("error", reject)
        socket.on("message", (data: Buffer) => {
          const message = JSON.parse(data.toString()) as { readonly type: string; readonly exchange_ts: number }
          if (message.type === "tick") ages.take(message.exchange_ts)
          else if (message.type === "subscribed") resolve()
        })
        socket.once("open", () => {
          const tokens = numbers.map((_, i) => FIRST_TOKEN + i)
          socket.send(JSON.stringify({ action: "subscribe", tokens, channels: ["tick"], capacity: 50_000 }))
        })
      })
      const product = async (seconds: number) => {
        ages = new Ages()
        return await ages.all(await send(brokers, "raw_ticks", numbers, seconds))
      }

      for (const topic of ["bare_raw", "bare_out"]) await makeTopic(brokers, topic, PARTITIONS)
      const forward = child("latencyForward", ["bare_raw", "bare_out"], found)
      closing.push(() => forward.disconnect())
      await new Promise((resolve) => forward.once("message", resolve))
      const consumer = new Consumer<Buffer, Buffer, Buffer, Buffer>({
        clientId: "bench",
        groupId: "bare",
        bootstrapBrokers: [brokers],
        autocommit: 1000,
        maxWaitTime: 500
      })
      const stream = await consumer.consume({ topics: ["bare_out"], mode: "latest" })
      closing.push(() => stream.close().then(() => consumer.close(true)))
      let bareAges = new Ages()
      stream.on("data", ({ value }) => {
        bareAges.take((JSON.parse(value.toString()) as { readonly exchange_ts: number }).exchange_ts)
      })
      const bare = async (seconds: number) => {
        bareAges = new Ages()
        return await bareAges.all(await send(brokers, "bare_raw", numbers, seconds))
      }

      await product(COLD_S)
      await bare(WARM_UP_S)
      for (let round = 0; round < ROUNDS; round++) {
        ours.push(await product(WARM_UP_S + SECONDS))
        theirs.push(await bare(WARM_UP_S + SECONDS))
        if (process.env.BENCH_VERBOSE === "1") console.error("latency", ours[round], "bare", theirs[round])
      }
    } finally {
      // While the servers are still there: what stops now has something to drain into.
      for (const close of closing) await close()
      await Promise.all(running.map((one) => one.stop()))
    }
    const [p50, bareP50] = [median(ours.map((one) => one.p50)), median(theirs.map((one) => one.p50))]
    return {
      name: "latency",
      product: p50,
      best: Math.min(...ours.map((one) => one.p50)),
      bare: bareP50,
      bare_best: Math.min(...theirs.map((one) => one.p50)),
      // As everywhere, more is better: how near the product comes to the bare loop.
      ratio: bareP50 / p50,
      unit: "ms",
      p50,
      p99: median(ours.map((one) => one.p99)),
      p999: median(ours.map((one) => one.p999))
    }
  })
