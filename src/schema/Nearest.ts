/** Decides which known name is meant by one that is not known, and how it is refused: by name, with the nearest. */
import { printableUpTo } from "./printable.ts"

/** What is shown of a name from outside. */
const MAX_SHOWN_CHARS = 40
/** Longer names are nobody's typing error, and are compared with nothing. */
const MAX_COMPARED_CHARS = 40

/** Insertions, deletions, replacements and swaps of neighbours that make one text of the other. */
const distance = (a: string, b: string): number => {
  let before: Array<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1]
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (isSame ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1)
      row.push(cost)
    }
    before = last
    last = row
  }
  return last[b.length]!
}

const plain = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]/g, "")

/**
 * The known name nearest to `name`, whatever its case and hyphens; `undefined` where none is near: more than a third
 * of it, and more than its beginning, would have to change.
 */
export const nearest = (name: string, known: ReadonlyArray<string>): string | undefined => {
  if (name.length > MAX_COMPARED_CHARS) return undefined
  const asked = plain(name)
  if (asked === "") return undefined
  let best: string | undefined
  let least = Number.POSITIVE_INFINITY
  for (const candidate of known) {
    const other = plain(candidate)
    const isPart =
      asked.length > 2 &&
      other.length > 2 &&
      (other.startsWith(asked) || other.endsWith(asked) || asked.startsWith(other))
    const away = distance(asked, other)
    const allowed = Math.max(1, Math.floor(Math.max(asked.length, other.length) / 3))
    const cost = isPart ? Math.min(away, allowed) : away
    if (cost <= allowed && cost < least) {
      least = cost
      best = candidate
    }
  }
  return best
}

/**
 * `unknown parameter form: did you mean from?`, or what is known where nothing is near. `kind` says what is named, such
 * as "parameter" or "key"; `meant` are those of the known that somebody may have meant by another.
 */
export const unknownName = (kind: string, name: string, known: ReadonlyArray<string>, meant = known): string => {
  const near = nearest(name, meant)
  const hint =
    near !== undefined
      ? `did you mean ${near}?`
      : known.length === 0
        ? "none is taken here"
        : `known: ${known.join(", ")}`
  return `unknown ${kind} ${printableUpTo(name, MAX_SHOWN_CHARS)}: ${hint}`
}
