/**
 * Decides whether the library under HTTP and WebSocket is the one that was looked at: every file of its package, by the
 * SHA-256 in uws-pack.sha256, whose form `sha256sum -c` reads. What was looked at, and how: docs/decisions/0031.
 */
import { createHash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const LIST = new URL("./uws-pack.sha256", import.meta.url)

/** SHA-256 in hex, by the file's path in the package. */
export const looked = (): ReadonlyMap<string, string> =>
  new Map(
    readFileSync(LIST, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => [line.slice(66), line.slice(0, 64)])
  )

/** What in the package's folder is not as it was looked at, a line each. */
export const strange = (folder: string, files = looked()): ReadonlyArray<string> => {
  const there = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length).replaceAll("\\", "/").replace(/^\/+/, ""))
    .sort()
  const missing = [...files.keys()].filter((name) => !there.includes(name))
  return [
    ...missing.map((name) => `${name}: is not there`),
    ...there.flatMap((name) => {
      const expected = files.get(name)
      if (expected === undefined) return [`${name}: is not known`]
      const found = createHash("sha256")
        .update(readFileSync(join(folder, name)))
        .digest("hex")
      return found === expected ? [] : [`${name}: SHA-256 expected ${expected}, got ${found}`]
    })
  ]
}
