/**
 * Decides the one form of a tick, whatever feed it came from: its trading day, its identity where the feed has no
 * numbers, its times. A stamp too far ahead of record time goes to the DLQ.
 */
import { tradingDay } from "../../schema/Tick.ts"
import { type Decoded, type Normalized, type NormalizedTick, passed } from "./batch.ts"
import { defectOf } from "./defect.ts"
import { identityHash } from "./identityHash.ts"

export interface NormalizeOptions {
  /** The raw topic's incarnation, first part of every source. */
  readonly incarnation: string
  /** How far ahead of record time an exchange_ts may be, µs. */
  readonly maxFutureSkewMicros: number
}

export const normalize =
  (options: NormalizeOptions) =>
  (batch: Decoded): Normalized => {
    const { incarnation, maxFutureSkewMicros } = options
    const ticks = batch.ticks as Array<NormalizedTick>
    const { length } = ticks
    let kept = 0
    for (let i = 0; i < length; i++) {
      const candidate = ticks[i]!
      try {
        const { raw, record, recordTime } = candidate
        if (raw.exchange_ts > recordTime + maxFutureSkewMicros) {
          batch.dead.push({
            record,
            index: candidate.index,
            stage: "normalize",
            kind: "future",
            clock: { feed: raw.feed, aheadMicros: raw.exchange_ts - recordTime },
            reason:
              `exchange_ts: expected at most ${maxFutureSkewMicros / 1000} ms ahead of record time ${recordTime}, ` +
              `got ${raw.exchange_ts}`
          })
          continue
        }
        const isReplayed = candidate.run !== ""
        candidate.day = tradingDay(raw.exchange_ts)
        candidate.tick = {
          instrument_token: raw.instrument_token,
          exchange_ts: raw.exchange_ts,
          price: raw.price,
          volume: raw.volume,
          sequence_id: raw.sequence_id ?? -identityHash(raw),
          status: "LIVE",
          gap_from: 0,
          session: 0,
          sequencing: raw.sequencing,
          epoch: 0,
          position: 0,
          feed: raw.feed,
          // A replayed tick was received when it was; on every other, the log had it no later than its record time.
          received_ts:
            raw.received_ts > 0 && (isReplayed || raw.received_ts < recordTime) ? raw.received_ts : recordTime,
          source: [incarnation, record.offset, candidate.index],
          old: false
        }
        ticks[kept++] = candidate
      } catch (error) {
        batch.dead.push(defectOf("normalize", candidate, error))
      }
    }
    ticks.length = kept
    return passed(batch, { stage: "normalize", received: length, sent: kept, discarded: {} })
  }
