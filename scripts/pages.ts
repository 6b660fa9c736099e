/** Decides what the pages say that the code knows: the graph in topology.md, the settings in README.md, the metrics. */
import { readFileSync, writeFileSync } from "node:fs"
import { Result } from "effect"
import { readSettings, settingsTable } from "../src/schema/Settings.ts"
import { catalog } from "../src/streams/metrics.ts"
import { describe } from "../src/streams/topology.ts"
import { toMermaid } from "../src/streams/topologyText.ts"

const BEGIN = "<!-- begin: from the code; npm run pages writes it anew -->"
const END = "<!-- end -->"

const cell = (text: string) => text.replaceAll("|", "\\|")

/** The graph with default settings: a chart, its nodes, and its bounded buffers. */
const graph = (): string => {
  const topology = describe(Result.getOrThrow(readSettings({})))
  return [
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
    )
  ].join("\n")
}

const settings = (): string =>
  [
    "| setting | default | what it is |",
    "| --- | --- | --- |",
    ...settingsTable.map((s) => `| \`${s.name}\` | ${s.default ?? ""} | ${cell(s.description)} |`)
  ].join("\n")

/** Every figure of `/metrics` that the platform itself has. */
const metrics = (): string =>
  [
    "| metric | kind | labels | what it is |",
    "| --- | --- | --- | --- |",
    ...catalog.map(
      ({ name, type, labels, description }) =>
        `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${cell(description)} |`
    )
  ].join("\n")

/** The pages with a part made from the code. */
export const pages = { "topology.md": graph, "README.md": settings, "docs/metrics.md": metrics } as const

/** A page with the part between its marks made anew. */
export const renew = (page: string, section: () => string): string => {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)]
  if (begin < 0 || end < begin) throw new Error("the page has lost its marks")
  return `${page.slice(0, begin)}${BEGIN}\n\n${section()}\n\n${page.slice(end)}`
}

if (import.meta.main) {
  for (const [name, section] of Object.entries(pages)) {
    const path = new URL(`../${name}`, import.meta.url)
    writeFileSync(path, renew(readFileSync(path, "utf8"), section))
  }
}
