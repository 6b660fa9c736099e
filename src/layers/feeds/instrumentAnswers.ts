/**
 * Decides how a symbol of a file becomes a token, and how finely its price moves: a running instance is asked, as of the
 * day of the row.
 */
import { Effect } from "effect"
import { FeedError } from "../../schema/Errors.ts"
import { showValue } from "../../schema/Explain.ts"
import { tradingDate } from "../../schema/Tick.ts"
import { dayOfDate } from "../../schema/Time.ts"
import type { InstanceAnswer } from "./Instance.ts"

/** Of a search, enough for every exchange that has the symbol. */
const ASKED = 50
/** Of those that a symbol may mean, named in a refusal. */
const MAX_NAMED = 5

/** What holds from one trading day (since 1970) to another, both included. */
export interface OfDays<A> {
  readonly is: A
  readonly from: number
  readonly through: number
}

interface Dated {
  readonly valid_from?: unknown
  readonly valid_through?: unknown
}

interface Found extends Dated {
  readonly instrument_token: number
  readonly tradingsymbol: string
  readonly exchange: string
}

const dayIn = (date: unknown, otherwise: number): number =>
  (typeof date === "string" ? dayOfDate(date) : undefined) ?? otherwise

/** An answer of the days that an instance says it is of. */
const dated = <A>(is: A, { valid_from, valid_through }: Dated): OfDays<A> => ({
  is,
  from: dayIn(valid_from, -Infinity),
  through: dayIn(valid_through, Infinity)
})

const asOf = (day: number): string | undefined => {
  const date = Number.isFinite(day) ? tradingDate(day) : ""
  return dayOfDate(date) === undefined ? undefined : date
}

const isFound = (one: unknown): one is Found => {
  const { exchange, instrument_token, tradingsymbol } = (one ?? {}) as Partial<Found>
  return typeof instrument_token === "number" && typeof tradingsymbol === "string" && typeof exchange === "string"
}

const foundIn = ({ body }: InstanceAnswer): ReadonlyArray<Found> => {
  const { instruments } = (body ?? {}) as { readonly instruments?: unknown }
  return Array.isArray(instruments) ? instruments.filter(isFound) : []
}

/** A symbol apart from its exchange: NSE:SBIN, and SBIN.NSE or NIFTY 50.NSE_IDX, as vendors write it. */
export const symbolParts = (symbol: string): { readonly symbol: string; readonly exchange: string | undefined } => {
  const ours = /^([A-Za-z0-9]{1,10}):(.+)$/.exec(symbol)
  if (ours !== null) return { exchange: ours[1]!.toUpperCase(), symbol: ours[2]! }
  const theirs = /^(.+)\.(NSE|BSE|NFO|BFO|CDS|BCD|MCX)(_IDX)?$/i.exec(symbol)
  if (theirs !== null) return { exchange: theirs[2]!.toUpperCase(), symbol: theirs[1]! }
  return { exchange: undefined, symbol }
}

type Ask = (path: string) => Effect.Effect<InstanceAnswer, FeedError>

/** The token of a symbol on a trading day (since 1970), told or asked for; a sentence where it has none, or several. */
export const tokenOf = (
  text: string,
  day: number,
  told: ReadonlyMap<string, number>,
  ask: Ask
): Effect.Effect<OfDays<number | string>, FeedError> => {
  const known = told.get(text.toLowerCase())
  if (known !== undefined) return Effect.succeed({ is: known, from: -Infinity, through: Infinity })
  const { exchange, symbol } = symbolParts(text)
  const where = exchange === undefined ? "" : `&exchange=${encodeURIComponent(exchange)}`
  const date = asOf(day)
  const when = date === undefined ? "" : `&as_of=${date}`
  const path = `/api/v1/instruments/search?query=${encodeURIComponent(symbol)}${where}${when}&limit=${ASKED}`
  return Effect.flatMap(ask(path), (answer): Effect.Effect<OfDays<number | string>, FeedError> => {
    // Of an exchange that it has nothing of, an instance answers 400.
    if (answer.status !== 200 && !(answer.status === 400 && exchange !== undefined)) {
      return new FeedError({ message: `the instance answered ${answer.status} to a search for ${showValue(symbol)}` })
    }
    const all = foundIn(answer).filter(({ tradingsymbol }) => tradingsymbol.toLowerCase() === symbol.toLowerCase())
    const [only] = all
    if (only !== undefined && all.length === 1) return Effect.succeed(dated(only.instrument_token, only))
    const ofDay = (is: string) => Effect.succeed({ is, from: day, through: day })
    if (only === undefined) {
      const on = date === undefined ? "" : ` on ${date}`
      return ofDay(`expected the symbol of an instrument that the instance knows${on}, or --tokens SYMBOL=TOKEN`)
    }
    const names = all.slice(0, MAX_NAMED).map((one) => `${one.exchange}:${one.tradingsymbol}`)
    return ofDay(`expected one instrument, not ${names.join(" or ")}`)
  })
}

/** Rupees by which the price of a token moves on a trading day (since 1970); 0 where the instance does not say. */
export const tickSizeOf = (token: number, day: number, ask: Ask): Effect.Effect<OfDays<number>, FeedError> => {
  const date = asOf(day)
  return Effect.map(
    ask(`/api/v1/instruments/${token}${date === undefined ? "" : `?as_of=${date}`}`),
    ({ body, status }) => {
      const one = (body ?? {}) as Dated & { readonly tick_size?: unknown }
      const { tick_size: size } = one
      return dated(status === 200 && typeof size === "number" && size > 0 ? size : 0, one)
    }
  )
}
