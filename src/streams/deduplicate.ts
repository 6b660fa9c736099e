/**
 * Decides which copy of a tick goes on: the numbering it belongs to, whether a snapshot without numbers is needed now,
 * and whether its identity has been seen. Exact for the day, from the partition's own state.
 */

import type { Batch, Candidate, PartitionStates, Watermark } from "./batch.ts"
import { eachTick } from "./eachTick.ts"
import type { Connection, PartitionState } from "./partitionState.ts"

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
 * The state that a candidate belongs to: live, or its run's own, begun on its first tick. Watermarks before it have
 * their effect on the runs first, wherever the partition is cut.
 */
const stateAt = ({ live, runs }: PartitionStates, watermarks: ReadonlyArray<Watermark>) => {
  let next = 0
  const passUpTo = (offset: number) => {
    while (next < watermarks.length && watermarks[next]!.offset < offset) {
      const { run, end, recordTime } = watermarks[next++]!
      runs.mark(run, end, recordTime)
    }
  }
  const stateOf = ({ run, record }: Candidate): PartitionState => {
    if (run === "") return live
    passUpTo(record.offset)
    return runs.of(run, record.offset, record.recordTime)
  }
  return { stateOf, passAll: () => passUpTo(Number.POSITIVE_INFINITY) }
}

export const deduplicate =
  (states: PartitionStates, options: DeduplicateOptions) =>
  (batch: Batch): Batch => {
    const { gapHoldMicros, dmaSilenceMicros, maxSequenceJump, keepsZeroPrice } = options
    const { count } = batch
    const uncounted = { gaps: 0, fills: 0, lost: 0 }
    const { stateOf, passAll } = stateAt(states, batch.watermarks)
    const kept: Array<Candidate> = []
    eachTick(batch, "deduplicate", (candidate) => {
      const { raw, tick, recordTime } = candidate
      const isReplayed = candidate.run !== ""
      const state = stateOf(candidate)
      const day = state.day(candidate.day, recordTime, raw)
      const { newestDay } = state
      const { sequencing } = raw
      const id = tick.sequence_id
      let connection: Connection | undefined
      let number = 0
      if (isReplayed) number = day.sessionNumbered(Math.max(raw.session, 0), recordTime)
      else if (sequencing !== "none") {
        const { length } = day.sessions
        connection = day.enter(raw.connection, raw.reset, id, raw.exchange_ts, recordTime)
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
          count.suppressed++
          return
        }
      }
      // Before the first trade a snapshot has no price. Its number stays free for whoever knows one.
      if (raw.price === 0 && !isReplayed && !keepsZeroPrice && (raw.feed === "snapshot" || raw.day_volume >= 0)) {
        candidate.isPriceless = true
        candidate.state = day
        candidate.session = session
        kept.push(candidate)
        count.priceless++
        return
      }
      if (sequencing === "contiguous") {
        let highest = session.ids.highest
        // What a replay brings was let in when it was live.
        if (connection !== undefined && highest >= 0) {
          if (id > highest + maxSequenceJump) {
            const { length } = day.sessions
            if (!day.goOn(connection, raw.connection, id, raw.exchange_ts, recordTime, maxSequenceJump)) {
              batch.dead.push({
                record: candidate.record,
                index: candidate.index,
                kind: "jump",
                reason: `sequence_id: expected at most ${maxSequenceJump} above the last, ${highest}, got ${id}`
              })
              return
            }
            const { run } = connection
            number = connection.session
            session = day.sessions[number]!
            if (day.sessions.length > length) {
              count.jumps++
              session.missing.open(run!.first, id - 1, recordTime, tally)
              state.open.add(session)
            }
            highest = session.ids.highest
          }
          connection.run = undefined
        }
        const { ids } = session
        if (!ids.add(id)) {
          const first = session.arrivals.otherTime(id, tick.feed)
          if (first >= 0) options.onFeedLead(session.arrivals.feed(id), recordTime - first)
          count.duplicates++
          return
        }
        if (!isReplayed) session.arrivals.put(id, recordTime, tick.feed)
        if (highest >= 0) {
          if (id > highest + 1) {
            session.missing.open(highest + 1, id - 1, recordTime, tally)
            if (!isReplayed) state.open.add(session)
          } else if (id < highest) session.missing.fill(id, tally)
        }
      } else if (!session.hashes.add(id)) {
        count.duplicates++
        return
      }
      tick.session = number
      candidate.state = day
      candidate.session = session
      tick.old = candidate.day < newestDay
      kept.push(candidate)
    })
    passAll()
    batch.ticks = kept
    states.live.expire(batch.recordTime - gapHoldMicros, count)
    count.admitted = kept.length
    count.epochs += states.live.begun
    states.live.begun = 0
    return batch
  }
