/**
 * Decides what a reader of `normalized_ticks` has taken: its mark, the highest source so far. A tick at or below the
 * mark is one that a retry or a zombie published again, and is dropped.
 */
import type { Source } from "../schema/Tick.ts"

/** The highest source taken of a normalized partition; `left` are the raw incarnations it has gone beyond. */
export interface Mark {
  readonly incarnation: string
  readonly offset: number
  readonly index: number
  readonly left: ReadonlyArray<string>
}

/** How far a reader has come in one partition of `normalized_ticks`. */
export interface Bookmark {
  readonly partition: number
  /** Of `normalized_ticks`. */
  readonly incarnation: string
  /** The next offset to read. */
  readonly offset: number
  /** Undefined before the first tick. */
  readonly mark: Mark | undefined
}

/** Incarnations remembered as left, newest last: more than a topic is ever made anew while readers run. */
const MAX_LEFT = 16

/** The mark after `source`, or `undefined` where the source is not above it and its tick must be dropped. */
export const advance = (mark: Mark | undefined, source: Source): Mark | undefined => {
  const [incarnation, offset, index] = source
  if (mark === undefined) return { incarnation, offset, index, left: [] }
  if (mark.incarnation === incarnation) {
    return offset > mark.offset || (offset === mark.offset && index > mark.index)
      ? { incarnation, offset, index, left: mark.left }
      : undefined
  }
  if (mark.left.includes(incarnation)) return undefined
  return { incarnation, offset, index, left: [...mark.left, mark.incarnation].slice(-MAX_LEFT) }
}
