/**
 * Decides how ticks lie in memory where many of them wait or pass between threads: flat columns in one buffer, 95 bytes a
 * tick and nothing for the garbage collector to look through, where as objects they take some 800.
 */
import type { Sequencing, Tick, TickStatus } from "./Tick.ts"

const STATUSES: ReadonlyArray<TickStatus> = ["LIVE", "STALE"]
const SEQUENCINGS: ReadonlyArray<Sequencing> = ["contiguous", "monotonic", "none"]

export const statusOf = (index: number): TickStatus => STATUSES[index]!
export const statusIndex = (status: string): number => (status === "LIVE" ? 0 : 1)
export const sequencingOf = (index: number): Sequencing => SEQUENCINGS[index]!
export const sequencingIndex = (sequencing: string): number =>
  sequencing === "contiguous" ? 0 : sequencing === "monotonic" ? 1 : 2

/** Names that recur, each by its index in `names`. */
export interface NameColumn {
  readonly names: Array<string>
  readonly indexes: Uint32Array<ArrayBuffer>
}

/** Ticks as flat columns of one length; row `i` of each is tick `i`. */
export interface TickColumns {
  readonly instrument_token: Int32Array<ArrayBuffer>
  readonly exchange_ts: Float64Array<ArrayBuffer>
  readonly price: Float64Array<ArrayBuffer>
  readonly volume: Float64Array<ArrayBuffer>
  readonly sequence_id: Float64Array<ArrayBuffer>
  /** As `statusIndex` has it. */
  readonly status: Uint8Array<ArrayBuffer>
  readonly gap_from: Float64Array<ArrayBuffer>
  readonly session: Int32Array<ArrayBuffer>
  /** As `sequencingIndex` has it. */
  readonly sequencing: Uint8Array<ArrayBuffer>
  readonly epoch: Float64Array<ArrayBuffer>
  readonly position: Float64Array<ArrayBuffer>
  readonly feed: NameColumn
  readonly received_ts: Float64Array<ArrayBuffer>
  readonly source_incarnation: NameColumn
  readonly source_offset: Float64Array<ArrayBuffer>
  readonly source_index: Int32Array<ArrayBuffer>
  readonly old: Uint8Array<ArrayBuffer>
}

const NUMBERS = [
  ...(["exchange_ts", "price", "volume", "sequence_id", "gap_from", "epoch", "position", "received_ts"] as const),
  ...(["source_offset", "instrument_token", "session", "source_index", "status", "sequencing", "old"] as const)
]

/** What `read` needs of an object's rows. */
export type StoredColumns = Omit<
  TickColumns,
  "gap_from" | "source_incarnation" | "source_offset" | "source_index" | "old"
>

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

const BYTES_A_TICK = 9 * 8 + 5 * 4 + 3

/** Columns of so many rows, all zero, in one buffer: the widest first, so that each is aligned. */
const allocate = (rows: number): TickColumns => {
  const buffer = new ArrayBuffer(rows * BYTES_A_TICK)
  let at = 0
  const place = <A>(Column: new (buffer: ArrayBuffer, at: number, rows: number) => A, bytes: number): A => {
    const column = new Column(buffer, at, rows)
    at += rows * bytes
    return column
  }
  const float64 = () => place(Float64Array<ArrayBuffer>, 8)
  const int32 = () => place(Int32Array<ArrayBuffer>, 4)
  const uint8 = () => place(Uint8Array<ArrayBuffer>, 1)
  const names = (): NameColumn => ({ names: [], indexes: place(Uint32Array<ArrayBuffer>, 4) })
  return {
    exchange_ts: float64(),
    price: float64(),
    volume: float64(),
    sequence_id: float64(),
    gap_from: float64(),
    epoch: float64(),
    position: float64(),
    received_ts: float64(),
    source_offset: float64(),
    instrument_token: int32(),
    session: int32(),
    source_index: int32(),
    feed: names(),
    source_incarnation: names(),
    status: uint8(),
    sequencing: uint8(),
    old: uint8()
  }
}

/** Columns that are being filled. */
class Filling {
  readonly columns: TickColumns
  readonly #feeds: Names
  readonly #incarnations: Names

  constructor(rows: number) {
    this.columns = allocate(rows)
    this.#feeds = new Names(this.columns.feed.names)
    this.#incarnations = new Names(this.columns.source_incarnation.names)
  }

  set(row: number, tick: Tick): void {
    const { columns } = this
    columns.instrument_token[row] = tick.instrument_token
    columns.exchange_ts[row] = tick.exchange_ts
    columns.price[row] = tick.price
    columns.volume[row] = tick.volume
    columns.sequence_id[row] = tick.sequence_id
    columns.status[row] = statusIndex(tick.status)
    columns.gap_from[row] = tick.gap_from
    columns.session[row] = tick.session
    columns.sequencing[row] = sequencingIndex(tick.sequencing)
    columns.epoch[row] = tick.epoch
    columns.position[row] = tick.position
    columns.feed.indexes[row] = this.#feeds.indexOf(tick.feed)
    columns.received_ts[row] = tick.received_ts
    columns.source_incarnation.indexes[row] = this.#incarnations.indexOf(tick.source[0])
    columns.source_offset[row] = tick.source[1]
    columns.source_index[row] = tick.source[2]
    columns.old[row] = tick.old ? 1 : 0
  }

  /** Copies other columns' rows `[from, to)` to `row` and on. */
  copy(row: number, other: TickColumns, from: number, to: number): void {
    for (const name of NUMBERS) this.columns[name].set(other[name].subarray(from, to), row)
    for (let i = from; i < to; i++) this.#copyNames(row + i - from, other, i)
  }

  /** Copies some of other columns' rows. */
  pick(other: TickColumns, rows: ReadonlyArray<number>): void {
    for (const name of NUMBERS) {
      const to = this.columns[name]
      const from = other[name]
      for (let i = 0; i < rows.length; i++) to[i] = from[rows[i]!]!
    }
    for (let i = 0; i < rows.length; i++) this.#copyNames(i, other, rows[i]!)
  }

  #copyNames(row: number, { feed, source_incarnation: incarnation }: TickColumns, from: number): void {
    this.columns.feed.indexes[row] = this.#feeds.indexOf(feed.names[feed.indexes[from]!]!)
    this.columns.source_incarnation.indexes[row] = this.#incarnations.indexOf(
      incarnation.names[incarnation.indexes[from]!]!
    )
  }
}

export const toColumns = (ticks: ReadonlyArray<Tick>): TickColumns => {
  const filling = new Filling(ticks.length)
  for (let i = 0; i < ticks.length; i++) filling.set(i, ticks[i]!)
  return filling.columns
}

/** Row `i` as an object. */
const tickOf = (columns: TickColumns, i: number): Tick => ({
  instrument_token: columns.instrument_token[i]!,
  exchange_ts: columns.exchange_ts[i]!,
  price: columns.price[i]!,
  volume: columns.volume[i]!,
  sequence_id: columns.sequence_id[i]!,
  status: statusOf(columns.status[i]!),
  gap_from: columns.gap_from[i]!,
  session: columns.session[i]!,
  sequencing: sequencingOf(columns.sequencing[i]!),
  epoch: columns.epoch[i]!,
  position: columns.position[i]!,
  feed: columns.feed.names[columns.feed.indexes[i]!]!,
  received_ts: columns.received_ts[i]!,
  source: [
    columns.source_incarnation.names[columns.source_incarnation.indexes[i]!]!,
    columns.source_offset[i]!,
    columns.source_index[i]!
  ],
  old: columns.old[i] === 1
})

/** Some rows of columns, in the order given. */
export const pickRows = (columns: TickColumns, rows: ReadonlyArray<number>): TickColumns => {
  const filling = new Filling(rows.length)
  filling.pick(columns, rows)
  return filling.columns
}

/** 195 kB. */
const CHUNK_ROWS = 2048

/** Ticks that wait as columns, first in, first out. */
export class TickQueue {
  #chunks: Array<Filling> = []
  /** Row of the first tick, in the first chunk. */
  #first = 0
  #length = 0

  get length(): number {
    return this.#length
  }

  append(ticks: ReadonlyArray<Tick>): void {
    let row = this.#first + this.#length
    for (const tick of ticks) {
      if (row === this.#chunks.length * CHUNK_ROWS) this.#chunks.push(new Filling(CHUNK_ROWS))
      this.#chunks[this.#chunks.length - 1]!.set(row % CHUNK_ROWS, tick)
      row++
    }
    this.#length += ticks.length
  }

  /** A copy of the first so many ticks, which stay. */
  peek(count: number): TickColumns {
    const filling = new Filling(count)
    for (let i = 0; i < count; ) {
      const from = (this.#first + i) % CHUNK_ROWS
      const to = Math.min(CHUNK_ROWS, from + count - i)
      filling.copy(i, this.#chunks[Math.floor((this.#first + i) / CHUNK_ROWS)]!.columns, from, to)
      i += to - from
    }
    return filling.columns
  }

  /** Takes the first so many ticks out, as objects. */
  take(count: number): Array<Tick> {
    const ticks: Array<Tick> = []
    for (let i = this.#first; i < this.#first + count; i++) {
      ticks.push(tickOf(this.#chunks[Math.floor(i / CHUNK_ROWS)]!.columns, i % CHUNK_ROWS))
    }
    this.drop(count)
    return ticks
  }

  drop(count: number): void {
    this.#length -= count
    this.#first += count
    const done = this.#length === 0 ? this.#chunks.length : Math.floor(this.#first / CHUNK_ROWS)
    this.#chunks = this.#chunks.slice(done)
    this.#first = this.#length === 0 ? 0 : this.#first - done * CHUNK_ROWS
  }
}
