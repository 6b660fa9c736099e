import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import * as MemoryLog from "../../src/layers/MemoryLog.ts"
import { drainable } from "../../src/streams/drainable.ts"
import { type AssignedPartition, TickLog } from "../../src/streams/TickLog.ts"

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
})
