/**
 * Decides how one connection joins streams and comes back to them: at an exact place, from memory in one step, from
 * elsewhere page by page, with nothing sent twice and nothing left out untold.
 */
import type { Place } from "../../schema/Protocol.ts"
import { isAfter, tradingDay } from "../../schema/Tick.ts"
import { type Backfill, backfillNotice, frameOf } from "./backfill.ts"
import { type Channel, LIVE } from "./Channel.ts"
import { ClientQueue, type ClientSocket, type Frame, textNotice } from "./ClientQueue.ts"
import { HISTORY_PAGE, type HistoryPage, type LastTicks } from "./history.ts"
import type { ClientHost, Member } from "./parts.ts"
import { TICK, type Wanted } from "./sideChannels.ts"
import { audienceOf, placeOf, Subscription } from "./TickRing.ts"

/** Instruments of one client that are looked up outside memory at a time. */
const CLIENT_LOOKUPS = 4
/** Subscriptions that are ended in one step. */
const LEAVE_STEP = 250
/** How often it is looked at whether the stream has come to a client's place. */
const GRACE_STEP_MS = 10
/** `since` of a day older than this is not followed day by day. */
export const MAX_RESUME_DAYS = 7

export interface SubscribeOptions {
  readonly channels: Wanted
  readonly since: Place | undefined
  readonly backfill: number
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

const NO_LAST: LastTicks = { ticks: [], failed: true }
const NOTHING: HistoryPage = { ticks: [], more: false, current: false, failed: true }

const dayOf = (place: Place): number => Math.floor(place.epoch / 1_000_000_000)

/** One connection: a queue, the channel it is bound to, and what it subscribed. */
export class HubClient implements Member {
  readonly queue: ClientQueue
  private readonly hub: ClientHost
  /** Fixed by the first subscription: positions of two streams must not mix on one connection. */
  private channel: Channel | undefined
  private readonly subscriptions = new Map<number, Subscription>()
  /** Where the streams stand that the client left, oldest first: coming back goes on from there. */
  private readonly left = new Map<number, Place>()
  /** Looks outside memory that are yet to be made. */
  private readonly lookups = new Map<Subscription, () => Promise<void>>()
  private lookingUp = 0
  private isGone = false
  /** Until then what another server sent may still be to come here. */
  private readonly graceUntil: number

  constructor(hub: ClientHost, socket: ClientSocket) {
    this.hub = hub
    this.queue = new ClientQueue(socket, hub.settings.CLIENT_CAPACITY, hub.settings.CLIENT_BUFFER_BYTES, hub.held)
    this.graceUntil = performance.now() + hub.graceMs
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

  /** Whether ticks of a token are on their way already: then neither `since` nor `backfill` can be honoured. */
  hasTicks(token: number): boolean {
    return this.subscriptions.get(token)?.hasTicks === true
  }

  /**
   * Subscribes one token, in one step with its backfill. A token that is subscribed already goes on as it was, so that
   * nothing is sent twice and nothing left out: whoever asks for more is to be refused before, by `hasTicks`.
   */
  subscribe(token: number, options: SubscribeOptions): void {
    this.subscribeTicks(token, options)
    const welcome = this.channel!.welcome(this.subscriptions.get(token)!)
    if (welcome !== undefined) this.queue.notify(welcome)
  }

  private subscribeTicks(token: number, options: SubscribeOptions): void {
    const channel = this.channel!
    const known = this.subscriptions.get(token)
    const wantsTicks = (options.channels & TICK) !== 0
    if (known?.wanted === options.channels) {
      if (known.state === "fetching") known.owed++
      else this.answer(known, known.place ?? placeOf(known.instrument))
      return
    }
    if (known?.hasTicks && wantsTicks) {
      this.change(known, options.channels)
      if (known.state === "fetching") known.owed++
      else this.answer(known, known.place ?? placeOf(known.instrument))
      return
    }
    if (known !== undefined) this.unsubscribe(token)

    const instrument = channel.instrument(token)
    const subscription = new Subscription(this.queue, instrument, options.channels)
    this.subscriptions.set(token, subscription)
    this.hub.subscriptions++
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    const left = this.left.get(token)
    if (!wantsTicks) {
      this.goLive(subscription)
      this.answer(subscription, left ?? last)
      return
    }
    const base = options.since ?? left
    this.forgetLeft(token)
    if (options.since !== undefined) this.resume(subscription, options.since, last)
    else this.begin(subscription, base, last, options.backfill)
  }

  unsubscribe(token: number): void {
    const subscription = this.subscriptions.get(token)
    if (subscription === undefined) return
    this.subscriptions.delete(token)
    this.hub.subscriptions--
    const { instrument, state } = subscription
    const place = state === "live" && instrument.isSeen ? placeOf(instrument) : subscription.place
    this.drop(subscription)
    if (!subscription.hasTicks || place === undefined) return
    if (!this.left.has(token)) this.hub.subscriptions++
    this.left.set(token, place)
    if (this.left.size <= this.hub.settings.MAX_CLIENT_TOKENS) return
    for (const oldest of this.left.keys()) {
      this.forgetLeft(oldest)
      break
    }
  }

  private forgetLeft(token: number): void {
    if (this.left.delete(token)) this.hub.subscriptions--
  }

  private forgetAllLeft(): void {
    this.hub.subscriptions -= this.left.size
    this.left.clear()
  }

  /** The channel begins a run anew: what the client had of the last one counts no more. */
  restart(): void {
    this.forgetAllLeft()
    this.queue.forgetLatest()
    for (const subscription of this.subscriptions.values()) {
      subscription.place = undefined
      if (subscription.state !== "ahead") continue
      // Not dropped: nobody else may want the instrument, which the channel would forget then.
      this.unsetAhead(subscription)
      this.goLive(subscription)
    }
  }

  /** Ends all subscriptions. */
  leave(): void {
    while (this.leaveSome());
    this.forgetAllLeft()
    this.channel?.clients.delete(this)
  }

  /** The connection is gone: what it had counts no more, though it is ended step by step. */
  gone(): void {
    this.isGone = true
    this.hub.subscriptions -= this.subscriptions.size
    this.forgetAllLeft()
    this.channel?.clients.delete(this)
  }

  /** Ends some of them, as many as are a step's work; true where there are more. */
  leaveSome(): boolean {
    let left = LEAVE_STEP
    for (const [token, subscription] of this.subscriptions) {
      if (left-- === 0) return true
      this.subscriptions.delete(token)
      if (!this.isGone) this.hub.subscriptions--
      this.drop(subscription)
    }
    return false
  }

  private drop(subscription: Subscription): void {
    const { instrument, state } = subscription
    this.channel!.dismiss(subscription)
    if (state === "live") audienceOf(instrument, subscription.wanted).remove(subscription)
    else if (state === "ahead") this.unsetAhead(subscription)
    else if (state === "fetching") {
      instrument.fetching--
      this.lookups.delete(subscription)
    }
    subscription.state = "over"
    this.channel!.release(instrument)
  }

  private unsetAhead(subscription: Subscription): void {
    const { instrument } = subscription
    instrument.ahead!.delete(subscription)
    if (instrument.ahead!.size === 0) instrument.ahead = undefined
  }

  private change(subscription: Subscription, wanted: Wanted): void {
    const { instrument, state } = subscription
    if (state === "live") audienceOf(instrument, subscription.wanted).remove(subscription)
    subscription.wanted = wanted
    if (state === "live") audienceOf(instrument, wanted).add(subscription)
  }

  private goLive(subscription: Subscription): void {
    const { instrument } = subscription
    subscription.state = "live"
    subscription.place = undefined
    audienceOf(instrument, subscription.wanted).add(subscription)
  }

  private goAhead(subscription: Subscription, place: Place, sure: boolean): void {
    const { instrument } = subscription
    subscription.state = "ahead"
    subscription.place = place
    subscription.sure = sure
    instrument.ahead ??= new Set()
    instrument.ahead.add(subscription)
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

  /**
   * A client without a place, or one that comes back: the newest ticks of the newest epoch. What is asked for and not to
   * be had, also where a limit cut it, is told as missing.
   */
  private begin(subscription: Subscription, left: Place | undefined, last: Place | undefined, backfill: number): void {
    const { instrument } = subscription
    const { RING_TICKS } = this.hub.settings
    subscription.place = left
    const base = left
    if (last === undefined) {
      if (backfill > 0 && this.hasHistory) this.lookUp(subscription, () => this.fetchLast(subscription, left, backfill))
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
    const asked = { epoch: last.epoch, position: Math.max(0, last.position - backfill) }
    let from = { epoch: last.epoch, position: Math.max(0, last.position - Math.min(backfill, RING_TICKS)) }
    if (base !== undefined && isAfter(base.epoch, base.position, from)) from = { ...base }
    if (instrument.reaches(from) || !this.hasHistory) {
      this.goLive(subscription)
      const rest = { fetched: [], from, target: last, recovered: true, answer: true }
      this.notify(subscription, { base: base ?? asked, ...rest })
      return
    }
    this.lookUp(subscription, () => this.fetchLast(subscription, base, backfill))
  }

  /** A client that says where it stands. */
  private resume(subscription: Subscription, since: Place, last: Place | undefined): void {
    const { instrument } = subscription
    subscription.place = since
    // A place ahead of what has come in here is one only where the ring or the store knows it, or the stream comes to it
    // soon: another server may have been quicker. Else the client is told where the stream stands.
    if (last !== undefined && since.epoch <= last.epoch && instrument.reaches(since)) {
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
    this.lookups.set(subscription, look)
    this.nextLookups()
  }

  private nextLookups(): void {
    if (this.queue.closed) {
      this.lookups.clear()
      return
    }
    for (const [subscription, look] of this.lookups) {
      if (this.lookingUp >= CLIENT_LOOKUPS) return
      this.lookups.delete(subscription)
      this.lookingUp++
      look()
        .catch((error) => this.hub.fail(this.queue, error))
        .finally(() => {
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
    const most = Math.min(limit, this.hub.settings.RING_TICKS)
    const { ticks, failed } = await this.hub.look((history) => history.last(instrument.token, most), NO_LAST)
    if (!this.isFetching(subscription)) return
    const newest = ticks[ticks.length - 1]
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    // The newest epoch alone: the answer is one frame.
    const epoch = Math.max(newest?.epoch ?? 0, last?.epoch ?? 0, base?.epoch ?? 0)
    const newestPosition = newest?.epoch === epoch ? newest.position : 0
    const top = Math.max(newestPosition, last?.epoch === epoch ? last.position : 0)
    const oldest = last?.epoch === epoch ? Math.max(0, last.position - most) : 0
    const after = base?.epoch === epoch ? Math.max(base.position, oldest) : oldest
    const fetched = ticks.filter((t) => t.epoch === epoch && t.position > after).map(frameOf)
    const found = fetched[fetched.length - 1]
    // Who has no place yet stands right before what was asked for.
    const asked = base ?? (top === 0 ? undefined : { epoch, position: Math.max(0, top - limit) })
    const cursor =
      found !== undefined
        ? { epoch, position: found.position }
        : base !== undefined && last !== undefined && isAfter(base.epoch, base.position, last)
          ? base
          : last?.epoch === epoch
            ? { epoch, position: after }
            : base
    const rest = { fetched, cursor, sure: true, answered: false }
    await this.settled(subscription, { base: asked, ...rest, recovered: !failed })
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
        let sure = answered || fetched.length > 0 || page.current || instrument.reaches(cursor)
        if (!sure) sure = await this.comes(subscription, cursor)
        if (!this.isFetching(subscription)) return
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

  /** Whether the stream comes to a place that is a little ahead of it, within the client's grace. */
  private async comes(subscription: Subscription, place: Place): Promise<boolean> {
    const { instrument } = subscription
    const isAhead = () => instrument.isSeen && instrument.epoch === place.epoch && instrument.position < place.position
    if (!isAhead() || place.position - instrument.position > this.hub.settings.RING_TICKS) return false
    while (this.isFetching(subscription) && isAhead() && performance.now() < this.graceUntil) {
      await new Promise<void>((resolve) => setTimeout(resolve, GRACE_STEP_MS))
    }
    return instrument.reaches(place)
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
