import { connect } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Result, Scope } from "effect"
import { Api, MAX_BODY_BYTES, MAX_INGEST_BYTES } from "../../src/http/Api.ts"
import { StoreError } from "../../src/schema/Errors.ts"
import { WorkerCounters } from "../../src/streams/ports/WorkerCounters.ts"
import { instrumentOf } from "../support/instruments.ts"
import { memoryStore, Rows, storedTick } from "./memoryStore.ts"
import { type Asked, ask, serve } from "./serving.ts"

const json = { "content-type": "application/json" }

/** Every route, with a request that it would take. */
const ROUTES: ReadonlyArray<readonly [method: string, path: string, headers?: Record<string, string>, body?: string]> =
  [
    ["GET", "/healthz"],
    ["GET", "/readyz"],
    ["GET", "/metrics"],
    ["GET", "/topology"],
    ["GET", "/openapi.json"],
    ["GET", "/api/v1/instruments/search?query=a"],
    ["GET", "/api/v1/instruments/1"],
    ["POST", "/api/v1/instruments", { "content-type": "text/csv" }, "x"],
    ["POST", "/api/v1/ingest", { "content-type": "application/x-ndjson" }, "{}"],
    ["GET", "/api/v1/quotes?tokens=1"],
    ["GET", "/api/v1/historical/ticks?instrument_token=1"],
    ["GET", "/api/v1/historical/candles?instrument_token=1&interval=1m"],
    ["GET", "/api/v1/calendar?exchange=NSE&date=2026-01-16"],
    ["GET", "/api/v1/dlq"],
    ["POST", "/api/v1/dlq/retry", json, "{}"],
    ["GET", "/api/v1/replays"],
    ["POST", "/api/v1/replays", json, "{}"],
    ["GET", "/api/v1/replays/x"],
    ["PATCH", "/api/v1/replays/x", json, "{}"],
    ["DELETE", "/api/v1/replays/x"],
    ["GET", "/api/v1/archive?date=2026-01-16"],
    ["GET", "/api/v1/archive/date=2026-01-16/x.parquet"],
    ["GET", "/api/v1/archive/quotes/date=2026-01-16/x.parquet"],
    ["GET", "/udf/config"],
    ["GET", "/udf/symbols?symbol=x"],
    ["GET", "/udf/search?query=x"],
    ["GET", "/udf/history?symbol=x&resolution=1&from=1&to=2"],
    ["GET", "/udf/time"],
    ["GET", "/udf/quotes?symbols=x"],
    ["GET", "/udf/marks?symbol=x&resolution=1&from=1&to=2"],
    ["GET", "/udf/timescale_marks?symbol=x&resolution=1&from=1&to=2"]
  ]

const open = (change: Parameters<typeof memoryStore>[1] = {}, rows = new Rows()) =>
  serve({ store: memoryStore(rows, change) })

const asked = ([method, , headers, body]: (typeof ROUTES)[number], more: Record<string, string>): Asked => ({
  method,
  headers: { ...headers, ...more },
  ...(body === undefined ? {} : { body })
})

describe("the server", () => {
  it.live("refuses a foreign Host and a foreign Origin on every route", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const endpoints = Object.values(Api.groups).flatMap((group) => Object.values(group.endpoints))
      assert.strictEqual(ROUTES.length, endpoints.length + 1)
      for (const route of ROUTES) {
        for (const [header, value] of [
          ["host", "evil.example.com"],
          ["origin", "https://evil.example.com"]
        ] as const) {
          const answer = yield* ask(port, route[1], asked(route, { [header]: value }))
          assert.strictEqual(answer.status, 403, `${route[1]} ${header}`)
          assert.deepInclude(answer.json, { _tag: "Forbidden", parameter: header === "host" ? "Host" : "Origin" })
        }
        const own = yield* ask(port, route[1], asked(route, { origin: `http://127.0.0.1:${port}` }))
        assert.notStrictEqual(own.status, 403, route[1])
        assert.isUndefined(own.headers["access-control-allow-origin"])
      }
    }).pipe(Effect.scoped)
  )

  it.live("lets an allowed origin read answers, and asks for its preflight", () =>
    Effect.gen(function* () {
      const origin = "https://charts.example.com"
      const { port } = yield* serve({ store: memoryStore(new Rows()), settings: { ALLOWED_ORIGINS: origin } })
      const answer = yield* ask(port, "/healthz", { headers: { origin } })
      assert.strictEqual(answer.status, 200)
      assert.strictEqual(answer.headers["access-control-allow-origin"], origin)
      const preflight = yield* ask(port, "/api/v1/ingest", { method: "OPTIONS", headers: { origin } })
      assert.strictEqual(preflight.status, 204)
      assert.strictEqual(preflight.headers.allow, "POST, OPTIONS")
      assert.strictEqual(preflight.headers["access-control-allow-origin"], origin)
      assert.include(preflight.headers["access-control-allow-headers"], "content-type")
    }).pipe(Effect.scoped)
  )

  it.live("answers what it refuses in the contract's form, naming the parameter and the value", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const cases: ReadonlyArray<readonly [string, Asked, number, string, string | undefined, string]> = [
        ["/nope", {}, 404, "NotFound", "path", '"/nope"'],
        ["/api/v1/instruments/%ZZ", {}, 404, "NotFound", "path", "%ZZ"],
        ["/api/v1/instruments/abc", {}, 400, "BadRequest", "token", '"abc"'],
        ["/api/v1/instruments/7", {}, 404, "NotFound", "token", "7"],
        ["/api/v1/instruments/search?limit=0", {}, 400, "BadRequest", "limit", 'got "0"'],
        ["/api/v1/instruments/search?limit=1&limit=2", {}, 400, "BadRequest", "limit", "once"],
        ["/api/v1/instruments/search?asset_class=BOND", {}, 400, "BadRequest", "asset_class", '"BOND"'],
        ["/api/v1/quotes", {}, 400, "BadRequest", "tokens", "got nothing"],
        ["/api/v1/quotes?tokens=1,x", {}, 400, "BadRequest", "tokens", '"1,x"'],
        ["/api/v1/historical/ticks", {}, 400, "BadRequest", "instrument_token", "neither"],
        ["/api/v1/historical/ticks?instrument_token=1&symbol=A", {}, 400, "BadRequest", "symbol", "both"],
        ["/api/v1/historical/ticks?symbol=NOPE", {}, 404, "NotFound", "symbol", '"NOPE"'],
        ["/api/v1/historical/ticks?instrument_token=7", {}, 404, "NotFound", "instrument_token", "7"],
        [
          "/api/v1/historical/ticks?instrument_token=7&from=2026-01-16T09:15:00",
          {},
          400,
          "BadRequest",
          "from",
          "2026-01-16T09:15:00"
        ],
        [
          "/api/v1/historical/ticks?instrument_token=7&from=1768535100000000&to=1768535000000000",
          {},
          400,
          "BadRequest",
          "to",
          "1768535000000000"
        ],
        ["/api/v1/historical/ticks?instrument_token=7&limit=10001", {}, 400, "BadRequest", "limit", "10001"],
        ["/api/v1/historical/ticks?instrument_token=7&cursor=zzz", {}, 400, "BadRequest", "cursor", '"zzz"'],
        ["/api/v1/historical/candles?instrument_token=7", {}, 400, "BadRequest", "interval", "got nothing"],
        ["/api/v1/historical/candles?instrument_token=7&interval=2m", {}, 400, "BadRequest", "interval", '"2m"'],
        [
          "/api/v1/historical/candles?instrument_token=8&interval=1m&fill=previous",
          {},
          400,
          "BadRequest",
          "fill",
          "previous"
        ],
        ["/api/v1/calendar?exchange=NYSE&date=2026-01-16", {}, 404, "NotFound", "exchange", '"NYSE"'],
        ["/api/v1/calendar?exchange=NSE&date=2026-02-31", {}, 400, "BadRequest", "date", '"2026-02-31"'],
        ["/healthz", { method: "POST" }, 405, "MethodNotAllowed", "method", "POST"],
        ["/healthz", { method: "TRACE" }, 405, "MethodNotAllowed", "method", "TRACE"],
        ["/api/v1/ingest", { method: "POST", body: "{}" }, 415, "UnsupportedMediaType", "content-type", "nothing"],
        [
          "/api/v1/ingest",
          { method: "POST", body: "{}", headers: json },
          415,
          "UnsupportedMediaType",
          "content-type",
          '"application/json"'
        ],
        [
          "/api/v1/replays",
          { method: "POST", body: "{}", headers: { "content-type": "text/plain" } },
          415,
          "UnsupportedMediaType",
          "content-type",
          '"text/plain"'
        ],
        ["/api/v1/replays", { method: "POST", body: "{", headers: json }, 400, "BadRequest", "body", '"{"'],
        ["/api/v1/replays", { method: "POST", body: '{"date":5}', headers: json }, 400, "BadRequest", "date", "5"],
        [
          "/api/v1/replays",
          { method: "POST", body: "x".repeat(MAX_BODY_BYTES + 1), headers: json },
          413,
          "PayloadTooLarge",
          "body",
          String(MAX_BODY_BYTES)
        ],
        [
          "/api/v1/instruments",
          { method: "POST", body: "a,b\n", headers: { "content-type": "text/csv" } },
          400,
          "BadRequest",
          undefined,
          '"a,b"'
        ]
      ]
      for (const [path, request, status, tag, parameter, quoted] of cases) {
        const answer = yield* ask(port, path, request)
        const body = answer.json as Record<string, unknown>
        const said = `${path}: ${answer.status} ${answer.text}`
        assert.strictEqual(answer.status, status, said)
        assert.strictEqual(answer.headers["content-type"], "application/json", said)
        assert.strictEqual(body._tag, tag, said)
        assert.strictEqual(body.parameter, parameter, said)
        assert.include(body.message, quoted, said)
        assert.hasAllKeys(body, parameter === undefined ? ["_tag", "message"] : ["_tag", "message", "parameter"], said)
      }
    }).pipe(Effect.scoped)
  )

  it.live("reads no more of a body than its route takes, also where its length was not said", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const said = yield* Effect.callback<string>((resume) => {
        const socket = connect(port, "127.0.0.1", () => {
          socket.write(
            "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n" +
              "Transfer-Encoding: chunked\r\n\r\n"
          )
          const chunk = Buffer.alloc(1_048_576, 0x20)
          for (let sent = 0; sent <= MAX_INGEST_BYTES; sent += chunk.length) {
            socket.write(`${chunk.length.toString(16)}\r\n`)
            socket.write(chunk)
            socket.write("\r\n")
          }
        })
        let text = ""
        socket.on("data", (data) => {
          text += data.toString()
        })
        socket.on("error", () => {})
        socket.on("close", () => resume(Effect.succeed(text)))
        return Effect.sync(() => socket.destroy())
      })
      assert.match(said, /^HTTP\/1\.1 413 /)
      assert.include(said, '"_tag":"PayloadTooLarge"')
    }).pipe(Effect.scoped)
  )

  it.live("stays up and answers or hangs up, whatever bytes come", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const heads = [
        "GET :99999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http://evil.example.com/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET //healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz?%%%=\u00ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Odd: a\u0001b\u00ff\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-N\u00e4me: a\r\n\r\n",
        `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ${"a".repeat(20_000)}\r\n\r\n`,
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: -5\r\n\r\n",
        "POST /api/v1/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 5\r\n\r\n{}",
        "BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\u0000\u0001\u0002\r\n\r\n"
      ]
      const answers = yield* Effect.forEach(heads, (head) =>
        Effect.callback<string>((resume) => {
          const socket = connect(port, "127.0.0.1", () => socket.end(Buffer.from(head, "latin1")))
          let text = ""
          socket.on("data", (data) => {
            text += data.toString("latin1")
          })
          socket.on("error", () => {})
          socket.on("close", () => resume(Effect.succeed(text)))
        })
      )
      for (const [i, answer] of answers.entries()) {
        assert.match(answer, /^($|HTTP\/1\.1 [245]\d\d )/, heads[i])
        assert.notMatch(answer, /^HTTP\/1\.1 500/, heads[i])
      }
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("answers HEAD as GET without the body, and OPTIONS with the methods there are", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const get = yield* ask(port, "/openapi.json")
      const head = yield* ask(port, "/openapi.json", { method: "HEAD" })
      assert.strictEqual(head.status, 200)
      assert.strictEqual(head.text, "")
      assert.strictEqual(head.headers["content-length"], get.headers["content-length"])
      const options = yield* ask(port, "/api/v1/replays/x", { method: "OPTIONS" })
      assert.strictEqual(options.status, 204)
      assert.strictEqual(options.headers.allow, "GET, HEAD, PATCH, DELETE, OPTIONS")
    }).pipe(Effect.scoped)
  )

  it.live("answers a defect with a typed 500 that tells nothing, and a silent store with 503 and Retry-After", () =>
    Effect.gen(function* () {
      const { port } = yield* open({
        daysSoFar: () => Effect.die(new Error("password=hunter2")),
        ticks: () => Effect.fail(new StoreError({ operation: "ticks", message: "gone", transient: true }))
      })
      const defect = yield* ask(port, "/api/v1/quotes?tokens=1")
      assert.strictEqual(defect.status, 500)
      assert.deepStrictEqual(defect.json, {
        _tag: "InternalError",
        message: "the server failed to answer; its log says why"
      })
      const silent = yield* ask(port, "/api/v1/historical/ticks?instrument_token=1")
      assert.strictEqual(silent.status, 503)
      assert.deepStrictEqual(silent.json, { _tag: "Unavailable", message: "the store did not do ticks: gone" })
      assert.strictEqual(silent.headers["retry-after"], "1")
    }).pipe(Effect.scoped)
  )

  it.live("is ready once every named condition is met, and says what is missing or degraded", () =>
    Effect.gen(function* () {
      const { port, readiness } = yield* open()
      const migrated = yield* readiness.condition("store migrated")
      const caughtUp = yield* readiness.condition("log caught up")
      yield* migrated
      const waiting = yield* ask(port, "/readyz")
      assert.strictEqual(waiting.status, 503)
      assert.deepInclude(waiting.json, { _tag: "NotReady", waiting: ["log caught up"] })
      yield* caughtUp
      yield* readiness.degrade("claims", true)
      const ready = yield* ask(port, "/readyz")
      assert.strictEqual(ready.status, 200)
      assert.deepStrictEqual(ready.json, { status: "ready", degraded: ["claims"] })
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("shows in /topology itself and every process that tells of itself, with what is degraded", () =>
    Effect.gen(function* () {
      const { port, readiness, context } = yield* open()
      const counters = Context.get(context, WorkerCounters)
      yield* readiness.degrade("claims", true)
      yield* counters.publish({
        life: "other",
        worker: "worker there:7",
        role: "worker",
        started_at: 0,
        stages: ["process"],
        waiting: [],
        degraded: [],
        figures: [{ name: "sent", labels: {}, value: 3 }]
      })
      const seen = yield* ask(port, "/topology").pipe(
        Effect.map(({ json }) => json as Record<string, unknown> & { workers: ReadonlyArray<Record<string, unknown>> }),
        Effect.repeat({ until: ({ workers }) => workers.length === 2 })
      )
      assert.deepInclude(seen, { ready: true, waiting: [], degraded: ["claims"], self: "life-1", workers_known: false })
      assert.deepInclude(seen.workers[0], { life: "life-1", living: true, silent_ms: 0, degraded: ["claims"] })
      assert.deepInclude(seen.workers[1], { life: "other", living: true, stages: ["process"] })
      assert.deepStrictEqual(
        (seen.groups as ReadonlyArray<{ group: string; run_by: unknown; members: unknown }>).map(
          ({ group, members }) => [group, members]
        ),
        [["process", 0]]
      )
    }).pipe(Effect.scoped)
  )

  it.live("describes every route and every error in openapi.json", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const spec = (yield* ask(port, "/openapi.json")).json as {
        readonly paths: Record<string, Record<string, { readonly responses: Record<string, unknown> }>>
      }
      for (const [method, path] of ROUTES) {
        if (path === "/openapi.json") continue
        const bare = path
          .split("?")[0]!
          .replace(/instruments\/1$/, "instruments/{token}")
          .replace(/replays\/x$/, "replays/{id}")
          .replace(/archive\/.+$/, "archive/{day}/{object}")
        const responses = Object.keys(spec.paths[bare]?.[method.toLowerCase()]?.responses ?? {})
        assert.include(responses, "403", `${method} ${bare}`)
        if (method === "POST" || method === "PATCH") assert.includeMembers(responses, ["400", "413", "415", "503"])
      }
      assert.include(Object.keys(spec.paths["/api/v1/ingest"]!.post!.responses), "429")
      assert.include(Object.keys(spec.paths["/api/v1/replays/{id}"]!.patch!.responses), "409")
    }).pipe(Effect.scoped)
  )

  it.live("marks the answers about simulated instruments, and no others", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      for (const [instrument_token, exchange] of [
        [1, "SIM"],
        [2, "NSE"]
      ] as const) {
        const instrument = instrumentOf(instrument_token, `S${instrument_token}`, exchange, {
          name: "SHARE",
          lot_size: 1
        })
        rows.instruments.set(instrument_token, instrument)
        rows.ticks.push(storedTick({ instrument_token }))
      }
      const { port } = yield* open({}, rows)
      const marked = (path: string, how: Asked = {}) =>
        Effect.map(ask(port, path, how), ({ headers, status, text }) => {
          assert.isBelow(status, 300, `${path}: ${text}`)
          return headers["x-simulated"]
        })
      const api = "/api/v1"
      for (const path of ["/healthz", "/topology", `${api}/calendar?exchange=NSE&date=2026-01-16`]) {
        assert.isUndefined(yield* marked(path), path)
      }
      const ranged = (token: number) => `instrument_token=${token}&from=1768535000000000&to=1768535200000000`
      const about = (token: number): ReadonlyArray<string> => [
        `${api}/instruments/${token}`,
        `${api}/instruments/search?query=s${token}`,
        `${api}/quotes?tokens=${token}`,
        `${api}/historical/ticks?${ranged(token)}`,
        `${api}/historical/candles?${ranged(token)}&interval=1m`
      ]
      for (const path of about(1)) assert.strictEqual(yield* marked(path), "true", path)
      for (const path of about(2)) assert.isUndefined(yield* marked(path), path)
      // One of several is enough, also where the answer is streamed.
      assert.strictEqual(yield* marked(`${api}/instruments/search?query=share`), "true")
      assert.strictEqual(yield* marked(`${api}/quotes?tokens=2,1`), "true")
      const streamed = { headers: { accept: "text/csv" } }
      assert.strictEqual(yield* marked(`${api}/historical/ticks?${ranged(1)}`, streamed), "true")
      const replay = (token: number): Asked => ({
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ tokens: [token], date: "2026-01-16", paused: true })
      })
      assert.isUndefined(yield* marked(`${api}/replays`, replay(2)))
      assert.isUndefined(yield* marked(`${api}/replays`))
      assert.strictEqual(yield* marked(`${api}/replays`, replay(1)), "true")
      assert.strictEqual(yield* marked(`${api}/replays`), "true")
    }).pipe(Effect.scoped)
  )

  it.live("answers a short search before the long ones that came first are all done", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      for (let instrument_token = 1; instrument_token <= 3000; instrument_token++) {
        rows.instruments.set(
          instrument_token,
          instrumentOf(instrument_token, `S${instrument_token}`, "NSE", { name: "SHARE", lot_size: 1 })
        )
      }
      const { port } = yield* open({}, rows)
      const search = (limit: number) => ask(port, `/api/v1/instruments/search?query=s&limit=${limit}`)
      let done = 0
      const long = yield* Effect.forEach(Array.from({ length: 40 }), () =>
        Effect.forkChild(
          Effect.tap(search(10_000), () => Effect.sync(() => (done += 1))),
          { startImmediately: true }
        )
      )
      // The first of them is answered: the others wait in the server.
      while (done === 0) yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.lengthOf(((yield* search(10)).json as { readonly instruments: ReadonlyArray<unknown> }).instruments, 10)
      assert.isBelow(done, long.length)
      for (const fiber of long) {
        const { json } = yield* Fiber.join(fiber)
        assert.lengthOf((json as { readonly instruments: ReadonlyArray<unknown> }).instruments, 3000)
      }
    }).pipe(Effect.scoped)
  )

  it.live("says in one line that the port is in use", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const second = yield* Effect.result(serve({ store: memoryStore(new Rows()), settings: { PORT: port } }))
      assert(Result.isFailure(second))
      assert.strictEqual(second.failure._tag, "StartError")
      assert.include(second.failure.message, `127.0.0.1:${port}`)
      assert.notInclude(second.failure.message, "\n")
    }).pipe(Effect.scoped)
  )

  it.live("interrupts what a client asked for when the client goes away", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const { port } = yield* open({
        daysSoFar: () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
      })
      const client = yield* Effect.forkChild(ask(port, "/api/v1/quotes?tokens=1"))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(client)
      yield* Deferred.await(interrupted)
    }).pipe(Effect.scoped)
  )

  it.live("lets a request end that is under way when it stops, and takes no more", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      const { port } = yield* open({
        daysSoFar: () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Deferred.await(go)),
            Effect.as(new Map<number, never>())
          )
      }).pipe(Scope.provide(scope))
      const client = yield* Effect.forkChild(ask(port, "/api/v1/quotes?tokens=1"))
      yield* Deferred.await(started)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      const refused = yield* Effect.exit(ask(port, "/healthz"))
      assert.isTrue(Exit.isFailure(refused))
      yield* Deferred.succeed(go, undefined)
      assert.strictEqual((yield* Fiber.join(client)).status, 200)
      yield* Fiber.join(closing)
    })
  )

  it.live("mounts native routes beside its own, and says goodbye through them", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const scope = yield* Scope.make()
      const { port } = yield* serve({
        store: memoryStore(new Rows()),
        mounts: [
          (app, { guard }) => {
            app.get("/native", (res, req) => {
              const refusal = guard({
                host: req.getHeader("host"),
                origin: req.getHeader("origin"),
                secFetchSite: "",
                secFetchMode: ""
              })
              res.end(refusal === undefined ? "let in" : refusal.parameter)
            })
            return Effect.sync(() => {
              order.push("goodbye")
            })
          }
        ]
      }).pipe(Scope.provide(scope))
      assert.strictEqual((yield* ask(port, "/native")).text, "let in")
      assert.strictEqual((yield* ask(port, "/native", { headers: { host: "evil.example.com" } })).text, "Host")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(order, ["goodbye"])
    })
  )
})
