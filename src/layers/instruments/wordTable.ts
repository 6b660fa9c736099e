/** Decides how words are found by their beginning: sorted, each with the numbers of what has it, in flat arrays. */
import { pause, type Slices, sorted } from "../../streams/run/slices.ts"

/** Work that one search may do, in visits of some ten nanoseconds: what is found by then is its answer. */
export const MAX_VISITS = 4_000_000
/** Visits before others get a turn: well below a millisecond. */
export const VISITS_A_SLICE = 20_000

/** What one search has done so far. */
export class Work {
  visits = 0
  private pauseAt = VISITS_A_SLICE

  /** So many visits more; whether it is time for a pause. */
  visit(count = 1): boolean {
    this.visits += count
    if (this.visits < this.pauseAt) return false
    this.pauseAt = this.visits + VISITS_A_SLICE
    return true
  }

  get isOver(): boolean {
    return this.visits >= MAX_VISITS
  }
}

/** What has words takes longer than other items: so many times. */
const OWNERS_COST = 5

export interface WordTable {
  /** How many have words. */
  readonly size: number
  /** Distinct, in order. */
  readonly words: ReadonlyArray<string>
  /** All of them in one text, each between separators; word i begins at `begins[i]`. */
  readonly text: string
  readonly begins: Uint32Array
  /** Those that have word i are `owners[starts[i]]` up to `owners[starts[i + 1]]`. */
  readonly starts: Uint32Array
  readonly owners: Uint32Array
}

/** The first of `length` places that is not below, by a test that is true for those below. */
export const firstNot = (length: number, isBelow: (place: number) => boolean): number => {
  let low = 0
  let high = length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (isBelow(middle)) low = middle + 1
    else high = middle
  }
  return low
}

/** No word has it. */
const SEPARATOR = "\n"

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** The table of what has words, each thing by its place. */
export function* tabulating<A>(
  things: ReadonlyArray<A>,
  wordsOf: (thing: A, place: number) => Iterable<string>
): Slices<WordTable> {
  const ids = new Map<string, number>()
  const firstIds: Array<number> = []
  const itsOwners: Array<number> = []
  for (const [owner, thing] of things.entries()) {
    for (const word of wordsOf(thing, owner)) {
      let id = ids.get(word)
      if (id === undefined) {
        id = ids.size
        ids.set(word, id)
      }
      firstIds.push(id)
      itsOwners.push(owner)
    }
    if (pause(OWNERS_COST * owner)) yield
  }
  const words = yield* sorted([...ids.keys()], compareText)
  const places = new Uint32Array(words.length)
  for (const [place, word] of words.entries()) {
    places[ids.get(word)!] = place
    if (pause(place)) yield
  }
  const starts = new Uint32Array(words.length + 1)
  for (let n = 0; n < firstIds.length; n += 1) {
    starts[places[firstIds[n]!]! + 1]! += 1
    if (pause(n)) yield
  }
  for (let i = 1; i < starts.length; i += 1) {
    starts[i]! += starts[i - 1]!
    if (pause(i)) yield
  }
  const next = starts.slice()
  const owners = new Uint32Array(firstIds.length)
  for (let n = 0; n < firstIds.length; n += 1) {
    owners[next[places[firstIds[n]!]!]!++] = itsOwners[n]!
    if (pause(n)) yield
  }
  const begins = new Uint32Array(words.length)
  let at = SEPARATOR.length
  for (const [i, word] of words.entries()) {
    begins[i] = at
    at += word.length + SEPARATOR.length
    if (pause(i)) yield
  }
  const text = ["", ...words, ""].join(SEPARATOR)
  return { size: things.length, words, text, begins, starts, owners }
}

/** Sets bits of those that have a word, or one that begins with it. */
export function* marking(
  { words, starts, owners }: WordTable,
  word: string,
  whole: number,
  beginning: number,
  bits: Uint32Array,
  work: Work
): Slices<void> {
  for (let i = firstNot(words.length, (place) => words[place]! < word); i < words.length; i += 1) {
    const other = words[i]!
    if (!other.startsWith(word)) return
    const bit = other.length === word.length ? whole : beginning
    for (let n = starts[i]!; n < starts[i + 1]!; n += 1) {
      bits[owners[n]!]! |= bit
      if (work.visit()) yield
    }
    if (work.isOver) return
  }
}

/** Sets bits of those that have a word anywhere in one of theirs. */
export function* markingAnywhere(
  { words, text, begins, starts, owners }: WordTable,
  word: string,
  bit: number,
  bits: Uint32Array,
  work: Work
): Slices<void> {
  for (let at = text.indexOf(word); at >= 0 && !work.isOver; ) {
    const i = firstNot(begins.length, (place) => begins[place]! <= at) - 1
    for (let n = starts[i]!; n < starts[i + 1]!; n += 1) {
      bits[owners[n]!]! |= bit
      if (work.visit()) yield
    }
    if (work.visit()) yield
    at = text.indexOf(word, begins[i]! + words[i]!.length)
  }
}

/** Whether a word begins one of the table's. */
export const hasBeginning = ({ words }: WordTable, word: string): boolean =>
  words[firstNot(words.length, (place) => words[place]! < word)]?.startsWith(word) === true
