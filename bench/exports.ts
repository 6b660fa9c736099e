/**
 * Decides how fast a day of all instruments goes out over HTTP, in the order of a replay, from a real PostgreSQL: as
 * NDJSON, Arrow and Parquet, beside a bare cursor on the same driver that has the database put the same rows in the same
 * order and makes nothing of them. With `BENCH_EXPORT_TICKS=10000000` it is a whole day, and says whether memory grew.
 */
import { get } from "node:http"
import { Context, Effect, Layer, Redacted } from "effect"
import { parquetMetadata } from "hyparquet"
import pg from "pg"
import * as Timescale from "../src/layers/postgres/Timescale.ts"
import { tradingDay, tradingDayStart } from "../src/schema/Tick.ts"
import { TickStore } from "../src/streams/ports/TickStore.ts"
import type { Said } from "./children/exportServer.ts"
import { cleanTick, OPEN } from "./clean.ts"
import { alternate, figures, median, type Row } from "./row.ts"
import { child, withServers } from "./servers.ts"

const TICKS = Number(process.env.BENCH_EXPORT_TICKS ?? 300_000)
const INSTRUMENTS = 500
const ROUNDS = TICKS > 2_000_000 ? 1 : 3
const BATCH = 5000
const DATE = "2026-01-15"
/** The session's 22,500 s hold them all. */
const SPACING_MICROS = Math.max(1, Math.floor(22_500_000_000 / TICKS))
const FETCH = 5000
/** The end of a file, where Parquet says how many rows there are. */
const TAIL_BYTES = 4 * 2 ** 20

type Format = "ndjson" | "arrow" | "parquet"

const fill = (url: string): Promise<void> =>
  Effect.gen(function* () {
    const store = Context.get(
      yield* Layer.build(Timescale.layer({ url: Redacted.make(url), embedded: false })),
      TickStore
    )
    for (let from = 0; from < TICKS; from += BATCH) {
      const ticks = Array.from({ length: Math.min(BATCH, TICKS - from) }, (_, i) => {
        const n = from + i
        return cleanTick(n, 1000 + (n % INSTRUMENTS), Math.floor(n / INSTRUMENTS) + 1, SPACING_MICROS)
      })
      yield* store.write({ ticks, replayed: [], quotes: [], replayedQuotes: [], bookmarks: [] })
    }
  }).pipe(Effect.scoped, Effect.runPromise)

const CURSOR = `
  DECLARE bare CURSOR FOR
  SELECT instrument_token, extract(epoch FROM exchange_ts) * 1000000, price, volume, sequence_id, status, session,
         sequencing, epoch, position, feed, extract(epoch FROM received_ts) * 1000000
  FROM ticks WHERE exchange_ts >= $1 AND exchange_ts < $2
  ORDER BY exchange_ts, instrument_token, greatest(sequence_id, 0), epoch, position NULLS LAST, sequence_id`

const bare = async (url: string): Promise<number> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const day = tradingDay(OPEN)
    const [from, to] = [tradingDayStart(day), tradingDayStart(day + 1)].map((micros) =>
      new Date(micros / 1000).toISOString()
    )
    const started = performance.now()
    await client.query("BEGIN")
    await client.query(CURSOR.replace("$1", `'${from}'`).replace("$2", `'${to}'`))
    let rows = 0
    for (;;) {
      const page = await client.query({ text: `FETCH ${FETCH} FROM bare`, rowMode: "array" })
      rows += page.rows.length
      if (page.rows.length < FETCH) break
    }
    await client.query("ROLLBACK")
    if (rows !== TICKS) throw new Error(`the cursor gave ${rows} rows, not ${TICKS}`)
    return rows / ((performance.now() - started) / 1000)
  } finally {
    await client.end()
  }
}

/** Reads an answer to its end and answers how many rows were in it; of Arrow only that it is one. */
const read = (port: number, format: Format): Promise<number> =>
  new Promise((resolve, reject) => {
    const path = `/api/v1/historical/ticks?all=true&date=${DATE}&format=${format}`
    get({ host: "127.0.0.1", port, path }, (response) => {
      let lines = 0
      const tail: Array<Buffer> = []
      let kept = 0
      response.on("data", (part: Buffer) => {
        if (format === "ndjson") for (let at = part.indexOf(10); at >= 0; at = part.indexOf(10, at + 1)) lines += 1
        tail.push(part)
        kept += part.length
        while (kept - tail[0]!.length > TAIL_BYTES) kept -= tail.shift()!.length
      })
      response.on("error", reject)
      response.on("end", () => {
        if (response.statusCode !== 200) reject(new Error(`${format}: ${response.statusCode}`))
        else if (format === "ndjson") resolve(lines)
        else {
          const end = Buffer.concat(tail)
          if (format === "arrow") resolve(end.readInt32LE(end.length - 8) === -1 ? TICKS : 0)
          else resolve(Number(parquetMetadata(new Uint8Array(end).buffer).num_rows))
        }
      })
    }).on("error", reject)
  })

const mean = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0) / values.length

const formats: ReadonlyArray<Format> = ["ndjson", "arrow", "parquet"]

export const run = (): Promise<ReadonlyArray<Row>> =>
  withServers(["postgres"], async ({ settings }) => {
    const url = settings.DATABASE_URL!
    await fill(url)
    const server = child("exportServer", [], { ...settings, PORT: "0", DATA_DIR: "" })
    let said: Said | undefined
    const memory: Array<number> = []
    await new Promise<void>((resolve, reject) => {
      server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)))
      server.on("message", (message) => {
        said = message as Said
        memory.push(said.rssMb)
        resolve()
      })
    })
    const rows: Array<Row> = []
    const seen: Array<number> = []
    for (const format of formats) {
      const growths: Array<number> = []
      let peak = 0
      let cpuSeconds = 0
      const product = async () => {
        memory.length = 0
        const [started, cpu] = [performance.now(), said!.cpuSeconds]
        const count = await read(said!.port, format)
        if (count !== TICKS) throw new Error(`${format} had ${count} rows, not ${TICKS}`)
        const rate = count / ((performance.now() - started) / 1000)
        const quarter = Math.floor(memory.length / 4)
        growths.push(mean(memory.slice(-quarter)) / mean(memory.slice(quarter, 2 * quarter)))
        peak = Math.max(peak, ...memory)
        cpuSeconds += said!.cpuSeconds - cpu
        return rate
      }
      // Of a whole day the cursor is asked once: it takes minutes, and is the same for all.
      const again = ROUNDS > 1 || seen.length === 0
      const rates = await alternate(ROUNDS, product, async () => (again ? await bare(url) : seen[0]!))
      seen.push(...rates.bare)
      rows.push({
        name: `exports-${format}`,
        ...figures(rates),
        unit: "ticks/s",
        cpu_s_per_million: (cpuSeconds / (ROUNDS * TICKS)) * 1e6,
        peak_rss_mb: peak,
        rss_growth: median(growths)
      })
    }
    server.removeAllListeners("exit")
    server.disconnect()
    return rows
  })
