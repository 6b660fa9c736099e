/**
 * Decides which tables of rows the platform gives out, ticks and bars, with their columns, and how rows wait to become a
 * part of a file of columns: flat, in one buffer, so that they pass to the thread that writes it without a copy.
 */
import type { Candle } from "./Candle.ts"
import type { Phase } from "./Sessions.ts"
import type { Tick } from "./Tick.ts"
import { allocatorOf, Names, setterOf, type TickColumns } from "./TickColumns.ts"
import { columnsOf, type FieldTable, mayBeNull, storedOf, tickFields } from "./tickFields.ts"

/** A bar as a row: of which instrument, and what is known of its time. */
export interface BarRow extends Candle {
  readonly instrument_token: number
  /** Null where the exchange's hours are not known. */
  readonly phase: Phase | null
  readonly final: boolean
  /** Whether the trading calendar has the bar's days; without it the phase goes by the nearest known hours. */
  readonly known: boolean
}

export const barFields = {
  instrument_token: { kind: "token" },
  ts: { kind: "micros", grows: true },
  open: { kind: "price" },
  high: { kind: "price" },
  low: { kind: "price" },
  close: { kind: "price" },
  volume: { kind: "quantity" },
  oi: { kind: "quantity", absent: null },
  phase: { kind: "name", absent: null },
  final: { kind: "flag", absent: false },
  known: { kind: "flag", absent: false }
} as const satisfies FieldTable & Readonly<Record<keyof BarRow, unknown>>

/** Ticks as the store has them: what it may lack is null in a file of columns too. */
const storedTickFields: FieldTable = Object.fromEntries(
  Object.entries(storedOf(tickFields)).map(([name, field]) => [
    name,
    mayBeNull(field) ? ({ ...field, absent: null } as typeof field) : field
  ])
)

export type TableName = "ticks" | "bars"
/** Their columns, in the order they are written in. */
export const tables: Readonly<Record<TableName, FieldTable>> = { ticks: storedTickFields, bars: barFields }

const parts = Object.fromEntries(
  Object.entries(tables).map(([table, fields]) => {
    const columns = columnsOf(fields)
    const names = columns.filter(({ field }) => field.kind === "name").map(({ name }) => name)
    return [table, { allocate: allocatorOf(columns), set: setterOf(columns), names }]
  })
)

/** Rows on their way into a file: the first `count` of the columns. */
export interface RowColumns {
  readonly columns: TickColumns
  readonly count: number
}

/** Rows of one table that are gathered until there are enough of them. */
export class RowBuffer {
  readonly #table: (typeof parts)[string]
  readonly #size: number
  #columns: TickColumns | undefined
  #names: Record<string, Names> = {}
  #count = 0

  constructor(table: TableName, size: number) {
    this.#table = parts[table]!
    this.#size = size
  }

  get count(): number {
    return this.#count
  }

  get isFull(): boolean {
    return this.#count === this.#size
  }

  /** One that is full is taken before there is another. */
  add(row: object): void {
    if (this.#columns === undefined) {
      this.#columns = this.#table.allocate(this.#size)
      const named = this.#columns as unknown as Readonly<Record<string, { readonly names: Array<string> }>>
      this.#names = Object.fromEntries(this.#table.names.map((name) => [name, new Names(named[name]!.names)]))
    }
    this.#table.set(this.#columns, this.#names, this.#count, row as Tick)
    this.#count += 1
  }

  /** What there is, which is then another's. */
  take(): RowColumns | undefined {
    if (this.#columns === undefined) return undefined
    const taken = { columns: this.#columns, count: this.#count }
    this.#columns = undefined
    this.#count = 0
    return taken
  }
}
