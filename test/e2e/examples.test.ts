import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { openPage } from "../support/browser.ts"
import { LONG_MS } from "../support/guards.ts"
import { startInstance } from "../support/processes.ts"
import { freePort, isInstalled } from "../support/services.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))
const DEMO = ["demo", "--symbols", "5", "--rate", "500"]

interface Example {
  readonly child: ChildProcess
  readonly said: () => string
  /** Its exit code. */
  readonly ended: Effect.Effect<number | null>
}

/** Runs an example as its README says. */
const example = (
  name: string,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>
): Effect.Effect<Example, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, ["--conditions=mdp-source", `examples/${name}`, ...args], {
        cwd: root,
        env: { PATH: process.env.PATH ?? "", ...environment },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let said = ""
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => {
          said += text
        })
      }
      const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
      return { child, said: () => said, ended: Effect.promise(() => ended) }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

const until = ({ said, child }: Example, pattern: RegExp): Effect.Effect<RegExpExecArray> =>
  Effect.callback((resume) => {
    const look = () => {
      const found = pattern.exec(said())
      if (found !== null) resume(Effect.succeed(found))
    }
    child.stdout!.on("data", look)
    child.on("close", () => resume(Effect.die(new Error(`ended before ${pattern}: ${said()}`))))
    look()
  })

// Long: the platform and the examples are real processes.
describe("the examples", { timeout: LONG_MS }, () => {
  it.live("run: a bot on live ticks, through a restart of the server, and the same bot on a replay", () =>
    Effect.gen(function* () {
      const PORT = String(yield* Effect.promise(() => freePort()))
      const first = yield* startInstance(DEMO, { PORT })
      const environment = { MDP_URL: first.url }
      const live = yield* example("liveBot.js", ["SIM:RELIANCE", "3000"], environment)
      // It has the newest hundred, and trades.
      yield* until(live, /buys at/)
      first.mdp.kill("SIGKILL")
      yield* first.mdp.ended
      const second = yield* startInstance(DEMO, { PORT })
      yield* until(live, /goes on where it was/)
      assert.strictEqual(yield* live.ended, 0, live.said())
      assert.match(live.said(), /3000 ticks, \d+ trades, profit -?\d+\.\d\d, missed \d+/)

      const replay = yield* example("replayBot.js", ["SIM:RELIANCE", "inf"], { MDP_URL: second.url })
      assert.strictEqual(yield* replay.ended, 0, replay.said())
      assert.match(replay.said(), /replays \d{4}-\d\d-\d\d at infx/)
      const [, ticks] = /(\d+) ticks, \d+ trades, profit \S+, missed 0/.exec(replay.said()) ?? []
      assert.isAbove(Number(ticks), 0)
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(!isInstalled("chromium"))("run in a browser: a page with live candles", () =>
    Effect.gen(function* () {
      const page = yield* Effect.promise(() => freePort())
      const { url } = yield* startInstance(DEMO, { ALLOWED_ORIGINS: `http://127.0.0.1:${page}` })
      const served = yield* example("servePage.js", [String(page)], {})
      const [address] = yield* until(served, /http:\/\/127\.0\.0\.1:\d+/)
      const shown = yield* openPage(`${address}/?url=${encodeURIComponent(url)}`)
      const lastOf = () => shown.evaluate(`document.querySelector("#last").textContent`) as Promise<string>
      yield* Effect.promise(async () => {
        await shown.until(`document.querySelector("#state").textContent !== "connecting"`)
        assert.strictEqual(await shown.evaluate(`document.querySelector("#state").textContent`), "live")
        await shown.until(`/bars/.test(document.querySelector("#last").textContent)`)
        const before = await lastOf()
        assert.match(before, /^\d+ bars; .*: open [\d.]+, high [\d.]+, low [\d.]+, close [\d.]+$/)
        await shown.until(`document.querySelector("#last").textContent !== ${JSON.stringify(before)}`)
      })
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(!isInstalled("chromium"))("run in a browser: a live chart that reads the datafeed alone", () =>
    Effect.gen(function* () {
      const page = yield* Effect.promise(() => freePort())
      const { url } = yield* startInstance(DEMO, { ALLOWED_ORIGINS: `http://127.0.0.1:${page}` })
      const served = yield* example("servePage.js", [String(page)], {})
      const [address] = yield* until(served, /http:\/\/127\.0\.0\.1:\d+/)
      const shown = yield* openPage(`${address}/chart.html?url=${encodeURIComponent(url)}`)
      const textOf = (id: string) => shown.evaluate(`document.querySelector("#${id}").textContent`) as Promise<string>
      yield* Effect.promise(async () => {
        await shown.until(`document.querySelector("#state").textContent !== "connecting"`)
        assert.strictEqual(await textOf("state"), "live")
        assert.match(await textOf("symbol"), /^SIM:RELIANCE /)
        assert.isAbove((await shown.evaluate(`document.querySelectorAll("#chart canvas").length`)) as number, 0)
        // The next minute's bar, and then another change of it while the one before stays.
        const isOver = `document.querySelector("#state").textContent !== "live"`
        await shown.until(`${isOver} || Number.parseInt(document.querySelector("#last").textContent) >= 2`)
        assert.strictEqual(await textOf("state"), "live")
        const before = await textOf("last")
        await shown.until(`${isOver} || document.querySelector("#last").textContent !== ${JSON.stringify(before)}`)
        assert.strictEqual(await textOf("state"), "live")
        const asked = `performance.getEntriesByType("resource").map(({ name }) => name)`
        const ofPlatform = ((await shown.evaluate(asked)) as ReadonlyArray<string>).filter((one) => one.startsWith(url))
        assert.isAbove(ofPlatform.length, 0)
        for (const one of ofPlatform) assert.isTrue(one.startsWith(`${url}/udf/`), one)
      })
    }).pipe(Effect.scoped)
  )
})
