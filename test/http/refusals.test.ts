import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { memoryStore, Rows } from "./memoryStore.ts"
import { ask, serve } from "./serving.ts"

const open = () => serve({ store: memoryStore(new Rows()) })

const refused = (port: number, path: string, body?: { readonly method: string; readonly value: unknown }) =>
  Effect.map(
    ask(
      port,
      `/api/v1${path}`,
      body === undefined
        ? {}
        : {
            method: body.method,
            headers: { "content-type": "application/json" },
            body: JSON.stringify(body.value)
          }
    ),
    (answer) => {
      assert.strictEqual(answer.status, 400, `${path} ${answer.text}`)
      return answer.json as { readonly _tag: string; readonly message: string; readonly parameter?: string }
    }
  )

describe("a refusal", () => {
  it.live("names a parameter that the route does not know, with the nearest, and one that comes twice", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const cases: ReadonlyArray<readonly [path: string, parameter: string, message: string]> = [
        ["/historical/ticks?instrument_token=1&form=1", "form", "unknown parameter form: did you mean from?"],
        ["/historical/ticks?token=1", "token", "unknown parameter token: did you mean tokens?"],
        ["/historical/candles?interval=1m&instrument_tokn=1", "instrument_tokn", "did you mean instrument_token?"],
        ["/quotes?token=1", "token", "unknown parameter token: did you mean tokens?"],
        ["/quotes?tokens=1&speed=2", "speed", "unknown parameter speed: known: tokens"],
        ["/replays?limit=5", "limit", "unknown parameter limit: none is taken here"],
        ["/historical/ticks?instrument_token=1&limit=1&limit=2", "limit", "limit: expected once, got more"],
        ["/quotes?tokens=1&%1b%5b2J=1", "\\u001b[2J", "unknown parameter \\u001b[2J: known: tokens"]
      ]
      for (const [path, parameter, message] of cases) {
        const answer = yield* refused(port, path)
        assert.deepInclude(answer, { _tag: "BadRequest", parameter })
        assert.include(answer.message, message)
      }
      // What pages and probes add is theirs.
      assert.strictEqual((yield* ask(port, "/healthz?probe=1")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("names a key of a body that is not known, with the nearest", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const post = (value: unknown) => refused(port, "/replays", { method: "POST", value })
      assert.deepInclude(yield* post({ date: "2026-01-16", all: true, sped: 1 }), {
        parameter: "sped",
        message: "unknown key sped: did you mean speed?"
      })
      assert.deepInclude(yield* refused(port, "/replays/x", { method: "PATCH", value: { stat: "paused" } }), {
        parameter: "stat",
        message: "unknown key stat: did you mean state?"
      })
      assert.deepInclude(yield* refused(port, "/dlq/retry", { method: "POST", value: { al: true } }), {
        parameter: "al",
        message: "unknown key al: did you mean all?"
      })
    }).pipe(Effect.scoped)
  )

  it.live("says in plain words what is expected, and never the name of a schema", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const post = (value: unknown) => refused(port, "/replays", { method: "POST", value })
      const cases: ReadonlyArray<readonly [value: unknown, message: string]> = [
        [{ all: true }, "date: expected a date such as 2026-01-15, got nothing"],
        [{ all: true, date: 5 }, "date: expected a date such as 2026-01-15, got 5"],
        [
          { all: true, date: "2026-01-16", speed: "fast" },
          'speed: expected a number from 0.001 to 1000000, or "inf", got "fast"'
        ],
        [{ all: true, date: "2026-01-16", speed: 0 }, "speed: expected a value between 0.001 and 1000000, got 0"],
        [{ all: "yes", date: "2026-01-16" }, 'all: expected true or false, got "yes"'],
        [{ symbols: "A", date: "2026-01-16" }, 'symbols: expected a list with a length between 1 and 10000, got "A"'],
        [{ tokens: ["1"], date: "2026-01-16" }, 'tokens.0: expected a number between 1 and 2147483647, got "1"'],
        [{ all: true, date: "2026-01-16", source: "x" }, 'source: expected "store" or "archive", got "x"'],
        [[], "body: expected an object, got []"]
      ]
      for (const [value, message] of cases) assert.strictEqual((yield* post(value)).message, message)
      const queries: ReadonlyArray<readonly [path: string, message: string]> = [
        ["/quotes", "tokens: expected 1 to 300 instrument tokens, comma-separated, got nothing"],
        ["/historical/ticks?instrument_token=x", 'instrument_token: expected a whole number, got "x"'],
        ["/historical/ticks?instrument_token=1&limit=0", 'limit: expected a value between 1 and 10000, got "0"'],
        [
          "/historical/candles?instrument_token=1",
          'interval: expected "1m" or "5m" or "15m" or "30m" or "1h" or "1d", got nothing'
        ],
        ["/calendar?exchange=NSE", "date: expected a date such as 2026-01-15, got nothing"]
      ]
      for (const [path, message] of queries) assert.strictEqual((yield* refused(port, path)).message, message)
    }).pipe(Effect.scoped)
  )

  it.live("says what a time seems to be that is none: another unit, no offset, or a + that was not encoded", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const cases: ReadonlyArray<readonly [time: string, hint: string]> = [
        ["1768535100", ', got "1768535100", which looks like seconds'],
        ["1768535100000", ', got "1768535100000", which looks like milliseconds'],
        ["1768535100000000000", ', got "1768535100000000000", which looks like nanoseconds'],
        [
          "2026-01-16T09:15:00+05:30",
          ', got "2026-01-16T09:15:00 05:30", where a + has become a space: write it as %2B'
        ],
        ["2026-01-16T09:15:00", ", which has no offset: %2B05:30 is India's"]
      ]
      for (const [time, hint] of cases) {
        for (const parameter of ["from", "to"]) {
          const answer = yield* refused(port, `/historical/ticks?instrument_token=1&${parameter}=${time}`)
          assert.strictEqual(answer.parameter, parameter)
          assert.isTrue(answer.message.endsWith(hint), answer.message)
        }
      }
    }).pipe(Effect.scoped)
  )
})
