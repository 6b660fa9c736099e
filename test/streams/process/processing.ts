/** Decides how tests run the group `process` over embedded services, by a clock that they turn, until it has taken all. */
import { Effect, Fiber, Metric, References, Result } from "effect"
import { TestClock } from "effect/testing"
import { LogError } from "../../../src/schema/Errors.ts"
import { readSettings } from "../../../src/schema/Settings.ts"
import { type NewRecord, TickLog } from "../../../src/streams/log/TickLog.ts"
import { runProcess } from "../../../src/streams/process/runProcess.ts"

/** 2026-01-16 10:00 IST, in ms. */
export const START = Date.UTC(2026, 0, 16, 4, 30)
/** With a checkpoint a batch. */
export const settings = { ...Result.getOrThrow(readSettings({})), SNAPSHOT_MS: 0 }

type Settings = Parameters<typeof runProcess>[0]

/** As a feed sends it, a millisecond for each number. */
export const raw = (sequence_id: number, more: object = {}): NewRecord => ({
  key: "1",
  value: Buffer.from(
    JSON.stringify({
      instrument_token: 1,
      exchange_ts: (START + sequence_id) * 1000,
      price: 1,
      volume: 1,
      sequence_id,
      ...more
    })
  )
})

/** Every number from the first to the last. */
export const numbers = (first: number, last: number): ReadonlyArray<number> =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i)

/** Runs the group until it has taken all there is: the clock is turned, so that a partition that failed begins again. */
export const processAll = (given: Settings = settings) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const fiber = yield* Effect.forkChild(runProcess(given), { startImmediately: true })
    yield* Effect.andThen(TestClock.adjust("50 millis"), log.lag).pipe(
      Effect.map((groups) => groups.some((g) => g.group === "process") && groups.every((g) => g.records === 0)),
      Effect.repeat({ until: (done) => done, times: 10_000 })
    )
    yield* Fiber.interrupt(fiber)
  })

/** Runs the group for so many turns. */
export const killedAfter = (turns: number, given: Settings = settings) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(runProcess(given), { startImmediately: true })
    for (let i = 0; i < turns; i++) yield* Effect.yieldNow
    yield* Fiber.interrupt(fiber)
  })

type Append = TickLog["Service"]["append"]

/** Appends of which those to normalized_ticks lose their reply, before or after they are made, as `fault` says of each. */
export const losingReplies =
  (append: Append, fault: () => "before" | "after" | undefined): Append =>
  (topic, ...rest) => {
    const lost = topic === "normalized_ticks" ? fault() : undefined
    const failure = new LogError({
      operation: "append",
      topic,
      partition: rest[0],
      outcome: "unknown",
      message: "the reply was lost"
    })
    if (lost === "before") return failure
    const appended = append(topic, ...rest)
    return lost === "after" ? Effect.andThen(appended, failure) : appended
  }

/** Counts for itself, and says nothing. */
export const apart = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  effect.pipe(
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
