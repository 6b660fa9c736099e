/**
 * Decides how the API is described in OpenAPI beyond what its schemas say: parameters as the types that they are, where
 * the query has text, with a description and an example each; bodies with an example; what every route may be answered.
 */
import { MAX_LEVELS, quoteFields } from "../schema/Quote.ts"
import { rawFields, rawQuoteFields } from "../schema/RawTick.ts"
import { MAX_PRICE, MAX_TOKEN } from "../schema/RawValues.ts"
import { MAX_DATE, MAX_MICROS, MIN_DATE, MIN_MICROS } from "../schema/Time.ts"
import { SECURITY_SCHEME } from "./needs.ts"
import { UDF } from "./udfErrors.ts"

type Json = Readonly<Record<string, unknown>>
interface Parameter {
  readonly name: string
  readonly in: string
}
interface Operation {
  operationId: string
  security: ReadonlyArray<Json>
  parameters?: Array<Parameter & Json>
  requestBody?: { content: Record<string, Json> }
  responses: Record<string, Json>
}
interface Description {
  paths: Record<string, Record<string, Operation>>
  components: {
    schemas: Record<string, Json>
    responses?: Record<string, Json>
    securitySchemes?: Record<string, Json>
  }
  servers?: ReadonlyArray<Json>
  [key: string]: unknown
}

interface Documented {
  readonly schema: Json
  readonly description: string
  readonly example: unknown
}

/** The largest limits, which `Api.ts` has. */
export interface Limits {
  readonly limit: number
  readonly letters: number
  readonly quotes: number
  readonly text: number
  readonly reason: number
  readonly cursor: number
  readonly bars: number
  readonly symbols: number
  readonly results: number
}

const TIME = {
  oneOf: [
    { type: "integer", minimum: MIN_MICROS, maximum: MAX_MICROS, description: "epoch microseconds" },
    { type: "string", format: "date-time", description: "ISO-8601 with an offset" }
  ]
}
const SECONDS = { type: "integer", minimum: 0, maximum: MAX_MICROS / 1_000_000 }
const TOKEN = { type: "integer", minimum: 1, maximum: MAX_TOKEN }
const DATE = { type: "string", format: "date", description: `${MIN_DATE} to ${MAX_DATE}` }

/** By name, or by operation and name where the same name means two things. */
const parametersOf = (limits: Limits): Readonly<Record<string, Documented>> => {
  const text = { type: "string", minLength: 1, maxLength: limits.text }
  return {
    query: {
      schema: { type: "string", maxLength: limits.text },
      description: "part of a symbol or name, in any case; empty or absent: all",
      example: "infy"
    },
    exchange: { schema: text, description: "the exchange, or one segment of it for the calendar", example: "NSE" },
    asset_class: {
      schema: { type: "string", enum: ["EQ", "FUT", "OPT", "INDEX"] },
      description: "only instruments of this class",
      example: "EQ"
    },
    limit: {
      schema: { type: "integer", minimum: 1, maximum: limits.limit, default: 1000 },
      description: "rows of one page, or the first rows of a stream",
      example: 100
    },
    "dlq.letters limit": {
      schema: { type: "integer", minimum: 1, maximum: limits.letters, default: 100 },
      description: "letters of one page",
      example: 100
    },
    token: { schema: TOKEN, description: "the broker's token of the instrument", example: 738561 },
    tokens: {
      schema: { type: "array", items: TOKEN, minItems: 1, maxItems: limits.quotes },
      description: "instrument tokens, comma-separated",
      example: [738561, 408065]
    },
    instrument_token: {
      schema: TOKEN,
      description: "the instrument, by the broker's token; this or symbol, not both",
      example: 738561
    },
    symbol: {
      schema: text,
      description: "the instrument as EXCHANGE:TRADINGSYMBOL, or the bare symbol where only one exchange has it",
      example: "NSE:RELIANCE"
    },
    from: {
      schema: TIME,
      description:
        "start of the range, inclusive: epoch microseconds, or ISO-8601 with an offset (a + is written %2B); a bare date is a trading day (IST), from its beginning",
      example: "2026-01-16T03:45:00Z"
    },
    to: {
      schema: TIME,
      description: "end of the range, exclusive, and after from; a bare date is a trading day (IST), which is included",
      example: 1_768_557_600_000_000
    },
    cursor: {
      schema: { type: "string", minLength: 1, maxLength: limits.cursor },
      description: "next_cursor of the answer before, to go on where it ended; of the same request only",
      example: ""
    },
    interval: {
      schema: { type: "string", enum: ["1m", "5m", "15m", "30m", "1h", "1d"] },
      description: "the length of a bar",
      example: "5m"
    },
    fill: {
      schema: { type: "string", enum: ["none", "previous"], default: "none" },
      description: "previous: a bar at the last close for every open interval without a tick",
      example: "none"
    },
    session: {
      schema: { type: "string", enum: ["all", "regular"], default: "all" },
      description: "regular: only bars with a moment of continuous trading or closing auction",
      example: "all"
    },
    as_of: {
      schema: DATE,
      description:
        "the trading day that says which instrument is meant, of which only its own days are answered; by default the days of the range",
      example: "2026-01-16"
    },
    "instruments.search as_of": {
      schema: DATE,
      description: "only instruments of this trading day, by what tokens meant then",
      example: "2026-01-16"
    },
    "instruments.instrument as_of": {
      schema: DATE,
      description: "what the token meant on this trading day; by default what it means now",
      example: "2026-01-16"
    },
    "instruments.importInstruments as_of": {
      schema: DATE,
      description: "the trading day that the file is of, not after today; by default today",
      example: "2026-01-16"
    },
    day: {
      schema: { type: "string", minLength: 15, maxLength: 15 },
      description: "date= and the trading date (IST), as cold storage names its folders",
      example: "date=2026-01-16"
    },
    object: {
      schema: { type: "string", minLength: 9, maxLength: 258 },
      description: "the name of an object, as /archive lists it",
      example: "normalized-0-0-99.parquet"
    },
    date: { schema: DATE, description: "the trading date (IST)", example: "2026-01-16" },
    id: { schema: text, description: "the replay's id, as starting it answered", example: "3f2a9c1d7b60" },
    reason: {
      schema: { type: "string", minLength: 1, maxLength: limits.reason },
      description: "only letters whose reason holds this text",
      example: "price"
    },
    partition: {
      schema: { type: "integer", minimum: 0, maximum: 1023 },
      description: "only letters of this partition of the DLQ",
      example: 0
    },
    resolution: {
      schema: { type: "string", enum: ["1", "5", "15", "30", "60", "1D", "D"] },
      description: "the length of a bar: minutes, or 1D for a day",
      example: "5"
    },
    countback: {
      schema: { type: "integer", minimum: 1, maximum: limits.bars },
      description: "so many bars before to; from then means nothing",
      example: 300
    },
    type: {
      schema: { type: "string", enum: ["", "stock", "index", "futures", "option"] },
      description: "only instruments of this type; empty: all",
      example: "stock"
    },
    "udf.quotes symbols": {
      schema: { type: "array", items: text, minItems: 1, maxItems: limits.symbols },
      description: "symbols, comma-separated",
      example: ["NSE:RELIANCE"]
    },
    symbols: {
      schema: { type: "array", items: text, minItems: 1, maxItems: limits.quotes },
      description: "several instruments, comma-separated, each as symbol; with date",
      example: ["NSE:RELIANCE", "NSE:INFY"]
    },
    all: {
      schema: { type: "string", enum: ["true"] },
      description: "every instrument that has ticks on date; this or others, not both",
      example: "true"
    },
    format: {
      schema: { type: "string", enum: ["json", "ndjson", "csv", "arrow", "parquet"] },
      description: "the form of the answer; before what Accept says",
      example: "ndjson"
    },
    "udf.search exchange": {
      schema: { type: "string", maxLength: limits.text },
      description: "only instruments of this exchange; empty: all",
      example: "NSE"
    },
    "udf.search limit": {
      schema: { type: "integer", minimum: 1, maximum: limits.results, default: 30 },
      description: "results at most",
      example: 30
    },
    ...Object.fromEntries(
      ["symbols", "history", "marks", "timescaleMarks"].map((name) => [
        `udf.${name} symbol`,
        {
          schema: text,
          description: "the instrument as EXCHANGE:TRADINGSYMBOL, or the bare symbol where only one exchange has it",
          example: "NSE:RELIANCE"
        }
      ])
    ),
    ...Object.fromEntries(
      ["history", "marks", "timescaleMarks"].flatMap((name) => [
        [
          `udf.${name} from`,
          { schema: SECONDS, description: "start of the range, inclusive: epoch seconds", example: 1_768_535_100 }
        ],
        [
          `udf.${name} to`,
          { schema: SECONDS, description: "end of the range, exclusive: epoch seconds", example: 1_768_557_600 }
        ]
      ])
    ),
    order: {
      schema: { type: "string", enum: ["oldest", "newest"], default: "oldest" },
      description: "newest: the newest letters of all partitions, newest first, in one page without cursor",
      example: "newest"
    }
  }
}

const QUANTITY = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER }

const PRICE = { type: "number", minimum: -MAX_PRICE, maximum: MAX_PRICE }

const quoteKinds: Readonly<Record<(typeof quoteFields)[keyof typeof quoteFields]["kind"], Json>> = {
  levels: {
    type: "array",
    maxItems: MAX_LEVELS,
    items: { type: "array", minItems: 3, maxItems: 3, items: { type: "number" } }
  },
  price: PRICE,
  quantity: QUANTITY,
  time: TIME
}

const rawKinds: Readonly<Record<(typeof rawFields)[keyof typeof rawFields]["kind"], Json>> = {
  token: TOKEN,
  time: TIME,
  price: PRICE,
  name: { type: "string", minLength: 1, maxLength: 64 },
  quantity: QUANTITY,
  // Of a feed; only a replay has those below 0.
  number: QUANTITY,
  sequencing: { type: "string", enum: ["contiguous", "monotonic", "none"] },
  flag: { type: "boolean" },
  quote: {
    type: "object",
    properties: Object.fromEntries(
      Object.entries(quoteFields).map(([name, { kind, description }]) => [name, { ...quoteKinds[kind], description }])
    )
  }
}

const describeRaw = (name: keyof typeof rawFields): ReadonlyArray<readonly [string, Json]> => {
  const field = rawFields[name]
  if (!("description" in field)) return []
  const { description } = field
  return [[name, { ...rawKinds[field.kind], ...("default" in field ? { default: field.default } : {}), description }]]
}
const rawNames = Object.keys(rawFields) as ReadonlyArray<keyof typeof rawFields>

/** What any feed may send. */
const RAW_TICK: Json = {
  type: "object",
  description:
    "A raw tick as any feed or other system may send it, with what the packet says of book and day beside it. Fields " +
    "that are not named here are not kept.",
  required: rawNames.filter((name) => "isRequired" in rawFields[name]),
  properties: Object.fromEntries(rawNames.flatMap(describeRaw)),
  examples: [
    {
      feed: "dma",
      instrument_token: 738561,
      exchange_ts: "2026-01-16T03:45:00.123456Z",
      price: 2500.5,
      volume: 100,
      sequence_id: 42
    }
  ]
}

const RAW_QUOTE: Json = {
  type: "object",
  description:
    "What a packet says of book and day, without a tick: a record without a price, and without what is a tick's alone.",
  required: ["instrument_token", "exchange_ts", "quote"],
  properties: Object.fromEntries(rawQuoteFields.flatMap(describeRaw)),
  examples: [
    {
      feed: "snapshot",
      instrument_token: 738561,
      exchange_ts: "2026-01-16T03:45:00Z",
      day_volume: 18250,
      quote: { bid: [[2500.45, 120, 3]], ask: [[2500.55, 80, 2]], total_buy_quantity: 51200, oi: 7250 }
    }
  ]
}

const RAW_LINE =
  '{"feed":"dma","instrument_token":738561,"exchange_ts":"2026-01-16T03:45:00.123456Z","price":2500.5,"volume":100,"sequence_id":42}\n'
const INSTRUMENT_FILE =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange\n" +
  "738561,2885,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.05,1,EQ,NSE,NSE\n"

/** An example of each body, and what its schema says beside it. */
const BODIES: Readonly<Record<string, { readonly example: unknown; readonly schema?: Json }>> = {
  "ingest.ingest": {
    example: RAW_LINE,
    schema: { type: "string", description: "one JSON object a line, each as components/schemas/RawTick or RawQuote" }
  },
  "instruments.importInstruments": {
    example: INSTRUMENT_FILE,
    schema: { type: "string", description: "the broker's instruments file, with its header line" }
  },
  "replays.startReplay": { example: { symbols: ["NSE:RELIANCE"], date: "2026-01-16", speed: 10, paused: true } },
  "replays.changeReplay": { example: { state: "running", speed: 100 } },
  "dlq.retryLetters": { example: { reason: "price" } }
}

const errorBody = (tag: string): Json => ({
  "application/json": {
    schema: {
      type: "object",
      required: ["_tag", "message"],
      properties: { _tag: { type: "string", enum: [tag] }, message: { type: "string" }, parameter: { type: "string" } }
    }
  }
})
/** A failure where a charting library asks (`udfErrors.ts`). */
const UDF_ERROR: Json = {
  type: "object",
  required: ["s", "errmsg", "_tag", "message"],
  properties: {
    s: { type: "string", enum: ["error"] },
    errmsg: { type: "string", description: "the message" },
    _tag: { type: "string" },
    message: { type: "string" },
    parameter: { type: "string" }
  },
  additionalProperties: false
}
const RETRY_AFTER = {
  "retry-after": {
    description: "seconds after which to ask again",
    schema: { type: "integer", minimum: 0 },
    required: true
  }
}

const SECURITY: Json = {
  type: "http",
  scheme: "bearer",
  description:
    "An API key, where the server has any (API_KEYS_FILE): then every route asks for one but /healthz and /readyz. The names beside the scheme are the scopes that the route asks for: read, write, replay. A key may be for some instruments only. In a query string it is not accepted."
}

const UNAUTHORIZED: Json = {
  description: "no API key, or none that holds; only where the server has keys",
  headers: { "www-authenticate": { description: "Bearer", schema: { type: "string" }, required: true } },
  content: errorBody("Unauthorized")
}
const FORBIDDEN = "a foreign Host or Origin, or a key without the scope, or for other instruments"

/** What the server in front of the routes may answer to any request. */
const COMMON: Readonly<Record<string, readonly [name: string, response: Json]>> = {
  "400": [
    "BadRequest",
    { description: "an input that is refused; parameter names it", content: errorBody("BadRequest") }
  ],
  "403": ["Forbidden", { description: FORBIDDEN, content: errorBody("Forbidden") }],
  "405": [
    "MethodNotAllowed",
    {
      description: "the path is right, the method is not; Allow lists those that are",
      content: errorBody("MethodNotAllowed")
    }
  ],
  "408": ["RequestTimeout", { description: "the request came too slowly", content: errorBody("RequestTimeout") }],
  "429": [
    "TooManyRequests",
    { description: "full for now", headers: RETRY_AFTER, content: errorBody("TooManyRequests") }
  ],
  "431": ["HeadersTooLarge", { description: "the head is larger than the server takes; the connection closes" }],
  "500": ["InternalError", { description: "a defect; the server's log says why", content: errorBody("InternalError") }],
  "503": [
    "Unavailable",
    {
      description:
        "as many requests as the server takes are under way, something behind it does not answer, or it stops",
      headers: RETRY_AFTER,
      content: errorBody("Unavailable")
    }
  ]
}

/** Descriptions that the generator leaves as the bare name of the error. */
const SAID: Readonly<Record<string, string>> = {
  "200": "what was asked for",
  "201": "made",
  "204": "done",
  "206": "the part that Range asks for",
  "304": "nothing has changed since the ETag that If-None-Match names",
  "400": "an input that is refused; parameter names it",
  "403": FORBIDDEN,
  "404": "there is no such thing",
  "409": "what is asked does not fit the state that the thing is in",
  "413": "the body is larger than its route takes",
  "415": "the body's content type or coding is not one that its route takes",
  "416": "Range begins after the end; Content-Range says how many bytes there are",
  "429": "full for now",
  "500": "a defect; the server's log says why",
  "503": "something behind the server does not answer, or it is not ready"
}

/** The description with all of this, for the API's `transform` annotation. */
export const describeApi =
  (limits: Limits) =>
  (generated: Record<string, unknown>): Record<string, unknown> => {
    const spec = generated as unknown as Description
    const documented = parametersOf(limits)
    const common: Record<string, Json> = { ...Object.fromEntries(Object.values(COMMON)), Unauthorized: UNAUTHORIZED }
    for (const [path, operations] of Object.entries(spec.paths)) {
      for (const operation of Object.values(operations)) {
        for (const parameter of operation.parameters ?? []) {
          const known = documented[`${operation.operationId} ${parameter.name}`] ?? documented[parameter.name]
          if (known === undefined) throw new Error(`${operation.operationId}: ${parameter.name} is not described`)
          const { schema, description, example } = known
          Object.assign(parameter, { schema, description })
          if (example !== "") Object.assign(parameter, { example })
          if (schema.type === "array") Object.assign(parameter, { style: "form", explode: false })
        }
        const body = BODIES[operation.operationId]
        for (const content of Object.values(operation.requestBody?.content ?? {})) Object.assign(content, body)
        for (const [status, response] of Object.entries(operation.responses)) {
          const said = SAID[status]
          if (said !== undefined) Object.assign(response, { description: said })
          if (status === "429" || status === "503") {
            const headers = (response as { readonly headers?: Json }).headers
            if (headers?.["retry-after"] !== undefined) Object.assign(response, { headers: RETRY_AFTER })
          }
        }
        if (operation.security.length > 0) {
          operation.responses["401"] ??= { $ref: "#/components/responses/Unauthorized" }
        }
        for (const [status, [name]] of Object.entries(COMMON)) {
          operation.responses[status] ??= { $ref: `#/components/responses/${name}` }
        }
        if (!path.startsWith(`${UDF}/`)) continue
        for (const [status, response] of Object.entries(operation.responses)) {
          const whole = "$ref" in response ? common[String(response.$ref).split("/").at(-1)!]! : response
          if (Number(status) >= 400 && "content" in whole) {
            operation.responses[status] = { ...whole, content: { "application/json": { schema: UDF_ERROR } } }
          }
        }
      }
    }
    spec.components.schemas.RawTick = RAW_TICK
    spec.components.responses = common
    spec.components.schemas.RawQuote = RAW_QUOTE
    spec.components.securitySchemes = { [SECURITY_SCHEME]: SECURITY }
    spec.servers = [{ url: "/", description: "the server that this description came from" }]
    return spec
  }
