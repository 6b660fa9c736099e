/**
 * Decides that no bytes on a connection end the server or make it fail: requests by a seed, right in most parts and
 * wrong in some. FUZZ_REQUESTS and FUZZ_SEED make a longer run of it, or another.
 */
import { gzipSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { layerOpen } from "../../src/http/access.ts"
import * as Operator from "../../src/http/Operator.ts"
import { Readiness } from "../../src/streams/run/Readiness.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { rawClient } from "./rawClient.ts"
import { operatorSettings, serve } from "./serving.ts"

const REQUESTS = Number(process.env.FUZZ_REQUESTS ?? 1000)
const SEED = Number(process.env.FUZZ_SEED ?? 1)

/** Mulberry32. */
const random = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

const ODD = [
  "",
  " ",
  "\t",
  "\0",
  "\r",
  "\n",
  "\x7f",
  "\xff",
  "%",
  "%00",
  "%ZZ",
  "..",
  "//",
  "é",
  "\u001b[31m",
  ",",
  ";",
  ":",
  '"'
]
const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PATCH",
  "PUT",
  "DELETE",
  "OPTIONS",
  "TRACE",
  "CONNECT",
  "BREW",
  "get",
  "P\0ST",
  "",
  "A".repeat(300)
]
const PATHS = [
  "/",
  "/healthz",
  "/readyz",
  "/metrics",
  "/topology",
  "/openapi.json",
  "/ws",
  "/nope",
  "*",
  "http://localhost/healthz",
  "/api/v1/ingest",
  "/api/v1/instruments",
  "/api/v1/replays",
  "/api/v1/replays/x",
  "/api/v1/instruments/1",
  "/api/v1/instruments/search",
  "/api/v1/quotes",
  "/api/v1/historical/ticks",
  "/api/v1/historical/candles",
  "/api/v1/calendar"
]
const PARAMETERS = [
  "query",
  "limit",
  "tokens",
  "instrument_token",
  "symbol",
  "from",
  "to",
  "cursor",
  "interval",
  "date",
  "exchange",
  "fill"
]
const VALUES = [
  "1",
  "0",
  "-1",
  "1e9",
  "9".repeat(40),
  "x",
  "2026-01-16",
  "1768535100000000",
  "1m",
  "NSE",
  "[1]",
  "%5B".repeat(50)
]
const TYPES = [
  "application/json",
  "application/x-ndjson",
  "text/csv",
  "text/plain",
  "application/json; charset=utf-16",
  "multipart/form-data",
  ""
]
const LENGTHS = ["0", "5", "-5", "+5", "5, 5", "0x5", "", " ", "99999999999999999999", "1e3", "5;", "33554433"]
const CODINGS = ["chunked", "identity", "gzip", "gzip, chunked", "Chunked", "chunked, chunked", ""]
const BODIES: ReadonlyArray<string | Uint8Array> = [
  "",
  "{}",
  "[".repeat(4500),
  `{"date":${"[".repeat(2000)}`,
  '{"instrument_token":1,"exchange_ts":1768535100000000,"price":1}\n',
  "\u0000",
  "\xef\xbb\xbf{}",
  '{"__proto__":{"a":1}}',
  `"${"\\u0000".repeat(100)}"`,
  "a,b\n1,2\n",
  gzipSync("{}\n"),
  gzipSync(Buffer.alloc(2_000_000, 0x5b)),
  gzipSync("{}").subarray(0, 10)
]

/** One request, as bytes. */
const request = (next: () => number): Buffer => {
  const of = <A>(list: ReadonlyArray<A>): A => list[Math.floor(next() * list.length)]!
  const maybe = (chance: number) => next() < chance
  const odd = (text: string): string => {
    if (!maybe(0.05)) return text
    const at = Math.floor(next() * (text.length + 1))
    return text.slice(0, at) + of(ODD) + text.slice(at)
  }
  const query = maybe(0.5)
    ? `?${Array.from({ length: Math.floor(next() * 4) }, () => `${odd(of(PARAMETERS))}=${odd(of(VALUES))}`).join(maybe(0.95) ? "&" : "?")}`
    : ""
  const target = maybe(0.01) ? `/${"a".repeat(Math.floor(next() * 9000))}` : odd(of(PATHS)) + query
  const version = maybe(0.95) ? "HTTP/1.1" : of(["HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "", "http/1.1", "HTTP/1.1 "])
  const end = maybe(0.98) ? "\r\n" : of(["\n", "\r", ""])
  const headers: Array<string> = []
  if (maybe(0.97))
    headers.push(`Host: ${maybe(0.95) ? "localhost" : of(["evil.example.com", "", "[::1]:99999", "a b"])}`)
  if (maybe(0.7)) headers.push(`Content-Type: ${odd(of(TYPES))}`)
  if (maybe(0.3)) headers.push(`Content-Encoding: ${of(["gzip", "br", "identity", "GZIP", "gzip,gzip", ""])}`)
  if (maybe(0.1)) headers.push(`Origin: ${of(["http://localhost", "https://evil.example.com", "null", "\x01"])}`)
  if (maybe(0.1)) headers.push(`Expect: ${of(["100-continue", "200-ok", ""])}`)
  if (maybe(0.1)) headers.push(`Connection: ${of(["close", "keep-alive", "upgrade", "x"])}`)
  if (maybe(0.1)) {
    headers.push(
      "Upgrade: websocket",
      `Sec-WebSocket-Version: ${of(["13", "8", "x"])}`,
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    )
  }
  if (maybe(0.1)) headers.push(`Accept: ${of(["text/csv", "application/x-ndjson", "*/*", ",,;"])}`)
  if (maybe(0.02)) headers.push(`X-Long: ${"a".repeat(Math.floor(next() * 20_000))}`)
  if (maybe(0.02)) for (let i = 0; i < 150; i++) headers.push(`X-${i}: ${i}`)
  const raw = of(BODIES)
  let body = typeof raw === "string" ? Buffer.from(raw, "latin1") : Buffer.from(raw)
  if (maybe(0.5)) headers.push(`Content-Length: ${maybe(0.8) ? body.length : of(LENGTHS)}`)
  if (maybe(0.05)) headers.push(`Content-Length: ${of(LENGTHS)}`)
  if (maybe(0.2)) {
    headers.push(`Transfer-Encoding: ${maybe(0.8) ? "chunked" : of(CODINGS)}`)
    const size = maybe(0.8)
      ? body.length.toString(16)
      : of(["zz", "-1", "ffffffffffffffff", "5;x=y", "", "0x5", "7fffffff"])
    body = Buffer.concat([
      Buffer.from(`${size}\r\n`),
      body,
      Buffer.from(maybe(0.8) ? "\r\n0\r\n\r\n" : of(["", "\r\n", "0\r\n", "\r\n0\r\nT: a\r\n\r\n"]))
    ])
  }
  const head = `${of(METHODS.slice(0, maybe(0.8) ? 4 : METHODS.length))} ${target} ${version}${end}${headers.map((h) => odd(h) + end).join("")}${end}`
  const whole = Buffer.concat([Buffer.from(head, "latin1"), body])
  if (maybe(0.05)) return whole.subarray(0, Math.floor(next() * whole.length))
  // Another one behind it, on the same connection.
  return maybe(0.1) ? Buffer.concat([whole, Buffer.from("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")]) : whole
}

/** Asks as the seed says; after each a good request on a connection of its own is answered. */
const fuzz = (port: number, seed: number, requests: number) =>
  Effect.gen(function* () {
    const next = random(seed)
    const good = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for (let i = 0; i < requests; i++) {
      const bytes = request(next)
      const cut = next() < 0.3 ? Math.floor(next() * bytes.length) : bytes.length
      const shown = JSON.stringify(bytes.subarray(0, 300).toString("latin1"))
      const said = yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* rawClient(port, bytes.subarray(0, cut))
          if (cut < bytes.length) client.write(bytes.subarray(cut))
          const other = yield* rawClient(port, good)
          assert.match(yield* other.until(/"ok"\}/), /^HTTP\/1\.1 200 /, `seed ${seed}, request ${i}: ${shown}`)
          client.socket.end()
          return yield* client.ended
        })
      )
      for (const [, status] of said.matchAll(/(?:^|[\r\n}>])HTTP\/1\.1 (\d{3}) /g)) {
        assert.notStrictEqual(status, "500", `seed ${seed}, request ${i}: ${shown}`)
      }
      assert.match(said, /^($|HTTP\/1\.1 [1245]\d\d )/, `seed ${seed}, request ${i}: ${shown}`)
    }
  })

describe("whatever bytes come on a connection", () => {
  it.live(
    "the server goes on, and fails at none of them",
    () =>
      Effect.gen(function* () {
        const { port } = yield* serve({ store: memoryStore(new Rows()) })
        yield* fuzz(port, SEED, REQUESTS)
      }).pipe(Effect.scoped),
    { timeout: 60_000 + REQUESTS * 100 }
  )

  it.live(
    "a worker's own port goes on",
    () =>
      Effect.gen(function* () {
        const context = yield* Layer.build(
          Layer.provide(Operator.layer(operatorSettings), Layer.merge(Readiness.layer, layerOpen))
        )
        yield* fuzz(Context.get(context, Operator.Operator).port, SEED + 1, Math.ceil(REQUESTS / 4))
      }).pipe(Effect.scoped),
    { timeout: 60_000 + REQUESTS * 100 }
  )
})
