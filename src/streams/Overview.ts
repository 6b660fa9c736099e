/**
 * Decides what a server knows of all processes and groups: who lives, who runs each group, how far each is behind; and
 * names in `degraded` whoever fell silent, what the others call degraded, and the groups that nobody runs.
 */
import { Clock, Context, Effect, Layer } from "effect"
import { TickLog, type Topic } from "./log/TickLog.ts"
import * as metrics from "./metrics.ts"
import { type ProcessLife, SILENT_MS, WorkerCounters, type WorkerFigures } from "./ports/WorkerCounters.ts"
import { Readiness } from "./run/Readiness.ts"
import { consumerGroups, gatheringGroups } from "./topology.ts"

/** How often it is looked. */
const EVERY = "1 second"
/** What was not answered again for so long is not known any more. */
const FRESH_MS = 3000
/** Names told at most, and characters of each: what other processes say is theirs. */
const MAX_NAMES = 50
const MAX_NAME_CHARS = 200

export interface GroupState {
  readonly group: string
  readonly topic: Topic
  /** Records that it has yet to take; null while nobody can tell. */
  readonly lag: number | null
  /** Records that it has taken and gathers on purpose, as the archive does; they are not behind. */
  readonly held: number
  /** As the log counts them; a member that died counts until its session has timed out. Null while nobody can tell. */
  readonly members: number | null
  /** The living processes that run it, by name; null while nobody can tell. */
  readonly run_by: ReadonlyArray<string> | null
}

export interface ProcessState extends WorkerFigures {
  readonly living: boolean
}

export interface OverviewReport {
  /** Null while nobody can tell. */
  readonly processes: ReadonlyArray<ProcessState> | null
  /** Whether processes other than this one are seen. */
  readonly shared: boolean
  readonly groups: ReadonlyArray<GroupState>
}

export interface OverviewOptions {
  readonly self: ProcessLife
  /** The groups that somebody has to run, besides those that anybody listed has. */
  readonly expected: ReadonlyArray<string>
}

type Lags = Effect.Success<TickLog["Service"]["lag"]>

/** A group's lag and what it holds: of a partition that somebody gathers, both as that process saw them at one moment. */
const standing = (group: string, lags: Lags, living: ReadonlyArray<ProcessState>) => {
  const gathered = new Map<string, { readonly lag: number; readonly held: number }>()
  for (const { figures } of living) {
    for (const { name, labels, value: held } of figures) {
      if (name !== metrics.heldRecords.id || labels.group !== group || held <= 0) continue
      const { partition = "" } = labels
      const behind = figures.find(
        (other) =>
          other.name === metrics.consumerLag.id && other.labels.group === group && other.labels.partition === partition
      )
      const lag = Math.max(0, (behind?.value ?? held) - held)
      const other = gathered.get(partition)
      if (other === undefined || lag < other.lag) gathered.set(partition, { lag, held })
    }
  }
  let lag = 0
  let held = 0
  for (const of of lags) {
    if (of.group !== group) continue
    const taken = gathered.get(String(of.partition))
    lag += taken?.lag ?? of.records
    held += taken?.held ?? 0
  }
  return { lag, held }
}

const oneName = (text: string): string => (text.length > MAX_NAME_CHARS ? `${text.slice(0, MAX_NAME_CHARS)}…` : text)

export class Overview extends Context.Service<
  Overview,
  { readonly self: ProcessLife; readonly report: Effect.Effect<OverviewReport> }
>()("market-data-platform/streams/Overview") {
  static readonly layer = ({ self, expected }: OverviewOptions) =>
    Layer.effect(
      Overview,
      Effect.gen(function* () {
        const log = yield* TickLog
        const counters = yield* WorkerCounters
        const readiness = yield* Readiness
        const clock = yield* Clock.Clock

        /** The newest answer while it is fresh. Asked again once it was answered: what hangs is asked once. */
        const looking = <A>(ask: Effect.Effect<A, unknown>) =>
          Effect.gen(function* () {
            let newest: { readonly value: A; readonly at: number } | undefined
            yield* ask.pipe(
              Effect.tap((value) =>
                Effect.sync(() => {
                  newest = { value, at: clock.currentTimeMillisUnsafe() }
                })
              ),
              Effect.ignore,
              Effect.andThen(Effect.sleep(EVERY)),
              Effect.forever,
              Effect.forkScoped({ startImmediately: true })
            )
            return () =>
              newest === undefined || clock.currentTimeMillisUnsafe() - newest.at > FRESH_MS ? null : newest
          })
        const lags = yield* looking(log.lag)
        const members = yield* looking(log.members)
        const workers = yield* looking(counters.all)

        const processes = (): ReadonlyArray<ProcessState> | null => {
          const seen = workers()
          if (seen === null) return null
          const since = clock.currentTimeMillisUnsafe() - seen.at
          return seen.value.map((worker) => {
            const silent_ms = worker.life === self.life ? 0 : worker.silent_ms + since
            return { ...worker, silent_ms, living: silent_ms < SILENT_MS }
          })
        }

        const report = (): OverviewReport => {
          const all = processes()
          const living = (all ?? []).filter((one) => one.living)
          const lag = lags()
          const counted = members()
          const run = new Set(expected)
          for (const { stages } of all ?? []) for (const group of stages) run.add(group)
          const known = [...run].flatMap((group) => {
            const topic = consumerGroups.get(group)
            return topic === undefined ? [] : [[group, topic] as const]
          })
          const groups = known.map(([group, topic]): GroupState => {
            const mine = self.stages.includes(group) ? [self.worker] : []
            const others = living.filter(({ life, stages }) => life !== self.life && stages.includes(group))
            const isSeen = counters.shared ? all !== null : mine.length > 0
            // What is gathered only the process knows that gathers it.
            const isTold = lag !== null && (all !== null || !gatheringGroups.has(group))
            const stands = isTold ? standing(group, lag.value, living) : { lag: null, held: 0 }
            return {
              group,
              topic,
              ...stands,
              members: counted?.value.find((one) => one.group === group)?.members ?? (counted === null ? null : 0),
              run_by: isSeen ? [...mine, ...others.map(({ worker }) => worker)] : null
            }
          })
          return { processes: all, shared: counters.shared, groups }
        }

        const holder = {}
        let named: ReadonlySet<string> = new Set()
        const judge = Effect.gen(function* () {
          const { processes: all, groups } = report()
          const found: Array<string> = []
          for (const { group, run_by, members: counted } of groups) {
            if (run_by === null ? counted === 0 : run_by.length === 0) found.push(`${group}: nobody runs it`)
          }
          for (const { life, worker, living, degraded } of all ?? []) {
            if (life === self.life) continue
            if (!living) found.push(oneName(`${worker}: silent`))
            else found.push(...degraded.map((name) => oneName(`${worker}: ${name}`)))
          }
          const now = new Set(found.slice(0, MAX_NAMES))
          if (found.length > MAX_NAMES) now.add(`${found.length - MAX_NAMES} more`)
          for (const name of named) if (!now.has(name)) yield* readiness.degrade(name, false, holder)
          for (const name of now) if (!named.has(name)) yield* readiness.degrade(name, true, holder)
          named = now
        })
        yield* judge.pipe(Effect.andThen(Effect.sleep(EVERY)), Effect.forever, Effect.delay(EVERY), Effect.forkScoped)
        return Overview.of({ self, report: Effect.sync(report) })
      })
    )
}
