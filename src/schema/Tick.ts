/** Decides what a tick is once it is clean: its type, its day, its epoch and its order. */
import type { TickField, tickFields } from "./tickFields.ts"

type Fields = typeof tickFields

/** `contiguous`: every number appears, gaps are real. `monotonic`: numbers rise but may skip. `none`: no numbers. */
export type Sequencing = Fields["sequencing"]["words"][number]

/** `STALE`: the tick that shows a gap, or one that comes out of order. */
export type TickStatus = Fields["status"]["words"][number]

/** Where a normalized tick came from: raw topic incarnation, raw offset, index in that record. */
export type Source = readonly [incarnation: string, offset: number, index: number]

type Value<F extends TickField> = F extends { readonly words: ReadonlyArray<infer Word> }
  ? Word
  : F extends { readonly kind: "name" }
    ? string
    : F extends { readonly kind: "flag" }
      ? boolean
      : F extends { readonly kind: "source" }
        ? Source
        : F extends { readonly absent: null }
          ? number | null
          : number

type TickValues = { -readonly [N in keyof Fields]: Value<Fields[N]> }

/**
 * One normalized tick, as the table of its fields has it. Mutable on purpose: the stages fill it in place, one
 * allocation a tick.
 */
export interface Tick extends TickValues {}

const MICROS_PER_DAY = 86_400_000_000
/** India is UTC+5:30 all year. */
export const IST_OFFSET_MICROS = 19_800_000_000

/** The trading day (IST) of an epoch-microsecond time, in days since 1970-01-01. */
export const tradingDay = (micros: number): number => Math.floor((micros + IST_OFFSET_MICROS) / MICROS_PER_DAY)

/** The epoch microseconds of a trading day's IST midnight. */
export const tradingDayStart = (day: number): number => day * MICROS_PER_DAY - IST_OFFSET_MICROS

/** `YYYY-MM-DD` of a trading day. */
export const tradingDate = (day: number): string => new Date(day * 86_400_000).toISOString().slice(0, 10)

/** Epochs that a trading day has room for. */
export const EPOCHS_PER_DAY = 1_000_000_000

/**
 * The epoch that a state gives which saw its first tick of `day` at `recordTime` (µs): day × 10⁹ + seconds from
 * the day's IST midnight. A tick slightly ahead of the record clock at midnight counts as second 0.
 */
export const epochOf = (day: number, recordTime: number): number =>
  day * EPOCHS_PER_DAY + Math.max(0, Math.floor((recordTime - tradingDayStart(day)) / 1_000_000))

export interface TickOrder {
  readonly exchange_ts: number
  readonly sequence_id: number
  readonly epoch: number | null
  readonly position: number | null
}

/**
 * The order of one instrument's ticks, in SQL, cursors and replay alike: exchange_ts, `greatest(sequence_id, 0)`,
 * epoch, position (nulls last), sequence_id.
 */
export const compareTicks = (a: TickOrder, b: TickOrder): number =>
  a.exchange_ts - b.exchange_ts ||
  Math.max(a.sequence_id, 0) - Math.max(b.sequence_id, 0) ||
  compareNullsLast(a.epoch, b.epoch) ||
  compareNullsLast(a.position, b.position) ||
  a.sequence_id - b.sequence_id

/** Whether (epoch, position) comes after a place of the same instrument. */
export const isAfter = (
  epoch: number,
  position: number,
  place: { readonly epoch: number; readonly position: number }
): boolean => epoch > place.epoch || (epoch === place.epoch && position > place.position)

const compareNullsLast = (a: number | null, b: number | null): number =>
  a === null ? (b === null ? 0 : 1) : b === null ? -1 : a - b
