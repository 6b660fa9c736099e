/** Decides what a seed means: the same numbers in the same order, whatever runs. */

export type Random = () => number

/** mulberry32: numbers in [0, 1). */
export const random = (seed: number): Random => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

export const between = (next: Random, low: number, high: number): number => low + Math.floor(next() * (high - low + 1))

export const shuffled = <A>(next: Random, items: ReadonlyArray<A>): ReadonlyArray<A> => {
  const mixed = [...items]
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = between(next, 0, i)
    ;[mixed[i], mixed[j]] = [mixed[j]!, mixed[i]!]
  }
  return mixed
}
