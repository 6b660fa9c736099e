/**
 * Decides what is known of one instrument of a market at its time: the last trade, the day so far made of ticks, and the
 * newest quote; and which of them each field that Kite serves is taken from. What nothing says is 0.
 */
import type { Instrument } from "../../schema/Instrument.ts"
import { divisorOf, isIndexToken, type KiteMode, type KitePacket } from "../../schema/kite/packets.ts"
import type { Place } from "../../schema/Protocol.ts"
import type { Level, Quote } from "../../schema/Quote.ts"
import { isAfter, type Tick, tradingDay } from "../../schema/Tick.ts"
import { supersedes } from "../../streams/ports/RecentQuotes.ts"

/** A price and quantity of a day, in order or as a bar of them. */
export interface Part {
  readonly open: number
  readonly high: number
  readonly low: number
  readonly close: number
  readonly volume: number
}

/** The day so far, as it was found. */
export interface Known {
  /** Since 1970. */
  readonly day: number
  readonly price: number
  /** Of the last trade; 0 where only its price is known. */
  readonly volume: number
  readonly exchange_ts: number
  readonly place: Place | undefined
  readonly so_far: Part | undefined
  /** Rupees times pieces. */
  readonly turnover: number
  readonly previousClose: Close | undefined
}

/** What a trading day, since 1970, closed at. */
export interface Close {
  readonly price: number
  readonly day: number
}

/** Whether figures of a trading day may be told. */
export type SeesDay = (day: number) => boolean

const MICROS_PER_SECOND = 1_000_000
const NO_LEVEL: Level = [0, 0, 0]
const LEVELS = 5

const five = (levels: ReadonlyArray<Level> | undefined): ReadonlyArray<Level> =>
  Array.from({ length: LEVELS }, (_, at) => levels?.[at] ?? NO_LEVEL)

const EVERY_DAY: SeesDay = () => true

/** What a feed sends before there is anything to say. */
const said = (value: number | undefined): number | undefined => (value === 0 ? undefined : value)

/** In whole seconds, as the wire has them. */
const secondsOf = (micros: number): number => Math.floor(micros / MICROS_PER_SECOND)

/** What a full packet says, and what only REST does. */
export interface Snapshot extends KitePacket {
  readonly lowerCircuit: number
  readonly upperCircuit: number
}

const isBehind = (place: Place | undefined, other: Place | undefined): boolean =>
  other !== undefined && (place === undefined || isAfter(other.epoch, other.position, place))

export class Figures {
  readonly token: number
  /** The trading day that the figures are of, since 1970; `undefined`: nothing is known. */
  day: number | undefined
  /** Of the day nothing is known but some trades: they do not tell what it was. */
  private isOfSome = false
  private price = 0
  private volume = 0
  private tradedAt = 0
  private soFar: Part | undefined
  private turnover = 0
  private place: Place | undefined
  private previousClose: Close | undefined
  private quote: Quote | undefined
  /** What was written of this state, by mode. */
  private readonly packets = new Map<KiteMode, Uint8Array | undefined>()

  constructor(token: number) {
    this.token = token
  }

  /** Whether a last price is known, which may be of an earlier day. */
  get isKnown(): boolean {
    return this.day !== undefined
  }

  /** Whether there is anything to tell: of an instrument that has not traded it may be a quote alone. */
  get isTold(): boolean {
    return this.newestDay !== undefined
  }

  /** The trading day of what is told, since 1970. */
  get newestDay(): number | undefined {
    return this.day ?? this.dayOfQuote
  }

  get lacksDay(): boolean {
    return this.isOfSome
  }

  set lacksDay(isSo: boolean) {
    if (isSo !== this.isOfSome) this.packets.clear()
    this.isOfSome = isSo
  }

  /** Whether the day before is yet to be asked for. */
  get lacksClose(): boolean {
    return this.previousClose === undefined && said(this.quoteOfDay?.previous_close) === undefined
  }

  /** The day of the last price: before the first trade of a day it is that of what closed before. */
  private get priceDay(): number | undefined {
    return this.tradedAt === 0 ? this.previousClose?.day : this.day
  }

  /** Whether all that can be said is of days that may be told. */
  isAllOf(sees: SeesDay): boolean {
    return [this.day, this.previousClose?.day, this.dayOfQuote].every((day) => day === undefined || sees(day))
  }

  private get dayOfQuote(): number | undefined {
    return this.quote === undefined ? undefined : tradingDay(this.quote.exchange_ts)
  }

  private get quoteOfDay(): Quote | undefined {
    const { day, dayOfQuote } = this
    return dayOfQuote !== undefined && dayOfQuote >= (day ?? dayOfQuote) ? this.quote : undefined
  }

  /** The run of its day begins anew: what the day before closed at stays. */
  forget(): void {
    this.packets.clear()
    this.day = undefined
    this.isOfSome = false
    this.price = this.volume = this.tradedAt = this.turnover = 0
    this.soFar = this.place = this.quote = undefined
  }

  /** What was found of the day so far takes the place of what was known. */
  begin(known: Known): void {
    this.packets.clear()
    this.day = known.day
    this.price = known.price
    this.volume = known.volume
    this.tradedAt = known.exchange_ts
    this.soFar = known.so_far
    this.turnover = known.turnover
    this.place = known.place
    this.previousClose = known.previousClose
  }

  /**
   * Takes what was found of the same stream, which reaches further back, and may lack some of what came later: no part of
   * it is more than the whole, so that the most that either saw of the day is the nearest to it.
   */
  learn(other: Figures): void {
    if (other.day === undefined) return
    this.packets.clear()
    const [mine, its] = [this.soFar, other.soFar]
    const isSameDay = this.day === other.day
    const isLater =
      !isSameDay ||
      other.tradedAt > this.tradedAt ||
      (other.tradedAt === this.tradedAt && isBehind(this.place, other.place))
    if (isSameDay && mine !== undefined && its !== undefined) {
      if (its.volume >= mine.volume) this.turnover = other.turnover
      this.soFar = {
        open: its.open,
        high: Math.max(mine.high, its.high),
        low: Math.min(mine.low, its.low),
        close: isLater ? its.close : mine.close,
        volume: Math.max(mine.volume, its.volume)
      }
    } else if (!isSameDay || its !== undefined) {
      this.soFar = its
      this.turnover = other.turnover
    }
    if (!isSameDay) this.previousClose = undefined
    this.previousClose ??= other.previousClose
    if (isBehind(this.place, other.place)) this.place = other.place
    this.day = other.day
    if (!isLater) return
    this.price = other.price
    this.volume = other.volume
    this.tradedAt = other.tradedAt
  }

  /** What lies before all that was taken of the day. */
  precede(earlier: Part | undefined, turnover: number): void {
    if (earlier === undefined) return
    this.packets.clear()
    const { soFar } = this
    this.turnover += turnover
    this.soFar =
      soFar === undefined
        ? earlier
        : {
            open: earlier.open,
            high: Math.max(earlier.high, soFar.high),
            low: Math.min(earlier.low, soFar.low),
            close: soFar.close,
            volume: earlier.volume + soFar.volume
          }
  }

  closedAt(close: Close | undefined): void {
    this.packets.clear()
    this.previousClose ??= close
  }

  /** Takes the next tick; false where it was taken before. */
  take({ price, volume, exchange_ts, epoch, position }: Tick): boolean {
    const { place } = this
    if (place !== undefined && !isAfter(epoch, position, place)) return false
    this.packets.clear()
    this.place = { epoch, position }
    const day = tradingDay(exchange_ts)
    if (this.day !== undefined && day > this.day) {
      // The last price of the day that is over is what it closed at.
      this.previousClose = { price: this.price, day: this.priceDay ?? this.day }
      this.soFar = undefined
      this.turnover = 0
      this.tradedAt = 0
    }
    this.day = day
    const { soFar } = this
    this.soFar =
      soFar === undefined
        ? { open: price, high: price, low: price, close: price, volume }
        : {
            open: soFar.open,
            high: Math.max(soFar.high, price),
            low: Math.min(soFar.low, price),
            close: price,
            volume: soFar.volume + volume
          }
    this.turnover += price * volume
    // A late tick is of the day, and not its last trade.
    if (exchange_ts < this.tradedAt) return true
    this.price = price
    this.volume = volume
    this.tradedAt = exchange_ts
    return true
  }

  /** Takes a quote; false where it is not the later. */
  takeQuote(quote: Quote): boolean {
    const { quote: known } = this
    if (known !== undefined && !supersedes(quote, known)) return false
    this.packets.clear()
    this.quote = quote
    return true
  }

  /** What `write` makes of this state in a mode; written once, however many want it. */
  packet(mode: KiteMode, write: () => Uint8Array | undefined): Uint8Array | undefined {
    let bytes = this.packets.get(mode)
    if (bytes === undefined) {
      bytes = write()
      this.packets.set(mode, bytes)
    }
    return bytes
  }

  /**
   * All that can be said of the days that `sees` allows; `shift` in microseconds is added to its stamps. Undefined where
   * there is nothing. The last price of what has not traded is what it closed at before, as far as that is known.
   */
  snapshot(instrument: Instrument | undefined, shift: number, sees: SeesDay = EVERY_DAY): Snapshot | undefined {
    const { newestDay, priceDay, soFar, token } = this
    if (newestDay === undefined || !sees(newestDay) || (priceDay !== undefined && !sees(priceDay))) return undefined
    const { quoteOfDay } = this
    const quote = quoteOfDay !== undefined && sees(tradingDay(quoteOfDay.exchange_ts)) ? quoteOfDay : undefined
    const previousClose =
      this.previousClose !== undefined && sees(this.previousClose.day) ? this.previousClose.price : undefined
    const isIndex = isIndexToken(token) || instrument?.asset_class === "INDEX"
    const isOfToday = quote === undefined || tradingDay(quote.exchange_ts) === newestDay
    const made = isOfToday && !this.isOfSome ? soFar : undefined
    const [high, low] = [said(quote?.high), said(quote?.low)]
    const close = said(quote?.previous_close) ?? (isOfToday ? previousClose : this.price) ?? 0
    const price = this.isKnown ? this.price : close
    // The packet that is at least as new as the last trade tells of that very trade.
    const isNewer = quote !== undefined && quote.exchange_ts >= this.tradedAt
    const tradedAt = Math.max(this.tradedAt, quote?.last_trade_ts ?? 0)
    const at = Math.max(this.tradedAt, quote?.exchange_ts ?? 0)
    const volume = Math.max(made?.volume ?? 0, quote?.day_volume ?? 0)
    const rounding = divisorOf(token)
    const rounded = (value: number): number => Math.round(value * rounding) / rounding
    // As the ticker has room for, so that REST says the same.
    const average = rounded(
      said(quote?.average_price) ?? (made === undefined || made.volume === 0 ? 0 : this.turnover / made.volume)
    )
    return {
      token,
      mode: "full",
      isIndex,
      lastPrice: price,
      lastQuantity: isIndex ? 0 : ((isNewer ? quote.last_quantity : undefined) ?? this.volume),
      averagePrice: isIndex ? 0 : average,
      volume: isIndex ? 0 : volume,
      buyQuantity: quote?.total_buy_quantity ?? 0,
      sellQuantity: quote?.total_sell_quantity ?? 0,
      open: said(quote?.open) ?? made?.open ?? 0,
      high: Math.max(high ?? made?.high ?? 0, made?.high ?? high ?? 0),
      low: Math.min(low ?? made?.low ?? 0, made?.low ?? low ?? 0),
      close,
      change: close === 0 ? 0 : rounded(price - close),
      lastTradeSeconds: tradedAt === 0 ? 0 : secondsOf(tradedAt + shift),
      oi: quote?.oi ?? 0,
      oiDayHigh: quote?.oi_day_high ?? 0,
      oiDayLow: quote?.oi_day_low ?? 0,
      exchangeSeconds: at === 0 ? 0 : secondsOf(at + shift),
      bid: five(quote?.bid),
      ask: five(quote?.ask),
      lowerCircuit: quote?.lower_circuit ?? 0,
      upperCircuit: quote?.upper_circuit ?? 0
    }
  }
}
