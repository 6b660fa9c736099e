import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { LogError } from "../../../src/schema/Errors.ts"
import { commitLater } from "../../../src/streams/log/commitLater.ts"
import type { AssignedPartition } from "../../../src/streams/log/TickLog.ts"

/** A partition whose commits take 10 ms each; those of the offsets named are refused. */
const partition = (refused: ReadonlyArray<number> = []) => {
  const begun: Array<number> = []
  const done: Array<number> = []
  let underWay = 0
  const assigned: AssignedPartition = {
    partition: 0,
    committed: undefined,
    revoked: Effect.never,
    read: () => Stream.empty,
    commit: ({ offset }) =>
      Effect.gen(function* () {
        begun.push(offset)
        assert.strictEqual(++underWay, 1, "one commit at a time")
        yield* Effect.sleep("10 millis").pipe(Effect.ensuring(Effect.sync(() => underWay--)))
        if (refused.includes(offset)) {
          return yield* new LogError({
            operation: "commit",
            topic: "raw_ticks",
            partition: 0,
            outcome: "failed",
            message: "another member has it"
          })
        }
        done.push(offset)
      })
  }
  return { assigned, begun, done }
}

const at = (offset: number) => ({ offset, metadata: `at ${offset}` })

describe("commits beside the work", () => {
  it.effect("go one at a time, and of those that come meanwhile only the newest", () =>
    Effect.gen(function* () {
      const { assigned, begun, done } = partition()
      let told = 0
      const commits = yield* commitLater(assigned, () => told++)
      commits.commit(at(10))
      yield* TestClock.adjust("5 millis")
      for (const offset of [20, 30, 40]) commits.commit(at(offset))
      yield* TestClock.adjust("4 millis")
      assert.deepStrictEqual([begun, done, told], [[10], [], 0])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([begun, done, told], [[10, 40], [10], 1])
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual([begun, done, told], [[10, 40], [10, 40], 2])
      // Nothing more came, so nothing more goes.
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(begun, [10, 40])
    }).pipe(Effect.scoped)
  )

  it.effect("are settled once nothing waits, and not while the newest has yet to go", () =>
    Effect.gen(function* () {
      const { assigned, done } = partition()
      const commits = yield* commitLater(assigned, () => {})
      yield* commits.settled
      commits.commit(at(10))
      const waiting = yield* Effect.forkChild(
        Effect.andThen(
          commits.settled,
          Effect.sync(() => [...done])
        ),
        { startImmediately: true }
      )
      yield* TestClock.adjust("5 millis")
      commits.commit(at(20))
      yield* TestClock.adjust("14 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Fiber.join(waiting), [10, 20])
      yield* commits.settled
    }).pipe(Effect.scoped)
  )

  it.effect("refused are no failure, are settled only once one is taken, and do not stop the next", () =>
    Effect.gen(function* () {
      const { assigned, begun, done } = partition([10])
      let told = 0
      const commits = yield* commitLater(assigned, () => told++)
      commits.commit(at(10))
      const settled = yield* Effect.forkChild(commits.settled, { startImmediately: true })
      yield* TestClock.adjust("10 millis")
      assert.isUndefined(settled.pollUnsafe())
      commits.commit(at(20))
      yield* TestClock.adjust("10 millis")
      yield* Fiber.join(settled)
      assert.deepStrictEqual([begun, done, told], [[10, 20], [20], 1])
    }).pipe(Effect.scoped)
  )

  it.effect("end, and are settled, once the partition is another's", () =>
    Effect.gen(function* () {
      const { assigned, begun } = partition([10])
      const revoked = yield* Deferred.make<void>()
      const commits = yield* commitLater({ ...assigned, revoked: Deferred.await(revoked) }, () => {})
      commits.commit(at(10))
      yield* TestClock.adjust("10 millis")
      yield* Deferred.succeed(revoked, undefined)
      yield* commits.settled
      commits.commit(at(20))
      yield* commits.settled
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(begun, [10])
    }).pipe(Effect.scoped)
  )

  it.effect("that failed are sent again, though nothing more comes, until they are taken", () =>
    Effect.gen(function* () {
      const refused = [10]
      const { assigned, begun, done } = partition(refused)
      const commits = yield* commitLater(assigned, () => {})
      commits.commit(at(10))
      yield* TestClock.adjust("2500 millis")
      assert.deepStrictEqual([begun, done], [[10, 10, 10], []])
      refused.length = 0
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([begun, done], [[10, 10, 10, 10], [10]])
      yield* commits.settled
    }).pipe(Effect.scoped)
  )

  it.effect("end with the scope", () =>
    Effect.gen(function* () {
      const { assigned, begun, done } = partition()
      const scope = yield* Scope.make()
      const commits = yield* Scope.provide(
        commitLater(assigned, () => {}),
        scope
      )
      commits.commit(at(10))
      yield* TestClock.adjust("5 millis")
      yield* Scope.close(scope, Exit.void)
      commits.commit(at(20))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([begun, done], [[10], []])
    })
  )
})
