import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric, Result } from "effect"
import * as MemoryLog from "../../src/layers/MemoryLog.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { encodeTick } from "../../src/schema/TickJson.ts"
import { Drain } from "../../src/streams/Drain.ts"
import { Readiness } from "../../src/streams/Readiness.ts"
import { TickLog } from "../../src/streams/TickLog.ts"
import { writeStore } from "../../src/streams/writeStore.ts"
import { makeTick, OPEN } from "../contract/ticks.ts"
import { memoryStore, Rows } from "../http/memoryStore.ts"

const COUNT = 100
const Log = MemoryLog.layer({ partitions: 1, capacity: 1000, dlqCapacity: 10, retained: 1000, batch: 7 })
const settings = Result.getOrThrow(readSettings({ STORE_FLUSH_MS: "10" }))

/** Of every five ticks the store has dropped the day of two and has one already. */
const store = memoryStore(new Rows(), {
  write: ({ ticks }) => {
    const of = (rest: number) => ticks.filter((tick) => tick.sequence_id % 5 === rest).length
    return Effect.succeed({ added: ticks.length - of(0) - of(1) - of(2), dropped: of(0) + of(1) })
  },
  bookmarks: () => Effect.succeed([])
})

/** What the store's sink counted, by what became of the ticks. */
const counted = Effect.map(Metric.snapshot, (metrics) =>
  Object.fromEntries(
    metrics
      .filter(({ attributes }) => attributes?.stage === "store")
      .map(({ id, attributes, state }) => [
        attributes?.reason ?? id.replace(/^topology_stage_|_events_total$/g, ""),
        Number((state as { readonly count: number }).count)
      ])
  )
)

describe("the store's sink", () => {
  it.live("accounts for every tick: stored, there already, or of a day that the store has dropped", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      yield* log.append(
        "normalized_ticks",
        0,
        Array.from({ length: COUNT }, (_, n) => ({
          key: "1",
          value: Buffer.from(
            encodeTick(
              makeTick({
                instrument_token: 1,
                exchange_ts: OPEN + n,
                sequence_id: n,
                position: n + 1,
                source: ["raw-1", n, 0]
              })
            )
          )
        }))
      )
      const sink = yield* Effect.forkChild(writeStore(settings))
      while ((yield* counted).received !== COUNT) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(sink)
      assert.deepInclude(yield* counted, { received: 100, sent: 40, absorbed: 20, "dropped-day": 40 })
    }).pipe(
      Effect.provide(Layer.mergeAll(Log, store, Readiness.layer, Drain.layer)),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )
})
