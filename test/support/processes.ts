/** Decides how a test runs the platform as real processes: started on free ports, waited for by what they say and answer. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect, Schedule, type Scope } from "effect"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
/** Guards against a hang, far from what a slow machine needs. */
const READY_WITHIN = "5 minutes"
const EXIT_WITHIN = "5 minutes"
/** A slow machine drains for as long as it takes; that a deadline is kept is shown by a command that never drains. */
const DRAIN_DEADLINE_MS = "240000"

/** One run of the command line. */
export class Mdp {
  readonly child: ChildProcess
  stdout = ""
  stderr = ""
  code: number | null = null
  signal: NodeJS.Signals | null = null
  #isOver = false
  readonly #waiting = new Set<() => void>()

  constructor(args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>) {
    this.child = spawn(process.execPath, [main, ...args], {
      env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", ...environment },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const wake = () => {
      for (const waiter of this.#waiting) waiter()
    }
    // A chunk may end in the midst of a character.
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text
      wake()
    })
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text
      wake()
    })
    // `close` comes after the last byte of both streams.
    this.child.on("close", (code, signal) => {
      this.code = code
      this.signal = signal
      this.#isOver = true
      wake()
    })
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Its standard error without what it says of services that a slow machine keeps from answering in time. */
  get complaints(): string {
    return this.stderr.replaceAll(/^.* message="[a-z]+ (has not answered for|works again).*\n/gm, "")
  }

  /** Waits for a condition on what it printed; fails where the process ends first. */
  until<A>(find: () => A | undefined, what: string): Effect.Effect<A, Error> {
    return Effect.callback<A, Error>((resume) => {
      const look = () => {
        const found = find()
        if (found !== undefined) resume(Effect.succeed(found))
        else if (this.#isOver) resume(Effect.fail(new Error(`ended with ${this.code} before ${what}: ${this.stderr}`)))
        else return
        this.#waiting.delete(look)
      }
      this.#waiting.add(look)
      look()
      return Effect.sync(() => this.#waiting.delete(look))
    })
  }

  /** Waits until the process has ended; answers its exit code (null: by a signal). */
  readonly ended: Effect.Effect<number | null, Error> = Effect.suspend(() =>
    this.until(() => (this.#isOver ? { code: this.code } : undefined), "its end")
  ).pipe(
    Effect.map(({ code }) => code),
    Effect.timeout(EXIT_WITHIN)
  )

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }
}

/** Starts a command; killed with the scope if it still runs. */
export const start = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {}
): Effect.Effect<Mdp, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Mdp(args, environment)),
    (mdp) => Effect.sync(() => mdp.kill("SIGKILL"))
  )

/** Runs a command to its end. */
export const runToEnd = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const mdp = yield* start(args, environment)
    yield* mdp.until(() => (mdp.isOver ? true : undefined), "its end")
    return mdp
  }).pipe(Effect.scoped)

export interface Instance {
  readonly mdp: Mdp
  /** `http://127.0.0.1:port`. */
  readonly url: string
  readonly ws: string
  readonly port: string
}

/** Starts an instance (`demo` or `run`) on a free port and waits until it is ready. */
export const startInstance = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {}
): Effect.Effect<Instance, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const mdp = yield* start(args, { PORT: "0", DRAIN_DEADLINE_MS, ...environment })
    const port = yield* mdp.until(() => /http:\/\/127\.0\.0\.1:(\d+)/.exec(mdp.stdout)?.[1], "its address")
    const url = `http://127.0.0.1:${port}`
    yield* Effect.tryPromise(() => fetch(`${url}/readyz`)).pipe(
      Effect.map((answer) => answer.status === 200),
      Effect.orElseSucceed(() => false),
      Effect.repeat({ until: (ready) => ready, schedule: Schedule.spaced("50 millis") })
    )
    return { mdp, url, ws: `ws://127.0.0.1:${port}/ws`, port }
  }).pipe(Effect.timeout(READY_WITHIN))

/** A folder of its own, gone with the scope. */
export const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

export const getJson = (url: string, headers: Record<string, string> = {}): Effect.Effect<unknown, Error> =>
  Effect.tryPromise({
    try: async () => {
      const answer = await fetch(url, { headers })
      const text = await answer.text()
      if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}: ${text}`)
      return JSON.parse(text) as unknown
    },
    catch: (error) => error as Error
  })

/** Every line of an NDJSON answer. */
export const getLines = (url: string): Effect.Effect<ReadonlyArray<Record<string, unknown>>, Error> =>
  Effect.tryPromise({
    try: async () => {
      const answer = await fetch(url, { headers: { accept: "application/x-ndjson" } })
      const text = await answer.text()
      if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}: ${text}`)
      return text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    },
    catch: (error) => error as Error
  })

/** The figures of /metrics: `name{labels}` to value. */
export const getMetrics = (url: string): Effect.Effect<ReadonlyMap<string, number>, Error> =>
  Effect.tryPromise({
    try: async () => {
      const text = await (await fetch(`${url}/metrics`)).text()
      return new Map(
        text
          .split("\n")
          .filter((line) => line !== "" && !line.startsWith("#"))
          .map((line) => {
            const at = line.lastIndexOf(" ")
            return [line.slice(0, at), Number(line.slice(at + 1))] as const
          })
      )
    },
    catch: (error) => error as Error
  })

/** Waits until no group of the instance is behind. */
export const untilDrained = (url: string): Effect.Effect<void, Error> =>
  getMetrics(url).pipe(
    Effect.map((figures) => {
      const lags = [...figures].filter(([name]) => name.startsWith("topology_consumer_lag_records"))
      return lags.length > 0 && lags.every(([, records]) => records === 0)
    }),
    // Lag is sampled once a second: two looks in a row, further apart than that, see no stale figure.
    Effect.repeat({ until: (drained) => drained, schedule: Schedule.spaced("100 millis") }),
    Effect.andThen(Effect.sleep("1500 millis")),
    Effect.andThen(getMetrics(url)),
    Effect.flatMap((figures) =>
      [...figures].every(([name, n]) => !name.startsWith("topology_consumer_lag_records") || n === 0)
        ? Effect.void
        : untilDrained(url)
    )
  )
