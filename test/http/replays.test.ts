import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { instrumentOf } from "../support/instruments.ts"
import { memoryStore, OPEN, Rows, storedTick } from "./memoryStore.ts"
import { ask, serve } from "./serving.ts"

const filled = () => {
  const rows = new Rows()
  rows.instruments.set(7, instrumentOf(7, "TCS"))
  for (let i = 0; i < 5; i++) {
    rows.ticks.push(
      storedTick({ exchange_ts: OPEN + i * 60_000_000, sequence_id: i + 1, price: 100 + i, position: i + 1 })
    )
  }
  return rows
}

interface Shown {
  readonly id: string
  readonly state: string
  readonly speed: number | string
  readonly total: number
}

const send = (port: number, method: string, path: string, body?: object) =>
  ask(port, `/api/v1/replays${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } })
  })

describe("replays over REST", () => {
  it.live("are started, listed, paused, resumed, sped up and ended", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(filled()) })
      const started = yield* send(port, "POST", "", { symbols: ["NSE:TCS"], date: "2026-01-16", paused: true })
      assert.strictEqual(started.status, 201, started.text)
      const replay = started.json as Shown
      assert.deepInclude(started.json, { state: "paused", speed: 1, total: 5, run: 1, sent: 0, clock: null })
      const list = yield* send(port, "GET", "")
      assert.deepStrictEqual((list.json as { readonly replays: ReadonlyArray<Shown> }).replays, [replay])
      assert.deepStrictEqual((yield* send(port, "GET", `/${replay.id}`)).json, started.json)
      const faster = yield* send(port, "PATCH", `/${replay.id}`, { speed: 10 })
      assert.deepInclude(faster.json, { state: "paused", speed: 10 })
      const resumed = yield* send(port, "PATCH", `/${replay.id}`, { state: "running" })
      assert.deepInclude(resumed.json, { state: "running", speed: 10 })
      const paused = yield* send(port, "PATCH", `/${replay.id}`, { state: "paused" })
      assert.deepInclude(paused.json, { state: "paused" })
      const ended = yield* send(port, "DELETE", `/${replay.id}`)
      assert.deepStrictEqual([ended.status, ended.text], [204, ""])
      assert.deepInclude((yield* send(port, "GET", `/${replay.id}`)).json, { state: "ended" })
      const over = yield* send(port, "PATCH", `/${replay.id}`, { state: "running" })
      assert.strictEqual(over.status, 409)
      assert.deepInclude(over.json, { _tag: "Conflict", parameter: "state" })
    }).pipe(Effect.scoped)
  )

  it.live("are refused in the contract's form", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(filled()) })
      const cases: ReadonlyArray<readonly [method: string, path: string, body: object | undefined, status: number]> = [
        ["POST", "", { date: "2026-01-16" }, 400],
        ["POST", "", { tokens: [7], date: "16.01.2026" }, 400],
        ["POST", "", { tokens: [7], date: "2026-01-16", speed: 0 }, 400],
        ["POST", "", { symbols: ["NSE:NOPE"], date: "2026-01-16" }, 404],
        ["GET", "/nope", undefined, 404],
        ["PATCH", "/nope", { state: "paused" }, 404],
        ["DELETE", "/nope", undefined, 404]
      ]
      for (const [method, path, body, status] of cases) {
        const answer = yield* send(port, method, path, body)
        assert.strictEqual(answer.status, status, `${method} ${path} ${answer.text}`)
        assert.containsAllKeys(answer.json, ["_tag", "message", "parameter"])
      }
      const request = { tokens: [7], date: "2026-01-16", paused: true }
      assert.strictEqual((yield* send(port, "POST", "", request)).status, 201)
      assert.strictEqual((yield* send(port, "POST", "", request)).status, 201)
      const third = yield* send(port, "POST", "", request)
      assert.strictEqual(third.status, 429)
      assert.isDefined(third.headers["retry-after"])
    }).pipe(Effect.scoped)
  )
})
