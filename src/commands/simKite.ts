/** Decides `mdp feed sim --serve kite`: the flags of the Kite server that the simulator plays, and what it says while it does. */
import { Effect, Option } from "effect"
import { type Command, Flag } from "effect/cli"
import { FAULT_KINDS, FAULT_LIST, readTimedFault } from "../http/kiteSim/faults.ts"
import { API_KEY, API_SECRET } from "../http/kiteSim/KiteServer.ts"
import { type PlayOptions, playKite } from "../http/kiteSim/playKite.ts"
import type { Simulation } from "../schema/Simulation.ts"
import { wrongUsage, wrongValue } from "./cli.ts"
import { parseDuration } from "./durations.ts"
import { overwrite, say, tell } from "./lines.ts"

/** Beside the port of an instance and that of a gateway. */
export const SERVED_PORT = 8082
const MAX_FAULTS = 100

export const servedFlags = {
  serve: Flag.Literals("serve", ["kite"]).pipe(
    Flag.withDescription(
      "instead of feeding, be a Kite server (REST and ticker, on loopback) that plays the market to mdp feed kite or a bot"
    ),
    Flag.optional
  ),
  port: Flag.Int("port").pipe(
    Flag.withDescription(`port of --serve; 0 picks a free one (default ${SERVED_PORT})`),
    Flag.filter(
      (port) => port >= 0 && port <= 65_535,
      () => "Expected a port from 0 to 65535"
    ),
    Flag.optional
  ),
  fault: Flag.String("fault").pipe(
    Flag.withMetavar("FAULT[:VALUE][@TIME]"),
    Flag.withDescription(
      `fault of --serve, such as reset@20s, close:1012@1m, late:500ms or stall:10s@30s; repeatable; one of ${FAULT_KINDS.join(", ")}`
    ),
    Flag.atMost(MAX_FAULTS)
  )
}
type ServedFlags = Command.Command.Config.Infer<typeof servedFlags>

/** The faults that the flags ask for; flags without a server to serve end the command with 2. */
export const faultsOf = ({ fault, port, serve }: ServedFlags) =>
  Effect.gen(function* () {
    if (Option.isNone(serve) && (fault.length > 0 || Option.isSome(port))) {
      return yield* wrongUsage(`--${fault.length > 0 ? "fault" : "port"}: goes with --serve kite`)
    }
    const faults: Array<PlayOptions["faults"][number]> = []
    for (const text of fault) {
      const read = readTimedFault(text, parseDuration)
      if (typeof read === "string")
        return yield* wrongValue("flag", "fault", text, `a fault such as reset@20s (${read})`)
      faults.push(read)
    }
    return faults
  })

export const serveSimulated = (simulation: Simulation, port: number, faults: PlayOptions["faults"]) =>
  playKite({
    ...simulation,
    port,
    faults,
    onListening: (server) => {
      const place = `127.0.0.1:${server.port}`
      tell(
        [
          "",
          `  A simulated Kite: ${simulation.symbols} instruments of exchange SIM, open at all hours.`,
          "",
          `  REST     http://${place}     ticker  ws://${place}`,
          `  Feed     KITE_API_KEY=${API_KEY} KITE_ACCESS_TOKEN=${server.accessToken()} mdp feed kite --exchange SIM --root http://${place} --ws-root ws://${place}`,
          `  Log in   POST http://${place}/session/token, API secret ${API_SECRET}, any request token`,
          `  Faults   curl -H 'content-type: application/json' -d '{"fault":"reset"}' http://${place}/sim/faults`,
          `           one of ${FAULT_LIST}; in brackets what must be said too, as in {"fault":"close","code":1012}`,
          ""
        ].join("\n")
      )
    },
    onFault: (fault) => say("info", `fault: ${JSON.stringify(fault)}`),
    progress: ({ connections, frames, packets, subscriptions }) =>
      overwrite(`${connections} connections, ${subscriptions} subscriptions; ${packets} packets in ${frames} frames`)
  })
