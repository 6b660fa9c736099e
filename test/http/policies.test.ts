import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ClientLog } from "../../src/http/clientLog.ts"
import type { Policy } from "../../src/schema/Protocol.ts"
import type { EvictionPolicy } from "../../src/streams/fanOut/Hub.ts"
import { EPOCH, tickOf } from "../support/hub.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import { connect, serve, type TestClient } from "../support/webSocketServer.ts"

const FAST = 4
const TOKENS = 5

describe("slow clients of every policy beside fast ones", () => {
  for (const batch of [false, true]) {
    it.live(`each get what their policy says, and the fast ones everything${batch ? ", in arrays" : ""}`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const evicted: Partial<Record<EvictionPolicy, number>> = {}
          const ended: Array<string> = []
          let pauses = 0
          let isTold = false
          const { hub, url } = yield* serve({
            hub: { RING_TICKS: 1_000_000, HUB_TICKS: 5_000_000 },
            log: new ClientLog((line) => {
              isTold ||= line.includes("4001")
            }),
            observer: {
              evicted: (n, policy) => {
                evicted[policy] = (evicted[policy] ?? 0) + n
              },
              paused: () => {
                pauses++
              }
            },
            counts: {
              ended: (why) => ended.push(why),
              upgradeRefused: () => undefined,
              messageRefused: () => undefined
            }
          })
          const tokens = Array.from({ length: TOKENS }, (_, i) => i + 1)
          const join = (policy: Policy, checker = new RuleChecker({ keep: true })) =>
            Effect.gen(function* () {
              // Compressed, far more of it lies in the buffers of the kernel.
              const client = yield* connect(url, { keep: false, checker, deflate: false })
              client.send({ action: "subscribe", tokens, policy, capacity: 100, batch })
              yield* client.until(({ checker }) => checker.backfills === TOKENS)
              return client
            })
          const fast: Array<TestClient> = []
          for (let i = 0; i < FAST; i++) fast.push(yield* join(i % 2 === 0 ? "conflate" : "disconnect"))
          const evicting = yield* join("evict-oldest")
          const conflating = yield* join("conflate")
          const pausing = yield* join("pause")
          const leaving = yield* join("disconnect")
          const slow = [evicting, conflating, pausing, leaving]
          for (const { ws } of slow) ws.pause()
          let position = 0
          const publish = () => {
            for (let i = 0; i < 20; i++) {
              position++
              hub.publish(tokens.map((token) => tickOf(token, EPOCH, position)))
            }
          }
          const all = ({ checker }: TestClient) => tokens.every((t) => checker.place(t)?.position === position)
          // Until the buffers of the kernel are full, and a while longer.
          while (pauses === 0 || leaving.closed === undefined || (evicted.conflate ?? 0) < 1000) {
            publish()
            for (const client of fast) yield* client.until(all)
            // It has a while to read why it is closed.
            if (isTold) leaving.ws.resume()
          }
          for (const { ws } of slow) ws.resume()
          assert.strictEqual(leaving.closed?.code, 4001)
          assert.deepStrictEqual(leaving.checker.messages.at(-1), "closing")
          const again = yield* connect(url, { keep: false, checker: leaving.checker })
          again.send({ action: "subscribe", tokens, since: leaving.checker.since() })
          for (const client of [evicting, conflating, pausing, again]) yield* client.until(all)
          publish()
          for (const client of [evicting, conflating, pausing, again, ...fast]) yield* client.until(all)

          for (const { checker, closed } of fast) {
            assert.isUndefined(closed)
            assert.strictEqual(checker.evicted, 0)
            assert.strictEqual(checker.ticks, position * TOKENS)
          }
          for (const { checker } of [pausing, again]) {
            assert.strictEqual(checker.evicted, 0)
            assert.strictEqual(checker.ticks + checker.backfilled, position * TOKENS)
          }
          assert.strictEqual(evicting.checker.evicted, evicted["evict-oldest"])
          assert.strictEqual(conflating.checker.evicted, evicted.conflate)
          assert.deepStrictEqual(Object.keys(evicted).sort(), ["conflate", "evict-oldest"])
          assert.strictEqual(pauses, 1)
          assert.strictEqual(ended.filter((why) => why === "slow").length, 1)
        })
      )
    )
  }

  it.live("one that never reads is closed with 4001, and cut off where it does not read that either", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const ended: Array<string> = []
        const { hub, url } = yield* serve({
          counts: { ended: (why) => ended.push(why), upgradeRefused: () => undefined, messageRefused: () => undefined }
        })
        const deaf = yield* connect(url)
        deaf.send({ action: "subscribe", tokens: [1], policy: "disconnect", capacity: 10 })
        yield* deaf.until(({ checker }) => checker.backfills === 1)
        deaf.ws.pause()
        let position = 0
        while (ended.length === 0) {
          for (let i = 0; i < 500 && hub.held.bytes < 1_000_000; i++) hub.publish([tickOf(1, EPOCH, ++position)])
          yield* Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, 1)))
        }
        assert.deepStrictEqual(ended, ["slow"])
        assert.deepStrictEqual(hub.held, { ticks: 0, bytes: 0 })
      })
    )
  )
})
