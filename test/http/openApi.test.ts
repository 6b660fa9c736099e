import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { RawTickInput, rawQuoteFields, readRawRecord, readRawTick } from "../../src/schema/RawTick.ts"
import { instrumentOf } from "../support/instruments.ts"
import { memoryStore, Rows, storedTick } from "./memoryStore.ts"
import { baseOf, described, type Operation, requestOf } from "./openApiClient.ts"
import { ask, serve } from "./serving.ts"

/** 2026-01-16 09:15:30 IST. */
const AT = 1_768_535_130_000_000

/** What the examples of the description name. */
const filled = (): Rows => {
  const rows = new Rows()
  for (const [instrument_token, tradingsymbol] of [
    [738561, "RELIANCE"],
    [408065, "INFY"]
  ] as const) {
    rows.instruments.set(
      instrument_token,
      instrumentOf(instrument_token, tradingsymbol, "NSE", { name: tradingsymbol, lot_size: 1 })
    )
    rows.ticks.push(storedTick({ instrument_token, exchange_ts: AT, price: 2500.5, volume: 100 }))
  }
  return rows
}

const operations = Effect.gen(function* () {
  const { port } = yield* serve({ store: memoryStore(filled()) })
  const spec = yield* described(port)
  const list: Array<Operation> = []
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) list.push({ ...operation, path, method })
  }
  return { port, spec, list }
})

describe("the description of the API", () => {
  it.live("types, describes and shows by example every parameter, and bounds every number", () =>
    Effect.gen(function* () {
      const { list } = yield* operations
      for (const { operationId, parameters = [] } of list) {
        for (const { name, schema, description, example } of parameters) {
          const where = `${operationId} ${name}`
          assert.isAbove(description?.length ?? 0, 10, where)
          if (name !== "cursor") assert.isDefined(example, where)
          for (const one of schema.oneOf ?? [schema.items ?? schema]) {
            if (one.type === "integer") {
              assert.isNumber(one.minimum, where)
              assert.isNumber(one.maximum, where)
            } else {
              assert.strictEqual(one.type, "string", where)
              assert.isTrue(
                one.enum !== undefined || one.format !== undefined || one.maxLength !== undefined,
                `${where} has no bound`
              )
            }
          }
        }
      }
      const typeOf = (id: string, name: string) =>
        list.find(({ operationId }) => operationId === id)!.parameters!.find((one) => one.name === name)!.schema
      assert.deepInclude(typeOf("historical.ticks", "limit"), { type: "integer", minimum: 1, maximum: 10_000 })
      assert.deepInclude(typeOf("quotes.quotes", "tokens"), { type: "array", maxItems: 300 })
      assert.deepInclude(typeOf("calendar.calendar", "date"), { type: "string", format: "date" })
    }).pipe(Effect.scoped)
  )

  it.live(
    "says of every route what it is for and what it may answer, 431 and 503 too, and refers to nothing absent",
    () =>
      Effect.gen(function* () {
        const { spec, list } = yield* operations
        assert.strictEqual(spec.servers.length, 1)
        for (const { operationId, summary, responses, requestBody } of list) {
          assert.isAbove(summary?.length ?? 0, 5, operationId)
          for (const status of ["400", "403", "405", "408", "429", "431", "500", "503"]) {
            assert.isDefined(responses[status], `${operationId} ${status}`)
          }
          for (const content of Object.values(requestBody?.content ?? {}))
            assert.isDefined(content.example, operationId)
        }
        const references = [...JSON.stringify(spec).matchAll(/"\$ref":"#\/([^"]+)"/g)].map((found) => found[1]!)
        assert.isAbove(references.length, 20)
        for (const reference of new Set(references)) {
          let at: unknown = spec
          for (const key of reference.split("/")) at = (at as Record<string, unknown> | undefined)?.[key]
          assert.isDefined(at, reference)
        }
      }).pipe(Effect.scoped)
  )

  it.live("names the scope of a key that each route asks for where there are keys, and how one is shown", () =>
    Effect.gen(function* () {
      const { spec, list } = yield* operations
      assert.deepInclude(spec.components.securitySchemes.apiKey, { type: "http", scheme: "bearer" })
      const scopes: Record<string, Array<string>> = { open: [] }
      for (const { operationId, responses, security } of list) {
        if (security.length === 0) {
          scopes.open!.push(operationId)
          continue
        }
        // None, where the server has no keys.
        assert.deepStrictEqual(security[0], {})
        const [scope] = security[1]!.apiKey!
        scopes[scope!] = [...(scopes[scope!] ?? []), operationId]
        assert.isDefined(responses["401"], operationId)
      }
      assert.sameMembers(scopes.open!, ["healthz", "readyz"])
      assert.sameMembers(scopes.write!, ["instruments.importInstruments", "ingest.ingest", "dlq.retryLetters"])
      assert.sameMembers(scopes.replay!, ["replays.startReplay", "replays.changeReplay", "replays.stopReplay"])
      for (const { method, operationId } of list) {
        if (scopes.read!.includes(operationId)) assert.strictEqual(method, "get", operationId)
      }
    }).pipe(Effect.scoped)
  )

  it.live("describes every field of a raw tick, as it is read", () =>
    Effect.gen(function* () {
      const { spec } = yield* operations
      const { properties, required, examples } = spec.components.schemas.RawTick!
      // A session is what only replays may say.
      const fields = Object.keys(RawTickInput.fields).filter((field) => field !== "session")
      assert.sameMembers(Object.keys(properties!), fields)
      for (const field of fields) assert.isAbove(properties![field]!.description?.length ?? 0, 10, field)
      for (const field of required!) {
        const { [field]: _, ...rest } = examples![0] as Record<string, unknown>
        assert.isString(readRawTick(rest), `${field} is required`)
      }
      for (const example of examples!) assert.isObject(readRawTick(example))
    }).pipe(Effect.scoped)
  )

  it.live("describes every field of a quote that stands alone, as it is read", () =>
    Effect.gen(function* () {
      const { spec } = yield* operations
      const { properties, required, examples } = spec.components.schemas.RawQuote!
      assert.sameMembers(Object.keys(properties!), [...rawQuoteFields])
      for (const field of required!) {
        const { [field]: _, ...rest } = examples![0] as Record<string, unknown>
        assert.isString(readRawRecord(rest), `${field} is required`)
      }
      for (const example of examples!) {
        const read = readRawRecord(example)
        assert.isTrue(typeof read !== "string" && read.tick === undefined && read.quote !== undefined)
      }
    }).pipe(Effect.scoped)
  )

  it.live("is enough to call every route: the request that its examples make is answered as it says", () =>
    Effect.gen(function* () {
      const { port, spec, list } = yield* operations
      for (const operation of list) {
        const request = requestOf(operation)
        const answer = yield* ask(port, baseOf(spec) + request.path, request)
        const where = `${operation.operationId} ${request.path}: ${answer.status} ${answer.text.slice(0, 200)}`
        assert.isDefined(operation.responses[String(answer.status)], where)
        const isUnknown =
          operation.path.endsWith("/replays/{id}") ||
          operation.path.endsWith("/{object}") ||
          operation.path === "/readyz"
        if (!isUnknown) assert.isBelow(answer.status, 300, where)
        else assert.include([404, 200, 503], answer.status, where)
      }
    }).pipe(Effect.scoped)
  )
})
