/** Runs the tests' command line as a process of its own. */
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"

const entry = join(import.meta.dirname, "commandLine.ts")

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Started {
  readonly process: ChildProcess
  readonly ended: Promise<Ended>
  /** Done once standard output holds the text, or the process has ended. */
  readonly says: (text: string) => Promise<void>
}

export const startCli = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}): Started => {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { ...process.env, PORT: "", MDP_DEBUG: "", ...environment },
    stdio: ["pipe", "pipe", "pipe"]
  })
  let stdout = ""
  let stderr = ""
  const watchers = new Set<() => void>()
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text
    for (const watch of watchers) watch()
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text
  })
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (code) => resolve({ code, stdout, stderr }))
  })
  const says = (text: string) =>
    new Promise<void>((resolve) => {
      const watch = () => {
        if (stdout.includes(text)) resolve()
      }
      watchers.add(watch)
      watch()
      void ended.then(() => resolve())
    })
  return { process: child, ended, says }
}

export const runToEnd = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {},
  input?: string
): Promise<Ended> => {
  const started = startCli(args, environment)
  started.process.stdin?.end(input)
  return started.ended
}
