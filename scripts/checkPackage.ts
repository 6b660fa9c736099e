/**
 * Decides whether the package works elsewhere: packed, installed in an empty folder without running a script, every link
 * of its pages leading somewhere inside it, all that it needs named with its licence, its demo ready and stopped clean.
 */
import { execFileSync, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
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
const run = (command: string, args: ReadonlyArray<string>, cwd: string) =>
  execFileSync(command, args, { cwd, stdio: ["ignore", "pipe", "inherit"], encoding: "utf8" })

try {
  run("npm", ["pack", "--silent", "--pack-destination", folder], root)
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"))
  if (tarball === undefined) throw new Error("npm pack made no file")
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "elsewhere", private: true }))
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
  demo.kill("SIGTERM")
  const code = await exited
  if (code !== 0) throw new Error(`mdp demo exited with ${code} on SIGTERM`)
  console.log(
    "package: installed elsewhere, links lead somewhere, contents and licences named, demo ready, page and REST served, stopped with 0"
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exit(0)
