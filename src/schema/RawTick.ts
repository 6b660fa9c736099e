/**
 * Decides what a feed may send: the fields of a raw record, which holds a tick, a quote or both; their defaults, how a
 * wrong one is refused, and how one is written.
 */
import { Result, Schema } from "effect"
import { explain } from "./Explain.ts"
import { encodePacket, QuoteInput, type QuoteState, type RawQuote, readQuote } from "./Quote.ts"
import { jsonName } from "./quotedOnce.ts"
import {
  InstrumentToken,
  isExactPrice,
  isPlainName,
  isQuantity,
  MAX_PRICE,
  MAX_RAW_NAME_CHARS,
  MAX_TOKEN,
  Name,
  Price,
  Quantity
} from "./RawValues.ts"
import type { Sequencing } from "./Tick.ts"
import { MAX_MICROS, MIN_MICROS, parseIso, Time } from "./Time.ts"

const schemas = {
  token: InstrumentToken,
  time: Time,
  price: Price,
  name: Name,
  quantity: Quantity,
  number: Schema.Int,
  sequencing: Schema.Literals(["contiguous", "monotonic", "none"]),
  flag: Schema.Boolean,
  quote: QuoteInput
} as const

interface RawField {
  readonly kind: keyof typeof schemas
  readonly isRequired?: true
  /** What is said of an absent one; `complete` gives it. */
  readonly default?: string | number | boolean
  /** What is said of it to who sends it; of a field that only a replay sends, nothing. */
  readonly description?: string
}

/** The wire form: this platform's own contract, open to any feed; unknown fields are ignored. */
export const rawFields = {
  instrument_token: {
    kind: "token",
    isRequired: true,
    description: "the broker's token; also the record's key in Kafka, in decimal"
  },
  exchange_ts: {
    kind: "time",
    isRequired: true,
    description: "exchange time, at most MAX_FUTURE_SKEW_MS ahead of the clock"
  },
  price: {
    kind: "price",
    isRequired: true,
    description: "rupees, at most 7 decimals; 0 from a snapshot feed, or beside day_volume, means no price"
  },
  feed: { kind: "name", default: "dma", description: "who sends it: dma, snapshot, or a name of one's own" },
  volume: { kind: "quantity", default: 0, description: "quantity of this tick; or send day_volume" },
  day_volume: { kind: "quantity", description: "the day's total so far, instead of volume" },
  sequence_id: { kind: "number", description: "the feed's number of this tick, for this instrument" },
  sequencing: {
    kind: "sequencing",
    description: "contiguous: every number appears, a hole is a gap; monotonic: may skip; default by sequence_id"
  },
  reset: { kind: "flag", default: false, description: "the numbering of this connection starts again here" },
  connection: { kind: "name", description: "names one connection or one run of a file; the feed's name if absent" },
  occurrence: {
    kind: "quantity",
    default: 0,
    description: "counts up where a feed without numbers meets the same content again at the same exchange_ts"
  },
  received_ts: { kind: "time", description: "when the sender got it; the log's own time if absent" },
  quote: {
    kind: "quote",
    description: "what the packet says of book and day; beside a tick, or alone, in a record without a price"
  },
  session: { kind: "quantity" }
} as const satisfies Readonly<Record<string, RawField>>

type RawFields = typeof rawFields
type SchemaOf<F extends RawField> = F extends { readonly isRequired: true }
  ? (typeof schemas)[F["kind"]]
  : Schema.optionalKey<(typeof schemas)[F["kind"]]>

export const RawTickInput = Schema.Struct(
  Object.fromEntries(
    Object.entries<RawField>(rawFields).map(([name, { kind, isRequired }]) => [
      name,
      isRequired === true ? schemas[kind] : Schema.optionalKey<(typeof schemas)[typeof kind]>(schemas[kind])
    ])
  ) as unknown as { readonly [N in keyof RawFields]: SchemaOf<RawFields[N]> }
)
export type RawTickInput = typeof RawTickInput.Type

/** The fields of a record that holds a quote alone, which has to be there. */
export const rawQuoteFields = [
  "instrument_token",
  "exchange_ts",
  "feed",
  "day_volume",
  "connection",
  "received_ts",
  "quote"
] as const satisfies ReadonlyArray<keyof RawFields>
const { instrument_token, exchange_ts, feed, day_volume, connection, received_ts } = RawTickInput.fields
const RawQuoteInput = Schema.Struct({
  instrument_token,
  exchange_ts,
  feed,
  day_volume,
  connection,
  received_ts,
  quote: schemas.quote
})
/** The fields that say that a record holds a tick. */
const OF_TICKS = ["volume", "sequence_id", "sequencing", "reset", "occurrence", "session"] as const

/** A raw tick with every field present, one shape for the compiler. Times are epoch microseconds. */
export interface RawTick {
  instrument_token: number
  exchange_ts: number
  price: number
  feed: string
  volume: number
  /** -1 where the feed did not send the day's total. */
  day_volume: number
  /** `undefined` where the feed has no numbers. */
  sequence_id: number | undefined
  sequencing: Sequencing
  reset: boolean
  /** One connection or file run; the feed's name where it gave none. */
  connection: string
  occurrence: number
  /** 0 where the feed did not say: then it is the record time. */
  received_ts: number
  /** The session a replayed tick was stored with; -1 on every other. */
  session: number
}

/** What one raw record holds: at least one of the two, of the same instrument, stamp and feed. */
export interface RawRecord {
  readonly tick: RawTick | undefined
  readonly quote: RawQuote | undefined
}

const decode = Schema.decodeUnknownResult(RawTickInput)
const decodeQuoteAlone = Schema.decodeUnknownResult(RawQuoteInput)

const isName = (value: unknown): value is string =>
  typeof value === "string" && value.length > 0 && value.length <= MAX_RAW_NAME_CHARS && isPlainName(value)

const microsOf = (value: unknown): number => {
  const micros = typeof value === "string" ? parseIso(value) : value
  return Number.isSafeInteger(micros) && (micros as number) >= MIN_MICROS && (micros as number) <= MAX_MICROS
    ? (micros as number)
    : -1
}

const isToken = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_TOKEN

/**
 * Reads a parsed JSON value as a raw record: its tick as `readRawTick` does, and the quote that stands beside it, or
 * alone. Answers a sentence naming the field and the value where it is neither.
 */
export const readRawRecord = (value: unknown, replayed = false): RawRecord | string => {
  const { quote, price } = (value ?? {}) as { readonly quote?: unknown; readonly price?: unknown }
  if (quote !== undefined && price === undefined) return readQuoteAlone(value as Record<string, unknown>)
  const tick = readRawTick(value, replayed)
  if (typeof tick === "string") return tick
  if (quote === undefined) return { tick, quote }
  const state = readQuote(quote, tick.day_volume < 0 ? undefined : tick.day_volume)
  // The schema of the whole record names the field within it.
  if (typeof state === "string") return slow(value, replayed) as string
  const { instrument_token, exchange_ts, feed, received_ts } = tick
  return { tick, quote: { instrument_token, exchange_ts, feed, received_ts, state } }
}

const readQuoteAlone = (v: Readonly<Record<string, unknown>>): RawRecord | string => {
  const ofTicks = OF_TICKS.find((name) => v[name] !== undefined)
  if (ofTicks !== undefined) return `price: missing, though ${ofTicks} says that there is a tick beside the quote`
  const token = v.instrument_token
  const exchangeTs = microsOf(v.exchange_ts)
  const feed = v.feed ?? "dma"
  const dayVolume = v.day_volume
  const receivedTs = v.received_ts === undefined ? 0 : microsOf(v.received_ts)
  if (
    isToken(token) &&
    exchangeTs >= 0 &&
    isName(feed) &&
    (dayVolume === undefined || isQuantity(dayVolume)) &&
    (v.connection === undefined || isName(v.connection)) &&
    receivedTs >= 0
  ) {
    const state = readQuote(v.quote, dayVolume)
    if (typeof state !== "string") return quoteAlone(token, exchangeTs, feed, receivedTs, state)
  }
  const decoded = decodeQuoteAlone(v)
  if (Result.isFailure(decoded)) return explain(decoded.failure.issue, v).message
  const q = decoded.success
  const state = readQuote(v.quote, q.day_volume) as QuoteState
  return quoteAlone(q.instrument_token, q.exchange_ts, q.feed ?? "dma", q.received_ts ?? 0, state)
}

const quoteAlone = (
  instrument_token: number,
  exchange_ts: number,
  feed: string,
  received_ts: number,
  state: QuoteState
): RawRecord => ({ tick: undefined, quote: { instrument_token, exchange_ts, feed, received_ts, state } })

/**
 * Reads a parsed JSON value as a raw tick, whatever quote stands beside it. Answers a sentence naming the field and the value where it is none.
 * A negative `sequence_id` and a `session` belong to replayed ticks only. What this fast path does not take is
 * decided by the schema, so the two cannot disagree on what is refused.
 */
export const readRawTick = (value: unknown, replayed = false): RawTick | string => {
  if (typeof value !== "object" || value === null) return slow(value, replayed)
  const v = value as Record<string, unknown>
  const token = v.instrument_token
  const exchangeTs = microsOf(v.exchange_ts)
  const price = v.price
  if (
    !isToken(token) ||
    exchangeTs < 0 ||
    !(typeof price === "number" && price >= -MAX_PRICE && price <= MAX_PRICE && isExactPrice(price))
  ) {
    return slow(value, replayed)
  }
  const feed = v.feed
  const volume = v.volume
  const dayVolume = v.day_volume
  const sequenceId = v.sequence_id
  const sequencing = v.sequencing
  const reset = v.reset
  const connection = v.connection
  const occurrence = v.occurrence
  const received = v.received_ts
  const session = v.session
  const receivedTs = received === undefined ? 0 : microsOf(received)
  if (
    (feed !== undefined && !isName(feed)) ||
    (volume !== undefined && !isQuantity(volume)) ||
    (dayVolume !== undefined && !isQuantity(dayVolume)) ||
    (sequenceId !== undefined && !Number.isSafeInteger(sequenceId)) ||
    (sequencing !== undefined && sequencing !== "contiguous" && sequencing !== "monotonic" && sequencing !== "none") ||
    (reset !== undefined && typeof reset !== "boolean") ||
    (connection !== undefined && !isName(connection)) ||
    (occurrence !== undefined && !isQuantity(occurrence)) ||
    receivedTs < 0 ||
    (session !== undefined && !isQuantity(session))
  ) {
    return slow(value, replayed)
  }
  return complete(
    token,
    exchangeTs,
    price,
    (feed as string | undefined) ?? "dma",
    volume as number | undefined,
    dayVolume as number | undefined,
    sequenceId as number | undefined,
    sequencing as Sequencing | undefined,
    reset === true,
    connection as string | undefined,
    occurrence as number | undefined,
    receivedTs,
    session as number | undefined,
    replayed
  )
}

const slow = (value: unknown, replayed: boolean): RawTick | string => {
  const decoded = decode(value)
  if (Result.isFailure(decoded)) return explain(decoded.failure.issue, value).message
  const t = decoded.success
  return complete(
    t.instrument_token,
    t.exchange_ts,
    t.price,
    t.feed ?? "dma",
    t.volume,
    t.day_volume,
    t.sequence_id,
    t.sequencing,
    t.reset === true,
    t.connection,
    t.occurrence,
    t.received_ts ?? 0,
    t.session,
    replayed
  )
}

const complete = (
  instrument_token: number,
  exchange_ts: number,
  price: number,
  feed: string,
  volume: number | undefined,
  dayVolume: number | undefined,
  sequenceId: number | undefined,
  sequencing: Sequencing | undefined,
  reset: boolean,
  connection: string | undefined,
  occurrence: number | undefined,
  received_ts: number,
  session: number | undefined,
  replayed: boolean
): RawTick | string => {
  if (!replayed) {
    if (sequenceId !== undefined && sequenceId < 0) {
      return `sequence_id: expected a value greater than or equal to 0, got ${sequenceId}`
    }
    if (session !== undefined) return `session: only a replayed tick has one, got ${session}`
  } else {
    // What was stored, and nothing that only a feed says.
    if (sequenceId === undefined) return "sequence_id: missing, though a replayed tick has the one it was stored with"
    if (sequenceId < 0 && sequencing !== "none") {
      return `sequence_id: expected a value greater than or equal to 0, got ${sequenceId}`
    }
    if (reset) return "reset: a replayed tick has none, got true"
    if (dayVolume !== undefined) return `day_volume: a replayed tick has a volume, got ${dayVolume}`
  }
  if (volume !== undefined && dayVolume !== undefined) {
    return `day_volume: expected volume or day_volume, not both, got ${dayVolume}`
  }
  if (sequenceId === undefined && sequencing !== undefined && sequencing !== "none") {
    return `sequence_id: missing, though sequencing is "${sequencing}"`
  }
  return {
    instrument_token,
    exchange_ts,
    // JSON has a −0, which is written as 0.
    price: price === 0 ? 0 : price,
    feed,
    volume: volume ?? 0,
    day_volume: dayVolume ?? -1,
    sequence_id: sequencing === "none" && !replayed ? undefined : sequenceId,
    sequencing: sequencing ?? (sequenceId === undefined ? "none" : "contiguous"),
    reset,
    connection: connection ?? feed,
    occurrence: occurrence ?? 0,
    received_ts,
    session: session ?? -1
  }
}

/** One raw tick as JSON text, of only the fields that say more than their default; `readRawTick` of it gives the tick again. */
export const encodeRawTick = (t: RawTick): string => `${tickText(t)}}`

/** One raw record as JSON text, as short; `readRawRecord` of it gives it again. */
export const encodeRawRecord = ({ tick, quote }: RawRecord): string => {
  const text = tick === undefined ? quoteText(quote!) : tickText(tick)
  return quote === undefined ? `${text}}` : `${text},"quote":${encodePacket(quote.state)}}`
}

/** What says whose quote it is that stands alone; the closing brace is missing. */
const quoteText = ({ instrument_token, exchange_ts, feed, received_ts, state }: RawQuote): string => {
  let text = `{"feed":${jsonName(feed)},"instrument_token":${instrument_token},"exchange_ts":${exchange_ts}`
  if (state.day_volume !== undefined) text += `,"day_volume":${state.day_volume}`
  if (received_ts !== 0) text += `,"received_ts":${received_ts}`
  return text
}

/** The closing brace is missing. */
const tickText = (t: RawTick): string => {
  let text =
    `{"feed":${jsonName(t.feed)},"instrument_token":${t.instrument_token},"exchange_ts":${t.exchange_ts},` +
    `"price":${t.price},`
  text += t.day_volume >= 0 ? `"day_volume":${t.day_volume}` : `"volume":${t.volume}`
  if (t.sequence_id !== undefined) text += `,"sequence_id":${t.sequence_id}`
  if (t.sequencing !== (t.sequence_id === undefined ? "none" : "contiguous")) text += `,"sequencing":"${t.sequencing}"`
  if (t.reset) text += `,"reset":true`
  if (t.connection !== t.feed) text += `,"connection":${jsonName(t.connection)}`
  if (t.occurrence !== 0) text += `,"occurrence":${t.occurrence}`
  if (t.received_ts !== 0) text += `,"received_ts":${t.received_ts}`
  if (t.session >= 0) text += `,"session":${t.session}`
  return text
}
