/** Decides whether a pipeline may start on its log: the number of partitions may not change under kept state. */
import { Effect, Layer } from "effect"
import { StartError } from "../schema/Errors.ts"
import { TickLog } from "../streams/log/TickLog.ts"
import { Checkpoints } from "../streams/ports/Checkpoints.ts"

/** Refuses a log that has another number of partitions than the states that are kept of it. */
export const partitionsKept: Layer.Layer<never, StartError, TickLog | Checkpoints> = Layer.effectDiscard(
  Effect.gen(function* () {
    const log = yield* TickLog
    const checkpoints = yield* Checkpoints
    const kept = yield* checkpoints
      .partitions(log.incarnation("raw_ticks"), log.partitions)
      .pipe(
        Effect.catch((error) =>
          Effect.as(Effect.logWarning(`how many partitions had state is not known: ${error.message}`), log.partitions)
        )
      )
    if (kept === log.partitions) return
    return yield* new StartError({
      message:
        `raw_ticks has ${log.partitions} partitions, its states were kept with ${kept}: instruments would leave the ` +
        `partitions that know them. Have the sinks catch up, then delete all three topics and create them with ${log.partitions}`
    })
  })
)
