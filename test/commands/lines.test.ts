import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { runToEnd as runMdp, startInstance } from "../support/processes.ts"
import { runToEnd } from "./spawnCli.ts"

interface Line {
  readonly time: string
  readonly level: string
  readonly message: string
  readonly [field: string]: unknown
}

/** Each line as what it says; fails on one that is no object of JSON, or has what a terminal would obey. */
const linesOf = (text: string): ReadonlyArray<Line> =>
  text
    // What comes last may not be whole yet.
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      assert.match(line, /^[^\p{Cc}\p{Cf}]+$/u)
      const parsed = JSON.parse(line) as Line
      assert.strictEqual(new Date(parsed.time).toISOString(), parsed.time)
      assert.include(["debug", "info", "warn", "error"], parsed.level)
      assert.isString(parsed.message)
      return parsed
    })

const json = { LOG_FORMAT: "json" }

describe("LOG_FORMAT=json", () => {
  it("makes a line of the log an object with its time, level, message and fields", async () => {
    const { stderr } = await runToEnd(["log-fields"], json)
    const [fields, error, warning] = linesOf(stderr)
    assert.deepInclude(fields, {
      level: "warn",
      message: 'with "quotes"\nand lines',
      partitions: [1, 2],
      from: "\u009b2J\u202e"
    })
    assert.include(stderr, String.raw`"from":"\u009b2J\u202e"`)
    assert.deepInclude(error, { level: "error", message: "it failed a broken promise" })
    assert.match(String(error?.cause), /commandLine\.ts:\d+/)
    assert.deepInclude(warning, { level: "warn", message: "Warning: of Node's own" })
  })

  it("makes the end of a command one, and what nobody caught", async () => {
    const failed = await runToEnd(["fail"], json)
    assert.deepStrictEqual(
      [failed.code, linesOf(failed.stderr).map(({ message }) => message)],
      [1, ["mdp: port 80 is in use"]]
    )
    const thrown = await runToEnd(["throw"], json)
    const [line] = linesOf(thrown.stderr)
    assert.deepStrictEqual([thrown.code, line?.level, line?.message], [1, "error", "Error: nobody catches it"])
    assert.match(String(line?.cause), /commandLine\.ts:\d+/)
  })

  it.live("makes every line of an instance one, a refused client's among them", () =>
    Effect.gen(function* () {
      const { mdp, url } = yield* startInstance(["demo", "--rate", "1"], json)
      yield* Effect.promise(() => fetch(`${url}/api/v1/dlq`, { headers: { origin: "https://evil.example.com" } }))
      const refused = yield* mdp.until(
        () => linesOf(mdp.stderr).find(({ message }) => message.startsWith("client ")),
        "the refused client"
      )
      assert.deepInclude(refused, { level: "warn", event: "refused", address: "127.0.0.1" })
      assert.match(refused.message, /^client 127\.0\.0\.1 refused: GET \/api\/v1\/dlq: Origin: /)
      mdp.kill("SIGTERM")
      assert.strictEqual(yield* mdp.ended, 0)
      assert.deepInclude(linesOf(mdp.stdout)[0], { level: "info", message: `listening on ${url}`, url })
      assert.isNotEmpty(linesOf(mdp.stdout + mdp.stderr))
    }).pipe(Effect.scoped)
  )
})

describe("LOG_FORMAT", () => {
  it("leaves text as it is, without fields", async () => {
    const { stderr } = await runToEnd(["log-fields"])
    assert.match(stderr, /^timestamp=\S+ level=WARN fiber=\S+ message="with \\"quotes\\"\\nand lines"\n/)
  })

  it.live("is text or json, and nothing else", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* runMdp(["server"], { LOG_FORMAT: "xml" })
      assert.deepStrictEqual([code, stderr], [1, 'mdp: LOG_FORMAT: expected "text" or "json", got "xml"\n'])
    })
  )

  it("is the word of one file: no other writes to standard error", () => {
    const src = new URL("../../src/", import.meta.url)
    const others = readdirSync(src, { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts") && file !== "commands/lines.ts")
      // The client library is in somebody else's process.
      .filter((file) => !file.startsWith("client/"))
      .filter((file) =>
        /process\.stderr|console\.(?:log|error|warn|info)/.test(readFileSync(new URL(file, src), "utf8"))
      )
    // A broken pipe is no reason to end: it is listened to there.
    assert.deepStrictEqual(others, ["commands/cli.ts"])
  })
})
