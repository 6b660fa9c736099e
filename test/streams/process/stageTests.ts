/** Decides with which settings and on which day tests of the stages run, and how they read what the stages counted. */
import type { Sequenced } from "../../../src/streams/process/batch.ts"

export const settings = {
  GAP_HOLD_MS: 5000,
  MAX_SEQUENCE_JUMP: 1_000_000,
  DMA_SILENCE_MS: 3000,
  MAX_FUTURE_SKEW_MS: 5000,
  ZERO_PRICE: "drop"
} as const

/** 2026-01-15 10:00 IST, a trading day, in µs. */
export const TEN = Date.UTC(2026, 0, 15, 4, 30) * 1000

type Counted = Pick<Sequenced, "passed">

/** Ticks that any stage took out for a reason, dead letters apart. */
export const tookOut = ({ passed }: Counted, reason: string): number =>
  passed.reduce((sum, { discarded }) => sum + ((discarded as Record<string, number>)[reason] ?? 0), 0)

/** Ticks that a stage handed on. */
export const handedOn = ({ passed }: Counted, stage: string): number =>
  passed.reduce((sum, count) => (count.stage === stage ? sum + count.sent : sum), 0)
