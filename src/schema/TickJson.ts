/** Decides how a normalized tick is written as JSON: the contract's fields in the contract's order, one record a tick. */
import type { Sequencing, Tick, TickStatus } from "./Tick.ts"

const quoted = new Map<string, string>()
const MAX_QUOTED = 1024

/** A name as a JSON string; the few names there are (feeds, incarnations) are quoted once. */
const quote = (name: string): string => {
  let text = quoted.get(name)
  if (text === undefined) {
    if (quoted.size >= MAX_QUOTED) quoted.clear()
    text = JSON.stringify(name)
    quoted.set(name, text)
  }
  return text
}

/** One tick as JSON text. */
export const encodeTick = (t: Tick): string =>
  `{"instrument_token":${t.instrument_token},"exchange_ts":${t.exchange_ts},"price":${t.price},"volume":${t.volume},` +
  `"sequence_id":${t.sequence_id},"status":"${t.status}",${t.gap_from === 0 ? "" : `"gap_from":${t.gap_from},`}` +
  `"session":${t.session},"sequencing":"${t.sequencing}","epoch":${t.epoch},"position":${t.position},` +
  `"feed":${quote(t.feed)},"received_ts":${t.received_ts},` +
  `"source":[${quote(t.source[0])},${t.source[1]},${t.source[2]}]${t.old ? `,"old":true` : ""}}`

interface TickWire extends Omit<Tick, "gap_from" | "old"> {
  readonly gap_from?: number
  readonly old?: boolean
  readonly status: TickStatus
  readonly sequencing: Sequencing
}

/**
 * The tick of a `normalized_ticks` record. The topic is this platform's own, so the fields are not checked one by
 * one; `undefined` where the bytes are no tick at all.
 */
export const decodeTick = (bytes: Uint8Array): Tick | undefined => {
  let wire: TickWire
  try {
    wire = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")) as TickWire
  } catch {
    return undefined
  }
  if (typeof wire?.instrument_token !== "number" || !Array.isArray(wire.source)) return undefined
  return {
    instrument_token: wire.instrument_token,
    exchange_ts: wire.exchange_ts,
    price: wire.price,
    volume: wire.volume,
    sequence_id: wire.sequence_id,
    status: wire.status,
    gap_from: wire.gap_from ?? 0,
    session: wire.session,
    sequencing: wire.sequencing,
    epoch: wire.epoch,
    position: wire.position,
    feed: wire.feed,
    received_ts: wire.received_ts,
    source: wire.source,
    old: wire.old === true
  }
}
