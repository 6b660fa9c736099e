/**
 * Decides which fields a tick has, in the order of the wire: what each of them holds, and where it stands. All that is
 * written and read of a tick follows from this one table; what is written by hand is held to it by a test.
 */
import { MAX_MICROS, MIN_MICROS } from "./Time.ts"

interface Stored {
  /** In the store, and so in history, quotes and replays too; every field is in the log and in the archive. */
  readonly stored?: true
  /** Grows from row to row as a rule: the archive then keeps differences. */
  readonly grows?: true
}

/** `token` and `index` have 32 bits, `small` 0 to 32,767, all others what a double holds exactly. */
interface NumberField extends Stored {
  readonly kind: "token" | "index" | "small"
  readonly absent?: never
}

interface PriceField extends Stored {
  readonly kind: "price"
  readonly absent?: null
}

interface MicrosField extends Stored {
  readonly kind: "micros"
  readonly within?: readonly [first: number, last: number]
  readonly absent?: null
}

/** `quantity`: of one tick or of a sum. */
interface WholeField extends Stored {
  readonly kind: "whole" | "quantity"
  /** What the field holds where the tick has none: then the log does not name it, and it is null in the archive. */
  readonly absent?: 0 | null
  /** Null in the store where a replay added the row. */
  readonly unplaced?: true
}

interface WordField extends Stored {
  readonly kind: "word"
  readonly words: ReadonlyArray<string>
  /** What any other word is read as, which another hand may have stored. */
  readonly otherwise: string
  /** In the store it is its first letter. */
  readonly initial?: true
  readonly absent?: never
}

/** Of a bounded length. The store reads one of them at most: it may hold whatever stands between two others. */
interface NameField extends Stored {
  readonly kind: "name"
  /** It may have none: then it is empty as a column, and null in a file of columns. */
  readonly absent?: null
}

/** The log names it only where it is true. */
interface FlagField {
  readonly kind: "flag"
  readonly absent: false
}

export type ValueField = NumberField | PriceField | MicrosField | WholeField | WordField | NameField

/** What lies in one column. */
export type ColumnField = ValueField | FlagField

/** A list on the wire, of which each part has a column of its own. */
interface SourceField {
  readonly kind: "source"
  readonly parts: Readonly<Record<string, ValueField>>
  readonly absent?: never
}

export type TickField = ColumnField | SourceField
export type FieldTable = Readonly<Record<string, TickField>>

/** Times are epoch microseconds, price is in rupees (at most 7 decimals), volume is the quantity in this tick. */
export const tickFields = {
  instrument_token: { kind: "token", stored: true },
  exchange_ts: { kind: "micros", stored: true, grows: true, within: [MIN_MICROS, MAX_MICROS] },
  price: { kind: "price", stored: true },
  volume: { kind: "quantity", stored: true },
  /** The exchange's number; without one, minus a 48-bit hash of the content. */
  sequence_id: { kind: "whole", stored: true, grows: true },
  status: { kind: "word", stored: true, words: ["LIVE", "STALE"], otherwise: "LIVE" },
  /** First missing number before this tick; 0 where it shows no gap. */
  gap_from: { kind: "whole", absent: 0 },
  session: { kind: "small", stored: true },
  sequencing: {
    kind: "word",
    stored: true,
    words: ["contiguous", "monotonic", "none"],
    otherwise: "none",
    initial: true
  },
  epoch: { kind: "whole", stored: true, unplaced: true },
  position: { kind: "whole", stored: true, unplaced: true, grows: true },
  feed: { kind: "name", stored: true },
  received_ts: { kind: "micros", stored: true, grows: true },
  source: {
    kind: "source",
    parts: {
      source_incarnation: { kind: "name" },
      source_offset: { kind: "whole", grows: true },
      source_index: { kind: "index" }
    }
  },
  /** True for a tick of a day older than the instrument's newest: for the store and the archive only. */
  old: { kind: "flag", absent: false }
} as const satisfies FieldTable

/** Names of the fields that the store has. */
export type StoredName = {
  [N in keyof typeof tickFields]: (typeof tickFields)[N] extends { readonly stored: true } ? N : never
}[keyof typeof tickFields]

/** Whether the store may have a null there. */
export const mayBeNull = (field: ValueField): boolean => "unplaced" in field || field.absent === null

/** A word as the store has it. */
export const storedWord = (field: WordField, word: string): string => (field.initial === true ? word.slice(0, 1) : word)

/** What lies in a column: its name, the field, and the expression of its value in a tick `t`. */
export interface TickColumn {
  readonly name: string
  readonly field: ColumnField
  readonly value: string
}

/** The columns of a tick that lies flat, in the order of the wire. */
export const columnsOf = (fields: FieldTable): ReadonlyArray<TickColumn> =>
  Object.entries(fields).flatMap(
    ([name, field]): ReadonlyArray<TickColumn> =>
      field.kind === "source"
        ? Object.entries(field.parts).map(([part, of], i) => ({ name: part, field: of, value: `t.${name}[${i}]` }))
        : [{ name, field, value: `t.${name}` }]
  )

type StoredFields = Readonly<Record<string, ValueField>>

/** Those of the fields that the store has. */
export const storedOf = (fields: FieldTable): StoredFields =>
  Object.fromEntries(
    Object.entries(fields).filter((entry): entry is [string, ValueField] => "stored" in entry[1] && entry[1].stored)
  )

/**
 * A function from its text, made once when its file is loaded: what every tick passes through is then straight-line
 * code, as it would be written by hand; going through the table for each tick takes twice as long. The text
 * holds names and words of the table, and nothing that comes from outside; `given` is what it knows of the file.
 */
export const composed = <F>(text: string, given: Readonly<Record<string, unknown>> = {}): F =>
  new Function(...Object.keys(given), `"use strict"; return ${text}`)(...Object.values(given)) as F

/** The expression that answers the first of some cases that holds, else the last. */
export const firstThatHolds = (
  cases: ReadonlyArray<readonly [condition: string, value: string]>,
  otherwise: string
): string => [...cases.map(([condition, value]) => `${condition} ? ${value} : `), otherwise].join("")
