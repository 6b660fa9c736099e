import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Stream } from "effect"
import { rangeOf } from "../../src/http/archiveRoutes.ts"
import * as ParquetFiles from "../../src/layers/archive/ParquetFiles.ts"
import * as S3 from "../../src/layers/archive/S3.ts"
import { toQuoteColumns } from "../../src/schema/QuoteColumns.ts"
import { tradingDate } from "../../src/schema/Tick.ts"
import { toColumns } from "../../src/schema/TickColumns.ts"
import { Archive } from "../../src/streams/ports/Archive.ts"
import { DAY, makeTick, NO_QUOTES, OPEN } from "../contract/ticks.ts"
import { emptyBucket, objectIn } from "../support/buckets.ts"
import { quoteOf } from "../support/quotes.ts"
import { s3 } from "../support/services.ts"
import { memoryStore, Rows } from "./memoryStore.ts"
import { serve } from "./serving.ts"

const DATE = tradingDate(DAY)
const NAME = "normalized-1-0-0-9.parquet"
const PATH = `/api/v1/archive/date=${DATE}/${NAME}`

interface Place {
  readonly layer: Layer.Layer<Archive>
  readonly bytes: (key: string) => Promise<Buffer>
}

const access = await s3()
const places = [
  {
    name: "files",
    place: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      ),
      (folder): Place => ({
        layer: Layer.orDie(ParquetFiles.layer(folder)),
        bytes: async (key) => readFileSync(join(folder, key))
      })
    )
  },
  ...(access === undefined
    ? []
    : [
        {
          name: "S3",
          place: Effect.map(
            emptyBucket(access),
            (options): Place => ({
              layer: Layer.orDie(S3.layer(options)),
              bytes: async (key) => Buffer.from(await objectIn(access, key))
            })
          )
        }
      ])
]

/** Pieces of a large object, told as they are asked for. */
const piecesOf = (from: number, to: number, tell: (bytes: number) => void) =>
  Stream.paginate(from, (at: number) =>
    Effect.sync(() => {
      const end = Math.min(to, at + (1 << 20))
      tell(end - at)
      return [[new Uint8Array(end - at)], end < to ? Option.some(end) : Option.none<number>()] as const
    })
  )

/** So many that an object is several pieces long. */
const TICKS = Array.from({ length: 70_000 }, (_, i) =>
  makeTick({
    exchange_ts: OPEN + i * 1000,
    sequence_id: i + 1,
    position: i + 1,
    // Nothing that packs well.
    price: 1 + Math.round(Math.abs(Math.sin(i)) * 1e9) / 1e6,
    volume: Math.round(Math.abs(Math.cos(i)) * 2 ** 40),
    received_ts: OPEN + i * 1000 + Math.round(Math.abs(Math.sin(i * 3)) * 2 ** 30)
  })
)

const fetched = (port: number, path: string, init: RequestInit = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, init)
    const { status, headers } = response
    return { status, headers, body: Buffer.from(await response.arrayBuffer()) }
  })

describe("the archive over HTTP", () => {
  it("reads a Range as RFC 9110 has it", () => {
    assert.deepStrictEqual(rangeOf("bytes=0-9", 100), { from: 0, to: 10 })
    assert.deepStrictEqual(rangeOf("bytes=90-", 100), { from: 90, to: 100 })
    assert.deepStrictEqual(rangeOf("bytes=90-500", 100), { from: 90, to: 100 })
    assert.deepStrictEqual(rangeOf("bytes=-8", 100), { from: 92, to: 100 })
    assert.deepStrictEqual(rangeOf("bytes=-800", 100), { from: 0, to: 100 })
    for (const header of [undefined, "", "bytes=-", "bytes=9-1", "bytes=0-1,5-6", "lines=1-2", "bytes=a-b"]) {
      assert.isUndefined(rangeOf(header, 100), header)
    }
    for (const header of ["bytes=100-", "bytes=100-200", "bytes=-0"]) assert.isNull(rangeOf(header, 100), header)
  })

  for (const { name, place } of places) {
    it.live(`lists a day's objects and answers them whole, in parts, and by their heads alone, from ${name}`, () =>
      Effect.gen(function* () {
        const { layer, bytes } = yield* place
        const archive = Context.get(yield* Layer.build(layer), Archive)
        yield* archive.write(
          { incarnation: "normalized-1", partition: 0, first: 0, last: 9 },
          toColumns(TICKS),
          NO_QUOTES
        )
        const { port } = yield* serve({ store: memoryStore(new Rows()), archive: Layer.succeed(Archive, archive) })
        const expected = yield* Effect.promise(() => bytes(`ticks/date=${DATE}/${NAME}`))
        assert.isAbove(expected.length, 1_100_000)
        const listed = yield* fetched(port, `/api/v1/archive?date=${DATE}`)
        assert.deepStrictEqual(JSON.parse(listed.body.toString("utf8")), {
          date: DATE,
          objects: [{ kind: "ticks", name: NAME, path: PATH, bytes: expected.length, rows: TICKS.length }],
          unreadable: []
        })
        const none = yield* fetched(port, "/api/v1/archive?date=2026-01-20")
        assert.deepInclude(JSON.parse(none.body.toString("utf8")), { objects: [] })

        const whole = yield* fetched(port, PATH)
        assert.strictEqual(whole.status, 200)
        assert.isTrue(whole.body.equals(expected))
        assert.strictEqual(whole.headers.get("content-type"), "application/vnd.apache.parquet")
        assert.strictEqual(whole.headers.get("content-length"), String(expected.length))
        assert.strictEqual(whole.headers.get("accept-ranges"), "bytes")
        const etag = whole.headers.get("etag")!
        const head = yield* fetched(port, PATH, { method: "HEAD" })
        assert.deepStrictEqual([head.status, head.body.length], [200, 0])
        for (const header of ["content-length", "etag", "accept-ranges", "content-type"]) {
          assert.strictEqual(head.headers.get(header), whole.headers.get(header), header)
        }
        for (const [range, from, to] of [
          ["bytes=0-3", 0, 4],
          ["bytes=-8", expected.length - 8, expected.length],
          ["bytes=1000000-1099999", 1_000_000, 1_100_000],
          [`bytes=5-${expected.length + 9}`, 5, expected.length]
        ] as const) {
          const part = yield* fetched(port, PATH, { headers: { range } })
          assert.strictEqual(part.status, 206, range)
          assert.strictEqual(part.headers.get("content-range"), `bytes ${from}-${to - 1}/${expected.length}`)
          assert.strictEqual(part.headers.get("content-length"), String(to - from))
          assert.isTrue(part.body.equals(expected.subarray(from, to)), range)
          const same = yield* fetched(port, PATH, { headers: { range, "if-range": etag } })
          assert.strictEqual(same.status, 206)
          const other = yield* fetched(port, PATH, { headers: { range, "if-range": '"another"' } })
          assert.deepStrictEqual([other.status, other.body.length], [200, expected.length])
        }
        const beyond = yield* fetched(port, PATH, { headers: { range: `bytes=${expected.length}-` } })
        assert.strictEqual(beyond.status, 416)
        assert.strictEqual(beyond.headers.get("content-range"), `bytes */${expected.length}`)
        assert.deepInclude(JSON.parse(beyond.body.toString("utf8")), {
          _tag: "RangeNotSatisfiable",
          parameter: "range"
        })
        const known = yield* fetched(port, PATH, { headers: { "if-none-match": `"x", ${etag}` } })
        assert.deepStrictEqual([known.status, known.body.length, known.headers.get("etag")], [304, 0, etag])

        for (const [path, status, parameter] of [
          [PATH.replace("-9.", "-8."), 404, "object"],
          [PATH.replace(DATE, "2026-01-20"), 404, "object"],
          [PATH.replace(DATE, "2026-02-31"), 400, "day"],
          [PATH.replace(`date=${DATE}`, ".."), 404, undefined],
          [PATH.replace(`date=${DATE}`, "%2e%2e%2fmanifests"), 400, "day"],
          [PATH.replace(NAME, "..%2f..%2fmanifests%2fnormalized-1-0-0.json"), 400, "object"],
          ["/api/v1/archive?date=yesterday", 400, "date"],
          ["/api/v1/archive", 400, "date"]
        ] as const) {
          const refused = yield* fetched(port, path)
          assert.strictEqual(refused.status, status, path)
          if (parameter !== undefined)
            assert.deepInclude(JSON.parse(refused.body.toString("utf8")), { parameter }, path)
        }
      }).pipe(Effect.scoped)
    )
  }

  it.live("says which objects are of quotes, and answers them at a path of their own", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      )
      const archive = Context.get(yield* Layer.build(ParquetFiles.layer(folder)), Archive)
      const quotes = Array.from({ length: 5 }, (_, i) => quoteOf(i, { exchange_ts: OPEN + i }))
      const range = { incarnation: "normalized-1", partition: 0, first: 0, last: 9 }
      yield* archive.write(range, toColumns(TICKS.slice(0, 3)), toQuoteColumns(quotes))
      const { port } = yield* serve({ store: memoryStore(new Rows()), archive: Layer.succeed(Archive, archive) })
      const listed = JSON.parse((yield* fetched(port, `/api/v1/archive?date=${DATE}`)).body.toString("utf8")) as {
        readonly objects: ReadonlyArray<{ readonly kind: string; readonly path: string; readonly rows: number }>
      }
      const path = `/api/v1/archive/quotes/date=${DATE}/${NAME}`
      assert.deepStrictEqual(
        listed.objects.map(({ kind, path, rows }) => [kind, path, rows]),
        [
          ["ticks", PATH, 3],
          ["quotes", path, 5]
        ]
      )
      for (const [kind, at] of [
        ["ticks", PATH],
        ["quotes", path]
      ] as const) {
        const expected = readFileSync(join(folder, kind, `date=${DATE}`, NAME))
        assert.isTrue((yield* fetched(port, at)).body.equals(expected))
        const head = yield* fetched(port, at, { method: "HEAD" })
        assert.deepStrictEqual([head.status, head.headers.get("content-length")], [200, String(expected.length)])
      }
      for (const [at, status] of [
        [path.replace("-9.", "-8."), 404],
        [path.replace(DATE, "2026-02-31"), 400],
        [path.replace("/quotes/", "/bars/"), 404]
      ] as const) {
        assert.strictEqual((yield* fetched(port, at)).status, status, at)
      }
    }).pipe(Effect.scoped)
  )

  it.live("reads an object only as far as its reader has come", () =>
    Effect.gen(function* () {
      const size = 64 << 20
      let asked = 0
      const archive = Layer.mock(Archive)({
        object: () =>
          Effect.succeed({
            bytes: size,
            read: (from, to) =>
              piecesOf(from, to, (bytes) => {
                asked += bytes
              })
          })
      })
      const { port } = yield* serve({ store: memoryStore(new Rows()), archive })
      const socket = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof connect>>((resume) => {
          const opened = connect(port, "127.0.0.1", () => resume(Effect.succeed(opened)))
        }),
        (opened) => Effect.sync(() => opened.destroy())
      )
      socket.pause()
      socket.write(`GET ${PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
      // It stands still once the socket's buffers are full.
      let before = -1
      while (asked === 0 || asked !== before) {
        before = asked
        yield* Effect.sleep("300 millis")
      }
      assert.isBelow(asked, size / 2)
      const got = yield* Effect.callback<number>((resume) => {
        let bytes = 0
        let head = ""
        socket.on("data", (data: Buffer) => {
          if (!head.includes("\r\n\r\n")) {
            head += data.toString("latin1")
            const end = head.indexOf("\r\n\r\n")
            if (end >= 0) bytes = head.length - end - 4
          } else bytes += data.length
        })
        socket.on("end", () => resume(Effect.succeed(bytes)))
        socket.resume()
      })
      assert.strictEqual(got, size)
      assert.strictEqual(asked, size)
    }).pipe(Effect.scoped)
  )

  it.live("names an object that is corrupt, and lists the others", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "archive-"))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      )
      const archive = Context.get(yield* Layer.build(ParquetFiles.layer(folder)), Archive)
      const some = toColumns(TICKS.slice(0, 10))
      yield* archive.write({ incarnation: "normalized-1", partition: 0, first: 0, last: 9 }, some, NO_QUOTES)
      writeFileSync(join(folder, "ticks", `date=${DATE}`, "normalized-1-0-10-19.parquet"), "no Parquet")
      const { port } = yield* serve({ store: memoryStore(new Rows()), archive: Layer.succeed(Archive, archive) })
      const listed = JSON.parse((yield* fetched(port, `/api/v1/archive?date=${DATE}`)).body.toString("utf8")) as {
        readonly objects: ReadonlyArray<{ readonly name: string }>
        readonly unreadable: ReadonlyArray<{ readonly name: string }>
      }
      assert.deepStrictEqual(
        [listed.objects, listed.unreadable].map((all) => all.map((one) => one.name)),
        [[NAME], ["normalized-1-0-10-19.parquet"]]
      )
    }).pipe(Effect.scoped)
  )
})
