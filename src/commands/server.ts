/** Decides `mdp server`: REST, WebSocket, dashboard and replays on real services, any number of processes. */
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import * as Server from "../http/Server.ts"
import { Overview } from "../streams/Overview.ts"
import { publishFigures } from "../streams/publishFigures.ts"
import { observe } from "../streams/run/observe.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { STAGES } from "../streams/topology.ts"
import { supervise } from "./groups.ts"
import {
  checkHost,
  checkKite,
  insecureFlag,
  kitePortFlag,
  launch,
  serving,
  toldKite,
  withKitePort
} from "./instance.ts"
import { lifeOf } from "./life.ts"
import { say, tell } from "./lines.ts"
import { listening } from "./listening.ts"
import { archive, caches, history, log, missing, required, settings, store } from "./services.ts"

export const server = Command.make(
  "server",
  { insecure: insecureFlag, kitePort: kitePortFlag },
  Effect.fnUntraced(function* ({ insecure, kitePort }) {
    const given = withKitePort(yield* settings, kitePort)
    yield* checkHost(given, insecure)
    yield* checkKite(given)
    const { rules } = yield* Server.check(given)
    yield* required(given, "KAFKA_BROKERS", "by mdp server; mdp run embeds what no setting names")
    yield* required(given, "DATABASE_URL", "by mdp server; mdp run embeds what no setting names")
    for (const line of missing(given, "server")) say("warn", line)
    const services = Layer.mergeAll(log(given), store(given, given.DATA_DIR), caches(given)).pipe(
      Layer.provideMerge(Readiness.layer)
    )
    const told = Layer.effectDiscard(
      Effect.gen(function* () {
        const { url } = yield* Server.Server
        tell(listening(url, given.HOST, rules), { url })
      })
    )
    const self = yield* lifeOf("server", [])
    const kept = archive(given, given.DATA_DIR, true)
    const expected = STAGES.filter((stage) => stage !== "archive" || kept !== undefined)
    yield* launch(
      toldKite.pipe(
        Layer.provideMerge(told),
        Layer.provideMerge(serving(given)),
        Layer.provideMerge(Overview.layer({ self, expected })),
        Layer.provideMerge(publishFigures(self)),
        Layer.provideMerge(Layer.effectDiscard(Effect.forkScoped(supervise("observe", observe(given))))),
        Layer.provideMerge(history(kept)),
        Layer.provideMerge(services)
      )
    )
  })
).pipe(Command.withDescription("REST, WebSocket and dashboard: any number of servers"))
