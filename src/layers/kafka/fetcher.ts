/**
 * Decides how many fetches wait at a broker: readers of one purpose share a request, so that a tick in any of their
 * partitions costs one answer, and ticks that come in several while an answer is on its way come together with the next.
 */
import type { KafkaCluster } from "./cluster.ts"
import { type Address, type Fetched, type FetchPart, KafkaSilence } from "./Wire.ts"

/** A reader waits this long for the fetch under way, then has another connection used. */
const JOIN_MS = 2
/** Waits of the other connections are short, so that their readers come back to the first. */
const ASIDE_WAIT_MS = 100
/** Partitions whose whole share fits into one answer; the others come first in the next. */
const FULL_PARTS = 4

export interface FetcherOptions {
  readonly maxWaitMs: number
  /** Connections to each broker. */
  readonly connections: number
  /** Time between two fetches where no reader is behind; 0: as soon as one is answered. */
  readonly lookMs: number
}

/**
 * Where a reader stands: at the `end` as far as it knows; `behind`, more is there for certain; or before a batch that
 * was `cut` off, which comes whole only to the first of a request.
 */
export type LogPlace = "end" | "behind" | "cut"

interface WaitingFetch {
  readonly part: FetchPart
  readonly since: number
  readonly place: LogPlace
  readonly isWanted: () => boolean
  readonly resolve: (fetched: Fetched) => void
  readonly reject: (cause: unknown) => void
}

/** The fetches of one purpose to one broker. */
class Lane {
  readonly #cluster: KafkaCluster
  readonly #purpose: string
  readonly #address: Address
  readonly #options: FetcherOptions
  readonly #underWay: Array<boolean>
  #waiting: Array<WaitingFetch> = []
  #lookedAt = 0
  #isScheduled = false
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(cluster: KafkaCluster, purpose: string, address: Address, options: FetcherOptions) {
    this.#cluster = cluster
    this.#purpose = purpose
    this.#address = address
    this.#options = options
    this.#underWay = new Array(options.connections).fill(false)
  }

  fetch(part: FetchPart, place: LogPlace, isWanted: () => boolean): Promise<Fetched> {
    return new Promise((resolve, reject) => {
      const one = { part, since: performance.now(), place, isWanted, resolve, reject }
      if (place === "cut") this.#waiting.unshift(one)
      else this.#waiting.push(one)
      this.#schedule()
    })
  }

  /** After this turn of the event loop: all who were just answered have then asked again. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#look()
    })
  }

  #later(ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#look()
    }, ms)
  }

  #look(): void {
    const first = this.#waiting[0]
    if (first === undefined) return
    const now = performance.now()
    const early = this.#lookedAt + this.#options.lookMs - now
    if (early > 0 && !this.#waiting.some(({ place }) => place !== "end")) {
      this.#later(early)
      return
    }
    let connection = 0
    if (this.#underWay[0]) {
      const joins = first.since + JOIN_MS - now
      if (joins > 0) {
        this.#later(joins)
        return
      }
      connection = this.#underWay.indexOf(false)
      // Whichever comes back first takes all who wait.
      if (connection < 0) return
    }
    this.#lookedAt = now
    void this.#send(connection)
    if (this.#waiting.length > 0) this.#later(JOIN_MS)
  }

  /** All who wait; of several at one partition the first. */
  #take(): Array<WaitingFetch> {
    const taken: Array<WaitingFetch> = []
    const left: Array<WaitingFetch> = []
    const partitions = new Set<string>()
    for (const one of this.#waiting) {
      const { topic, partition } = one.part
      const key = `${topic}/${partition}`
      if (!one.isWanted()) one.reject(new KafkaSilence("the reader was stopped", { sent: false }))
      else if (partitions.has(key)) left.push(one)
      else {
        partitions.add(key)
        taken.push(one)
      }
    }
    this.#waiting = left
    return taken
  }

  async #send(connection: number): Promise<void> {
    const taken = this.#take()
    if (taken.length === 0) return
    this.#underWay[connection] = true
    const { maxWaitMs } = this.#options
    try {
      const wire = await this.#cluster.patient(`fetch ${this.#purpose} ${connection}`, this.#address)
      const parts = taken.map(({ part }) => part)
      const fetched = await wire.fetch({
        parts,
        maxBytes: Math.max(...parts.map(({ maxBytes }) => maxBytes)) * Math.min(FULL_PARTS, parts.length),
        maxWaitMs: connection === 0 ? maxWaitMs : Math.min(maxWaitMs, ASIDE_WAIT_MS)
      })
      // Who got nothing asks again first: an answer is filled in the order of the request.
      for (let i = 0; i < taken.length; i++) if (fetched[i]!.bytes.length === 0) taken[i]!.resolve(fetched[i]!)
      const isAlone = taken.length === 1
      for (let i = 0; i < taken.length; i++) {
        const { code, bytes, aborted } = fetched[i]!
        if (bytes.length === 0) continue
        // A slow reader must not keep the bytes of the others alive.
        taken[i]!.resolve({ code, bytes: isAlone ? bytes : Buffer.from(bytes), aborted })
      }
    } catch (cause) {
      for (const { reject } of taken) reject(cause)
    } finally {
      this.#underWay[connection] = false
      this.#schedule()
    }
  }
}

export class KafkaFetcher {
  readonly #cluster: KafkaCluster
  readonly #purpose: string
  readonly #options: FetcherOptions
  readonly #lanes = new Map<string, Lane>()

  constructor(cluster: KafkaCluster, purpose: string, options: FetcherOptions) {
    this.#cluster = cluster
    this.#purpose = purpose
    this.#options = options
  }

  /**
   * What a partition holds from an offset on, once there is something or the wait is over. Not asked any more once it
   * is not wanted.
   */
  async fetch(part: FetchPart, place: LogPlace, isWanted: () => boolean): Promise<Fetched> {
    const address = await this.#cluster.leader(part.topic, part.partition)
    const key = `${address.host}:${address.port}`
    let lane = this.#lanes.get(key)
    if (lane === undefined) {
      lane = new Lane(this.#cluster, this.#purpose, address, this.#options)
      this.#lanes.set(key, lane)
    }
    return await lane.fetch(part, place, isWanted)
  }
}
