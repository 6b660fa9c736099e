/** Decides how tests read files of columns: every row as an object, times as the microseconds that they are. */
import { tableFromIPC } from "@uwdata/flechette"
import { type AsyncBuffer, parquetReadObjects } from "hyparquet"

export type Row = Readonly<Record<string, unknown>>

const plain = (row: Row): Row =>
  Object.fromEntries(
    Object.entries(row).map(([name, value]) => [name, typeof value === "bigint" ? Number(value) : value])
  )

export const rowsOfArrow = (bytes: Uint8Array): ReadonlyArray<Row> =>
  (tableFromIPC(bytes, { useBigIntTimestamp: true }).toArray() as ReadonlyArray<Row>).map(plain)

export const fileOf = (bytes: Uint8Array): AsyncBuffer => ({
  byteLength: bytes.length,
  slice: (from, to) => new Uint8Array(bytes.subarray(from, to)).buffer
})

export const rowsOfParquet = async (bytes: Uint8Array): Promise<ReadonlyArray<Row>> => {
  const parsers = { timestampFromMicroseconds: (micros: bigint): number => Number(micros) }
  return (await parquetReadObjects({ file: fileOf(bytes), parsers })).map(plain)
}
