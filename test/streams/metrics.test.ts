import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import * as metrics from "../../src/streams/metrics.ts"

const root = new URL("../../src/", import.meta.url)
const sources = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => readFileSync(new URL(name, root), "utf8"))

/** The names of the labels of an object in the source; undefined where it says them otherwise. */
const keysOf = (literal: string): ReadonlyArray<string> | undefined =>
  /[.[]/.test(literal.replace(/: [^,]*/g, ""))
    ? undefined
    : literal
        .split(",")
        .map((part) => part.split(":")[0]!.trim())
        .filter((key) => key !== "")

describe("the list of figures", () => {
  it("has each once, with a sentence", () => {
    const names = metrics.catalog.map(({ name }) => name)
    assert.strictEqual(new Set(names).size, names.length)
    for (const { description } of metrics.catalog) assert.match(description, /^[A-Z0-9].{10,}/)
  })

  it("has the labels that they are written with", () => {
    let looked = 0
    for (const source of sources) {
      for (const [, name, literal] of source.matchAll(/bind\(\s*metrics\.(\w+),\s*\{([^{}]*)\}/g)) {
        const keys = keysOf(literal!)
        if (keys === undefined) continue
        const metric = (metrics as unknown as Record<string, { readonly id: string }>)[name!]
        const labels = metrics.catalog.find((one) => one.name === metric?.id)?.labels
        assert.deepStrictEqual([...keys].sort(), [...(labels ?? [])].sort(), `${metric?.id} in: ${literal}`)
        looked++
      }
    }
    assert.isAbove(looked, 20)
  })
})
