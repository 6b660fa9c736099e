/**
 * Decides how fast the pure stages are: decoded raw ticks through normalize, deduplicate and sequence as an Effect
 * Stream of arrays, beside one loop that does the same work by hand with nothing of the product.
 */
import { Effect, Stream } from "effect"
import type { RawTick } from "../src/schema/RawTick.ts"
import type { LogRecord } from "../src/streams/log/TickLog.ts"
import { type Decoded, decodedBatch, decodedTick } from "../src/streams/process/batch.ts"
import { unclaimed } from "../src/streams/process/claim.ts"
import { makeStates, stages } from "../src/streams/process/process.ts"
import { alternate, figures, median, type Row } from "./row.ts"

const TICKS = 1_000_000
const ARRAY = 1000
const INSTRUMENTS = 500
const START = (Date.UTC(2026, 0, 15, 4, 30) * 1_000_000) / 1000
/** One in this many is the other feed's copy, and one in as many numbers is lost. */
const EVERY = 50

const settings = {
  GAP_HOLD_MS: 5000,
  MAX_SEQUENCE_JUMP: 1_000_000,
  DMA_SILENCE_MS: 3000,
  MAX_FUTURE_SKEW_MS: 5000,
  ZERO_PRICE: "drop"
} as const

const rawTicks = (): ReadonlyArray<RawTick> => {
  const last = new Array<number>(INSTRUMENTS).fill(0)
  /** The tick of each instrument's last number: a copy is that tick once more. */
  const made = new Array<number>(INSTRUMENTS).fill(0)
  return Array.from({ length: TICKS }, (_, i) => {
    const instrument = (i * 7919) % INSTRUMENTS
    const isCopy = i % EVERY === 1 && last[instrument]! > 0
    if (!isCopy) {
      last[instrument]! += i % EVERY === 0 ? 2 : 1
      made[instrument] = i
    }
    const of = made[instrument]!
    return {
      instrument_token: 1000 + instrument,
      exchange_ts: START + of * 20,
      price: 100 + (of % 1000) / 20,
      feed: isCopy ? "snapshot" : "dma",
      volume: 1 + (i % 100),
      day_volume: -1,
      sequence_id: last[instrument]!,
      sequencing: "contiguous",
      reset: false,
      connection: isCopy ? "snapshot" : "dma",
      occurrence: 0,
      received_ts: 0,
      session: -1
    } satisfies RawTick
  })
}

/** What decode hands on, without the JSON: its cost is measured by process-json. */
const toBatch = (raws: ReadonlyArray<RawTick>, records: ReadonlyArray<LogRecord>): Decoded =>
  decodedBatch(records, {
    ticks: raws.map((raw, i) => decodedTick(raw, records[i]!, "")),
    quotes: [],
    watermarks: [],
    dead: [],
    forwards: []
  })

/** The same outcome in one pass with a Map and a Set an instrument, and nothing else. */
const bareLoop = (raws: ReadonlyArray<RawTick>, records: ReadonlyArray<LogRecord>): number => {
  const last = new Map<number, { id: number; position: number; readonly seen: Set<number> }>()
  let published = 0
  for (let i = 0; i < raws.length; i++) {
    const raw = raws[i]!
    let state = last.get(raw.instrument_token)
    if (state === undefined) {
      state = { id: 0, position: 0, seen: new Set() }
      last.set(raw.instrument_token, state)
    }
    const id = raw.sequence_id!
    if (state.seen.has(id)) continue
    state.seen.add(id)
    const isStale = state.id > 0 && id !== state.id + 1
    state.id = Math.max(id, state.id)
    const tick = {
      instrument_token: raw.instrument_token,
      exchange_ts: raw.exchange_ts,
      price: raw.price,
      volume: raw.volume,
      sequence_id: id,
      status: isStale ? "STALE" : "LIVE",
      epoch: 0,
      position: ++state.position,
      feed: raw.feed,
      received_ts: records[i]!.recordTime,
      source: ["raw", records[i]!.offset, 0]
    }
    published += tick.position > 0 ? 1 : 0
  }
  return published
}

export const run = async (): Promise<Row> => {
  const raws = rawTicks()
  const records = raws.map(
    (_, offset): LogRecord => ({ offset, recordTime: START + offset * 20 + 200, key: null, value: null })
  )
  const arrays = Array.from({ length: TICKS / ARRAY }, (_, i) => ({
    raws: raws.slice(i * ARRAY, (i + 1) * ARRAY),
    records: records.slice(i * ARRAY, (i + 1) * ARRAY)
  }))
  let published = 0
  const product = async () => {
    const stage = stages(makeStates(), "raw", { partition: 0, partitions: 1 }, settings, () => {})
    published = 0
    const started = performance.now()
    await Effect.runPromise(
      Stream.fromIterable(arrays, { chunkSize: 1 }).pipe(
        Stream.map((array) => toBatch(array.raws, array.records)),
        Stream.map(stage.normalize),
        Stream.map(stage.deduplicate),
        Stream.map(unclaimed),
        Stream.map(stage.sequence),
        Stream.map(stage.quote),
        Stream.runForEach((batch) =>
          Effect.sync(() => {
            published += batch.ticks.length
          })
        )
      )
    )
    return TICKS / ((performance.now() - started) / 1000)
  }
  const bare = () => {
    const started = performance.now()
    const expected = bareLoop(raws, records)
    const rate = TICKS / ((performance.now() - started) / 1000)
    if (published !== expected) throw new Error(`stages published ${published}, the bare loop ${expected}`)
    return rate
  }
  await alternate(2, product, bare)
  const cpu = process.cpuUsage()
  const rates = await alternate(5, product, bare)
  const used = process.cpuUsage(cpu)
  const [productRate, bareRate] = [median(rates.product), median(rates.bare)]
  return {
    name: "stages",
    ...figures(rates),
    unit: "ticks/s",
    // Both loops ran within it: the product's share is what its time was of the whole.
    cpu_s_per_million:
      ((used.user + used.system) / 1e6 / 5) * (1 / productRate / (1 / productRate + 1 / bareRate)) * (1e6 / TICKS),
    peak_rss_mb: process.resourceUsage().maxRSS / 1024
  }
}
