import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { MAX_QUOTES } from "../../src/http/Api.ts"
import { writeCursor } from "../../src/http/cursor.ts"
import { MAX_HEAD_BYTES } from "../../src/http/headLimit.ts"
import { MAX_VOLUME } from "../../src/schema/Candle.ts"
import { StoreError } from "../../src/schema/Errors.ts"
import { isPrintable } from "../../src/schema/printable.ts"
import { MAX_DATE, MIN_DATE } from "../../src/schema/Time.ts"
import type { StoredTick } from "../../src/streams/ports/TickStore.ts"
import { ReplayAudience } from "../../src/streams/replay/ReplayAudience.ts"
import { memoryStore, OPEN, Rows, storedTick } from "./memoryStore.ts"
import { ask, serve } from "./serving.ts"

const holding = (...ticks: ReadonlyArray<StoredTick>): Rows => {
  const rows = new Rows()
  rows.ticks.push(...ticks)
  return rows
}

const post = (port: number, body: object) =>
  ask(port, "/api/v1/replays", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body)
  })

describe("dates", () => {
  it.live("have bounds in every route that takes one, and what is refused leaves nothing behind", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(holding(storedTick())) })
      for (const date of ["9999-12-31", "2255-06-07", "2100-01-02", "1979-12-31", "1969-12-31", "0000-01-01"]) {
        const expected = {
          _tag: "BadRequest",
          parameter: "date",
          message: `date: expected a date between ${MIN_DATE} and ${MAX_DATE}, got "${date}"`
        }
        const replay = yield* post(port, { date, all: true })
        assert.strictEqual(replay.status, 400, replay.text)
        assert.deepStrictEqual(replay.json, expected)
        const calendar = yield* ask(port, `/api/v1/calendar?exchange=NSE&date=${date}`)
        assert.strictEqual(calendar.status, 400, calendar.text)
        assert.deepStrictEqual(calendar.json, expected)
      }
      const list = yield* ask(port, "/api/v1/replays")
      assert.deepStrictEqual([list.status, list.json], [200, { replays: [] }])
      for (const date of [MIN_DATE, MAX_DATE]) {
        assert.strictEqual((yield* ask(port, `/api/v1/calendar?exchange=NSE&date=${date}`)).status, 200)
        // It reads well: nothing is stored of it.
        assert.strictEqual((yield* post(port, { date, all: true, paused: true })).status, 404)
      }
      assert.strictEqual((yield* ask(port, "/api/v1/replays")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("a replay that could not be started is not listed, and takes no place of another", () =>
    Effect.gen(function* () {
      let opened = 0
      const audience = Layer.succeed(ReplayAudience, {
        open: () => {
          opened += 1
          if (opened <= 3) throw new Error("no channel")
        },
        publish: () => {},
        clock: () => {},
        close: () => {},
        clients: () => 1
      })
      const { port } = yield* serve({ store: memoryStore(holding(storedTick())), audience })
      const request = { date: "2026-01-16", tokens: [7], paused: true }
      for (let i = 0; i < 3; i++) assert.strictEqual((yield* post(port, request)).status, 500)
      assert.deepStrictEqual((yield* ask(port, "/api/v1/replays")).json, { replays: [] })
      assert.strictEqual((yield* post(port, request)).status, 201)
      assert.strictEqual((yield* post(port, request)).status, 201)
    }).pipe(Effect.scoped)
  )

  it.live("a cursor's time has the bounds of a time", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(holding(storedTick())) })
      for (const time of [Number.MAX_SAFE_INTEGER, -1, 0, null]) {
        const ticks = writeCursor("ticks", 7, [time, 1, null, null])
        const candles = writeCursor("candles-1m", 7, [time])
        for (const path of [`ticks?cursor=${ticks}`, `candles?interval=1m&cursor=${candles}`]) {
          const answer = yield* ask(port, `/api/v1/historical/${path}&instrument_token=7`)
          assert.strictEqual(answer.status, 400, `${path} ${answer.text}`)
          assert.deepInclude(answer.json, { _tag: "BadRequest", parameter: "cursor" })
        }
      }
    }).pipe(Effect.scoped)
  )
})

describe("a request's head", () => {
  /** The most tokens, each as long as one may be, with commas as clients write them that mask what may be masked. */
  const many = Array.from({ length: MAX_QUOTES }, (_, i) => 2_147_000_000 + i)
  const url = `/api/v1/quotes?tokens=${many.join("%2C")}`

  it.live("has room for as many tokens as a route takes, beside what a browser sends", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(holding(storedTick())) })
      const answer = yield* ask(port, url, { headers: { cookie: "x".repeat(4000) } })
      assert.strictEqual(answer.status, 200, answer.text)
      const { quotes } = answer.json as { readonly quotes: ReadonlyArray<unknown> }
      assert.strictEqual(quotes.length, MAX_QUOTES)
    }).pipe(Effect.scoped)
  )

  it.live("is refused where it is longer than that, and the connection ends", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(holding(storedTick())) })
      const padded = (bytes: number) => ask(port, "/healthz", { headers: { "x-padding": "x".repeat(bytes) } })
      assert.strictEqual((yield* padded(MAX_HEAD_BYTES - 1000)).status, 200)
      assert.strictEqual((yield* padded(MAX_HEAD_BYTES)).status, 431)
    }).pipe(Effect.scoped)
  )
})

describe("sums", () => {
  it.live("of volumes stop at the largest safe integer, in quotes and on every level of bars", () =>
    Effect.gen(function* () {
      const large = { volume: MAX_VOLUME }
      const rows = holding(
        storedTick(large),
        storedTick({ ...large, exchange_ts: OPEN + 1, sequence_id: 2, position: 2 }),
        storedTick({ ...large, exchange_ts: OPEN + 900_000_000, sequence_id: 3, position: 3 }),
        storedTick({ instrument_token: 8, volume: 5 })
      )
      const { port } = yield* serve({ store: memoryStore(rows) })
      const quotes = yield* ask(port, "/api/v1/quotes?tokens=7,8,9")
      assert.strictEqual(quotes.status, 200, quotes.text)
      const found = (quotes.json as { readonly quotes: ReadonlyArray<{ readonly volume: number | null }> }).quotes
      assert.deepStrictEqual(
        found.map(({ volume }) => volume),
        [MAX_VOLUME, 5, null]
      )
      for (const interval of ["1m", "1d", "1d&session=regular"]) {
        const answer = yield* ask(port, `/api/v1/historical/candles?instrument_token=7&interval=${interval}`)
        assert.strictEqual(answer.status, 200, `${interval} ${answer.text}`)
        const { candles } = answer.json as { readonly candles: ReadonlyArray<{ readonly volume: number }> }
        assert.strictEqual(candles[0]?.volume, MAX_VOLUME, interval)
      }
    }).pipe(Effect.scoped)
  )

  it.live("whatever the store holds, an answer is given: no number is null, a sum beyond all bounds the largest", () =>
    Effect.gen(function* () {
      const last = storedTick({ price: Number.NaN, volume: 2 ** 70, feed: "\u0007\ud800" })
      const quotes = new Map([
        [7, { last, open: Number.NaN, high: Number.POSITIVE_INFINITY, low: -1e300, volume: 2 ** 70 }]
      ])
      const store = memoryStore(new Rows(), {
        daysSoFar: () => Effect.succeed(quotes),
        ticks: () => Effect.succeed([last]),
        candles: () => Effect.succeed([{ ts: OPEN, open: Number.NaN, high: 1, low: 1, close: 1, volume: 2 ** 70 }])
      })
      const { port } = yield* serve({ store })
      const quote = yield* ask(port, "/api/v1/quotes?tokens=7")
      assert.strictEqual(quote.status, 200, quote.text)
      assert.deepInclude((quote.json as { readonly quotes: ReadonlyArray<object> }).quotes[0], {
        open: null,
        high: null,
        volume: MAX_VOLUME
      })
      for (const path of ["ticks?instrument_token=7", "candles?instrument_token=7&interval=1m"]) {
        const answer = yield* ask(port, `/api/v1/historical/${path}`)
        assert.strictEqual(answer.status, 200)
        assert.isDefined(answer.json, answer.text)
        assert.include(answer.text, `"volume":${MAX_VOLUME}`)
      }
    }).pipe(Effect.scoped)
  )
})

describe("work and texts", () => {
  it.live(
    "ten thousand tokens that nobody knows cost the store one question, and a symbol is shown cut and harmless",
    () =>
      Effect.gen(function* () {
        let asked = 0
        const one = <A>(answer: A) =>
          Effect.sync(() => {
            asked += 1
            return answer
          })
        const { port } = yield* serve({
          store: memoryStore(new Rows(), { count: () => one(0), tokens: () => one([9999]) })
        })
        const tokens = Array.from({ length: 10_000 }, (_, i) => 9999 - (i % 2))
        const unknown = yield* post(port, { date: "2026-01-16", tokens })
        assert.strictEqual(unknown.status, 404, unknown.text)
        assert.include(unknown.text, "has token 9998")
        assert.isAtMost(asked, 2)
        const symbol = yield* post(port, { date: "2026-01-16", symbols: [`${"x".repeat(90)}\u001b[2J`] })
        assert.strictEqual(symbol.status, 404)
        assert.notInclude((symbol.json as { readonly message: string }).message, "\u001b")
        const long = yield* post(port, { date: "2026-01-16", symbols: ["x".repeat(200_000)] })
        assert.strictEqual(long.status, 400)
        assert.isBelow(long.text.length, 400)
      }).pipe(Effect.scoped)
  )

  it.live("what a store says of its failure is told in one line, cut", () =>
    Effect.gen(function* () {
      const message = `${"\n\u001b[31m".repeat(10)}${"x".repeat(100_000)}`
      const failure = new StoreError({ operation: "daysSoFar", message, transient: true })
      const { port } = yield* serve({ store: memoryStore(new Rows(), { daysSoFar: () => Effect.fail(failure) }) })
      const answer = yield* ask(port, "/api/v1/quotes?tokens=1")
      assert.strictEqual(answer.status, 503)
      const told = (answer.json as { readonly message: string }).message
      assert.isBelow(told.length, 400)
      assert.isTrue(isPrintable(told), told)
    }).pipe(Effect.scoped)
  )
})
