import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { CacheError } from "../../../src/schema/Errors.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { retrySink } from "../../../src/streams/run/sinkRetry.ts"
import { together } from "../../../src/streams/run/together.ts"

const lines: Array<string> = []
const logger = Logger.make(({ message }) => {
  lines.push(String(message))
})
const services = Layer.merge(Readiness.layer, Logger.layer([logger]))

/** A sink that all partitions ask; it fails for a reason until it has none. */
class Sink {
  reason: string | undefined = "ECONNREFUSED"
  readonly #sayOf = together("ring")

  write(partition: number) {
    return Effect.suspend(() =>
      this.reason === undefined
        ? Effect.void
        : Effect.fail(new CacheError({ operation: "append", message: this.reason }))
    ).pipe(retrySink("ring", { say: this.#sayOf(partition) }))
  }
}

describe("what several partitions meet", () => {
  it.effect("is one line that names them, once a minute while it lasts, and one line once it is over", () =>
    Effect.gen(function* () {
      lines.length = 0
      const sink = new Sink()
      const asking = yield* Effect.forEach([0, 1, 2, 3, 4, 7], (partition) => Effect.forkChild(sink.write(partition)))
      yield* TestClock.adjust("30 seconds")
      const all = "ring fails and is asked again: ECONNREFUSED (partitions 0-4, 7)"
      assert.deepStrictEqual(lines, [all])
      // One more meets it later, on a quiet market.
      asking.push(yield* Effect.forkChild(sink.write(9)))
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(lines.slice(1), ["ring fails and is asked again: ECONNREFUSED (partitions 0-4, 7, 9)"])
      yield* TestClock.adjust("5 minutes")
      assert.isAtMost(lines.length, 14)
      lines.length = 0
      sink.reason = undefined
      yield* TestClock.adjust("20 seconds")
      yield* Fiber.joinAll(asking)
      assert.deepStrictEqual(lines, ["ring works again"])
    }).pipe(Effect.provide(services))
  )

  it.effect("is told as well where it is over before the line was written", () =>
    Effect.gen(function* () {
      lines.length = 0
      const sink = new Sink()
      const asking = yield* Effect.forkChild(sink.write(3))
      yield* TestClock.adjust("50 millis")
      sink.reason = undefined
      yield* TestClock.adjust("20 seconds")
      yield* Fiber.join(asking)
      assert.deepStrictEqual(lines, ["ring fails and is asked again: ECONNREFUSED (partition 3)", "ring works again"])
    }).pipe(Effect.provide(services))
  )

  it.effect("that is over with it is not said to be over", () =>
    Effect.gen(function* () {
      lines.length = 0
      const sayOf = together("process", { isOnce: true })
      for (const partition of [2, 0, 1]) yield* sayOf(partition)("fails and is recovered: no broker answers")
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(lines, ["process fails and is recovered: no broker answers (partitions 0-2)"])
    }).pipe(Effect.provide(services))
  )
})
