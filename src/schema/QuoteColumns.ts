/**
 * Decides how quotes lie in memory where many of them wait or pass between threads, and as columns of a file: one of
 * plain numbers for each field and for each part of each level of the book, 417 bytes a quote and nothing for the
 * garbage collector to look through. Not known is NaN in memory and null in a file.
 */
import { type Level, MAX_LEVELS, type Quote, type QuoteFieldName, quoteFields } from "./Quote.ts"
import { ColumnQueue, filled, layoutOf, type NameColumn, picked } from "./TickColumns.ts"
import { type ColumnField, composed, type FieldTable, type TickColumn } from "./tickFields.ts"

type FieldOf<Kind extends string> = {
  [N in QuoteFieldName]: (typeof quoteFields)[N]["kind"] extends Kind ? N : never
}[QuoteFieldName]
type Side = FieldOf<"levels">
const LEVEL_PARTS = ["price", "quantity", "orders"] as const
type LevelNumber = 1 | 2 | 3 | 4 | 5
type LevelColumn = `${Side}_levels` | `${Side}_${(typeof LEVEL_PARTS)[number]}_${LevelNumber}`

/** What tells which quote of an instrument's instant is the later, and of whom it is. */
interface KeyColumns {
  readonly instrument_token: Int32Array<ArrayBuffer>
  readonly exchange_ts: Float64Array<ArrayBuffer>
  readonly received_ts: Float64Array<ArrayBuffer>
  readonly source_incarnation: NameColumn
  readonly source_offset: Float64Array<ArrayBuffer>
  readonly source_index: Int32Array<ArrayBuffer>
}

/** The open interest alone. */
export interface OiColumns extends KeyColumns {
  readonly oi: Float64Array<ArrayBuffer>
}

/** Quotes as flat columns of one length; row `i` of each is quote `i`. `bid_levels`: how many levels there are. */
export interface QuoteColumns
  extends OiColumns,
    Readonly<Record<LevelColumn | Exclude<QuoteFieldName, Side> | "day_volume", Float64Array<ArrayBuffer>>> {
  readonly feed: NameColumn
  readonly old: Uint8Array<ArrayBuffer>
}

const QUANTITY = { kind: "quantity", absent: null } as const
const PRICE = { kind: "price", absent: null } as const
const fieldOf = {
  quantity: QUANTITY,
  price: PRICE,
  time: { kind: "micros", absent: null, grows: true }
} as const satisfies Record<string, ColumnField>

const column = (name: string, field: ColumnField, value = `t.${name}`): TickColumn => ({ name, field, value })

const levelColumns = (side: string): ReadonlyArray<TickColumn> => [
  column(`${side}_levels`, QUANTITY, `t.${side}?.length`),
  ...Array.from({ length: MAX_LEVELS }, (_, level) =>
    LEVEL_PARTS.map((part, i) =>
      column(`${side}_${part}_${level + 1}`, part === "price" ? PRICE : QUANTITY, `t.${side}?.[${level}]?.[${i}]`)
    )
  ).flat()
]

/** The columns of a quote, in the order of the wire. */
const COLUMNS: ReadonlyArray<TickColumn> = [
  column("instrument_token", { kind: "token" }),
  column("exchange_ts", { kind: "micros", grows: true }),
  ...Object.entries(quoteFields).flatMap(([name, { kind }]) =>
    kind === "levels" ? levelColumns(name) : [column(name, fieldOf[kind])]
  ),
  column("day_volume", { ...QUANTITY, grows: true }),
  column("feed", { kind: "name" }),
  column("received_ts", { kind: "micros", grows: true }),
  column("source_incarnation", { kind: "name" }, "t.source[0]"),
  column("source_offset", { kind: "whole", grows: true }, "t.source[1]"),
  column("source_index", { kind: "index" }, "t.source[2]"),
  column("old", { kind: "flag", absent: false })
]

/** Each column with what it holds. */
export const quoteColumnFields: FieldTable = Object.fromEntries(COLUMNS.map(({ name, field }) => [name, field]))

const known = (value: number): number | undefined => (Number.isNaN(value) ? undefined : value)

/** The levels of one side, of which `columns` has price, quantity and orders of the first, of the second, and so on. */
const levelsOf = (count: number, row: number, ...columns: ReadonlyArray<Float64Array>) => {
  if (Number.isNaN(count)) return undefined
  const levels: Array<Level> = []
  for (let i = 0; i < count * LEVEL_PARTS.length; i += LEVEL_PARTS.length) {
    levels.push([columns[i]![row]!, columns[i + 1]![row]!, columns[i + 2]![row]!])
  }
  return levels
}

/** The quote of a row. */
export const quoteAt: (columns: QuoteColumns, row: number) => Quote = (() => {
  const values = Object.entries(quoteFields).map(([name, { kind }]) => {
    if (kind !== "levels") return `${name}: known(columns.${name}[i])`
    const parts = levelColumns(name)
      .slice(1)
      .map((part) => `columns.${part.name}`)
    return `${name}: levelsOf(columns.${name}_levels[i], i, ${parts})`
  })
  const text = `(columns, i) => ({
    ${values},
    day_volume: known(columns.day_volume[i]),
    instrument_token: columns.instrument_token[i],
    exchange_ts: columns.exchange_ts[i],
    feed: columns.feed.names[columns.feed.indexes[i]],
    received_ts: columns.received_ts[i],
    source: [
      columns.source_incarnation.names[columns.source_incarnation.indexes[i]],
      columns.source_offset[i],
      columns.source_index[i]
    ],
    old: columns.old[i] === 1
  })`
  return composed<(columns: QuoteColumns, row: number) => Quote>(text, { known, levelsOf })
})()

const quoteLayout = layoutOf<Quote, QuoteColumns>(COLUMNS, quoteAt)

export const toQuoteColumns = (quotes: ReadonlyArray<Quote>): QuoteColumns => filled(quoteLayout, quotes)

/** Some rows of columns, in the order given. */
export const pickQuotes = (columns: QuoteColumns, rows: ReadonlyArray<number>): QuoteColumns =>
  picked(quoteLayout, columns, rows)

/** How many ticks a quote takes the room of. */
export const QUOTE_WEIGHT = 5

/** Quotes that wait as columns. */
export class QuoteQueue extends ColumnQueue<Quote, QuoteColumns> {
  constructor() {
    super(quoteLayout)
  }
}
