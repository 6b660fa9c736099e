/**
 * Decides what is sent beside the simulator: poison of every kind, ticks and quotes in a wrong partition, and instruments
 * that trade once in a while, so that most checkpoints do not name them.
 */
import { createHash } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { Producer } from "@platformatic/kafka"
import { Effect, ManagedRuntime, Result } from "effect"
import * as Kafka from "../../src/layers/kafka/KafkaLog.ts"
import { MAX_PLAIN_BYTES } from "../../src/layers/kafka/recordBatch.ts"
import { partitionOf } from "../../src/schema/Partition.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { type NewRecord, TickLog } from "../../src/streams/log/TickLog.ts"
import { consumerGroups } from "../../src/streams/topology.ts"
import { PARTITIONS } from "./cluster.ts"
import type { Fields, Meant } from "./oracle.ts"

/** Header of a poison record, by which the oracle finds it again in `raw_ticks`. */
export const POISON_HEADER = "poison"

const CLOSES_WITHIN_MS = 5000

const FIRST_RARE = 8_000_001
const FIRST_MISROUTED = 8_100_001
const INSTRUMENTS = 6
/** One of each partition: what can be read as a tick is sent on from any other. */
const POISONED = Array.from({ length: PARTITIONS }, (_, partition) => {
  let token = 8_200_001
  while (partitionOf(token, PARTITIONS) !== partition) token++
  return token
})
export const INJECTED_TOKENS = [
  ...Array.from({ length: INSTRUMENTS }, (_, i) => FIRST_RARE + i),
  ...Array.from({ length: INSTRUMENTS }, (_, i) => FIRST_MISROUTED + i)
]

const tick = (more: object) => ({
  instrument_token: POISONED[0],
  exchange_ts: Date.now() * 1000,
  price: 10,
  volume: 1,
  sequence_id: 1,
  ...more
})
/** What a packet says beside a tick: a part of the book or of the day, now and then what it said before. */
const quoteAt = (n: number): object => ({
  ...(n % 2 === 0 ? { bid: [[(1999 - (n % 4)) / 20, 5, 1]] } : { ask: [[100.05, 5 + (n % 3), 1]] }),
  ...(n % 5 === 0 ? { oi: 1000 + Math.floor(n / 10) } : {}),
  ...(n % 7 === 0 ? { open: 100 } : {})
})
const digest = (value: Uint8Array | null): string =>
  value === null ? "" : createHash("sha1").update(value).digest("hex")
const json = (value: object) => Buffer.from(JSON.stringify(value))

/** Each of them belongs in the DLQ, whatever came before it. */
const POISONS: Readonly<Record<string, (partition: number) => Uint8Array | null>> = {
  "bad JSON": () => Buffer.from('{"instrument_token":'),
  "no JSON at all": () => Buffer.from([0xff, 0x00, 0x80]),
  empty: () => new Uint8Array(0),
  tombstone: () => null,
  "more than 1 MiB": () => json(tick({ connection: "x".repeat(1_100_000) })),
  NaN: () => Buffer.from(JSON.stringify(tick({})).replace('"price":10', '"price":NaN')),
  "NaN as text": () => json(tick({ price: "NaN" })),
  "price out of bounds": () => json(tick({ price: -2e9 })),
  "price with 8 decimals": () => json(tick({ price: 0.12345678 })),
  "far future": (partition) =>
    json(tick({ instrument_token: POISONED[partition], exchange_ts: (Date.now() + 86_400_000) * 1000 })),
  "naive time": () => json(tick({ exchange_ts: "2026-01-15T09:15:00" })),
  "no instrument": () => json({ exchange_ts: Date.now() * 1000, price: 1 }),
  "token 0": () => json(tick({ instrument_token: 0 })),
  "negative volume": () => json(tick({ volume: -5 })),
  "quote of no quantity": () => json({ ...tick({}), quote: { bid: [[1, -2, 3]] } }),
  "quote alone without a stamp": () => json({ instrument_token: POISONED[0], quote: {} }),
  "quote alone of the far future": (partition) =>
    json({ instrument_token: POISONED[partition], exchange_ts: (Date.now() + 86_400_000) * 1000, quote: { oi: 1 } }),
  array: () => Buffer.from("[1,2,3]"),
  null: () => Buffer.from("null")
}
/** A batch of a few kilobytes that stands for more than a reader takes into memory: nobody gets at its record. */
const BOMB = "bad compression"
export const POISON_KINDS = [...Object.keys(POISONS), BOMB]

export class Injector {
  /** The log as the oracle reads it. */
  readonly runtime: ManagedRuntime.ManagedRuntime<TickLog, unknown>
  /** Ticks that `raw_ticks` has taken. */
  readonly meant: Array<Meant> = []
  poisoned = 0
  /** Whether numbers far above the last are sent: who has lost an instrument's state cannot tell that they are. */
  jumps = true
  readonly #brokers: string
  readonly #poisons = new Set<string>()
  readonly #sequences = new Map<number, number>()
  #isOver = false
  #isClosed = false
  #running: Promise<void> | undefined
  #turn = 0

  constructor(settings: Readonly<Record<string, string>>) {
    const given = Result.getOrThrow(readSettings({ ...settings, KAFKA_DELIVERY_TIMEOUT_MS: "120000" }))
    this.runtime = ManagedRuntime.make(Kafka.layerOf(given, consumerGroups))
    this.#brokers = given.KAFKA_BROKERS!
  }

  start(): void {
    this.#isOver = false
    this.#running = this.#run()
    // Told to who stops it.
    this.#running.catch(() => {})
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      await this.#step(this.#turn++)
      await sleep(120)
    }
  }

  async #step(turn: number): Promise<void> {
    const to = turn % PARTITIONS
    if (turn % 3 === 0) {
      return this.poison(POISON_KINDS[(turn / 3) % POISON_KINDS.length]!, (turn / 3) % PARTITIONS)
    }
    if (turn % 3 === 1) return this.#tick(FIRST_MISROUTED + (turn % INSTRUMENTS), to, "misrouted")
    // Each of them about every fifteen seconds.
    if (turn % 42 === 5) return this.#jump(FIRST_RARE + (Math.floor(turn / 42) % INSTRUMENTS))
    if (turn % 21 === 2) return this.#tick(FIRST_RARE + (Math.floor(turn / 21) % INSTRUMENTS), undefined, "rare")
  }

  /** One poison record, in the log when this is done. */
  async poison(kind: string, partition: number): Promise<void> {
    if (kind === BOMB) {
      await this.#untilIn(() => this.#bomb(partition))
      this.poisoned++
      return
    }
    const value = POISONS[kind]!(partition)
    this.#poisons.add(digest(value))
    await this.#append(partition, { key: String(POISONED[partition]), value, headers: { [POISON_HEADER]: kind } })
    this.poisoned++
  }

  /** Whether these bytes were sent as poison. */
  readonly wasSent = (value: Uint8Array | null): boolean => this.#poisons.has(digest(value))

  /** A tick that was published before, as another feed brings it late. */
  async again(tick: Fields): Promise<void> {
    const { instrument_token, exchange_ts, price, volume, sequence_id } = tick
    const value = json({
      instrument_token,
      exchange_ts,
      price,
      volume,
      sequence_id,
      feed: "snapshot",
      connection: "late"
    })
    await this.#append(partitionOf(instrument_token, PARTITIONS), { key: String(instrument_token), value })
  }

  /** The next tick of an instrument, not sent yet. */
  draw(token: number): Fields {
    const sequence_id = (this.#sequences.get(token) ?? 0) + 1
    this.#sequences.set(token, sequence_id)
    return {
      instrument_token: token,
      exchange_ts: Date.now() * 1000,
      price: 100 + sequence_id / 4,
      volume: 3,
      sequence_id
    }
  }

  /** Sends a tick that was drawn; `isMeant` says whether it belongs in what is published. */
  async send(tick: Fields, isMeant: boolean): Promise<void> {
    const token = tick.instrument_token
    const connection = token < FIRST_MISROUTED ? "rare" : "misrouted"
    await this.#append(partitionOf(token, PARTITIONS), { key: String(token), value: json({ ...tick, connection }) })
    if (isMeant) this.meant.push({ ...tick, reached: ["dma"] })
  }

  /** One more tick of an instrument, where it belongs. */
  trade(token: number): Promise<void> {
    return this.#tick(token, undefined, token < FIRST_MISROUTED ? "rare" : "misrouted")
  }

  /** A number far above the instrument's last, which it must have by now. */
  async #jump(token: number): Promise<void> {
    if (!this.jumps || !this.#sequences.has(token)) return
    const value = json(tick({ instrument_token: token, connection: "rare", sequence_id: 50_000_000 }))
    this.#poisons.add(digest(value))
    const record = { key: String(token), value, headers: { [POISON_HEADER]: "jump" } }
    await this.#append(partitionOf(token, PARTITIONS), record)
    this.poisoned++
  }

  async #tick(token: number, partition: number | undefined, connection: string): Promise<void> {
    const content = this.draw(token)
    const own = partitionOf(token, PARTITIONS)
    const key = String(token)
    const quote = quoteAt(content.sequence_id)
    await this.#append(partition ?? own, { key, value: json({ ...content, connection, quote }) })
    this.meant.push({ ...content, reached: ["dma"] })
    // One alone after it, of an older stamp every third time.
    const exchange_ts = content.exchange_ts + (content.sequence_id % 3 === 0 ? -1_000_000 : 0)
    const alone = { instrument_token: token, exchange_ts, feed: "snapshot", quote: quoteAt(content.sequence_id + 1) }
    await this.#append(partition ?? own, { key, value: json(alone) })
  }

  async #bomb(partition: number): Promise<boolean> {
    const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({
      clientId: "injector",
      bootstrapBrokers: this.#brokers.split(","),
      acks: -1,
      compression: "zstd",
      retries: 0
    })
    try {
      await producer.send({ messages: [{ topic: "raw_ticks", partition, value: Buffer.alloc(MAX_PLAIN_BYTES + 1) }] })
      return true
    } catch {
      return false
    } finally {
      await producer.close(true).catch(() => {})
    }
  }

  async #append(partition: number, record: NewRecord): Promise<void> {
    const append = Effect.flatMap(TickLog, (log) => log.append("raw_ticks", partition, [record]))
    await this.#untilIn(async () => (await this.runtime.runPromiseExit(append))._tag === "Success")
  }

  /** Until the log has it: where the outcome is unknown it is sent again, which adds no tick and no poison of its own. */
  async #untilIn(send: () => Promise<boolean>): Promise<void> {
    while (!(await send())) {
      if (this.#isClosed) throw new Error("the run is over")
      await sleep(200)
    }
  }

  /** Waits no longer than that for an append under way: the log may be gone. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.race([this.stop().catch(() => {}), sleep(CLOSES_WITHIN_MS)])
    await Promise.race([this.runtime.dispose().catch(() => {}), sleep(CLOSES_WITHIN_MS)])
  }
}
