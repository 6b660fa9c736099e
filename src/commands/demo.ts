/** Decides `mdp demo`: a whole instance on embedded services, fed by the simulator, with what to open first. */
import { Deferred, Effect, Layer } from "effect"
import { Command } from "effect/cli"
import { isEveryAddress } from "../http/listen.ts"
import * as Server from "../http/Server.ts"
import * as Simulator from "../layers/feeds/Simulator.ts"
import { fullSymbol } from "../schema/Instrument.ts"
import { FIRST_SIMULATED_TOKEN, type Simulation, simulatedInstruments } from "../schema/Simulation.ts"
import { Instruments } from "../streams/ports/Instruments.ts"
import { simulationFlags, simulationOf } from "./feed.ts"
import { supervise } from "./groups.ts"
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
import { isJson, tell } from "./lines.ts"
import { listening } from "./listening.ts"
import { settings } from "./services.ts"

const welcome = (url: string, simulation: Simulation, dataDir: string | undefined): string => {
  const [first] = simulatedInstruments(1)
  const socket = url.replace(/^http/, "ws")
  return [
    "",
    `  A simulated market: ${simulation.symbols} instruments, ${simulation.rate} ticks a second, two feeds that lose,`,
    "  repeat and reorder packets.",
    "",
    `  Open        ${url}`,
    `  Listen      ${socket}/ws   {"action":"subscribe","symbols":["${first === undefined ? "" : fullSymbol(first)}"],"backfill":10}`,
    `  Ask         ${url}/api/v1/quotes?tokens=${FIRST_SIMULATED_TOKEN}`,
    `  Look inside ${url}/topology   ${url}/metrics   ${url}/openapi.json`,
    "",
    dataDir === undefined
      ? "  Nothing is kept; DATA_DIR=./data would. Ctrl-C stops."
      : `  Data is kept in ${dataDir}. Ctrl-C stops.`,
    ""
  ].join("\n")
}

/** Registers the simulator's instruments: the first search, as soon as there is an answer at all, finds them. */
export const registered = (simulation: Simulation) =>
  Layer.effectDiscard(
    Effect.flatMap(Instruments, (instruments) => instruments.put(simulatedInstruments(simulation.symbols)))
  )

/** Plays the market, for as long as the scope lasts. */
const market = (simulation: Simulation, over: Deferred.Deferred<void>) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const played = Simulator.run({
        ...simulation,
        progress: (summary, isFinal) => {
          if (isFinal) tell(Simulator.describeSummary(summary))
        }
      })
      // Where a duration was asked for, the market closes after it and the instance stays up.
      yield* Effect.forkScoped(supervise("simulator", played).pipe(Effect.andThen(Deferred.succeed(over, undefined))))
    })
  )

export const demo = Command.make(
  "demo",
  { ...simulationFlags, insecure: insecureFlag, kitePort: kitePortFlag },
  Effect.fnUntraced(function* ({ insecure, kitePort, ...flags }) {
    const simulation = yield* simulationOf(flags)
    const given = withKitePort(yield* settings, kitePort)
    yield* checkHost(given, insecure)
    yield* checkKite(given)
    const { rules } = yield* Server.check(given)
    const over = yield* Deferred.make<void>()
    const welcomed = Layer.effectDiscard(
      Effect.gen(function* () {
        const { url } = yield* Server.Server
        const line = listening(url, given.HOST, rules)
        if (isJson()) tell(line, { url })
        else {
          process.stdout.write(`${welcome(url, simulation, given.DATA_DIR)}\n`)
          if (isEveryAddress(given.HOST)) process.stdout.write(`  ${line}\n\n`)
        }
      })
    )
    yield* launch(
      toldKite.pipe(
        Layer.provideMerge(welcomed),
        Layer.provideMerge(market(simulation, over)),
        Layer.provideMerge(instance(given, given.DATA_DIR, registered(simulation)))
      )
    )
  })
).pipe(Command.withDescription("Everything in one process, fed by a simulated market"))
