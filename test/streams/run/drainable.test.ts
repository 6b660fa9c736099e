import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { LogError } from "../../../src/schema/Errors.ts"
import { type AssignedPartition, TickLog } from "../../../src/streams/log/TickLog.ts"
import { drainable } from "../../../src/streams/run/drainable.ts"

const Log = MemoryLog.layer({ partitions: 2, capacity: 100, dlqCapacity: 10, retained: 100, batch: 10 })

/** Joins the group; answers what it is assigned, as it is. */
const join = (log: TickLog["Service"]) =>
  Effect.gen(function* () {
    const assigned = yield* Queue.unbounded<AssignedPartition>()
    yield* log.assignments("g", "raw_ticks").pipe(
      Stream.runForEach((partition) => Queue.offer(assigned, partition)),
      Effect.forkScoped({ startImmediately: true })
    )
    return assigned
  })

/** A reader that has taken the first record and waits for more. */
const reading = (partition: AssignedPartition) =>
  Effect.gen(function* () {
    const taken = yield* Deferred.make<void>()
    const fiber = yield* partition.read(0).pipe(
      Stream.runForEach(() => Deferred.succeed(taken, undefined)),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* Deferred.await(taken)
    return fiber
  })

/** A log that does not answer the first commits. */
const refusing = (log: TickLog["Service"], commits: number): TickLog["Service"] => {
  let left = commits
  const refused = new LogError({
    operation: "commit",
    topic: "raw_ticks",
    partition: 0,
    outcome: "failed",
    message: "no answer"
  })
  return {
    ...log,
    assignments: (group, topic) =>
      Stream.map(log.assignments(group, topic), (assigned) => ({
        ...assigned,
        commit: (commit) => Effect.suspend(() => (left-- > 0 ? Effect.fail(refused) : assigned.commit(commit)))
      }))
  }
}

describe("a member that is to stop", () => {
  it.effect(
    "takes no more, and is done once what it took is committed; what is another's by now is not waited for",
    () =>
      Effect.gen(function* () {
        const log = yield* TickLog
        for (const partition of [0, 1])
          yield* log.append("raw_ticks", partition, [{ key: "1", value: Buffer.from("a") }])
        const begun = yield* Deferred.make<void>()
        const stoppable = drainable(log, Deferred.await(begun))
        const mine = yield* Queue.takeN(yield* join(stoppable.log), 2)
        const readers = yield* Effect.forEach(mine, reading)
        const theirs = yield* Queue.take(yield* join(log))
        const kept = mine.find(({ partition }) => partition !== theirs.partition)!
        yield* Deferred.succeed(begun, undefined)
        // Those that were taken away have ended, and so has the one that was kept.
        yield* Effect.forEach(readers, Fiber.join)
        yield* log.append("raw_ticks", kept.partition, [{ key: "1", value: Buffer.from("b") }])
        assert.deepStrictEqual(yield* Stream.runCollect(kept.read(1)), [])
        const drained = yield* Effect.forkChild(stoppable.drained, { startImmediately: true })
        assert.isUndefined(drained.pollUnsafe())
        yield* kept.commit({ offset: 1, metadata: "" })
        yield* Fiber.join(yield* Effect.forkChild(stoppable.drained, { startImmediately: true }))
        yield* Fiber.interrupt(drained)
      }).pipe(Effect.provide(Log), Effect.scoped)
  )

  it.effect("is not done before what it took is committed, also where a commit has failed before", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("raw_ticks", 0, [{ key: "1", value: Buffer.from("a") }])
      const begun = yield* Deferred.make<void>()
      const stoppable = drainable(refusing(log, 1), Deferred.await(begun))
      const mine = (yield* Queue.takeN(yield* join(stoppable.log), 2)).find(({ partition }) => partition === 0)!
      const reader = yield* reading(mine)
      assert.strictEqual((yield* Effect.flip(mine.commit({ offset: 1, metadata: "" }))).message, "no answer")
      yield* Deferred.succeed(begun, undefined)
      yield* Fiber.join(reader)
      const drained = yield* Effect.forkChild(stoppable.drained, { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(drained.pollUnsafe())
      assert.deepStrictEqual(yield* stoppable.underWay, new Map([["g", 1]]))
      yield* mine.commit({ offset: 1, metadata: "" })
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(drained)
      assert.deepStrictEqual(yield* stoppable.underWay, new Map())
    }).pipe(Effect.provide(Log), Effect.scoped)
  )

  it.effect("waits for what a new reading of a partition took, and no more for what one that ended had in hand", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("raw_ticks", 0, [
        { key: "1", value: Buffer.from("a") },
        { key: "1", value: Buffer.from("b") }
      ])
      const stoppable = drainable(log, Effect.never)
      const mine = (yield* Queue.takeN(yield* join(stoppable.log), 2)).find(({ partition }) => partition === 0)!
      const failed = yield* reading(mine)
      yield* Fiber.interrupt(failed)
      assert.deepStrictEqual(yield* stoppable.underWay, new Map([["g", 1]]))
      // Begun again, it has nothing in hand until it is handed something.
      assert.deepStrictEqual(yield* Stream.runCollect(mine.read(0, Effect.void)), [])
      assert.deepStrictEqual(yield* stoppable.underWay, new Map())
      yield* reading(mine)
      assert.deepStrictEqual(yield* stoppable.underWay, new Map([["g", 1]]))
      yield* mine.commit({ offset: 2, metadata: "" })
      yield* stoppable.drained
    }).pipe(Effect.provide(Log), Effect.scoped)
  )

  it.effect("that left the group, to join it again, has nothing under way of what it took before", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append("raw_ticks", 0, [{ key: "1", value: Buffer.from("a") }])
      const stoppable = drainable(log, Effect.never)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const mine = yield* Queue.takeN(yield* join(stoppable.log), 2)
          yield* reading(mine.find(({ partition }) => partition === 0)!)
          assert.deepStrictEqual(yield* stoppable.underWay, new Map([["g", 1]]))
        })
      )
      yield* stoppable.drained
      const again = (yield* Queue.takeN(yield* join(stoppable.log), 2)).find(({ partition }) => partition === 0)!
      yield* reading(again)
      assert.deepStrictEqual(yield* stoppable.underWay, new Map([["g", 1]]))
      yield* again.commit({ offset: 1, metadata: "" })
      yield* stoppable.drained
    }).pipe(Effect.provide(Log), Effect.scoped)
  )
})
