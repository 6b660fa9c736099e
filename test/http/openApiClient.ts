/** Decides how a client that knows nothing but the API's description builds its requests. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { type Asked, ask } from "./serving.ts"

export interface JsonSchema {
  readonly type?: string
  readonly format?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly items?: JsonSchema
  readonly minItems?: number
  readonly maxItems?: number
  readonly oneOf?: ReadonlyArray<JsonSchema>
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly description?: string
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: ReadonlyArray<string>
  readonly examples?: ReadonlyArray<unknown>
  readonly $ref?: string
}

export interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly schema: JsonSchema
  readonly description?: string
  readonly example?: unknown
}

export interface Operation {
  readonly path: string
  readonly method: string
  readonly operationId: string
  readonly summary?: string
  readonly parameters?: ReadonlyArray<Parameter>
  readonly requestBody?: {
    readonly content: Record<string, { readonly schema: JsonSchema; readonly example?: unknown }>
  }
  readonly responses: Readonly<Record<string, unknown>>
  /** By scheme, the scopes that are asked for; empty: open to everybody. */
  readonly security: ReadonlyArray<Readonly<Record<string, ReadonlyArray<string>>>>
}

export interface Spec {
  readonly servers: ReadonlyArray<{ readonly url: string }>
  readonly paths: Readonly<Record<string, Readonly<Record<string, Omit<Operation, "path" | "method">>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly securitySchemes: Readonly<Record<string, { readonly type: string; readonly scheme: string }>>
  }
}

export const described = (port: number, headers: Readonly<Record<string, string>> = {}): Effect.Effect<Spec> =>
  Effect.map(ask(port, "/openapi.json", { headers }), (answer) => {
    assert.strictEqual(answer.status, 200)
    return answer.json as Spec
  })

/** What goes before each path. */
export const baseOf = (spec: Spec): string => spec.servers[0]!.url.replace(/\/$/, "")

const textOf = (value: unknown): string => (Array.isArray(value) ? value.join(",") : String(value)).toWellFormed()

/** A request of these values; a path parameter that is none of them is left as it is. */
export const requestWith = (
  operation: Operation,
  values: ReadonlyArray<readonly [parameter: Parameter, value: unknown]>,
  body?: { readonly type: string; readonly content: string | Uint8Array }
): Asked & { readonly path: string } => {
  let { path } = operation
  const query: Array<string> = []
  for (const [{ name, in: where }, value] of values) {
    const text = encodeURIComponent(textOf(value))
    if (where === "path") path = path.replace(`{${name}}`, text)
    else query.push(`${encodeURIComponent(name)}=${text}`)
  }
  return {
    path: query.length === 0 ? path : `${path}?${query.join("&")}`,
    method: operation.method.toUpperCase(),
    ...(body === undefined ? {} : { headers: { "content-type": body.type }, body: body.content })
  }
}

/** Of the ways to name instruments a request has one. */
const EXCLUSIVE = new Set(["symbol", "symbols", "tokens", "all"])

/** The request that the examples of an operation make. */
export const requestOf = (operation: Operation): Asked & { readonly path: string } => {
  const parameters = operation.parameters ?? []
  const byToken = parameters.some(({ name }) => name === "instrument_token")
  const values = parameters
    .filter(({ example, name }) => example !== undefined && !(byToken && EXCLUSIVE.has(name)))
    .map((parameter): [Parameter, unknown] => [parameter, parameter.example])
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? []
  if (type === undefined) return requestWith(operation, values)
  const { example } = content!
  return requestWith(operation, values, {
    type,
    content: typeof example === "string" ? example : JSON.stringify(example)
  })
}
