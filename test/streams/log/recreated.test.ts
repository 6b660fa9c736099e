import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryClaims from "../../../src/layers/memory/MemoryClaims.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { LogError } from "../../../src/schema/Errors.ts"
import { epochOf, type Tick, tradingDay } from "../../../src/schema/Tick.ts"
import { decodeTick, encodeTick } from "../../../src/schema/TickJson.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import { Checkpoints } from "../../../src/streams/ports/Checkpoints.ts"
import { Claims } from "../../../src/streams/ports/Claims.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { makeTick } from "../../contract/ticks.ts"
import { apart, numbers, processAll, raw, START } from "../process/processing.ts"

const OLD_EPOCH = epochOf(tradingDay(START * 1000), (START - 60_000) * 1000)

const Services = Layer.mergeAll(
  MemoryLog.layer({ partitions: 1, capacity: 1000, dlqCapacity: 10, retained: 1000, batch: 5 }),
  MemoryClaims.layer(),
  // Redis forgets states, and keeps claims: what is run is always run from the log.
  Layer.succeed(Checkpoints, {
    partitions: (_incarnation, partitions) => Effect.succeed(partitions),
    load: () => Effect.undefined,
    save: () => Effect.succeed(true)
  }),
  Readiness.layer
)

/** Published while `raw_ticks` was another topic. */
const earlier = (sequence_id: number) =>
  makeTick({
    instrument_token: 1,
    exchange_ts: (START + sequence_id) * 1000,
    price: 1,
    volume: 1,
    sequence_id,
    epoch: OLD_EPOCH,
    position: sequence_id,
    source: ["gone", sequence_id, 0]
  })

const published = (tick: Tick) => ({ key: "1", value: Buffer.from(encodeTick(tick)) })

/** Twenty ticks were published and claimed. */
const publishedEarlier = Effect.gen(function* () {
  const log = yield* TickLog
  const claims = yield* Claims
  const old = numbers(1, 20).map(earlier)
  yield* log.append("normalized_ticks", 0, old.map(published))
  yield* claims.claim({ incarnation: "gone", partition: 0, through: 20 }, old)
})

/** What was published since, in the order of the log. */
const publishedSince = (offset: number) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const { end } = yield* log.bounds("normalized_ticks", 0)
    const arrays = yield* log.read("normalized_ticks", 0, 0).pipe(
      Stream.takeUntil((records) => records[records.length - 1]!.offset >= end - 1),
      Stream.runCollect
    )
    return arrays
      .flat()
      .filter((record) => record.offset >= offset)
      .map(({ value }) => decodeTick(value!)!)
  })

describe("raw_ticks deleted and recreated in the midst of a day", () => {
  it.effect("is a day whose state is lost: what was published before is known by its claims, also after a kill", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(START)
      const log = yield* TickLog
      yield* publishedEarlier

      // The other feed's copies come late, into the new topic.
      yield* log.append(
        "raw_ticks",
        0,
        [...numbers(15, 30), ...numbers(18, 25)].map((id) => raw(id))
      )
      yield* processAll()
      const first = yield* publishedSince(20)
      assert.deepStrictEqual(
        first.map(({ sequence_id, position }) => [sequence_id, position]),
        numbers(21, 30).map((id, i) => [id, i + 1])
      )
      assert.isTrue(first.every(({ epoch }) => epoch > OLD_EPOCH))

      // Run again from the log alone, with more of both.
      yield* log.append(
        "raw_ticks",
        0,
        [...numbers(1, 35)].map((id) => raw(id))
      )
      yield* processAll()
      const all = yield* publishedSince(20)
      assert.deepStrictEqual(
        all.map(({ sequence_id, position, epoch }) => [sequence_id, position, epoch]),
        numbers(21, 35).map((id, i) => [id, i + 1, first[0]!.epoch])
      )
    }).pipe(Effect.provide(Layer.fresh(Services)), apart)
  )

  it.effect("also where whoever asked for the claims did not come to publish", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(START)
      const log = yield* TickLog
      yield* publishedEarlier
      yield* log.append(
        "raw_ticks",
        0,
        [...numbers(11, 30), ...numbers(18, 25)].map((id) => raw(id))
      )
      let refused = 0
      const refusing = TickLog.of({
        ...log,
        append: (topic, partition, records, incarnation) => {
          if (topic !== "normalized_ticks" || refused === 2) return log.append(topic, partition, records, incarnation)
          refused++
          return new LogError({ operation: "append", topic, partition, outcome: "failed", message: "not now" })
        }
      })
      yield* processAll().pipe(Effect.provideService(TickLog, refusing))
      assert.strictEqual(refused, 2)
      const all = yield* publishedSince(20)
      assert.deepStrictEqual(
        all.map(({ sequence_id, position }) => [sequence_id, position]),
        numbers(21, 30).map((id, i) => [id, i + 1])
      )
    }).pipe(Effect.provide(Layer.fresh(Services)), apart)
  )
})

describe("a partition run again over what somebody else wrote into normalized_ticks", () => {
  it.effect("publishes all of its raw records, and takes no source, epoch or incarnation for its own", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(START)
      const log = yield* TickLog
      yield* log.append(
        "raw_ticks",
        0,
        numbers(1, 10).map((id) => raw(id))
      )
      yield* processAll()
      yield* TestClock.adjust("2 minutes")
      const incarnation = log.incarnation("raw_ticks")
      const forged = [
        { ...earlier(99), source: [incarnation, 9e15, 0] as const },
        { ...earlier(98), source: ["mirrored", 9e15, 0] as const, epoch: 9e15 },
        { ...earlier(97), source: [incarnation, 3, 0] as const, epoch: 9e15 }
      ]
      yield* log.append("normalized_ticks", 0, forged.map(published))
      yield* log.append(
        "raw_ticks",
        0,
        numbers(11, 20).map((id) => raw(id))
      )
      yield* processAll()
      const found = yield* publishedSince(13)
      assert.deepStrictEqual(
        found.map(({ sequence_id, position }) => [sequence_id, position]),
        numbers(11, 20).map((id) => [id, id])
      )
      assert.deepStrictEqual(
        new Set(found.map(({ epoch }) => epoch)),
        new Set([epochOf(tradingDay(START * 1000), START * 1000)])
      )
    }).pipe(Effect.provide(Layer.fresh(Services)), apart)
  )
})
