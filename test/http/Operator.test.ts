import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type { Bounds } from "../../src/http/front.ts"
import * as Operator from "../../src/http/Operator.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { rawClient } from "./rawClient.ts"
import { type Asked, ask, operatorSettings } from "./serving.ts"

const open = (bounds: Bounds = {}) =>
  Effect.map(Layer.build(Layer.provideMerge(Operator.layer(operatorSettings, bounds), Readiness.layer)), (context) => ({
    port: Context.get(context, Operator.Operator).port,
    readiness: Context.get(context, Readiness)
  }))

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
})
