/**
 * Decides what the package holds: dist/ made anew, JavaScript and types from src, and the dashboard's files beside it;
 * the bill of materials and the licences of what it needs.
 */
import { execFileSync } from "node:child_process"
import { cpSync, rmSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { strange } from "./supply/binaries.ts"
import { LICENCES, licencesOf } from "./supply/licences.ts"
import { SBOM, sbomOf } from "./supply/sbom.ts"
import { readShipped } from "./supply/shipped.ts"

const root = new URL("../", import.meta.url)
const at = (path: string) => fileURLToPath(new URL(path, root))

rmSync(at("dist"), { recursive: true, force: true })
execFileSync(process.execPath, [at("node_modules/typescript/bin/tsc"), "-p", at("tsconfig.build.json")], {
  stdio: "inherit"
})
cpSync(at("src/http/dashboard"), at("dist/http/dashboard"), { recursive: true })

const project = readShipped(at("."))
const changed = strange(at("node_modules/uWebSockets.js"))
if (changed.length > 0) throw new Error(`node_modules/uWebSockets.js is not what was looked at:\n${changed.join("\n")}`)
writeFileSync(at(SBOM), sbomOf(project))
writeFileSync(at(LICENCES), licencesOf(project, at(".")))
