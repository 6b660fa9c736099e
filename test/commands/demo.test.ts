import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import { registered } from "../../src/commands/demo.ts"
import { serving } from "../../src/commands/instance.ts"
import { lifeOf } from "../../src/commands/life.ts"
import { caches, log } from "../../src/commands/services.ts"
import { Server } from "../../src/http/Server.ts"
import { layerOfStore } from "../../src/layers/history/History.ts"
import { readSettings } from "../../src/schema/Settings.ts"
import { defaultSimulation } from "../../src/schema/Simulation.ts"
import { Overview } from "../../src/streams/Overview.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { memoryStore, Rows } from "../http/memoryStore.ts"
import { ask } from "../http/serving.ts"

describe("mdp demo", () => {
  it.live("knows its instruments before it answers anybody", () =>
    Effect.gen(function* () {
      const given = Result.getOrThrow(readSettings({ PORT: "0" }))
      const self = yield* lifeOf("instance", [])
      const services = Overview.layer({ self, expected: [] }).pipe(
        Layer.provideMerge(layerOfStore),
        Layer.provideMerge(Layer.mergeAll(log(given), memoryStore(new Rows()), caches(given))),
        Layer.provideMerge(Readiness.layer)
      )
      const built = yield* Layer.build(
        serving(given, registered({ ...defaultSimulation, symbols: 3 })).pipe(Layer.provideMerge(services))
      )
      const { port } = Context.get(built, Server)
      const found = yield* ask(port, "/api/v1/instruments/search?query=&exchange=SIM")
      assert.strictEqual((found.json as { readonly instruments: ReadonlyArray<unknown> }).instruments.length, 3)
    }).pipe(Effect.scoped)
  )
})
