/**
 * Decides `npm run test:soak`: long scenarios on real processes, each at full length unless told otherwise. Each
 * prints its figures; one claim that does not hold, and the end is 1.
 */
import { inspect, parseArgs } from "node:util"
import { installable, missing } from "../../scripts/servers/install.ts"
import { ENGINES, type Engine } from "../crash/cluster.ts"
import { burst } from "./burst.ts"
import { clients } from "./clients.ts"
import type { SoakOptions } from "./ground.ts"
import { idle } from "./idle.ts"
import { kite } from "./kite.ts"
import { misbehave } from "./misbehave.ts"
import { postgresAway } from "./postgresAway.ts"
import { Report } from "./report.ts"
import { slow } from "./slow.ts"
import { workers } from "./workers.ts"

interface Scenario {
  readonly play: (options: SoakOptions, report: Report) => Promise<void>
  /** What the claim is made of. */
  readonly seconds: number
  readonly rate: number
  readonly leastRate: number
}

const scenarios: Readonly<Record<string, Scenario>> = {
  "postgres-away": { play: postgresAway, seconds: 60, rate: 2000, leastRate: 100 },
  workers: { play: workers, seconds: 30, rate: 2000, leastRate: 500 },
  clients: { play: clients, seconds: 180, rate: 300, leastRate: 50 },
  idle: { play: idle, seconds: 30, rate: 100, leastRate: 100 },
  slow: { play: slow, seconds: 20, rate: 500, leastRate: 100 },
  // Where the host itself is full, whatever comes beside it costs the good clients something, a bystander too.
  misbehave: { play: misbehave, seconds: 6, rate: 500, leastRate: 100 },
  kite: { play: kite, seconds: 4, rate: 600, leastRate: 100 },
  // A batch that takes longer than the store's own limit for a statement would never be written.
  burst: { play: burst, seconds: 300, rate: 3000, leastRate: 2000 }
}
const names = Object.keys(scenarios)

const USAGE = `npm run test:soak -- [${names.join("|")}|all] [--engine ${ENGINES.join("|")}] [--seconds N] [--rate N] [--kinds A,B]
${Object.entries(scenarios)
  .map(([name, { seconds, rate }]) => `  ${name}: --seconds ${seconds} --rate ${rate}`)
  .join("\n")}`

const fail = (message: string): never => {
  process.stderr.write(`${message}\n`)
  process.exit(2)
}

const { values, positionals } = (() => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        engine: { type: "string", default: "platformatic" },
        seconds: { type: "string" },
        rate: { type: "string" },
        kinds: { type: "string", default: "" },
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

const whole = (name: "seconds" | "rate", fallback: number, least: number): number => {
  const n = Number(values[name] ?? fallback)
  return Number.isSafeInteger(n) && n >= least
    ? n
    : fail(`--${name}: expected a whole number, ${least} or more, got ${values[name]}\n${USAGE}`)
}
const found = ENGINES.find((known) => known === values.engine)
const engine: Engine = found ?? fail(`--engine: expected ${ENGINES.join(" or ")}, got ${values.engine}\n${USAGE}`)
const [asked = "all", ...more] = positionals
if (more.length > 0 || (asked !== "all" && !names.includes(asked))) {
  fail(`scenario: expected one of ${names.join(", ")}, all, got ${positionals.join(" ")}\n${USAGE}`)
}
for (const service of installable) {
  const lacking = service === "chromium" ? "" : missing(service)
  if (lacking !== "") fail(`${lacking} is not installed: npm run services -- install`)
}
const chosen = Object.entries(scenarios)
  .filter(([name]) => asked === "all" || asked === name)
  .map(([name, scenario]) => ({
    name,
    play: scenario.play,
    options: {
      engine,
      seconds: whole("seconds", scenario.seconds, 4),
      rate: whole("rate", scenario.rate, scenario.leastRate),
      kinds: values.kinds === "" ? [] : values.kinds.split(",")
    }
  }))

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130))

let failed = 0
for (const { name, play, options } of chosen) {
  const report = new Report()
  try {
    await play(options, report)
  } catch (error) {
    report.check(name, false, error instanceof Error ? inspect(error) : String(error))
  }
  process.stdout.write(report.failures === 0 ? `${name} holds\n` : `${name}: ${report.failures} claims do not hold\n`)
  if (report.failures > 0) failed++
}
process.exit(failed === 0 ? 0 : 1)
