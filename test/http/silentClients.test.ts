import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Silent, SilentClients } from "../../src/http/silentClients.ts"
import { EPOCH, tickOf } from "../support/hub.ts"
import { connect, serve } from "../support/webSocketServer.ts"

/** A peer that notes what becomes of it, on a clock of the test's own. */
const peer = () => {
  const done: Array<string> = []
  const silent: Silent = { silent: 0, ask: () => done.push("asked"), giveUp: () => done.push("gone") }
  return { silent, done }
}

describe("a client that says nothing", () => {
  it("is asked, and cut off where it does not answer; one that may pause as much later as it may", () => {
    const looks: Array<() => void> = []
    const silence = new SilentClients(10, (look) => {
      looks.push(look)
      return () => looks.splice(looks.indexOf(look), 1)
    })
    const [deaf, answering, pausing] = [peer(), peer(), peer()]
    silence.add(deaf.silent, () => 0)
    silence.add(answering.silent, () => 0)
    silence.add(pausing.silent, () => 300)
    assert.strictEqual(looks.length, 1)
    const look = (times: number) => {
      for (let i = 0; i < times; i++) {
        looks[0]!()
        if (answering.done.at(-1) === "asked") {
          answering.silent.silent = 0
          answering.done.push("answered")
        }
        for (const { silent, done } of [deaf, pausing]) if (done.at(-1) === "gone") silence.remove(silent)
      }
    }
    look(12)
    assert.deepStrictEqual(deaf.done, [])
    look(2)
    assert.deepStrictEqual(deaf.done, ["asked"])
    look(17)
    assert.deepStrictEqual(deaf.done, ["asked", "gone"])
    assert.deepStrictEqual(answering.done, ["asked", "answered", "asked", "answered"])
    assert.deepStrictEqual(pausing.done, ["asked"])
    look(2)
    assert.deepStrictEqual(pausing.done, ["asked", "gone"])
    silence.remove(answering.silent)
    assert.deepStrictEqual(looks, [])
  })

  it.live("is counted as idle, and one with policy pause that does not read is there when it reads on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const ended: Array<string> = []
        const { hub, url } = yield* serve({
          silenceLookMs: 20,
          hub: { CLIENT_PAUSE_MS: 60_000, RING_TICKS: 100_000 },
          counts: { ended: (why) => ended.push(why), upgradeRefused: () => undefined, messageRefused: () => undefined }
        })
        const deaf = yield* connect(url)
        const pausing = yield* connect(url)
        const good = yield* connect(url)
        for (const client of [deaf, pausing, good]) {
          client.send({ action: "subscribe", tokens: [1], policy: client === pausing ? "pause" : "evict-oldest" })
          yield* client.until(({ checker }) => checker.backfills === 1)
        }
        deaf.ws.pause()
        pausing.ws.pause()
        yield* Effect.promise(async () => {
          while (ended.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
        })
        assert.deepStrictEqual(ended, ["idle"])
        assert.strictEqual(hub.size, 2)
        hub.publish([tickOf(1, EPOCH, 1)])
        pausing.ws.resume()
        for (const client of [pausing, good]) yield* client.until(({ checker }) => checker.ticks === 1)
      })
    )
  )
})
