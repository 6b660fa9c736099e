import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { memoryStore, Rows } from "../http/memoryStore.ts"
import { ask, serve } from "../http/serving.ts"

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"

/** The command in a process of its own, through the CLI as it is wired for users. */
const script = `
import { Command } from "effect/cli"
import { instruments } from ${JSON.stringify(new URL("../../src/commands/instruments.ts", import.meta.url).href)}
import { runCli } from ${JSON.stringify(new URL("../../src/commands/cli.ts", import.meta.url).href)}
process.exitCode = await runCli(Command.make("mdp").pipe(Command.withSubcommands([instruments])), process.argv.slice(1))
`

const mdp = (args: ReadonlyArray<string>) =>
  Effect.callback<{ readonly code: number | null; readonly out: string; readonly err: string }>((resume) => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, "--", ...args], {
      cwd: new URL("../..", import.meta.url),
      env: { ...process.env, NODE_NO_WARNINGS: "1" }
    })
    let out = ""
    let err = ""
    child.stdout.on("data", (data) => {
      out += data
    })
    child.stderr.on("data", (data) => {
      err += data
    })
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
    return Effect.sync(() => child.kill())
  })

const withFile = <A, E, R>(text: string, use: (file: string) => Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "instruments-"))
      writeFileSync(join(folder, "kite.csv"), text)
      return folder
    }),
    (folder) => use(join(folder, "kite.csv")),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  )

describe("mdp instruments import", () => {
  it.live("sends the file to a running instance, says what came of it and which lines were refused", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ store: memoryStore(new Rows()) })
      const url = `http://127.0.0.1:${port}`
      const text = `${HEADER}\n738561,2885,RELIANCE,RELIANCE INDUSTRIES,0,,0,0.1,1,EQ,NSE,NSE\nx,1,A,A,0,,0,1,1,EQ,NSE,NSE\n`
      yield* withFile(text, (file) =>
        Effect.gen(function* () {
          const done = yield* mdp(["instruments", "import", file, "--url", url])
          const rejected = `${file}:3: instrument_token: expected a number between 1 and 2147483647, got "x"\n`
          assert.deepStrictEqual(done, {
            code: 1,
            out: "added 1, changed 0, expired 0, rejected 1\n",
            err: `${rejected}mdp: 1 of 2 lines were rejected, the others are in; --on-error skip allows it: 1 × instrument_token: expected a number between 1 and 2147483647\n`
          })
          // The same again changes nothing, and is all in.
          assert.deepInclude(yield* mdp(["instruments", "import", file, "--on-error", "skip", "--url", url]), {
            code: 0,
            err: `${rejected}rejected: 1 × instrument_token: expected a number between 1 and 2147483647\n`
          })
        })
      )
      assert.strictEqual((yield* ask(port, "/api/v1/instruments/738561")).status, 200)
      const refused = yield* withFile("a,b\n", (file) => mdp(["instruments", "import", file, "--url", url]))
      assert.strictEqual(refused.code, 1)
      assert.include(refused.err, "column instrument_token is missing")
      assert.strictEqual(refused.err.trimEnd().split("\n").length, 1)
      for (const [lines, why] of [
        [`${HEADER}\r\n\r\n`, "it has no lines after its header"],
        [
          `${HEADER}\nx,1,A,A,0,,0,1,1,EQ,NSE,NSE\n`,
          "none of its 1 lines was taken: 1 × instrument_token: expected a number between 1 and 2147483647"
        ]
      ] as const) {
        const nothing = yield* withFile(lines, (file) =>
          mdp(["instruments", "import", file, "--on-error", "skip", "--url", url])
        )
        assert.strictEqual(nothing.code, 1)
        assert.include(nothing.err, `kite.csv went in: ${why}\n`)
      }
      const absent = yield* mdp(["instruments", "import", "/no/such/file.csv", "--url", url])
      assert.strictEqual(absent.code, 1)
      assert.include(absent.err, "/no/such/file.csv: no such file")
      const wrong = yield* mdp(["instruments", "import", "x.csv", "--nope"])
      assert.strictEqual(wrong.code, 2)
    }).pipe(Effect.scoped)
  )
})
