// Drops old days of a store in a folder whose archive lies beside it: `node dropAndDie.ts FOLDER fill|drop`, killed where
// MDP_CRASH_AT says.
import { join } from "node:path"
import { Effect, Layer } from "effect"
import pg from "pg"
import * as ParquetFiles from "../../../src/layers/archive/ParquetFiles.ts"
import * as Pglite from "../../../src/layers/postgres/Pglite.ts"
import * as Timescale from "../../../src/layers/postgres/Timescale.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { TickStore } from "../../../src/streams/ports/TickStore.ts"
import { Readiness } from "../../../src/streams/run/Readiness.ts"
import { dropOldDays } from "../../../src/streams/sinks/retention.ts"
import { NO_QUOTES, storeBatch } from "../../contract/ticks.ts"
import { KEEP_DAYS, oldQuotes, oldTicks } from "./oldTicks.ts"

const [, , folder, what] = process.argv
if (folder === undefined || (what !== "fill" && what !== "drop")) throw new Error("dropAndDie FOLDER fill|drop")

await Effect.runPromise(
  Effect.gen(function* () {
    const { url } = yield* Pglite.start({ dataDir: join(folder, "store") })
    const store = yield* Timescale.make({ url, embedded: true, keepDays: KEEP_DAYS })
    const archive = yield* Archive
    if (what === "fill") {
      const ticks = oldTicks()
      yield* store.write(storeBatch({ ticks, quotes: oldQuotes() }))
      while ((yield* store.refreshCandles) > 0);
      // The rest was gathered still when the process was killed.
      const range = { incarnation: "normalized-1", partition: 0, first: 0, last: 9 }
      yield* archive.write(range, toColumns(ticks.filter((_, i) => i % 3 !== 0)), NO_QUOTES)
      yield* store.oldDays
      yield* Effect.promise(async () => {
        const client = new pg.Client({ connectionString: url })
        await client.connect()
        await client.query("UPDATE store_state SET ticks_from_raised_at = now() - INTERVAL '1 hour'")
        await client.end()
      })
    } else yield* dropOldDays.pipe(Effect.provideService(TickStore, store))
  }).pipe(Effect.provide(Layer.merge(ParquetFiles.layer(join(folder, "archive")), Readiness.layer)), Effect.scoped)
)
