/** Decides how a benchmark has a whole instance that answers over HTTP: on a port of its own, with its memory told on demand. */
import { Context, Effect, Layer } from "effect"
import { instance } from "../../src/commands/instance.ts"
import { Server } from "../../src/http/Server.ts"
import { readSettings } from "../../src/schema/Settings.ts"

/** What it says, twenty times a second. */
export interface Said {
  readonly port: number
  readonly rssMb: number
  readonly cpuSeconds: number
}

const TELL_MS = 50

await Effect.gen(function* () {
  const services = yield* Layer.build(instance(yield* Effect.fromResult(readSettings(process.env)), undefined))
  const { port } = Context.get(services, Server)
  const timer = setInterval(() => {
    const { user, system } = process.cpuUsage()
    process.send!({
      port,
      rssMb: process.memoryUsage.rss() / 2 ** 20,
      cpuSeconds: (user + system) / 1e6
    } satisfies Said)
  }, TELL_MS)
  yield* Effect.callback<void>((resume) => {
    process.once("disconnect", () => resume(Effect.void))
  })
  clearInterval(timer)
}).pipe(Effect.scoped, Effect.runPromise)
process.exit(0)
