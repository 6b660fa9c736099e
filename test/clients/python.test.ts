/** Decides that the Python client is tested with the rest: its own tests on real instances, its types and its style. */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { PYTHON } from "../../scripts/servers/install.ts"
import { LONG_MS } from "../support/guards.ts"
import { isInstalled } from "../support/services.ts"

const folder = fileURLToPath(new URL("../../clients/python", import.meta.url))

/** One of Python's tools over the package, with an empty cache and home; what it said where it ends well, else dies. */
const tool = Effect.fn("python tool")(function* (name: string, ...args: ReadonlyArray<string>) {
  const scratch = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "mdp-python-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  )
  return yield* Effect.callback<string>((resume) => {
    const child = spawn(PYTHON, ["-m", name, ...args], {
      cwd: folder,
      env: {
        PATH: process.env.PATH ?? "",
        HOME: scratch,
        TMPDIR: scratch,
        // The tests skip what lacks an instance unless they must not.
        SERVICES: process.env.SERVICES ?? "",
        PYTHONDONTWRITEBYTECODE: "1",
        RUFF_CACHE_DIR: join(scratch, "ruff"),
        MYPY_CACHE_DIR: join(scratch, "mypy")
      },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    const hear = (text: string) => {
      said += text
    }
    child.stdout.setEncoding("utf8").on("data", hear)
    child.stderr.setEncoding("utf8").on("data", hear)
    child.on("error", (error) => resume(Effect.die(error)))
    child.on("close", (code) =>
      resume(code === 0 ? Effect.succeed(said) : Effect.die(new Error(`${name} ended with ${code}:\n${said}`)))
    )
    return Effect.sync(() => child.kill("SIGTERM"))
  })
}, Effect.scoped)

describe.skipIf(!isInstalled("python"))("the Python client", () => {
  it.live(
    "passes its own tests, those on instances that are killed among them",
    () =>
      Effect.gen(function* () {
        const said = yield* tool("pytest", "-p", "no:cacheprovider", "-q")
        assert.match(said, /\d+ passed/)
        if (process.env.SERVICES === "required") assert.notMatch(said, /skipped/)
      }),
    2 * LONG_MS
  )

  it.live("has types that hold and one style", () =>
    Effect.gen(function* () {
      yield* tool("mypy")
      yield* tool("ruff", "check")
      yield* tool("ruff", "format", "--check")
    })
  )
})
