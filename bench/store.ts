/**
 * Decides how fast the store writes on a real PostgreSQL: batches of 5,000 ticks as `writeStore` hands them over, with
 * bookmarks and marks of the bars they touch, beside a bare insert of the same rows in a table with the same key.
 */
import { Context, Effect, Layer, Redacted } from "effect"
import pg from "pg"
import { int4Array, int8Array, timestampArray } from "../src/layers/postgres/arrays.ts"
import * as Timescale from "../src/layers/postgres/Timescale.ts"
import type { Tick } from "../src/schema/Tick.ts"
import { TickStore } from "../src/streams/ports/TickStore.ts"
import { cleanTick } from "./clean.ts"
import { alternate, figures, type Row } from "./row.ts"
import { withServers } from "./servers.ts"

const BATCH = 5000
const BATCHES = Number(process.env.BENCH_BATCHES ?? 60)
const ROUNDS = 5
const INSTRUMENTS = 500
const PARTITIONS = 12
/** 5,000 ticks a second. */
const SPACING_MICROS = 200

const batches = (): ReadonlyArray<ReadonlyArray<Tick>> =>
  Array.from({ length: BATCHES }, (_, b) =>
    Array.from({ length: BATCH }, (_, i) => {
      const n = b * BATCH + i
      return cleanTick(n, 1000 + ((n * 7919) % INSTRUMENTS), Math.floor(n / INSTRUMENTS) + 1, SPACING_MICROS)
    })
  )

const product = (url: string, work: ReadonlyArray<ReadonlyArray<Tick>>): Promise<number> =>
  Effect.gen(function* () {
    const built = yield* Layer.build(Timescale.layer({ url: Redacted.make(url), embedded: false }))
    const store = Context.get(built, TickStore)
    const started = performance.now()
    let added = 0
    for (let b = 0; b < work.length; b++) {
      const bookmarks = Array.from({ length: PARTITIONS }, (_, partition) => ({
        partition,
        incarnation: "bench",
        offset: (b + 1) * BATCH,
        mark: undefined
      }))
      added += (yield* store.write({ ticks: work[b]!, replayed: [], quotes: [], replayedQuotes: [], bookmarks })).added
    }
    if (added !== BATCHES * BATCH) throw new Error(`${added} rows were added, not ${BATCHES * BATCH}`)
    return added / ((performance.now() - started) / 1000)
  }).pipe(Effect.scoped, Effect.runPromise)

const TABLE = `
  CREATE TABLE bare (
    instrument_token integer NOT NULL, exchange_ts timestamptz NOT NULL, sequence_id bigint NOT NULL,
    price numeric NOT NULL, volume bigint NOT NULL, status varchar(8) NOT NULL, epoch bigint, position bigint,
    feed text NOT NULL, session smallint NOT NULL, sequencing "char" NOT NULL, received_ts timestamptz NOT NULL,
    PRIMARY KEY (instrument_token, exchange_ts, sequence_id))`
const INSERT = `
  INSERT INTO bare
  SELECT * FROM unnest($1::integer[], $2::timestamptz[], $3::bigint[], $4::numeric[], $5::bigint[], $6::varchar[],
                       $7::bigint[], $8::bigint[], $9::text[], $10::smallint[], $11::"char"[], $12::timestamptz[])
  ON CONFLICT DO NOTHING`

const bare = async (url: string, work: ReadonlyArray<ReadonlyArray<Tick>>): Promise<number> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(TABLE)
    const started = performance.now()
    for (const ticks of work) {
      const column = (of: (tick: Tick) => string | number) => `{${ticks.map(of).join(",")}}`
      await client.query({
        name: "bare",
        text: INSERT,
        values: [
          // Times and numbers in binary, as the product sends them: text would cost the server more than the insert.
          int4Array(ticks, (t) => t.instrument_token),
          timestampArray(ticks, (t) => t.exchange_ts),
          int8Array(ticks, (t) => t.sequence_id),
          column((t) => t.price),
          int8Array(ticks, (t) => t.volume),
          column((t) => t.status),
          int8Array(ticks, (t) => t.epoch),
          int8Array(ticks, (t) => t.position),
          column((t) => t.feed),
          column((t) => t.session),
          column((t) => t.sequencing[0]!),
          timestampArray(ticks, (t) => t.received_ts)
        ]
      })
    }
    return (BATCHES * BATCH) / ((performance.now() - started) / 1000)
  } finally {
    await client.end()
  }
}

export const run = (): Promise<Row> =>
  withServers(["postgres"], async ({ servers }) => {
    const work = batches()
    let made = 0
    const database = () => servers.postgres.createDatabase(`bench_${made++}`)
    let cpuSeconds = 0
    const measured = async () => {
      const url = await database()
      const before = process.cpuUsage()
      const rate = await product(url, work)
      const { user, system } = process.cpuUsage(before)
      cpuSeconds += (user + system) / 1e6
      return rate
    }
    const rates = await alternate(ROUNDS, measured, async () => bare(await database(), work))
    if (process.env.BENCH_VERBOSE === "1") console.error("store", rates)
    return {
      name: "store",
      ...figures(rates),
      unit: "rows/s",
      // Of this process alone; the server's is the greater part.
      cpu_s_per_million: (cpuSeconds / (ROUNDS * BATCHES * BATCH)) * 1e6,
      peak_rss_mb: process.resourceUsage().maxRSS / 1024
    }
  })
