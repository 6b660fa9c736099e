/**
 * Decides how arrays of records become appends: acks=all, one unacknowledged request a partition, partitions that come
 * at the same time in one request. Each batch carries a producer identity and its place in the partition's own sequence
 * of them, so that the broker tells one sent again from a new one: a batch that may have been written is sent again as
 * it was, until it is acknowledged or its time is over. Then its outcome is unknown, and the identity is given up.
 */
import { LogError } from "../../schema/Errors.ts"
import type { NewRecord, Topic } from "../../streams/log/TickLog.ts"
import { backoff, inOneLine, isStale, type KafkaCluster, pause } from "./cluster.ts"
import { encodeBatch, recordBytes, seal } from "./recordBatch.ts"
import { type Address, type Appended, CODE, KafkaRefusal, KafkaSilence, type ProducerIdentity } from "./Wire.ts"

export interface ProducerOptions {
  /** How long an append may take, with everything sent again. */
  readonly deliveryTimeoutMs: number
  readonly requestTimeoutMs: number
  readonly maxRecordBytes: number
  readonly inFlight: number
  /** Called where a topic is found to have been recreated, before the appends that were meant for the old one fail. */
  readonly onRecreated: () => Promise<void>
}

interface Batch {
  readonly count: number
  readonly bytes: Buffer
}

interface Job {
  readonly slot: Slot
  readonly batch: Batch
  readonly deadline: number
  readonly done: (outcome: number | LogError) => void
  /** Set with the first attempt; the same on every other. */
  identity: ProducerIdentity | undefined
  sequence: number
  attempts: number
  /** An attempt has gone unanswered: it may have been written. */
  unsure: boolean
  last: string
}

/** A partition in one incarnation of its topic. */
interface Slot {
  readonly topic: Topic
  readonly name: string
  readonly topicId: string
  readonly partition: number
  readonly waiting: Array<Job>
  busy: Job | undefined
  identity: ProducerIdentity | undefined
  sequence: number
  /** One above the last offset acknowledged here. */
  end: number
}

const SEQUENCE_SPAN = 2 ** 31

/** The broker does not know the identity (any more), or where its sequence stands. */
const IDENTITY_LOST: ReadonlySet<number> = new Set([
  CODE.OUT_OF_ORDER_SEQUENCE_NUMBER,
  CODE.UNKNOWN_PRODUCER_ID,
  CODE.INVALID_PRODUCER_EPOCH
])
/** Refused, but it may be in the leader's log and stay there. */
const UNSURE: ReadonlySet<number> = new Set([
  // A leader may lose its place, or its disk, while it waits for the replicas.
  CODE.NOT_LEADER_OR_FOLLOWER,
  CODE.KAFKA_STORAGE_ERROR,
  CODE.REQUEST_TIMED_OUT,
  CODE.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
  CODE.NETWORK_EXCEPTION
])

export class KafkaProducer {
  readonly #cluster: KafkaCluster
  readonly #options: ProducerOptions
  readonly #slots = new Map<string, Slot>()
  readonly #ready: Array<Job> = []
  readonly #inFlight = new Map<string, number>()
  #identity: ProducerIdentity | undefined
  #identifying: Promise<ProducerIdentity> | undefined
  #flushing = false

  constructor(cluster: KafkaCluster, options: ProducerOptions) {
    this.#cluster = cluster
    this.#options = options
  }

  /**
   * Into the topic that has this id and no other. Answers through `done`, once; what it returns takes the append back if
   * it has not been sent yet.
   */
  append(
    topic: Topic,
    name: string,
    topicId: string,
    partition: number,
    records: ReadonlyArray<NewRecord>,
    done: (outcome: number | LogError) => void
  ): () => void {
    const key = `${topicId}-${partition}`
    let slot = this.#slots.get(key)
    if (slot === undefined) {
      slot = {
        topic,
        name,
        topicId,
        partition,
        waiting: [],
        busy: undefined,
        identity: undefined,
        sequence: 0,
        end: 0
      }
      this.#slots.set(key, slot)
    }
    const chunks = this.#chunks(slot, records)
    if (chunks instanceof LogError) {
      done(chunks)
      return () => undefined
    }
    return this.#enqueue(slot, chunks, 0, undefined, done)
  }

  /** This topic is there no more: what still waits for it ends by itself. */
  forget(topicId: string): void {
    for (const [key, slot] of this.#slots) if (slot.topicId === topicId) this.#slots.delete(key)
  }

  /** One batch a request and partition; only an append above the largest batch goes in several. */
  #enqueue(
    slot: Slot,
    chunks: ReadonlyArray<Batch>,
    at: number,
    first: number | undefined,
    done: (outcome: number | LogError) => void
  ): () => void {
    const job: Job = {
      slot,
      batch: chunks[at]!,
      deadline: Date.now() + this.#options.deliveryTimeoutMs,
      identity: undefined,
      sequence: 0,
      attempts: 0,
      unsure: false,
      last: "no attempt was made",
      done: (outcome) => {
        if (outcome instanceof LogError) {
          // Part of it is in the log, so the whole of it is neither in nor out.
          done(first === undefined ? outcome : this.#error(slot, "unknown", outcome.message, outcome.reason))
        } else if (at + 1 < chunks.length) this.#enqueue(slot, chunks, at + 1, first ?? outcome, done)
        else done(first ?? outcome)
      }
    }
    // The rest of an append goes before what came after it.
    if (first === undefined) slot.waiting.push(job)
    else slot.waiting.unshift(job)
    this.#next(slot)
    return () => {
      const waiting = slot.waiting.indexOf(job)
      if (waiting >= 0) slot.waiting.splice(waiting, 1)
    }
  }

  #chunks(slot: Slot, records: ReadonlyArray<NewRecord>): ReadonlyArray<Batch> | LogError {
    const chunks: Array<Batch> = []
    const now = Date.now()
    const limit = this.#options.maxRecordBytes
    let from = 0
    let bytes = 0
    for (let i = 0; i < records.length; i++) {
      const size = recordBytes(records[i]!)
      if (size > limit) {
        const message = `a record of ${size} bytes is above the largest allowed, ${limit}`
        return this.#error(slot, "failed", message, "too_large")
      }
      if (bytes + size > limit) {
        chunks.push({ count: i - from, bytes: encodeBatch(records.slice(from, i), bytes, now) })
        from = i
        bytes = 0
      }
      bytes += size
    }
    const rest = from === 0 ? records : records.slice(from)
    chunks.push({ count: rest.length, bytes: encodeBatch(rest, bytes, now) })
    return chunks
  }

  #next(slot: Slot): void {
    if (slot.busy !== undefined) return
    const job = slot.waiting.shift()
    if (job === undefined) return
    slot.busy = job
    this.#offer(job)
  }

  #offer(job: Job): void {
    this.#ready.push(job)
    if (this.#flushing) return
    this.#flushing = true
    // Partitions whose turn came in the same moment share a request.
    queueMicrotask(() => {
      this.#flushing = false
      void this.#flush()
    })
  }

  async #flush(): Promise<void> {
    const jobs = this.#ready.splice(0)
    const byLeader = new Map<string, { readonly address: Address; readonly jobs: Array<Job> }>()
    for (const job of jobs) {
      if (this.#over(job)) continue
      let address: Address
      try {
        const { name, topicId, partition } = job.slot
        if (job.identity === undefined) this.#claim(job, await this.#identify())
        const { topics } = await this.#cluster.metadata()
        if ((topics.get(name)?.id ?? topicId) !== topicId) {
          await this.#recreated(job)
          continue
        }
        address = await this.#cluster.leader(name, partition)
      } catch (cause) {
        this.#again(job, cause)
        continue
      }
      const key = `${address.host}:${address.port}`
      const leader = byLeader.get(key)
      if (leader === undefined) byLeader.set(key, { address, jobs: [job] })
      else leader.jobs.push(job)
    }
    for (const [key, { address, jobs: mine }] of byLeader) {
      const underWay = this.#inFlight.get(key) ?? 0
      // While enough is under way, what comes gathers to go together.
      if (underWay >= this.#options.inFlight) this.#ready.push(...mine)
      else {
        this.#inFlight.set(key, underWay + 1)
        void this.#send(address, mine).finally(() => {
          this.#inFlight.set(key, (this.#inFlight.get(key) ?? 1) - 1)
          if (this.#ready.length > 0 && !this.#flushing) {
            this.#flushing = true
            queueMicrotask(() => {
              this.#flushing = false
              void this.#flush()
            })
          }
        })
      }
    }
  }

  async #identify(): Promise<ProducerIdentity> {
    if (this.#identity !== undefined) return this.#identity
    this.#identifying ??= this.#askIdentity().finally(() => {
      this.#identifying = undefined
    })
    return await this.#identifying
  }

  async #askIdentity(): Promise<ProducerIdentity> {
    const metadata = await this.#cluster.metadata()
    const address = [...metadata.brokers.values()][0]
    if (address === undefined) throw new KafkaSilence("no broker is known", { sent: false })
    const wire = await this.#cluster.wire("produce", address)
    this.#identity = await wire.initProducer()
    return this.#identity
  }

  #claim(job: Job, identity: ProducerIdentity): void {
    const { slot } = job
    if (slot.identity?.id !== identity.id || slot.identity.epoch !== identity.epoch) {
      slot.identity = identity
      slot.sequence = 0
    }
    job.identity = identity
    job.sequence = slot.sequence
    seal(job.batch.bytes, identity, slot.sequence)
  }

  async #send(address: Address, jobs: ReadonlyArray<Job>): Promise<void> {
    let answers: ReadonlyArray<Appended>
    try {
      const wire = await this.#cluster.wire("produce", address)
      for (const job of jobs) job.attempts++
      answers = await wire.produce(
        jobs.map(({ slot: { name, topicId, partition }, batch }) => ({
          topic: name,
          topicId,
          partition,
          bytes: batch.bytes
        })),
        // The broker gives up before the connection does, so that its refusal is heard.
        Math.ceil(this.#options.requestTimeoutMs * 0.8)
      )
    } catch (cause) {
      if (!(cause instanceof KafkaSilence) || cause.sent) for (const job of jobs) job.unsure = true
      for (const job of jobs) this.#again(job, cause)
      return
    }
    for (const job of jobs) {
      const { slot } = job
      const answer = answers.find((one) => one.topicId === slot.topicId && one.partition === slot.partition)
      if (answer === undefined) {
        job.unsure = true
        this.#again(job, new KafkaSilence("the partition is missing in the answer", { sent: true }))
      } else this.#answered(job, answer)
    }
  }

  #answered(job: Job, { code, baseOffset }: Appended): void {
    const { slot, batch } = job
    if (code === CODE.NONE) {
      slot.sequence = (job.sequence + batch.count) % SEQUENCE_SPAN
      const went = slot.end
      slot.end = baseOffset + batch.count
      if (baseOffset >= went) this.#settle(job, baseOffset)
      else {
        const message = `the log went back: offset ${baseOffset} was given after ${went - 1}`
        this.#settle(job, this.#error(slot, "unknown", message, "incarnation"))
      }
      return
    }
    if (code === CODE.DUPLICATE_SEQUENCE_NUMBER) {
      // It is in the log, but so far back that the broker cannot say where.
      job.unsure = true
      this.#giveUp(job, "it was written before, at an offset no longer known")
      return
    }
    if (code === CODE.MESSAGE_TOO_LARGE || code === CODE.RECORD_LIST_TOO_LARGE) {
      const message = `the broker refuses a batch of ${batch.count} records as too large`
      this.#settle(job, this.#error(slot, job.unsure ? "unknown" : "failed", message, "too_large"))
      return
    }
    if (IDENTITY_LOST.has(code)) {
      this.#forget(job)
      if (job.unsure) this.#giveUp(job, `the broker lost track of the producer (error ${code})`)
      else {
        // It was surely not written: it goes again under a new identity.
        job.identity = undefined
        this.#again(job, new KafkaRefusal(code, "the broker does not know the producer"))
      }
      return
    }
    if (UNSURE.has(code)) job.unsure = true
    if (UNSURE.has(code) || isStale(code) || code === CODE.NOT_ENOUGH_REPLICAS) {
      this.#again(job, new KafkaRefusal(code, "produce"))
      return
    }
    this.#giveUp(job, `the broker refuses the append (error ${code})`)
  }

  /** What was meant for a topic that is gone goes nowhere. */
  async #recreated(job: Job): Promise<void> {
    await this.#options.onRecreated().catch(() => undefined)
    const message = `topic ${job.slot.name} was deleted and recreated`
    this.#settle(job, this.#error(job.slot, job.unsure ? "unknown" : "failed", message, "incarnation"))
  }

  #again(job: Job, cause: unknown): void {
    job.last = inOneLine(cause)
    if (cause instanceof KafkaSilence && cause.refused) {
      this.#giveUp(job, job.last)
      return
    }
    if (this.#over(job)) return
    this.#cluster.stale()
    void pause(Math.min(backoff(job.attempts), Math.max(1, job.deadline - Date.now()))).then(() => this.#offer(job))
  }

  #over(job: Job): boolean {
    if (Date.now() < job.deadline && !this.#cluster.closed) return false
    this.#giveUp(job, job.last)
    return true
  }

  #giveUp(job: Job, why: string): void {
    if (job.unsure) this.#forget(job)
    this.#settle(job, this.#error(job.slot, job.unsure ? "unknown" : "failed", why))
  }

  /** What may still arrive under the old identity must not be taken for what comes next. */
  #forget(job: Job): void {
    const given = job.identity
    if (given === undefined) return
    job.slot.identity = undefined
    if (this.#identity?.id === given.id && this.#identity.epoch === given.epoch) this.#identity = undefined
  }

  #settle(job: Job, outcome: number | LogError): void {
    const { slot } = job
    slot.busy = undefined
    job.done(outcome)
    this.#next(slot)
  }

  #error(slot: Slot, outcome: "failed" | "unknown", message: string, reason?: LogError["reason"]): LogError {
    return new LogError({
      operation: "append",
      topic: slot.topic,
      partition: slot.partition,
      outcome,
      message,
      ...(reason === undefined ? {} : { reason })
    })
  }
}
