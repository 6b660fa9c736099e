/**
 * Decides which quotes of a channel are kept and told: the newest of each instrument, as one text to all who want it, and
 * the one there is to who comes. What memory does not hold is asked for outside it, many instruments at a time. What is
 * found there may be an older one for as long as the store has not come to where the log is read here: it is told, and
 * asked for again then.
 */
import { quoteFrame } from "../../schema/Protocol.ts"
import type { Quote } from "../../schema/Quote.ts"
import { supersedes } from "../ports/RecentQuotes.ts"
import type { ClientQueue } from "./ClientQueue.ts"
import type { FoundQuotes } from "./history.ts"
import { type Listened, type Offers, Telling } from "./Listened.ts"
import { keyOfYielding, type LatestFrame } from "./latest.ts"
import type { ChannelHost, LogPlace } from "./parts.ts"
import { QUOTE } from "./sideChannels.ts"
import type { InstrumentTicks } from "./TickRing.ts"

/** Instruments asked for outside memory at a time; one question after the other. */
const ASK_INSTRUMENTS = 500
/** Asked again where nothing answered; and how often it is looked how far the store has come. */
const RETRY_MS = 5_000

const NOTHING: FoundQuotes = { quotes: new Map(), failed: true }

/** What the quotes need of their channel. */
export interface QuotesChannel {
  readonly host: Pick<ChannelHost, "history" | "isCurrent">
  readonly offers: Offers
  /** The market itself, of which there are quotes outside memory too. */
  readonly isLive: boolean
  /** Where reading of an instrument's partition began, and where it is now; undefined: nobody knows. */
  readonly began: (token: number) => LogPlace | undefined
  readonly read: (token: number) => LogPlace | undefined
  /** One was found outside memory that is to be kept. */
  readonly found: (instrument: InstrumentTicks, quote: Quote) => void
}

export class Quotes {
  /** Instruments that one is kept of. */
  kept = 0
  private readonly channel: QuotesChannel
  private readonly changed: Telling<InstrumentTicks>
  /** Of which memory may not have the newest, and somebody wants to know; each with how far the store must have come. */
  private readonly asked = new Map<InstrumentTicks, LogPlace | undefined>()
  /** Those that were asked for before the store had come there. */
  private readonly waiting = new Map<InstrumentTicks, LogPlace>()
  private isAsking = false
  private retry: NodeJS.Timeout | undefined
  private watch: NodeJS.Timeout | undefined
  private isOver = false
  /** Of what is not in memory something may have come here. */
  private hasForgotten = false

  constructor(channel: QuotesChannel) {
    this.channel = channel
    this.changed = new Telling(
      (instrument) => this.tellOne(instrument),
      () => channel.offers.hand()
    )
  }

  /** Takes an instrument's quote where it is the newest. */
  take(instrument: InstrumentTicks, quote: Quote): void {
    const { listened, quote: known } = instrument
    if (known !== undefined && !supersedes(quote, known)) return
    if (known === undefined) this.kept++
    instrument.quote = quote
    if (listened === undefined) return
    listened.quote = undefined
    if ((listened.wanted & QUOTE) === 0 || listened.isQuoteNew) return
    listened.isQuoteNew = true
    this.changed.add(instrument)
  }

  /** Tells what is new: of each instrument the newest. */
  settle(): void {
    if (this.changed.size > 0 && !this.changed.isGoingOn) this.changed.tell()
  }

  /** Puts into a client's slots the quote that it has come to want, at once or when it was found. */
  welcome(instrument: InstrumentTicks, listened: Listened, queue: ClientQueue): void {
    const { quote } = instrument
    if (quote !== undefined && this.isCurrent(quote)) queue.offer(this.frame(instrument, quote, listened))
    if (!instrument.isQuoteNewest) this.look(instrument)
  }

  /** Quotes were lost on their way here: of which instruments nobody knows. */
  doubt(instruments: Iterable<InstrumentTicks>): void {
    this.asked.clear()
    this.waiting.clear()
    for (const instrument of instruments) {
      instrument.isQuoteNewest = false
      if (isSought(instrument)) this.look(instrument)
    }
  }

  /** The quote is kept no longer. */
  forget(instrument: InstrumentTicks): void {
    instrument.isQuoteNewest = false
    this.asked.delete(instrument)
    this.waiting.delete(instrument)
    if (instrument.quote === undefined) return
    instrument.quote = undefined
    this.kept--
    this.hasForgotten = true
  }

  restart(): void {
    this.kept = 0
    this.changed.clear()
  }

  /** Tells what is still to be told. */
  close(): void {
    this.isOver = true
    clearTimeout(this.retry)
    clearTimeout(this.watch)
    this.asked.clear()
    this.waiting.clear()
    this.changed.tell(Number.POSITIVE_INFINITY)
  }

  /** In a replay whatever comes is of its day. */
  private isCurrent(quote: Quote): boolean {
    return !this.channel.isLive || this.channel.host.isCurrent(quote)
  }

  private tellOne(instrument: InstrumentTicks): number {
    const { listened, quote } = instrument
    if (listened === undefined || !listened.isQuoteNew) return 0
    listened.isQuoteNew = false
    if (quote === undefined || (listened.wanted & QUOTE) === 0) return 0
    return this.channel.offers.put(listened, this.frame(instrument, quote, listened), QUOTE)
  }

  /** One text, however many clients it goes to and whenever they come. */
  private frame({ token }: InstrumentTicks, quote: Quote, listened: Listened): LatestFrame {
    const { exchange_ts } = quote
    listened.quote ??= { token, key: keyOfYielding(token), text: quoteFrame(token, exchange_ts, quote), yields: true }
    return listened.quote
  }

  /** Has what is outside memory told of an instrument, until that is known to be the newest. */
  private look(instrument: InstrumentTicks): void {
    const { began, host, isLive, read } = this.channel
    if (!isLive || host.history?.quotes === undefined || this.waiting.has(instrument)) return
    if (!this.asked.has(instrument)) {
      const place = this.hasForgotten ? read : began
      this.asked.set(instrument, host.history.bars === undefined ? undefined : place(instrument.token))
    }
    this.start()
  }

  private start(): void {
    if (this.isAsking || this.retry !== undefined || this.asked.size === 0 || this.isOver) return
    this.isAsking = true
    // Who subscribes to many is to cost one question.
    setImmediate(this.ask)
  }

  private readonly ask = async (): Promise<void> => {
    try {
      while (this.asked.size > 0 && !this.isOver) {
        if (await this.askSome()) continue
        this.retry = setTimeout(() => {
          this.retry = undefined
          this.start()
        }, RETRY_MS).unref()
        return
      }
    } finally {
      this.isAsking = false
    }
  }

  /** Asks for some of them; false where nothing answered, and they are to be asked for again. */
  private async askSome(): Promise<boolean> {
    const some = new Map<InstrumentTicks, LogPlace | undefined>()
    for (const [instrument, need] of this.asked) {
      if (!isSought(instrument)) {
        this.asked.delete(instrument)
        continue
      }
      some.set(instrument, need)
      if (some.size === ASK_INSTRUMENTS) break
    }
    if (some.size === 0) return true
    // Before the quotes: what the store has come past is in its answer.
    const isReached = await this.reached(some.values())
    const tokens = Array.from(some.keys(), ({ token }) => token)
    const { quotes, failed } = await this.channel.host.history!.quotes!(tokens).catch(() => NOTHING)
    for (const [instrument, need] of some) {
      // Something was lost meanwhile, or forgotten: it was asked too early.
      if (!this.asked.has(instrument) || this.asked.get(instrument) !== need) continue
      this.asked.delete(instrument)
      // Who wanted to know has left, so that what was found is not kept: then nor is it known. Or it has come here meanwhile.
      if (!isSought(instrument)) continue
      const isNewest = !failed && need !== undefined && isReached(need)
      // Before it is kept: where that is too many it may be forgotten at once.
      if (isNewest) instrument.isQuoteNewest = true
      const quote = quotes.get(instrument.token)
      if (quote !== undefined && this.isCurrent(quote)) this.channel.found(instrument, quote)
      // Behind the others, so that each has its turn.
      if (failed) this.asked.set(instrument, need)
      else if (need !== undefined && !isNewest) this.await(instrument, need)
    }
    this.settle()
    return !failed
  }

  /** Asks again once the store has come to a place: what it had not stored before may be a newer one. */
  private await(instrument: InstrumentTicks, need: LogPlace): void {
    this.waiting.set(instrument, need)
    this.watch ??= setTimeout(this.lookAtStore, RETRY_MS).unref()
  }

  private readonly lookAtStore = async (): Promise<void> => {
    const isReached = await this.reached(this.waiting.values())
    this.watch = undefined
    for (const [instrument, need] of this.waiting) {
      if (isSought(instrument) && !isReached(need)) continue
      this.waiting.delete(instrument)
      if (isSought(instrument)) this.asked.set(instrument, need)
    }
    if (this.isOver) return
    if (this.waiting.size > 0) this.watch = setTimeout(this.lookAtStore, RETRY_MS).unref()
    this.start()
  }

  /** Whether the store has come to places in the log by now; where it does not answer it has not. */
  private async reached(needs: Iterable<LogPlace | undefined>): Promise<(need: LogPlace) => boolean> {
    const incarnations = new Set<string>()
    for (const need of needs) if (need !== undefined) incarnations.add(need.incarnation)
    const found = new Map<string, ReadonlyMap<number, number> | undefined>()
    for (const incarnation of incarnations) {
      found.set(incarnation, await this.channel.host.history?.bars?.reached(incarnation).catch(() => undefined))
    }
    return ({ incarnation, partition, offset }) => {
      const offsets = found.get(incarnation)
      return offsets !== undefined && (offsets.get(partition) ?? 0) >= offset
    }
  }
}

/** Somebody wants to know of it, and the newest is not known. */
const isSought = ({ isQuoteNewest, listened }: InstrumentTicks): boolean =>
  !isQuoteNewest && ((listened?.wanted ?? 0) & QUOTE) !== 0
