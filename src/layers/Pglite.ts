/**
 * Decides where the embedded database lives: PGlite in a worker thread, in memory or in DATA_DIR, reached like any
 * other PostgreSQL through its URL. One connection at a time may use it: all share PGlite's one session.
 */
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { Context, Deferred, Effect, Layer, type Scope } from "effect"
import { StartError } from "../schema/Errors.ts"
import { lock } from "./DataDir.ts"

export interface PgliteWorkerData {
  /** Undefined: in memory. */
  readonly dataDir: string | undefined
}

export type PgliteMessage =
  | { readonly type: "ready"; readonly address: string }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "stopped" }

export interface PgliteOptions {
  /** The folder that keeps the database, in its subfolder `pglite`; undefined: in memory, gone at the end. */
  readonly dataDir: string | undefined
}

/** Opening also replays what a kill left in the write-ahead log. */
const START_TIMEOUT = "2 minutes"
const STOP_TIMEOUT_MS = 8_000
const DATABASE_FOLDER = "pglite"

/** The worker's file is beside this one: TypeScript in a checkout, JavaScript once built. */
const workerUrl = new URL(import.meta.url.endsWith(".ts") ? "./pgliteWorker.ts" : "./pgliteWorker.js", import.meta.url)

const oneLine = (text: string): string => text.replace(/\s+/g, " ").trim()

const stop = (worker: Worker, life: { state: "running" | "stopping" | "dead" }): Promise<unknown> => {
  if (life.state === "dead") return Promise.resolve()
  life.state = "stopping"
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, STOP_TIMEOUT_MS)
  worker.once("message", () => resolve())
  worker.once("exit", () => resolve())
  worker.postMessage("stop")
  return promise.then(() => {
    clearTimeout(timer)
    return worker.terminate()
  })
}

/** Starts PGlite and answers its URL; stopped, with its data written, when the scope closes. */
export const start = (options: PgliteOptions): Effect.Effect<Pglite["Service"], StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const folder = options.dataDir === undefined ? undefined : join(yield* lock(options.dataDir), DATABASE_FOLDER)
    const failed = (message: string) =>
      new StartError({
        message:
          folder === undefined
            ? `the embedded database does not start: ${oneLine(message)}`
            : `DATA_DIR: the database in ${folder} does not open: ${oneLine(message)}`
      })
    const address = yield* Deferred.make<string, StartError>()
    const crashed = yield* Deferred.make<string>()
    const life: { state: "running" | "stopping" | "dead" } = { state: "running" }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const worker = new Worker(workerUrl, {
          name: "pglite",
          workerData: { dataDir: folder } satisfies PgliteWorkerData,
          execArgv: [],
          // What PGlite prints belongs to nobody's output.
          stdout: true,
          stderr: true
        })
        worker.stdout.resume()
        worker.stderr.resume()
        const die = (message: string): void => {
          if (life.state !== "running") return
          life.state = "dead"
          Deferred.doneUnsafe(address, Effect.fail(failed(message)))
          Deferred.doneUnsafe(crashed, Effect.succeed(oneLine(message)))
        }
        worker.on("message", (message: PgliteMessage) => {
          if (message.type === "ready") Deferred.doneUnsafe(address, Effect.succeed(message.address))
          else if (message.type === "failed") {
            die(message.message)
            void worker.terminate()
          }
        })
        worker.on("error", (cause) => die(cause instanceof Error ? cause.message : String(cause)))
        worker.on("exit", () => die("its thread ended"))
        return worker
      }),
      (worker) => Effect.promise(() => stop(worker, life))
    )
    const at = yield* Deferred.await(address).pipe(
      Effect.timeoutOrElse({
        duration: START_TIMEOUT,
        orElse: () => Effect.fail(failed(`not within ${START_TIMEOUT}`))
      })
    )
    return { url: `postgres://postgres:postgres@${at}/postgres`, crashed: Deferred.await(crashed) }
  })

export class Pglite extends Context.Service<
  Pglite,
  {
    /** For `Timescale.layer` with `embedded: true`. */
    readonly url: string
    /** Completes with the reason once the database has died under way; every query fails from then on. */
    readonly crashed: Effect.Effect<string>
  }
>()("market-data-platform/layers/Pglite") {}

export const layer = (options: PgliteOptions): Layer.Layer<Pglite, StartError> => Layer.effect(Pglite, start(options))
