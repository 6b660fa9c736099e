import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { dashboardFiles } from "../../src/http/dashboard.ts"

describe("the dashboard's files", () => {
  it("are those a page may have, the index at the root, under a policy without inline or foreign code", () => {
    const folder = mkdtempSync(join(tmpdir(), "dashboard-"))
    try {
      for (const name of ["index.html", "main.js", "style.css", "notes.txt", ".env"])
        writeFileSync(join(folder, name), name)
      const files = dashboardFiles(pathToFileURL(`${folder}/`))
      assert.deepStrictEqual(files.map(({ path, response }) => [path, response.headers["content-type"]]).toSorted(), [
        ["/", "text/html; charset=utf-8"],
        ["/main.js", "text/javascript; charset=utf-8"],
        ["/style.css", "text/css; charset=utf-8"]
      ])
      for (const { response } of files) {
        const policy = response.headers["content-security-policy"] ?? ""
        assert.include(policy, "default-src 'none'")
        assert.include(policy, "frame-ancestors 'none'")
        assert.notInclude(policy, "unsafe")
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
