/** Decides `mdp topology`: the graph with the capacities in force, for a terminal, a page or a program. */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { describe } from "../streams/topology.ts"
import { toMermaid, toText } from "../streams/topologyText.ts"
import { embedded } from "./instance.ts"
import { settings } from "./services.ts"

export const topology = Command.make(
  "topology",
  {
    format: Flag.Literals("format", ["text", "mermaid", "json"]).pipe(
      Flag.withDescription("text, mermaid or json (default text)"),
      Flag.withDefault("text")
    )
  },
  Effect.fnUntraced(function* ({ format }) {
    const graph = describe(embedded(yield* settings))
    const text =
      format === "json" ? JSON.stringify(graph, null, 2) : format === "mermaid" ? toMermaid(graph) : toText(graph)
    process.stdout.write(`${text}\n`)
  })
).pipe(Command.withDescription("Draw the topology"))
