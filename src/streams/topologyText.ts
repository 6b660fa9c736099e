/** Decides how the topology is drawn: as a Mermaid flow chart, and as text for a terminal. */
import type { TopologyDescription, TopologyEdge, TopologyNode } from "./topology.ts"

/** What a buffer holds at most. */
const capacityOf = ({ capacity, unit, bytes }: NonNullable<TopologyEdge["buffer"]>): string =>
  bytes === undefined ? `${capacity} ${unit}` : `${capacity} ${unit}, ${bytes} bytes`

/** As a Mermaid flow chart. */
export const toMermaid = ({ nodes, edges }: TopologyDescription): string => {
  const id = (name: string) => name.replaceAll("-", "_")
  const shape = (n: TopologyNode) =>
    n.kind === "log"
      ? `${id(n.id)}[(${n.id})]`
      : n.kind === "source"
        ? `${id(n.id)}([${n.id}])`
        : `${id(n.id)}[${n.id}]`
  const groups = [...new Set(nodes.flatMap((n) => (n.group === undefined ? [] : [n.group])))]
  return [
    "flowchart LR",
    ...nodes.filter((n) => n.group === undefined).map((n) => `  ${shape(n)}`),
    ...groups.flatMap((group) => [
      `  subgraph group_${group} [group ${group}]`,
      ...nodes.filter((n) => n.group === group).map((n) => `    ${shape(n)}`),
      "  end"
    ]),
    ...edges.map(({ from, to, buffer }) =>
      buffer === undefined
        ? `  ${id(from)} --> ${id(to)}`
        : `  ${id(from)} -->|"${capacityOf(buffer)}, full: ${buffer.whenFull}"| ${id(to)}`
    )
  ].join("\n")
}

/** As text for a terminal: each node with where it hands on to. */
export const toText = ({ nodes, edges }: TopologyDescription): string => {
  const width = Math.max(...nodes.map((n) => n.id.length))
  const lines: Array<string> = []
  for (const n of nodes) {
    lines.push(`${n.id.padEnd(width)}  ${n.does}${n.group === undefined ? "" : `  [group ${n.group}]`}`)
    const out = edges.filter((edge) => edge.from === n.id)
    out.forEach(({ to, buffer }, i) => {
      const branch = i === out.length - 1 ? "└─►" : "├─►"
      const held = buffer === undefined ? "" : `  (${capacityOf(buffer)}; full: ${buffer.whenFull})`
      lines.push(`${" ".repeat(width)}  ${branch} ${to}${held}`)
    })
  }
  return lines.join("\n")
}
