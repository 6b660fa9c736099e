import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric, References } from "effect"
import { TestClock } from "effect/testing"
import type { DeadLetter } from "../../../src/streams/process/batch.ts"
import { type FeedClocks, feedClocks, MAX_NAMED } from "../../../src/streams/process/feedClocks.ts"
import { makeStates, stages } from "../../../src/streams/process/process.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { settings } from "./stageTests.ts"

const NOW = Date.UTC(2026, 0, 16, 4, 30) * 1000

/** The dead letters of ticks that feeds stamp ahead by so many ms. */
const letters = (...feeds: ReadonlyArray<readonly [feed: string, ahead: number]>): ReadonlyArray<DeadLetter> => {
  const stage = stages(makeStates(), "raw", { partition: 0, partitions: 1 }, settings, () => {})
  const records = feeds.map(([feed, ahead], offset) => ({
    offset,
    recordTime: NOW,
    key: null,
    value: Buffer.from(JSON.stringify({ instrument_token: 1, exchange_ts: NOW + ahead * 1000, price: 1, feed }))
  }))
  return stage.normalize(stage.decode(records)).dead
}

const withClocks = (
  body: (clocks: FeedClocks, degraded: Effect.Effect<ReadonlyArray<string>>) => Effect.Effect<void, never, Readiness>
) =>
  Effect.gen(function* () {
    const readiness = yield* Readiness
    yield* body(
      yield* feedClocks,
      Effect.map(readiness.report, ({ degraded }) => degraded)
    )
  }).pipe(
    Effect.scoped,
    Effect.provide(Readiness.layer),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

const gauge = (feed: string) =>
  Effect.map(Metric.snapshot, (all) => {
    const found = all.find((m) => m.id === "topology_feed_clock_ahead_seconds" && m.attributes?.feed === feed)
    return (found!.state as { readonly value: number }).value
  })

describe("a feed whose clock is ahead", () => {
  it.effect("is named with how far, until a minute after its last stamp that was", () =>
    withClocks(({ note }, degraded) =>
      Effect.gen(function* () {
        yield* note(letters(["dma", 16_000], ["dma", 6000], ["snapshot", 100]))
        assert.deepStrictEqual(yield* degraded, ["feed dma: its clock is 16.0 s ahead"])
        assert.strictEqual(yield* gauge("dma"), 16)
        yield* TestClock.adjust("40 seconds")
        yield* note(letters(["dma", 16_250]))
        assert.deepStrictEqual(yield* degraded, ["feed dma: its clock is 16.3 s ahead"])
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual((yield* degraded).length, 1)
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* degraded, [])
        assert.strictEqual(yield* gauge("dma"), 0)
      })
    )
  )

  it.effect("is one of a few: names that anybody makes up do not fill what is degraded", () =>
    withClocks(({ note }, degraded) =>
      Effect.gen(function* () {
        yield* note(letters(...Array.from({ length: 100 }, (_, i) => [`feed-${i}`, 9000] as const)))
        assert.strictEqual((yield* degraded).length, MAX_NAMED)
        assert.strictEqual(yield* gauge("other"), 9)
      })
    )
  )

  it.effect("is named no longer by a group that ends", () =>
    Effect.gen(function* () {
      const readiness = yield* Readiness
      yield* Effect.scoped(Effect.flatMap(feedClocks, ({ note }) => note(letters(["dma", 16_000]))))
      assert.deepStrictEqual((yield* readiness.report).degraded, [])
    }).pipe(Effect.provide(Readiness.layer), Effect.provideService(References.MinimumLogLevel, "None"))
  )
})
