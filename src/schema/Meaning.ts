/**
 * Decides what a token means on which day. Exchanges give a token that was one contract's to another later, and no file
 * says since when: each is of one day. So what is kept is who was seen, from the first of such days to the last, and what
 * holds in between follows from it: a contract holds until it expires, anything else until another is seen.
 */
import { fullSymbol, type Instrument } from "./Instrument.ts"
import { tradingDate } from "./Tick.ts"

/** An instrument that a token was seen to be, from one trading day to another (days since 1970), and no other between. */
export interface Sighting {
  readonly instrument: Instrument
  readonly first: number
  readonly last: number
}

/** An instrument that a token means from one trading day to another, both included; infinite where nothing ends it. */
export interface Meaning {
  readonly instrument: Instrument
  readonly from: number
  readonly through: number
}

/** Sightings kept of a token; full: drop-oldest. */
export const MAX_SIGHTINGS = 64

const MS_PER_DAY = 86_400_000

/** Whether two are the same but for the name, which each broker's file writes in its own way. */
const isSame = (a: Instrument, b: Instrument): boolean =>
  a.tradingsymbol === b.tradingsymbol &&
  a.exchange === b.exchange &&
  a.asset_class === b.asset_class &&
  a.tick_size === b.tick_size &&
  a.expiry === b.expiry &&
  a.strike === b.strike &&
  a.option_type === b.option_type &&
  a.lot_size === b.lot_size

const expiryDay = ({ expiry }: Instrument): number =>
  expiry === null ? Infinity : Date.parse(`${expiry}T00:00:00Z`) / MS_PER_DAY

/** The trading day on which a file of a day says that there is an instrument: a contract is there until it expires. */
const sightedOn = (instrument: Instrument, day: number): number => Math.min(day, expiryDay(instrument))

/**
 * The sightings of a token, ascending, with what a file of a day says of it. What another file said of that very day goes:
 * the later word counts.
 */
export const sighted = (before: ReadonlyArray<Sighting>, instrument: Instrument, fileDay: number): Array<Sighting> => {
  const day = sightedOn(instrument, fileDay)
  const parts: Array<Sighting> = []
  for (const one of before) {
    if (isSame(one.instrument, instrument) || day < one.first || day > one.last) {
      parts.push(one)
      continue
    }
    if (one.first < day) parts.push({ ...one, last: day - 1 })
    if (one.last > day) parts.push({ ...one, first: day + 1 })
  }
  const at = parts.findIndex(({ first }) => first > day)
  const later = at < 0 ? parts.length : at
  const earlier = parts[later - 1]
  const next = parts[later]
  let joined: Sighting = { instrument, first: day, last: day }
  let from = later
  let to = later
  if (earlier !== undefined && isSame(earlier.instrument, instrument)) {
    // The newest name is the one.
    joined = {
      instrument: day >= earlier.last ? instrument : earlier.instrument,
      first: earlier.first,
      last: Math.max(earlier.last, day)
    }
    from -= 1
  }
  if (next !== undefined && isSame(next.instrument, instrument)) {
    joined = { instrument: next.instrument, first: joined.first, last: next.last }
    to += 1
  }
  parts.splice(from, to - from, joined)
  return parts.slice(-MAX_SIGHTINGS)
}

/** What a token means, ascending: every day is in one of them. */
export const meaningsOf = (sightings: ReadonlyArray<Omit<Sighting, "last">>): ReadonlyArray<Meaning> => {
  const meanings: Array<Meaning> = []
  let from = -Infinity
  for (const [i, { instrument }] of sightings.entries()) {
    const next = sightings[i + 1]
    const through = next === undefined ? Infinity : Math.min(next.first - 1, expiryDay(instrument))
    meanings.push({ instrument, from, through })
    from = through + 1
  }
  return meanings
}

/**
 * Instruments that have one name, each with the trading day on which it was first seen: on an exchange a name means one
 * at a time, so each holds until another is seen. Those first seen on the same day stand beside each other.
 */
export const inTurn = (
  seen: ReadonlyArray<{ readonly meaning: Meaning; readonly first: number }>
): ReadonlyArray<Meaning> => {
  const inOrder = seen.toSorted((a, b) => a.first - b.first)
  return inOrder.map(({ first, meaning }) => {
    const next = inOrder.find((one) => one.first > first)
    const before = inOrder.findLast((one) => one.first < first)
    // Whatever came before ends on the day before this one was seen, at the latest.
    const from =
      before === undefined ? meaning.from : Math.max(meaning.from, Math.min(before.meaning.through + 1, first))
    return { ...meaning, from, through: Math.min(meaning.through, next === undefined ? Infinity : next.first - 1) }
  })
}

/** Whether an instrument is over on a trading day. */
export const isExpired = (instrument: Instrument, day: number): boolean => expiryDay(instrument) < day

/** `NFO:NIFTY25JULFUT (13795330) through 2025-07-31`. */
export const describeMeaning = ({ from, instrument, through }: Meaning): string => {
  const since = from === -Infinity ? "" : ` from ${tradingDate(from)}`
  const until = through === Infinity ? "" : ` through ${tradingDate(through)}`
  return `${fullSymbol(instrument)} (${instrument.instrument_token})${since}${until}`
}
