/** Decides what the store is to hold, said with a map and recomputed from it, and how a case compares the two. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { barStart, type Candle, Interval } from "../../../src/schema/Candle.ts"
import { compareTicks, type Tick } from "../../../src/schema/Tick.ts"
import { MAX_MICROS, MIN_MICROS } from "../../../src/schema/Time.ts"
import type { Bookmark } from "../../../src/streams/log/bookmark.ts"
import { type StoredTick, type TickCursor, TickStore } from "../../../src/streams/ports/TickStore.ts"
import { storeBatch, toStored } from "../ticks.ts"
import { sql } from "./stores.ts"

/** Marked minutes of an instrument. */
export const marksOf = (token: number) =>
  Effect.map(sql(`SELECT FROM candle_marks WHERE instrument_token = ${token}`), (rows) => rows.length)

/** Refreshes until nothing is left to do. */
export const refreshAll = Effect.gen(function* () {
  const { refreshCandles } = yield* TickStore
  while ((yield* refreshCandles) > 0);
})

/** Drops what may go without asking whether anybody else has it; answers how many days went. */
export const dropOldDays = Effect.gen(function* () {
  const { oldDays, dropDays } = yield* TickStore
  const old = yield* oldDays
  return old === undefined ? 0 : yield* dropDays(old.before)
})

export const MINUTE = 60_000_000
/** The start of this minute, by the clock that the database has as well. */
export const thisMinute = () => Math.floor((Date.now() * 1000) / MINUTE) * MINUTE
export const HOUR = 60 * MINUTE
export const intervals = Interval.literals

let lastToken = 1000
/** No case sees another one's instruments: the first of so many in a row. */
export const newToken = (count = 1): number => {
  const first = lastToken + 1
  lastToken += count
  return first
}

export const asStored = (tick: Tick, isReplayed = false): StoredTick => ({
  ...toStored(tick),
  ...(isReplayed ? { epoch: null, position: null } : {})
})

/** What the store is to hold, said with a map. */
export class Rows {
  readonly #rows = new Map<string, StoredTick>()

  #put(tick: Tick, isReplayed: boolean): boolean {
    const key = `${tick.instrument_token} ${tick.exchange_ts} ${tick.sequence_id}`
    const row = this.#rows.get(key)
    if (row === undefined) {
      this.#rows.set(key, asStored(tick, isReplayed))
      return true
    }
    if (row.epoch === null && !isReplayed) {
      this.#rows.set(key, { ...row, epoch: tick.epoch, position: tick.position })
    }
    return false
  }

  /** How many rows were new; of a live and a replayed copy in one batch the live one counts. */
  write(ticks: ReadonlyArray<Tick>, replayed: ReadonlyArray<Tick>): number {
    let added = 0
    for (const tick of ticks) if (this.#put(tick, false)) added++
    for (const tick of replayed) if (this.#put(tick, true)) added++
    return added
  }

  sorted(): Array<StoredTick> {
    return [...this.#rows.values()].sort(compareTicks)
  }

  of(token: number): Array<StoredTick> {
    return this.sorted().filter((row) => row.instrument_token === token)
  }
}

export const recompute = (sorted: ReadonlyArray<StoredTick>, interval: Interval): Array<Candle> => {
  const bars = new Map<number, { open: number; high: number; low: number; close: number; volume: number }>()
  for (const { exchange_ts, price, volume } of sorted) {
    const start = barStart(exchange_ts, interval)
    const bar = bars.get(start)
    if (bar === undefined) bars.set(start, { open: price, high: price, low: price, close: price, volume })
    else {
      bar.high = Math.max(bar.high, price)
      bar.low = Math.min(bar.low, price)
      bar.close = price
      bar.volume += volume
    }
  }
  return [...bars].map(([ts, bar]) => ({ ts, ...bar }))
}

export const write = (
  ticks: ReadonlyArray<Tick>,
  replayed: ReadonlyArray<Tick> = [],
  bookmarks: ReadonlyArray<Bookmark> = []
) => Effect.flatMap(TickStore, (s) => s.write(storeBatch({ ticks, replayed, bookmarks })))

export const FROM = MIN_MICROS
export const TO = MAX_MICROS

export const candles = (instrument_token: number, interval: Interval, limit = 10_000) =>
  Effect.flatMap(TickStore, (s) => s.candles({ instrument_token, interval, from: FROM, to: TO, limit }))

/** The bars of an instrument are at every interval what its rows say. */
export const assertBars = (token: number, rows: Rows) =>
  Effect.forEach(
    intervals,
    (interval) =>
      Effect.map(candles(token, interval), (found) =>
        assert.deepStrictEqual(found, recompute(rows.of(token), interval), interval)
      ),
    { discard: true }
  )

/** Every row of an instrument, `limit` at a time. */
export const pages = Effect.fnUntraced(function* (instrument_token: number, limit: number, from = FROM, to = TO) {
  const { ticks } = yield* TickStore
  const all: Array<StoredTick> = []
  let after: TickCursor | undefined
  for (;;) {
    const page = yield* ticks({ instrument_token, from, to, limit, ...(after === undefined ? {} : { after }) })
    all.push(...page)
    if (page.length < limit) return all
    after = page.at(-1)!
  }
})

export const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)
