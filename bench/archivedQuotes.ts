/**
 * Decides how fast a replay reads a day's quotes from cold storage in files: of many instruments, each with few, merged
 * into one order. There is no bare loop to hold it against.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer, Stream } from "effect"
import * as ParquetFiles from "../src/layers/archive/ParquetFiles.ts"
import { type Level, type Quote, unknownQuote } from "../src/schema/Quote.ts"
import { toQuoteColumns } from "../src/schema/QuoteColumns.ts"
import { toColumns } from "../src/schema/TickColumns.ts"
import { Archive } from "../src/streams/ports/Archive.ts"
import { storedPackets } from "../src/streams/replay/replay.ts"
import { figures, type Row } from "./row.ts"

const INSTRUMENTS = 500
const QUOTES = 200_000
/** A range's quotes, as many as wait at most. */
const RANGE = 20_000
const RUNS = 3
const OPEN = Date.parse("2026-01-15T03:45:00Z") * 1000
const SPACING_MICROS = Math.floor(22_500_000_000 / QUOTES)

const side = (i: number, step: number): ReadonlyArray<Level> =>
  Array.from({ length: 5 }, (_, level): Level => [100 + (i % 50) + step * (level + 1), (i * 7) % 900, 1 + (i % 9)])

const quote = (i: number): Quote => ({
  ...unknownQuote(),
  instrument_token: 1000 + (i % INSTRUMENTS),
  exchange_ts: OPEN + i * SPACING_MICROS,
  bid: side(i, -0.05),
  ask: side(i, 0.05),
  oi: i,
  day_volume: i,
  feed: "bench",
  received_ts: OPEN + i * SPACING_MICROS + 1000,
  source: ["raw-bench", i, 1],
  old: false
})

const day = Effect.gen(function* () {
  const archive = Context.get(yield* Layer.build(ParquetFiles.layer(yield* folder)), Archive)
  for (let first = 0; first < QUOTES; first += RANGE) {
    const quotes = Array.from({ length: RANGE }, (_, i) => quote(first + i))
    const range = { incarnation: "bench", partition: 0, first, last: first + RANGE - 1 }
    yield* archive.write(range, toColumns([]), toQuoteColumns(quotes))
  }
  return archive
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "bench-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

export const run = (): Promise<Row> =>
  Effect.gen(function* () {
    const { quotesByTime } = yield* day
    const past = {
      ticks: () => Effect.succeed([]),
      quotePage: () => Effect.die("all quotes are archived"),
      archivedQuotes: {
        before: Effect.succeed(Number.POSITIVE_INFINITY),
        page: (query: Parameters<typeof quotesByTime>[0]) => Effect.orDie(quotesByTime(query))
      }
    }
    const tokens = Array.from({ length: INSTRUMENTS }, (_, i) => 1000 + i)
    const cpu = process.cpuUsage()
    const rates: Array<number> = []
    let peak = 0
    for (let i = 0; i < RUNS; i++) {
      const started = performance.now()
      let read = 0
      yield* Stream.runForEachArray(
        storedPackets(past, { tokens, from: OPEN, to: OPEN + 86_400_000_000, arraySize: 256 }),
        (packets) =>
          Effect.sync(() => {
            read += packets.length
            peak = Math.max(peak, process.memoryUsage.rss())
          })
      )
      if (read !== QUOTES) throw new Error(`${read} quotes were read, not ${QUOTES}`)
      rates.push(read / ((performance.now() - started) / 1000))
    }
    const used = process.cpuUsage(cpu)
    return {
      name: "archived-quotes",
      ...figures({ product: rates, bare: [] }),
      unit: "quotes/s",
      cpu_s_per_million: ((used.user + used.system) / 1e6 / (RUNS * QUOTES)) * 1e6,
      peak_rss_mb: peak / 2 ** 20
    } satisfies Row
  }).pipe(Effect.scoped, Effect.runPromise)
