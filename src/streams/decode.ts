/** Decides which raw records are ticks: what cannot be read goes to the DLQ with its reason, and the rest goes on. */
import { partitionOf } from "../schema/Partition.ts"
import { type RawTick, readRawTick } from "../schema/RawTick.ts"
import {
  type Batch,
  type Candidate,
  countsOf,
  type DeadLetter,
  type DeadReason,
  type Forward,
  type Watermark
} from "./batch.ts"
import type { LogRecord, NewRecord } from "./TickLog.ts"

/** A record larger than this is refused, in bytes. */
export const MAX_RECORD_BYTES = 1_048_576

/** Header of a replayed record: its run. */
export const REPLAY_HEADER = "replay"
/** Headers of a replay's watermark record: its number, and whether the run ends there. */
export const WATERMARK_HEADER = "watermark"
export const END_HEADER = "end"

/** Header of a record that was found in a wrong partition and sent on to the right one. */
export const MISROUTED_HEADER = "misrouted"

export interface DecodeOptions {
  readonly partition: number
  readonly partitions: number
}

/** Tokens whose partition is remembered; one more and all are forgotten: hashing them again is cheap. */
const MAX_ROUTES = 1_000_000

/**
 * An array of raw records as a batch of candidates, in order. A tick found in a wrong partition is to be forwarded to
 * the right one, once, with the time it was first received.
 */
export const decode = ({ partition, partitions }: DecodeOptions) => {
  const routes = new Map<number, number>()
  const route = (token: number): number => {
    let to = routes.get(token)
    if (to === undefined) {
      if (routes.size >= MAX_ROUTES) routes.clear()
      to = partitionOf(token, partitions)
      routes.set(token, to)
    }
    return to
  }
  return (records: ReadonlyArray<LogRecord>): Batch => decodeRecords(records, partition, route)
}

const decodeRecords = (
  records: ReadonlyArray<LogRecord>,
  partition: number,
  route: (token: number) => number
): Batch => {
  const forwards: Array<Forward> = []
  const ticks: Array<Candidate> = []
  const dead: Array<DeadLetter> = []
  const watermarks: Array<Watermark> = []
  for (const record of records) {
    const { headers, unreadable } = record
    if (unreadable !== undefined) {
      dead.push(letter(record, "undecodable", unreadable.message))
      continue
    }
    const run = headers === undefined ? "" : (headers[REPLAY_HEADER] ?? "")
    if (run !== "") {
      const watermark = headers![WATERMARK_HEADER]
      if (watermark !== undefined) {
        watermarks.push({
          offset: record.offset,
          run,
          number: Number(watermark),
          end: headers![END_HEADER] !== undefined
        })
        continue
      }
    }
    const { value } = record
    if (value === null) {
      dead.push(letter(record, "tombstone", "tombstone: a raw tick has a value, got none"))
      continue
    }
    if (value.length > MAX_RECORD_BYTES) {
      dead.push(letter(record, "too_large", `record: expected at most ${MAX_RECORD_BYTES} bytes, got ${value.length}`))
      continue
    }
    let json: unknown
    try {
      json = JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("utf8"))
    } catch (error) {
      dead.push(letter(record, "undecodable", `record: not JSON: ${(error as Error).message}`))
      continue
    }
    const raw = readRawTick(json, run !== "")
    if (typeof raw === "string") {
      dead.push(letter(record, "invalid", raw))
      continue
    }
    const to = run === "" ? route(raw.instrument_token) : partition
    if (to !== partition) {
      if (headers?.[MISROUTED_HEADER] !== undefined) {
        const where = `expected partition ${to} for instrument_token ${raw.instrument_token}, got ${partition} again`
        dead.push(letter(record, "misrouted", where))
      } else {
        forwards.push({ to, record: forwardedRecord(json as object, raw, record) })
      }
      continue
    }
    ticks.push(candidate(raw, record, run))
  }
  const last = records[records.length - 1]
  return {
    records: records.length,
    nextOffset: last === undefined ? 0 : last.offset + 1,
    recordTime: last === undefined ? 0 : last.recordTime,
    ticks,
    watermarks,
    dead,
    forwards,
    count: countsOf(ticks.length)
  }
}

/** A raw tick of a record, with what the later stages decide still open. */
export const candidate = (raw: Candidate["raw"], record: LogRecord, run: string): Candidate => ({
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
})

/** The raw tick as it came, with the time it was received here: the other partition's record time is later. */
const forwardedRecord = (json: object, raw: RawTick, record: LogRecord): NewRecord => ({
  key: String(raw.instrument_token),
  value: Buffer.from(
    JSON.stringify({ ...json, received_ts: raw.received_ts > 0 ? raw.received_ts : record.recordTime })
  ),
  headers: { [MISROUTED_HEADER]: "1" }
})

const letter = (record: LogRecord, kind: DeadReason, reason: string): DeadLetter => ({ record, index: 0, kind, reason })
