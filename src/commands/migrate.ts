/** Decides `mdp migrate`: brings the schema of the database up to date, or says why it may not. */
import { Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { tell } from "./lines.ts"
import { required, settings, store } from "./services.ts"

export const migrate = Command.make(
  "migrate",
  {},
  Effect.fnUntraced(function* () {
    const given = yield* settings
    if (given.DATA_DIR === undefined) {
      yield* required(given, "DATABASE_URL", "by mdp migrate; with DATA_DIR it is the embedded database there")
    }
    const dataDir = given.DATA_DIR ?? "./data"
    // Opening the store is what migrates it.
    yield* Effect.scoped(Effect.asVoid(Layer.build(store(given, dataDir))))
    tell(`schema up to date: ${given.DATABASE_URL === undefined ? `embedded in ${dataDir}` : "DATABASE_URL"}`)
  })
).pipe(Command.withDescription("Bring the database's schema up to date"))
