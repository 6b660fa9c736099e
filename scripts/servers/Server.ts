/**
 * Decides how a real server runs for development and tests: on a loopback port and in a folder of its own, waited for
 * until it answers, killed and started again on the same data, and never left behind.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { createSocket } from "node:dgram"
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { join, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"

/** A guard against a hang: what fails to start ends by itself. Kafka takes more than a minute on a busy machine. */
const ANSWERS_WITHIN_MS = 280_000
const STOPS_WITHIN_MS = 20_000
const POLL_MS = 50

export interface ServerOptions {
  /** Everything it keeps is in here. */
  readonly folder: string
  /** Asked for first; taken by another: a free one. */
  readonly port?: number | undefined
}

/** How a server is spawned. */
export interface Spawned {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
  readonly uid?: number
  readonly gid?: number
}

let reaper: ChildProcess | undefined

/** Tells the reaper, which outlives this process by a moment, what to kill then. */
const tellReaper = (line: string): void => {
  if (reaper === undefined || reaper.exitCode !== null) {
    const script = fileURLToPath(new URL("reaper.ts", import.meta.url))
    reaper = spawn(process.execPath, [script], { detached: true, stdio: ["pipe", "ignore", "ignore"] })
    reaper.stdin!.on("error", () => {})
    reaper.unref()
    // A pipe would otherwise keep this process from ending.
    const pipe = reaper.stdin as unknown as { unref?: () => void }
    pipe.unref?.()
  }
  reaper.stdin!.write(`${line}\n`)
}

/** A process that ends with this one at the latest, however this one ends. */
export const reapWith = (child: ChildProcess): void => {
  const { pid } = child
  if (pid === undefined) return
  tellReaper(`+${pid}`)
  child.once("exit", () => tellReaper(`-${pid}`))
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolveFree) => {
    const probe = createServer()
    probe.once("error", () => resolveFree(false))
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolveFree(true)))
  })

/** Holds a port's number against all who ask here, for as long as this process lives: with the UDP port beside it. */
const reserve = (port: number): Promise<boolean> =>
  new Promise((resolveReserved) => {
    const holder = createSocket("udp4")
    holder.once("error", () => {
      holder.close()
      resolveReserved(false)
    })
    holder.bind(port, "127.0.0.1", () => {
      holder.unref()
      resolveReserved(true)
    })
  })

/**
 * A loopback port that nothing listens on, below those that systems give to outgoing connections: while a killed server
 * is down none of its clients can be given its port. Nor is it given to another process that asks here: neither before
 * whoever it is for listens on it, nor while that is down.
 */
export const freePort = async (wanted?: number): Promise<number> => {
  if (wanted !== undefined && (await reserve(wanted)) && (await isFree(wanted))) return wanted
  for (let attempt = 0; attempt < 1000; attempt++) {
    const port = 10_000 + Math.floor(Math.random() * 22_000)
    if ((await reserve(port)) && (await isFree(port))) return port
  }
  throw new Error("no free port between 10000 and 32000")
}

const isLinux = process.platform === "linux"

/** State and parent of a process or thread, from Linux itself: a small system has no `ps`. Undefined: it is gone. */
const statOf = (path: string): { readonly state: string; readonly parent: number } | undefined => {
  try {
    const text = readFileSync(`${path}/stat`, "latin1")
    const [state, parent] = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return { state: state!, parent: Number(parent) }
  } catch {
    return undefined
  }
}

const linesOf = (command: string, args: ReadonlyArray<string>): ReadonlyArray<string> =>
  spawnSync(command, args, { encoding: "utf8" })
    .stdout?.split("\n")
    .filter((line) => line !== "") ?? []

/** Of a process, its children: some servers' go on for a moment after a `kill -9` of it. */
const childrenOf = (pid: number): ReadonlyArray<number> =>
  (isLinux
    ? readdirSync("/proc").filter((name) => /^\d+$/.test(name) && statOf(`/proc/${name}`)?.parent === pid)
    : linesOf("pgrep", ["-P", String(pid)])
  ).map(Number)

/** Whether a process stands still, with all its threads. */
export const isPaused = (pid: number): boolean => {
  if (!isLinux) return linesOf("ps", ["-o", "state=", "-p", String(pid)]).some((state) => state.startsWith("T"))
  try {
    return readdirSync(`/proc/${pid}/task`).every((thread) => statOf(`/proc/${pid}/task/${thread}`)?.state === "T")
  } catch {
    return false
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    // Dead, but listed until its new parent asks: in a container whose first process is this one, nobody does.
    return !isLinux || (statOf(`/proc/${pid}`)?.state ?? "Z") !== "Z"
  } catch {
    return false
  }
}

export abstract class Server {
  readonly folder: string
  readonly #wantedPort: number | undefined
  #port: number | undefined
  #child: ChildProcess | undefined

  constructor(options: ServerOptions) {
    this.folder = resolve(options.folder)
    this.#wantedPort = options.port
  }

  /** As a person says it: "Redis". */
  abstract readonly name: string
  /** The settings with which the platform finds it. */
  abstract settings(): Readonly<Record<string, string>>
  /** Makes what it needs before its first start in the folder. */
  protected abstract prepare(): Promise<void>
  protected abstract spawned(): Spawned
  /** Whether it answers a request, not only a connection. */
  protected abstract answers(): Promise<boolean>
  /** What it keeps: gone, it starts as new. */
  protected abstract readonly data: ReadonlyArray<string>
  protected readonly stopSignal: NodeJS.Signals = "SIGTERM"

  get log(): string {
    return join(this.folder, "log")
  }

  /** The same for as long as this object lives. */
  get port(): number {
    if (this.#port === undefined) throw new Error(`${this.name} has not been started`)
    return this.#port
  }

  /** `undefined` while it is down. */
  get pid(): number | undefined {
    return this.isRunning ? this.#child?.pid : undefined
  }

  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Starts it on what its folder holds, and waits until it answers. */
  async start(): Promise<void> {
    if (this.isRunning) return
    mkdirSync(this.folder, { recursive: true })
    this.#port ??= await freePort(this.#wantedPort)
    await this.prepare()
    const { command, args, env, uid, gid } = this.spawned()
    const log = openSync(this.log, "a")
    const child = spawn(command, args, {
      cwd: this.folder,
      env: { PATH: process.env.PATH ?? "", HOME: this.folder, LC_ALL: "C", ...env },
      // A group of its own: a terminal's ^C is for the owner, who then stops it in order.
      detached: true,
      stdio: ["ignore", log, log],
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid })
    })
    closeSync(log)
    this.#child = child
    let failed: Error | undefined
    child.on("error", (error) => {
      failed = error
    })
    reapWith(child)
    // Its end is awaited where it is stopped; it alone keeps no one alive.
    child.unref()
    const until = Date.now() + ANSWERS_WITHIN_MS
    while (failed === undefined && this.isRunning) {
      if (await this.answers().catch(() => false)) return
      if (Date.now() > until) {
        await this.kill()
        throw new Error(`${this.name} did not answer within ${ANSWERS_WITHIN_MS / 1000} s: ${this.#logEnd()}`)
      }
      await sleep(POLL_MS)
    }
    throw new Error(`${this.name} ended before it answered: ${failed?.message ?? this.#logEnd()}`)
  }

  /** `kill -9`, and waits until nothing of it is left; its data stays. */
  async kill(): Promise<void> {
    const { pid } = this
    if (pid === undefined) return
    const family = [pid, ...childrenOf(pid)]
    for (const member of family) {
      try {
        process.kill(member, "SIGKILL")
      } catch {
        // Gone before it was its turn.
      }
    }
    while (this.isRunning || family.slice(1).some(isAlive)) await sleep(5)
  }

  /** Asks it to end in order, and waits; kills it where it does not. */
  async stop(): Promise<void> {
    if (!this.isRunning) return
    this.signal("SIGCONT")
    this.signal(this.stopSignal)
    const until = Date.now() + STOPS_WITHIN_MS
    while (this.isRunning) {
      if (Date.now() > until) return this.kill()
      await sleep(POLL_MS / 5)
    }
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start()
  }

  /** Stops it in its tracks; when this is done none of its threads runs. */
  async pause(): Promise<void> {
    this.signal("SIGSTOP")
    while (this.isRunning && !isPaused(this.#child!.pid!)) await sleep(1)
  }

  /** For SIGCONT and the like; `pause`, `kill` and `stop` also wait. */
  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child!.kill(signal)
  }

  /** Forgets all it kept. It must be down. */
  erase(): void {
    if (this.isRunning) throw new Error(`${this.name} is running`)
    for (const kept of this.data) rmSync(join(this.folder, kept), { recursive: true, force: true })
  }

  #logEnd(): string {
    return existsSync(this.log) ? readFileSync(this.log, "utf8").split("\n").slice(-12).join("\n") : "it logged nothing"
  }
}
