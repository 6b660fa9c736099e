/**
 * Decides which quotes are published: of each packet what it adds to what is known of its instrument's trading day, and
 * then all of that. One older than what is known is outdated, one that adds nothing changes nothing; and what comes of
 * the tick beside it touches neither.
 */
import { afterPacket, isOutdated, QUOTE_SOURCE_INDEX, sameQuote } from "../../schema/Quote.ts"
import { passed, type QuoteCandidate, type Quoted, type Sequenced } from "./batch.ts"
import { defectOf } from "./defect.ts"

export interface QuoteOptions {
  /** The raw topic's incarnation, first part of every source. */
  readonly incarnation: string
}

/** Takes a packet in; answers what becomes of it. */
const take = (candidate: QuoteCandidate, incarnation: string): "sent" | "outdated" | "unchanged" => {
  const { raw, record, recordTime, isOld } = candidate
  const { instrument_token, exchange_ts, feed, received_ts, state: packet } = raw
  const day = candidate.state!
  const { quote: known, quotedAt } = day
  const stamped = { exchange_ts, day_volume: packet.day_volume }
  if (isOutdated({ exchange_ts: quotedAt, day_volume: known.day_volume }, stamped)) return "outdated"
  // What changes nothing is newer all the same: what comes late from before it is outdated.
  day.quotedAt = exchange_ts
  const next = afterPacket(known, packet)
  if (sameQuote(next, known)) return "unchanged"
  day.quote = next
  const isReplayed = candidate.run !== ""
  candidate.quote = {
    ...next,
    instrument_token,
    exchange_ts,
    feed,
    // As of a tick.
    received_ts: received_ts > 0 && (isReplayed || received_ts < recordTime) ? received_ts : recordTime,
    source: [incarnation, record.offset, QUOTE_SOURCE_INDEX],
    old: isOld
  }
  return "sent"
}

export const quote =
  ({ incarnation }: QuoteOptions) =>
  (batch: Sequenced): Quoted => {
    const { quotes } = batch
    const { length } = quotes
    const discarded = { future: 0, outdated: 0, unchanged: 0 }
    let kept = 0
    for (let i = 0; i < length; i++) {
      const candidate = quotes[i]!
      if (candidate.isAhead) {
        if (!candidate.isAlone) discarded.future++
        continue
      }
      // Its letter is written already.
      if (candidate.state === undefined) continue
      try {
        const outcome = take(candidate, incarnation)
        if (outcome === "sent") quotes[kept++] = candidate
        else discarded[outcome]++
      } catch (error) {
        batch.dead.push(defectOf("quote", { record: candidate.record, index: QUOTE_SOURCE_INDEX }, error))
      }
    }
    quotes.length = kept
    return passed(batch, { stage: "quote", received: length, sent: kept, discarded })
  }
