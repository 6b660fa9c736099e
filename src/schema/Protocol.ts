/** Decides what a WebSocket client may say and what it is told: messages decoded by schema, frames written by hand. */
import { Result, Schema } from "effect"
import { explain, showValue } from "./Explain.ts"
import { InstrumentToken, MAX_TOKEN } from "./RawTick.ts"
import type { Tick, TickStatus } from "./Tick.ts"

/** Larger messages close the connection with 1009. */
export const MAX_MESSAGE_BYTES = 524_288
/** More than any ring holds; a client gets what there is. */
export const MAX_BACKFILL = 100_000
/** A list of names or tokens cannot be longer than the message that carries it. */
const MAX_LISTED = MAX_MESSAGE_BYTES / 2
const MAX_NAME_CHARS = 64

export const CHANNELS = ["tick", "gap", "candle_1m", "candle_5m"] as const
export const POLICIES = ["evict-oldest", "conflate", "pause", "disconnect"] as const
/** What this server serves of them; the rest is refused by name. */
const SERVED_CHANNELS: ReadonlySet<string> = new Set(["tick", "gap"])
const SERVED_POLICIES: ReadonlySet<string> = new Set(["evict-oldest"])

/** Where an instrument's stream stands: the resume token. */
export interface Place {
  readonly epoch: number
  readonly position: number
}

const Count = Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0)))
const Name = Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_NAME_CHARS)))
const tokenKey = (key: string): boolean => /^[1-9]\d{0,9}$/.test(key) && Number(key) <= MAX_TOKEN
const list = <S extends Schema.Constraint>(item: S) =>
  Schema.Array(item).pipe(Schema.check(Schema.isBetweenLength(1, MAX_LISTED)))

const Subscribe = Schema.Struct({
  action: Schema.Literal("subscribe"),
  tokens: Schema.optionalKey(list(InstrumentToken)),
  symbols: Schema.optionalKey(list(Name)),
  since: Schema.optionalKey(Schema.Record(Schema.String, Schema.Tuple([Count, Count]))),
  backfill: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: MAX_BACKFILL })))),
  channels: Schema.optionalKey(list(Schema.Literals(CHANNELS))),
  policy: Schema.optionalKey(Schema.Literals(POLICIES)),
  capacity: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isGreaterThan(0)))),
  batch: Schema.optionalKey(Schema.Boolean),
  replay: Schema.optionalKey(Name),
  id: Schema.optionalKey(Schema.Unknown)
})

const Unsubscribe = Schema.Struct({
  action: Schema.Literal("unsubscribe"),
  tokens: list(InstrumentToken),
  id: Schema.optionalKey(Schema.Unknown)
})

const Auth = Schema.Struct({
  action: Schema.Literal("auth"),
  key: Schema.String,
  id: Schema.optionalKey(Schema.Unknown)
})

const Ping = Schema.Struct({ action: Schema.Literal("ping"), id: Schema.optionalKey(Schema.Unknown) })

export type SubscribeMessage = typeof Subscribe.Type
export type UnsubscribeMessage = typeof Unsubscribe.Type
export type AuthMessage = typeof Auth.Type
export type PingMessage = typeof Ping.Type
export type ClientMessage = SubscribeMessage | UnsubscribeMessage | AuthMessage | PingMessage

const decoders = {
  subscribe: Schema.decodeUnknownResult(Subscribe),
  unsubscribe: Schema.decodeUnknownResult(Unsubscribe),
  auth: Schema.decodeUnknownResult(Auth),
  ping: Schema.decodeUnknownResult(Ping)
} as const

/** `bad_message` counts against the client; `unsupported` is well-formed, but not served here. */
export type ErrorCode =
  | "bad_message"
  | "unsupported"
  | "unknown_replay"
  | "other_stream"
  | "no_keys"
  | "too_many_tokens"

/** A message that is refused; `id` is the client's own, where it sent one. */
export interface Refused {
  readonly code: ErrorCode
  readonly message: string
  readonly id: unknown
}

const refuse = (code: ErrorCode, message: string, id?: unknown) => Result.fail<Refused>({ code, message, id })

/** Reads one client message; a refusal names the field and the value. */
export const decodeClientMessage = (text: string): Result.Result<ClientMessage, Refused> => {
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
  if (typeof action !== "string" || !Object.hasOwn(decoders, action)) {
    const known = Object.keys(decoders)
      .map((name) => `"${name}"`)
      .join(" | ")
    return refuse("bad_message", `action: expected ${known}, got ${showValue(action)}`, id)
  }
  const decoded: Result.Result<ClientMessage, Schema.SchemaError> = decoders[action as keyof typeof decoders](value)
  if (Result.isFailure(decoded)) return refuse("bad_message", explain(decoded.failure.issue, value).message, id)
  return decoded.success.action === "subscribe" ? served(decoded.success) : Result.succeed(decoded.success)
}

/** What the schema cannot say: one of two fields, keys that are tokens, and what is served. */
const served = (message: SubscribeMessage): Result.Result<ClientMessage, Refused> => {
  const { tokens, symbols, since, channels, policy, id } = message
  if (tokens === undefined && symbols === undefined) {
    return refuse("bad_message", "tokens: expected tokens or symbols, got nothing", id)
  }
  if (tokens !== undefined && symbols !== undefined) {
    return refuse("bad_message", `symbols: expected tokens or symbols, not both, got ${showValue(symbols)}`, id)
  }
  for (const key of Object.keys(since ?? {})) {
    if (!tokenKey(key)) return refuse("bad_message", `since: expected an instrument token, got ${showValue(key)}`, id)
  }
  for (const channel of channels ?? []) {
    if (!SERVED_CHANNELS.has(channel)) {
      return refuse("unsupported", `channels: this server serves "tick" and "gap", got ${showValue(channel)}`, id)
    }
  }
  if (policy !== undefined && !SERVED_POLICIES.has(policy)) {
    return refuse("unsupported", `policy: this server serves "evict-oldest", got ${showValue(policy)}`, id)
  }
  return Result.succeed(message)
}

/** One entry of a `subscribed` frame. `symbol` is there where the client named one. */
export type Answer =
  | { readonly instrument_token: number; readonly symbol?: string; readonly accepted: true; readonly known: boolean }
  | {
      readonly instrument_token?: number
      readonly symbol?: string
      readonly accepted: false
      readonly reason: string
    }

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

/** Every frame the server sends; with `batch` a frame is an array of these. */
export type ServerMessage =
  | {
      readonly type: "subscribed"
      readonly id?: unknown
      readonly simulated: boolean
      readonly tokens: ReadonlyArray<Answer>
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
  | {
      readonly type: "clock"
      readonly replay: string
      readonly run: number
      readonly ts: number | null
      readonly state: string
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

export const subscribedFrame = (id: unknown, simulated: boolean, tokens: ReadonlyArray<Answer>): string =>
  `{"type":"subscribed",${withId(id)}"simulated":${simulated},"tokens":${JSON.stringify(tokens)}}`

export const clockFrame = (replay: string, run: number, ts: number | null, state: string): string =>
  `{"type":"clock","replay":${JSON.stringify(replay)},"run":${run},"ts":${ts},"state":${JSON.stringify(state)}}`

export const errorFrame = ({ code, message, id }: Refused): string =>
  `{"type":"error",${withId(id)}"code":"${code}","message":${JSON.stringify(message)}}`

export const pongFrame = `{"type":"pong"}`

/** The client's own id goes back as it came, whatever JSON it is. */
const withId = (id: unknown): string => (id === undefined ? "" : `"id":${JSON.stringify(id)},`)
