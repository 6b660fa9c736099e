/**
 * Decides how a developer gets the services of a deployment on their own machine: installs what is missing, starts them
 * on free loopback ports under one folder, prints the settings to use, and stops what it started.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { install, installable, missing, type ServiceName, serviceNames } from "./servers/install.ts"
import { KafkaServer } from "./servers/kafka.ts"
import { PostgresServer } from "./servers/postgres.ts"
import { RedisServer } from "./servers/redis.ts"
import type { Server, ServerOptions } from "./servers/Server.ts"
import { S3Server } from "./servers/s3.ts"

const USAGE = [
  `npm run services [-- [${serviceNames.join("|")}]… [--dir FOLDER] [--detach]]   starts them`,
  `npm run services -- install [${installable.join("|")}]…   installs what is missing: also what tests want beside services`,
  "npm run services -- stop [--dir FOLDER]"
].join("\n")

const servers: Readonly<Record<ServiceName, new (options: ServerOptions) => Server>> = {
  kafka: KafkaServer,
  redis: RedisServer,
  postgres: PostgresServer,
  s3: S3Server
}

const fail = (message: string, code = 1): never => {
  process.stderr.write(`${message}\n`)
  process.exit(code)
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const { values, positionals } = (() => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        dir: { type: "string", default: "data/services" },
        detach: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false }
      }
    })
  } catch (error) {
    return fail(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`, 2)
  }
})()
if (values.help) {
  process.stdout.write(`${USAGE}\n`)
  process.exit(0)
}

const dir = resolve(values.dir)
const pidFile = join(dir, "pid")
const envFile = join(dir, "env")
const portsFile = join(dir, "ports.json")

const [first, ...rest] = positionals
const verb = first === "install" || first === "stop" ? first : "start"
const named = verb === "start" ? positionals : rest
const known: ReadonlyArray<string> = verb === "install" ? installable : serviceNames
const wrong = named.find((name) => !known.includes(name))
if (wrong !== undefined) fail(`service: expected one of ${known.join(", ")}, got ${wrong}\n${USAGE}`, 2)
const isChosen = (name: string) => named.length === 0 || named.includes(name)
const chosen = serviceNames.filter(isChosen)

const installMissing = (): void => {
  const failures: Array<string> = []
  for (const service of verb === "install" ? installable.filter(isChosen) : chosen) {
    const lacking = missing(service)
    if (lacking !== "") process.stderr.write(`installing ${lacking} …\n`)
    try {
      install(service)
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error))
    }
  }
  if (failures.length > 0) fail(failures.join("\n"))
}

/** The process that runs the services of this folder, if one does. */
const running = (): number | undefined => {
  if (!existsSync(pidFile)) return undefined
  const pid = Number(readFileSync(pidFile, "utf8"))
  return Number.isInteger(pid) && pid > 0 && isAlive(pid) ? pid : undefined
}

const stopRunning = async (): Promise<void> => {
  const pid = running()
  if (pid === undefined) return fail(`no services run in ${dir}`)
  process.kill(pid, "SIGTERM")
  while (isAlive(pid)) await sleep(50)
}

/** Ports of the last time, so that settings once copied stay right. */
const lastPorts = (): Readonly<Record<string, unknown>> => {
  try {
    return JSON.parse(readFileSync(portsFile, "utf8"))
  } catch {
    return {}
  }
}

const startAll = async (): Promise<void> => {
  const other = running()
  if (other !== undefined && other !== process.pid) fail(`the services in ${dir} run already, as process ${other}`)
  mkdirSync(dir, { recursive: true })
  writeFileSync(pidFile, String(process.pid))
  rmSync(envFile, { force: true })
  const ports = lastPorts()
  const started: Array<readonly [ServiceName, Server]> = chosen.map((service) => {
    const port = ports[service]
    return [
      service,
      new servers[service]({ folder: join(dir, service), port: typeof port === "number" ? port : undefined })
    ]
  })
  let isStopping = false
  const stopAll = async (code: number): Promise<never> => {
    isStopping = true
    await Promise.all(started.map(([, server]) => server.stop()))
    rmSync(pidFile, { force: true })
    rmSync(envFile, { force: true })
    process.exit(code)
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (!isStopping) void stopAll(0)
    })
  }
  const outcomes = await Promise.allSettled(started.map(([, server]) => server.start()))
  if (isStopping) return
  const failures = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason as Error] : []))
  if (failures.length > 0) {
    process.stderr.write(`${failures.map(({ message }) => message).join("\n")}\n`)
    await stopAll(1)
  }
  writeFileSync(portsFile, JSON.stringify({ ...ports, ...Object.fromEntries(started.map(([n, s]) => [n, s.port])) }))
  const lines = started.flatMap(([, server]) =>
    Object.entries(server.settings()).map(([name, value]) => `export ${name}='${value}'\n`)
  )
  writeFileSync(envFile, lines.join(""), { mode: 0o600 })
  process.stdout.write(lines.join(""))
  process.stderr.write(`ready; the lines above are in ${envFile} too. ^C stops the services.\n`)
  for (const [, server] of started) void watch(server, stopAll, () => isStopping)
  // Until a signal comes.
  setInterval(() => {}, 1 << 30)
}

/** A server that ends by itself ends the others: half a deployment is only confusing. */
const watch = async (server: Server, stopAll: (code: number) => Promise<never>, isStopping: () => boolean) => {
  while (server.isRunning) await sleep(500)
  if (isStopping()) return
  process.stderr.write(`${server.name} has ended, and the others are stopped; see ${server.log}\n`)
  await stopAll(1)
}

const detach = async (): Promise<void> => {
  mkdirSync(dir, { recursive: true })
  const other = running()
  if (other !== undefined) fail(`the services in ${dir} run already, as process ${other}`)
  rmSync(envFile, { force: true })
  const log = openSync(join(dir, "log"), "w")
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...chosen, "--dir", dir], {
    detached: true,
    stdio: ["ignore", log, log]
  })
  while (!existsSync(envFile)) {
    if (child.exitCode !== null) fail(readFileSync(join(dir, "log"), "utf8").trim())
    await sleep(50)
  }
  child.unref()
  process.stdout.write(readFileSync(envFile, "utf8"))
  process.stderr.write(`ready; the lines above are in ${envFile} too. To stop: npm run services -- stop --dir ${dir}\n`)
}

if (verb === "stop") await stopRunning()
else {
  installMissing()
  if (verb === "start") await (values.detach ? detach() : startAll())
}
