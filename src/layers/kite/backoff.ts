/** Decides how long a connection to Kite waits before it is tried again: up to a bound that doubles, by chance, so that several do not come back in one moment. */

export interface Backoff {
  /** The first wait is up to this. */
  readonly minMs: number
  /** No wait is longer. */
  readonly maxMs: number
}

export const BACKOFF: Backoff = { minMs: 250, maxMs: 10_000 }
/** Beyond this, doubling has long come to any longest wait. */
const MOST_DOUBLINGS = 20

/** The wait after so many failures in a row, the first being 1: any time up to the bound. */
export const waitOf = (failures: number, { maxMs, minMs }: Backoff, random: () => number = Math.random): number =>
  random() * Math.min(maxMs, minMs * 2 ** Math.min(Math.max(0, failures - 1), MOST_DOUBLINGS))
