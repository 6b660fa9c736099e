/** Decides `mdp run`: worker and server in one process on the services that the settings name, the rest embedded. */
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import * as Server from "../http/Server.ts"
import {
  checkHost,
  checkKite,
  insecureFlag,
  instance,
  kitePortFlag,
  launch,
  toldKite,
  withKitePort
} from "./instance.ts"
import { tell } from "./lines.ts"
import { listening } from "./listening.ts"
import { settings } from "./services.ts"

const DEFAULT_DATA_DIR = "./data"

export const run = Command.make(
  "run",
  { insecure: insecureFlag, kitePort: kitePortFlag },
  Effect.fnUntraced(function* ({ insecure, kitePort }) {
    const given = withKitePort(yield* settings, kitePort)
    yield* checkHost(given, insecure)
    yield* checkKite(given)
    const { rules } = yield* Server.check(given)
    const dataDir = given.DATA_DIR ?? DEFAULT_DATA_DIR
    const told = Layer.effectDiscard(
      Effect.gen(function* () {
        const { url } = yield* Server.Server
        const kept = given.DATABASE_URL === undefined ? dataDir : `DATABASE_URL and ${dataDir}`
        tell(`${listening(url, given.HOST, rules)}; data in ${kept}`, { url })
      })
    )
    yield* launch(
      toldKite.pipe(Layer.provideMerge(told), Layer.provideMerge(instance({ ...given, DATA_DIR: dataDir }, dataDir)))
    )
  })
).pipe(Command.withDescription("Worker and server in one process; what no setting names is embedded"))
