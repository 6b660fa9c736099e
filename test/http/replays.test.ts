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

  it.live("seek and step, and say where they stand", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(filled()) })
      const started = yield* send(port, "POST", "", { tokens: [7], date: "2026-01-16", paused: true })
      const { id } = started.json as Shown
      const change = (body: object) => send(port, "PATCH", `/${id}`, body)
      const iso = new Date((OPEN + 60_000_000) / 1000).toISOString()
      for (const [i, [seek, clock]] of (
        [
          ["09:15:30", OPEN + 30_000_000],
          ["09:16", OPEN + 60_000_000],
          [iso, OPEN + 60_000_000],
          [OPEN + 1, OPEN + 1]
        ] as const
      ).entries()) {
        const sought = yield* change({ seek })
        assert.deepInclude(sought.json, { state: "paused", run: i + 2, clock, sent: 0, total: 5 }, sought.text)
      }
      assert.deepInclude((yield* change({ seek: "09:15", speed: 5 })).json, { speed: 5, clock: OPEN })
      const cases: ReadonlyArray<readonly [body: object, parameter: string, got: RegExp]> = [
        [
          { seek: OPEN - 86_400_000_000 },
          "seek",
          /from 2026-01-16T00:00:00\+05:30 to before .*got 2026-01-15T09:15:00\+05:30/
        ],
        [{ seek: "25:00" }, "seek", /such as 09:20.*25:00/],
        [{ seek: "2026-01-16T09:20:00" }, "seek", /ISO-8601 with an offset.*2026-01-16T09:20:00/],
        [{ seek: true }, "seek", /epoch microseconds.*true/],
        [{ step: { ticks: 0 } }, "step", /^step.ticks: .*from 1 to 1000000, got 0/],
        [{ step: { ticks: 1.5 } }, "step", /^step.ticks: expected an integer, got 1\.5/],
        [{ step: { bars: 1001, interval: "1m" } }, "step", /^step.bars: .*from 1 to 1000, got 1001/],
        [{ step: { bars: 1, interval: "2m" } }, "step", /^step.interval: .*2m/],
        [{ step: { bars: 1 } }, "step", /got none/],
        [{ step: { rows: 1 } }, "step", /^unknown key rows/],
        [{ step: 1 }, "step", /1/]
      ]
      for (const [body, parameter, message] of cases) {
        const { json, status, text } = yield* change(body)
        assert.strictEqual(status, 400, `${JSON.stringify(body)} ${text}`)
        assert.deepInclude(json, { _tag: "BadRequest", parameter }, text)
        assert.match((json as { readonly message: string }).message, message)
      }
      assert.deepInclude((yield* change({})).json, { _tag: "BadRequest", parameter: "state" })
      assert.strictEqual((yield* send(port, "DELETE", `/${id}`)).status, 204)
      for (const body of [{ seek: OPEN }, { step: { ticks: 1 } }]) assert.strictEqual((yield* change(body)).status, 409)
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
        ["POST", "", { tokens: [7], date: "2020-01-01" }, 404],
        ["POST", "", { all: true, date: "2026-01-16", to: "09:00" }, 404],
        ["GET", "/nope", undefined, 404],
        ["PATCH", "/nope", { state: "paused" }, 404],
        ["DELETE", "/nope", undefined, 404]
      ]
      for (const [method, path, body, status] of cases) {
        const answer = yield* send(port, method, path, body)
        assert.strictEqual(answer.status, status, `${method} ${path} ${answer.text}`)
        assert.containsAllKeys(answer.json, ["_tag", "message", "parameter"])
      }
      const empty = yield* send(port, "POST", "", { all: true, date: "2020-01-01" })
      assert.deepStrictEqual(empty.json, {
        _tag: "NotFound",
        parameter: "date",
        message: "date: no tick and no quote is stored of 2020-01-01; days there are: 2026-01-16"
      })
      assert.deepStrictEqual((yield* send(port, "GET", "")).json, { replays: [] })
      const request = { tokens: [7], date: "2026-01-16", paused: true }
      assert.strictEqual((yield* send(port, "POST", "", request)).status, 201)
      assert.strictEqual((yield* send(port, "POST", "", request)).status, 201)
      const third = yield* send(port, "POST", "", request)
      assert.strictEqual(third.status, 429)
      assert.isDefined(third.headers["retry-after"])
    }).pipe(Effect.scoped)
  )
})
