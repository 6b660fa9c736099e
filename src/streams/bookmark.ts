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

/** A mark as the metadata of a commit. */
export const toMetadata = (mark: Mark | undefined): string => JSON.stringify(mark ?? null)

/**
 * The mark in a commit's metadata: none where somebody else made the commit, as an operator who moves a group's offset.
 * The reader then takes what comes; what it has taken before, its sink absorbs.
 */
export const fromMetadata = (metadata: string): Mark | undefined => {
  let found: Partial<Mark> | null
  try {
    found = JSON.parse(metadata) as Partial<Mark> | null
  } catch {
    return undefined
  }
  if (typeof found !== "object" || found === null) return undefined
  const { incarnation, offset, index, left } = found
  const isMark =
    typeof incarnation === "string" &&
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(index) &&
    Array.isArray(left) &&
    left.every((one) => typeof one === "string")
  return isMark ? { incarnation, offset: offset!, index: index!, left } : undefined
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

/** The mark of one reader of one partition, as it goes. */
export class MarkTracker {
  #incarnation: string | undefined
  #offset = -1
  #index = -1
  #left: ReadonlyArray<string>

  constructor(mark: Mark | undefined) {
    this.#incarnation = mark?.incarnation
    this.#offset = mark?.offset ?? -1
    this.#index = mark?.index ?? -1
    this.#left = mark?.left ?? []
  }

  /** Takes a source above the mark, which it raises; false for one that was taken before and must be dropped. */
  take(source: Source): boolean {
    const [incarnation, offset, index] = source
    if (incarnation === this.#incarnation) {
      if (offset < this.#offset || (offset === this.#offset && index <= this.#index)) return false
    } else {
      if (this.#left.includes(incarnation)) return false
      if (this.#incarnation !== undefined) this.#left = [...this.#left, this.#incarnation].slice(-MAX_LEFT)
      this.#incarnation = incarnation
    }
    this.#offset = offset
    this.#index = index
    return true
  }

  get mark(): Mark | undefined {
    return this.#incarnation === undefined
      ? undefined
      : { incarnation: this.#incarnation, offset: this.#offset, index: this.#index, left: this.#left }
  }
}
