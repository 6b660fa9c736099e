/**
 * Decides which quotes must have been published: what the raw log holds, gone through by the contract's own words; and
 * whether those that were are these.
 */

import { partitionOf } from "../../src/schema/Partition.ts"
import { type Quote, quoteFields } from "../../src/schema/Quote.ts"
import { tradingDay } from "../../src/schema/Tick.ts"
import type { LogRecord } from "../../src/streams/log/TickLog.ts"
import { POISON_HEADER } from "./injector.ts"
import type { Problems } from "./problems.ts"

/** One quote as it must have been published: by the offset of its raw record. */
interface MeantQuote {
  readonly offset: number
  readonly instrument_token: number
  readonly exchange_ts: number
  /** What is known, JSON by field. */
  readonly known: Readonly<Record<string, string>>
}

interface RawPacket {
  readonly instrument_token: number
  readonly exchange_ts: number
  readonly day_volume?: number
  readonly quote?: Readonly<Record<string, unknown>>
}

const FIELDS = [...Object.keys(quoteFields), "day_volume"]

const packetOf = ({ value, headers, unreadable }: LogRecord): RawPacket | undefined => {
  if (value === null || unreadable !== undefined || headers?.[POISON_HEADER] !== undefined) return undefined
  const packet = JSON.parse(Buffer.from(value).toString()) as RawPacket
  return packet.quote === undefined ? undefined : packet
}

/**
 * The quotes that come of one partition of the raw log: of each packet, unless an older one by stamp (or, within one, by
 * the day's volume) than what came before, the whole of what is known, where that has changed.
 */
export const meantQuotes = (
  records: ReadonlyArray<LogRecord>,
  partition: number,
  partitions: number
): ReadonlyArray<MeantQuote> => {
  const days = new Map<string, { at: number; known: Readonly<Record<string, string>> }>()
  const meant: Array<MeantQuote> = []
  for (const record of records) {
    const packet = packetOf(record)
    if (packet === undefined || partitionOf(packet.instrument_token, partitions) !== partition) continue
    const { instrument_token, exchange_ts, day_volume, quote } = packet
    const key = `${instrument_token}/${tradingDay(exchange_ts)}`
    const day = days.get(key) ?? { at: 0, known: {} }
    days.set(key, day)
    const isBehind = day_volume !== undefined && day_volume < Number(day.known.day_volume ?? 0)
    if (exchange_ts < day.at || (exchange_ts === day.at && isBehind)) continue
    day.at = exchange_ts
    const said = Object.entries({ ...quote, day_volume }).filter(([, value]) => value !== undefined)
    const known = { ...day.known, ...Object.fromEntries(said.map(([name, value]) => [name, JSON.stringify(value)])) }
    if (FIELDS.every((name) => known[name] === day.known[name])) continue
    day.known = known
    meant.push({ offset: record.offset, instrument_token, exchange_ts, known })
  }
  return meant
}

/** What a quote says, JSON by field. */
export const saidOf = (quote: Partial<Record<string, unknown>>): Readonly<Record<string, string>> =>
  Object.fromEntries(FIELDS.flatMap((name) => (quote[name] === undefined ? [] : [[name, JSON.stringify(quote[name])]])))

export const isSame = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean =>
  FIELDS.every((name) => a[name] === b[name])

/** The quotes of one partition, as a reader took them, held to what the raw log says. */
export const settlePublished = (
  problems: Problems,
  partition: number,
  meant: ReadonlyArray<MeantQuote>,
  published: ReadonlyArray<Quote>
): void => {
  const left = new Map(meant.map((quote) => [quote.offset, quote]))
  for (const quote of published) {
    const offset = quote.source[1]
    const place = `${partition}/${offset} of ${quote.instrument_token}`
    const expected = left.get(offset)
    left.delete(offset)
    if (expected === undefined) problems.add("quotes: not meant", place)
    else if (
      expected.instrument_token !== quote.instrument_token ||
      expected.exchange_ts !== quote.exchange_ts ||
      !isSame(expected.known, saidOf({ ...quote }))
    ) {
      problems.add("quotes: altered", `${place}: ${JSON.stringify(saidOf({ ...quote }))}`)
    }
  }
  for (const { offset, instrument_token } of left.values()) {
    problems.add("quotes: lost", `${partition}/${offset} of ${instrument_token}`)
  }
}

/** By instrument and stamp the one that counts: the later published. */
export const byStamp = (quotes: ReadonlyArray<Quote>): ReadonlyMap<string, Quote> => {
  const found = new Map<string, Quote>()
  for (const quote of quotes) found.set(`${quote.instrument_token}/${quote.exchange_ts}`, quote)
  return found
}

/** By instrument the newest: the highest stamp, of one stamp the later published. */
export const newestQuotes = (quotes: ReadonlyArray<Quote>): ReadonlyMap<number, Quote> => {
  const newest = new Map<number, Quote>()
  for (const quote of quotes) {
    const known = newest.get(quote.instrument_token)
    if (known === undefined || quote.exchange_ts >= known.exchange_ts) newest.set(quote.instrument_token, quote)
  }
  return newest
}
