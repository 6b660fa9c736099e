/** Decides how a stream of ticks or bars is written as text: NDJSON, CSV, or one JSON document like that of a page. */
import { Stream } from "effect"
import type { BarRow } from "../../schema/tables.ts"
import type { StoredTick } from "../../streams/ports/TickStore.ts"
import { BAR_CSV_HEADER, barCsvLine, CSV_HEADER, csvLine, encodeBarRow, encodeTick } from "../wire.ts"

/** How rows of one table are written. */
export interface TextRows<A> {
  readonly json: (row: A) => string
  readonly csvHeader: string
  readonly csvLine: (row: A) => string
  /** What a page of them is called. */
  readonly name: string
}

export const tickText: TextRows<StoredTick> = { json: encodeTick, csvHeader: CSV_HEADER, csvLine, name: "ticks" }
export const barText: TextRows<BarRow> = {
  json: encodeBarRow,
  csvHeader: BAR_CSV_HEADER,
  csvLine: barCsvLine,
  name: "candles"
}

const encoder = new TextEncoder()

/** A line or a member each. `last` is what a JSON document says after its rows, once all of them were written. */
export const written = <A, E>(
  rows: Stream.Stream<A, E>,
  text: TextRows<A>,
  format: "json" | "ndjson" | "csv",
  last: () => string = () => ""
): Stream.Stream<Uint8Array<ArrayBuffer>, E> => {
  const bytes = (said: string) => Stream.suspend(() => (said === "" ? Stream.empty : Stream.make(encoder.encode(said))))
  if (format !== "json") {
    const line = format === "csv" ? text.csvLine : (row: A) => `${text.json(row)}\n`
    return Stream.concat(
      bytes(format === "csv" ? text.csvHeader : ""),
      Stream.mapArray(rows, (some) => [encoder.encode(some.map(line).join(""))])
    )
  }
  return Stream.suspend(() => {
    let separator = ""
    return bytes(`{"${text.name}":[`).pipe(
      Stream.concat(
        Stream.mapArray(rows, (some) => {
          const members = separator + some.map(text.json).join(",")
          separator = ","
          return [encoder.encode(members)]
        })
      ),
      Stream.concat(Stream.suspend(() => bytes(`],"next_cursor":null${last()}}`)))
    )
  })
}
