/** Decides how a symbol of a file becomes a token, and how finely its price moves: a running instance is asked. */
import { Effect } from "effect"
import { FeedError } from "../../schema/Errors.ts"
import { showValue } from "../../schema/Explain.ts"
import type { InstanceAnswer } from "./Instance.ts"

/** Of a search, enough for every exchange that has the symbol. */
const ASKED = 50
/** Of those that a symbol may mean, named in a refusal. */
const MAX_NAMED = 5

interface Found {
  readonly instrument_token: number
  readonly tradingsymbol: string
  readonly exchange: string
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

/** The token of a symbol, told or asked for; a sentence where it has none, or several. */
export const tokenOf = (
  text: string,
  told: ReadonlyMap<string, number>,
  ask: Ask
): Effect.Effect<number | string, FeedError> => {
  const known = told.get(text.toLowerCase())
  if (known !== undefined) return Effect.succeed(known)
  const { exchange, symbol } = symbolParts(text)
  const where = exchange === undefined ? "" : `&exchange=${encodeURIComponent(exchange)}`
  const path = `/api/v1/instruments/search?query=${encodeURIComponent(symbol)}${where}&limit=${ASKED}`
  return Effect.flatMap(ask(path), (answer): Effect.Effect<number | string, FeedError> => {
    // Of an exchange that it has nothing of, an instance answers 400.
    if (answer.status !== 200 && !(answer.status === 400 && exchange !== undefined)) {
      return new FeedError({ message: `the instance answered ${answer.status} to a search for ${showValue(symbol)}` })
    }
    const all = foundIn(answer).filter(({ tradingsymbol }) => tradingsymbol.toLowerCase() === symbol.toLowerCase())
    if (all.length === 1) return Effect.succeed(all[0]!.instrument_token)
    if (all.length === 0) {
      return Effect.succeed("expected the symbol of an instrument that the instance knows, or --tokens SYMBOL=TOKEN")
    }
    const names = all.slice(0, MAX_NAMED).map((one) => `${one.exchange}:${one.tradingsymbol}`)
    return Effect.succeed(`expected one instrument, not ${names.join(" or ")}`)
  })
}

/** Rupees by which the price of a token moves; 0 where the instance does not say. */
export const tickSizeOf = (token: number, ask: Ask): Effect.Effect<number, FeedError> =>
  Effect.map(ask(`/api/v1/instruments/${token}`), ({ body, status }) => {
    const size = ((body ?? {}) as { readonly tick_size?: unknown }).tick_size
    return status === 200 && typeof size === "number" && size > 0 ? size : 0
  })
