/**
 * Decides which columns of a file are of a quote, and how those of a row become one: levels of the book side by side, a
 * price with its quantity and orders, and what else a packet says of the day.
 */
import { showValue } from "../../schema/Explain.ts"
import { MAX_LEVELS, type QuoteFieldName, quoteFields } from "../../schema/Quote.ts"

type Side = "bid" | "ask"
type Part = "price" | "quantity" | "orders"
type LevelSuffix = "" | "_2" | "_3" | "_4" | "_5"
type LevelField = `${Side}_${Part}${LevelSuffix}`
type DayField = Exclude<QuoteFieldName, Side>
export type QuoteColumn = LevelField | DayField

const SIDES: ReadonlyArray<Side> = ["bid", "ask"]
const PARTS: ReadonlyArray<Part> = ["price", "quantity", "orders"]

/** The column of a part of a level, from 0: `bid_price`, `bid_price_2` … */
const levelField = (side: Side, part: Part, level: number): LevelField =>
  `${side}_${part}${level === 0 ? "" : `_${level + 1}`}` as LevelField

const levelFields: ReadonlyArray<LevelField> = SIDES.flatMap((side) =>
  Array.from({ length: MAX_LEVELS }, (_, level) => PARTS.map((part) => levelField(side, part, level))).flat()
)
const dayFields = (Object.keys(quoteFields) as ReadonlyArray<QuoteFieldName>).filter(
  (name): name is DayField => name !== "bid" && name !== "ask"
)
export const quoteColumns: ReadonlyArray<QuoteColumn> = [...levelFields, ...dayFields]

/** Whose text is a time, and not a number. */
export const isTimeColumn = (field: QuoteColumn): boolean =>
  field in quoteFields && quoteFields[field as DayField].kind === "time"

/** Prices of the book: on the grid of the instrument, as that of a trade is; those of the day may be averages. */
const isBookPrice = (field: string): boolean => /^(bid|ask)_price/.test(field)
const isDayPrice = (field: string): boolean =>
  Object.hasOwn(quoteFields, field) && quoteFields[field as DayField].kind === "price"

/** The price without which a quantity or a number of orders says nothing; undefined of what needs none. */
export const priceColumnOf = (field: string): LevelField | undefined => {
  const found = /^(bid|ask)_(?:quantity|orders)(_[2-5])?$/.exec(field)
  return found === null ? undefined : (`${found[1]}_price${found[2] ?? ""}` as LevelField)
}

/** A refusal of the schema, of `quote.bid.1.0` and alike, as one of the column that this is of; else as it is. */
export const inColumns = (refusal: string): string => {
  const found = /^quote\.(?:(bid|ask)\.([0-4])\.([0-2])|(\w+)): /.exec(refusal)
  if (found === null) return refusal
  const [path, side, level, part, field] = found
  const column = field ?? levelField(side as Side, PARTS[Number(part)]!, Number(level))
  return (quoteColumns as ReadonlyArray<string>).includes(column) ? `${column}: ${refusal.slice(path.length)}` : refusal
}

/** What is wrong with the quote of a row, and in which column. */
export class BadQuote {
  readonly field: QuoteColumn
  readonly reason: string

  constructor(field: QuoteColumn, reason: string) {
    this.field = field
    this.reason = reason
  }
}

interface LevelColumns {
  readonly price: LevelField
  readonly quantity: LevelField
  readonly orders: LevelField
}

/** The columns of a quote that a file has. */
export class QuoteColumns {
  /** Prices that are held to the tick size of the instrument, and those that are not. */
  readonly bookPrices: ReadonlyArray<QuoteColumn>
  readonly dayPrices: ReadonlyArray<QuoteColumn>
  readonly times: ReadonlyArray<QuoteColumn>
  readonly #sides: ReadonlyArray<readonly [Side, ReadonlyArray<LevelColumns>]>
  readonly #day: ReadonlyArray<DayField>

  constructor(has: (field: QuoteColumn) => boolean) {
    this.bookPrices = levelFields.filter((field) => isBookPrice(field) && has(field))
    this.dayPrices = dayFields.filter((field) => isDayPrice(field) && has(field))
    this.times = dayFields.filter((field) => isTimeColumn(field) && has(field))
    this.#day = dayFields.filter(has)
    this.#sides = SIDES.map((side) => {
      const levels = Array.from({ length: MAX_LEVELS }, (_, level) => ({
        price: levelField(side, "price", level),
        quantity: levelField(side, "quantity", level),
        orders: levelField(side, "orders", level)
      }))
      return [side, levels.slice(0, levels.findLastIndex(({ price }) => has(price)) + 1)] as const
    })
  }

  get isEmpty(): boolean {
    return this.#day.length === 0 && this.#sides.every(([, levels]) => levels.length === 0)
  }

  /** The `quote` of a raw record that a row has; undefined where it says nothing of one. */
  read(row: Readonly<Record<string, unknown>>): Record<string, unknown> | BadQuote | undefined {
    let quote: Record<string, unknown> | undefined
    for (const [side, levels] of this.#sides) {
      const read = readSide(row, levels)
      if (read instanceof BadQuote) return read
      if (read === undefined) continue
      quote ??= {}
      quote[side] = read
    }
    for (const field of this.#day) {
      const value = row[field]
      if (value === undefined) continue
      quote ??= {}
      quote[field] = value
    }
    return quote
  }
}

/**
 * A side of the book, undefined where the row is silent of it. A level of quantity 0, or of price 0 where quantities are
 * not told, is none: that is how vendors fill a side on which nobody is.
 */
const readSide = (
  row: Readonly<Record<string, unknown>>,
  columns: ReadonlyArray<LevelColumns>
): ReadonlyArray<unknown> | BadQuote | undefined => {
  let levels: Array<unknown> | undefined
  for (let level = 0; level < columns.length; level++) {
    const { orders, price: priceField, quantity: quantityField } = columns[level]!
    const price = row[priceField]
    const quantity = row[quantityField]
    if (price === undefined && quantity === undefined) continue
    levels ??= []
    if (quantity === 0 || (quantity === undefined && price === 0)) continue
    if (price === undefined) {
      return new BadQuote(priceField, `missing, though ${quantityField} is ${showValue(quantity)}`)
    }
    if (levels.length < level) {
      return new BadQuote(priceField, `expected ${columns[levels.length]!.price} before it, the better one`)
    }
    levels.push([price, quantity ?? 0, row[orders] ?? 0])
  }
  return levels
}
