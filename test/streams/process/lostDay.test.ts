import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Metric, References, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryCheckpoints from "../../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../../../src/layers/memory/MemoryClaims.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { CacheError } from "../../../src/schema/Errors.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { decodeTick } from "../../../src/schema/TickJson.ts"
import { type NewRecord, TickLog } from "../../../src/streams/log/TickLog.ts"
import { Checkpoints } from "../../../src/streams/ports/Checkpoints.ts"
import { Claims } from "../../../src/streams/ports/Claims.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { makeTick } from "../../contract/ticks.ts"
import { apart, killedAfter, losingReplies, numbers, processAll, raw, START } from "./processing.ts"

const A_DAY = 86_400_000
const BATCH = 7
/** Keeps so little that it soon holds no day any more. */
const Log = MemoryLog.layer({ partitions: 1, capacity: 100_000, dlqCapacity: 100, retained: 30, batch: BATCH })

/** What a test does to the services while they run. */
interface Faults {
  /** Every checkpoint so far is gone. */
  loseCheckpoints: boolean
  claimsAway: boolean
  /** What happens to an append to normalized_ticks, by its number. */
  append: ((number: number) => "before" | "after" | undefined) | undefined
}

const services = (faults: Faults) => {
  let appends = 0
  const log = Layer.effect(
    TickLog,
    Effect.map(TickLog, (log) =>
      TickLog.of({
        ...log,
        append: losingReplies(log.append, () => faults.append?.(appends++))
      })
    )
  ).pipe(Layer.provide(Log))
  const checkpoints = Layer.effect(
    Checkpoints,
    Effect.map(Checkpoints, (kept) => {
      let since = -1
      return Checkpoints.of({
        ...kept,
        load: (incarnation, partition) =>
          Effect.map(kept.load(incarnation, partition), (checkpoint) => {
            if (faults.loseCheckpoints) since = checkpoint?.rawOffset ?? since
            faults.loseCheckpoints = false
            return checkpoint === undefined || checkpoint.rawOffset <= since ? undefined : checkpoint
          }),
        save: (partition, changed, from) => kept.save(partition, changed, from)
      })
    })
  ).pipe(Layer.provide(MemoryCheckpoints.layer))
  const claims = Layer.effect(
    Claims,
    Effect.map(Claims, (there) =>
      Claims.of({
        claim: (raw, ticks) =>
          faults.claimsAway
            ? Effect.fail(new CacheError({ operation: "claim", message: "nobody there" }))
            : there.claim(raw, ticks)
      })
    )
  ).pipe(Layer.provide(MemoryClaims.layer()))
  return Layer.fresh(Layer.mergeAll(log, checkpoints, claims, Readiness.layer))
}

const range = (first: number, last: number, more: object = {}) => numbers(first, last).map((id) => raw(id, more))

const send = (records: ReadonlyArray<NewRecord>) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    for (let at = 0; at < records.length; at += 20) {
      yield* log.append("raw_ticks", 0, records.slice(at, at + 20))
      yield* TestClock.adjust("20 millis")
    }
  })

const figure = (stage: string, reason?: string) =>
  Effect.map(Metric.snapshot, (metrics) => {
    const sums: Record<string, number> = {}
    for (const { id, attributes, state } of metrics) {
      if (attributes?.stage !== stage || (reason !== undefined && attributes.reason !== reason)) continue
      sums[id] = (sums[id] ?? 0) + Number((state as { count: number }).count)
    }
    return sums
  })

/** The one account of P1: whatever a stage took in it handed on or counted as taken out. */
const closes = Effect.gen(function* () {
  for (const stage of ["decode", "normalize", "deduplicate", "sequence", "publish"]) {
    const all = yield* figure(stage)
    const discarded = all.topology_stage_discarded_events_total ?? 0
    const sent = all.topology_stage_sent_events_total!
    assert.strictEqual(all.topology_stage_received_events_total, sent + discarded, stage)
  }
})

const claimed = Effect.map(
  figure("deduplicate", "claimed"),
  (found) => found.topology_stage_discarded_events_total ?? 0
)

type Body = (
  faults: Faults,
  /** What a reader that takes each source once has seen so far. */
  seen: () => ReadonlyArray<Tick>
) => Effect.Effect<void, unknown, TickLog | Claims | Checkpoints | Readiness>

const run = (body: Body) => {
  const faults: Faults = { loseCheckpoints: false, claimsAway: false, append: undefined }
  return Effect.gen(function* () {
    yield* TestClock.setTime(START)
    const log = yield* TickLog
    const ticks: Array<Tick> = []
    let mark = -1
    yield* log.read("normalized_ticks", 0, 0).pipe(
      Stream.runForEach((records) =>
        Effect.sync(() => {
          for (const { value } of records) {
            const tick = decodeTick(value!)!
            if (tick.source[1] <= mark) continue
            mark = tick.source[1]
            ticks.push({ ...tick, source: ["", tick.source[1], tick.source[2]] })
          }
        })
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    // From its first member on, the log holds what the group has yet to take.
    yield* processAll()
    yield* body(faults, () => [...ticks])
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.suspend(() => services(faults))),
    apart,
    // In memory nothing waits: a fiber would do it all in one turn.
    Effect.provideService(References.MaxOpsBeforeYield, 8)
  )
}

const ids = (ticks: ReadonlyArray<Tick>) => ticks.map((tick) => tick.sequence_id)

describe("a day whose state was lost in the middle of it (P4)", () => {
  it.effect("claims decide there: what was published before the loss is a counted duplicate, and shows no gap", () =>
    run((faults, seen) =>
      Effect.gen(function* () {
        yield* send(range(1, 200))
        yield* processAll()
        faults.loseCheckpoints = true
        yield* send([...range(190, 205, { feed: "snapshot" }), raw(203), raw(206), raw(199), raw(207)])
        yield* processAll()
        assert.deepStrictEqual(ids(seen()), numbers(1, 207))
        const after = seen().slice(200)
        assert.deepStrictEqual(
          after.map(({ position, status, gap_from }) => [position, status, gap_from]),
          numbers(1, 7).map((position) => [position, "LIVE", 0])
        )
        // Within one second, which alone would give the same epoch again.
        assert.isAbove(after[0]!.epoch, seen()[0]!.epoch)
        // 190 to 200, and 199 again is known to the new state by then.
        assert.strictEqual(yield* claimed, 11)
        yield* closes
      })
    )
  )

  it.effect("what another partition has claimed is a duplicate there, and only there", () =>
    run((faults, seen) =>
      Effect.gen(function* () {
        const claims = yield* Claims
        const elsewhere = (sequence_id: number) =>
          makeTick({ instrument_token: 1, sequence_id, exchange_ts: (START + sequence_id) * 1000 })
        yield* claims.claim({ incarnation: "elsewhere", partition: 7, through: 9 }, [50, 210].map(elsewhere))
        yield* send(range(1, 200))
        yield* processAll()
        // With its own state the partition decides by that alone.
        assert.deepStrictEqual(ids(seen()), numbers(1, 200))
        faults.loseCheckpoints = true
        yield* send(range(201, 220))
        yield* processAll()
        assert.deepStrictEqual(
          ids(seen()),
          numbers(1, 220).filter((id) => id !== 210)
        )
        assert.strictEqual(seen().find((tick) => tick.sequence_id === 211)!.gap_from, 0)
        yield* closes
      })
    )
  )

  it.effect("until the day ends: the next one's state is whole", () =>
    run((faults, seen) =>
      Effect.gen(function* () {
        const claims = yield* Claims
        yield* send(range(1, 200))
        yield* processAll()
        faults.loseCheckpoints = true
        yield* send(range(201, 210))
        yield* processAll()
        yield* TestClock.adjust(A_DAY)
        const tomorrow = (sequence_id: number) => ({ exchange_ts: (START + A_DAY + sequence_id) * 1000 })
        const elsewhere = makeTick({ instrument_token: 1, sequence_id: 2, ...tomorrow(2) })
        yield* claims.claim({ incarnation: "elsewhere", partition: 7, through: 9 }, [elsewhere])
        yield* send([1, 2, 3].map((id) => raw(id, tomorrow(id))))
        yield* processAll()
        assert.deepStrictEqual(ids(seen()).slice(-3), [1, 2, 3])
        assert.strictEqual(yield* claimed, 0)
      })
    )
  )

  it.effect("numbers of a session that the log still shows are not taken for those of an older one", () =>
    run((faults, seen) =>
      Effect.gen(function* () {
        yield* send([...range(1, 150), raw(1, { reset: true, price: 2 }), ...range(2, 100, { price: 2 })])
        yield* processAll()
        faults.loseCheckpoints = true
        // 101 to 150 were claimed too, in the session before.
        yield* send([
          ...range(95, 130, { price: 2 }),
          raw(1, { reset: true, price: 3 }),
          ...range(2, 140, { price: 3 })
        ])
        yield* processAll()
        const after = seen().slice(250)
        assert.deepStrictEqual(
          after.map(({ session, sequence_id }) => [session, sequence_id]),
          [...numbers(101, 130).map((id) => [1, id]), ...numbers(1, 140).map((id) => [2, id])]
        )
        yield* closes
      })
    )
  )

  it.effect("a reset that is the first packet after the loss begins another session, numbers claimed or not", () =>
    run((faults, seen) =>
      Effect.gen(function* () {
        yield* send(range(1, 200))
        yield* processAll()
        faults.loseCheckpoints = true
        yield* send([raw(1, { reset: true, price: 2 }), ...range(2, 20, { price: 2 })])
        // The other feed's copies join it.
        yield* send([raw(1, { feed: "snapshot", reset: true, price: 2 }), raw(21, { feed: "snapshot", price: 2 })])
        yield* processAll()
        assert.deepStrictEqual(
          seen()
            .slice(200)
            .map(({ session, sequence_id }) => [session, sequence_id]),
          numbers(1, 21).map((id) => [1, id])
        )
      })
    )
  )

  it.effect("without claims it goes on: all is published, and it is counted as degraded", () =>
    run((faults, seen) =>
      Effect.gen(function* () {
        yield* send(range(1, 200))
        yield* processAll()
        faults.loseCheckpoints = true
        faults.claimsAway = true
        yield* send(range(195, 210))
        yield* processAll()
        assert.deepStrictEqual(ids(seen()), [...numbers(1, 200), ...numbers(195, 210)])
        const degraded = (yield* Metric.snapshot).find((m) => m.id === "topology_claims_degraded")
        assert.strictEqual((degraded!.state as { value: number }).value, 1)
        yield* closes
      })
    )
  )

  /** The loss, and then ticks half of which had been published before it; what a reader sees of it all. */
  const afterLoss = (
    trouble: (faults: Faults) => Effect.Effect<void, unknown, TickLog | Claims | Checkpoints | Readiness>
  ) => {
    let outcome: ReadonlyArray<Tick> = []
    return run((faults, seen) =>
      Effect.gen(function* () {
        yield* send(numbers(1, 200).flatMap((id) => [raw(id), raw(id, { instrument_token: 2 })]))
        yield* processAll()
        faults.loseCheckpoints = true
        yield* send(
          numbers(201, 300).flatMap((id) => [
            raw(id),
            raw(id - 120, { feed: "snapshot" }),
            raw(id, { instrument_token: 2 })
          ])
        )
        yield* trouble(faults)
        yield* processAll()
        outcome = seen()
      })
    ).pipe(Effect.map(() => outcome))
  }

  /** Nothing is lost, and positions have no hole; answers how many that were claimed before passed all the same. */
  const check = (ticks: ReadonlyArray<Tick>, what: string) => {
    for (const token of [1, 2]) {
      const mine = ticks.filter((tick) => tick.instrument_token === token)
      const distinct = [...new Set(ids(mine))]
      assert.deepStrictEqual(
        distinct.sort((a, b) => a - b),
        numbers(1, 300),
        what
      )
      for (let i = 1; i < mine.length; i++) {
        const { epoch, position } = mine[i - 1]!
        const follows = mine[i]!.epoch === epoch ? mine[i]!.position === position + 1 : mine[i]!.epoch > epoch
        assert.isTrue(follows, `${what}: ${JSON.stringify(mine[i])} after ${position} of ${epoch}`)
      }
    }
    return ticks.length - 600
  }

  it.effect("what claims decided is decided so again when it is run again: appends whose reply was lost", () =>
    Effect.gen(function* () {
      assert.strictEqual(check(yield* afterLoss(() => Effect.void), "whole"), 0)
      for (const every of [2, 3, 5]) {
        let appends = 0
        const outcome = yield* afterLoss((faults) =>
          Effect.sync(() => {
            faults.append = () => (appends++ % every === every - 1 ? "after" : undefined)
          })
        )
        // Asked again, a claim may be one's own: what came after the last one published in its batch passes.
        assert.isAtMost(check(outcome, `every ${every}`), 2 * Math.floor(appends / every))
      }
    })
  )

  it.effect("killed at any instant: nothing lost, positions without a hole", () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < 20; seed++) {
        const turns = [60 + 11 * seed, 200 + 17 * seed, 30 + 13 * seed]
        const outcome = yield* afterLoss(() => Effect.forEach(turns, (count) => killedAfter(count), { discard: true }))
        // At most the batch that was under way.
        assert.isAtMost(check(outcome, `seed ${seed}`), turns.length * BATCH)
      }
    })
  )
})
