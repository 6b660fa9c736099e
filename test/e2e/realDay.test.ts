import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { type BarTick, barsOf } from "../support/candles.ts"
import { LONG_MS } from "../support/guards.ts"
import { folder, getJson, getLines, getMetrics, runToEnd, startInstance, untilDrained } from "../support/processes.ts"
import { RuleChecker } from "../support/RuleChecker.ts"
import { connect } from "../support/webSocketServer.ts"

/** One index value a second of two real days, no volume, no sequence, IST. */
const days = ["2022-08-10", "2022-08-12"] as const
const fileOf = (day: string) => fileURLToPath(new URL(`../../../shared/data/nifty50-${day}.csv`, import.meta.url))
const isThere = days.every((day) => existsSync(fileOf(day)))
if (!isThere) console.warn("skipped: the real days are not beside this checkout (../shared/data/nifty50-*.csv)")

const TOKEN = 256_265

interface Row extends BarTick {
  readonly line: number
}

/** The file read by other means than the product's: each distinct second and value once. */
const rowsOf = (day: string): ReadonlyArray<Row> =>
  readFileSync(fileOf(day), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((text, line) => {
      const [stamp, value] = text.split(",") as [string, string]
      const exchange_ts = Date.parse(`${stamp.replace(" ", "T")}+05:30`) * 1000
      return { line, exchange_ts, sequence_id: 0, epoch: 0, position: line, price: Number(value), volume: 0 }
    })

const feedFile = (url: string, day: string) =>
  runToEnd([
    ...["feed", "file", fileOf(day), "--no-header", "--map", "exchange_ts=1,price=2", "--tz", "Asia/Kolkata"],
    ...["--set", `instrument_token=${TOKEN},volume=0,feed=snapshot`, "--url", url]
  ])

const ALL = "from=2022-08-01T00:00:00Z&to=2022-09-01T00:00:00Z"
const ticksOf = (url: string) => getLines(`${url}/api/v1/historical/ticks?instrument_token=${TOKEN}&${ALL}`)

// Long: an instance takes whole days of ticks.
describe.skipIf(!isThere)("real days of the NIFTY 50 index", { timeout: LONG_MS }, () => {
  it.live("give candles equal to the file's, add no row when fed again, and replay in exact order beside live", () =>
    Effect.gen(function* () {
      const dir = yield* folder
      const { mdp, url, ws } = yield* startInstance(["run"], {
        DATA_DIR: join(dir, "data"),
        ARCHIVE_FLUSH_MS: "500"
      })
      const instrument = [
        "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange",
        `${TOKEN},1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE`
      ].join("\n")
      const imported = yield* Effect.promise(() =>
        fetch(`${url}/api/v1/instruments`, {
          method: "POST",
          headers: { "content-type": "text/csv" },
          body: instrument
        })
      )
      assert.strictEqual(imported.status, 200)

      const rows = days.flatMap((day) => rowsOf(day))
      for (const day of days) {
        const fed = yield* feedFile(url, day)
        assert.strictEqual(fed.code, 0, fed.stderr)
        const count = rowsOf(day).length
        assert.match(fed.stdout, new RegExp(`rows read ${count}, sent ${count}, skipped 0`))
      }
      yield* untilDrained(url)

      // Every row is accounted for: in the store.
      const stored = yield* ticksOf(url)
      assert.strictEqual(stored.length, rows.length)
      assert.deepStrictEqual(
        stored.map((tick) => [tick.exchange_ts, tick.price]).sort(),
        rows.map((row) => [row.exchange_ts, row.price]).sort()
      )
      for (const [interval, minutes] of [
        ["1m", 1],
        ["5m", 5],
        ["15m", 15]
      ] as const) {
        const answer = (yield* getJson(
          `${url}/api/v1/historical/candles?instrument_token=${TOKEN}&interval=${interval}&limit=10000&${ALL}`
        )) as { readonly candles: ReadonlyArray<Record<string, unknown>> }
        assert.deepStrictEqual(
          answer.candles.map(({ ts, open, high, low, close, volume }) => ({ ts, open, high, low, close, volume })),
          barsOf(rows, minutes) as never,
          interval
        )
      }

      // The same file again adds no row.
      const again = yield* feedFile(url, days[0])
      assert.strictEqual(again.code, 0)
      yield* untilDrained(url)
      assert.strictEqual((yield* ticksOf(url)).length, rows.length)

      // A replay of the day as fast as it goes: exact order for its client, nothing for a live one, no row more.
      const live = yield* connect(ws, { checker: new RuleChecker(), keep: false })
      live.send({ action: "subscribe", tokens: [TOKEN], backfill: 0 })
      yield* live.until((client) => client.checker.backfills === 1)
      const started = yield* Effect.promise(() =>
        fetch(`${url}/api/v1/replays`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ symbols: ["NSE:NIFTY 50"], date: days[1], speed: "inf", paused: true })
        })
      )
      assert.strictEqual(started.status, 201)
      const { id } = (yield* Effect.promise(() => started.json())) as { readonly id: string }
      const listener = yield* connect(ws, { checker: new RuleChecker({ keep: true }), keep: true })
      listener.send({ action: "subscribe", tokens: [TOKEN], replay: id, capacity: 100_000 })
      yield* listener.until((client) => client.checker.messages.includes("subscribed"))
      yield* Effect.promise(() =>
        fetch(`${url}/api/v1/replays/${id}`, {
          method: "PATCH",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ state: "running" })
        })
      )
      const day = rows.filter((row) => row.exchange_ts >= Date.parse(`${days[1]}T00:00:00+05:30`) * 1000)
      yield* listener.until((client) => client.checker.ticks + client.checker.backfilled >= day.length)
      const got = listener.messages.flatMap((message) =>
        message.type === "tick" ? [message] : message.type === "backfill" ? message.data : []
      )
      assert.strictEqual(got.length, day.length)
      for (let i = 1; i < got.length; i++) assert.isAtLeast(got[i]!.exchange_ts, got[i - 1]!.exchange_ts)
      assert.deepStrictEqual(
        got.map((tick) => [tick.exchange_ts, tick.price]),
        stored
          .filter((tick) => (tick.exchange_ts as number) >= day[0]!.exchange_ts)
          .map((tick) => [tick.exchange_ts, tick.price]) as never
      )
      yield* getJson(`${url}/api/v1/replays/${id}`).pipe(
        Effect.repeat({
          until: (replay) => (replay as { readonly state: string }).state === "ended",
          schedule: Schedule.spaced("50 millis")
        })
      )
      yield* untilDrained(url)
      assert.strictEqual(live.checker.ticks, 0)
      assert.strictEqual((yield* ticksOf(url)).length, rows.length)
      const figures = yield* getMetrics(url)
      assert.strictEqual(figures.get("topology_order_alarms_total") ?? 0, 0)
      assert.strictEqual(figures.get(`topology_stage_sent_events_total{stage="store"}`), rows.length)

      mdp.kill("SIGTERM")
      assert.strictEqual(yield* mdp.ended, 0, mdp.stderr)
    }).pipe(Effect.scoped)
  )
})
