/**
 * Decides the text that Kite's ticker and its clients send one another, and how its REST answers are wrapped: requests
 * read within bounds, strings taken for numbers as some clients send them, errors by the names that clients look for.
 */
import { type Conceal, concealNothing, showGiven, showText, showValue } from "../Explain.ts"
import { MAX_TOKEN } from "../RawValues.ts"
import { KITE_MODES, type KiteMode } from "./packets.ts"

/** Instruments that one connection may have, and connections that one key may have at a time. */
export const MAX_KITE_INSTRUMENTS = 3000
export const MAX_KITE_CONNECTIONS = 3
/** Of a connection whose client has not asked for another. */
export const DEFAULT_KITE_MODE: KiteMode = "quote"

/** Larger texts are not read, of either side. */
export const MAX_KITE_TEXT_CHARS = 262_144
/** Of what a REST answer says is wrong. */
const MAX_MESSAGE_CHARS = 200
/** Instruments that one request names. */
const MAX_REQUESTED = 10_000

/** What a client asks of the ticker. */
export type KiteRequest =
  | { readonly a: "subscribe" | "unsubscribe"; readonly tokens: ReadonlyArray<number> }
  | { readonly a: "mode"; readonly mode: KiteMode; readonly tokens: ReadonlyArray<number> }

/** What a ticker says in text; `type` is `error` or `order`, `message`, or one that later servers have. */
export interface KiteText {
  readonly type: string
  readonly data: unknown
}

export const subscribeText = (tokens: ReadonlyArray<number>): string => `{"a":"subscribe","v":[${tokens.join()}]}`
export const unsubscribeText = (tokens: ReadonlyArray<number>): string => `{"a":"unsubscribe","v":[${tokens.join()}]}`
export const modeText = (mode: KiteMode, tokens: ReadonlyArray<number>): string =>
  `{"a":"mode","v":["${mode}",[${tokens.join()}]]}`

/** The text of a ticker's error; its data is always a string, which one client insists on. */
export const errorText = (message: string): string => `{"type":"error","data":${JSON.stringify(message)}}`
/** The text of a broker's notice to everybody. */
export const messageText = (message: string): string => `{"type":"message","data":${JSON.stringify(message)}}`
/** The text of a change of an order; its data is the order. */
export const orderText = (order: object): string => `{"type":"order","data":${JSON.stringify(order)}}`

const objectOf = (text: string, conceal = concealNothing): Readonly<Record<string, unknown>> | string => {
  if (text.length > MAX_KITE_TEXT_CHARS) {
    return `input: expected at most ${MAX_KITE_TEXT_CHARS} characters, got ${text.length}`
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return `input: expected JSON, got ${showGiven(conceal(text))}`
  }
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : `input: expected an object, got ${showValue(value, conceal)}`
}

const WHOLE = /^\d{1,10}$/

const tokensOf = (value: unknown, path: string): ReadonlyArray<number> | string => {
  if (!Array.isArray(value)) return `${path}: expected a list of instrument tokens, got ${showValue(value)}`
  if (value.length > MAX_REQUESTED) {
    return `${path}: expected at most ${MAX_REQUESTED} instrument tokens in one message, got ${value.length}`
  }
  const tokens: Array<number> = []
  for (let i = 0; i < value.length; i++) {
    const item: unknown = value[i]
    const token = typeof item === "string" && WHOLE.test(item) ? Number(item) : item
    if (!(Number.isInteger(token) && (token as number) >= 1 && (token as number) <= MAX_TOKEN)) {
      return `${path}.${i}: expected an instrument token, a whole number from 1 to ${MAX_TOKEN}, got ${showValue(item)}`
    }
    tokens.push(token as number)
  }
  return tokens
}

const isMode = (value: unknown): value is KiteMode => (KITE_MODES as ReadonlyArray<unknown>).includes(value)

/** Reads what a client asks; a sentence naming the field and the value where it is nothing that a ticker knows. */
export const readKiteRequest = (text: string): KiteRequest | string => {
  const read = objectOf(text)
  if (typeof read === "string") return read
  const { a, v } = read
  if (a === "subscribe" || a === "unsubscribe") {
    const tokens = tokensOf(v, "v")
    return typeof tokens === "string" ? tokens : { a, tokens }
  }
  if (a !== "mode") return `a: expected "subscribe", "unsubscribe" or "mode", got ${showValue(a)}`
  if (!Array.isArray(v) || v.length !== 2) return `v: expected [mode, [tokens]], got ${showValue(v)}`
  const [mode, listed]: ReadonlyArray<unknown> = v
  if (!isMode(mode)) return `v.0: expected "ltp", "quote" or "full", got ${showValue(mode)}`
  const tokens = tokensOf(listed, "v.1")
  return typeof tokens === "string" ? tokens : { a, mode, tokens }
}

/** Reads a ticker's text; a sentence naming the field and the value, as `conceal` leaves it, where it is none. */
export const readKiteText = (text: string, conceal: Conceal): KiteText | string => {
  const read = objectOf(text, conceal)
  if (typeof read === "string") return read
  const { type, data } = read
  return typeof type === "string" ? { type, data } : `type: expected text, got ${showValue(type, conceal)}`
}

/** The same for a person to read. */
export const describeKiteText = ({ type, data }: KiteText, conceal: Conceal): string =>
  `${type}: ${typeof data === "string" ? data : showValue(data, conceal)}`

/** The errors that clients look up by name, each with the code that its answer has. */
export const KITE_ERRORS = {
  TokenException: 403,
  PermissionException: 403,
  OrderException: 500,
  InputException: 400,
  DataException: 502,
  NetworkException: 503,
  GeneralException: 500
} as const
export type KiteErrorName = keyof typeof KITE_ERRORS

/** Who asks too often: clients know no name for it, and take the code. */
export const TOO_MANY_REQUESTS = { code: 429, name: "NetworkException" } as const

/** The JSON of an answer; `data` is JSON already. */
export const kiteSuccess = (data: string): string => `{"status":"success","data":${data}}`
export const kiteFailure = (name: KiteErrorName, message: string): string =>
  `{"status":"error","message":${JSON.stringify(message)},"error_type":"${name}","data":null}`

/** What a REST answer says. */
export type KiteAnswer =
  | { readonly ok: true; readonly data: unknown }
  | { readonly ok: false; readonly name: string; readonly message: string }

/** Reads a JSON answer, its name and message as `conceal` leaves them; a sentence where it is not wrapped as Kite's are. */
export const readKiteAnswer = (text: string, conceal: Conceal): KiteAnswer | string => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return `expected JSON, got ${showGiven(conceal(text))}`
  }
  const { status, data, message, error_type } = (value ?? {}) as Readonly<Record<string, unknown>>
  if (status === "success") return { ok: true, data }
  if (status !== "error") return `status: expected "success" or "error", got ${showValue(status, conceal)}`
  const name = typeof error_type === "string" ? showText(conceal(error_type)) : "GeneralException"
  const why = typeof message === "string" ? showText(conceal(message), MAX_MESSAGE_CHARS) : "no reason given"
  return { ok: false, name, message: why }
}
