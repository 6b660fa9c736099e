/** Decides how a client is brought from where it stands to where the live ticks go on, and what is told of holes. */

import { backfillFrame, evictedFrame, type Place, type TickFields } from "../../schema/Protocol.ts"
import { isAfter } from "../../schema/Tick.ts"
import { Frame, type Notice, type Published } from "./ClientQueue.ts"
import type { InstrumentTicks } from "./TickRing.ts"

/** Ticks in one `backfill` frame at most; more go in several, one after another. */
export const MAX_BACKFILL_FRAME = 2_000

/** What one answer to a subscription is made of. */
export interface Backfill {
  readonly instrument: InstrumentTicks
  /** Where the client's stream stands before it; undefined where it has none yet. */
  readonly base: Place | undefined
  /** Ticks from outside this memory, ascending. */
  readonly fetched: ReadonlyArray<Frame>
  /** Ticks of this memory after `from` up to `target` follow. */
  readonly from: Place | undefined
  /** Where the live ticks go on; undefined where another page follows. */
  readonly target: Place | undefined
  /** False where something before is known not to be had. */
  readonly recovered: boolean
  /** A frame is owed even where there is nothing to send. */
  readonly answer: boolean
  /** The ticks of memory are held from now on, rather than read when the turn to be sent comes. */
  readonly hold?: boolean
  /** Hears how many positions are told as missing. */
  readonly lost?: (positions: number) => void
  readonly done?: (sent: boolean) => void
}

/** A tick from outside memory. */
export const frameOf = (tick: TickFields): Frame =>
  new Frame(tick.instrument_token, tick.epoch, tick.position, tick.position, undefined, UNKNOWN, tick, "")
/** Nobody measures how long it took. */
export const UNKNOWN: Published = { at: 0 }

/**
 * Reads the ring only when its turn to be sent comes, so a client that asks for much and reads slowly holds nothing
 * but this. What the ring has let go of meanwhile is told as evicted, right where it is missing. A client that is to lose
 * nothing has few of these at a time, and they hold what they tell.
 */
export const backfillNotice = (backfill: Backfill): Notice => {
  const { instrument, fetched, from, target } = backfill
  const { token, run } = instrument
  let frames: ReadonlyArray<Frame> | undefined
  let at = 0
  let { base, recovered } = backfill
  let owed = backfill.answer

  const collect = (): ReadonlyArray<Frame> => {
    if (from === undefined || target === undefined || instrument.run !== run) return fetched
    const all = [...fetched]
    for (let i = instrument.indexAfter(from); i < instrument.count; i++) {
      const frame = instrument.at(i)
      if (isAfter(frame.epoch, frame.position, target)) break
      all.push(frame)
    }
    return all
  }
  /** Tells the positions of an epoch that are missing before `position`, if any are. */
  const hole = (epoch: number, position: number): string | undefined => {
    if (base === undefined || epoch < base.epoch) return undefined
    const first = epoch === base.epoch ? base.position + 1 : 1
    if (first >= position) return undefined
    base = { epoch, position: position - 1 }
    recovered = false
    backfill.lost?.(position - first)
    return evictedFrame(token, epoch, first, position - 1)
  }
  const next = (): string | undefined => {
    frames ??= collect()
    const first = frames[at]
    if (first !== undefined) {
      const missing = hole(first.epoch, first.position)
      if (missing !== undefined) return missing
      const data: Array<string> = []
      let position = first.position
      for (; at < frames.length && data.length < MAX_BACKFILL_FRAME; at++) {
        const frame = frames[at]!
        if (frame.epoch !== first.epoch || frame.position !== first.position + data.length) break
        data.push(frame.text())
        position = frame.position
      }
      base = { epoch: first.epoch, position }
      owed = false
      const text = backfillFrame(token, first.epoch, first.position, position, recovered, data)
      recovered = true
      return text
    }
    if (target !== undefined) {
      const missing = hole(target.epoch, target.position + 1)
      if (missing !== undefined) return missing
    }
    if (!owed) return undefined
    owed = false
    const stand = base ?? target ?? { epoch: 0, position: 0 }
    return backfillFrame(token, stand.epoch, stand.position + 1, stand.position, recovered, [])
  }
  if (backfill.hold === true) frames = collect()
  return {
    token,
    weight: 256 + (frames ?? fetched).length * 256,
    next,
    place: () => base,
    ...(backfill.done === undefined ? {} : { done: backfill.done })
  }
}
