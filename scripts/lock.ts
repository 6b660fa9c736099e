/**
 * Decides what package-lock.json says of Node: nothing. The project brings the Node it runs on, so that what its
 * dependencies ask of Node says nothing about the one that installs them; npm would warn of each on an older one.
 */
import { readFileSync, writeFileSync } from "node:fs"

interface Lock {
  readonly packages: Readonly<Record<string, { engines?: unknown }>>
}

/** The text of a lock file without what packages other than this one ask of Node. */
export const withoutEngines = (text: string): string => {
  const lock = JSON.parse(text) as Lock
  for (const [path, entry] of Object.entries(lock.packages)) if (path !== "") delete entry.engines
  return `${JSON.stringify(lock, null, 2)}\n`
}

if (import.meta.main) {
  const path = new URL("../package-lock.json", import.meta.url)
  writeFileSync(path, withoutEngines(readFileSync(path, "utf8")))
}
