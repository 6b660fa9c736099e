/** Decides what a line of a file is: the records that it becomes, or what is wrong with it, and in which column. */
import { intervalMicros } from "../../schema/Candle.ts"
import { delimiterOf, splitLine } from "../../schema/delimited.ts"
import { showValue } from "../../schema/Explain.ts"
import { type RawRecord, type RawTick, readRawRecord, readRawTick } from "../../schema/RawTick.ts"
import { isExactPrice } from "../../schema/RawValues.ts"
import { tradingDay, tradingDayStart } from "../../schema/Tick.ts"
import type { DateOrder } from "../../schema/WrittenTime.ts"
import { BAR_TICKS, type BarInterval, barProblem, barTicks, type FileBar, startOf } from "./barTicks.ts"
import {
  BY_NAME,
  type FileField,
  fieldsOf,
  isFileField,
  isQuoteColumn,
  mayLackPrice,
  namesOf,
  PRICES,
  type RowOptions,
  requiredOf,
  typed,
  unpricedOf
} from "./fileFields.ts"
import { BadQuote, inColumns, QuoteColumns } from "./fileQuotes.ts"
import { FileTimes, type TimeUnit, Unclear } from "./fileTimes.ts"
import type { OfDays } from "./instrumentAnswers.ts"
import type { LastRows } from "./LastRows.ts"

/** Contents remembered to tell the same content met again: the newest this many for sure, twice as many at most. */
export const MIN_CONTENTS = 131_072
/** Days of an instrument of which bars are remembered: the newest this many for sure, twice as many at most. */
export const MIN_BAR_DAYS = 65_536
/** Instruments remembered; full: all are forgotten, and asked again. */
export const MAX_KNOWN = 200_000
const MAX_CONNECTION_CHARS = 64
const MAX_CONNECTIONS = 1024
/** Of the columns that there are, named where one is missing. */
const MAX_NAMES_CHARS = 500

const DIGITS = /^\d+$/
const UNCLOSED = "a quote is not closed, or text follows a closing quote"
const PRICE_DECIMALS = 7

/** Slots of a table of contents: never more than half of them are taken. */
const SLOTS = 2 * MIN_CONTENTS
const KEY_NUMBERS = 4

const bits = new Float64Array(1)
const halves = new Uint32Array(bits.buffer)
const mixed = (hash: number, value: number): number => {
  bits[0] = value
  return Math.imul(Math.imul(hash ^ halves[0]!, 0x85ebca6b) ^ halves[1]!, 0xc2b2ae35)
}

/** How often each content was met, by the four numbers that it is: a text made of them took a third of all the time. */
class Contents {
  readonly #keys = new Float64Array(SLOTS * KEY_NUMBERS)
  /** One more than the count; 0 in a slot that is free. */
  readonly #counts = new Uint32Array(SLOTS)
  size = 0

  /** Where this content is, or would be. */
  slot(token: number, ts: number, price: number, quantity: number): number {
    const hash = mixed(mixed(mixed(mixed(0, token), ts), price), quantity)
    const keys = this.#keys
    for (let slot = (hash ^ (hash >>> 15)) & (SLOTS - 1); ; slot = (slot + 1) & (SLOTS - 1)) {
      if (this.#counts[slot] === 0) return slot
      const at = slot * KEY_NUMBERS
      if (keys[at] === token && keys[at + 1] === ts && keys[at + 2] === price && keys[at + 3] === quantity) return slot
    }
  }

  /** Undefined where the slot is free. */
  at(slot: number): number | undefined {
    const count = this.#counts[slot]!
    return count === 0 ? undefined : count - 1
  }

  put(slot: number, token: number, ts: number, price: number, quantity: number, count: number): void {
    if (this.#counts[slot] === 0) {
      this.size += 1
      const at = slot * KEY_NUMBERS
      this.#keys[at] = token
      this.#keys[at + 1] = ts
      this.#keys[at + 2] = price
      this.#keys[at + 3] = quantity
    }
    this.#counts[slot] = count + 1
  }

  clear(): void {
    this.#counts.fill(0)
    this.size = 0
  }
}

/**
 * Counts how often the very same content was met: 0 the first time. Remembers a bounded number of contents, in two
 * generations: taking the oldest out of one table, row after row, would be far slower.
 */
export class Occurrences {
  #young = new Contents()
  #old = new Contents()

  next({ day_volume, exchange_ts, instrument_token: token, price, volume }: RawTick): number {
    const quantity = day_volume >= 0 ? -1 - day_volume : volume
    const young = this.#young
    const slot = young.slot(token, exchange_ts, price, quantity)
    const before = young.at(slot) ?? this.#old.at(this.#old.slot(token, exchange_ts, price, quantity))
    const count = before === undefined ? 0 : before + 1
    young.put(slot, token, exchange_ts, price, quantity, count)
    if (young.size >= MIN_CONTENTS) {
      this.#old.clear()
      this.#young = this.#old
      this.#old = young
    }
    return count
  }
}

/** Trading days of which a key has room for each, until 2100 and beyond. */
const DAYS = 65_536

/**
 * Which bars of an interval were met in a file: a bit for each that a trading day of an instrument has room for. Remembers
 * the newest `MIN_BAR_DAYS` days of an instrument for sure, in two generations as above.
 */
export class BarStarts {
  readonly #width: number
  #young = new Map<number, Uint32Array>()
  #old = new Map<number, Uint32Array>()

  constructor(interval: BarInterval) {
    this.#width = intervalMicros(interval)
  }

  /** Whether a bar is met for the first time. */
  add(token: number, start: number): boolean {
    const day = tradingDay(start)
    const key = token * DAYS + day
    let bars = this.#young.get(key)
    if (bars === undefined) {
      bars = this.#old.get(key) ?? new Uint32Array(Math.ceil(intervalMicros("1d") / this.#width / 32))
      this.#young.set(key, bars)
      if (this.#young.size >= MIN_BAR_DAYS) {
        this.#old = this.#young
        this.#young = new Map()
      }
    }
    const at = Math.floor((start - tradingDayStart(day)) / this.#width)
    const word = bars[at >>> 5]!
    const bit = 1 << (at & 31)
    if ((word & bit) !== 0) return false
    bars[at >>> 5] = word | bit
    return true
  }
}

/** A row that is neither a tick nor a quote. */
export class BadRow {
  readonly reason: string
  /** The field that it should have been; empty where the line as a whole is wrong. */
  readonly field: string
  /** From 1; 0 where it is not known. */
  readonly column: number
  /** Its date is more than one day; another row may decide which. */
  readonly isUnclear: boolean

  constructor(reason: string, field = "", column = 0, isUnclear = false) {
    this.reason = reason
    this.field = field
    this.column = column
    this.isUnclear = isUnclear
  }
}

/** What must be known of an instrument on a trading day (since 1970) before a row can be read. */
export class Wanted {
  readonly symbol: string | undefined
  readonly token: number
  readonly day: number

  constructor(symbol: string | undefined, token: number, day: number) {
    this.symbol = symbol
    this.token = token
    this.day = day
  }
}

/** What is known by the days that it is of: of most there is one answer for all. */
class Answers<K, A> {
  readonly #known = new Map<K, Array<OfDays<A>>>()
  #size = 0

  get(key: K, day: number): A | undefined {
    const all = this.#known.get(key)
    if (all === undefined) return undefined
    for (let i = 0; i < all.length; i++) if (all[i]!.from <= day && day <= all[i]!.through) return all[i]!.is
    return undefined
  }

  /** An answer to what was asked for a day: it is of that day, whatever else it is of. */
  set(key: K, day: number, { from, is, through }: OfDays<A>): void {
    if (this.#size >= MAX_KNOWN) {
      this.#known.clear()
      this.#size = 0
    }
    this.#size += 1
    const one = { is, from: Math.min(from, day), through: Math.max(through, day) }
    const all = this.#known.get(key)
    if (all === undefined) this.#known.set(key, [one])
    else all.push(one)
  }
}

/** What is known of the instruments in a file, by all that read it. */
export class Known {
  /** Whether an instrument's own tick size is asked for. */
  readonly isAsking: boolean
  readonly #tokens = new Answers<string, number | string>()
  readonly #sizes = new Answers<number, number>()
  #symbol: string | undefined
  /** Prices that were rounded. */
  rounded = 0

  constructor(isAsking: boolean) {
    this.isAsking = isAsking
  }

  /** The token of a symbol on a day, or why it has none; undefined where it was not asked yet. */
  token(symbol: string, day: number): number | string | undefined {
    return this.#tokens.get(symbol, day)
  }

  setToken(symbol: string, day: number, token: OfDays<number | string>): void {
    this.#tokens.set(symbol, day, token)
  }

  size(token: number, day: number): number | undefined {
    return this.#sizes.get(token, day)
  }

  setSize(token: number, day: number, size: OfDays<number>): void {
    this.#sizes.set(token, day, size)
  }

  /** The one symbol of all rows, where all have the same token; the one before where this is another. */
  otherThan(symbol: string): string | undefined {
    this.#symbol ??= symbol
    return this.#symbol === symbol ? undefined : this.#symbol
  }
}

/** What was seen in a file and not told by a flag, in words for whoever fed it. */
export interface Seen {
  readonly delimiter: string | undefined
  readonly dates: DateOrder | undefined
  readonly unit: TimeUnit | undefined
  /** Columns by name, or by number where there is no header. */
  readonly columns: ReadonlyArray<readonly [FileField, string]>
  readonly unused: ReadonlyArray<string>
}

/** The names of columns as far as they fit in a line. */
const showNames = (names: ReadonlyArray<string>): string => {
  const all = names.join(", ")
  return all.length > MAX_NAMES_CHARS ? `${all.slice(0, MAX_NAMES_CHARS)}…` : all
}

/** Whether a line of names holds none: all of it is numbers, dates or nothing. */
const isLikeData = (names: ReadonlyArray<string>): boolean =>
  names.some((name) => /^[\d.,:/ +-]*\d[\d.,:/ +-]*$/.test(name)) &&
  names.every((name) => !/^[A-Za-z_<][^:]*$/.test(name))

/** A column's name without what vendors put around it. */
const bare = (name: string): string =>
  name
    .trim()
    .replace(/^<(.*)>$/, "$1")
    .toLowerCase()

/** Without the spaces around it, of which most texts have none. */
const trimmed = (text: string): string =>
  text.length > 0 && (text.charCodeAt(0) <= 32 || text.charCodeAt(text.length - 1) <= 32) ? text.trim() : text

const decimalsOf = (size: number): number => (String(size).split(".")[1] ?? "").length

/** The multiple of a tick size nearest to a price. */
const onGrid = (price: number, size: number): number =>
  Number((Math.round(price / size) * size).toFixed(Math.max(decimalsOf(size), 0)))

/** The trading day of a row, infinite where its time is none. */
const dayOf = ({ exchange_ts }: Record<string, unknown>): number =>
  typeof exchange_ts === "number" && Number.isFinite(exchange_ts) ? tradingDay(exchange_ts) : Infinity

export interface ReaderParts {
  readonly known: Known
  readonly occurrences: Occurrences
  readonly last: LastRows
  /** Of a file of bars, all its parts. */
  readonly starts: BarStarts | undefined
  /** Nothing is sent of what is read: occurrences need not be counted. */
  readonly isChecking: boolean
}

/**
 * Reads lines of one table one by one. A row that carries no number of its own gets its `occurrence`, so that the same
 * file gives the same identities however often it is fed.
 */
export class RowReader {
  readonly #options: RowOptions
  readonly #connection: string
  readonly #parts: ReaderParts
  readonly #constants: Record<string, unknown> = {}
  readonly #times: FileTimes
  readonly #connections = new Map<string, string>()
  readonly #hasOneToken: boolean
  #delimiter: string
  #columns: ReadonlyArray<readonly [FileField, number]> | undefined
  /** Those of a quote among what a row has; which of its fields are prices of one grid, and times besides its own. */
  #quotes: QuoteColumns
  #prices: ReadonlyArray<FileField> = []
  #otherTimes: ReadonlyArray<FileField> = []
  readonly #mayLackPrice: boolean
  #names: ReadonlyArray<string> = []
  #unused: ReadonlyArray<string> = []
  /** Fields that a row of a file with a header must have; 0: any number. */
  #width = 0

  /** `connection` names this file run, before the feed's name; `name` is the part's own, of which a symbol may be made. */
  constructor(options: RowOptions, connection: string, name: string, parts: ReaderParts) {
    this.#options = options
    this.#connection = connection
    this.#parts = parts
    this.#delimiter = options.delimiter ?? ""
    this.#times = new FileTimes({ zone: options.zone, dates: options.dates, unit: options.unit })
    this.#hasOneToken = options.set.has("instrument_token")
    if (options.bars !== undefined) this.#constants.feed = `bars_${options.bars}`
    for (const [field, text] of options.set) this.#constants[field] = typed(field, text)
    if (this.#constants.symbol === BY_NAME) this.#constants.symbol = name.replace(/^.*\//, "").replace(/\.[^.]*$/, "")
    this.#mayLackPrice = mayLackPrice(options)
    this.#quotes = this.#findQuotes([])
    if (options.format === "csv" && !options.hasHeader) {
      const columns = new Map<FileField, string>()
      for (const [field, [number]] of options.columns ?? []) if (number !== undefined) columns.set(field, number)
      for (const [field, number] of options.map) columns.set(field, number)
      for (const field of options.set.keys()) columns.delete(field)
      const read = fieldsOf(options).filter((field) => columns.has(field))
      this.#columns = read.map((field) => [field, Number(columns.get(field)) - 1] as const)
      this.#quotes = this.#findQuotes(read)
    }
  }

  /** The columns of a quote: those that were found, and what is told to be one. */
  #findQuotes(found: ReadonlyArray<FileField>): QuoteColumns {
    const { bars, map, set } = this.#options
    const all = new Set<FileField>([...found, ...map.keys(), ...set.keys()])
    const quotes = new QuoteColumns((field) => (bars === undefined || field === "oi") && all.has(field))
    this.#prices = ["price", ...quotes.bookPrices]
    this.#otherTimes = ["received_ts", ...quotes.times]
    return quotes
  }

  /** The records of a line; undefined for a blank line and for the header; what has to be known first; or what is wrong. */
  read(line: string): ReadonlyArray<RawRecord> | Wanted | BadRow | undefined {
    if (line.trim() === "") return undefined
    if (this.#options.format === "ndjson") return this.#finish(this.#object(line))
    if (this.#columns === undefined) return this.#header(line)
    return this.#finish(this.#row(line, this.#columns))
  }

  /** Whether a line that could not be read leaves nothing to read the others by. */
  get needsHeader(): boolean {
    return this.#options.format === "csv" && this.#columns === undefined
  }

  /** Whether the first lines are to be shown it before any is read. */
  get needsDelimiter(): boolean {
    return this.#options.format === "csv" && this.#delimiter === ""
  }

  /** Tells what separates columns from the first lines. */
  look(lines: ReadonlyArray<string>): void {
    this.#delimiter = delimiterOf(lines)
  }

  /** The order of dates, where it is known by now. */
  get order(): DateOrder | undefined {
    return this.#times.order
  }

  get seen(): Seen {
    return {
      delimiter: this.#options.delimiter === undefined ? this.#delimiter : undefined,
      dates: this.#options.dates === undefined ? this.#times.order : undefined,
      unit: this.#times.unitSeen,
      columns: (this.#columns ?? []).map(([field, at]) => [field, this.#names[at] ?? String(at + 1)]),
      unused: this.#unused
    }
  }

  /** Where a name stands in the header; -1 where it does not, or -2 where it does more than once. */
  #find(names: ReadonlyArray<string>, wanted: string): number {
    const exact = names.indexOf(wanted)
    if (exact >= 0) return exact
    const all = names.flatMap((name, at) => (bare(name) === bare(wanted) ? [at] : []))
    return all.length > 1 ? -2 : (all[0] ?? -1)
  }

  #header(line: string): BadRow | undefined {
    const { map, set } = this.#options
    const names = splitLine(line, this.#delimiter)?.map((name) => name.trim())
    if (names === undefined) return new BadRow(UNCLOSED)
    const data = isLikeData(names) ? "; it reads as data, not as names: --no-header" : ""
    const found = new Map<FileField, number>()
    for (const [field, wanted] of map) {
      let at = this.#find(names, wanted)
      if (at < 0 && DIGITS.test(wanted) && Number(wanted) >= 1 && Number(wanted) <= names.length)
        at = Number(wanted) - 1
      if (at === -2) return new BadRow(`more than one column ${showValue(wanted)}: by its number from 1`, field)
      if (at < 0)
        return new BadRow(`no column ${showValue(wanted)} for it, there are ${showNames(names)}${data}`, field)
      found.set(field, at)
    }
    const taken = new Set(found.values())
    for (const field of fieldsOf(this.#options)) {
      if (set.has(field) || found.has(field)) continue
      const at = namesOf(this.#options, field)
        .map((name) => this.#find(names, name))
        .find((place) => place >= 0)
      if (at !== undefined && !taken.has(at)) found.set(field, at)
    }
    // One that says the same in another way is there beside it, and not needed.
    if (found.has("exchange_ts") || set.has("exchange_ts"))
      for (const field of ["date", "time"] as const) found.delete(field)
    if (found.has("instrument_token")) found.delete("symbol")
    for (const group of requiredOf(this.#options)) {
      if (group.some((field) => found.has(field) || set.has(field))) continue
      const field = group[0]!
      return new BadRow(`no column of that name (--map ${field}=COLUMN), there are ${showNames(names)}${data}`, field)
    }
    const has = (field: FileField) => found.has(field) || set.has(field)
    const unpriced = unpricedOf(map.keys(), has)
    if (unpriced !== undefined) {
      return new BadRow(`it says nothing without ${unpriced.price} (--map ${unpriced.price}=COLUMN)`, unpriced.field)
    }
    for (let lone = unpricedOf(found.keys(), has); lone !== undefined; lone = unpricedOf(found.keys(), has)) {
      found.delete(lone.field)
    }
    const columns = [...found].sort(([, a], [, b]) => a - b)
    this.#quotes = this.#findQuotes([...found.keys()])
    // A column named by its number is found in any line, so also in one that is data.
    const asRow = this.#finish(this.#row(line, columns))
    if (!(asRow instanceof BadRow) || asRow.isUnclear) {
      return new BadRow("it reads as a tick, not as the names of columns: --no-header takes it as one")
    }
    this.#columns = columns
    this.#names = names
    this.#unused = names.filter((name, at) => name !== "" && !columns.some(([, place]) => place === at))
    this.#width = names.length
    return undefined
  }

  #row(line: string, columns: ReadonlyArray<readonly [FileField, number]>): Record<string, unknown> | BadRow {
    const fields = splitLine(line, this.#delimiter)
    if (fields === undefined) return new BadRow(UNCLOSED)
    if (this.#width > 0 && fields.length !== this.#width) {
      return new BadRow(`expected ${this.#width} fields, got ${fields.length}`)
    }
    const row: Record<string, unknown> = { ...this.#constants }
    for (let i = 0; i < columns.length; i++) {
      const [field, at] = columns[i]!
      const text = fields[at]
      if (text === undefined) {
        // A preset names columns that only some of a vendor's files have.
        if (this.#isOptional(field)) continue
        return new BadRow(`the row has only ${fields.length} fields`, field, at + 1)
      }
      const bare = trimmed(text)
      if (bare !== "") row[field] = typed(field, bare)
    }
    return row
  }

  /** Whether a column may be absent: one of a quote that no flag names. */
  #isOptional(field: FileField): boolean {
    return isQuoteColumn(field) && !this.#options.map.has(field)
  }

  #object(line: string): Record<string, unknown> | BadRow {
    let parsed: unknown
    try {
      parsed = JSON.parse(line)
    } catch (error) {
      // The parser quotes the line's beginning; the column says more.
      const what = (error as Error).message.replace(/(, (\.\.\.)?".*| in JSON at position .*| \(line .*)$/s, "")
      return new BadRow(`not JSON: ${what}`, "", brokenAt(line))
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
      return new BadRow(`expected a JSON object, got ${showValue(parsed)}`)
    }
    const given = parsed as Record<string, unknown>
    for (const [field, key] of this.#options.map) {
      const value = given[key]
      if (value === undefined) delete given[field]
      else given[field] = value
    }
    return Object.assign(given, this.#constants)
  }

  #finish(given: Record<string, unknown> | BadRow): ReadonlyArray<RawRecord> | Wanted | BadRow {
    if (given instanceof BadRow) return given
    const wrong = this.#time(given)
    if (wrong !== undefined) return wrong
    const instrument = this.#instrument(given)
    if (instrument !== undefined) return instrument
    if (this.#options.bars !== undefined) return this.#bar(given, this.#options.bars)
    const priced = this.#priced(given, this.#prices)
    if (priced !== undefined) return priced
    for (const field of this.#quotes.dayPrices) this.#fitted(given, field, 0)
    const quote = this.#quotes.read(given)
    if (quote instanceof BadQuote) return new BadRow(quote.reason, quote.field, this.#columnOf(quote.field))
    const record = quote === undefined ? this.#record(given) : this.#quoted(given, quote)
    return record instanceof BadRow ? record : [record]
  }

  /** A row of which columns are of a quote. */
  #quoted(given: Record<string, unknown>, quote: Record<string, unknown>): RawRecord | BadRow {
    if (given.price === undefined) {
      if (!this.#mayLackPrice) return this.#refused(readRawTick(given) as string)
      // What says that nothing was traded says nothing of a tick.
      if (given.volume === 0) delete given.volume
      if (given.sequence_id === undefined) delete given.sequencing
    }
    given.quote = Object.assign({}, given.quote, quote)
    return this.#record(given)
  }

  /** Puts the row's instant where its time or its date and time are. */
  #time(given: Record<string, unknown>): BadRow | undefined {
    const { date, exchange_ts, time } = given
    let field: FileField = "exchange_ts"
    let read: number | string | Unclear | undefined
    if (exchange_ts !== undefined) read = this.#times.read(exchange_ts)
    else if (date !== undefined && time !== undefined) {
      field = "time"
      read = this.#times.readParts(date, time)
      if (read instanceof Unclear || (typeof read === "string" && read.includes(" a date "))) field = "date"
    } else if (date !== undefined || time !== undefined) {
      field = date === undefined ? "time" : "date"
      read = this.#times.read(date ?? time)
    }
    if (read instanceof Unclear) return new BadRow(read.reason, field, this.#columnOf(field), true)
    if (typeof read === "string") return new BadRow(read, field, this.#columnOf(field))
    if (read !== undefined) given.exchange_ts = read
    for (const other of this.#otherTimes) {
      const wrong = given[other] === undefined ? undefined : this.#otherTime(given, other)
      if (wrong !== undefined) return wrong
    }
    return undefined
  }

  /** Puts an instant where the text of another time is. */
  #otherTime(given: Record<string, unknown>, field: FileField): BadRow | undefined {
    const read = this.#times.read(given[field])
    const reason = typeof read === "string" ? read : read instanceof Unclear ? read.reason : undefined
    if (reason !== undefined) return new BadRow(reason, field, this.#columnOf(field))
    given[field] = read
    return undefined
  }

  /** Puts the row's token where its symbol is. */
  #instrument(given: Record<string, unknown>): Wanted | BadRow | undefined {
    const { instrument_token, symbol } = given
    if (symbol === undefined) return undefined
    const bad = (reason: string) => new BadRow(reason, "symbol", this.#columnOf("symbol"))
    if (typeof symbol !== "string")
      return instrument_token === undefined ? bad(`expected text, got ${showValue(symbol)}`) : undefined
    if (this.#hasOneToken) {
      const other = this.#parts.known.otherThan(symbol)
      if (other === undefined) return undefined
      return bad(`expected ${showValue(other)}, as all rows have the same instrument_token, got ${showValue(symbol)}`)
    }
    if (instrument_token !== undefined) return undefined
    const day = dayOf(given)
    const token = this.#parts.known.token(symbol, day)
    if (token === undefined) return new Wanted(symbol, 0, day)
    if (typeof token === "string") return bad(`${token}, got ${showValue(symbol)}`)
    given.instrument_token = token
    return undefined
  }

  /** Holds prices to the tick size of their instrument, or puts them there. */
  #priced(given: Record<string, unknown>, fields: ReadonlyArray<FileField>): Wanted | BadRow | undefined {
    const token = given.instrument_token
    if (typeof token !== "number") return undefined
    const { known } = this.#parts
    const { tickSize } = this.#options
    let size = tickSize
    if (size === undefined && known.isAsking) {
      const day = dayOf(given)
      size = known.size(token, day)
      if (size === undefined) return new Wanted(undefined, token, day)
    }
    for (let i = 0; i < fields.length; i++) {
      const wrong = this.#fitted(given, fields[i]!, size ?? 0)
      if (wrong !== undefined) return wrong
    }
    return undefined
  }

  /** Holds one price to a tick size; 0: to none. */
  #fitted(given: Record<string, unknown>, field: FileField, size: number): BadRow | undefined {
    const { round } = this.#options
    const price = given[field]
    if (typeof price !== "number" || !Number.isFinite(price)) return undefined
    const fitting = size > 0 ? onGrid(price, size) : isExactPrice(price) ? price : Number(price.toFixed(PRICE_DECIMALS))
    if (fitting === price || (size === 0 && round !== true)) return undefined
    if (round !== true) {
      const reason = `expected a multiple of the tick size ${size} (--round, or --tick-size for another), got ${price}`
      return new BadRow(reason, field, this.#columnOf(field))
    }
    if (!this.#parts.isChecking) this.#parts.known.rounded += 1
    given[field] = fitting
    return undefined
  }

  #bar(given: Record<string, unknown>, interval: BarInterval): ReadonlyArray<RawRecord> | Wanted | BadRow {
    for (const field of ["exchange_ts", ...PRICES] as const) {
      const value = given[field]
      if (typeof value !== "number") {
        return new BadRow(`expected number, got ${showValue(value)}`, field, this.#columnOf(field))
      }
    }
    const priced = this.#priced(given, PRICES)
    if (priced !== undefined) return priced
    const { close, connection, feed, high, instrument_token, low, open, volume = 0 } = given
    if (typeof volume !== "number" || !Number.isSafeInteger(volume) || volume < 0) {
      return new BadRow(`expected a whole number from 0, got ${showValue(volume)}`, "volume", this.#columnOf("volume"))
    }
    const stamp = this.#options.stamp ?? "start"
    const exchange_ts = startOf(given.exchange_ts as number, interval, stamp, instrument_token as number)
    if (typeof exchange_ts === "string") return this.#badTime(exchange_ts)
    const bar = { exchange_ts, open, high, low, close, volume } as FileBar
    const problem = barProblem(bar)
    if (problem !== undefined) return new BadRow(problem.reason, problem.field, this.#columnOf(problem.field))
    const common = { instrument_token, feed, ...(connection === undefined ? {} : { connection }) }
    const quote = this.#quotes.read(given)
    const records: Array<RawRecord> = []
    for (const tick of barTicks(bar, interval)) {
      // What is known by the end of the bar stands beside its close. That it is of this bar is news even where open
      // interest is as it was: what says nothing new is not published.
      const isQuoted = quote !== undefined && records.length === BAR_TICKS - 1
      const said = isQuoted ? { quote: { ...quote, last_trade_ts: tick.exchange_ts } } : {}
      const read = this.#record({ ...common, ...tick, ...said })
      if (read instanceof BadRow) return read
      records.push(read)
    }
    const isNew = this.#parts.starts?.add(instrument_token as number, exchange_ts)
    return isNew === false ? this.#badTime("expected each bar once, it is there already") : records
  }

  #badTime(reason: string): BadRow {
    const field = (["exchange_ts", "time", "date"] as const).find((name) => this.#columnOf(name) > 0) ?? "exchange_ts"
    return new BadRow(reason, field, this.#columnOf(field))
  }

  #record(given: Record<string, unknown>): RawRecord | BadRow {
    const read = readRawRecord(given)
    if (typeof read === "string") return this.#refused(read)
    const { isChecking, last, occurrences } = this.#parts
    const record = last.take(read, this.#options.untraded ?? "tick")
    const { tick } = record
    if (tick !== undefined) {
      if (given.connection === undefined) tick.connection = this.#connectionOf(tick.feed)
      if (!isChecking && tick.sequence_id === undefined && given.occurrence === undefined) {
        tick.occurrence = occurrences.next(tick)
      }
    }
    return record
  }

  /** What the contract refuses of a row, in the words of the file. */
  #refused(sentence: string): BadRow {
    const refusal = inColumns(sentence)
    const field = /^(\w+): /.exec(refusal)?.[1] ?? ""
    return isFileField(field)
      ? new BadRow(refusal.slice(field.length + 2), field, this.#columnOf(field))
      : new BadRow(refusal.replace(/^input: /, ""))
  }

  #connectionOf(feed: string): string {
    let name = this.#connections.get(feed)
    if (name === undefined) {
      if (this.#connections.size >= MAX_CONNECTIONS) this.#connections.clear()
      name = `${this.#connection}-${feed}`.slice(0, MAX_CONNECTION_CHARS)
      this.#connections.set(feed, name)
    }
    return name
  }

  #columnOf(field: FileField): number {
    const column = this.#columns?.find(([name]) => name === field)
    return column === undefined ? 0 : column[1] + 1
  }
}

/** Whether JSON text is whole, or could still become so with more text after it. */
const isJsonSoFar = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch (error) {
    const { message } = error as Error
    if (message.startsWith("Unexpected end") || message.startsWith("Unterminated string")) return true
    return /position (\d+)/.exec(message)?.[1] === String(text.length)
  }
}

/** The column, from 1, of the first character that cannot stand where it does: not every parser error tells. */
const brokenAt = (line: string): number => {
  let good = 0
  let broken = line.length + 1
  while (broken - good > 1) {
    const middle = (good + broken) >> 1
    if (isJsonSoFar(line.slice(0, middle))) good = middle
    else broken = middle
  }
  return broken
}
