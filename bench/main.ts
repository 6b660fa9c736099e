/**
 * Decides how benchmarks are run and held against earlier ones: `npm run bench [-- --json FILE] [-- --compare FILE]
 * [names]`. Exits 1 where a row is more than 15 % worse than in the file compared with.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { parseArgs } from "node:util"
import type { Row } from "./row.ts"

const WORSE = 0.85

/** Each is loaded only when asked for, in the order of design and cost. */
const benchmarks: Record<string, () => Promise<{ readonly run: () => Promise<Row | ReadonlyArray<Row>> }>> = {
  stages: () => import("./stages.ts"),
  "process-json": () => import("./processJson.ts"),
  store: () => import("./store.ts"),
  kite: () => import("./kite.ts"),
  pipeline: () => import("./pipeline.ts"),
  websocket: () => import("./websocket.ts"),
  latency: () => import("./latency.ts"),
  replay: () => import("./replay.ts"),
  "archived-quotes": () => import("./archivedQuotes.ts"),
  exports: () => import("./exports.ts")
}

const usage = `usage: npm run bench [-- --json FILE] [-- --compare FILE] [names]\nnames: ${Object.keys(benchmarks).join(", ")}`

const fail = (message: string, code: number): never => {
  console.error(message)
  process.exit(code)
}

const parse = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { json: { type: "string" }, compare: { type: "string" }, help: { type: "boolean" } }
    })
  } catch (error) {
    return fail(`${(error as Error).message}\n${usage}`, 2)
  }
}

const { values, positionals } = parse()
if (values.help === true) {
  console.log(usage)
  process.exit(0)
}
const names = positionals.length > 0 ? positionals : Object.keys(benchmarks)
for (const name of names) if (benchmarks[name] === undefined) fail(`unknown benchmark ${name}\n${usage}`, 2)

const short = (n: number | null | undefined): string =>
  n === null || n === undefined
    ? "-"
    : n >= 1e6
      ? `${(n / 1e6).toFixed(2)}M`
      : n >= 1e4
        ? `${(n / 1e3).toFixed(0)}k`
        : n.toPrecision(3)

const header = ["name", "product", "bare", "ratio", "unit", "p50", "p99", "p99.9", "cpu s/M", "rss MB", "growth"]
const print = (cells: ReadonlyArray<string>) =>
  console.log(cells.map((cell, i) => cell.padEnd(i === 0 ? 16 : 12)).join(""))
print(header)
const rows: Array<Row> = []
for (const name of names) {
  for (const row of [await (await benchmarks[name]!()).run()].flat()) {
    rows.push(row)
    print([
      row.name,
      short(row.product),
      short(row.bare),
      row.ratio === null ? "-" : row.ratio.toFixed(2),
      row.unit,
      short(row.p50),
      short(row.p99),
      short(row.p999),
      short(row.cpu_s_per_million),
      short(row.peak_rss_mb),
      short(row.rss_growth)
    ])
  }
}

if (values.json !== undefined) {
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memory_gb: totalmem() / 2 ** 30,
    node: process.version
  }
  writeFileSync(values.json, `${JSON.stringify({ machine, rows }, null, 2)}\n`)
}
if (values.compare !== undefined) {
  const before = (JSON.parse(readFileSync(values.compare, "utf8")) as { readonly rows: ReadonlyArray<Row> }).rows
  const worse = rows.flatMap((row) => {
    const then = before.find((old) => old.name === row.name)
    if (then === undefined) return []
    // Ratios where there are any: they hold across machines; else the figure itself.
    const [now, old] = row.ratio !== null && then.ratio !== null ? [row.ratio, then.ratio] : [row.product, then.product]
    return now < old * WORSE ? [`${row.name}: ${short(now)} now, ${short(old)} before`] : []
  })
  if (worse.length > 0) fail(`more than 15 % worse:\n${worse.join("\n")}`, 1)
}
process.exit(0)
