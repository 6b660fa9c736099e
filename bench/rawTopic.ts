/** Decides what the benches on Kafka read: one day's raw ticks of two feeds, the same for product and bare loop. */
import { Admin } from "@platformatic/kafka"
import { Effect } from "effect"
import * as Kafka from "../src/layers/kafka/KafkaLog.ts"
import { partitionOf } from "../src/schema/Partition.ts"
import { encodeRawTick } from "../src/schema/RawTick.ts"
import { readSettings } from "../src/schema/Settings.ts"
import { type NewRecord, TickLog } from "../src/streams/log/TickLog.ts"
import { consumerGroups } from "../src/streams/topology.ts"

const INSTRUMENTS = 500
const FIRST_TOKEN = 1000
/** One in this many is the other feed's copy, and one in as many numbers is lost. */
const EVERY = 50
const SPACING_MICROS = 20
const APPEND = 5000

/** Fills `raw_ticks`; answers how many distinct ticks there are. */
export const fill = (settings: Readonly<Record<string, string>>, ticks: number): Promise<number> =>
  Effect.gen(function* () {
    const given = yield* Effect.fromResult(readSettings(settings))
    return yield* Effect.gen(function* () {
      const log = yield* TickLog
      const last = new Array<number>(INSTRUMENTS).fill(0)
      /** The tick of each instrument's last number: a copy is that tick once more. */
      const made = new Array<number>(INSTRUMENTS).fill(0)
      const start = (Date.now() - 60_000) * 1000
      const waiting: Array<Array<NewRecord>> = Array.from({ length: log.partitions }, () => [])
      let distinct = 0
      for (let i = 0; i < ticks; i++) {
        const instrument = (i * 7919) % INSTRUMENTS
        const isCopy = i % EVERY === 1 && last[instrument]! > 0
        if (!isCopy) {
          last[instrument]! += i % EVERY === 0 ? 2 : 1
          made[instrument] = i
          distinct++
        }
        const of = made[instrument]!
        const token = FIRST_TOKEN + instrument
        const feed = isCopy ? "snapshot" : "dma"
        const text = encodeRawTick({
          instrument_token: token,
          exchange_ts: start + of * SPACING_MICROS,
          price: 100 + (of % 1000) / 20,
          feed,
          volume: 1 + (i % 100),
          day_volume: -1,
          sequence_id: last[instrument]!,
          sequencing: "contiguous",
          reset: false,
          connection: feed,
          occurrence: 0,
          received_ts: 0,
          session: -1
        })
        const partition = partitionOf(token, log.partitions)
        const records = waiting[partition]!
        records.push({ key: String(token), value: Buffer.from(text) })
        if (records.length >= APPEND) yield* log.append("raw_ticks", partition, records.splice(0))
      }
      for (let p = 0; p < waiting.length; p++) {
        if (waiting[p]!.length > 0) yield* log.append("raw_ticks", p, waiting[p]!)
      }
      return distinct
    }).pipe(Effect.provide(Kafka.layerOf(given, consumerGroups)))
  }).pipe(Effect.runPromise)

/** Takes away what a run has left in Kafka besides the raw ticks. */
export const forgetRun = async (brokers: string, topics: ReadonlyArray<string>): Promise<void> => {
  const admin = new Admin({ clientId: "bench", bootstrapBrokers: brokers.split(",") })
  try {
    const there = await admin.listTopics()
    const mine = topics.filter((topic) => there.includes(topic))
    if (mine.length > 0) await admin.deleteTopics({ topics: mine })
    const groups = await admin.listGroups()
    if (groups.size > 0) await admin.deleteGroups({ groups: [...groups.keys()] })
  } finally {
    await admin.close()
  }
}

/** Makes a topic as the bare loop has it. */
export const makeTopic = async (brokers: string, topic: string, partitions: number): Promise<void> => {
  const admin = new Admin({ clientId: "bench", bootstrapBrokers: brokers.split(",") })
  try {
    await admin.createTopics({
      topics: [topic],
      partitions,
      replicas: 1,
      configs: [{ name: "max.message.bytes", value: "8454144" }]
    })
  } finally {
    await admin.close()
  }
}
