/** Decides what processes tell of themselves, so that a server can show all of them: who they are, and their newest figures. */
import { Context, type Effect } from "effect"
import type { CacheError } from "../../schema/Errors.ts"

export interface Figure {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** One life of a process: started again it is another, and no figure of the one goes with a figure of the other. */
export interface ProcessLife {
  /** What no other life has. */
  readonly life: string
  /** What a person calls it: `worker host:pid`. */
  readonly worker: string
  readonly role: "worker" | "server" | "instance"
  /** Epoch microseconds, by its own clock. */
  readonly started_at: number
  /** The groups that it runs, by name. */
  readonly stages: ReadonlyArray<string>
}

export interface WorkerReport extends ProcessLife {
  /** Conditions that it waits for; none: it is ready. */
  readonly waiting: ReadonlyArray<string>
  readonly degraded: ReadonlyArray<string>
  readonly figures: ReadonlyArray<Figure>
}

export interface WorkerFigures extends WorkerReport {
  /** When the process published them, by its own clock, epoch microseconds. */
  readonly at: number
  /** How long ago that was by the clock of whoever keeps them, milliseconds. */
  readonly silent_ms: number
}

/** Who has published nothing for so long does not live, for all that others can tell. */
export const SILENT_MS = 3000
/** Who has been silent for so long is not listed any more, seconds. */
export const WORKER_SECONDS = 60

export class WorkerCounters extends Context.Service<
  WorkerCounters,
  {
    /** Whether those of other processes are seen here too. */
    readonly shared: boolean
    /** Puts a life's finite figures in the place of those before; gone after `WORKER_SECONDS`. */
    readonly publish: (report: WorkerReport) => Effect.Effect<void, CacheError>
    /** Takes a life that ends in order from the list. */
    readonly withdraw: (life: string) => Effect.Effect<void, CacheError>
    /** The newest figures of every life that has not been silent for too long, by name and start. */
    readonly all: Effect.Effect<ReadonlyArray<WorkerFigures>, CacheError>
  }
>()("market-data-platform/streams/WorkerCounters") {}

/** JSON has no word for the others. */
export const finite = (figures: ReadonlyArray<Figure>): ReadonlyArray<Figure> =>
  figures.filter(({ value }) => Number.isFinite(value))

export const byName = (a: WorkerFigures, b: WorkerFigures): number =>
  a.worker === b.worker ? a.started_at - b.started_at : a.worker < b.worker ? -1 : 1
