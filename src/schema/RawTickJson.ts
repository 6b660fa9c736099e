/** Decides how a raw tick is written for the wire: only the fields that say more than their default. */
import { jsonName } from "./quotedOnce.ts"
import type { RawTick } from "./RawTick.ts"

/** One raw tick as JSON text; `readRawTick` of it gives the tick again. */
export const encodeRawTick = (t: RawTick): string => {
  let text =
    `{"feed":${jsonName(t.feed)},"instrument_token":${t.instrument_token},"exchange_ts":${t.exchange_ts},` +
    `"price":${t.price},`
  text += t.day_volume >= 0 ? `"day_volume":${t.day_volume}` : `"volume":${t.volume}`
  if (t.sequence_id !== undefined) text += `,"sequence_id":${t.sequence_id}`
  if (t.sequencing !== (t.sequence_id === undefined ? "none" : "contiguous")) text += `,"sequencing":"${t.sequencing}"`
  if (t.reset) text += `,"reset":true`
  if (t.connection !== t.feed) text += `,"connection":${jsonName(t.connection)}`
  if (t.occurrence !== 0) text += `,"occurrence":${t.occurrence}`
  if (t.received_ts !== 0) text += `,"received_ts":${t.received_ts}`
  if (t.session >= 0) text += `,"session":${t.session}`
  return `${text}}`
}
