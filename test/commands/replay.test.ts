import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Command } from "effect/cli"
import { outcomeOf } from "../../src/commands/cli.ts"
import { replay } from "../../src/commands/replay.ts"
import type { Replay } from "../../src/streams/replay/Replays.ts"

const STARTED: Replay = {
  id: "a1",
  state: "running",
  speed: 10,
  clock: null,
  run: 1,
  from: 1_768_415_400_000_000,
  to: 1_768_501_800_000_000,
  sent: 0,
  total: 400
}

/** An instance that answers GET with one state after the other, the last one for ever. */
const serve = (states: ReadonlyArray<Partial<Replay>>, refusal?: { readonly status: number; readonly body: unknown }) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly asked: Array<string>; readonly server: Server }>((resume) => {
      const asked: Array<string> = []
      let next = 0
      const server = createServer((request, response) => {
        let body = ""
        request.on("data", (chunk) => {
          body += chunk
        })
        request.on("end", () => {
          asked.push(`${request.method} ${request.url} ${body}`.trim())
          const answer = (status: number, json: unknown) => {
            response.writeHead(status, { "content-type": "application/json" })
            response.end(json === undefined ? "" : JSON.stringify(json))
          }
          if (request.method === "POST" && refusal !== undefined) return answer(refusal.status, refusal.body)
          if (request.method === "POST") return answer(201, STARTED)
          if (request.method === "DELETE") return answer(204, undefined)
          answer(200, { ...STARTED, ...states[Math.min(next++, states.length - 1)] })
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, asked, server }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

const run = (...argv: ReadonlyArray<string>) =>
  Command.runWith(replay, { version: "0", renderErrors: false })(argv).pipe(
    Effect.provide(NodeServices.layer)
  ) as Effect.Effect<void, unknown>

const said = () => {
  const lines: Array<string> = []
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    lines.push(String(text))
    return true
  })
  return lines
}

afterEach(() => {
  vi.restoreAllMocks()
})

describe("mdp replay", () => {
  it.live("starts a replay and follows it to its end", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url, asked } = yield* serve([
          { sent: 100, clock: 1_768_448_700_000_000 },
          { state: "ended", sent: 400, clock: 1_768_471_199_000_000 }
        ])
        const lines = said()
        const flags = "--symbols NSE:INFY,TCS --date 2026-01-15 --speed 10 --from 09:15 --to 15:30"
        yield* run(...flags.split(" "), "--url", url)
        const [post, ...polls] = asked
        assert.deepStrictEqual(JSON.parse(post!.slice("POST /api/v1/replays ".length)), {
          symbols: ["NSE:INFY", "TCS"],
          date: "2026-01-15",
          speed: 10,
          from: "09:15",
          to: "15:30",
          detached: true
        })
        assert.deepStrictEqual(polls, ["GET /api/v1/replays/a1", "GET /api/v1/replays/a1"])
        assert.deepStrictEqual(lines, [
          "replay a1: 400 ticks of 2026-01-15\n",
          "ended: 400 of 400 ticks (100 %), 15:29:59 IST\n"
        ])
      })
    )
  )

  it.live("stops the replay when it is interrupted", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { url, asked } = yield* serve([{ sent: 100 }])
        const lines = said()
        const fiber = yield* Effect.forkChild(run("--all", "--date", "2026-01-15", "--url", url))
        while (!asked.some((line) => line.startsWith("GET"))) yield* Effect.sleep(5)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(asked.at(-1), "DELETE /api/v1/replays/a1")
        assert.match(lines.at(-1)!, /^stopped: /)
      })
    )
  )

  it.live("a replay that fails ends the command with 1 and its reason", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const failure = { _tag: "LogError", message: "raw_ticks/3: append failed: no room" }
        const { url } = yield* serve([{ state: "failed", failure }])
        said()
        const exit = yield* Effect.exit(run("--all", "--date", "2026-01-15", "--speed", "inf", "--url", url))
        assert.deepStrictEqual(outcomeOf(exit, "mdp"), {
          code: 1,
          line: "mdp: replay a1 failed: raw_ticks/3: append failed: no room"
        })
      })
    )
  )

  it.live("what the instance refuses is said in one line", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const body = { _tag: "NotFound", message: "symbols: no instrument is called NSE:NONE", parameter: "symbols" }
        const { url } = yield* serve([], { status: 404, body })
        const exit = yield* Effect.exit(run("--symbols", "NSE:NONE", "--date", "2026-01-15", "--url", url))
        assert.deepStrictEqual(outcomeOf(exit, "mdp"), {
          code: 1,
          line: `mdp: POST ${url}/api/v1/replays answered 404: symbols: no instrument is called NSE:NONE`
        })
      })
    )
  )

  it.live.each([
    [["--date", "2026-01-15"], /--symbols or --all/],
    [["--all", "--symbols", "A", "--date", "2026-01-15"], /--symbols or --all/],
    [["--all", "--date", "2026-02-30"], /a date such as 2026-01-15/],
    [["--all", "--date", "2026-01-15", "--speed", "0"], /a number above 0, or inf/],
    [["--all", "--date", "2026-01-15", "--from", "9:15"], /a time of day such as 09:15/],
    [["--symbols", "A,,B", "--date", "2026-01-15"], /symbols separated by commas/],
    [["--all"], /date/]
  ] as const)("refuses the flags %j with 2", ([argv, expected]) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(run(...argv))
      assert.isTrue(Exit.isFailure(exit))
      const { code, line } = outcomeOf(exit, "mdp")
      assert.strictEqual(code, 2)
      assert.match(line ?? "", expected)
    })
  )
})
