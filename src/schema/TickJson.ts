/** Decides how a normalized tick is written as JSON: the contract's fields in the contract's order, one record a tick. */
import { jsonName } from "./quotedOnce.ts"
import { MAX_PRICE } from "./RawValues.ts"
import type { Tick } from "./Tick.ts"
import { MAX_NAME_CHARS, MAX_SESSION, readTickBytes } from "./TickJsonBytes.ts"
import { composed, type FieldTable, type TickField, tickFields } from "./tickFields.ts"

/** The template of a value. */
const written = (field: TickField, value: string): string => {
  if (field.kind === "source")
    return `[${Object.values(field.parts).map((part, i) => written(part, `${value}[${i}]`))}]`
  if (field.kind === "name") return `\${jsonName(${value})}`
  return field.kind === "word" ? `"\${${value}}"` : `\${${value}}`
}

/** What writes a tick of such fields; the first of them is never absent. */
export const encoderOf = (fields: FieldTable): ((tick: Tick) => string) => {
  const members = Object.entries(fields).map(([name, field], i) => {
    const member = `${i === 0 ? "" : ","}"${name}":${written(field, `t.${name}`)}`
    return field.absent === undefined ? member : `\${t.${name} === ${field.absent} ? "" : \`${member}\`}`
  })
  return composed(`(t) => \`{${members.join("")}}\``, { jsonName })
}

/** One tick as JSON text. */
export const encodeTick = encoderOf(tickFields)

/** A name as it may go on into tables, rings and frames: of a bounded length, and without what PostgreSQL refuses. */
const isName = (text: unknown): text is string =>
  typeof text === "string" && text.length <= MAX_NAME_CHARS && !text.includes("\0")

/** A whole number of 32 bits. Only of a number may the bits be asked: what is nested deep has none, and throws. */
const isInt = (value: unknown): value is number => typeof value === "number" && (value | 0) === value

/** The condition of a value. What is not of its type, or out of the range of its column, would stop each sink for good. */
const conditionOf = (field: TickField, value: string): string => {
  switch (field.kind) {
    case "token":
    case "index":
      return `isInt(${value})`
    case "small":
      return `isInt(${value}) && ${value} >= 0 && ${value} <= ${MAX_SESSION}`
    case "price":
      return `typeof ${value} === "number" && ${value} >= ${-MAX_PRICE} && ${value} <= ${MAX_PRICE}`
    case "micros": {
      const [first, last] = field.within ?? [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]
      return `Number.isInteger(${value}) && ${value} >= ${first} && ${value} <= ${last}`
    }
    case "whole":
    case "quantity": {
      const isThere = `Number.isSafeInteger(${value})`
      if (field.absent === undefined) return isThere
      return `(${value} === undefined || ${value} === ${field.absent} || ${isThere})`
    }
    case "word":
      return `(${field.words.map((word) => `${value} === "${word}"`).join(" || ")})`
    case "name":
      return `isName(${value})`
    case "flag":
      return "true"
    case "source": {
      const parts = Object.values(field.parts).map((part, i) => conditionOf(part, `${value}[${i}]`))
      return [`Array.isArray(${value})`, ...parts].join(" && ")
    }
  }
}

/** The expression of what it is in a tick then. Whatever else an array holds is not kept. */
const readValue = (field: TickField, value: string): string => {
  if (field.kind === "flag") return `${value} === true`
  if (field.kind === "source") return `[${Object.values(field.parts).map((_, i) => `${value}[${i}]`)}]`
  return field.absent === undefined ? value : `${value} ?? ${field.absent}`
}

/** What reads a tick of such fields from JSON, however that is written. */
export const parserOf = (fields: FieldTable): ((bytes: Uint8Array) => Tick | undefined) => {
  const entries = Object.entries(fields)
  const conditions = entries.map(([name, field]) => conditionOf(field, `t.${name}`))
  const members = entries.map(([name, field]) => `${name}: ${readValue(field, `t.${name}`)}`)
  const tickOf = composed<(wire: object) => Tick | undefined>(
    `(t) => ${conditions.join(" && ")} ? { ${members.join(", ")} } : undefined`,
    { isInt, isName }
  )
  return (bytes) => {
    const buffer = bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let wire: unknown
    try {
      wire = JSON.parse(buffer.toString("utf8"))
    } catch {
      return undefined
    }
    return typeof wire !== "object" || wire === null ? undefined : tickOf(wire)
  }
}

const parseTick = parserOf(tickFields)

/** The tick of a `normalized_ticks` record, which any producer may have written; `undefined` where it is none. */
export const decodeTick = (bytes: Uint8Array): Tick | undefined => readTickBytes(bytes) ?? parseTick(bytes)
