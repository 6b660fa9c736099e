/**
 * Decides what an API key is: a name, what it may do, which instruments it is for, until when, and how a file keeps it.
 * The key itself is kept nowhere: only its hash.
 */
import { Result, Schema } from "effect"
import { explain, showValue } from "./Explain.ts"
import { fullSymbol, type Instrument, isExchange, MAX_SYMBOL_CHARS } from "./Instrument.ts"
import { KEY_ID_CHARS } from "./keyText.ts"
import { isPrintable } from "./printable.ts"
import { MAX_TOKEN } from "./RawValues.ts"
import { isTime, parseIso } from "./Time.ts"

/** `read` what there is, `write` ticks, instruments and dead letters, `replay` stored days. */
export const SCOPES = ["read", "write", "replay"] as const
export const Scope = Schema.Literals(SCOPES)
export type Scope = typeof Scope.Type

/** Keys that a file holds, those that are over too. */
export const MAX_KEYS = 1_000
export const MAX_KEY_NAME_CHARS = 64
/** Entries in the list of one key. */
export const MAX_KEY_INSTRUMENTS = 10_000
/** A larger file is not read. */
export const MAX_KEYS_FILE_BYTES = 4_194_304
const MAX_ENTRY_CHARS = MAX_SYMBOL_CHARS + 11

const KEY_NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]*$/
export const KEY_NAME_WANTED = `a name of 1 to ${MAX_KEY_NAME_CHARS} letters, digits and . _ @ -, a letter or digit first`
/** Whether a text may name a key: it goes into logs and labels of figures as it is. */
export const isKeyName = (text: string): boolean => text.length <= MAX_KEY_NAME_CHARS && KEY_NAME.test(text)

/** A token, `EXCHANGE:SYMBOL`, or `EXCHANGE:*` for all of an exchange. */
export const KEY_INSTRUMENT_WANTED = "a token, EXCHANGE:SYMBOL or EXCHANGE:*"
export const isKeyInstrument = (text: string): boolean => {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text) <= MAX_TOKEN
  const colon = text.indexOf(":")
  const symbol = text.slice(colon + 1)
  return (
    colon > 0 &&
    text.length <= MAX_ENTRY_CHARS &&
    isExchange(text.slice(0, colon)) &&
    symbol !== "" &&
    symbol.trim() === symbol &&
    (symbol === "*" || !symbol.includes("*")) &&
    isPrintable(symbol)
  )
}

const text = (isRight: (text: string) => boolean, wanted: string) =>
  Schema.String.pipe(
    Schema.check(Schema.makeFilter((text: string) => isRight(text) || `Expected ${wanted}`, { expected: wanted }))
  )
const Instant = text((iso) => isTime(parseIso(iso)), "a time such as 2026-01-15T03:45:00Z")
const hex = (chars: number, wanted: string) => text((t) => t.length === chars && /^[0-9a-f]+$/.test(t), wanted)

/** Lists are long: looked through by hand, ten times faster than by a schema of each entry. */
const instrumentsProblem = (list: unknown): string | undefined => {
  if (!Array.isArray(list) || list.length === 0 || list.length > MAX_KEY_INSTRUMENTS) {
    return `Expected a list of 1 to ${MAX_KEY_INSTRUMENTS} instruments`
  }
  const wrong = list.find((entry) => typeof entry !== "string" || !isKeyInstrument(entry))
  return wrong === undefined
    ? undefined
    : `Expected each to be ${KEY_INSTRUMENT_WANTED}, which ${showValue(wrong)} is not`
}
const Instruments = Schema.declare((list): list is ReadonlyArray<string> => Array.isArray(list)).pipe(
  Schema.check(Schema.makeFilter((list: ReadonlyArray<string>) => instrumentsProblem(list) ?? true))
)

/** A key as the file keeps it. Times are ISO-8601 with an offset. */
export const StoredKey = Schema.Struct({
  name: text(isKeyName, KEY_NAME_WANTED),
  /** The part of the key that finds it, and that may be shown. */
  id: hex(KEY_ID_CHARS, `${KEY_ID_CHARS} hexadecimal digits`),
  /** SHA-256 of the key. */
  hash: hex(64, "SHA-256 in hexadecimal digits"),
  scopes: Schema.Array(Scope).pipe(Schema.check(Schema.isBetweenLength(1, SCOPES.length))),
  /** Absent: every instrument. */
  instruments: Schema.optionalKey(Instruments),
  created: Instant,
  expires: Schema.optionalKey(Instant),
  revoked: Schema.optionalKey(Instant)
})
export type StoredKey = typeof StoredKey.Type

export const KEYS_VERSION = 1
const KeysFile = Schema.Struct({
  version: Schema.Literal(KEYS_VERSION),
  keys: Schema.Array(StoredKey).pipe(Schema.check(Schema.isMaxLength(MAX_KEYS)))
})
const decodeKeysFile = Schema.decodeUnknownResult(KeysFile, { onExcessProperty: "error" })

/** Epoch milliseconds of a time in the file. */
export const millisOf = (iso: string): number => parseIso(iso)! / 1000

/** Why a key is over at a time (epoch milliseconds); `undefined`: it lives. */
export const endOf = (key: Pick<StoredKey, "expires" | "revoked">, now: number): "revoked" | "expired" | undefined => {
  if (key.revoked !== undefined) return "revoked"
  return key.expires !== undefined && millisOf(key.expires) <= now ? "expired" : undefined
}

/**
 * Reads the text of a keys file, as of a time in epoch milliseconds. It fails with what is wrong, in words: also with a
 * member that nobody reads, such as `expire`, since what it asks for would be left out without a word.
 */
export const readKeysFile = (content: string, now: number): Result.Result<ReadonlyArray<StoredKey>, string> => {
  let value: unknown
  try {
    value = JSON.parse(content)
  } catch {
    return Result.fail(`expected JSON, got ${content.length} characters that are none`)
  }
  const decoded = decodeKeysFile(value)
  if (Result.isFailure(decoded)) return Result.fail(explain(decoded.failure.issue, value).message)
  const { keys } = decoded.success
  const ids = new Set<string>()
  const names = new Set<string>()
  for (const [i, key] of keys.entries()) {
    const { id, name } = key
    if (ids.has(id)) return Result.fail(`keys.${i}.id: expected another one than those before, got ${id}`)
    ids.add(id)
    // Names of those that are over may come again.
    if (endOf(key, now) !== undefined) continue
    if (names.has(name)) return Result.fail(`keys.${i}.name: expected a name that no other key has, got ${name}`)
    names.add(name)
  }
  return Result.succeed(keys)
}

export const writeKeysFile = (keys: ReadonlyArray<StoredKey>): string =>
  `${JSON.stringify({ version: KEYS_VERSION, keys }, undefined, 2)}\n`

/** The instruments that a list names. */
export class InstrumentList {
  readonly tokens = new Set<number>()
  /** `EXCHANGE:SYMBOL`, in upper case. */
  readonly symbols = new Set<string>()
  /** Those that are in it wholly. */
  readonly exchanges = new Set<string>()

  constructor(entries: ReadonlyArray<string>) {
    for (const entry of entries) {
      if (!entry.includes(":")) this.tokens.add(Number(entry))
      else if (entry.endsWith(":*")) this.exchanges.add(entry.slice(0, -2))
      else this.symbols.add(entry.toUpperCase())
    }
  }

  /** Whether the exchange that a symbol names is in it wholly. */
  hasAllOf(symbol: string): boolean {
    return this.exchanges.has(symbol.slice(0, Math.max(0, symbol.indexOf(":"))).toUpperCase())
  }

  /** `instrument` is the one that has the token now, where any has. */
  has(token: number, instrument: Instrument | undefined): boolean {
    if (this.tokens.has(token)) return true
    if (instrument === undefined) return false
    return (
      this.exchanges.has(instrument.exchange) ||
      (this.symbols.size > 0 && this.symbols.has(fullSymbol(instrument).toUpperCase()))
    )
  }
}
