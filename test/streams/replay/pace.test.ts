import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Clock, Effect, Fiber, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { makePace, type Pace, QUANTUM_MS, STALL_MS, type Steps, type Timed } from "../../../src/streams/replay/pace.ts"

const BASE = 1_768_450_500_000_000
const at = (ms: number) => ({ exchange_ts: BASE + ms * 1000 })
const msOf = ({ exchange_ts }: { readonly exchange_ts: number }) => (exchange_ts - BASE) / 1000

/** Runs ticks through a pace and notes when (clock, ms) each array came out, and with what (market, ms). */
const run = Effect.fnUntraced(function* (pace: Pace, arrays: ReadonlyArray<ReadonlyArray<number>>) {
  const out: Array<readonly [number, ReadonlyArray<number>]> = []
  const ticks = Stream.fromIterable(arrays).pipe(
    Stream.flatMap((array) => Stream.fromArray(array.map(at))),
    (self) => pace.apply(self)
  )
  const fiber = yield* Effect.forkChild(
    Stream.runForEachArray(ticks, (array) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        out.push([now, array.map(msOf)])
      })
    )
  )
  return { out, fiber }
})

describe("pace", () => {
  it.effect("at 1x a tick comes out when its time has come, counted up to the quantum", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: 1, paused: false })
      const { out, fiber } = yield* run(pace, [[0, 5, 20, 21, 39.999, 40, 1000, 5000.001]])
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(out, [
        [0, [0]],
        [20, [5, 20]],
        [40, [21, 39.999, 40]],
        [1000, [1000]],
        [5020, [5000.001]]
      ])
    })
  )

  it.effect("at 10x the same ticks take a tenth, and a burst stays a burst", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: 10, paused: false })
      const { out, fiber } = yield* run(pace, [
        [0, 200, 201, 1000, 1000, 1000],
        [1000, 1000, 9000]
      ])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(out, [
        [0, [0]],
        [20, [200]],
        [40, [201]],
        [100, [1000, 1000, 1000]],
        [100, [1000, 1000]],
        [900, [9000]]
      ])
    })
  )

  it.effect("at inf nothing waits", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: Number.POSITIVE_INFINITY, paused: false })
      const { out, fiber } = yield* run(pace, [[0, 60_000], [3_600_000]])
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(out, [
        [0, [0, 60_000]],
        [0, [3_600_000]]
      ])
    })
  )

  it.effect("a pause holds the market where it is, also one at the start", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: 1, paused: true })
      const { out, fiber } = yield* run(pace, [[0, 100, 200, 300]])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(out, [])
      pace.resumeUnsafe()
      yield* TestClock.adjust("150 millis")
      assert.deepStrictEqual(out, [
        [1000, [0]],
        [1100, [100]]
      ])
      assert.strictEqual(pace.positionUnsafe(), BASE + 150_000)
      pace.pauseUnsafe()
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(out.length, 2)
      assert.strictEqual(pace.positionUnsafe(), BASE + 150_000)
      pace.resumeUnsafe()
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      const resumed = 1150 + 3_600_000
      assert.deepStrictEqual(out.slice(2), [
        // 50 ms after the resume, counted up to the quantum from there.
        [resumed + 60, [200]],
        [resumed + 160, [300]]
      ])
    })
  )

  it.effect("a change of speed holds from the instant it is made", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: 1, paused: false })
      const { out, fiber } = yield* run(pace, [[0, 100, 1100, 2100, 99_000_000]])
      yield* TestClock.adjust("100 millis")
      pace.setSpeedUnsafe(10)
      yield* TestClock.adjust("100 millis")
      pace.setSpeedUnsafe(0.5)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(out, [
        [0, [0]],
        [100, [100]],
        [200, [1100]],
        [2200, [2100]]
      ])
      pace.setSpeedUnsafe(Number.POSITIVE_INFINITY)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(out[4], [2200, [99_000_000]])
    })
  )

  it.effect("the position never passes a tick that has yet to come out", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: 1000, paused: false })
      const { fiber } = yield* run(pace, [[0, 500, 21_000]])
      assert.strictEqual(pace.positionUnsafe(), undefined)
      yield* TestClock.adjust("19 millis")
      assert.strictEqual(pace.positionUnsafe(), BASE + 500_000)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
    })
  )

  it.effect("what follows a long stall keeps its shape, what follows a short one catches up", () =>
    Effect.gen(function* () {
      const pace = yield* makePace({ speed: 1, paused: false })
      const out: Array<readonly [number, ReadonlyArray<number>]> = []
      const stalls = new Map([
        [0, 500],
        [2000, 2 * STALL_MS]
      ])
      const fiber = yield* pace.apply(Stream.fromArray([0, 100, 200, 2000, 2100, 2200, 3000].map(at))).pipe(
        Stream.runForEachArray((array) =>
          Effect.gen(function* () {
            out.push([yield* Clock.currentTimeMillis, array.map(msOf)])
            const stall = stalls.get(msOf(array[0]!))
            if (stall !== undefined) yield* Effect.sleep(stall)
          })
        ),
        Effect.forkChild
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(out, [
        [0, [0]],
        [500, [100, 200]],
        [2000, [2000]],
        [4000, [2100]],
        [4100, [2200]],
        [4900, [3000]]
      ])
    })
  )

  it.effect.prop(
    "at any speed every tick comes out once, in order, in the first quantum at or after its time",
    [
      Arbitrary.array(
        Arbitrary.schema(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 90_000 })))),
        {
          minLength: 1,
          maxLength: 80
        }
      ),
      Arbitrary.schema(Schema.Literals([0.3, 1, 3, 10, 77]))
    ],
    ([gapsMicros, speed]) =>
      Effect.gen(function* () {
        let micros = 0
        const ticks = gapsMicros.map((gap, i) => {
          micros += i === 0 ? 0 : gap
          return { exchange_ts: BASE + micros }
        })
        const start = yield* Clock.currentTimeMillis
        const pace = yield* makePace({ speed, paused: false })
        const out: Array<readonly [number, number]> = []
        const fiber = yield* pace.apply(Stream.fromIterable(ticks, { chunkSize: 7 })).pipe(
          Stream.runForEachArray((array) =>
            Effect.map(Clock.currentTimeMillis, (now) => {
              for (const tick of array) out.push([now - start, tick.exchange_ts])
            })
          ),
          Effect.forkChild
        )
        yield* TestClock.adjust("60 seconds")
        yield* Fiber.join(fiber)
        const quantumMicros = QUANTUM_MS * 1000 * speed
        assert.deepStrictEqual(
          out,
          ticks.map(({ exchange_ts }) => [Math.ceil((exchange_ts - BASE) / quantumMicros) * QUANTUM_MS, exchange_ts])
        )
      })
  )

  it.effect("a step lets out what it admits, at once whatever the speed, and the market stands where it says", () =>
    Effect.gen(function* () {
      const until = (ms: number): Steps<Timed> => {
        let isOver = false
        return {
          admits: (tick) => {
            isOver = msOf(tick) >= ms
            return !isOver
          },
          isOver: () => isOver,
          end: () => (isOver ? BASE + ms * 1000 : undefined)
        }
      }
      for (const speed of [1, Number.POSITIVE_INFINITY]) {
        let stepped = 0
        const pace = yield* makePace({ speed, paused: true, onStepped: () => stepped++ })
        const { out, fiber } = yield* run(pace, [[0, 100], [60_000], [61_000, 130_000]])
        yield* TestClock.adjust("1 second")
        const came = () => out.flatMap(([, ticks]) => ticks)
        const settle = Effect.forEach([1, 2, 3, 4, 5, 6], () => Effect.yieldNow, { discard: true })
        pace.stepUnsafe(until(60_000))
        yield* settle
        assert.deepStrictEqual([came(), stepped, pace.stepsUnsafe()], [[0, 100], 1, 0])
        assert.strictEqual(pace.positionUnsafe(), BASE + 60_000_000)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(out.length, 1)
        pace.stepUnsafe(until(60_500))
        pace.stepUnsafe(until(70_000))
        yield* settle
        assert.deepStrictEqual([came(), stepped], [[0, 100, 60_000, 61_000], 3])
        assert.strictEqual(pace.positionUnsafe(), BASE + 70_000_000)
        const resumed = yield* Clock.currentTimeMillis
        pace.resumeUnsafe()
        yield* TestClock.adjust("60 seconds")
        yield* Fiber.join(fiber)
        // From where the market stands.
        assert.deepStrictEqual(out.at(-1), [resumed + (speed === 1 ? 60_000 : 0), [130_000]])
      }
    })
  )
})
