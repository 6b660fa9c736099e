// Joins the small objects of an archive, killed where MDP_CRASH_AT says: `node compactAndDie.ts FOLDER`, or
// `node compactAndDie.ts ENDPOINT BUCKET REGION` with credentials in the environment.
import { Effect } from "effect"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../../src/layers/archive/S3.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"

const [, , place, bucket, region] = process.argv
if (place === undefined) throw new Error("compactAndDie FOLDER, or ENDPOINT BUCKET REGION")
const options = { joinRows: 40, coveredForMs: 0 }
const layer =
  bucket === undefined
    ? ParquetFiles.layer(place, options)
    : S3.layer({ endpoint: place, bucket, region: region! }, options)
await Effect.runPromise(Effect.flatMap(Archive, (archive) => archive.compact("9999-01-01")).pipe(Effect.provide(layer)))
