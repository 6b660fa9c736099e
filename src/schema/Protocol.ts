/**
 * Decides what a WebSocket client may say and what it is told: messages decoded by schema and within bounds, frames
 * written by hand.
 */
import { Result, Schema } from "effect"
import type { Scope } from "./ApiKey.ts"
import type { Candle } from "./Candle.ts"
import { explain, showValue } from "./Explain.ts"
import { hideKeys } from "./keyText.ts"
import { unknownName } from "./Nearest.ts"
import { type QuoteState, quoteMembers } from "./Quote.ts"
import { MAX_TOKEN } from "./RawValues.ts"
import type { Tick, TickStatus } from "./Tick.ts"

/** Larger messages close the connection with 1009. */
export const MAX_MESSAGE_BYTES = 262_144
/** Objects and arrays in one another; deeper messages are not parsed. */
export const MAX_MESSAGE_DEPTH = 16
/** A client's own `id` goes back to it with every answer: so many characters of JSON. */
export const MAX_ID_CHARS = 1024
/** Instruments that one message names; a client that wants more sends several. */
export const MAX_LISTED = 10_000
/** Of them, those that one message says the place of. */
export const MAX_PLACES = 2_000
/** More than any ring holds; a client gets what there is. */
export const MAX_BACKFILL = 100_000
const MAX_NAME_CHARS = 64
const MAX_KEY_CHARS = 256

export const CHANNELS = ["tick", "gap", "quote", "candle_1m", "candle_5m", "state"] as const
export type ChannelName = (typeof CHANNELS)[number]
/** Of a subscription that names none. */
export const DEFAULT_CHANNELS: ReadonlyArray<ChannelName> = ["tick", "gap"]
/** What becomes of ticks that a client's full queue has no room for; the first unless a subscription names another. */
export const POLICIES = ["evict-oldest", "conflate", "pause", "disconnect"] as const
export type Policy = (typeof POLICIES)[number]

/** Where an instrument's stream stands: the resume token. */
export interface Place {
  readonly epoch: number
  readonly position: number
}

const Name = Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_NAME_CHARS)))
const list = <S extends Schema.Constraint>(item: S, most: number) =>
  Schema.Array(item).pipe(Schema.check(Schema.isBetweenLength(1, most)))

/** Lists of instruments are long: `listed` looks through them, faster than a schema would. */
const Subscribe = Schema.Struct({
  action: Schema.Literal("subscribe"),
  tokens: Schema.optionalKey(Schema.Unknown),
  symbols: Schema.optionalKey(Schema.Unknown),
  since: Schema.optionalKey(Schema.Unknown),
  backfill: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: MAX_BACKFILL })))),
  channels: Schema.optionalKey(list(Schema.Literals(CHANNELS), CHANNELS.length)),
  policy: Schema.optionalKey(Schema.Literals(POLICIES)),
  capacity: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isGreaterThan(0)))),
  batch: Schema.optionalKey(Schema.Boolean),
  replay: Schema.optionalKey(Name),
  id: Schema.optionalKey(Schema.Unknown)
})

const Unsubscribe = Schema.Struct({
  action: Schema.Literal("unsubscribe"),
  tokens: Schema.optionalKey(Schema.Unknown),
  symbols: Schema.optionalKey(Schema.Unknown),
  id: Schema.optionalKey(Schema.Unknown)
})

const Auth = Schema.Struct({
  action: Schema.Literal("auth"),
  key: Schema.String.pipe(Schema.check(Schema.isMaxLength(MAX_KEY_CHARS))),
  id: Schema.optionalKey(Schema.Unknown)
})

const Ping = Schema.Struct({ action: Schema.Literal("ping"), id: Schema.optionalKey(Schema.Unknown) })

/** What `listed` has looked through. */
interface Listed {
  readonly tokens?: ReadonlyArray<number>
  readonly symbols?: ReadonlyArray<string>
  readonly since?: Readonly<Record<string, readonly [epoch: number, position: number]>>
}

export type SubscribeMessage = Omit<typeof Subscribe.Type, keyof Listed> & Listed
export type UnsubscribeMessage = Omit<typeof Unsubscribe.Type, keyof Listed> & Omit<Listed, "since">
export type AuthMessage = typeof Auth.Type
export type PingMessage = typeof Ping.Type
export type ClientMessage = SubscribeMessage | UnsubscribeMessage | AuthMessage | PingMessage

const decoders = {
  subscribe: Schema.decodeUnknownResult(Subscribe),
  unsubscribe: Schema.decodeUnknownResult(Unsubscribe),
  auth: Schema.decodeUnknownResult(Auth),
  ping: Schema.decodeUnknownResult(Ping)
} as const

const keysOf = {
  subscribe: Object.keys(Subscribe.fields),
  unsubscribe: Object.keys(Unsubscribe.fields),
  auth: Object.keys(Auth.fields),
  ping: Object.keys(Ping.fields)
} as const

/** `bad_message` counts against the client; `unsupported` is well-formed, but not served here. */
export type ErrorCode =
  | "bad_message"
  | "unsupported"
  | "unknown_replay"
  | "other_stream"
  | "no_keys"
  | "too_fast"
  | "unauthorized"
  | "forbidden"
  | "already_authorized"
  | "too_many_connections"

/** A message that is refused; `id` is the client's own, where it sent one. */
export interface Refused {
  readonly code: ErrorCode
  readonly message: string
  readonly id: unknown
}

const refuse = (code: ErrorCode, message: string, id?: unknown) => Result.fail<Refused>({ code, message, id })

const [QUOTE, BACKSLASH, COMMA, COLON] = [34, 92, 44, 58]
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [91, 93, 123, 125]
/** Keys and lists of a message besides those of `since`. */
const MAX_OTHER_PARTS = 64
/** A place is two of them. */
const MAX_VALUES = MAX_LISTED + 2 * MAX_PLACES + MAX_OTHER_PARTS

/**
 * What is wrong with the shape of a text, whatever it says: asked before it is parsed, as deep values are a matter of
 * the stack from there on, and many keys cost far more than many numbers.
 */
const shapeProblem = (text: string): string | undefined => {
  let depth = 0
  let lists = 0
  let keys = 0
  let values = 1
  let isString = false
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i)
    if (char === QUOTE) isString = !isString
    else if (isString) {
      if (char === BACKSLASH) i++
    } else if (char === OPEN_LIST || char === OPEN_OBJECT) {
      lists++
      if (++depth > MAX_MESSAGE_DEPTH) {
        return `input: expected at most ${MAX_MESSAGE_DEPTH} levels of arrays and objects, got more`
      }
    } else if (char === CLOSE_LIST || char === CLOSE_OBJECT) depth--
    else if (char === COMMA) values++
    else if (char === COLON) keys++
  }
  const most = MAX_PLACES + MAX_OTHER_PARTS
  if (values > MAX_VALUES) {
    return `input: expected at most ${MAX_LISTED} instruments in one message, got ${values} values; send the rest in another`
  }
  if (lists <= most && keys <= most) return undefined
  return `since: expected at most ${MAX_PLACES} places in one message, got ${Math.max(lists, keys)} lists or keys; send the rest in another`
}

/** Reads one client message; a refusal names the field and the value. It costs no more than the text is long. */
export const decodeClientMessage = (text: string): Result.Result<ClientMessage, Refused> => {
  const shape = shapeProblem(text)
  if (shape !== undefined) return refuse("bad_message", shape)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return refuse("bad_message", `input: expected JSON, got ${showValue(text)}`)
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refuse("bad_message", `input: expected an object, got ${showValue(value)}`)
  }
  const { action, id } = value as { readonly action?: unknown; readonly id?: unknown }
  if (id !== undefined && JSON.stringify(id).length > MAX_ID_CHARS) {
    return refuse("bad_message", `id: expected at most ${MAX_ID_CHARS} characters of JSON, got ${showValue(id)}`)
  }
  if (!isAction(action)) {
    const known = Object.keys(decoders)
      .map((name) => `"${name}"`)
      .join(" | ")
    return refuse("bad_message", `action: expected ${known}, got ${showValue(action)}`, id)
  }
  const known = keysOf[action]
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) return refuse("bad_message", unknownName("key", key, known), id)
  }
  const decoded: Result.Result<object, Schema.SchemaError> = decoders[action](value)
  if (Result.isFailure(decoded)) return refuse("bad_message", explain(decoded.failure.issue, value).message, id)
  const wrong = listed(value as Readonly<Record<keyof Listed, unknown>>)
  if (wrong !== undefined) return refuse("bad_message", wrong, id)
  const message = decoded.success as ClientMessage
  if (message.action !== "subscribe" && message.action !== "unsubscribe") return Result.succeed(message)
  const { tokens, symbols } = message
  if (tokens === undefined && symbols === undefined) {
    return refuse("bad_message", "tokens: expected tokens or symbols, got nothing", id)
  }
  if (tokens !== undefined && symbols !== undefined) {
    return refuse("bad_message", `symbols: expected tokens or symbols, not both, got ${showValue(symbols)}`, id)
  }
  return message.action === "subscribe" ? fitting(message) : Result.succeed(message)
}

const isAction = (action: unknown): action is keyof typeof decoders =>
  typeof action === "string" && Object.hasOwn(decoders, action)

const TOKEN_KEY = /^[1-9]\d{0,9}$/
const isToken = (token: unknown): boolean =>
  Number.isInteger(token) && (token as number) >= 1 && (token as number) <= MAX_TOKEN
const TOKEN = `an instrument token, a whole number from 1 to ${MAX_TOKEN}`
const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0

const countOf = (key: string, count: number, least: number, most: number): string | undefined =>
  count >= least && count <= most
    ? undefined
    : `${key}: expected ${least} to ${most} in one message, got ${count}${count === 0 ? "" : "; send the rest in another"}`

/** What is wrong with the lists of a message. */
const listed = (message: Readonly<Record<keyof Listed, unknown>>): string | undefined => {
  for (const key of ["tokens", "symbols"] as const) {
    const items = message[key]
    if (items === undefined) continue
    if (!Array.isArray(items)) return `${key}: expected a list, got ${showValue(items)}`
    const wrong = countOf(key, items.length, 1, MAX_LISTED)
    if (wrong !== undefined) return wrong
    for (let i = 0; i < items.length; i++) {
      const item = items[i]
      if (key === "tokens") {
        if (!isToken(item)) return `tokens.${i}: expected ${TOKEN}, ${gotToken(item)}`
      } else if (typeof item !== "string" || item === "" || item.length > MAX_NAME_CHARS) {
        const hint = isToken(item) ? "; numbers go in tokens" : ""
        return `symbols.${i}: expected a name of 1 to ${MAX_NAME_CHARS} characters, got ${showValue(item)}${hint}`
      } else if (hideKeys(item) !== item) {
        // The answer would say it again.
        return `symbols.${i}: expected a name such as NSE:INFY, got ${showValue(item)}; a key goes in {"action":"auth"}`
      }
    }
  }
  const { since } = message
  if (since === undefined) return undefined
  if (typeof since !== "object" || since === null || Array.isArray(since)) {
    return `since: expected an object of [epoch, position] by instrument token, got ${showValue(since)}`
  }
  const places = Object.entries(since)
  const wrong = countOf("since", places.length, 0, MAX_PLACES)
  if (wrong !== undefined) return wrong
  for (const [key, place] of places) {
    if (!TOKEN_KEY.test(key) || Number(key) > MAX_TOKEN) return `since: expected ${TOKEN}, got ${showValue(key)}`
    if (!Array.isArray(place) || place.length !== 2) {
      return `since.${key}: expected [epoch, position] as the last tick had them, got ${showValue(place)}`
    }
    const [epoch, position] = place
    const unit = unitOf(epoch)
    if (!isCount(epoch) || unit !== undefined) {
      const hint = unit === undefined ? "" : `, which looks like ${unit} since 1970`
      return `since.${key}.0: expected the epoch that ticks and backfills carry, got ${showValue(epoch)}${hint}`
    }
    if (!isCount(position)) {
      return `since.${key}.1: expected a position, a whole number from 0 on, got ${showValue(position)}`
    }
  }
  return undefined
}

const gotToken = (item: unknown): string => {
  if (typeof item !== "string") return `got ${showValue(item)}`
  return `got ${showValue(item)}${TOKEN_KEY.test(item) ? "; it goes without quotes" : "; names go in symbols"}`
}

/** The unit of a time since 1970 that somebody took for an epoch; epochs themselves lie far from all of them. */
const unitOf = (epoch: unknown): string | undefined => {
  if (typeof epoch !== "number") return undefined
  // 1980 to 2100, in seconds.
  const is = (perSecond: number) => epoch >= 315_532_800 * perSecond && epoch < 4_102_444_800 * perSecond
  if (is(1)) return "seconds"
  if (is(1e3)) return "milliseconds"
  if (is(1e6)) return "microseconds"
  return is(1e9) ? "nanoseconds" : undefined
}

/** What the schema cannot say: fields that go with one another. */
const fitting = (message: SubscribeMessage): Result.Result<ClientMessage, Refused> => {
  const { since, backfill, channels, id } = message
  if (channels !== undefined && !channels.includes("tick") && (since !== undefined || backfill !== undefined)) {
    const field = since !== undefined ? "since" : "backfill"
    return refuse("bad_message", `${field}: goes with the channel "tick", got ${showValue(channels)} as channels`, id)
  }
  return Result.succeed(message)
}

/** A place as messages carry it. */
export type PlaceJson = readonly [epoch: number, position: number]

/**
 * One entry of a `subscribed` frame. `symbol` is there where the client named one; `at` is where the stream stands, there
 * where it is not where the client's `since` says, or where the client asked for what it was sent already.
 */
export type Answer =
  | {
      readonly instrument_token: number
      readonly symbol?: string
      readonly accepted: true
      readonly known: boolean
      readonly at?: PlaceJson
    }
  | {
      readonly instrument_token?: number
      readonly symbol?: string
      readonly accepted: false
      readonly reason: string
      readonly at?: PlaceJson
    }

/** One entry of an `unsubscribed` frame. `removed` is false for what was not subscribed, or is no instrument's name. */
export interface Removal {
  readonly instrument_token?: number
  readonly symbol?: string
  readonly removed: boolean
}

/** A client that could not be kept, as its `policy` has it: closed with this code. */
export const SLOW_CODE = 4001

/** The tick as a client sees it, in `tick` frames and in the `data` of `backfill`. */
export interface TickFrame {
  readonly type: "tick"
  readonly instrument_token: number
  readonly price: number
  readonly volume: number
  readonly status: TickStatus
  readonly exchange_ts: number
  readonly sequence_id: number
  readonly epoch: number
  readonly position: number
}

/** The intervals of live bars. */
export type LiveInterval = "1m" | "5m"

/** A bar as a client sees it: the newest revision of it counts, and `[ts, ts + interval)` is its time. */
export interface CandleFrame extends Omit<Candle, "oi"> {
  readonly type: "candle"
  readonly instrument_token: number
  readonly interval: LiveInterval
  /** The last open interest that a quote of its time said. */
  readonly oi?: number
  /** Ticks in the bar. */
  readonly revision: number
  /** Its time is over; a late tick still makes another revision of it. */
  readonly final: boolean
}

/** What is known of an instrument's book and day; what is not known is left out. The latest counts. */
export type QuoteFrame = {
  readonly type: "quote"
  readonly instrument_token: number
  readonly exchange_ts: number
} & { readonly [N in keyof QuoteState]?: Exclude<QuoteState[N], undefined> }

/** `stale`: in trading hours, and silent beyond what is usual for it. */
export type InstrumentState = "live" | "stale" | "closed"

/** Every frame the server sends; with `batch` a frame is an array of these. */
export type ServerMessage =
  | {
      readonly type: "subscribed"
      readonly id?: unknown
      readonly simulated: boolean
      readonly tokens: ReadonlyArray<Answer>
    }
  | {
      readonly type: "unsubscribed"
      readonly id?: unknown
      readonly tokens: ReadonlyArray<Removal>
      /** What the client still subscribes to. */
      readonly held: ReadonlyArray<number>
    }
  | {
      readonly type: "closing"
      readonly code: number
      readonly reason: string
      /** By instrument token: where its stream stands, so that it goes on from there on another connection. */
      readonly since: Readonly<Record<string, PlaceJson>>
    }
  | {
      readonly type: "backfill"
      readonly instrument_token: number
      readonly epoch: number
      readonly from: number
      readonly to: number
      /** False: something before `from` is not to be had. */
      readonly recovered: boolean
      readonly data: ReadonlyArray<TickFrame>
    }
  | TickFrame
  | {
      readonly type: "evicted"
      readonly instrument_token: number
      readonly epoch: number
      readonly from: number
      readonly to: number
      readonly count: number
    }
  | {
      readonly type: "gap" | "gap_filled"
      readonly instrument_token: number
      readonly from: number
      readonly to: number
    }
  | CandleFrame
  | QuoteFrame
  | {
      readonly type: "state"
      readonly instrument_token: number
      readonly state: InstrumentState
      /** Epoch microseconds: where trading, its end or the silence began. */
      readonly since: number
    }
  | {
      readonly type: "clock"
      readonly replay: string
      readonly run: number
      readonly ts: number | null
      readonly state: string
    }
  | {
      readonly type: "authorized"
      readonly id?: unknown
      readonly key: string
      readonly scopes: ReadonlyArray<Scope>
      /** Epoch microseconds. */
      readonly expires: number | null
    }
  | { readonly type: "error"; readonly code: ErrorCode; readonly message: string; readonly id?: unknown }
  | { readonly type: "pong" }

/** What a `tick` frame is made of. */
export type TickFields = Pick<
  Tick,
  "instrument_token" | "price" | "volume" | "status" | "exchange_ts" | "sequence_id" | "epoch" | "position"
>

export const tickFrame = (t: TickFields): string =>
  `{"type":"tick","instrument_token":${t.instrument_token},"price":${t.price},"volume":${t.volume},` +
  `"status":"${t.status}","exchange_ts":${t.exchange_ts},"sequence_id":${t.sequence_id},` +
  `"epoch":${t.epoch},"position":${t.position}}`

/** `data` holds the texts of tick frames. */
export const backfillFrame = (
  token: number,
  epoch: number,
  from: number,
  to: number,
  recovered: boolean,
  data: ReadonlyArray<string>
): string =>
  `{"type":"backfill","instrument_token":${token},"epoch":${epoch},"from":${from},"to":${to},` +
  `"recovered":${recovered},"data":[${data.join(",")}]}`

export const evictedFrame = (token: number, epoch: number, from: number, to: number): string =>
  `{"type":"evicted","instrument_token":${token},"epoch":${epoch},"from":${from},"to":${to},"count":${to - from + 1}}`

/** Sequence ids that are missing, as the tick after them shows. */
export const gapFrame = (token: number, from: number, to: number): string =>
  `{"type":"gap","instrument_token":${token},"from":${from},"to":${to}}`

export const gapFilledFrame = (token: number, from: number, to: number): string =>
  `{"type":"gap_filled","instrument_token":${token},"from":${from},"to":${to}}`

export const candleFrame = (
  token: number,
  interval: LiveInterval,
  { ts, open, high, low, close, volume, oi }: Candle,
  revision: number,
  final: boolean
): string =>
  `{"type":"candle","instrument_token":${token},"interval":"${interval}","ts":${ts},"open":${open},"high":${high},` +
  `"low":${low},"close":${close},"volume":${volume},${oi === undefined ? "" : `"oi":${oi},`}"revision":${revision},"final":${final}}`

export const quoteFrame = (token: number, exchange_ts: number, state: QuoteState): string =>
  `{"type":"quote","instrument_token":${token},"exchange_ts":${exchange_ts}${quoteMembers(state)}}`

export const stateFrame = (token: number, state: InstrumentState, since: number): string =>
  `{"type":"state","instrument_token":${token},"state":"${state}","since":${since}}`

export const subscribedFrame = (id: unknown, simulated: boolean, tokens: ReadonlyArray<Answer>): string =>
  `{"type":"subscribed",${withId(id)}"simulated":${simulated},"tokens":${JSON.stringify(tokens)}}`

export const unsubscribedFrame = (id: unknown, tokens: ReadonlyArray<Removal>, held: Iterable<number>): string =>
  `{"type":"unsubscribed",${withId(id)}"tokens":${JSON.stringify(tokens)},"held":[${[...held].join(",")}]}`

/** The last frame before the close that it names. */
export const closingFrame = (code: number, reason: string, since: Iterable<readonly [number, Place]>): string => {
  const places: Array<string> = []
  for (const [token, { epoch, position }] of since) places.push(`"${token}":[${epoch},${position}]`)
  return `{"type":"closing","code":${code},"reason":${JSON.stringify(reason)},"since":{${places.join(",")}}}`
}

export const clockFrame = (replay: string, run: number, ts: number | null, state: string): string =>
  `{"type":"clock","replay":${JSON.stringify(replay)},"run":${run},"ts":${ts},"state":${JSON.stringify(state)}}`

/** `expires` in epoch microseconds. */
export const authorizedFrame = (
  id: unknown,
  key: { readonly name: string; readonly scopes: Iterable<Scope>; readonly expires: number | undefined }
): string =>
  `{"type":"authorized",${withId(id)}"key":${JSON.stringify(key.name)},"scopes":${JSON.stringify([...key.scopes])},` +
  `"expires":${key.expires ?? null}}`

export const errorFrame = ({ code, message, id }: Refused): string =>
  `{"type":"error",${withId(id)}"code":"${code}","message":${JSON.stringify(hideKeys(message))}}`

export const pongFrame = `{"type":"pong"}`

/** The client's own id goes back as it came, whatever JSON it is. */
const withId = (id: unknown): string => (id === undefined ? "" : `"id":${JSON.stringify(id)},`)
