import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger, Metric, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { CacheError } from "../../../src/schema/Errors.ts"
import type { AssignedPartition, TickLog } from "../../../src/streams/log/TickLog.ts"
import * as metrics from "../../../src/streams/metrics.ts"
import { WorkerCounters, type WorkerFigures } from "../../../src/streams/ports/WorkerCounters.ts"
import { LineFields } from "../../../src/streams/run/fields.ts"
import { tellingLog } from "../../../src/streams/run/takeOver.ts"

/** A process as it last told of itself, that runs partitions or ran them. */
const processOf = (
  worker: string,
  silent_ms: number,
  partitions: Readonly<Record<number, 0 | 1>>,
  group = "process"
): WorkerFigures => ({
  life: worker,
  worker,
  role: "worker",
  started_at: 0,
  stages: [group],
  waiting: [],
  degraded: [],
  at: 0,
  silent_ms,
  figures: Object.entries(partitions).map(([partition, value]) => ({
    name: "topology_partition_assigned",
    labels: { group, partition },
    value
  }))
})

const member = (others: () => Effect.Effect<ReadonlyArray<WorkerFigures>, CacheError>) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const fields: Array<unknown> = []
    const logger = Logger.make(({ message, fiber }) => {
      lines.push(String(message))
      fields.push(fiber.getRef(LineFields))
    })
    const loggers = Logger.layer([logger])
    let asked = 0
    const counters = Layer.succeed(WorkerCounters, {
      shared: true,
      publish: () => Effect.void,
      withdraw: () => Effect.void,
      all: Effect.suspend(() => {
        asked += 1
        return others()
      })
    })
    const queue = yield* Queue.unbounded<AssignedPartition>()
    const log = { assignments: () => Stream.fromQueue(queue) } as unknown as TickLog["Service"]
    const assigned: Array<AssignedPartition> = []
    yield* Effect.flatMap(tellingLog(log, "mine"), (telling) =>
      telling.assignments("process", "raw_ticks").pipe(
        Stream.runForEach((one) => Effect.sync(() => assigned.push(one))),
        Effect.forkScoped({ startImmediately: true })
      )
    ).pipe(Effect.provide(Layer.merge(counters, loggers)))
    /** A partition comes; answers what takes it away. */
    const gain = (partition: number, isBegun = true) =>
      Effect.gen(function* () {
        const revoked = yield* Deferred.make<void>()
        yield* Queue.offer(queue, {
          partition,
          committed: isBegun ? { offset: 5, metadata: "" } : undefined,
          read: () => Stream.never,
          commit: () => Effect.void,
          revoked: Deferred.await(revoked)
        })
        yield* TestClock.adjust("0 seconds")
        return Deferred.succeed(revoked, undefined)
      })
    const read = (partition: number) =>
      Effect.andThen(
        Effect.forkScoped(Stream.runDrain(assigned.findLast((one) => one.partition === partition)!.read(5))).pipe(
          Effect.provide(loggers)
        ),
        TestClock.adjust("0 seconds")
      )
    return { lines, fields, gain, read, asked: () => asked }
  })

const dead = processOf("worker a:1", 7000, { 0: 1, 1: 1, 4: 0 })
const living = processOf("worker b:2", 500, { 2: 1, 3: 0 })

describe("partitions that change hands", () => {
  it.effect("are told of in one line an owner, with how long nobody ran them", () =>
    Effect.gen(function* () {
      const mine = processOf("mine", 0, { 0: 1, 1: 1, 2: 1, 3: 1, 5: 1 })
      const { lines, fields, gain, read, asked } = yield* member(() => Effect.succeed([dead, living, mine]))
      for (const partition of [0, 1, 2, 3, 5]) yield* gain(partition)
      assert.strictEqual(asked(), 1)
      yield* TestClock.adjust("300 millis")
      for (const partition of [1, 0, 2]) yield* read(partition)
      yield* TestClock.adjust("400 millis")
      for (const partition of [3, 5]) yield* read(partition)
      assert.deepStrictEqual(lines, [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(lines, [
        "process takes over partitions 0-1 of worker a:1, silent for 7.3 s; recovered in 0.3 s",
        "process takes over partitions 2-3 of worker b:2; recovered in 0.7 s",
        "process takes over partition 5 of nobody that is known; recovered in 0.7 s"
      ])
      assert.deepStrictEqual(fields[0], {
        event: "taken over",
        group: "process",
        partitions: [0, 1],
        recovering_ms: 300,
        from: "worker a:1",
        silent_ms: 7300
      })
      // Started again, what a partition goes on with is no take-over.
      yield* read(0)
      yield* TestClock.adjust("5 seconds")
      assert.lengthOf(lines, 3)
    }).pipe(Effect.scoped)
  )

  it.effect("are told of when they go, and again when they come back, and are shown meanwhile", () =>
    Effect.gen(function* () {
      const { lines, fields, gain, read } = yield* member(() => Effect.succeed([processOf("worker b:2", 500, {})]))
      const shown = Effect.map(Metric.snapshot, (all) =>
        all.flatMap(({ id, attributes, state }) =>
          id === metrics.partitionsAssigned.id ? [[attributes?.partition, (state as { value: number }).value]] : []
        )
      )
      const revoke = [yield* gain(7, false), yield* gain(8, false)]
      yield* read(7)
      assert.includeDeepMembers(yield* shown, [
        ["7", 1],
        ["8", 1]
      ])
      yield* Effect.all(revoke)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(lines, ["process gives up partitions 7-8"])
      assert.deepStrictEqual(fields, [{ event: "given up", group: "process", partitions: [7, 8] }])
      assert.includeDeepMembers(yield* shown, [
        ["7", 0],
        ["8", 0]
      ])
      yield* gain(8)
      yield* read(8)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(lines[1], "process takes over partition 8 of this process itself; recovered in 0.0 s")
    }).pipe(Effect.scoped)
  )

  it.effect("are taken over all the same where nobody can be asked", () =>
    Effect.gen(function* () {
      const refused = new CacheError({ operation: "all", message: "no answer" })
      let answer: Effect.Effect<ReadonlyArray<WorkerFigures>, CacheError> = Effect.fail(refused)
      const { lines, gain, read } = yield* member(() => answer)
      yield* gain(1)
      yield* read(1)
      yield* TestClock.adjust("2 seconds")
      answer = Effect.never
      yield* gain(2)
      yield* read(2)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(lines, [
        "process takes over partition 1 of nobody that is known; recovered in 0.0 s",
        "process takes over partition 2 of nobody that is known; recovered in 0.0 s"
      ])
    }).pipe(Effect.scoped)
  )
})
