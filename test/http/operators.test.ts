import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { isLoopback, namedReaders, readNetworks } from "../../src/http/operators.ts"
import { hasNamespaces, namespace, ownAddress, statuses } from "../support/elsewhere.ts"
import { accessBy, bearer, keysFile, makeKey } from "../support/keys.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { type Asked, ask, serve } from "./serving.ts"

const networks = (text: string) => Result.getOrThrow(readNetworks(text))

describe("METRICS_ALLOW", () => {
  it("names addresses and networks of both versions", () => {
    const allowed = networks("10.0.0.0/8, 192.168.1.5,fd00::/8, 2001:db8::1, 172.16.5.9/12")
    for (const address of [
      "10.0.0.1",
      "10.255.255.255",
      "192.168.1.5",
      "172.31.0.1",
      // As the server underneath writes them.
      "fd00:0000:0000:0000:0000:0000:0000:0001",
      "2001:0db8:0000:0000:0000:0000:0000:0001"
    ]) {
      assert.isTrue(allowed(address), address)
    }
    for (const address of ["11.0.0.1", "192.168.1.6", "172.32.0.1", "127.0.0.1", "fe80::1", "2001:db8::2", "", "x"]) {
      assert.isFalse(allowed(address), address)
    }
    assert.isTrue(networks("0.0.0.0/0,::/0")("203.0.113.9"))
    assert.isTrue(networks("0.0.0.0/0,::/0")("2001:db8::9"))
    assert.isFalse(networks(" , ")("10.0.0.1"))
  })

  it("is nobody's word where it is unset", () => {
    assert.isUndefined(Result.getOrThrow(namedReaders(undefined)))
    const readers = Result.getOrThrow(namedReaders("10.0.0.0/8"))!
    assert.isTrue(readers("10.1.1.1"))
    for (const address of ["127.0.0.1", "192.168.1.1"]) assert.isFalse(readers(address), address)
    for (const address of ["127.0.0.1", "127.0.0.2", "0000:0000:0000:0000:0000:0000:0000:0001"]) {
      assert.isTrue(isLoopback(address), address)
    }
    assert.isFalse(isLoopback("10.1.1.1"))
  })

  it("is refused in one line that names the entry", () => {
    for (const entry of [
      "10.0.0.0/33",
      "fd00::/129",
      "10.0.0",
      "example.com",
      "10.0.0.0/",
      "10.0.0.0/8/8",
      "fe80::1%eth0",
      "10.0.0.0/08",
      "10.0.0.1:80",
      "/8"
    ]) {
      const refused = readNetworks(`10.0.0.0/8,${entry}`)
      assert(Result.isFailure(refused), entry)
      assert.strictEqual(refused.failure.setting, "METRICS_ALLOW")
      assert.strictEqual(
        refused.failure.message,
        `METRICS_ALLOW: expected addresses and networks such as 10.0.0.0/8, comma-separated, got ${JSON.stringify(entry)}`
      )
    }
  })
})

const FIGURES = ["/metrics", "/topology"]
const HEALTH = ["/healthz", "/readyz"]

const open = (settings: Parameters<typeof serve>[0]["settings"]) =>
  serve({ store: memoryStore(new Rows()), settings: { HOST: "0.0.0.0", ...settings } })

describe("the server's figures", () => {
  it.live.skipIf(ownAddress === undefined)(
    "are for whom METRICS_ALLOW names, in whatever form they are asked for",
    () =>
      Effect.gen(function* () {
        const host = ownAddress!
        const { port } = yield* open({ METRICS_ALLOW: "203.0.113.0/24" })
        for (const path of FIGURES) {
          const headers = { host: "localhost" }
          for (const form of [path, `${path}?a=1`]) {
            const answer = yield* ask(port, form, { host, headers })
            assert.deepInclude(answer.json, { _tag: "Forbidden", parameter: "address" }, form)
            assert.strictEqual(answer.status, 403, form)
          }
          assert.strictEqual((yield* ask(port, path, { host, headers, method: "HEAD" })).status, 403)
          const escaped = `/%${path.charCodeAt(1).toString(16)}${path.slice(2)}`
          const forms = [
            `${path}/`,
            `/${path}`,
            `/.${path}`,
            `/a/..${path}`,
            `${path}/.`,
            path.toUpperCase(),
            `${path};a`
          ]
          for (const form of [...forms, escaped, `${path}#a`, `${path}%20`, `http://localhost${path}`, `\\..${path}`]) {
            const answer = yield* ask(port, form, { host, headers })
            assert.include([400, 403, 404, 505], answer.status, form)
            assert.notInclude(answer.text, "topology_", form)
          }
          assert.strictEqual((yield* ask(port, path, { localAddress: "127.0.0.2" })).status, 200)
        }
        for (const path of HEALTH) assert.strictEqual((yield* ask(port, path, { host })).status, 200)
      }).pipe(Effect.scoped)
  )

  it.live.skipIf(ownAddress === undefined)(
    "are read without a key from where METRICS_ALLOW names, and with one from anywhere",
    () =>
      Effect.gen(function* () {
        const host = ownAddress!
        const reader = makeKey("prometheus", { scopes: ["read"] })
        const { path } = yield* keysFile([reader])
        const opened = (METRICS_ALLOW?: string) =>
          serve({
            store: memoryStore(new Rows()),
            settings: { HOST: "0.0.0.0", ALLOWED_HOSTS: host, METRICS_ALLOW },
            access: accessBy(path)
          })
        const status = (port: number, path: string, asked: Asked = {}) =>
          Effect.map(ask(port, path, asked), ({ status }) => status)
        const named = yield* opened(`${host}/32`)
        const strict = yield* opened("203.0.113.0/24")
        const unset = yield* opened()
        for (const path of FIGURES) {
          assert.strictEqual(yield* status(named.port, path, { host }), 200)
          // Loopback may be a proxy's.
          for (const { port } of [named, strict, unset]) assert.strictEqual(yield* status(port, path), 401)
          for (const { port } of [strict, unset]) assert.strictEqual(yield* status(port, path, { host }), 401)
          for (const { port } of [named, strict, unset]) {
            assert.strictEqual(yield* status(port, path, { host, headers: bearer(reader) }), 200)
          }
        }
        assert.strictEqual(yield* status(named.port, "/api/v1/quotes?tokens=1", { host }), 401)
      }).pipe(Effect.scoped)
  )

  it.live.skipIf(ownAddress === undefined)("are for whoever reaches the server where it is unset", () =>
    Effect.gen(function* () {
      const { port } = yield* open({})
      for (const path of [...FIGURES, ...HEALTH]) {
        assert.strictEqual((yield* ask(port, path, { host: ownAddress! })).status, 200, path)
      }
      // Other routes go by name: an address is one where ALLOWED_HOSTS says so.
      const route = "/api/v1/quotes?tokens=1"
      assert.strictEqual((yield* ask(port, route, { host: ownAddress! })).status, 403)
      const named = yield* open({ ALLOWED_HOSTS: ownAddress! })
      assert.strictEqual((yield* ask(named.port, route, { host: ownAddress! })).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(!hasNamespaces)(
    "are reached from another network namespace where it is meant, and not where it is not",
    () =>
      Effect.gen(function* () {
        const [prometheus, other] = [yield* namespace, yield* namespace]
        const { port } = yield* open({ METRICS_ALLOW: prometheus.address, ALLOWED_HOSTS: "server.market.svc" })
        const from = ({ host, run }: typeof prometheus, name?: string) =>
          Effect.map(
            run(
              statuses(
                [...FIGURES, ...HEALTH].map((path) => `http://${host}:${port}${path}`),
                name
              )
            ),
            (text): unknown => JSON.parse(text)
          )
        assert.deepStrictEqual(yield* from(prometheus), [200, 200, 200, 200])
        assert.deepStrictEqual(yield* from(prometheus, "server.market.svc:8080"), [200, 200, 200, 200])
        assert.deepStrictEqual(yield* from(prometheus, "other.market.svc:8080"), [403, 403, 403, 403])
        assert.deepStrictEqual(yield* from(other), [403, 403, 200, 200])
      }).pipe(Effect.scoped)
  )
})
