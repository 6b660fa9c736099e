import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import pg from "pg"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../src/layers/archive/S3.ts"
import * as Pglite from "../../src/layers/postgres/Pglite.ts"
import * as Timescale from "../../src/layers/postgres/Timescale.ts"
import { Interval } from "../../src/schema/Candle.ts"
import { tradingDate, tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { TickStore } from "../../src/streams/ports/TickStore.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { dropOldDays } from "../../src/streams/sinks/retention.ts"
import { makeTick, NO_QUOTES, storeBatch } from "../contract/ticks.ts"
import { emptyBucket } from "../support/buckets.ts"
import { instrumentOf } from "../support/instruments.ts"
import { withinOneDay } from "../support/oneDay.ts"
import { s3 } from "../support/services.ts"
import { ask, serve } from "./serving.ts"

const access = await s3()
const places = [
  {
    name: "files",
    layer: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "cold-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      ),
      (folder) => Layer.orDie(ParquetFiles.layer(folder))
    )
  },
  ...(access === undefined
    ? []
    : [{ name: "S3", layer: Effect.map(emptyBucket(access), (options) => Layer.orDie(S3.layer(options))) }])
]

const MINUTE = 60_000_000
const TOKEN = 408065
/** Dropped, kept. */
const DAYS_AGO = [5, 1]
const KEEP_DAYS = 3

describe("history of days that the store has dropped", () => {
  for (const { name, layer } of places) {
    it.live(`is answered from the archive on ${name} by the same routes, equal to the byte`, () =>
      Effect.gen(function* () {
        yield* Effect.promise(() => withinOneDay(20_000))
        const today = tradingDay(Date.now() * 1000)
        const { url } = yield* Pglite.start({ dataDir: undefined })
        const store = yield* Timescale.make({ url, embedded: true, keepDays: KEEP_DAYS })
        const archive = Context.get(yield* Layer.build(Layer.unwrap(layer)), Archive)
        yield* store.putInstruments([instrumentOf(TOKEN, "INFY")])
        const ticks = DAYS_AGO.flatMap((ago, day) =>
          Array.from({ length: 1500 }, (_, i) =>
            makeTick({
              instrument_token: i % 9 === 8 ? TOKEN + 1 : TOKEN,
              exchange_ts: tradingDayStart(today - ago) + 555 * MINUTE + ((i * 7919) % 1500) * 15_000_000,
              sequence_id: i % 5 === 4 ? -(i + 1) : i + 1,
              position: day * 1500 + i + 1,
              price: 100 + ((i * 7) % 400) / 20,
              volume: i % 50,
              feed: i % 3 === 0 ? "dma" : 'odd "feed", quoted'
            })
          )
        )
        yield* store.write(storeBatch({ ticks }))
        yield* archive.write(
          { incarnation: "n", partition: 0, first: 0, last: 999 },
          toColumns(ticks.slice(0, 1000)),
          NO_QUOTES
        )
        yield* archive.write(
          { incarnation: "n", partition: 0, first: 1000, last: 2999 },
          toColumns(ticks.slice(1000)),
          NO_QUOTES
        )
        while ((yield* store.refreshCandles) > 0);
        const { port } = yield* serve({
          store: Layer.succeed(TickStore, store),
          archive: Layer.succeed(Archive, archive)
        })

        const answers = Effect.gen(function* () {
          const found: Record<string, string> = {}
          const get = Effect.fnUntraced(function* (path: string, accept = "application/json") {
            const answer = yield* ask(port, path, { headers: { accept } })
            assert.strictEqual(answer.status, 200, `${path}: ${answer.text}`)
            found[`${accept} ${path}`] = answer.text
            return answer.json as {
              readonly next_cursor?: string | null
              readonly id?: string
              readonly total?: number
            }
          })
          const history = "/api/v1/historical"
          for (const accept of ["application/x-ndjson", "text/csv"]) yield* get(`${history}/ticks?symbol=INFY`, accept)
          for (const path of [
            `${history}/ticks?symbol=INFY&limit=700`,
            `${history}/ticks?instrument_token=${TOKEN + 1}`,
            ...Interval.literals.flatMap((interval) => [
              `${history}/candles?symbol=INFY&interval=${interval}&limit=90`,
              `${history}/candles?symbol=INFY&interval=${interval}&session=regular&limit=10000`
            ])
          ]) {
            for (let cursor: string | null | undefined = ""; typeof cursor === "string"; ) {
              cursor = (yield* get(`${path}${cursor === "" ? "" : `&cursor=${cursor}`}`)).next_cursor
            }
          }
          for (const ago of DAYS_AGO) {
            const day = `all=true&date=${tradingDate(today - ago)}`
            for (const asked of ["ticks?", "candles?interval=5m&"]) {
              for (const format of ["ndjson", "arrow", "parquet"]) {
                const path = `${history}/${asked}${day}&format=${format}`
                const { bytes, headers, status } = yield* ask(port, path)
                assert.strictEqual(status, 200, path)
                found[path] = bytes.toString("base64")
                const again = yield* ask(port, path, { headers: { "if-none-match": headers.etag! } })
                assert.strictEqual(again.status, 304, path)
              }
            }
          }
          const seconds = (ago: number) => tradingDayStart(today - ago) / 1_000_000
          for (const resolution of ["1", "60", "1D"]) {
            yield* get(`/udf/history?symbol=INFY&resolution=${resolution}&from=0&to=${seconds(0)}&countback=500`)
            yield* get(`/udf/marks?symbol=INFY&resolution=${resolution}&from=${seconds(9)}&to=${seconds(0)}`)
          }
          return found
        })
        const replayed = Effect.fnUntraced(function* (given: Readonly<Record<string, unknown>>) {
          const answer = yield* ask(port, "/api/v1/replays", {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ all: true, date: tradingDate(today - DAYS_AGO[0]!), paused: true, ...given })
          })
          if (answer.status === 404) return 0
          assert.strictEqual(answer.status, 201, answer.text)
          const { id, total } = answer.json as { readonly id: string; readonly total: number }
          yield* ask(port, `/api/v1/replays/${id}`, { method: "DELETE" })
          return total
        })

        const before = yield* answers
        assert.deepStrictEqual(
          yield* Effect.forEach([{}, { source: "store" }, { source: "archive" }], replayed),
          [1500, 1500, 1500]
        )
        const dropping = dropOldDays.pipe(
          Effect.provideService(TickStore, store),
          Effect.provideService(Archive, archive),
          Effect.provide(Readiness.layer)
        )
        assert.deepStrictEqual(yield* dropping, { dropped: 0, reason: undefined })
        yield* Effect.promise(async () => {
          const client = new pg.Client({ connectionString: url })
          await client.connect()
          await client.query("UPDATE store_state SET ticks_from_raised_at = now() - INTERVAL '1 hour'")
          await client.end()
        })
        assert.deepStrictEqual(yield* dropping, { dropped: 1, reason: undefined })
        assert.deepStrictEqual(yield* answers, before)
        assert.deepStrictEqual(
          yield* Effect.forEach([{}, { source: "store" }, { source: "archive" }], replayed),
          [1500, 0, 1500]
        )
      }).pipe(Effect.scoped)
    )
  }
})
