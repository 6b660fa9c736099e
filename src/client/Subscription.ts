/**
 * Decides what the application holds of what it subscribed to: what became of each instrument, where its streams stand,
 * and, for whoever asks message by message, what waits for it.
 */
import { Buffer } from "./Buffer.ts"
import { BufferFull, type MarketDataError } from "./errors.ts"
import type { Answer, Channel, InstrumentName, Message, Missed, Place, Places } from "./messages.ts"

/** What becomes of messages that an application does not take in time. */
export type WhenFull = "evict-oldest" | "error" | "pause"

/** What a subscription is to whoever feeds it. */
export interface Host {
  /** The application wants no more. */
  readonly leave: (subscription: Subscription) => void
  /** Where an instrument's stream stands. */
  readonly place: (token: number) => Place | undefined
  readonly tell: (missed: Missed) => void
  /** The socket is not to be read while anybody says so. */
  readonly hold: (subscription: Subscription, isHeld: boolean) => void
}

export interface Wanted {
  readonly names: ReadonlyArray<InstrumentName>
  readonly channels: ReadonlySet<Channel>
  readonly backfill: number
  readonly since: Places
  /** An instrument that is refused ends it. */
  readonly strict: boolean
}

/** A socket is read again once the stream that held it has come down to this share of its size. */
const READS_AGAIN_AT = 0.5

/** A subscription whose messages come as events. */
export class Subscription {
  /** What became of each instrument, in the order asked. Ends empty where the subscription ends first. */
  readonly accepted: Promise<ReadonlyArray<Answer>>
  /** Ticks that were told as missed, where it is known how many. */
  missed = 0
  /** @internal */
  readonly wanted: Wanted
  /** @internal */
  readonly wantsTicks: boolean
  /** The application is told by the stream itself why it ended. @internal */
  get throws(): boolean {
    return false
  }
  /** @internal */
  protected readonly host: Host
  /** @internal */
  protected isOver = false
  readonly #answers = new Map<InstrumentName, Answer | undefined>()
  /** What each token was asked for as. */
  readonly #names = new Map<number, Array<InstrumentName>>()
  #unanswered: number
  #accept!: (answers: ReadonlyArray<Answer>) => void

  /** @internal */
  constructor(host: Host, wanted: Wanted) {
    this.host = host
    this.wanted = wanted
    this.wantsTicks = wanted.channels.has("tick")
    for (const name of wanted.names) this.#answers.set(name, undefined)
    this.#unanswered = this.#answers.size
    this.accepted = new Promise((resolve) => {
      this.#accept = resolve
    })
  }

  /** Where each instrument's stream stands for the application: what `since` takes, here or in another process. */
  places(): Places {
    return Object.fromEntries(
      this.tokens().flatMap((token) => {
        const place = this.host.place(token)
        return place === undefined ? [] : [[String(token), place]]
      })
    )
  }

  /** Ends it; what nobody else wants is unsubscribed. */
  close(): void {
    if (this.isOver) return
    this.isOver = true
    this.#accept([])
    this.host.leave(this)
  }

  /** Tokens that the server accepted. @internal */
  protected tokens(): ReadonlyArray<number> {
    return [...this.#answers.values()].flatMap((answer) => (answer?.accepted ? [answer.instrument_token] : []))
  }

  /** What an instrument was asked for as is known. @internal */
  named(token: number, name: InstrumentName): void {
    const names = this.#names.get(token)
    if (names === undefined) this.#names.set(token, [name])
    else if (!names.includes(name)) names.push(name)
  }

  /** The tokens that are known of what was asked for. @internal */
  known(): Iterable<number> {
    return this.#names.keys()
  }

  /** What an instrument was asked for as. @internal */
  namesOf(token: number): ReadonlyArray<InstrumentName> {
    return this.#names.get(token) ?? []
  }

  /** @internal */
  answered(name: InstrumentName, answer: Answer): void {
    if (!this.#answers.has(name) || this.#answers.get(name) !== undefined) return
    this.#answers.set(name, answer)
    if (--this.#unanswered === 0) this.#accept([...this.#answers.values()].map((known) => known!))
  }

  /** @internal */
  take(message: Message): void {
    if (message.type === "missed") this.missed += message.count ?? 0
  }

  /** Ends by itself, with a reason or as what it told of has ended. @internal */
  end(_error?: MarketDataError): void {
    this.close()
  }
}

export interface StreamOptions<A extends Message> {
  readonly bufferSize: number
  readonly whenFull: WhenFull
  readonly signal: AbortSignal | undefined
  /** Of what comes, what the application is given. */
  readonly gives: (message: Message) => message is A
}

interface Waiting<A> {
  readonly resolve: (result: IteratorResult<A, undefined>) => void
  readonly reject: (error: unknown) => void
}

/** A subscription whose messages are taken one by one: `for await (const tick of stream)`. Leaving the loop ends it. */
export class Stream<A extends Message> extends Subscription {
  readonly #options: StreamOptions<A>
  readonly #buffer: Buffer
  readonly #places = new Map<number, Place>()
  readonly #waiting: Array<Waiting<A>> = []
  #isHeld = false
  #hasFailed = false
  #error: unknown
  readonly #aborted = () => {
    this.#buffer.clear()
    this.#fail(this.#options.signal!.reason)
  }

  /** @internal */
  constructor(host: Host, wanted: Wanted, options: StreamOptions<A>) {
    super(host, wanted)
    this.#options = options
    this.#buffer = new Buffer(options.bufferSize)
    for (const [token, place] of Object.entries(wanted.since)) this.#places.set(Number(token), place)
    options.signal?.addEventListener("abort", this.#aborted, { once: true })
    if (options.signal?.aborted === true) queueMicrotask(this.#aborted)
  }

  /** @internal */
  override get throws(): boolean {
    return true
  }

  /** Messages that its full buffer let go, ticks or others. */
  get evicted(): number {
    return this.#buffer.evicted
  }

  /** Messages that wait for the application. */
  get waiting(): number {
    return this.#buffer.count
  }

  /** Where each instrument's stream stands by what the application has taken of it. */
  override places(): Places {
    return Object.fromEntries(this.#places)
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  next(): Promise<IteratorResult<A, undefined>> {
    const message = this.#shift()
    if (message !== undefined) return Promise.resolve({ value: message, done: false })
    if (this.#hasFailed) {
      const error = this.#error
      this.#hasFailed = false
      return Promise.reject(error)
    }
    if (this.isOver) return Promise.resolve(DONE)
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  /** What a loop that is left calls. */
  return(): Promise<IteratorResult<A, undefined>> {
    this.close()
    return Promise.resolve(DONE)
  }

  override close(): void {
    this.#buffer.clear()
    this.#finish()
  }

  /** @internal */
  override take(message: Message): void {
    if (this.isOver) return
    if (this.#waiting.length > 0 && this.#buffer.count === 0) {
      if (!this.#give(message)) return
      this.#waiting.shift()!.resolve({ value: message as A, done: false })
      return
    }
    const { whenFull, bufferSize } = this.#options
    if (this.#buffer.isFull) {
      if (whenFull === "error") {
        this.#buffer.clear()
        this.#fail(new BufferFull(bufferSize))
        return
      }
      if (whenFull === "evict-oldest") this.#buffer.evict()
    }
    this.#buffer.push(message)
    if (whenFull === "pause" && this.#buffer.isFull) this.#hold(true)
  }

  /** @internal */
  override end(error?: MarketDataError): void {
    if (error === undefined) this.#finish()
    else this.#fail(error)
  }

  /** The next message that the application is given. */
  #shift(): A | undefined {
    for (let message = this.#buffer.shift(); message !== undefined; message = this.#buffer.shift()) {
      if (this.#isHeld && this.#buffer.count <= this.#options.bufferSize * READS_AGAIN_AT) this.#hold(false)
      if (this.#give(message)) return message
    }
    return undefined
  }

  /** Notes what the application gets to know, message or not; false where it is not given the message itself. */
  #give(message: Message): message is A {
    switch (message.type) {
      case "tick":
        this.#places.set(message.instrument_token, [message.epoch, message.position])
        break
      case "missed":
        this.missed += message.count ?? 0
        if (message.to !== null) this.#places.set(message.instrument_token, [message.epoch, message.to])
        if (message.reason === "buffer") this.host.tell(message)
        break
      case "epoch":
        this.#places.set(message.instrument_token, message.to)
        break
      case "run":
        this.#places.clear()
        break
    }
    return this.#options.gives(message)
  }

  #hold(isHeld: boolean): void {
    if (this.#isHeld === isHeld) return
    this.#isHeld = isHeld
    this.host.hold(this, isHeld)
  }

  /** Once what waits has been taken the application is told why nothing follows. */
  #fail(error: unknown): void {
    if (this.isOver) return
    const first = this.#waiting.shift()
    if (first === undefined) {
      this.#hasFailed = true
      this.#error = error
    } else first.reject(error)
    this.#finish()
  }

  #finish(): void {
    if (this.isOver) return
    this.#options.signal?.removeEventListener("abort", this.#aborted)
    this.#hold(false)
    super.close()
    for (const { resolve } of this.#waiting.splice(0)) resolve(DONE)
  }
}

const DONE = { value: undefined, done: true } as const
