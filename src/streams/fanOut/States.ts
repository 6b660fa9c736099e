/**
 * Decides whether an instrument is live, stale or closed, and tells it where that changes: closed by the hours of its
 * own segment, stale where it trades and is silent for longer than it usually is. Instruments whose hours nobody knows
 * are never closed.
 */
import { stateFrame } from "../../schema/Protocol.ts"
import { closedSince, type Segment, sessionAt } from "../../schema/Sessions.ts"
import type { ClientQueue } from "./ClientQueue.ts"
import type { Listened, Offers } from "./Listened.ts"
import type { LatestFrame } from "./latest.ts"
import { STATE } from "./sideChannels.ts"
import type { InstrumentTicks } from "./TickRing.ts"

/** A gap shorter than this is not looked at for hours without trading: there are none as short. */
const SHORT_GAP = 60_000_000

/** What the states need of their channel. */
export interface StatesChannel {
  readonly offers: Offers
  /** Epoch microseconds, as the channel's clock goes; 0 before it goes. */
  readonly time: () => number
  /** From when on ticks have been heard here. */
  readonly since: () => number
  /** Undefined where no trading hours are known. */
  readonly segment: (token: number) => Segment | undefined
}

type State = NonNullable<Listened["state"]>

export class States {
  private readonly channel: StatesChannel

  constructor(channel: StatesChannel) {
    this.channel = channel
  }

  /** A tick has come, by the channel's clock. */
  hear(instrument: InstrumentTicks, at: number): void {
    const { silence, listened } = instrument
    if (silence.hear(at)) silence.count(at, (since) => this.isBroken(instrument.token, since, at))
    if (listened?.state?.state === "stale") this.look(instrument, listened)
  }

  /** Tells the state where it has changed; answers how many frames that is. */
  look(instrument: InstrumentTicks, listened: Listened): number {
    if ((listened.wanted & STATE) === 0) {
      // Nobody looks any more: where it began is found anew for whoever comes.
      listened.state = undefined
      return 0
    }
    const before = listened.state
    const state = this.stateOf(instrument, before)
    if (state === undefined || (before?.state === state.state && before.since === state.since)) return 0
    listened.state = state
    return this.channel.offers.put(listened, frameOf(instrument, state), STATE)
  }

  /** Puts into a client's slots the state that it has come to want. */
  welcome(instrument: InstrumentTicks, listened: Listened, queue: ClientQueue): void {
    this.look(instrument, listened)
    if (listened.state !== undefined) queue.offer(frameOf(instrument, listened.state))
  }

  private stateOf({ token, silence }: InstrumentTicks, before: State | undefined): State | undefined {
    const now = this.channel.time()
    if (now === 0) return undefined
    const segment = this.channel.segment(token)
    let began = this.channel.since()
    if (segment !== undefined) {
      const session = sessionAt(segment, now)
      if (session === undefined) return { state: "closed", since: closedSince(segment, now) }
      began = Math.max(began, session.from)
      // Around auctions few trade at all: what was stale before shows nothing new.
      if (session.phase !== "CONTINUOUS") {
        return before?.state === "stale" && silence.heardAt <= before.since ? before : this.live(before, began)
      }
    }
    const silentSince = Math.max(began, silence.heardAt)
    if (now - silentSince > silence.usual) return { state: "stale", since: silentSince }
    return this.live(before, before?.state === "stale" ? silentSince : began)
  }

  /** One that is live stays so since it became it. */
  private live(before: State | undefined, since: number): State {
    return before?.state === "live" ? before : { state: "live", since }
  }

  /** Whether hours without trading, or those around an auction, lie between two times. */
  private isBroken(token: number, since: number, at: number): boolean {
    if (at - since < SHORT_GAP) return false
    const segment = this.channel.segment(token)
    return segment !== undefined && (sessionAt(segment, at)?.from ?? Number.POSITIVE_INFINITY) > since
  }
}

const frameOf = ({ token }: InstrumentTicks, { state, since }: State): LatestFrame => ({
  token,
  key: `${token} state`,
  text: stateFrame(token, state, since)
})
