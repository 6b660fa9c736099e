/** Decides which raw records are ticks and quotes: what cannot be read goes to the DLQ with its reason, and the rest goes on. */
import { showText, showValue } from "../../schema/Explain.ts"
import { partitionOf } from "../../schema/Partition.ts"
import { encodeRawRecord, type RawRecord, readRawRecord } from "../../schema/RawTick.ts"
import { isRun, MISROUTED_HEADER, REPLAY_HEADER, readWatermark, WATERMARK_HEADER } from "../log/headers.ts"
import type { LogRecord, NewRecord } from "../log/TickLog.ts"
import {
  type DeadLetter,
  type Decoded,
  type DecodedTick,
  decodedBatch,
  decodedQuote,
  decodedTick,
  type Forward,
  passed,
  type QuoteCandidate,
  type Watermark
} from "./batch.ts"
import { defectOf } from "./defect.ts"

/** Why a record is neither tick nor quote; `misrouted`: found in a wrong partition again. */
type Reason = "tombstone" | "too_large" | "undecodable" | "header" | "invalid" | "misrouted"

/** A record larger than this is refused, in bytes. */
export const MAX_RECORD_BYTES = 1_048_576

export interface DecodeOptions {
  readonly partition: number
  readonly partitions: number
}

/** Characters of what the parser says of a value that is no JSON. */
const MAX_JSON_ERROR_CHARS = 200

/** Tokens whose partition is remembered; one more and all are forgotten: hashing them again is cheap. */
const MAX_ROUTES = 65_536

/**
 * An array of raw records as a batch of ticks, in order. A record found in a wrong partition is to be forwarded to
 * the right one, once, with the time it was first received. Of what goes on ticks are counted: of its quotes, `quote`
 * tells. What is forwarded or cannot be read is counted by the record, one with a quote alone among them.
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
  return (records: ReadonlyArray<LogRecord>): Decoded => decodeRecords(records, partition, route)
}

/** What the records of an array are, as far as they are read. */
interface Decoding {
  readonly forwards: Array<Forward>
  readonly ticks: Array<DecodedTick>
  readonly quotes: Array<QuoteCandidate>
  readonly dead: Array<DeadLetter>
  readonly watermarks: Array<Watermark>
}

const decodeRecords = (
  records: ReadonlyArray<LogRecord>,
  partition: number,
  route: (token: number) => number
): Decoded => {
  const out: Decoding = { forwards: [], ticks: [], quotes: [], dead: [], watermarks: [] }
  for (const record of records) {
    try {
      const dead = decodeRecord(record, partition, route, out)
      if (dead !== undefined) out.dead.push(dead)
    } catch (error) {
      out.dead.push(defectOf("decode", { record, index: 0 }, error))
    }
  }
  const { ticks, dead, forwards } = out
  const received = ticks.length + dead.length + forwards.length
  const discarded = { forwarded: forwards.length }
  return passed(decodedBatch(records, out), { stage: "decode", received, sent: ticks.length, discarded })
}

const letter = (record: LogRecord, kind: Reason, reason: string): DeadLetter => ({
  record,
  index: 0,
  stage: "decode",
  kind,
  reason
})

/** Takes in one record; answers the letter that it is where it cannot go on. */
const decodeRecord = (
  record: LogRecord,
  partition: number,
  route: (token: number) => number,
  { forwards, ticks, quotes, watermarks }: Decoding
): DeadLetter | undefined => {
  const { headers, unreadable, value } = record
  if (unreadable !== undefined) return letter(record, "undecodable", unreadable.message)
  const run = headers === undefined ? "" : (headers[REPLAY_HEADER] ?? "")
  if (run !== "") {
    if (!isRun(run)) return letter(record, "header", `header ${REPLAY_HEADER}: expected a run, got ${showValue(run)}`)
    if (headers![WATERMARK_HEADER] !== undefined) {
      const watermark = readWatermark(headers!)
      if (typeof watermark === "string") return letter(record, "header", watermark)
      if (value !== null && value.length > 0) {
        return letter(
          record,
          "header",
          `header ${WATERMARK_HEADER}: a watermark has no value, got ${value.length} bytes`
        )
      }
      const { offset, recordTime } = record
      watermarks.push({ offset, recordTime, run, ...watermark })
      return undefined
    }
  }
  if (value === null) return letter(record, "tombstone", "tombstone: a raw tick has a value, got none")
  if (value.length > MAX_RECORD_BYTES) {
    return letter(record, "too_large", `record: expected at most ${MAX_RECORD_BYTES} bytes, got ${value.length}`)
  }
  let json: unknown
  try {
    json = JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("utf8"))
  } catch (error) {
    return letter(
      record,
      "undecodable",
      `record: not JSON: ${showText((error as Error).message, MAX_JSON_ERROR_CHARS)}`
    )
  }
  const raw = readRawRecord(json, run !== "")
  if (typeof raw === "string") return letter(record, "invalid", raw)
  const { tick, quote } = raw
  const { instrument_token } = tick ?? quote!
  const to = run === "" ? route(instrument_token) : partition
  if (to === partition) {
    if (tick !== undefined) ticks.push(decodedTick(tick, record, run))
    if (quote !== undefined) quotes.push(decodedQuote(quote, record, run, tick === undefined))
    return undefined
  }
  if (headers?.[MISROUTED_HEADER] === undefined) {
    forwards.push({ to, record: forwardedRecord(raw, record) })
    return undefined
  }
  const where = `expected partition ${to} for instrument_token ${instrument_token}, got ${partition} again`
  return letter(record, "misrouted", where)
}

/**
 * The raw record with the time it was received here, since the other partition's record time is later: its fields, and
 * nothing else that came with them.
 */
const forwardedRecord = ({ tick, quote }: RawRecord, record: LogRecord): NewRecord => {
  const { instrument_token, received_ts } = tick ?? quote!
  const received = { received_ts: received_ts > 0 ? received_ts : record.recordTime }
  return {
    key: String(instrument_token),
    value: Buffer.from(
      encodeRawRecord({
        tick: tick === undefined ? undefined : { ...tick, ...received },
        quote: quote === undefined ? undefined : { ...quote, ...received }
      })
    ),
    headers: { [MISROUTED_HEADER]: "1" }
  }
}
