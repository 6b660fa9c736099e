/**
 * Decides how ticks, bars and quotes are written as JSON and CSV. By hand: fast, and total, since what an older version
 * or another hand has stored must not turn an answer into a failure.
 */
import { HttpServerResponse } from "effect/http"
import { boundedVolume } from "../schema/Candle.ts"
import { type Quote, quoteMembers } from "../schema/Quote.ts"
import { type BarRow, barFields } from "../schema/tables.ts"
import { composed, type FieldTable, mayBeNull, storedOf, tickFields, type ValueField } from "../schema/tickFields.ts"
import type { DaySoFar, StoredTick } from "../streams/ports/TickStore.ts"
import type { Bar } from "./Api.ts"

/** JSON knows no NaN and no infinity: null stands for what is no number. */
const number = (value: number): string => (Number.isFinite(value) ? String(value) : "null")
const volume = (value: number): string => number(boundedVolume(value))

const csvField = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

const jsonValue = (name: string, { kind }: ValueField): string => {
  if (kind === "price") return `\${number(t.${name})}`
  if (kind === "quantity") return `\${volume(t.${name})}`
  if (kind === "name") return `\${JSON.stringify(t.${name})}`
  return kind === "word" ? `"\${t.${name}}"` : `\${t.${name}}`
}

const csvValue = (name: string, field: ValueField): string => {
  if (field.kind === "name") return `\${csvField(t.${name})}`
  return mayBeNull(field) ? `\${t.${name} ?? ""}` : `\${t.${name}}`
}

/** How ticks of such fields are written: as JSON, and as a line of CSV under a header. */
export const writersOf = (fields: FieldTable) => {
  const stored = Object.entries(storedOf(fields))
  const members = stored.map(([name, field]) => `"${name}":${jsonValue(name, field)}`)
  const cells = stored.map(([name, field]) => csvValue(name, field))
  return {
    json: composed<(t: StoredTick) => string>(`(t) => \`{${members.join(",")}}\``, { number, volume }),
    csvHeader: `${Object.keys(storedOf(fields)).join(",")}\n`,
    csvLine: composed<(t: StoredTick) => string>(`(t) => \`${cells.join(",")}\\n\``, { csvField })
  }
}

export const { json: encodeTick, csvHeader: CSV_HEADER, csvLine } = writersOf(tickFields)

const barMembers = (b: Bar): string =>
  `"ts":${b.ts},"open":${number(b.open)},"high":${number(b.high)},"low":${number(b.low)},"close":${number(b.close)},` +
  `"volume":${volume(b.volume)},${b.oi === undefined ? "" : `"oi":${b.oi},`}"phase":${b.phase === null ? "null" : `"${b.phase}"`},"final":${b.final}`

export const encodeBar = (b: Bar): string => `{${barMembers(b)}}`

/** A bar among those of several instruments, or of a stream. */
export const encodeBarRow = (b: BarRow): string =>
  `{"instrument_token":${b.instrument_token},${barMembers(b)},"known":${b.known}}`

export const BAR_CSV_HEADER = `${Object.keys(barFields).join(",")}\n`

export const barCsvLine = (b: BarRow): string =>
  `${b.instrument_token},${b.ts},${b.open},${b.high},${b.low},${b.close},${boundedVolume(b.volume)},${b.oi ?? ""},` +
  `${b.phase ?? ""},${b.final},${b.known}\n`

/** The last tick and the day so far of a token, and what is known of its book. */
export const encodeQuote = (token: number, day: DaySoFar | undefined, quote: Quote | undefined): string => {
  const book = quote === undefined ? "" : `,"quote":{"exchange_ts":${quote.exchange_ts}${quoteMembers(quote)}}`
  return day === undefined
    ? `{"instrument_token":${token},"last":null,"open":null,"high":null,"low":null,"volume":null${book}}`
    : `{"instrument_token":${token},"last":${encodeTick(day.last)},"open":${number(day.open)},` +
        `"high":${number(day.high)},"low":${number(day.low)},"volume":${volume(day.volume)}${book}}`
}

/** An answer that is JSON already. */
export const json = (text: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.text(text, { contentType: "application/json" })
