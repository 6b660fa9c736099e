import { readdirSync, readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"

const folder = new URL("../../src/http/dashboard/", import.meta.url)
const files = readdirSync(folder)
const read = (file: string) => readFileSync(new URL(file, folder), "utf8")
const scripts = files.filter((file) => file.endsWith(".js"))

describe("the dashboard's page", () => {
  it("loads nothing but its own files, all of which are there", () => {
    const page = read("index.html")
    const references = [...page.matchAll(/(?:src|href)="([^"]*)"/g)].map((m) => m[1]!)
    assert.includeMembers(references, ["dashboard.js", "dashboard.css"])
    for (const reference of references) assert.include(files, reference)
    for (const file of scripts) {
      for (const [, module] of read(file).matchAll(/from "\.\/([^"]+)"/g)) assert.include(files, module!)
    }
    for (const [, url] of read("dashboard.css").matchAll(/url\("?([^")]+)"?\)/g)) assert.include(files, url!)
    for (const file of files.filter((name) => name !== "icon.svg")) {
      const outside = [...read(file).matchAll(/https?:\/\/[^\s"'`]+/g)].map((m) => m[0])
      assert.deepStrictEqual(
        outside.filter((url) => url !== "http://www.w3.org/2000/svg"),
        [],
        file
      )
    }
  })

  it("has nothing inline that its content security policy would refuse", () => {
    const page = read("index.html")
    assert.notMatch(page, /<script(?![^>]*\bsrc=)/)
    assert.notMatch(page, /<style/)
    assert.notMatch(page, /\sstyle="/)
    assert.notMatch(page, /\son[a-z]+="/)
  })

  it("never makes markup of data", () => {
    for (const file of scripts) {
      assert.notMatch(
        read(file),
        /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|setAttribute\("style"/,
        file
      )
    }
  })

  it("names only elements that are on the page", () => {
    const page = read("index.html")
    for (const [, id] of read("dashboard.js").matchAll(/\$\("([^"]+)"\)/g)) assert.include(page, `id="${id}"`)
  })
})
