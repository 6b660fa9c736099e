/**
 * Decides how ticks, bars and quotes are written as JSON and CSV. By hand: fast, and total, since what an older version
 * or another hand has stored must not turn an answer into a failure.
 */
import { HttpServerResponse } from "effect/http"
import { boundedVolume } from "../schema/Candle.ts"
import type { Quote, StoredTick } from "../streams/ports/TickStore.ts"
import type { Bar } from "./Api.ts"

/** JSON knows no NaN and no infinity: null stands for what is no number. */
const number = (value: number): string => (Number.isFinite(value) ? String(value) : "null")
const volume = (value: number): string => number(boundedVolume(value))

export const encodeTick = (t: StoredTick): string =>
  `{"instrument_token":${t.instrument_token},"exchange_ts":${t.exchange_ts},"price":${number(t.price)},` +
  `"volume":${volume(t.volume)},"sequence_id":${t.sequence_id},"status":"${t.status}","session":${t.session},` +
  `"sequencing":"${t.sequencing}","epoch":${t.epoch},"position":${t.position},"feed":${JSON.stringify(t.feed)},` +
  `"received_ts":${t.received_ts}}`

export const CSV_HEADER =
  "instrument_token,exchange_ts,price,volume,sequence_id,status,session,sequencing,epoch,position,feed,received_ts\n"

const csvField = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

export const csvLine = (t: StoredTick): string =>
  `${t.instrument_token},${t.exchange_ts},${t.price},${t.volume},${t.sequence_id},${t.status},${t.session},` +
  `${t.sequencing},${t.epoch ?? ""},${t.position ?? ""},${csvField(t.feed)},${t.received_ts}\n`

export const encodeBar = (b: Bar): string =>
  `{"ts":${b.ts},"open":${number(b.open)},"high":${number(b.high)},"low":${number(b.low)},"close":${number(b.close)},` +
  `"volume":${volume(b.volume)},"phase":${b.phase === null ? "null" : `"${b.phase}"`},"final":${b.final}}`

export const encodeQuote = (token: number, quote: Quote | undefined): string =>
  quote === undefined
    ? `{"instrument_token":${token},"last":null,"open":null,"high":null,"low":null,"volume":null}`
    : `{"instrument_token":${token},"last":${encodeTick(quote.last)},"open":${number(quote.open)},` +
      `"high":${number(quote.high)},"low":${number(quote.low)},"volume":${volume(quote.volume)}}`

/** An answer that is JSON already. */
export const json = (text: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(text, { contentType: "application/json" })
