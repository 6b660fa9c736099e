import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, References, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryCheckpoints from "../../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../../../src/layers/memory/MemoryClaims.ts"
import * as MemoryLog from "../../../src/layers/memory/MemoryLog.ts"
import { CacheError } from "../../../src/schema/Errors.ts"
import { decodeQuote } from "../../../src/schema/Quote.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { decodeTick } from "../../../src/schema/TickJson.ts"
import { MarkTracker } from "../../../src/streams/log/bookmark.ts"
import { type LogRecord, type NewRecord, TickLog } from "../../../src/streams/log/TickLog.ts"
import { Checkpoints } from "../../../src/streams/ports/Checkpoints.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { apart, killedAfter, losingReplies, processAll, START, settings } from "./processing.ts"

const BATCH = 7
/** One partition, so that every record is in the same order for every run. */
const Log = MemoryLog.layer({ partitions: 1, capacity: 100_000, dlqCapacity: 10_000, retained: 100_000, batch: BATCH })

const random = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const json = (fields: object, headers?: Record<string, string>): NewRecord => ({
  key: "1",
  value: Buffer.from(JSON.stringify(fields)),
  headers
})

/** Some of a book and a day, often as it was before; by the number of its packet, so that a seed's ticks stay its own. */
const bookAt = (i: number): object => ({
  ...(i % 3 === 0 ? { bid: [[1 + (i % 4) / 20, 1 + (i % 2), 1]] } : {}),
  ...(i % 5 === 0 ? { oi: i % 2 } : {}),
  ...(i % 7 === 0 ? { open: 1 } : {})
})

/**
 * Both feeds with gaps, duplicates, resets, content without numbers, day totals, an old day, poison and a replay; quotes
 * beside ticks and alone.
 */
const records = (seed: number, count: number): ReadonlyArray<NewRecord> => {
  const next = random(seed)
  const now = START * 1000
  const last = [0, 0, 0]
  return Array.from({ length: count }, (_, i) => {
    const token = Math.floor(next() * 3)
    const kind = next()
    if (kind < 0.02) return { key: null, value: Buffer.from("{") }
    const at = now + i * 1000 - (kind < 0.06 ? 86_400_000_000 : 0)
    if (kind < 0.12) {
      const fields = { instrument_token: token + 1, exchange_ts: at - (i % 3) * 2000, quote: bookAt(i) }
      return json(fields, i % 4 === 0 ? { replay: "r.1" } : undefined)
    }
    if (kind < 0.2) {
      return json({ instrument_token: token + 1, exchange_ts: at, price: 1 + (i % 5), feed: "other", day_volume: i })
    }
    const jump = next() < 0.1 ? 3 : next() < 0.2 ? -2 : next() < 0.02 ? 2_000_000 : 1
    const sequence_id = Math.max(1, last[token]! + jump)
    last[token] = Math.max(last[token]!, sequence_id)
    const quote = i % 2 === 0 ? {} : { quote: bookAt(i) }
    const tick = { instrument_token: token + 1, exchange_ts: at, price: (i % 4) - 1, volume: 1, sequence_id, ...quote }
    if (kind < 0.3) return json({ ...tick, session: 0 }, { replay: "r.1" })
    return json({
      ...tick,
      feed: next() < 0.7 ? "dma" : "checkpoint",
      ...(next() < 0.01 ? { reset: true, connection: `c${i}` } : {})
    })
  })
}

interface Faults {
  /** Fails an append to normalized_ticks before or after it was made, by its number. */
  readonly append?: (number: number) => "before" | "after" | undefined
  /** Loses every checkpoint; or those of so many runs, up to their kill. */
  readonly loseCheckpoints?: boolean | number
  /** The broker's stamp of each raw record, µs: each reading gives the highest that it has met. */
  readonly stamp?: (offset: number) => number
}

const stamped = <E, R>(
  records: Stream.Stream<Arr.NonEmptyReadonlyArray<LogRecord>, E, R>,
  stamp: (offset: number) => number
) =>
  Stream.suspend(() => {
    let recordTime = 0
    return Stream.map(
      records,
      Arr.map((record: LogRecord): LogRecord => {
        recordTime = Math.max(recordTime, stamp(record.offset))
        return { ...record, recordTime }
      })
    )
  })

/** The services of one run, with faults; `stop` completes the run when all is processed. */
const faulty = (faults: Faults, kills: () => number) => {
  let appends = 0
  const log = Layer.effect(
    TickLog,
    Effect.map(TickLog, (log) =>
      TickLog.of({
        ...log,
        assignments: (group, topic) =>
          Stream.map(log.assignments(group, topic), (assigned) => {
            const { stamp } = faults
            return stamp === undefined ? assigned : { ...assigned, read: (from) => stamped(assigned.read(from), stamp) }
          }),
        append: losingReplies(log.append, () => faults.append?.(appends++))
      })
    )
  ).pipe(Layer.provide(Log))
  const { loseCheckpoints = 0 } = faults
  const orGone = <A>(operation: "load" | "save", effect: Effect.Effect<A, CacheError>) =>
    Effect.suspend(() =>
      loseCheckpoints === true || kills() < Number(loseCheckpoints)
        ? Effect.fail(new CacheError({ operation, message: "gone" }))
        : effect
    )
  const checkpoints = Layer.effect(
    Checkpoints,
    Effect.map(Checkpoints, (kept) =>
      Checkpoints.of({
        ...kept,
        load: (...at) => orGone("load", kept.load(...at)),
        save: (...what) => orGone("save", kept.save(...what))
      })
    )
  ).pipe(Layer.provide(MemoryCheckpoints.layer))
  return Layer.fresh(Layer.mergeAll(log, checkpoints, MemoryClaims.layer(), Readiness.layer))
}

/** The tick or quote of a record. */
const packetOf = ({ value, headers }: LogRecord) =>
  (headers?.kind === "quote" ? decodeQuote(value!) : decodeTick(value!))!

/** What a reader that takes each source once sees, in order, without the incarnation. */
const seen = (found: ReadonlyArray<LogRecord>): ReadonlyArray<string> => {
  const mark = new MarkTracker(undefined)
  const out: Array<string> = []
  for (const record of found) {
    const packet = packetOf(record)
    if (!mark.take(packet.source)) continue
    const { replay = "", kind = "" } = record.headers ?? {}
    out.push(`${replay} ${kind} ${JSON.stringify({ ...packet, source: packet.source.slice(1) })}`)
  }
  return out
}

const published = Effect.gen(function* () {
  const log = yield* TickLog
  const { start, end } = yield* log.bounds("normalized_ticks", 0)
  const arrays = yield* log.read("normalized_ticks", 0, start).pipe(
    Stream.takeUntil((found) => found[found.length - 1]!.offset === end - 1),
    Stream.runCollect
  )
  return arrays.flat()
})

const publishedCount = Effect.flatMap(TickLog, (log) => Effect.map(log.bounds("normalized_ticks", 0), ({ end }) => end))
/** How much was published when a run was killed. */
const killedAt: Array<number> = []

interface Run {
  readonly faults?: Faults
  /** How many turns each killed run got. */
  readonly kills?: ReadonlyArray<number>
  /** 0: a checkpoint a batch. */
  readonly snapshotMs?: number
  /** How many instruments the partition holds. */
  readonly instruments?: number
}

/** Runs all records through the group: it is killed some turns after each start, then runs to the end. */
const run = (
  input: ReadonlyArray<NewRecord>,
  { faults = {}, kills = [], snapshotMs = 0, instruments = 100 }: Run = {}
) => {
  let killed = 0
  return Effect.gen(function* () {
    const own = { ...settings, SNAPSHOT_MS: snapshotMs, PROCESS_INSTRUMENTS: instruments }
    yield* TestClock.setTime(START)
    const log = yield* TickLog
    for (let at = 0; at < input.length; at += 50) {
      yield* log.append("raw_ticks", 0, input.slice(at, at + 50))
      yield* TestClock.adjust("50 millis")
    }
    for (const turns of kills) {
      yield* killedAfter(turns, own)
      killed++
      killedAt.push(yield* publishedCount)
    }
    yield* processAll(own)
    return yield* published
  }).pipe(
    Effect.provide(faulty(faults, () => killed)),
    apart,
    // In memory nothing waits: a fiber would do it all in one turn.
    Effect.provideService(References.MaxOpsBeforeYield, 8)
  )
}

const someKills = (next: () => number) => Array.from({ length: 20 }, () => Math.floor(next() * 200))

const SEEDS = [1, 2, 3, 4, 5, 6]
const COUNT = 600

describe("recovery of a partition (P3)", () => {
  it.effect("a group killed again and again publishes what one that never stopped does", () =>
    Effect.gen(function* () {
      for (const seed of SEEDS) {
        const input = records(seed, COUNT)
        // There are three: on every other seed one of them is forgotten again and again.
        const instruments = seed % 2 === 0 ? 100 : 2
        const whole = seen(yield* run(input, { instruments }))
        assert.isAbove(whole.length, COUNT / 2)
        const next = random(seed + 100)
        killedAt.length = 0
        const killed = yield* run(input, { kills: someKills(next), instruments })
        assert.deepStrictEqual(seen(killed), whole, `seed ${seed}`)
        assert.isAbove(killedAt.filter((count) => count > 0 && count < whole.length).length, 5)
      }
    })
  )

  it.effect("so does one that had its last checkpoint long ago, or none at all", () =>
    Effect.gen(function* () {
      for (const seed of SEEDS) {
        const input = records(seed, COUNT)
        const whole = seen(yield* run(input))
        const kills = [400, 900, 100, 1200]
        const never = { kills, snapshotMs: 3_600_000 }
        assert.deepStrictEqual(seen(yield* run(input, never)), whole, `seed ${seed}: no checkpoint taken`)
        const lost = { kills, faults: { loseCheckpoints: true } }
        assert.deepStrictEqual(seen(yield* run(input, lost)), whole, `seed ${seed}: checkpoints lost`)
      }
    })
  )

  it.effect("an append that failed, or whose reply was lost, changes nothing that a reader sees", () =>
    Effect.gen(function* () {
      for (const seed of SEEDS) {
        const input = records(seed, COUNT)
        const whole = seen(yield* run(input))
        for (const kind of ["before", "after"] as const) {
          const append = (number: number) => (number % 5 === 2 ? kind : undefined)
          assert.deepStrictEqual(seen(yield* run(input, { faults: { append } })), whole, `seed ${seed}: ${kind}`)
        }
      }
    })
  )

  it.effect("record time stands still, after a kill as without one, where the broker's clock stepped back", () =>
    Effect.gen(function* () {
      for (const seed of SEEDS) {
        const next = random(seed + 200)
        /** Every 20 records the clock steps back by up to a minute, and goes on from there. */
        const steps = Array.from({ length: COUNT / 20 }, () => Math.floor(next() * 60_000_000))
        const stamp = (offset: number) =>
          START * 1000 + offset * 20_000 - steps.slice(0, Math.floor(offset / 20)).reduce((sum, step) => sum + step, 0)
        // A replay's records are read again from its first on, and with them the highest stamp.
        const input = records(seed, COUNT).filter(({ headers }) => headers?.replay === undefined)
        const whole = seen(yield* run(input, { faults: { stamp } }))
        const kills = someKills(next)
        assert.deepStrictEqual(seen(yield* run(input, { faults: { stamp }, kills })), whole, `seed ${seed}`)
        const times = whole.map((line) => (JSON.parse(line.slice(line.indexOf("{"))) as Tick).received_ts)
        assert.deepStrictEqual(
          times,
          times.toSorted((a, b) => a - b)
        )
      }
    })
  )

  it.effect("publishes no quote twice that is the newest of what was published, live or of a replay", () =>
    Effect.gen(function* () {
      const at = { instrument_token: 1, exchange_ts: START * 1000 }
      for (const headers of [undefined, { replay: "r.1" }]) {
        // With a checkpoint behind it, and without.
        for (const SNAPSHOT_MS of [0, 3_600_000]) {
          const found = yield* Effect.gen(function* () {
            yield* TestClock.setTime(START)
            const log = yield* TickLog
            for (const oi of [1, 2, 3]) {
              yield* log.append("raw_ticks", 0, [json({ ...at, quote: { oi } }, headers)])
              yield* processAll({ ...settings, SNAPSHOT_MS })
            }
            return yield* published
          }).pipe(Effect.provide(faulty({}, () => 0)), apart)
          assert.deepStrictEqual(
            found.map((record) => packetOf(record).source[1]),
            [0, 1, 2]
          )
        }
      }
    })
  )

  it.effect("publishes nothing twice where every append was acknowledged", () =>
    Effect.gen(function* () {
      const input = records(9, COUNT)
      const repeats = (given: Run) =>
        Effect.map(run(input, given), (found) => {
          const sources = found.map((record) => packetOf(record).source.join())
          return sources.length - new Set(sources).size
        })
      // A kill may hit between an append and what follows it, but never makes the next owner repeat it.
      assert.strictEqual(yield* repeats({ kills: [300, 600, 900] }), 0)
      // Nor while what was published is run again from far back, with checkpoints on the way.
      for (const turns of [100, 200, 400, 800]) {
        killedAt.length = 0
        const faults = { loseCheckpoints: 1 }
        assert.strictEqual(yield* repeats({ kills: [4000, turns, turns], faults }), 0, `killed after ${turns} turns`)
        assert.isAbove(killedAt[0]!, COUNT / 4)
      }
    })
  )
})
