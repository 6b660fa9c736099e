/** Decides the REST contract: every route with what it takes, what it answers and how it fails. */
import { Context, Schema, SchemaGetter } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiMiddleware, HttpApiSchema, OpenApi } from "effect/http-api"
import { Interval } from "../schema/Candle.ts"
import { AssetClass, Instrument } from "../schema/Instrument.ts"
import { type QuoteFieldName, quoteFields } from "../schema/Quote.ts"
import { InstrumentToken, MAX_TOKEN } from "../schema/RawValues.ts"
import { dayOfDate, MAX_MICROS, RangeFrom, RangeTo, TradingDate } from "../schema/Time.ts"
import { mayBeNull, type StoredName, storedOf, tickFields, type ValueField } from "../schema/tickFields.ts"
import { ARCHIVED_KINDS } from "../streams/ports/Archive.ts"
import type { StoredTick } from "../streams/ports/TickStore.ts"
import { Replay, ReplayChange, ReplayRequest } from "../streams/replay/Replays.ts"
import * as errors from "./errors.ts"
import { mediaTypes } from "./exports/mediaTypes.ts"
import { type Need, Needs, OPEN, READ, REPLAY, securityOf, WRITE, whole } from "./needs.ts"
import { describeApi } from "./openApi.ts"
import { UDF } from "./udfErrors.ts"

export const BASE = "/api/v1"
export const DEFAULT_LIMIT = 1000
export const MAX_LIMIT = 10_000
/** Tokens of one `/quotes` request. */
export const MAX_QUOTES = 300
/** Symbols of one request for the history of several. */
export const MAX_SYMBOLS = MAX_QUOTES
/** Dead letters of one page. */
export const DEFAULT_LETTERS = 100
export const MAX_LETTERS = 500
/** Bars of one `/udf/history`, and symbols of one `/udf/quotes`. */
export const MAX_UDF_BARS = MAX_LIMIT
export const MAX_UDF_QUOTES = 50
/** Results of one `/udf/search`. */
export const DEFAULT_UDF_RESULTS = 30
export const MAX_UDF_RESULTS = 100
const MIB = 1_048_576
export const MAX_INGEST_BYTES = 16 * MIB
/** A line of `/ingest`; also the largest raw record the pipeline takes. */
export const MAX_INGEST_LINE_BYTES = 64 * 1024
export const MAX_INSTRUMENTS_BYTES = 32 * MIB
/** Any other body. */
export const MAX_BODY_BYTES = 256 * 1024
const MAX_TEXT = 100
const MAX_REASON_CHARS = 200
/** Nothing that could lead elsewhere. */
const ARCHIVE_OBJECT = /^[A-Za-z0-9_-]{1,250}\.parquet$/
const MAX_CURSOR_CHARS = 500
/** It names every partition's end. */
const MAX_RETRY_CURSOR_CHARS = 32_768

/** The largest body that a path takes. */
export const bodyLimit = (path: string): number => {
  if (path === `${BASE}/ingest`) return MAX_INGEST_BYTES
  return path === `${BASE}/instruments` ? MAX_INSTRUMENTS_BYTES : MAX_BODY_BYTES
}

// Query strings ---------------------------------------------------------------------------------------------------

const NUMBER = /^-?\d{1,16}$/
const numberText = <A extends Schema.Constraint & { readonly Encoded: number }>(target: A) =>
  Schema.String.pipe(
    Schema.check(Schema.makeFilter((text: string) => NUMBER.test(text) || "Expected a whole number")),
    Schema.decodeTo(target, {
      decode: SchemaGetter.transform((text: string) => Number(text)),
      encode: SchemaGetter.transform((n: number) => String(n))
    })
  )
const TokenText = numberText(InstrumentToken)
const LimitText = numberText(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: MAX_LIMIT }))))
const Text = Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_TEXT)))
const ASSET_CLASSES = AssetClass.literals.join(", ")
const AssetClassText = Schema.String.annotate({
  description: `${ASSET_CLASSES}, in any case`,
  expected: `one of ${ASSET_CLASSES}`
}).pipe(
  Schema.decodeTo(AssetClass, {
    decode: SchemaGetter.transform((text: string) => text.toUpperCase() as AssetClass),
    encode: SchemaGetter.transform((name: AssetClass) => name as string)
  })
)
const TOKENS_WANTED = `1 to ${MAX_QUOTES} instrument tokens, comma-separated`
const TokensText = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter(
      (text: string) => {
        const tokens = text.split(",")
        return (
          (tokens.length <= MAX_QUOTES &&
            tokens.every(
              (token) => /^\s*\d{1,10}\s*$/.test(token) && Number(token) >= 1 && Number(token) <= MAX_TOKEN
            )) ||
          `Expected ${TOKENS_WANTED}`
        )
      },
      { expected: TOKENS_WANTED }
    )
  ),
  Schema.decodeTo(Schema.Array(InstrumentToken), {
    decode: SchemaGetter.transform((text: string) => text.split(",").map(Number)),
    encode: SchemaGetter.transform((tokens: ReadonlyArray<number>) => tokens.join(","))
  })
)

const asOf = Schema.optionalKey(TradingDate)

/** Symbols of one request. */
const SymbolListText = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter((text: string) => {
      const symbols = text.split(",")
      return (
        (symbols.length <= MAX_SYMBOLS && symbols.every((one) => one.trim() !== "" && one.trim().length <= MAX_TEXT)) ||
        `Expected 1 to ${MAX_SYMBOLS} symbols, comma-separated`
      )
    })
  ),
  Schema.decodeTo(Schema.Array(Schema.String), {
    decode: SchemaGetter.transform((text: string) => text.split(",").map((one) => one.trim())),
    encode: SchemaGetter.transform((symbols: ReadonlyArray<string>) => symbols.join(","))
  })
)

/** One instrument and a half-open range; a time is epoch microseconds, ISO-8601 with an offset, or a trading date. */
const range = {
  instrument_token: Schema.optionalKey(TokenText),
  symbol: Schema.optionalKey(Text),
  as_of: asOf,
  symbols: Schema.optionalKey(SymbolListText),
  tokens: Schema.optionalKey(TokensText),
  all: Schema.optionalKey(Schema.Literals(["true"])),
  date: Schema.optionalKey(TradingDate),
  from: Schema.optionalKey(RangeFrom),
  to: Schema.optionalKey(RangeTo),
  format: Schema.optionalKey(Schema.Literals(["json", "ndjson", "csv", "arrow", "parquet"])),
  limit: Schema.optionalKey(LimitText),
  cursor: Schema.optionalKey(Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_CURSOR_CHARS))))
}

// Answers ---------------------------------------------------------------------------------------------------------

const Micros = Schema.Int.annotate({ description: "epoch microseconds" })
const Rejected = Schema.Array(Schema.Struct({ line: Schema.Int, reason: Schema.String }))

const schemaOf = (field: ValueField): Schema.Constraint => {
  switch (field.kind) {
    case "token":
      return InstrumentToken
    case "micros":
      return Micros
    case "price":
      return Schema.Finite
    case "word":
      return Schema.Literals(field.words)
    case "name":
      return Schema.String
    default:
      return mayBeNull(field) ? Schema.NullOr(Schema.Int) : Schema.Int
  }
}

/** A tick as history has it; `epoch` and `position` are null where a replay added the row. */
export const HistoricalTick = Schema.Struct(
  Object.fromEntries(Object.entries(storedOf(tickFields)).map(([name, field]) => [name, schemaOf(field)])) as {
    readonly [N in StoredName]: Schema.Codec<StoredTick[N]>
  }
).annotate({ identifier: "HistoricalTick" })

export const TicksPage = Schema.Struct({
  ticks: Schema.Array(HistoricalTick),
  next_cursor: Schema.NullOr(Schema.String)
}).annotate({ identifier: "TicksPage" })

export const Bar = Schema.Struct({
  instrument_token: Schema.optionalKey(InstrumentToken).annotate({
    description: "where several were asked for, and in every stream"
  }),
  ts: Micros.annotate({ description: "the bar's start, epoch microseconds" }),
  open: Schema.Finite,
  high: Schema.Finite,
  low: Schema.Finite,
  close: Schema.Finite,
  volume: Schema.Int,
  oi: Schema.optionalKey(Schema.Int).annotate({
    description: "the last open interest that quotes of the bar's time told; absent where none did"
  }),
  phase: Schema.NullOr(Schema.Literals(["PRE_OPEN", "CONTINUOUS", "CAS", "POST_CLOSE", "CLOSED"])).annotate({
    description:
      "the trading phase at the bar's start; where nothing trades there, as at a day's midnight, continuous trading if the bar has any, else its first phase; null where the exchange's hours are not known"
  }),
  final: Schema.Boolean.annotate({ description: "the bar's time is over" }),
  known: Schema.optionalKey(Schema.Boolean).annotate({
    description: "beside instrument_token: whether the trading calendar has the bar's days"
  })
}).annotate({ identifier: "Bar" })
export type Bar = typeof Bar.Type

export const CandlesPage = Schema.Struct({
  candles: Schema.Array(Bar),
  next_cursor: Schema.NullOr(Schema.String),
  known: Schema.NullOr(Schema.Boolean).annotate({
    description:
      "false where the trading calendar does not have all days of this page: phases, the session and what is filled then go by the nearest known hours; null where the exchange's hours are not known"
  })
}).annotate({ identifier: "CandlesPage" })

const Level = Schema.Tuple([Schema.Finite, Schema.Int, Schema.Int]).annotate({
  identifier: "Level",
  description: "[price, quantity, orders]"
})
const bookValues = {
  levels: Schema.Array(Level),
  price: Schema.Finite,
  quantity: Schema.Int,
  time: Micros
} as const
const bookFields = Object.fromEntries(
  Object.entries(quoteFields).map(([name, { description, kind }]) => [
    name,
    Schema.optionalKey(bookValues[kind] as never).annotate({ description })
  ])
) as unknown as {
  readonly [N in QuoteFieldName]: Schema.optionalKey<(typeof bookValues)[(typeof quoteFields)[N]["kind"]]>
}

const Book = Schema.Struct({
  exchange_ts: Micros,
  ...bookFields,
  day_volume: Schema.optionalKey(Schema.Int).annotate({ description: "the day's total so far" })
}).annotate({
  identifier: "Book",
  description:
    "what packets have said of book and day, by the newest of them; what none has said is absent. Open, high and low are the exchange's own, and need not be those of the ticks"
})

const QuoteOf = Schema.Struct({
  instrument_token: InstrumentToken,
  last: Schema.NullOr(HistoricalTick),
  open: Schema.NullOr(Schema.Finite),
  high: Schema.NullOr(Schema.Finite),
  low: Schema.NullOr(Schema.Finite),
  volume: Schema.NullOr(Schema.Int),
  quote: Schema.optionalKey(Book)
}).annotate({
  identifier: "Quote",
  description:
    "the last tick and its trading day so far, made of ticks: null where the token has no tick; `quote` is there where anything is known of book and day"
})

const IngestReport = Schema.Struct({
  accepted: Schema.Int,
  rejected: Rejected,
  rejected_total: Schema.Int
}).annotate({ identifier: "IngestReport", description: "the first 100 of the rejected lines, and how many there were" })

const DateOrNull = Schema.NullOr(Schema.String)
export const ListedInstrument = Schema.Struct({
  ...Instrument.fields,
  expired: Schema.Boolean.annotate({ description: "the day asked for is after its expiry" }),
  valid_from: DateOrNull.annotate({
    description:
      "the trading day from which the token means this instrument; null where it is not known to have meant another before"
  }),
  valid_through: DateOrNull.annotate({
    description:
      "the last trading day on which the token means this instrument; null where it is not known to mean another after"
  })
}).annotate({ identifier: "ListedInstrument" })
export type ListedInstrument = typeof ListedInstrument.Type

const ImportReport = Schema.Struct({
  added: Schema.Int,
  changed: Schema.Int,
  expired: Schema.Int,
  rejected: Rejected,
  rejected_total: Schema.Int
}).annotate({ identifier: "ImportReport", description: "the first 100 of the rejected lines, and how many there were" })

const Phases = Schema.Array(Schema.Struct({ phase: Schema.String, from: Micros, to: Micros }))
const CalendarDay = Schema.Struct({
  exchange: Schema.String,
  date: Schema.String,
  holiday: Schema.NullOr(Schema.String).annotate({
    description: "why the day is not a regular one: a holiday, a weekend, or a special session's name"
  }),
  phases: Phases.annotate({ description: "of the exchange's first segment; empty where nothing trades" }),
  segments: Schema.Record(Schema.String, Phases).annotate({ description: "of every segment of the exchange" }),
  known: Schema.Boolean.annotate({ description: "false beyond the calendar's years: then a weekday counts as open" })
}).annotate({ identifier: "CalendarDay" })

// Groups ----------------------------------------------------------------------------------------------------------

/** Turns an input that its schema refuses into the contract's 400, naming the parameter and the value. */
export class SchemaRefusals extends HttpApiMiddleware.Service<SchemaRefusals>()(
  "market-data-platform/http/SchemaRefusals",
  { error: [errors.BadRequest] }
) {}

/** Refuses parameters that a route does not know, by name. */
export class KnownParameters extends HttpApiMiddleware.Service<KnownParameters>()(
  "market-data-platform/http/KnownParameters",
  { error: [errors.BadRequest] }
) {}

const always = [errors.BadRequest, errors.Forbidden, errors.InternalError, errors.UnavailableResponse] as const
const withBody = [errors.PayloadTooLarge, errors.UnsupportedMediaType] as const

/** What every endpoint says of itself: what it asks of a key, and what it is for. */
const describe = (need: Need, summary: string, description?: string) =>
  OpenApi.annotations({
    summary,
    ...(description === undefined ? {} : { description }),
    override: { security: securityOf(need) }
  }).pipe(Context.add(Needs, need))

const instruments = HttpApiGroup.make("instruments")
  .add(
    HttpApiEndpoint.get("search", "/instruments/search", {
      query: {
        query: Schema.optionalKey(Schema.String.pipe(Schema.check(Schema.isMaxLength(MAX_TEXT)))),
        exchange: Schema.optionalKey(Text),
        asset_class: Schema.optionalKey(AssetClassText),
        as_of: asOf,
        limit: Schema.optionalKey(LimitText)
      },
      success: Schema.Struct({ instruments: Schema.Array(ListedInstrument) }),
      error: always
    }).annotateMerge(
      describe(
        READ,
        "Search instruments",
        "Words in any order and any case, each the beginning of a word of symbol, name, exchange, expiry, strike or kind: nifty 26 aug fut, 24000 ce nifty. Best first: the exact symbol; indices and equities; then the nearest expiry, strikes near the last price; what has a word only in the middle; what has expired."
      )
    ),
    HttpApiEndpoint.get("instrument", "/instruments/:token", {
      params: { token: TokenText },
      query: { as_of: asOf },
      success: ListedInstrument,
      error: [...always, errors.NotFound]
    }).annotateMerge(
      describe(
        READ,
        "One instrument, as it was on a day",
        "Exchanges give a token that was one contract's to another later: as_of says on which day, the last that is known unless given."
      )
    ),
    HttpApiEndpoint.post("importInstruments", "/instruments", {
      query: { as_of: asOf },
      payload: HttpApiSchema.StreamUint8Array({ contentType: "text/csv", maxBytes: MAX_INSTRUMENTS_BYTES }),
      success: ImportReport,
      error: [...always, ...withBody]
    }).annotateMerge(
      describe(
        whole(WRITE),
        "Import the broker's instruments file",
        "What the file says holds of its day, as_of, today unless given; of a contract that has expired by then, of its last day. What tokens meant on other days stays."
      )
    )
  )
  .prefix(BASE)

const ingest = HttpApiGroup.make("ingest")
  .add(
    HttpApiEndpoint.post("ingest", "/ingest", {
      payload: HttpApiSchema.StreamUint8Array({ contentType: "application/x-ndjson", maxBytes: MAX_INGEST_BYTES }),
      success: IngestReport,
      error: [...always, ...withBody, errors.TooManyRequestsResponse]
    }).annotateMerge(
      describe(
        WRITE,
        "Send raw ticks, one JSON object a line",
        "200 once the log has them. Sending them again adds no row."
      )
    )
  )
  .prefix(BASE)

const quotes = HttpApiGroup.make("quotes")
  .add(
    HttpApiEndpoint.get("quotes", "/quotes", {
      query: { tokens: TokensText },
      success: Schema.Struct({ quotes: Schema.Array(QuoteOf) }),
      error: always
    }).annotateMerge(describe(READ, "Last tick, the day so far, and what is known of the book"))
  )
  .prefix(BASE)

/** What history is in other forms than pages; the API's own streams may be of one kind only, so the handlers answer them. */
const streamed = (row: string) =>
  [
    Schema.String.annotate({ description: `a ${row} a line` }).pipe(
      HttpApiSchema.asText({ contentType: mediaTypes.ndjson })
    ),
    Schema.String.annotate({ description: `the fields of ${row}, with a header line` }).pipe(
      HttpApiSchema.asText({ contentType: mediaTypes.csv })
    ),
    Schema.Uint8Array.annotate({ description: `an Arrow IPC stream, a column for each field of ${row}` }).pipe(
      HttpApiSchema.asUint8Array({ contentType: mediaTypes.arrow })
    ),
    Schema.Uint8Array.annotate({ description: `a Parquet file, a column for each field of ${row}` }).pipe(
      HttpApiSchema.asUint8Array({ contentType: mediaTypes.parquet })
    ),
    HttpApiSchema.Empty(304)
  ] as const

const STREAMS =
  "As NDJSON, CSV, Arrow or Parquet, by `format` or `Accept`, the whole range is one answer, of which `limit` takes the first rows. Several instruments, by `symbols`, `tokens` or `all=true`, are of one trading `date`, always in one answer. Answers are compressed by `Accept-Encoding` (zstd, gzip; Parquet is so by itself). A range that is over has an `ETag`: a late tick or a replay changes it, so that it is asked for again with `If-None-Match` and answered by 304 where nothing has changed."

const historical = HttpApiGroup.make("historical")
  .add(
    HttpApiEndpoint.get("ticks", "/historical/ticks", {
      query: range,
      success: [TicksPage, ...streamed("HistoricalTick")],
      error: [...always, errors.NotFound, errors.TooManyRequestsResponse]
    }).annotateMerge(
      describe(
        READ,
        "Ticks of one instrument, ascending, or of several in the order of a replay",
        `JSON by pages. ${STREAMS}`
      )
    ),
    HttpApiEndpoint.get("candles", "/historical/candles", {
      query: {
        ...range,
        interval: Interval,
        fill: Schema.optionalKey(Schema.Literals(["none", "previous"])),
        session: Schema.optionalKey(Schema.Literals(["all", "regular"]))
      },
      success: [CandlesPage, ...streamed("Bar")],
      error: [...always, errors.NotFound, errors.TooManyRequestsResponse]
    }).annotateMerge(
      describe(
        READ,
        "Bars of one instrument, ascending, or of several by their start",
        "`fill=previous` gives an interval of continuous trading that has no tick a bar at the close before it, from the day's first bar on; day bars are filled over at most 31 days. `session=regular` leaves out the minutes without a moment of continuous trading or closing auction, and every wider bar is made of the minutes that stay in; a tick stamped at the instant at which the session ends is in the bar that ends there. Bars of 30 minutes and an hour start at 09:15 as the cash market does, those of MCX and currency derivatives at 09:00. A bare date is a trading day (IST): `from` starts with it, `to` is the last one in the range. `interval=1d` answers every day that the range meets, whole. " +
          STREAMS
      )
    )
  )
  .prefix(BASE)

const ArchiveObject = Schema.String.annotate({ description: "Parquet; all of the object, or what Range asks for" })

const ArchivedObjectKind = Schema.Literals(ARCHIVED_KINDS).annotate({ description: "what its rows are" })

const ArchivedDay = Schema.Struct({
  date: Schema.String,
  objects: Schema.Array(
    Schema.Struct({
      kind: ArchivedObjectKind,
      name: Schema.String,
      path: Schema.String.annotate({ description: "where this server answers it" }),
      bytes: Schema.Int,
      rows: Schema.Int
    })
  ),
  unreadable: Schema.Array(
    Schema.Struct({ kind: ArchivedObjectKind, name: Schema.String, reason: Schema.String })
  ).annotate({
    description: "objects that are corrupt: the day is served without them"
  })
}).annotate({
  identifier: "ArchivedDay",
  description:
    "every archived tick of the day is in one of the objects of ticks, once; of the rows of quotes of one instrument and instant, which several objects may have, the one with the highest source_offset counts"
})

const archivedObject = {
  params: {
    day: Schema.String.pipe(
      Schema.check(
        Schema.makeFilter(
          (text: string) =>
            (text.startsWith("date=") && dayOfDate(text.slice(5)) !== undefined) ||
            "Expected date=YYYY-MM-DD, a trading date"
        )
      )
    ),
    object: Schema.String.pipe(
      Schema.check(
        Schema.makeFilter(
          (text: string) => ARCHIVE_OBJECT.test(text) || "Expected the name of an object, as /archive lists it"
        )
      )
    )
  },
  success: [
    ArchiveObject.pipe(HttpApiSchema.asText({ contentType: "application/vnd.apache.parquet" })),
    ArchiveObject.pipe(
      HttpApiSchema.asText({ contentType: "application/vnd.apache.parquet" }),
      HttpApiSchema.status(206)
    )
  ],
  error: [...always, errors.NotFound, errors.RangeNotSatisfiable]
} as const

const archive = HttpApiGroup.make("archive")
  .add(
    HttpApiEndpoint.get("objects", "/archive", {
      query: { date: TradingDate },
      success: ArchivedDay,
      error: always
    }).annotateMerge(
      describe(
        whole(READ),
        "What cold storage holds of a trading day",
        "Parquet objects for DuckDB, pandas, polars and what else reads them by URL."
      )
    ),
    HttpApiEndpoint.get("object", "/archive/:day/:object", archivedObject).annotateMerge(
      describe(
        whole(READ),
        "A Parquet object of ticks of cold storage",
        "Byte for byte, with `Range`, `If-Range`, `If-None-Match` and `HEAD`. An object never changes under its name."
      )
    ),
    HttpApiEndpoint.get("quotesObject", "/archive/quotes/:day/:object", archivedObject).annotateMerge(
      describe(
        whole(READ),
        "A Parquet object of quotes of cold storage",
        "As those of ticks. A column for each field; of the book `bid_price_1`, `bid_quantity_1`, `bid_orders_1` … `ask_orders_5`, best first, and `bid_levels`, `ask_levels`: how many there are, null where nobody said."
      )
    )
  )
  .prefix(BASE)

const calendar = HttpApiGroup.make("calendar")
  .add(
    HttpApiEndpoint.get("calendar", "/calendar", {
      query: { exchange: Text, date: TradingDate },
      success: CalendarDay,
      error: [...always, errors.NotFound]
    }).annotateMerge(describe(READ, "Trading phases of a day, or its holiday"))
  )
  .prefix(BASE)

const Reason = Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_REASON_CHARS))).annotate({
  description: "only letters whose reason holds this text"
})
const Place = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })))
const NullOrText = Schema.NullOr(Schema.String)
const NullOrInt = Schema.NullOr(Schema.Int)

const DeadLetter = Schema.Struct({
  partition: Schema.Int.annotate({ description: "where the letter is in the DLQ, as retry takes it" }),
  offset: Schema.Int,
  at: Micros.annotate({ description: "when the DLQ took it, epoch microseconds" }),
  reason: NullOrText,
  from: Schema.Struct({ topic: NullOrText, partition: NullOrInt, offset: NullOrInt, index: NullOrInt }).annotate({
    description: "the record that it was; null where the letter does not say"
  }),
  headers: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  key: NullOrText,
  value: Schema.optionalKey(NullOrText).annotate({ description: "the first 4096 bytes, where they are text" }),
  base64: Schema.optionalKey(NullOrText).annotate({ description: "the first 4096 bytes, where they are no text" }),
  bytes: Schema.Int.annotate({ description: "the whole value's length" })
}).annotate({ identifier: "DeadLetter" })

const DeadLetters = Schema.Struct({
  letters: Schema.Array(DeadLetter),
  next_cursor: NullOrText.annotate({ description: "there may be more, also after an empty page; null at the end" }),
  total: Schema.Int.annotate({ description: "letters that the DLQ holds, wanted or not" })
}).annotate({ identifier: "DeadLetters" })

const RetryRequest = Schema.Struct({
  all: Schema.optionalKey(Schema.Boolean),
  reason: Schema.optionalKey(Reason),
  partition: Schema.optionalKey(Place),
  offset: Schema.optionalKey(Place),
  cursor: Schema.optionalKey(Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_RETRY_CURSOR_CHARS))))
}).annotate({ identifier: "RetryRequest" })

const RetryReport = Schema.Struct({
  sent: Schema.Int,
  cut: Schema.Int.annotate({
    description: "kept: the DLQ has only their beginning, or a sink refused them after they were published"
  }),
  batches: Schema.Int.annotate({ description: "kept: batches of records that cannot be read" }),
  next_cursor: NullOrText.annotate({ description: "send it as cursor with the same request to go on; null when done" })
}).annotate({ identifier: "RetryReport" })

const dlq = HttpApiGroup.make("dlq")
  .add(
    HttpApiEndpoint.get("letters", "/dlq", {
      query: {
        limit: Schema.optionalKey(
          numberText(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: MAX_LETTERS }))))
        ),
        cursor: Schema.optionalKey(Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_CURSOR_CHARS)))),
        reason: Schema.optionalKey(Reason),
        partition: Schema.optionalKey(numberText(Place)),
        order: Schema.optionalKey(Schema.Literals(["oldest", "newest"]))
      },
      success: DeadLetters,
      error: always
    }).annotateMerge(
      describe(
        whole(READ),
        "Dead letters with their reasons",
        "By partition and offset, in pages; `order=newest` answers the newest of all partitions, in one page."
      )
    ),
    HttpApiEndpoint.post("retryLetters", "/dlq/retry", {
      payload: RetryRequest,
      success: RetryReport,
      error: [...always, ...withBody, errors.TooManyRequestsResponse]
    }).annotateMerge(
      describe(
        whole(WRITE),
        "Send dead letters through the pipeline again",
        '`{"all":true}`, a `reason`, or a `partition` with or without an `offset`. Letters stay in the DLQ until its retention takes them; what is still wrong comes back. A large DLQ takes several requests: each answers the `next_cursor` of the following.'
      )
    )
  )
  .prefix(BASE)

const ReplayId = Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_TEXT)))

const replays = HttpApiGroup.make("replays")
  .add(
    HttpApiEndpoint.post("startReplay", "/replays", {
      payload: ReplayRequest,
      success: Replay.pipe(HttpApiSchema.status(201)),
      error: [...always, ...withBody, errors.NotFound, errors.TooManyRequestsResponse]
    }).annotateMerge(
      describe(
        REPLAY,
        "Start a replay",
        "A day, or a part of it, of which nothing is stored of what is asked for answers 404 with `parameter` `date`, and a message that names the newest days there are. A day under way is replayed as far as it is stored; `total` is what was there at the start, or `sent` where that is more by now."
      )
    ),
    HttpApiEndpoint.get("listReplays", "/replays", {
      success: Schema.Struct({ replays: Schema.Array(Replay) }),
      error: always
    }).annotateMerge(describe(READ, "Replays, newest first")),
    HttpApiEndpoint.get("replay", "/replays/:id", {
      params: { id: ReplayId },
      success: Replay,
      error: [...always, errors.NotFound]
    }).annotateMerge(describe(READ, "One replay")),
    HttpApiEndpoint.patch("changeReplay", "/replays/:id", {
      params: { id: ReplayId },
      payload: ReplayChange,
      success: Replay,
      error: [...always, ...withBody, errors.NotFound, errors.Conflict]
    }).annotateMerge(
      describe(
        REPLAY,
        "Pause, resume, change the speed, seek, or step",
        "A `seek` begins a new run with fresh state at the first tick at or after that time: `run` goes up by one, the clients' streams begin anew, bars hold what this run brings, and a paused replay stays paused there. It goes with `state` and `speed`; of several the last counts. A `step` lets out exactly so many ticks, or everything up to the end of the so-many-th bar that has ticks, at once whatever the speed, and leaves the replay paused, also where it ran. The bar under way is the first. The answer waits for that up to 2 s: `state` is `running` where there is more to come, and `paused` once it is done, which the stream's `clock` tells too. Steps asked for meanwhile follow one another; a pause, resume or seek drops them. A step into the end ends the replay."
      )
    ),
    HttpApiEndpoint.delete("stopReplay", "/replays/:id", {
      params: { id: ReplayId },
      success: HttpApiSchema.NoContent,
      error: [...always, errors.NotFound]
    }).annotateMerge(describe(REPLAY, "End a replay"))
  )
  .prefix(BASE)

/** What a charting library calls an asset class. */
export const udfTypes = { EQ: "stock", INDEX: "index", FUT: "futures", OPT: "option" } as const satisfies Readonly<
  Record<AssetClass, string>
>
/** What it calls an interval. */
export const udfResolutions: Readonly<Record<string, Interval>> = {
  "1": "1m",
  "5": "5m",
  "15": "15m",
  "30": "30m",
  "60": "1h",
  "1D": "1d",
  D: "1d"
}

/** A library asks for times before there was anything: those mean the beginning. One beyond all is no seconds. */
const SecondsText = numberText(
  Schema.Int.pipe(
    Schema.check(Schema.isLessThanOrEqualTo(MAX_MICROS / 1_000_000, { message: "Expected epoch seconds" }))
  )
)
const SymbolsText = Schema.String.pipe(
  Schema.check(
    Schema.makeFilter((text: string) => {
      const symbols = text.split(",")
      return (
        (symbols.length <= MAX_UDF_QUOTES &&
          symbols.every((symbol) => symbol.trim() !== "" && symbol.length <= MAX_TEXT)) ||
        `Expected 1 to ${MAX_UDF_QUOTES} symbols, comma-separated`
      )
    })
  )
)
const udfRange = {
  symbol: Text,
  resolution: Schema.Literals(["1", "5", "15", "30", "60", "1D", "D"]),
  from: SecondsText,
  to: SecondsText
}
const Numbers = Schema.Array(Schema.Finite)
const Resolutions = Schema.Array(Schema.String)
const Choice = Schema.Struct({ value: Schema.String, name: Schema.String })

const UdfConfig = Schema.Struct({
  supported_resolutions: Resolutions,
  supports_search: Schema.Boolean,
  supports_group_request: Schema.Boolean,
  supports_marks: Schema.Boolean,
  supports_timescale_marks: Schema.Boolean,
  supports_time: Schema.Boolean,
  exchanges: Schema.Array(Schema.Struct({ ...Choice.fields, desc: Schema.String })),
  symbols_types: Schema.Array(Choice)
}).annotate({ identifier: "UdfConfig" })

export const UdfSymbol = Schema.Struct({
  name: Schema.String,
  full_name: Schema.String,
  ticker: Schema.String,
  description: Schema.String,
  type: Schema.String,
  exchange: Schema.String,
  listed_exchange: Schema.String,
  timezone: Schema.String,
  session: Schema.String,
  corrections: Schema.String,
  session_holidays: Schema.String,
  minmov: Schema.Int,
  pricescale: Schema.Int,
  format: Schema.String,
  has_intraday: Schema.Boolean,
  intraday_multipliers: Resolutions,
  has_daily: Schema.Boolean,
  has_weekly_and_monthly: Schema.Boolean,
  supported_resolutions: Resolutions,
  volume_precision: Schema.Int,
  visible_plots_set: Schema.String,
  data_status: Schema.String,
  expired: Schema.Boolean,
  expiration_date: Schema.optionalKey(Schema.Int)
}).annotate({ identifier: "UdfSymbol" })

const UdfFound = Schema.Struct({
  symbol: Schema.String,
  full_name: Schema.String,
  description: Schema.String,
  exchange: Schema.String,
  ticker: Schema.String,
  type: Schema.String
}).annotate({ identifier: "UdfFound" })

const UdfBars = Schema.Struct({
  s: Schema.Literals(["ok", "no_data"]),
  t: Schema.optionalKey(Schema.Array(Schema.Int)),
  o: Schema.optionalKey(Numbers),
  h: Schema.optionalKey(Numbers),
  l: Schema.optionalKey(Numbers),
  c: Schema.optionalKey(Numbers),
  v: Schema.optionalKey(Numbers),
  nextTime: Schema.optionalKey(Schema.Int).annotate({ description: "the newest bar before `from`, where there is one" })
}).annotate({ identifier: "UdfBars", description: "a column for each part of a bar; `t` in epoch seconds, ascending" })

const UdfQuotes = Schema.Struct({
  s: Schema.Literal("ok"),
  d: Schema.Array(
    Schema.Struct({
      s: Schema.Literals(["ok", "error"]),
      n: Schema.String,
      v: Schema.Record(Schema.String, Schema.Union([Schema.Finite, Schema.String])),
      errmsg: Schema.optionalKey(Schema.String)
    })
  )
}).annotate({ identifier: "UdfQuotes" })

export const UdfMark = Schema.Struct({
  id: Schema.String,
  time: Schema.Int,
  color: Schema.String,
  text: Schema.String,
  label: Schema.String,
  labelFontColor: Schema.String,
  minSize: Schema.Int
}).annotate({ identifier: "UdfMark" })

export const UdfTimescaleMark = Schema.Struct({
  id: Schema.String,
  time: Schema.Int,
  color: Schema.String,
  label: Schema.String,
  tooltip: Schema.Array(Schema.String)
}).annotate({ identifier: "UdfTimescaleMark" })

const udf = HttpApiGroup.make("udf")
  .add(
    HttpApiEndpoint.get("config", "/config", { success: UdfConfig, error: always }).annotateMerge(
      describe(
        READ,
        "What the datafeed offers to charting libraries",
        "`/udf` is the base address for TradingView's UDF adapter and what reads the same."
      )
    ),
    HttpApiEndpoint.get("symbols", "/symbols", {
      query: { symbol: Text },
      success: UdfSymbol,
      error: [...always, errors.NotFound]
    }).annotateMerge(
      describe(
        READ,
        "One instrument as a charting library has it",
        "`session` is that of the days that are as today's; `corrections` and `session_holidays` name the others, twelve years back and one ahead."
      )
    ),
    HttpApiEndpoint.get("search", "/search", {
      query: {
        query: Schema.optionalKey(Schema.String.pipe(Schema.check(Schema.isMaxLength(MAX_TEXT)))),
        type: Schema.optionalKey(Schema.Literals(["", ...Object.values(udfTypes)])),
        exchange: Schema.optionalKey(Schema.String.pipe(Schema.check(Schema.isMaxLength(MAX_TEXT)))),
        limit: Schema.optionalKey(
          numberText(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: MAX_UDF_RESULTS }))))
        )
      },
      success: Schema.Array(UdfFound),
      error: always
    }).annotateMerge(describe(READ, "Search instruments, best first")),
    HttpApiEndpoint.get("history", "/history", {
      query: {
        ...udfRange,
        countback: Schema.optionalKey(
          numberText(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: MAX_UDF_BARS }))))
        )
      },
      success: UdfBars,
      error: [...always, errors.NotFound]
    }).annotateMerge(
      describe(
        READ,
        "Bars that start in [from, to)",
        "With `countback` the newest so many before `to`, wherever `from` is. Bars within a day are those of the regular session; a day's bar holds its whole trading day, and is stamped with that date's midnight in UTC."
      )
    ),
    HttpApiEndpoint.get("time", "/time", {
      success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain" })),
      error: always
    }).annotateMerge(describe(READ, "The server's clock, epoch seconds")),
    HttpApiEndpoint.get("quotes", "/quotes", {
      query: { symbols: SymbolsText },
      success: UdfQuotes,
      error: always
    }).annotateMerge(
      describe(
        READ,
        "Last prices and the day so far",
        "In the order asked, `n` as it was asked. A symbol without a quote has `s` error and says why."
      )
    ),
    HttpApiEndpoint.get("marks", "/marks", {
      query: udfRange,
      success: Schema.Array(UdfMark),
      error: [...always, errors.NotFound]
    }).annotateMerge(
      describe(
        READ,
        "Bars whose ticks have gaps",
        "One for a bar before whose ticks numbers of the feed are missing, of the newest days of the range as far as 20,000 ticks go."
      )
    ),
    HttpApiEndpoint.get("timescaleMarks", "/timescale_marks", {
      query: udfRange,
      success: Schema.Array(UdfTimescaleMark),
      error: [...always, errors.NotFound]
    }).annotateMerge(describe(READ, "Special sessions and the day of expiry"))
  )
  .prefix(UDF)

const system = HttpApiGroup.make("system", { topLevel: true }).add(
  HttpApiEndpoint.get("healthz", "/healthz", {
    success: Schema.Struct({ status: Schema.Literal("ok") }),
    error: errors.Forbidden
  }).annotateMerge(describe(OPEN, "Whether the process lives")),
  HttpApiEndpoint.get("readyz", "/readyz", {
    success: Schema.Struct({ status: Schema.Literal("ready"), degraded: Schema.Array(Schema.String) }),
    error: [errors.NotReady, errors.Forbidden]
  }).annotateMerge(describe(OPEN, "Whether it can serve, and what is degraded")),
  HttpApiEndpoint.get("metrics", "/metrics", {
    success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4" })),
    error: errors.Forbidden
  }).annotateMerge(describe(whole(READ), "Prometheus metrics")),
  HttpApiEndpoint.get("topology", "/topology", {
    success: Schema.Json.annotate({
      description: "nodes, edges, capacities and policies as data, with counters and unknown tokens"
    }),
    error: errors.Forbidden
  }).annotateMerge(describe(whole(READ), "The pipeline, described by itself"))
)

export const Api = HttpApi.make("market-data-platform")
  .add(instruments, ingest, quotes, historical, archive, calendar, replays, dlq, udf, system)
  .middleware(SchemaRefusals)
  .middleware(KnownParameters)
  // A key that is not known is a mistake: what it asks for would be left out without a word.
  .annotate(HttpApi.PayloadParseOptions, { onExcessProperty: "error" })
  .annotateMerge(
    OpenApi.annotations({
      title: "Market Data Platform",
      version: "1",
      transform: describeApi({
        limit: MAX_LIMIT,
        letters: MAX_LETTERS,
        quotes: MAX_QUOTES,
        text: MAX_TEXT,
        reason: MAX_REASON_CHARS,
        cursor: MAX_CURSOR_CHARS,
        bars: MAX_UDF_BARS,
        symbols: MAX_UDF_QUOTES,
        results: MAX_UDF_RESULTS
      }),
      description:
        'Market data by REST. Times in answers are epoch microseconds. Live ticks come over the WebSocket at /ws. Every error is {"_tag","message","parameter"?}.'
    })
  )
