/**
 * Decides how ticks lie in memory where many of them wait or pass between threads: flat columns in one buffer, 95 bytes a
 * tick and nothing for the garbage collector to look through, where as objects they take some 800.
 */
import type { Tick } from "./Tick.ts"
import {
  type ColumnField,
  columnsOf,
  composed,
  type FieldTable,
  firstThatHolds,
  type StoredName,
  type TickColumn,
  type TickField,
  tickFields
} from "./tickFields.ts"

/** Names that recur, each by its index in `names`. */
export interface NameColumn {
  readonly names: Array<string>
  readonly indexes: Uint32Array<ArrayBuffer>
}

interface Arrays {
  readonly float64: Float64Array<ArrayBuffer>
  readonly int32: Int32Array<ArrayBuffer>
  /** Of a word its index in the words of its field; of a flag 1 where it is true. */
  readonly uint8: Uint8Array<ArrayBuffer>
  readonly names: NameColumn
}

/** How each kind of field lies in memory. What is absent as null is NaN, which no whole number is. */
const arrayOf = {
  token: "int32",
  index: "int32",
  small: "int32",
  micros: "float64",
  price: "float64",
  quantity: "float64",
  whole: "float64",
  word: "uint8",
  name: "names",
  flag: "uint8"
} as const satisfies Record<ColumnField["kind"], keyof Arrays>

type ArraysOf<Fields> = {
  readonly [N in keyof Fields]: Fields[N] extends { readonly kind: infer K extends keyof typeof arrayOf }
    ? Arrays[(typeof arrayOf)[K]]
    : never
}

/** Ticks as flat columns of one length; row `i` of each is tick `i`. */
export interface TickColumns
  extends ArraysOf<Omit<typeof tickFields, "source"> & (typeof tickFields)["source"]["parts"]> {}

/** What `read` needs of an object's rows. */
export type StoredColumns = Pick<TickColumns, StoredName>

/** Numbers names as they are met. */
export class Names {
  readonly names: Array<string>
  readonly #indexes = new Map<string, number>()
  #last = ""
  #lastIndex = -1

  constructor(names: Array<string> = []) {
    this.names = names
    for (let i = 0; i < names.length; i++) this.#indexes.set(names[i]!, i)
  }

  indexOf(name: string): number {
    if (name === this.#last && this.#lastIndex >= 0) return this.#lastIndex
    let index = this.#indexes.get(name)
    if (index === undefined) {
      index = this.names.length
      this.names.push(name)
      this.#indexes.set(name, index)
    }
    this.#last = name
    this.#lastIndex = index
    return index
  }
}

const BYTES = { float64: 8, int32: 4, names: 4, uint8: 1 } as const
const bytesOf = ({ field }: TickColumn): number => BYTES[arrayOf[field.kind]]

/** What makes columns of so many rows, all zero, in one buffer: the widest first, so that each is aligned. */
export const allocatorOf = (columns: ReadonlyArray<TickColumn>): ((rows: number) => TickColumns) => {
  const bytesATick = columns.reduce((sum, column) => sum + bytesOf(column), 0)
  const widestFirst = [...columns].sort((a, b) => bytesOf(b) - bytesOf(a))
  return (rows) => {
    const buffer = new ArrayBuffer(rows * bytesATick)
    let at = 0
    const place = (array: keyof Arrays): Arrays[keyof Arrays] => {
      const from = at
      at += rows * BYTES[array]
      if (array === "float64") return new Float64Array(buffer, from, rows)
      if (array === "int32") return new Int32Array(buffer, from, rows)
      if (array === "uint8") return new Uint8Array(buffer, from, rows)
      return { names: [], indexes: new Uint32Array(buffer, from, rows) }
    }
    const placed = widestFirst.map(({ name, field }) => [name, place(arrayOf[field.kind])] as const)
    return Object.fromEntries(placed) as unknown as TickColumns
  }
}

/** What puts a tick into a row; `names` numbers the names of each column of them. */
export const setterOf = (
  columns: ReadonlyArray<TickColumn>
): ((columns: TickColumns, names: Readonly<Record<string, Names>>, row: number, t: Tick) => void) => {
  const expressionOf = ({ name, field, value }: TickColumn): string => {
    if (field.kind === "name") {
      return `names.${name}.indexOf(${field.absent === null ? `${value} ?? ""` : value})`
    }
    if (field.kind === "flag") return `${value} ? 1 : 0`
    if (field.kind !== "word") return field.absent === null ? `${value} ?? NaN` : value
    const cases = field.words.map((word, i) => [`${value} === "${word}"`, String(i)] as const)
    return firstThatHolds(cases.slice(0, -1), String(cases.length - 1))
  }
  const set = columns.map((column) => {
    const to = column.field.kind === "name" ? `${column.name}.indexes` : column.name
    return `columns.${to}[row] = ${expressionOf(column)};`
  })
  return composed(`(columns, names, row, t) => { ${set.join(" ")} }`)
}

/** What reads row `i` as an object of such fields. */
export const rowReaderOf = <Row>(fields: FieldTable): ((columns: object, i: number) => Row) => {
  const words: Record<string, ReadonlyArray<string>> = {}
  const expressionOf = (name: string, field: TickField): string => {
    switch (field.kind) {
      case "source":
        return `[${Object.entries(field.parts).map(([part, of]) => expressionOf(part, of))}]`
      case "name":
        return `columns.${name}.names[columns.${name}.indexes[i]]`
      case "flag":
        return `columns.${name}[i] === 1`
      case "word":
        words[`${name}_words`] = field.words
        return `${name}_words[columns.${name}[i]]`
      default:
        return field.absent === null
          ? `Number.isNaN(columns.${name}[i]) ? null : columns.${name}[i]`
          : `columns.${name}[i]`
    }
  }
  const members = Object.entries(fields).map(([name, field]) => `${name}: ${expressionOf(name, field)}`)
  return composed(`(columns, i) => ({ ${members.join(", ")} })`, words)
}

/** What rows of one kind need to lie as columns. */
interface Layout<Row, Columns> {
  readonly allocate: (rows: number) => Columns
  readonly set: (columns: Columns, names: Readonly<Record<string, Names>>, row: number, of: Row) => void
  readonly rowOf: (columns: Columns, row: number) => Row
  readonly names: ReadonlyArray<keyof Columns & string>
  readonly numbers: ReadonlyArray<keyof Columns & string>
}

/** How rows of one kind lie, by their columns. */
export const layoutOf = <Row, Columns>(
  columns: ReadonlyArray<TickColumn>,
  rowOf: (columns: Columns, row: number) => Row
): Layout<Row, Columns> => {
  const named = (isName: boolean) =>
    columns.filter(({ field }) => (field.kind === "name") === isName).map(({ name }) => name as keyof Columns & string)
  return {
    allocate: allocatorOf(columns) as unknown as Layout<Row, Columns>["allocate"],
    set: setterOf(columns) as unknown as Layout<Row, Columns>["set"],
    rowOf,
    names: named(true),
    numbers: named(false)
  }
}

type Numbers = Exclude<Arrays[keyof Arrays], NameColumn>

/** Columns that are being filled. */
class Filling<Row, Columns> {
  readonly columns: Columns
  readonly #layout: Layout<Row, Columns>
  readonly #names: Readonly<Record<string, Names>>

  constructor(layout: Layout<Row, Columns>, rows: number) {
    this.#layout = layout
    this.columns = layout.allocate(rows)
    this.#names = Object.fromEntries(
      layout.names.map((name) => [name, new Names((this.columns[name] as NameColumn).names)])
    )
  }

  set(row: number, of: Row): void {
    this.#layout.set(this.columns, this.#names, row, of)
  }

  /** Copies other columns' rows `[from, to)` to `row` and on. */
  copy(row: number, other: Columns, from: number, to: number): void {
    for (const name of this.#layout.numbers) {
      const into = this.columns[name] as Numbers
      into.set((other[name] as Numbers).subarray(from, to), row)
    }
    for (const name of this.#layout.names) {
      const { names, indexes } = other[name] as NameColumn
      const [into, met] = [(this.columns[name] as NameColumn).indexes, this.#names[name]!]
      for (let i = from; i < to; i++) into[row + i - from] = met.indexOf(names[indexes[i]!]!)
    }
  }

  /** Copies some of other columns' rows. */
  pick(other: Columns, rows: ReadonlyArray<number>): void {
    for (const name of this.#layout.numbers) {
      const to = this.columns[name] as Numbers
      const from = other[name] as Numbers
      for (let i = 0; i < rows.length; i++) to[i] = from[rows[i]!]!
    }
    for (const name of this.#layout.names) {
      const { names, indexes } = other[name] as NameColumn
      const [into, met] = [(this.columns[name] as NameColumn).indexes, this.#names[name]!]
      for (let i = 0; i < rows.length; i++) into[i] = met.indexOf(names[indexes[rows[i]!]!]!)
    }
  }
}

/** Rows as columns. */
export const filled = <Row, Columns>(layout: Layout<Row, Columns>, rows: ReadonlyArray<Row>): Columns => {
  const filling = new Filling(layout, rows.length)
  for (let i = 0; i < rows.length; i++) filling.set(i, rows[i]!)
  return filling.columns
}

/** Some rows of columns, in the order given. */
export const picked = <Row, Columns>(
  layout: Layout<Row, Columns>,
  columns: Columns,
  rows: ReadonlyArray<number>
): Columns => {
  const filling = new Filling(layout, rows.length)
  filling.pick(columns, rows)
  return filling.columns
}

const tickLayout = layoutOf<Tick, TickColumns>(columnsOf(tickFields), rowReaderOf<Tick>(tickFields))

export const toColumns = (ticks: ReadonlyArray<Tick>): TickColumns => filled(tickLayout, ticks)
export const pickRows = (columns: TickColumns, rows: ReadonlyArray<number>): TickColumns =>
  picked(tickLayout, columns, rows)

/** Of ticks 195 kB. */
const CHUNK_ROWS = 2048

/** Rows that wait as columns, first in, first out. */
export class ColumnQueue<Row, Columns> {
  readonly #layout: Layout<Row, Columns>
  #chunks: Array<Filling<Row, Columns>> = []
  /** The first row, in the first chunk. */
  #first = 0
  #length = 0

  constructor(layout: Layout<Row, Columns>) {
    this.#layout = layout
  }

  get length(): number {
    return this.#length
  }

  append(rows: ReadonlyArray<Row>): void {
    let row = this.#first + this.#length
    for (const one of rows) {
      if (row === this.#chunks.length * CHUNK_ROWS) this.#chunks.push(new Filling(this.#layout, CHUNK_ROWS))
      this.#chunks[this.#chunks.length - 1]!.set(row % CHUNK_ROWS, one)
      row++
    }
    this.#length += rows.length
  }

  /** A copy of the first so many rows, which stay. */
  peek(count: number): Columns {
    const filling = new Filling(this.#layout, count)
    for (let i = 0; i < count; ) {
      const from = (this.#first + i) % CHUNK_ROWS
      const to = Math.min(CHUNK_ROWS, from + count - i)
      filling.copy(i, this.#chunks[Math.floor((this.#first + i) / CHUNK_ROWS)]!.columns, from, to)
      i += to - from
    }
    return filling.columns
  }

  /** Takes the first so many rows out, as objects. */
  take(count: number): Array<Row> {
    const rows: Array<Row> = []
    for (let i = this.#first; i < this.#first + count; i++) {
      rows.push(this.#layout.rowOf(this.#chunks[Math.floor(i / CHUNK_ROWS)]!.columns, i % CHUNK_ROWS))
    }
    this.drop(count)
    return rows
  }

  drop(count: number): void {
    this.#length -= count
    this.#first += count
    const done = this.#length === 0 ? this.#chunks.length : Math.floor(this.#first / CHUNK_ROWS)
    this.#chunks = this.#chunks.slice(done)
    this.#first = this.#length === 0 ? 0 : this.#first - done * CHUNK_ROWS
  }
}

/** Ticks that wait as columns. */
export class TickQueue extends ColumnQueue<Tick, TickColumns> {
  constructor() {
    super(tickLayout)
  }
}
