// Writes a range into the archive of a folder and kills itself at a given call: `node writeAndDie.ts FOLDER CALL`.
// CALL is `link`, with a number for which one, and with ` done` for right after it.
import { promises as fs } from "node:fs"
import { Effect } from "effect"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { QUOTES, RANGE, TICKS } from "./twoDays.ts"

const [, , folder, at] = process.argv
if (folder === undefined || at === undefined) throw new Error("writeAndDie FOLDER CALL")
const [, which = "1", done] = /^link (\d+)( done)?$/.exec(at) ?? []
const { link } = fs
let calls = 0
fs.link = async (from, to) => {
  calls += 1
  const isDeadly = calls === Number(which)
  if (isDeadly && done === undefined) process.kill(process.pid, "SIGKILL")
  await link(from, to)
  if (isDeadly) process.kill(process.pid, "SIGKILL")
}

await Effect.runPromise(
  Effect.flatMap(Archive, (archive) => archive.write(RANGE, toColumns(TICKS), toQuoteColumns(QUOTES))).pipe(
    Effect.provide(ParquetFiles.layer(folder))
  )
)
