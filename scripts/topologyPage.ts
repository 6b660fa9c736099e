/** Decides what topology.md says of the graph: the part between its marks, made from the topology's own description. */
import { readFileSync, writeFileSync } from "node:fs"
import { Result } from "effect"
import { readSettings } from "../src/schema/Settings.ts"
import { describe, toMermaid } from "../src/streams/topology.ts"

const BEGIN = "<!-- begin: from the code; npm run topology-page writes it anew -->"
const END = "<!-- end -->"

const cell = (text: string) => text.replaceAll("|", "\\|")

/** The graph with default settings: a chart, its nodes, and its bounded buffers. */
export const graphSection = (): string => {
  const topology = describe(Result.getOrThrow(readSettings({})))
  return [
    BEGIN,
    "",
    "```mermaid",
    toMermaid(topology),
    "```",
    "",
    "| node | kind | group | what it does |",
    "| --- | --- | --- | --- |",
    ...topology.nodes.map((n) => `| \`${n.id}\` | ${n.kind} | ${n.group ?? ""} | ${cell(n.does)} |`),
    "",
    "| buffer | from | to | holds | when full |",
    "| --- | --- | --- | --- | --- |",
    ...topology.edges.flatMap(({ from, to, buffer }) =>
      buffer === undefined
        ? []
        : [`| \`${buffer.name}\` | \`${from}\` | \`${to}\` | ${buffer.capacity} ${buffer.unit} | ${buffer.whenFull} |`]
    ),
    "",
    END
  ].join("\n")
}

/** A page with its marked part replaced. */
export const withGraph = (page: string): string => {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)]
  if (begin < 0 || end < begin) throw new Error("topology.md has lost its marks")
  return page.slice(0, begin) + graphSection() + page.slice(end + END.length)
}

if (import.meta.main) {
  const path = new URL("../topology.md", import.meta.url)
  writeFileSync(path, withGraph(readFileSync(path, "utf8")))
}
