import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { basename, dirname, join, relative, resolve } from "node:path"
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

/** What each room of streams may import of the others, and what the files outside of rooms may; no room: any file may. */
const rooms: Readonly<Record<string, ReadonlyArray<string>>> = {
  "metrics.ts": [],
  log: ["metrics.ts"],
  ports: ["metrics.ts", "log"],
  run: ["metrics.ts", "log", "ports"],
  process: ["metrics.ts", "log", "ports", "run"],
  sinks: ["metrics.ts", "log", "ports", "run"],
  replay: ["metrics.ts", "log", "ports", "run"],
  fanOut: ["metrics.ts", "log", "ports", "run", "replay"],
  "deadLetters.ts": ["log"],
  "publishFigures.ts": ["ports", "run"],
  "Overview.ts": ["metrics.ts", "log", "ports", "run", "topology.ts"],
  "topology.ts": ["log", "ports", "run", "process", "sinks", "replay", "fanOut"],
  "topologyText.ts": ["topology.ts"]
}

/** The only room of layers that knows a system's driver. */
const driversOf: Readonly<Record<string, RegExp>> = {
  kafka: /^(kafkajs|@platformatic\/.*)/,
  redis: /^ioredis/,
  postgres: /^(pg|pg-.*|@electric-sql\/.*)$/,
  archive: /^(hyparquet.*|@uwdata\/.*|@aws-sdk\/.*)/,
  kite: /^ws$/
}

/** The room of a file, of a folder of rooms. */
const roomOf = (path: string): string => path.split("/")[1] ?? ""
const isPackage = (target: string) => !target.endsWith(".ts")

const all = files(src).map((file) => ({ file: relative(src, file), imports: imports(file) }))

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

  it("has a client that imports nothing, which nothing imports: it runs where the platform does not", () => {
    const ofClient = all.filter(({ file }) => folderOf(file) === "client")
    assert.isNotEmpty(ofClient)
    const wrong = all.flatMap(({ file, imports: targets }) =>
      targets
        .filter((target) => (folderOf(file) === "client") !== (!isPackage(target) && folderOf(target) === "client"))
        .map((target) => `${file} imports ${target}`)
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("imports one way between the rooms of streams", () => {
    const wrong = all
      .filter(({ file }) => folderOf(file) === "streams")
      .flatMap(({ file, imports: targets }) => {
        const allowed = rooms[roomOf(file)]
        if (allowed === undefined) return [`${file} is in no room of streams: ${Object.keys(rooms).join(", ")}`]
        return targets
          .filter((target) => folderOf(target) === "streams" && roomOf(target) !== roomOf(file))
          .filter((target) => !isPackage(target) && !allowed.includes(roomOf(target)))
          .map((target) => `${file} imports ${target}`)
      })
    assert.deepStrictEqual(wrong, [])
  })

  it("keeps each system of layers to its own room, which knows no other", () => {
    const wrong = all
      .filter(({ file }) => folderOf(file) === "layers")
      .flatMap(({ file, imports: targets }) => {
        if (file.split("/").length !== 3) return [`${file} is in no room of layers`]
        const others = targets.filter(
          (target) => !isPackage(target) && folderOf(target) === "layers" && roomOf(target) !== roomOf(file)
        )
        const foreign = targets.filter((target) =>
          Object.entries(driversOf).some(([room, drivers]) => drivers.test(target) && room !== roomOf(file))
        )
        return [...others, ...foreign].map((target) => `${file} imports ${target}`)
      })
    assert.deepStrictEqual(wrong, [])
  })

  it("has the tests of each file in the room of its name", () => {
    const misplaced = ["streams", "layers"].flatMap((folder) =>
      files(join(root, "test", folder))
        .map((file) => relative(join(root, "test"), file))
        .filter((file) => file.endsWith(".test.ts"))
        .filter((file) => file.split("/").length === 3 && !Object.keys(rooms).includes(roomOf(file)))
        .filter((file) => !all.some((known) => known.file.startsWith(`${folder}/${roomOf(file)}/`)))
    )
    assert.deepStrictEqual(misplaced, [])
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
    const drivers =
      /^(pg|pg-.*|@electric-sql\/.*|hyparquet.*|@uwdata\/.*|ioredis|kafkajs|@platformatic\/.*|@aws-sdk\/.*)$/
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

  it("loads the web server in one place, which says before how long a head may be", () => {
    const loading = all
      .map(({ file }) => file)
      .filter((file) =>
        /^(?:import (?!type )|export ).*from "uWebSockets\.js"/m.test(readFileSync(join(src, file), "utf8"))
      )
    assert.deepStrictEqual(loading, ["http/uws.ts"])
    const first = all.find(({ file }) => file === "http/uws.ts")!.imports[0]
    assert.strictEqual(first, "http/headLimit.ts")
  })

  it("opens every file with a sentence on what it decides", () => {
    const silent = all
      .map(({ file }) => file)
      .filter((file) => !/^(#!.*\n)?\/\*\*\s*(\*\s*)?Decides /.test(readFileSync(join(src, file), "utf8")))
    assert.deepStrictEqual(silent, [])
  })

  it("has no circle of files, types included", () => {
    const graph = new Map(all.map(({ file, imports: targets }) => [file, targets.filter((t) => !isPackage(t))]))
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

  it("names no file in its pages that is not there", () => {
    const pages = [
      "README.md",
      "CONTRIBUTING.md",
      "topology.md",
      ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
        .filter((file) => file.endsWith(".md"))
        .map((file) => join("docs", file))
    ]
    const missing = pages.flatMap((page) =>
      [
        ...readFileSync(join(root, page), "utf8").matchAll(
          // What is quoted is imported by somebody's own page, from where he keeps it.
          /(?<!"\.\/)\b(?:src|test|bench|docs|scripts|deploy|examples|streams|layers|schema|http|commands|client)\/[\w./-]+\.(?:ts|js|md|css|html|sh|yml|yaml)\b/g
        )
      ]
        .map(([path]) => path)
        .filter((path) => ![path, join("src", path)].some((known) => existsSync(join(root, known))))
        .map((path) => `${page} names ${path}`)
    )
    assert.deepStrictEqual(missing, [])
  })

  it("names no file in its comments that is not there", () => {
    const everything = ["src", "test", "bench", "scripts"].flatMap((folder) => files(join(root, folder)))
    const names = new Set(everything.map((file) => basename(file)))
    const missing = all.flatMap(({ file }) =>
      [...readFileSync(join(src, file), "utf8").matchAll(/`(?:[\w-]+\/)*([\w-]+\.ts)`/g)]
        .map(([, name]) => name!)
        .filter((name) => !names.has(name))
        .map((name) => `${file} names ${name}`)
    )
    assert.deepStrictEqual(missing, [])
  })
})
