/**
 * Decides how what the application wants is kept subscribed over connections that come and go: what is sent, from which
 * place each instrument goes on, and to whom each message is handed. One feed is one stream of the server's: the market,
 * or one replay.
 */
import { type MarketDataError, MessageRefused, type RuleViolated, SubscriptionRefused } from "./errors.ts"
import { CODE_ANEW, CODE_RULE, Link, type LinkOptions, type LinkState } from "./Link.ts"
import type {
  Answer,
  AuthorizedFrame,
  BackfillFrame,
  Channel,
  Closing,
  EpochChange,
  ErrorFrame,
  EvictedFrame,
  InstrumentName,
  Message,
  Missed,
  Place,
  Places,
  Policy,
  RunChange,
  ServerMessage,
  SubscribedFrame,
  Tick,
  TickFrame
} from "./messages.ts"
import { type Outcome, Rule } from "./Rule.ts"
import type { Host, Subscription } from "./Subscription.ts"

/** Instruments of one message: the server takes no more places in one. */
const MAX_NAMED = 2_000
/** Messages at once, and then each second: half of what the server takes, so that pings go as well. */
const MESSAGE_BURST = 50
const MESSAGES_PER_SECOND = 10
/** How long instruments wait that the server has no room for just now; longer each time. */
const FIRST_RETRY_MS = 1_000
const LONGEST_RETRY_MS = 30_000
/** A socket that nothing is subscribed on is closed after so long. */
const LINGER_MS = 1_000
/** Symbols whose tokens are remembered; one more, and all are asked for anew. */
const MAX_SYMBOLS = 100_000
/** Refusals that may pass. */
const PASSING: ReadonlySet<string> = new Set(["server_full", "too_many_tokens"])
/** Refusals because of what was sent on the connection before: on another there is none. */
const OF_CONNECTION: ReadonlySet<string> = new Set(["already_sent", "too_many_left"])

/** What a feed tells besides what it hands to subscriptions: the events that an application can listen to. */
export interface FeedEvents {
  readonly connected: { readonly attempt: number; readonly resumed: boolean; readonly authorized?: AuthorizedFrame }
  readonly disconnected: { readonly code: number; readonly reason: string; readonly retryInMs: number }
  readonly closed: { readonly error?: MarketDataError }
  readonly tick: Tick
  readonly gap: Extract<ServerMessage, { type: "gap" | "gap_filled" }>
  readonly gap_filled: Extract<ServerMessage, { type: "gap" | "gap_filled" }>
  readonly candle: Extract<ServerMessage, { type: "candle" }>
  readonly quote: Extract<ServerMessage, { type: "quote" }>
  readonly state: Extract<ServerMessage, { type: "state" }>
  readonly clock: Extract<ServerMessage, { type: "clock" }>
  readonly missed: Missed
  readonly epoch: EpochChange
  readonly run: RunChange
  readonly closing: Closing
  readonly error: Error
  /** Every message of the server, as it came. */
  readonly message: ServerMessage
}

export interface FeedOptions {
  readonly link: LinkOptions
  readonly policy: Policy | undefined
  readonly capacity: number | undefined
  readonly batch: boolean
  readonly replay: string | undefined
}

export interface FeedHooks {
  readonly emit: <E extends keyof FeedEvents>(event: E, value: FeedEvents[E]) => void
  readonly hears: (event: keyof FeedEvents) => boolean
  /** Asked on each connection before anything is subscribed on it; false: there is nothing to subscribe to any more. */
  readonly beforeResume?: () => Promise<boolean>
  /** A replay is over. */
  readonly over?: (state: string) => void
}

/** One instrument that is wanted. */
interface Entry {
  readonly token: number
  readonly subscriptions: Set<Subscription>
  /** Ticks before the live ones that were asked for, until they came. */
  backfill: number
  /** The channels that the server was told of on this connection, as one text. */
  sent: string | undefined
  /** The server has accepted it, on this connection or one before. */
  wasAccepted: boolean
  /** Another connection was made for it. */
  isAnew: boolean
  /** Subscribed, and not answered: what comes of it is of a subscription before. */
  isFresh: boolean
  /** Of the answer to that, no backfill has come yet. */
  isAnswering: boolean
  /** Something was told as evicted since the last backfill. */
  isHoleTold: boolean
  /** Of each channel of which only the newest counts, the newest: whoever comes later begins with it. */
  readonly latest: Map<Channel, Latest>
}

type Latest = Extract<ServerMessage, { type: "candle" | "state" | "quote" }>

/** One symbol whose token is not known yet. */
interface Unresolved {
  readonly subscriptions: Set<Subscription>
  isSent: boolean
}

/** What was asked in one message that is not answered yet. */
interface Asked {
  readonly names: ReadonlyArray<InstrumentName>
  readonly channels: string
}

/** What goes in one message. */
interface Part<A> {
  readonly channels: string
  readonly backfill: number
  readonly members: ReadonlyArray<A>
  readonly since: Places
}

/** Instruments by what is asked of them, as one message asks the same of all. */
class Groups<A> {
  readonly #groups = new Map<string, { channels: string; backfill: number; members: Array<A>; since: Array<Places> }>()

  add(channels: string, backfill: number, member: A, since: Places): void {
    const key = `${channels} ${backfill}`
    const group = this.#groups.get(key) ?? { channels, backfill, members: [], since: [] }
    this.#groups.set(key, group)
    group.members.push(member)
    group.since.push(since)
  }

  /** As many in each as one message may name, and places likewise. */
  *parts(): Generator<Part<A>> {
    for (const { channels, backfill, members, since } of this.#groups.values()) {
      let from = 0
      let places: Record<string, Place> = {}
      let count = 0
      let last: Places | undefined
      for (let i = 0; i <= members.length; i++) {
        const added = since[i] ?? {}
        const keys = added === last ? [] : Object.keys(added).filter((token) => places[token] === undefined)
        if (i > from && (i === members.length || i - from === MAX_NAMED || count + keys.length > MAX_NAMED)) {
          yield { channels, backfill, members: members.slice(from, i), since: places }
          from = i
          places = {}
          count = 0
        }
        Object.assign(places, added === last && from !== i ? {} : added)
        count = from === i ? Object.keys(added).length : count + keys.length
        last = added
      }
    }
  }
}

const partsOf = <A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: Math.ceil(all.length / MAX_NAMED) }, (_, i) => all.slice(i * MAX_NAMED, (i + 1) * MAX_NAMED))

export class Feed {
  readonly link: Link
  readonly #options: FeedOptions
  readonly #hooks: FeedHooks
  readonly #rule = new Rule()
  readonly #subscriptions = new Set<Subscription>()
  readonly #entries = new Map<number, Entry>()
  readonly #unresolved = new Map<string, Unresolved>()
  readonly #tokens = new Map<string, number>()
  /** Entries whose subscription may not be what is wanted of it. */
  readonly #dirty = new Set<Entry>()
  readonly #asked = new Map<number, Asked>()
  readonly #holding = new Set<Subscription>()
  #ids = 0
  /** Counts them: what was asked before one of them says nothing of another. */
  #connection = 0
  #isScheduled = false
  /** The connection is ready to be subscribed on. */
  #isReady = false
  #budget = MESSAGE_BURST
  #budgetAt = 0
  #later: ReturnType<typeof setTimeout> | undefined
  #retries = 0
  #linger: ReturnType<typeof setTimeout> | undefined
  #run: number | undefined
  #isOver = false
  #error: MarketDataError | undefined

  constructor(options: FeedOptions, hooks: FeedHooks) {
    this.#options = options
    this.#hooks = hooks
    this.link = new Link(options.link, {
      opened: (attempt, authorized) => void this.#opened(attempt, authorized),
      message: (message) => this.#take(message),
      down: (down) => {
        this.#isReady = false
        hooks.emit("disconnected", down)
      },
      failed: (error) => this.fail(error)
    })
  }

  get state(): LinkState {
    return this.link.state
  }

  /** What a subscription needs of this feed. */
  readonly host: Host = {
    leave: (subscription) => this.#leave(subscription),
    place: (token) => this.#rule.place(token),
    tell: (missed) => this.#hooks.emit("missed", missed),
    hold: (subscription, isHeld) => {
      if (isHeld) this.#holding.add(subscription)
      else this.#holding.delete(subscription)
      this.link.hold(this.#holding.size > 0)
    }
  }

  add(subscription: Subscription): void {
    if (this.#isOver) {
      subscription.end(this.#error)
      return
    }
    this.#subscriptions.add(subscription)
    clearTimeout(this.#linger)
    const { names, backfill, since } = subscription.wanted
    for (const name of names) {
      const token = typeof name === "number" ? name : this.#tokens.get(name)
      if (token === undefined) {
        const unresolved = this.#unresolved.get(name as string) ?? { subscriptions: new Set(), isSent: false }
        this.#unresolved.set(name as string, unresolved)
        unresolved.subscriptions.add(subscription)
        continue
      }
      const known = this.#entries.get(token)
      const symbol = typeof name === "string" ? { symbol: name } : {}
      if (
        known !== undefined &&
        isSentTicks(known) &&
        subscription.wantsTicks &&
        (backfill > 0 || since[token] !== undefined)
      ) {
        // What was sent already is not sent again: it would break the order of positions.
        const reason = "already_subscribed"
        this.#refuse(subscription, name, { instrument_token: token, ...symbol, accepted: false, reason })
        if (!this.#subscriptions.has(subscription)) return
        continue
      }
      this.#enter(token, name, subscription)
      if (known?.sent !== undefined && known.wasAccepted) {
        subscription.answered(name, { instrument_token: token, ...symbol, accepted: true, known: true })
        for (const [channel, message] of known.latest) {
          if (subscription.wanted.channels.has(channel)) subscription.take(message)
        }
      }
    }
    this.#schedule()
    this.link.start()
  }

  /** A replay begins anew: nothing that was counted counts any more. */
  restart(replay: string, run: number): void {
    const isFirst = this.#run === undefined
    if (this.#run === run) return
    this.#run = run
    if (isFirst) return
    this.#rule.clear()
    for (const { latest } of this.#entries.values()) latest.clear()
    const change: RunChange = { type: "run", replay, run }
    for (const subscription of this.#subscriptions) subscription.take(change)
    this.#hooks.emit("run", change)
  }

  /** Ends what is subscribed, as there is nothing more to come. */
  finish(): void {
    this.#end(undefined, undefined)
  }

  /** Ends everything for a reason. */
  fail(error: MarketDataError): void {
    this.#end(error, error)
  }

  /** The application wants nothing more; `error` is for whoever asks nevertheless. */
  close(error: MarketDataError): void {
    this.#end(undefined, error)
  }

  #end(reason: MarketDataError | undefined, error: MarketDataError | undefined): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#error = error
    this.link.close()
    clearTimeout(this.#later)
    const all = [...this.#subscriptions]
    for (const subscription of all) subscription.end(reason)
    this.#subscriptions.clear()
    this.#clear()
    // Streams throw it; it is an event for those who listen, and where nobody else would be told.
    const isTold = all.length > 0 && all.every(({ throws }) => throws)
    if (reason !== undefined && (!isTold || this.#hooks.hears("error"))) this.#hooks.emit("error", reason)
    this.#hooks.emit("closed", reason === undefined ? {} : { error: reason })
  }

  #clear(): void {
    clearTimeout(this.#linger)
    this.#isReady = false
    this.#entries.clear()
    this.#unresolved.clear()
    this.#tokens.clear()
    this.#dirty.clear()
    this.#asked.clear()
    this.#rule.clear()
  }

  // What is wanted, and what the server is told of it -----------------------------------------------------------------

  #enter(token: number, name: InstrumentName, subscription: Subscription): Entry {
    let entry = this.#entries.get(token)
    if (entry === undefined) {
      entry = emptyEntry(token)
      this.#entries.set(token, entry)
    }
    subscription.named(token, name)
    const { backfill, since } = subscription.wanted
    entry.subscriptions.add(subscription)
    if (subscription.wantsTicks) {
      entry.backfill = Math.max(entry.backfill, backfill)
      const place = since[token]
      if (place !== undefined && this.#rule.place(token) === undefined) this.#rule.begin(token, place)
    }
    this.#dirty.add(entry)
    return entry
  }

  #leave(subscription: Subscription): void {
    if (!this.#subscriptions.delete(subscription)) return
    for (const unresolved of this.#unresolved.values()) unresolved.subscriptions.delete(subscription)
    for (const token of subscription.known()) {
      const entry = this.#entries.get(token)
      if (entry?.subscriptions.delete(subscription) === true) this.#dirty.add(entry)
    }
    this.#schedule()
    if (this.#subscriptions.size > 0 || this.#isOver) return
    clearTimeout(this.#linger)
    this.#linger = setTimeout(() => this.#idle(), LINGER_MS)
  }

  /** Nothing is wanted: no socket is either. */
  #idle(): void {
    this.link.stop()
    this.#clear()
  }

  /** In a while, so that what an application asks for in one turn goes in one message. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    queueMicrotask(() => {
      this.#isScheduled = false
      this.#sync()
    })
  }

  #syncLater(ms: number): void {
    clearTimeout(this.#later)
    this.#later = setTimeout(() => this.#sync(), ms)
  }

  /** Whether a message may go now. */
  #affords(): boolean {
    const now = performance.now()
    this.#budget = Math.min(MESSAGE_BURST, this.#budget + ((now - this.#budgetAt) / 1000) * MESSAGES_PER_SECOND)
    this.#budgetAt = now
    if (this.#budget < 1) return false
    this.#budget--
    return true
  }

  /** Tells the server what is wanted and what is not, as far as it does not know it. */
  #sync(): void {
    if (!this.#isReady || !this.link.isOpen) return
    for (const send of [...this.#unsubscribes(), ...this.#subscribes(), ...this.#symbols()]) {
      if (!this.#affords()) {
        this.#syncLater(1000 / MESSAGES_PER_SECOND)
        return
      }
      send()
    }
  }

  /** What nobody wants any more. */
  *#unsubscribes(): Generator<() => void> {
    const left: Array<Entry> = []
    for (const entry of this.#dirty) {
      if (entry.subscriptions.size > 0) continue
      if (entry.sent === undefined) this.#forget(entry)
      else left.push(entry)
    }
    for (const part of partsOf(left)) {
      yield () => {
        this.link.send({ action: "unsubscribe", tokens: part.map(({ token }) => token) })
        for (const entry of part) this.#forget(entry)
      }
    }
  }

  /** What is wanted of instruments that are known by their tokens. */
  *#subscribes(): Generator<() => void> {
    const groups = new Groups<Entry>()
    for (const entry of this.#dirty) {
      if (entry.subscriptions.size === 0) continue
      const channels = channelsOf(entry.subscriptions)
      if (entry.sent === channels) {
        this.#dirty.delete(entry)
        continue
      }
      const isTicks = isTicking(entry)
      if (!isTicks) this.#rule.forget(entry.token)
      const isNew = isTicks && !isSentTicks(entry)
      const place = isNew ? this.#rule.resume(entry.token) : undefined
      const backfill = isNew && place === undefined ? entry.backfill : 0
      groups.add(channels, backfill, entry, place === undefined ? {} : { [entry.token]: place })
    }
    for (const { channels, backfill, members, since } of groups.parts()) {
      yield () => {
        const tokens = members.map(({ token }) => token)
        this.#subscribe({ tokens }, channels, backfill, since)
        for (const entry of members) {
          entry.isFresh ||= entry.sent === undefined || (isTicking(entry) && !isSentTicks(entry))
          entry.isAnswering ||= entry.isFresh
          entry.sent = channels
          this.#dirty.delete(entry)
        }
      }
    }
  }

  /** What is wanted of instruments whose tokens are not known yet. */
  *#symbols(): Generator<() => void> {
    const groups = new Groups<string>()
    // An instrument that is known by another name goes on as it is.
    const inUse = this.#entries.size > 0 ? [...this.#subscriptions] : []
    for (const [symbol, unresolved] of this.#unresolved) {
      if (unresolved.isSent) continue
      if (unresolved.subscriptions.size === 0) {
        this.#unresolved.delete(symbol)
        continue
      }
      let backfill = 0
      let since: Places = {}
      for (const { wanted, wantsTicks } of unresolved.subscriptions) {
        if (!wantsTicks) continue
        backfill = Math.max(backfill, wanted.backfill)
        // The token is not known, so all of them go along; of several subscriptions in one turn, those of the first.
        if (Object.keys(since).length === 0) since = wanted.since
      }
      groups.add(channelsOf([...unresolved.subscriptions, ...inUse]), backfill, symbol, since)
    }
    for (const { channels, backfill, members, since } of groups.parts()) {
      yield () => {
        this.#subscribe({ symbols: members }, channels, backfill, since)
        for (const symbol of members) this.#unresolved.get(symbol)!.isSent = true
      }
    }
  }

  #subscribe(
    named: { readonly tokens: ReadonlyArray<number> } | { readonly symbols: ReadonlyArray<string> },
    channels: string,
    backfill: number,
    since: Places
  ): void {
    const { policy, capacity, batch, replay } = this.#options
    const id = ++this.#ids
    this.#asked.set(id, { names: "tokens" in named ? named.tokens : named.symbols, channels })
    this.link.send({
      action: "subscribe",
      ...named,
      channels: channels.split(" ") as ReadonlyArray<Channel>,
      batch,
      id,
      ...(backfill > 0 ? { backfill } : {}),
      ...(Object.keys(since).length === 0 ? {} : { since }),
      ...(policy === undefined ? {} : { policy }),
      ...(capacity === undefined ? {} : { capacity }),
      ...(replay === undefined ? {} : { replay })
    })
  }

  #forget(entry: Entry): void {
    this.#entries.delete(entry.token)
    this.#dirty.delete(entry)
    this.#rule.forget(entry.token)
  }

  async #opened(attempt: number, authorized: AuthorizedFrame | undefined): Promise<void> {
    const connection = ++this.#connection
    this.#asked.clear()
    this.#budget = MESSAGE_BURST
    this.#budgetAt = performance.now()
    for (const unresolved of this.#unresolved.values()) unresolved.isSent = false
    let resumed = false
    for (const entry of this.#entries.values()) {
      resumed ||= entry.wasAccepted
      entry.latest.clear()
      Object.assign(entry, { sent: undefined, isFresh: false, isAnswering: false, isHoleTold: false })
      this.#dirty.add(entry)
    }
    this.#hooks.emit("connected", { attempt, resumed, ...(authorized === undefined ? {} : { authorized }) })
    if (this.#hooks.beforeResume !== undefined && !(await this.#hooks.beforeResume())) return
    if (!this.link.isOpen || connection !== this.#connection) return
    this.#isReady = true
    this.#sync()
  }

  // What comes --------------------------------------------------------------------------------------------------------

  #take(message: ServerMessage): void {
    if (this.#hooks.hears("message")) this.#hooks.emit("message", message)
    switch (message.type) {
      case "tick":
        this.#tick(message)
        return
      case "backfill":
        this.#backfill(message)
        return
      case "evicted":
        this.#evicted(message)
        return
      case "gap":
      case "gap_filled":
        this.#hand(message.instrument_token, "gap", message)
        this.#hooks.emit(message.type, message)
        return
      case "candle":
        this.#latest(`candle_${message.interval}`, message)
        this.#hand(message.instrument_token, `candle_${message.interval}`, message)
        this.#hooks.emit("candle", message)
        return
      case "quote":
        this.#latest("quote", message)
        this.#hand(message.instrument_token, "quote", message)
        this.#hooks.emit("quote", message)
        return
      case "state":
        this.#latest("state", message)
        this.#hand(message.instrument_token, "state", message)
        this.#hooks.emit("state", message)
        return
      case "clock":
        this.restart(message.replay, message.run)
        for (const subscription of this.#subscriptions) subscription.take(message)
        this.#hooks.emit("clock", message)
        if (message.state === "ended" || message.state === "failed") this.#hooks.over?.(message.state)
        return
      case "subscribed":
        this.#subscribed(message)
        return
      case "closing":
        this.#hooks.emit("closing", message)
        return
      case "error":
        this.#refused(message)
        return
    }
  }

  /** The entry that ticks of a token are for. */
  #ticking(token: number): Entry | undefined {
    const entry = this.#entries.get(token)
    // On its way still when it was unsubscribed, or subscribed anew.
    return entry === undefined || entry.isFresh || !isTicking(entry) ? undefined : entry
  }

  #latest(channel: Channel, message: Latest): void {
    const latest = this.#entries.get(message.instrument_token)?.latest
    const known = latest?.get(channel)
    // A bar before the one under way may change, too.
    if (known?.type === "candle" && message.type === "candle" && message.ts < known.ts) return
    latest?.set(channel, message)
  }

  #hand(token: number, channel: Channel, message: Message): void {
    const entry = this.#entries.get(token)
    if (entry === undefined || entry.isFresh) return
    for (const subscription of entry.subscriptions) {
      if (subscription.wanted.channels.has(channel)) subscription.take(message)
    }
  }

  #tick(frame: TickFrame): void {
    const { instrument_token: token, epoch, position } = frame
    const entry = this.#ticking(token)
    if (entry === undefined) return
    if (!this.#rule.follows(token, epoch, position)) {
      const outcome = this.#rule.advance(token, epoch, position, position, "tick")
      if (this.#news(entry, outcome, epoch, position, position) > position) return
    }
    this.#give(entry, frame, true)
  }

  #give(entry: Entry, frame: TickFrame, isLive: boolean): void {
    const tick = frame as TickFrame & { live: boolean }
    tick.live = isLive
    for (const subscription of entry.subscriptions) if (subscription.wantsTicks) subscription.take(tick)
    if (this.#hooks.hears("tick")) this.#hooks.emit("tick", tick)
  }

  #backfill(frame: BackfillFrame): void {
    const { instrument_token: token, epoch, from, to, recovered, data } = frame
    const entry = this.#ticking(token)
    if (entry === undefined) return
    const { isHoleTold } = entry
    const before = this.#rule.place(token)
    const wasAsked = before !== undefined || entry.backfill > 0
    const isEmpty = data.length === 0
    const isBehind = isEmpty && before !== undefined && before[0] === epoch && before[1] > to
    const outcome = isEmpty
      ? this.#rule.stand(token, epoch, to, recovered)
      : this.#rule.advance(token, epoch, from, to, "backfill")
    const first = this.#news(entry, outcome, epoch, from, to)
    entry.isAnswering = false
    entry.isHoleTold = false
    entry.backfill = 0
    if (first === Number.POSITIVE_INFINITY) return
    if (!recovered && !isHoleTold && wasAsked && !isBehind && outcome.broken === undefined) {
      this.#miss(entry, epoch, undefined, "gone")
    }
    for (let i = Math.max(0, first - from); i < data.length; i++) this.#give(entry, data[i]!, false)
  }

  #evicted({ instrument_token: token, epoch, from, to }: EvictedFrame): void {
    const entry = this.#ticking(token)
    if (entry === undefined) return
    // Before it stands anywhere, what was never asked for is not missed.
    const isMissed = this.#rule.place(token) !== undefined || entry.backfill > 0
    entry.isHoleTold = true
    const first = this.#news(entry, this.#rule.advance(token, epoch, from, to, "evicted"), epoch, from, to)
    if (first > to || !isMissed) return
    this.#miss(entry, epoch, [first, to], entry.isAnswering ? "gone" : "slow")
  }

  #miss(
    entry: Entry,
    epoch: number,
    range: readonly [from: number, to: number] | undefined,
    reason: Missed["reason"]
  ): void {
    const [from, to] = range ?? [null, null]
    const count = from === null || to === null ? null : to - from + 1
    const missed: Missed = { type: "missed", instrument_token: entry.token, epoch, from, to, count, reason }
    for (const subscription of entry.subscriptions) if (subscription.wantsTicks) subscription.take(missed)
    this.#hooks.emit("missed", missed)
  }

  /** The first position that is news; beyond all where the rule is broken and the connection given up. */
  #news(entry: Entry, outcome: Outcome, epoch: number, from: number, to: number): number {
    if (outcome.broken === undefined) {
      if (outcome.change !== undefined) this.#change(entry, outcome.change)
      return outcome.first
    }
    const violation: RuleViolated = outcome.broken
    const isAgain = this.#rule.isBrokenAgain(violation)
    this.#hooks.emit("error", violation)
    if (!isAgain) {
      // The server is asked for what follows the last right place.
      this.link.drop(CODE_RULE, violation.message)
      return Number.POSITIVE_INFINITY
    }
    const { first, change, missed } = this.#rule.rebase(entry.token, epoch, from, to)
    if (change !== undefined) this.#change(entry, change)
    if (missed !== undefined) this.#miss(entry, epoch, missed, "gone")
    return first
  }

  #change(entry: Entry, change: EpochChange): void {
    for (const subscription of entry.subscriptions) if (subscription.wantsTicks) subscription.take(change)
    this.#hooks.emit("epoch", change)
  }

  #subscribed({ id, tokens }: SubscribedFrame): void {
    const asked = typeof id === "number" ? this.#asked.get(id) : undefined
    if (asked === undefined) return
    this.#asked.delete(id as number)
    let isWaiting = false
    for (const answer of tokens) {
      if (answer.symbol !== undefined && this.#unresolved.has(answer.symbol))
        this.#resolved(answer.symbol, answer, asked)
      else if (answer.instrument_token !== undefined)
        isWaiting = this.#answer(answer.instrument_token, answer) || isWaiting
    }
    if (isWaiting) this.#retry()
    else this.#retries = 0
    if (this.#dirty.size > 0) this.#schedule()
  }

  /** What a symbol stands for is known, or that it stands for nothing. */
  #resolved(symbol: string, answer: Answer, { channels }: Asked): void {
    const { subscriptions } = this.#unresolved.get(symbol)!
    this.#unresolved.delete(symbol)
    if (!answer.accepted) {
      for (const subscription of [...subscriptions]) this.#refuse(subscription, symbol, answer)
      return
    }
    const token = answer.instrument_token
    if (this.#tokens.size >= MAX_SYMBOLS) this.#tokens.clear()
    this.#tokens.set(symbol, token)
    const isNew = this.#entries.get(token)?.sent === undefined
    const entry = this.#entries.get(token) ?? emptyEntry(token)
    this.#entries.set(token, entry)
    entry.sent = channels
    entry.isAnswering ||= isNew
    entry.wasAccepted = true
    // Where all were closed meanwhile, it is unsubscribed with the next message.
    this.#dirty.add(entry)
    for (const subscription of subscriptions) {
      this.#enter(token, symbol, subscription)
      subscription.answered(symbol, answer)
    }
  }

  /** True where it is to be asked for again. */
  #answer(token: number, answer: Answer): boolean {
    const entry = this.#entries.get(token)
    if (entry === undefined) return false
    entry.isFresh = false
    if (!answer.accepted) {
      if (entry.wasAccepted && PASSING.has(answer.reason)) {
        entry.sent = undefined
        this.#dirty.add(entry)
        this.#hooks.emit("error", new SubscriptionRefused(token, answer.reason))
        return true
      }
      if (OF_CONNECTION.has(answer.reason) && !entry.isAnew) {
        entry.isAnew = true
        this.link.drop(CODE_ANEW, `${token}: ${answer.reason}`)
        return false
      }
      this.#forget(entry)
      for (const subscription of entry.subscriptions) {
        for (const name of subscription.namesOf(token)) this.#refuse(subscription, name, answer)
      }
      return false
    }
    entry.wasAccepted = true
    entry.isAnew = false
    for (const subscription of entry.subscriptions) {
      for (const name of subscription.namesOf(token)) {
        subscription.answered(name, typeof name === "string" ? { ...answer, symbol: name } : answer)
      }
    }
    return false
  }

  #refuse(subscription: Subscription, name: InstrumentName, answer: Extract<Answer, { accepted: false }>): void {
    subscription.answered(name, answer)
    const error = new SubscriptionRefused(name, answer.reason)
    if (subscription.wanted.strict) subscription.end(error)
    else this.#hooks.emit("error", error)
  }

  /** A message that the server did not take. */
  #refused({ code, message, id }: ErrorFrame): void {
    const asked = typeof id === "number" ? this.#asked.get(id) : undefined
    if (asked === undefined) {
      this.#hooks.emit("error", new MessageRefused(code, message))
      return
    }
    this.#asked.delete(id as number)
    const concerned = new Set<Subscription>()
    for (const name of asked.names) {
      if (typeof name === "string") {
        const unresolved = this.#unresolved.get(name)
        if (unresolved === undefined) continue
        unresolved.isSent = false
        for (const subscription of unresolved.subscriptions) concerned.add(subscription)
      } else {
        const entry = this.#entries.get(name)
        if (entry === undefined) continue
        entry.sent = undefined
        this.#dirty.add(entry)
        for (const subscription of entry.subscriptions) concerned.add(subscription)
      }
    }
    const error = new MessageRefused(code, message)
    if (code === "too_fast") {
      this.#hooks.emit("error", error)
      this.#retry()
      return
    }
    for (const subscription of concerned) subscription.end(error)
    if ([...concerned].every((subscription) => !subscription.wanted.strict)) this.#hooks.emit("error", error)
  }

  #retry(): void {
    this.#syncLater(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#retries++))
  }
}

const emptyEntry = (token: number): Entry => ({
  token,
  subscriptions: new Set(),
  backfill: 0,
  sent: undefined,
  wasAccepted: false,
  isAnew: false,
  isFresh: false,
  isAnswering: false,
  isHoleTold: false,
  latest: new Map()
})

/** Whether the server sends ticks of it. */
const isSentTicks = ({ sent }: Entry): boolean => sent?.startsWith("tick") === true

/** `tick` comes first. */
const ORDER: ReadonlyArray<Channel> = ["tick", "gap", "quote", "candle_1m", "candle_5m", "state"]

/** All channels that any of them wants, as one text. */
const channelsOf = (subscriptions: Iterable<Subscription>): string => {
  const all = new Set<Channel>()
  for (const { wanted } of subscriptions) for (const channel of wanted.channels) all.add(channel)
  return ORDER.filter((channel) => all.has(channel)).join(" ")
}

const isTicking = ({ subscriptions }: Entry): boolean => {
  for (const subscription of subscriptions) if (subscription.wantsTicks) return true
  return false
}
