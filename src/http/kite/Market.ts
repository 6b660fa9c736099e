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
import type { Follower } from "../../streams/fanOut/parts.ts"
import { Figures, type Known } from "./Figures.ts"

/** Ticks that wait for an instrument's day so far; one more, and it is taken as it was found. */
const MAX_PENDING = 1000

/** Who is told of an instrument's figures. */
export interface Watcher {
  /** They have changed. */
  readonly changed: (figures: Figures) => void
  /** What changed at once is told. */
  readonly flush: () => void
  /** The run begins anew: what lies before it is to be found again. */
  readonly restarted: () => void
}

/** An instrument that somebody wants, or that a replay has brought. */
export class Watched {
  readonly figures: Figures
  readonly watchers = new Set<Watcher>()
  /** The day so far was found. */
  isFound = false
  /** Where the stream stood when it was first wanted: what is found may be older than that. */
  readonly stood: Place | undefined
  /** What has come since, until what was found reaches up to it. */
  pending: Array<Tick> | undefined = []

  constructor(token: number, stood: Place | undefined) {
    this.figures = new Figures(token)
    this.stood = stood
  }

  /** Whether what was found says all up to where the stream stood. */
  reaches(place: Place | undefined): boolean {
    const { stood } = this
    return stood === undefined || (place !== undefined && !isAfter(stood.epoch, stood.position, place))
  }

  /** What was found is what is known, with what has come since; `isLast`: nothing newer is to be found. */
  found(known: Known | undefined, isLast: boolean): void {
    const { figures, pending } = this
    this.isFound = true
    if (known !== undefined) figures.begin(known)
    for (const tick of pending ?? []) figures.take(tick)
    if (isLast) this.pending = undefined
  }
}

export class Market implements Follower {
  readonly channel: Channel
  readonly isLive: boolean
  /** A run has told ticks from here on (µs): what is before is to be found elsewhere. Undefined before the first. */
  since: number | undefined
  /** The stamp of the newest tick of the run. */
  newest: number | undefined
  /** Nothing more comes. */
  isOver = false
  private readonly watched = new Map<number, Watched>()
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
      one = new Watched(token, this.isLive ? this.channel.place(token) : undefined)
      if (!this.isLive) one.pending = undefined
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

  /** Of the live market nothing is carried on with that nobody wants. */
  private release(one: Watched): void {
    if (this.isLive && one.watchers.size === 0) this.watched.delete(one.figures.token)
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
    return this.want(token)
  }

  private take(tick: Tick, told: Set<Watcher>): void {
    const one = this.carried(tick.instrument_token, tick.exchange_ts)
    if (one === undefined) return
    if (one.pending !== undefined) {
      if (one.pending.length < MAX_PENDING) one.pending.push(tick)
      else one.pending = undefined
      if (!one.isFound) return
    }
    if (one.figures.take(tick)) this.tell(one, told)
  }

  private takeQuote(quote: Quote, told: Set<Watcher>): void {
    if (quote.old) return
    const one = this.carried(quote.instrument_token, quote.exchange_ts)
    if (one?.figures.takeQuote(quote) === true && (one.isFound || !this.isLive)) this.tell(one, told)
  }

  private tell({ figures, watchers }: Watched, told: Set<Watcher>): void {
    for (const watcher of watchers) {
      watcher.changed(figures)
      told.add(watcher)
    }
  }

  restart(): void {
    this.since = undefined
    this.newest = undefined
    const told = new Set<Watcher>()
    for (const [token, one] of this.watched) {
      one.figures.forget()
      one.isFound = false
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
