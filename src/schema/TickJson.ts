/** Decides how a normalized tick is written as JSON: the contract's fields in the contract's order, one record a tick. */
import { jsonName } from "./quotedOnce.ts"
import { MAX_PRICE } from "./RawTick.ts"
import type { Sequencing, Tick, TickStatus } from "./Tick.ts"
import { MAX_NAME_CHARS, MAX_SESSION, readTickBytes } from "./TickJsonBytes.ts"
import { MAX_MICROS, MIN_MICROS } from "./Time.ts"

/** One tick as JSON text. */
export const encodeTick = (t: Tick): string =>
  `{"instrument_token":${t.instrument_token},"exchange_ts":${t.exchange_ts},"price":${t.price},"volume":${t.volume},` +
  `"sequence_id":${t.sequence_id},"status":"${t.status}",${t.gap_from === 0 ? "" : `"gap_from":${t.gap_from},`}` +
  `"session":${t.session},"sequencing":"${t.sequencing}","epoch":${t.epoch},"position":${t.position},` +
  `"feed":${jsonName(t.feed)},"received_ts":${t.received_ts},` +
  `"source":[${jsonName(t.source[0])},${t.source[1]},${t.source[2]}]${t.old ? `,"old":true` : ""}}`

interface TickWire extends Omit<Tick, "gap_from" | "old"> {
  readonly gap_from?: number
  readonly old?: boolean
  readonly status: TickStatus
  readonly sequencing: Sequencing
}

/** A name as it may go on into tables, rings and frames: of a bounded length, and without what PostgreSQL refuses. */
const isName = (text: unknown): text is string =>
  typeof text === "string" && text.length <= MAX_NAME_CHARS && !text.includes("\0")

/** A whole number of 32 bits. Only of a number may the bits be asked: what is nested deep has none, and throws. */
const isInt = (value: unknown): value is number => typeof value === "number" && (value | 0) === value

/** The tick of a `normalized_ticks` record, which any producer may have written; `undefined` where it is none. */
export const decodeTick = (bytes: Uint8Array): Tick | undefined => readTickBytes(bytes) ?? parseTick(bytes)

const parseTick = (bytes: Uint8Array): Tick | undefined => {
  const buffer = bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let wire: TickWire | null
  try {
    wire = JSON.parse(buffer.toString("utf8")) as TickWire | null
  } catch {
    return undefined
  }
  if (typeof wire !== "object" || wire === null) return undefined
  const { instrument_token, exchange_ts, price, volume, sequence_id, status, gap_from = 0 } = wire
  const { session, sequencing, epoch, position, feed, received_ts, source } = wire
  // What is not of its type, or out of the range of its column, would stop each sink for good.
  if (
    !isInt(instrument_token) ||
    !(Number.isInteger(exchange_ts) && exchange_ts >= MIN_MICROS && exchange_ts <= MAX_MICROS) ||
    !(typeof price === "number" && price >= -MAX_PRICE && price <= MAX_PRICE) ||
    !Number.isSafeInteger(volume) ||
    !Number.isSafeInteger(sequence_id) ||
    (status !== "LIVE" && status !== "STALE") ||
    !Number.isSafeInteger(gap_from) ||
    !isInt(session) ||
    session < 0 ||
    session > MAX_SESSION ||
    (sequencing !== "contiguous" && sequencing !== "monotonic" && sequencing !== "none") ||
    !Number.isSafeInteger(epoch) ||
    !Number.isSafeInteger(position) ||
    !Number.isSafeInteger(received_ts) ||
    !Array.isArray(source) ||
    !Number.isSafeInteger(source[1]) ||
    !isInt(source[2]) ||
    !isName(feed) ||
    !isName(source[0])
  )
    return undefined
  return {
    instrument_token,
    exchange_ts,
    price,
    volume,
    sequence_id,
    status,
    gap_from,
    session,
    sequencing,
    epoch,
    position,
    feed,
    received_ts,
    // Whatever else the array holds is not kept.
    source: [source[0], source[1], source[2]],
    old: wire.old === true
  }
}
