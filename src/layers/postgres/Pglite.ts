/**
 * Decides where the embedded database lives: PGlite in a worker thread, in memory or in DATA_DIR, reached like any
 * other PostgreSQL through its URL, and by nobody but this user: it asks for no password, so it listens on a Unix socket
 * in a folder of mode 0700 (on Windows on a named pipe, which others may not write to), never on a port. One connection
 * at a time may use it: all share PGlite's one session.
 */
import { randomUUID } from "node:crypto"
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { Context, Deferred, Effect, Layer, type Scope } from "effect"
import { StartError } from "../../schema/Errors.ts"
import { lock } from "./DataDir.ts"

export interface PgliteWorkerData {
  /** Undefined: in memory. */
  readonly dataDir: string | undefined
  /** The path of the socket to listen on. */
  readonly socket: string
}

export type PgliteMessage =
  | { readonly type: "ready" }
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
const SOCKET_FOLDER = "pglite-socket"
/** As clients of PostgreSQL name a socket in its folder. */
const SOCKET_PORT = 5432
const socketIn = (folder: string): string => `${folder}/.s.PGSQL.${SOCKET_PORT}`
/** What every system takes; the others take 107. */
const MAX_SOCKET_PATH_BYTES = 103

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

/** Whether a socket can be made there: not every file system has them, such as one shared with a virtual machine. */
const canListen = (path: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const server = createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen(path, () => server.close(() => resume(Effect.succeed(true))))
  })

/**
 * A folder for the socket that only this user may enter: in DATA_DIR, or one of the system's temporary ones where there
 * is no DATA_DIR, its path is too long, or it takes no socket.
 */
const socketFolder = (dataDir: string | undefined): Effect.Effect<string, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    if (process.platform === "win32") return `//./pipe/mdp-${randomUUID()}`
    const fits = (folder: string): boolean => Buffer.byteLength(socketIn(folder)) <= MAX_SOCKET_PATH_BYTES
    const unusable = (where: string) => (cause: unknown) =>
      new StartError({ message: `${where}: no socket for the embedded database: ${(cause as Error).message}` })
    if (dataDir !== undefined) {
      const folder = join(dataDir, SOCKET_FOLDER)
      yield* Effect.try({
        try: () => {
          mkdirSync(folder, { recursive: true, mode: 0o700 })
          chmodSync(folder, 0o700)
          // A killed process leaves its socket; the folder is this process's own by now.
          rmSync(socketIn(folder), { force: true })
        },
        catch: unusable("DATA_DIR")
      })
      if (fits(folder) && (yield* canListen(socketIn(folder)))) return folder
      rmSync(folder, { recursive: true, force: true })
    }
    const folder = yield* Effect.acquireRelease(
      Effect.try({ try: () => mkdtempSync(join(tmpdir(), "mdp-")), catch: unusable(tmpdir()) }),
      (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
    )
    if (fits(folder)) return folder
    return yield* unusable("TMPDIR")(new Error(`${socketIn(folder)} has over ${MAX_SOCKET_PATH_BYTES} bytes`))
  })

/** Starts PGlite and answers its URL; stopped, with its data written, when the scope closes. */
export const start = (options: PgliteOptions): Effect.Effect<Pglite["Service"], StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const dataDir = options.dataDir === undefined ? undefined : yield* lock(options.dataDir)
    const folder = dataDir === undefined ? undefined : join(dataDir, DATABASE_FOLDER)
    const host = yield* socketFolder(dataDir)
    const failed = (message: string) =>
      new StartError({
        message:
          folder === undefined
            ? `the embedded database does not start: ${oneLine(message)}`
            : `DATA_DIR: the database in ${folder} does not open: ${oneLine(message)}`
      })
    const ready = yield* Deferred.make<void, StartError>()
    const crashed = yield* Deferred.make<string>()
    const life: { state: "running" | "stopping" | "dead" } = { state: "running" }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const worker = new Worker(workerUrl, {
          name: "pglite",
          workerData: { dataDir: folder, socket: socketIn(host) } satisfies PgliteWorkerData,
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
          Deferred.doneUnsafe(ready, Effect.fail(failed(message)))
          Deferred.doneUnsafe(crashed, Effect.succeed(oneLine(message)))
        }
        worker.on("message", (message: PgliteMessage) => {
          if (message.type === "ready") Deferred.doneUnsafe(ready, Effect.void)
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
    yield* Deferred.await(ready).pipe(
      Effect.timeoutOrElse({
        duration: START_TIMEOUT,
        orElse: () => Effect.fail(failed(`not within ${START_TIMEOUT}`))
      })
    )
    // All is said, so that nothing of PGPORT, PGUSER and the like in the environment is taken for it.
    const at = `host=${encodeURIComponent(host)}&port=${SOCKET_PORT}&user=postgres&sslmode=disable`
    return { url: `postgres:///postgres?${at}`, crashed: Deferred.await(crashed) }
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
