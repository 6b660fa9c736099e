/**
 * Decides how a normalized tick is read from the very JSON that `encodeTick` writes: in its order, without a blank, and
 * with no object made beside the tick. Every sink and server reads each tick so. What is written in any other way is
 * left to `JSON.parse`.
 */
import { MAX_PRICE } from "./RawValues.ts"
import type { Sequencing, Tick, TickStatus } from "./Tick.ts"
import { MAX_MICROS, MIN_MICROS } from "./Time.ts"

export const MAX_SESSION = 32_767

/** Four bytes or more, compared four at a time: the last four may overlap those before. */
interface Literal {
  readonly length: number
  readonly words: ReadonlyArray<number>
}

const literal = (text: string): Literal => {
  const bytes = new TextEncoder().encode(text)
  const view = new DataView(bytes.buffer)
  const words: Array<number> = []
  for (let i = 0; i + 4 < bytes.length; i += 4) words.push(view.getInt32(i))
  words.push(view.getInt32(bytes.length - 4))
  return { length: bytes.length, words }
}

const TOKEN = literal(`{"instrument_token":`)
const EXCHANGE_TS = literal(`,"exchange_ts":`)
const PRICE = literal(`,"price":`)
const VOLUME = literal(`,"volume":`)
const SEQUENCE_ID = literal(`,"sequence_id":`)
const STATUS = literal(`,"status":"`)
const GAP_FROM = literal(`"gap_from":`)
const SESSION = literal(`"session":`)
const SEQUENCING = literal(`,"sequencing":"`)
const EPOCH = literal(`,"epoch":`)
const POSITION = literal(`,"position":`)
const FEED = literal(`,"feed":"`)
const RECEIVED_TS = literal(`,"received_ts":`)
const SOURCE = literal(`,"source":["`)
const OLD = literal(`,"old":true}`)

const [QUOTE, COMMA, MINUS, POINT, ZERO, NINE] = [0x22, 0x2c, 0x2d, 0x2e, 0x30, 0x39]
const [BACKSLASH, BRACKET, BRACE, G, BLANK, TILDE] = [0x5c, 0x5d, 0x7d, 0x67, 0x20, 0x7e]

/** A decimal of so many digits is digits / 10ⁿ to the last bit, since a double holds both exactly (Clinger 1990). */
const MAX_PRICE_DIGITS = 15
const TENS = Array.from({ length: MAX_PRICE_DIGITS }, (_, n) => 10 ** n)

/** A name, and what it is with its closing quote. */
interface Known<Name extends string> {
  readonly name: Name
  readonly text: Literal
}

const known = <Name extends string>(name: Name): Known<Name> => ({ name, text: literal(`${name}"`) })
const STATUSES: ReadonlyArray<Known<TickStatus>> = [known("LIVE"), known("STALE")]
const SEQUENCINGS: ReadonlyArray<Known<Sequencing>> = [known("contiguous"), known("monotonic"), known("none")]

/** Names of feeds and of incarnations that were met, so that none is made again for each tick; full: drop-oldest. */
const MAX_NAMES = 8
const feeds: Array<Known<string>> = []
const incarnations: Array<Known<string>> = []
/** A literal has four bytes, the quote among them. */
const MIN_KNOWN_BYTES = 3
export const MAX_NAME_CHARS = 128

/** What is read: `view` shows the memory that the record lies in, and others of its batch; nothing awaits meanwhile. */
let view: DataView = new DataView(new ArrayBuffer(0))
/** How far it is read, and where it ends; -1 once something else was found than was looked for. */
let at = 0
let end = 0

const skip = ({ length, words }: Literal): boolean => {
  if (at < 0 || at + length > end) return false
  const last = words.length - 1
  for (let i = 0; i < last; i++) if (view.getInt32(at + 4 * i) !== words[i]) return false
  if (view.getInt32(at + length - 4) !== words[last]) return false
  at += length
  return true
}

const expect = (text: Literal): void => {
  if (!skip(text)) at = -1
}

/** The byte here, and on to the next. */
const next = (): number => (at < 0 || at >= end ? -1 : view.getUint8(at++))

const peek = (ahead: number): number => (at < 0 || at + ahead >= end ? -1 : view.getUint8(at + ahead))

/** A whole number that a double holds exactly, as JSON writes it: no zero in front. */
const integer = (): number => {
  if (at < 0) return 0
  const isNegative = peek(0) === MINUS
  const first = isNegative ? at + 1 : at
  let to = first
  let value = 0
  for (; to < end; to++) {
    const digit = view.getUint8(to)
    if (digit < ZERO || digit > NINE) break
    value = value * 10 + (digit - ZERO)
  }
  const isSound = to > first && value <= Number.MAX_SAFE_INTEGER && (to === first + 1 || view.getUint8(first) !== ZERO)
  at = isSound ? to : -1
  return isNegative ? -value : value
}

const decimal = (): number => {
  if (at < 0) return 0
  const isNegative = peek(0) === MINUS
  const first = isNegative ? at + 1 : at
  let point = -1
  let to = first
  let value = 0
  for (; to < end; to++) {
    const byte = view.getUint8(to)
    if (byte >= ZERO && byte <= NINE) value = value * 10 + (byte - ZERO)
    else if (byte === POINT && point < 0) point = to
    else break
  }
  const whole = (point < 0 ? to : point) - first
  const decimals = point < 0 ? 0 : to - point - 1
  const isSound =
    whole > 0 &&
    (whole === 1 || view.getUint8(first) !== ZERO) &&
    (point < 0 || decimals > 0) &&
    whole + decimals <= MAX_PRICE_DIGITS
  at = isSound ? to : -1
  if (!isSound) return 0
  if (decimals > 0) value /= TENS[decimals]!
  return isNegative ? -value : value
}

const oneOf = <Name extends string>(names: ReadonlyArray<Known<Name>>): Name | undefined => {
  for (let i = 0; i < names.length; i++) if (skip(names[i]!.text)) return names[i]!.name
  return undefined
}

/** A name of printable ASCII, with its closing quote. */
const nameOf = (names: Array<Known<string>>): string => {
  const met = oneOf(names)
  if (met !== undefined || at < 0) return met ?? ""
  let name = ""
  for (let byte = next(); byte !== QUOTE; byte = next()) {
    if (byte < BLANK || byte > TILDE || byte === BACKSLASH || name.length === MAX_NAME_CHARS) {
      at = -1
      return ""
    }
    name += String.fromCharCode(byte)
  }
  if (name.length >= MIN_KNOWN_BYTES) {
    if (names.length === MAX_NAMES) names.shift()
    names.push(known(name))
  }
  return name
}

/** The tick of a record; `undefined` where its bytes are not just what `encodeTick` writes of a valid one. */
export const readTickBytes = (record: Uint8Array): Tick | undefined => {
  if (view.buffer !== record.buffer) view = new DataView(record.buffer)
  at = record.byteOffset
  end = at + record.length
  expect(TOKEN)
  const instrument_token = integer()
  expect(EXCHANGE_TS)
  const exchange_ts = integer()
  expect(PRICE)
  const price = decimal()
  expect(VOLUME)
  const volume = integer()
  expect(SEQUENCE_ID)
  const sequence_id = integer()
  expect(STATUS)
  const status = oneOf(STATUSES)
  if (status === undefined || next() !== COMMA) return undefined
  let gap_from = 0
  if (peek(1) === G) {
    expect(GAP_FROM)
    gap_from = integer()
    if (next() !== COMMA) return undefined
  }
  expect(SESSION)
  const session = integer()
  expect(SEQUENCING)
  const sequencing = oneOf(SEQUENCINGS)
  if (sequencing === undefined) return undefined
  expect(EPOCH)
  const epoch = integer()
  expect(POSITION)
  const position = integer()
  expect(FEED)
  const feed = nameOf(feeds)
  expect(RECEIVED_TS)
  const received_ts = integer()
  expect(SOURCE)
  const incarnation = nameOf(incarnations)
  if (next() !== COMMA) return undefined
  const offset = integer()
  if (next() !== COMMA) return undefined
  const index = integer()
  if (next() !== BRACKET) return undefined
  const old = peek(0) === COMMA
  if (old) expect(OLD)
  else if (next() !== BRACE) return undefined
  if (
    at !== end ||
    (instrument_token | 0) !== instrument_token ||
    !(exchange_ts >= MIN_MICROS && exchange_ts <= MAX_MICROS) ||
    !(price >= -MAX_PRICE && price <= MAX_PRICE) ||
    !(session >= 0 && session <= MAX_SESSION) ||
    (index | 0) !== index
  )
    return undefined
  return {
    instrument_token,
    exchange_ts,
    price,
    volume,
    sequence_id,
    status,
    gap_from,
    session,
    sequencing,
    epoch,
    position,
    feed,
    received_ts,
    source: [incarnation, offset, index],
    old
  }
}
