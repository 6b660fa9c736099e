import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { accessBy, bearer, keysFile, makeKey } from "../support/keys.ts"
import { memoryStore, Rows, storedTick } from "./memoryStore.ts"
import {
  baseOf,
  described,
  type JsonSchema,
  type Operation,
  type Parameter,
  requestOf,
  requestWith,
  type Spec
} from "./openApiClient.ts"
import { type Asked, ask, serve } from "./serving.ts"

/** Requests in all; the form that runs with the tests is short, `npm run test:api` a long one. */
const REQUESTS = Number(process.env.GENERATED_REQUESTS ?? 600)
/** Another server on this host, such as `mdp demo`, instead of one with a store in memory. */
const PORT = process.env.GENERATED_PORT
/** The key of that server, where it asks for one. */
const KEY = process.env.GENERATED_KEY
const SEED = Number(process.env.GENERATED_SEED ?? 1)
const AT_ONCE = 8
const MAX_MESSAGE_CHARS = 1500
const MAX_GROWTH_BYTES = 256 * 1_048_576

/** Numbers that are the same for the same seed. */
const random = (seed: number) => {
  let state = seed | 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    next,
    below: (count: number): number => Math.floor(next() * count),
    pick: <A>(items: ReadonlyArray<A>): A => items[Math.floor(next() * items.length)]!
  }
}
type Random = ReturnType<typeof random>

const WILD: ReadonlyArray<unknown> = [
  "",
  " ",
  "0",
  "-1",
  "1e309",
  "NaN",
  "null",
  "9007199254740993",
  "99999999999999999999999",
  "9999-12-31",
  "2255-06-07",
  "0000-00-00",
  "1768535100",
  "1768535100000",
  "2026-01-16T09:15:00",
  "2026-01-16T09:15:00+05:30",
  "+292277026596-12-04T15:30:07Z",
  "\u0000",
  "\u001b[2J",
  "\ud800",
  "'; DROP TABLE ticks; --",
  "../../etc/passwd",
  "%",
  "é".repeat(50),
  "x".repeat(3000),
  "[".repeat(1000),
  -1,
  0,
  1.5,
  1e300,
  Number.MAX_SAFE_INTEGER,
  true,
  null,
  [],
  {},
  [[[[]]]],
  { a: { b: { c: {} } } }
]

/** A value that a schema takes, or one at its bounds. */
const valid = (schema: JsonSchema, schemas: Readonly<Record<string, JsonSchema>>, at: Random): unknown => {
  if (schema.$ref !== undefined) return valid(schemas[schema.$ref.split("/").at(-1)!] ?? {}, schemas, at)
  const choices = schema.oneOf ?? schema.anyOf
  if (choices !== undefined) return valid(at.pick(choices), schemas, at)
  if (schema.enum !== undefined) return at.pick(schema.enum)
  switch (schema.type) {
    case "integer":
    case "number": {
      const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = schema
      return at.pick([minimum, maximum, Math.floor(minimum + at.next() * (maximum - minimum)), minimum + 1])
    }
    case "boolean":
      return at.next() < 0.5
    case "array": {
      const count = at.pick([schema.minItems ?? 0, 1, 3])
      return Array.from({ length: count }, () => valid(schema.items ?? {}, schemas, at))
    }
    case "object":
      return Object.fromEntries(
        Object.entries(schema.properties ?? {})
          .filter(([name]) => schema.required?.includes(name) === true || at.next() < 0.4)
          .map(([name, one]) => [name, valid(one, schemas, at)])
      )
    default:
      if (schema.format === "date") return at.pick(["2026-01-16", "1980-01-01", "2100-01-01"])
      if (schema.format === "date-time") return at.pick(["2026-01-16T03:45:00Z", "1980-01-01T00:00:00Z"])
      return "a".repeat(Math.max(schema.minLength ?? 0, at.below(5)))
  }
}

const mutated = (value: unknown, at: Random): unknown => {
  if (at.next() < 0.7) return value
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    const copy: Record<string, unknown> = { ...value }
    const names = Object.keys(copy)
    const name = names.length === 0 || at.next() < 0.2 ? String(at.pick(WILD)) : at.pick(names)
    copy[name] = at.pick(WILD)
    return copy
  }
  return at.pick(WILD)
}

/** Lines of raw ticks, some of them whole, some not even JSON. */
const ndjson = (tick: JsonSchema, schemas: Readonly<Record<string, JsonSchema>>, at: Random): string => {
  const lines = Array.from({ length: at.below(30) }, () => {
    const roll = at.next()
    if (roll < 0.1) return String(at.pick(WILD))
    if (roll < 0.15) return "[".repeat(at.below(6000)) + "]".repeat(at.below(6000))
    return JSON.stringify(mutated(valid(tick, schemas, at), at))
  })
  return lines.join(at.pick(["\n", "\r\n", "\n\n", "\r"]))
}

const HEADER =
  "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange"

/** Lines of an instruments file, some of them torn or with fields of another column. */
const csv = (at: Random): string => {
  const lines = Array.from({ length: at.below(20) }, () => {
    const token = 1 + at.below(2_000_000)
    const fields: Array<unknown> = [token, 1, `S${token}`, "NAME", 0, "", 0, 0.05, 1, "EQ", "NSE", "NSE"]
    if (at.next() < 0.4) fields[at.below(fields.length)] = at.pick(WILD)
    if (at.next() < 0.1) fields.splice(at.below(fields.length), 1)
    return fields.map((field) => (at.next() < 0.1 ? `"${String(field)}` : String(field))).join(",")
  })
  return [...(at.next() < 0.9 ? [HEADER] : []), ...lines].join(at.pick(["\n", "\r\n"]))
}

/** What, alone or with others, makes most requests wrong ones: a cursor that nobody gave, several without a date. */
const RARE = new Set(["cursor", "symbol", "symbols", "tokens", "all", "to", "date", "as_of", "format"])
/** Ways to name instruments, of which a request has one. */
const WAYS = new Set(["instrument_token", "symbol", "symbols", "tokens", "all"])

const generate = (
  operation: Operation,
  schemas: Readonly<Record<string, JsonSchema>>,
  at: Random
): Asked & { readonly path: string } => {
  const values: Array<readonly [Parameter, unknown]> = []
  const parameters = operation.parameters ?? []
  // Of many a few: one that is wrong is enough for a refusal.
  const skipped = parameters.length > 8 ? 0.7 : 0.4
  for (const parameter of parameters) {
    if (!parameter.required && at.next() < (RARE.has(parameter.name) ? 0.95 : skipped)) continue
    const value =
      at.next() < 0.1
        ? at.pick(WILD)
        : parameter.example !== undefined && at.next() < (parameter.required ? 0.6 : 0.4)
          ? parameter.example
          : valid(parameter.schema, schemas, at)
    const text = typeof value === "string" ? value.toWellFormed() : value
    values.push([parameter, text])
  }
  const ways = values.filter(([{ name }]) => WAYS.has(name))
  const byToken = operation.parameters?.find(({ name }) => name === "instrument_token")
  if (byToken !== undefined && ways.length !== 1 && at.next() < 0.9) {
    const kept = ways.length === 0 ? ([byToken, byToken.example] as const) : at.pick(ways)
    for (const way of ways) values.splice(values.indexOf(way), 1)
    values.push(kept)
  }
  if (at.next() < 0.05) {
    const unknown = { name: String(at.pick(WILD)).toWellFormed(), in: "query", required: false, schema: {} }
    values.push([unknown, at.pick(WILD)])
  }
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? []
  if (type === undefined) return requestWith(operation, values)
  const text =
    type === "application/x-ndjson"
      ? ndjson(schemas.RawTick!, schemas, at)
      : type === "text/csv"
        ? csv(at)
        : (JSON.stringify(mutated(at.next() < 0.3 ? content!.example : valid(content!.schema, schemas, at), at)) ?? "")
  return requestWith(operation, values, { type, content: text.toWellFormed() })
}

/** What requests show besides a key that may do everything; most of them show that. */
const otherKeys = [
  makeKey("reader", { scopes: ["read"] }),
  makeKey("writer", { scopes: ["write"] }),
  makeKey("one", { instruments: ["738561"] }),
  makeKey("gone", { revoked: "2026-01-16T00:00:00Z" }),
  makeKey("late", { expires: "2026-01-16T00:00:00Z" })
]
const wild: ReadonlyArray<Readonly<Record<string, string>>> = [
  {},
  bearer(makeKey("nobody")),
  ...["", "Bearer", "Bearer ", "Basic eDp5", "Bearer mdp_", `Bearer ${"x".repeat(3000)}`, "bearer \u00ff\u00fe"].map(
    (authorization) => ({ authorization })
  )
]

/** What the description says of the body of a refusal. */
const refusalOf = (spec: Spec, operation: Operation, status: number): JsonSchema => {
  const at = <A>(part: A & { readonly $ref?: string }): A =>
    part.$ref === undefined
      ? part
      : (part.$ref
          .slice(2)
          .split("/")
          .reduce<unknown>((whole, name) => (whole as Record<string, unknown>)[name], spec) as A)
  const response = at(
    operation.responses[String(status)] as { readonly content: Record<string, { schema: JsonSchema }> }
  )
  return at(response.content["application/json"]!.schema)
}

describe("generated requests", () => {
  const run = (withKeys: boolean) =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const rows = new Rows()
      // What is replayed is there.
      rows.ticks.push(storedTick({ instrument_token: 738561 }))
      const access = withKeys
        ? { access: accessBy((yield* keysFile([desk, ...otherKeys])).path, { REQUESTS_PER_KEY: 1_000_000 }) }
        : {}
      const port =
        PORT === undefined
          ? (yield* serve({ store: memoryStore(rows), log: { capacity: 1000, retained: 100 }, ...access })).port
          : Number(PORT)
      const own = KEY !== undefined ? { authorization: `Bearer ${KEY}` } : withKeys ? bearer(desk) : {}
      const spec = yield* described(port, own)
      const operations = Object.entries(spec.paths).flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, operation]): Operation => ({ ...operation, path, method }))
      )
      const by = (headers: Readonly<Record<string, string>>, { path, ...asked }: Asked & { readonly path: string }) =>
        ask(port, path, { ...asked, headers: { ...asked.headers, ...headers } })
      // What the examples name is there.
      const instruments = operations.find(({ operationId }) => operationId === "instruments.importInstruments")!
      assert.strictEqual((yield* by(own, requestOf(instruments))).status, 200)
      const at = random(SEED)
      const shown = (): Readonly<Record<string, string>> => {
        if (!withKeys || at.next() < 0.6) return own
        return at.next() < 0.6 ? bearer(at.pick(otherKeys)) : at.pick(wild)
      }
      const base = baseOf(spec)
      const seen = new Map<string, number>()
      const memory = process.memoryUsage().rss
      let largest = 0
      yield* Effect.forEach(
        Array.from({ length: REQUESTS }, (_, i) => ({
          operation: operations[i % operations.length]!,
          isFirst: i < operations.length
        })),
        ({ operation, isFirst }) =>
          Effect.gen(function* () {
            // Each route is first asked as its examples ask it: chance may never hit on a request that is taken.
            const request = isFirst ? requestOf(operation) : generate(operation, spec.components.schemas, at)
            const answer = yield* by(isFirst ? own : shown(), { ...request, path: base + request.path })
            const said = `${request.method} ${request.path.slice(0, 300)} ${String(request.body ?? "").slice(0, 300)}`
            const where = `seed ${SEED}: ${said}: ${answer.status} ${answer.text.slice(0, 300)}`
            assert.notStrictEqual(answer.status, 500, where)
            assert.isDefined(operation.responses[String(answer.status)], where)
            // A head that is too large is answered beneath all of this, by its status alone.
            if (answer.status >= 400 && answer.status !== 431) {
              const { _tag, message } = answer.json as { readonly _tag: unknown; readonly message: unknown }
              assert.isString(_tag, where)
              assert.isString(message, where)
              assert.isAtMost((message as string).length, MAX_MESSAGE_CHARS, where)
              const body = refusalOf(spec, operation, answer.status)
              const has = Object.keys(answer.json as object)
              assert.includeMembers(Object.keys(body.properties ?? {}), has, where)
              assert.includeMembers(has, [...(body.required ?? [])], where)
            }
            const key = `${operation.operationId} ${answer.status < 300 ? "taken" : "refused"}`
            seen.set(key, (seen.get(key) ?? 0) + 1)
            largest = Math.max(largest, answer.text.length)
          }),
        { concurrency: AT_ONCE, discard: true }
      )
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
      // What is started and never ends, or is kept of what was refused, would show here.
      assert.isBelow(process.memoryUsage().rss - memory, MAX_GROWTH_BYTES)
      for (const { operationId } of operations) {
        // A replay's id is the server's to give, and so is the name of an archive's object.
        if (
          /^(replays\.(replay|changeReplay|stopReplay)|archive\.(object|quotesObject))$/.test(operationId) ||
          operationId === "readyz"
        )
          continue
        assert.isAbove(seen.get(`${operationId} taken`) ?? 0, 0, `${operationId} was never taken`)
      }
      if (REQUESTS > 1000) console.log(Object.fromEntries([...seen].sort()), { largest })
    }).pipe(Effect.scoped)

  it.live(
    `${REQUESTS} of every route, with NDJSON and CSV, are all answered as the description says, none by a failure`,
    () => run(false),
    3_600_000
  )

  it.live.skipIf(PORT !== undefined)(
    `${REQUESTS} of them, where keys are asked for, by keys of every kind and by none, are answered so too`,
    () => run(true),
    3_600_000
  )
})
