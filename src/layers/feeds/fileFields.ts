/** Decides which fields a row of a file may have, how the text of each is read, and what goes together. */
import { showValue } from "../../schema/Explain.ts"
import type { Zone } from "../../schema/NaiveTime.ts"
import { rawFields, readRawRecord } from "../../schema/RawTick.ts"
import { MIN_MICROS } from "../../schema/Time.ts"
import type { DateOrder } from "../../schema/WrittenTime.ts"
import type { BarInterval, BarStamp } from "./barTicks.ts"
import {
  BadQuote,
  inColumns,
  isTimeColumn,
  priceColumnOf,
  type QuoteColumn,
  QuoteColumns,
  quoteColumns
} from "./fileQuotes.ts"
import { FileTimes, type TimeUnit } from "./fileTimes.ts"

type Reading = "number" | "time" | "text" | "flag"

/** Rows of NDJSON have a quote as the contract has it; columns of one are apart. */
const { session: _, quote: __, ...ofFeeds } = rawFields
type OfFeeds = typeof ofFeeds

/** How a field's text is read, by its kind. */
const readings: Readonly<Record<OfFeeds[keyof OfFeeds]["kind"], Reading>> = {
  token: "number",
  time: "time",
  price: "number",
  name: "text",
  quantity: "number",
  number: "number",
  sequencing: "text",
  flag: "flag"
}

const kinds = {
  ...(Object.fromEntries(Object.entries(ofFeeds).map(([name, { kind }]) => [name, readings[kind]])) as {
    readonly [N in keyof OfFeeds]: Reading
  }),
  /** The day and the time of day of `exchange_ts`, in columns of their own. */
  date: "text",
  time: "text",
  /** Instead of `instrument_token`. */
  symbol: "text",
  /** Of a bar; `open`, `high` and `low` are the day's so far in a file of ticks. */
  close: "number",
  ...(Object.fromEntries(quoteColumns.map((name) => [name, isTimeColumn(name) ? "time" : "number"])) as {
    readonly [N in QuoteColumn]: Reading
  })
} as const
export type FileField = keyof typeof kinds
export const fileFields = Object.keys(kinds) as ReadonlyArray<FileField>
export const isFileField = (name: string): name is FileField => Object.hasOwn(kinds, name)
export const isQuoteColumn = (name: FileField): name is QuoteColumn =>
  (quoteColumns as ReadonlyArray<FileField>).includes(name)

export const PRICES = ["open", "high", "low", "close"] as const
/** Fields of a file of bars. What numbers a tick is not among them: each bar becomes several. */
const BAR_FIELDS: ReadonlyArray<FileField> = [
  "instrument_token",
  "symbol",
  "exchange_ts",
  "date",
  "time",
  ...PRICES,
  "volume",
  "feed",
  "connection",
  "oi"
]
const TICK_FIELDS = fileFields.filter((field) => field !== "close")
/** A column of this name may as well be of a bar: in a file of ticks it is taken where a flag or a preset says so. */
const AMBIGUOUS: ReadonlyArray<FileField> = PRICES

/** Where a column is found that no flag names: by one of these names, or its number where there is no header. */
export type Columns = ReadonlyMap<FileField, ReadonlyArray<string>>

export interface RowOptions {
  readonly format: "csv" | "ndjson"
  readonly hasHeader: boolean
  /** Where a field stands: a column's name, or its number from 1; in NDJSON a key. */
  readonly map: ReadonlyMap<FileField, string>
  /** Fields that are the same in every row, as text. */
  readonly set: ReadonlyMap<FileField, string>
  /** Where a field stands that neither names; undefined: under its own name alone. */
  readonly columns?: Columns | undefined
  /** What naive times are meant in; without one they are refused. */
  readonly zone: Zone | undefined
  /** The order of dates of numbers; without one a row that can have only one decides it. */
  readonly dates?: DateOrder | undefined
  /** The unit of epoch numbers; without one their size tells it. */
  readonly unit?: TimeUnit | undefined
  /** What separates columns; without one the first lines tell it. */
  readonly delimiter?: string | undefined
  /** Rows are bars of this interval; without it they are ticks. */
  readonly bars?: BarInterval
  /** Which instant of a bar its row carries; its start, unless it is said. */
  readonly stamp?: BarStamp | undefined
  /** Prices finer than this many rupees are refused, or rounded; 0: none is. Without it, than the instrument's own. */
  readonly tickSize?: number | undefined
  readonly round?: boolean
  /**
   * What a row is whose volume is 0 and whose price is that of its instrument's row before, though it has a book: a tick,
   * or a quote alone.
   */
  readonly untraded?: "tick" | "quote" | undefined
}

export const fieldsOf = ({ bars }: RowOptions): ReadonlyArray<FileField> =>
  bars === undefined ? TICK_FIELDS : BAR_FIELDS

/** By which names of columns a field is found that no flag names. */
export const namesOf = ({ bars, columns }: RowOptions, field: FileField): ReadonlyArray<string> => [
  ...(bars === undefined && AMBIGUOUS.includes(field) ? [] : [field]),
  ...(columns?.get(field) ?? [])
]

/** Whether a row may be a quote alone, without a price: where it is said which columns are of one. */
export const mayLackPrice = ({ bars, map }: RowOptions): boolean =>
  bars === undefined && [...map.keys()].some(isQuoteColumn)

/** What a row cannot be without; of each group one is enough. */
export const requiredOf = (options: RowOptions): ReadonlyArray<ReadonlyArray<FileField>> => [
  ["instrument_token", "symbol"],
  ["exchange_ts", "date", "time"],
  ...(options.bars !== undefined ? PRICES.map((field) => [field]) : mayLackPrice(options) ? [] : [["price"] as const])
]

/** A quantity of the book, or a number of orders, that has no price beside it; undefined where all have. */
export const unpricedOf = (
  fields: Iterable<FileField>,
  has: (field: FileField) => boolean
): { readonly field: FileField; readonly price: FileField } | undefined => {
  for (const field of fields) {
    const price = priceColumnOf(field)
    if (price !== undefined && !has(price)) return { field, price }
  }
  return undefined
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/
/** In groups of three, or as India writes them: 1,23,456.50. */
const GROUPED = /^[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?$/

/** Digits with at most one point among them, told without an expression: nearly all numbers are. */
const isShort = (text: string): boolean => {
  let points = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 46) points += 1
    else if (code < 48 || code > 57) return false
  }
  return text.length > points && points < 2
}

/** A field's text as the value that JSON would have; what does not fit stays text, to be refused. */
export const typed = (field: FileField, text: string): unknown => {
  const kind = kinds[field]
  if (kind === "number") {
    if (isShort(text) || NUMBER.test(text)) return Number(text)
    return GROUPED.test(text) ? Number(text.replaceAll(",", "")) : text
  }
  if (kind === "flag") return text === "true" ? true : text === "false" ? false : text
  return text
}

/** A symbol that is the file's own name, without its endings. */
export const BY_NAME = "@name"

/** What is wrong with how rows are to be read, before any is; undefined where nothing is. */
export const checkRowOptions = (options: RowOptions): string | undefined => {
  const { bars, format, hasHeader, map, set } = options
  for (const field of [...map.keys(), ...set.keys()]) {
    if (fieldsOf(options).includes(field)) continue
    return bars === undefined
      ? `${field} is of bars: --bars says that the rows are some`
      : `${field} is none of a bar's fields, which are ${BAR_FIELDS.join(", ")}`
  }
  for (const [field, column] of map) {
    if (set.has(field)) return `${field} is both mapped and set`
    if (format === "csv" && !hasHeader && !/^[1-9]\d{0,5}$/.test(column)) {
      return `${field}=${column}: without a header a column goes by its number from 1`
    }
  }
  if (set.has("volume") && set.has("day_volume")) return "volume and day_volume are both set"
  if (set.has("instrument_token") && set.has("symbol")) return "instrument_token and symbol are both set"
  for (const field of PRICES) {
    const text = set.get(field)
    if (text !== undefined && typeof typed(field, text) !== "number") {
      return `${field}: expected number, got ${showValue(text)}`
    }
  }
  // Without a header it is known by now which columns there are.
  if (format === "ndjson" || !hasHeader) {
    const has = (field: FileField) => map.has(field) || set.has(field) || options.columns?.has(field) === true
    const unpriced = unpricedOf([...map.keys(), ...set.keys()], has)
    if (unpriced !== undefined) return `${unpriced.field} says nothing without ${unpriced.price}`
  }
  const sample: Record<string, unknown> = { instrument_token: 1, exchange_ts: MIN_MICROS, price: 1 }
  const times = new FileTimes({ zone: options.zone, dates: options.dates, unit: options.unit })
  for (const [field, text] of set) {
    if (kinds[field] === "time") {
      const time = times.read(text)
      if (typeof time === "string") return `${field}: ${time}`
      if (typeof time !== "number") return `${field}: ${time.reason}`
      sample[field] = time
    } else {
      sample[field] = typed(field, text)
    }
  }
  // A number may come from a column, so a missing one is not yet wrong.
  if (set.has("sequencing") && !set.has("sequence_id")) sample.sequence_id = 0
  const quote = bars === undefined ? new QuoteColumns((field) => set.has(field)).read(sample) : undefined
  if (quote instanceof BadQuote) return `${quote.field}: ${quote.reason}`
  if (quote !== undefined) sample.quote = quote
  const read = readRawRecord(sample)
  if (typeof read === "string") return inColumns(read)
  if (format === "csv" && !hasHeader) {
    const missing = requiredOf(options).find(
      (group) => !group.some((field) => map.has(field) || set.has(field) || options.columns?.has(field))
    )
    if (missing !== undefined) {
      return `${missing[0]} is neither mapped nor set, and there is no header to find it by`
    }
  }
  return undefined
}
