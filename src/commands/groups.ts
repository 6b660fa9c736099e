/** Decides which parts of the topology a process runs, how one that fails is started again, and how they are drained. */
import { Cause, Effect, Fiber, Layer, Schedule } from "effect"
import type { LogError } from "../schema/Errors.ts"
import type { Settings } from "../schema/Settings.ts"
import { TickLog } from "../streams/log/TickLog.ts"
import { Archive, noArchive } from "../streams/ports/Archive.ts"
import { announce } from "../streams/run/announce.ts"
import { Drain } from "../streams/run/Drain.ts"
import { drainable } from "../streams/run/drainable.ts"
import { observe } from "../streams/run/observe.ts"
import type { Readiness } from "../streams/run/Readiness.ts"
import { reasonOf, restart } from "../streams/run/restart.ts"
import { tellingLog } from "../streams/run/takeOver.ts"
import { type Part, type Stage, groups as table } from "../streams/topology.ts"

const RESTART_WAIT = "1 second"
const DRAIN_POLL = "20 millis"
/** The share of the deadline after which a stop says what it waits for. */
const SAY_AT = 0.5

/** Runs a part for ever: a failure is logged, shown as degraded for a while, and the part started again. */
export const supervise = <E, R>(
  name: string,
  part: Effect.Effect<unknown, E, R>
): Effect.Effect<void, never, R | Readiness> =>
  part.pipe(
    Effect.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.void
        : Effect.logError(`${name} failed and starts again: ${reasonOf(cause)}`)
    ),
    Effect.sandbox,
    restart(name, Schedule.spaced(RESTART_WAIT)),
    Effect.orDie,
    Effect.asVoid
  )

/**
 * Waits until every group that has not given up has taken all there is: first `process`, then those that read what it
 * publishes.
 */
const runEmpty = (log: TickLog["Service"], over: ReadonlySet<string>): Effect.Effect<void, LogError> =>
  Effect.gen(function* () {
    const behind = (topic: string) =>
      Effect.map(log.lag, (groups) =>
        groups.some(({ group, topic: of, records }) => of === topic && records > 0 && !over.has(group))
      )
    for (const topic of ["raw_ticks", "normalized_ticks"]) {
      yield* behind(topic).pipe(Effect.repeat({ while: (is) => is, schedule: Schedule.spaced(DRAIN_POLL) }))
    }
  })

type GroupServices = Effect.Services<ReturnType<(typeof table)[Stage]["parts"]>[number]["run"]> | Drain

export interface GroupOptions {
  readonly stages: ReadonlyArray<Stage>
  /** Whether the log is this process's own: then whatever it holds is worked off before a stop. */
  readonly ownsLog: boolean
  /** This life of the process among others. */
  readonly life: string
}

/** What a stop waits for that may not end: nothing of it is lost, the log has it, and the group's offset. */
const sayUnderWay = (underWay: Effect.Effect<ReadonlyMap<string, number>>): Effect.Effect<void> =>
  Effect.flatMap(underWay, (groups) => {
    const named = [...groups].map(([group, partitions]) => `${group} (${partitions} partitions)`)
    return Effect.logWarning(
      `the stop waits for ${named.join(", ")}: what is not committed by the deadline, the next run takes again`
    )
  })

/**
 * The groups, forked into the scope. When the scope ends they drain before anything stops: with a log of its own the
 * process works off all that it holds; else it takes no more, and what it took is written and committed.
 */
const running = (settings: Settings, { stages, ownsLog, life }: GroupOptions) =>
  Effect.gen(function* () {
    const drain = yield* Drain
    const own = yield* TickLog
    // A log of its own has no other members.
    const log = ownsLog ? own : yield* tellingLog(own, life)
    const stoppable = drainable(log, drain.begun)
    const over = new Set<string>()
    const partsOf = (stage: Stage) => {
      const parts: ReadonlyArray<Part<GroupServices>> = table[stage].parts(settings)
      // A part that ends by itself has given up, as the ring does in a stop: its group is not waited for then.
      return parts.map(({ name, run }) =>
        supervise(
          name,
          Effect.tap(run, () => Effect.sync(() => over.add(stage)))
        )
      )
    }
    for (const stage of stages) yield* announce(table[stage].nodes)
    const parts = [...stages.flatMap(partsOf), supervise("observe", observe(settings))]
    for (const part of parts) {
      yield* Effect.forkScoped(ownsLog ? part : Effect.provideService(part, TickLog, stoppable.log))
    }
    const drained = ownsLog ? runEmpty(log, over) : stoppable.drained
    yield* Effect.addFinalizer(() =>
      Effect.gen(function* () {
        yield* drain.begin
        const told = yield* Effect.forkChild(
          Effect.delay(ownsLog ? Effect.void : sayUnderWay(stoppable.underWay), settings.DRAIN_DEADLINE_MS * SAY_AT)
        )
        yield* drained.pipe(
          Effect.timeoutOrElse({
            duration: settings.DRAIN_DEADLINE_MS,
            orElse: () =>
              Effect.die(new Error(`not drained within ${settings.DRAIN_DEADLINE_MS} ms (DRAIN_DEADLINE_MS)`))
          }),
          Effect.orDie
        )
        yield* Fiber.interrupt(told)
      })
    )
  })

/** The groups of a process; `archive` is asked for only where the stages name it. */
export const groups = <E, R>(
  settings: Settings,
  options: GroupOptions,
  archive: Layer.Layer<Archive, E, R> | undefined
) => {
  const stages = archive === undefined ? options.stages.filter((stage) => stage !== "archive") : options.stages
  const built = Layer.effectDiscard(running(settings, { ...options, stages }))
  // Without an archive no stage asks it.
  return Layer.provide(built, archive ?? Layer.succeed(Archive, noArchive))
}
