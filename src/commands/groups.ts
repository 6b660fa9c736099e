/** Decides which parts of the topology a process runs, how one that fails is started again, and how they are drained. */
import { Cause, Effect, Layer, Schedule } from "effect"
import type { LogError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import type { Archive } from "../streams/Archive.ts"
import type { Claims } from "../streams/Claims.ts"
import { Drain } from "../streams/Drain.ts"
import { observe } from "../streams/observe.ts"
import { Readiness } from "../streams/Readiness.ts"
import type { RecentTicks } from "../streams/RecentTicks.ts"
import { refreshCandles } from "../streams/refreshCandles.ts"
import type { StateSnapshots } from "../streams/StateSnapshots.ts"
import { TickLog } from "../streams/TickLog.ts"
import type { TickStore } from "../streams/TickStore.ts"
import { runProcess } from "../streams/topology.ts"
import { writeArchive } from "../streams/writeArchive.ts"
import { writeRing } from "../streams/writeRing.ts"
import { writeStore } from "../streams/writeStore.ts"

const RESTART_WAIT = "1 second"
const DRAIN_POLL = "20 millis"

/** Runs a part for ever: a failure is logged whole, shown as degraded, and the part started again. */
export const supervise = <E, R>(
  name: string,
  part: Effect.Effect<unknown, E, R>
): Effect.Effect<void, never, R | Readiness> =>
  Effect.gen(function* () {
    const readiness = yield* Readiness
    yield* part.pipe(
      Effect.tapCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.andThen(
              Effect.logError(`${name} failed and starts again: ${Cause.pretty(cause)}`),
              readiness.degrade(name, true)
            )
      ),
      Effect.sandbox,
      Effect.retry(Schedule.spaced(RESTART_WAIT)),
      Effect.orDie
    )
  })

/** Waits until every group has taken all there is: first `process`, then those that read what it publishes. */
const runEmpty: Effect.Effect<void, LogError, TickLog> = Effect.gen(function* () {
  const log = yield* TickLog
  const behind = (topic: string) =>
    Effect.map(log.lag, (groups) => groups.some((group) => group.topic === topic && group.records > 0))
  for (const topic of ["raw_ticks", "normalized_ticks"]) {
    yield* behind(topic).pipe(Effect.repeat({ while: (is) => is, schedule: Schedule.spaced(DRAIN_POLL) }))
  }
})

type GroupServices = TickLog | TickStore | RecentTicks | Claims | StateSnapshots | Readiness | Drain

const parts = (settings: Settings): ReadonlyArray<Effect.Effect<void, never, GroupServices>> => [
  supervise("process", runProcess(settings)),
  supervise("store", writeStore(settings)),
  supervise("candles", refreshCandles(settings)),
  supervise("ring", writeRing),
  supervise("observe", observe(settings))
]

/** Forks parts into the scope; when it ends they drain before they are stopped. */
const running = <R>(settings: Settings, parts: ReadonlyArray<Effect.Effect<void, never, R>>) =>
  Effect.gen(function* () {
    const drain = yield* Drain
    for (const part of parts) yield* Effect.forkScoped(part)
    const context = yield* Effect.context<TickLog>()
    yield* Effect.addFinalizer(() =>
      Effect.andThen(drain.begin, runEmpty).pipe(
        Effect.provideContext(context),
        Effect.timeoutOrElse({
          duration: settings.DRAIN_DEADLINE_MS,
          orElse: () => Effect.die(new Error(`not drained within ${settings.DRAIN_DEADLINE_MS} ms (DRAIN_DEADLINE_MS)`))
        }),
        Effect.orDie
      )
    )
  })

/**
 * Every group but the archive's. When the scope ends, whatever the log has by then is processed, stored and committed
 * before anything stops.
 */
export const groups = (settings: Settings) => Layer.effectDiscard(running(settings, parts(settings)))

/** Every group. */
export const groupsWithArchive = (settings: Settings) =>
  Layer.effectDiscard(
    running<GroupServices | Archive>(settings, [...parts(settings), supervise("archive", writeArchive(settings))])
  )
