/**
 * Decides what one connection may say, and answers it: how much at once and in the long run, in which order, and what
 * becomes of it. Answers go through the client's queue, in order with the ticks.
 */
import { Result } from "effect"
import type { LiveKey } from "../layers/keys/ApiKeys.ts"
import { SIMULATED_EXCHANGE } from "../schema/Instrument.ts"
import {
  type Answer,
  type AuthMessage,
  authorizedFrame,
  DEFAULT_CHANNELS,
  decodeClientMessage,
  type ErrorCode,
  errorFrame,
  MAX_MESSAGE_BYTES,
  pongFrame,
  type Refused,
  type SubscribeMessage,
  subscribedFrame,
  type UnsubscribeMessage
} from "../schema/Protocol.ts"
import type { Settings } from "../schema/Settings.ts"
import { LIVE } from "../streams/fanOut/Channel.ts"
import type { ClientSocket, EndReason } from "../streams/fanOut/ClientQueue.ts"
import type { Hub } from "../streams/fanOut/Hub.ts"
import type { HubClient } from "../streams/fanOut/HubClient.ts"
import { wantedOf } from "../streams/fanOut/sideChannels.ts"
import type { Instruments } from "../streams/ports/Instruments.ts"
import { type KeyAccess, lacksScope } from "./access.ts"
import { Rate } from "./rate.ts"
import type { Shares, Work } from "./shares.ts"

/** Messages a client may send at once, and then each second; pings and pongs of the protocol count too. */
export const MESSAGE_BURST = 100
const MESSAGES_PER_SECOND = 20
/** Bytes that a client may send at once, and then each second. */
export const BYTE_BURST = 4 * MAX_MESSAGE_BYTES
const BYTES_PER_SECOND = 131_072
/** Of the instruments that a client may subscribe to, how often it may ask for all of them at once, and each second. */
const INSTRUMENT_BURST = 2
const INSTRUMENTS_PER_SECOND = 0.1
const LEAST_INSTRUMENTS = 1_000
/** Instruments handled in one step: about a tenth of a millisecond. */
const STEP_INSTRUMENTS = 64
/** Messages that do not read before a client is closed with 1008. */
export const MAX_STRIKES = 10

export type SessionSettings = Pick<Settings, "MAX_CLIENT_TOKENS" | "MAX_CLIENT_CAPACITY" | "MAX_SUBSCRIPTIONS">

export interface SessionServices {
  readonly hub: Hub
  readonly instruments: Pick<Instruments["Service"], "get" | "named">
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

export class ClientSession implements Work {
  readonly client: HubClient
  private readonly services: SessionServices
  private readonly messages = new Rate(MESSAGE_BURST, MESSAGES_PER_SECOND)
  private readonly bytes = new Rate(BYTE_BURST, BYTES_PER_SECOND)
  private readonly instruments: Rate
  private readonly unread: Array<Unread> = []
  /** What is left to do of the message in hand. */
  private inHand: Generator<void, void> | undefined
  private strikes = 0
  /** What the connection was let in by, where a key is asked for. */
  private readonly key: LiveKey | undefined

  constructor(services: SessionServices, socket: ClientSocket, key?: LiveKey) {
    this.services = services
    this.key = key
    this.client = services.hub.connect(socket)
    const most = Math.max(LEAST_INSTRUMENTS, services.settings.MAX_CLIENT_TOKENS)
    this.instruments = new Rate(most * INSTRUMENT_BURST, most * INSTRUMENTS_PER_SECOND)
  }

  /** Takes one message; the bytes are the app's own again when this returns. */
  message(bytes: ArrayBuffer, isBinary: boolean): void {
    if (bytes.byteLength > MAX_MESSAGE_BYTES) {
      this.end(1009, `a message holds at most ${MAX_MESSAGE_BYTES} bytes`, "too_large")
      return
    }
    if (!this.count(bytes.byteLength)) return
    this.client.queue.receive(bytes.byteLength)
    // Copied: whether it is read now or later is decided below.
    this.unread.push({ bytes: Buffer.from(bytes.slice(0)), isBinary })
    this.services.shares.add(this)
  }

  /** Counts a message, ping or pong of so many bytes; false where it was one too many, and the client is ended. */
  count(bytes: number): boolean {
    if (this.client.queue.closed) return false
    if (!this.messages.take(1)) {
      this.end(1008, "too many messages", "too_many_messages")
      return false
    }
    if (!this.bytes.take(bytes)) {
      this.end(1008, "too many bytes", "too_many_bytes")
      return false
    }
    return true
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
        const next = this.unread.shift()
        if (next === undefined) return false
        this.inHand = this.read(next)
        queue.receive(-next.bytes.length)
      }
      const isDone = this.inHand.next().done
      this.client.flush()
      if (isDone) this.inHand = undefined
    } catch (error) {
      hub.fail(queue, error)
    }
    return !queue.closed && (this.inHand !== undefined || this.unread.length > 0)
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
    this.unread.length = 0
    this.inHand = undefined
  }

  private *read({ bytes, isBinary }: Unread): Generator<void, void> {
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
        this.client.say(pongFrame)
        return
    }
  }

  /** Who has shown a key already may show the same again; for another there is another connection. */
  private authorize({ id, key: text }: AuthMessage): void {
    const { key } = this
    const { access } = this.services
    if (key === undefined || access === undefined) {
      this.client.say(errorFrame({ code: "no_keys", message: "auth: no API keys are configured, none is needed", id }))
    } else if (access.isSame(text, key)) this.client.say(authorizedFrame(id, key))
    else {
      const message = `auth: this connection speaks by key "${key.name}"; open another one for another key`
      this.refuse({ code: "already_authorized", message, id })
    }
  }

  /** Whether the key is for a token. */
  private sees(token: number): boolean {
    const { key } = this
    const { access, instruments } = this.services
    if (key === undefined || key.sees(token, instruments.get(token))) return true
    access?.observer.figuresOf(key.name).refused("instruments")
    return false
  }

  private refuse(refused: Refused): void {
    this.services.observer.refused(refused.code, refused.message)
    this.client.say(errorFrame(refused))
    if (refused.code !== "bad_message" || ++this.strikes < MAX_STRIKES) return
    this.client.flush()
    this.end(1008, "too many bad messages", "bad_messages")
  }

  /** Whether so many instruments may be asked for now; refuses the message where they may not. */
  private affords(instruments: number, id: unknown): boolean {
    if (this.instruments.take(instruments)) return true
    const seconds = Math.ceil(this.instruments.secondsUntil(instruments))
    const message = `tokens: too many instruments were asked for lately; these ${instruments} can be in ${seconds} s`
    this.refuse({ code: "too_fast", message, id })
    return false
  }

  private *unsubscribe({ tokens, id }: UnsubscribeMessage): Generator<void, void> {
    if (!this.affords(tokens.length, id)) return
    for (let i = 0; i < tokens.length; i++) {
      if (i % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      this.client.unsubscribe(tokens[i]!)
    }
  }

  private *subscribe(message: SubscribeMessage): Generator<void, void> {
    const { client } = this
    const { hub, settings } = this.services
    const { id, replay, capacity, since } = message
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
    if (!this.affords((message.tokens ?? message.symbols ?? []).length, id)) return
    if (!client.join(channel)) {
      const other = client.stream === LIVE ? "the market" : `replay ${client.stream}`
      const text = `replay: this connection listens to ${other}; open another one for a second stream`
      this.refuse({ code: "other_stream", message: text, id })
      return
    }
    if (message.batch !== undefined) client.queue.batch = message.batch
    if (capacity !== undefined) client.queue.resize(capacity)

    const { answers, tokens, simulated } = yield* this.resolve(message)
    client.say(subscribedFrame(id, simulated, answers))
    const wanted = { channels: wantedOf(message.channels ?? DEFAULT_CHANNELS), backfill: message.backfill ?? 0 }
    let done = 0
    for (const token of tokens) {
      if (done++ % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      const place = since?.[token]
      client.subscribe(token, {
        ...wanted,
        since: place === undefined ? undefined : { epoch: place[0], position: place[1] }
      })
    }
    if (channel.lastClock !== undefined) client.say(channel.lastClock)
  }

  /** What becomes of each token or symbol asked for, in the order asked. */
  private *resolve(message: SubscribeMessage) {
    const { hub, instruments, settings } = this.services
    const { client } = this
    const { since, backfill = 0 } = message
    const answers: Array<Answer> = []
    const tokens = new Set<number>()
    let simulated = false
    let own = settings.MAX_CLIENT_TOKENS - client.tokens
    let all = settings.MAX_SUBSCRIPTIONS - hub.subscriptions
    /** Why a token that was not named in this message yet is not taken. */
    const reasonAgainst = (token: number): string | undefined => {
      if (!this.sees(token)) return "forbidden"
      // What was sent already is not sent again: it would break the order of positions.
      if (client.hasTicks(token) && (backfill > 0 || since?.[token] !== undefined)) return "already_subscribed"
      if (client.has(token)) return undefined
      if (own <= 0) return "too_many_tokens"
      if (all <= 0) return "server_full"
      own--
      all--
      return undefined
    }
    const take = (token: number, symbol?: string): void => {
      const named = symbol === undefined ? {} : { symbol }
      if (!tokens.has(token)) {
        const reason = reasonAgainst(token)
        if (reason !== undefined) {
          answers.push({ instrument_token: token, ...named, accepted: false, reason })
          return
        }
        tokens.add(token)
      } else if (symbol === undefined) return
      const instrument = instruments.get(token)
      simulated ||= instrument?.exchange === SIMULATED_EXCHANGE
      answers.push({ instrument_token: token, ...named, accepted: true, known: instrument !== undefined })
    }
    let done = 0
    for (const token of message.tokens ?? []) {
      if (done++ % (4 * STEP_INSTRUMENTS) === 4 * STEP_INSTRUMENTS - 1) yield
      take(token)
    }
    for (const symbol of message.symbols ?? []) {
      if (done++ % STEP_INSTRUMENTS === STEP_INSTRUMENTS - 1) yield
      const found = instruments.named(symbol)
      const [only] = found
      if (only !== undefined && found.length === 1) take(only.instrument_token, symbol)
      else answers.push({ symbol, accepted: false, reason: only === undefined ? "unknown_symbol" : "ambiguous_symbol" })
    }
    return { answers, tokens, simulated }
  }
}

const NOT_TEXT = Result.fail<Refused>({
  code: "bad_message",
  message: "input: expected text, got binary",
  id: undefined
})
