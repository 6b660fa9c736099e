/** Decides how what several partitions meet at once is said: in one line that names them, not in one line each. */
import { Clock, Effect } from "effect"

/** How long others are waited for that meet the same, and how long until those that came later are named. */
const FIRST = "1 second"
const LATER = "10 seconds"
/** What stays the same is said again this often, ms. */
const SAY_AGAIN_MS = 60_000
/** Different things told of at most; one more and what was told is forgotten. */
const MAX_TOLD = 100

/** `partition 3`, `partitions 0-4, 7`. */
export const namesOf = (partitions: Iterable<number>): string => {
  const sorted = [...partitions].sort((a, b) => a - b)
  const ranges: Array<string> = []
  for (let i = 0; i < sorted.length; i++) {
    const first = sorted[i]!
    while (sorted[i + 1] === sorted[i]! + 1) i++
    ranges.push(sorted[i] === first ? `${first}` : `${first}-${sorted[i]}`)
  }
  return `${sorted.length === 1 ? "partition" : "partitions"} ${ranges.join(", ")}`
}

/** Says something of one partition; `undefined`: what was wrong there is over. */
export type Say = (text: string | undefined) => Effect.Effect<void>

/**
 * One voice for all partitions of `who`: a text comes with the partitions that met it, within a second, and again where
 * others meet it too, or it lasts. Once nothing is wrong in any, that is said once; `isOnce`: what is met is over with it,
 * and nothing is said of its end.
 */
export const together = (who: string, { isOnce = false } = {}): ((partition: number) => Say) => {
  /** What is wrong now. */
  const wrong = new Map<number, string>()
  /** What was met since it was last told. */
  const met = new Map<string, Set<number>>()
  const told = new Map<string, { partitions: Set<number>; at: number }>()
  let isWaiting = false
  const over = Effect.suspend(() => {
    told.clear()
    return Effect.logInfo(`${who} works again`)
  })
  const tell = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    isWaiting = false
    for (const [text, partitions] of met) {
      const before = told.get(text)
      const isKnown = before !== undefined && now - before.at < SAY_AGAIN_MS
      if (isKnown && [...partitions].every((partition) => before.partitions.has(partition))) continue
      if (told.size >= MAX_TOLD) told.clear()
      const all = isKnown ? new Set([...before.partitions, ...partitions]) : partitions
      told.set(text, { partitions: all, at: now })
      yield* Effect.logWarning(`${who} ${text} (${namesOf(all)})`)
    }
    met.clear()
    if (wrong.size === 0 && !isOnce) yield* over
  })
  return (partition) => (text) =>
    Effect.suspend(() => {
      if (text === undefined) {
        if (!wrong.delete(partition)) return Effect.void
        return wrong.size === 0 && !isWaiting ? over : Effect.void
      }
      if (!isOnce) wrong.set(partition, text)
      const others = met.get(text)
      if (others === undefined) met.set(text, new Set([partition]))
      else others.add(partition)
      if (isWaiting) return Effect.void
      isWaiting = true
      // Whoever met it first may be gone before the others have.
      return tell.pipe(Effect.delay(told.size === 0 ? FIRST : LATER), Effect.forkDetach, Effect.asVoid)
    })
}
