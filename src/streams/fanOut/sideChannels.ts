/**
 * Decides what clients may hear besides ticks, channel by channel: each says what one tick makes it tell. Who wants
 * which is a number of bits, so that a tick asks it at no cost.
 */
import { gapFilledFrame, gapFrame, type ServedChannel } from "../../schema/Protocol.ts"
import type { Tick } from "../../schema/Tick.ts"

/** The frame that a tick makes a channel tell, right before the tick itself; undefined for most. */
type Teller = (tick: Tick) => string | undefined

/** What a tick says of its sequence: the numbers missing before it, or that it fills its own. */
const gapOf: Teller = ({ status, sequencing, instrument_token: token, gap_from, sequence_id }) => {
  if (status !== "STALE" || sequencing !== "contiguous") return undefined
  return gap_from === 0 ? gapFilledFrame(token, sequence_id, sequence_id) : gapFrame(token, gap_from, sequence_id - 1)
}

const tellers: Readonly<Record<Exclude<ServedChannel, "tick">, Teller>> = { gap: gapOf }

const names = Object.keys(tellers)
const list = Object.values(tellers)

/** The channels that a client wants of an instrument, a bit each. */
export type Wanted = number

/** The bit of the ticks themselves. */
export const TICK: Wanted = 1
const bitOf = (index: number): Wanted => TICK << (index + 1)

export const wantedOf = (channels: ReadonlyArray<ServedChannel>): Wanted =>
  channels.reduce((bits, channel) => bits | (channel === "tick" ? TICK : bitOf(names.indexOf(channel))), 0)

/** What one tick makes the channels tell: `bits` of those that do, and their frames in the same order. */
export interface Told {
  readonly bits: Wanted
  readonly frames: ReadonlyArray<string>
}

/** Undefined where none has anything to tell, as with most ticks. */
export const toldBy = (tick: Tick): Told | undefined => {
  let bits = 0
  let frames: Array<string> | undefined
  for (let i = 0; i < list.length; i++) {
    const frame = list[i]!(tick)
    if (frame === undefined) continue
    bits |= bitOf(i)
    if (frames === undefined) frames = [frame]
    else frames.push(frame)
  }
  return frames === undefined ? undefined : { bits, frames }
}

const NONE: ReadonlyArray<string> = []

/** The frames for who wants these channels. */
export const framesFor = (told: Told | undefined, wanted: Wanted): ReadonlyArray<string> => {
  if (told === undefined || (told.bits & wanted) === 0) return NONE
  if ((told.bits & wanted) === told.bits) return told.frames
  const frames: Array<string> = []
  let at = 0
  for (let i = 0; i < list.length; i++) {
    if ((told.bits & bitOf(i)) === 0) continue
    const frame = told.frames[at++]!
    if ((wanted & bitOf(i)) !== 0) frames.push(frame)
  }
  return frames
}
