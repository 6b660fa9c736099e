/** Decides what travels between the stages of a partition: arrays of ticks, with what was taken out and why. */
import type { Quote, RawQuote } from "../../schema/Quote.ts"
import type { RawTick } from "../../schema/RawTick.ts"
import type { Tick } from "../../schema/Tick.ts"
import type { LogRecord, NewRecord } from "../log/TickLog.ts"
import type { InstrumentDay, PartitionState, Session } from "./partitionState.ts"
import type { RunStates } from "./RunStates.ts"

/** Why each stage takes out what it does, as its counts are labelled; `defect`: the stage failed on it. */
export const DISCARDS = {
  decode: ["forwarded", "tombstone", "too_large", "undecodable", "header", "invalid", "misrouted", "defect"],
  normalize: ["future", "defect"],
  deduplicate: ["duplicate", "suppressed", "claimed", "jump", "conflict", "defect"],
  sequence: ["zero_price", "defect"],
  quote: ["future", "outdated", "unchanged", "published", "defect"],
  publish: ["published"]
} as const
export type StageName = keyof typeof DISCARDS
type Discard<Stage extends StageName> = (typeof DISCARDS)[Stage][number]

/** The stage that found a dead letter so, and the label of its count. */
type Found = { readonly [S in StageName]: { readonly stage: S; readonly kind: Discard<S> } }[StageName]

/** A record, or one tick of it, that cannot go on. Its bytes go to the DLQ as they came. */
export type DeadLetter = Found & {
  readonly record: LogRecord
  readonly index: number
  /** Where a feed's clock is ahead of the log's: whose, and by how many µs. */
  readonly clock?: { readonly feed: string; readonly aheadMicros: number }
  /** The record's header says it in full. */
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

/**
 * One tick on its way. It is one object from `decode` to `publish`: each stage fills in what it decides, and its type
 * says which stages it has been through.
 */
export interface DecodedTick {
  readonly raw: RawTick
  readonly record: LogRecord
  readonly index: number
  /** The replay run it belongs to; empty for live. */
  readonly run: string
  /** µs; for a replayed tick its exchange_ts. */
  readonly recordTime: number
}

export interface NormalizedTick extends DecodedTick {
  /** The stages after `normalize` fill it in. */
  tick: Tick
  day: number
}

/** One that no copy of was let in before. */
export interface AdmittedTick extends NormalizedTick {
  state: InstrumentDay
  session: Session
  /** Somebody had claimed it, and on its day that decides: a duplicate. */
  isClaimed: boolean
  /** A snapshot's packet of before the first trade: it is no tick, and says of the day's volume what it says. */
  isPriceless: boolean
}

/** One quote on its way, from `decode` to `publish`: the stages fill in what they decide. */
export interface QuoteCandidate {
  readonly raw: RawQuote
  readonly record: LogRecord
  readonly run: string
  /** µs; for a replayed quote its exchange_ts. */
  readonly recordTime: number
  /** Whether no tick stands beside it in its record. */
  readonly isAlone: boolean
  /** Its stamp is too far ahead of record time. */
  isAhead: boolean
  day: number
  /** Undefined where `deduplicate` did not find it. */
  state: InstrumentDay | undefined
  isOld: boolean
  /** All that is known once it has come. */
  quote: Quote
}

declare const stage: unique symbol

/** What one array of raw records has become so far. `Through`: the last stage that it has been through. */
export interface Batch<T, Through extends string> {
  /** Never there: it keeps stages from being joined in another order. */
  readonly [stage]?: Through
  /** Raw records read. */
  readonly records: number
  /** The next raw offset. */
  readonly nextOffset: number
  /** The highest record time of the batch, µs. */
  readonly recordTime: number
  readonly ticks: Array<T>
  readonly quotes: Array<QuoteCandidate>
  readonly watermarks: ReadonlyArray<Watermark>
  readonly dead: Array<DeadLetter>
  readonly forwards: ReadonlyArray<Forward>
  /** In the order of the stages. */
  readonly passed: Array<StageCount>
  readonly count: StateCounts
}

export type Decoded = Batch<DecodedTick, "decode">
export type Normalized = Batch<NormalizedTick, "normalize">
export type Deduplicated = Batch<AdmittedTick, "deduplicate">
/** Others' claims have been asked. */
export type Claimed = Batch<AdmittedTick, "claim">
/** Only ticks with a place are left. */
export type Sequenced = Batch<AdmittedTick, "sequence">
/** Only quotes that change something are left. */
export type Quoted = Batch<AdmittedTick, "quote">

/** What a stage took in, handed on, and took out but for dead letters, which are counted as such. */
export type StageCount = {
  [S in StageName]: {
    readonly stage: S
    readonly received: number
    sent: number
    readonly discarded: Partial<Record<Discard<S>, number>>
  }
}[StageName]

/** What happened to the states. */
export interface StateCounts {
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

/** A batch that has been read: `decode` hands it on, and so does a test or a benchmark that has no bytes to read. */
export const decodedBatch = (
  records: ReadonlyArray<LogRecord>,
  found: Pick<Decoded, "ticks" | "quotes" | "watermarks" | "dead" | "forwards">
): Decoded => {
  const last = records[records.length - 1]
  return {
    records: records.length,
    nextOffset: last === undefined ? 0 : last.offset + 1,
    recordTime: last === undefined ? 0 : last.recordTime,
    ...found,
    passed: [],
    count: { gaps: 0, fills: 0, lost: 0, epochs: 0, resets: 0, jumps: 0, restarts: 0, forgotten: 0, instruments: 0 }
  }
}

/** A raw tick of a record, with room for what the later stages decide: no stage makes another object of it. */
export const decodedTick = (raw: RawTick, record: LogRecord, run: string): DecodedTick => {
  const tick: AdmittedTick = {
    raw,
    record,
    index: 0,
    run,
    recordTime: run === "" ? record.recordTime : raw.exchange_ts,
    tick: undefined as never,
    day: 0,
    state: undefined as never,
    session: undefined as never,
    isClaimed: false,
    isPriceless: false
  }
  return tick
}

/** The quote of a record, with room for what the later stages decide. */
export const decodedQuote = (raw: RawQuote, record: LogRecord, run: string, isAlone: boolean): QuoteCandidate => ({
  raw,
  record,
  run,
  recordTime: run === "" ? record.recordTime : raw.exchange_ts,
  isAlone,
  isAhead: false,
  day: 0,
  state: undefined,
  isOld: false,
  quote: undefined as never
})

/** The same batch, for the stages after this one: it counts what it did, and its ticks are what it says. */
export const passed = <T, Through extends string>(
  batch: Batch<unknown, string>,
  count: StageCount
): Batch<T, Through> => {
  batch.passed.push(count)
  return batch as Batch<T, Through>
}

/** The states of a partition: live, and one a replay run. */
export interface PartitionStates {
  readonly live: PartitionState
  readonly runs: RunStates
}
