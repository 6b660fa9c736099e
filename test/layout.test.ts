import { readdirSync, readFileSync, statSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..")
const src = join(root, "src")

const files = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    return statSync(path).isDirectory() ? files(path) : path.endsWith(".ts") ? [path] : []
  })

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s[^"';]*?from\s+"([^"]+)"|(?:^|\n)\s*import\s+"([^"]+)"|import\("([^"]+)"\)/g

/** What each file imports: a path under src, or a package. */
const imports = (file: string): ReadonlyArray<string> =>
  [...readFileSync(file, "utf8").matchAll(IMPORT)].map((match) => {
    const target = (match[1] ?? match[2] ?? match[3])!
    return target.startsWith(".") ? relative(src, resolve(dirname(file), target)) : target
  })

/** Folders of src from the inside out: each may import itself and those before it. */
const order = ["schema", "streams", "layers", "http", "commands"]
const folderOf = (path: string): string => (path.includes("/") ? path.slice(0, path.indexOf("/")) : "main")
const isPackage = (target: string) => !target.endsWith(".ts")

const all = files(src).map((file) => ({ file: relative(src, file), imports: imports(file) }))

/** Without `import type`: two files may name each other's types, but not need each other to load. */
const loads = (file: string): ReadonlyArray<string> => {
  const types = new Set(
    [...readFileSync(join(src, file), "utf8").matchAll(/import type [^"']*?from\s+"([^"]+)"/g)].map((m) => m[1])
  )
  return [...readFileSync(join(src, file), "utf8").matchAll(IMPORT)]
    .map((m) => (m[1] ?? m[2] ?? m[3])!)
    .filter((target) => target.startsWith(".") && !types.has(target))
    .map((target) => relative(src, resolve(dirname(join(src, file)), target)))
}

describe("the layout", () => {
  it("has files in every folder, and reads their imports", () => {
    for (const folder of order)
      assert.isNotEmpty(
        all.filter(({ file }) => folderOf(file) === folder),
        folder
      )
    assert.isAbove(all.flatMap((f) => f.imports).length, 200)
  })

  it("imports one way: schema <- streams <- layers <- http <- commands <- main", () => {
    const wrong = all.flatMap(({ file, imports: targets }) => {
      const rank = [...order, "main"].indexOf(folderOf(file))
      return targets
        .filter((target) => !isPackage(target) && [...order, "main"].indexOf(folderOf(target)) > rank)
        .map((target) => `${file} imports ${target}`)
    })
    assert.deepStrictEqual(wrong, [])
  })

  it("lets schema and streams know only effect, and nothing of the platform they run on", () => {
    const wrong = all
      .filter(({ file }) => ["schema", "streams"].includes(folderOf(file)))
      .flatMap(({ file, imports: targets }) =>
        targets
          .filter((target) => isPackage(target) && target !== "effect")
          .map((target) => `${file} imports ${target}`)
      )
    assert.deepStrictEqual(wrong, [])
  })

  it("keeps drivers to layers, and the web server and effect/http to http", () => {
    const drivers = /^(pg|pg-.*|@electric-sql\/.*|hyparquet.*|ioredis|kafkajs|@platformatic\/.*|@aws-sdk\/.*)$/
    const web = /^(uWebSockets\.js|effect\/http.*)$/
    const wrong = all.flatMap(({ file, imports: targets }) =>
      targets
        .filter(
          (target) =>
            (drivers.test(target) && folderOf(file) !== "layers") || (web.test(target) && folderOf(file) !== "http")
        )
        .map((target) => `${file} imports ${target}`)
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("opens every file with a sentence on what it decides", () => {
    const silent = all
      .map(({ file }) => file)
      .filter((file) => !/^(#!.*\n)?\/\*\*\s*(\*\s*)?Decides /.test(readFileSync(join(src, file), "utf8")))
    assert.deepStrictEqual(silent, [])
  })

  it("has no cycle between files", () => {
    const graph = new Map(all.map(({ file }) => [file, loads(file)]))
    const done = new Set<string>()
    const visit = (file: string, path: ReadonlyArray<string>): ReadonlyArray<string> | undefined => {
      if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
      if (done.has(file)) return undefined
      for (const target of graph.get(file) ?? []) {
        const cycle = visit(target, [...path, file])
        if (cycle !== undefined) return cycle
      }
      done.add(file)
      return undefined
    }
    for (const file of graph.keys()) assert.isUndefined(visit(file, [])?.join(" -> "))
  })
})
