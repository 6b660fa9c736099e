import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { connect } from "../../src/client/index.ts"
import { LONG_MS } from "../support/guards.ts"
import { startInstance } from "../support/processes.ts"
import { isInstalled, ownKafka } from "../support/services.ts"

const TOKEN = 7
const TICKS = 400
/** 2026-01-15 09:15:00 IST. */
const OPEN = 1_768_448_700_000_000

/** A tick a second, of two instruments in turn. */
const lines = Array.from({ length: TICKS }, (_, i) =>
  JSON.stringify({
    instrument_token: TOKEN + (i % 2),
    exchange_ts: OPEN + i * 1_000_000,
    price: 100 + i / 20,
    volume: 1,
    sequence_id: 1 + Math.floor(i / 2)
  })
).join("\n")

// Long: a broker and an instance are started, and a day is stored.
describe("a replay over Kafka", { timeout: LONG_MS }, () => {
  it.live.skipIf(!isInstalled("kafka"))(
    "goes on and back where it is sought, and exactly as far as it is stepped",
    () =>
      Effect.gen(function* () {
        const kafka = yield* ownKafka
        const { url } = yield* startInstance(["run"], { ...kafka.settings(), PARTITIONS: "4" })
        const client = connect({ url })
        yield* Effect.addFinalizer(() => Effect.sync(() => client.close()))
        yield* Effect.promise(async () => {
          const body = new Blob([lines])
          const headers = { "content-type": "application/x-ndjson" }
          const answer = await fetch(`${url}/api/v1/ingest`, { method: "POST", headers, body })
          assert.strictEqual(answer.status, 200)
          for (let stored = 0; stored < TICKS; ) {
            stored = 0
            for (const token of [TOKEN, TOKEN + 1]) {
              const asked = client.history.ticks(token, { from: OPEN })
              try {
                for await (const _ of asked) stored++
              } catch {
                // Not known before its first tick is stored.
              }
            }
          }

          const replay = await client.replay({
            all: true,
            date: "2026-01-15",
            from: "09:15",
            speed: "inf",
            paused: true
          })
          const stream = replay.ticks([TOKEN, TOKEN + 1])
          await stream.accepted
          const take = async (count: number): Promise<ReadonlyArray<number>> => {
            const seconds: Array<number> = []
            while (seconds.length < count) seconds.push(((await stream.next()).value!.exchange_ts - OPEN) / 1_000_000)
            return seconds
          }
          const seconds = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
          const stepped = await replay.step({ ticks: 7 })
          assert.deepStrictEqual([stepped.state, stepped.sent, stepped.clock], ["paused", 7, OPEN + 6_000_000])
          assert.deepStrictEqual(await take(7), seconds(0, 7))
          for (const [i, [to, seek]] of (
            [
              [200, OPEN + 200_000_000],
              [90, "09:16:30"]
            ] as const
          ).entries()) {
            const sought = await replay.seek(seek)
            assert.deepInclude(sought, {
              state: "paused",
              run: i + 2,
              clock: OPEN + to * 1_000_000,
              sent: 0,
              total: TICKS
            })
            const end = to - (to % 60) + 60
            const bar = await replay.step({ bars: 1, interval: "1m" })
            assert.deepInclude(bar, { state: "paused", sent: end - to, clock: OPEN + end * 1_000_000 })
            assert.deepStrictEqual(await take(end - to), seconds(to, end))
          }
          await replay.resume()
          assert.deepStrictEqual(await take(TICKS - 120), seconds(120, TICKS))
          assert.isTrue((await stream.next()).done)
          assert.deepInclude(await replay.status(), { state: "ended", run: 3, sent: TICKS - 90 })
        })
      }).pipe(Effect.scoped)
  )
})
