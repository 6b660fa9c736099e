/**
 * Decides who is sent which tick: an instrument's newest ticks are kept, and every tick is marked once for each client
 * that wants it. The market is one channel, every replay another.
 */
import { backfillFrame, clockFrame, evictedFrame, type Place } from "../../schema/Protocol.ts"
import type { Quote } from "../../schema/Quote.ts"
import { isAfter, type Tick } from "../../schema/Tick.ts"
import { atOnce, type Slices } from "../run/slices.ts"
import { UNKNOWN } from "./backfill.ts"
import { Candles } from "./Candles.ts"
import { type ClientQueue, Frame, MAX_DELIVERY, type Notice, type Published, textNotice } from "./ClientQueue.ts"
import { Listened, Listener, Offers, TURN_FRAMES } from "./Listened.ts"
import type { MinuteBar } from "./MinuteBar.ts"
import type { ChannelHost, Follower, LogPlace, Member, Origin } from "./parts.ts"
import { Quotes } from "./Quotes.ts"
import { Silence } from "./Silence.ts"
import { States } from "./States.ts"
import { CANDLES, framesFor, LATEST, QUOTE, STATE, TICK, type Told, toldBy } from "./sideChannels.ts"
import { audienceOf, InstrumentTicks, type Subscription } from "./TickRing.ts"

/** The stream of the market itself; every other channel is a replay's id. */
export const LIVE = ""

/** Rings are not cut below this, however many instruments there are. */
const MIN_RING = 1
/** Publishes between two looks whether the rings may grow again. */
const GROW_EVERY = 256
/** What a subscription takes that waits to be told a state. */
const WELCOME_BYTES = 192
/** The share of the instruments that goes where there are too many, so that it need not be done for each. */
const FORGET_SHARE = 0.1
/** Instruments looked at in one turn of a sweep: about a millisecond. */
const TURN_INSTRUMENTS = 500
const NO_QUOTES: ReadonlyArray<Quote> = []

/** One stream of ticks with its own memory and clients: the market, or one replay. */
export class Channel {
  readonly key: string
  /** The trading day that a replay is of, since 1970: tokens mean what they meant then. */
  readonly day: number | undefined
  private readonly host: ChannelHost
  /** What the clients were last told of the time, for those who come later. */
  lastClock: string | undefined
  private readonly instruments = new Map<number, InstrumentTicks>()
  readonly clients = new Set<Member>()
  /** Who is told of ticks beside the clients, and for how many that listen in another way. */
  follower: Follower | undefined
  guests = 0
  private ringLimit: number
  /** Frames of the publish under way, and the clients that get any of them. */
  private frames: Array<Frame> = []
  private marked: Array<ClientQueue> = []
  private kept = 0
  /** Instruments that something has come of. */
  private seen = 0
  /** So many seen, and the silent are looked for. */
  private forgetAt: number
  private uses = 0
  private growAt = GROW_EVERY
  /** Instruments whose state somebody listens to. */
  private readonly listened = new Map<InstrumentTicks, Listened>()
  private readonly offers: Offers
  private isHanding = false
  private readonly candles: Candles
  private readonly states: States
  private readonly quotes: Quotes
  /** Of a replay, how far its market has come, and where it began; 0 before it goes. The market itself has the host's clock. */
  private market = 0
  private since = 0
  /** How far each partition of the log was read. */
  private readonly read = new Map<number, LogPlace>()
  /** From where on all of each has come here. */
  private readonly began = new Map<number, LogPlace>()

  constructor(key: string, host: ChannelHost, day?: number) {
    this.key = key
    this.host = host
    this.day = day
    this.ringLimit = host.settings.RING_TICKS
    this.forgetAt = host.settings.HUB_INSTRUMENTS
    this.offers = new Offers(host.handOver)
    const isLive = key === LIVE
    const time = isLive ? host.time : () => this.market
    const { offers } = this
    this.since = isLive ? host.time() : 0
    this.candles = new Candles({
      host,
      offers,
      isLive,
      time,
      instruments: () => this.instruments.values(),
      need: (token) => this.readTo(token)
    })
    this.states = new States({ offers, time, since: () => this.since, segment: (token) => host.segment(token, day) })
    this.quotes = new Quotes({
      host,
      offers,
      isLive,
      began: (token) => this.began.get(host.partitionOf(token)),
      read: (token) => this.readTo(token),
      found: (instrument, quote) => this.keepQuote(instrument, quote)
    })
  }

  /** What is in memory, and the most ticks there may be of an instrument. */
  get memory(): {
    readonly ticks: number
    readonly instruments: number
    readonly seen: number
    readonly ring: number
    /** One-minute bars, and those of five minutes that wait for the store. */
    readonly bars: number
    readonly waiting: number
    readonly quotes: number
  } {
    return {
      ticks: this.kept,
      instruments: this.instruments.size,
      seen: this.seen,
      ring: this.ringLimit,
      bars: this.candles.kept,
      waiting: this.candles.waiting,
      quotes: this.quotes.kept
    }
  }

  /** Where an instrument's stream stands. */
  place(token: number): Place | undefined {
    const instrument = this.instruments.get(token)
    return instrument?.isSeen ? { epoch: instrument.epoch, position: instrument.position } : undefined
  }

  /** How far the log was read that an instrument's stream is in; undefined: nobody knows. */
  readTo(token: number): LogPlace | undefined {
    return this.read.get(this.host.partitionOf(token))
  }

  /** The last price of an instrument whose newest bars are in memory. */
  lastPrice(token: number): number | undefined {
    return this.lastMinute(token)?.close.price
  }

  /** The newest minute of an instrument that has a price. */
  lastMinute(token: number): MinuteBar | undefined {
    return this.instruments.get(token)?.bars.newest
  }

  /** What is known of an instrument's book and day, where it is in memory. */
  quote(token: number): Quote | undefined {
    return this.instruments.get(token)?.quote
  }

  /** Whether what memory holds of an instrument's book and day, if only that there is nothing, is the newest for sure. */
  hasNewestQuote(token: number): boolean {
    return this.instruments.get(token)?.isQuoteNewest === true
  }

  /**
   * Takes ticks in their order; the place in it is what every client sees. `publishedAt` is when the log had the newest
   * of them (µs). Ticks of old days count in their bars only, ticks at or below what was taken are passed over. Quotes of
   * the same stretch go behind the ticks; of a replay all are in the order of time, and a bar's are before those of the next.
   */
  publish(
    ticks: ReadonlyArray<Tick>,
    publishedAt = 0,
    origin?: Origin,
    quotes: ReadonlyArray<Quote> = NO_QUOTES
  ): void {
    const published: Published = { at: publishedAt }
    if (++this.uses >= this.growAt) this.growRings()
    if (origin !== undefined) this.read.set(origin.bookmark.partition, origin.bookmark)
    // By when it came here: a feed's own clock may be wrong. What lay in the log before was heard when it came there.
    const heardAt =
      this.key !== LIVE ? 0 : origin?.isBehind === true && publishedAt > 0 ? publishedAt : this.host.time()
    const isInTime = this.key !== LIVE && quotes.length > 0
    let taken = 0
    for (let from = 0; from < ticks.length; from += MAX_DELIVERY) {
      const to = Math.min(ticks.length, from + MAX_DELIVERY)
      for (let i = from; i < to; i++) {
        const tick = ticks[i]!
        if (isInTime) {
          while (taken < quotes.length && quotes[taken]!.exchange_ts < tick.exchange_ts)
            this.takeQuote(quotes[taken++]!)
        }
        if (!tick.old) this.take(tick, published, heardAt)
        else this.takeOld(tick)
      }
      this.deliver()
    }
    for (; taken < quotes.length; taken++) this.takeQuote(quotes[taken]!)
    this.candles.settle()
    this.quotes.settle()
    this.offers.hand()
    this.follower?.published(ticks, quotes)
  }

  /**
   * Reading of a partition begins at a place, with what was published from `since` on (µs); again where something was
   * lost on the way.
   */
  begin(place: LogPlace, since: number): void {
    const isAgain = this.read.has(place.partition)
    this.since = this.read.size === 0 ? since : Math.max(this.since, since)
    this.read.set(place.partition, place)
    this.began.set(place.partition, place)
    this.candles.begin(since, isAgain)
    if (!isAgain) return
    this.quotes.doubt(this.instruments.values())
    this.follower?.missed()
  }

  /** Tells every client of this channel the time of its market; for a slow client it waits like a tick, and is evicted like one. */
  clock(run: number, ts: number | null, state: string): void {
    this.lastClock = clockFrame(this.key, run, ts, state)
    if (ts !== null) this.goOn(ts)
    // What is over by now goes before the time itself.
    atOnce(this.sweep())
    const index = this.add(new Frame(0, 0, 0, 0, undefined, UNKNOWN, undefined, this.lastClock))
    for (const { queue } of this.clients) if (queue.mark(index)) this.marked.push(queue)
    this.deliver()
  }

  /** All of this run has come: the bars under way are final. */
  end(): void {
    this.candles.isOver = true
    for (const [instrument, listened] of this.listened) this.candles.finish(instrument, listened)
    this.offers.hand()
  }

  /** Tells bars whose time is over, and states that change with time, in turns. */
  *sweep(): Slices<void> {
    let frames = 0
    let seen = 0
    for (const [instrument, listened] of this.listened) {
      frames += this.candles.finish(instrument, listened) + this.states.look(instrument, listened)
      if (frames < TURN_FRAMES && ++seen % TURN_INSTRUMENTS !== 0) continue
      frames = 0
      this.offers.hand()
      yield
    }
    this.offers.hand()
  }

  /**
   * What answers a subscription that wants state: from its turn on the client is told, beginning with what there is.
   * Undefined where it wants none.
   */
  welcome(subscription: Subscription): Notice | undefined {
    const wanted = subscription.wanted & LATEST
    const { instrument, queue } = subscription
    if (wanted === 0) {
      this.dismiss(subscription)
      queue.leaveLatest(instrument.token)
      return undefined
    }
    const listener = subscription.listener ?? new Listener(queue)
    subscription.listener = listener
    const next = (): undefined => {
      if (listener.isOver) return
      let { listened } = instrument
      if (listened === undefined) {
        listened = new Listened()
        instrument.listened = listened
        this.listened.set(instrument, listened)
      }
      listened.join(listener, wanted)
      if ((wanted & CANDLES) !== 0) this.candles.welcome(instrument, listened, queue, wanted)
      if ((wanted & STATE) !== 0) this.states.welcome(instrument, listened, queue)
      if ((wanted & QUOTE) !== 0) this.quotes.welcome(instrument, listened, queue)
      else queue.dropYielding(instrument.token)
      // Others may hear of it too, as of a state that has just changed.
      if (this.isHanding) return
      this.isHanding = true
      setImmediate(this.handOffers)
    }
    return { token: 0, weight: WELCOME_BYTES, next }
  }

  /** The subscription is told no state any more. */
  dismiss(subscription: Subscription): void {
    const { instrument, listener } = subscription
    if (listener === undefined) return
    subscription.listener = undefined
    const { listened } = instrument
    if (listened === undefined) {
      listener.isOver = true
      return
    }
    listened.leave(listener)
    if (!listened.isEmpty) return
    instrument.listened = undefined
    this.listened.delete(instrument)
  }

  private readonly handOffers = (): void => {
    this.isHanding = false
    this.offers.hand()
  }

  /** Begins a run anew: places and ticks are forgotten, subscriptions stay. */
  restart(): void {
    for (const instrument of this.instruments.values()) {
      instrument.forget()
      this.release(instrument)
    }
    this.candles.restart()
    this.quotes.restart()
    this.market = 0
    this.since = 0
    this.kept = 0
    this.seen = 0
    this.forgetAt = this.host.settings.HUB_INSTRUMENTS
    this.ringLimit = this.host.settings.RING_TICKS
    for (const client of this.clients) client.restart()
    this.follower?.restart()
  }

  /** Ends every subscription; the clients stay connected. */
  close(): void {
    this.candles.close()
    this.quotes.close()
    this.follower?.close()
    for (const client of [...this.clients]) client.leave()
    this.instruments.clear()
    this.kept = 0
    this.seen = 0
  }

  /** The instrument, from now on remembered. */
  instrument(token: number): InstrumentTicks {
    const known = this.instruments.get(token)
    if (known !== undefined) return known
    const instrument = new InstrumentTicks(token, this.candles.bars(), new Silence())
    this.instruments.set(token, instrument)
    return instrument
  }

  /** Nobody may want the instrument any more: one that nothing has come of is nothing then. */
  release(instrument: InstrumentTicks): void {
    if (instrument.isMet || instrument.isWanted) return
    this.candles.kept -= instrument.bars.count
    if (this.instruments.get(instrument.token) === instrument) this.instruments.delete(instrument.token)
  }

  /** Of a replay: its market has come to a time. */
  private goOn(ts: number): void {
    if (this.since === 0) this.since = ts
    if (ts > this.market) this.market = ts
  }

  private takeOld(tick: Tick): void {
    const instrument = this.instruments.get(tick.instrument_token)
    if (instrument !== undefined) this.candles.take(instrument, tick)
  }

  private takeQuote(quote: Quote): void {
    const { exchange_ts, instrument_token: token, old } = quote
    const instrument = old ? this.instruments.get(token) : (this.instruments.get(token) ?? this.instrument(token))
    if (instrument === undefined) return
    if (!old) {
      instrument.isQuoteNewest = true
      this.keepQuote(instrument, quote)
      if (this.key !== LIVE) this.goOn(exchange_ts)
    }
    this.candles.hear(instrument, quote)
  }

  private keepQuote(instrument: InstrumentTicks, quote: Quote): void {
    if (!instrument.isMet) this.meet(instrument)
    instrument.lastUse = this.uses
    this.quotes.take(instrument, quote)
    if (this.quotes.kept > this.host.settings.HUB_QUOTES) this.forgetQuotes()
  }

  /** The first that comes of an instrument. */
  private meet({ token }: InstrumentTicks): void {
    if (this.key === LIVE) this.host.seen(token)
    if (++this.seen > this.forgetAt) this.forgetSilent()
  }

  private take(tick: Tick, published: Published, heardAt: number): void {
    const { instrument_token: token, epoch, position } = tick
    const instrument = this.instruments.get(token) ?? this.instrument(token)
    let first = position
    if (instrument.position === 0) {
      if (!instrument.isMet) this.meet(instrument)
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
    if (heardAt === 0) this.goOn(tick.exchange_ts)
    if (first < position) this.candles.lost(instrument)
    this.candles.take(instrument, tick)
    this.states.hear(instrument, heardAt === 0 ? this.market : heardAt)

    const told = toldBy(tick)
    const hole = first < position ? evictedFrame(token, epoch, first, position - 1) : undefined
    const before = hole === undefined ? undefined : [hole]
    const plain = new Frame(token, epoch, position, first, before, published, tick, "")
    this.keep(instrument, plain)

    for (const { wanted, queues } of instrument.audiences) {
      const beside = framesFor(told, wanted)
      if ((wanted & TICK) === 0) this.tell(instrument, beside, published, queues)
      else if (beside.length === 0) this.send(plain, queues)
      else if (queues.length > 0) {
        const all = before === undefined ? beside : [...before, ...beside]
        this.send(new Frame(token, epoch, position, first, all, published, tick, ""), queues)
      }
    }
    if (instrument.ahead !== undefined) this.catchUp(instrument, tick, told, published)
  }

  /** Sends what a tick made the channels tell to who does not want the tick itself. */
  private tell(
    { token, epoch, position }: InstrumentTicks,
    frames: ReadonlyArray<string>,
    published: Published,
    queues: ReadonlyArray<ClientQueue>
  ): void {
    for (const frame of frames) {
      this.send(new Frame(token, epoch, position, position, undefined, published, undefined, frame), queues)
    }
  }

  /** Lets in those who had more than this stream when they came, once it has passed where they stand. */
  private catchUp(instrument: InstrumentTicks, tick: Tick, told: Told | undefined, published: Published): void {
    const { token, epoch, position } = instrument
    const waiting = instrument.ahead!
    for (const subscription of waiting) {
      const { place, sure } = subscription
      const isBehind = place !== undefined && !isAfter(epoch, position, place)
      if (isBehind && sure) continue
      waiting.delete(subscription)
      subscription.state = "live"
      subscription.place = undefined
      audienceOf(instrument, subscription.wanted).add(subscription)
      const beside = framesFor(told, subscription.wanted)
      if (subscription.hasTicks) {
        const first = place === undefined || isBehind ? position : epoch === place.epoch ? place.position + 1 : 1
        const before: Array<string> = []
        // A place that nobody knew, and that the stream does not pass: where it stands instead is told first, whatever
        // becomes of the tick.
        if (isBehind) {
          const text = backfillFrame(token, epoch, position, position - 1, false, [])
          subscription.queue.notify(textNotice(text, token))
        }
        if (first < position) before.push(evictedFrame(token, epoch, first, position - 1))
        before.push(...beside)
        this.send(new Frame(token, epoch, position, first, before, published, tick, ""), [subscription.queue])
      } else this.tell(instrument, beside, published, [subscription.queue])
    }
    if (waiting.size === 0) instrument.ahead = undefined
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
    this.host.deliver(marked, frames)
  }

  private keep(instrument: InstrumentTicks, frame: Frame): void {
    this.kept += instrument.keep(frame, this.ringLimit)
    if (this.kept <= this.host.settings.HUB_TICKS || this.ringLimit <= MIN_RING) return
    // Every ring alike gives up its older half: the newest ticks of each instrument are worth most.
    this.ringLimit = Math.max(MIN_RING, this.ringLimit >>> 1)
    for (const other of this.instruments.values()) this.kept -= other.cut(this.ringLimit)
  }

  /**
   * Rings that gave way to those of many instruments grow again when there is room for the full ones at twice their
   * length. Looked at now and then: it goes through all instruments.
   */
  private growRings(): void {
    this.growAt = this.uses + GROW_EVERY
    this.candles.grow()
    const { RING_TICKS, HUB_TICKS } = this.host.settings
    if (this.ringLimit >= RING_TICKS) return
    let room = HUB_TICKS - this.kept
    for (const { count } of this.instruments.values()) {
      if (count >= this.ringLimit) room -= this.ringLimit
      if (room < 0) return
    }
    this.ringLimit = Math.min(RING_TICKS, this.ringLimit * 2)
  }

  /**
   * Forgets those that have been silent longest, a share of all at a time. What a client wants is kept, without its
   * ticks: how many those are is bounded by the subscriptions.
   */
  private forgetSilent(): void {
    const { HUB_INSTRUMENTS } = this.host.settings
    let left = Math.max(1, Math.ceil(HUB_INSTRUMENTS * FORGET_SHARE))
    for (const instrument of this.silent(left, ({ isMet }) => isMet)) {
      this.kept -= instrument.cut(0)
      if (instrument.isWanted) continue
      this.quotes.forget(instrument)
      this.remove(instrument)
      if (--left <= 0) break
    }
    // Where most of them are wanted they are not looked through again for each that comes.
    this.forgetAt = this.seen <= HUB_INSTRUMENTS ? HUB_INSTRUMENTS : Math.ceil(this.seen * (1 + FORGET_SHARE))
  }

  /** Forgets the quotes of those that have been silent longest, a share of all at a time. */
  private forgetQuotes(): void {
    let left = Math.max(1, Math.ceil(this.host.settings.HUB_QUOTES * FORGET_SHARE))
    for (const instrument of this.silent(left, ({ quote }) => quote !== undefined)) {
      this.quotes.forget(instrument)
      if (!instrument.isMet) {
        if (instrument.isWanted) this.seen--
        else this.remove(instrument)
      }
      if (--left <= 0) break
    }
  }

  /** Those of which it is true that have been silent for as long as the `count` that have been so longest. */
  private *silent(count: number, is: (instrument: InstrumentTicks) => boolean): Generator<InstrumentTicks> {
    const uses = new Float64Array(this.instruments.size)
    let n = 0
    for (const instrument of this.instruments.values()) if (is(instrument)) uses[n++] = instrument.lastUse
    const oldest = uses.subarray(0, n).sort()[Math.min(n, count) - 1]!
    for (const instrument of this.instruments.values()) {
      if (is(instrument) && instrument.lastUse <= oldest) yield instrument
    }
  }

  /** Forgets one that something had come of. */
  private remove(instrument: InstrumentTicks): void {
    this.candles.release(instrument)
    this.instruments.delete(instrument.token)
    this.seen--
  }
}
