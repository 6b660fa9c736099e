import { gzipSync } from "node:zlib"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Metric } from "effect"
import { MAX_BODY_BYTES, MAX_INGEST_BYTES } from "../../src/http/Api.ts"
import { connectionLimit, RESERVED_DESCRIPTORS } from "../../src/http/front.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { halfPost, rawClient } from "./rawClient.ts"
import { ask, type Serving, serve } from "./serving.ts"

const INGEST = "/api/v1/ingest"
const ndjson = { "content-type": "application/x-ndjson" }
const json = { "content-type": "application/json" }
/** 2026-01-16 at 03:45 UTC. */
const START = 1_768_535_100_000_000
const HOST = "Host: localhost\r\n"

const open = (more: Partial<Serving> = {}, change: Parameters<typeof memoryStore>[1] = {}) =>
  serve({ store: memoryStore(new Rows(), change), ...more })

const line = (token: number) =>
  `{"instrument_token":${token},"exchange_ts":"2026-01-16T03:45:00Z","price":1,"sequence_id":1}`

const ticks = (count: number) =>
  Array.from({ length: count }, (_, i) => ({
    instrument_token: 1,
    exchange_ts: START + i,
    price: 1,
    volume: 1,
    sequence_id: i,
    status: "LIVE" as const,
    session: 0,
    sequencing: "contiguous" as const,
    epoch: 1,
    position: i + 1,
    feed: "dma",
    received_ts: START + i
  }))

/** What a metric says now, of the series with these labels; 0 before it was ever touched. */
const figure = (name: string, labels: Readonly<Record<string, string>>) =>
  Effect.map(Metric.snapshot, (all) => {
    const found = all.find(
      (one) => one.id === name && Object.entries(labels).every(([key, value]) => one.attributes?.[key] === value)
    )
    if (found?.type === "Counter") return Number(found.state.count)
    return found?.type === "Gauge" ? Number(found.state.value) : 0
  })

/** Waits until a metric is at least so much. */
const reaches = (name: string, labels: Readonly<Record<string, string>>, least: number) =>
  Effect.gen(function* () {
    while ((yield* figure(name, labels)) < least) yield* Effect.sleep(5)
  })

describe("JSON from outside", () => {
  it.live("is refused where it nests without end, in a body and in a line, and the server goes on", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      for (const nested of [
        "[".repeat(4500) + "]".repeat(4500),
        "[".repeat(60_000),
        `{"date":${"[".repeat(4500)}${"]".repeat(4500)}}`,
        `{"tokens":${'{"a":'.repeat(4500)}1${"}".repeat(4500)}}`
      ]) {
        for (const [method, path] of [
          ["POST", "/api/v1/replays"],
          ["PATCH", "/api/v1/replays/x"]
        ] as const) {
          const answer = yield* ask(port, path, { method, headers: json, body: nested })
          assert.strictEqual(answer.status, 400, answer.text)
          assert.deepStrictEqual(answer.json, {
            _tag: "BadRequest",
            message: "body: expected JSON of at most 32 levels",
            parameter: "body"
          })
        }
        const told = yield* ask(port, INGEST, { method: "POST", headers: ndjson, body: `${nested}\n${line(1)}` })
        assert.strictEqual(told.status, 200, told.text)
        assert.deepInclude(told.json, {
          accepted: 1,
          rejected: [{ line: 1, reason: "expected JSON of at most 32 levels" }]
        })
      }
      // As deep as may be, and brackets that are text.
      const deepest = `${"[".repeat(32)}${"]".repeat(32)}`
      const shallow = yield* ask(port, "/api/v1/replays", { method: "POST", headers: json, body: deepest })
      assert.notInclude(shallow.text, "levels")
      const quoted = `{"date":"${"[".repeat(50)}\\"${"{".repeat(50)}"}`
      const text = yield* ask(port, "/api/v1/replays", { method: "POST", headers: json, body: quoted })
      assert.notInclude(text.text, "levels")
    }).pipe(Effect.scoped)
  )
})

describe("the places for requests", () => {
  it.live("of bodies are taken by half-sent ones, and operators and readers are answered all the same", () =>
    Effect.gen(function* () {
      const { port } = yield* open({ settings: { HTTP_BODIES: 40 } })
      const before = yield* figure("topology_http_refused_total", { kind: "body", reason: "full" })
      const held = yield* Effect.forEach(
        Array.from({ length: 40 }),
        () => rawClient(port, halfPost(INGEST, 1000, "x")),
        {
          concurrency: 40
        }
      )
      yield* reaches("topology_http_requests_active", { kind: "body" }, 40)
      for (const path of ["/healthz", "/readyz", "/metrics", "/topology", "/api/v1/replays", "/openapi.json"]) {
        assert.strictEqual((yield* ask(port, path)).status, 200, path)
      }
      const refused = yield* ask(port, INGEST, { method: "POST", headers: ndjson, body: line(1) })
      assert.strictEqual(refused.status, 503)
      assert.strictEqual(refused.headers["retry-after"], "1")
      assert.deepInclude(refused.json, { _tag: "Unavailable" })
      assert.strictEqual(yield* figure("topology_http_refused_total", { kind: "body", reason: "full" }), before + 1)
      for (const { socket } of held) socket.destroy()
      let again = refused
      while (again.status === 503) {
        again = yield* ask(port, INGEST, { method: "POST", headers: ndjson, body: line(1) })
      }
      assert.strictEqual(again.status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("are not all one address's", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const { port } = yield* open(
        { settings: { HTTP_REQUESTS: 4, HTTP_ADDRESS_PERCENT: 25 } },
        { daysSoFar: () => Effect.andThen(Deferred.succeed(started, undefined), Effect.never) }
      )
      yield* rawClient(port, `GET /api/v1/quotes?tokens=1 HTTP/1.1\r\n${HOST}\r\n`)
      yield* Deferred.await(started)
      const refused = yield* ask(port, "/api/v1/replays")
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.headers["retry-after"], "1")
      assert.deepInclude(refused.json, { _tag: "TooManyRequests" })
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("of streams are few: more are refused, and pages are answered beside them", () =>
    Effect.gen(function* () {
      const page = ticks(1000)
      let pages = 0
      const { port } = yield* open(
        { settings: { HTTP_STREAMS: 2 } },
        {
          ticks: ({ after, limit }) => {
            pages += 1
            return after === undefined ? Effect.succeed(page.slice(0, limit)) : Effect.never
          }
        }
      )
      const path = `/api/v1/historical/ticks?instrument_token=1&from=${START}&to=${START + 1_000_000}`
      const stream = `GET ${path} HTTP/1.1\r\n${HOST}Accept: text/csv\r\n\r\n`
      for (let i = 0; i < 2; i++)
        yield* Effect.flatMap(rawClient(port, stream), ({ until }) => until(/^HTTP\/1\.1 200 /))
      const asked = pages
      const refused = yield* ask(port, path, { headers: { accept: "text/csv" } })
      // Before any of it is read.
      assert.strictEqual(pages, asked)
      assert.strictEqual(refused.status, 503, refused.text.slice(0, 100))
      assert.strictEqual(refused.headers["retry-after"], "1")
      assert.strictEqual((yield* ask(port, `${path}&limit=10`)).status, 200)
    }).pipe(Effect.scoped)
  )
})

describe("a body", () => {
  it.live("that comes too slowly is refused, and its place is free again", () =>
    Effect.gen(function* () {
      const { port } = yield* open({ bounds: { times: { bodyGraceMs: 100, bodyBytesPerSecond: 1_000_000 } } })
      const client = yield* rawClient(port, halfPost(INGEST, 1000, "x"))
      const said = yield* client.ended
      assert.match(said, /^HTTP\/1\.1 408 /)
      assert.include(said, '"_tag":"RequestTimeout"')
      assert.strictEqual(yield* figure("topology_http_requests_active", { kind: "body" }), 0)
    }).pipe(Effect.scoped)
  )

  it.live("that is gzip is unpacked, within what its route takes", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const send = (body: Uint8Array, encoding = "gzip", path = INGEST, type = "application/x-ndjson") =>
        ask(port, path, { method: "POST", headers: { "content-type": type, "content-encoding": encoding }, body })
      const packed = gzipSync(`${line(1)}\n${line(2)}\n`)
      assert.deepInclude((yield* send(packed)).json, { accepted: 2, rejected_total: 0 })
      assert.deepInclude((yield* send(Buffer.from(line(1)), "identity")).json, { accepted: 1 })
      const csv =
        "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,segment,exchange\n"
      const imported = yield* send(gzipSync(csv), "gzip", "/api/v1/instruments", "text/csv")
      assert.strictEqual(imported.status, 200, imported.text)
      for (const [body, status, tag] of [
        [packed.subarray(0, 20), 400, "BadRequest"],
        [Buffer.from(line(1)), 400, "BadRequest"],
        // Within its route's size only while it is packed.
        [gzipSync(Buffer.alloc(MAX_INGEST_BYTES + 1, 0x0a)), 413, "PayloadTooLarge"],
        // Within its size also unpacked, but a thousand times as large.
        [gzipSync(Buffer.alloc(MAX_INGEST_BYTES, 0x0a)), 413, "PayloadTooLarge"]
      ] as const) {
        const answer = yield* send(body)
        assert.strictEqual(answer.status, status, answer.text)
        assert.deepInclude(answer.json, { _tag: tag, parameter: "body" })
      }
      for (const encoding of ["br", "deflate", "zstd", "gzip, gzip"]) {
        const answer = yield* send(packed, encoding)
        assert.strictEqual(answer.status, 415, encoding)
        assert.deepInclude(answer.json, { _tag: "UnsupportedMediaType", parameter: "content-encoding" })
        assert.include(answer.text, encoding)
      }
    }).pipe(Effect.scoped)
  )

  it.live("that is none is an empty one", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      for (const [path, type, status] of [
        [INGEST, "application/x-ndjson", 200],
        ["/api/v1/instruments", "text/csv", 400],
        ["/api/v1/replays", "application/json", 400]
      ] as const) {
        for (const length of ["", "Content-Length: 0\r\n"]) {
          const head = `POST ${path} HTTP/1.1\r\n${HOST}Content-Type: ${type}\r\n${length}\r\n`
          const client = yield* rawClient(port, head)
          assert.match(yield* client.until(/\}$/), new RegExp(`^HTTP/1\\.1 ${status} `), head)
        }
      }
    }).pipe(Effect.scoped)
  )

  it.live("loses no line to a byte order mark", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const body = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(`${line(1)}\n${line(2)}\n`)])
      const answer = yield* ask(port, INGEST, { method: "POST", headers: ndjson, body })
      assert.deepInclude(answer.json, { accepted: 2, rejected_total: 0 })
    }).pipe(Effect.scoped)
  )

  it.live("that is refused may go on coming, so that its sender reads why", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const large = Buffer.alloc(8 * 1_048_576, 0x20)
      for (const [path, headers, status, tag] of [
        [INGEST, json, 415, "UnsupportedMediaType"],
        ["/api/v1/replays", json, 413, "PayloadTooLarge"],
        ["/api/v1/ingests", ndjson, 404, "NotFound"],
        ["/healthz", ndjson, 405, "MethodNotAllowed"],
        [INGEST, { ...ndjson, host: "evil.example.com" }, 403, "Forbidden"]
      ] as const) {
        const answer = yield* ask(port, path, { method: "POST", headers, body: large })
        assert.strictEqual(answer.status, status, `${path}: ${answer.text}`)
        assert.deepInclude(answer.json, { _tag: tag })
        assert.strictEqual(answer.headers.connection, "close")
      }
      // The answer is there before the body is, and the connection ends soon after the client stops.
      const client = yield* rawClient(
        port,
        `POST ${INGEST} HTTP/1.1\r\n${HOST}Content-Type: text/plain\r\nContent-Length: 1000000\r\n\r\nx`
      )
      assert.match(yield* client.until(/\{.*\}/), /^HTTP\/1\.1 415 /)
      yield* client.ended
      // To the byte, where the whole body came: a strict client reads chunks that end, and nothing between them.
      for (const body of ["", "x".repeat(100)]) {
        const strict = yield* rawClient(
          port,
          `POST /api/v1/ingests HTTP/1.1\r\n${HOST}Content-Length: ${body.length}\r\n\r\n${body}`
        )
        const text = yield* strict.until(/\}.*\r\n\r\n$/s)
        const [, size, content] = /\r\n\r\n([0-9a-f]+)\r\n(\{.*\})\r\n0\r\n\r\n$/i.exec(text) ?? []
        assert.strictEqual(Number.parseInt(size ?? "", 16), content?.length, text)
      }
      // One whose length is not said, and who never stops.
      const endless = yield* rawClient(
        port,
        `POST /api/v1/replays HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`
      )
      const chunk = Buffer.concat([
        Buffer.from(`${MAX_BODY_BYTES.toString(16)}\r\n`),
        Buffer.alloc(MAX_BODY_BYTES, 0x20),
        Buffer.from("\r\n")
      ])
      const more = () => {
        while (endless.socket.write(chunk));
      }
      endless.socket.on("drain", more)
      more()
      assert.match(yield* endless.ended, /^HTTP\/1\.1 413 /)
    }).pipe(Effect.scoped)
  )
})

describe("an answer", () => {
  it.live("is counted by its route and status, and what came in with requests by its bytes, refused or not", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const counted = [
        ["/healthz", "200"],
        [INGEST, "200"],
        ["other", "404"],
        [INGEST, "415"]
      ] as const
      const of = ([route, status]: readonly [string, string]) =>
        figure("topology_http_answers_total", { route, status })
      const before = yield* Effect.forEach(counted, of)
      const bytes = yield* figure("topology_http_body_bytes_total", {})
      yield* ask(port, "/healthz")
      yield* ask(port, "/nowhere")
      yield* ask(port, "/api/v1/nowhere")
      const good = line(1)
      yield* ask(port, INGEST, { method: "POST", headers: ndjson, body: good })
      yield* ask(port, INGEST, { method: "POST", headers: { "content-type": "text/html" }, body: "12345" })
      const after = yield* Effect.forEach(counted, of)
      assert.deepStrictEqual(
        after.map((count, i) => count - before[i]!),
        [1, 1, 2, 1]
      )
      assert.strictEqual(yield* figure("topology_http_body_bytes_total", {}), bytes + Buffer.byteLength(good) + 5)
    }).pipe(Effect.scoped)
  )

  it.live("that nobody reads ends with its connection, and holds no memory for the next", () =>
    Effect.gen(function* () {
      const { port } = yield* open({ bounds: { times: { unreadMs: 200 } } })
      const before = yield* figure("topology_http_refused_total", { kind: "ordinary", reason: "unread" })
      // The description of the API is some 60 KB: thousands of it would have to wait somewhere.
      const request = `GET /openapi.json HTTP/1.1\r\n${HOST}\r\n`
      const client = yield* rawClient(port)
      client.socket.pause()
      const closed = Deferred.makeUnsafe<void>()
      client.socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      client.socket.on("error", () => {})
      yield* Effect.gen(function* () {
        for (;;) {
          client.write(request)
          yield* Effect.sleep(1)
        }
      }).pipe(Effect.forkScoped)
      yield* Effect.raceFirst(
        Deferred.await(closed),
        reaches("topology_http_refused_total", { kind: "ordinary", reason: "unread" }, before + 1)
      )
    }).pipe(Effect.scoped)
  )

  it.live("that streams ends with its connection where its client takes nothing, and its place is free again", () =>
    Effect.gen(function* () {
      const page = ticks(1000)
      const { port } = yield* open(
        { settings: { HTTP_STREAMS: 1 }, bounds: { times: { unreadMs: 200 } } },
        { ticks: ({ limit }) => Effect.succeed(page.slice(0, limit)) }
      )
      const before = yield* figure("topology_http_refused_total", { kind: "stream", reason: "unread" })
      const path = `/api/v1/historical/ticks?instrument_token=1&from=${START}&to=${START + 1_000_000}`
      const client = yield* rawClient(port, `GET ${path} HTTP/1.1\r\n${HOST}Accept: text/csv\r\n\r\n`)
      yield* client.until(/^HTTP\/1\.1 200 /)
      client.socket.pause()
      yield* reaches("topology_http_refused_total", { kind: "stream", reason: "unread" }, before + 1)
      assert.strictEqual(yield* figure("topology_http_requests_active", { kind: "stream" }), 0)
    }).pipe(Effect.scoped)
  )

  it.live("that streams is whole, and written in pieces that the library cannot lose", () =>
    Effect.gen(function* () {
      const rows = new Rows()
      rows.ticks.push(...ticks(3000))
      const { port } = yield* serve({ store: memoryStore(rows) })
      const path = `/api/v1/historical/ticks?instrument_token=1&from=${START}&to=${START + 1_000_000}`
      const client = yield* rawClient(port, `GET ${path} HTTP/1.1\r\n${HOST}Accept: text/csv\r\n\r\n`)
      const text = yield* client.until(/\r\n0\r\n\r\n$/)
      const body: Array<string> = []
      for (let at = text.indexOf("\r\n\r\n") + 4; ; ) {
        const line = text.indexOf("\r\n", at)
        const size = Number.parseInt(text.slice(at, line), 16)
        if (size === 0) break
        // With its own head it has room in 16 KiB.
        assert.isAtMost(size, 16_384 - 128)
        body.push(text.slice(line + 2, line + 2 + size))
        at = line + 2 + size + 2
      }
      const lines = body.join("").trimEnd().split("\n").slice(1)
      assert.strictEqual(lines.length, rows.ticks.length)
      assert.isTrue(lines.every((row, i) => row.startsWith(`1,${START + i},`)))
    }).pipe(Effect.scoped)
  )

  it.live("to HEAD has no body, also where it is refused", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      for (const [path, status] of [
        ["/nope", 404],
        ["/api/v1/ingest", 405],
        ["/healthz", 200]
      ] as const) {
        const client = yield* rawClient(port, `HEAD ${path} HTTP/1.1\r\n${HOST}\r\n`)
        const head = yield* client.until(/\r\n\r\n/)
        assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} `))
        client.write(`GET /healthz HTTP/1.1\r\n${HOST}\r\n`)
        const both = yield* client.until(/\{"status":"ok"\}/)
        assert.match(both.slice(head.length), /^HTTP\/1\.1 200 /, path)
      }
    }).pipe(Effect.scoped)
  )
})

describe("a head", () => {
  it.live("that two readers could read in two ways is refused, and its connection ends", () =>
    Effect.gen(function* () {
      const { port } = yield* open()
      const post = `POST ${INGEST} HTTP/1.1\r\n${HOST}Content-Type: application/x-ndjson\r\n`
      for (const [head, status] of [
        [`${post}Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello12`, 400],
        [`${post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`, 400],
        [`${post}Content-Length: \r\n\r\nhello`, 400],
        [`${post}Content-Length: 5, 5\r\n\r\nhello`, 400],
        [`${post}Content-Length: +5\r\n\r\nhello`, 400],
        // The library's own answer, after ours.
        [`${post}Transfer-Encoding: identity\r\n\r\nhello`, 400],
        [`${post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 501],
        [`GET /healthz HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n\r\n`, 501],
        [`${post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
        [`${post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`, 400],
        [`GET /healthz HTTP/1.1\r\n${HOST}Host: evil.example.com\r\n\r\n`, 400],
        [`QUERY /healthz HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`, 405],
        [`BREW /healthz HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`, 501],
        [`get /healthz HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`, 501]
      ] as const) {
        const client = yield* rawClient(port, head)
        const said = yield* client.ended
        assert.match(said, new RegExp(`^HTTP/1\\.1 ${status} `), head)
      }
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )
})

describe("requests on one connection", () => {
  it.live("are answered one after the other, and one that comes before the last is answered ends the connection", () =>
    Effect.gen(function* () {
      const asked = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const { port } = yield* open(
        {},
        {
          daysSoFar: () =>
            Deferred.succeed(asked, undefined).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
            )
        }
      )
      const get = (path: string) => `GET ${path} HTTP/1.1\r\n${HOST}\r\n`
      const client = yield* rawClient(port, get("/healthz"))
      yield* client.until(/"ok"\}/)
      client.write(get("/readyz"))
      yield* client.until(/"ready"/)
      client.write(get("/api/v1/quotes?tokens=1"))
      yield* Deferred.await(asked)
      client.write(get("/healthz"))
      assert.strictEqual((yield* client.ended).match(/HTTP\/1\.1 200/g)?.length, 2)
      yield* Deferred.await(interrupted)
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )
})

describe("a handshake", () => {
  it.live("that is none is refused, and what is wrong with it named", () =>
    Effect.gen(function* () {
      const { port } = yield* open({
        mounts: [
          (app) => {
            app.ws("/native", {
              upgrade: (res, req, context) => {
                res.upgrade({}, req.getHeader("sec-websocket-key"), "", "", context)
              },
              message: () => {}
            })
            return undefined
          }
        ]
      })
      const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
      const upgrade = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
      const version = "Sec-WebSocket-Version: 13\r\n"
      for (const [headers, status, named] of [
        [upgrade + version + key, 101, ""],
        [version + key, 426, "upgrade"],
        [`Upgrade: h2c\r\nConnection: Upgrade\r\n${version}${key}`, 426, "upgrade"],
        [`${upgrade}Sec-WebSocket-Version: 8\r\n${key}`, 426, "sec-websocket-version"],
        [upgrade + key, 426, "sec-websocket-version"],
        [upgrade + version, 426, "upgrade"],
        [`${upgrade}${version}Sec-WebSocket-Key: short\r\n`, 426, "upgrade"],
        [`${upgrade}${version}Sec-WebSocket-Key: ${"*".repeat(22)}==\r\n`, 400, "sec-websocket-key"],
        [`${upgrade}${version}Sec-WebSocket-Version: 8\r\n${key}`, 400, "sec-websocket-version"],
        [`${upgrade}${version}${key}Sec-WebSocket-Key: short\r\n`, 400, "sec-websocket-key"],
        [`Host: evil.example.com\r\n${upgrade}${version}${key}`, 400, "Host"]
      ] as const) {
        const client = yield* rawClient(port, `GET /native HTTP/1.1\r\n${HOST}${headers}\r\n`)
        const said = status === 101 ? yield* client.until(/\r\n\r\n/) : yield* client.ended
        assert.match(said, new RegExp(`^HTTP/1\\.1 ${status} `), headers)
        if (status !== 101) assert.include(said, `"parameter":"${named}"`, headers)
        if (status === 426) assert.include(said.toLowerCase(), "sec-websocket-version: 13", headers)
      }
    }).pipe(Effect.scoped)
  )
})

describe("a handler that throws", () => {
  it.live("costs its own connection, and nothing else", () =>
    Effect.gen(function* () {
      const { port } = yield* open({
        mounts: [
          (app) => {
            app.get("/throws", () => {
              throw new Error("oops")
            })
            app.get("/rejects", async (res) => {
              res.onAborted(() => {})
              throw new Error("oops")
            })
            return undefined
          }
        ]
      })
      for (const path of ["/throws", "/rejects"]) {
        const client = yield* rawClient(port, `GET ${path} HTTP/1.1\r\n${HOST}\r\n`)
        assert.strictEqual(yield* client.ended, "")
      }
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
    }).pipe(Effect.scoped)
  )
})

describe("connections", () => {
  it("leave the drivers their descriptors", () => {
    assert.strictEqual(connectionLimit(1024), 1024 - RESERVED_DESCRIPTORS)
    assert.strictEqual(connectionLimit(100), 50)
    assert.isAbove(connectionLimit(), 0)
  })

  it.live(
    "beyond the most that may be are ended at once, and where they are scarce none is kept for another request",
    () =>
      Effect.gen(function* () {
        const { port } = yield* open({ bounds: { connections: 4 } })
        const before = yield* figure("topology_http_refused_total", { kind: "connection", reason: "full" })
        const get = `GET /healthz HTTP/1.1\r\n${HOST}\r\n`
        const kept = yield* Effect.forEach([1, 2], () => rawClient(port, get))
        for (const { until } of kept) assert.notMatch(yield* until(/"ok"\}/), /connection: close/i)
        const silent = yield* Effect.forEach([1, 2], () => rawClient(port))
        const more = yield* rawClient(port, get)
        assert.strictEqual(yield* more.ended, "")
        assert.strictEqual(
          yield* figure("topology_http_refused_total", { kind: "connection", reason: "full" }),
          before + 1
        )
        const [first] = kept
        first!.write(get)
        const both = yield* first!.ended
        assert.strictEqual(both.match(/"ok"\}/g)?.length, 2)
        assert.match(both, /connection: close/i)
        for (const { socket } of [...kept, ...silent]) socket.destroy()
        let isAnswered = false
        while (!isAnswered) isAnswered = (yield* Effect.exit(ask(port, "/healthz")))._tag === "Success"
      }).pipe(Effect.scoped)
  )

  it.live("are not all one address's", () =>
    Effect.gen(function* () {
      const { port } = yield* open({ bounds: { connections: 8 }, settings: { HTTP_ADDRESS_PERCENT: 25 } })
      const before = yield* figure("topology_http_refused_total", { kind: "connection", reason: "address" })
      yield* Effect.forEach([1, 2], () => rawClient(port))
      const more = yield* rawClient(port)
      assert.strictEqual(yield* more.ended, "")
      const after = yield* figure("topology_http_refused_total", { kind: "connection", reason: "address" })
      assert.strictEqual(after, before + 1)
    }).pipe(Effect.scoped)
  )
})
