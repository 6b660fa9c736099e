/**
 * Decides how the application subscribes, alike to the market and to a replay: message by message, or by events. What it
 * asks for is looked through before the server sees it.
 */
import { Unsupported } from "./errors.ts"
import { Emitter } from "./events.ts"
import type { Feed, FeedEvents } from "./Feed.ts"
import type {
  Candle,
  Channel,
  InstrumentName,
  InstrumentState,
  Message,
  Places,
  QuoteUpdate,
  Tick
} from "./messages.ts"
import { Stream, Subscription, type Wanted, type WhenFull } from "./Subscription.ts"

export type Instruments = InstrumentName | ReadonlyArray<InstrumentName>
export type Events = FeedEvents

/** Of ticks, before the live ones. */
export interface FromOptions {
  /** So many of the newest ticks first; what is not to be had of them is told as missed. */
  readonly backfill?: number
  /** Everything after these places first, as `places()` gave them. It goes before `backfill`. */
  readonly since?: Places
}

export interface StreamingOptions {
  /** Messages that may wait for the application. */
  readonly bufferSize?: number
  /**
   * What becomes of more: `evict-oldest` lets the oldest go and tells which ticks they were, `error` ends the stream with
   * `BufferFull`, `pause` leaves the socket unread (where the runtime's can be: that of the package `ws`), so that the
   * server's policy decides. The socket is shared: a stream that pauses it holds up all of the client's.
   */
  readonly whenFull?: WhenFull
  /** False: an instrument that is refused is an `error` event, and the others go on. True, the default: it ends the stream. */
  readonly strict?: boolean
  /** Ends the stream with its reason. */
  readonly signal?: AbortSignal
}

export interface SubscribeOptions extends FromOptions {
  /** `tick` and `gap` unless given. */
  readonly channels?: ReadonlyArray<Channel>
}

export interface SourceOptions {
  readonly bufferSize: number
  readonly whenFull: WhenFull
}

const CHANNELS: ReadonlyArray<Channel> = ["tick", "gap", "quote", "candle_1m", "candle_5m", "state"]
const DEFAULT_CHANNELS: ReadonlyArray<Channel> = ["tick", "gap"]
const POLICIES: ReadonlyArray<WhenFull> = ["evict-oldest", "error", "pause"]
/** As the server bounds them. */
const MAX_TOKEN = 2_147_483_647
const MAX_SYMBOL_CHARS = 64
const MAX_BACKFILL = 100_000
const MAX_PLACES = 2_000

const isTick = (message: Message): message is Tick => message.type === "tick"
const isQuote = (message: Message): message is QuoteUpdate => message.type === "quote"
const isState = (message: Message): message is InstrumentState => message.type === "state"
const isAny = (_message: Message): _message is Message => true

export abstract class Source extends Emitter<FeedEvents> {
  /** @internal */
  protected abstract readonly feed: Feed
  readonly #options: SourceOptions

  /** @internal */
  constructor(options: SourceOptions) {
    super()
    this.#options = options
  }

  /** Instruments that are asked for where none are named. @internal */
  protected get named(): Instruments | undefined {
    return undefined
  }

  /** Something is subscribed to. @internal */
  protected listened(_subscription: Subscription): void {}

  /** Ticks, each once and in order. What is missed is counted (`missed`) and an event. */
  ticks(instruments?: Instruments, options: FromOptions & StreamingOptions = {}): Stream<Tick> {
    return this.#stream(instruments, ["tick"], options, isTick)
  }

  /** Live bars: the one under way first, then each change; `final` once its time is over. */
  candles(instruments: Instruments | undefined, interval: "1m" | "5m", options: StreamingOptions = {}): Stream<Candle> {
    if (interval !== "1m" && interval !== "5m") {
      throw new Unsupported(`interval: expected "1m" or "5m" of live candles, got ${shown(interval)}`)
    }
    const isCandle = (message: Message): message is Candle => message.type === "candle" && message.interval === interval
    return this.#stream(instruments, [`candle_${interval}`], options, isCandle)
  }

  /**
   * What is known of book and day: the quote there is first, then newer ones in their order. A slow reader is behind by
   * what waits for it here, up to `bufferSize` of them; what becomes of more is said by `whenFull`. Only of what the server
   * could not hand over does it send the newest of each instrument alone.
   */
  quoteUpdates(instruments?: Instruments, options: StreamingOptions = {}): Stream<QuoteUpdate> {
    return this.#stream(instruments, ["quote"], options, isQuote)
  }

  /** Whether instruments trade, as it changes. */
  states(instruments?: Instruments, options: StreamingOptions = {}): Stream<InstrumentState> {
    return this.#stream(instruments, ["state"], options, isState)
  }

  /** Everything in the order in which it happened, what was missed among it. */
  messages(instruments?: Instruments, options: SubscribeOptions & StreamingOptions = {}): Stream<Message> {
    return this.#stream(instruments, options.channels ?? DEFAULT_CHANNELS, options, isAny)
  }

  /** Subscribes for events alone. */
  subscribe(instruments?: Instruments, options: SubscribeOptions = {}): Subscription {
    const wanted = this.#wanted(instruments, options.channels ?? DEFAULT_CHANNELS, options, false)
    const subscription = new Subscription(this.feed.host, wanted)
    this.feed.add(subscription)
    this.listened(subscription)
    return subscription
  }

  #stream<A extends Message>(
    instruments: Instruments | undefined,
    channels: ReadonlyArray<Channel>,
    options: FromOptions & StreamingOptions,
    gives: (message: Message) => message is A
  ): Stream<A> {
    const { bufferSize = this.#options.bufferSize, whenFull = this.#options.whenFull, signal } = options
    checkBuffer(bufferSize, whenFull, this.feed.link.canHold)
    const wanted = this.#wanted(instruments, channels, options, options.strict ?? true)
    const stream = new Stream(this.feed.host, wanted, { bufferSize, whenFull, signal, gives })
    if (signal?.aborted === true) return stream
    this.feed.add(stream)
    this.listened(stream)
    return stream
  }

  #wanted(
    instruments: Instruments | undefined,
    channels: ReadonlyArray<Channel>,
    { backfill = 0, since = {} }: FromOptions,
    strict: boolean
  ): Wanted {
    const names = namesOf(instruments ?? this.named)
    for (const channel of channels) {
      if (!CHANNELS.includes(channel)) {
        throw new Unsupported(`channels: expected some of ${CHANNELS.join(", ")}, got ${shown(channel)}`)
      }
    }
    if (channels.length === 0) throw new Unsupported("channels: expected at least one, got none")
    if (!Number.isInteger(backfill) || backfill < 0 || backfill > MAX_BACKFILL) {
      throw new Unsupported(`backfill: expected a whole number from 0 to ${MAX_BACKFILL}, got ${shown(backfill)}`)
    }
    for (const [token, place] of Object.entries(since)) {
      if (isToken(Number(token)) && Array.isArray(place) && place.length === 2 && place.every(isCount)) continue
      throw new Unsupported(
        `since.${token}: expected [epoch, position] by token, as places() gives, got ${shown(place)}`
      )
    }
    const places = Object.keys(since).length
    if (places > MAX_PLACES && names.some((name) => typeof name === "string")) {
      throw new Unsupported(
        `since: expected at most ${MAX_PLACES} places with symbols, got ${places}; name tokens instead, or subscribe in parts`
      )
    }
    const isAsked = backfill > 0 || places > 0
    if (isAsked && !channels.includes("tick")) {
      const field = backfill > 0 ? "backfill" : "since"
      throw new Unsupported(`${field}: goes with the channel tick, got ${channels.join(", ")} as channels`)
    }
    return { names, channels: new Set(channels), backfill, since, strict }
  }
}

export const checkBuffer = (bufferSize: number, whenFull: WhenFull, canHold: boolean): void => {
  if (!Number.isInteger(bufferSize) || bufferSize < 1) {
    throw new Unsupported(`bufferSize: expected a whole number from 1 on, got ${shown(bufferSize)}`)
  }
  if (!POLICIES.includes(whenFull)) {
    throw new Unsupported(`whenFull: expected one of ${POLICIES.join(", ")}, got ${shown(whenFull)}`)
  }
  if (whenFull === "pause" && !canHold) {
    throw new Unsupported(
      "whenFull: expected evict-oldest or error, got pause: this WebSocket cannot be left unread; in Node give that of the package ws as WebSocket"
    )
  }
}

const isToken = (name: unknown): boolean => isCount(name) && (name as number) >= 1 && (name as number) <= MAX_TOKEN
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0

/** Each once, in the order given. */
const namesOf = (instruments: Instruments | undefined): ReadonlyArray<InstrumentName> => {
  const names = Array.isArray(instruments) ? instruments : instruments === undefined ? [] : [instruments]
  if (names.length === 0) throw new Unsupported("instruments: expected at least one symbol or token, got none")
  for (const name of names) {
    const isName = typeof name === "string" ? name !== "" && name.length <= MAX_SYMBOL_CHARS : isToken(name)
    if (isName) continue
    throw new Unsupported(
      `instruments: expected symbols such as NSE:INFY, or tokens from 1 to ${MAX_TOKEN}, got ${shown(name)}`
    )
  }
  return [...new Set(names)]
}

export const shown = (value: unknown): string => (typeof value === "string" ? JSON.stringify(value) : String(value))
