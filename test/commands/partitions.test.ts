import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { partitionsKept } from "../../src/commands/partitions.ts"
import * as MemoryCheckpoints from "../../src/layers/memory/MemoryCheckpoints.ts"
import * as MemoryLog from "../../src/layers/memory/MemoryLog.ts"
import { CacheError } from "../../src/schema/Errors.ts"
import { TickLog } from "../../src/streams/log/TickLog.ts"
import { Checkpoints } from "../../src/streams/ports/Checkpoints.ts"

const Log = MemoryLog.layer({ partitions: 4, capacity: 10, dlqCapacity: 10, retained: 10, batch: 10 })
const start = Effect.scoped(Layer.build(partitionsKept))

describe("a start on a log of so many partitions", () => {
  it.effect("is refused, with both numbers, where state was kept with another", () =>
    Effect.gen(function* () {
      const log = yield* TickLog
      const checkpoints = yield* Checkpoints
      yield* checkpoints.partitions(log.incarnation("raw_ticks"), 2)
      const { message } = yield* Effect.flip(start)
      assert.match(message, /^raw_ticks has 4 partitions, its states were kept with 2: /)
    }).pipe(Effect.provide([Log, MemoryCheckpoints.layer]))
  )

  it.effect("goes on with the same number, with none kept yet, and where it cannot be known", () =>
    Effect.gen(function* () {
      yield* start
      yield* start
      const gone = Effect.fail(new CacheError({ operation: "load", message: "nobody there" }))
      yield* start.pipe(
        Effect.provideService(Checkpoints, { partitions: () => gone, load: () => gone, save: () => gone })
      )
    }).pipe(Effect.provide([Log, MemoryCheckpoints.layer]))
  )
})
