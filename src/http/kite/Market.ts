/**
 * Decides what the gateway keeps of one market, the live one or a replay: the figures of the instruments that somebody
 * wants, found where they are kept and carried on by what is published, and who is told when they change.
 */

import type { Place } from "../../schema/Protocol.ts"
import type { Quote } from "../../schema/Quote.ts"
import type { Tick } from "../../schema/Tick.ts"
import { isAfter } from "../../schema/Tick.ts"
import type { Channel } from "../../streams/fanOut/Channel.ts"
import { LIVE } from "../../streams/fanOut/Channel.ts"
import type { Follower, LogPlace } from "../../streams/fanOut/parts.ts"
import { Figures, type Known } from "./Figures.ts"

/** Ticks that wait for an instrument's day so far, and for those of all; with more the day is to be found up to here. */
const MAX_PENDING = 1000
const MAX_ALL_PENDING = 100_000

/** Who is told of an instrument's figures. */
export interface Watcher {
  /** They have changed. */
  readonly changed: (figures: Figures) => void
  /** What changed at once is told. */
  readonly flush: () => void
  /** What lies before is to be found again: the run begins anew, or something was lost on its way here. */
  readonly restarted: () => void
}

/** An instrument that somebody wants, or that a replay has brought. */
export class Watched {
  readonly figures: Figures
  readonly watchers = new Set<Watcher>()
  /** Something of the run has come of it. */
  hasCome = false
  /** The day so far was found, if only up to where the store was then. */
  isFound = false
  /** Where its stream stood when it was first wanted, as far as anybody knows: what is found may be older than that. */
  stood: Place | undefined
  /** How far the log was read then; undefined: nobody knows. */
  need: LogPlace | undefined
  /** What has come since, until what was found reaches up to it. */
  pending: Array<Tick> | undefined
  /** No later quote is to be found than what is known, if only that there is none. */
  isQuoteNewest = true

  constructor(token: number, market: Market) {
    this.figures = new Figures(token)
    if (!market.isLive) return
    this.stood = market.channel.place(token)
    this.need = market.channel.readTo(token)
    this.pending = []
    this.isQuoteNewest = false
  }

  /** Nothing is to be found that is not known. */
  get isSettled(): boolean {
    return this.isFound && this.pending === undefined && this.isQuoteNewest
  }

  /** Whether what was found up to a place says all up to where the stream stood. */
  reaches(place: Place | undefined): boolean {
    const { need, stood } = this
    if (stood === undefined) return need === undefined
    return place !== undefined && !isAfter(stood.epoch, stood.position, place)
  }
}

export class Market implements Follower {
  readonly channel: Channel
  readonly isLive: boolean
  /** A run has told ticks from here on (µs): what is before is to be found elsewhere. Undefined before the first. */
  since: number | undefined
  /** The stamp of the newest tick of the run. */
  newest: number | undefined
  /** Counts the runs of a replay. */
  run = 1
  /** Nothing more comes. */
  isOver = false
  private readonly watched = new Map<number, Watched>()
  /** Ticks that wait for the days so far of all. */
  private pending = 0
  private readonly closed = new Set<() => void>()

  constructor(channel: Channel) {
    this.channel = channel
    this.isLive = channel.key === LIVE
  }

  get key(): string {
    return this.channel.key
  }

  /** Of an instrument, where somebody wants it or the replay has brought it. */
  of(token: number): Watched | undefined {
    return this.watched.get(token)
  }

  /** The instrument, from now on carried on with. */
  want(token: number): Watched {
    let one = this.watched.get(token)
    if (one === undefined) {
      one = new Watched(token, this)
      this.watched.set(token, one)
    }
    return one
  }

  watch(token: number, watcher: Watcher): Watched {
    const one = this.want(token)
    one.watchers.add(watcher)
    return one
  }

  unwatch(token: number, watcher: Watcher): void {
    const one = this.watched.get(token)
    if (one?.watchers.delete(watcher) === true) this.release(one)
  }

  /** Nothing is carried on with that nobody wants; of a replay what has come is, for who comes later. */
  private release(one: Watched): void {
    if (one.hasCome || one.watchers.size > 0) return
    this.watched.delete(one.figures.token)
    this.pending -= one.pending?.length ?? 0
  }

  /**
   * Takes what was found of the live market's day so far, with what has come since. `isAll`: it says all up to where the
   * stream stood. Where it does not, what is known is the most that was seen, until it is found again.
   */
  found(one: Watched, known: Known | undefined, isAll: boolean): void {
    const { figures, pending } = one
    if (this.watched.get(figures.token) !== one) return
    // As it was first found, and what has come since: that is all.
    if (one.isFound && pending === undefined) return
    one.isFound = true
    const isOfDay = known !== undefined && (figures.day === undefined || known.day >= figures.day)
    if (isOfDay) {
      const day = new Figures(figures.token)
      day.begin(known)
      for (const tick of pending ?? []) day.take(tick)
      figures.learn(day)
      figures.lacksDay &&= known.day !== figures.day
    }
    if (!isAll) return
    figures.lacksDay = false
    this.pending -= pending?.length ?? 0
    one.pending = undefined
  }

  /** Calls once nothing more comes; what it answers stops that. */
  onClose(listener: () => void): () => void {
    this.closed.add(listener)
    return () => this.closed.delete(listener)
  }

  published(ticks: ReadonlyArray<Tick>, quotes: ReadonlyArray<Quote>): void {
    if (this.watched.size === 0 && this.isLive) return
    const told = new Set<Watcher>()
    let taken = 0
    for (const tick of ticks) {
      // Of a replay all is in the order of time: a quote comes after the ticks of its stamp.
      while (!this.isLive && taken < quotes.length && quotes[taken]!.exchange_ts < tick.exchange_ts) {
        this.takeQuote(quotes[taken++]!, told)
      }
      if (!tick.old) this.take(tick, told)
    }
    while (taken < quotes.length) this.takeQuote(quotes[taken++]!, told)
    for (const watcher of told) watcher.flush()
  }

  /** The instrument of what has come, where it is carried on with; of a replay every one is. */
  private carried(token: number, exchange_ts: number): Watched | undefined {
    if (this.isLive) return this.watched.get(token)
    this.since ??= exchange_ts
    this.newest = exchange_ts
    const one = this.want(token)
    one.hasCome = true
    return one
  }

  private take(tick: Tick, told: Set<Watcher>): void {
    const one = this.carried(tick.instrument_token, tick.exchange_ts)
    if (one === undefined) return
    const { figures, pending, stood } = one
    const { day } = figures
    if (pending !== undefined && stood !== undefined && !isAfter(tick.epoch, tick.position, stood)) return
    if (!figures.take(tick)) return
    if (pending !== undefined) {
      if (figures.day !== day) figures.lacksDay = true
      this.keep(one, pending, tick)
    }
    this.tell(one, told)
  }

  /** Keeps a tick until the day before it is found; where there are too many, the day is to be found up to this one. */
  private keep(one: Watched, pending: Array<Tick>, tick: Tick): void {
    if (pending.length < MAX_PENDING && this.pending < MAX_ALL_PENDING) {
      pending.push(tick)
      this.pending++
      return
    }
    this.pending -= pending.length
    one.pending = []
    one.stood = { epoch: tick.epoch, position: tick.position }
    one.need = this.channel.readTo(tick.instrument_token)
  }

  private takeQuote(quote: Quote, told: Set<Watcher>): void {
    if (quote.old) return
    const one = this.carried(quote.instrument_token, quote.exchange_ts)
    if (one === undefined) return
    one.isQuoteNewest = true
    if (one.figures.takeQuote(quote)) this.tell(one, told)
  }

  private tell({ figures, watchers }: Watched, told: Set<Watcher>): void {
    for (const watcher of watchers) {
      watcher.changed(figures)
      told.add(watcher)
    }
  }

  missed(): void {
    const told = new Set<Watcher>()
    for (const [token, one] of this.watched) {
      this.pending -= one.pending?.length ?? 0
      one.isFound = false
      one.pending = []
      one.isQuoteNewest = false
      // How far its stream came before says nothing of what was lost.
      one.stood = undefined
      one.need = this.channel.readTo(token)
      for (const watcher of one.watchers) told.add(watcher)
    }
    for (const watcher of told) watcher.restarted()
  }

  restart(): void {
    this.run++
    this.since = undefined
    this.newest = undefined
    const told = new Set<Watcher>()
    for (const [token, one] of this.watched) {
      one.figures.forget()
      one.isFound = one.hasCome = false
      for (const watcher of one.watchers) told.add(watcher)
      if (one.watchers.size === 0) this.watched.delete(token)
    }
    for (const watcher of told) watcher.restarted()
  }

  close(): void {
    this.isOver = true
    for (const listener of this.closed) listener()
    this.closed.clear()
  }
}
