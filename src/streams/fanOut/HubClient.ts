/**
 * Decides how one connection joins streams and comes back to them: at an exact place, from memory in one step, from
 * elsewhere page by page, with nothing sent twice and nothing left out untold.
 */
import type { Place, Policy } from "../../schema/Protocol.ts"
import { isAfter, tradingDay } from "../../schema/Tick.ts"
import { type Backfill, backfillNotice, frameOf } from "./backfill.ts"
import { type Channel, LIVE } from "./Channel.ts"
import { ClientQueue, type ClientSocket, type Frame, type QueueOwner, textNotice } from "./ClientQueue.ts"
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

/** How a client wants to be served; what is not named stays as it is. */
export interface Wishes {
  readonly policy?: Policy | undefined
  /** Ticks that wait for it at most. */
  readonly capacity?: number | undefined
  readonly batch?: boolean | undefined
}

/** What becomes of a subscription that is asked for. */
export interface Verdict {
  /** Why it cannot be. */
  readonly reason?: string
  /** Where the stream stands, where that is not what the client says. */
  readonly at?: Place
}

/** Where a stream stands that the client left. */
interface Left extends Place {
  /** The client was sent ticks up to there, rather than said so itself. */
  readonly sure: boolean
}

/** What a look outside memory came to. */
interface Found {
  /** Where the client's stream stands before it. */
  readonly base: Place | undefined
  /** Where it left the stream on this connection; `base` then is this. */
  readonly sent?: Left | undefined
  readonly fetched: ReadonlyArray<Frame>
  /** Where it stands after it; undefined where it has no place. */
  readonly cursor: Place | undefined
  /** `cursor` is the place of a real tick, not the client's word alone. */
  readonly sure: boolean
  /** Frames were sent already, so none is owed. */
  readonly answered: boolean
  readonly recovered: boolean
  /** The ticks of memory that follow are held until they are sent. */
  readonly hold?: boolean
  readonly done?: (sent: boolean) => void
}

const AS_ASKED: Verdict = {}
const placeAt = ({ epoch, position }: Place): Place => ({ epoch, position })
/** Instruments that one connection subscribes to or has left, in times of those that it may subscribe to. */
const REMEMBERED = 2

const NO_LAST: LastTicks = { ticks: [], failed: true }
const NOTHING: HistoryPage = { ticks: [], more: false, current: false, failed: true }

const dayOf = (place: Place): number => Math.floor(place.epoch / 1_000_000_000)

/** One connection: a queue, the channel it is bound to, and what it subscribed. */
export class HubClient implements Member, QueueOwner {
  readonly queue: ClientQueue
  private readonly hub: ClientHost
  /** Fixed by the first subscription: positions of two streams must not mix on one connection. */
  private channel: Channel | undefined
  private readonly subscriptions = new Map<number, Subscription>()
  /** Where the streams stand that the client left, oldest first: coming back goes on from there. */
  private readonly left = new Map<number, Left>()
  /** Looks outside memory that are yet to be made. */
  private readonly lookups = new Map<Subscription, () => Promise<void>>()
  private lookingUp = 0
  private isGone = false
  /** The capacity that the client named. */
  private capacity: number | undefined
  private pause: NodeJS.Timeout | undefined
  /** Until then what another server sent may still be to come here. */
  private readonly graceUntil: number

  constructor(hub: ClientHost, socket: ClientSocket) {
    this.hub = hub
    this.queue = new ClientQueue(socket, hub.settings.CLIENT_CAPACITY, hub.settings.CLIENT_BUFFER_BYTES, hub.held)
    this.queue.owner = this
    this.graceUntil = performance.now() + hub.graceMs
  }

  /** The key of the channel the client is bound to. */
  get stream(): string | undefined {
    return this.channel?.key
  }

  get tokens(): number {
    return this.subscriptions.size
  }

  /** The instruments it subscribes to. */
  get held(): Iterable<number> {
    return this.subscriptions.keys()
  }

  has(token: number): boolean {
    return this.subscriptions.has(token)
  }

  /** From here on the client is served so. */
  configure({ policy, capacity, batch }: Wishes): void {
    const { queue } = this
    const { CLIENT_CAPACITY, MAX_CLIENT_TOKENS } = this.hub.settings
    if (batch !== undefined) queue.batch = batch
    if (policy !== undefined) queue.change(policy)
    if (policy === "pause" && queue.missedSince !== undefined) this.watchPause()
    this.capacity = capacity ?? this.capacity
    // One tick an instrument waits: none is given up for another's sake unless the client says so.
    const all = queue.policy === "conflate" ? Math.max(CLIENT_CAPACITY, MAX_CLIENT_TOKENS) : CLIENT_CAPACITY
    const most = this.capacity ?? all
    if (most !== queue.capacity) queue.resize(most)
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
   * What would become of a subscription: what was sent already cannot be sent again, as positions would go back, and is
   * refused with where the stream stands. Whoever asks for more than `subscribe` can do is to be refused before, by this.
   */
  verdict(token: number, { channels, since, backfill }: SubscribeOptions): Verdict {
    const known = this.subscriptions.get(token)
    if (known === undefined && this.isFull && !this.left.has(token)) return { reason: "too_many_left" }
    if ((channels & TICK) === 0) return AS_ASKED
    const hasTicks = known?.hasTicks === true
    const at = hasTicks ? this.standing(known) : this.leftAt(token)
    if (at !== undefined) {
      const isOld = since === undefined ? hasTicks && backfill > 0 : isAfter(at.epoch, at.position, since)
      if (isOld) return { reason: hasTicks ? "already_subscribed" : "already_sent", at: placeAt(at) }
    }
    if (since === undefined) return AS_ASKED
    const stands = hasTicks ? at : this.channel?.place(token)
    return stands !== undefined && isAfter(since.epoch, since.position, stands) ? { at: stands } : AS_ASKED
  }

  /** It subscribes to or has left as many instruments as one connection may. */
  private get isFull(): boolean {
    return this.subscriptions.size + this.left.size >= REMEMBERED * this.hub.settings.MAX_CLIENT_TOKENS
  }

  /**
   * Subscribes one token, in one step with its backfill. One whose ticks are on their way goes on as it was, so that
   * nothing is sent twice and nothing left out, and is answered with where its stream stands.
   */
  subscribe(token: number, options: SubscribeOptions): void {
    this.subscribeTicks(token, options)
    const welcome = this.channel!.welcome(this.subscriptions.get(token)!)
    if (welcome !== undefined) this.queue.notify(welcome)
  }

  private subscribeTicks(token: number, options: SubscribeOptions): void {
    const channel = this.channel!
    const { channels, since, backfill } = options
    const wantsTicks = (channels & TICK) !== 0
    const known = this.subscriptions.get(token)
    let owed = 0
    if (known !== undefined) {
      // Of an instrument that has no place yet whatever is asked for can be had: it begins anew.
      const isBegun = this.standing(known) !== undefined || (since === undefined && backfill === 0)
      if (wantsTicks ? known.hasTicks && isBegun : known.wanted === channels) {
        if (known.wanted !== channels) this.change(known, channels)
        this.answerAgain(known, since)
        return
      }
      if (known.state === "fetching") owed = known.owed + 1
      this.end(token)
    }

    const instrument = channel.instrument(token)
    const subscription = new Subscription(this.queue, instrument, channels)
    subscription.owed = owed
    this.subscriptions.set(token, subscription)
    this.hub.subscriptions++
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    if (!wantsTicks) {
      // Without ticks there is no place but the one where they were left.
      this.goLive(subscription)
      this.answer(subscription, this.leftAt(token))
    } else {
      const left = this.leftAt(token)
      this.queue.forgetMissed(token)
      this.forgetLeft(token)
      if (since !== undefined) this.resume(subscription, since, last, left)
      else if (left === undefined || left.sure) this.begin(subscription, left, last, backfill)
      else this.resume(subscription, left, last, undefined)
    }
    if (subscription.state !== "fetching") this.answerOwed(subscription)
  }

  /** False where it was not subscribed. */
  unsubscribe(token: number): boolean {
    const isSubscribed = this.end(token)
    if (isSubscribed) this.queue.leaveLatest(token)
    return isSubscribed
  }

  private end(token: number): boolean {
    const subscription = this.subscriptions.get(token)
    if (subscription === undefined) return false
    const place = subscription.hasTicks ? this.standing(subscription) : this.leftAt(token)
    const sure = subscription.state === "live" || subscription.sure
    this.subscriptions.delete(token)
    this.hub.subscriptions--
    this.queue.forgetMissed(token)
    this.queue.forgetBeside(token)
    this.drop(subscription)
    if (place === undefined) return true
    if (!this.left.has(token)) this.hub.subscriptions++
    this.left.set(token, { ...placeAt(place), sure })
    return true
  }

  /** Where an instrument's stream stands: what is sent or waits to be is up to there. */
  private standing({ instrument, state, place }: Subscription): Place | undefined {
    const missed = this.queue.missedAt(instrument.token)
    if (missed !== undefined) return missed
    if (state !== "live") return place
    return instrument.isSeen ? placeOf(instrument) : undefined
  }

  /**
   * Where the client left the ticks of an instrument: before what was left out of its queue since, and behind what it may
   * have been told of the instrument without having its ticks.
   */
  private leftAt(token: number): Left | undefined {
    const left = this.left.get(token)
    const missed = this.queue.missedAt(token)
    if (missed !== undefined && (left !== undefined || this.subscriptions.has(token))) return { ...missed, sure: true }
    const beside = this.queue.besideAt(token)
    if (beside === undefined || (left !== undefined && !isAfter(beside.epoch, beside.position, left))) return left
    return { ...beside, sure: true }
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
    this.queue.keepApart()
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
    clearTimeout(this.pause)
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

  /** Answers a subscription to what is on its way: it goes on from where it stands, also where the client says more. */
  private answerAgain(subscription: Subscription, since: Place | undefined): void {
    if (subscription.state === "fetching") {
      subscription.owed++
      return
    }
    const at = this.standing(subscription)
    const isAhead = since !== undefined && at !== undefined && isAfter(since.epoch, since.position, at)
    this.answer(subscription, at, !isAhead)
  }

  /** Answers the subscriptions that came while it was looked up. */
  private answerOwed(subscription: Subscription): void {
    for (; subscription.owed > 0; subscription.owed--) this.answer(subscription, this.standing(subscription))
  }

  private notify(subscription: Subscription, backfill: Omit<Backfill, "instrument">): void {
    const { instrument } = subscription
    const lost = this.queue.policy === "pause" ? { lost: this.hub.lost } : {}
    this.queue.notify(backfillNotice({ instrument, ...lost, ...backfill }))
  }

  /** Takes up an instrument that was left out while the client did not read; false where none can be now. */
  takeUp(): boolean {
    const { queue } = this
    // Few at a time, and each at the front of the queue: what memory has is sent before it moves on.
    while (this.lookups.size === 0 && this.lookingUp < CLIENT_LOOKUPS) {
      const missed = queue.takeMissed()
      if (missed === undefined) return false
      const { token, place } = missed
      const subscription = this.subscriptions.get(token)
      if (subscription?.state !== "live" || !subscription.hasTicks) {
        const target = subscription === undefined ? this.left.get(token) : this.standing(subscription)
        if (subscription !== undefined && target !== undefined) queue.standBeside(token, target)
        const instrument = this.channel!.instrument(token)
        const nothing = { fetched: [], from: undefined, recovered: false, answer: false }
        queue.notify(backfillNotice({ instrument, base: place, target, lost: this.hub.lost, ...nothing }))
        this.channel!.release(instrument)
        return true
      }
      const { instrument } = subscription
      audienceOf(instrument, subscription.wanted).remove(subscription)
      this.goOn(subscription, place, placeOf(instrument), undefined)
      if (subscription.state === "live") return true
    }
    return false
  }

  /** The client does not read: its streams wait, and it with them, so long. */
  paused(): void {
    this.hub.paused()
    this.watchPause()
  }

  /** Ends the client once it is behind for longer than it may be. */
  private watchPause(): void {
    if (this.pause !== undefined || this.isGone) return
    const { CLIENT_PAUSE_MS } = this.hub.settings
    const look = (): void => {
      this.pause = undefined
      const since = this.queue.missedSince
      // What it left out under a policy before is read when it reads on, as late as it likes.
      if (since === undefined || this.queue.closed || this.queue.policy !== "pause") return
      const left = since + CLIENT_PAUSE_MS - performance.now()
      if (left > 0) {
        this.pause = setTimeout(look, left).unref()
        return
      }
      this.queue.giveUp(`paused for longer than ${CLIENT_PAUSE_MS} ms`)
      this.hub.flushClient(this.queue)
    }
    this.pause = setTimeout(look, CLIENT_PAUSE_MS).unref()
  }

  /** Where each stream stands for the peer, whatever still waits for it. */
  *places(): Generator<readonly [token: number, place: Place]> {
    const waiting = this.queue.places()
    for (const [token, subscription] of this.subscriptions) {
      if (!subscription.hasTicks) continue
      const place = waiting.has(token) ? waiting.get(token) : this.standing(subscription)
      if (place !== undefined) yield [token, place]
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
    subscription.sure = left !== undefined
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
      if (this.queue.policy === "pause" && isAfter(last.epoch, last.position, from)) {
        this.readLater(subscription, base ?? asked, from)
        return
      }
      this.goLive(subscription)
      const rest = { fetched: [], from, target: last, recovered: true, answer: true }
      this.notify(subscription, { base: base ?? asked, ...rest })
      return
    }
    this.lookUp(subscription, () => this.fetchLast(subscription, base, backfill))
  }

  /** A client that says where it stands; `sent` is where it left the stream on this connection. */
  private resume(subscription: Subscription, since: Place, last: Place | undefined, sent: Left | undefined): void {
    const { instrument } = subscription
    if (this.queue.policy !== "pause" || last === undefined || !instrument.reaches(since)) {
      this.goOn(subscription, since, last, sent)
      return
    }
    this.readLater(subscription, sent ?? since, since)
  }

  /**
   * A client that is to lose nothing may read much later than it asks: it is as if it had been left out since `from`. What
   * it does not get between where it stands and there is told at once.
   */
  private readLater(subscription: Subscription, base: Place, from: Place): void {
    this.goLive(subscription)
    const nothing = { fetched: [], from: undefined, recovered: false, answer: false }
    this.notify(subscription, { base, target: from, ...nothing })
    this.queue.leaveOut(subscription.instrument.token, from)
    this.watchPause()
  }

  /** Goes on from a place: from memory where it reaches back, else from outside. */
  private goOn(subscription: Subscription, since: Place, last: Place | undefined, sent: Left | undefined): void {
    const { instrument } = subscription
    const base = sent ?? since
    // Until something is told it stands where it was left: who leaves again comes back there.
    subscription.place = base
    subscription.sure = sent?.sure === true
    // A place ahead of what has come in here is one only where the ring or the store knows it, or the stream comes to it
    // soon: another server may have been quicker. Else the client is told where the stream stands.
    if (last !== undefined && since.epoch <= last.epoch && instrument.reaches(since)) {
      this.goLive(subscription)
      const hold = this.queue.policy === "pause"
      this.notify(subscription, { base, fetched: [], from: since, target: last, recovered: true, answer: true, hold })
      return
    }
    const days = tradingDay(this.hub.now()) - dayOf(since)
    if (this.hasHistory && days <= MAX_RESUME_DAYS && days >= -1) {
      this.lookUp(subscription, () => this.fetchAfter(subscription, since, sent))
      return
    }
    this.settle(subscription, {
      base,
      sent,
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
    const { base, sent, fetched, cursor, sure, answered, recovered, hold } = found
    const last = instrument.isSeen ? placeOf(instrument) : undefined
    const rest = { answer: !answered, ...(found.done === undefined ? {} : { done: found.done }) }
    if (cursor !== undefined && (last === undefined || (sure && isAfter(cursor.epoch, cursor.position, last)))) {
      // Less has come in here than was found: live ticks join where they pass it. A place that nobody knows gives way to
      // the one that the client left.
      const place = sure ? cursor : (sent ?? cursor)
      this.goAhead(subscription, place, sure || sent?.sure === true)
      const target = sure ? cursor : undefined
      this.notify(subscription, { base, fetched, from: undefined, target, recovered: recovered && sure, ...rest })
      return
    }
    this.goLive(subscription)
    const isUnknown = cursor !== undefined && last !== undefined && isAfter(cursor.epoch, cursor.position, last)
    if (isUnknown) {
      // A place that nobody knows is no base: the client is told so, and goes on from what there is.
      const left = sent !== undefined && !isAfter(sent.epoch, sent.position, last) ? sent : undefined
      this.notify(subscription, { base: left, fetched, from: last, target: last, recovered: false, ...rest })
      return
    }
    const from = cursor ?? last
    this.notify(subscription, { base, fetched, from, target: last, recovered, hold: hold === true, ...rest })
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
          // What was left out goes on where nothing more is looked up.
          if (this.queue.missedSince !== undefined && !this.queue.closed) this.flush()
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

  private async fetchAfter(subscription: Subscription, since: Place, sent: Left | undefined): Promise<void> {
    const { instrument } = subscription
    let base: Place = sent ?? since
    let cursor = since
    let answered = false
    while (this.isFetching(subscription)) {
      const place = cursor
      const page = await this.hub.look((history) => history.after(instrument.token, place, HISTORY_PAGE), NOTHING)
      if (!this.isFetching(subscription)) return
      const fetched: Array<Frame> = []
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
        const hold = this.queue.policy === "pause"
        await this.settled(subscription, { base, sent, fetched, cursor, sure, answered, recovered, hold })
        return
      }
      // Who leaves from here on comes back after this page: it is on its way.
      subscription.place = cursor
      subscription.sure = true
      const before = base
      // The next page is asked for only when this one has gone to the socket: one page a lookup is all that waits.
      await new Promise<void>((resolve) => {
        this.notify(subscription, {
          base: before,
          fetched,
          from: undefined,
          target: undefined,
          recovered,
          answer: false,
          done: () => resolve()
        })
        this.flush()
      })
      answered = true
      base = cursor
      sent = undefined
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
      this.answerOwed(subscription)
      this.flush()
    })
  }
}
