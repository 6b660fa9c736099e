/**
 * Decides what a reader of `normalized_ticks` has taken: its mark, the highest source so far. A tick at or below the
 * mark is one that a retry or a zombie published again, and is dropped.
 */
import type { Source } from "../../schema/Tick.ts"
import { BEFORE_ALL, isUpTo, type SourcePlace } from "./source.ts"

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

/** Incarnations remembered as left, newest last: more than a topic is ever recreated while readers run. */
const MAX_LEFT = 16

/**
 * The mark of one reader of one partition, as it goes. Where `raw`, the raw topic's own incarnation, is known, it wins:
 * no mark of another one, wherever that came from, makes its sources look as if they were left.
 */
export class MarkTracker {
  /** The raw topic's incarnation, to be set anew when the topic is recreated; undefined where nobody knows it. */
  raw: string | undefined
  #incarnation: string | undefined
  #offset = BEFORE_ALL.offset
  #index = BEFORE_ALL.index
  readonly #left = new Map<string, SourcePlace>()

  /** `limit`: a mark at or above this offset of `raw` is none that the platform's own ticks have left, and is not taken up. */
  constructor(mark: Mark | undefined, raw?: string, limit = Number.POSITIVE_INFINITY) {
    this.raw = raw
    for (const incarnation of mark?.left ?? []) this.#left.set(incarnation, BEFORE_ALL)
    this.#incarnation = mark?.incarnation
    if (mark === undefined || (mark.incarnation === raw && mark.offset >= limit)) return
    this.#offset = mark.offset
    this.#index = mark.index
  }

  /** Takes a source above the mark, which it raises; false for one that was taken before and must be dropped. */
  take(source: Source): boolean {
    const [incarnation, offset, index] = source
    if (incarnation === this.#incarnation) {
      if (offset < this.#offset || (offset === this.#offset && index <= this.#index)) return false
    } else if (!this.#enter(incarnation, offset, index)) return false
    this.#offset = offset
    this.#index = index
    return true
  }

  /** The incarnation of the mark. */
  get incarnation(): string | undefined {
    return this.#incarnation
  }

  get mark(): Mark | undefined {
    return this.#incarnation === undefined
      ? undefined
      : { incarnation: this.#incarnation, offset: this.#offset, index: this.#index, left: [...this.#left.keys()] }
  }

  /** Goes over to another incarnation; false for one that is left. */
  #enter(incarnation: string, offset: number, index: number): boolean {
    const { raw } = this
    if (raw === undefined) {
      if (this.#left.has(incarnation)) return false
    } else if (incarnation !== raw) {
      if (this.#incarnation === raw) return false
      // Neither is the raw topic's any more: each has its own place, since one of them may never have been.
      const place = this.#left.get(incarnation)
      if (place !== undefined && isUpTo(place, offset, index)) return false
    }
    if (this.#incarnation !== undefined) {
      this.#left.set(this.#incarnation, { offset: this.#offset, index: this.#index })
    }
    this.#left.delete(incarnation)
    while (this.#left.size > MAX_LEFT) this.#left.delete(this.#left.keys().next().value as string)
    this.#incarnation = incarnation
    return true
  }
}
