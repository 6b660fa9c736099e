/**
 * Decides how the group `process` runs: one pipeline an assigned partition, started on assignment, ended on revocation;
 * degraded while one of them keeps failing.
 */
import { Effect, Stream } from "effect"
import type { LogError } from "../../schema/Errors.ts"
import { TickLog } from "../log/TickLog.ts"
import type { Checkpoints } from "../ports/Checkpoints.ts"
import type { Claims } from "../ports/Claims.ts"
import { type LostOffsetsSettings, lostOffsets } from "../run/lostOffsets.ts"
import type { Readiness } from "../run/Readiness.ts"
import { aloneInGroup } from "../run/restart.ts"
import { feedClocks } from "./feedClocks.ts"
import { type ProcessSettings, processPartition } from "./process.ts"

export const runProcess = (
  settings: ProcessSettings & LostOffsetsSettings
): Effect.Effect<void, LogError, TickLog | Claims | Checkpoints | Readiness> =>
  Effect.gen(function* () {
    const log = yield* TickLog
    const lost = yield* lostOffsets("process", "raw_ticks", settings)
    const clocks = yield* feedClocks
    const run = aloneInGroup("process")((assigned) =>
      processPartition(
        {
          ...assigned,
          read: (from, until) =>
            Stream.unwrap(Effect.as(lost.reached(assigned.partition, from), assigned.read(from, until)))
        },
        settings,
        lost,
        clocks
      ).pipe(Effect.raceFirst(assigned.revoked))
    )
    yield* log
      .assignments("process", "raw_ticks")
      .pipe(Stream.mapEffect(run, { concurrency: "unbounded" }), Stream.runDrain)
  }).pipe(Effect.scoped)
