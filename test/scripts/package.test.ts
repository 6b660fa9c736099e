import { existsSync, readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { linksOf } from "../../scripts/links.ts"
import { withoutEngines } from "../../scripts/lock.ts"

const root = new URL("../../", import.meta.url)
const read = (name: string) => readFileSync(new URL(name, root), "utf8")
const { files, license } = JSON.parse(read("package.json")) as {
  readonly files: ReadonlyArray<string>
  readonly license: string
}

/** Every page that goes into the package. */
const pages = files.flatMap((name) =>
  name.endsWith(".md")
    ? [name]
    : name === "docs"
      ? readdirSync(new URL("docs/", root), { recursive: true, encoding: "utf8" })
          .filter((page) => page.endsWith(".md"))
          .map((page) => `docs/${page}`)
      : []
)

describe("the package", () => {
  it("has what its pages lead to", () => {
    assert.includeMembers(pages, ["README.md", "topology.md", "CONTRIBUTING.md"])
    for (const page of pages) {
      for (const link of linksOf(read(page))) {
        const target = new URL(link, new URL(page, root))
        const path = target.pathname.slice(root.pathname.length)
        assert.isTrue(existsSync(target), `${page} leads to ${link}`)
        assert.include(files, path.split("/")[0], `${page} leads to ${link}, which is not in the package`)
      }
    }
  })

  it("comes with its licence, and with what deploys it", () => {
    assert.strictEqual(license, "Apache-2.0")
    assert.include(read("LICENSE"), "Version 2.0, January 2004")
    assert.includeMembers([...files], ["LICENSE", "deploy"])
  })

  it("runs nothing where it is installed", () => {
    const { scripts } = JSON.parse(read("package.json")) as { readonly scripts: Readonly<Record<string, string>> }
    for (const name of ["preinstall", "install", "postinstall", "prepare"]) assert.notProperty(scripts, name)
  })

  it("is installed on an older Node without a word about engines, since it brings its own", () => {
    const lock = read("package-lock.json")
    assert.strictEqual(lock, withoutEngines(lock), "run: npm run lock")
  })
})
