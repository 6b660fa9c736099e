import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { MAX_LETTERS } from "../../src/http/Api.ts"
import { partitionOf } from "../../src/schema/Partition.ts"
import type { NewRecord, TickLog } from "../../src/streams/log/TickLog.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { ask, PARTITIONS, serve } from "./serving.ts"

type Log = TickLog["Service"]

const open = (settings = {}) => serve({ store: memoryStore(new Rows()), log: { dlqCapacity: 100_000 }, settings })

const letter = (
  value: string | Uint8Array | null,
  headers: Readonly<Record<string, string>> = {},
  key: string | null = "7"
): NewRecord => ({
  key,
  value: value === null ? null : Buffer.from(value),
  headers: {
    reason: "price: expected a number",
    topic: "raw_ticks",
    partition: "3",
    offset: "12",
    index: "0",
    ...headers
  }
})

interface Shown {
  readonly partition: number
  readonly offset: number
  readonly at: number
  readonly value?: string | null
  readonly base64?: string
  readonly reason: string | null
  readonly key: string | null
  readonly bytes: number
}
interface Page {
  readonly letters: ReadonlyArray<Shown>
  readonly next_cursor: string | null
  readonly total: number
}

const get = (port: number, query = "") =>
  Effect.map(ask(port, `/api/v1/dlq${query}`), (answer) => {
    assert.strictEqual(answer.status, 200, answer.text)
    return answer.json as Page
  })

const post = (port: number, body: unknown) =>
  ask(port, "/api/v1/dlq/retry", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body)
  })

/** What lies in `raw_ticks`, by partition; a slice of a log is bounded in bytes, too. */
const raw = (log: Log) =>
  Effect.forEach(Array.from({ length: PARTITIONS }).keys(), (partition) =>
    Effect.gen(function* () {
      const { end } = yield* log.bounds("raw_ticks", partition)
      const found: Array<string> = []
      for (let from = 0; from < end; ) {
        const { records } = yield* log.slice("raw_ticks", partition, from, end - from)
        assert.isNotEmpty(records)
        for (const { key, value } of records) found.push(`${key}=${Buffer.from(value ?? []).toString()}`)
        from = records.at(-1)!.offset + 1
      }
      return found
    })
  )

describe("dead letters over REST", () => {
  it.live(
    "are shown with their reason and where they came from, text as text and the rest as base64, both bounded",
    () =>
      Effect.gen(function* () {
        const { port, log } = yield* open()
        yield* log.append("raw_ticks_dlq", 1, [
          letter('{"price":"x"}'),
          letter(new Uint8Array([0xff, 0xfe, 0x00])),
          letter(null, {}, null),
          letter("é".repeat(4000), { reason: "r".repeat(5000), extra: "x".repeat(5000) }, "k".repeat(5000)),
          { key: null, value: Buffer.from("a stranger's") }
        ])
        const { letters, next_cursor, total } = yield* get(port)
        assert.deepStrictEqual([letters.length, next_cursor, total], [5, null, 5])
        const { at, ...first } = letters[0]!
        assert.isAbove(at, 1_700_000_000_000_000)
        assert.deepStrictEqual(first as object, {
          partition: 1,
          offset: 0,
          reason: "price: expected a number",
          from: { topic: "raw_ticks", partition: 3, offset: 12, index: 0 },
          key: "7",
          value: '{"price":"x"}',
          bytes: 13
        })
        assert.deepInclude(letters[1], { base64: "//4A", bytes: 3 })
        assert.deepInclude(letters[2], { value: null, key: null, bytes: 0 })
        assert.deepInclude(letters[3], { value: "é".repeat(2048), bytes: 8000 })
        assert.isBelow(JSON.stringify(letters[3]).length, 10_000)
        assert.deepInclude(letters[4], {
          reason: null,
          from: { topic: null, partition: null, offset: null, index: null },
          value: "a stranger's"
        } as object)
      }).pipe(Effect.scoped)
  )

  it.live("come by pages, put together the whole, by reason and partition too, and newest first", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open()
      for (let i = 0; i < 40; i++) {
        const reason = i % 4 === 0 ? "misrouted" : "no JSON"
        yield* log.append("raw_ticks_dlq", i % PARTITIONS, [letter(`v${i}`, { reason })])
        yield* Effect.sleep("1 millis")
      }
      const all = (query: string) =>
        Effect.gen(function* () {
          const found: Array<Shown> = []
          let cursor: string | null = ""
          while (cursor !== null) {
            const page: Page = yield* get(port, `?limit=7${query}${cursor === "" ? "" : `&cursor=${cursor}`}`)
            assert.isAtMost(page.letters.length, 7)
            found.push(...page.letters)
            cursor = page.next_cursor
          }
          return found
        })
      const whole = yield* all("")
      assert.strictEqual(new Set(whole.map(({ value }) => value)).size, 40)
      assert.deepStrictEqual(
        whole.map(({ partition, offset }) => partition * 1000 + offset),
        whole.map(({ partition, offset }) => partition * 1000 + offset).toSorted((a, b) => a - b)
      )
      assert.lengthOf(yield* all("&reason=misrouted"), 10)
      assert.lengthOf(yield* all("&partition=1"), 10)
      assert.lengthOf(yield* all("&partition=1&reason=misrouted"), 0)
      const newest = yield* get(port, "?order=newest&limit=5")
      assert.deepStrictEqual(
        newest.letters.map(({ value }) => value),
        ["v39", "v38", "v37", "v36", "v35"]
      )
      assert.deepStrictEqual(
        (yield* get(port, "?order=newest&limit=2&reason=misrouted")).letters.map(({ value }) => value),
        ["v36", "v32"]
      )
    }).pipe(Effect.scoped)
  )

  it.live("are sent again where they belong, all or those that are named, and stay in the DLQ", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open()
      yield* log.append("raw_ticks_dlq", 1, [
        letter("a", { reason: "misrouted" }),
        letter("b"),
        letter("c", {}, null),
        letter("cut", { bytes: "9000000" }),
        letter("batch", { batch: "1" })
      ])
      const home = partitionOf(7, PARTITIONS)
      assert.deepStrictEqual((yield* post(port, { reason: "misrouted" })).json, {
        sent: 1,
        cut: 0,
        batches: 0,
        next_cursor: null
      })
      assert.deepStrictEqual((yield* raw(log))[home], ["7=a"])
      assert.deepInclude((yield* post(port, { partition: 1, offset: 2 })).json, { sent: 1 })
      assert.deepStrictEqual((yield* raw(log))[1], home === 1 ? ["7=a", "null=c"] : ["null=c"])
      assert.deepInclude((yield* post(port, { partition: 1, offset: 99 })).json, { sent: 0, next_cursor: null })
      assert.deepInclude((yield* post(port, { all: true })).json, { sent: 3, cut: 1, batches: 1, next_cursor: null })
      assert.strictEqual((yield* get(port)).total, 5)
    }).pipe(Effect.scoped)
  )

  it.live("of a large DLQ are sent by bounded requests that follow one another, each letter once", () =>
    Effect.gen(function* () {
      const { port, log } = yield* open()
      for (let p = 0; p < PARTITIONS; p++) {
        for (let i = 0; i < 6; i++) {
          yield* log.append(
            "raw_ticks_dlq",
            p,
            Array.from({ length: 1000 }, (_, j) => letter(`${p}/${i * 1000 + j}`))
          )
        }
      }
      let requests = 0
      let sent = 0
      let cursor: string | null = ""
      while (cursor !== null) {
        const answer = yield* post(port, { all: true, ...(cursor === "" ? {} : { cursor }) })
        assert.strictEqual(answer.status, 200, answer.text)
        const report = answer.json as { readonly sent: number; readonly next_cursor: string | null }
        sent += report.sent
        cursor = report.next_cursor
        requests += 1
        // What comes in meanwhile is for another time.
        if (requests === 1) yield* log.append("raw_ticks_dlq", PARTITIONS - 1, [letter("late")])
      }
      assert.deepStrictEqual([sent, requests], [24_000, 2])
      const values = (yield* raw(log)).flat()
      assert.deepStrictEqual([values.length, new Set(values).size], [24_000, 24_000])
    }).pipe(Effect.scoped)
  )

  it.live("that the log has no room for are answered 429 with Retry-After, and nothing waits on", () =>
    Effect.gen(function* () {
      const { port, log } = yield* serve({
        store: memoryStore(new Rows()),
        settings: { INGEST_WAIT_MS: 50 },
        log: { capacity: 2, retained: 10, dlqCapacity: 10 }
      })
      const home = partitionOf(7, PARTITIONS)
      // A group that takes nothing holds what comes.
      yield* Effect.forkScoped(Effect.ignore(Stream.runDrain(log.assignments("g", "raw_ticks"))), {
        startImmediately: true
      })
      yield* log.append("raw_ticks", home, [letter("x"), letter("y")])
      yield* log.append("raw_ticks_dlq", 0, [letter("a")])
      const answer = yield* post(port, { all: true })
      assert.strictEqual(answer.status, 429, answer.text)
      assert.isDefined(answer.headers["retry-after"])
    }).pipe(Effect.scoped)
  )

  it.live("are asked for by bounded values, and a refusal names the parameter", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const wrong: ReadonlyArray<readonly [query: string, parameter: string]> = [
        ["limit=0", "limit"],
        [`limit=${MAX_LETTERS + 1}`, "limit"],
        ["cursor=nope", "cursor"],
        ["order=latest", "order"],
        [`partition=${PARTITIONS}`, "partition"],
        [`reason=${"x".repeat(300)}`, "reason"],
        ["order=newest&cursor=WyJkbHEiLDAsMCwwXQ", "cursor"]
      ]
      for (const [query, parameter] of wrong) {
        const answer = yield* ask(port, `/api/v1/dlq?${query}`)
        assert.strictEqual(answer.status, 400, `${query} ${answer.text}`)
        assert.deepInclude(answer.json, { _tag: "BadRequest", parameter })
      }
      const bodies: ReadonlyArray<readonly [body: unknown, parameter: string]> = [
        [{}, "all"],
        [{ all: false }, "all"],
        [{ all: true, partition: 1 }, "all"],
        [{ offset: 1 }, "partition"],
        [{ partition: PARTITIONS }, "partition"],
        [{ partition: -1 }, "partition"],
        [{ all: true, cursor: "WyJkbHEiLDAsMCwwXQ" }, "cursor"],
        [null, "body"]
      ]
      for (const [body, parameter] of bodies) {
        const answer = yield* post(port, body)
        assert.strictEqual(answer.status, 400, `${JSON.stringify(body)} ${answer.text}`)
        assert.deepInclude(answer.json, { _tag: "BadRequest", parameter })
      }
    }).pipe(Effect.scoped)
  )
})
