/** Decides `mdp gateway`: the market in the words of another API, beside a server or alone, on real services. */
import { Effect, Layer, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Operator from "../http/Operator.ts"
import { publishFigures } from "../streams/publishFigures.ts"
import { observe } from "../streams/run/observe.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { supervise } from "./groups.ts"
import { access, checkKeys, checkKite, kiteServing, launch, toldKite } from "./instance.ts"
import { lifeOf } from "./life.ts"
import { say, tell } from "./lines.ts"
import { archive, caches, history, log, missing, required, settings, store } from "./services.ts"

const DEFAULT_PORT = 8081
const MAX_PORT = 65_535

const portFlag = Flag.Int("port").pipe(
  Flag.withMetavar("PORT"),
  Flag.withDescription(`port to listen on, 0 picks a free one (default: KITE_PORT, else ${DEFAULT_PORT})`),
  Flag.filter(
    (port) => port >= 0 && port <= MAX_PORT,
    (port) => `Expected a port from 0 to ${MAX_PORT}, got ${port}`
  ),
  Flag.optional
)

const kite = Command.make(
  "kite",
  { port: portFlag },
  Effect.fnUntraced(function* ({ port }) {
    const asked = yield* settings
    const given = { ...asked, KITE_PORT: Option.getOrElse(port, () => asked.KITE_PORT ?? DEFAULT_PORT) }
    yield* required(given, "KAFKA_BROKERS", "by mdp gateway; mdp run --kite-port embeds what no setting names")
    yield* required(given, "DATABASE_URL", "by mdp gateway; mdp run --kite-port embeds what no setting names")
    yield* checkKeys(given)
    yield* checkKite(given)
    yield* Operator.check(given)
    for (const line of missing(given, "server")) say("warn", line)
    const services = Layer.mergeAll(log(given), store(given, given.DATA_DIR), caches(given)).pipe(
      Layer.provideMerge(Readiness.layer)
    )
    const told = Layer.effectDiscard(
      Effect.gen(function* () {
        const { url } = yield* Operator.Operator
        tell(`figures on ${url}/metrics`, { url })
      })
    )
    const self = yield* lifeOf("server", [])
    yield* launch(
      Layer.merge(toldKite, told).pipe(
        Layer.provideMerge(kiteServing(given)),
        Layer.provideMerge(Layer.provide(Operator.layer(given), access(given))),
        Layer.provideMerge(publishFigures(self)),
        Layer.provideMerge(Layer.effectDiscard(Effect.forkScoped(supervise("observe", observe(given))))),
        Layer.provideMerge(history(archive(given, given.DATA_DIR, true))),
        Layer.provideMerge(services)
      )
    )
  })
).pipe(
  Command.withDescription("The Kite Connect 3 market-data API: an unchanged Kite bot on live ticks or on a replay")
)

export const gateway = Command.make("gateway").pipe(
  Command.withDescription("The market in the words of another API"),
  Command.withSubcommands([kite])
)
