// Writes a range into the archive of a folder and kills itself at a given call: `node writeAndDie.ts FOLDER CALL`.
// CALL is `link`, with a number for which one, and with ` done` for right after it.
import { promises as fs } from "node:fs"
import { Effect } from "effect"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { makeTick, OPEN } from "../../contract/ticks.ts"

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

const ticks = Array.from({ length: 8 }, (_, i) =>
  makeTick({ exchange_ts: OPEN + (i < 4 ? 0 : 86_400_000_000) + i, sequence_id: i, position: i + 1 })
)
const range = { incarnation: "normalized-1", partition: 2, first: 40, last: 47 }
await Effect.runPromise(
  Effect.flatMap(Archive, (archive) => archive.write(range, toColumns(ticks))).pipe(
    Effect.provide(ParquetFiles.layer(folder))
  )
)
