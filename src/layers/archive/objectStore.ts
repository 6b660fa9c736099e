/** Decides what the archive needs of whoever keeps its objects. */
import type { Effect } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import type { ObjectSource } from "./objectSource.ts"
import type { ReadRange } from "./parquetThread.ts"

/**
 * Where objects are kept, by keys with `/` in them. What any of these answers to be there is whole, and outlives a crash
 * of this process and of whatever keeps it.
 */
export interface ObjectStore {
  /** Puts an object where none is. False: one is there, and stays as it was; also where an earlier try put it. */
  readonly putNew: (key: string, bytes: Uint8Array) => Effect.Effect<boolean, ArchiveError>
  /** Takes an object away; it may be gone already. */
  readonly remove: (key: string) => Effect.Effect<void, ArchiveError>
  /** How many bytes an object has; undefined where there is none. */
  readonly sizeOf: (key: string) => Effect.Effect<number | undefined, ArchiveError>
  /** A small object, whole. */
  readonly get: (key: string) => Effect.Effect<Uint8Array | undefined, ArchiveError>
  /** The objects under a prefix that ends with `/`, in any order. */
  readonly list: (prefix: string) => Effect.Effect<ReadonlyArray<Listed>, ArchiveError>
  /** The names of the folders right under a prefix that ends with `/`, in any order. */
  readonly folders: (prefix: string) => Effect.Effect<ReadonlyArray<string>, ArchiveError>
  /** Bytes of an object. */
  readonly readRange: ReadRange
}

export interface Listed {
  /** The key after the prefix. */
  readonly name: string
  readonly source: ObjectSource
}
