/** Decides what a process is called among others: its role, its host and its id, and a name for this one life of it. */
import { randomUUID } from "node:crypto"
import { hostname } from "node:os"
import { Clock, Effect } from "effect"
import type { ProcessLife } from "../streams/ports/WorkerCounters.ts"

/** This life of this process, which runs `stages`. */
export const lifeOf = (role: ProcessLife["role"], stages: ReadonlyArray<string>): Effect.Effect<ProcessLife> =>
  Effect.map(Clock.currentTimeMillis, (now) => ({
    life: randomUUID(),
    worker: `${role} ${hostname()}:${process.pid}`,
    role,
    started_at: now * 1000,
    stages
  }))
