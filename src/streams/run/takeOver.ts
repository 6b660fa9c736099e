/**
 * Decides what is said of partitions that change hands: those that come to this process, of which group, whose they
 * were and for how long nobody ran them; and those that go. What comes within a second is said in one line.
 */
import { Clock, Effect, Stream } from "effect"
import type { AssignedPartition, TickLog } from "../log/TickLog.ts"
import * as metrics from "../metrics.ts"
import { SILENT_MS, WorkerCounters, type WorkerFigures } from "../ports/WorkerCounters.ts"
import { withFields } from "./fields.ts"
import { namesOf } from "./together.ts"

/** How long others are waited for that change hands in the same rebalance. */
const GATHER = "1 second"
/** Who ran what is asked once for partitions that come together. Where no answer has come by the line, it is not known. */
const ASKED_MS = 1000

/** What the others last told of themselves, and when they were asked, ms. */
interface Others {
  readonly list: ReadonlyArray<WorkerFigures>
  readonly at: number
}

/** Whose a partition was; `silentSince`, ms: where that process tells nothing of itself any more. */
interface Owner {
  readonly worker: string
  readonly silentSince?: number
}

/** A partition that came, and when what it goes on with had been read, ms. */
interface Taken {
  readonly partition: number
  readonly at: number
  readonly recoveredAt: number
  /** Whether this process had it before, in this life of its member. */
  readonly isAgain: boolean
}

/** Whoever says that it runs the partition, else the one process that says that it did. */
const ownerOf = ({ list, at }: Others, group: string, { partition, isAgain }: Taken): Owner | undefined => {
  const known = list.flatMap((process) => {
    const own = process.figures.find(
      ({ name, labels }) =>
        name === metrics.partitionsAssigned.id && labels.group === group && labels.partition === String(partition)
    )
    return own === undefined ? [] : [{ process, runs: own.value > 0 }]
  })
  const running = known.filter(({ runs }) => runs)
  const [one, another] = running.length > 0 ? running : isAgain ? [] : known
  if (one === undefined || another !== undefined) return isAgain ? { worker: "this process itself" } : undefined
  const { worker, silent_ms } = one.process
  return silent_ms < SILENT_MS ? { worker } : { worker, silentSince: at - silent_ms }
}

const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`
const sorted = (partitions: ReadonlyArray<number>) => [...partitions].sort((a, b) => a - b)

/** The line of partitions of one owner. */
const takenOver = (group: string, owner: Owner | undefined, taken: ReadonlyArray<Taken>): Effect.Effect<void> => {
  const partitions = sorted(taken.map(({ partition }) => partition))
  const recovering = Math.max(...taken.map(({ at, recoveredAt }) => recoveredAt - at))
  const { worker, silentSince } = owner ?? {}
  const silent = silentSince === undefined ? 0 : Math.max(...taken.map(({ recoveredAt }) => recoveredAt - silentSince))
  const whose = `${worker ?? "nobody that is known"}${silentSince === undefined ? "" : `, silent for ${seconds(silent)}`}`
  const line = `${group} takes over ${namesOf(partitions)} of ${whose}; recovered in ${seconds(recovering)}`
  return withFields(Effect.logInfo(line), {
    event: "taken over",
    group,
    partitions,
    recovering_ms: recovering,
    ...(worker === undefined ? {} : { from: worker }),
    ...(silentSince === undefined ? {} : { silent_ms: silent })
  })
}

/** Gathers what comes to one group and what goes, and tells of it. */
const voiceOf = (group: string, ask: Effect.Effect<ReadonlyArray<WorkerFigures>>) =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const scope = yield* Effect.scope
    let taken: Array<Taken> = []
    let gone: Array<number> = []
    let isWaiting = false
    let others: Others = { list: [], at: Number.NEGATIVE_INFINITY }
    const tell = Effect.gen(function* () {
      const [came, went] = [taken, sorted(gone)]
      taken = []
      gone = []
      isWaiting = false
      if (went.length > 0) {
        const fields = { event: "given up", group, partitions: went }
        yield* withFields(Effect.logInfo(`${group} gives up ${namesOf(went)}`), fields)
      }
      const owned = came.map((one) => ({ one, owner: ownerOf(others, group, one) }))
      for (const its of Map.groupBy(owned, ({ owner }) => owner?.worker).values()) {
        const all = its.map(({ one }) => one)
        yield* takenOver(group, its[0]!.owner, all)
      }
    })
    const soon = Effect.suspend(() => {
      if (isWaiting) return Effect.void
      isWaiting = true
      return Effect.asVoid(Effect.forkIn(Effect.delay(tell, GATHER), scope))
    })
    return {
      /** Does its work beside whoever asks. */
      aside: (work: Effect.Effect<void>) => Effect.forkIn(work, scope, { startImmediately: true }),
      /** As soon as a partition comes: by the time that it is told of, who gave it up says so already. */
      look: Effect.suspend(() => {
        const at = clock.currentTimeMillisUnsafe()
        if (at - others.at < ASKED_MS) return Effect.void
        others = { list: [], at }
        return Effect.map(ask, (list) => {
          others = { list, at: clock.currentTimeMillisUnsafe() }
        })
      }),
      came: (one: Taken) =>
        Effect.andThen(
          Effect.sync(() => taken.push(one)),
          soon
        ),
      went: (partition: number) =>
        Effect.andThen(
          Effect.sync(() => gone.push(partition)),
          soon
        )
    }
  })

/** Runs something when a partition is read for the first time: what it goes on with has been read then. */
const beforeReading = (assigned: AssignedPartition, first: Effect.Effect<void>): AssignedPartition => {
  let isRead = false
  return {
    ...assigned,
    read: (from, until) =>
      Stream.unwrap(
        Effect.suspend(() => {
          const reading = Effect.succeed(assigned.read(from, until))
          if (isRead) return reading
          isRead = true
          return Effect.andThen(first, reading)
        })
      )
  }
}

/**
 * A log whose groups say what they take over and give up, and show what they run. A partition in which nobody has
 * committed is begun rather than taken over: nothing is said of it. `life`: this process's own, which is not asked.
 */
export const tellingLog = (log: TickLog["Service"], life: string): Effect.Effect<TickLog["Service"]> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const counters = yield* Effect.serviceOption(WorkerCounters)
    const ask =
      counters._tag === "None"
        ? Effect.succeed([])
        : counters.value.all.pipe(
            Effect.map((all) => all.filter((one) => one.life !== life)),
            Effect.orElseSucceed((): ReadonlyArray<WorkerFigures> => [])
          )
    return {
      ...log,
      assignments: (group, topic) =>
        Stream.unwrap(
          Effect.map(voiceOf(group, ask), (voice) => {
            const had = new Set<number>()
            return Stream.mapEffect(log.assignments(group, topic), (assigned) =>
              Effect.gen(function* () {
                const { partition, committed, revoked } = assigned
                const at = clock.currentTimeMillisUnsafe()
                const isAgain = had.has(partition)
                had.add(partition)
                const runs = metrics.bind(metrics.partitionsAssigned, { group, partition: String(partition) }, context)
                runs.add(1)
                const left = Effect.sync(() => runs.add(0)).pipe(Effect.andThen(voice.went(partition)))
                yield* voice.aside(Effect.andThen(revoked, left))
                if (committed === undefined) return assigned
                yield* voice.aside(voice.look)
                const recovered = Effect.suspend(() =>
                  voice.came({ partition, at, recoveredAt: clock.currentTimeMillisUnsafe(), isAgain })
                )
                return beforeReading(assigned, recovered)
              })
            )
          })
        )
    }
  })
