// Writes a range into the archive of a folder and kills itself at a given call: `node writeAndDie.ts FOLDER CALL`.
// CALL is `link` or `rename`, with a number for which one, or with ` done` for right after the first.
import { promises as fs } from "node:fs"
import { Effect } from "effect"
import * as ParquetFiles from "../../src/layers/ParquetFiles.ts"
import { Archive } from "../../src/streams/Archive.ts"
import { makeTick, OPEN } from "../contract/ticks.ts"

const [, , folder, at] = process.argv
if (folder === undefined || at === undefined) throw new Error("writeAndDie FOLDER CALL")
const [name, which] = at.split(" ") as ["link" | "rename", string | undefined]
const call = fs[name]
const deadly = which === undefined || which === "done" ? 1 : Number(which)
let calls = 0
fs[name] = async (from, to) => {
  calls += 1
  if (calls === deadly && which !== "done") process.kill(process.pid, "SIGKILL")
  await call(from, to)
  if (calls === deadly && which === "done") process.kill(process.pid, "SIGKILL")
}

const ticks = Array.from({ length: 8 }, (_, i) =>
  makeTick({ exchange_ts: OPEN + (i < 4 ? 0 : 86_400_000_000) + i, sequence_id: i, position: i + 1 })
)
const range = { incarnation: "normalized-1", partition: 2, first: 40, last: 47 }
await Effect.runPromise(
  Effect.flatMap(Archive, (archive) => archive.write(range, ticks)).pipe(Effect.provide(ParquetFiles.layer(folder)))
)
