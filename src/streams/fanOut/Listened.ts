/** Decides who is told the state of an instrument, and what of it is still to be told. */
import type { InstrumentState } from "../../schema/Protocol.ts"
import { type Audience, type AudienceMember, audienceIn } from "./audience.ts"
import type { ClientQueue } from "./ClientQueue.ts"
import type { LatestFrame } from "./latest.ts"
import type { Wanted } from "./sideChannels.ts"

/** Frames put into slots in one turn; others are to have theirs. About a millisecond. */
export const TURN_FRAMES = 4_000

/** One client's wish for the state of one instrument. */
export class Listener implements AudienceMember {
  readonly queue: ClientQueue
  slot = 0
  /** What it is told; none before its subscription was answered. */
  wanted: Wanted = 0
  isOver = false

  constructor(queue: ClientQueue) {
    this.queue = queue
  }
}

/** An instrument that somebody listens to. */
export class Listened {
  /** What all of them together want. */
  wanted: Wanted = 0
  /** Minutes that changed since they were told; few, mostly one. */
  readonly changed: Array<number> = []
  /** Bars that were told as not final, by their mark. */
  readonly open = new Set<number>()
  /** The state that was told last. */
  state: { readonly state: InstrumentState; readonly since: number } | undefined
  /** The frame of the newest quote, once it was told; and whether a newer one is to be. */
  quote: LatestFrame | undefined
  isQuoteNew = false
  private readonly audiences: Array<Audience<Listener>> = []

  get isEmpty(): boolean {
    return this.wanted === 0
  }

  join(listener: Listener, wanted: Wanted): void {
    if (listener.isOver || listener.wanted === wanted) return
    if (listener.wanted !== 0) audienceIn(this.audiences, listener.wanted).remove(listener)
    listener.wanted = wanted
    audienceIn(this.audiences, wanted).add(listener)
    this.count()
  }

  leave(listener: Listener): void {
    listener.isOver = true
    if (listener.wanted === 0) return
    audienceIn(this.audiences, listener.wanted).remove(listener)
    listener.wanted = 0
    this.count()
  }

  private count(): void {
    this.wanted = this.audiences.reduce((all, { wanted, queues }) => (queues.length > 0 ? all | wanted : all), 0)
  }

  /** A run begins anew: nothing of it was told yet. */
  forget(): void {
    this.changed.length = 0
    this.open.clear()
    this.state = undefined
    this.quote = undefined
    this.isQuoteNew = false
  }

  /** Notes a minute that changed; whether it is the first. */
  change(ts: number): boolean {
    const { changed } = this
    const { length } = changed
    if (length > 0 && (changed[length - 1] === ts || changed.includes(ts))) return false
    changed.push(ts)
    return length === 0
  }

  /** Puts a frame into the slots of those who want it; answers how many. Those that had none yet are in `offered` then. */
  offer(frame: LatestFrame, channel: Wanted, offered: Array<ClientQueue>): number {
    let count = 0
    for (const { wanted, queues } of this.audiences) {
      if ((wanted & channel) === 0) continue
      count += queues.length
      for (let i = 0; i < queues.length; i++) {
        const queue = queues[i]!
        if (queue.offer(frame)) offered.push(queue)
      }
    }
    return count
  }
}

/** What is put into slots in one turn: each client is offered all of it in one write. */
export class Offers {
  private queues: Array<ClientQueue> = []
  private readonly handOver: (queues: ReadonlyArray<ClientQueue>) => void

  constructor(handOver: (queues: ReadonlyArray<ClientQueue>) => void) {
    this.handOver = handOver
  }

  put(listened: Listened, frame: LatestFrame, channel: Wanted): number {
    return listened.offer(frame, channel, this.queues)
  }

  hand(): void {
    const { queues } = this
    if (queues.length === 0) return
    this.queues = []
    this.handOver(queues)
  }
}

/** What is to be told: in one turn so many frames, and those of one more; the rest in the next. */
export class Telling<A> {
  private waiting: Array<A> = []
  private readonly tellOne: (one: A) => number
  private readonly hand: () => void
  /** The rest has its turn next. */
  isGoingOn = false

  /** `tellOne` answers how many frames that was, `hand` offers them to their clients. */
  constructor(tellOne: (one: A) => number, hand: () => void) {
    this.tellOne = tellOne
    this.hand = hand
  }

  get size(): number {
    return this.waiting.length
  }

  add(one: A): void {
    this.waiting.push(one)
  }

  clear(): void {
    this.waiting = []
  }

  tell(most = TURN_FRAMES): void {
    const { waiting } = this
    this.waiting = []
    let told = 0
    let frames = 0
    while (told < waiting.length && frames < most) frames += this.tellOne(waiting[told++]!)
    for (; told < waiting.length; told++) this.waiting.push(waiting[told]!)
    if (this.waiting.length > 0 && !this.isGoingOn) {
      this.isGoingOn = true
      setImmediate(this.goOn)
    }
    this.hand()
  }

  private readonly goOn = (): void => {
    this.isGoingOn = false
    this.tell()
  }
}
