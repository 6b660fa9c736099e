/** Decides that a gateway beside servers and workers tells the broker's own clients what a server tells, and again once it is back. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { WebSocket } from "ws"
import { LONG_MS } from "../support/guards.ts"
import { folder, runToEnd, start, startInstance } from "../support/processes.ts"
import { freePort, isInstalled, ownKafka, ownPostgres, ownRedis } from "../support/services.ts"
import { type Client, client, type Language, languages, MANY, type Said } from "./kiteClients.ts"
import { agrees, INSTRUMENTS, packet, quotesOf, said, TOKENS } from "./kiteFields.ts"

const isMissing = !(["kite", "kafka", "redis", "postgres"] as const).map(isInstalled).every((is) => is)

/** Of one instrument: price and second of a trade. */
type Trade = readonly [price: number, second: number]

// Long: the platform is four processes on three servers.
describe.skipIf(isMissing)("Kite's own clients, on a gateway of its own,", { timeout: LONG_MS }, () => {
  it.live("are told each trade that a server tells, and all of it again after it was killed", () =>
    Effect.gen(function* () {
      const [kafka, redis, postgres] = [yield* ownKafka, yield* ownRedis, yield* ownPostgres()]
      const settings = {
        ...MANY,
        ...kafka.settings(),
        ...redis.settings(),
        ...postgres.settings(),
        PARTITIONS: "2",
        METRICS_PORT: "0"
      }
      const worker = yield* start(["worker"], settings)
      yield* worker.until(() => /\/metrics/.test(worker.stdout) || undefined, "the worker's address")
      const server = yield* startInstance(["server"], settings)
      const port = String(yield* Effect.promise(() => freePort()))
      const gateway = Effect.gen(function* () {
        const mdp = yield* start(["gateway", "kite", "--port", port], settings)
        yield* mdp.until(() => /Kite gateway listening on/.test(mdp.stdout) || undefined, "the gateway's address")
        return mdp
      })
      const first = yield* gateway
      const root = `http://127.0.0.1:${port}`
      const file = join(yield* folder, "i.csv")
      writeFileSync(file, INSTRUMENTS)
      const imported = yield* runToEnd(["instruments", "import", file, "--url", server.url])
      assert.strictEqual(imported.code, 0, imported.stderr)

      /** What the server has told of each instrument. */
      const told = new Map<number, Array<Trade>>(TOKENS.map((token) => [token, []]))
      const ws = yield* Effect.acquireRelease(
        Effect.sync(() => new WebSocket(server.ws)),
        (socket) => Effect.sync(() => socket.terminate())
      )
      ws.on("message", (data: Buffer) => {
        const frame = JSON.parse(data.toString("utf8")) as Said
        if (frame.type !== "tick") return
        const { exchange_ts, instrument_token, price } = frame as Readonly<Record<string, number>>
        told.get(instrument_token!)!.push([price!, Math.floor(exchange_ts! / 1_000_000)])
      })
      yield* Effect.callback<void>((resume) => {
        ws.once("open", () => resume(Effect.void))
      })
      ws.send(JSON.stringify({ action: "subscribe", tokens: TOKENS }))

      let n = 0
      const begun = Math.floor(Date.now() / 1000) - 600
      /** So many packets of each instrument, a second apart; answers what the platform says once the store has the last. */
      const move = Effect.fnUntraced(function* (steps: number) {
        const lines = Array.from({ length: steps }, () => {
          n++
          return TOKENS.map((token) => JSON.stringify(packet(token, n, (begun + n) * 1_000_000)))
        })
        const status = yield* Effect.promise(() =>
          fetch(`${server.url}/api/v1/ingest`, {
            method: "POST",
            headers: { "content-type": "application/x-ndjson" },
            body: lines.flat().join("\n")
          }).then((answer) => answer.status)
        )
        assert.strictEqual(status, 200)
        const last = (begun + n) * 1_000_000
        return yield* quotesOf(server, TOKENS).pipe(
          Effect.repeat({
            until: (all) =>
              all.length === TOKENS.length &&
              all.every(({ last: tick, quote }) => tick?.exchange_ts === last && quote?.exchange_ts === last),
            schedule: Schedule.spaced("50 millis")
          })
        )
      })

      let entries = yield* move(1)
      const kites: Array<{ readonly language: Language; readonly kite: Client }> = []
      for (const language of languages) {
        const kite = yield* client(language, { root })
        yield* kite.get({ do: "listen", tokens: TOKENS, mode: "full" })
        kites.push({ language, kite })
      }
      for (const { kite, language } of kites) yield* agrees(language, kite, "full", entries, 0)
      entries = yield* move(100)
      for (const { kite, language } of kites) {
        yield* agrees(language, kite, "full", entries, 0)
        for (const token of TOKENS) {
          const ticks = kite.ticks
            .map((tick) => said(language, tick))
            .filter(({ mode, token: of }) => of === token && mode === "full")
          const trades = ticks.map(({ at, last }) => [last, at] as Trade)
          // Of one trade a packet tells more than once: first its price, then its quote.
          const once = trades.filter(([, at], i) => i === 0 || at !== trades[i - 1]![1])
          const all = told.get(token)!
          assert.deepStrictEqual(once.slice(1), all.slice(-100), `${language} ${token}`)
        }
      }

      first.kill("SIGKILL")
      yield* first.ended
      for (const { kite } of kites) yield* kite.until(() => kite.count("close") > 0 || kite.count("error") > 0)
      // What comes meanwhile is known when they are back, and what comes then is told.
      entries = yield* move(10)
      const before = new Map(kites.map(({ kite }) => [kite, kite.events.length]))
      yield* gateway
      for (const { kite, language } of kites) yield* agrees(language, kite, "full", entries, before.get(kite)!)
      entries = yield* move(10)
      for (const { kite, language } of kites) yield* agrees(language, kite, "full", entries, before.get(kite)!)
    }).pipe(Effect.scoped)
  )
})
