/** Decides `mdp server`: REST, WebSocket, dashboard and replays on real services, any number of processes. */
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { Server } from "../http/Server.ts"
import { Readiness } from "../streams/Readiness.ts"
import { checkHost, insecureFlag, launch, serving } from "./instance.ts"
import { caches, log, missing, required, settings, store } from "./services.ts"
import { publishFigures } from "./worker.ts"

export const server = Command.make(
  "server",
  { insecure: insecureFlag },
  Effect.fnUntraced(function* ({ insecure }) {
    const given = yield* settings
    yield* checkHost(given, insecure)
    yield* required(given, "KAFKA_BROKERS", "by mdp server; mdp run embeds what no setting names")
    yield* required(given, "DATABASE_URL", "by mdp server; mdp run embeds what no setting names")
    for (const line of missing(given)) process.stderr.write(`${line}\n`)
    const services = Layer.mergeAll(log(given), store(given, given.DATA_DIR), caches(given)).pipe(
      Layer.provideMerge(Readiness.layer)
    )
    const told = Layer.effectDiscard(
      Effect.gen(function* () {
        const { url } = yield* Server
        process.stdout.write(`listening on ${url}\n`)
      })
    )
    yield* launch(
      told.pipe(
        Layer.provideMerge(serving(given)),
        Layer.provideMerge(publishFigures("server")),
        Layer.provideMerge(services)
      )
    )
  })
).pipe(Command.withDescription("REST, WebSocket and dashboard: any number of servers"))
