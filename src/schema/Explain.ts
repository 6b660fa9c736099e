/** Decides how a refused input is put in words: the field, what was expected, and the value that came. */
import { SchemaIssue } from "effect"

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** One refused field. `path` is empty where the whole input is wrong. */
export interface Refusal {
  readonly path: string
  readonly message: string
}

const MAX_VALUE_CHARS = 80

const valueAt = (input: unknown, path: ReadonlyArray<PropertyKey>): unknown => {
  let value = input
  for (const key of path) {
    if (typeof value !== "object" || value === null) return undefined
    value = (value as Record<PropertyKey, unknown>)[key]
  }
  return value
}

/** A value as a person would recognise it, cut to 80 characters. */
export const showValue = (value: unknown): string => {
  if (value === undefined) return "nothing"
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value))
  return text.length > MAX_VALUE_CHARS ? `${text.slice(0, MAX_VALUE_CHARS)}…` : text
}

/** The refused fields of an input, in the order the schema met them. */
export const refusals = (issue: SchemaIssue.Issue, input: unknown): ReadonlyArray<Refusal> =>
  format(issue).issues.map((found) => {
    const keys = (found.path ?? []).map((part) => (typeof part === "object" ? part.key : part))
    const path = keys.map(String).join(".")
    const expected = found.message.charAt(0).toLowerCase() + found.message.slice(1)
    return { path, message: `${path === "" ? "input" : path}: ${expected}, got ${showValue(valueAt(input, keys))}` }
  })

/** The first refused field in one line, such as `price: expected a value greater than or equal to 0, got -1`. */
export const explain = (issue: SchemaIssue.Issue, input: unknown): Refusal =>
  refusals(issue, input)[0] ?? { path: "", message: `input: unexpected ${showValue(input)}` }
