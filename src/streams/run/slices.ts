/** Decides how work that is long for one turn is done in short ones: as a generator that pauses, run with pauses or without. */
import { Effect } from "effect"

/** Work that pauses about once a millisecond. */
export type Slices<A> = Generator<void, A, void>

/** Does all of it in one turn. */
export const atOnce = <A>(work: Slices<A>): A => {
  for (;;) {
    const { done, value } = work.next()
    if (done === true) return value
  }
}

/** Does it in turns, with others' between them. */
export const inTurns = <A>(work: Slices<A>): Effect.Effect<A> =>
  Effect.gen(function* () {
    for (;;) {
      const { done, value } = work.next()
      if (done === true) return value
      yield* Effect.yieldNow
    }
  })

/** Items handled between two pauses, where one takes about a microsecond. */
const ITEMS_A_SLICE = 1000

/** Whether work should pause after its nth item. */
export const pause = (n: number): boolean => n > 0 && n % ITEMS_A_SLICE === 0

/** Sorted as `toSorted` does, in slices: short runs first, then merged two by two. */
export function* sorted<A>(items: ReadonlyArray<A>, compare: (a: A, b: A) => number): Slices<Array<A>> {
  let runs: Array<Array<A>> = []
  for (let from = 0; from < items.length; from += ITEMS_A_SLICE) {
    if (from > 0) yield
    runs.push(items.slice(from, from + ITEMS_A_SLICE).sort(compare))
  }
  while (runs.length > 1) {
    const wider: Array<Array<A>> = []
    for (let i = 0; i < runs.length; i += 2) {
      // Short runs are merged without a pause.
      if (i > 0) yield
      const [left, right] = [runs[i]!, runs[i + 1]]
      wider.push(right === undefined ? left : yield* merged(left, right, compare))
    }
    runs = wider
  }
  return runs[0] ?? []
}

function* merged<A>(
  left: ReadonlyArray<A>,
  right: ReadonlyArray<A>,
  compare: (a: A, b: A) => number
): Slices<Array<A>> {
  const both: Array<A> = []
  let l = 0
  let r = 0
  while (l < left.length && r < right.length) {
    both.push(compare(left[l]!, right[r]!) <= 0 ? left[l++]! : right[r++]!)
    if (both.length % (4 * ITEMS_A_SLICE) === 0) yield
  }
  while (l < left.length) both.push(left[l++]!)
  while (r < right.length) both.push(right[r++]!)
  return both
}
