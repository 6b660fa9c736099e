/**
 * Decides how a refused input is put in words: the field, what was expected, and the value that came. What came is
 * somebody else's: whatever it is, showing it throws nothing, costs no more than what is shown, and is fit for a terminal.
 */
import { type SchemaAST, SchemaIssue } from "effect"
import { hideKeys } from "./keyText.ts"
import { unknownName } from "./Nearest.ts"

/** One refused field. `path` is empty where the whole input is wrong. */
export interface Refusal {
  readonly path: string
  readonly message: string
}

const MAX_VALUE_CHARS = 80
/** Arrays and objects within a value that lie deeper are shown as `[…]` and `{…}`. */
const MAX_VALUE_DEPTH = 4

const valueAt = (input: unknown, path: ReadonlyArray<PropertyKey>): unknown => {
  let value = input
  for (const key of path) {
    if (typeof value !== "object" || value === null) return undefined
    value = (value as Record<PropertyKey, unknown>)[key]
  }
  return value
}

/** What moves a cursor, ends a line or turns the reading direction; the C0 controls are JSON's to escape in strings. */
const UNPRINTABLE = /[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu
const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`

/** A foreign text in one line: cut to `max` characters, without characters that a terminal would obey, and no API key. */
export const showText = (text: string, max = MAX_VALUE_CHARS): string => {
  // A longer one is never looked at whole.
  const shown = hideKeys(text.slice(0, max + 1)).replace(UNPRINTABLE, escaped)
  if (shown.length <= max) return shown
  const isHalf = /[\ud800-\udbff]/.test(shown.charAt(max - 1))
  return `${shown.slice(0, isHalf ? max - 1 : max)}…`
}

/** What came where a text was expected: an empty one is nothing. */
export const showGiven = (text: string | null | undefined): string =>
  text === undefined || text === null || text === "" ? "nothing" : showText(text)

/** What takes out of a text what is not to be shown, before it is cut: a part of a secret is one too. */
export type Conceal = (text: string) => string
export const concealNothing: Conceal = (text) => text

/** JSON of a value, begun: no further than the first characters, and no deeper than `MAX_VALUE_DEPTH`. */
const beginning = (value: unknown, conceal: Conceal): string => {
  let text = ""
  const quote = (string: string) => JSON.stringify(conceal(string).slice(0, MAX_VALUE_CHARS + 1))
  const put = (part: unknown, depth: number): void => {
    if (typeof part === "string") text += quote(part)
    else if (typeof part !== "object" || part === null) text += conceal(String(part))
    else if (Array.isArray(part)) {
      if (depth >= MAX_VALUE_DEPTH && part.length > 0) {
        text += "[…]"
        return
      }
      text += "["
      for (let i = 0; i < part.length && text.length <= MAX_VALUE_CHARS; i++) {
        if (i > 0) text += ","
        put(part[i] ?? null, depth + 1)
      }
      text += "]"
    } else {
      let isFirst = true
      text += "{"
      for (const key in part) {
        if (!Object.hasOwn(part, key)) continue
        const held = (part as Record<string, unknown>)[key]
        if (held === undefined) continue
        if (depth >= MAX_VALUE_DEPTH) {
          text += "…"
          break
        }
        if (text.length > MAX_VALUE_CHARS) break
        text += `${isFirst ? "" : ","}${quote(key)}:`
        isFirst = false
        put(held, depth + 1)
      }
      text += "}"
    }
  }
  put(value, 0)
  return text
}

/** A value as a person would recognise it, cut to 80 characters. Throws for no value. */
export const showValue = (value: unknown, conceal = concealNothing): string => {
  if (value === undefined) return "nothing"
  try {
    return showText(beginning(value, conceal))
  } catch {
    // A getter or a `toString` of its own.
    return "something that cannot be shown"
  }
}

type Path = ReadonlyArray<PropertyKey>

/** What a schema node or check says of itself, by annotation. */
interface Said {
  readonly expected?: unknown
  readonly hint?: unknown
}

const WORDS: Readonly<Record<string, string>> = {
  String: "text",
  Number: "a number",
  Boolean: "true or false",
  Null: "null",
  Arrays: "a list",
  Objects: "an object"
}
/** Choices named one by one; of more only the first. */
const MAX_CHOICES = 12

/** What a check of the library says, in words for whoever sent the value. */
const inWords = (text: string, isText: boolean): string =>
  text
    .replace(/^a value with a length (?=between|of)/, `${isText ? "text" : "a list"} with a length `)
    .replace(/^a value (?=between|greater|less)/, "a number ")
    .replace(/^an integer$/, "a whole number")

/** What the last of a schema's checks says that it wants. */
const checkedWords = (ast: SchemaAST.AST): string | undefined => {
  const words = (ast.checks ?? [])
    .map((check) => check.annotations?.expected)
    .filter((said) => typeof said === "string")
  const last = words[words.length - 1]
  return last === undefined ? undefined : inWords(last, ast._tag === "String")
}

/** What a schema expects, in plain words: an annotation `expected` of its own, else by its kind. Never its name. */
export const expectedOf = (ast: SchemaAST.AST): string => {
  // What is written is what a client sends, not what it becomes.
  const wire = ast.encoding === undefined ? ast : ast.encoding[ast.encoding.length - 1]!.to
  const said = ast.annotations?.expected ?? wire.annotations?.expected
  if (typeof said === "string") return said
  if (wire._tag === "Literal") return JSON.stringify(wire.literal)
  if (wire._tag === "Union") {
    const choices = [...new Set(wire.types.map(expectedOf))]
    const shown = choices.slice(0, MAX_CHOICES)
    return choices.length > MAX_CHOICES ? `one of ${shown.join(", ")}, …` : shown.join(" or ")
  }
  return checkedWords(wire) ?? WORDS[wire._tag] ?? "something else"
}

/** The names that an object of this schema has. */
const namesOf = (ast: SchemaAST.AST): ReadonlyArray<string> =>
  ast._tag === "Objects" ? ast.propertySignatures.map(({ name }) => String(name)) : []

interface Found {
  readonly path: Path
  /** Without the value; a sentence of its own where `isWhole`. */
  readonly text: string
  readonly isWhole?: boolean
  readonly hint?: (value: unknown) => string
}

/** More about a value that is refused, such as which unit it seems to be in. */
const hintOf = (said: unknown): Pick<Found, "hint"> => {
  const hint = (said as Said | undefined)?.hint
  return typeof hint === "function" ? { hint: hint as (value: unknown) => string } : {}
}

const lower = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)

/** The leaves of an issue, each with the path to it. `missing` is what the schema around expects of a key. */
const leaves = (issue: SchemaIssue.Issue, path: Path, around?: SchemaAST.AST): ReadonlyArray<Found> => {
  switch (issue._tag) {
    case "Encoding":
      return leaves(issue.issue, path, around).map((found) =>
        found.hint === undefined ? { ...found, ...hintOf(issue.ast.annotations) } : found
      )
    case "Pointer":
      return leaves(issue.issue, [...path, ...issue.path], around)
    case "Composite":
      return issue.issues.flatMap((inner) => leaves(inner, path, issue.ast))
    case "AnyOf":
      // Where one member came near, what that one says is more.
      return issue.issues.length !== 1
        ? [{ path, text: `expected ${expectedOf(issue.ast)}`, ...hintOf(issue.ast.annotations) }]
        : leaves(issue.issues[0]!, path, around).map((found) =>
            found.hint === undefined ? { ...found, ...hintOf(issue.ast.annotations) } : found
          )
    case "Filter": {
      const [found] = format(issue).issues
      return [{ path, text: lower(found?.message ?? "expected another value"), ...hintOf(issue.filter.annotations) }]
    }
    case "MissingKey": {
      const key = path[path.length - 1]
      const property =
        around?._tag === "Objects" ? around.propertySignatures.find(({ name }) => name === key)?.type : undefined
      return [{ path, text: `expected ${property === undefined ? "a value" : expectedOf(property)}` }]
    }
    case "UnexpectedKey": {
      const text = unknownName("key", String(path[path.length - 1]), namesOf(issue.ast))
      return [{ path, text, isWhole: true }]
    }
    case "InvalidType":
      return [{ path, text: `expected ${expectedOf(issue.ast)}`, ...hintOf(issue.ast.annotations) }]
    default: {
      const [found] = format(issue).issues
      return [{ path, text: lower(found?.message ?? "expected another value") }]
    }
  }
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** The refused fields of an input, in the order the schema met them. */
export const refusals = (issue: SchemaIssue.Issue, input: unknown): ReadonlyArray<Refusal> =>
  leaves(issue, []).map(({ path: keys, text, isWhole, hint }) => {
    // A key may be the input's own.
    const path = keys.map((key) => showText(String(key))).join(".")
    if (isWhole === true) return { path, message: text }
    const value = valueAt(input, keys)
    const more = hint === undefined ? "" : hint(value)
    return { path, message: `${path === "" ? "input" : path}: ${text}, got ${showValue(value)}${more}` }
  })

/** The first refused field in one line, such as `price: expected a value greater than or equal to 0, got -1`. */
export const explain = (issue: SchemaIssue.Issue, input: unknown): Refusal =>
  refusals(issue, input)[0] ?? { path: "", message: `input: unexpected ${showValue(input)}` }
