/**
 * Decides what one connection may say, and answers it: how much at once and in the long run, in which order, and what
 * becomes of it. Answers go through the client's queue, in order with the ticks.
 */
import { Result } from "effect"
import type { LiveKey } from "../layers/keys/ApiKeys.ts"
import { type Instrument, SIMULATED_EXCHANGE } from "../schema/Instrument.ts"
import {
  type Answer,
  type AuthMessage,
  authorizedFrame,
  DEFAULT_CHANNELS,
  decodeClientMessage,
  type ErrorCode,
  errorFrame,
  MAX_MESSAGE_BYTES,
  type Place,
  type PlaceJson,
  pongFrame,
  type Refused,
  type Removal,
  type SubscribeMessage,
  subscribedFrame,
  type UnsubscribeMessage,
  unsubscribedFrame
} from "../schema/Protocol.ts"
import type { Settings } from "../schema/Settings.ts"
import { LIVE } from "../streams/fanOut/Channel.ts"
import type { ClientSocket, EndReason } from "../streams/fanOut/ClientQueue.ts"
import type { Hub } from "../streams/fanOut/Hub.ts"
import type { HubClient, SubscribeOptions, Verdict } from "../streams/fanOut/HubClient.ts"
import { wantedOf } from "../streams/fanOut/sideChannels.ts"
import type { Instruments } from "../streams/ports/Instruments.ts"
import { type KeyAccess, lacksScope } from "./access.ts"
import { Rate } from "./rate.ts"
import type { Shares, Work } from "./shares.ts"

/**
 * Messages a client may send at once, and then each second, besides those that subscribe and unsubscribe: those cost what
 * they make the server do. Pings and pongs of the protocol count, and so does what is refused.
 */
export const MESSAGE_BURST = 100
const MESSAGES_PER_SECOND = 20
/** Bytes that a client may send at once, and then each second, besides the first of each message. */
export const BYTE_BURST = 4 * MAX_MESSAGE_BYTES
const BYTES_PER_SECOND = 131_072
const FREE_BYTES = 256
/** What reading a message and answering it costs, in instruments of a list: about 3 µs each. */
const MESSAGE_COST = 2
/** What a place of `since` costs beside its instrument. */
const PLACE_COST = 1
/** Instruments that the answer to an unsubscribe lists for the cost of one. */
const LISTED_FOR_ONE = 128
/** Work at once: as much as subscribing one by one to all that a client may have; and a share of those each second. */
const WORK_BURST = 1 + MESSAGE_COST
const WORK_PER_SECOND = 0.2
const LEAST_INSTRUMENTS = 1_000
/** A message that would have to wait longer for its turn is refused, with how long. */
const LONGEST_WAIT_S = 1
/** Messages that wait to be read, in times of the instruments that a client may have; more close it with 1008. */
const UNREAD_TIMES = 2
/** What one of them takes in memory beside its bytes. */
const UNREAD_BYTES = 192
/** Answers that wait for the client, about in bytes, beyond which no more of its messages are read for now. */
const ANSWERS_AHEAD = 1_048_576
/** Messages answered in one write where more wait to be read. */
const ANSWERS_A_WRITE = 16
/** Instruments handled in one step: about a tenth of a millisecond. */
const STEP_INSTRUMENTS = 64
/** Messages that do not read before a client is closed with 1008. */
export const MAX_STRIKES = 10

export type SessionSettings = Pick<Settings, "MAX_CLIENT_TOKENS" | "MAX_CLIENT_CAPACITY" | "MAX_SUBSCRIPTIONS">

export interface SessionServices {
  readonly hub: Hub
  readonly instruments: Pick<Instruments["Service"], "get" | "named" | "at" | "everNamed">
  readonly settings: SessionSettings
  readonly shares: Shares
  readonly observer: SessionObserver
  /** Absent: nobody is asked for a key. */
  readonly access?: KeyAccess | undefined
}

/** What a session tells whoever counts. */
export interface SessionObserver {
  /** A message was refused; the text names field and value. */
  readonly refused: (code: ErrorCode, text: string) => void
}

/** A message that waits for its turn. */
interface Unread {
  readonly bytes: Buffer
  readonly isBinary: boolean
}

/** A message being done: where it stops others have their turn, and it goes on after so many milliseconds. */
type Steps = Generator<number | undefined, void>

export class ClientSession implements Work {
  readonly client: HubClient
  private readonly services: SessionServices
  private readonly messages = new Rate(MESSAGE_BURST, MESSAGES_PER_SECOND)
  private readonly bytes = new Rate(BYTE_BURST, BYTES_PER_SECOND)
  private readonly work: Rate
  private readonly mostWork: number
  private readonly mostUnread: number
  private unread: Array<Unread> = []
  /** The first of them that is still to be read. */
  private next = 0
  /** What is left to do of the message in hand; it yields where others have their turn, or the milliseconds it has to wait. */
  private inHand: Steps | undefined
  /** Messages answered since the last write. */
  private unwritten = 0
  /** It reads on when this has passed. */
  private wait: NodeJS.Timeout | undefined
  /** It reads on when the client has read what was answered. */
  private isAhead = false
  private strikes = 0
  /** Subscriptions that the message in hand was granted, and that are yet to be made. */
  private granted = 0
  /** The trading day of the replay that the client listens to, since 1970. */
  private day: number | undefined
  /** What the connection was let in by, where a key is asked for. */
  private readonly key: LiveKey | undefined

  constructor(services: SessionServices, socket: ClientSocket, key?: LiveKey) {
    this.services = services
    this.key = key
    this.client = services.hub.connect(socket)
    const most = Math.max(LEAST_INSTRUMENTS, services.settings.MAX_CLIENT_TOKENS)
    this.mostWork = most * WORK_BURST
    this.work = new Rate(this.mostWork, most * WORK_PER_SECOND)
    this.mostUnread = most * UNREAD_TIMES
  }

  /** Takes one message; the bytes are the app's own again when this returns. */
  message(bytes: ArrayBuffer, isBinary: boolean): void {
    if (bytes.byteLength > MAX_MESSAGE_BYTES) {
      this.end(1009, `a message holds at most ${MAX_MESSAGE_BYTES} bytes`, "too_large")
      return
    }
    if (this.client.queue.closed || !this.countBytes(bytes.byteLength - FREE_BYTES)) return
    if (this.unread.length - this.next >= this.mostUnread) {
      this.end(1008, "too many messages", "too_many_messages")
      return
    }
    this.client.queue.receive(bytes.byteLength + UNREAD_BYTES)
    // Copied: whether it is read now or later is decided below.
    this.unread.push({ bytes: Buffer.from(bytes.slice(0)), isBinary })
    this.readOn()
  }

  /** Counts a ping or pong of so many bytes; false where it was one too many, and the client is ended. */
  count(bytes: number): boolean {
    return !this.client.queue.closed && this.countMessage() && this.countBytes(bytes)
  }

  private countMessage(): boolean {
    if (this.messages.take(1)) return true
    this.end(1008, "too many messages", "too_many_messages")
    return false
  }

  private countBytes(bytes: number): boolean {
    if (bytes <= 0 || this.bytes.take(bytes)) return true
    this.end(1008, "too many bytes", "too_many_bytes")
    return false
  }

  /** Goes on with what was sent, unless it is to wait. */
  private readonly readOn = (): void => {
    if (this.wait === undefined && !this.isAhead) this.services.shares.add(this)
  }

  /** One step of what the client asked for, in the order it asked. */
  readonly step = (): boolean => {
    const { hub } = this.services
    const { queue } = this.client
    try {
      if (queue.closed) {
        this.forget()
        return false
      }
      if (this.inHand === undefined) {
        if (queue.unanswered > ANSWERS_AHEAD) {
          this.waitForReader()
          return false
        }
        const next = this.nextUnread()
        if (next === undefined) return false
        this.inHand = this.read(next)
        queue.receive(-next.bytes.length - UNREAD_BYTES)
      }
      const { done, value: waitMs } = this.inHand.next()
      if (done === true) this.inHand = undefined
      // What answers many messages goes out in one write, and what a client waits for at once.
      if (this.inHand === undefined && this.next < this.unread.length && ++this.unwritten < ANSWERS_A_WRITE) return true
      this.unwritten = 0
      this.client.flush()
      if (typeof waitMs === "number" && this.inHand !== undefined) {
        this.wait = setTimeout(() => {
          this.wait = undefined
          this.readOn()
        }, waitMs)
        return false
      }
    } catch (error) {
      hub.fail(queue, error)
    }
    return !queue.closed && (this.inHand !== undefined || this.next < this.unread.length)
  }

  private nextUnread(): Unread | undefined {
    const next = this.unread[this.next]
    if (next === undefined) return undefined
    this.next++
    if (this.next === this.unread.length) {
      this.unread = []
      this.next = 0
    } else if (this.next >= 1024 && this.next * 2 > this.unread.length) {
      this.unread = this.unread.slice(this.next)
      this.next = 0
    }
    return next
  }

  /** Reads no further for a client that does not read what it was answered. */
  private waitForReader(): void {
    const { queue } = this.client
    this.isAhead = true
    this.unwritten = 0
    queue.answered = () => {
      // Not now: the queue is being sent.
      setImmediate(() => {
        this.isAhead = false
        this.readOn()
      })
    }
    this.client.flush()
  }

  /** The connection is gone. */
  close(): void {
    const { hub, shares } = this.services
    shares.remove(this)
    this.forget()
    // In its turn: a hundred clients of thousands of instruments each, ended in one moment, would hold up every tick.
    hub.disconnect(this.client, (step) => shares.add({ step }))
  }

  private end(code: number, reason: string, why: EndReason): void {
    this.client.queue.end(code, reason, why)
    this.forget()
  }

  /** What it sent counts no more: nothing of it is kept. */
  private forget(): void {
    this.unread = []
    this.next = 0
    this.inHand = undefined
    this.grant(-this.granted)
    clearTimeout(this.wait)
    this.wait = undefined
  }

  private grant(subscriptions: number): void {
    this.granted += subscriptions
    this.services.hub.granted += subscriptions
  }

  private *read({ bytes, isBinary }: Unread): Steps {
    const decoded = isBinary ? NOT_TEXT : decodeClientMessage(bytes.toString("utf8"))
    if (Result.isFailure(decoded)) {
      this.refuse(decoded.failure)
      return
    }
    const message = decoded.success
    // Its connection is about to be ended.
    if (this.key?.over !== undefined) return
    switch (message.action) {
      case "subscribe":
        yield* this.subscribe(message)
        return
      case "unsubscribe":
        yield* this.unsubscribe(message)
        return
      case "auth":
        this.authorize(message)
        return
      case "ping":
        if (!this.countMessage()) return
        this.client.say(pongFrame)
        return
    }
  }

  /** Who has shown a key already may show the same again; for another there is another connection. */
  private authorize({ id, key: text }: AuthMessage): void {
    const { key } = this
    const { access } = this.services
    if (key !== undefined && access?.isSame(text, key) === false) {
      const message = `auth: this connection speaks by key "${key.name}"; open another one for another key`
      this.refuse({ code: "already_authorized", message, id })
      return
    }
    if (!this.countMessage()) return
    if (key === undefined) {
      this.client.say(errorFrame({ code: "no_keys", message: "auth: no API keys are configured, none is needed", id }))
    } else this.client.say(authorizedFrame(id, key))
  }

  /** The instruments of a symbol that the key is for: of others it learns nothing. */
  private named(symbol: string): ReadonlyArray<Instrument> {
    const { key } = this
    const { instruments } = this.services
    const { day } = this
    const found =
      day === undefined
        ? instruments.named(symbol)
        : instruments
            .everNamed(symbol)
            .flatMap(({ from, instrument, through }) => (from <= day && day <= through ? [instrument] : []))
    return key?.isRestricted === true ? found.filter((one) => key.sees(one.instrument_token, one)) : found
  }

  /** What a token means where the client listens. */
  private instrument(token: number): Instrument | undefined {
    const { instruments } = this.services
    return this.day === undefined ? instruments.get(token) : instruments.at(token, this.day)
  }

  /** What a symbol is that names none of them: whether there is one, a key that may not see all it could be is not told. */
  private unnamed(symbol: string): "unknown_symbol" | "forbidden" {
    if (this.key === undefined || this.key.seesAllOf(symbol)) return "unknown_symbol"
    this.services.access?.observer.figuresOf(this.key.name).refused("instruments")
    return "forbidden"
  }

  /** Whether the key is for a token. */
  private sees(token: number): boolean {
    const { key } = this
    const { access } = this.services
    if (key === undefined || key.sees(token, this.instrument(token))) return true
    access?.observer.figuresOf(key.name).refused("instruments")
    return false
  }

  private refuse(refused: Refused): void {
    this.services.observer.refused(refused.code, refused.message)
    if (!this.countMessage()) return
    this.client.say(errorFrame(refused))
    if (refused.code !== "bad_message" || ++this.strikes < MAX_STRIKES) return
    this.client.flush()
    this.end(1008, "too many bad messages", "bad_messages")
  }

  /**
   * Takes what a message costs out of the client's allowance, waiting a little where there is less: whoever is only fast
   * is served as fast as it may be. A message that would wait long is refused instead; then the answer is false.
   */
  private *affords(work: number, instruments: number, id: unknown): Generator<number, boolean> {
    const cost = Math.min(work, this.mostWork)
    while (!this.work.take(cost)) {
      const seconds = this.work.secondsUntil(cost)
      if (seconds > LONGEST_WAIT_S) {
        const when = Math.ceil(seconds)
        const message = `tokens: too many instruments were asked for lately; these ${instruments} can be in ${when} s`
        this.refuse({ code: "too_fast", message, id })
        return false
      }
      yield Math.ceil(seconds * 1000)
    }
    return true
  }

  private *unsubscribe({ tokens, symbols = [], id }: UnsubscribeMessage): Steps {
    const { client } = this
    const count = (tokens ?? symbols).length
    if (!(yield* this.affords(MESSAGE_COST + count + client.tokens / LISTED_FOR_ONE, count, id))) return
    const removals: Array<Removal> = []
    let done = 0
    for (const token of tokens ?? []) {
      if (done++ % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      removals.push({ instrument_token: token, removed: client.unsubscribe(token) })
    }
    for (const symbol of symbols) {
      if (done++ % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      const [only, other] = this.named(symbol)
      if (only === undefined || other !== undefined) removals.push({ symbol, removed: false })
      else {
        const { instrument_token: token } = only
        removals.push({ instrument_token: token, symbol, removed: client.unsubscribe(token) })
      }
    }
    client.say(unsubscribedFrame(id, removals, client.held))
  }

  private *subscribe(message: SubscribeMessage): Steps {
    const { client } = this
    const { hub, settings } = this.services
    const { id, replay, capacity, since, policy, batch } = message
    if (this.key !== undefined && !this.key.scopes.has("read")) {
      this.services.access?.observer.figuresOf(this.key.name).refused("scope")
      this.refuse({ code: "forbidden", message: lacksScope(this.key, "read"), id })
      return
    }
    if (capacity !== undefined && capacity > settings.MAX_CLIENT_CAPACITY) {
      const most = settings.MAX_CLIENT_CAPACITY
      this.refuse({ code: "bad_message", message: `capacity: expected at most ${most}, got ${capacity}`, id })
      return
    }
    const channel = hub.channel(replay ?? LIVE)
    if (channel === undefined) {
      const text = `replay: expected the id of a replay that runs, got ${JSON.stringify(replay)}`
      this.refuse({ code: "unknown_replay", message: text, id })
      return
    }
    if (policy === "pause" && channel.key !== LIVE) {
      const text = 'policy: a replay keeps nothing to go on from: expected another than "pause"'
      this.refuse({ code: "unsupported", message: text, id })
      return
    }
    const count = (message.tokens ?? message.symbols ?? []).length
    const places = since === undefined ? 0 : Object.keys(since).length
    if (!(yield* this.affords(MESSAGE_COST + count + PLACE_COST * places, count, id))) return
    if (!client.join(channel)) {
      const other = client.stream === LIVE ? "the market" : `replay ${client.stream}`
      const text = `replay: this connection listens to ${other}; open another one for a second stream`
      this.refuse({ code: "other_stream", message: text, id })
      return
    }
    this.day = channel.day
    client.configure({ policy, capacity, batch })

    const wanted = { channels: wantedOf(message.channels ?? DEFAULT_CHANNELS), backfill: message.backfill ?? 0 }
    const optionsOf = (token: number): SubscribeOptions => {
      const place = since?.[token]
      return { ...wanted, since: place === undefined ? undefined : { epoch: place[0], position: place[1] } }
    }
    const { answers, tokens, simulated } = yield* this.resolve(message, optionsOf)
    client.say(subscribedFrame(id, simulated, answers))
    let done = 0
    for (const token of tokens) {
      if (done++ % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      // The replay may have ended meanwhile: of what is closed nothing comes.
      if (hub.channel(channel.key) !== channel) break
      if (this.granted > 0 && !client.has(token)) this.grant(-1)
      client.subscribe(token, optionsOf(token))
    }
    this.grant(-this.granted)
    if (channel.lastClock !== undefined) client.say(channel.lastClock)
  }

  /** What becomes of each token or symbol asked for, in the order asked. */
  private *resolve(message: SubscribeMessage, optionsOf: (token: number) => SubscribeOptions) {
    const { hub, settings } = this.services
    const { client } = this
    const answers: Array<Answer> = []
    const tokens = new Set<number>()
    let simulated = false
    let own = settings.MAX_CLIENT_TOKENS - client.tokens
    /** What becomes of a token that was not named in this message yet. */
    const verdictOn = (token: number): Verdict => {
      if (!this.sees(token)) return { reason: "forbidden" }
      const verdict = client.verdict(token, optionsOf(token))
      if (verdict.reason !== undefined || client.has(token)) return verdict
      if (own <= 0) return { reason: "too_many_tokens" }
      if (hub.subscriptions + hub.granted >= settings.MAX_SUBSCRIPTIONS) return { reason: "server_full" }
      own--
      this.grant(1)
      return verdict
    }
    const take = (token: number, symbol?: string): void => {
      const named = { instrument_token: token, ...(symbol === undefined ? {} : { symbol }) }
      let stands = {}
      if (!tokens.has(token)) {
        const { reason, at } = verdictOn(token)
        if (at !== undefined) stands = { at: placeJson(at) }
        if (reason !== undefined) {
          answers.push({ ...named, accepted: false, reason, ...stands })
          return
        }
        tokens.add(token)
      } else if (symbol === undefined) return
      const instrument = this.instrument(token)
      simulated ||= instrument?.exchange === SIMULATED_EXCHANGE
      answers.push({ ...named, accepted: true, known: instrument !== undefined, ...stands })
    }
    let done = 0
    for (const token of message.tokens ?? []) {
      if (done++ % (4 * STEP_INSTRUMENTS) === 4 * STEP_INSTRUMENTS - 1) yield
      take(token)
    }
    for (const symbol of message.symbols ?? []) {
      if (done++ % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      const found = this.named(symbol)
      const [only] = found
      if (only !== undefined && found.length === 1) take(only.instrument_token, symbol)
      else if (only !== undefined) answers.push({ symbol, accepted: false, reason: "ambiguous_symbol" })
      else answers.push({ symbol, accepted: false, reason: this.unnamed(symbol) })
    }
    return { answers, tokens, simulated }
  }
}

const placeJson = ({ epoch, position }: Place): PlaceJson => [epoch, position]

const NOT_TEXT = Result.fail<Refused>({
  code: "bad_message",
  message: "input: expected text, got binary",
  id: undefined
})
