import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { settingsTable } from "../src/schema/Settings.ts"

const root = join(import.meta.dirname, "..")
const read = (file: string) => readFileSync(join(root, file), "utf8")
const page = read("docs/security.md")

/** The tests that a cell names: each file with what it says of them. */
const named = [...page.matchAll(/`(test\/[\w./-]+\.test\.ts)`((?:,? "[^"]+")+)/g)].flatMap(([, file, names]) =>
  [...names!.matchAll(/"([^"]+)"/g)].map(([, name]) => ({ file: file!, name: name! }))
)

describe("the page on security", () => {
  it("names tests that there are", () => {
    assert.isAbove(named.length, 40)
    for (const { file, name } of named) {
      assert.isTrue(read(file).includes(name), `${file} has no test "${name}"`)
    }
  })

  it("names settings that there are", () => {
    const known = new Set(settingsTable.map(({ name }) => name))
    const settings = [...page.matchAll(/`([A-Z][A-Z_]{3,})`/g)].map(([, name]) => name!)
    assert.isAbove(settings.length, 10)
    for (const setting of settings) assert.isTrue(known.has(setting), setting)
  })
})
