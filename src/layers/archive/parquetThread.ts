/** Decides how the archive reaches the thread that encodes and decodes Parquet. */
import type { Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"
import type { ArchiveError } from "../../schema/Errors.ts"
import type { Answers, Asked, Need, Request } from "./parquetWorker.ts"
import { makeThread, type Thread } from "./thread.ts"

/** The bytes `[from, to)` of an object that the thread cannot open by itself. */
export type ReadRange = (key: string, from: number, to: number) => Effect.Effect<Uint8Array<ArrayBuffer>, ArchiveError>

/**
 * One reader asks again when it has its answer; different readers and writers need not wait for each other. Nothing is
 * handed over: who asks may have to ask again with the same ticks.
 */
export type ParquetThread = Thread<Request, Answers>

export const make = (readRange: ReadRange): Effect.Effect<ParquetThread, never, Scope.Scope> =>
  Effect.gen(function* () {
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const fetchFor = (asking: Worker, { need, key, from, to }: Need): void => {
      runFork(
        Effect.match(readRange(key, from, to), {
          onSuccess: (bytes) => asking.postMessage({ need, bytes } satisfies Asked, [bytes.buffer]),
          onFailure: ({ message, object }) =>
            asking.postMessage({ need, failure: message, isGone: object?.is === "gone" } satisfies Asked)
        })
      )
    }
    return yield* makeThread<Request, Answers, Need>({
      file: "./parquetWorker",
      from: import.meta.url,
      title: "the Parquet thread",
      aside: fetchFor
    })
  })
