import { assert, describe, it } from "@effect/vitest"
import { afterEach, beforeEach, vi } from "vitest"
import type { KafkaCluster } from "../../../src/layers/kafka/cluster.ts"
import { KafkaMember, NotOwned } from "../../../src/layers/kafka/groupMember.ts"
import {
  CODE,
  KafkaRefusal,
  KafkaSilence,
  KafkaUnreadable,
  type KafkaWire,
  type PartitionCommit
} from "../../../src/layers/kafka/Wire.ts"

const PARTITIONS = 4
const REQUEST_TIMEOUT_MS = 2000

/** Broker of a group with one member: it has every partition. Each request for commits is answered by `onCommit`. */
class Broker {
  readonly requests: Array<ReadonlyArray<PartitionCommit>> = []
  onCommit: (commits: ReadonlyArray<PartitionCommit>, request: number) => Promise<void> = async () => {}
  joins = 0
  underWay = 0
  /** The most requests that were under way at once. */
  most = 0
  onHeartbeat: () => Promise<void> = async () => {}
  /** Where the group's coordinator is. */
  host = "broker"
  /** Who was told by a member that it leaves. */
  readonly told: Array<string> = []
  /** Brokers to which a member has a connection of its own. */
  readonly connected = new Set<string>()
  readonly #wire: Pick<KafkaWire, "join" | "sync" | "heartbeat" | "commit"> = {
    join: async ({ metadata }) => {
      this.joins++
      return { generation: this.joins, memberId: "m", leader: "m", members: [{ memberId: "m", metadata }] }
    },
    sync: async (_member, _protocol, assignments) => assignments[0]!.assignment,
    heartbeat: () => this.onHeartbeat(),
    commit: async (_member, _topic, commits) => {
      this.most = Math.max(this.most, ++this.underWay)
      this.requests.push(commits)
      try {
        // As over a network.
        await new Promise((resolve) => setTimeout(resolve, 2))
        await this.onCommit(commits, this.requests.length)
      } finally {
        this.underWay--
      }
    }
  }

  get cluster(): KafkaCluster {
    const answers: Pick<KafkaCluster, "coordinator" | "wire" | "patient" | "dropPatient" | "stale"> = {
      coordinator: async () => ({ host: this.host, port: 1 }),
      wire: async (_purpose, { host }) =>
        ({
          ...this.#wire,
          leave: async () => {
            this.told.push(host)
          }
        }) as unknown as KafkaWire,
      patient: async (_purpose, { host }) => {
        this.connected.add(host)
        return this.#wire as KafkaWire
      },
      dropPatient: (_purpose, { host }) => {
        this.connected.delete(host)
      },
      stale: () => {}
    }
    return { ...answers, persist: async () => new Map() } as unknown as KafkaCluster
  }
}

/** A member that has joined, what it owns, and what it was told. */
const member = async (broker: Broker, sessionTimeoutMs = 60_000) => {
  const owned = new Set<number>()
  const lost: Array<number> = []
  const warnings: Array<string> = []
  const { promise: joined, resolve } = Promise.withResolvers<void>()
  const made = new KafkaMember(
    broker.cluster,
    "test",
    "g",
    "raw_ticks",
    PARTITIONS,
    { sessionTimeoutMs, rebalanceTimeoutMs: 60_000, heartbeatMs: 1000, requestTimeoutMs: REQUEST_TIMEOUT_MS },
    {
      gained: ({ partition }) => {
        owned.add(partition)
        if (owned.size === PARTITIONS) resolve()
      },
      lost: (partition) => {
        owned.delete(partition)
        lost.push(partition)
      },
      warned: (message) => {
        warnings.push(message)
      },
      failed: (message) => assert.fail(message)
    }
  )
  await joined
  const commit = (partition: number, offset: number) =>
    made.commit(partition, { offset, metadata: "" }, () => owned.has(partition))
  return { made, owned, lost, warnings, commit }
}

const partitionsOf = (requests: ReadonlyArray<ReadonlyArray<PartitionCommit>>) =>
  requests.map((commits) => commits.map(({ partition }) => partition))

const refusal = (code: number) => new KafkaRefusal(code, "commit")

describe("the commits of one member", () => {
  let broker: Broker
  let mine: Awaited<ReturnType<typeof member>>
  beforeEach(async () => {
    vi.useFakeTimers()
    broker = new Broker()
    mine = await member(broker)
  })
  afterEach(async () => {
    await mine.made.leave(0)
    vi.useRealTimers()
  })

  /** Time goes on until all of them have ended. */
  const ended = async (commits: ReadonlyArray<Promise<void>>) => {
    const results = Promise.allSettled(commits)
    await vi.advanceTimersByTimeAsync(3 * REQUEST_TIMEOUT_MS)
    return (await results).map((result) => (result.status === "fulfilled" ? "done" : (result.reason as Error)))
  }

  it("of all partitions that come while one is under way go together in the next", async () => {
    const commits = [mine.commit(0, 1)]
    await vi.advanceTimersByTimeAsync(1)
    for (const partition of [1, 2, 3, 0]) commits.push(mine.commit(partition, 7))
    assert.deepStrictEqual(await ended(commits), ["done", "done", "done", "done", "done"])
    assert.deepStrictEqual(partitionsOf(broker.requests), [[0], [1, 2, 3, 0]])
    assert.deepStrictEqual(
      broker.requests[1]!.map(({ offset }) => offset),
      [7, 7, 7, 7]
    )
  })

  it("go at most every 25 ms, however many come", async () => {
    const commits: Array<Promise<void>> = []
    for (let at = 0; at < 200; at++) {
      commits.push(mine.commit(at % PARTITIONS, at))
      await vi.advanceTimersByTimeAsync(1)
    }
    assert.isAtMost(broker.requests.length, 1 + 200 / 25)
    assert.isTrue((await ended(commits)).every((result) => result === "done"))
    assert.strictEqual(broker.requests.flat().length, 200)
    assert.strictEqual(broker.most, 1)
  })

  it("refused together go each for itself: none fails for another", async () => {
    broker.onCommit = async (commits) => {
      if (commits.some(({ partition }) => partition === 2)) throw refusal(CODE.MESSAGE_TOO_LARGE)
    }
    const before = mine.commit(0, 1)
    await vi.advanceTimersByTimeAsync(1)
    const [, first, second, third] = await ended([before, ...[1, 2, 3].map((partition) => mine.commit(partition, 5))])
    assert.deepStrictEqual([first, third], ["done", "done"])
    assert.instanceOf(second, KafkaRefusal)
    assert.deepStrictEqual(partitionsOf(broker.requests), [[0], [1, 2, 3], [1], [2], [3]])
  })

  it("of a partition that was lost meanwhile do not go, and the others do", async () => {
    const commits = [mine.commit(0, 1)]
    await vi.advanceTimersByTimeAsync(1)
    commits.push(mine.commit(1, 2), mine.commit(2, 3))
    mine.owned.delete(1)
    const results = await ended(commits)
    assert.deepStrictEqual([results[0], results[2]], ["done", "done"])
    assert.instanceOf(results[1], NotOwned)
    assert.deepStrictEqual(partitionsOf(broker.requests), [[0], [2]])
  })

  it("whose answer is lost go again until their time is over", async () => {
    broker.onCommit = async (_commits, request) => {
      if (request <= 2) throw new KafkaSilence("commit: no answer", { sent: true })
    }
    assert.deepStrictEqual(await ended([mine.commit(0, 1), mine.commit(1, 1)]), ["done", "done"])
    assert.isAtLeast(broker.requests.length, 3)
    broker.onCommit = async () => {
      throw new KafkaSilence("commit: no answer", { sent: true })
    }
    const [late] = await ended([mine.commit(0, 2)])
    assert.instanceOf(late, KafkaSilence)
  })

  it("during a rebalance wait for it", async () => {
    broker.onCommit = async (_commits, request) => {
      if (request === 1) throw refusal(CODE.REBALANCE_IN_PROGRESS)
    }
    assert.deepStrictEqual(await ended([mine.commit(0, 1)]), ["done"])
    assert.deepStrictEqual(mine.lost, [])
  })

  it("of a member that was put out are refused, and everything is given up at once", async () => {
    broker.onCommit = async (_commits, request) => {
      if (request === 1) throw refusal(CODE.UNKNOWN_MEMBER_ID)
    }
    const results = await ended([mine.commit(0, 1)])
    assert.instanceOf(results[0], NotOwned)
    assert.sameMembers(mine.lost, [0, 1, 2, 3])
  })

  it("are refused after it has left", async () => {
    await mine.made.leave(0)
    const results = await ended([mine.commit(0, 1)])
    assert.instanceOf(results[0], NotOwned)
    assert.deepStrictEqual(broker.requests, [])
  })
})

describe("a member of a group", () => {
  const SESSION_MS = 8000
  let broker: Broker
  let mine: Awaited<ReturnType<typeof member>>
  beforeEach(async () => {
    vi.useFakeTimers()
    broker = new Broker()
    mine = await member(broker, SESSION_MS)
  })
  afterEach(async () => {
    await mine.made.leave(0)
    vi.useRealTimers()
  })

  it("tells the group that it leaves, and closes its connection, also where a commit has just failed", async () => {
    broker.onCommit = async () => {
      throw new KafkaSilence("commit: no answer", { sent: true })
    }
    const commit = mine.commit(0, 1).catch((cause: unknown) => cause)
    await vi.advanceTimersByTimeAsync(10)
    assert.strictEqual(broker.requests.length, 1)
    await mine.made.leave(0)
    assert.deepStrictEqual(broker.told, ["broker"])
    assert.deepStrictEqual([...broker.connected], [])
    await vi.advanceTimersByTimeAsync(REQUEST_TIMEOUT_MS)
    assert.instanceOf(await commit, NotOwned)
    assert.strictEqual(broker.joins, 1)
  })

  it("has one connection of its own, also after the coordinator has moved", async () => {
    broker.onCommit = async (_commits, request) => {
      if (request === 1) throw refusal(CODE.NOT_COORDINATOR)
    }
    broker.host = "another"
    const commit = mine.commit(0, 1)
    await vi.advanceTimersByTimeAsync(1000)
    await commit
    // The next heartbeat goes to it: over the connection to the one before, it had failed.
    broker.onHeartbeat = async () => {
      broker.onHeartbeat = async () => {}
      throw refusal(CODE.NOT_COORDINATOR)
    }
    await vi.advanceTimersByTimeAsync(3000)
    assert.deepStrictEqual([...broker.connected], ["another"])
    await mine.made.leave(0)
    assert.deepStrictEqual(broker.told, ["another"])
    assert.deepStrictEqual([...broker.connected], [])
  })

  it("heartbeats over another connection while its session lasts, where one is not answered", async () => {
    let heartbeats = 0
    broker.onHeartbeat = () => (++heartbeats === 1 ? new Promise(() => undefined) : Promise.resolve())
    await vi.advanceTimersByTimeAsync(SESSION_MS - 1)
    assert.isAtLeast(heartbeats, 2)
    await vi.advanceTimersByTimeAsync(3 * SESSION_MS)
    assert.deepStrictEqual([mine.lost, broker.joins], [[], 1])
  })

  it("goes on after an answer that cannot be read, and says so", async () => {
    broker.onHeartbeat = async () => {
      broker.onHeartbeat = async () => {}
      throw new KafkaUnreadable("heartbeat: out of range")
    }
    await vi.advanceTimersByTimeAsync(3 * SESSION_MS)
    assert.deepStrictEqual(mine.warnings, ["heartbeat: out of range; it is asked again"])
    assert.deepStrictEqual([mine.lost, broker.joins], [[], 1])
  })

  it("that never reads an answer gives its share up with its session, and joins again", async () => {
    broker.onHeartbeat = () => Promise.reject(new KafkaUnreadable("heartbeat: out of range"))
    await vi.advanceTimersByTimeAsync(SESSION_MS + 3000)
    assert.sameMembers(mine.lost, [0, 1, 2, 3])
    assert.strictEqual(broker.joins, 2)
    assert.strictEqual(mine.owned.size, PARTITIONS)
  })
})
