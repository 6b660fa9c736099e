/**
 * Decides how this process is a member of a consumer group: it joins, heartbeats in the background, gives up lost
 * partitions at once and keeps the rest running through a rebalance, and joins again by itself when it was put out. The
 * leader leaves partitions where they are as far as an even share allows, since each one moved must recover its state.
 */
import {
  decodeConsumerProtocolAssignment,
  decodeConsumerProtocolSubscription,
  encodeConsumerProtocolAssignment,
  encodeConsumerProtocolSubscription
} from "@platformatic/kafka"
import type { Commit } from "../../streams/log/TickLog.ts"
import { backoff, inOneLine, isPassing, type KafkaCluster, pause } from "./cluster.ts"
import {
  type Address,
  CODE,
  KafkaRefusal,
  KafkaSilence,
  KafkaUnreadable,
  type KafkaWire,
  MemberIdRequired,
  type Membership,
  type PartitionCommit
} from "./Wire.ts"

export interface GroupOptions {
  readonly sessionTimeoutMs: number
  readonly rebalanceTimeoutMs: number
  readonly heartbeatMs: number
  readonly requestTimeoutMs: number
}

/** A partition given to this member, until `lose` is called. */
export interface Share {
  readonly partition: number
  readonly committed: Commit | undefined
}

export interface GroupEvents {
  readonly gained: (share: Share) => void
  readonly lost: (partition: number) => void
  /** What an operator should see, though the membership goes on. */
  readonly warned: (message: string) => void
  /** The membership cannot be had: nothing more comes. */
  readonly failed: (message: string) => void
}

const PROTOCOL = "mdp-sticky"
/** Commits go at most this often: those of all partitions that come meanwhile go together. */
const COMMIT_EVERY_MS = 50

/** A commit that waits to go, and who is told. */
interface WaitingCommit {
  readonly commit: PartitionCommit
  readonly owns: () => boolean
  /** Under which membership it went; undefined until then. */
  membership: Membership | undefined
  /** Whether it was taken; false: it did not go, and may be asked for again. */
  readonly done: (taken: boolean) => void
  readonly failed: (cause: unknown) => void
}

interface Claim {
  readonly memberId: string
  readonly generation: number
  readonly partitions: ReadonlyArray<number>
}

const readClaim = (memberId: string, metadata: Buffer): Claim => {
  try {
    const { userData } = decodeConsumerProtocolSubscription(metadata)
    const { generation, partitions } = JSON.parse(userData.toString()) as Claim
    return { memberId, generation, partitions }
  } catch {
    return { memberId, generation: -1, partitions: [] }
  }
}

/** Every partition to one member, none with two more than another; where one is already, as far as that allows. */
export const share = (claims: ReadonlyArray<Claim>, partitions: number): ReadonlyMap<string, ReadonlyArray<number>> => {
  const members = [...claims].sort(
    (a, b) => b.partitions.length - a.partitions.length || (a.memberId < b.memberId ? -1 : 1)
  )
  // Of two that claim a partition, the one of the newer generation has it; the other was asleep.
  const newest = new Map<number, Claim>()
  for (const claim of members) {
    for (const partition of claim.partitions) {
      if (claim.generation > (newest.get(partition)?.generation ?? -1)) newest.set(partition, claim)
    }
  }
  const least = Math.floor(partitions / members.length)
  const withMore = partitions % members.length
  const shares = new Map<string, Array<number>>()
  const free = new Set(Array.from({ length: partitions }, (_, partition) => partition))
  let more = 0
  for (const claim of members) {
    const kept = claim.partitions.filter((partition) => partition < partitions && newest.get(partition) === claim)
    const room = kept.length > least && more < withMore ? least + 1 : least
    if (room > least) more++
    const mine = kept.slice(0, room)
    for (const partition of mine) free.delete(partition)
    shares.set(claim.memberId, mine)
  }
  for (const partition of free) {
    let poorest = members[0]!
    for (const member of members) {
      if (shares.get(member.memberId)!.length < shares.get(poorest.memberId)!.length) poorest = member
    }
    shares.get(poorest.memberId)!.push(partition)
  }
  return shares
}

export class KafkaMember {
  readonly #cluster: KafkaCluster
  readonly #group: string
  readonly #topic: string
  readonly #partitions: number
  readonly #options: GroupOptions
  readonly #events: GroupEvents
  readonly #purpose: string
  readonly #owned = new Set<number>()
  #memberId = ""
  #generation = -1
  /** Joined and synchronised: commits are taken. */
  #stable = false
  #heardAt = 0
  /** The coordinator as it was told last. */
  #address: Address | undefined
  /** It is asked for anew before the next request: it did not answer, or is not the coordinator any more. */
  #isMoved = false
  #left = false
  #wake: (() => void) | undefined
  readonly #commits: Array<WaitingCommit> = []
  #committing = false
  #committedAt = 0

  constructor(
    cluster: KafkaCluster,
    purpose: string,
    group: string,
    topic: string,
    partitions: number,
    options: GroupOptions,
    events: GroupEvents
  ) {
    this.#cluster = cluster
    this.#purpose = purpose
    this.#group = group
    this.#topic = topic
    this.#partitions = partitions
    this.#options = options
    this.#events = events
    void this.#run()
  }

  async #run(): Promise<void> {
    for (let attempt = 0; !this.#left; attempt++) {
      try {
        const wire = await this.#wire()
        if (this.#left) return
        // After a broken connection the membership goes on: another join would have every member join again.
        if (!this.#stable) await this.#join(wire)
        attempt = 0
        await this.#stay(wire)
      } catch (cause) {
        if (this.#left) return
        const code = cause instanceof KafkaRefusal ? cause.code : undefined
        if (code !== undefined) this.#stable = false
        if (cause instanceof MemberIdRequired) this.#memberId = cause.memberId
        else if (code === CODE.REBALANCE_IN_PROGRESS) attempt = 0
        else if (code === CODE.UNKNOWN_MEMBER_ID || code === CODE.ILLEGAL_GENERATION) {
          // Put out: whatever was owned is somebody else's by now.
          this.#loseAll()
          if (code === CODE.UNKNOWN_MEMBER_ID) this.#memberId = ""
        } else if (isPassing(cause) || cause instanceof KafkaUnreadable) {
          if (cause instanceof KafkaUnreadable) this.#events.warned(`${inOneLine(cause)}; it is asked again`)
          this.#forgetCoordinator()
          this.#expire()
          await this.#sleep(backoff(attempt))
        } else {
          this.#loseAll()
          this.#events.failed(inOneLine(cause))
          return
        }
      }
    }
  }

  async #wire(): Promise<KafkaWire> {
    const address = await this.#coordinator()
    if (this.#left) throw new NotOwned(`group ${this.#group} was left`)
    return await this.#cluster.patient(this.#purpose, address)
  }

  async #coordinator(): Promise<Address> {
    if (this.#address !== undefined && !this.#isMoved) return this.#address
    const address = await this.#cluster.coordinator(this.#group)
    if (this.#address?.host !== address.host || this.#address.port !== address.port) this.#dropWire()
    this.#address = address
    this.#isMoved = false
    return address
  }

  #dropWire(): void {
    if (this.#address !== undefined) this.#cluster.dropPatient(this.#purpose, this.#address)
  }

  #forgetCoordinator(): void {
    this.#dropWire()
    this.#isMoved = true
    this.#cluster.stale()
  }

  async #join(wire: KafkaWire): Promise<void> {
    const { sessionTimeoutMs, rebalanceTimeoutMs } = this.#options
    this.#stable = false
    const claim = { generation: this.#generation, partitions: [...this.#owned] }
    const joined = await wire.join({
      group: this.#group,
      memberId: this.#memberId,
      sessionTimeoutMs,
      rebalanceTimeoutMs,
      protocol: PROTOCOL,
      metadata: encodeConsumerProtocolSubscription({
        version: 0,
        topics: [this.#topic],
        userData: JSON.stringify(claim)
      })
    })
    this.#memberId = joined.memberId
    this.#generation = joined.generation
    this.#heardAt = Date.now()
    const leads = joined.leader === joined.memberId
    const shares = leads
      ? share(
          joined.members.map(({ memberId, metadata }) => readClaim(memberId, metadata)),
          this.#partitions
        )
      : new Map<string, ReadonlyArray<number>>()
    const assignment = await wire.sync(
      this.#membership(),
      PROTOCOL,
      [...shares].map(([memberId, partitions]) => ({
        memberId,
        assignment: encodeConsumerProtocolAssignment({
          version: 0,
          assignedPartitions: [{ topic: this.#topic, partitions: [...partitions] }]
        })
      }))
    )
    this.#heardAt = Date.now()
    const mine =
      assignment.length === 0
        ? []
        : (decodeConsumerProtocolAssignment(assignment).assignedPartitions.find(({ topic }) => topic === this.#topic)
            ?.partitions ?? [])
    for (const partition of [...this.#owned]) if (!mine.includes(partition)) this.#lose(partition)
    const gained = mine.filter((partition) => !this.#owned.has(partition))
    if (gained.length === 0) {
      this.#stable = true
      return
    }
    // Heartbeats go on only after this: it must not take long, and is asked again with the next generation if it does.
    const committed = await this.#cluster.persist(
      async (cluster) => (await cluster.coordinatorAdmin(this.#group)).committed(this.#group, this.#topic, gained),
      Math.min(this.#options.requestTimeoutMs, sessionTimeoutMs / 2)
    )
    if (this.#left) return
    this.#stable = true
    for (const partition of gained) {
      this.#owned.add(partition)
      this.#events.gained({ partition, committed: committed.get(partition) })
    }
  }

  async #stay(wire: KafkaWire): Promise<void> {
    while (!this.#left) {
      // At once where it is overdue, as after a connection that broke.
      await this.#sleep(Math.max(0, this.#heardAt + this.#options.heartbeatMs - Date.now()))
      if (this.#left) return
      // Asleep for longer than the session: others own it all by now, or are given it by another join.
      this.#expire()
      if (!this.#stable) return
      const asked = Date.now()
      // Another connection is tried while the session lasts: the wire itself waits for longer.
      await heard(wire.heartbeat(this.#membership()), this.#options.sessionTimeoutMs / 2)
      this.#heardAt = asked
    }
  }

  #membership(): Membership {
    return { group: this.#group, generation: this.#generation, memberId: this.#memberId }
  }

  /**
   * Gives everything up once the group may have. The group itself may not know: it counts the session from what it
   * heard, and was perhaps asleep as long. Only another join gets this member its share back.
   */
  #expire(): void {
    if (this.#owned.size === 0 || Date.now() - this.#heardAt <= this.#options.sessionTimeoutMs) return
    this.#stable = false
    this.#loseAll()
    this.#wake?.()
  }

  #lose(partition: number): void {
    this.#owned.delete(partition)
    this.#events.lost(partition)
  }

  #loseAll(): void {
    for (const partition of [...this.#owned]) this.#lose(partition)
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#wake = undefined
        resolve()
      }, ms)
      this.#wake = () => {
        clearTimeout(timer)
        this.#wake = undefined
        resolve()
      }
    })
  }

  /**
   * Commits while `owns` holds and the session is fresh. Kafka takes a commit for any partition from a member of the
   * right generation, so ownership is looked at here, before each request.
   */
  async commit(partition: number, { offset, metadata }: Commit, owns: () => boolean): Promise<void> {
    const deadline = Date.now() + this.#options.requestTimeoutMs
    for (let attempt = 0; ; attempt++) {
      this.#expire()
      if (!owns() || this.#left) throw new NotOwned(`group ${this.#group} does not own it here any more`)
      if (this.#stable) {
        let membership: Membership | undefined
        try {
          const taken = await new Promise<boolean>((done, failed) => {
            const waiting: WaitingCommit = {
              commit: { partition, offset, metadata },
              owns,
              membership: undefined,
              done,
              failed: (cause) => {
                membership = waiting.membership
                failed(cause)
              }
            }
            this.#commits.push(waiting)
            void this.#sendCommits()
          })
          if (taken) return
          if (!owns()) continue
        } catch (cause) {
          const code = cause instanceof KafkaRefusal ? cause.code : undefined
          if (code === CODE.UNKNOWN_MEMBER_ID || code === CODE.ILLEGAL_GENERATION) {
            // The heartbeat finds out as well; until then nothing may be believed to be owned.
            if (membership?.generation === this.#generation && this.#stable) {
              this.#loseAll()
              this.#wake?.()
            }
          } else if (code !== CODE.REBALANCE_IN_PROGRESS && !isPassing(cause)) throw cause
          if (isPassing(cause)) this.#isMoved = true
          if (Date.now() >= deadline) throw cause
        }
      } else if (Date.now() >= deadline) {
        throw new KafkaRefusal(CODE.REBALANCE_IN_PROGRESS, `group ${this.#group} is still rebalancing`)
      }
      await pause(Math.min(backoff(attempt), Math.max(1, deadline - Date.now())))
    }
  }

  /** One request at a time, for all that wait; where it is refused, each for itself, so that none fails for another. */
  async #sendCommits(): Promise<void> {
    if (this.#committing) return
    this.#committing = true
    while (this.#commits.length > 0) {
      const early = this.#committedAt + COMMIT_EVERY_MS - Date.now()
      if (early > 0 && !this.#left) await pause(early)
      const all = this.#commits.splice(0)
      this.#committedAt = Date.now()
      try {
        const wire = await this.#cluster.wire(`commit ${this.#group}`, await this.#coordinator())
        const mine: Array<WaitingCommit> = []
        for (const waiting of all) {
          if (this.#stable && waiting.owns()) mine.push(waiting)
          else waiting.done(false)
        }
        const membership = this.#membership()
        for (const waiting of mine) waiting.membership = membership
        const send = (some: ReadonlyArray<WaitingCommit>) =>
          wire
            .commit(
              membership,
              this.#topic,
              some.map(({ commit }) => commit)
            )
            .then(() => {
              for (const waiting of some) waiting.done(true)
            })
        if (mine.length === 0) continue
        await send(mine).catch((cause: unknown) => {
          if (mine.length === 1 || !(cause instanceof KafkaRefusal)) throw cause
          return Promise.all(mine.map((one) => send([one]).catch(one.failed)))
        })
      } catch (cause) {
        for (const waiting of all) waiting.failed(cause)
      }
    }
    this.#committing = false
  }

  /** Gives everything up, and tells the group so that others need not wait for the session to end. */
  async leave(withinMs: number): Promise<void> {
    this.#left = true
    this.#loseAll()
    this.#wake?.()
    this.#dropWire()
    if (this.#memberId === "") return
    const memberId = this.#memberId
    // Not over the member's own connection, on which a join may have been waiting.
    const told = this.#coordinator()
      .then((address) => this.#cluster.wire(`commit ${this.#group}`, address))
      .then((wire) => wire.leave(this.#group, memberId))
      .catch(() => undefined)
    await Promise.race([told, pause(withinMs)])
  }
}

const heard = (heartbeat: Promise<void>, withinMs: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const silence = new KafkaSilence(`heartbeat: no answer within ${withinMs} ms`, { sent: true })
    const timer = setTimeout(() => reject(silence), withinMs)
    heartbeat.then(resolve, reject).finally(() => clearTimeout(timer))
  })

export class NotOwned extends Error {}
