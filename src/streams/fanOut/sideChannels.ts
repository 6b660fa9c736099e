/**
 * Decides what clients may hear besides ticks, channel by channel: some say what one tick makes them tell, the others
 * have a state. Who wants which is a number of bits, so that a tick asks it at no cost.
 */
import { type ChannelName, gapFilledFrame, gapFrame } from "../../schema/Protocol.ts"
import type { Tick } from "../../schema/Tick.ts"

/** The frame that a tick makes a channel tell, right before the tick itself; undefined for most. */
type Teller = (tick: Tick) => string | undefined

/** What a tick says of its sequence: the numbers missing before it, or that it fills its own. */
const gapOf: Teller = ({ status, sequencing, instrument_token: token, gap_from, sequence_id }) => {
  if (status !== "STALE" || sequencing !== "contiguous") return undefined
  return gap_from === 0 ? gapFilledFrame(token, sequence_id, sequence_id) : gapFrame(token, gap_from, sequence_id - 1)
}

/** Channels of which only the newest counts. */
type LatestChannel = "candle_1m" | "candle_5m" | "state" | "quote"

const tellers: Readonly<Record<Exclude<ChannelName, "tick" | LatestChannel>, Teller>> = { gap: gapOf }

const list = Object.values(tellers)
const names: ReadonlyArray<string> = [
  ...Object.keys(tellers),
  ...(["candle_1m", "candle_5m", "state", "quote"] satisfies ReadonlyArray<LatestChannel>)
]

/** The channels that a client wants of an instrument, a bit each. */
export type Wanted = number

/** The bit of the ticks themselves. */
export const TICK: Wanted = 1
const bitOf = (index: number): Wanted => TICK << (index + 1)

export const wantedOf = (channels: ReadonlyArray<ChannelName>): Wanted =>
  channels.reduce((bits, channel) => bits | (channel === "tick" ? TICK : bitOf(names.indexOf(channel))), 0)

/** The bits of what has a state, and of all of them. */
export const CANDLE_1M = wantedOf(["candle_1m"])
export const CANDLE_5M = wantedOf(["candle_5m"])
export const CANDLES: Wanted = CANDLE_1M | CANDLE_5M
export const STATE = wantedOf(["state"])
export const QUOTE = wantedOf(["quote"])
export const LATEST: Wanted = CANDLES | STATE | QUOTE

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
