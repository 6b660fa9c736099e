import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import * as MemoryRecentQuotes from "../../../src/layers/memory/MemoryRecentQuotes.ts"
import { CacheError, LogError } from "../../../src/schema/Errors.ts"
import { encodeQuote, type Quote } from "../../../src/schema/Quote.ts"
import { encodeTick } from "../../../src/schema/TickJson.ts"
import { KIND_HEADER, QUOTE_KIND, REPLAY_HEADER } from "../../../src/streams/log/headers.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import { RecentQuotes } from "../../../src/streams/ports/RecentQuotes.ts"
import { RecentTicks } from "../../../src/streams/ports/RecentTicks.ts"
import { Drain } from "../../../src/streams/run/Drain.ts"
import { drainable } from "../../../src/streams/run/drainable.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { writeRecentTicks } from "../../../src/streams/sinks/writeRecentTicks.ts"
import { makeQuote, makeTick, OPEN } from "../../contract/ticks.ts"
import { countedOf } from "../../support/counted.ts"

const Log = MemoryLog.layer({ partitions: 1, capacity: 1000, dlqCapacity: 10, retained: 1000, batch: 10 })
const settings = { ON_LOST_OFFSETS: "fail" } as const

const records = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => {
    const n = from + i
    const tick = makeTick({ exchange_ts: OPEN + n, sequence_id: n, position: n + 1, source: ["raw-1", n, 0] })
    return { key: String(tick.instrument_token), value: Buffer.from(encodeTick(tick)) }
  })

/** A ring that answers while `isThere` says so. */
const ring = (isThere: () => boolean, taken: Array<number>) =>
  Layer.succeed(RecentTicks, {
    append: (ticks) =>
      Effect.suspend(() => {
        if (!isThere()) return Effect.fail(new CacheError({ operation: "append", message: "redis does not answer" }))
        for (const { sequence_id } of ticks) taken.push(sequence_id)
        return Effect.void
      }),
    last: () => Effect.succeed([]),
    after: () => Effect.succeed({ ticks: [], complete: false })
  })

const refused = new LogError({
  operation: "commit",
  topic: "normalized_ticks",
  partition: 0,
  outcome: "failed",
  message: "no answer"
})

describe("the ring's sink", () => {
  it.effect("holds no stop up where the ring does not answer, and commits nothing that the ring has not got", () => {
    const taken: Array<number> = []
    let isThere = true
    return Effect.gen(function* () {
      const log = yield* TickLog
      const drain = yield* Drain
      const stoppable = drainable(log, drain.begun)
      const sink = yield* Effect.forkChild(Effect.provideService(writeRecentTicks(settings), TickLog, stoppable.log))
      yield* log.append("normalized_ticks", 0, records(0, 3))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(taken, [0, 1, 2])
      isThere = false
      yield* log.append("normalized_ticks", 0, records(3, 3))
      yield* TestClock.adjust("1 hour")
      // Without a stop it is asked for ever.
      assert.isUndefined(sink.pollUnsafe())
      yield* drain.begin
      yield* TestClock.adjust("1 second")
      assert.isUndefined(sink.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(sink)
      yield* stoppable.drained
      assert.deepStrictEqual(yield* log.lag, [{ group: "recent", topic: "normalized_ticks", partition: 0, records: 3 }])
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          Log,
          Drain.layer,
          Readiness.layer,
          MemoryRecentQuotes.layer(),
          ring(() => isThere, taken)
        )
      )
    )
  })

  it.effect("commits what a stop found under way, also after a commit that failed", () => {
    const taken: Array<number> = []
    return Effect.gen(function* () {
      const log = yield* TickLog
      const drain = yield* Drain
      let refusals = 0
      const refusing = drainable(log, drain.begun)
      const lossy: TickLog["Service"] = {
        ...refusing.log,
        assignments: (group, topic) =>
          Stream.map(refusing.log.assignments(group, topic), (assigned) => ({
            ...assigned,
            commit: (commit) => Effect.suspend(() => (refusals++ < 3 ? Effect.fail(refused) : assigned.commit(commit)))
          }))
      }
      yield* Effect.forkChild(Effect.provideService(writeRecentTicks(settings), TickLog, lossy))
      yield* log.append("normalized_ticks", 0, records(0, 3))
      yield* TestClock.adjust("100 millis").pipe(Effect.repeat({ until: () => refusals > 0 }))
      assert.deepStrictEqual(taken, [0, 1, 2])
      yield* drain.begin
      const drained = yield* Effect.forkChild(refusing.drained, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isUndefined(drained.pollUnsafe())
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(drained)
      assert.deepStrictEqual(yield* log.lag, [{ group: "recent", topic: "normalized_ticks", partition: 0, records: 0 }])
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          Log,
          Drain.layer,
          Readiness.layer,
          MemoryRecentQuotes.layer(),
          ring(() => true, taken)
        )
      )
    )
  })

  it.live("puts the latest quotes beside its ticks, counted apart, but for old and replayed ones", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const { latest } = yield* RecentQuotes
      const quote = (offset: number, given: Partial<Quote> = {}) =>
        makeQuote({ exchange_ts: OPEN + offset, source: ["raw-1", offset, 1], ...given })
      const record = (of: Quote, run?: string) => ({
        key: String(of.instrument_token),
        value: Buffer.from(encodeQuote(of)),
        headers: { [KIND_HEADER]: QUOTE_KIND, ...(run === undefined ? {} : { [REPLAY_HEADER]: run }) }
      })
      const newest = quote(7, { oi: 70 })
      yield* log.append("normalized_ticks", 0, [
        ...records(0, 3),
        record(quote(3)),
        record(newest),
        record(quote(8, { exchange_ts: OPEN - 1, instrument_token: 9, old: true })),
        record(quote(9), "run.1")
      ])
      const sink = yield* Effect.forkChild(writeRecentTicks(settings))
      while ((yield* countedOf("ring-quotes")).received !== 4) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
      assert.deepInclude(yield* countedOf("ring-quotes"), { received: 4, sent: 2, old: 1, replay: 1 })
      assert.deepInclude(yield* countedOf("ring"), { received: 3, sent: 3 })
      assert.deepStrictEqual(yield* latest([newest.instrument_token, 9]), new Map([[newest.instrument_token, newest]]))
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          Log,
          Drain.layer,
          Readiness.layer,
          MemoryRecentQuotes.layer(),
          ring(() => true, [])
        )
      ),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )
})
