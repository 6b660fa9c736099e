import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Stream } from "effect"
import { partitionOf } from "../../src/schema/Partition.ts"
import { readRawTick } from "../../src/schema/RawTick.ts"
import type { TickLog } from "../../src/streams/log/TickLog.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { ask, PARTITIONS, type Serving, serve } from "./serving.ts"

const line = (token: number, price: number) =>
  `{"instrument_token":${token},"exchange_ts":"2026-01-16T03:45:00Z","price":${price}, "sequence_id":1}`

const ingest = (port: number, body: string | Uint8Array) =>
  ask(port, "/api/v1/ingest", { method: "POST", headers: { "content-type": "application/x-ndjson" }, body })

const open = (more: Partial<Serving> = {}) => serve({ store: memoryStore(new Rows()), ...more })

/** Every record of `raw_ticks`: partition, key and value. */
const records = (log: TickLog["Service"]) =>
  Effect.forEach(
    Array.from({ length: PARTITIONS }, (_, partition) => partition),
    (partition) =>
      Effect.gen(function* () {
        const { start, end } = yield* log.bounds("raw_ticks", partition)
        if (start === end) return []
        const found = yield* log
          .read("raw_ticks", partition, start)
          .pipe(Stream.flattenArray, Stream.take(end - start), Stream.runCollect)
        return found.map(({ key, value }) => ({ partition, key, value: Buffer.from(value!).toString() }))
      })
  ).pipe(Effect.map((all) => all.flat()))

describe("ingest over REST", () => {
  it.live("keeps a long line as the tick that it is, and no more of the request than its ticks", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open()
      const padded = (price: number, pad: number) => line(738561, price).replace(/}$/, `,"note":"${"x".repeat(pad)}"}`)
      const short = padded(1, 500)
      const lines = [...Array.from({ length: 100 }, () => short), padded(2, 2_000), padded(3, 60_000)]
      const answer = yield* ingest(port, lines.join("\n"))
      assert.strictEqual((answer.json as { readonly accepted: number }).accepted, 102)
      const kept = (yield* log.slice("raw_ticks", partitionOf(738561, log.partitions), 0, 1000)).records
      const texts = kept.map(({ value }) => Buffer.from(value!).toString())
      assert.deepStrictEqual(texts.slice(0, 100), lines.slice(0, 100))
      assert.deepStrictEqual(
        texts.slice(100).map((text) => readRawTick(JSON.parse(text))),
        lines.slice(100).map((text) => readRawTick(JSON.parse(text)))
      )
      for (const text of texts.slice(100)) assert.isBelow(text.length, 300)
      // The last record that is held would hold its whole piece with it.
      for (const { value } of kept) assert.isAtMost(value!.buffer.byteLength, 16 * 1024)
    }).pipe(Effect.scoped)
  )

  it.live("puts the good lines into raw_ticks as they came, and says why the others are not good", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open()
      const good = [line(738561, 2500.5), line(408065, 1500), line(738561, 2501)]
      const body = [
        good[0],
        "",
        `${good[1]}\r`,
        "{",
        line(0, 1),
        line(1, -1e10),
        '{"instrument_token":1,"exchange_ts":"2026-01-16T09:15:00","price":1}',
        "null",
        good[2]
      ].join("\n")
      const answer = yield* ingest(port, body)
      assert.strictEqual(answer.status, 200)
      const report = answer.json as {
        readonly accepted: number
        readonly rejected: ReadonlyArray<{ readonly line: number; readonly reason: string }>
        readonly rejected_total: number
      }
      assert.strictEqual(report.accepted, 3)
      assert.strictEqual(report.rejected_total, 5)
      assert.deepStrictEqual(
        report.rejected.map(({ line }) => line),
        [4, 5, 6, 7, 8]
      )
      const reasons = report.rejected.map(({ reason }) => reason)
      assert.include(reasons[0], 'got "{"')
      assert.include(reasons[1], "instrument_token: ")
      assert.include(reasons[2], "price: ")
      assert.include(reasons[2], "-10000000000")
      assert.include(reasons[3], "exchange_ts: ")
      assert.include(reasons[3], "2026-01-16T09:15:00")
      const found = yield* records(log)
      assert.deepStrictEqual(
        found.toSorted((a, b) => a.value.localeCompare(b.value)),
        good
          .map((value) => {
            const token = (JSON.parse(value!) as { readonly instrument_token: number }).instrument_token
            return { partition: partitionOf(token, PARTITIONS), key: String(token), value: value! }
          })
          .toSorted((a, b) => a.value.localeCompare(b.value))
      )
      assert.deepStrictEqual(
        found.filter(({ key }) => key === "738561").map(({ value }) => value),
        [good[0], good[2]]
      )
    }).pipe(Effect.scoped)
  )

  it.live("refuses at once what the pipeline would not take: a stamp ahead of the clock, or in another unit", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open({ settings: { MAX_FUTURE_SKEW_MS: 5000 } })
      const now = Date.now() * 1000
      const stamped = (exchange_ts: unknown) => JSON.stringify({ instrument_token: 1, exchange_ts, price: 1 })
      const seconds = Math.floor(now / 1e6)
      const stamps = [
        now,
        now + 16_000_000,
        new Date(now / 1000 + 60_000).toISOString(),
        -1,
        seconds,
        now / 1000,
        now * 1000,
        String(now),
        "2026-01-16T09:15:00",
        1e300
      ]
      const answer = yield* ingest(port, stamps.map(stamped).join("\n"))
      const report = answer.json as {
        readonly accepted: number
        readonly rejected: ReadonlyArray<{ readonly line: number; readonly reason: string }>
      }
      assert.strictEqual(report.accepted, 1)
      assert.deepStrictEqual(
        report.rejected.map(({ line }) => line),
        [2, 3, 4, 5, 6, 7, 8, 9, 10]
      )
      const [ahead, iso, negative, s, ms, ns, text, naive] = report.rejected.map(({ reason }) => reason)
      for (const reason of [ahead, iso]) {
        assert.match(
          reason!,
          /^exchange_ts: expected at most 5000 ms ahead of the clock here, got \d+, which is \d+ ms/
        )
      }
      assert.match(negative!, /^exchange_ts: expected epoch microseconds between 1980 and 2100, got -1$/)
      assert.match(s!, /got \d+, which looks like seconds$/)
      assert.match(ms!, /got \d+, which looks like milliseconds$/)
      assert.match(ns!, /got \d+, which looks like nanoseconds$/)
      assert.match(text!, /^exchange_ts: expected epoch microseconds or ISO-8601 with an offset/)
      assert.match(naive!, /which has no offset: \+05:30 is India's$/)
      assert.lengthOf(yield* records(log), 1)
    }).pipe(Effect.scoped)
  )

  it.live("names the first hundred bad lines and counts the rest, and refuses a line above 64 KiB alone", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const bad = yield* ingest(port, "x\n".repeat(1234))
      const report = bad.json as { readonly rejected: ReadonlyArray<unknown>; readonly rejected_total: number }
      assert.strictEqual(bad.status, 200)
      assert.strictEqual(report.rejected.length, 100)
      assert.strictEqual(report.rejected_total, 1234)
      const long = yield* ingest(port, `${line(1, 1)}\n${line(1, 2)}${" ".repeat(65_536)}\n${line(1, 3)}\n`)
      assert.deepInclude(long.json, { accepted: 2, rejected_total: 1 })
      assert.include(long.text, "expected at most 65536 bytes")
    }).pipe(Effect.scoped)
  )

  it.live("answers 429 with Retry-After when the log stays full, and takes ticks again once it has room", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open({ log: { capacity: 10, retained: 0 }, settings: { INGEST_WAIT_MS: 100 } })
      const partition = partitionOf(1, PARTITIONS)
      // What a group has yet to read is never dropped: once it has joined, it holds the partition.
      const joined = yield* Deferred.make<void>()
      const reads = yield* Deferred.make<void>()
      yield* log.assignments("process", "raw_ticks").pipe(
        Stream.mapEffect(
          (assigned) =>
            Effect.gen(function* () {
              if (assigned.partition !== partition) return
              yield* Deferred.succeed(joined, undefined)
              yield* Deferred.await(reads)
              yield* assigned
                .read(assigned.committed?.offset ?? 0)
                .pipe(
                  Stream.runForEachArray((records) =>
                    assigned.commit({ offset: records.at(-1)!.at(-1)!.offset + 1, metadata: "" })
                  )
                )
            }),
          { concurrency: "unbounded" }
        ),
        Stream.runDrain,
        Effect.forkScoped
      )
      yield* Deferred.await(joined)
      const lines = `${line(1, 1)}\n`.repeat(4)
      const full = yield* Effect.gen(function* () {
        for (;;) {
          const answer = yield* ingest(port, lines)
          if (answer.status !== 200) return answer
        }
      })
      assert.strictEqual(full.status, 429)
      assert.strictEqual(full.headers["retry-after"], "1")
      assert.deepInclude(full.json, { _tag: "TooManyRequests" })
      yield* Deferred.succeed(reads, undefined)
      let again = yield* ingest(port, lines)
      while (again.status === 429) again = yield* ingest(port, lines)
      assert.strictEqual(again.status, 200)
    }).pipe(Effect.scoped)
  )
})
