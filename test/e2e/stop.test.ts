import { createServer } from "node:net"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { LONG_MS } from "../support/guards.ts"
import { folder, getJson, getLines, runToEnd, startInstance } from "../support/processes.ts"

const TOKEN = 7
const ALL = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"

const lines = (from: number, count: number): string => {
  const now = Date.now() * 1000
  return Array.from({ length: count }, (_, i) =>
    JSON.stringify({
      instrument_token: TOKEN + ((from + i) % 5),
      exchange_ts: now - 60_000_000 + from + i,
      price: 100 + ((from + i) % 50) / 20,
      volume: 1,
      sequence_id: from + i,
      sequencing: "monotonic"
    })
  ).join("\n")
}

/** Sends ticks; answers how many the log has for good. */
const ingest = (url: string, from: number, count: number) =>
  Effect.tryPromise(async () => {
    const answer = await fetch(`${url}/api/v1/ingest`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: lines(from, count)
    })
    return answer.status === 200 ? ((await answer.json()) as { readonly accepted: number }).accepted : 0
  }).pipe(Effect.orElseSucceed(() => 0))

const storedIds = (url: string) =>
  Effect.map(
    Effect.forEach([0, 1, 2, 3, 4], (i) =>
      getLines(`${url}/api/v1/historical/ticks?instrument_token=${TOKEN + i}&${ALL}`).pipe(
        // An instrument that has no ticks at all is not known.
        Effect.orElseSucceed(() => [])
      )
    ),
    (all) => all.flat().map((tick) => tick.sequence_id as number)
  )

// Long: instances are started, killed and drained, one after the other.
describe("stopping", { timeout: LONG_MS }, () => {
  it.live("stores everything taken in before SIGTERM under load, and exits 0", () =>
    Effect.gen(function* () {
      const data = join(yield* folder, "data")
      const first = yield* startInstance(["run"], { DATA_DIR: data })
      let accepted = 0
      const load = yield* Effect.forkChild(
        Effect.gen(function* () {
          for (let from = 0; ; from += 2000) {
            const took = yield* ingest(first.url, from, 2000)
            if (took === 0) return
            accepted += took
          }
        })
      )
      yield* Effect.sync(() => accepted).pipe(
        Effect.repeat({ until: (n) => n >= 40_000, schedule: Schedule.spaced("10 millis") })
      )
      first.mdp.kill("SIGTERM")
      assert.strictEqual(yield* first.mdp.ended, 0, first.mdp.stderr)
      yield* Fiber.join(load)

      const second = yield* startInstance(["run"], { DATA_DIR: data })
      const ids = yield* storedIds(second.url)
      assert.isAtLeast(ids.length, accepted)
      assert.strictEqual(new Set(ids).size, ids.length)
    }).pipe(Effect.scoped)
  )

  it.live("serves after kill -9 what had been stored, and takes new ticks at once", () =>
    Effect.gen(function* () {
      const data = join(yield* folder, "data")
      const first = yield* startInstance(["run"], { DATA_DIR: data })
      for (let from = 0; from < 20_000; from += 2000) yield* ingest(first.url, from, 2000)
      const before = yield* storedIds(first.url).pipe(
        Effect.repeat({ until: (ids) => ids.length >= 10_000, schedule: Schedule.spaced("20 millis") })
      )
      first.mdp.kill("SIGKILL")
      yield* first.mdp.ended

      const second = yield* startInstance(["run"], { DATA_DIR: data })
      const after = new Set(yield* storedIds(second.url))
      for (const id of before) assert.isTrue(after.has(id))
      assert.strictEqual(yield* ingest(second.url, 50_000, 10), 10)
      const quotes = getJson(`${second.url}/api/v1/quotes?tokens=${TOKEN + (50_009 % 5)}`)
      yield* quotes.pipe(
        Effect.map(
          (answer) => (answer as { quotes: Array<{ last: { sequence_id: number } }> }).quotes[0]?.last.sequence_id
        ),
        Effect.repeat({ until: (id) => id === 50_009, schedule: Schedule.spaced("20 millis") })
      )
    }).pipe(Effect.scoped)
  )

  it.live("ends the demo with 0 on SIGINT, its market closed in order", () =>
    Effect.gen(function* () {
      // Within the deadline that everyone has.
      const DRAIN_DEADLINE_MS = ""
      const { mdp, url } = yield* startInstance(["demo", "--symbols", "5", "--rate", "200"], { DRAIN_DEADLINE_MS })
      const quotes = (yield* getJson(`${url}/api/v1/instruments/search?query=&limit=10`)) as {
        instruments: Array<unknown>
      }
      assert.strictEqual(quotes.instruments.length, 5)
      mdp.kill("SIGINT")
      assert.strictEqual(yield* mdp.ended, 0, mdp.stderr)
      assert.match(mdp.stdout, /ticks in .*\ndma sent \d+/)
      assert.strictEqual(mdp.complaints, "")
    }).pipe(Effect.scoped)
  )
})

/** A command that must not start: one line on standard error, nothing on standard output. */
const refused = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>,
  code: number,
  says: RegExp
) =>
  Effect.gen(function* () {
    const mdp = yield* runToEnd(args, environment)
    assert.strictEqual(mdp.code, code, mdp.stderr)
    assert.match(mdp.stderr, says)
    assert.strictEqual(mdp.stderr.trimEnd().split("\n").length, 1, mdp.stderr)
    assert.strictEqual(mdp.stdout, "")
  })

// Long: each start is a process, and some cases have many.
describe("refusing to start", { timeout: LONG_MS }, () => {
  it.live("names the setting that is wrong, and its value", () =>
    refused(["run"], { PORT: "eighty" }, 1, /PORT: expected a number, got "eighty"/)
  )

  it.live("says that the port is in use", () =>
    Effect.gen(function* () {
      const data = yield* folder
      const taken = yield* Effect.acquireRelease(
        Effect.callback<{ port: number; close: () => void }>((resume) => {
          const server = createServer()
          server.listen(0, "127.0.0.1", () => {
            resume(
              Effect.succeed({ port: (server.address() as { port: number }).port, close: () => void server.close() })
            )
          })
        }),
        ({ close }) => Effect.sync(close)
      )
      yield* refused(
        ["run"],
        { PORT: String(taken.port), DATA_DIR: data },
        1,
        new RegExp(`PORT.*${taken.port}.*in use`)
      )
    }).pipe(Effect.scoped)
  )

  it.live("says that DATA_DIR is used by another process, and which", () =>
    Effect.gen(function* () {
      const data = join(yield* folder, "data")
      const first = yield* startInstance(["run"], { DATA_DIR: data })
      yield* refused(["run"], { PORT: "0", DATA_DIR: data }, 1, new RegExp(`DATA_DIR.*${first.mdp.child.pid}`))
    }).pipe(Effect.scoped)
  )

  it.live("says that DATA_DIR cannot be written", () =>
    refused(["run"], { PORT: "0", DATA_DIR: "/proc/nowhere/data" }, 1, /DATA_DIR.*\/proc\/nowhere/)
  )

  it.live("says that a public address asks for no keys, unless told that this is meant", () =>
    refused(["run"], { PORT: "0", HOST: "0.0.0.0" }, 1, /^mdp: HOST: 0\.0\.0\.0 .*--insecure/)
  )

  it.live("ends with 2 on a wrong command and a wrong flag", () =>
    Effect.gen(function* () {
      yield* refused(["wrun"], {}, 2, /wrun/)
      yield* refused(["demo", "--rate", "fast"], {}, 2, /rate/)
    })
  )

  it.live("answers --help of every command with 0", () =>
    Effect.gen(function* () {
      for (const command of [[], ["demo"], ["run"], ["feed", "sim"], ["feed", "file"], ["replay"], ["topology"]]) {
        const mdp = yield* runToEnd([...command, "--help"])
        assert.strictEqual(mdp.code, 0, mdp.stderr)
        assert.isAbove(mdp.stdout.length, 100)
      }
    })
  )
})

describe("mdp topology", () => {
  it.live("draws the graph as text, Mermaid and JSON", () =>
    Effect.gen(function* () {
      const text = yield* runToEnd(["topology"])
      assert.match(text.stdout, /deduplicate .*\n.*└─► sequence/)
      const mermaid = yield* runToEnd(["topology", "--format", "mermaid"])
      assert.match(mermaid.stdout, /^flowchart LR/)
      const json = yield* runToEnd(["topology", "--format", "json"], { CLIENT_CAPACITY: "77" })
      const graph = JSON.parse(json.stdout) as { edges: Array<{ buffer?: { name: string; capacity: number } }> }
      assert.strictEqual(graph.edges.find((edge) => edge.buffer?.name === "client")?.buffer?.capacity, 77)
    })
  )
})
