/** Decides what a clean tick looks like in a benchmark that begins behind `process`: one of many instruments, at a steady rate. */
import { epochOf, type Tick, tradingDay } from "../src/schema/Tick.ts"

/** 09:15 IST of a trading day. */
export const OPEN = Date.UTC(2026, 0, 15, 3, 45) * 1000
const EPOCH = epochOf(tradingDay(OPEN), OPEN)

/** The `n`-th of all, `spacingMicros` after the one before. `number`: of its instrument. */
export const cleanTick = (n: number, instrument_token: number, number: number, spacingMicros: number): Tick => {
  const exchange_ts = OPEN + n * spacingMicros
  return {
    instrument_token,
    exchange_ts,
    price: 100 + (n % 1000) / 20,
    volume: 1 + (n % 100),
    sequence_id: number,
    status: "LIVE",
    gap_from: 0,
    session: 0,
    sequencing: "contiguous",
    epoch: EPOCH,
    position: number,
    feed: "dma",
    received_ts: exchange_ts + 400,
    source: ["bench", n, 0],
    old: false
  }
}
