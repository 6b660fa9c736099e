/** Decides what is left of a process's file descriptors when more connections come than it has. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { RESERVED_DESCRIPTORS } from "../../src/http/front.ts"
import { rawClient } from "./rawClient.ts"
import { ask, operatorSettings } from "./serving.ts"

const DESCRIPTORS = 256
const CONNECTIONS = 300

/** A worker's own port, in a process of so few descriptors. */
const program = `
import { Context, Effect, Layer } from "effect"
import { layerOpen } from ${JSON.stringify(fileURLToPath(new URL("../../src/http/access.ts", import.meta.url)))}
import * as Operator from ${JSON.stringify(fileURLToPath(new URL("../../src/http/Operator.ts", import.meta.url)))}
import { Readiness } from ${JSON.stringify(fileURLToPath(new URL("../../src/streams/run/Readiness.ts", import.meta.url)))}
const context = await Effect.runPromise(
  Effect.scoped(Effect.tap(Layer.build(Layer.provide(Operator.layer(${JSON.stringify(operatorSettings)}), Layer.merge(Readiness.layer, layerOpen))), (context) =>
    Effect.andThen(
      Effect.sync(() => process.stderr.write("port " + Context.get(context, Operator.Operator).port + "\\n")),
      Effect.never
    )))
)
`

const start = Effect.acquireRelease(
  Effect.sync(() =>
    spawn(
      "bash",
      ["-c", `ulimit -n ${DESCRIPTORS}; exec "$0" --input-type=module -e "$1"`, process.execPath, program],
      {
        cwd: fileURLToPath(new URL("../..", import.meta.url)),
        stdio: ["ignore", "ignore", "pipe"]
      }
    )
  ),
  (child) => Effect.sync(() => child.kill("SIGKILL"))
)

describe.skipIf(process.platform === "win32")("a process of few file descriptors", () => {
  it.live(
    "ends connections before it has none left, and answers again once some are gone",
    () =>
      Effect.gen(function* () {
        const child = yield* start
        const port = yield* Effect.callback<number>((resume) => {
          let text = ""
          child.stderr.on("data", (data) => {
            text += String(data)
            const found = /port (\d+)\n/.exec(text)
            if (found !== null) resume(Effect.succeed(Number(found[1])))
          })
          child.on("exit", () => resume(Effect.die(new Error(text))))
        })
        const clients = yield* Effect.forEach(Array.from({ length: CONNECTIONS }), () => rawClient(port), {
          concurrency: CONNECTIONS
        })
        // Without a limit, those above the descriptors wait for ever, and who accepts them spins.
        yield* Effect.gen(function* () {
          const ended = () => clients.filter(({ socket }) => socket.readableEnded || socket.destroyed).length
          while (ended() < CONNECTIONS - (DESCRIPTORS - RESERVED_DESCRIPTORS)) yield* Effect.sleep(5)
        })
        for (const { socket } of clients) socket.destroy()
        let isAnswered = false
        while (!isAnswered) isAnswered = (yield* Effect.exit(ask(port, "/healthz")))._tag === "Success"
        const figures = yield* ask(port, "/metrics")
        const value = (name: string) => Number(new RegExp(`^${name}.* (\\d+)$`, "m").exec(figures.text)?.[1])
        assert.strictEqual(value("topology_http_max_connections"), DESCRIPTORS - RESERVED_DESCRIPTORS)
        assert.isAtLeast(
          value('topology_http_refused_total\\{.*kind="connection".*'),
          CONNECTIONS - (DESCRIPTORS - RESERVED_DESCRIPTORS)
        )
      }).pipe(Effect.scoped),
    60_000
  )
})
