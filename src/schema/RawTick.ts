/** Decides what a feed may send: the fields of a raw tick, their defaults, and how a wrong one is refused. */
import { Result, Schema } from "effect"
import { explain } from "./Explain.ts"
import { isPrintable } from "./printable.ts"
import type { Sequencing } from "./Tick.ts"
import { MAX_MICROS, MIN_MICROS, parseIso, Time } from "./Time.ts"

export const MAX_TOKEN = 2_147_483_647
/**
 * Prices have at most 7 decimals (currency derivatives) and stay within this many rupees of 0, on either side: spreads,
 * rates and now and then a commodity trade below it.
 */
export const MAX_PRICE = 1_000_000_000
const PRICE_SCALE = 10_000_000
const MAX_NAME_CHARS = 64

/** Whether a name is shown as it is. Nearly all are ASCII: that is seen without the expression for the rest. */
const isPlain = (name: string): boolean => {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i)
    if (code < 0x20 || code > 0x7e) return isPrintable(name)
  }
  return true
}

/** Whether a price's shortest decimal has at most 7 decimals. */
export const isExactPrice = (price: number): boolean => Math.round(price * PRICE_SCALE) / PRICE_SCALE === price

export const InstrumentToken = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: MAX_TOKEN })))
export const Price = Schema.Finite.pipe(
  Schema.check(
    Schema.isBetween({ minimum: -MAX_PRICE, maximum: MAX_PRICE }),
    Schema.makeFilter((price: number) => isExactPrice(price) || "Expected at most 7 decimals")
  )
)
const Quantity = Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0)))
const Name = Schema.String.pipe(
  Schema.check(
    Schema.isBetweenLength(1, MAX_NAME_CHARS),
    // PostgreSQL holds no NUL, and a name is shown on terminals, in logs and on pages.
    Schema.makeFilter((name: string) => isPlain(name) || "Expected a name without control characters")
  )
)

/** The wire form: this platform's own contract, open to any feed; unknown fields are ignored. */
export const RawTickInput = Schema.Struct({
  instrument_token: InstrumentToken,
  exchange_ts: Time,
  price: Price,
  feed: Schema.optionalKey(Name),
  volume: Schema.optionalKey(Quantity),
  day_volume: Schema.optionalKey(Quantity),
  sequence_id: Schema.optionalKey(Schema.Int),
  sequencing: Schema.optionalKey(Schema.Literals(["contiguous", "monotonic", "none"])),
  reset: Schema.optionalKey(Schema.Boolean),
  connection: Schema.optionalKey(Name),
  occurrence: Schema.optionalKey(Quantity),
  received_ts: Schema.optionalKey(Time),
  session: Schema.optionalKey(Quantity)
})
export type RawTickInput = typeof RawTickInput.Type

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

const decode = Schema.decodeUnknownResult(RawTickInput)

const isName = (value: unknown): value is string =>
  typeof value === "string" && value.length > 0 && value.length <= MAX_NAME_CHARS && isPlain(value)

const isQuantity = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

const microsOf = (value: unknown): number => {
  const micros = typeof value === "string" ? parseIso(value) : value
  return Number.isSafeInteger(micros) && (micros as number) >= MIN_MICROS && (micros as number) <= MAX_MICROS
    ? (micros as number)
    : -1
}

/**
 * Reads a parsed JSON value as a raw tick. Answers a sentence naming the field and the value where it is none.
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
    !(Number.isInteger(token) && (token as number) >= 1 && (token as number) <= MAX_TOKEN) ||
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
    token as number,
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
