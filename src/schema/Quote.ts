/**
 * Decides what a quote is: what a packet says of an instrument's book and day beside its last trade; which fields it may
 * have, how a feed may send them, which of two is the later, and how one is written in the log. It is state: the latest
 * of a trading day wins.
 */
import { Result, Schema } from "effect"
import { explain } from "./Explain.ts"
import { jsonName } from "./quotedOnce.ts"
import { isExactPrice, isQuantity, MAX_PRICE, MAX_TOKEN, Price, Quantity } from "./RawValues.ts"
import type { Source } from "./Tick.ts"
import { MAX_NAME_CHARS } from "./TickJsonBytes.ts"
import { isTime, Time } from "./Time.ts"

/** One level of the book: rupees, and how much lies there in how many orders (0: not known). */
export type Level = readonly [price: number, quantity: number, orders: number]

/** Levels a side at most, best first. */
export const MAX_LEVELS = 5

type QuoteKind = "levels" | "price" | "quantity" | "time"

interface QuoteField {
  readonly kind: QuoteKind
  /** What is said of it to who sends it. */
  readonly description: string
}

/** All optional, in the order of the wire. What a packet does not say stays as it was known on that trading day. */
export const quoteFields = {
  bid: { kind: "levels", description: "up to 5 levels [price, quantity, orders], best first; [] where nobody bids" },
  ask: { kind: "levels", description: "up to 5 levels [price, quantity, orders], best first; [] where nobody offers" },
  total_buy_quantity: { kind: "quantity", description: "of all bids" },
  total_sell_quantity: { kind: "quantity", description: "of all offers" },
  oi: { kind: "quantity", description: "open interest" },
  oi_day_high: { kind: "quantity", description: "the day's highest open interest" },
  oi_day_low: { kind: "quantity", description: "the day's lowest open interest" },
  average_price: { kind: "price", description: "the day's average by volume, rupees" },
  last_quantity: { kind: "quantity", description: "of the last trade" },
  last_trade_ts: { kind: "time", description: "when the last trade was" },
  open: { kind: "price", description: "the day's first price" },
  high: { kind: "price", description: "the day's highest price" },
  low: { kind: "price", description: "the day's lowest price" },
  previous_close: { kind: "price", description: "the close of the trading day before" },
  lower_circuit: { kind: "price", description: "the lowest price allowed" },
  upper_circuit: { kind: "price", description: "the highest price allowed" }
} as const satisfies Readonly<Record<string, QuoteField>>

export type QuoteFieldName = keyof typeof quoteFields
type ValueOf<K extends QuoteKind> = K extends "levels" ? ReadonlyArray<Level> : number

/** What is known of an instrument's book and day; `undefined` is not known. Times are epoch microseconds, prices rupees. */
export type QuoteState = {
  -readonly [N in QuoteFieldName]: ValueOf<(typeof quoteFields)[N]["kind"]> | undefined
} & {
  /** The day's total so far, where the record of the packet said it. */
  day_volume: number | undefined
}

/** One quote of `normalized_ticks`: all that is known of its instrument at that time, not only what changed. */
export interface Quote extends QuoteState {
  instrument_token: number
  exchange_ts: number
  feed: string
  received_ts: number
  /** The raw record, of which the quote has index 1; the higher of two is the later. */
  source: Source
  /** True for a trading day older than the instrument's newest: for the store and the archive only. */
  old: boolean
}

/** What one raw record says of book and day, beside its tick or alone; `received_ts` is 0 where the feed did not say. */
export interface RawQuote {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly feed: string
  readonly received_ts: number
  readonly state: QuoteState
}

/** The index of a quote in its raw record's sources: the record's tick has 0. */
export const QUOTE_SOURCE_INDEX = 1

const LevelInput = Schema.Tuple([Price, Quantity, Quantity])
const schemas = {
  levels: Schema.Array(LevelInput).pipe(Schema.check(Schema.isMaxLength(MAX_LEVELS))),
  price: Price,
  quantity: Quantity,
  time: Time
} as const

/** The wire form of `quote` in a raw record; unknown fields are ignored. */
export const QuoteInput = Schema.Struct(
  Object.fromEntries(
    Object.entries<QuoteField>(quoteFields).map(([name, { kind }]) => [
      name,
      Schema.optionalKey(schemas[kind] as never)
    ])
  ) as unknown as {
    readonly [N in QuoteFieldName]: Schema.optionalKey<(typeof schemas)[(typeof quoteFields)[N]["kind"]]>
  }
)

const entries = Object.entries(quoteFields) as ReadonlyArray<readonly [QuoteFieldName, { readonly kind: QuoteKind }]>
const names = Object.keys(quoteFields) as ReadonlyArray<QuoteFieldName>
const decode = Schema.decodeUnknownResult(QuoteInput)

/** Of which nothing is known. */
export const unknownQuote = (): QuoteState => ({
  bid: undefined,
  ask: undefined,
  total_buy_quantity: undefined,
  total_sell_quantity: undefined,
  oi: undefined,
  oi_day_high: undefined,
  oi_day_low: undefined,
  average_price: undefined,
  last_quantity: undefined,
  last_trade_ts: undefined,
  open: undefined,
  high: undefined,
  low: undefined,
  previous_close: undefined,
  lower_circuit: undefined,
  upper_circuit: undefined,
  day_volume: undefined
})

const isPrice = (value: unknown): value is number =>
  typeof value === "number" && value >= -MAX_PRICE && value <= MAX_PRICE

const isLevel = (value: unknown): boolean =>
  Array.isArray(value) && value.length === 3 && isPrice(value[0]) && isQuantity(value[1]) && isQuantity(value[2])

const isRawPrice = (value: unknown): boolean => isPrice(value) && isExactPrice(value)

const isRawLevel = (value: unknown): boolean => isLevel(value) && isExactPrice((value as Level)[0])

/** What is taken as it is sent; of anything else the schema says what is wrong with it, if anything is. */
const isRaw = {
  levels: (value: unknown) => Array.isArray(value) && value.length <= MAX_LEVELS && value.every(isRawLevel),
  price: isRawPrice,
  quantity: isQuantity,
  time: (value: unknown) => typeof value === "number" && isTime(value)
} satisfies Record<QuoteKind, (value: unknown) => boolean>

/**
 * Reads the value of a raw record's `quote`; `dayVolume` is the record's own, which goes with it. Answers a sentence
 * naming the field and the value where it is none. What the fast path does not take is decided by the schema, so the two
 * cannot disagree on what is refused.
 */
export const readQuote = (value: unknown, dayVolume: number | undefined): QuoteState | string => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return slow(value, dayVolume)
  const state = unknownQuote()
  for (const [name, { kind }] of entries) {
    const said = (value as Record<string, unknown>)[name]
    if (said === undefined) continue
    if (!isRaw[kind](said)) return slow(value, dayVolume)
    state[name] = said as never
  }
  state.day_volume = dayVolume
  return state
}

const slow = (value: unknown, dayVolume: number | undefined): QuoteState | string => {
  const decoded = decode(value)
  if (Result.isFailure(decoded)) return explain(decoded.failure.issue, value).message
  return Object.assign(unknownQuote(), decoded.success, { day_volume: dayVolume })
}

const sameLevels = (a: ReadonlyArray<Level> | undefined, b: ReadonlyArray<Level> | undefined): boolean => {
  if (a === b) return true
  if (a === undefined || b === undefined || a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!]
    if (x[0] !== y[0] || x[1] !== y[1] || x[2] !== y[2]) return false
  }
  return true
}

/** Whether two say the same of book and day. */
export const sameQuote = (a: QuoteState, b: QuoteState): boolean => {
  for (const name of names) {
    const [x, y] = [a[name], b[name]]
    if (x === y) continue
    if (typeof x === "number" || typeof y === "number") return false
    if (!sameLevels(x, y)) return false
  }
  return a.day_volume === b.day_volume
}

/** What is known once a later packet of the same trading day has come: what it does not say stays. */
export const afterPacket = (known: QuoteState, packet: QuoteState): QuoteState => {
  const next = { ...known }
  for (const name of names) if (packet[name] !== undefined) next[name] = packet[name] as never
  if (packet.day_volume !== undefined) next.day_volume = packet.day_volume
  return next
}

/**
 * Whether a packet is older than what is known of its trading day: by its stamp, and within one stamp (feeds have whole
 * seconds) by the day's volume, which only grows.
 */
export const isOutdated = (
  known: Pick<Quote, "exchange_ts" | "day_volume">,
  packet: Pick<Quote, "exchange_ts" | "day_volume">
): boolean =>
  packet.exchange_ts < known.exchange_ts ||
  (packet.exchange_ts === known.exchange_ts &&
    packet.day_volume !== undefined &&
    known.day_volume !== undefined &&
    packet.day_volume < known.day_volume)

/** Which of two published quotes of one instrument is the later: by stamp, then by where they came from. */
export const compareQuotes = (
  a: Pick<Quote, "exchange_ts" | "source">,
  b: Pick<Quote, "exchange_ts" | "source">
): number => a.exchange_ts - b.exchange_ts || a.source[1] - b.source[1] || a.source[2] - b.source[2]

/** The members of what a packet says, each with a comma before it; empty where it says nothing. */
const packetMembers = (state: QuoteState): string => {
  let text = ""
  for (const [name, { kind }] of entries) {
    const value = state[name]
    if (value === undefined) continue
    text +=
      kind === "levels"
        ? `,"${name}":[${(value as ReadonlyArray<Level>).map(([p, q, n]) => `[${p},${q},${n}]`).join()}]`
        : `,"${name}":${value as number}`
  }
  return text
}

/**
 * Whether the first of two quotes of one instrument and instant is the one that counts wherever both are met in any order:
 * of one raw topic the later; of two, whose offsets say nothing of each other, what came later; one that says of none
 * (a replay's, from the store) only where there is no other.
 */
export const countsOver = (
  a: Pick<Quote, "source" | "received_ts">,
  b: Pick<Quote, "source" | "received_ts">
): boolean => {
  const [[topic, offset, index], [otherTopic, otherOffset, otherIndex]] = [a.source, b.source]
  if (topic === otherTopic) return offset > otherOffset || (offset === otherOffset && index > otherIndex)
  if (topic === "" || otherTopic === "") return otherTopic === ""
  return a.received_ts > b.received_ts || (a.received_ts === b.received_ts && topic > otherTopic)
}

/** The members of what is known, each with a comma before it; empty where nothing is. */
export const quoteMembers = (state: QuoteState): string => {
  const text = packetMembers(state)
  return state.day_volume === undefined ? text : `${text},"day_volume":${state.day_volume}`
}

/** The value of `quote` in a raw record, beside which `day_volume` stands. */
export const encodePacket = (state: QuoteState): string => `{${packetMembers(state).slice(1)}}`

/** One quote as the JSON of its record in `normalized_ticks`. */
export const encodeQuote = (q: Quote): string => {
  const [incarnation, offset, index] = q.source
  return (
    `{"instrument_token":${q.instrument_token},"exchange_ts":${q.exchange_ts}${quoteMembers(q)},` +
    `"feed":${jsonName(q.feed)},"received_ts":${q.received_ts},` +
    `"source":[${jsonName(incarnation)},${offset},${index}]${q.old ? ',"old":true' : ""}}`
  )
}

const isOfKind = {
  levels: (value: unknown) => Array.isArray(value) && value.length <= MAX_LEVELS && value.every(isLevel),
  price: isPrice,
  quantity: isQuantity,
  time: (value: unknown) => typeof value === "number" && isTime(value)
} satisfies Record<QuoteKind, (value: unknown) => boolean>

const isName = (value: unknown): value is string =>
  typeof value === "string" && value.length <= MAX_NAME_CHARS && !value.includes("\0")

const isSource = (value: unknown): value is Source =>
  Array.isArray(value) && isName(value[0]) && Number.isSafeInteger(value[1]) && value[2] === QUOTE_SOURCE_INDEX

/** The quote of a parsed JSON object, of whatever it holds besides; `undefined` where it is none. */
export const quoteOf = (wire: object): Quote | undefined => {
  const w = wire as Record<string, unknown>
  const { instrument_token: token, exchange_ts, feed, received_ts, source, day_volume } = w
  if (
    !(Number.isInteger(token) && (token as number) >= 1 && (token as number) <= MAX_TOKEN) ||
    !(typeof exchange_ts === "number" && isTime(exchange_ts)) ||
    !isName(feed) ||
    !Number.isSafeInteger(received_ts) ||
    !isSource(source) ||
    !(day_volume === undefined || isQuantity(day_volume))
  ) {
    return undefined
  }
  const quote: Quote = {
    ...unknownQuote(),
    day_volume,
    instrument_token: token as number,
    exchange_ts,
    feed,
    received_ts: received_ts as number,
    source: [source[0], source[1], source[2]],
    old: w.old === true
  }
  for (const [name, { kind }] of entries) {
    const value = w[name]
    if (value === undefined) continue
    if (!isOfKind[kind](value)) return undefined
    quote[name] = value as never
  }
  return quote
}

/** The quote of a `normalized_ticks` record whose header says that it is one; `undefined` where it is none. */
export const decodeQuote = (bytes: Uint8Array): Quote | undefined => {
  let wire: unknown
  try {
    wire = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"))
  } catch {
    return undefined
  }
  return typeof wire !== "object" || wire === null ? undefined : quoteOf(wire)
}
