/** Decides what the range holds that is written, killed and completed in tests of each object store. */
import { tradingDate } from "../../../src/schema/Tick.ts"
import type { ArchiveRange } from "../../../src/streams/ports/Archive.ts"
import { DAY, makeTick, OPEN } from "../../contract/ticks.ts"
import { quoteOf } from "../../support/quotes.ts"

const A_DAY = 86_400_000_000
export const DATES = [tradingDate(DAY), tradingDate(DAY + 1)]
export const RANGE: ArchiveRange = { incarnation: "normalized-1", partition: 2, first: 40, last: 59 }
/** Four ticks on each of two days. */
export const TICKS = Array.from({ length: 8 }, (_, i) =>
  makeTick({ exchange_ts: OPEN + (i < 4 ? 0 : A_DAY) + i, sequence_id: i, position: i + 1 })
)
/** Three quotes on each. */
export const QUOTES = Array.from({ length: 6 }, (_, i) => quoteOf(i, { exchange_ts: OPEN + (i < 3 ? 0 : A_DAY) + i }))

const objectsOf = (kind: string) => DATES.map((date) => `${kind}/date=${date}/normalized-1-2-40-59.parquet`)
export const TICK_OBJECTS = objectsOf("ticks")
/** In the order in which they are put. */
export const OBJECTS = [...TICK_OBJECTS, ...objectsOf("quotes")]
export const MANIFEST = "manifests/normalized-1-2-40.json"
