import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { supervise } from "../../src/commands/groups.ts"
import { LogError } from "../../src/schema/Errors.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"

const degraded = Effect.gen(function* () {
  return (yield* (yield* Readiness).report).degraded
})

describe("a part that fails", () => {
  it.effect("is started again, and degraded until it has run for a while", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => {
      lines.push(String(message))
    })
    let starts = 0
    const part = Effect.suspend(() =>
      ++starts <= 3
        ? Effect.andThen(Effect.sleep("5 seconds"), starts === 2 ? Effect.die("a defect") : Effect.fail("no broker"))
        : Effect.never
    )
    return Effect.gen(function* () {
      const readiness = yield* Readiness
      const supervised = yield* Effect.forkChild(supervise("store", part))
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(yield* degraded, [])
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(starts, 4)
      assert.strictEqual(lines.filter((line) => line.startsWith("store failed and starts again")).length, 3)
      assert.deepStrictEqual(yield* degraded, ["store"])
      // A sink of the same name that works again takes back only its own.
      const sink = {}
      yield* readiness.degrade("store", true, sink)
      yield* readiness.degrade("store", false, sink)
      assert.deepStrictEqual(yield* degraded, ["store"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* degraded, [])
      yield* Fiber.interrupt(supervised)
    }).pipe(Effect.provide(Layer.merge(Readiness.layer, Logger.layer([logger]))))
  })

  it.effect("says in one sentence what the world did to it, and where a defect of its own happened", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => {
      lines.push(String(message))
    })
    const anew = new LogError({
      operation: "read",
      topic: "raw_ticks",
      partition: -1,
      outcome: "failed",
      message: "topic raw_ticks was deleted and recreated",
      reason: "incarnation"
    })
    return Effect.gen(function* () {
      const parts = [Effect.fail(anew), Effect.die(new Error("a bug"))]
      const running = yield* Effect.forEach(parts, (part) => Effect.forkChild(supervise("process", part)))
      yield* TestClock.adjust("0 seconds")
      assert.strictEqual(lines[0], "process failed and starts again: topic raw_ticks was deleted and recreated")
      assert.match(lines[1]!, /^process failed and starts again: Error: a bug\n\s+at /)
      yield* Fiber.interruptAll(running)
    }).pipe(Effect.provide(Layer.merge(Readiness.layer, Logger.layer([logger]))))
  })
})
