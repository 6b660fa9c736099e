/** Decides what travels between the stages of a partition: arrays of ticks, with what was taken out and why. */
import type { RawTick } from "../../schema/RawTick.ts"
import type { Tick } from "../../schema/Tick.ts"
import type { LogRecord, NewRecord } from "../log/TickLog.ts"
import type { InstrumentDay, PartitionState, Session } from "./partitionState.ts"
import type { RunStates } from "./RunStates.ts"

/** Why a record or tick ended in the DLQ; the label of its count. The record's `reason` header says it in full. */
export type DeadReason =
  | "tombstone"
  | "too_large"
  | "undecodable"
  | "header"
  | "invalid"
  | "misrouted"
  | "future"
  | "jump"
  | "conflict"
  | "defect"

/** The stages that may take a tick out. */
export type StageName = "decode" | "normalize" | "deduplicate" | "sequence"

/** A record, or one tick of it, that cannot go on. Its bytes go to the DLQ as they came. */
export interface DeadLetter {
  readonly record: LogRecord
  readonly index: number
  readonly kind: DeadReason
  /** The stage that failed, of a `defect`. */
  readonly stage?: StageName
  /** Of a `future`: whose clock is ahead of the log's, and by how many µs. */
  readonly clock?: { readonly feed: string; readonly aheadMicros: number }
  readonly reason: string
}

/** A raw tick on its way to the partition it belongs to. */
export interface Forward {
  readonly to: number
  readonly record: NewRecord
}

/** A mark of a replay run that passes through every partition, in order with its ticks. */
export interface Watermark {
  readonly offset: number
  /** The log's, µs. */
  readonly recordTime: number
  readonly run: string
  readonly number: number
  readonly end: boolean
}

/** One tick on its way through the stages; each fills in what it decides. */
export interface Candidate {
  readonly raw: RawTick
  readonly record: LogRecord
  readonly index: number
  /** The replay run it belongs to; empty for live. */
  readonly run: string
  /** µs; for a replayed tick its exchange_ts. */
  readonly recordTime: number
  /** What normalize makes of it; the stages after it fill it in. */
  tick: Tick
  day: number
  state: InstrumentDay
  session: Session
  /** Somebody had claimed it, and on its day that decides: a duplicate. */
  isClaimed: boolean
  /** A snapshot's packet of before the first trade: it is no tick, and says of the day's volume what it says. */
  isPriceless: boolean
}

/** What one array of raw records has become so far. */
export interface Batch {
  /** Raw records read. */
  readonly records: number
  /** The next raw offset. */
  readonly nextOffset: number
  /** The highest record time of the batch, µs. */
  readonly recordTime: number
  ticks: Array<Candidate>
  readonly watermarks: ReadonlyArray<Watermark>
  readonly dead: Array<DeadLetter>
  readonly forwards: ReadonlyArray<Forward>
  readonly count: Counts
}

/** What each stage took in, handed on and took out. */
export interface Counts {
  decoded: number
  normalized: number
  duplicates: number
  suppressed: number
  admitted: number
  /** Admitted, and then found to be claimed on a day whose state was lost. */
  claimed: number
  /** Admitted, and left out by sequence: a snapshot without a price. */
  priceless: number
  sequenced: number
  gaps: number
  fills: number
  lost: number
  epochs: number
  /** Sessions opened by a `reset`, by a jump that went on, and by numbers with another content. */
  resets: number
  jumps: number
  restarts: number
  /** Instruments forgotten, and held after it. */
  forgotten: number
  instruments: number
}

/** The counts of a batch that has been decoded. */
export const countsOf = (decoded: number): Counts => ({
  decoded,
  normalized: 0,
  duplicates: 0,
  suppressed: 0,
  admitted: 0,
  claimed: 0,
  priceless: 0,
  sequenced: 0,
  gaps: 0,
  fills: 0,
  lost: 0,
  epochs: 0,
  resets: 0,
  jumps: 0,
  restarts: 0,
  forgotten: 0,
  instruments: 0
})

/** The states of a partition: live, and one a replay run. */
export interface PartitionStates {
  readonly live: PartitionState
  readonly runs: RunStates
}
