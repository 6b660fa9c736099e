/** Decides that the broker's own clients, unchanged, raise each failure of the gateway by its own class, code and words. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { StoreError } from "../../src/schema/Errors.ts"
import type { Instrument } from "../../src/schema/Instrument.ts"
import { serveKite } from "../http/kite/serving.ts"
import { memoryStore, Rows, storedTick } from "../http/memoryStore.ts"
import { LONG_MS } from "../support/guards.ts"
import { instrumentOf } from "../support/instruments.ts"
import { accessBy, keysFile, makeKey } from "../support/keys.ts"
import { isInstalled } from "../support/services.ts"
import { type Asked, client, languages, type Pair } from "./kiteClients.ts"

const INFY = 408_065
const TCS = 2_953_217
const known: ReadonlyArray<Instrument> = [instrumentOf(INFY, "INFY"), instrumentOf(TCS, "TCS")]

const rows = new Rows()
for (const one of known) {
  rows.instruments.set(one.instrument_token, one)
  rows.ticks.push(storedTick({ instrument_token: one.instrument_token }))
}

const rootOf = ({ port }: { readonly port: number }): string => `http://127.0.0.1:${port}`
const day = { start: "2026-01-16 00:00:00", end: "2026-01-16 12:00:00", oi: false }
const candles = (token: number, interval = "minute"): Asked => ({ do: "historical", token, interval, ...day })
const ltp: Asked = { do: "ltp", i: ["NSE:INFY"] }

interface Failing extends Pair {
  readonly when: string
  readonly asked: Asked
  readonly failed: string
  readonly code: number
  readonly message: RegExp
}

// Long: the clients are real processes.
describe.skipIf(!isInstalled("kite"))("Kite's own clients, unchanged,", { timeout: LONG_MS }, () => {
  it.live("raise each failure by its class, with its code and what is wrong", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const reads = makeKey("reads", { scopes: ["read"] })
      const some = makeKey("some", { instruments: [String(INFY)] })
      const { path } = yield* keysFile([desk, reads, some])
      const settings = { KITE_QUOTE_INSTRUMENTS: 1 }
      // A store that breaks, one that does not answer, and one whose rows nobody understands.
      const broken = memoryStore(rows, {
        daysSoFar: () => Effect.die("broken"),
        candles: ({ instrument_token }) =>
          Effect.fail(
            new StoreError({ operation: "candles", message: "no answer", transient: instrument_token === INFY })
          )
      })
      const failing = rootOf(yield* serveKite({ store: broken }))
      const impatient = rootOf(
        yield* serveKite({ store: memoryStore(rows), settings: { KITE_QUOTE_RATE: 1, KITE_REQUEST_RATE: 1 } })
      )

      const casesOf = (whole: string): ReadonlyArray<Failing> => [
        {
          root: whole,
          token: "guess",
          when: "a token that is none",
          asked: { do: "profile" },
          failed: "TokenException",
          code: 403,
          message: /^Incorrect `api_key` or `access_token`\.$/
        },
        {
          root: whole,
          token: "guess",
          when: "a session for a token that is none",
          asked: { do: "session", request_token: "guess" },
          failed: "TokenException",
          code: 403,
          message: /^Token is invalid or has expired\.$/
        },
        {
          root: whole,
          key: "replay:abc",
          token: desk.text,
          when: "a replay that nobody started",
          asked: ltp,
          failed: "TokenException",
          code: 403,
          message: /no replay is called abc/
        },
        {
          root: whole,
          key: "replay:abc",
          token: reads.text,
          when: "a key that may not see replays",
          asked: ltp,
          failed: "PermissionException",
          code: 403,
          message: /scope.*replay/
        },
        {
          root: whole,
          token: some.text,
          when: "a key that is for others",
          asked: candles(TCS),
          failed: "PermissionException",
          code: 403,
          message: /^key "some" is not for 2953217 on all of these days$/
        },
        {
          root: whole,
          token: desk.text,
          when: "an order",
          asked: { do: "order" },
          failed: "InputException",
          code: 400,
          message: /^this is market data only/
        },
        {
          root: whole,
          token: desk.text,
          when: "more instruments than one request may name",
          asked: { do: "quote", i: ["NSE:INFY", "NSE:TCS"] },
          failed: "InputException",
          code: 400,
          message: /^Too many tokens requested\. Max permitted is 1\.$/
        },
        {
          root: whole,
          token: desk.text,
          when: "candles of what there is not",
          asked: candles(7),
          failed: "InputException",
          code: 400,
          message: /^invalid token/
        },
        {
          root: whole,
          token: desk.text,
          when: "an interval that there is not",
          asked: candles(INFY, "2minute"),
          failed: "InputException",
          code: 400,
          message: /^invalid interval/
        },
        {
          root: whole,
          token: desk.text,
          when: "more days than an interval has",
          asked: { ...candles(INFY), start: "2025-01-16 00:00:00" },
          failed: "InputException",
          code: 400,
          message: /^interval exceeds max limit: 60 days$/
        },
        {
          root: whole,
          token: desk.text,
          when: "a path that there is not",
          asked: { do: "segment", segment: "equity/futures" },
          failed: "GeneralException",
          code: 404,
          message: /^Route not found$/
        },
        {
          root: failing,
          token: "any",
          when: "a fault of the platform's own",
          asked: ltp,
          failed: "GeneralException",
          code: 500,
          message: /^internal error$/
        },
        {
          root: failing,
          token: "any",
          when: "a store that does not answer",
          asked: candles(INFY),
          failed: "NetworkException",
          code: 503,
          message: /^the store did not do candles: no answer$/
        },
        {
          root: failing,
          token: "any",
          when: "a store whose answer asking again does not mend",
          asked: candles(TCS),
          failed: "DataException",
          code: 502,
          message: /^the store did not do candles/
        }
      ]
      for (const language of languages) {
        // One of its own: wrong keys of one address are let try a few times only.
        const whole = rootOf(yield* serveKite({ store: memoryStore(rows), access: accessBy(path), settings }))
        for (const { asked, code, failed, message, when, ...pair } of casesOf(whole)) {
          const kite = yield* client(language, pair)
          const told = yield* kite.ask(asked)
          assert.strictEqual(told.failed, failed, `${language}: ${when}: ${String(told.message)}`)
          assert.match(String(told.message), message, `${language}: ${when}`)
          // JavaScript's failures have no code.
          if (language !== "javascript") assert.strictEqual(told.code, code, `${language}: ${when}`)
          // Go's has no hook for a session that is over.
          if (failed === "TokenException" && language !== "go")
            yield* kite.until(() => kite.count("session_expired") > 0)
          else assert.strictEqual(kite.count("session_expired"), 0)
        }
        // Whoever asks too often: what comes within the same second.
        const kite = yield* client(language, { root: impatient })
        let told = yield* kite.ask(ltp)
        while (told.failed === undefined) told = yield* kite.ask(ltp)
        assert.strictEqual(told.failed, "NetworkException", language)
        assert.match(String(told.message), /^Too many requests: 1 a second of one api_key, by KITE_QUOTE_RATE$/)
        if (language !== "javascript") assert.strictEqual(told.code, 429)
      }
    }).pipe(Effect.scoped)
  )

  it.live("tell their user why a ticker is not let in, and what it may not have", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const { path } = yield* keysFile([desk])
      const settings = { KITE_CONNECTIONS: 1, KITE_INSTRUMENTS: 1 }
      // Go's client does not say the code of a handshake that was refused.
      const words = {
        python: { bad: /\(403 - /, many: /\(429 - / },
        javascript: { bad: /Unexpected server response: 403/, many: /Unexpected server response: 429/ },
        go: { bad: /bad handshake/, many: /bad handshake/ }
      }
      for (const language of languages) {
        const root = rootOf(yield* serveKite({ store: memoryStore(rows), access: accessBy(path), settings }))
        const says = (kite: { readonly events: ReadonlyArray<Readonly<Record<string, unknown>>> }, what: RegExp) =>
          kite.events.some(({ event, reason }) => (event === "error" || event === "close") && what.test(String(reason)))
        const { bad, many } = words[language]
        const stranger = yield* client(language, { root, token: "guess" })
        yield* stranger.get({ do: "listen", tokens: [INFY], mode: "full" })
        yield* stranger.until(() => says(stranger, bad))
        assert.strictEqual(stranger.count("connect"), 0, language)

        const kite = yield* client(language, { root, token: desk.text })
        yield* kite.get({ do: "listen", tokens: [INFY, TCS], mode: "full" })
        yield* kite.until(() => kite.ticks.length > 0)
        // JavaScript's client passes over texts; what it may have comes all the same.
        if (language !== "javascript") {
          yield* kite.until(() =>
            says(kite, /^subscribe: 1 instruments are subscribed to, and no more may be: not 2953217$/)
          )
        }
        assert.strictEqual(kite.count("close"), 0, language)

        const another = yield* client(language, { root, token: desk.text })
        yield* another.get({ do: "listen", tokens: [INFY], mode: "full" })
        yield* another.until(() => says(another, many))
      }
    }).pipe(Effect.scoped)
  )
})
