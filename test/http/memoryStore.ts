/** Decides what a store answers that holds its rows in an array: small enough to be judged by eye, and to be broken. */
import { Clock, Effect, Layer } from "effect"
import { barStart, boundedVolume, type Candle, withOi } from "../../src/schema/Candle.ts"
import type { Instrument } from "../../src/schema/Instrument.ts"
import { meaningsOf, type Sighting, sighted } from "../../src/schema/Meaning.ts"
import { compareQuotes, type Quote } from "../../src/schema/Quote.ts"
import { compareTicks, tradingDay } from "../../src/schema/Tick.ts"
import {
  type DaySoFar,
  type KnownInstrument,
  type MinuteOi,
  type StoredTick,
  TickStore
} from "../../src/streams/ports/TickStore.ts"
import { minutesOf } from "../support/candles.ts"

export class Rows {
  readonly ticks: Array<StoredTick> = []
  /** One an instrument and stamp. */
  readonly quotes: Array<Quote> = []
  readonly sightings = new Map<number, ReadonlyArray<Sighting>>()
  /** Instruments that are all that their token ever meant. */
  readonly instruments = {
    set: (token: number, instrument: Instrument): void => {
      this.sightings.set(token, [{ instrument, first: 0, last: 0 }])
    }
  }
  /** Puts so far: the version of the instruments. */
  puts = 0

  known(): Array<KnownInstrument> {
    return [...this.sightings].sort(([a], [b]) => a - b).flatMap(([, sightings]) => sightings)
  }

  of(token: number, from: number, to: number): Array<StoredTick> {
    return this.ticks
      .filter((t) => t.instrument_token === token && t.exchange_ts >= from && t.exchange_ts < to)
      .sort(compareTicks)
  }

  quotesOf(token: number, from = 0, to = Number.MAX_SAFE_INTEGER): Array<Quote> {
    return this.quotes
      .filter((quote) => quote.instrument_token === token && quote.exchange_ts >= from && quote.exchange_ts < to)
      .sort(compareQuotes)
  }

  /** The last open interest of each bar's time that has one. */
  oiOf(token: number, interval: Parameters<typeof barStart>[1]): ReadonlyMap<number, MinuteOi> {
    return new Map(
      this.quotesOf(token).flatMap(({ exchange_ts, oi, source }) => {
        const ts = barStart(exchange_ts, interval)
        return oi === undefined ? [] : [[ts, { ts, oi, exchange_ts, offset: source[1] }] as const]
      })
    )
  }
}

/** 2026-01-16, a Friday, 09:15 IST. */
export const OPEN = 1_768_535_100_000_000

export const storedTick = (given: Partial<StoredTick> = {}): StoredTick => ({
  instrument_token: 7,
  exchange_ts: OPEN,
  sequence_id: 1,
  price: 100,
  volume: 1,
  status: "LIVE",
  epoch: 20_469_000_033_300,
  position: 1,
  feed: "dma",
  session: 0,
  sequencing: "contiguous",
  received_ts: given.exchange_ts ?? OPEN,
  ...given
})

export const barsOf = (
  ticks: ReadonlyArray<Pick<StoredTick, "exchange_ts" | "price" | "volume">>,
  interval: Parameters<typeof barStart>[1],
  start = (micros: number): number => barStart(micros, interval)
): Array<Candle> => {
  const bars: Array<Candle> = []
  for (const { exchange_ts, price, volume } of ticks) {
    const ts = start(exchange_ts)
    const last = bars.at(-1)
    if (last?.ts !== ts) bars.push({ ts, open: price, high: price, low: price, close: price, volume })
    else {
      bars[bars.length - 1] = {
        ts,
        open: last.open,
        high: Math.max(last.high, price),
        low: Math.min(last.low, price),
        close: price,
        volume: boundedVolume(last.volume + volume)
      }
    }
  }
  return bars
}

export const memoryStore = (rows: Rows, change: Partial<TickStore["Service"]> = {}): Layer.Layer<TickStore> =>
  Layer.succeed(TickStore, {
    write: () => Effect.die("not a part of these tests"),
    bookmarks: () => Effect.succeed([]),
    ticks: ({ instrument_token, from, to, limit, after }) =>
      Effect.sync(() =>
        rows
          .of(instrument_token, from, to)
          .filter((t) => after === undefined || compareTicks(t, after) > 0)
          .slice(0, limit)
      ),
    candles: ({ instrument_token, interval, from, to, limit }) =>
      Effect.sync(() => {
        const oi = rows.oiOf(instrument_token, interval)
        return barsOf(rows.of(instrument_token, 0, Number.MAX_SAFE_INTEGER), interval)
          .filter(({ ts }) => ts >= from && ts < to)
          .slice(0, limit)
          .map((bar) => withOi(bar, oi.get(bar.ts)?.oi))
      }),
    minutes: (query) => Effect.sync(() => minutesOf(rows.ticks, query)),
    minuteOi: ({ instrument_token, from, to, limit }) =>
      Effect.sync(() =>
        [...rows.oiOf(instrument_token, "1m").values()].filter(({ ts }) => ts >= from && ts < to).slice(0, limit)
      ),
    latestQuotes: (tokens) =>
      Effect.sync(
        () =>
          new Map(
            tokens.flatMap((token) =>
              rows
                .quotesOf(token)
                .slice(-1)
                .map((quote) => [token, quote] as const)
            )
          )
      ),
    quotePage: ({ instrument_token, from, to, limit, after = Number.NEGATIVE_INFINITY }) =>
      Effect.sync(() => rows.quotesOf(instrument_token, Math.max(from, after + 1), to).slice(0, limit)),
    quoteTokens: (from, to) =>
      Effect.sync(() => {
        const within = rows.quotes.filter(({ exchange_ts }) => exchange_ts >= from && exchange_ts < to)
        return [...new Set(within.map(({ instrument_token }) => instrument_token))].sort((a, b) => a - b)
      }),
    daysSoFar: (tokens) =>
      Effect.sync(() => {
        const found = new Map<number, DaySoFar>()
        for (const token of tokens) {
          const all = rows.of(token, 0, Number.MAX_SAFE_INTEGER)
          const last = all.at(-1)
          if (last === undefined) continue
          const day = all.filter((t) => tradingDay(t.exchange_ts) === tradingDay(last.exchange_ts))
          const [bar] = barsOf(day, "1d")
          found.set(token, { last, open: bar!.open, high: bar!.high, low: bar!.low, volume: bar!.volume })
        }
        return found
      }),
    ticksAfter: () => Effect.succeed([]),
    count: (tokens, from, to) =>
      Effect.sync(() => tokens.reduce((sum, token) => sum + rows.of(token, from, to).length, 0)),
    revision: (tokens, from, to) =>
      Effect.sync(() => {
        const all = tokens.flatMap((token) => rows.of(token, from, to))
        const oi = tokens.flatMap((token) => rows.quotesOf(token, from, to).map((quote) => quote.oi))
        return `${all.length} ${all.filter(({ epoch }) => epoch !== null).length} ${oi.join()}`
      }),
    tokens: (from, to) =>
      Effect.sync(() => [
        ...new Set(rows.ticks.filter((t) => t.exchange_ts >= from && t.exchange_ts < to).map((t) => t.instrument_token))
      ]),
    newestDays: (limit) =>
      Effect.sync(() =>
        [...new Set(rows.ticks.map((t) => tradingDay(t.exchange_ts)))].sort((a, b) => b - a).slice(0, limit)
      ),
    held: Effect.succeed(Number.NEGATIVE_INFINITY),
    refreshCandles: Effect.succeed(0),
    oldDays: Effect.undefined,
    dropDays: () => Effect.succeed(0),
    instruments: (limit) => Effect.sync(() => rows.known().slice(0, limit)),
    instrumentsVersion: Effect.sync(() => String(rows.puts)),
    putInstruments: (instruments, day) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        let added = 0
        let changed = 0
        rows.puts += 1
        for (const instrument of instruments) {
          const before = rows.sightings.get(instrument.instrument_token) ?? []
          const after = sighted(before, instrument, day ?? tradingDay(now * 1000))
          rows.sightings.set(instrument.instrument_token, after)
          if (before.length === 0) added += 1
          else if (JSON.stringify(meaningsOf(before)) !== JSON.stringify(meaningsOf(after))) changed += 1
        }
        return { added, changed, expired: 0 }
      }),
    ...change
  })
