/** Decides how the broker's instruments file is read: its columns, and which lines are refused and why. */
import { Result, Schema } from "effect"
import { splitLine } from "./delimited.ts"
import { explain, showValue } from "./Explain.ts"
import {
  type AssetClass,
  Instrument,
  isDate,
  isExchange,
  MAX_INT32,
  MAX_NAME_CHARS,
  MAX_RUPEES,
  MAX_SYMBOL_CHARS
} from "./Instrument.ts"
import { isPrintable } from "./printable.ts"
import { InstrumentToken } from "./RawValues.ts"

/** Refused lines that an answer names; the rest are counted. */
export const MAX_REJECTED_LINES = 100
/** The longest line read: a broker's have some hundred characters. */
export const MAX_INSTRUMENT_LINE_CHARS = 4096

export interface RejectedLine {
  /** From 1, the header being line 1. */
  readonly line: number
  readonly reason: string
}

/** The file as a whole is not the broker's. */
export class InstrumentFileRefused extends Schema.TaggedError<InstrumentFileRefused>()("InstrumentFileRefused", {
  message: Schema.String
}) {}

const NEEDED = [
  "instrument_token",
  "tradingsymbol",
  "name",
  "expiry",
  "strike",
  "tick_size",
  "lot_size",
  "instrument_type",
  "segment",
  "exchange"
] as const
type Column = (typeof NEEDED)[number]

const text = (maxChars: number) =>
  Schema.makeFilter((value: string) =>
    value.length > maxChars
      ? `Expected at most ${maxChars} characters, not ${value.length}`
      : isPrintable(value) || "Expected text without control characters"
  )
const rupees = Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: MAX_RUPEES })))

/** What the store takes: the instrument, with the lengths and ranges of its columns. */
const Row = Schema.Struct({
  ...Instrument.fields,
  instrument_token: InstrumentToken,
  tradingsymbol: Schema.String.pipe(Schema.check(Schema.isBetweenLength(1, MAX_SYMBOL_CHARS), text(MAX_SYMBOL_CHARS))),
  exchange: Schema.String.pipe(
    Schema.check(Schema.makeFilter((value: string) => isExchange(value) || "Expected 1 to 10 capitals or digits"))
  ),
  tick_size: rupees,
  name: Schema.NullOr(Schema.String.pipe(Schema.check(text(MAX_NAME_CHARS)))),
  expiry: Schema.NullOr(
    Schema.String.pipe(Schema.check(Schema.makeFilter((value: string) => isDate(value) || "Expected YYYY-MM-DD")))
  ),
  strike: Schema.NullOr(rupees),
  lot_size: Schema.NullOr(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: MAX_INT32 }))))
})
const decodeRow = Schema.decodeUnknownResult(Row)

const numberOf = (text: string): unknown => (/^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text)
const orNull = (text: string): string | null => (text === "" ? null : text)

const assetClassOf = (type: string, segment: string): AssetClass | undefined => {
  if (segment === "INDICES") return "INDEX"
  if (type === "EQ" || type === "FUT") return type
  return type === "CE" || type === "PE" ? "OPT" : undefined
}

/** Reads lines of the broker's file one by one; which column is where comes from its header. */
export interface InstrumentLines {
  /** The line's instrument, or why there is none. */
  readonly read: (line: string, number: number) => Instrument | string
}

const tooLong = (line: string): string =>
  `expected at most ${MAX_INSTRUMENT_LINE_CHARS} characters a line, got ${line.length}`

/** Takes the header line. Columns may stand in any order, and others among them are passed over. */
export const instrumentLines = (header: string): Result.Result<InstrumentLines, InstrumentFileRefused> => {
  if (header.length > MAX_INSTRUMENT_LINE_CHARS) {
    return Result.fail(new InstrumentFileRefused({ message: `line 1: ${tooLong(header)}` }))
  }
  const names = (splitLine(header.replace(/^\uFEFF/, "")) ?? []).map((name) => name.trim())
  const at = new Map<Column, number>()
  for (const column of NEEDED) {
    const index = names.indexOf(column)
    if (index < 0) {
      return Result.fail(
        new InstrumentFileRefused({ message: `line 1: column ${column} is missing, got ${showValue(header)}` })
      )
    }
    at.set(column, index)
  }
  const lineOf = new Map<number, number>()
  return Result.succeed({
    read: (line, number) => {
      if (line.length > MAX_INSTRUMENT_LINE_CHARS) return tooLong(line)
      const fields = splitLine(line)
      if (fields === undefined) return "a quote is not closed, or text follows a closing quote"
      if (fields.length !== names.length) return `expected ${names.length} fields, got ${fields.length}`
      const field = (column: Column): string => fields[at.get(column)!]!.trim()
      const type = field("instrument_type")
      const assetClass = assetClassOf(type, field("segment"))
      if (assetClass === undefined) return `instrument_type: expected EQ, FUT, CE or PE, got ${showValue(type)}`
      const strike = numberOf(field("strike"))
      const row = {
        instrument_token: numberOf(field("instrument_token")),
        tradingsymbol: field("tradingsymbol"),
        exchange: field("exchange"),
        asset_class: assetClass,
        tick_size: numberOf(field("tick_size")),
        name: orNull(field("name")),
        expiry: orNull(field("expiry")),
        // The broker writes 0 where there is no strike; a strike of 0 on an option is its own.
        strike: assetClass !== "OPT" && (strike === 0 || strike === "") ? null : strike,
        option_type: type === "CE" || type === "PE" ? type : null,
        lot_size: field("lot_size") === "" ? null : numberOf(field("lot_size"))
      }
      const decoded = decodeRow(row)
      if (Result.isFailure(decoded)) return explain(decoded.failure.issue, row).message
      const instrument = decoded.success
      const earlier = lineOf.get(instrument.instrument_token)
      if (earlier !== undefined) {
        return `instrument_token: ${instrument.instrument_token} is on line ${earlier} already`
      }
      lineOf.set(instrument.instrument_token, number)
      return instrument
    }
  })
}
