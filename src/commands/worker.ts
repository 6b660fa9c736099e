/** Decides `mdp worker`: the pipeline on real services, any number of processes, any of which may be killed at any time. */
import { Effect, Layer } from "effect"
import { Command, Flag } from "effect/cli"
import * as Operator from "../http/Operator.ts"
import { publishFigures } from "../streams/publishFigures.ts"
import { Drain } from "../streams/run/Drain.ts"
import { Readiness } from "../streams/run/Readiness.ts"
import { watchLog } from "../streams/run/watch.ts"
import { STAGES, type Stage } from "../streams/topology.ts"
import { groups } from "./groups.ts"
import { access, checkKeys, launch } from "./instance.ts"
import { lifeOf } from "./life.ts"
import { say, tell } from "./lines.ts"
import { partitionsKept } from "./partitions.ts"
import { archive, caches, log, missing, required, settings, store } from "./services.ts"

const stagesFlag = Flag.String("stages").pipe(
  Flag.withMetavar(STAGES.join(",")),
  Flag.withDescription("stages to run, comma-separated (default: all)"),
  Flag.mapTryCatch(
    (text): ReadonlyArray<Stage> => {
      const names = text.split(",").map((name) => name.trim())
      const isStage = (name: string): name is Stage => (STAGES as ReadonlyArray<string>).includes(name)
      if (!names.every(isStage)) throw new Error()
      return [...new Set(names)]
    },
    () => `Expected some of ${STAGES.join(", ")}`
  ),
  Flag.withDefault(STAGES as ReadonlyArray<Stage>)
)

export const worker = Command.make(
  "worker",
  { stages: stagesFlag },
  Effect.fnUntraced(function* ({ stages }) {
    const given = yield* settings
    yield* required(given, "KAFKA_BROKERS", "by mdp worker; mdp run embeds what no setting names")
    yield* required(given, "DATABASE_URL", "by mdp worker; mdp run embeds what no setting names")
    yield* checkKeys(given)
    yield* Operator.check(given)
    for (const line of missing(given, "worker")) say("warn", line)
    const services = Layer.mergeAll(log(given), store(given, given.DATA_DIR), caches(given), Drain.layer).pipe(
      Layer.provideMerge(Readiness.layer)
    )
    const told = Layer.effectDiscard(
      Effect.gen(function* () {
        const { url } = yield* Operator.Operator
        tell(`worker of ${stages.join(", ")}; ${url}/metrics`, { stages, url })
      })
    )
    const kept = archive(given, given.DATA_DIR)
    const life = yield* lifeOf("worker", kept === undefined ? stages.filter((stage) => stage !== "archive") : stages)
    yield* launch(
      told.pipe(
        Layer.provideMerge(Layer.provide(Operator.layer(given), access(given))),
        Layer.provideMerge(publishFigures(life)),
        Layer.provideMerge(Layer.effectDiscard(Effect.forkScoped(watchLog))),
        Layer.provideMerge(groups(given, { stages, ownsLog: false, life: life.life }, kept)),
        Layer.provideMerge(stages.includes("process") ? partitionsKept : Layer.empty),
        Layer.provideMerge(services)
      )
    )
  })
).pipe(Command.withDescription("The pipeline: any number of workers share the partitions"))
