/**
 * Decides which instruments a search finds and in which order. Each word that is typed, in any order, begins a word of
 * symbol, name, exchange, expiry, strike or kind; two words may be one of the instrument's, and one may be two. First
 * is the exact symbol, then indices and equities, then what is derived from them: the nearest expiry, strikes near the
 * last price; what has expired goes last, and before it what has a word only in the middle of one of its own.
 */
import type { AssetClass, Instrument } from "../../schema/Instrument.ts"
import { nearest } from "../../schema/Nearest.ts"
import type { InstrumentSearch } from "../../streams/ports/Instruments.ts"
import { pause, type Slices, sorted } from "../../streams/run/slices.ts"
import { FirstOf } from "./firstOf.ts"
import { compact, contractsOf, rootOf, sameWords, typedWords, wordsOf, wordsOfExpiry, wordsOfKind } from "./words.ts"
import {
  firstNot,
  hasBeginning,
  marking,
  markingAnywhere,
  tabulating,
  VISITS_A_SLICE,
  type WordTable,
  Work
} from "./wordTable.ts"

/** Characters of a search that are looked at; no name is as long. */
const MAX_QUERY_CHARS = 400
/** Words of a search that are looked at: each has a bit in every byte of a mask. */
const MAX_PARTS = 8
/** Shorter words are not looked for in the middle of others: nearly all have them. */
const MIN_MIDDLE_CHARS = 3
/** Shorter words are not taken for one with another. */
const MIN_JOINED_CHARS = 2
/** Words on either side of one that nobody has, among which it may be meant. */
const NEIGHBOURS = 50

/** Visits that a look at an instrument counts for. */
const LOOK_VISITS = 4

/** Exchanges in the order in which they are named; others follow, by name. */
const EXCHANGES = ["NSE", "BSE", "NFO", "BFO", "MCX", "CDS", "BCD"]

// The bytes of a mask say how the words of a search were met: whole, as a beginning (or whole), in any way, and in
// what is the instrument's own, not its name alone.
const BEGINS = 8
const MET = 16
const OWN = 24

const WHOLE = 0x0101_0101
const WHOLE_OF_NAME = 0x0001_0101
const BEGINNING = 0x0101_0100
const BEGINNING_OF_NAME = 0x0001_0100
const ANYWHERE = 0x0001_0000

/** Days to 0001-01-01, and more than lie between it and 9999-12-31. */
const FIRST_DAY = -719_162
const DAYS = 4_194_304
/** More than twice a word that is not whole and once one of the name alone, for each of `MAX_PARTS`. */
const QUALITIES = 32
/** In the order of what is found, the first that has expired and is not the exact symbol. */
const EXPIRED = (1 * 2 + 1) * 2 * 2 * QUALITIES * DAYS * 2
const MS_PER_DAY = 86_400_000

interface Underlying {
  /** What it is traded as itself, then its futures by expiry. */
  readonly prices: ReadonlyArray<{ readonly token: number; readonly expiry: string | null }>
  /** The middle of its strikes. */
  readonly middle: number
}

interface Columns {
  /** By symbol, in letters and digits alone. */
  readonly instruments: ReadonlyArray<Instrument>
  readonly symbols: ReadonlyArray<string>
  /** Neighbours with the same root and name; the last place is the number of instruments. */
  readonly runStarts: Uint32Array
  /** The number of their text, by run. */
  readonly texts: Uint32Array
  /** By instrument. */
  readonly exchange: Uint32Array
  readonly kind: Uint32Array
  readonly expiry: Uint32Array
  readonly strike: Uint32Array
  /** By text, of those that have options. */
  readonly underlyings: ReadonlyMap<number, Underlying>
  readonly exchanges: ReadonlyArray<string>
  /** What a kind is, by its number. */
  readonly classes: ReadonlyArray<AssetClass>
  /** An expiry and its day from 0 on, by its number; "" and a day after all others where there is none. */
  readonly expiries: ReadonlyArray<string>
  readonly days: Uint32Array
  /** Rupees of a strike, by its number. */
  readonly strikes: Float64Array
  /** Words of roots and of names, by text, and of the others by their numbers. */
  readonly ofSymbols: WordTable
  readonly ofNames: WordTable
  readonly ofExchanges: WordTable
  readonly ofKinds: WordTable
  readonly ofExpiries: WordTable
  readonly ofStrikes: WordTable
}

export interface InstrumentIndex {
  /** Those that instruments are of, the best known first. */
  readonly exchanges: ReadonlyArray<string>
  readonly searching: (search: InstrumentSearch) => Slices<ReadonlyArray<Instrument>>
  /** What may be meant by a symbol that nothing has. */
  readonly nearest: (
    symbol: string,
    search: Omit<InstrumentSearch, "query" | "limit">
  ) => Slices<Instrument | undefined>
}

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** Gives each distinct key the next number. */
class Numbers {
  readonly keys: Array<string> = []
  private readonly ids = new Map<string, number>()

  of(key: string): number {
    const known = this.ids.get(key)
    if (known !== undefined) return known
    this.ids.set(key, this.keys.length)
    return this.keys.push(key) - 1
  }
}

const SEPARATOR = "\n"

const dayOf = (expiry: string): number => Date.parse(`${expiry}T00:00:00Z`) / MS_PER_DAY - FIRST_DAY + 1

/** Where options' prices are to be had: of the underlying itself, else of its futures. */
function* underlyingsOf(
  list: ReadonlyArray<Instrument>,
  roots: ReadonlyArray<string>,
  textOf: (id: number) => number
): Slices<ReadonlyMap<number, Underlying>> {
  const spots = new Map<string, Instrument>()
  const futures = new Map<number, Array<Instrument>>()
  const strikes = new Map<number, Array<number>>()
  for (const [id, one] of list.entries()) {
    if (one.asset_class === "FUT" || one.asset_class === "OPT") {
      const text = textOf(id)
      const kept: Map<number, Array<Instrument | number>> = one.asset_class === "FUT" ? futures : strikes
      const value = one.asset_class === "FUT" ? one : (one.strike ?? 0)
      const same = kept.get(text)
      if (same === undefined) kept.set(text, [value])
      else same.push(value)
    } else {
      for (const name of [one.tradingsymbol, contractsOf(one)]) {
        if (name === undefined) continue
        const known = spots.get(name)
        const isBetter = one.asset_class === "INDEX" ? known?.asset_class !== "INDEX" : known?.exchange === "BSE"
        if (known === undefined || isBetter) spots.set(name, one)
      }
    }
    if (pause(id)) yield
  }
  const underlyings = new Map<number, Underlying>()
  for (const [text, all] of strikes) {
    const inOrder = yield* sorted(all, (a, b) => a - b)
    const spot = spots.get(roots[text]!)
    const later = (futures.get(text) ?? []).toSorted((a, b) => compareText(a.expiry ?? "", b.expiry ?? ""))
    underlyings.set(text, {
      prices: [...(spot === undefined ? [] : [spot]), ...later].map(({ expiry, instrument_token: token }) => ({
        token,
        expiry
      })),
      middle: inOrder[inOrder.length >> 1]!
    })
  }
  return underlyings
}

/** Builds the index of a list, in slices: about 0.5 s in all for the hundred thousand contracts of a broker's file. */
function* columnsOf(unsorted: Iterable<Instrument>): Slices<Columns> {
  const withSymbols: Array<{ readonly symbol: string; readonly one: Instrument }> = []
  for (const one of unsorted) {
    withSymbols.push({ symbol: compact(one.tradingsymbol), one })
    if (pause(withSymbols.length)) yield
  }
  const inOrder = yield* sorted(withSymbols, (a, b) => compareText(a.symbol, b.symbol))
  const instruments: Array<Instrument> = []
  const symbols: Array<string> = []
  const exchanges = new Set<string>()
  for (const { one, symbol } of inOrder) {
    instruments.push(one)
    symbols.push(symbol)
    exchanges.add(one.exchange)
    if (pause(symbols.length)) yield
  }
  const known = EXCHANGES.filter((name) => exchanges.delete(name))
  const exchangeIds = new Numbers()
  for (const name of [...known, ...[...exchanges].sort()]) exchangeIds.of(name)
  const textIds = new Numbers()
  const roots: Array<string> = []
  const names: Array<string> = []
  const extras: Array<string> = []
  const kinds = new Numbers()
  const expiries = new Numbers()
  const strikes = new Numbers()
  // Of what has neither: they have no words.
  expiries.of("")
  strikes.of("")
  const { length } = instruments
  const exchange = new Uint32Array(length)
  const kind = new Uint32Array(length)
  const expiry = new Uint32Array(length)
  const strike = new Uint32Array(length)
  const text = new Uint32Array(length)
  for (const [id, one] of instruments.entries()) {
    const root = rootOf(one)
    const also = contractsOf(one) ?? ""
    text[id] = textIds.of([root, one.name ?? "", also].join(SEPARATOR))
    roots[text[id]!] = root
    names[text[id]!] = one.name ?? ""
    extras[text[id]!] = also
    exchange[id] = exchangeIds.of(one.exchange)
    kind[id] = kinds.of(`${one.asset_class} ${one.option_type ?? ""}`)
    expiry[id] = expiries.of(one.expiry ?? "")
    strike[id] = strikes.of(one.strike === null || one.asset_class !== "OPT" ? "" : String(one.strike))
    if (pause(id)) yield
  }
  const runStarts = new Uint32Array(length + 1)
  const texts = new Uint32Array(length)
  let runs = 0
  for (let id = 0; id < length; id += 1) {
    if (id === 0 || text[id] !== text[id - 1]) {
      runStarts[runs] = id
      texts[runs++] = text[id]!
    }
    if (pause(id)) yield
  }
  runStarts[runs] = length
  const kindWords = kinds.keys.map((key) => {
    const [asset_class, option_type] = key.split(" ") as [AssetClass, "CE" | "PE" | ""]
    return wordsOfKind({ asset_class, option_type: option_type === "" ? null : option_type })
  })
  return {
    instruments,
    symbols,
    runStarts: runStarts.slice(0, runs + 1),
    texts: texts.slice(0, runs),
    exchange,
    kind,
    expiry,
    strike,
    underlyings: yield* underlyingsOf(instruments, roots, (id) => text[id]!),
    exchanges: exchangeIds.keys,
    classes: kinds.keys.map((key) => key.split(" ")[0] as AssetClass),
    expiries: expiries.keys,
    strikes: Float64Array.from(strikes.keys, Number),
    days: Uint32Array.from(expiries.keys, (key) => (key === "" ? DAYS - 1 : dayOf(key))),
    ofSymbols: yield* tabulating(
      roots,
      (root, n) => new Set([...wordsOf(root), compact(root), ...wordsOf(extras[n]!)])
    ),
    ofNames: yield* tabulating(names, wordsOf),
    ofExchanges: yield* tabulating(exchangeIds.keys, (name) => [name.toLowerCase()]),
    ofKinds: yield* tabulating(kindWords, (words) => words),
    ofExpiries: yield* tabulating(expiries.keys, (key) => (key === "" ? [] : wordsOfExpiry(key))),
    ofStrikes: yield* tabulating(strikes.keys, (key) => (key === "" ? [] : [key]))
  }
}

const isNumber = (word: string): boolean => /^\p{N}/u.test(word)

/** What is asked, in words that each have a bit. */
interface Question {
  readonly parts: ReadonlyArray<string>
  /** Words that are two or more of the parts, with their bits. */
  readonly joined: ReadonlyArray<{ readonly word: string; readonly bits: number }>
  /** Words as they were typed that are more than one part: symbols that begin with one of them have its parts. */
  readonly typed: ReadonlyArray<{ readonly word: string; readonly bits: number }>
  readonly exchange: string | undefined
  /** All of it, for the symbol that is just this. */
  readonly same: string
  readonly compact: string
}

/** `undefined` where nothing can be meant by it. */
const questionOf = (exchanges: ReadonlyArray<string>, { exchange, query }: InstrumentSearch): Question | undefined => {
  if (query.length > MAX_QUERY_CHARS) return undefined
  let text = query
  let asked = exchange?.toUpperCase()
  const colon = query.indexOf(":")
  if (colon > 0) {
    const named = query.slice(0, colon).trim().toUpperCase()
    if (exchanges.includes(named)) {
      if (asked !== undefined && asked !== named) return undefined
      asked = named
      text = query.slice(colon + 1)
    }
  }
  const words = typedWords(text)
  // A query of signs alone asks for nothing that has letters; an empty one for everything.
  if (words.length === 0 && text.trim() !== "") return undefined
  const parts = [...new Set(words.flatMap((typed) => typed.parts))].slice(0, MAX_PARTS)
  const bitsOf = (of: ReadonlyArray<string>) =>
    of.reduce((bits, part) => (parts.includes(part) ? bits | (1 << parts.indexOf(part)) : bits), 0)
  const joined: Array<{ readonly word: string; readonly bits: number }> = []
  for (const a of parts) {
    for (const b of parts) {
      const isLong = a.length >= MIN_JOINED_CHARS && b.length >= MIN_JOINED_CHARS
      if (a === b || !isLong || (isNumber(a) && isNumber(b))) continue
      joined.push({ word: a + b, bits: bitsOf([a, b]) })
    }
  }
  const typed = words
    .filter(({ word, parts: of }) => of.length > 1 && word !== "")
    .map(({ word, parts: of }) => ({ word, bits: bitsOf(of) }))
  return {
    parts,
    joined,
    typed,
    exchange: asked,
    same: sameWords(text),
    compact: compact(text)
  }
}

/** How the words of a question are met, by the numbers of what has words. */
interface Marks {
  readonly ofTexts: Uint32Array
  readonly ofExchanges: Uint32Array
  readonly ofKinds: Uint32Array
  readonly ofExpiries: Uint32Array
  readonly ofStrikes: Uint32Array
  /** Symbols from one number to before another that begin with a typed word; those before `whole` are just that. */
  readonly ranges: ReadonlyArray<{
    readonly from: number
    readonly whole: number
    readonly to: number
    readonly bits: number
  }>
}

function* marksOf(columns: Columns, { joined, parts, typed }: Question, work: Work): Slices<Marks> {
  const { ofExchanges, ofExpiries, ofKinds, ofNames, ofStrikes, ofSymbols, symbols } = columns
  const marks = {
    ofTexts: new Uint32Array(ofSymbols.size),
    ofExchanges: new Uint32Array(ofExchanges.size),
    ofKinds: new Uint32Array(ofKinds.size),
    ofExpiries: new Uint32Array(ofExpiries.size),
    ofStrikes: new Uint32Array(ofStrikes.size)
  }
  for (const { word, bits } of [...parts.map((part, i) => ({ word: part, bits: 1 << i })), ...joined]) {
    yield* marking(ofSymbols, word, WHOLE * bits, BEGINNING * bits, marks.ofTexts, work)
    yield* marking(ofNames, word, WHOLE_OF_NAME * bits, BEGINNING_OF_NAME * bits, marks.ofTexts, work)
  }
  for (const [i, word] of parts.entries()) {
    // Their words are few and short: what begins them is mostly meant as something else, and goes last.
    yield* marking(ofExchanges, word, WHOLE << i, ANYWHERE << i, marks.ofExchanges, work)
    yield* marking(ofKinds, word, WHOLE << i, ANYWHERE << i, marks.ofKinds, work)
    yield* marking(ofExpiries, word, WHOLE << i, BEGINNING << i, marks.ofExpiries, work)
    yield* marking(ofStrikes, word, WHOLE << i, BEGINNING << i, marks.ofStrikes, work)
  }
  const ranges = typed.map(({ word, bits }) => {
    const from = firstNot(symbols.length, (place) => symbols[place]! < word)
    const whole = firstNot(symbols.length, (place) => symbols[place]! <= word)
    const to = firstNot(symbols.length, (place) => symbols[place]! < word || symbols[place]!.startsWith(word))
    return { from, whole, to, bits }
  })
  return { ...marks, ranges }
}

const bitsIn = (bits: number): number => {
  let count = 0
  for (let left = bits; left !== 0; left &= left - 1) count += 1
  return count
}

const anyOf = (marks: Uint32Array): number => marks.reduce((any, bits) => any | bits, 0)

/** Looks at instruments from one number to before another, whose text has these marks. */
type Look = (from: number, to: number, text: number, ofText: number) => void

/** Puts what meets every word of a question among the first: a plain function, which is several times as fast as a slice. */
const looking = (
  columns: Columns,
  marks: Marks,
  question: Question,
  { asset_class, only, price, today }: InstrumentSearch,
  met: number,
  best: FirstOf
): Look => {
  const { days, exchange, expiry, instruments, kind, strike, strikes, symbols, underlyings } = columns
  const { ofExchanges, ofExpiries, ofKinds, ofStrikes, ranges } = marks
  const all = (1 << question.parts.length) - 1
  const exchangeWanted = question.exchange === undefined ? -1 : columns.exchanges.indexOf(question.exchange)
  const isWanted = columns.classes.map((one) => asset_class === undefined || one === asset_class)
  const isOption = columns.classes.map((one) => one === "OPT")
  const isDerived = columns.classes.map((one) => one === "OPT" || one === "FUT")
  const isSecond = columns.classes.map((one) => one === "OPT" || one === "EQ")
  const isExpired = columns.expiries.map((one) => one !== "" && today !== undefined && one < today)
  const prices = new Map<number, number>()

  const priceOf = (text: number): number => {
    const known = prices.get(text)
    if (known !== undefined) return known
    const underlying = underlyings.get(text)
    let found = underlying?.middle ?? 0
    for (const { expiry: until, token } of underlying?.prices ?? []) {
      if (until !== null && today !== undefined && until < today) continue
      const last = price?.(token)
      if (last === undefined || !(last > 0)) continue
      found = last
      break
    }
    prices.set(text, found)
    return found
  }

  const isExact = (id: number): boolean => {
    const symbol = symbols[id]!
    const one = instruments[id]!
    if (symbol === question.compact || contractsOf(one)?.toLowerCase() === question.compact) return true
    const { length } = question.compact
    if (symbol.length === length) return sameWords(one.tradingsymbol) === question.same
    return (
      symbol.length + one.exchange.length === length &&
      sameWords(`${one.exchange} ${one.tradingsymbol}`) === question.same
    )
  }

  return (from, to, text, ofText) => {
    for (let id = from; id < to; id += 1) {
      const itsKind = kind[id]!
      const itsExpiry = expiry[id]!
      let bits =
        ofText | ofExchanges[exchange[id]!]! | ofKinds[itsKind]! | ofExpiries[itsExpiry]! | ofStrikes[strike[id]!]!
      for (let r = 0; r < ranges.length; r += 1) {
        const range = ranges[r]!
        if (id >= range.from && id < range.to) bits |= (id < range.whole ? WHOLE : BEGINNING) * range.bits
      }
      if (((bits >>> met) & all) !== all) continue
      if ((exchangeWanted >= 0 && exchange[id] !== exchangeWanted) || !isWanted[itsKind]!) continue
      const quality = 2 * bitsIn(all & ~bits) + bitsIn(all & ~(bits >>> OWN))
      let order = quality === 0 && all !== 0 && isExact(id) ? 0 : 1
      order = 2 * order + (isExpired[itsExpiry]! ? 1 : 0)
      order = 2 * order + (((bits >>> BEGINS) & all) === all ? 0 : 1)
      order = 2 * order + (isDerived[itsKind]! ? 1 : 0)
      order = QUALITIES * order + quality
      order *= DAYS
      if (isDerived[itsKind]!) order += isExpired[itsExpiry]! ? DAYS - days[itsExpiry]! : days[itsExpiry]!
      order = 2 * order + (isSecond[itsKind]! ? 1 : 0)
      const near = isOption[itsKind]! ? priceOf(text) : 0
      const away = near > 0 ? Math.abs(strikes[strike[id]!]! - near) / near : 0
      const place = exchange[id]! * instruments.length + id
      if (!best.takes(order, away, place) || (only !== undefined && !only(instruments[id]!))) continue
      best.put(order, away, place)
    }
  }
}

/** Looks at all instruments, leaving out at once those whose text is none of it. */
function* scanning(
  { runStarts, texts }: Columns,
  marks: Marks,
  question: Question,
  met: number,
  look: Look,
  work: Work
): Slices<void> {
  const { ofExchanges, ofExpiries, ofKinds, ofStrikes, ofTexts, ranges } = marks
  const all = (1 << question.parts.length) - 1
  const elsewhere = anyOf(ofExchanges) | anyOf(ofKinds) | anyOf(ofExpiries) | anyOf(ofStrikes)
  let run = 0
  let id = 0

  const isPossible = (): boolean => {
    let possible = (ofTexts[texts[run]!]! | elsewhere) >>> met
    for (let r = 0; r < ranges.length; r += 1) {
      if (ranges[r]!.from < runStarts[run + 1]! && ranges[r]!.to > id) possible |= ranges[r]!.bits
    }
    return (possible & all) === all
  }

  /** Looks on for about so many visits; answers how many there were. */
  const lookOn = (most: number): number => {
    let visits = 0
    while (run < texts.length && visits < most) {
      visits += 1
      const end = runStarts[run + 1]!
      if (isPossible()) {
        const to = Math.min(end, id + Math.ceil(most / LOOK_VISITS))
        look(id, to, texts[run]!, ofTexts[texts[run]!]!)
        visits += LOOK_VISITS * (to - id)
        id = to
      } else id = end
      if (id === end) run += 1
    }
    return visits
  }

  while (run < texts.length && !work.isOver) if (work.visit(lookOn(VISITS_A_SLICE))) yield
}

function* searchingIn(columns: Columns, search: InstrumentSearch): Slices<ReadonlyArray<Instrument>> {
  const { instruments, ofNames, ofSymbols } = columns
  const question = questionOf(columns.exchanges, search)
  if (question === undefined) return []
  if (question.exchange !== undefined && !columns.exchanges.includes(question.exchange)) return []
  const work = new Work()
  const limit = Math.min(search.limit, instruments.length)
  const marks = yield* marksOf(columns, question, work)
  const firstOf = function* (met: number): Slices<FirstOf> {
    const first = new FirstOf(limit)
    const look = looking(columns, marks, question, search, met, first)
    yield* scanning(columns, marks, question, met, look, work)
    return first
  }
  let best = yield* firstOf(BEGINS)
  // What is met otherwise comes later, but before what has expired.
  if (question.parts.length > 0 && (best.size < limit || best.last >= EXPIRED)) {
    for (const [i, part] of question.parts.entries()) {
      if (part.length < MIN_MIDDLE_CHARS) continue
      yield* markingAnywhere(ofSymbols, part, ANYWHERE << i, marks.ofTexts, work)
      yield* markingAnywhere(ofNames, part, ANYWHERE << i, marks.ofTexts, work)
    }
    const again = yield* firstOf(MET)
    // Cut off, the second may have less.
    if (again.size >= best.size) best = again
  }
  const found = new Array<Instrument>(best.size)
  while (best.size > 0) {
    const place = best.size - 1
    found[place] = instruments[best.takeLast() % instruments.length]!
    if (pause(place)) yield
  }
  return found
}

/** Each word that nobody has is taken for one near it; then words are left out, the last first, until something is found. */
function* nearestIn(
  columns: Columns,
  symbol: string,
  search: Omit<InstrumentSearch, "query" | "limit">
): Slices<Instrument | undefined> {
  const question = questionOf(columns.exchanges, { ...search, query: symbol, limit: 1 })
  if (question === undefined) return undefined
  const { ofExchanges, ofExpiries, ofKinds, ofNames, ofStrikes, ofSymbols } = columns
  const words: Array<string> = []
  for (const part of question.parts) {
    if ([ofSymbols, ofNames, ofExchanges, ofKinds, ofExpiries, ofStrikes].some((of) => hasBeginning(of, part))) {
      words.push(part)
      continue
    }
    const known = (isNumber(part) ? ofStrikes : ofSymbols).words
    const at = firstNot(known.length, (place) => known[place]! < part)
    const near = nearest(part, known.slice(Math.max(0, at - NEIGHBOURS), at + NEIGHBOURS))
    if (near !== undefined) words.push(near)
    yield
  }
  const wanted = question.exchange === undefined ? [undefined] : [question.exchange, undefined]
  for (; words.length > 0; words.pop()) {
    for (const exchange of wanted) {
      const { exchange: _, ...rest } = search
      const within = exchange === undefined ? rest : { ...rest, exchange }
      const [found] = yield* searchingIn(columns, { ...within, query: words.join(" "), limit: 1 })
      if (found !== undefined) return found
    }
  }
  return undefined
}

/** Builds the index of a list, in slices. */
export function* building(instruments: Iterable<Instrument>): Slices<InstrumentIndex> {
  const columns = yield* columnsOf(instruments)
  return {
    exchanges: columns.exchanges,
    searching: (search) => searchingIn(columns, search),
    nearest: (symbol, search) => nearestIn(columns, symbol, search)
  }
}
