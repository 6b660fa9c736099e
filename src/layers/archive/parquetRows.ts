/** Decides what rows are in a Parquet file that is sent as it is written: a row group for each part, the footer last. */
import { ByteWriter, ParquetWriter } from "hyparquet-writer"
import type { RowColumns } from "../../schema/tables.ts"
import type { FieldTable } from "../../schema/tickFields.ts"
import { columnDataOf, schemaOf } from "./parquetSchema.ts"
import type { RowFile } from "./rowFile.ts"

const FIRST_BYTES = 1 << 20

/** Rows of such fields as a file. */
export const parquetRows = (fields: FieldTable, name: string): RowFile => {
  const writer = new ByteWriter(FIRST_BYTES)
  const parquet = new ParquetWriter({ writer, schema: schemaOf(fields, name), createdBy: "market-data-platform" })
  const columnData = columnDataOf(fields)
  /** What was written since: the writer goes on counting from the file's start. */
  const taken = (): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(writer.getBuffer())
    writer.index = 0
    return bytes
  }
  return {
    begin: taken,
    rows: ({ columns, count }: RowColumns) => {
      const rows = Uint32Array.from({ length: count }, (_, row) => row)
      void parquet.write({ rowGroupSize: count, columnData: columnData(columns, rows) })
      return taken()
    },
    end: () => {
      void parquet.finish()
      return taken()
    }
  }
}
