/**
 * Decides who may use a DATA_DIR: one process at a time. Each writes a lock file of its own and then looks for others;
 * a file whose process is gone, or whose number now belongs to another process, counts for nothing.
 */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { Effect, type Scope } from "effect"
import { StartError } from "../../schema/Errors.ts"

const LOCK = /^lock\.(\d+)$/
/** Two that start at the same instant see each other and both step back; one then comes first. */
const ATTEMPTS = 3
const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 300

/**
 * What tells a process from a later one with its number: when it started. Undefined where there is no such process,
 * empty where the system does not say.
 */
const startOf = (pid: number): string | undefined => {
  try {
    process.kill(pid, 0)
  } catch (cause) {
    // Anything but "no such process" means that there is one, if another user's.
    if ((cause as NodeJS.ErrnoException).code === "ESRCH") return undefined
  }
  try {
    if (process.platform === "linux") {
      const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
      // After the name, which may hold anything in its parentheses, the start time is the 20th field.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      // A zombie has ended, it only waits to be asked how.
      return fields[0] === "Z" ? undefined : `${boot} ${fields[19]}`
    }
    if (process.platform !== "win32") {
      return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim()
    }
  } catch {
    return ""
  }
  return ""
}

/** The process that a lock file stands for, if it still runs. */
const isHeld = (pid: number, written: string): boolean => {
  const start = startOf(pid)
  return start !== undefined && (start === "" || written === "" || written === start)
}

const ownName = `lock.${process.pid}`

/** The process that uses the folder besides this one, after this one's lock file is in place. */
const otherHolder = (folder: string): number | undefined => {
  for (const name of readdirSync(folder)) {
    const match = LOCK.exec(name)
    if (match === null || name === ownName) continue
    const path = join(folder, name)
    let written: string
    try {
      written = readFileSync(path, "utf8").trim()
    } catch {
      // Its process has just let go.
      continue
    }
    if (isHeld(Number(match[1]), written)) return Number(match[1])
    rmSync(path, { force: true })
  }
  return undefined
}

/** Folders this process uses, with how many parts of it do. */
const held = new Map<string, number>()

const release = (folder: string): void => {
  const users = held.get(folder)! - 1
  if (users > 0) {
    held.set(folder, users)
    return
  }
  held.delete(folder)
  rmSync(join(folder, ownName), { force: true })
}

/** Undefined once this process has the folder, else who has it. */
const acquire = (folder: string): number | undefined => {
  const users = held.get(folder)
  if (users !== undefined) {
    held.set(folder, users + 1)
    return undefined
  }
  writeFileSync(join(folder, ownName), `${startOf(process.pid) ?? ""}\n`)
  const other = otherHolder(folder)
  if (other !== undefined) {
    rmSync(join(folder, ownName), { force: true })
    return other
  }
  held.set(folder, 1)
  return undefined
}

const unwritable = (path: string, cause: unknown) =>
  new StartError({ message: `DATA_DIR: cannot write to ${path}: ${(cause as Error).message}` })

/** Makes a folder and those above it, one by one: `recursive` never returns where the system refuses with ENOENT. */
const makeFolder = (path: string): void => {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  try {
    mkdirSync(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause
  }
}

/**
 * Makes the folder where it is missing and keeps other processes out of it until the scope closes; answers its real
 * path. Several parts of one process may ask for it.
 */
export const lock = (path: string): Effect.Effect<string, StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const folder = yield* Effect.try({
      try: () => {
        makeFolder(resolve(path))
        return realpathSync(path)
      },
      catch: (cause) => unwritable(path, cause)
    })
    for (let attempt = 1; ; attempt++) {
      const other = yield* Effect.acquireRelease(
        Effect.try({ try: () => acquire(folder), catch: (cause) => unwritable(path, cause) }),
        (holder) => Effect.sync(() => holder === undefined && release(folder))
      )
      if (other === undefined) return folder
      if (attempt === ATTEMPTS) {
        return yield* new StartError({
          message: `DATA_DIR: ${path} is in use by process ${other}; stop it or choose another folder`
        })
      }
      yield* Effect.sleep(RETRY_MIN_MS + Math.floor(Math.random() * (RETRY_MAX_MS - RETRY_MIN_MS)))
    }
  })
