import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryCounters from "../../src/layers/memory/MemoryCounters.ts"
import * as MemoryLog from "../../src/layers/memory/MemoryLog.ts"
import { CacheError, LogError } from "../../src/schema/Errors.ts"
import { TickLog, type Topic } from "../../src/streams/log/TickLog.ts"
import { Overview } from "../../src/streams/Overview.ts"
import { type ProcessLife, WorkerCounters, type WorkerReport } from "../../src/streams/ports/WorkerCounters.ts"
import { publishFigures } from "../../src/streams/publishFigures.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"

const ALL = ["process", "store", "recent", "archive"]
const server: ProcessLife = { life: "s", worker: "server a:1", role: "server", started_at: 0, stages: [] }
const worker = (life: string, given: Partial<WorkerReport> = {}): WorkerReport => ({
  life,
  worker: `worker a:${life}`,
  role: "worker",
  started_at: 0,
  stages: ALL,
  waiting: [],
  degraded: [],
  figures: [],
  ...given
})
const gone = new LogError({
  operation: "read",
  topic: "raw_ticks",
  partition: -1,
  outcome: "failed",
  message: "no broker answers"
})

/** What the server sees, and whether it answers at all. */
class World {
  isRedisGone = false
  isRedisShared = true
  isKafkaGone = false
  lag: Array<{ group: string; topic: Topic; partition: number; records: number }> = []
  members: Array<{ group: string; members: number }> = ALL.map((group) => ({ group, members: 0 }))
}

const within = <A, E>(
  world: World,
  test: (seen: {
    readonly publish: (report: WorkerReport) => Effect.Effect<void, CacheError>
    readonly withdraw: (life: string) => Effect.Effect<void, CacheError>
    readonly degraded: Effect.Effect<ReadonlyArray<string>>
    readonly overview: Overview["Service"]
  }) => Effect.Effect<A, E>,
  self = server
) => {
  const log = Layer.effect(
    TickLog,
    Effect.map(TickLog, (inner) => {
      const answer = <B>(of: () => B) => Effect.suspend(() => (world.isKafkaGone ? Effect.fail(gone) : Effect.sync(of)))
      return { ...inner, lag: answer(() => world.lag), members: answer(() => world.members) }
    })
  ).pipe(Layer.provide(MemoryLog.layer({ partitions: 2, capacity: 10, dlqCapacity: 10, retained: 10, batch: 1 })))
  const counters = Layer.effect(
    WorkerCounters,
    Effect.map(WorkerCounters, (inner) => ({
      ...inner,
      get shared() {
        return world.isRedisShared
      },
      // Hangs rather than refuses.
      all: Effect.suspend(() => (world.isRedisGone ? Effect.never : inner.all))
    }))
  ).pipe(Layer.provide(MemoryCounters.layer))
  return Effect.gen(function* () {
    const { publish, withdraw } = yield* WorkerCounters
    const readiness = yield* Readiness
    return yield* test({
      publish,
      withdraw,
      degraded: Effect.map(readiness.report, (report) => report.degraded),
      overview: yield* Overview
    })
  }).pipe(
    Effect.provide(
      Overview.layer({ self, expected: ALL }).pipe(
        Layer.provideMerge(Layer.mergeAll(log, counters, Readiness.layer)),
        Layer.fresh
      )
    )
  )
}

describe("what a server knows of all processes", () => {
  it.effect("names every group that nobody runs, and none once somebody does", () =>
    within(new World(), ({ publish, degraded }) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(
          yield* degraded,
          ALL.map((group) => `${group}: nobody runs it`)
        )
        yield* publish(worker("1", { stages: ["process", "store"] }))
        yield* publish(worker("2", { stages: ["recent"] }))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* degraded, ["archive: nobody runs it"])
      })
    )
  )

  it.effect("names a worker within five seconds of its last word, and its groups", () =>
    within(new World(), ({ publish, degraded, overview }) =>
      Effect.gen(function* () {
        yield* publish(worker("1"))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* degraded, [])
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(
          [...(yield* degraded)].sort(),
          ["worker a:1: silent", ...ALL.map((group) => `${group}: nobody runs it`)].sort()
        )
        const { processes, groups } = yield* overview.report
        assert.deepStrictEqual(
          processes?.map(({ living }) => living),
          [false]
        )
        assert.deepStrictEqual(
          groups.map(({ run_by }) => run_by),
          [[], [], [], []]
        )
        // Another has its groups: only who died is named, until it is listed no longer.
        yield* publish(worker("2"))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* degraded, ["worker a:1: silent"])
        yield* Effect.forkScoped(publish(worker("2")).pipe(Effect.andThen(Effect.sleep("1 second")), Effect.forever))
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(yield* degraded, [])
      }).pipe(Effect.scoped)
    )
  )

  it.effect("names nobody who has left in order", () =>
    within(new World(), ({ publish, withdraw, degraded }) =>
      Effect.gen(function* () {
        yield* publish(worker("1"))
        yield* publish(worker("2", { stages: ["process"] }))
        yield* withdraw("2")
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* degraded, [])
      })
    )
  )

  it.effect("passes on what living workers call degraded, cut where it is long", () =>
    within(new World(), ({ publish, degraded }) =>
      Effect.gen(function* () {
        yield* publish(worker("1", { degraded: ["ring", "x".repeat(5000)] }))
        yield* TestClock.adjust("2 seconds")
        const [first, second] = yield* degraded
        assert.strictEqual(first, "worker a:1: ring")
        assert.isAtMost(second!.length, 201)
        yield* publish(worker("1"))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* degraded, [])
      })
    )
  )

  it.effect("tells by the log's members who runs what while the workers cannot be asked", () => {
    const world = new World()
    return within(world, ({ publish, degraded, overview }) =>
      Effect.gen(function* () {
        yield* publish(worker("1"))
        yield* TestClock.adjust("1 second")
        world.isRedisGone = true
        world.members = ALL.map((group) => ({ group, members: group === "store" ? 0 : 1 }))
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* degraded, ["store: nobody runs it"])
        const { processes, groups } = yield* overview.report
        assert.isNull(processes)
        assert.deepStrictEqual(
          groups.map(({ run_by, members }) => [run_by, members]),
          ALL.map((group) => [null, group === "store" ? 0 : 1])
        )
      })
    )
  })

  it.effect("says that a lag is not known rather than none where the log does not answer", () => {
    const world = new World()
    world.lag = [0, 1].map((partition) => ({ group: "process", topic: "raw_ticks", partition, records: 5 }))
    return within(world, ({ overview }) =>
      Effect.gen(function* () {
        const lag = Effect.map(overview.report, ({ groups }) => groups.find(({ group }) => group === "process")?.lag)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* lag, 10)
        world.isKafkaGone = true
        yield* TestClock.adjust("5 seconds")
        assert.isNull(yield* lag)
        world.isKafkaGone = false
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* lag, 10)
      })
    )
  })

  it.effect("does not call behind what the archive gathers", () => {
    const world = new World()
    world.lag = [0, 1].map((partition) => ({
      group: "archive",
      topic: "normalized_ticks",
      partition,
      records: 1000 + partition
    }))
    const labels = (partition: number) => ({
      group: "archive",
      topic: "normalized_ticks",
      partition: String(partition)
    })
    return within(world, ({ publish, overview }) =>
      Effect.gen(function* () {
        yield* publish(
          worker("1", {
            figures: [
              { name: "topology_group_held_records", labels: labels(0), value: 980 },
              { name: "topology_consumer_lag_records", labels: labels(0), value: 990 },
              { name: "topology_consumer_lag_records", labels: labels(1), value: 991 }
            ]
          })
        )
        yield* TestClock.adjust("1 second")
        const archive = Effect.map(overview.report, ({ groups }) => {
          const { lag, held } = groups.find(({ group }) => group === "archive")!
          return { lag, held }
        })
        assert.deepStrictEqual(yield* archive, { lag: 1011, held: 980 })
        // Once its worker is gone nobody gathers anything: it all has to be read again.
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual(yield* archive, { lag: 2001, held: 0 })
        // Where workers cannot be asked, nobody can tell what is gathered.
        world.isRedisGone = true
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* archive, { lag: null, held: 0 })
      })
    )
  })

  it.effect("is enough for a process that runs everything itself", () => {
    const world = new World()
    world.isRedisShared = false
    return within(
      world,
      ({ degraded, overview }) =>
        Effect.gen(function* () {
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual(yield* degraded, [])
          const { groups, shared } = yield* overview.report
          assert.isFalse(shared)
          assert.deepStrictEqual(
            groups.map(({ run_by }) => run_by),
            ALL.map(() => [server.worker])
          )
        }),
      { ...server, stages: ALL }
    )
  })
})

describe("a process's own entry", () => {
  it.effect("is kept fresh, says what is degraded, and is taken back at the end", () =>
    Effect.gen(function* () {
      const counters = yield* WorkerCounters
      const readiness = yield* Readiness
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Layer.build(publishFigures({ ...server, role: "worker", stages: ["process"] }))
          yield* TestClock.adjust("2 seconds")
          yield* readiness.degrade("ring", true)
          yield* readiness.condition("the log")
          yield* TestClock.adjust("1 second")
          const [mine] = yield* counters.all
          assert.deepInclude(mine, { life: "s", stages: ["process"], degraded: ["ring"], waiting: ["the log"] })
          assert.isAtMost(mine!.silent_ms, 1000)
        })
      )
      assert.deepStrictEqual(yield* counters.all, [])
    }).pipe(Effect.provide(Layer.merge(MemoryCounters.layer, Readiness.layer)))
  )

  it.effect("names redis within a second or two where it is not taken, and no longer", () => {
    let isGone = false
    const counters = Layer.effect(
      WorkerCounters,
      Effect.map(WorkerCounters, (inner) => ({
        ...inner,
        publish: (report: WorkerReport) =>
          isGone
            ? Effect.fail(new CacheError({ operation: "publish", message: "ECONNREFUSED" }))
            : inner.publish(report)
      }))
    ).pipe(Layer.provide(MemoryCounters.layer))
    return Effect.gen(function* () {
      const readiness = yield* Readiness
      const degraded = Effect.map(readiness.report, (report) => report.degraded)
      yield* Layer.build(publishFigures(server))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* degraded, [])
      isGone = true
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* degraded, ["redis"])
      isGone = false
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* degraded, [])
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(counters, Readiness.layer)))
  })
})
