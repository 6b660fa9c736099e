/** Decides that every field that the broker's own clients hand their user, in every mode, is what the platform itself says. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { WebSocket } from "ws"
import { LONG_MS } from "../support/guards.ts"
import { folder, getJson, runToEnd, startInstance, untilDrained } from "../support/processes.ts"
import { isInstalled } from "../support/services.ts"
import { type Client, client, type Language, languages, MANY, rootOf, type Said } from "./kiteClients.ts"
import {
  agrees,
  type Entry,
  FUTURE,
  INFY,
  INSTRUMENTS,
  NAMES,
  NIFTY,
  newest,
  packet,
  quotesOf,
  TOKENS,
  wholeOf,
  wholeOfPlatform
} from "./kiteFields.ts"

// Long: the platform and the clients are real processes.
describe.skipIf(!isInstalled("kite"))("Kite's own clients, unchanged,", { timeout: LONG_MS }, () => {
  it.live("hand on every field as the platform has it, in each mode, through each change of mode, and after", () =>
    Effect.gen(function* () {
      const instance = yield* startInstance(["run", "--kite-port", "0"], { ...MANY, DATA_DIR: yield* folder })
      const root = yield* rootOf(instance)
      const file = join(yield* folder, "i.csv")
      writeFileSync(file, INSTRUMENTS)
      const imported = yield* runToEnd(["instruments", "import", file, "--url", instance.url])
      assert.strictEqual(imported.code, 0, imported.stderr)

      /** The platform's own channel of quotes: the newest of each instrument. */
      const channel = new Map<number, Said>()
      const ws = yield* Effect.acquireRelease(
        Effect.sync(() => new WebSocket(instance.ws)),
        (socket) => Effect.sync(() => socket.terminate())
      )
      ws.on("message", (data: Buffer) => {
        const frame = JSON.parse(data.toString("utf8")) as Said
        if (frame.type === "quote") channel.set(frame.instrument_token as number, frame)
      })
      yield* Effect.callback<void>((resume) => {
        ws.once("open", () => resume(Effect.void))
      })
      ws.send(JSON.stringify({ action: "subscribe", tokens: TOKENS, channels: ["quote"] }))

      let n = 0
      /** The market moves on, of these instruments; answers what the platform says once all of it has heard. */
      const move = Effect.fnUntraced(function* (tokens: ReadonlyArray<number> = TOKENS) {
        n++
        // Not on a whole second, as which it goes.
        const ts = Math.floor(Date.now() / 1000) * 1_000_000 - 1_000_000 + n * 1000
        const lines = tokens.map((token) => JSON.stringify(packet(token, n, ts)))
        const status = yield* Effect.promise(() =>
          fetch(`${instance.url}/api/v1/ingest`, {
            method: "POST",
            headers: { "content-type": "application/x-ndjson" },
            body: lines.join("\n")
          }).then((answer) => answer.status)
        )
        assert.strictEqual(status, 200)
        const isThere = (entry: Entry): boolean =>
          entry.last?.exchange_ts === ts &&
          entry.quote?.exchange_ts === ts &&
          channel.get(entry.instrument_token)?.exchange_ts === ts
        const entries = yield* quotesOf(instance, tokens).pipe(
          Effect.repeat({ until: (all) => all.every(isThere), schedule: Schedule.spaced("20 millis") })
        )
        for (const { instrument_token, quote } of entries) {
          assert.deepStrictEqual(channel.get(instrument_token), { type: "quote", instrument_token, ...quote } as never)
        }
        return entries
      })

      let entries = yield* move()
      const kites: Array<{ readonly language: Language; readonly kite: Client }> = []
      for (const language of languages) kites.push({ language, kite: yield* client(language, { root }) })
      const each = (run: (language: Language, kite: Client) => Effect.Effect<void>) =>
        Effect.forEach(kites, ({ kite, language }) => run(language, kite), { concurrency: "unbounded", discard: true })

      // Who asks for no mode has mode quote.
      yield* each((language, kite) =>
        Effect.andThen(kite.get({ do: "listen", tokens: TOKENS }), agrees(language, kite, "quote", entries, 0))
      )
      for (const mode of ["full", "ltp", "quote", "full"] as const) {
        // What is known comes at once in the new mode …
        yield* each((language, kite) =>
          Effect.suspend(() => {
            const since = kite.events.length
            return Effect.andThen(
              kite.get({ do: "mode", mode, tokens: TOKENS }),
              agrees(language, kite, mode, entries, since)
            )
          })
        )
        // … and so does what changes.
        const since = new Map(kites.map(({ kite }) => [kite, kite.events.length]))
        entries = yield* move()
        yield* each((language, kite) => agrees(language, kite, mode, entries, since.get(kite)!))
      }

      yield* each((language, kite) =>
        Effect.gen(function* () {
          const whole = yield* kite.get<Record<string, Said>>({ do: "quote", i: NAMES })
          const ohlc = yield* kite.get<Record<string, Said>>({ do: "ohlc", i: NAMES })
          const ltp = yield* kite.get<Record<string, Said>>({ do: "ltp", i: NAMES })
          for (const [i, entry] of entries.entries()) {
            const says = wholeOfPlatform(entry)
            const name = NAMES[i]!
            assert.deepStrictEqual(wholeOf(language, whole[name]!), says as never, `${language} ${name}`)
            const { instrument_token, last_price } = says
            assert.deepStrictEqual(ohlc[name], { instrument_token, last_price, ohlc: says.ohlc } as never)
            assert.deepStrictEqual(ltp[name], { instrument_token, last_price })
          }
        })
      )

      // Of what is left nothing more comes; the change of another's mode says that it has been left.
      const left = new Map<Client, number>()
      yield* each((language, kite) =>
        Effect.gen(function* () {
          yield* kite.get({ do: "unsubscribe", tokens: [INFY, NIFTY] })
          const since = kite.events.length
          yield* kite.get({ do: "mode", mode: "quote", tokens: [FUTURE] })
          yield* kite.until(() => newest(language, kite, FUTURE, "quote", since))
          left.set(kite, kite.events.length)
        })
      )
      yield* move([INFY, NIFTY])
      const [moved] = yield* move([FUTURE])
      yield* each((language, kite) =>
        Effect.gen(function* () {
          const since = left.get(kite)!
          yield* agrees(language, kite, "quote", [moved!], since)
          for (const mode of ["ltp", "quote", "full"] as const) {
            for (const token of [INFY, NIFTY]) {
              assert.isUndefined(newest(language, kite, token, mode, since), `${language} ${token}`)
            }
          }
        })
      )
      // And comes again for who asks again.
      const known = yield* quotesOf(instance, [INFY, NIFTY])
      yield* each((language, kite) =>
        Effect.suspend(() => {
          const since = kite.events.length
          return Effect.andThen(
            kite.get({ do: "subscribe", tokens: [INFY, NIFTY] }),
            agrees(language, kite, "quote", known, since)
          )
        })
      )
    }).pipe(Effect.scoped)
  )

  it.live("do so of a simulated market: equities, futures and options, with their books and open interest", () =>
    Effect.gen(function* () {
      const market = ["demo", "--symbols", "50", "--rate", "1000", "--duration", "5s", "--kite-port", "0"]
      const instance = yield* startInstance(market, MANY)
      const root = yield* rootOf(instance)
      yield* instance.mdp.until(
        () => /reached|ticks meant|sent/.test(instance.mdp.stdout) || undefined,
        "the market's end"
      )
      yield* untilDrained(instance.url)
      const { instruments } = (yield* getJson(
        `${instance.url}/api/v1/instruments/search?query=&exchange=SIM&limit=50`
      )) as { readonly instruments: ReadonlyArray<{ readonly instrument_token: number; readonly asset_class: string }> }
      const some = ["EQ", "FUT", "OPT"].flatMap((kind) =>
        instruments.filter(({ asset_class }) => asset_class === kind).slice(0, 2)
      )
      assert.isAtLeast(some.length, 5)
      const entries = yield* quotesOf(
        instance,
        some.map(({ instrument_token }) => instrument_token)
      )
      for (const [i, { quote }] of entries.entries()) {
        assert.strictEqual((quote.oi ?? 0) > 0, some[i]!.asset_class !== "EQ")
        assert.strictEqual(quote.bid?.length, 5)
      }
      for (const language of languages) {
        const kite = yield* client(language, { root })
        const tokens = entries.map(({ instrument_token }) => instrument_token)
        yield* kite.get({ do: "listen", tokens, mode: "full" })
        yield* agrees(language, kite, "full", entries, 0)
      }
    }).pipe(Effect.scoped)
  )
})
