/**
 * Decides `npm run test:crash`: the crash suite at any length. Each seed is a run of its own; a failing one prints the
 * command that repeats it, and where the processes' logs are.
 */
import { writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { missing, serviceNames } from "../../scripts/servers/install.ts"
import { ANEW, runAnew } from "./anew.ts"
import { ENGINES, type Engine } from "./cluster.ts"
import { KINDS } from "./nemesis.ts"
import { run } from "./scenario.ts"
import type { Report } from "./stage.ts"

const USAGE = `npm run test:crash [-- --seed 1 --runs 1 --faults 20 --engine ${ENGINES.join("|")} --kinds a,b --lanes 2 --rate 600 --anew --quiet]
kinds: ${KINDS.join(", ")}
with --anew, what is taken away under load: ${ANEW.join(", ")}`

const fail = (message: string): never => {
  process.stderr.write(`${message}\n`)
  process.exit(2)
}

const { values } = (() => {
  try {
    return parseArgs({
      options: {
        seed: { type: "string", default: "1" },
        runs: { type: "string", default: "1" },
        faults: { type: "string", default: "20" },
        engine: { type: "string" },
        kinds: { type: "string" },
        lanes: { type: "string", default: "2" },
        rate: { type: "string", default: "600" },
        anew: { type: "boolean", default: false },
        quiet: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false }
      }
    })
  } catch (error) {
    return fail(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`)
  }
})()
if (values.help) {
  process.stdout.write(`${USAGE}\n`)
  process.exit(0)
}

const whole = (name: "seed" | "runs" | "faults" | "lanes" | "rate"): number => {
  const n = Number(values[name])
  return Number.isSafeInteger(n) && n >= (name === "seed" ? 0 : 1)
    ? n
    : fail(`--${name}: expected a whole number, got ${values[name]}\n${USAGE}`)
}
const engines = values.engine === undefined ? ENGINES : ENGINES.filter((engine) => engine === values.engine)
if (engines.length === 0) fail(`--engine: expected ${ENGINES.join(" or ")}, got ${values.engine}\n${USAGE}`)
const kinds = values.kinds?.split(",")
const known: ReadonlyArray<string> = values.anew ? ANEW : KINDS
const unknown = kinds?.find((kind) => !known.includes(kind))
if (unknown !== undefined) fail(`--kinds: ${unknown} is none\n${USAGE}`)
const [seed, runs, faults, lanes, rate] = [whole("seed"), whole("runs"), whole("faults"), whole("lanes"), whole("rate")]
for (const service of serviceNames) {
  const lacking = missing(service)
  if (lacking !== "") fail(`${lacking} is not installed: npm run services -- install`)
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130))

const tally = new Map<string, number>()
let failures = 0

const one = async (what: string, engine: Engine, again: string, play: () => Promise<Report>): Promise<void> => {
  process.stdout.write(`${what}, ${engine}\n`)
  let lines: ReadonlyArray<string>
  try {
    const { problems, figures, done, missed, seconds, logs } = await play()
    for (const [kind, n] of done) tally.set(`${engine} ${kind}`, (tally.get(`${engine} ${kind}`) ?? 0) + n)
    const count = [...done.values()].reduce((sum, n) => sum + n, 0)
    const shown = Object.entries(figures).map(([name, n]) => `${name} ${n}`)
    process.stdout.write(`  ${count} faults in ${seconds.toFixed(0)} s; ${shown.join(", ")}\n`)
    if (missed.length > 0) process.stdout.write(`  did not come about: ${missed.join("; ")}\n`)
    if (problems.length === 0) {
      process.stdout.write("  account closed\n")
      return
    }
    const file = join(tmpdir(), `mdp-crash-${engine}-${seed}-${Date.now()}.log`)
    writeFileSync(file, logs)
    lines = [...problems, `logs: ${file}`]
  } catch (error) {
    lines = [error instanceof Error ? (error.stack ?? error.message) : String(error)]
  }
  failures++
  for (const line of lines) process.stdout.write(`  FAILED ${line}\n`)
  process.stdout.write(`  again: ${again}\n`)
}

const startedAt = Date.now()
const tell = values.quiet
  ? () => {}
  : (line: string) => process.stdout.write(`  ${((Date.now() - startedAt) / 1000).toFixed(1)} ${line}\n`)
for (let i = 0; i < runs; i++) {
  for (const engine of engines) {
    const common = `npm run test:crash -- --seed ${seed + i} --engine ${engine} --rate ${rate}`
    if (values.anew) {
      for (const which of ANEW.filter((each) => kinds?.includes(each) !== false)) {
        await one(`seed ${seed + i}, anew: ${which}`, engine, `${common} --anew --kinds ${which}`, () =>
          runAnew(which, { seed: seed + i, engine, rate, tell })
        )
      }
    } else {
      const again = `${common} --faults ${faults} --lanes ${lanes}${kinds === undefined ? "" : ` --kinds ${kinds.join(",")}`}`
      await one(`seed ${seed + i}, ${faults} faults`, engine, again, () =>
        run({ seed: seed + i, faults, engine, kinds, lanes, rate, tell })
      )
    }
  }
}
const total = [...tally.values()].reduce((sum, n) => sum + n, 0)
process.stdout.write(`${total} faults, ${failures} failed runs\n`)
for (const [kind, n] of [...tally].sort()) process.stdout.write(`  ${String(n).padStart(4)} ${kind}\n`)
process.exit(failures === 0 ? 0 : 1)
