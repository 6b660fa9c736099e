/** Decides what is kept of one instrument's stream: where it stands, its newest ticks, and who gets the next one. */

import type { Place } from "../../schema/Protocol.ts"
import type { Quote } from "../../schema/Quote.ts"
import { isAfter } from "../../schema/Tick.ts"
import { type Audience, audienceIn } from "./audience.ts"
import type { ClientQueue, Frame } from "./ClientQueue.ts"
import type { InstrumentBars } from "./InstrumentBars.ts"
import type { Listened, Listener } from "./Listened.ts"
import type { Silence } from "./Silence.ts"
import { LATEST, TICK, type Wanted } from "./sideChannels.ts"

export type SubscriptionState = "live" | "ahead" | "fetching" | "over"

/** One client's wish for one instrument. */
export class Subscription {
  readonly queue: ClientQueue
  readonly instrument: InstrumentTicks
  /** Its place in the audience it is in. */
  slot = 0
  wanted: Wanted
  state: SubscriptionState = "over"
  /** Where the client's stream of this instrument stands while it is not live. */
  place: Place | undefined
  /** `place` comes from ticks, not from the client's word alone. */
  sure = false
  /** Subscribed again while fetching: so many answers are still owed. */
  owed = 0
  /** Where it wants state besides: bars, or whether the instrument is live. */
  listener: Listener | undefined

  constructor(queue: ClientQueue, instrument: InstrumentTicks, wanted: Wanted) {
    this.queue = queue
    this.instrument = instrument
    this.wanted = wanted
  }

  /** Whether it wants the ticks themselves. */
  get hasTicks(): boolean {
    return (this.wanted & TICK) !== 0
  }
}

/** One instrument of a channel: where its stream stands, its newest ticks, and who gets the next one. */
export class InstrumentTicks {
  readonly token: number
  epoch = 0
  position = 0
  /** What is known of its book and day. */
  quote: Quote | undefined
  /** Whether that, if only that nothing is, is known to be the newest: it has come here, or all before has been found. */
  isQuoteNewest = false
  /** The publish that last brought anything. */
  lastUse = 0
  /** Clients by the channels they want: as many as there are choices, mostly one. */
  readonly audiences: Array<Audience<Subscription>> = []
  /** Clients that already had what is still to come here. */
  ahead: Set<Subscription> | undefined
  /** Lookups under way. */
  fetching = 0
  /** Counts the runs that were forgotten. */
  run = 0
  readonly bars: InstrumentBars
  readonly silence: Silence
  /** Those who want its state; undefined for most. */
  listened: Listened | undefined

  private ring: Array<Frame | undefined> = []
  private start = 0
  count = 0

  constructor(token: number, bars: InstrumentBars, silence: Silence) {
    this.token = token
    this.bars = bars
    this.silence = silence
  }

  get isSeen(): boolean {
    return this.position !== 0
  }

  /** Something has come of it. */
  get isMet(): boolean {
    return this.isSeen || this.quote !== undefined
  }

  get isWanted(): boolean {
    const { audiences, ahead, fetching } = this
    return audiences.some(({ queues }) => queues.length > 0) || ahead !== undefined || fetching > 0
  }

  at(index: number): Frame {
    const i = this.start + index
    return this.ring[i < this.ring.length ? i : i - this.ring.length]!
  }

  /** Keeps a frame; the oldest goes where there are `limit` already. Answers by how many the ring grew. */
  keep(frame: Frame, limit: number): number {
    if (this.count >= limit) {
      const gone = this.cut(limit)
      this.ring[this.start] = frame
      this.start = this.start + 1 === this.ring.length ? 0 : this.start + 1
      return -gone
    }
    if (this.count === this.ring.length) this.resize(Math.min(limit, Math.max(4, this.count * 2)))
    const i = this.start + this.count
    this.ring[i < this.ring.length ? i : i - this.ring.length] = frame
    this.count++
    return 1
  }

  /** Keeps only the newest `limit`; answers how many went. */
  cut(limit: number): number {
    const over = this.count - limit
    if (over <= 0) {
      if (this.ring.length > limit) this.resize(limit)
      return 0
    }
    this.start = (this.start + over) % this.ring.length
    this.count = limit
    this.resize(limit)
    return over
  }

  forget(): void {
    this.ring = []
    this.start = 0
    this.count = 0
    this.epoch = 0
    this.position = 0
    this.quote = undefined
    this.isQuoteNewest = false
    this.run++
    this.bars.forget(Number.NEGATIVE_INFINITY)
    this.silence.forget()
    this.listened?.forget()
  }

  /** How many of the kept ticks are at or below a place. */
  indexAfter(place: Place): number {
    let low = 0
    let high = this.count
    while (low < high) {
      const middle = (low + high) >>> 1
      const frame = this.at(middle)
      if (isAfter(frame.epoch, frame.position, place)) high = middle
      else low = middle + 1
    }
    return low
  }

  /** Whether a place is one of this memory, with everything after it. */
  reaches(place: Place): boolean {
    if (this.epoch === place.epoch && this.position === place.position) return true
    const index = this.indexAfter(place)
    if (index > 0) {
      const before = this.at(index - 1)
      if (before.epoch === place.epoch && before.position === place.position) return true
    }
    if (index >= this.count) return false
    const after = this.at(index)
    return after.epoch === place.epoch && after.position === place.position + 1
  }

  private resize(length: number): void {
    const ring: Array<Frame | undefined> = new Array(length).fill(undefined)
    for (let i = 0; i < this.count; i++) ring[i] = this.at(i)
    this.ring = ring
    this.start = 0
  }
}

/** The audience of the ticks, and what they make told, that a subscription wants. */
export const audienceOf = ({ audiences }: InstrumentTicks, wanted: Wanted): Audience<Subscription> =>
  audienceIn(audiences, wanted & ~LATEST)

/** Where an instrument's stream stands. */
export const placeOf = (instrument: InstrumentTicks): Place => ({
  epoch: instrument.epoch,
  position: instrument.position
})
