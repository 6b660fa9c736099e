// Writes a range into the archive of a bucket: `node writeToS3.ts ENDPOINT BUCKET REGION`, credentials in the environment.
import { Effect } from "effect"
import * as S3 from "../../../src/layers/archive/S3.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { QUOTES, RANGE, TICKS } from "./twoDays.ts"

const [, , endpoint, bucket, region] = process.argv
if (endpoint === undefined || bucket === undefined) throw new Error("writeToS3 ENDPOINT BUCKET REGION")
await Effect.runPromise(
  Effect.flatMap(Archive, (archive) => archive.write(RANGE, toColumns(TICKS), toQuoteColumns(QUOTES))).pipe(
    Effect.provide(S3.layer({ endpoint, bucket, region }))
  )
)
