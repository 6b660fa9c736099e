import { assert, describe, it } from "@effect/vitest"
import { runToEnd, startCli } from "./spawnCli.ts"

/** One line, and nothing that a stack would show. */
const oneLine = (text: string) => {
  assert.match(text, /^[^\n]+\n$/)
  return text.trimEnd()
}

describe("a command line", () => {
  it("that is done exits 0", async () => {
    assert.deepStrictEqual(await runToEnd(["succeed", "--times", "2"]), { code: 0, stdout: "done done\n", stderr: "" })
  })

  it("asked for help or its version exits 0 and says it on standard output", async () => {
    for (const args of [["--help"], ["feed", "sim", "--help"], ["--version"]]) {
      const { code, stderr, stdout } = await runToEnd(args)
      assert.deepStrictEqual([code, stderr], [0, ""], args.join(" "))
      assert.isAbove(stdout.length, 5)
    }
  })

  const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [[], /^mdp: needs a command; see mdp --help$/],
    [["feed"], /^mdp feed: needs a command; see mdp feed --help$/],
    [["nothing"], /^mdp: Unknown subcommand "nothing"/],
    [["succeed", "--nothing"], /^mdp succeed: Unrecognized flag: --nothing/],
    [["succeed", "--times", "many"], /^mdp succeed: Invalid value for flag --times: "many"/],
    [["succeed", "extra"], /^mdp succeed: Unexpected positional argument: "extra"/],
    [["misfit"], /^mdp: --a does not go with --b$/]
  ]
  for (const [args, line] of wrong) {
    it(`that is wrong exits 2 with one line: mdp ${args.join(" ")}`, async () => {
      const { code, stderr, stdout } = await runToEnd(args)
      assert.deepStrictEqual([code, stdout], [2, ""])
      assert.match(oneLine(stderr), line)
    })
  }

  it("that fails exits 1 with the failure in one line", async () => {
    const { code, stderr, stdout } = await runToEnd(["fail"])
    assert.deepStrictEqual([code, stdout, oneLine(stderr)], [1, "", "mdp: port 80 is in use"])
  })

  it("that breaks exits 1 with one line, and shows where under MDP_DEBUG", async () => {
    const { code, stderr } = await runToEnd(["die"])
    assert.deepStrictEqual([code, oneLine(stderr)], [1, "mdp: a broken promise"])
    const debugged = await runToEnd(["die"], { MDP_DEBUG: "1" })
    assert.strictEqual(debugged.code, 1)
    assert.match(debugged.stderr, /commandLine\.ts:\d+/)
  })

  it("keeps logs off standard output", async () => {
    const { code, stderr, stdout } = await runToEnd(["log"])
    assert.deepStrictEqual([code, stdout], [0, ""])
    assert.match(stderr, /for the operator/)
  })

  it("logs nothing that a terminal obeys", async () => {
    const { stderr } = await runToEnd(["log-foreign"])
    assert.include(stderr, "message=\\u001b[2J\\u009b2J")
  })

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    it(`that is stopped by ${signal} drains and exits 0`, async () => {
      const started = startCli(["wait"])
      await started.says("waiting")
      started.process.kill(signal)
      assert.deepStrictEqual(await started.ended, { code: 0, stdout: "waiting\ndrained\n", stderr: "" })
    })
  }

  it("that does not drain in time exits 1 and says so", async () => {
    const started = startCli(["hang"], { DRAIN_DEADLINE_MS: "150" })
    await started.says("waiting")
    started.process.kill("SIGTERM")
    const { code, stderr } = await started.ended
    assert.deepStrictEqual([code, oneLine(stderr)], [1, "mdp: not drained within 150 ms (DRAIN_DEADLINE_MS)"])
  })
})
