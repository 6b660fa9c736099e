/**
 * Decides which bars of a channel are told, and when: a bar under way as it changes, a closed one when a late tick
 * changes it, each once more when its time is over. Of every bar the newest revision counts.
 */
import { isFinal, withOi } from "../../schema/Candle.ts"
import { candleFrame, type LiveInterval, type Place } from "../../schema/Protocol.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { Tick } from "../../schema/Tick.ts"
import type { BarSum, MinuteOi, MinuteSum } from "../ports/TickStore.ts"
import type { ClientQueue } from "./ClientQueue.ts"
import { fiveOf, InstrumentBars, MICROS_PER_MINUTE, MINUTES_KEPT, MINUTES_OF_FIVE, minuteOf } from "./InstrumentBars.ts"
import { type Listened, type Offers, Telling } from "./Listened.ts"
import type { LatestFrame } from "./latest.ts"
import { DOUBTED, MinuteBar, PASSED, widerBar } from "./MinuteBar.ts"
import type { ChannelHost, GivenUp, HubSettings, LogPlace } from "./parts.ts"
import type { SaidOi } from "./SaidOi.ts"
import { StoredBars, type StoredBarsOwner, type WaitingFive } from "./StoredBars.ts"
import { CANDLE_1M, CANDLE_5M, CANDLES, type Wanted } from "./sideChannels.ts"
import type { InstrumentTicks } from "./TickRing.ts"

/** Minutes of an instrument are not cut below this, however many instruments there are. */
const MIN_MINUTES = 1

/** Minutes without a tick whose open interest is kept of an instrument that nobody listens to: the one under way. */
const SAID_UNTOLD = 1

/** What the bars need of their channel. */
export interface CandlesChannel {
  readonly host: Pick<ChannelHost, "settings" | "history" | "look" | "gaveUp">
  readonly offers: Offers
  /** The market itself, whose bars the store has too. */
  readonly isLive: boolean
  /** Epoch microseconds, as the channel's clock goes; 0 before it goes. */
  readonly time: () => number
  readonly instruments: () => Iterable<InstrumentTicks>
  /** Where the store must have come to have all that came here of an instrument; undefined: nobody knows. */
  readonly need: (token: number) => LogPlace | undefined
}

/**
 * How far apart the log's clock and this server's may be; with what a tick may be ahead of the log: a tick of a minute
 * that begins later than that after a time was not published before it.
 */
const CLOCKS_APART_MS = 25_000
export const aheadMicros = ({ MAX_FUTURE_SKEW_MS }: Pick<HubSettings, "MAX_FUTURE_SKEW_MS">): number =>
  (MAX_FUTURE_SKEW_MS + CLOCKS_APART_MS) * 1000

/** The mark of a bar: minutes and bars of five that start together are two. */
const markOf = (ts: number, interval: LiveInterval): number => (interval === "1m" ? ts : ts + 1)

/** What is sure of a minute: its bar, `undefined` for no tick, or nothing yet. */
const UNSURE = Symbol("unsure")

/** The bars of one channel. */
export class Candles implements StoredBarsOwner {
  private readonly channel: CandlesChannel
  private readonly stored: StoredBars | undefined
  /** Minutes kept of all instruments. */
  kept = 0
  /** Minutes kept of each. */
  limit = MINUTES_KEPT
  /** Every bar is final: nothing more comes. */
  isOver = false
  /** Nothing is known here of minutes of new instruments that start before this. */
  private from = Number.NEGATIVE_INFINITY
  /** Those of which something is to be told. */
  private readonly changed: Telling<readonly [InstrumentTicks, Listened]>
  private toldAt = Number.NEGATIVE_INFINITY
  private timer: NodeJS.Timeout | undefined

  constructor(channel: CandlesChannel) {
    this.channel = channel
    const { host, isLive, offers } = channel
    this.changed = new Telling(
      ([instrument, listened]) => this.tellChanged(instrument, listened),
      () => {
        this.toldAt = performance.now()
        offers.hand()
      }
    )
    this.stored = isLive && host.history?.bars !== undefined ? new StoredBars(host, this) : undefined
  }

  /** Bars that wait for the store. */
  get waiting(): number {
    return this.stored?.size ?? 0
  }

  /** What is kept of a new instrument. */
  bars(): InstrumentBars {
    return new InstrumentBars(this.from)
  }

  /** Ticks that were published before `since` (µs) may not come. Again: nor may others, and what is known is forgotten. */
  begin(since: number, isAgain: boolean): void {
    this.from = Math.max(this.from, since + aheadMicros(this.channel.host.settings))
    if (!isAgain) return
    for (const instrument of this.channel.instruments()) this.forget(instrument, this.from)
    this.askAnew(() => true)
    this.settle()
  }

  /** The instrument is forgotten: what comes of it later is not all of the minutes up to its last. */
  release({ bars }: InstrumentTicks): void {
    this.kept -= bars.count
    this.from = Math.max(this.from, bars.from, bars.end)
  }

  /** Ticks of an instrument were lost on their way here: of what time nobody knows. */
  lost(instrument: InstrumentTicks): void {
    if (this.stored === undefined) return
    const { time, host } = this.channel
    this.forget(instrument, minuteOf(time() + aheadMicros(host.settings)) + MICROS_PER_MINUTE)
    this.askAnew((five) => five.instrument === instrument)
  }

  /** Begins a run anew. */
  restart(): void {
    this.kept = 0
    this.limit = MINUTES_KEPT
    this.from = Number.NEGATIVE_INFINITY
    this.changed.clear()
    this.isOver = false
  }

  /** Tells what is still to be told. */
  close(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.changed.tell(Number.POSITIVE_INFINITY)
  }

  /** Counts a tick in the bar of its time. */
  take(instrument: InstrumentTicks, tick: Tick): void {
    const { bars, listened } = instrument
    const { exchange_ts } = tick
    const isWanted = listened !== undefined && (listened.wanted & CANDLES) !== 0
    let bar = bars.newest
    if (bar === undefined || exchange_ts < bar.ts || exchange_ts >= bar.ts + MICROS_PER_MINUTE) {
      const ts = minuteOf(exchange_ts)
      bar = bars.find(ts) ?? this.next(instrument, ts)
      if (bar === undefined) {
        if (isWanted) this.late(instrument, listened, ts, tick)
        return
      }
    }
    const outcome = bar.add(tick)
    if (outcome === PASSED) return
    if (outcome === DOUBTED) this.doubt(instrument, bar)
    if (isWanted && listened.change(bar.ts)) this.changed.add([instrument, listened])
  }

  /** Takes what a quote says of its minute. A bar is told with it when a tick changes it, and when its time is over. */
  hear(instrument: InstrumentTicks, { exchange_ts, oi, source }: Quote): void {
    if (oi === undefined) return
    const { bars, listened } = instrument
    const ts = minuteOf(exchange_ts)
    const said: SaidOi = { oi, exchange_ts, offset: source[1] }
    const { count } = bars
    const isTold = listened !== undefined && (listened.wanted & CANDLES) !== 0
    // Of who is quoted and not listened to the store tells it to who comes: there may be many of them.
    const limit = isTold || this.stored === undefined ? this.limit : SAID_UNTOLD
    if (!bars.hear(ts, said, limit)) this.stored?.find(instrument, fiveOf(ts))?.hear(ts, said)
    this.kept += bars.count - count
    if (this.kept > this.channel.host.settings.HUB_BARS) this.cut()
  }

  /** Tells what has changed: at most so often, and never later than that. */
  settle(): void {
    if (this.changed.size === 0 || this.timer !== undefined || this.changed.isGoingOn) return
    const { isLive, host } = this.channel
    const wait = isLive ? this.toldAt + host.settings.CANDLE_MS - performance.now() : 0
    if (wait <= 0) this.changed.tell()
    else this.timer = setTimeout(this.tellNow, wait).unref()
  }

  /**
   * Puts into a client's slots what there is of the bars that it has come to want: those under way, or where there is
   * none the last.
   */
  welcome(instrument: InstrumentTicks, listened: Listened, queue: ClientQueue, wanted: Wanted): void {
    const { bars } = instrument
    const now = this.channel.time()
    const last = bars.newest
    if ((wanted & CANDLE_1M) !== 0) {
      const ts = minuteOf(now)
      if (!bars.isWhole(ts)) this.ask(instrument, listened, ts, "1m")
      if (last?.isWhole && last.count > 0) {
        queue.offer(this.frame(instrument, listened, "1m", last, oiOf(bars, last.ts, "1m")))
      }
    }
    if ((wanted & CANDLE_5M) === 0) return
    const ts = fiveOf(now)
    if (!bars.isFiveWhole(ts)) this.ask(instrument, listened, ts, "5m")
    const start = last === undefined ? ts : fiveOf(last.ts)
    const five = bars.isFiveWhole(start) ? bars.five(start) : undefined
    if (five !== undefined) queue.offer(this.frame(instrument, listened, "5m", five, oiOf(bars, start, "5m")))
  }

  /** Tells once more the bars whose time is over since they were told; answers how many frames that are. */
  finish(instrument: InstrumentTicks, listened: Listened): number {
    const { open } = listened
    if (open.size === 0) return 0
    const now = this.channel.time()
    let frames = 0
    for (const mark of open) {
      const interval = mark % MICROS_PER_MINUTE === 0 ? "1m" : "5m"
      const ts = interval === "1m" ? mark : mark - 1
      if (!this.isOver && !isFinal(ts, interval, now)) continue
      open.delete(mark)
      frames += this.tellOne(instrument, listened, ts, interval)
    }
    return frames
  }

  answered(
    five: WaitingFive,
    asked: ReadonlyArray<MinuteBar>,
    sums: ReadonlyArray<MinuteSum> | undefined,
    said: ReadonlyArray<MinuteOi>
  ): void {
    if (sums === undefined) {
      this.stored!.drop(five)
      return
    }
    const { instrument, listened, minutes, start } = five
    for (const one of said) {
      five.hear(one.ts, one)
      instrument.bars.find(one.ts)?.hear(one)
    }
    const need = this.channel.need(instrument.token)
    /** Of a bar that was doubted again only what the store has said. */
    const stored = new Map<number, BarSum | undefined>()
    for (const bar of asked) {
      const sum = sums.find(({ ts }) => ts === bar.ts)
      if (!bar.complete(sum, need)) stored.set(bar.ts, sum)
    }
    const sureOf = (ts: number): BarSum | undefined | typeof UNSURE => {
      if (stored.has(ts)) return stored.get(ts)
      const bar = five.find(ts)
      if (bar === undefined) return instrument.bars.isWhole(ts) ? undefined : UNSURE
      return bar.isWhole ? bar : UNSURE
    }
    for (const ts of minutes) {
      const sure = sureOf(ts)
      if (sure === UNSURE) continue
      if (sure !== undefined) this.put(instrument, listened, "1m", sure, oiOf(five, ts, "1m"))
      if (!stored.has(ts)) minutes.delete(ts)
    }
    if (five.isWide) {
      const all = [...five.wanted()].map(sureOf)
      if (!all.includes(UNSURE)) {
        const wide = widerBar(
          start,
          all.filter((sure) => typeof sure === "object")
        )
        if (wide !== undefined) this.put(instrument, listened, "5m", wide, oiOf(five, start, "5m"))
        five.isWide = stored.size > 0
      }
    }
    if (minutes.size === 0 && !five.isWide) this.stored!.drop(five)
    else {
      this.prepare(five)
      this.stored!.again(five)
    }
    this.channel.offers.hand()
  }

  hasCome({ instrument }: WaitingFive, { incarnation, offset }: LogPlace): boolean {
    const read = this.channel.need(instrument.token)
    return !instrument.isSeen && (read === undefined || (read.incarnation === incarnation && read.offset >= offset))
  }

  bound({ instrument }: WaitingFive, bars: ReadonlyArray<MinuteBar>): void {
    const { isSeen, epoch, position, token } = instrument
    if (!isSeen) return
    for (const bar of bars) bar.restart(this.channel.need(token), { epoch, position: position + 1 })
  }

  gaveUp(why: GivenUp): void {
    this.channel.host.gaveUp(why)
  }

  /** More minutes of each instrument are kept again where there is room for twice as many. */
  grow(): void {
    if (this.limit < MINUTES_KEPT && this.kept * 2 <= this.channel.host.settings.HUB_BARS) {
      this.limit = Math.min(MINUTES_KEPT, this.limit * 2)
    }
  }

  /** The bar of a minute that has had no tick yet; undefined where that is not known. */
  private next(instrument: InstrumentTicks, ts: number): MinuteBar | undefined {
    if (ts < instrument.bars.from) return undefined
    const bar = new MinuteBar(ts, true)
    return this.keep(instrument, bar) ? bar : undefined
  }

  /** Keeps a minute in memory; false where there is no room for one that old. */
  private keep(instrument: InstrumentTicks, bar: MinuteBar): boolean {
    const { bars, listened } = instrument
    const oldest = bars.oldestBeyond(this.limit)
    // A change of it can still be told now.
    if (oldest !== undefined && listened?.changed.includes(oldest.ts)) this.tellChanged(instrument, listened)
    const { count } = bars
    bars.keep(bar, this.limit)
    this.kept += bars.count - count
    if (this.kept > this.channel.host.settings.HUB_BARS) this.cut()
    return bars.find(bar.ts) === bar
  }

  /** Every instrument alike gives up its older half. */
  private cut(): void {
    if (this.limit <= MIN_MINUTES) return
    this.changed.tell(Number.POSITIVE_INFINITY)
    this.limit = Math.max(MIN_MINUTES, this.limit >>> 1)
    this.kept = 0
    for (const { bars } of this.channel.instruments()) {
      bars.cut(this.limit)
      this.kept += bars.count
    }
  }

  /** A tick of a minute that memory does not hold: what came before it is the store's to tell. */
  private late(instrument: InstrumentTicks, listened: Listened, ts: number, tick: Tick): void {
    if (this.stored === undefined) return
    const five = this.stored.five(instrument, listened, fiveOf(ts))
    if ((listened.wanted & CANDLE_1M) !== 0) five.minutes.add(ts)
    if ((listened.wanted & CANDLE_5M) !== 0) five.isWide = true
    const bar = five.find(ts) ?? this.unknown(five, ts, tick)
    if (bar.add(tick) === DOUBTED) this.doubt(instrument, bar)
    this.prepare(five)
  }

  private doubt({ token }: InstrumentTicks, bar: MinuteBar): void {
    if (this.stored !== undefined) bar.doubt(this.channel.need(token))
  }

  /** Has the store tell what memory does not know of a bar. */
  private ask(instrument: InstrumentTicks, listened: Listened, ts: number, interval: LiveInterval): void {
    if (this.stored === undefined) return
    const five = this.stored.five(instrument, listened, fiveOf(ts))
    if (interval === "1m") five.minutes.add(ts)
    else five.isWide = true
    this.prepare(five)
  }

  /** Forgets what is known of minutes that start before `from`; those that are told have the store tell them anew. */
  private forget(instrument: InstrumentTicks, from: number): void {
    const { bars, listened } = instrument
    if (listened !== undefined && (listened.wanted & CANDLES) !== 0) {
      for (const ts of bars.starts) if (listened.change(ts)) this.changed.add([instrument, listened])
    }
    this.kept -= bars.count
    bars.forget(Math.max(bars.from, from))
  }

  /** What has come of bars that wait is not all: the store is to tell that too. */
  private askAnew(which: (five: WaitingFive) => boolean): void {
    for (const five of [...(this.stored?.all ?? [])].filter(which)) {
      this.stored!.drop(five)
      for (const ts of five.minutes) this.ask(five.instrument, five.listened, ts, "1m")
      if (five.isWide) this.ask(five.instrument, five.listened, five.start, "5m")
    }
  }

  /** Begins the bars of minutes that nothing is known of. */
  private prepare(five: WaitingFive): void {
    const { bars, isSeen, epoch, position } = five.instrument
    for (const ts of five.wanted()) {
      if (five.find(ts) !== undefined || bars.isWhole(ts)) continue
      this.unknown(five, ts, isSeen ? { epoch, position: position + 1 } : undefined)
    }
  }

  /** A bar whose ticks before a place are the store's to tell; one that is under way is kept. */
  private unknown(five: WaitingFive, ts: number, before: Place | undefined): MinuteBar {
    const { instrument, patches } = five
    const place = before === undefined ? undefined : { epoch: before.epoch, position: before.position }
    const bar = new MinuteBar(ts, false, place, this.channel.need(instrument.token))
    const isUnderWay = ts >= fiveOf(this.channel.time())
    if (!isUnderWay || !this.keep(instrument, bar)) patches.set(ts, bar)
    return bar
  }

  private readonly tellNow = (): void => {
    this.timer = undefined
    this.changed.tell()
  }

  private tellChanged(instrument: InstrumentTicks, listened: Listened): number {
    const minutes = listened.changed.splice(0)
    let frames = 0
    for (const ts of minutes) frames += this.tellOne(instrument, listened, ts, "1m")
    for (const ts of new Set(minutes.map(fiveOf))) frames += this.tellOne(instrument, listened, ts, "5m")
    return frames
  }

  /** Tells a bar as it is in memory, or has the store asked for it. */
  private tellOne(instrument: InstrumentTicks, listened: Listened, ts: number, interval: LiveInterval): number {
    if ((listened.wanted & (interval === "1m" ? CANDLE_1M : CANDLE_5M)) === 0) return 0
    const { bars } = instrument
    if (!(interval === "1m" ? bars.isWhole(ts) : bars.isFiveWhole(ts))) {
      this.ask(instrument, listened, ts, interval)
      return 0
    }
    const bar = interval === "1m" ? bars.find(ts) : bars.five(ts)
    return bar === undefined ? 0 : this.put(instrument, listened, interval, bar, oiOf(bars, ts, interval))
  }

  private put(
    instrument: InstrumentTicks,
    listened: Listened,
    interval: LiveInterval,
    bar: BarSum,
    oi: number | undefined
  ): number {
    if (bar.count === 0) return 0
    const channel = interval === "1m" ? CANDLE_1M : CANDLE_5M
    listened.open.delete(markOf(bar.ts, interval))
    return this.channel.offers.put(listened, this.frame(instrument, listened, interval, bar, oi), channel)
  }

  private frame(
    { token }: InstrumentTicks,
    listened: Listened,
    interval: LiveInterval,
    bar: BarSum,
    oi: number | undefined
  ): LatestFrame {
    const { ts, count, open, high, low, close, volume } = bar
    const final = this.isOver || isFinal(ts, interval, this.channel.time())
    // Some client has it as not final now.
    if (!final) listened.open.add(markOf(ts, interval))
    const candle = { ts, open: open.price, high, low, close: close.price, volume }
    const text = candleFrame(token, interval, withOi(candle, oi), count, final)
    return { token, key: `${token} ${interval} ${ts}`, text }
  }
}

/** The open interest of a bar: the last of its minutes of which one is known, with or without ticks. */
const oiOf = (
  minutes: { readonly oi: (ts: number) => SaidOi | undefined },
  ts: number,
  interval: LiveInterval
): number | undefined => {
  for (let i = interval === "1m" ? 0 : MINUTES_OF_FIVE - 1; i >= 0; i--) {
    const said = minutes.oi(ts + i * MICROS_PER_MINUTE)
    if (said !== undefined) return said.oi
  }
  return undefined
}
