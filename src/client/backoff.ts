/** Decides how long the client waits before it connects again: what a close code asks for, and chance, so that clients of a server that restarts do not come back in one moment. */

export interface Reconnect {
  /** The first wait is up to this. */
  readonly minMs: number
  /** No wait is longer, unless the server asks for it. */
  readonly maxMs: number
  /** For how long a first connection is tried for. */
  readonly firstForMs: number
  /** For how long a lost one is. */
  readonly forMs: number
}

export const RECONNECT: Reconnect = {
  minMs: 250,
  maxMs: 10_000,
  firstForMs: 30_000,
  forMs: Number.POSITIVE_INFINITY
}

/** After these nobody should be back within a second or two: the server restarts, is overloaded, or did not like what came. */
const LEAST_FAILURES: Readonly<Record<number, number>> = { 1001: 2, 1012: 2, 1008: 3, 1009: 3, 1013: 3 }
/** Beyond this, doubling has long come to any longest wait. */
const MOST_DOUBLINGS = 30

/** Failures that the wait is reckoned by: those in a row before this one, or more where the code asks for it. */
export const failuresOf = (before: number, code: number): number => Math.max(before, LEAST_FAILURES[code] ?? 0)

/** Any time up to a bound that doubles with each failure ("full jitter"); after what the server asked for, where it did. */
export const waitOf = (
  failures: number,
  { minMs, maxMs }: Pick<Reconnect, "minMs" | "maxMs">,
  retryAfterMs = 0,
  random: () => number = Math.random
): number => {
  const bound = Math.min(maxMs, minMs * 2 ** Math.min(failures, MOST_DOUBLINGS))
  return retryAfterMs + random() * bound
}

/** `Retry-After` in milliseconds: seconds, or a date; undefined where it is neither. */
export const retryAfterOf = (header: string | null | undefined, now: number = Date.now()): number | undefined => {
  if (header === null || header === undefined || header.trim() === "") return undefined
  const seconds = Number(header)
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000)
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
