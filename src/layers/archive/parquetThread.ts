/** Decides how the archive reaches the thread that encodes and decodes Parquet: started at the first request, once. */
import { Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"
import { ArchiveError } from "../../schema/Errors.ts"
import type { Answered, Answers, Asked, Need, Request } from "./parquetWorker.ts"

// The source runs as it is, the package compiled: the thread's file lies beside this one with the same ending.
const WORKER = new URL(import.meta.url.endsWith(".ts") ? "./parquetWorker.ts" : "./parquetWorker.js", import.meta.url)

/** The bytes `[from, to)` of an object that the thread cannot open by itself. */
export type ReadRange = (key: string, from: number, to: number) => Effect.Effect<Uint8Array<ArrayBuffer>, ArchiveError>

export interface ParquetThread {
  /** One reader asks again when it has its answer; different readers and writers need not wait for each other. */
  readonly ask: <R extends Request>(request: R) => Effect.Effect<Answers[R["kind"]], ArchiveError>
}

interface WaitingTask {
  readonly operation: string
  readonly resume: (result: Effect.Effect<Answers[keyof Answers], ArchiveError>) => void
}

export const make = (readRange: ReadRange): Effect.Effect<ParquetThread, never, Scope.Scope> =>
  Effect.gen(function* () {
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    let worker: Worker | undefined
    /** One entry for each caller that waits. */
    const waiting = new Map<number, WaitingTask>()
    let asked = 0
    let isClosed = false

    /** A thread that died takes its requests with it; the next request starts another. */
    const lose = (dead: Worker, reason: string): void => {
      if (worker !== dead) return
      worker = undefined
      for (const { operation, resume } of waiting.values()) {
        resume(Effect.fail(new ArchiveError({ operation, message: `the Parquet thread ended: ${reason}` })))
      }
      waiting.clear()
    }

    const fetchFor = (asking: Worker, { need, key, from, to }: Need): void => {
      runFork(
        Effect.match(readRange(key, from, to), {
          onSuccess: (bytes) => asking.postMessage({ need, bytes } satisfies Asked, [bytes.buffer]),
          onFailure: ({ message, object }) =>
            asking.postMessage({ need, failure: message, isGone: object?.is === "gone" } satisfies Asked)
        })
      )
    }

    const start = (): Worker => {
      const started = new Worker(WORKER, { name: "parquet" })
      started.on("message", (answered: Answered) => {
        if ("need" in answered) return fetchFor(started, answered)
        const caller = waiting.get(answered.id)
        if (caller === undefined) return
        waiting.delete(answered.id)
        caller.resume(
          "failure" in answered
            ? Effect.fail(
                new ArchiveError({
                  operation: caller.operation,
                  message: answered.failure,
                  ...(answered.object === undefined ? {} : { object: answered.object })
                })
              )
            : Effect.succeed(answered.answer)
        )
      })
      started.on("error", (error) => lose(started, error instanceof Error ? error.message : String(error)))
      started.on("exit", (code) => lose(started, `exit ${code}`))
      return started
    }

    yield* Effect.addFinalizer(() =>
      Effect.promise(async () => {
        isClosed = true
        const ended = worker
        if (ended === undefined) return
        lose(ended, "closed")
        await ended.terminate()
      })
    )

    return {
      ask: (request) =>
        Effect.callback((resume) => {
          if (isClosed) {
            return resume(Effect.fail(new ArchiveError({ operation: request.kind, message: "the archive is closed" })))
          }
          worker ??= start()
          asked += 1
          const id = asked
          waiting.set(id, {
            operation: request.kind,
            resume: resume as WaitingTask["resume"]
          })
          // Copied, not handed over: who asks may have to ask again with the same ticks.
          worker.postMessage({ id, request } satisfies Asked)
          return Effect.sync(() => waiting.delete(id))
        })
    }
  })
