/** Decides how a test looks at a page as a person's browser has it: a headless one, told what to do over its DevTools. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, type Scope } from "effect"
import WebSocket from "ws"
import { chromium } from "../../scripts/servers/install.ts"
import { reapWith } from "../../scripts/servers/Server.ts"

/** A guard against a hang, far from what a slow machine needs. */
const STARTS_WITHIN = "2 minutes"
const LOOKS_EVERY_MS = 50

interface Reply {
  readonly id?: number
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

/** One open page. */
export class Page {
  private readonly ws: WebSocket
  private readonly session: string
  private readonly waiting = new Map<number, (reply: Reply) => void>()
  /** Of all pages of a socket, as each hears every answer. */
  private static ids = 0

  private constructor(ws: WebSocket, session: string) {
    this.ws = ws
    this.session = session
    ws.on("message", (data) => {
      const reply = JSON.parse(String(data)) as Reply
      if (reply.id !== undefined) this.waiting.get(reply.id)?.(reply)
    })
  }

  /** Opens an address in a browser that listens for DevTools. */
  static async open(devTools: string, url: string): Promise<Page> {
    const ws = new WebSocket(devTools)
    await new Promise((resolve, reject) => ws.on("open", resolve).on("error", reject))
    const browser = new Page(ws, "")
    const { targetId } = (await browser.send("Target.createTarget", { url })) as { readonly targetId: string }
    const attached = await browser.send("Target.attachToTarget", { targetId, flatten: true })
    return new Page(ws, (attached as { readonly sessionId: string }).sessionId)
  }

  private async send(method: string, params: object): Promise<unknown> {
    const id = ++Page.ids
    const reply = await new Promise<Reply>((resolve) => {
      this.waiting.set(id, resolve)
      const session = this.session === "" ? {} : { sessionId: this.session }
      this.ws.send(JSON.stringify({ id, method, params, ...session }))
    })
    this.waiting.delete(id)
    if (reply.error !== undefined) throw new Error(`${method}: ${reply.error.message}`)
    return reply.result
  }

  /** What an expression comes to in the page; a promise is waited for. */
  async evaluate(expression: string): Promise<unknown> {
    const answer = (await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })) as {
      readonly result: { readonly value?: unknown }
      readonly exceptionDetails?: { readonly exception?: { readonly description?: string } }
    }
    if (answer.exceptionDetails !== undefined) throw new Error(answer.exceptionDetails.exception?.description)
    return answer.result.value
  }

  /** Waits until an expression is true. */
  async until(expression: string): Promise<void> {
    while (!(await this.evaluate(expression).catch(() => false))) await sleep(LOOKS_EVERY_MS)
  }
}

/** Ends the group of a process; false where none of it is left. */
const signalled = (pid: number): boolean => {
  try {
    return process.kill(-pid, "SIGKILL")
  } catch {
    return false
  }
}

/** Opens an address in a browser of its own, gone with the scope. */
export const openPage = (url: string): Effect.Effect<Page, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-browser-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }))
    )
    const child = yield* Effect.acquireRelease(
      Effect.sync((): ChildProcess => {
        const spawned = spawn(
          chromium(),
          [
            ...["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"],
            ...["--remote-debugging-port=0", `--user-data-dir=${folder}`, "about:blank"]
          ],
          // A group of its own: its processes end with it.
          { stdio: ["ignore", "ignore", "pipe"], detached: true }
        )
        reapWith(spawned)
        return spawned
      }),
      (spawned) =>
        Effect.promise(async () => {
          const ended = new Promise((resolve) => spawned.once("exit", resolve))
          // Those that it started write into its folder for a moment longer than it does.
          while (signalled(spawned.pid!)) await sleep(LOOKS_EVERY_MS)
          if (spawned.exitCode === null && spawned.signalCode === null) await ended
        })
    )
    const devTools = yield* Effect.callback<string, Error>((resume) => {
      let said = ""
      child.stderr!.setEncoding("utf8").on("data", (text: string) => {
        said += text
        const found = /DevTools listening on (ws:\S+)/.exec(said)?.[1]
        if (found !== undefined) resume(Effect.succeed(found))
      })
      child.on("exit", (code) => resume(Effect.fail(new Error(`the browser ended with ${code}: ${said}`))))
    })
    return yield* Effect.promise(() => Page.open(devTools, url))
  }).pipe(Effect.timeout(STARTS_WITHIN))
