/** Decides what replay tests replay, and how they run the real pipeline around it. */
import { Effect, Layer, Stream } from "effect"
import { layer as memoryCheckpoints } from "../../../src/layers/memory/MemoryCheckpoints.ts"
import { layer as memoryClaims } from "../../../src/layers/memory/MemoryClaims.ts"
import { layer as memoryLog } from "../../../src/layers/memory/MemoryLog.ts"
import { afterPacket, compareQuotes, type Quote, type QuoteState, unknownQuote } from "../../../src/schema/Quote.ts"
import { compareTicks } from "../../../src/schema/Tick.ts"
import { follow, type TickBatch } from "../../../src/streams/log/follow.ts"
import { TickLog } from "../../../src/streams/log/TickLog.ts"
import type { Checkpoints } from "../../../src/streams/ports/Checkpoints.ts"
import type { Claims } from "../../../src/streams/ports/Claims.ts"
import type { QuoteQuery, StoredTick, TickQuery } from "../../../src/streams/ports/TickStore.ts"
import { runProcess } from "../../../src/streams/process/runProcess.ts"
import { compareGlobally } from "../../../src/streams/replay/reorderByWatermark.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"

export const PARTITIONS = 4
/** 2026-01-15 09:15:00 IST. */
export const OPEN = 1_768_448_700_000_000
export const DATE = "2026-01-15"
export const DAY_START = OPEN - 33_300_000_000

export const PROCESS_SETTINGS = {
  GAP_HOLD_MS: 5000,
  MAX_SEQUENCE_JUMP: 1_000_000,
  DMA_SILENCE_MS: 3000,
  MAX_FUTURE_SKEW_MS: 5000,
  ZERO_PRICE: "drop" as const,
  SNAPSHOT_MS: 3000,
  PROCESS_INSTRUMENTS: 20_000,
  ON_LOST_OFFSETS: "fail"
} as const

/** A linear congruential generator: the same day on every machine. */
const random = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 4_294_967_296) * below)
  }
}

/**
 * A few seconds of stored ticks as they come about: bursts that share a stamp, lost numbers, late ones, a second
 * session, feeds without numbers, and rows that a replay added (no epoch, no position). In global order.
 */
export const recordedTicks = (options: {
  readonly seed: number
  readonly tokens: ReadonlyArray<number>
  readonly ticks: number
  readonly spanMicros: number
}): ReadonlyArray<StoredTick> => {
  const below = random(options.seed)
  const numbers = new Map<number, number>()
  const ticks: Array<StoredTick> = []
  let at = OPEN
  for (let i = 0; i < options.ticks; i++) {
    // One in three moves the time on, so bursts share a stamp.
    if (below(3) === 0) at += below((6 * options.spanMicros) / options.ticks)
    const token = options.tokens[below(options.tokens.length)]!
    const isNumbered = token % 3 !== 0
    const skipped = below(20) === 0 ? 1 + below(3) : 0
    const number = (numbers.get(token) ?? 0) + 1 + skipped
    numbers.set(token, number)
    const late = isNumbered && skipped > 0 && below(2) === 0
    const tick = (sequence_id: number, exchange_ts: number): StoredTick => ({
      instrument_token: token,
      exchange_ts,
      sequence_id,
      price: (100_000 + token * 100 + below(400) * 5) / 100,
      volume: below(500),
      status: "LIVE",
      epoch: 20_468_000_033_300,
      position: number,
      feed: isNumbered ? "dma" : "snapshot",
      session: isNumbered && exchange_ts > OPEN + options.spanMicros / 2 ? 1 : 0,
      sequencing: isNumbered ? "contiguous" : "none",
      received_ts: exchange_ts + 350 + below(900)
    })
    ticks.push(tick(isNumbered ? number : -(1_000_000 + i), at))
    if (late)
      ticks.push({
        ...tick(number - 1, at + 1 + below(5000)),
        ...(below(2) === 0 ? { epoch: null, position: null } : {})
      })
  }
  return ticks.sort(compareGlobally)
}

/** Stored quotes of the same time: after each some more is known of its instrument, and something of it is new. */
export const recordedQuotes = (options: {
  readonly seed: number
  readonly tokens: ReadonlyArray<number>
  readonly quotes: number
  readonly spanMicros: number
}): ReadonlyArray<Quote> => {
  const below = random(options.seed)
  const known = new Map<number, QuoteState>()
  const quotes = new Map<string, Quote>()
  for (let i = 0; i < options.quotes; i++) {
    const token = options.tokens[below(options.tokens.length)]!
    const exchange_ts = OPEN + Math.floor((i * options.spanMicros) / options.quotes / 1000) * 1000
    const packet: Partial<QuoteState> = [
      { bid: [[below(100) / 20, 1 + i, 2] as const], ask: [] },
      { oi: i, oi_day_high: i },
      { open: 5, day_volume: i + 1 }
    ][below(3)]!
    const state = afterPacket(known.get(token) ?? unknownQuote(), {
      ...unknownQuote(),
      ...packet,
      total_buy_quantity: i
    })
    known.set(token, state)
    const feed = below(2) === 0 ? "snapshot" : "kite"
    const received_ts = exchange_ts + 1000 + below(900)
    const own = { instrument_token: token, exchange_ts, feed, received_ts, source: ["raw", i, 1] as const, old: false }
    // One a stamp.
    quotes.set(`${token} ${exchange_ts}`, { ...state, ...own })
  }
  return [...quotes.values()].sort((a, b) => a.exchange_ts - b.exchange_ts || a.instrument_token - b.instrument_token)
}

/** Stored quotes behind the keyset query of the port, in memory. */
export const keysetQuotes = (all: ReadonlyArray<Quote>) => {
  const byToken = Map.groupBy(all, ({ instrument_token }) => instrument_token)
  for (const quotes of byToken.values()) quotes.sort(compareQuotes)
  return ({ instrument_token, from, to, limit, after }: QuoteQuery): Effect.Effect<ReadonlyArray<Quote>> =>
    Effect.sync(() =>
      (byToken.get(instrument_token) ?? [])
        .filter(({ exchange_ts: at }) => at >= from && at < to && (after === undefined || at > after))
        .slice(0, limit)
    )
}

/** Stored ticks behind the keyset query of the port, in memory. */
export const keysetTicks = (all: ReadonlyArray<StoredTick>) => {
  const byToken = Map.groupBy(all, ({ instrument_token }) => instrument_token)
  for (const ticks of byToken.values()) ticks.sort(compareTicks)
  return (query: TickQuery): Effect.Effect<ReadonlyArray<StoredTick>> =>
    Effect.sync(() => {
      const found = (byToken.get(query.instrument_token) ?? []).filter(
        (tick) =>
          tick.exchange_ts >= query.from &&
          tick.exchange_ts < query.to &&
          (query.after === undefined || compareTicks(tick, query.after) > 0)
      )
      return found.slice(0, query.limit)
    })
}

/** The embedded log with incarnations that are the same on every run. */
export const fixedLog: Layer.Layer<TickLog> = Layer.effect(
  TickLog,
  Effect.map(TickLog, (log) =>
    TickLog.of({
      ...log,
      incarnation: (topic) => `${topic}-1`,
      latest: (topic) => Effect.succeed(`${topic}-1`),
      append: (topic, partition, records) => log.append(topic, partition, records)
    })
  )
).pipe(
  Layer.provide(memoryLog({ partitions: PARTITIONS, capacity: 20_000, dlqCapacity: 100, retained: 20_000, batch: 500 }))
)

/** What `process` keeps beside the log. */
export const claims: Layer.Layer<Claims | Checkpoints> = Layer.merge(memoryClaims(), memoryCheckpoints)

/** Runs the group `process`, and hands every batch of `normalized_ticks` on, as a server's reader does. */
export const pipeline = (taken: (batch: TickBatch) => void) =>
  Effect.gen(function* () {
    const log = yield* TickLog
    yield* Effect.forkScoped(Effect.provide(runProcess(PROCESS_SETTINGS), Readiness.layer))
    for (let partition = 0; partition < log.partitions; partition++) {
      yield* log.read("normalized_ticks", partition, 0).pipe(
        follow({
          reader: "server",
          partition,
          incarnation: log.incarnation("normalized_ticks"),
          log,
          bookmark: undefined,
          context: yield* Effect.context<never>()
        }),
        Stream.runForEach((batch) => Effect.sync(() => taken(batch))),
        Effect.forkScoped
      )
    }
  })

/** Everything a topic holds, a line a record. */
export const dump = (topic: "raw_ticks" | "normalized_ticks") =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const lines: Array<string> = []
    for (let partition = 0; partition < log.partitions; partition++) {
      const { start, end } = yield* log.bounds(topic, partition)
      if (end === start) continue
      yield* log.read(topic, partition, start).pipe(
        Stream.flattenArray,
        Stream.take(end - start),
        Stream.runForEach(({ offset, key, value, headers, recordTime }) =>
          Effect.sync(() => {
            const text = value === null ? null : Buffer.from(value).toString("utf8")
            lines.push(JSON.stringify({ partition, offset, recordTime, key, headers, value: text }))
          })
        )
      )
    }
    return lines
  })
