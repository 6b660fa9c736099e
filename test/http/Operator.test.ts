import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { type Access, layerOpen } from "../../src/http/access.ts"
import type { Bounds } from "../../src/http/front.ts"
import * as Operator from "../../src/http/Operator.ts"
import type { StartError } from "../../src/schema/Errors.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { hasNamespaces, namespace, ownAddress, statuses } from "../support/elsewhere.ts"
import { accessBy, bearer, keysFile, type MadeKey, makeKey } from "../support/keys.ts"
import { rawClient } from "./rawClient.ts"
import { type Asked, ask, operatorSettings } from "./serving.ts"

const open = (
  bounds: Bounds = {},
  settings: Partial<Operator.OperatorSettings> = {},
  access: Layer.Layer<Access, StartError> = layerOpen
) =>
  Effect.map(
    Layer.build(
      Layer.provideMerge(
        Operator.layer({ ...operatorSettings, ...settings }, bounds),
        Layer.merge(Readiness.layer, access)
      )
    ),
    (context) => ({
      port: Context.get(context, Operator.Operator).port,
      url: Context.get(context, Operator.Operator).url,
      readiness: Context.get(context, Readiness)
    })
  )

const PATHS = ["/healthz", "/readyz", "/metrics", "/nope"]

describe("a worker's own port", () => {
  it.live("answers what operators ask, and says what it waits for", () =>
    Effect.gen(function* () {
      const { port, readiness } = yield* open()
      const met = yield* readiness.condition("log caught up")
      assert.deepStrictEqual((yield* ask(port, "/healthz")).json, { status: "ok" })
      const waiting = yield* ask(port, "/readyz")
      assert.strictEqual(waiting.status, 503)
      assert.deepInclude(waiting.json, { _tag: "NotReady", waiting: ["log caught up"] })
      yield* met
      assert.strictEqual((yield* ask(port, "/readyz")).status, 200)
      const figures = yield* ask(port, "/metrics")
      assert.match(figures.text, /^topology_http_requests_active\{.*kind="operator".*\} 1$/m)
    }).pipe(Effect.scoped)
  )

  it.live("refuses what the server refuses, in the same form", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const large = Buffer.alloc(2_000_000, 0x20)
      const cases: ReadonlyArray<readonly [string, Asked, number, string, string]> = [
        ["/metrics", { headers: { host: "evil.example.com" } }, 403, "Forbidden", "Host"],
        ["/metrics", { headers: { origin: "https://evil.example.com" } }, 403, "Forbidden", "Origin"],
        ["/nope", {}, 404, "NotFound", "path"],
        ["/nope", { method: "POST", body: large }, 404, "NotFound", "path"],
        ["/healthz", { method: "POST", body: large }, 405, "MethodNotAllowed", "method"]
      ]
      for (const [path, request, status, tag, parameter] of cases) {
        const answer = yield* ask(port, path, request)
        assert.strictEqual(answer.status, status, answer.text)
        assert.deepInclude(answer.json, { _tag: tag, parameter })
      }
      const twice = yield* rawClient(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
      assert.match(yield* twice.ended, /^HTTP\/1\.1 400 /)
    }).pipe(Effect.scoped)
  )

  it.live("answers HEAD as GET without the body, and the next request on the same connection", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const client = yield* rawClient(port, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      const head = yield* client.until(/\r\n\r\n/)
      assert.match(head, /^HTTP\/1\.1 200 /)
      assert.match(head, /content-length: 15\r\n/i)
      client.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      assert.match((yield* client.until(/"ok"\}/)).slice(head.length), /^HTTP\/1\.1 200 /)
    }).pipe(Effect.scoped)
  )

  it.live("keeps no more connections than it may", () =>
    Effect.gen(function* () {
      const { port } = yield* open({ connections: 2 })
      const kept = yield* Effect.forEach([1, 2], () => rawClient(port))
      const more = yield* rawClient(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      assert.strictEqual(yield* more.ended, "")
      for (const { socket } of kept) socket.destroy()
      let isAnswered = false
      while (!isAnswered) isAnswered = (yield* Effect.exit(ask(port, "/healthz")))._tag === "Success"
    }).pipe(Effect.scoped)
  )

  it.live("is refused on an address that others reach, unless METRICS_ALLOW says who may read", () =>
    Effect.gen(function* () {
      for (const METRICS_HOST of ["0.0.0.0", "::", "192.0.2.1", "worker"]) {
        const refused = yield* Effect.flip(Effect.scoped(open({}, { METRICS_HOST })))
        assert.strictEqual(
          refused.message,
          `METRICS_HOST: ${METRICS_HOST} can be reached by others: METRICS_ALLOW, such as 10.0.0.0/8, or API_KEYS_FILE has to say who may read /metrics`
        )
      }
      const wrong = { METRICS_HOST: "0.0.0.0", METRICS_ALLOW: "10.0.0.0/99" }
      assert.match((yield* Effect.flip(Effect.scoped(open({}, wrong)))).message, /^METRICS_ALLOW: .*"10\.0\.0\.0\/99"$/)
      const { port, url } = yield* open({}, { METRICS_HOST: "0.0.0.0", METRICS_ALLOW: "10.0.0.0/8" })
      assert.strictEqual(url, `http://127.0.0.1:${port}`)
      // Whoever runs here may always.
      for (const localAddress of ["127.0.0.1", "127.0.0.2"]) {
        assert.strictEqual((yield* ask(port, "/metrics", { localAddress })).status, 200)
      }
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(ownAddress === undefined)("is read by whom METRICS_ALLOW names, and by nobody else", () =>
    Effect.gen(function* () {
      const host = ownAddress!
      const asked = (METRICS_ALLOW: string) =>
        Effect.scoped(
          Effect.gen(function* () {
            const { port } = yield* open({}, { METRICS_HOST: "0.0.0.0", METRICS_ALLOW })
            // As a kubelet and a Prometheus that found the address call it.
            const answers = yield* Effect.forEach(PATHS, (path) => ask(port, path, { host }))
            return answers.map(({ status, json }) => [status, (json as { readonly parameter?: string })?.parameter])
          })
        )
      assert.deepStrictEqual(yield* asked(`${host}/32`), [
        [200, undefined],
        [200, undefined],
        [200, undefined],
        [404, "path"]
      ])
      assert.deepStrictEqual(yield* asked("203.0.113.0/24"), [
        [200, undefined],
        [200, undefined],
        [403, "address"],
        [403, "address"]
      ])
    })
  )

  it.live.skipIf(ownAddress === undefined)("is read by who shows a key that may read, from wherever it calls", () =>
    Effect.gen(function* () {
      const host = ownAddress!
      const reader = makeKey("prometheus", { scopes: ["read"] })
      const writer = makeKey("feed", { scopes: ["write"] })
      const some = makeKey("some", { scopes: ["read"], instruments: ["NSE:INFY"] })
      const { path } = yield* keysFile([reader, writer, some])
      const { port } = yield* open({}, { METRICS_HOST: "0.0.0.0", API_KEYS_FILE: path }, accessBy(path))
      const status = (path: string, key?: MadeKey) =>
        Effect.map(ask(port, path, { host, headers: key === undefined ? {} : bearer(key) }), ({ status }) => status)
      assert.strictEqual(yield* status("/healthz"), 200)
      assert.strictEqual(yield* status("/readyz"), 200)
      assert.strictEqual(yield* status("/metrics"), 401)
      assert.strictEqual(yield* status("/metrics", reader), 200)
      for (const key of [writer, some]) assert.strictEqual(yield* status("/metrics", key), 403)
      assert.strictEqual((yield* ask(port, "/metrics")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("is called by the names of ALLOWED_HOSTS besides", () =>
    Effect.gen(function* () {
      const { port } = yield* open({}, { ALLOWED_HOSTS: "worker.market.svc" })
      const status = (host: string) => Effect.map(ask(port, "/metrics", { headers: { host } }), ({ status }) => status)
      assert.strictEqual(yield* status("worker.market.svc:9464"), 200)
      assert.strictEqual(yield* status("worker.market"), 403)
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(!hasNamespaces)(
    "is reached from another network namespace where it is meant, and not where it is not",
    () =>
      Effect.gen(function* () {
        const [prometheus, other] = [yield* namespace, yield* namespace]
        const { port } = yield* open({}, { METRICS_HOST: "0.0.0.0", METRICS_ALLOW: prometheus.address })
        const from = ({ host, run }: typeof prometheus, name?: string) =>
          Effect.map(
            run(
              statuses(
                PATHS.map((path) => `http://${host}:${port}${path}`),
                name
              )
            ),
            (text): unknown => JSON.parse(text)
          )
        assert.deepStrictEqual(yield* from(prometheus), [200, 200, 200, 404])
        assert.deepStrictEqual(yield* from(other), [200, 200, 403, 403])
        assert.deepStrictEqual(yield* from(prometheus, "evil.example.com"), [403, 403, 403, 403])
        const { port: unmeant } = yield* open()
        const text = yield* prometheus.run(statuses([`http://${prometheus.host}:${unmeant}/healthz`]))
        assert.deepStrictEqual(JSON.parse(text), ["ECONNREFUSED"])
      }).pipe(Effect.scoped)
  )
})
