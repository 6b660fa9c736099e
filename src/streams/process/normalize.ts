/**
 * Decides the one form of a tick, whatever feed it came from: its trading day, its identity where the feed has no
 * numbers, its times. A stamp too far ahead of record time goes to the DLQ, also a quote's.
 */
import { QUOTE_SOURCE_INDEX } from "../../schema/Quote.ts"
import { tradingDay } from "../../schema/Tick.ts"
import {
  type DeadLetter,
  type Decoded,
  type DecodedTick,
  type Normalized,
  type NormalizedTick,
  passed,
  type QuoteCandidate
} from "./batch.ts"
import { defectOf } from "./defect.ts"
import { identityHash } from "./identityHash.ts"

export interface NormalizeOptions {
  /** The raw topic's incarnation, first part of every source. */
  readonly incarnation: string
  /** How far ahead of record time an exchange_ts may be, µs. */
  readonly maxFutureSkewMicros: number
}

/** The letter of a record whose stamp is too far ahead. */
const future = (
  stage: "normalize" | "quote",
  { raw, record, recordTime }: Pick<DecodedTick | QuoteCandidate, "raw" | "record" | "recordTime">,
  index: number,
  maxFutureSkewMicros: number
): DeadLetter => ({
  record,
  index,
  stage,
  kind: "future",
  clock: { feed: raw.feed, aheadMicros: raw.exchange_ts - recordTime },
  reason:
    `exchange_ts: expected at most ${maxFutureSkewMicros / 1000} ms ahead of record time ${recordTime}, ` +
    `got ${raw.exchange_ts}`
})

/** A quote beside a tick has no letter of its own: the tick's has the record. */
const dateQuotes = ({ quotes, dead }: Decoded, maxFutureSkewMicros: number): void => {
  for (const quote of quotes) {
    const { raw, recordTime, isAlone } = quote
    quote.day = tradingDay(raw.exchange_ts)
    quote.isAhead = raw.exchange_ts > recordTime + maxFutureSkewMicros
    if (quote.isAhead && isAlone) dead.push(future("quote", quote, QUOTE_SOURCE_INDEX, maxFutureSkewMicros))
  }
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
          batch.dead.push(future("normalize", candidate, candidate.index, maxFutureSkewMicros))
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
    if (batch.quotes.length > 0) dateQuotes(batch, maxFutureSkewMicros)
    return passed(batch, { stage: "normalize", received: length, sent: kept, discarded: {} })
  }
