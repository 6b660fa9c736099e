/**
 * Decides which instruments a search finds and in which order: exact, then prefix, then word, then substring, in any
 * case. Built once a list, in slices, with memory in proportion to the text; a search touches little more than what it
 * answers, however many contracts match, and is cut off where it would touch far more.
 */
import { type AssetClass, type Instrument, MAX_NAME_CHARS } from "../../schema/Instrument.ts"
import type { InstrumentSearch } from "../../streams/ports/Instruments.ts"
import { atOnce, pause, type Slices, sorted } from "../../streams/run/slices.ts"

/** Characters of a symbol or name that are searched; the rest is not. */
const MAX_KEY_CHARS = MAX_NAME_CHARS
/** Words of a symbol or name that are found as words, besides the first; later ones are found as substrings. */
const MAX_WORDS = 8
/** Words are in order by so many characters; what begins with the same ones is looked through. */
const SORTED_CHARS = 24
/** Places looked at by one search in vain; then it answers what it has. A few milliseconds' work. */
const MAX_VISITS = 100_000

/** Searches that are told apart before they are counted from the beginning again. */
const MAX_SEARCHES = 4_294_967_295

/** Among equals: what is traded itself before what is derived from it. */
const CLASSES: ReadonlyArray<AssetClass> = ["INDEX", "EQ", "FUT", "OPT"]
const WORD_START = /(?<=[^\p{L}\p{N}])[\p{L}\p{N}]/gu
const SEPARATOR = "\n"
const SEPARATOR_CODE = 10

/** The instruments of one class and exchange, by symbol. */
interface Group {
  readonly assetClass: AssetClass
  readonly exchange: string
  readonly instruments: ReadonlyArray<Instrument>
  /** Symbols and names, sorted. */
  readonly keys: ReadonlyArray<string>
  /** Of each key, the places of the instruments it stands for. */
  readonly places: ReadonlyArray<ReadonlyArray<number>>
  /** All keys in one text, each between separators; `starts[i]` is where key i begins. */
  readonly text: string
  readonly starts: Uint32Array
  /** Where words begin in the text, but the first of each key, sorted by what follows. */
  readonly words: Uint32Array
  /** The number of the search that found the instrument of a place last: one search finds each once. */
  readonly foundBy: Uint32Array
}

export interface InstrumentIndex {
  readonly search: (search: InstrumentSearch) => ReadonlyArray<Instrument>
}

/** One line of lower case: a separator in a name would tear the text of keys. */
const plain = (text: string): string => text.slice(0, MAX_KEY_CHARS).toLowerCase().replace(/\s+/g, " ").trim()

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** Compares what begins at two places of the text, up to the end of the key or `SORTED_CHARS`. */
const compareAt = (text: string, a: number, b: number): number => {
  for (let n = 0; n < SORTED_CHARS; n += 1) {
    const left = text.charCodeAt(a + n)
    const right = text.charCodeAt(b + n)
    if (left !== right) return left === SEPARATOR_CODE ? -1 : right === SEPARATOR_CODE ? 1 : left - right
    if (left === SEPARATOR_CODE) return 0
  }
  return 0
}

function* groupOf(assetClass: AssetClass, exchange: string, unsorted: ReadonlyArray<Instrument>): Slices<Group> {
  const instruments = yield* sorted(unsorted, (a, b) => compareText(a.tradingsymbol, b.tradingsymbol))
  const placesOf = new Map<string, Array<number>>()
  for (const [place, { tradingsymbol, name }] of instruments.entries()) {
    for (const key of [plain(tradingsymbol), plain(name ?? "")]) {
      if (key === "") continue
      const places = placesOf.get(key)
      if (places === undefined) placesOf.set(key, [place])
      else if (places[places.length - 1] !== place) places.push(place)
    }
    if (pause(place)) yield
  }
  const keys = yield* sorted([...placesOf.keys()], compareText)
  const starts = new Uint32Array(keys.length)
  const unsortedWords: Array<number> = []
  let at = 1
  for (const [i, key] of keys.entries()) {
    starts[i] = at
    let words = 0
    for (const { index } of key.matchAll(WORD_START)) {
      unsortedWords.push(at + index)
      words += 1
      if (words === MAX_WORDS) break
    }
    at += key.length + 1
    if (pause(i)) yield
  }
  const text = ["", ...keys, ""].join(SEPARATOR)
  const words = Uint32Array.from(yield* sorted(unsortedWords, (a, b) => compareAt(text, a, b)))
  const places = keys.map((key) => placesOf.get(key)!)
  const foundBy = new Uint32Array(instruments.length)
  return { assetClass, exchange, instruments, keys, places, text, starts, words, foundBy }
}

/** The first of `length` places that is not below, by a test that is true for those below. */
const firstNot = (length: number, isBelow: (place: number) => boolean): number => {
  let low = 0
  let high = length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (isBelow(middle)) low = middle + 1
    else high = middle
  }
  return low
}

/** The key whose text holds position `at`. */
const keyAt = ({ starts }: Group, at: number): number => firstNot(starts.length, (key) => starts[key]! <= at) - 1

/** The keys that a query finds, in order; one may come again, and -1 stands for a look in vain. */
type Find = (group: Group, query: string) => Iterable<number>

const firstKey = ({ keys }: Group, query: string): number => firstNot(keys.length, (key) => keys[key]! < query)

const exact: Find = function* (group, query) {
  const key = firstKey(group, query)
  if (group.keys[key] === query) yield key
}

const prefix: Find = function* (group, query) {
  for (let key = firstKey(group, query); group.keys[key]?.startsWith(query) === true; key += 1) yield key
}

const word: Find = function* (group, query) {
  if (query === "") return
  const { text, words } = group
  const sortedBy = query.slice(0, SORTED_CHARS)
  const isBelow = (at: number): boolean => {
    for (let n = 0; n < sortedBy.length; n += 1) {
      const code = text.charCodeAt(at + n)
      const wanted = sortedBy.charCodeAt(n)
      if (code !== wanted) return code === SEPARATOR_CODE || code < wanted
    }
    return false
  }
  for (let i = firstNot(words.length, (n) => isBelow(words[n]!)); i < words.length; i += 1) {
    if (!text.startsWith(sortedBy, words[i])) return
    if (text.startsWith(query, words[i])) yield keyAt(group, words[i]!)
    else yield -1
  }
}

const substring: Find = function* (group, query) {
  if (query === "") return
  const { keys, starts, text } = group
  for (let at = text.indexOf(query); at >= 0; ) {
    const key = keyAt(group, at)
    yield key
    at = text.indexOf(query, starts[key]! + keys[key]!.length)
  }
}

const RANKS: ReadonlyArray<Find> = [exact, prefix, word, substring]

const NOWHERE: ReadonlyArray<number> = []

const searchIn = (
  groups: ReadonlyArray<Group>,
  number: number,
  { asset_class, exchange: asked, limit, only, query: text }: InstrumentSearch
): ReadonlyArray<Instrument> => {
  // No key is as long: nothing is it, or has it.
  if (text.length > 2 * MAX_KEY_CHARS) return []
  let query = text.toLowerCase().replace(/\s+/g, " ").trim()
  let exchange = asked?.toUpperCase()
  const colon = query.indexOf(":")
  if (colon > 0) {
    const named = query.slice(0, colon).toUpperCase()
    if (groups.some((group) => group.exchange === named)) {
      if (exchange !== undefined && exchange !== named) return []
      exchange = named
      query = query.slice(colon + 1).trim()
    }
  }
  const wanted = groups.filter(
    (group) =>
      (exchange === undefined || group.exchange === exchange) &&
      (asset_class === undefined || group.assetClass === asset_class)
  )
  const found: Array<Instrument> = []
  let inVain = 0
  for (const rank of RANKS) {
    for (const group of wanted) {
      for (const key of rank(group, query)) {
        const places = group.places[key] ?? NOWHERE
        for (let i = 0; i < places.length; i += 1) {
          const place = places[i]!
          if (group.foundBy[place] === number) {
            inVain += 1
            continue
          }
          group.foundBy[place] = number
          if (only !== undefined && !only(group.instruments[place]!)) {
            inVain += 1
            continue
          }
          found.push(group.instruments[place]!)
          if (found.length >= limit) return found
        }
        if (places.length === 0) inVain += 1
        if (inVain > MAX_VISITS) return found
      }
    }
  }
  return found
}

/** Builds the index of a list, in slices: about 0.3 s in all for the hundred thousand contracts of a broker's file. */
export function* building(instruments: Iterable<Instrument>): Slices<InstrumentIndex> {
  const byGroup = new Map<string, Array<Instrument>>()
  let n = 0
  for (const instrument of instruments) {
    const name = `${CLASSES.indexOf(instrument.asset_class)} ${instrument.exchange}`
    const group = byGroup.get(name)
    if (group === undefined) byGroup.set(name, [instrument])
    else group.push(instrument)
    n += 1
    if (pause(n)) yield
  }
  const groups: Array<Group> = []
  for (const name of [...byGroup.keys()].sort()) {
    const members = byGroup.get(name)!
    groups.push(yield* groupOf(members[0]!.asset_class, members[0]!.exchange, members))
  }
  let searches = 0
  return {
    search: (search) => {
      // Never 0, by which nothing was found, and never a number that is still written somewhere.
      searches += 1
      if (searches > MAX_SEARCHES) {
        for (const group of groups) group.foundBy.fill(0)
        searches = 1
      }
      return searchIn(groups, searches, search)
    }
  }
}

/** The index of a list, built in one turn. */
export const instrumentIndex = (instruments: Iterable<Instrument>): InstrumentIndex => atOnce(building(instruments))
