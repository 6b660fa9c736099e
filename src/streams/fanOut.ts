/**
 * Decides who is sent which tick: an instrument's newest ticks are kept, a client joins at an exact place among them,
 * and from there every tick goes once into that client's own bounded queue. Nothing here waits, so joining is one step.
 */
import { Context, Effect, Layer, Metric } from "effect"
import {
  backfillFrame,
  clockFrame,
  evictedFrame,
  gapFilledFrame,
  gapFrame,
  type Place,
  type TickFields
} from "../schema/Protocol.ts"
import { type Tick, tradingDay } from "../schema/Tick.ts"
import {
  ClientQueue,
  type ClientSocket,
  Frame,
  MAX_DELIVERY,
  type Notice,
  type Published,
  textNotice
} from "./clientQueue.ts"
import { historyOf } from "./history.ts"
import { Instruments } from "./Instruments.ts"
import * as metrics from "./metrics.ts"
import { RecentTicks } from "./RecentTicks.ts"
import { TickStore } from "./TickStore.ts"

/** The stream of the market itself; every other channel is a replay's id. */
export const LIVE = ""

export interface HubSettings {
  /** Newest ticks kept of each instrument. */
  readonly RING_TICKS: number
  /** Newest ticks kept of all instruments of a channel together. */
  readonly HUB_TICKS: number
  readonly CLIENT_CAPACITY: number
  readonly CLIENT_BUFFER_BYTES: number
  readonly MAX_CLIENT_TOKENS: number
}

/** Instruments remembered in a channel; full: those that were silent longest and that nobody asked for go. */
export const MAX_INSTRUMENTS = 200_000
/** Rings are not cut below this, however many instruments there are. */
const MIN_RING = 4
/** Ticks in one `backfill` frame at most; more go in several, one after another. */
export const MAX_BACKFILL_FRAME = 5_000
/** Instruments of one client that are looked up outside memory at a time, and of all clients together. */
const CLIENT_LOOKUPS = 4
const LOOKUPS = 16
/** Ticks asked of the history at a time. */
export const HISTORY_PAGE = 2_000
/** `since` of a day older than this is not followed day by day. */
export const MAX_RESUME_DAYS = 7

/** What is known of an instrument outside this memory. It does not fail: what cannot be had is not in the answer. */
export interface History {
  /** The newest ticks, ascending. */
  readonly last: (token: number, limit: number) => Promise<ReadonlyArray<TickFields>>
  /** Ticks above a place, ascending. */
  readonly after: (token: number, place: Place, limit: number) => Promise<HistoryPage>
}

export interface HistoryPage {
  readonly ticks: ReadonlyArray<TickFields>
  /** Ask again after the last of them. */
  readonly more: boolean
  /** The place itself is known to be the newest. */
  readonly current: boolean
  /** Something did not answer. */
  readonly failed: boolean
}

/** What the hub tells whoever counts. */
export interface HubObserver {
  readonly evicted: (ticks: number) => void
  /** Seconds from the log to the socket. */
  readonly delivered: (seconds: number) => void
  /** An instrument's first tick in the live channel. */
  readonly seen: (token: number) => void
}

const isAfter = (epoch: number, position: number, place: Place): boolean =>
  epoch > place.epoch || (epoch === place.epoch && position > place.position)

export interface Wanted {
  readonly tick: boolean
  readonly gap: boolean
}

export interface SubscribeOptions extends Wanted {
  readonly since: Place | undefined
  readonly backfill: number
}

type SubscriptionState = "live" | "ahead" | "fetching" | "over"

class Subscription {
  readonly queue: ClientQueue
  readonly instrument: Instrument
  /** Its place in the audience it is in. */
  slot = 0
  tick: boolean
  gap: boolean
  state: SubscriptionState = "over"
  /** Where the client's stream of this instrument stands while it is not live. */
  place: Place | undefined
  /** `place` comes from ticks, not from the client's word alone. */
  sure = false
  /** Subscribed again while fetching: so many answers are still owed. */
  owed = 0

  constructor(client: HubClient, instrument: Instrument, wanted: Wanted) {
    this.queue = client.queue
    this.instrument = instrument
    this.tick = wanted.tick
    this.gap = wanted.gap
  }
}

/** Subscriptions that want the same of an instrument; their queues lie side by side, as every tick goes through them. */
class Audience {
  readonly queues: Array<ClientQueue> = []
  private readonly subscriptions: Array<Subscription> = []

  add(subscription: Subscription): void {
    subscription.slot = this.queues.length
    this.queues.push(subscription.queue)
    this.subscriptions.push(subscription)
  }

  remove(subscription: Subscription): void {
    const last = this.subscriptions.pop()!
    const queue = this.queues.pop()!
    if (last === subscription) return
    last.slot = subscription.slot
    this.subscriptions[last.slot] = last
    this.queues[last.slot] = queue
  }
}

/** One instrument of a channel: where its stream stands, its newest ticks, and who gets the next one. */
class Instrument {
  readonly token: number
  epoch = 0
  position = 0
  /** The publish that last brought a tick. */
  lastUse = 0
  /** Clients by what they want: both channels, ticks alone, gaps alone. */
  both: Audience | undefined
  ticks: Audience | undefined
  gaps: Audience | undefined
  /** Clients that already had what is still to come here. */
  ahead: Array<Subscription> | undefined
  /** Lookups under way. */
  fetching = 0
  /** Counts the runs that were forgotten. */
  run = 0

  private ring: Array<Frame | undefined> = []
  private start = 0
  count = 0

  constructor(token: number) {
    this.token = token
  }

  get isSeen(): boolean {
    return this.position !== 0
  }

  get isWanted(): boolean {
    const { both, ticks, gaps, ahead, fetching } = this
    return [both, ticks, gaps].some((audience) => audience?.queues.length) || ahead !== undefined || fetching > 0
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
    if (this.count === this.ring.length) this.resize(Math.min(limit, Math.max(16, this.count * 2)))
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
    this.run++
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

/** The audience of what a subscription wants. */
const audienceOf = (instrument: Instrument, { tick, gap }: Wanted): Audience => {
  if (!tick) {
    instrument.gaps ??= new Audience()
    return instrument.gaps
  }
  if (!gap) {
    instrument.ticks ??= new Audience()
    return instrument.ticks
  }
  instrument.both ??= new Audience()
  return instrument.both
}

/** What a look outside memory came to. */
interface Found {
  /** Where the client's stream stands before it. */
  readonly base: Place | undefined
  readonly fetched: ReadonlyArray<Frame>
  /** Where it stands after it; undefined where it has no place. */
  readonly cursor: Place | undefined
  /** `cursor` is the place of a real tick, not the client's word alone. */
  readonly sure: boolean
  /** Frames were sent already, so none is owed. */
  readonly answered: boolean
  readonly recovered: boolean
  readonly done?: (sent: boolean) => void
}

/** What one answer to a subscription is made of. */
interface Backfill {
  readonly instrument: Instrument
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
  readonly done?: (sent: boolean) => void
}

const frameOf = (tick: TickFields): Frame =>
  new Frame(tick.instrument_token, tick.epoch, tick.position, tick.position, undefined, UNKNOWN, tick, "")
const UNKNOWN: Published = { at: 0 }

/**
 * Reads the ring only when its turn to be sent comes, so a client that asks for much and reads slowly holds nothing
 * but this. What the ring has let go of meanwhile is told as evicted, right where it is missing.
 */
const backfillNotice = (backfill: Backfill): Notice => {
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
  return {
    token,
    weight: 256 + fetched.length * 256,
    next,
    ...(backfill.done === undefined ? {} : { done: backfill.done })
  }
}

/** One stream of ticks with its own memory and clients: the market, or one replay. */
export class Channel {
  readonly key: string
  private readonly hub: Hub
  /** What the clients were last told of the time, for those who come later. */
  lastClock: string | undefined
  private readonly instruments = new Map<number, Instrument>()
  readonly clients = new Set<HubClient>()
  private ringLimit: number
  /** Frames of the publish under way, and the clients that get any of them. */
  private frames: Array<Frame> = []
  private marked: Array<ClientQueue> = []
  private kept = 0
  private uses = 0

  constructor(key: string, hub: Hub) {
    this.key = key
    this.hub = hub
    this.ringLimit = hub.settings.RING_TICKS
  }

  /** Ticks in memory and the most there may be. */
  get memory(): { readonly ticks: number; readonly instruments: number; readonly ring: number } {
    return { ticks: this.kept, instruments: this.instruments.size, ring: this.ringLimit }
  }

  /** Where an instrument's stream stands. */
  place(token: number): Place | undefined {
    const instrument = this.instruments.get(token)
    return instrument?.isSeen ? { epoch: instrument.epoch, position: instrument.position } : undefined
  }

  /**
   * Takes ticks in their order; the place in it is what every client sees. `publishedAt` is when the log had the newest
   * of them (µs). Ticks of old days and ticks at or below what was taken are passed over.
   */
  publish(ticks: ReadonlyArray<Tick>, publishedAt = 0): void {
    const published: Published = { at: publishedAt }
    this.uses++
    for (let from = 0; from < ticks.length; from += MAX_DELIVERY) {
      const to = Math.min(ticks.length, from + MAX_DELIVERY)
      for (let i = from; i < to; i++) {
        const tick = ticks[i]!
        if (!tick.old) this.take(tick, published)
      }
      this.deliver()
    }
  }

  /** Tells every client of this channel the time of its market; for a slow client it waits like a tick, and is evicted like one. */
  clock(run: number, ts: number | null, state: string): void {
    this.lastClock = clockFrame(this.key, run, ts, state)
    const index = this.add(new Frame(0, 0, 0, 0, undefined, UNKNOWN, undefined, this.lastClock))
    for (const { queue } of this.clients) if (queue.mark(index)) this.marked.push(queue)
    this.deliver()
  }

  /** Begins a run anew: places and ticks are forgotten, subscriptions stay. */
  restart(): void {
    for (const instrument of this.instruments.values()) instrument.forget()
    this.kept = 0
    for (const client of this.clients) client.restart()
  }

  /** Ends every subscription; the clients stay connected. */
  close(): void {
    for (const client of [...this.clients]) client.leave()
    this.instruments.clear()
    this.kept = 0
  }

  /** The instrument, from now on remembered. */
  instrument(token: number): Instrument {
    const known = this.instruments.get(token)
    if (known !== undefined) return known
    if (this.instruments.size >= MAX_INSTRUMENTS) this.forgetSilent()
    const instrument = new Instrument(token)
    instrument.lastUse = this.uses
    this.instruments.set(token, instrument)
    return instrument
  }

  private take(tick: Tick, published: Published): void {
    const { instrument_token: token, epoch, position } = tick
    const instrument = this.instruments.get(token) ?? this.instrument(token)
    let first = position
    if (instrument.position === 0) {
      if (this.key === LIVE) this.hub.observer.seen(token)
    } else if (epoch === instrument.epoch) {
      if (position <= instrument.position) return
      first = instrument.position + 1
    } else {
      if (epoch < instrument.epoch) return
      first = 1
    }
    instrument.epoch = epoch
    instrument.position = position
    instrument.lastUse = this.uses

    const gap = gapOf(tick)
    const hole = first < position ? evictedFrame(token, epoch, first, position - 1) : undefined
    const before = hole === undefined ? undefined : [hole]
    const { both, ticks, gaps } = instrument
    const plain = new Frame(token, epoch, position, first, before, published, tick, "")
    this.keep(instrument, plain)

    if (gap === undefined) {
      if (both !== undefined) this.send(plain, both.queues)
    } else {
      const told = before === undefined ? [gap] : [...before, gap]
      const whole = new Frame(token, epoch, position, first, told, published, tick, "")
      if (both !== undefined) this.send(whole, both.queues)
      if (gaps !== undefined) {
        this.send(new Frame(token, epoch, position, position, undefined, published, undefined, gap), gaps.queues)
      }
    }
    if (ticks !== undefined) this.send(plain, ticks.queues)
    if (instrument.ahead !== undefined) this.catchUp(instrument, tick, gap, published)
  }

  /** Lets in those who had more than this stream when they came, once it has passed where they stand. */
  private catchUp(instrument: Instrument, tick: Tick, gap: string | undefined, published: Published): void {
    const { token, epoch, position } = instrument
    const waiting = instrument.ahead!
    const still: Array<Subscription> = []
    for (const subscription of waiting) {
      const { place, sure } = subscription
      if (place !== undefined && (epoch === place.epoch ? position <= place.position : sure && epoch < place.epoch)) {
        still.push(subscription)
        continue
      }
      subscription.state = "live"
      subscription.place = undefined
      audienceOf(instrument, subscription).add(subscription)
      if (subscription.tick) {
        const first = place === undefined ? position : epoch === place.epoch ? place.position + 1 : 1
        const before: Array<string> = []
        if (first < position) before.push(evictedFrame(token, epoch, first, position - 1))
        if (gap !== undefined && subscription.gap) before.push(gap)
        this.send(new Frame(token, epoch, position, first, before, published, tick, ""), [subscription.queue])
      } else if (gap !== undefined) {
        this.send(new Frame(token, epoch, position, position, undefined, published, undefined, gap), [
          subscription.queue
        ])
      }
    }
    instrument.ahead = still.length === 0 ? undefined : still
  }

  private add(frame: Frame): number {
    return this.frames.push(frame) - 1
  }

  /** Marks a frame for those who want it. */
  private send(frame: Frame, queues: ReadonlyArray<ClientQueue>): void {
    if (queues.length === 0) return
    const index = this.add(frame)
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[i]!
      if (queue.mark(index)) this.marked.push(queue)
    }
  }

  /** Every client that is to get something is offered it, in one write. */
  private deliver(): void {
    const { frames, marked } = this
    if (frames.length === 0) return
    this.frames = []
    this.marked = []
    this.hub.deliver(marked, frames)
  }

  private keep(instrument: Instrument, frame: Frame): void {
    this.kept += instrument.keep(frame, this.ringLimit)
    if (this.kept <= this.hub.settings.HUB_TICKS || this.ringLimit <= MIN_RING) return
    // Every ring alike gives up its older half: the newest ticks of each instrument are worth most.
    this.ringLimit = Math.max(MIN_RING, this.ringLimit >>> 1)
    for (const other of this.instruments.values()) this.kept -= other.cut(this.ringLimit)
  }

  /** Makes room for a tenth of the instruments at a time. */
  private forgetSilent(): void {
    const silent = [...this.instruments.values()].filter((instrument) => !instrument.isWanted)
    silent.sort((a, b) => a.lastUse - b.lastUse)
    for (const instrument of silent.slice(0, Math.ceil(MAX_INSTRUMENTS / 10))) {
      this.kept -= instrument.count
      this.instruments.delete(instrument.token)
    }
  }
}

/** What a tick says of its sequence: the numbers missing before it, or that it fills its own. */
const gapOf = (tick: Tick): string | undefined => {
  if (tick.status !== "STALE" || tick.sequencing !== "contiguous") return undefined
  const { instrument_token: token, gap_from, sequence_id } = tick
  return gap_from === 0 ? gapFilledFrame(token, sequence_id, sequence_id) : gapFrame(token, gap_from, sequence_id - 1)
}

/** One connection: a queue, the channel it is bound to, and what it subscribed. */
export class HubClient {
  readonly queue: ClientQueue
  private readonly hub: Hub
  /** Fixed by the first subscription: positions of two streams must not mix on one connection. */
  private channel: Channel | undefined
  private readonly subscriptions = new Map<number, Subscription>()
  /** Where the streams stand that the client left, oldest first: coming back goes on from there. */
  private readonly left = new Map<number, Place>()
  private readonly lookups: Array<() => Promise<void>> = []
  private lookingUp = 0

  constructor(hub: Hub, socket: ClientSocket) {
    this.hub = hub
    this.queue = new ClientQueue(socket, hub.settings.CLIENT_CAPACITY, hub.settings.CLIENT_BUFFER_BYTES)
  }

  /** The key of the channel the client is bound to. */
  get stream(): string | undefined {
    return this.channel?.key
  }

  get tokens(): number {
    return this.subscriptions.size
  }

  has(token: number): boolean {
    return this.subscriptions.has(token)
  }

  /** Binds the client to a channel; false where it is bound to another. */
  join(channel: Channel): boolean {
    if (this.channel !== undefined) return this.channel === channel
    this.channel = channel
    channel.clients.add(this)
    return true
  }

  /** Puts an answer in its place among the ticks. */
  say(text: string): void {
    this.queue.notify(textNotice(text))
  }

  /** What the socket takes now goes out: after an answer, and whenever the peer has read. */
  flush(): void {
    this.hub.flushClient(this.queue)
  }

  /**
   * Subscribes one token, in one step with its backfill. A token that is subscribed already goes on as it was, whatever
   * else is asked, so that nothing is sent twice and nothing left out.
   */
  subscribe(token: number, options: SubscribeOptions): void {
    const channel = this.channel!
    const known = this.subscriptions.get(token)
    if (known !== undefined && known.tick === options.tick && known.gap === options.gap) {
      if (known.state === "fetching") known.owed++
      else this.answer(known, known.place ?? placeOf(known.instrument))
      return
    }
    if (known?.tick && options.tick) {
      this.change(known, options)
      if (known.state === "fetching") known.owed++
      else this.answer(known, known.place ?? placeOf(known.instrument))
      return
    }
    if (known !== undefined) this.unsubscribe(token)

    const instrument = channel.instrument(token)
    const subscription = new Subscription(this, instrument, options)
    this.subscriptions.set(token, subscription)
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    const base = options.since ?? this.left.get(token)
    this.left.delete(token)
    if (!options.tick) {
      this.goLive(subscription)
      this.answer(subscription, base ?? last)
      if (base !== undefined) this.left.set(token, base)
      return
    }
    if (options.since !== undefined) this.resume(subscription, options.since, last)
    else this.begin(subscription, base, last, Math.min(options.backfill, this.hub.settings.RING_TICKS))
  }

  unsubscribe(token: number): void {
    const subscription = this.subscriptions.get(token)
    if (subscription === undefined) return
    this.subscriptions.delete(token)
    const { instrument, state } = subscription
    const place = state === "live" && instrument.isSeen ? placeOf(instrument) : subscription.place
    this.drop(subscription)
    if (!subscription.tick || place === undefined) return
    this.left.set(token, place)
    if (this.left.size > this.hub.settings.MAX_CLIENT_TOKENS) {
      for (const oldest of this.left.keys()) {
        this.left.delete(oldest)
        break
      }
    }
  }

  /** The channel begins a run anew: what the client had of the last one counts no more. */
  restart(): void {
    this.left.clear()
    for (const subscription of this.subscriptions.values()) {
      subscription.place = undefined
      if (subscription.state !== "ahead") continue
      this.drop(subscription)
      this.goLive(subscription)
    }
  }

  /** Ends all subscriptions. */
  leave(): void {
    for (const subscription of this.subscriptions.values()) this.drop(subscription)
    this.subscriptions.clear()
    this.left.clear()
    this.lookups.length = 0
    this.channel?.clients.delete(this)
  }

  private drop(subscription: Subscription): void {
    const { instrument, state } = subscription
    if (state === "live") audienceOf(instrument, subscription).remove(subscription)
    else if (state === "ahead") {
      const ahead = instrument.ahead!.filter((other) => other !== subscription)
      instrument.ahead = ahead.length === 0 ? undefined : ahead
    } else if (state === "fetching") instrument.fetching--
    subscription.state = "over"
  }

  private change(subscription: Subscription, wanted: Wanted): void {
    const { instrument, state } = subscription
    if (state === "live") audienceOf(instrument, subscription).remove(subscription)
    subscription.tick = wanted.tick
    subscription.gap = wanted.gap
    if (state === "live") audienceOf(instrument, wanted).add(subscription)
  }

  private goLive(subscription: Subscription): void {
    const { instrument } = subscription
    subscription.state = "live"
    subscription.place = undefined
    audienceOf(instrument, subscription).add(subscription)
  }

  private goAhead(subscription: Subscription, place: Place, sure: boolean): void {
    const { instrument } = subscription
    subscription.state = "ahead"
    subscription.place = place
    subscription.sure = sure
    instrument.ahead ??= []
    instrument.ahead.push(subscription)
  }

  /** An empty backfill: the stream goes on from where it stands. */
  private answer(subscription: Subscription, place: Place | undefined, recovered = true): void {
    const { instrument } = subscription
    this.queue.notify(
      backfillNotice({
        instrument,
        base: place,
        fetched: [],
        from: undefined,
        target: undefined,
        recovered,
        answer: true
      })
    )
  }

  private notify(subscription: Subscription, backfill: Omit<Backfill, "instrument">): void {
    const { instrument } = subscription
    this.queue.notify(backfillNotice({ instrument, ...backfill }))
    for (; subscription.owed > 0; subscription.owed--) {
      this.answer(subscription, subscription.place ?? backfill.target)
    }
  }

  /** A client without a place, or one that comes back: the newest ticks of the newest epoch. */
  private begin(subscription: Subscription, base: Place | undefined, last: Place | undefined, backfill: number): void {
    const { instrument } = subscription
    subscription.place = base
    if (last === undefined) {
      if (backfill > 0 && this.hasHistory) this.lookUp(subscription, () => this.fetchLast(subscription, base, backfill))
      else {
        if (base === undefined) this.goLive(subscription)
        else this.goAhead(subscription, base, true)
        this.answer(subscription, base)
      }
      return
    }
    // What a client was sent before it left may be from the ring, ahead of what has come in here.
    if (base !== undefined && isAfter(base.epoch, base.position, last)) {
      this.goAhead(subscription, base, true)
      this.answer(subscription, base)
      return
    }
    let from = { epoch: last.epoch, position: Math.max(0, last.position - backfill) }
    if (base !== undefined && isAfter(base.epoch, base.position, from)) from = { ...base }
    if (instrument.reaches(from) || !this.hasHistory) {
      this.goLive(subscription)
      this.notify(subscription, { base, fetched: [], from, target: last, recovered: true, answer: true })
      return
    }
    this.lookUp(subscription, () => this.fetchLast(subscription, base, backfill))
  }

  /** A client that says where it stands. */
  private resume(subscription: Subscription, since: Place, last: Place | undefined): void {
    const { instrument } = subscription
    const { RING_TICKS } = this.hub.settings
    subscription.place = since
    if (last !== undefined) {
      if (since.epoch === last.epoch && since.position > last.position) {
        // Another server was quicker: what the client has already is not sent again. A place far off is no place.
        if (since.position - last.position <= RING_TICKS) {
          this.goAhead(subscription, since, false)
          this.answer(subscription, since)
        } else {
          this.goLive(subscription)
          this.answer(subscription, last, false)
        }
        return
      }
      if (instrument.reaches(since) && since.epoch <= last.epoch) {
        this.goLive(subscription)
        this.notify(subscription, {
          base: since,
          fetched: [],
          from: since,
          target: last,
          recovered: true,
          answer: true
        })
        return
      }
    }
    const days = tradingDay(this.hub.now()) - dayOf(since)
    if (this.hasHistory && days <= MAX_RESUME_DAYS && days >= -1) {
      this.lookUp(subscription, () => this.fetchAfter(subscription, since))
      return
    }
    this.settle(subscription, {
      base: since,
      fetched: [],
      cursor: since,
      sure: false,
      answered: false,
      recovered: false
    })
  }

  /** Joins the live stream after what was fetched, in one step. */
  private settle(subscription: Subscription, found: Found): void {
    const { instrument } = subscription
    const { base, fetched, cursor, sure, answered, recovered } = found
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    const rest = { answer: !answered, ...(found.done === undefined ? {} : { done: found.done }) }
    if (cursor !== undefined && (last === undefined || (sure && isAfter(cursor.epoch, cursor.position, last)))) {
      // Less has come in here than was found: live ticks join where they pass it.
      this.goAhead(subscription, cursor, sure)
      this.notify(subscription, {
        base,
        fetched,
        from: undefined,
        target: undefined,
        recovered: recovered && sure,
        ...rest
      })
      return
    }
    this.goLive(subscription)
    // A place that nobody knows is no base: the client is told so, and goes on from what there is.
    const unknown = cursor !== undefined && last !== undefined && isAfter(cursor.epoch, cursor.position, last)
    this.notify(subscription, {
      base: unknown ? undefined : base,
      fetched,
      from: unknown ? last : (cursor ?? last),
      target: last,
      recovered: recovered && !unknown,
      ...rest
    })
  }

  private get hasHistory(): boolean {
    return this.hub.history !== undefined && this.channel?.key === LIVE
  }

  /** Queues a look outside memory; few at a time, and the next only when the answer before it was taken by the socket. */
  private lookUp(subscription: Subscription, look: () => Promise<void>): void {
    subscription.state = "fetching"
    subscription.instrument.fetching++
    this.lookups.push(look)
    this.nextLookups()
  }

  private nextLookups(): void {
    while (this.lookingUp < CLIENT_LOOKUPS) {
      const look = this.lookups.shift()
      if (look === undefined) return
      this.lookingUp++
      void look().finally(() => {
        this.lookingUp--
        this.nextLookups()
      })
    }
  }

  private isFetching(subscription: Subscription): boolean {
    return subscription.state === "fetching" && !this.queue.closed
  }

  private async fetchLast(subscription: Subscription, base: Place | undefined, limit: number): Promise<void> {
    if (!this.isFetching(subscription)) return
    const { instrument } = subscription
    const ticks = await this.hub.look((history) => history.last(instrument.token, limit), [])
    if (!this.isFetching(subscription)) return
    const newest = ticks[ticks.length - 1]
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    // The newest epoch alone: the answer is one frame.
    const epoch = Math.max(newest?.epoch ?? 0, last?.epoch ?? 0, base?.epoch ?? 0)
    const oldest = last?.epoch === epoch ? Math.max(0, last.position - limit) : 0
    const after = base?.epoch === epoch ? Math.max(base.position, oldest) : oldest
    const fetched = ticks.filter((t) => t.epoch === epoch && t.position > after).map(frameOf)
    const found = fetched[fetched.length - 1]
    const cursor =
      found !== undefined
        ? { epoch, position: found.position }
        : base !== undefined && last !== undefined && isAfter(base.epoch, base.position, last)
          ? base
          : last?.epoch === epoch
            ? { epoch, position: after }
            : base
    await this.settled(subscription, { base, fetched, cursor, sure: true, answered: false, recovered: true })
  }

  private async fetchAfter(subscription: Subscription, since: Place): Promise<void> {
    const { instrument } = subscription
    let base = since
    let answered = false
    while (this.isFetching(subscription)) {
      const place = base
      const page = await this.hub.look((history) => history.after(instrument.token, place, HISTORY_PAGE), NOTHING)
      if (!this.isFetching(subscription)) return
      const fetched: Array<Frame> = []
      let cursor = base
      for (const tick of page.ticks) {
        if (!isAfter(tick.epoch, tick.position, cursor)) continue
        fetched.push(frameOf(tick))
        cursor = { epoch: tick.epoch, position: tick.position }
      }
      const recovered = !page.failed
      if (instrument.reaches(cursor) || !page.more || fetched.length === 0) {
        const sure = answered || fetched.length > 0 || page.current || instrument.reaches(cursor)
        await this.settled(subscription, { base, fetched, cursor, sure, answered, recovered })
        return
      }
      // Who leaves from here on comes back after this page: it is on its way.
      subscription.place = cursor
      // The next page is asked for only when this one has gone to the socket: one page a lookup is all that waits.
      await new Promise<void>((resolve) => {
        this.queue.notify(
          backfillNotice({
            instrument,
            base: place,
            fetched,
            from: undefined,
            target: undefined,
            recovered,
            answer: false,
            done: () => resolve()
          })
        )
        this.flush()
      })
      answered = true
      base = cursor
    }
  }

  /** Settles, and waits until the answer has gone to the socket or the client with it. */
  private settled(subscription: Subscription, found: Found): Promise<void> {
    subscription.instrument.fetching--
    return new Promise((resolve) => {
      this.settle(subscription, { ...found, done: () => resolve() })
      this.flush()
    })
  }
}

const NOTHING: HistoryPage = { ticks: [], more: false, current: false, failed: true }

const dayOf = (place: Place): number => Math.floor(place.epoch / 1_000_000_000)

const placeOf = (instrument: Instrument): Place => ({ epoch: instrument.epoch, position: instrument.position })

const silent: HubObserver = { evicted: () => undefined, delivered: () => undefined, seen: () => undefined }

export interface HubOptions {
  readonly settings: HubSettings
  /** Absent: what is not in memory is not to be had. */
  readonly history?: History
  readonly observer?: HubObserver
  /** Epoch microseconds. */
  readonly now?: () => number
}

/** All channels and all clients of one server. */
export class Hub {
  readonly settings: HubSettings
  readonly history: History | undefined
  readonly observer: HubObserver
  readonly now: () => number
  /** The market itself. */
  readonly live: Channel
  private readonly channels = new Map<string, Channel>()
  private readonly connected = new Set<HubClient>()
  private looking = 0
  private readonly lookers: Array<() => void> = []

  constructor(options: HubOptions) {
    this.settings = options.settings
    this.history = options.history
    this.observer = options.observer ?? silent
    this.now = options.now ?? (() => (performance.timeOrigin + performance.now()) * 1000)
    this.live = new Channel(LIVE, this)
    this.channels.set(LIVE, this.live)
  }

  /** Takes live ticks; see `Channel.publish`. */
  publish(ticks: ReadonlyArray<Tick>, publishedAt?: number): void {
    this.live.publish(ticks, publishedAt)
  }

  channel(key: string): Channel | undefined {
    return this.channels.get(key)
  }

  /** Opens a replay's channel; one that is open begins a run anew. */
  open(key: string): Channel {
    const known = this.channels.get(key)
    if (known !== undefined) {
      if (key !== LIVE) known.restart()
      return known
    }
    const channel = new Channel(key, this)
    this.channels.set(key, channel)
    return channel
  }

  /** Ends a replay's channel and frees its memory; its clients stay connected, with nothing subscribed. */
  close(key: string): void {
    if (key === LIVE) return
    this.channels.get(key)?.close()
    this.channels.delete(key)
  }

  /** How many clients are on a channel. */
  clients(key: string): number {
    return this.channels.get(key)?.clients.size ?? 0
  }

  /** All connections. */
  get size(): number {
    return this.connected.size
  }

  /** What waits in the fullest client's queue, and the most it holds. */
  get fullest(): { readonly size: number; readonly capacity: number } {
    let fullest = { size: 0, capacity: this.settings.CLIENT_CAPACITY }
    for (const { queue } of this.connected) {
      if (queue.size / queue.capacity > fullest.size / fullest.capacity) fullest = queue
    }
    return { size: fullest.size, capacity: fullest.capacity }
  }

  connect(socket: ClientSocket): HubClient {
    const client = new HubClient(this, socket)
    this.connected.add(client)
    return client
  }

  /** The connection is gone. */
  disconnect(client: HubClient): void {
    if (!this.connected.delete(client)) return
    client.leave()
    this.account(client.queue)
    client.queue.close()
  }

  /** Sends what the sockets still take, then ends every connection. */
  shutdown(code: number, reason: string): void {
    for (const client of [...this.connected]) {
      client.flush()
      client.queue.end(code, reason)
    }
  }

  deliver(queues: ReadonlyArray<ClientQueue>, frames: ReadonlyArray<Frame>): void {
    let published = 0
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[i]!
      queue.deliver(frames)
      if (queue.evicted !== 0) this.account(queue)
      if (queue.lastPublished !== 0) {
        published = queue.lastPublished
        queue.lastPublished = 0
      }
    }
    // The last client of a publish waited longest: its time stands for all.
    if (published !== 0) this.observer.delivered((this.now() - published) / 1_000_000)
  }

  flushClient(queue: ClientQueue): void {
    queue.flush()
    if (queue.evicted !== 0) this.account(queue)
    if (queue.lastPublished === 0) return
    this.observer.delivered((this.now() - queue.lastPublished) / 1_000_000)
    queue.lastPublished = 0
  }

  /** Asks the history, a bounded number of questions at a time. */
  async look<A>(ask: (history: History) => Promise<A>, otherwise: A): Promise<A> {
    const { history } = this
    if (history === undefined) return otherwise
    if (this.looking >= LOOKUPS) await new Promise<void>((resolve) => this.lookers.push(resolve))
    else this.looking++
    try {
      return await ask(history)
    } catch {
      return otherwise
    } finally {
      const next = this.lookers.shift()
      if (next === undefined) this.looking--
      else next()
    }
  }

  private account(queue: ClientQueue): void {
    if (queue.evicted === 0) return
    this.observer.evicted(queue.evicted)
    queue.evicted = 0
  }
}

/** The hub of a server, with its figures. */
export class FanOut extends Context.Service<FanOut, Hub>()("market-data-platform/streams/FanOut") {
  static readonly layer = (settings: HubSettings): Layer.Layer<FanOut, never, RecentTicks | TickStore | Instruments> =>
    Layer.effect(
      FanOut,
      Effect.gen(function* () {
        const recent = yield* RecentTicks
        const store = yield* TickStore
        const instruments = yield* Instruments
        const context = yield* Effect.context<never>()
        const evicted = metrics.bind(metrics.evictions, { policy: "evict-oldest" }, context)
        const latency = metrics.bind(metrics.tickLatency, { edge: "published_to_client" }, context)
        const now = () => (performance.timeOrigin + performance.now()) * 1000
        const hub = new Hub({
          settings,
          history: historyOf(recent, store, now),
          observer: {
            evicted: evicted.add,
            delivered: latency.add,
            seen: (token) => instruments.seen([token])
          },
          now
        })
        // Read when somebody looks, so that the tick path does not write them.
        const figure = (gauge: Metric.Metric<number, Metric.GaugeState<number>>, get: () => number) =>
          Effect.acquireRelease(
            Effect.sync(() =>
              Metric.registerUnsafe(gauge, context, {
                get: () => ({ value: get() }),
                update: () => undefined,
                modify: () => undefined
              })
            ),
            (registration) => Effect.sync(registration.remove)
          )
        const client = { buffer: "client" }
        yield* figure(metrics.subscribers, () => hub.size)
        yield* figure(Metric.withAttributes(metrics.bufferSize, client), () => hub.fullest.size)
        yield* figure(Metric.withAttributes(metrics.bufferMaxSize, client), () => hub.fullest.capacity)
        return hub
      })
    )
}
