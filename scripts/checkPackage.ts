/**
 * Decides whether the package works elsewhere: packed, installed in an empty folder without running a script, every link
 * of its pages leading somewhere inside it, all that it needs named with its licence, its demo ready and stopped clean,
 * its client imported and its types sound without anything else.
 */
import { execFileSync, spawn } from "node:child_process"
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { linksOf } from "./links.ts"
import { strange } from "./supply/binaries.ts"
import { LICENCES } from "./supply/licences.ts"
import { untold } from "./supply/packed.ts"
import { SBOM } from "./supply/sbom.ts"
import { readShipped } from "./supply/shipped.ts"

const READY_WITHIN_MS = 60_000
const root = fileURLToPath(new URL("../", import.meta.url))
const folder = mkdtempSync(join(tmpdir(), "mdp-package-"))
const run = (command: string, args: ReadonlyArray<string>, cwd: string, env: Readonly<Record<string, string>> = {}) =>
  execFileSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8"
  })

/** Most of what the client has, by its types. */
const BOT = `import { type Bar, type Client, connect, RequestFailed, type Stream, type Tick } from "market-data-platform/client"

const client: Client = connect({ url: "http://127.0.0.1:8080", key: async () => "key", policy: "conflate" })
const off: () => void = client.on("missed", ({ from, to, reason }) => console.log(from, to, reason))
client.on("error", (error: Error) => console.log(error.message))
const ticks: Stream<Tick> = client.ticks(["NSE:INFY", 408065], { backfill: 10, signal: new AbortController().signal })
for await (const { price, live } of ticks) console.log(price.toFixed(2), live satisfies boolean)
for await (const candle of client.candles("NSE:INFY", "1m")) console.log(candle.revision, candle.final)
for await (const message of client.messages(1)) if (message.type === "epoch") console.log(message.reason, message.to[1])
const bars: Array<Bar> = []
for await (const bar of client.history.candles(1, { interval: "1d", from: new Date(0) })) bars.push(bar)
try {
  console.log((await client.quotes([1]))[0]?.last?.price, (await client.calendar("NSE", "2026-01-26")).holiday)
} catch (error) {
  if (error instanceof RequestFailed) console.log(error._tag, error.status, error.parameter, error.retryAfter)
}
const replay = await client.replay({ symbols: ["NSE:INFY"], date: "2026-01-15", speed: "inf" })
await replay.step({ bars: 1, interval: "1m" })
await replay.seek("2026-01-15T10:00:00+05:30")
// @ts-expect-error: no such event
client.on("ticks", () => undefined)
off()
client.close()
`

try {
  run("npm", ["pack", "--silent", "--pack-destination", folder], root)
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"))
  if (tarball === undefined) throw new Error("npm pack made no file")
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "elsewhere", private: true, type: "module" }))
  run("npm", ["install", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", `./${tarball}`], folder)

  const installed = join(folder, "node_modules", "market-data-platform")
  const pages = readdirSync(installed, { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".md") && !name.startsWith("node_modules")
  )
  for (const page of pages) {
    for (const link of linksOf(readFileSync(join(installed, page), "utf8"))) {
      if (!existsSync(join(installed, page, "..", link)))
        throw new Error(`${page} leads to ${link}: not in the package`)
    }
  }
  for (const name of ["LICENSE", SBOM, LICENCES, "deploy/compose.yaml", "deploy/Dockerfile"]) {
    if (!existsSync(join(installed, name))) throw new Error(`${name} is not in the package`)
  }
  const read = (name: string) => readFileSync(join(installed, name), "utf8")
  const wrong = [
    ...untold(readShipped(root), read(SBOM), read(LICENCES)),
    ...strange(join(folder, "node_modules", "uWebSockets.js"))
  ]
  if (wrong.length > 0) throw new Error(`the package is not what it says:\n${wrong.join("\n")}`)

  // As a TypeScript project has it that knows neither Node nor this package's dependencies.
  writeFileSync(join(folder, "bot.ts"), BOT)
  for (const lib of ["es2022,dom", "es2024,dom,dom.iterable"]) {
    const options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "false"]
    run(
      process.execPath,
      [join(root, "node_modules/typescript/bin/tsc"), ...options, "--types", "", "--lib", lib, "bot.ts"],
      folder
    )
  }
  for (const name of readdirSync(join(installed, "dist", "client"))) {
    const text = readFileSync(join(installed, "dist", "client", name), "utf8")
    const outside = [...text.matchAll(/from "([^"]+)"|import\("([^"]+)"\)/g)].find(
      ([, a, b]) => !(a ?? b)!.startsWith("./")
    )
    if (outside !== undefined) throw new Error(`dist/client/${name} needs ${outside[0]}`)
  }

  const demo = spawn(join(folder, "node_modules", ".bin", "mdp"), ["demo"], {
    cwd: folder,
    env: { ...process.env, PORT: "0" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  const exited = new Promise<number | null>((resolve) => demo.on("exit", (code) => resolve(code)))
  const url = await new Promise<string>((resolve, reject) => {
    let text = ""
    demo.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString()
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(text)
      if (found !== null) resolve(found[0])
    })
    void exited.then((code) => reject(new Error(`mdp demo exited with ${code}: ${text}`)))
    setTimeout(() => reject(new Error(`no address within ${READY_WITHIN_MS} ms: ${text}`)), READY_WITHIN_MS).unref()
  })
  const ready = await fetch(`${url}/readyz`)
  const page = await fetch(`${url}/`)
  const api = await fetch(`${url}/api/v1/instruments/search?query=a&limit=1`)
  for (const answer of [ready, page, api]) {
    if (answer.status !== 200) throw new Error(`${answer.url} answered ${answer.status}`)
  }
  for (const name of ["liveBot.js", "bot.js"]) {
    copyFileSync(join(installed, "examples", name), join(folder, name))
  }
  const said = run(process.execPath, ["liveBot.js", "SIM:RELIANCE", "150"], folder, { MDP_URL: url })
  if (!/150 ticks/.test(said)) throw new Error(`the live bot said: ${said}`)
  demo.kill("SIGTERM")
  const code = await exited
  if (code !== 0) throw new Error(`mdp demo exited with ${code} on SIGTERM`)
  console.log(
    "package: installed elsewhere, links lead somewhere, contents and licences named, demo ready, page and REST served, client typed and run, stopped with 0"
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exit(0)
