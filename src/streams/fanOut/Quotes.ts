/**
 * Decides which quotes of a channel are kept and told: the newest of each instrument, as one text to all who want it, and
 * the one there is to who comes. What memory does not hold is asked for outside it, many instruments at a time.
 */
import { quoteFrame } from "../../schema/Protocol.ts"
import type { Quote } from "../../schema/Quote.ts"
import { supersedes } from "../ports/RecentQuotes.ts"
import type { ClientQueue } from "./ClientQueue.ts"
import type { FoundQuotes } from "./history.ts"
import { type Listened, type Offers, Telling } from "./Listened.ts"
import type { LatestFrame } from "./latest.ts"
import type { ChannelHost } from "./parts.ts"
import { QUOTE } from "./sideChannels.ts"
import type { InstrumentTicks } from "./TickRing.ts"

/** Instruments asked for outside memory at a time; one question after the other. */
const ASK_INSTRUMENTS = 500
/** Asked again where nothing answered. */
const RETRY_MS = 5_000

const NOTHING: FoundQuotes = { quotes: new Map(), failed: true }

/** What the quotes need of their channel. */
export interface QuotesChannel {
  readonly host: Pick<ChannelHost, "history" | "isCurrent">
  readonly offers: Offers
  /** The market itself, of which there are quotes outside memory too. */
  readonly isLive: boolean
  /** One was found outside memory that is to be kept. */
  readonly found: (instrument: InstrumentTicks, quote: Quote) => void
}

export class Quotes {
  /** Instruments that one is kept of. */
  kept = 0
  private readonly channel: QuotesChannel
  private readonly changed: Telling<InstrumentTicks>
  /** Of which nothing is in memory, and somebody wants to know. */
  private readonly asked = new Set<InstrumentTicks>()
  private isAsking = false
  private retry: NodeJS.Timeout | undefined
  private isOver = false

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
    if (quote !== undefined || !this.channel.isLive || this.channel.host.history?.quotes === undefined) return
    this.asked.add(instrument)
    if (this.isAsking || this.retry !== undefined) return
    this.isAsking = true
    // Who subscribes to many is to cost one question.
    setImmediate(this.ask)
  }

  /** The quote is kept no longer. */
  forget(instrument: InstrumentTicks): void {
    if (instrument.quote === undefined) return
    instrument.quote = undefined
    this.kept--
  }

  restart(): void {
    this.kept = 0
    this.changed.clear()
  }

  /** Tells what is still to be told. */
  close(): void {
    this.isOver = true
    clearTimeout(this.retry)
    this.asked.clear()
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
    listened.quote ??= { key: `${token}`, text: quoteFrame(token, exchange_ts, quote), yields: true }
    return listened.quote
  }

  private readonly ask = async (): Promise<void> => {
    try {
      while (this.asked.size > 0 && !this.isOver) {
        if (await this.askSome()) continue
        this.retry = setTimeout(() => {
          this.retry = undefined
          this.isAsking = true
          void this.ask()
        }, RETRY_MS).unref()
        return
      }
    } finally {
      this.isAsking = false
    }
  }

  /** Asks for some of them; false where nothing answered, and they are to be asked for again. */
  private async askSome(): Promise<boolean> {
    const some: Array<InstrumentTicks> = []
    for (const instrument of this.asked) {
      if (instrument.quote !== undefined || ((instrument.listened?.wanted ?? 0) & QUOTE) === 0) {
        this.asked.delete(instrument)
        continue
      }
      some.push(instrument)
      if (some.length === ASK_INSTRUMENTS) break
    }
    if (some.length === 0) return true
    const tokens = some.map(({ token }) => token)
    const { quotes, failed } = await this.channel.host.history!.quotes!(tokens).catch(() => NOTHING)
    for (const instrument of some) {
      const quote = quotes.get(instrument.token)
      if (quote === undefined && failed) continue
      this.asked.delete(instrument)
      if (quote !== undefined && instrument.listened !== undefined && this.isCurrent(quote)) {
        this.channel.found(instrument, quote)
      }
    }
    this.settle()
    return !failed
  }
}
