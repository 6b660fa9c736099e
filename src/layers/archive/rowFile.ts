/** Decides how a file of columns is written part by part, so that no more than one part of it is ever in memory. */
import type { RowColumns } from "../../schema/tables.ts"

export interface RowFile {
  /** What goes before all rows. */
  readonly begin: () => Uint8Array<ArrayBuffer>
  readonly rows: (part: RowColumns) => Uint8Array<ArrayBuffer>
  readonly end: () => Uint8Array<ArrayBuffer>
}

export type FileFormat = "arrow" | "parquet"
