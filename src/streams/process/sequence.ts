/**
 * Decides a tick's place: whether it shows a gap or comes out of order, its volume where the feed sends day totals,
 * and its position in the instrument's trading day, without a hole. What others have claimed gets none.
 */
import { boundedVolume } from "../../schema/Candle.ts"
import type { RawTick } from "../../schema/RawTick.ts"
import { continuousOpen, segmentOfToken } from "../../schema/Sessions.ts"
import { type Claimed, passed, type Sequenced } from "./batch.ts"
import { defectOf } from "./defect.ts"
import type { InstrumentDay } from "./partitionState.ts"

/** How long after the open a first day total is still taken to hold only what this tick and the auction traded. */
const OPENING_MICROS = 60_000_000

/** Whether the instrument's segment has traded for a while: always true on a day on which it does not. */
const isMidDay = (token: number, exchangeTs: number, day: number): boolean => {
  const open = continuousOpen(segmentOfToken(token), day)
  return open === undefined || exchangeTs >= open + OPENING_MICROS
}

/**
 * A first total in mid-day holds what was traded before we came: it only sets the base. One of before the open, or with
 * it, holds the auction and what this tick traded: all of it is today's.
 */
const setBase = (state: InstrumentDay, { instrument_token, exchange_ts, day_volume }: RawTick, day: number): void => {
  if (state.volumeBase >= 0) return
  const isLate = isMidDay(instrument_token, exchange_ts, day)
  state.volumeBase = isLate ? Math.max(0, day_volume - state.published) : 0
}

export const sequence = (batch: Claimed): Sequenced => {
  const { ticks } = batch
  const { length } = ticks
  let kept = 0
  let claimed = 0
  let zero_price = 0
  for (let i = 0; i < length; i++) {
    const candidate = ticks[i]!
    try {
      const { raw, tick, state, session } = candidate
      if (candidate.isClaimed) {
        claimed++
        // Published once, before the state was lost: it takes no place, and is not missing.
        if (raw.sequencing !== "none") session.last = Math.max(session.last, tick.sequence_id)
        continue
      }
      if (candidate.isPriceless) {
        zero_price++
        if (raw.day_volume >= 0) setBase(state, raw, candidate.day)
        continue
      }
      if (raw.sequencing === "contiguous" || raw.sequencing === "monotonic") {
        const id = tick.sequence_id
        const { last } = session
        if (id < last) tick.status = "STALE"
        else {
          if (last >= 0 && id > last + 1 && raw.sequencing === "contiguous") {
            tick.status = "STALE"
            tick.gap_from = last + 1
          }
          session.last = id
        }
      }
      if (raw.day_volume >= 0) {
        setBase(state, raw, candidate.day)
        tick.volume = Math.max(0, raw.day_volume - state.volumeBase - state.published)
      }
      state.published = boundedVolume(state.published + tick.volume)
      tick.epoch = state.epoch
      tick.position = ++state.position
      ticks[kept++] = candidate
    } catch (error) {
      batch.dead.push(defectOf("sequence", candidate, error))
    }
  }
  ticks.length = kept
  // What others have claimed was taken out by `deduplicate`, and comes only to show its number.
  const received = length - claimed
  return passed(batch, { stage: "sequence", received, sent: kept, discarded: { zero_price } })
}
