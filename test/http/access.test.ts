import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer, Logger, Schedule } from "effect"
import { KeyConnections } from "../../src/http/access.ts"
import { LiveKey } from "../../src/layers/keys/ApiKeys.ts"
import { SCOPES } from "../../src/schema/ApiKey.ts"
import type { Quote } from "../../src/schema/Quote.ts"
import { tradingDayStart } from "../../src/schema/Tick.ts"
import type { TickStore } from "../../src/streams/ports/TickStore.ts"
import { quoteAt } from "../support/hub.ts"
import { instrumentOf } from "../support/instruments.ts"
import { accessBy, bearer, keysFile, type MadeKey, makeKey } from "../support/keys.ts"
import { memoryStore, OPEN, Rows, storedTick } from "./memoryStore.ts"
import { baseOf, type Operation, requestOf, type Spec } from "./openApiClient.ts"
import { halfPost, rawClient } from "./rawClient.ts"
import { type Answer, type Asked, ask, serve } from "./serving.ts"

/** What the examples of the description name, and two others. */
const filled = (): Rows => {
  const rows = new Rows()
  for (const [token, symbol, exchange] of [
    [738561, "RELIANCE", "NSE"],
    [408065, "INFY", "NSE"],
    [7, "TCS", "NSE"],
    [9, "TCS26JANFUT", "NFO"]
  ] as const) {
    rows.instruments.set(token, instrumentOf(token, symbol, exchange))
    for (let i = 0; i < 3; i++) {
      rows.ticks.push(
        storedTick({ instrument_token: token, exchange_ts: OPEN + i, sequence_id: i + 1, position: i + 1 })
      )
    }
  }
  return rows
}

interface Settings {
  readonly requestsPerKey?: number
  readonly store?: Layer.Layer<TickStore>
  readonly quotes?: ReadonlyArray<Quote>
}

/** A server that lets in the given keys, with what it logs. */
const open = (keys: ReadonlyArray<MadeKey>, { quotes, requestsPerKey = 100_000, store }: Settings = {}) =>
  Effect.gen(function* () {
    const file = yield* keysFile(keys)
    const lines: Array<string> = []
    const logger = Logger.map(Logger.formatLogFmt, (line) => {
      lines.push(line)
    })
    const { log, port } = yield* serve({
      store: store ?? memoryStore(filled()),
      ...(quotes === undefined ? {} : { quotes }),
      access: accessBy(file.path, { REQUESTS_PER_KEY: requestsPerKey })
    }).pipe(Effect.provide(Logger.layer([logger])))
    const by = (key: MadeKey | undefined, path: string, asked: Asked = {}) =>
      ask(port, path, { ...asked, headers: { ...asked.headers, ...(key === undefined ? {} : bearer(key)) } })
    return { log, port, lines, by, ...file }
  })

const operationsBy = (port: number, key: MadeKey) =>
  Effect.map(ask(port, "/openapi.json", { headers: bearer(key) }), ({ json }) => {
    const spec = json as Spec
    return Object.entries(spec.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        operation: { ...operation, path, method } as Operation,
        base: baseOf(spec)
      }))
    )
  })

const isTyped = (answer: Answer, status: number, tag: string, where: string) => {
  assert.strictEqual(answer.status, status, `${where}: ${answer.text}`)
  const { _tag, message } = answer.json as { readonly _tag: string; readonly message: string }
  assert.strictEqual(_tag, tag, where)
  assert.isAbove(message.length, 10, where)
}

const post = (type: string, body: string): Asked => ({ method: "POST", headers: { "content-type": type }, body })
const ndjson = (...tokens: ReadonlyArray<number>) =>
  post(
    "application/x-ndjson",
    tokens.map((instrument_token) => JSON.stringify({ instrument_token, exchange_ts: OPEN, price: 1 })).join("\n")
  )
const jsonOf = (value: object, method = "POST"): Asked => ({
  ...post("application/json", JSON.stringify(value)),
  method
})

/** Routes that a key for some instruments may ask for: they tell of no other instrument. */
const RESTRICTED = new Set([
  ...["instruments.search", "calendar.calendar", "replays.listReplays", "replays.replay"],
  ...["udf.config", "udf.search", "udf.time", "udf.quotes"]
])

describe("with a file of keys, every route", () => {
  it.live("asks for a key that holds, has the scope and is for the instruments; but for health and readiness", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const only = new Map(SCOPES.map((scope) => [scope, makeKey(`only-${scope}`, { scopes: [scope] })]))
      const restricted = makeKey("restricted", { instruments: ["9"] })
      const revoked = makeKey("gone", { revoked: "2026-01-16T00:00:00Z" })
      const expired = makeKey("late", { expires: "2026-01-16T00:00:00Z" })
      const { by, port } = yield* open([desk, ...only.values(), restricted, revoked, expired])
      const operations = yield* operationsBy(port, desk)
      assert.isAbove(operations.length, 15)
      const opened: Array<string> = []
      for (const { base, operation } of operations) {
        const { operationId, responses, security } = operation
        const { path, ...request } = requestOf(operation)
        const asked = (key: MadeKey | undefined, more: Readonly<Record<string, string>> = {}) =>
          by(key, base + path, { ...request, headers: { ...request.headers, ...more } })
        const scope = security.map(({ apiKey }) => apiKey?.[0]).find((one) => one !== undefined)
        if (scope === undefined) {
          opened.push(operationId)
          for (const key of [undefined, makeKey("nobody"), desk]) {
            assert.include([200, 503], (yield* asked(key)).status, operationId)
          }
          continue
        }
        assert.isDefined(responses["401"], operationId)
        assert.isDefined(responses["403"], operationId)
        assert.isDefined(responses["429"], operationId)
        for (const [what, answer] of [
          ["no key", yield* asked(undefined)],
          ["another scheme", yield* asked(undefined, { authorization: `Basic ${desk.text}` })],
          ["a cut key", yield* asked(undefined, { authorization: `Bearer ${desk.text.slice(0, -1)}` })],
          ["a revoked key", yield* asked(revoked)],
          ["an expired key", yield* asked(expired)]
        ] as const) {
          const where = `${operationId} with ${what}`
          // From the sixth wrong key on whoever shows one waits.
          if (answer.status === 429) isTyped(answer, 429, "TooManyRequests", where)
          else {
            isTyped(answer, 401, "Unauthorized", where)
            assert.match(answer.headers["www-authenticate"] ?? "", /^Bearer realm="[^"]+"/, where)
          }
        }
        for (const [other, key] of only) {
          const answer = yield* asked(key)
          if (other === scope) assert.notInclude([401, 403], answer.status, `${operationId}: ${answer.text}`)
          else {
            isTyped(answer, 403, "Forbidden", `${operationId} with ${other}`)
            assert.include(answer.text, `lacks ${scope}`)
          }
        }
        const foreign = yield* asked(restricted)
        if (RESTRICTED.has(operationId)) assert.notInclude([401, 403], foreign.status, operationId)
        else isTyped(foreign, 403, "Forbidden", `${operationId} of other instruments`)
        assert.notInclude([401, 403], (yield* asked(desk)).status, operationId)
      }
      assert.sameMembers(opened, ["healthz", "readyz"])
    }).pipe(Effect.scoped)
  )

  it.live("is closed where the file has no key yet; what is not there, and the description, too", () =>
    Effect.gen(function* () {
      const { by, write } = yield* open([])
      for (const path of ["/api/v1/replays", "/openapi.json", "/metrics", "/nothing", "/api/v1/../../etc/passwd"]) {
        isTyped(yield* by(undefined, path), 401, "Unauthorized", path)
      }
      isTyped(yield* by(undefined, "/api/v1/replays", { method: "PUT" }), 401, "Unauthorized", "PUT")
      for (const path of ["/healthz", "/readyz", "/", "/dashboard.js", "/key.js", "/dashboard.css", "/icon.svg"]) {
        assert.strictEqual((yield* by(undefined, path)).status, 200, path)
      }
      // A page of an allowed origin asks first without a key.
      assert.strictEqual((yield* by(undefined, "/api/v1/replays", { method: "OPTIONS" })).status, 204)
      const desk = makeKey("desk", { scopes: ["read"] })
      write([desk])
      yield* by(desk, "/api/v1/replays").pipe(
        Effect.repeat({ until: ({ status }) => status === 200, schedule: Schedule.spaced("20 millis") })
      )
      isTyped(yield* by(desk, "/nothing"), 404, "NotFound", "/nothing")
      assert.strictEqual((yield* by(desk, "/openapi.json")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("takes a key from its header alone, once, and says what it knows of one only to who has it", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const gone = makeKey("gone", { revoked: "2026-01-16T00:00:00Z" })
      const { by, port } = yield* open([desk, gone])
      const path = "/api/v1/replays"
      for (const [name, value] of [
        ["key", desk.text],
        ["access_token", desk.text],
        ["authorization", `Bearer%20${desk.text}`]
      ] as const) {
        const answer = yield* by(undefined, `${path}?page=1&${name}=${value}`)
        isTyped(answer, 401, "Unauthorized", name)
        assert.include(answer.text, `got nothing; ${name}= in the query is never read`)
        assert.notInclude(answer.text, desk.text.slice(0, 12))
      }
      assert.match((yield* by(undefined, `${path}?monkey=1`)).text, /got nothing"/)
      const twice = yield* rawClient(
        port,
        `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${desk.text}\r\nAuthorization: Bearer ${desk.text}\r\n\r\n`
      )
      assert.include(yield* twice.until(/\}$/), "HTTP/1.1 401")
      for (const authorization of [`bearer ${desk.text}`, `BEARER   ${desk.text}  `]) {
        assert.strictEqual((yield* ask(port, path, { headers: { authorization } })).status, 200)
      }
      assert.include((yield* by(gone, path)).text, "was revoked")
      const guessed = { ...gone, text: `${gone.text.slice(0, -1)}${gone.text.endsWith("A") ? "B" : "A"}` }
      const answer = yield* by(guessed, path)
      assert.include(answer.text, "is not known")
      assert.notInclude(answer.text, gone.text.slice(13, 20))
    }).pipe(Effect.scoped)
  )

  it.live("refuses before a body is read", () =>
    Effect.gen(function* () {
      const reader = makeKey("reader", { scopes: ["read"] })
      const { port } = yield* open([reader])
      for (const [headers, status] of [
        ["", 401],
        [`Authorization: Bearer ${reader.text}\r\n`, 403]
      ] as const) {
        const client = yield* rawClient(port, halfPost("/api/v1/ingest", 10_000_000, "{", headers))
        assert.include(yield* client.until(/\}/), `HTTP/1.1 ${status}`)
      }
    }).pipe(Effect.scoped)
  )
})

describe("a key for some instruments", () => {
  it.live("sees those alone: by token, by symbol, in a search, in quotes, ticks and bars", () =>
    Effect.gen(function* () {
      const key = makeKey("bot", { instruments: ["7", "NSE:INFY", "NFO:*"] })
      const { by } = yield* open([key])
      const found = (query: string) =>
        Effect.map(by(key, `/api/v1/instruments/search?${query}`), ({ json }) =>
          (json as { readonly instruments: ReadonlyArray<{ readonly instrument_token: number }> }).instruments.map(
            ({ instrument_token }) => instrument_token
          )
        )
      assert.sameMembers(yield* found(""), [7, 408065, 9])
      assert.deepStrictEqual(yield* found("query=reli"), [])
      assert.deepStrictEqual(yield* found("query=infy"), [408065])
      const cases: ReadonlyArray<readonly [path: string, parameter: string | undefined]> = [
        ["/instruments/7", undefined],
        ["/instruments/738561", "token"],
        ["/instruments/1", "token"],
        ["/quotes?tokens=7,408065,9", undefined],
        ["/quotes?tokens=7,738561", "tokens"],
        ["/historical/ticks?instrument_token=7", undefined],
        ["/historical/ticks?symbol=NSE:INFY", undefined],
        ["/historical/ticks?symbol=NSE:RELIANCE", "symbol"],
        ["/historical/ticks?symbol=reliance", "symbol"],
        ["/historical/ticks?instrument_token=738561", "instrument_token"],
        ["/historical/candles?interval=1m&symbol=NFO:TCS26JANFUT", undefined],
        ["/historical/candles?interval=1m&instrument_token=738561", "instrument_token"]
      ]
      for (const [path, parameter] of cases) {
        const answer = yield* by(key, `/api/v1${path}`)
        if (parameter === undefined) assert.strictEqual(answer.status, 200, `${path}: ${answer.text}`)
        else {
          isTyped(answer, 403, "Forbidden", path)
          assert.strictEqual((answer.json as { readonly parameter: string }).parameter, parameter, path)
          const [, asked = ""] = /(?:\/|=)([A-Za-z0-9:]+)$/.exec(path) ?? []
          const named = parameter === "symbol" ? `\\"${asked}\\"` : path.endsWith("/1") ? "1" : "738561"
          assert.include(answer.text, `key \\"bot\\" is not for ${named}`)
        }
      }
      const streamed = yield* by(key, "/api/v1/historical/ticks?instrument_token=738561", {
        headers: { accept: "text/csv" }
      })
      isTyped(streamed, 403, "Forbidden", "streamed")
    }).pipe(Effect.scoped)
  )

  it.live("is told nothing of others by their symbols: not that there are any, not which tokens they have", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      rows.instruments.set(1, instrumentOf(1, "INFY", "NSE"))
      rows.instruments.set(2, instrumentOf(2, "INFY", "BSE"))
      rows.instruments.set(9, instrumentOf(9, "TCS26JANFUT", "NFO"))
      const key = makeKey("bot", { instruments: ["NSE:INFY"] })
      const { by } = yield* open([key], { store: memoryStore(rows) })
      const of = (symbol: string) => by(key, `/api/v1/historical/ticks?symbol=${symbol}`)
      assert.strictEqual((yield* of("INFY")).status, 200)
      for (const symbol of ["NFO:TCS26JANFUT", "NFO:NOSUCH"]) {
        const answer = yield* of(symbol)
        isTyped(answer, 403, "Forbidden", symbol)
        assert.include(answer.text, `symbol: key \\"bot\\" is not for \\"${symbol}\\"`)
        const replayed = yield* by(
          key,
          "/api/v1/replays",
          jsonOf({ date: "2026-01-16", paused: true, symbols: [symbol] })
        )
        isTyped(replayed, 403, "Forbidden", symbol)
      }
    }).pipe(Effect.scoped)
  )

  it.live("is not told the quote of a token that meant another instrument then", () =>
    Effect.gen(function* () {
      const now = instrumentOf(7, "INFY", "NSE")
      const then = { ...now, tradingsymbol: "WIPRO" }
      const rows = new Rows()
      rows.sightings.set(7, [
        { instrument: then, first: 20_000, last: 20_000 },
        { instrument: now, first: 20_400, last: 20_400 }
      ])
      const [restricted, all] = [makeKey("bot", { instruments: ["NSE:INFY"] }), makeKey("all")]
      const quote = quoteAt(7, tradingDayStart(20_300), 1, { oi: 5 })
      const { by } = yield* open([restricted, all], { store: memoryStore(rows), quotes: [quote] })
      const told = (key: MadeKey) => Effect.map(by(key, "/api/v1/quotes?tokens=7"), ({ text }) => text)
      assert.include(yield* told(all), '"oi":5')
      assert.notInclude(yield* told(restricted), '"quote"')
    }).pipe(Effect.scoped)
  )

  it.live("for all of an exchange is told where a symbol of it means nothing", () =>
    Effect.gen(function* () {
      const key = makeKey("bot", { instruments: ["NFO:*"] })
      const { by } = yield* open([key])
      for (const [symbol, status, tag] of [
        ["NFO:TCS26JANFUT", 200, undefined],
        ["NFO:TCS26JANFUR", 404, "NotFound"],
        ["nfo:nosuch", 404, "NotFound"],
        ["NSE:NOSUCH", 403, "Forbidden"],
        ["NSE:TCS", 403, "Forbidden"],
        ["TCS", 403, "Forbidden"]
      ] as const) {
        const answer = yield* by(key, `/api/v1/historical/ticks?symbol=${symbol}`)
        assert.strictEqual(answer.status, status, `${symbol}: ${answer.text}`)
        if (tag !== undefined) isTyped(answer, status, tag, symbol)
        // The nearest may be another's.
        assert.notInclude(answer.text, "did you mean")
      }
    }).pipe(Effect.scoped)
  )

  it.live("is searched among its own also where they are a few of very many", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      for (let token = 1; token <= 5000; token++) rows.instruments.set(token, instrumentOf(token, `S${token}`))
      const own = makeKey("own", { instruments: ["4999"] })
      const many = makeKey("many", { instruments: Array.from({ length: 400 }, (_, i) => String(i + 2000)) })
      const { by } = yield* open([own, many], { store: memoryStore(rows) })
      const tokens = (key: MadeKey, query: string) =>
        Effect.map(by(key, `/api/v1/instruments/search?${query}`), ({ json }) =>
          (json as { readonly instruments: ReadonlyArray<{ readonly instrument_token: number }> }).instruments.map(
            ({ instrument_token }) => instrument_token
          )
        )
      assert.deepStrictEqual(yield* tokens(own, "limit=10"), [4999])
      const found = yield* tokens(many, "query=s2&limit=1000")
      assert.strictEqual(found.length, 400)
      assert.isTrue(found.every((token) => token >= 2000 && token < 2400))
    }).pipe(Effect.scoped)
  )

  it.live("sends ticks of those alone: one of another refuses them all, and nothing of them goes in", () =>
    Effect.gen(function* () {
      const key = makeKey("feed", { scopes: ["write"], instruments: ["7"] })
      const { by } = yield* open([key])
      const all = yield* by(key, "/api/v1/ingest", ndjson(7, 738561))
      isTyped(all, 403, "Forbidden", "ingest")
      assert.include(all.text, 'line 2: instrument_token: key \\"feed\\" is not for 738561')
      const own = yield* by(key, "/api/v1/ingest", ndjson(7, 7))
      assert.deepInclude(own.json, { accepted: 2, rejected_total: 0 })
      // Whoever could say which token a symbol has could give himself any.
      const file = yield* by(key, "/api/v1/instruments", post("text/csv", "instrument_token\n"))
      isTyped(file, 403, "Forbidden", "instruments")
      isTyped(yield* by(key, "/api/v1/dlq/retry", jsonOf({ all: true })), 403, "Forbidden", "retry")
    }).pipe(Effect.scoped)
  )

  it.live("replays those alone, and steers what it has started", () =>
    Effect.gen(function* () {
      const bot = makeKey("bot", { instruments: ["7", "NSE:INFY"] })
      const desk = makeKey("desk")
      const { by } = yield* open([bot, desk])
      const start = (key: MadeKey, what: object) =>
        by(key, "/api/v1/replays", jsonOf({ date: "2026-01-16", paused: true, ...what }))
      for (const [what, parameter] of [
        [{ all: true }, "all"],
        [{ tokens: [7, 738561] }, "tokens"],
        [{ symbols: ["NSE:INFY", "NSE:RELIANCE"] }, "symbols"],
        [{ symbols: ["RELIANCE"] }, "symbols"]
      ] as const) {
        const answer = yield* start(bot, what)
        isTyped(answer, 403, "Forbidden", JSON.stringify(what))
        assert.strictEqual((answer.json as { readonly parameter: string }).parameter, parameter)
      }
      const idOf = (answer: Answer) => {
        assert.strictEqual(answer.status, 201, answer.text)
        return (answer.json as { readonly id: string }).id
      }
      const own = idOf(yield* start(bot, { symbols: ["NSE:INFY"] }))
      const other = idOf(yield* start(desk, { all: true }))
      for (const asked of [jsonOf({ speed: 5 }, "PATCH"), { method: "DELETE" }]) {
        isTyped(yield* by(bot, `/api/v1/replays/${other}`, asked), 403, "Forbidden", "another's")
      }
      assert.strictEqual((yield* by(bot, `/api/v1/replays/${other}`)).status, 200)
      assert.strictEqual((yield* by(bot, `/api/v1/replays/${own}`, jsonOf({ speed: 5 }, "PATCH"))).status, 200)
      assert.strictEqual((yield* by(desk, `/api/v1/replays/${own}`, jsonOf({ speed: 6 }, "PATCH"))).status, 200)
      assert.strictEqual((yield* by(bot, `/api/v1/replays/${own}`, { method: "DELETE" })).status, 204)
    }).pipe(Effect.scoped)
  )
})

describe("the connections of a key", () => {
  it("are counted by its name: those of the key before it was changed, too", () => {
    const told: Array<number> = []
    const connections = new KeyConnections<object>(10, (_, change) => told.push(change))
    const made = makeKey("a")
    const [before, after] = [new LiveKey(made.stored, "1"), new LiveKey(made.stored, "2")]
    const [old, back] = [{}, {}]
    connections.add(before, old)
    connections.add(before, old)
    connections.add(after, back)
    connections.remove(before, old)
    connections.remove(before, old)
    assert.deepStrictEqual(told, [1, 1, -1])
  })
})

describe("a key that is asked by too often", () => {
  it.live("is answered 429 with how long to wait, and others are not", () =>
    Effect.gen(function* () {
      const [busy, calm] = [makeKey("busy"), makeKey("calm")]
      const { by } = yield* open([busy, calm], { requestsPerKey: 2 })
      const answers = yield* Effect.forEach(Array.from({ length: 12 }), () => by(busy, "/api/v1/replays"))
      const refused = answers.filter(({ status }) => status === 429)
      assert.isAtLeast(refused.length, 3)
      assert.isAtLeast(answers.length - refused.length, 4)
      for (const answer of refused) {
        isTyped(answer, 429, "TooManyRequests", "busy")
        assert.isAtLeast(Number(answer.headers["retry-after"]), 1)
        assert.include(answer.text, "REQUESTS_PER_KEY")
      }
      const figures = (yield* by(calm, "/metrics")).text
      assert.match(figures, /topology_key_refused_total\{key="busy",reason="rate"\} \d/)
      assert.match(figures, /topology_key_requests_total\{key="busy"\} \d/)
    }).pipe(Effect.scoped)
  )
})

describe("whoever guesses keys", () => {
  it.live("has to wait after some, while whoever has a key is let in from the same address", () =>
    Effect.gen(function* () {
      const desk = makeKey("desk")
      const { by, lines } = yield* open([desk])
      const path = "/api/v1/replays"
      const statuses: Array<number> = []
      for (let i = 0; i < 10; i++) statuses.push((yield* by(makeKey("x"), path)).status)
      assert.deepStrictEqual(statuses.slice(0, 6), [401, 401, 401, 401, 401, 401])
      assert.include(statuses, 429)
      const waits = yield* by(makeKey("x"), path)
      if (waits.status === 429) assert.isAtLeast(Number(waits.headers["retry-after"]), 1)
      for (let i = 0; i < 20; i++) assert.strictEqual((yield* by(desk, path)).status, 200)
      // Who shows none at all makes no guess.
      for (let i = 0; i < 10; i++) assert.strictEqual((yield* by(undefined, path)).status, 401)
      assert.isNotEmpty(lines.filter((line) => line.includes("client 127.0.0.1 unauthorized: GET /api/v1/replays: ")))
      const figures = (yield* by(desk, "/metrics")).text
      assert.match(figures, /topology_unauthorized_total\{reason="unknown"\} [1-9]/)
      assert.match(figures, /topology_unauthorized_total\{reason="waits"\} [1-9]/)
      assert.match(figures, /topology_unauthorized_total\{reason="missing"\} \d+/)
    }).pipe(Effect.scoped)
  )
})

describe("a key that is revoked", () => {
  it.live("ends the streamed answers and the bodies that are under way by it, and no others", () =>
    Effect.gen(function* () {
      const [gone, stays] = [makeKey("gone"), makeKey("stays")]
      const row = storedTick({ instrument_token: 7 })
      // A store that never comes to an end.
      const endless = memoryStore(filled(), {
        ticks: ({ limit }) =>
          Effect.delay(Effect.succeed(Array.from({ length: limit }, (_, i) => ({ ...row, sequence_id: i + 1 }))), 5)
      })
      const { port, write } = yield* open([gone, stays], { store: endless })
      const stream = ({ text }: MadeKey) =>
        `GET /api/v1/historical/ticks?instrument_token=7 HTTP/1.1\r\nHost: localhost\r\nAccept: text/csv\r\nAuthorization: Bearer ${text}\r\n\r\n`
      const ended = yield* rawClient(port, stream(gone))
      const goesOn = yield* rawClient(port, stream(stays))
      const half = yield* rawClient(
        port,
        halfPost("/api/v1/ingest", 1_000_000, "{", `Authorization: Bearer ${gone.text}\r\n`)
      )
      for (const client of [ended, goesOn]) {
        client.socket.setMaxListeners(0)
        yield* client.until(/\n.*dma/)
      }
      write([stays])
      assert.include(yield* half.until(/\}/), "HTTP/1.1 401")
      // It does not look whole.
      assert.notMatch(yield* ended.ended, /\r\n0\r\n\r\n$/)
      const length = goesOn.text().length
      yield* Effect.repeat(
        Effect.sync(() => goesOn.text().length > length),
        { until: (grew) => grew, schedule: Schedule.spaced("5 millis") }
      )
    }).pipe(Effect.scoped)
  )
})

describe("the audit", () => {
  it.live(
    "has a line with key and address for each thing that is changed, and for nothing that is read or refused",
    () =>
      Effect.gen(function* () {
        const desk = makeKey("desk")
        const { by, lines, log } = yield* open([desk])
        const headers = { reason: "price", topic: "raw_ticks", partition: "0", offset: "1", index: "0" }
        yield* log.append("raw_ticks_dlq", 0, [{ key: "7", value: Buffer.from("{}"), headers }])
        const header =
          "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange\n"
        yield* by(desk, "/api/v1/ingest", ndjson(7, 7, 7))
        yield* by(desk, "/api/v1/instruments", post("text/csv", `${header}11,1,NEW,NEW,0,,0,0.05,1,EQ,NSE,NSE\n`))
        const started = yield* by(
          desk,
          "/api/v1/replays",
          jsonOf({ tokens: [7], date: "2026-01-16", paused: true, speed: 10 })
        )
        const { id } = started.json as { readonly id: string }
        yield* by(desk, `/api/v1/replays/${id}`, jsonOf({ speed: "inf" }, "PATCH"))
        yield* by(desk, `/api/v1/replays/${id}`, jsonOf({ seek: "09:20" }, "PATCH"))
        yield* by(desk, `/api/v1/replays/${id}`, { method: "DELETE" })
        yield* by(desk, "/api/v1/dlq/retry", jsonOf({ all: true }))
        yield* by(desk, "/api/v1/replays/none", { method: "DELETE" })
        yield* by(desk, "/api/v1/quotes?tokens=7")
        yield* by(undefined, "/api/v1/ingest", ndjson(7))
        const audit = lines
          .filter((line) => line.includes("message=audit"))
          .map((line) => line.replace(/^.* message=audit /, ""))
        assert.deepStrictEqual(audit, [
          "key=desk address=127.0.0.1 action=ingest requests=1 ticks=3",
          "key=desk address=127.0.0.1 action=instruments_import added=1 changed=0 expired=0 rejected=0",
          `key=desk address=127.0.0.1 action=replay_start replay=${id} date=2026-01-16 instruments=1 speed=10`,
          `key=desk address=127.0.0.1 action=replay_change replay=${id} state=paused speed=inf`,
          `key=desk address=127.0.0.1 action=replay_change replay=${id} state=paused speed=inf seek=09:20 run=2`,
          `key=desk address=127.0.0.1 action=replay_stop replay=${id}`,
          "key=desk address=127.0.0.1 action=dlq_retry sent=1"
        ])
        for (const line of lines) assert.notInclude(line, desk.text.slice(13))
      }).pipe(Effect.scoped)
  )
})
