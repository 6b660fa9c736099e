/**
 * Decides which copy of a tick goes on: the numbering it belongs to, whether a snapshot without numbers is needed now,
 * and whether its identity has been seen: with the same content it is a duplicate, with another it is none. From the
 * partition's own state, which is gone through here once, in the order of the partition: so quotes find their day here too.
 */

import { QUOTE_SOURCE_INDEX } from "../../schema/Quote.ts"
import type { RawTick } from "../../schema/RawTick.ts"
import {
  type AdmittedTick,
  type DeadLetter,
  type Deduplicated,
  type Normalized,
  type NormalizedTick,
  type PartitionStates,
  passed,
  type QuoteCandidate,
  type StateCounts
} from "./batch.ts"
import { defectOf } from "./defect.ts"
import { contentPrint } from "./identityHash.ts"
import { NEW, OTHER, SAME } from "./NumberSet.ts"
import type { Connection, InstrumentDay, PartitionState, Session } from "./partitionState.ts"

export interface DeduplicateOptions {
  /** How long a gap stays open, µs of record time. */
  readonly gapHoldMicros: number
  /** DMA silence after which a snapshot without sequence passes, µs of record time. */
  readonly dmaSilenceMicros: number
  readonly maxSequenceJump: number
  /** Whether price 0 of a snapshot feed is a price. */
  readonly keepsZeroPrice: boolean
  /** Called for the later of two copies from different feeds: which feed won, and by how many µs of record time. */
  readonly onFeedLead: (winner: string, micros: number) => void
}

/**
 * The state that a candidate belongs to: live, or its run's own, begun on its first packet. Watermarks and quotes before
 * a tick have their effect on the states first, wherever the partition is cut.
 */
class InOrder {
  /** The offset of the next quote that has not found its day. */
  nextQuote: number
  readonly #states: PartitionStates
  readonly #batch: Normalized
  #marks = 0
  #quotes = 0

  constructor(states: PartitionStates, batch: Normalized) {
    this.#states = states
    this.#batch = batch
    this.nextQuote = batch.quotes[0]?.record.offset ?? Number.POSITIVE_INFINITY
  }

  stateOf({ run, record }: Pick<NormalizedTick, "run" | "record">): PartitionState {
    if (run === "") return this.#states.live
    this.#markUpTo(record.offset)
    return this.#states.runs.of(run, record.offset, record.recordTime)
  }

  /** Finds the days of the quotes before an offset. */
  placeUpTo(offset: number): void {
    const { quotes } = this.#batch
    while (this.#quotes < quotes.length && quotes[this.#quotes]!.record.offset < offset) {
      this.#place(quotes[this.#quotes++]!)
    }
    this.nextQuote = quotes[this.#quotes]?.record.offset ?? Number.POSITIVE_INFINITY
  }

  passAll(): void {
    this.placeUpTo(Number.POSITIVE_INFINITY)
    this.#markUpTo(Number.POSITIVE_INFINITY)
  }

  #place(quote: QuoteCandidate): void {
    if (quote.isAhead) return
    try {
      const state = this.stateOf(quote)
      quote.state = state.held(quote.raw.instrument_token, quote.day, quote.recordTime)
      quote.isOld = quote.day < state.newestDay
    } catch (error) {
      this.#batch.dead.push(defectOf("quote", { record: quote.record, index: QUOTE_SOURCE_INDEX }, error))
    }
  }

  #markUpTo(offset: number): void {
    const { watermarks } = this.#batch
    while (this.#marks < watermarks.length && watermarks[this.#marks]!.offset < offset) {
      const { run, end, recordTime } = watermarks[this.#marks++]!
      this.#states.runs.mark(run, end, recordTime)
    }
  }
}

/** Found beside `NEW`, `SAME` and `OTHER`: a number above all that the session may hold. */
const FAR = 2

/** Puts a live number into a session where it is new there and fits. */
const take = (session: Session, id: number, raw: RawTick, print: number, maxJump: number): number => {
  if (raw.sequencing === "monotonic") return session.hashes.put(id, print)
  const { ids } = session
  const { highest } = ids
  if (highest >= 0 && id > highest + maxJump) return FAR
  if (ids.add(id)) return NEW
  return session.contents.differs(id, raw.exchange_ts, print) ? OTHER : SAME
}

/**
 * Whether a replay has brought a row already, as where its records were sent again: rows come in the order of their
 * stamps, so one with a later stamp than all before it is another, though its number came.
 */
const isRecorded = (session: Session, id: number, raw: RawTick, print: number): boolean =>
  raw.exchange_ts <= session.latest && session.agrees(id, raw, print)

/** Whether a number that does not fit takes its connection to another session, which may be one that it opens. */
const moves = (
  connection: Connection,
  found: number,
  { raw, tick, recordTime }: NormalizedTick,
  day: InstrumentDay,
  print: number,
  state: PartitionState,
  count: StateCounts,
  maxJump: number
): boolean => {
  const id = tick.sequence_id
  const { length } = day.sessions
  const isMoved =
    found === FAR
      ? day.afterJump(connection, id, raw, recordTime, maxJump)
      : day.afterConflict(connection, id, raw, print, recordTime)
  if (day.sessions.length === length) return isMoved
  if (found === FAR) count.jumps++
  else count.restarts++
  const session = day.sessions[connection.session]!
  // Those of its run that came before it are in the DLQ: sent again in time, they fill their numbers.
  if (session.last >= 0 && raw.sequencing === "contiguous") {
    session.missing.open(session.last + 1, id - 1, recordTime, count)
    state.open.add(session)
  }
  return isMoved
}

/** The letter of a number that fits no session; `highest`: that of its own. */
const misfit = (
  { record, index, raw, tick }: NormalizedTick,
  found: number,
  highest: number,
  maxJump: number
): DeadLetter =>
  found === FAR
    ? {
        record,
        index,
        stage: "deduplicate",
        kind: "jump",
        reason: `sequence_id: expected at most ${maxJump} above the last, ${highest}, got ${tick.sequence_id}`
      }
    : {
        record,
        index,
        stage: "deduplicate",
        kind: "conflict",
        reason:
          `sequence_id: ${tick.sequence_id} came before with another exchange_ts or price, and connection ` +
          `${JSON.stringify(raw.connection)} did not say reset`
      }

export const deduplicate =
  (states: PartitionStates, options: DeduplicateOptions) =>
  (batch: Normalized): Deduplicated => {
    const { gapHoldMicros, dmaSilenceMicros, maxSequenceJump, keepsZeroPrice } = options
    const { count } = batch
    const uncounted = { gaps: 0, fills: 0, lost: 0 }
    const order = new InOrder(states, batch)
    const ticks = batch.ticks as Array<AdmittedTick>
    const { length } = ticks
    let kept = 0
    let duplicate = 0
    let suppressed = 0
    for (let i = 0; i < length; i++) {
      const candidate = ticks[i]!
      if (candidate.record.offset > order.nextQuote) order.placeUpTo(candidate.record.offset)
      try {
        const { raw, tick, recordTime } = candidate
        const isReplayed = candidate.run !== ""
        const state = order.stateOf(candidate)
        const day = state.day(candidate.day, recordTime, raw)
        const { newestDay } = state
        const { sequencing } = raw
        const id = tick.sequence_id
        let connection: Connection | undefined
        let number = 0
        if (isReplayed) number = day.sessionNumbered(Math.max(raw.session, 0), recordTime)
        else if (sequencing !== "none") {
          const { length } = day.sessions
          connection = day.enter(id, raw, recordTime)
          number = connection.session
          if (day.sessions.length > length) count.resets++
        }
        let session = day.sessions[number]!
        // What a replay misses was lost, and counted, when it was live.
        const tally = isReplayed ? uncounted : count
        session.missing.expire(recordTime - gapHoldMicros, tally)
        if (!isReplayed) {
          if (raw.feed === "dma") day.lastDma = recordTime
          else if (
            raw.feed === "snapshot" &&
            sequencing === "none" &&
            recordTime - day.lastDma < dmaSilenceMicros &&
            !day.hasOpenGap(recordTime, gapHoldMicros)
          ) {
            suppressed++
            continue
          }
        }
        // Before the first trade a snapshot has no price. Its number stays free for whoever knows one.
        if (raw.price === 0 && !isReplayed && !keepsZeroPrice && (raw.feed === "snapshot" || raw.day_volume >= 0)) {
          candidate.isPriceless = true
          candidate.state = day
          candidate.session = session
          ticks[kept++] = candidate
          continue
        }
        let highest = session.highest
        if (isReplayed && sequencing !== "none") {
          const print = contentPrint(raw.exchange_ts, raw.price)
          if (isRecorded(session, id, raw, print)) {
            duplicate++
            continue
          }
          // A number that came before with an earlier row was given again where state was lost: its numbering begins anew.
          if (take(session, id, raw, print, Infinity) !== NEW) {
            session = day.beginAnew(number, recordTime)
            highest = session.highest
            take(session, id, raw, print, Infinity)
          }
          if (raw.exchange_ts > session.latest) session.latest = raw.exchange_ts
          if (sequencing === "contiguous") session.contents.put(id, raw.exchange_ts, print, recordTime, tick.feed)
        } else if (connection === undefined) {
          // Without numbers the content is the identity.
          if (!session.hashes.add(id)) {
            duplicate++
            continue
          }
        } else {
          const print = contentPrint(raw.exchange_ts, raw.price)
          let found = take(session, id, raw, print, maxSequenceJump)
          if (found === FAR || found === OTHER) {
            if (moves(connection, found, candidate, day, print, state, count, maxSequenceJump)) {
              number = connection.session
              session = day.sessions[number]!
              highest = session.highest
              found = take(session, id, raw, print, maxSequenceJump)
            }
            if (found === FAR || found === OTHER) {
              connection.isMet = true
              batch.dead.push(misfit(candidate, found, highest, maxSequenceJump))
              continue
            }
          }
          connection.isMet = true
          connection.run = undefined
          if (found === SAME) {
            const first = session.contents.otherTime(id, tick.feed)
            if (first >= 0) options.onFeedLead(session.contents.feed(id), recordTime - first)
            duplicate++
            continue
          }
          if (raw.exchange_ts > session.latest) session.latest = raw.exchange_ts
          if (sequencing === "contiguous") session.contents.put(id, raw.exchange_ts, print, recordTime, tick.feed)
        }
        if (sequencing === "contiguous" && highest >= 0) {
          if (id > highest + 1) {
            session.missing.open(highest + 1, id - 1, recordTime, tally)
            if (!isReplayed) state.open.add(session)
          } else if (id < highest) session.missing.fill(id, tally)
        }
        tick.session = number
        candidate.state = day
        candidate.session = session
        tick.old = candidate.day < newestDay
        ticks[kept++] = candidate
      } catch (error) {
        batch.dead.push(defectOf("deduplicate", candidate, error))
      }
    }
    order.passAll()
    ticks.length = kept
    states.live.expire(batch.recordTime - gapHoldMicros, count)
    count.epochs += states.live.begun
    states.live.begun = 0
    count.forgotten = states.live.forgotten
    states.live.forgotten = 0
    count.instruments = states.live.instruments.size
    return passed(batch, {
      stage: "deduplicate",
      received: length,
      sent: kept,
      discarded: { duplicate, suppressed, claimed: 0 }
    })
  }
