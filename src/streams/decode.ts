/** Decides which raw records are ticks: what cannot be read goes to the DLQ with its reason, and the rest goes on. */
import { readRawTick } from "../schema/RawTick.ts"
import type { Batch, Candidate, DeadLetter, DeadReason, Watermark } from "./batch.ts"
import type { LogRecord } from "./TickLog.ts"

/** A record larger than this is refused, in bytes. */
export const MAX_RECORD_BYTES = 1_048_576

/** Header of a replayed record: its run. */
export const REPLAY_HEADER = "replay"
/** Headers of a replay's watermark record: its number, and whether the run ends there. */
export const WATERMARK_HEADER = "watermark"
export const END_HEADER = "end"

/** An array of raw records as a batch of candidates, in order. */
export const decode = (records: ReadonlyArray<LogRecord>): Batch => {
  const ticks: Array<Candidate> = []
  const dead: Array<DeadLetter> = []
  const watermarks: Array<Watermark> = []
  for (const record of records) {
    const { headers } = record
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
    count: {
      decoded: ticks.length,
      normalized: 0,
      duplicates: 0,
      suppressed: 0,
      admitted: 0,
      sequenced: 0,
      gaps: 0,
      fills: 0,
      lost: 0,
      epochs: 0
    }
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
  session: undefined as never
})

const letter = (record: LogRecord, kind: DeadReason, reason: string): DeadLetter => ({ record, index: 0, kind, reason })
