/**
 * Decides how a refused input is put in words: the field, what was expected, and the value that came. What came is
 * somebody else's: whatever it is, showing it throws nothing, costs no more than what is shown, and is fit for a terminal.
 */
import { SchemaIssue } from "effect"

const format = SchemaIssue.makeFormatterStandardSchemaV1()

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

/** A foreign text in one line: cut to `max` characters, and without characters that a terminal would obey. */
export const showText = (text: string, max = MAX_VALUE_CHARS): string => {
  // A longer one is never looked at whole.
  const shown = text.slice(0, max + 1).replace(UNPRINTABLE, escaped)
  if (shown.length <= max) return shown
  const isHalf = /[\ud800-\udbff]/.test(shown.charAt(max - 1))
  return `${shown.slice(0, isHalf ? max - 1 : max)}…`
}

/** JSON of a value, begun: no further than the first characters, and no deeper than `MAX_VALUE_DEPTH`. */
const beginning = (value: unknown): string => {
  let text = ""
  const quote = (string: string) => JSON.stringify(string.slice(0, MAX_VALUE_CHARS + 1))
  const put = (part: unknown, depth: number): void => {
    if (typeof part === "string") text += quote(part)
    else if (typeof part !== "object" || part === null) text += String(part)
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
export const showValue = (value: unknown): string => {
  if (value === undefined) return "nothing"
  try {
    return showText(beginning(value))
  } catch {
    // A getter or a `toString` of its own.
    return "something that cannot be shown"
  }
}

/** The refused fields of an input, in the order the schema met them. */
export const refusals = (issue: SchemaIssue.Issue, input: unknown): ReadonlyArray<Refusal> =>
  format(issue).issues.map((found) => {
    const keys = (found.path ?? []).map((part) => (typeof part === "object" ? part.key : part))
    // A key may be the input's own.
    const path = keys.map((key) => showText(String(key))).join(".")
    const expected = found.message.charAt(0).toLowerCase() + found.message.slice(1)
    return { path, message: `${path === "" ? "input" : path}: ${expected}, got ${showValue(valueAt(input, keys))}` }
  })

/** The first refused field in one line, such as `price: expected a value greater than or equal to 0, got -1`. */
export const explain = (issue: SchemaIssue.Issue, input: unknown): Refusal =>
  refusals(issue, input)[0] ?? { path: "", message: `input: unexpected ${showValue(input)}` }
