/** Decides how benchmarks get real servers and processes of their own: started here on free ports, gone with the run. */
import { type ChildProcess, fork } from "node:child_process"
import { chmodSync, mkdtempSync, rmSync } from "node:fs"
import { loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Redis } from "ioredis"
import { install, missing } from "../scripts/servers/install.ts"
import { KafkaServer } from "../scripts/servers/kafka.ts"
import { PostgresServer } from "../scripts/servers/postgres.ts"
import { RedisServer } from "../scripts/servers/redis.ts"

const kinds = { kafka: KafkaServer, redis: RedisServer, postgres: PostgresServer } as const
type Kind = keyof typeof kinds
type Servers<K extends Kind> = { readonly [N in K]: InstanceType<(typeof kinds)[N]> }

export interface Bench<K extends Kind> {
  readonly servers: Servers<K>
  /** Gone at the end; servers' data is in it. */
  readonly folder: string
  /** With which the platform finds the servers. */
  readonly settings: Readonly<Record<string, string>>
}

/** Runs `work` beside servers of its own. */
export const withServers = async <K extends Kind, A>(
  names: ReadonlyArray<K>,
  work: (bench: Bench<K>) => Promise<A>
): Promise<A> => {
  const folder = mkdtempSync(join(tmpdir(), "mdp-bench-"))
  chmodSync(folder, 0o711)
  const started = new Map<Kind, InstanceType<(typeof kinds)[Kind]>>()
  try {
    for (const name of names) {
      if (missing(name) !== "") install(name)
      const server = new kinds[name]({ folder: join(folder, name) })
      started.set(name, server)
      await server.start()
    }
    const servers = Object.fromEntries(started) as unknown as Servers<K>
    const settings = Object.assign({}, ...[...started.values()].map((server) => server.settings()))
    return await work({ servers, folder, settings })
  } finally {
    await Promise.all([...started.values()].map((server) => server.kill()))
    rmSync(folder, { recursive: true, force: true })
  }
}

/** An empty Redis. */
export const flush = async (url: string): Promise<void> => {
  const client = new Redis(url)
  await client.flushall()
  await client.quit()
}

/** What one run in a process of its own came to. */
export interface Run {
  /** Ticks a second. */
  readonly rate: number
  readonly cpuSecondsPerMillion: number
  readonly peakRssMb: number
}

/** What a child says at its end. */
export interface Report {
  readonly ticks: number
  readonly seconds: number
  readonly cpuSeconds: number
}

/** Told to the parent by a child that measured itself; the time it took to start is not in it. */
export const report = (said: Report): void => {
  process.send!({ ...said, peakRssMb: process.resourceUsage().maxRSS / 1024 })
}

/** Starts a script of `children/`; it inherits this process's own flags, so that `node --cpu-prof` shows it too. */
export const child = (
  script: string,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>
): ChildProcess =>
  fork(fileURLToPath(new URL(`./children/${script}.ts`, import.meta.url)), args, {
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", ...environment }
  })

/** Runs a script of `children/` to its end. */
export const runChild = async (
  script: string,
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>
): Promise<Run> => {
  const started = child(script, args, environment)
  let said: (Report & { readonly peakRssMb: number }) | undefined
  started.on("message", (message) => {
    said = message as typeof said
  })
  const code = await new Promise<number | null>((resolve) => started.once("exit", resolve))
  if (code !== 0 || said === undefined) throw new Error(`${script} ended with ${code}`)
  const rate = said.ticks / said.seconds
  if (process.env.BENCH_VERBOSE === "1") {
    const load = loadavg()[0]!.toFixed(1)
    console.error(`${script}: ${Math.round(rate)} ticks/s, ${said.cpuSeconds.toFixed(1)} s of CPU, load ${load}`)
  }
  return { rate, cpuSecondsPerMillion: (said.cpuSeconds / said.ticks) * 1e6, peakRssMb: said.peakRssMb }
}
