import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("../../../", import.meta.url))
const src = join(root, "src")

/** Where a name is given to whatever names it under `degraded`: to it itself, to what asks again, and as a sink's. */
const NAMED = /(?:degrade|retrySink|supervise)\(\s*"([^"]+)"|\bsink: "([^"]+)"|= "(tls: [^"]+)"/g

/** Those that are put together: not to be read off the sources. */
const COMPOSED = ["not yet valid", "expires soon", "expired"].map((age) => `tls: certificate ${age}`)

describe("what /readyz names under `degraded`", () => {
  it("is listed in the README, whichever part says it", () => {
    const names = readdirSync(src, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .flatMap((path) => [...readFileSync(join(src, path), "utf8").matchAll(NAMED)])
      .map(([, ...found]) => found.find((name) => name !== undefined)!)
    assert.includeMembers(names, ["store", "ring", "archive", "candles", "history", "log", "keys", "redis", "observe"])
    const readme = readFileSync(join(root, "README.md"), "utf8")
    const table = readme.slice(
      readme.indexOf("| `degraded` names"),
      readme.indexOf("The number of partitions is fixed")
    )
    for (const name of [...names, ...COMPOSED]) assert.include(table, `\`${name}\``)
  })
})
