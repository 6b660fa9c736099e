import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { StoreError } from "../../../src/schema/Errors.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { retrySink } from "../../../src/streams/run/sinkRetry.ts"

const degraded = Effect.gen(function* () {
  return (yield* (yield* Readiness).report).degraded
})

/** A sink that fails for a reason until it has none. */
class Sink {
  reason: string | undefined
  readonly write = Effect.suspend(() =>
    this.reason === undefined
      ? Effect.void
      : Effect.fail(new StoreError({ operation: "write", message: this.reason, transient: true }))
  ).pipe(retrySink("store"))

  constructor(reason: string | undefined) {
    this.reason = reason
  }
}

const lines: Array<string> = []
const logger = Logger.make(({ message }) => {
  lines.push(String(message))
})
const services = Layer.merge(Readiness.layer, Logger.layer([logger]))

describe("a sink that fails", () => {
  it.effect("is told with each new reason, once a minute while it lasts, and once when it works again", () =>
    Effect.gen(function* () {
      lines.length = 0
      const sink = new Sink("57P01 terminating connection")
      const asking = yield* Effect.forkChild(sink.write)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(lines, ["store fails and is asked again: 57P01 terminating connection"])
      sink.reason = "53100 disk full"
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(lines.slice(1), ["store fails and is asked again: 53100 disk full"])
      yield* TestClock.adjust("5 minutes")
      assert.isAtLeast(lines.length, 6)
      assert.isAtMost(lines.length, 7)
      assert.deepStrictEqual([...new Set(lines.slice(1))], ["store fails and is asked again: 53100 disk full"])
      assert.deepStrictEqual(yield* degraded, ["store"])
      lines.length = 0
      sink.reason = undefined
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(asking)
      assert.deepStrictEqual(lines, ["store works again"])
      assert.deepStrictEqual(yield* degraded, [])
    }).pipe(Effect.provide(services))
  )

  it.effect("is told once as well where it neither answers nor fails, until it does", () =>
    Effect.gen(function* () {
      lines.length = 0
      const answer = yield* Deferred.make<void>()
      const asking = yield* Effect.forkChild(retrySink("store")(Deferred.await(answer)))
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual([yield* degraded, lines], [[], []])
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual([yield* degraded, lines], [["store"], ["store has not answered for 10 s"]])
      yield* Deferred.succeed(answer, undefined)
      yield* Fiber.join(asking)
      assert.deepStrictEqual(lines.slice(1), ["store works again"])
      assert.deepStrictEqual(yield* degraded, [])
      // Long work is not silent before it is done.
      const working = yield* Effect.forkChild(retrySink("candles", { isLong: true })(Effect.never))
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual([yield* degraded, lines.length], [[], 2])
      yield* Fiber.interrupt(working)
      // One that answers in time leaves nothing behind that speaks later.
      yield* retrySink("store")(Effect.void)
      yield* TestClock.adjust("5 minutes")
      assert.lengthOf(lines, 2)
    }).pipe(Effect.provide(services))
  )

  it.effect("stays degraded until each who asks it was served, or asks no more", () =>
    Effect.gen(function* () {
      const [one, other, third] = [new Sink("refused"), new Sink("refused"), new Sink("refused")]
      const asking = yield* Effect.forEach([one, other, third], (sink) => Effect.forkChild(sink.write))
      yield* TestClock.adjust("10 seconds")
      one.reason = undefined
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(asking[0]!)
      assert.deepStrictEqual(yield* degraded, ["store"])
      yield* Fiber.interrupt(asking[1]!)
      assert.deepStrictEqual(yield* degraded, ["store"])
      yield* Fiber.interrupt(asking[2]!)
      assert.deepStrictEqual(yield* degraded, [])
    }).pipe(Effect.provide(services))
  )
})
