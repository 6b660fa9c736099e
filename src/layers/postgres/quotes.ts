/**
 * Decides how quotes are written to PostgreSQL and read from it: one row an instrument and stamp, of which the later
 * stays, and what was known last of each minute's open interest, which stays when the day is dropped.
 *
 * Of one stamp the higher source is the later; one of another incarnation of the log replaces what is there. What a
 * replay adds has no source, is never written over another, and gives way to any live one. A stamp that said its open
 * interest keeps it, whatever a later one of the same stamp leaves out, so that bars never lose what they have shown.
 */
import type pg from "pg"
import { type Level, QUOTE_SOURCE_INDEX, type Quote, quoteFields, unknownQuote } from "../../schema/Quote.ts"
import { MAX_MICROS, MIN_MICROS } from "../../schema/Time.ts"
import { supersedes } from "../../streams/ports/RecentQuotes.ts"
import type { MinuteOi, QuoteQuery, QuotesWritten, StoreBatch, TickStore } from "../../streams/ports/TickStore.ts"
import { byteaArray, int4Array, int8Array, textArray, timestampArray, timestampText, wordArray } from "./arrays.ts"
import type { Days } from "./days.ts"
import { decodeDepth, encodeDepth } from "./depth.ts"
import { barOf, micros, rows, seconds, type Value } from "./rows.ts"

/** Where a row that a replay added is from: below every source of the log. */
const NO_SOURCE = ["", -1] as const

/**
 * Pieces of the stored days in which the latest quote is looked for: the newest, which may be of a day alone, and the one
 * before it, so that a month of days is. A book is one of now for a day or a few; of who never had one, or has none any
 * more, all days would be looked through each time somebody asks, a year of them for seconds.
 */
const LATEST_WINDOWS = 2

// --- columns ----------------------------------------------------------------------------------------------------

/** A quote on its way into a row. */
interface Row {
  readonly quote: Quote
  /** With what was said before at the same stamp. */
  readonly oi: number | undefined
  readonly incarnation: string
  readonly offset: number
}

type Column = readonly [type: string, array: (all: ReadonlyArray<Row>) => Buffer | string]

type Scalar = Exclude<keyof typeof quoteFields, "bid" | "ask"> | "day_volume"

const price = (of: (row: Row) => number | undefined): Column => [
  "numeric",
  (all) => wordArray(all, (row) => of(row) ?? "NULL")
]
const whole = (of: (row: Row) => number | undefined): Column => [
  "bigint",
  (all) => int8Array(all, (row) => of(row) ?? null)
]
const time = (of: (row: Row) => number | undefined): Column => [
  "timestamptz",
  (all) => timestampArray(all, (row) => of(row) ?? null)
]
const text = (of: (row: Row) => string): Column => ["text", (all) => textArray(all, of)]

const columnOf = { price, quantity: whole, time }

const scalars = Object.entries(quoteFields).flatMap(([name, { kind }]) =>
  kind === "levels" ? [] : [[name as Scalar, kind] as const]
)
const SCALARS: ReadonlyArray<readonly [Scalar, keyof typeof columnOf]> = [...scalars, ["day_volume", "quantity"]]

/** The best level of a side: no price and a quantity of 0 where the side is empty, nothing at all where it is not known. */
const bestOf = (side: "bid" | "ask"): ReadonlyArray<readonly [name: string, column: Column]> => {
  const at = (row: Row, index: 0 | 1 | 2): number | undefined => {
    const levels = row.quote[side]
    if (levels === undefined) return undefined
    return levels.length === 0 ? [undefined, 0, 0][index] : levels[0]![index]
  }
  return [
    [`${side}_price`, price((row) => at(row, 0))],
    [`${side}_quantity`, whole((row) => at(row, 1))],
    [`${side}_orders`, whole((row) => at(row, 2))]
  ]
}

const columnsWith = (storesDepth: boolean): ReadonlyArray<readonly [name: string, column: Column]> => [
  ["instrument_token", ["integer", (all) => int4Array(all, ({ quote }) => quote.instrument_token)]],
  ["exchange_ts", time(({ quote }) => quote.exchange_ts)],
  ...bestOf("bid"),
  ...bestOf("ask"),
  ...SCALARS.map(([name, kind]) => {
    const of = name === "oi" ? ({ oi }: Row) => oi : ({ quote }: Row) => quote[name]
    return [name, columnOf[kind](of)] as const
  }),
  ["feed", text(({ quote }) => quote.feed)],
  ["received_ts", time(({ quote }) => quote.received_ts)],
  ["source_incarnation", text(({ incarnation }) => incarnation)],
  ["source_offset", whole(({ offset }) => offset)],
  ["depth", ["bytea", (all) => byteaArray(all, storesDepth ? ({ quote }) => encodeDepth(quote) : () => null)]]
]

// --- statements -------------------------------------------------------------------------------------------------

const COLUMNS = columnsWith(false)
const NAMES = COLUMNS.map(([name]) => name)
const VALUES = NAMES.slice(2).map((name) =>
  name === "oi" ? "oi = coalesce(excluded.oi, q.oi)" : `${name} = excluded.${name}`
)

const isLater = (there: string): string => `excluded.source_offset >= 0
    AND (excluded.source_offset > ${there}.source_offset OR excluded.source_incarnation <> ${there}.source_incarnation)`

// Sorted by their keys, as ticks are: two writers of the same rows wait for each other rather than for ever.
const PUT = `
  WITH given AS MATERIALIZED (
    SELECT * FROM unnest(${COLUMNS.map(([, [type]], i) => `$${i + 1}::${type}[]`).join(", ")}) AS g (${NAMES.join(", ")})),
  put AS (
    INSERT INTO quotes AS q (${NAMES.join(", ")})
    SELECT ${NAMES.join(", ")} FROM given WHERE exchange_ts >= $${NAMES.length + 1}::timestamptz
    ORDER BY instrument_token, exchange_ts
    ON CONFLICT (instrument_token, exchange_ts) DO UPDATE SET ${VALUES.join(", ")}
    WHERE ${isLater("q")}
    RETURNING q.instrument_token, q.exchange_ts, q.oi, q.source_incarnation, q.source_offset),
  told AS (
    SELECT * FROM put WHERE oi IS NOT NULL
    UNION ALL
    SELECT instrument_token, exchange_ts, oi, source_incarnation, source_offset FROM given
    WHERE exchange_ts < $${NAMES.length + 1}::timestamptz AND oi IS NOT NULL),
  kept AS (
    INSERT INTO oi_1m AS o (instrument_token, minute, exchange_ts, oi, source_incarnation, source_offset)
    SELECT DISTINCT ON (instrument_token, minute)
           instrument_token, ${barOf(1, "exchange_ts")} AS minute, exchange_ts, oi, source_incarnation, source_offset
    FROM told ORDER BY instrument_token, minute, exchange_ts DESC
    ON CONFLICT (instrument_token, minute) DO UPDATE
    SET exchange_ts = excluded.exchange_ts, oi = excluded.oi, source_incarnation = excluded.source_incarnation,
        source_offset = excluded.source_offset
    WHERE excluded.exchange_ts > o.exchange_ts OR (excluded.exchange_ts = o.exchange_ts AND ${isLater("o")}))
  SELECT count(*) FROM put`

const READ = [
  "q.instrument_token",
  seconds("q.exchange_ts"),
  ...NAMES.slice(2).map((name) =>
    name === "received_ts" || name === "last_trade_ts" ? seconds(`q.${name}`) : `q.${name}`
  )
].join(", ")

const PAGE = `
  SELECT ${READ} FROM quotes q
  WHERE q.instrument_token = $1::integer AND q.exchange_ts >= $2::timestamptz AND q.exchange_ts < $3::timestamptz
  ORDER BY q.exchange_ts LIMIT $4::bigint`

const LATEST = `
  SELECT ${READ} FROM unnest($1::integer[]) AS k (token)
  CROSS JOIN LATERAL (
    SELECT * FROM quotes l
    WHERE l.instrument_token = k.token AND l.exchange_ts >= $2::timestamptz AND l.exchange_ts < $3::timestamptz
    ORDER BY l.exchange_ts DESC LIMIT 1) q`

/** By the index of the primary key, from one instrument to the next. */
const TOKENS = `
  WITH RECURSIVE known AS (
    SELECT min(instrument_token) AS token FROM quotes
    WHERE exchange_ts >= $1::timestamptz AND exchange_ts < $2::timestamptz
    UNION ALL
    SELECT (SELECT min(q.instrument_token) FROM quotes q
            WHERE q.instrument_token > known.token
              AND q.exchange_ts >= $1::timestamptz AND q.exchange_ts < $2::timestamptz)
    FROM known WHERE known.token IS NOT NULL)
  SELECT token FROM known WHERE token IS NOT NULL`

const MINUTE_OI = `
  SELECT ${seconds("minute")}, oi, ${seconds("exchange_ts")}, source_offset FROM oi_1m
  WHERE instrument_token = $1::integer AND minute >= $2::timestamptz AND minute < $3::timestamptz
  ORDER BY minute LIMIT $4::bigint`

/** Changes with every open interest that bars of the range may tell: of their last minute too, which may begin before it. */
const OI_REVISION = `
  SELECT count(*), sum(hashint8extended(oi, (date_part('epoch', minute) / 60)::bigint * 4294967296 + instrument_token))::text
  FROM oi_1m
  WHERE instrument_token = ANY ($1::integer[])
    AND minute > $2::timestamptz - INTERVAL '1 minute' AND minute < $3::timestamptz`

// --- writing ----------------------------------------------------------------------------------------------------

/** One row a stamp, as they would stay if they came one by one: a statement takes no row twice. */
const onePerStamp = ({ quotes, replayedQuotes }: QuotesOf): ReadonlyArray<Row> => {
  const found = new Map<string, Row>()
  const keyOf = ({ instrument_token, exchange_ts }: Quote): string => `${instrument_token} ${exchange_ts}`
  for (const quote of quotes) {
    const key = keyOf(quote)
    const there = found.get(key)
    if (there !== undefined && !supersedes(quote, there.quote)) continue
    const [incarnation, offset] = quote.source
    found.set(key, { quote, oi: quote.oi ?? there?.oi, incarnation, offset })
  }
  for (const quote of replayedQuotes) {
    const key = keyOf(quote)
    const [incarnation, offset] = NO_SOURCE
    if (!found.has(key)) found.set(key, { quote, oi: quote.oi, incarnation, offset })
  }
  return [...found.values()]
}

export type QuotesOf = Pick<StoreBatch, "quotes" | "replayedQuotes">

/** Writes quotes in the transaction of the ticks beside them; `ticksFrom`: days before it are dropped. */
export const makeQuoteWriter = (storesDepth: boolean) => {
  const columns = columnsWith(storesDepth)
  return async (client: pg.PoolClient, batch: QuotesOf, ticksFrom: number): Promise<QuotesWritten | undefined> => {
    const count = batch.quotes.length + batch.replayedQuotes.length
    if (count === 0) return undefined
    const all = onePerStamp(batch)
    const [put] = await rows<readonly [number]>(client, "put_quotes", PUT, [
      ...columns.map(([, [, array]]) => array(all)),
      timestampText(ticksFrom)
    ])
    const isDropped = ({ exchange_ts }: Quote): boolean => exchange_ts < ticksFrom
    const dropped = batch.quotes.filter(isDropped).length + batch.replayedQuotes.filter(isDropped).length
    return { added: put![0], dropped }
  }
}

// --- reading ----------------------------------------------------------------------------------------------------

const numberAt = (row: ReadonlyArray<Value>, name: string): number | undefined =>
  (row[NAMES.indexOf(name)] as number | null) ?? undefined

const storedSide = (row: ReadonlyArray<Value>, side: "bid" | "ask"): ReadonlyArray<Level> | undefined => {
  const [best, quantity, orders] = ["price", "quantity", "orders"].map((part) => numberAt(row, `${side}_${part}`))
  if (best !== undefined) return [[best, quantity ?? 0, orders ?? 0]]
  return quantity === undefined ? undefined : []
}

const quoteOf = (row: ReadonlyArray<Value>): Quote => {
  const text = (name: string): string => row[NAMES.indexOf(name)] as string
  const time = (name: string): number | undefined => {
    const found = numberAt(row, name)
    return found === undefined ? undefined : micros(found)
  }
  const quote: Quote = {
    ...unknownQuote(),
    instrument_token: numberAt(row, "instrument_token")!,
    exchange_ts: time("exchange_ts")!,
    feed: text("feed"),
    received_ts: time("received_ts")!,
    source: [text("source_incarnation"), numberAt(row, "source_offset")!, QUOTE_SOURCE_INDEX],
    old: false
  }
  for (const [name, kind] of SCALARS) quote[name] = kind === "time" ? time(name) : numberAt(row, name)
  const depth = row[NAMES.indexOf("depth")]
  const book = typeof depth === "string" ? decodeDepth(Buffer.from(depth.slice(2), "hex")) : undefined
  quote.bid = book === undefined ? storedSide(row, "bid") : book.bid
  quote.ask = book === undefined ? storedSide(row, "ask") : book.ask
  return quote
}

export const makeQuoteReader = (pool: pg.Pool, days: Days) => {
  const quotePage = async (query: QuoteQuery): Promise<ReadonlyArray<Quote>> => {
    const from = Math.max(query.from, query.after === undefined ? query.from : query.after + 1)
    const found: Array<Quote> = []
    for (const [start, end] of await days.windows(from, query.to)) {
      const within = [query.instrument_token, timestampText(start), timestampText(end), query.limit - found.length]
      for (const row of await rows(pool, "quote_page", PAGE, within)) found.push(quoteOf(row))
      if (found.length >= query.limit) break
    }
    return found
  }

  const latestQuotes = async (tokens: ReadonlyArray<number>): Promise<ReadonlyMap<number, Quote>> => {
    const found = new Map<number, Quote>()
    let wanted = [...new Set(tokens)]
    if (wanted.length === 0) return found
    const windows = await days.windows(MIN_MICROS, MAX_MICROS + 1)
    for (const [start, end] of windows.slice(-LATEST_WINDOWS).toReversed()) {
      const within = [int4Array(wanted, (token) => token), timestampText(start), timestampText(end)]
      for (const row of await rows(pool, "latest_quotes", LATEST, within)) {
        const quote = quoteOf(row)
        found.set(quote.instrument_token, quote)
      }
      wanted = wanted.filter((token) => !found.has(token))
      if (wanted.length === 0) break
    }
    return found
  }

  const quoteTokens = async (from: number, to: number): Promise<ReadonlyArray<number>> => {
    const all = new Set<number>()
    for (const window of await days.windows(from, to)) {
      for (const [token] of await rows<readonly [number]>(pool, "quote_tokens", TOKENS, window.map(timestampText))) {
        all.add(token)
      }
    }
    return [...all].sort((a, b) => a - b)
  }

  const minuteOi = async (query: Parameters<TickStore["Service"]["minuteOi"]>[0]): Promise<ReadonlyArray<MinuteOi>> => {
    const found = await rows<readonly [number, number, number, number]>(pool, "minute_oi", MINUTE_OI, [
      query.instrument_token,
      timestampText(query.from),
      timestampText(query.to),
      query.limit
    ])
    return found.map(([ts, oi, at, offset]) => ({ ts: micros(ts), oi, exchange_ts: micros(at), offset }))
  }

  /** Another text after every change of these instruments' open interest in [from, to); empty where none is known. */
  const oiRevision = async (tokens: ReadonlyArray<number>, from: number, to: number): Promise<string> => {
    const [found] = await rows<readonly [number, string | null]>(pool, "oi_revision", OI_REVISION, [
      int4Array(tokens, (token) => token),
      timestampText(from),
      timestampText(to)
    ])
    return found![0] === 0 ? "" : `oi:${found!.join()}`
  }

  return { quotePage, quoteTokens, latestQuotes, minuteOi, oiRevision }
}
