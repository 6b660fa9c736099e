import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as Kafka from "../../src/layers/kafka/KafkaLog.ts"
import { TickLog } from "../../src/streams/log/TickLog.ts"
import { memoryStore, Rows } from "../http/memoryStore.ts"
import { serve } from "../http/serving.ts"
import { LONG_MS } from "../support/guards.ts"
import { kafkaMissing, kafkaOptions } from "../support/kafka.ts"
import { runToEnd } from "../support/processes.ts"
import { ownKafka } from "../support/services.ts"

const letter = (value: string, offset: number) => ({
  key: "1",
  value: Buffer.from(value),
  headers: { reason: "undecodable: no JSON", topic: "raw_ticks", partition: "7", offset: String(offset), index: "0" }
})

// Long: each command is a process that joins Kafka.
describe.skipIf(kafkaMissing !== undefined)(
  `mdp dlq${kafkaMissing === undefined ? "" : ` (${kafkaMissing})`}`,
  { timeout: LONG_MS },
  () => {
    it.live("lists letters where they are in the DLQ, and sends again the one that is named so, or all", () =>
      Effect.gen(function* () {
        const KAFKA_BROKERS = (yield* ownKafka).settings().KAFKA_BROKERS!
        const mdp = (...args: ReadonlyArray<string>) => runToEnd(["dlq", ...args], { KAFKA_BROKERS, PARTITIONS: "2" })
        yield* Effect.gen(function* () {
          const log = yield* TickLog
          yield* log.append("raw_ticks_dlq", 1, [letter("a", 12), letter("b", 13)])
          const listed = yield* mdp("list")
          const letters = listed.stdout
            .trim()
            .split("\n")
            .map((line) => JSON.parse(line) as Record<string, unknown>)
          assert.deepStrictEqual(
            letters.map(({ at: _, ...shown }) => shown),
            [
              { offset: 0, value: "a", from: 12 },
              { offset: 1, value: "b", from: 13 }
            ].map(({ offset, value, from }) => ({
              partition: 1,
              offset,
              reason: "undecodable: no JSON",
              from: { topic: "raw_ticks", partition: 7, offset: from, index: 0 },
              key: "1",
              value,
              bytes: 1
            }))
          )
          const second = yield* mdp("retry", "--partition", "1", "--offset", "1")
          assert.strictEqual(second.code, 0, second.stderr)
          assert.match(second.stdout, /^1 sent again/)
          const none = yield* mdp("retry", "--partition", "1", "--offset", "12")
          assert.strictEqual(none.code, 1)
          assert.match(none.stderr, /the DLQ holds no such letter/)
          assert.match((yield* mdp("retry", "--all")).stdout, /^2 sent again/)
          assert.match((yield* mdp("retry", "--all", "--reason", "misrouted")).stdout, /^0 sent again\n/)
          assert.match((yield* mdp("retry", "--reason", "no JSON")).stdout, /^2 sent again/)
          const whole = letter("c", 14)
          yield* log.append("raw_ticks_dlq", 0, [{ ...whole, headers: { ...whole.headers, bytes: "9000000" } }])
          const cut = yield* mdp("retry", "--partition", "0")
          assert.strictEqual(cut.code, 0)
          assert.match(cut.stderr, /^1 kept: the DLQ has only their beginning/)
          assert.match(cut.stdout, /^0 sent again/)
          yield* log.append("raw_ticks_dlq", 0, [{ ...whole, headers: { ...whole.headers, batch: "1" } }])
          const batch = yield* mdp("retry", "--partition", "0", "--offset", "1")
          assert.match(batch.stderr, /^1 kept: batches of records that cannot be read/)
          assert.match(batch.stdout, /^0 sent again/)
          const shown = (yield* mdp("list")).stdout.split("\n").find((line) => line.includes('"batch":"1"'))
          assert.strictEqual(JSON.parse(shown!).base64, Buffer.from("c").toString("base64"))
          assert.strictEqual((yield* mdp("retry")).code, 2)
          assert.strictEqual((yield* mdp("retry", "--all", "--partition", "1")).code, 2)
          assert.strictEqual((yield* mdp("list", "--limit", "0")).code, 2)
          const sent = yield* Effect.forEach([0, 1], (partition) =>
            Effect.flatMap(log.bounds("raw_ticks", partition), ({ start, end }) =>
              start === end
                ? Effect.succeed([])
                : log.read("raw_ticks", partition, start).pipe(
                    Stream.takeUntil((records) => records[records.length - 1]!.offset >= end - 1),
                    Stream.runCollect,
                    Effect.map((arrays) => arrays.flat().map(({ value }) => Buffer.from(value!).toString()))
                  )
            )
          )
          assert.deepStrictEqual(sent.flat(), ["b", "a", "b", "a", "b"])
        }).pipe(Effect.provide(Kafka.layer(kafkaOptions({ brokers: KAFKA_BROKERS, prefix: "" }))))
      }).pipe(Effect.scoped)
    )
  }
)

describe("mdp dlq where no Kafka is named", () => {
  it.live("reads the letters of a running instance, by as many requests as it takes, and has them sent again", () =>
    Effect.gen(function* () {
      const { port, log } = yield* serve({ store: memoryStore(new Rows()), log: { dlqCapacity: 2000 } })
      const mdp = (...args: ReadonlyArray<string>) =>
        runToEnd(["dlq", ...args], { KAFKA_BROKERS: "", PORT: String(port) })
      const letters = Array.from({ length: 700 }, (_, i) => letter(`v${i}`, i))
      yield* log.append("raw_ticks_dlq", 1, letters)
      const lines = (text: string) =>
        text
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as { readonly value: string })
      const some = yield* mdp("list", "--limit", "600", "--url", `http://127.0.0.1:${port}`)
      assert.strictEqual(some.code, 0, some.stderr)
      assert.deepStrictEqual(
        lines(some.stdout).map(({ value }) => value),
        letters.slice(0, 600).map(({ value }) => value.toString())
      )
      const none = yield* mdp("retry", "--partition", "1", "--offset", "900")
      assert.strictEqual(none.code, 1)
      assert.match(none.stderr, /the DLQ holds no such letter/)
      assert.match((yield* mdp("retry", "--all")).stdout, /^700 sent again/)
    }).pipe(Effect.scoped)
  )
})
