/**
 * Decides how tests play live bars: a log that everything comes through, a store that has it later, and a hub that reads
 * it, all by one clock that stands still unless it is moved.
 */
import { assert } from "@effect/vitest"
import { vi } from "vitest"
import { isFinal } from "../../src/schema/Candle.ts"
import type { CandleFrame } from "../../src/schema/Protocol.ts"
import { compareQuotes, type Quote } from "../../src/schema/Quote.ts"
import { epochOf, type Tick, tradingDay, tradingDayStart } from "../../src/schema/Tick.ts"
import { Hub, type HubOptions } from "../../src/streams/fanOut/Hub.ts"
import type { HubSettings } from "../../src/streams/fanOut/parts.ts"
import { wantedOf } from "../../src/streams/fanOut/sideChannels.ts"
import type { StoredTick } from "../../src/streams/ports/TickStore.ts"
import { barsOf, minutesOf } from "./candles.ts"
import { FakeSocket, hubSettings, quoteAt, tickOf } from "./hub.ts"

export const SECOND = 1_000_000
export const MINUTE = 60 * SECOND
/** 2026-01-16, a Friday, 09:15 IST. */
export const OPEN = 1_768_535_100_000_000

interface Numbering {
  session: number
  sequence: number
  /** Numbers passed over. */
  missing: Array<number>
}

/** A quote of the log: so many ticks lie before it. */
interface LoggedQuote {
  readonly at: number
  readonly recordedAt: number
  readonly quote: Quote
}

interface Day {
  epoch: number
  position: number
}

/** What the platform gives one instrument's ticks: session and number, epoch and position by their day. */
class Instrument {
  numbering: Numbering = { session: 0, sequence: 0, missing: [] }
  newestDay = 0
  readonly days = new Map<number, Day>()
}

export class BarWorld {
  now: number
  readonly log: Array<Tick> = []
  readonly recordedAt: Array<number> = []
  /** Up to which offset the store has the log, and the hub. */
  stored = 0
  read = 0
  /** Quotes stand among the ticks of the log. */
  readonly quotes: Array<LoggedQuote> = []
  storedQuotes = 0
  readQuotes = 0
  /** The quotes that the store has, in the order that it took them. */
  readonly said: Array<Quote> = []
  /** Of minutes that were over when the hub had it, or that it never had: told only where a tick changes the bar. */
  readonly lateQuotes: Array<Quote> = []
  /** What the hub was never told. */
  readonly skipped = new Set<Tick>()
  isStoreAway = false
  answersInMs = 0
  /** Trading days before this time are dropped by the store. */
  ticksFrom = 0
  readonly rows = new Map<string, StoredTick>()
  readonly gaveUp: Array<string> = []
  hub: Hub
  private readonly settings: Partial<HubSettings>
  private readonly options: Partial<HubOptions>
  private readonly instruments = new Map<number, Instrument>()

  constructor(
    options: {
      readonly now?: number
      readonly settings?: Partial<HubSettings>
      readonly hub?: Partial<HubOptions>
    } = {}
  ) {
    this.now = options.now ?? OPEN + 30 * MINUTE
    this.settings = options.settings ?? {}
    this.options = options.hub ?? {}
    this.hub = this.start()
  }

  /** A server that begins now, some minutes back in the log. */
  start(): Hub {
    const since = this.now - 6 * MINUTE
    let offset = this.recordedAt.findIndex((at) => at >= since)
    if (offset < 0) offset = this.log.length
    this.hub = new Hub({
      settings: { ...hubSettings, ...this.settings },
      now: () => this.now,
      graceMs: 0,
      history: {
        last: async () => ({ ticks: [], failed: false }),
        after: async () => ({ ticks: [], more: false, current: false, failed: false }),
        bars: {
          reached: async () => this.answer(() => new Map([[0, this.stored]])),
          minutes: async (query) =>
            this.answer(() =>
              query.minutes.some(({ ts }) => ts < this.ticksFrom)
                ? undefined
                : minutesOf([...this.rows.values()], query)
            ),
          openInterest: async ({ instrument_token: token, from, to }) =>
            this.answer(() => {
              const minutes = Array.from({ length: (to - from) / MINUTE }, (_, i) => from + i * MINUTE)
              return minutes.flatMap((ts) => {
                const last = this.lastOf(token, ts, ts + MINUTE)
                return last === undefined
                  ? []
                  : [{ ts, oi: last.oi!, exchange_ts: last.exchange_ts, offset: last.source[1] }]
              })
            })
        }
      },
      observer: { gaveUp: (why) => this.gaveUp.push(why) },
      ...this.options
    })
    this.hub.partitions = 1
    this.hub.live.begin({ partition: 0, incarnation: "log", offset }, offset > 0 ? since : this.now)
    this.read = offset
    const quote = this.quotes.findIndex(({ recordedAt }) => recordedAt >= since)
    this.readQuotes = quote < 0 ? this.quotes.length : quote
    return this.hub
  }

  /** The last quote that the store has of a time which says the open interest. */
  private lastOf(token: number, from: number, to: number): Quote | undefined {
    let last: Quote | undefined
    for (const quote of this.said) {
      const { exchange_ts, instrument_token, oi } = quote
      if (instrument_token !== token || oi === undefined || exchange_ts < from || exchange_ts >= to) continue
      if (last === undefined || compareQuotes(quote, last) > 0) last = quote
    }
    return last
  }

  private async answer<A>(of: () => A): Promise<A> {
    if (this.isStoreAway) throw new Error("away")
    // What it says is what it had when it was asked.
    const answer = of()
    if (this.answersInMs > 0) await new Promise((resolve) => setTimeout(resolve, this.answersInMs))
    return answer
  }

  private instrument(token: number): Instrument {
    const known = this.instruments.get(token)
    if (known !== undefined) return known
    const made = new Instrument()
    this.instruments.set(token, made)
    return made
  }

  /** A tick comes into the log. */
  add(token: number, exchange_ts: number, fields: Partial<Tick> = {}): Tick {
    const instrument = this.instrument(token)
    const day = tradingDay(exchange_ts)
    let state = instrument.days.get(day)
    if (state === undefined) {
      state = { epoch: epochOf(day, this.now), position: 0 }
      instrument.days.set(day, state)
    }
    if (day > instrument.newestDay) instrument.newestDay = day
    const tick = tickOf(token, state.epoch, ++state.position, {
      exchange_ts,
      session: instrument.numbering.session,
      sequence_id: fields.sequence_id ?? ++instrument.numbering.sequence,
      old: day < instrument.newestDay,
      source: ["raw", this.log.length, 0],
      ...fields
    })
    this.log.push(tick)
    this.recordedAt.push(this.now)
    return tick
  }

  /** A quote comes into the log. */
  addQuote(token: number, exchange_ts: number, fields: Partial<Quote> = {}): Quote {
    const offset = this.log.length + this.quotes.length
    const quote = quoteAt(token, exchange_ts, offset, {
      old: tradingDay(exchange_ts) < this.instrument(token).newestDay,
      ...fields
    })
    this.quotes.push({ at: this.log.length, recordedAt: this.now, quote })
    return quote
  }

  /** A quote that comes and is seen by all. */
  quote(token: number, exchange_ts: number, fields: Partial<Quote> = {}): Quote {
    const quote = this.addQuote(token, exchange_ts, fields)
    this.store()
    this.publish()
    return quote
  }

  /** A feed begins its numbers again. */
  reset(token: number): void {
    const { numbering } = this.instrument(token)
    numbering.session++
    numbering.sequence = 0
    numbering.missing = []
  }

  /** A number is passed over, and may come later. */
  miss(token: number): void {
    const { numbering } = this.instrument(token)
    numbering.missing.push(++numbering.sequence)
  }

  missing(token: number): number | undefined {
    return this.instrument(token).numbering.missing.shift()
  }

  /** What was known of an instrument's day is lost: a later epoch. */
  lose(token: number, day: number): void {
    const state = this.instrument(token).days.get(day)
    if (state === undefined) return
    const later = Math.max(state.epoch + 1, epochOf(day, this.now))
    this.instrument(token).days.set(day, { epoch: later, position: 0 })
  }

  /** The store takes some of the log: of a tick that comes again the first counts. */
  store(count = Number.POSITIVE_INFINITY): void {
    const end = Math.min(this.log.length, this.stored + count)
    for (; this.stored < end; this.stored++) {
      const tick = this.log[this.stored]!
      if (tick.exchange_ts < this.ticksFrom) continue
      const key = `${tick.instrument_token} ${tick.exchange_ts} ${tick.sequence_id}`
      const { gap_from, source, old, ...row } = tick
      if (!this.rows.has(key)) this.rows.set(key, row)
    }
    for (; (this.quotes[this.storedQuotes]?.at ?? Number.POSITIVE_INFINITY) <= end; this.storedQuotes++) {
      this.said.push(this.quotes[this.storedQuotes]!.quote)
    }
  }

  /** The store takes the ticks of the log, and what quotes lie between them. */
  storeTicks(): void {
    const rest = this.quotes.splice(this.quotes.findLastIndex(({ at }) => at < this.log.length) + 1)
    this.store()
    this.quotes.push(...rest)
  }

  /** The quotes behind those that were read, up to so many ticks of the log. */
  private nextQuotes(end: number): ReadonlyArray<Quote> {
    const quotes: Array<Quote> = []
    for (; (this.quotes[this.readQuotes]?.at ?? Number.POSITIVE_INFINITY) <= end; this.readQuotes++) {
      const { quote } = this.quotes[this.readQuotes]!
      quotes.push(quote)
      if (quote.exchange_ts - (quote.exchange_ts % MINUTE) + MINUTE <= this.now) this.lateQuotes.push(quote)
    }
    return quotes
  }

  /** The hub takes some of the log, in one publish. */
  publish(count = Number.POSITIVE_INFINITY): void {
    const end = Math.min(this.log.length, this.read + count)
    const quotes = this.nextQuotes(end)
    if (end === this.read && quotes.length === 0) return
    const ticks = this.log.slice(this.read, end)
    this.read = end
    const bookmark = { partition: 0, incarnation: "log", offset: end, mark: undefined }
    this.hub.publish(ticks, this.recordedAt[end - 1] ?? this.now, { bookmark, isBehind: false }, quotes)
  }

  /** Records are gone that the hub had not read: it goes on behind them. */
  skip(count: number): void {
    for (let i = 0; i < count && this.read < this.log.length; i++) this.skipped.add(this.log[this.read++]!)
    this.lateQuotes.push(...this.nextQuotes(this.read))
    this.hub.live.begin({ partition: 0, incarnation: "log", offset: this.read }, this.now)
  }

  /** A tick that comes and is seen by all. */
  tick(token: number, exchange_ts: number, fields: Partial<Tick> = {}): Tick {
    const tick = this.add(token, exchange_ts, fields)
    this.store()
    this.publish()
    return tick
  }

  connect(fast = true): BarClient {
    const socket = new FakeSocket({ fast })
    const client = this.hub.connect(socket)
    client.join(this.hub.live)
    return new BarClient(socket, client)
  }

  /** What is over by now is told. */
  sweep(): void {
    for (const _ of this.hub.live.sweep());
  }

  /** What REST answers for a bar. */
  rest(token: number, interval: "1m" | "5m", ts: number) {
    const minutes = interval === "1m" ? 1 : 5
    const ticks = [...this.rows.values()].filter((row) => row.instrument_token === token)
    const inside = ticks.filter((row) => row.exchange_ts >= ts && row.exchange_ts < ts + minutes * MINUTE)
    const [bar] = barsOf(inside, minutes)
    if (bar === undefined) return undefined
    const oi = this.lastOf(token, ts, ts + minutes * MINUTE)?.oi
    const said = oi === undefined ? {} : { oi }
    return { ...bar, ...said, revision: inside.length, final: isFinal(ts, interval, this.now) }
  }

  /** Lets everything come to rest: the store has all, and the hub has asked it. */
  async settle(): Promise<void> {
    this.isStoreAway = false
    this.publish()
    this.store()
    this.sweep()
    for (let i = 0; i < 20; i++) await vi.advanceTimersByTimeAsync(500)
  }
}

type Candle = CandleFrame & Record<string, unknown>

export class BarClient {
  readonly socket: FakeSocket
  readonly client: ReturnType<Hub["connect"]>

  constructor(socket: FakeSocket, client: ReturnType<Hub["connect"]>) {
    this.socket = socket
    this.client = client
  }

  subscribe(token: number, channels: Parameters<typeof wantedOf>[0] = ["candle_1m", "candle_5m"]): void {
    this.client.subscribe(token, { channels: wantedOf(channels), since: undefined, backfill: 0 })
    this.client.flush()
  }

  /** Every frame of a type that came. */
  of(type: string): ReadonlyArray<Record<string, unknown>> {
    return this.socket.messages().filter((message) => message.type === type)
  }

  candles(interval?: "1m" | "5m"): ReadonlyArray<Candle> {
    return (this.of("candle") as ReadonlyArray<Candle>).filter(
      (one) => interval === undefined || one.interval === interval
    )
  }

  /** The last revision of each bar; fails where one came after a newer one. */
  last(): ReadonlyMap<string, Candle> {
    const last = new Map<string, Candle>()
    for (const candle of this.candles()) {
      const key = `${candle.instrument_token} ${candle.interval} ${candle.ts}`
      const before = last.get(key)
      if (before !== undefined) {
        assert.isTrue(candle.final || !before.final, `${key} was final before`)
      }
      last.set(key, candle)
    }
    return last
  }
}

/** Every bar that a client was sent is what REST answers; but for those that a tick was lost of on its way to the hub. */
export const assertAsRest = (world: BarWorld, client: BarClient): void => {
  const lost = [...world.skipped].map(
    (tick) => `${tick.instrument_token} ${tick.exchange_ts - (tick.exchange_ts % (5 * MINUTE))}`
  )
  for (const [key, candle] of client.last()) {
    const { type, instrument_token, interval, ...bar } = candle
    if (lost.includes(`${instrument_token} ${candle.ts - (candle.ts % (5 * MINUTE))}`)) continue
    assert.deepStrictEqual(bar as unknown, world.rest(instrument_token, interval, candle.ts), key)
  }
}

/** An IST midnight. */
export const midnight = (micros: number): number => tradingDayStart(tradingDay(micros))
