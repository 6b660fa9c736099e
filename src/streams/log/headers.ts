/** Decides the headers of the log's records: their names, what a replay's may say, and how a watermark is written. */
import { showText, showValue } from "../../schema/Explain.ts"
import { encodeQuote, type Quote } from "../../schema/Quote.ts"
import type { Tick } from "../../schema/Tick.ts"
import { encodeTick } from "../../schema/TickJson.ts"
import type { NewRecord } from "./TickLog.ts"

/** The replay run that a record belongs to. */
export const REPLAY_HEADER = "replay"
/** The number of a watermark; its record has no value. */
export const WATERMARK_HEADER = "watermark"
/** On the last watermark of a run. */
export const END_HEADER = "end"
/** What a record of `normalized_ticks` holds that is no tick: whoever does not know the word passes it over. */
export const KIND_HEADER = "kind"
/** A quote; it takes no position. */
export const QUOTE_KIND = "quote"
/** On a tick forwarded from a partition that was not its own. */
export const MISROUTED_HEADER = "misrouted"
/** How many bytes a dead letter had that was cut: it cannot be sent again. */
export const CUT_HEADER = "bytes"
/** The letter is a batch of the log as it lies there, which nobody can read: it cannot be sent again either. */
export const BATCH_HEADER = "batch"
/** The sink that refuses a clean tick for good: the letter is told, and cannot be sent again, since the tick was published. */
export const SINK_HEADER = "sink"

/** A run's name as replays give it: `<replay id>.<run number>`. Others' names are bounded in length and characters. */
const RUN_NAME = /^[\w.:-]{1,64}$/
/** The run met last: a replay's records come many at a time. */
let knownRun = ""

export const isRun = (name: string): boolean => {
  if (name === knownRun) return true
  if (!RUN_NAME.test(name)) return false
  knownRun = name
  return true
}

const WATERMARK_NUMBER = /^[1-9]\d{0,14}$/

/** What the headers of a watermark say; a sentence where they are none that a replay writes. */
export const readWatermark = (
  headers: Readonly<Record<string, string>>
): { readonly number: number; readonly end: boolean } | string => {
  const text = headers[WATERMARK_HEADER] ?? ""
  if (!WATERMARK_NUMBER.test(text)) {
    return `header ${WATERMARK_HEADER}: expected a number from 1 on, got ${showValue(text)}`
  }
  const end = headers[END_HEADER]
  if (end !== undefined && end !== "1") return `header ${END_HEADER}: expected 1, got ${showValue(end)}`
  return { number: Number(text), end: end === "1" }
}

const EMPTY = new Uint8Array(0)

/** A watermark as a record: in raw_ticks and in normalized_ticks it looks the same. */
export const watermarkRecord = (watermark: {
  readonly run: string
  readonly number: number
  readonly end: boolean
}): NewRecord => ({
  key: null,
  value: EMPTY,
  headers: {
    [REPLAY_HEADER]: watermark.run,
    [WATERMARK_HEADER]: String(watermark.number),
    ...(watermark.end ? { [END_HEADER]: "1" } : {})
  }
})

/** Characters of a sink's reason that a letter says. */
const MAX_SINK_REASON_CHARS = 500

/** The letter of a clean tick or quote that a sink refuses for good. */
export const setAsideRecord = (row: Tick | Quote, sink: string, reason: string): NewRecord => {
  const isTick = "price" in row
  return {
    key: String(row.instrument_token),
    value: new TextEncoder().encode(isTick ? encodeTick(row) : encodeQuote(row)),
    headers: {
      reason: `${sink}: ${showText(reason, MAX_SINK_REASON_CHARS)}`,
      topic: "normalized_ticks",
      [SINK_HEADER]: sink,
      ...(isTick ? {} : { [KIND_HEADER]: QUOTE_KIND })
    }
  }
}
