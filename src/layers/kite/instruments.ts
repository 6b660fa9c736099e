/**
 * Decides which instruments a feed asks Kite for: named one by one or by the exchange, as the broker's file has them, and
 * no more than its connections may have.
 */
import { Result } from "effect"
import { showValue } from "../../schema/Explain.ts"
import { type Instrument, isExchange } from "../../schema/Instrument.ts"
import { instrumentLines } from "../../schema/InstrumentFile.ts"
import { MAX_KITE_CONNECTIONS, MAX_KITE_INSTRUMENTS } from "../../schema/kite/messages.ts"
import { nearest } from "../../schema/Nearest.ts"
import { MAX_TOKEN } from "../../schema/RawValues.ts"

/** Instruments that one key may have, all its connections together. */
export const MAX_FEED_INSTRUMENTS = MAX_KITE_CONNECTIONS * MAX_KITE_INSTRUMENTS

/** What was asked for. */
export interface Asked {
  readonly tokens: ReadonlyArray<number>
  /** Such as NSE:INFY. */
  readonly symbols: ReadonlyArray<string>
  /** Each whole. */
  readonly exchanges: ReadonlyArray<string>
}

const WHOLE = /^\d{1,10}$/

/** Where a name was asked for, such as `--symbols`, for the sentence that refuses it. */
export type WhereOf = (name: string) => string

/** How a name is written that is not known. */
const HOW =
  "write it as Kite's instruments file has it, EXCHANGE:TRADINGSYMBOL such as NSE:INFY, or its instrument_token"

/** Reads names and tokens, however many; a sentence naming the first that is neither, and where it stood. */
export const readAsked = (
  names: ReadonlyArray<string>,
  exchanges: ReadonlyArray<string>,
  whereOf: WhereOf
): Asked | string => {
  const tokens: Array<number> = []
  const symbols: Array<string> = []
  for (const name of names) {
    if (WHOLE.test(name)) {
      const token = Number(name)
      if (token < 1 || token > MAX_TOKEN) {
        return `${whereOf(name)}: expected an instrument token from 1 to ${MAX_TOKEN}, got ${name}`
      }
      tokens.push(token)
    } else {
      const at = name.indexOf(":")
      const exchange = name.slice(0, at).toUpperCase()
      if (at < 1 || at === name.length - 1 || !isExchange(exchange)) {
        return `${whereOf(name)}: expected a symbol with its exchange such as NSE:INFY, or an instrument token, got ${showValue(name)}`
      }
      symbols.push(`${exchange}:${name.slice(at + 1)}`)
    }
  }
  for (const exchange of exchanges) {
    if (!isExchange(exchange)) return `--exchange: expected an exchange such as NSE, got ${showValue(exchange)}`
  }
  return { tokens, symbols, exchanges }
}

/** The names of a list: one a line, what follows # is a remark. */
export const listedIn = (text: string): ReadonlyArray<string> =>
  text
    .split(/\r?\n/)
    .map((line) => line.replace(/#.*$/, "").trim())
    .filter((line) => line !== "")

/** The exchanges whose instruments must be known. */
export const exchangesOf = ({ exchanges, symbols }: Asked): ReadonlyArray<string> => [
  ...new Set([...exchanges, ...symbols.map((symbol) => symbol.slice(0, symbol.indexOf(":")))])
]

export interface BrokerInstruments {
  readonly instruments: ReadonlyArray<Instrument>
  /** Lines that are no instrument. */
  readonly rejected: number
}

/** Reads the broker's file; a sentence where it is none. */
export const readInstruments = (text: string): BrokerInstruments | string => {
  const rows = text.split(/\r?\n/)
  const lines = instrumentLines(rows[0] ?? "")
  if (Result.isFailure(lines)) return lines.failure.message
  const instruments: Array<Instrument> = []
  let rejected = 0
  for (let i = 1; i < rows.length; i++) {
    if (rows[i] === "") continue
    const read = lines.success.read(rows[i]!, i + 1)
    if (typeof read === "string") rejected += 1
    else instruments.push(read)
  }
  return { instruments, rejected }
}

/** In any case, as people write them. */
const nameOf = ({ exchange, tradingsymbol }: Instrument): string => `${exchange}:${tradingsymbol}`.toUpperCase()

/** What is asked for, each once, as the broker knows it; tokens alone need not be known. A sentence where it is not to be had. */
export const chooseInstruments = (
  { exchanges, symbols, tokens }: Asked,
  known: ReadonlyArray<Instrument>,
  whereOf: WhereOf
): { readonly tokens: ReadonlyArray<number>; readonly known: ReadonlyArray<Instrument> } | string => {
  const wanted = new Set(exchanges)
  const byName = new Map(known.map((one) => [nameOf(one), one] as const))
  const byToken = new Map(known.map((one) => [one.instrument_token, one] as const))
  const chosen = new Map<number, Instrument | undefined>(tokens.map((token) => [token, byToken.get(token)]))
  for (const symbol of symbols) {
    const found = byName.get(symbol.toUpperCase())
    if (found === undefined) {
      const exchange = symbol.slice(0, symbol.indexOf(":") + 1)
      const near = nearest(
        symbol,
        [...byName.keys()].filter((name) => name.startsWith(exchange))
      )
      const hint = near === undefined ? HOW : `did you mean ${near}?`
      return `${whereOf(symbol)}: the broker's file has no instrument ${showValue(symbol)}; ${hint}`
    }
    chosen.set(found.instrument_token, found)
  }
  for (const one of known) if (wanted.has(one.exchange)) chosen.set(one.instrument_token, one)
  const none = exchanges.find((exchange) => !known.some((one) => one.exchange === exchange))
  if (none !== undefined) {
    const there = [...new Set(known.map(({ exchange }) => exchange))].sort().join(", ")
    const has = there === "" ? "" : `; it has those of ${there}`
    return `--exchange: the broker's file has no instrument of exchange ${none}${has}`
  }
  if (chosen.size > MAX_FEED_INSTRUMENTS) {
    return `--symbols, --file, --exchange: ${chosen.size} instruments are more than the ${MAX_FEED_INSTRUMENTS} that one key may have: ${MAX_KITE_CONNECTIONS} connections of ${MAX_KITE_INSTRUMENTS}`
  }
  return {
    tokens: [...chosen.keys()],
    known: [...chosen.values()].filter((one) => one !== undefined)
  }
}

/** As many parts as there are connections needed, in order and as even as they go. */
export const partsOf = (tokens: ReadonlyArray<number>): ReadonlyArray<ReadonlyArray<number>> => {
  const parts = Math.ceil(tokens.length / MAX_KITE_INSTRUMENTS)
  const size = Math.ceil(tokens.length / parts)
  return Array.from({ length: parts }, (_, i) => tokens.slice(i * size, (i + 1) * size))
}
