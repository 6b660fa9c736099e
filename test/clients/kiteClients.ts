/** Decides how a test asks the broker's own clients, each a program of its language, and hears what they hand their user. */
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"
import { KITE_GO, KITE_MODULES, KITE_PYTHON } from "../../scripts/servers/install.ts"
import type { Instance } from "../support/processes.ts"

const folder = fileURLToPath(new URL("kite/", import.meta.url))
const commands = {
  python: [KITE_PYTHON, "client.py"],
  javascript: [process.execPath, "client.js"],
  go: [KITE_GO]
} as const
export type Language = keyof typeof commands
export const languages = Object.keys(commands) as ReadonlyArray<Language>

export type Said = Readonly<Record<string, unknown>>
export interface Asked extends Said {
  readonly do: string
}

/** One client, and what it has said. */
export class Client {
  readonly events: Array<Said> = []
  private readonly child: ChildProcess
  private readonly answers: Array<(said: Said) => void> = []
  private readonly waiting = new Set<() => void>()
  private complaints = ""

  constructor(child: ChildProcess) {
    this.child = child
    createInterface({ input: child.stdout! }).on("line", (line) => {
      if (!line.startsWith("{")) return
      const said = JSON.parse(line) as Said
      if ("event" in said) this.events.push(said)
      else this.answers.shift()?.(said)
      for (const look of this.waiting) look()
    })
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.complaints += text
    })
    child.on("close", (code) => {
      for (const answer of this.answers.splice(0)) answer({ failed: `ended with ${code}`, message: this.complaints })
    })
  }

  ask(asked: Asked): Effect.Effect<Said> {
    return Effect.callback((resume) => {
      this.answers.push((said) => resume(Effect.succeed(said)))
      this.child.stdin!.write(`${JSON.stringify(asked)}\n`)
    })
  }

  /** What it answers where nothing fails. */
  get<A>(asked: Asked): Effect.Effect<A> {
    return Effect.map(this.ask(asked), ({ failed, message, result }) => {
      if (failed !== undefined) throw new Error(`${asked.do}: ${String(failed)}: ${String(message)}`)
      return result as A
    })
  }

  until<A>(find: () => A | undefined | false): Effect.Effect<A> {
    return Effect.callback((resume) => {
      const look = () => {
        const found = find()
        if (found === undefined || found === false) return
        this.waiting.delete(look)
        resume(Effect.succeed(found))
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  count(event: string): number {
    return this.events.filter((one) => one.event === event).length
  }

  get ticks(): ReadonlyArray<Said> {
    return this.events.filter(({ event }) => event === "ticks").flatMap(({ ticks }) => ticks as ReadonlyArray<Said>)
  }
}

export interface Pair {
  readonly root: string
  readonly key?: string
  readonly token?: string
}

export const client = (
  language: Language,
  { root, key = language, token = "token" }: Pair
): Effect.Effect<Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [command, ...args] = commands[language]
      return spawn(command!, args, {
        cwd: `${folder}${language}`,
        env: {
          PATH: process.env.PATH ?? "",
          // Clients take the naive times of Kite for those of where they run.
          TZ: "Asia/Kolkata",
          KITE_ROOT: root,
          KITE_KEY: key,
          KITE_TOKEN: token,
          KITE_MODULES
        },
        stdio: ["pipe", "pipe", "pipe"]
      })
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  ).pipe(Effect.map((child) => new Client(child)))

/** So often that no test meets a limit. */
export const MANY = {
  KITE_CONNECTIONS: "10",
  KITE_QUOTE_RATE: "1000",
  KITE_HISTORICAL_RATE: "1000",
  KITE_REQUEST_RATE: "1000"
}

export const rootOf = ({ mdp }: Instance): Effect.Effect<string, Error> =>
  mdp.until(() => /Kite gateway listening on (http:\/\/\S+?:\d+)/.exec(mdp.stdout)?.[1], "the gateway's address")
