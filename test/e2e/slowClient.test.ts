import { readFileSync } from "node:fs"
import type { Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { LONG_MS } from "../support/guards.ts"
import { getMetrics, startInstance } from "../support/processes.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import { connect } from "../support/webSocketServer.ts"

const OTHERS = 50
const INSTRUMENTS = 10
const TICKS_A_ROUND = 1000
/** Long enough that the second quarter lies behind the filling of rings, logs and heap. */
const ROUNDS = 400
/** Rounds after which the client that does not read says something. */
const WORD_EVERY = 10
const TOTAL = TICKS_A_ROUND * ROUNDS
const CAPACITY = 500
const tokens = Array.from({ length: INSTRUMENTS }, (_, i) => 100 + i)

const round = (number: number): string =>
  Array.from({ length: TICKS_A_ROUND }, (_, i) =>
    JSON.stringify({
      instrument_token: tokens[i % INSTRUMENTS],
      exchange_ts: Date.now() * 1000,
      price: 100 + (i % 100) / 20,
      volume: 1,
      sequence_id: number * (TICKS_A_ROUND / INSTRUMENTS) + Math.floor(i / INSTRUMENTS)
    })
  ).join("\n")

const rssMb = (pid: number): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024
const mean = (values: ReadonlyArray<number>) => values.reduce((a, b) => a + b, 0) / values.length

// Long: an instance serves until its buffers to a client that does not read are full.
describe("a client that stops reading", { timeout: LONG_MS }, () => {
  it.live(
    "is told its exact loss when it reads again; 50 others lose nothing; memory stays flat",
    () =>
      Effect.gen(function* () {
        const { mdp, url, ws } = yield* startInstance(["demo", "--symbols", "1", "--rate", "1", "--duration", "1s"])
        const subscribe = { action: "subscribe", tokens, backfill: 0, batch: true, channels: ["tick"] }
        const others = yield* Effect.forEach(
          Array.from({ length: OTHERS }, (_, i) => i),
          () =>
            Effect.gen(function* () {
              const client = yield* connect(ws, { checker: new RuleChecker(), keep: false })
              client.send({ ...subscribe, capacity: 10_000 })
              yield* client.until(({ checker }) => checker.backfills === INSTRUMENTS)
              return client
            }),
          { concurrency: 10 }
        )
        const slow = yield* connect(ws, { checker: new RuleChecker(), keep: false })
        slow.send({ ...subscribe, capacity: CAPACITY })
        yield* slow.until(({ checker }) => checker.backfills === INSTRUMENTS)
        const socket = (slow.ws as unknown as { readonly _socket: Socket })._socket
        socket.pause()

        const rss: Array<number> = []
        for (let number = 0; number < ROUNDS; number++) {
          const answer = yield* Effect.promise(() =>
            fetch(`${url}/api/v1/ingest`, {
              method: "POST",
              headers: { "content-type": "application/x-ndjson" },
              body: round(number)
            })
          )
          assert.strictEqual(answer.status, 200)
          // The next round goes in when the others have all of this one: so they are fast by definition.
          for (const other of others) {
            yield* other.until(({ checker }) => checker.ticks + checker.evicted >= (number + 1) * TICKS_A_ROUND)
          }
          rss.push(rssMb(mdp.child.pid!))
          // It reads nothing, and so answers no ping: who says nothing either would be taken for gone, however long this takes.
          if (number % WORD_EVERY === 0) slow.send({ action: "ping" })
        }
        for (const { checker } of others) {
          assert.strictEqual(checker.ticks, TOTAL)
          assert.strictEqual(checker.evicted, 0)
        }

        // What the kernel and the socket hold is less than all of it: the rest was evicted, and will be told.
        assert.isBelow(slow.checker.ticks, TOTAL)
        socket.resume()
        yield* slow.until(({ checker }) => checker.ticks + checker.evicted >= TOTAL)
        assert.strictEqual(slow.checker.ticks + slow.checker.evicted, TOTAL)
        assert.isAbove(slow.checker.evicted, 0)
        const figures = yield* getMetrics(url)
        assert.strictEqual(figures.get('topology_evictions_total{policy="evict-oldest"}'), slow.checker.evicted)

        const [second, last] = [rss.slice(ROUNDS / 4, ROUNDS / 2), rss.slice((ROUNDS * 3) / 4)].map(mean) as [
          number,
          number
        ]
        console.log(
          `slow client: ${slow.checker.ticks} received, ${slow.checker.evicted} told as evicted; ` +
            `server RSS ${second.toFixed(0)} MB in the second quarter, ${last.toFixed(0)} MB in the last`
        )
        assert.isAtMost(last, second * 1.15)
      }).pipe(Effect.scoped),
    // Twenty million ticks are delivered: many minutes, where others use the machine as well.
    1_200_000
  )
})
