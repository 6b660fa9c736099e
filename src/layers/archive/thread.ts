/** Decides how work is given to a thread of its own: started at the first request, once, and anew where it has died. */
import { type Transferable, Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"
import { ArchiveError } from "../../schema/Errors.ts"

/** What a thread is sent, and what it answers. */
export interface Given<Request> {
  readonly id: number
  readonly request: Request
}
export type Answer<A> =
  | { readonly id: number; readonly answer: A }
  | { readonly id: number; readonly failure: string; readonly object?: NonNullable<ArchiveError["object"]> }

export interface ThreadOptions<Aside> {
  /** The thread's file without its ending, beside the file that says `from`. */
  readonly file: string
  readonly from: string
  /** As messages have it: the Parquet thread. */
  readonly title: string
  /** What the thread says besides answers. */
  readonly aside?: (worker: Worker, said: Aside) => void
}

export interface Thread<Request extends { readonly kind: string }, Answers> {
  /** What is handed over with a request is the thread's, and no more the caller's; all else is copied. */
  readonly ask: <R extends Request>(
    request: R,
    handedOver?: ReadonlyArray<Transferable>
  ) => Effect.Effect<Answers[R["kind"] & keyof Answers], ArchiveError>
}

interface WaitingTask {
  readonly operation: string
  readonly resume: (result: Effect.Effect<never, ArchiveError> | Effect.Effect<unknown>) => void
}

export const makeThread = <Request extends { readonly kind: string }, Answers, Aside = never>({
  file,
  from,
  title,
  aside
}: ThreadOptions<Aside>): Effect.Effect<Thread<Request, Answers>, never, Scope.Scope> =>
  Effect.gen(function* () {
    // The source runs as it is, the package compiled: the thread's file lies beside the other with the same ending.
    const url = new URL(`${file}${from.endsWith(".ts") ? ".ts" : ".js"}`, from)
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
        resume(Effect.fail(new ArchiveError({ operation, message: `${title} ended: ${reason}` })))
      }
      waiting.clear()
    }

    const start = (): Worker => {
      const started = new Worker(url, { name: file.slice(2) })
      started.on("message", (said: Answer<unknown> | Aside) => {
        if (typeof said !== "object" || said === null || !("id" in said)) return aside?.(started, said as Aside)
        const answered = said as Answer<unknown>
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
      ask: (request, handedOver = []) =>
        Effect.callback((resume) => {
          if (isClosed) {
            return resume(Effect.fail(new ArchiveError({ operation: request.kind, message: `${title} is closed` })))
          }
          worker ??= start()
          asked += 1
          const id = asked
          waiting.set(id, { operation: request.kind, resume: resume as WaitingTask["resume"] })
          worker.postMessage({ id, request } satisfies Given<Request>, [...handedOver])
          return Effect.sync(() => waiting.delete(id))
        })
    }
  })
