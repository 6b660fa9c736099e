// A process of its own that writes to a DATA_DIR and says, line by line, what the store has acknowledged.
import { Effect } from "effect"
import * as Pglite from "../../../src/layers/postgres/Pglite.ts"
import * as Timescale from "../../../src/layers/postgres/Timescale.ts"
import { makeTick, OPEN, storeBatch } from "../../contract/ticks.ts"

const [, , dataDir, batches] = process.argv
const BATCH = 50

const say = (line: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    process.stdout.write(`${line}\n`, () => resume(Effect.void))
  })

const program = Effect.gen(function* () {
  const { url } = yield* Pglite.start({ dataDir })
  yield* say("open")
  const store = yield* Timescale.make({ url, embedded: true })
  for (let b = 0; b < Number(batches); b++) {
    const ticks = Array.from({ length: BATCH }, (_, i) => {
      const n = b * BATCH + i
      return makeTick({ instrument_token: 1, exchange_ts: OPEN + n * 100_000, sequence_id: n, position: n + 1 })
    })
    const bookmark = { partition: 0, incarnation: "child", offset: (b + 1) * BATCH, mark: undefined }
    yield* store.write(storeBatch({ ticks, bookmarks: [bookmark] }))
    if (b % 3 === 0) yield* store.refreshCandles
    yield* say(`stored ${(b + 1) * BATCH}`)
  }
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.catch((error) => say(`refused ${error.message}`))
)

Effect.runFork(program)
