/**
 * Decides which broker is asked and over which connection: connections kept by purpose, so that a fetch that waits at
 * the end of a partition holds up nothing else; metadata kept until a broker says that it is stale, then asked of all
 * that are known, so that none that is silent holds it up for long; every request once, its repetition left to whoever knows
 * whether it may be repeated.
 */
import { connectAdmin } from "./platformatic.ts"
import {
  type Address,
  CODE,
  type KafkaAdmin,
  type KafkaEngine,
  KafkaRefusal,
  KafkaSilence,
  KafkaUnreadable,
  type KafkaWire,
  type Metadata,
  type WireOptions
} from "./Wire.ts"

interface Kept<W> {
  readonly wire: Promise<W>
  open: W | undefined
}

/** Connections by key: one under way or open for each; a broken one is opened again by the next who asks. */
class Connections<W extends { readonly isOpen: () => boolean; readonly close: () => void }> {
  readonly #kept = new Map<string, Kept<W>>()
  readonly #connect: (address: Address) => Promise<W>
  #closed = false

  constructor(connect: (address: Address) => Promise<W>) {
    this.#connect = connect
  }

  get(purpose: string, address: Address): Promise<W> {
    if (this.#closed) return Promise.reject(new KafkaSilence("the log was closed", { sent: false }))
    const key = `${purpose}@${address.host}:${address.port}`
    const kept = this.#kept.get(key)
    if (kept !== undefined && (kept.open === undefined || kept.open.isOpen())) return kept.wire
    kept?.open?.close()
    const wire = this.#connect(address)
    const fresh: Kept<W> = { wire, open: undefined }
    this.#kept.set(key, fresh)
    wire.then(
      (open) => {
        fresh.open = open
        if (this.#closed || this.#kept.get(key) !== fresh) open.close()
      },
      () => {
        if (this.#kept.get(key) === fresh) this.#kept.delete(key)
      }
    )
    return wire
  }

  drop(purpose: string, address: Address): void {
    const key = `${purpose}@${address.host}:${address.port}`
    const kept = this.#kept.get(key)
    this.#kept.delete(key)
    kept?.open?.close()
  }

  close(): void {
    this.#closed = true
    for (const { open } of this.#kept.values()) open?.close()
    this.#kept.clear()
  }
}

/** A refusal that says: ask the brokers anew who leads, then ask again. */
const STALE: ReadonlySet<number> = new Set([
  CODE.UNKNOWN_TOPIC_OR_PARTITION,
  CODE.LEADER_NOT_AVAILABLE,
  CODE.NOT_LEADER_OR_FOLLOWER,
  CODE.REPLICA_NOT_AVAILABLE,
  CODE.NETWORK_EXCEPTION,
  CODE.FENCED_LEADER_EPOCH,
  CODE.UNKNOWN_LEADER_EPOCH,
  CODE.OFFSET_NOT_AVAILABLE,
  CODE.KAFKA_STORAGE_ERROR,
  CODE.UNKNOWN_TOPIC_ID,
  CODE.INCONSISTENT_TOPIC_ID
])

/** The coordinator moves, or is loading what it keeps; asked again a moment later, it answers. */
const COORDINATOR: ReadonlySet<number> = new Set([
  CODE.COORDINATOR_LOAD_IN_PROGRESS,
  CODE.COORDINATOR_NOT_AVAILABLE,
  CODE.NOT_COORDINATOR,
  88 // UNSTABLE_OFFSET_COMMIT
])

export const isStale = (code: number): boolean => STALE.has(code)

/** Whether asking again, after a moment and new metadata, may help. */
export const isPassing = (cause: unknown): boolean =>
  (cause instanceof KafkaSilence && !cause.refused) ||
  (cause instanceof KafkaRefusal &&
    (STALE.has(cause.code) || COORDINATOR.has(cause.code) || cause.code === CODE.REQUEST_TIMED_OUT))

/** Doubles from 50 ms to 1 s, with jitter. */
export const backoff = (attempt: number): number =>
  Math.min(1000, 50 * 2 ** Math.min(attempt, 6)) * (0.75 + Math.random() / 2)

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

/** A broker that has not told the metadata within this time is not waited for alone: the next is asked as well. */
const SILENT_MS = 250

const nameOf = ({ host, port }: Address): string => `${host}:${port}`

export class KafkaCluster {
  readonly #bootstrap: ReadonlyArray<Address>
  readonly #topics: ReadonlyArray<string>
  readonly #wires: Connections<KafkaWire>
  readonly #long: Connections<KafkaWire>
  readonly #admins: Connections<KafkaAdmin>
  #metadata: Metadata | undefined
  /** What is kept names brokers to ask, and nothing else is believed of it. */
  #isStale = false
  #answered: Address | undefined
  #refreshing: Promise<Metadata> | undefined
  #closed = false

  constructor(
    engine: KafkaEngine,
    bootstrap: ReadonlyArray<Address>,
    topics: ReadonlyArray<string>,
    options: WireOptions,
    longestWaitMs: number
  ) {
    this.#bootstrap = bootstrap
    this.#topics = topics
    this.#wires = new Connections((address) => engine.connect(address, options))
    // What waits on purpose (a fetch at the end, a join while others come) is given its wait on top.
    const patient = { ...options, requestTimeoutMs: options.requestTimeoutMs + longestWaitMs }
    this.#long = new Connections((address) => engine.connect(address, patient))
    this.#admins = new Connections((address) => connectAdmin(address, options))
  }

  get closed(): boolean {
    return this.#closed
  }

  /** The newest metadata, asked of any broker that answers; those who ask at once share one answer. */
  refresh(): Promise<Metadata> {
    this.#refreshing ??= this.#ask().finally(() => {
      this.#refreshing = undefined
    })
    return this.#refreshing
  }

  /**
   * The broker that answered last comes first, as long as it answers: others may lag behind it, and a silent one is met
   * once. Then all that were known last, and those of the settings, which may be the only ones still reachable.
   */
  #toAsk(): ReadonlyArray<Address> {
    const answered = this.#answered === undefined ? [] : [this.#answered]
    const known = this.#metadata === undefined ? [] : [...this.#metadata.brokers.values()]
    return [
      ...new Map([...answered, ...known, ...this.#bootstrap].map((address) => [nameOf(address), address])).values()
    ]
  }

  async #ask(): Promise<Metadata> {
    const answers: Array<Promise<readonly [Metadata, Address]>> = []
    const first = () => Promise.any(answers)
    for (const address of this.#toAsk()) {
      const answer = this.#admins
        .get("admin", address)
        .then(async (admin) => [await admin.metadata(this.#topics), address] as const)
      answers.push(answer)
      const isTold = await Promise.race([
        first().then(
          () => true,
          () => false
        ),
        pause(SILENT_MS)
      ])
      if (isTold) break
    }
    try {
      const [metadata, address] = await first()
      this.#metadata = metadata
      this.#isStale = false
      this.#answered = address
      return metadata
    } catch (cause) {
      throw (cause as AggregateError).errors.at(-1)
    }
  }

  async metadata(): Promise<Metadata> {
    return this.#metadata === undefined || this.#isStale ? await this.refresh() : this.#metadata
  }

  /** What is known is asked anew before it is used again. */
  stale(): void {
    this.#isStale = true
  }

  async leader(topic: string, partition: number): Promise<Address> {
    const metadata = await this.metadata()
    const leader = metadata.topics.get(topic)?.leaders[partition]
    const address = leader === undefined ? undefined : metadata.brokers.get(leader)
    if (address === undefined) {
      this.stale()
      const code = leader === undefined ? CODE.UNKNOWN_TOPIC_OR_PARTITION : CODE.LEADER_NOT_AVAILABLE
      throw new KafkaRefusal(code, `${topic}-${partition} has no leader`)
    }
    return address
  }

  /** A connection for requests that are answered at once. */
  wire(purpose: string, address: Address): Promise<KafkaWire> {
    return this.#wires.get(purpose, address)
  }

  /** A connection for requests that may wait. */
  patient(purpose: string, address: Address): Promise<KafkaWire> {
    return this.#long.get(purpose, address)
  }

  dropPatient(purpose: string, address: Address): void {
    this.#long.drop(purpose, address)
  }

  /** Asks what may be asked any number of times, until it is answered, refused for good, or `withinMs` has passed. */
  async persist<A>(request: (cluster: this) => Promise<A>, withinMs: number): Promise<A> {
    const deadline = Date.now() + withinMs
    for (let attempt = 0; ; attempt++) {
      try {
        return await request(this)
      } catch (cause) {
        if (this.#closed || !isPassing(cause) || Date.now() >= deadline) throw cause
        this.stale()
        await pause(Math.min(backoff(attempt), Math.max(1, deadline - Date.now())))
      }
    }
  }

  async anyAdmin(): Promise<KafkaAdmin> {
    const metadata = await this.metadata()
    const address =
      metadata.brokers.get(metadata.controller) ?? [...metadata.brokers.values()][0] ?? this.#bootstrap[0]!
    return await this.#admins.get("admin", address)
  }

  async coordinator(group: string): Promise<Address> {
    const admin = await this.anyAdmin()
    return await admin.coordinator(group)
  }

  async coordinatorAdmin(group: string): Promise<KafkaAdmin> {
    return await this.#admins.get("admin", await this.coordinator(group))
  }

  /** Offsets of several partitions of a topic, whoever leads them. */
  async offsets(
    topic: string,
    partitions: ReadonlyArray<number>,
    timestamp: number
  ): Promise<ReadonlyMap<number, number>> {
    const byLeader = new Map<string, { readonly address: Address; readonly partitions: Array<number> }>()
    for (const partition of partitions) {
      const address = await this.leader(topic, partition)
      const key = nameOf(address)
      const asked = byLeader.get(key)
      if (asked === undefined) byLeader.set(key, { address, partitions: [partition] })
      else asked.partitions.push(partition)
    }
    const answers = await Promise.all(
      [...byLeader.values()].map(async (asked) => {
        const admin = await this.#admins.get("admin", asked.address)
        return await admin.listOffsets(topic, asked.partitions, timestamp)
      })
    )
    return new Map(answers.flatMap((answer) => [...answer]))
  }

  close(): void {
    this.#closed = true
    this.#wires.close()
    this.#long.close()
    this.#admins.close()
  }
}

/** One line for an operator: what happened, no stack and no secret. */
export const inOneLine = (cause: unknown): string =>
  cause instanceof KafkaSilence || cause instanceof KafkaRefusal || cause instanceof KafkaUnreadable
    ? cause.message.replaceAll(/\s+/g, " ")
    : cause instanceof Error
      ? `${cause.name}: ${cause.message}`.replaceAll(/\s+/g, " ")
      : String(cause)
