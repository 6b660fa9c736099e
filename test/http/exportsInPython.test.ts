import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { PYTHON } from "../../scripts/servers/install.ts"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as SymbolsLayer from "../../src/layers/instruments/Symbols.ts"
import { toQuoteColumns } from "../../src/schema/QuoteColumns.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { LONG_MS } from "../support/guards.ts"
import { instrumentOf } from "../support/instruments.ts"
import { quoteOf } from "../support/quotes.ts"
import { isInstalled } from "../support/services.ts"
import { barsOf, memoryStore, OPEN, Rows, storedTick } from "./memoryStore.ts"
import { serve } from "./serving.ts"

const README = readFileSync(new URL("../../README.md", import.meta.url), "utf8")
const DATE = "2026-01-16"
const ADDRESS = "http://127.0.0.1:8080"

/** What it made, as JSON. */
const REPORT = `
import json

print(json.dumps({
    "ticks": [len(ticks), list(ticks.columns), str(ticks.exchange_ts.dtype), str(ticks.price.dtype), str(ticks.volume.dtype)],
    "first": [int(ticks.exchange_ts.astype("int64").iloc[0]), float(ticks.price.iloc[0]), ticks.feed.iloc[0]],
    "nulls": [int(ticks.position.isna().sum()), frame["position"].null_count()],
    "bars": bars[["instrument_token", "ts", "open", "high", "low", "close", "volume"]].values.tolist(),
    "frame": [frame.height, frame.columns, str(frame.schema["exchange_ts"]), str(frame.schema["volume"])],
    "same": frame["price"].to_list() == ticks.price.tolist() and frame["sequence_id"].to_list() == ticks.sequence_id.tolist(),
    "volumes": volumes.astype("int64").values.tolist(),
}))
`

const python = (program: string): Effect.Effect<string> =>
  Effect.callback((resume) => {
    const child = spawn(PYTHON, ["-"], { stdio: ["pipe", "pipe", "pipe"] })
    let [said, wrong] = ["", ""]
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      wrong += text
    })
    child.on("error", (error) => resume(Effect.die(error)))
    child.on("close", (code) => resume(code === 0 ? Effect.succeed(said) : Effect.die(new Error(wrong))))
    child.stdin.end(program)
    return Effect.sync(() => child.kill("SIGTERM"))
  })

/** What it made of quotes, as JSON. */
const QUOTES_REPORT = `
import json

best = quotes[quotes.bid_levels > 0].sort_values(["instrument_token", "exchange_ts"])
print(json.dumps({
    "rows": [len(quotes), frame.height, len(latest)],
    "columns": list(quotes.columns) == frame.columns,
    "dtypes": [str(quotes.exchange_ts.dtype), str(quotes.bid_price_1.dtype), str(frame.schema["bid_quantity_5"]), str(frame.schema["last_trade_ts"])],
    "first": [int(best.exchange_ts.astype("int64").iloc[0]), float(best.bid_price_1.iloc[0]), float(best.ask_quantity_2.iloc[0]), best.feed.iloc[0], best.symbol.iloc[0]],
    "nulls": [int(quotes.oi.isna().sum()), frame["oi"].null_count(), frame["bid_levels"].null_count(), int((frame["bid_levels"] == 0).sum())],
    "spreads": [[int(token), round(spread, 6)] for token, spread in spreads.values.tolist()],
}))
`

describe.skipIf(!isInstalled("python"))("README's Python", () => {
  it.live(
    "reads a day's archived quotes with pandas, polars and DuckDB",
    () =>
      Effect.gen(function* () {
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
          (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
        )
        const rows = new Rows()
        rows.instruments.set(408065, instrumentOf(408065, "INFY"))
        const store = memoryStore(rows)
        const named = Layer.provide(ParquetFiles.layer(folder), Layer.provide(SymbolsLayer.layer, store))
        const archive = Context.get(yield* Layer.build(named), Archive)
        const quotes = Array.from({ length: 40 }, (_, i) =>
          quoteOf(i, { instrument_token: i % 2 === 0 ? 408065 : 738561, exchange_ts: OPEN + i * 1_000_000 })
        )
        const put = (first: number, some: typeof quotes) =>
          archive.write(
            { incarnation: "normalized-1", partition: 0, first, last: first + 49 },
            toColumns([]),
            toQuoteColumns(some)
          )
        yield* put(0, quotes.slice(0, 25))
        // One of an instant that the other object has as well.
        yield* put(50, [...quotes.slice(25), { ...quotes[3]!, source: ["raw-1", 99, 1] }])
        const { port } = yield* serve({ store, archive: Layer.succeed(Archive, archive) })
        const block = [...README.matchAll(/```python\n([\s\S]*?)```/g)].find(([, text]) =>
          text!.includes("/archive?")
        )![1]!
        assert.include(block, DATE)
        const said = yield* python(block.replaceAll(ADDRESS, `http://127.0.0.1:${port}`) + QUOTES_REPORT)
        const found = JSON.parse(said) as Readonly<Record<string, unknown>>
        assert.deepStrictEqual(found.rows, [41, 41, 40])
        assert.isTrue(found.columns as boolean)
        assert.deepStrictEqual(found.dtypes, [
          "datetime64[us, UTC]",
          "float64",
          "Int64",
          "Datetime(time_unit='us', time_zone='UTC')"
        ])
        // Nobody bids in the first.
        const { exchange_ts, bid, ask } = quotes[2]!
        assert.deepStrictEqual(found.first, [exchange_ts, bid![0]![0], ask![1]![1], "snapshot", "NSE:INFY"])
        const all = [...quotes, quotes[3]!]
        const withoutOi = all.filter(({ oi }) => oi === undefined).length
        assert.deepStrictEqual(found.nulls, [
          withoutOi,
          withoutOi,
          all.filter(({ bid }) => bid === undefined).length,
          all.filter(({ bid }) => bid?.length === 0).length
        ])
        assert.strictEqual((found.spreads as ReadonlyArray<unknown>).length, 2)
      }).pipe(Effect.scoped),
    LONG_MS
  )

  it.live(
    "reads a day's ticks and bars with pandas, polars and DuckDB",
    () =>
      Effect.gen(function* () {
        const rows = new Rows()
        for (const [token, name] of [
          [408065, "INFY"],
          [738561, "RELIANCE"]
        ] as const) {
          rows.instruments.set(token, instrumentOf(token, name))
          for (let n = 0; n < 1000; n++) {
            rows.ticks.push(
              storedTick({
                instrument_token: token,
                exchange_ts: OPEN + n * 250_000,
                price: 100 + (n % 40) / 20,
                volume: n % 7,
                sequence_id: n + 1,
                ...(n % 10 === 0 ? { epoch: null, position: null } : { position: n + 1 })
              })
            )
          }
        }
        const { port } = yield* serve({ store: memoryStore(rows) })
        const [, block] = /```python\n([\s\S]*?)```/.exec(README)!
        assert.include(block, ADDRESS)
        assert.include(block, DATE)
        const said = yield* python(block!.replaceAll(ADDRESS, `http://127.0.0.1:${port}`) + REPORT)
        const found = JSON.parse(said) as Readonly<Record<string, ReadonlyArray<unknown>>>
        const columns = Object.keys(rows.ticks[0]!)
        assert.deepStrictEqual(found.ticks!.slice(0, 1), [2000])
        assert.sameMembers(found.ticks![1] as Array<string>, columns)
        assert.deepStrictEqual(found.ticks!.slice(2), ["datetime64[us, UTC]", "float64", "int64"])
        assert.deepStrictEqual(found.first, [OPEN, 100, "dma"])
        assert.deepStrictEqual(found.nulls, [200, 200])
        const expected = [408065, 738561].flatMap((token) =>
          barsOf(rows.of(token, 0, Number.MAX_SAFE_INTEGER), "1m").map((bar) => [token, ...Object.values(bar)])
        )
        assert.deepStrictEqual(
          found.bars,
          expected.toSorted((a, b) => a[1]! - b[1]! || a[0]! - b[0]!)
        )
        assert.strictEqual(found.frame![0], 2000)
        assert.deepStrictEqual(found.frame!.slice(2), ["Datetime(time_unit='us', time_zone='UTC')", "Int64"])
        assert.isTrue(found.same as unknown)
        const volume = Array.from({ length: 1000 }, (_, n) => n % 7).reduce((sum, one) => sum + one, 0)
        assert.deepStrictEqual(found.volumes, [
          [408065, volume],
          [738561, volume]
        ])
      }).pipe(Effect.scoped),
    LONG_MS
  )
})
