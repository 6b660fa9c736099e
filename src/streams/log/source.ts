/** Decides how sources compare: where in the raw topic a published tick came from. */
import type { Source } from "../../schema/Tick.ts"

/** A place in a raw partition: offset, and the tick within its record. */
export interface SourcePlace {
  readonly offset: number
  readonly index: number
}

/** Below every source. */
export const BEFORE_ALL: SourcePlace = { offset: -1, index: -1 }

/** Whether the source at an offset and index is at or below a place. */
export const isUpTo = (place: SourcePlace, offset: number, index: number): boolean =>
  offset < place.offset || (offset === place.offset && index <= place.index)

/** A source as a text, within one incarnation of one raw partition. */
export const sourceKey = ([, offset, index]: Source): string => `${offset}:${index}`
