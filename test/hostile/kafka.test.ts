/**
 * Hostile records in all topics of a real Kafka, with every group and a server's reader at work on it, all in this
 * process: good ticks behind each of them arrive everywhere, the DLQ has each bad one with its reason, and a start over
 * what lies there goes on as if it did not.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Metric, References, Result, Stream } from "effect"
import * as Kafka from "../../src/layers/kafka/KafkaLog.ts"
import * as MemoryCheckpoints from "../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryClaims from "../../src/layers/memory/MemoryClaims.ts"
import * as MemoryRecentQuotes from "../../src/layers/memory/MemoryRecentQuotes.ts"
import { partitionOf } from "../../src/schema/Partition.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { encodeTick } from "../../src/schema/TickJson.ts"
import { type Letter, listLetters, retryLetters, showLetter } from "../../src/streams/deadLetters.ts"
import { broadcast } from "../../src/streams/fanOut/broadcast.ts"
import { watermarkRecord } from "../../src/streams/log/headers.ts"
import { type NewRecord, TickLog, type Topic } from "../../src/streams/log/TickLog.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { RecentTicks } from "../../src/streams/ports/RecentTicks.ts"
import { runProcess } from "../../src/streams/process/runProcess.ts"
import { Drain } from "../../src/streams/run/Drain.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { writeArchive } from "../../src/streams/sinks/writeArchive.ts"
import { writeRecentTicks } from "../../src/streams/sinks/writeRecentTicks.ts"
import { writeStore } from "../../src/streams/sinks/writeStore.ts"
import { makeTick } from "../contract/ticks.ts"
import { memoryStore, Rows } from "../http/memoryStore.ts"
import { ENGINES, kafkaMissing, kafkaOptions } from "../support/kafka.ts"
import { RESERVED, shapes, validFields } from "./shapes.ts"

const PARTITIONS = 2
const settings = {
  ...Result.getOrThrow(readSettings({ STORE_FLUSH_MS: "20", ARCHIVE_FLUSH_MS: "1000" })),
  ARCHIVE_FLUSH_MS: 50,
  SNAPSHOT_MS: 200
}

/** An instrument of a partition, the n-th of those there. */
const tokenOf = (partition: number, n: number): number => {
  for (let token = 700_000, found = 0; ; token++) {
    if (partitionOf(token, PARTITIONS) === partition && found++ === n) return token
  }
}
const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition)
/** Of each partition the instrument whose ticks are good, and the one that hostile records name. */
const GOOD = partitions.map((partition) => tokenOf(partition, 0))
const ATTACKED = partitions.map((partition) => tokenOf(partition, 1))

/** The numbers of good ticks that a sink or the server took, by instrument. */
class Arrived {
  readonly #of = new Map<number, Set<number>>()
  take(token: number, sequenceId: number): void {
    const ids = this.#of.get(token)
    if (ids === undefined) this.#of.set(token, new Set([sequenceId]))
    else ids.add(sequenceId)
  }
  takeAll(ticks: ReadonlyArray<{ readonly instrument_token: number; readonly sequence_id: number }>): void {
    for (const { instrument_token, sequence_id } of ticks) this.take(instrument_token, sequence_id)
  }
  /** How many good ticks of each partition there are. */
  get counts(): ReadonlyArray<number> {
    return GOOD.map((token) => this.#of.get(token)?.size ?? 0)
  }
}

/** Every group and a server's reader on the log, with states of their own, until it is interrupted. */
const working = (places: Record<"store" | "archive" | "ring" | "server", Arrived>) => {
  const store = memoryStore(new Rows(), {
    write: ({ ticks }) =>
      Effect.sync(() => {
        places.store.takeAll(ticks)
        return { added: ticks.length }
      })
  })
  const archive = Layer.succeed(Archive, {
    begun: () => Effect.undefined,
    write: (_range, { instrument_token, sequence_id }) =>
      Effect.sync(() => {
        for (let i = 0; i < instrument_token.length; i++) places.archive.take(instrument_token[i]!, sequence_id[i]!)
        return instrument_token.length
      }),
    read: () => Stream.die("not a part of this test"),
    quotes: () => Stream.die("not a part of this test"),
    quotePage: () => Effect.succeed([]),
    quotesByTime: () => Effect.succeed([]),
    quoteTokens: () => Effect.succeed([]),
    ticks: () => Effect.succeed([]),
    minutes: () => Effect.succeed([]),
    add: () => Effect.void,
    compact: () => Effect.succeed(0),
    newestDays: () => Effect.succeed([]),
    list: () => Effect.succeed({ objects: [], unreadable: [] }),
    object: () => Effect.undefined,
    counts: () => Effect.succeed(new Map())
  })
  const ring = Layer.succeed(RecentTicks, {
    append: (ticks) => Effect.sync(() => places.ring.takeAll(ticks)),
    last: () => Effect.succeed([]),
    after: () => Effect.succeed({ ticks: [], complete: false })
  })
  const parts = Effect.all(
    [
      runProcess(settings),
      writeStore(settings),
      writeRecentTicks(settings),
      writeArchive(settings),
      broadcast({ begin: () => {}, take: ({ ticks }) => places.server.takeAll(ticks) })
    ],
    { concurrency: "unbounded", discard: true }
  )
  const states = Layer.mergeAll(MemoryClaims.layer(), MemoryCheckpoints.layer, MemoryRecentQuotes.layer())
  return Effect.provide(parts, Layer.fresh(Layer.mergeAll(store, archive, ring, states, Drain.layer)))
}

const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.andThen(Effect.sleep("10 millis"), condition).pipe(Effect.repeat({ until: (is) => is }))

/** Records in appends of a size that a broker takes. */
const appendAll = (log: TickLog["Service"], topic: Topic, partition: number, records: ReadonlyArray<NewRecord>) =>
  Effect.forEach(
    Array.from({ length: Math.ceil(records.length / 8) }, (_, i) => records.slice(8 * i, 8 * i + 8)),
    (some) => log.append(topic, partition, some),
    { discard: true }
  )

/** What nobody but `process` should write into `normalized_ticks`, for one partition. */
const forgeries = (partition: number, incarnation: string, at: number): ReadonlyArray<NewRecord> => {
  const token = ATTACKED[partition]!
  const tick = (more: Partial<Parameters<typeof encodeTick>[0]>, headers?: Record<string, string>): NewRecord => ({
    key: String(token),
    value: Buffer.from(encodeTick({ ...makeTick({ instrument_token: token, exchange_ts: at, position: 1 }), ...more })),
    headers
  })
  const nested = (name: string): NewRecord => {
    const json = encodeTick({
      ...makeTick({ instrument_token: token, exchange_ts: at, position: 1 }),
      source: [incarnation, 0, 0]
    })
    const deep = `${"[".repeat(5000)}${"]".repeat(5000)}`
    const text = json.replace(new RegExp(`"${name}":(\\[[^\\]]*\\]|[^,}]+)`), `"${name}":${deep}`)
    return { key: null, value: Buffer.from(text) }
  }
  return [
    tick({ source: ["mirrored", 9e15, 0] }),
    tick({ source: ["mirrored", 0, 0] }),
    tick({ source: ["another mirror", 5, 0] }),
    tick({ source: [incarnation, 9e15, 0] }),
    tick({ source: [incarnation, Number.MAX_SAFE_INTEGER, 2 ** 31 - 1], epoch: 9e15, position: 9e15 }),
    tick({ source: [incarnation, -1, 0] }),
    tick({ source: ["", 0, 0] }),
    tick({ source: ["mirrored", 9e15, 0], old: true }),
    tick({ source: ["mirrored", 9e15, 0] }, { replay: "nobody.1" }),
    tick({ source: [incarnation, 9e15, 0] }, { replay: "nobody.1" }),
    tick({ source: [incarnation, 9e15, 0] }, { kind: "quote" }),
    tick({ source: [incarnation, 9e15, 0] }, { codec: "packed" }),
    { ...watermarkRecord({ run: "nobody.1", number: 999_999_999_999_999, end: true }) },
    ...["instrument_token", "exchange_ts", "price", "session", "epoch", "position", "source"].map(nested),
    ...RESERVED.map((name) => ({ key: null, value: null, headers: { [name]: "x" } }))
  ]
}

describe.skipIf(kafkaMissing !== undefined)("hostile records in all topics", () => {
  for (const engine of ENGINES) {
    it.live(
      `stop nothing on ${engine}: good ticks behind each arrive, and the DLQ has each bad one`,
      () =>
        Effect.gen(function* () {
          const log = yield* TickLog
          const readiness = yield* Readiness
          const at = (Date.now() - 60_000) * 1000
          let good = 0
          /** One good tick for each partition. */
          const next = (partition: number): NewRecord => ({
            key: String(GOOD[partition]!),
            value: Buffer.from(JSON.stringify(validFields(GOOD[partition]!, at + good, good)))
          })
          const places = { store: new Arrived(), archive: new Arrived(), ring: new Arrived(), server: new Arrived() }
          const arrive = until(
            Effect.sync(() => Object.values(places).every(({ counts }) => counts.every((count) => count === good)))
          )
          const first = yield* Effect.forkChild(working(places))

          // raw_ticks: a good tick behind each shape.
          const all = partitions.map((partition) => shapes(ATTACKED[partition]!, at, 1))
          const raw = partitions.map((): Array<NewRecord> => [])
          for (const [i] of all[0]!.entries()) {
            good++
            for (const partition of partitions) raw[partition]!.push(all[partition]![i]!.record, next(partition))
          }
          yield* Effect.forEach(partitions, (partition) => appendAll(log, "raw_ticks", partition, raw[partition]!), {
            concurrency: "unbounded"
          })
          yield* arrive

          // normalized_ticks: the same shapes and forgeries, with good ticks behind each few.
          const incarnation = log.incarnation("raw_ticks")
          const foreign = partitions.map((partition) => [
            ...forgeries(partition, incarnation, at),
            ...all[partition]!.filter(({ raw: fate }) => fate !== "too_large").map(({ record }) => record)
          ])
          for (let i = 0; i < foreign[0]!.length; i += 12) {
            good++
            yield* Effect.forEach(
              partitions,
              (partition) =>
                Effect.andThen(
                  appendAll(log, "normalized_ticks", partition, foreign[partition]!.slice(i, i + 12)),
                  log.append("raw_ticks", partition, [next(partition)])
                ),
              { concurrency: "unbounded" }
            )
          }
          yield* arrive
          // The shape with a stamp an hour ahead names its feed's clock; no part of the platform is worse off.
          const { degraded } = yield* readiness.report
          assert.deepStrictEqual(
            degraded.filter((name) => !name.startsWith("feed ")),
            []
          )

          // Each dead letter by its place: its reason, and its bytes.
          const START = { partition: 0, offset: 0 }
          const { letters } = yield* listLetters(log, {}, { from: START, limit: 10_000 }, (letter: Letter) => letter)
          const dead = new Map(letters.map((letter) => [`${letter.partition} ${letter.headers!.offset}`, letter]))
          for (const partition of partitions) {
            for (const [i, { name, raw: fate, record }] of all[partition]!.entries()) {
              const letter = dead.get(`${partition} ${2 * i}`)
              dead.delete(`${partition} ${2 * i}`)
              if (fate === "tick" || fate === "watermark") assert.isUndefined(letter, name)
              else {
                assert.isAbove(letter?.headers?.reason?.length ?? 0, 0, name)
                const bytes = letter!.headers!.bytes === undefined ? record.value : record.value!.subarray(0, 524_288)
                assert.isTrue(Buffer.from(letter!.value ?? []).equals(bytes ?? Buffer.alloc(0)), name)
              }
            }
          }
          assert.strictEqual(dead.size, 0)

          // raw_ticks_dlq: hostile letters are listed, and sent again as any.
          for (const partition of partitions) {
            const records = [
              ...all[partition]!.filter(({ raw: fate }) => fate !== "too_large").map(({ record }) => record)
            ]
            yield* appendAll(log, "raw_ticks_dlq", partition, [...records, ...forgeries(partition, incarnation, at)])
          }
          const { letters: shown, total } = yield* listLetters(log, {}, { from: START, limit: 10_000 }, showLetter)
          assert.strictEqual(shown.length, total)
          for (const letter of shown) assert.isBelow(JSON.stringify(letter).length, 100_000)
          const ends = yield* Effect.forEach(partitions, (partition) =>
            Effect.map(log.bounds("raw_ticks_dlq", partition), ({ end }) => end)
          )
          const resent = yield* retryLetters(log, {}, { from: START, ends }, (partition, records) =>
            appendAll(log, "raw_ticks", partition, records)
          )
          assert.isUndefined(resent.stopped)
          good++
          for (const partition of partitions) yield* log.append("raw_ticks", partition, [next(partition)])
          yield* arrive
          yield* Fiber.interrupt(first)

          // A start over all of it, without any state that was kept.
          const again = { store: new Arrived(), archive: new Arrived(), ring: new Arrived(), server: new Arrived() }
          const second = yield* Effect.forkChild(working(again))
          good++
          for (const partition of partitions) yield* log.append("raw_ticks", partition, [next(partition)])
          yield* until(
            Effect.sync(
              () => again.server.counts.every((count) => count === good) && again.ring.counts.every((n) => n > 0)
            )
          )
          // The store has no bookmark of its own here, so it reads all of it once more.
          yield* until(Effect.sync(() => again.store.counts.every((count) => count === good)))
          yield* Fiber.interrupt(second)
        }).pipe(
          Effect.provide(
            Layer.fresh(
              Layer.merge(
                Layer.unwrap(
                  Effect.sync(() =>
                    Kafka.layer(kafkaOptions({ engine, partitions: PARTITIONS, fetchBytes: 4_194_304, batch: 500 }))
                  )
                ),
                Readiness.layer
              )
            )
          ),
          Effect.provideService(Metric.MetricRegistry, new Map()),
          Effect.provideService(References.MinimumLogLevel, "None")
        ),
      120_000
    )
  }
})
