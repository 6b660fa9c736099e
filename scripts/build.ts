/** Decides what the package holds: dist/ made anew, JavaScript and types from src, and the dashboard's files beside it. */
import { execFileSync } from "node:child_process"
import { cpSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = new URL("../", import.meta.url)
const at = (path: string) => fileURLToPath(new URL(path, root))

rmSync(at("dist"), { recursive: true, force: true })
execFileSync(process.execPath, [at("node_modules/typescript/bin/tsc"), "-p", at("tsconfig.build.json")], {
  stdio: "inherit"
})
cpSync(at("src/http/dashboard"), at("dist/http/dashboard"), { recursive: true })
