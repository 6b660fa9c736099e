import { setTimeout as sleep } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import type { KafkaCluster } from "../../src/layers/KafkaCluster.ts"
import { KafkaMember } from "../../src/layers/KafkaGroup.ts"
import type { JoinRequest, KafkaWire } from "../../src/layers/KafkaWire.ts"

const SESSION_MS = 400

/** A coordinator with one member, which takes a heartbeat however late it comes. */
const patientCoordinator = (heartbeat: (n: number) => Promise<void>) => {
  const counts = { joins: 0, heartbeats: 0 }
  const wire = {
    join: ({ metadata }: JoinRequest) => {
      counts.joins++
      const memberId = "me"
      return Promise.resolve({
        generation: counts.joins,
        memberId,
        leader: memberId,
        members: [{ memberId, metadata }]
      })
    },
    sync: (_: unknown, __: unknown, assignments: Parameters<KafkaWire["sync"]>[2]) =>
      Promise.resolve(assignments[0]!.assignment),
    heartbeat: () => heartbeat(++counts.heartbeats),
    leave: () => Promise.resolve()
  } as unknown as KafkaWire
  return {
    coordinator: () => Promise.resolve({ host: "127.0.0.1", port: 1 }),
    patient: () => Promise.resolve(wire),
    wire: () => Promise.resolve(wire),
    persist: () => Promise.resolve(new Map()),
    dropPatient: () => {},
    stale: () => {}
  } as unknown as KafkaCluster
}

describe("a member of a group", () => {
  it("joins again where it gave up its partitions by itself, and the group had not noticed that it slept", async () => {
    const cluster = patientCoordinator((n) => (n === 2 ? sleep(SESSION_MS * 1.5) : Promise.resolve()))
    const told: Array<string> = []
    const member = new KafkaMember(
      cluster,
      "member",
      "g",
      "t",
      2,
      { sessionTimeoutMs: SESSION_MS, rebalanceTimeoutMs: SESSION_MS, heartbeatMs: 20, requestTimeoutMs: 1000 },
      {
        gained: ({ partition }) => told.push(`gained ${partition}`),
        lost: (partition) => told.push(`lost ${partition}`),
        failed: (message) => told.push(message)
      }
    )
    const until = Date.now() + 5000
    while (told.length < 6 && Date.now() < until) await sleep(10)
    await member.leave(100)
    assert.deepStrictEqual(told.slice(0, 6), ["gained 0", "gained 1", "lost 0", "lost 1", "gained 0", "gained 1"])
  })
})
