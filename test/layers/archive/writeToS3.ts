// Writes a range into the archive of a bucket: `node writeToS3.ts ENDPOINT BUCKET REGION`, credentials in the environment.
import { Effect } from "effect"
import * as S3 from "../../../src/layers/archive/S3.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { makeTick, OPEN } from "../../contract/ticks.ts"

const [, , endpoint, bucket, region] = process.argv
if (endpoint === undefined || bucket === undefined) throw new Error("writeToS3 ENDPOINT BUCKET REGION")
const ticks = Array.from({ length: 8 }, (_, i) =>
  makeTick({ exchange_ts: OPEN + (i < 4 ? 0 : 86_400_000_000) + i, sequence_id: i, position: i + 1 })
)
const range = { incarnation: "normalized-1", partition: 2, first: 40, last: 47 }
await Effect.runPromise(
  Effect.flatMap(Archive, (archive) => archive.write(range, toColumns(ticks))).pipe(
    Effect.provide(S3.layer({ endpoint, bucket, region }))
  )
)
