// Ticks and quotes for the contract suites: whole, plain and told apart by what a case gives.
import { type Quote, unknownQuote } from "../../src/schema/Quote.ts"
import { toQuoteColumns } from "../../src/schema/QuoteColumns.ts"
import { epochOf, type Tick, tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import type { StoreBatch, StoredTick } from "../../src/streams/ports/TickStore.ts"

/** 2026-01-15, a Thursday. */
export const DAY = tradingDay(1_768_448_700_000_000)
/** 09:15 IST of `DAY`. */
export const OPEN = tradingDayStart(DAY) + 33_300_000_000
export const EPOCH = epochOf(DAY, OPEN)

export const makeTick = (given: Partial<Tick> = {}): Tick => ({
  instrument_token: 738561,
  exchange_ts: OPEN,
  price: 2500.5,
  volume: 100,
  sequence_id: 1,
  status: "LIVE",
  gap_from: 0,
  session: 0,
  sequencing: "contiguous",
  epoch: EPOCH,
  position: 1,
  feed: "dma",
  received_ts: (given.exchange_ts ?? OPEN) + 1500,
  source: ["raw-1", 0, 0],
  old: false,
  ...given
})

export const makeQuote = (given: Partial<Quote> = {}): Quote => ({
  ...unknownQuote(),
  instrument_token: 738561,
  exchange_ts: OPEN,
  feed: "snapshot",
  received_ts: (given.exchange_ts ?? OPEN) + 1500,
  source: ["raw-1", 0, 1],
  old: false,
  ...given
})

/** What a transaction of the store writes, of which a case says what it is about. */
export const storeBatch = (given: Partial<StoreBatch>): StoreBatch => ({
  ticks: [],
  replayed: [],
  quotes: [],
  replayedQuotes: [],
  bookmarks: [],
  ...given
})

/** A published tick as the store and the archive have it. */
export const toStored = ({ gap_from, source, old, ...stored }: Tick): StoredTick => stored

/** A range that held no quote. */
export const NO_QUOTES = toQuoteColumns([])
