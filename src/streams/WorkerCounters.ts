/** Decides what workers tell of themselves, so that a server can show the whole topology: their newest figures. */
import { Context, type Effect } from "effect"
import type { CacheError } from "../schema/Errors.ts"

export interface Figure {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface WorkerFigures {
  readonly worker: string
  /** When the worker published them, by its own clock, epoch microseconds. */
  readonly at: number
  readonly figures: ReadonlyArray<Figure>
}

/** A worker that has published nothing for so long is not listed. */
export const WORKER_SECONDS = 15

export class WorkerCounters extends Context.Service<
  WorkerCounters,
  {
    /** Puts a worker's finite figures in the place of those before; gone after `WORKER_SECONDS`. */
    readonly publish: (worker: string, figures: ReadonlyArray<Figure>) => Effect.Effect<void, CacheError>
    /** The newest figures of every worker that lives, by name. */
    readonly all: Effect.Effect<ReadonlyArray<WorkerFigures>, CacheError>
  }
>()("market-data-platform/streams/WorkerCounters") {}
