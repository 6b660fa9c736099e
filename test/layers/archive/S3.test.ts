import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Stream } from "effect"
import * as S3 from "../../../src/layers/archive/S3.ts"
import type { Level } from "../../../src/schema/Quote.ts"
import { toQuoteColumns } from "../../../src/schema/QuoteColumns.ts"
import { toColumns } from "../../../src/schema/TickColumns.ts"
import { Archive } from "../../../src/streams/ports/Archive.ts"
import { makeQuote, makeTick, NO_QUOTES, OPEN } from "../../contract/ticks.ts"
import { emptyBucket, keysIn, objectIn, optionsFor } from "../../support/buckets.ts"
import { type Fate, httpProxy, type Seen } from "../../support/httpProxy.ts"
import { freePort, type S3Access, s3 } from "../../support/services.ts"
import { DATES, MANIFEST, OBJECTS, QUOTES, RANGE, TICKS } from "./twoDays.ts"

const PROOF = "manifests/.if-none-match"
const KEYS = [PROOF, MANIFEST, ...OBJECTS].sort()

const found = await s3()
/** The tests are skipped without it. */
const access: S3Access = found ?? { endpoint: "", bucket: "", region: "", accessKeyId: "", secretAccessKey: "" }

const write = Effect.flatMap(Archive, (archive) => archive.write(RANGE, toColumns(TICKS), toQuoteColumns(QUOTES)))

/** The sequence ids of both days and the sources of their quotes, as the archive gives them. */
const readBoth = Effect.flatMap(Archive, (archive) =>
  Effect.forEach(DATES, (date) =>
    Effect.gen(function* () {
      const ticks = (yield* Stream.runCollect(archive.read(date, undefined))).flat()
      const quotes = (yield* Stream.runCollect(archive.quotes(date, undefined))).flat()
      return [ticks.map(({ sequence_id }) => sequence_id), quotes.map(({ source }) => source[1])]
    })
  )
)
const BOTH = [
  [
    [0, 1, 2, 3],
    [0, 1, 2]
  ],
  [
    [4, 5, 6, 7],
    [3, 4, 5]
  ]
]

/** An archive on the emptied bucket through a proxy. */
const throughProxy = (given: Partial<S3.S3Options> = {}) =>
  Effect.gen(function* () {
    const options = yield* emptyBucket(access)
    const proxy = yield* httpProxy(access.endpoint)
    return { proxy, layer: S3.layer({ ...options, endpoint: proxy.url, ...given }) }
  })

/** Spoils the first request that `is` names. */
const once1 = (is: (seen: Seen) => boolean, fate: Fate): ((seen: Seen) => Fate) => {
  let isOver = false
  return (seen) => {
    if (isOver || !is(seen)) return "pass"
    isOver = true
    return fate
  }
}

const isPutOf = (key: string) => (seen: Seen) =>
  seen.method === "PUT" && decodeURIComponent(seen.path).includes(`/${key}`)

const startError = (options: S3.S3Options) =>
  Effect.map(Effect.flip(Layer.build(S3.layer(options))), (error) => {
    assert.strictEqual(error._tag, "StartError")
    assert.notInclude(error.message, access.secretAccessKey)
    assert.notInclude(error.message, "\n")
    return error.message
  })

describe.skipIf(found === undefined)("S3", () => {
  it.effect("puts manifest and objects where other tools find them", () =>
    Effect.gen(function* () {
      const options = yield* emptyBucket(access)
      yield* write.pipe(Effect.provide(S3.layer(options)))
      yield* Effect.promise(async () => {
        assert.deepStrictEqual(await keysIn(access), KEYS)
        assert.deepStrictEqual(JSON.parse(new TextDecoder().decode(await objectIn(access, MANIFEST))), {
          ...RANGE,
          dates: DATES,
          quote_dates: DATES,
          schema_version: 1
        })
        const bytes = await objectIn(access, OBJECTS[0]!)
        assert.strictEqual(new TextDecoder().decode(bytes.subarray(0, 4)), "PAR1")
      })
    })
  )

  for (const key of [MANIFEST, ...OBJECTS]) {
    it.effect(`takes a put of ${key} whose reply was lost as done`, () =>
      Effect.gen(function* () {
        const { proxy, layer } = yield* throughProxy()
        yield* Effect.gen(function* () {
          proxy.fate = once1(isPutOf(key), "lose the reply")
          yield* write
          assert.strictEqual(proxy.seen.filter(isPutOf(key)).length, 2)
          assert.deepStrictEqual(yield* readBoth, BOTH)
        }).pipe(Effect.provide(layer))
        assert.deepStrictEqual(yield* Effect.promise(() => keysIn(access)), KEYS)
      })
    )

    it.effect(`does a put of ${key} again that met another one (409)`, () =>
      Effect.gen(function* () {
        const { proxy, layer } = yield* throughProxy()
        yield* Effect.gen(function* () {
          const body =
            "<Error><Code>ConditionalRequestConflict</Code><Message>Another one is under way</Message></Error>"
          proxy.fate = once1(isPutOf(key), { status: 409, body })
          yield* write
          assert.deepStrictEqual(yield* readBoth, BOTH)
        }).pipe(Effect.provide(layer))
        assert.deepStrictEqual(yield* Effect.promise(() => keysIn(access)), KEYS)
      })
    )
  }

  for (const [i, key] of [MANIFEST, ...OBJECTS].entries()) {
    for (const when of ["before", "after"] as const) {
      it.effect(`completes the very range after the process was killed ${when} its put of ${key}`, () =>
        Effect.gen(function* () {
          const { proxy } = yield* throughProxy()
          const script = fileURLToPath(new URL("./writeToS3.ts", import.meta.url))
          const child = spawn(process.execPath, [script, proxy.url, access.bucket, access.region], {
            env: { AWS_ACCESS_KEY_ID: access.accessKeyId, AWS_SECRET_ACCESS_KEY: access.secretAccessKey },
            stdio: ["ignore", "ignore", "inherit"]
          })
          const kill = () => child.kill("SIGKILL")
          const isDeadly = isPutOf(key)
          if (when === "before") {
            proxy.fate = (seen) => {
              if (!isDeadly(seen)) return "pass"
              kill()
              return "break"
            }
          } else {
            proxy.done = (seen) => {
              if (isDeadly(seen)) kill()
            }
          }
          const [, signal] = yield* Effect.promise(() => once(child, "exit"))
          assert.strictEqual(signal, "SIGKILL")
          const there = [PROOF, MANIFEST, ...OBJECTS].slice(0, 1 + i + (when === "after" ? 1 : 0))
          assert.deepStrictEqual(yield* Effect.promise(() => keysIn(access)), there.toSorted())
          yield* Effect.gen(function* () {
            const archive = yield* Archive
            const begun = yield* archive.begun(RANGE.incarnation, RANGE.partition, RANGE.first)
            assert.deepStrictEqual(begun, there.includes(MANIFEST) ? RANGE : undefined)
            // Nothing is visible that is not whole.
            yield* readBoth
            yield* write
            assert.deepStrictEqual(yield* readBoth, BOTH)
          }).pipe(Effect.provide(S3.layer(optionsFor(access))))
          assert.deepStrictEqual(yield* Effect.promise(() => keysIn(access)), KEYS)
        })
      )
    }
  }

  it.effect("lets one of many writers begin a range, and all complete it", () =>
    Effect.gen(function* () {
      const options = yield* emptyBucket(access)
      const archives = yield* Effect.forEach(Array.from({ length: 4 }), () =>
        Effect.map(Layer.build(Layer.fresh(S3.layer(options))), (context) => context)
      )
      // Each would end the range elsewhere.
      const outcomes = yield* Effect.forEach(
        archives,
        (context, i) =>
          Effect.flatMap(Archive, (archive) =>
            archive.write({ ...RANGE, last: RANGE.first + i }, toColumns(TICKS.slice(0, i + 1)), NO_QUOTES)
          ).pipe(Effect.exit, Effect.provide(context)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(outcomes.filter((outcome) => outcome._tag === "Success").length, 1)
      const winner = outcomes.findIndex((outcome) => outcome._tag === "Success")
      assert.deepStrictEqual(yield* Effect.promise(() => keysIn(access)), [
        PROOF,
        MANIFEST,
        `ticks/date=${DATES[0]}/normalized-1-2-40-${RANGE.first + winner}.parquet`
      ])
    })
  )

  it.effect("reads a large object in pieces, each a small part of it", () =>
    Effect.gen(function* () {
      const { proxy, layer } = yield* throughProxy()
      const count = 200_000
      const ticks = Array.from({ length: count }, (_, i) =>
        makeTick({
          instrument_token: 1 + (i % 50),
          exchange_ts: OPEN + i * 97 + (i % 13),
          received_ts: OPEN + i * 101 + ((i * 7919) % 5000),
          sequence_id: i,
          position: i,
          price: 100 + (Math.imul(i, 2_654_435_761) >>> 8) / 20,
          volume: Math.imul(i, 1_540_483_477) >>> 0,
          source: ["raw-1", i, 0]
        })
      )
      yield* Effect.gen(function* () {
        const archive = yield* Archive
        yield* archive.write({ ...RANGE, last: RANGE.first + count }, toColumns(ticks), NO_QUOTES)
        const [object] = (yield* Effect.promise(() => keysIn(access))).filter((key) => key.startsWith("ticks/"))
        const size = (yield* Effect.promise(() => objectIn(access, object!))).length
        proxy.seen.length = 0
        let rows = 0
        let sum = 0
        yield* Stream.runForEach(archive.read(DATES[0]!, undefined), (part) =>
          Effect.sync(() => {
            rows += part.length
            for (const { sequence_id } of part) sum += sequence_id
          })
        )
        assert.strictEqual(rows, count)
        assert.strictEqual(sum, (count * (count - 1)) / 2)
        const gets = proxy.seen.filter(({ path }) => path.includes(".parquet"))
        assert.isAbove(size, 2 << 20)
        for (const { received } of gets) assert.isBelow(received, size / 3)
        // Of each row group its tokens, then its metadata and itself.
        assert.isAtMost(gets.length, 3 * Math.ceil(count / 32_768) + 1)
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("reads on where a reply broke off, and where the server failed for a moment", () =>
    Effect.gen(function* () {
      const { proxy, layer } = yield* throughProxy()
      yield* Effect.gen(function* () {
        yield* write
        const isRead = ({ method, path }: Seen) => method === "GET" && path.includes(".parquet")
        for (const fate of ["cut the body", "break", "lose the reply", { status: 503, body: "" }] as const) {
          proxy.fate = once1(isRead, fate)
          assert.deepStrictEqual(yield* readBoth, BOTH)
        }
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("fails a call that is not answered, in bounded time and number, and works again after", () =>
    Effect.gen(function* () {
      // Each attempt has to be under way by then, and what is answered to be there, also on a busy machine.
      const { proxy, layer } = yield* throughProxy({ timeoutMs: 2000 })
      yield* Effect.gen(function* () {
        proxy.seen.length = 0
        proxy.fate = () => "stall"
        const error = yield* Effect.flip(write)
        assert.strictEqual(error._tag, "ArchiveError")
        assert.match(error.message, /^S3_BUCKET .* at S3_ENDPOINT http:\/\/127\.0\.0\.1:\d+: /)
        assert.strictEqual(proxy.seen.length, 4)
        proxy.fate = () => "pass"
        yield* write
        assert.deepStrictEqual(yield* readBoth, BOTH)
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("does not ask again what was refused", () =>
    Effect.gen(function* () {
      const { proxy, layer } = yield* throughProxy()
      yield* Effect.gen(function* () {
        proxy.seen.length = 0
        const body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        proxy.fate = () => ({ status: 403, body })
        const error = yield* Effect.flip(write)
        assert.match(error.message, /: AccessDenied: Access Denied$/)
        assert.strictEqual(proxy.seen.length, 1)
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("says in one line at start what cannot be had, with the setting and no secret", () =>
    Effect.gen(function* () {
      const options = yield* emptyBucket(access)
      const { bucket, endpoint, credentials } = options
      const place = `S3_BUCKET ${bucket} at S3_ENDPOINT ${endpoint}`
      assert.strictEqual(
        yield* startError({ ...options, bucket: "no-such-bucket" }),
        `S3_BUCKET no-such-bucket at S3_ENDPOINT ${endpoint}: there is no such bucket; it is not made by itself`
      )
      const wrong = { ...credentials!, secretAccessKey: Redacted.make("a wrong secret") }
      const refused = yield* startError({ ...options, credentials: wrong })
      assert.include(refused, `${place}: the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) were refused: `)
      assert.notInclude(refused, "a wrong secret")
      const unknown = yield* startError({ ...options, credentials: { ...wrong, accessKeyId: "nobody" } })
      assert.include(unknown, place)
      assert.match(unknown, /access key/i)
      const port = yield* Effect.promise(() => freePort())
      assert.match(
        yield* startError({ ...options, endpoint: `http://127.0.0.1:${port}`, startAttempts: 2 }),
        /^S3_BUCKET .* at S3_ENDPOINT http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED.* \(2 attempts\)$/
      )
      for (const wrongEndpoint of ["127.0.0.1:9000", "ftp://host", "http://user:secret@host", ""]) {
        assert.strictEqual(
          yield* startError({ ...options, endpoint: wrongEndpoint }),
          "S3_ENDPOINT: expected http://host:port or https://host:port, without a user"
        )
      }
      assert.match(yield* startError({ ...options, bucket: "../etc" }), /^S3_BUCKET: expected a bucket's name/)
      assert.match(yield* startError({ ...options, bucket: "" }), /^S3_BUCKET: is missing/)
    })
  )

  it.effect("waits for a server that comes late", () =>
    Effect.gen(function* () {
      const { proxy, layer } = yield* throughProxy()
      proxy.fate = (_, index) => (index < 2 ? "break" : "pass")
      yield* write.pipe(Effect.provide(layer))
      assert.deepStrictEqual(yield* Effect.promise(() => keysIn(access)), KEYS)
    })
  )

  it.effect("refuses a server that ignores If-None-Match", () =>
    Effect.gen(function* () {
      const { proxy, layer } = yield* throughProxy()
      proxy.fate = () => ({ okFor: 412 })
      const error = yield* Effect.flip(Layer.build(layer))
      assert.include(error.message, "ignores If-None-Match")
    })
  )

  it.effect("fetches of an archived day's quotes what bars need of them, and no more", () =>
    Effect.gen(function* () {
      const { proxy, layer } = yield* throughProxy()
      // Books of which no two are alike: a row group of each instrument.
      const side = (i: number) =>
        Array.from({ length: 5 }, (_, level): Level => {
          const any = (i * 5 + level + 1) * 2_654_435_761
          return [(any % 1_000_003) / 100, any % 999_983, any % 65_521]
        })
      const quotes = Array.from({ length: 16_384 }, (_, i) =>
        makeQuote({
          instrument_token: i < 8192 ? 1 : 2,
          exchange_ts: OPEN + (i % 8192) * 1000,
          bid: side(i),
          ask: side(i + 100_000),
          oi: i,
          source: ["raw-1", i, 1]
        })
      )
      yield* Effect.gen(function* () {
        const archive = yield* Archive
        const ticks = [makeTick({ instrument_token: 1, exchange_ts: OPEN })]
        yield* archive.write({ ...RANGE, last: RANGE.first + 16_384 }, toColumns(ticks), toQuoteColumns(quotes))
        const { objects } = yield* archive.list(DATES[0]!)
        const object = objects.find(({ kind }) => kind === "quotes")!
        proxy.seen.length = 0
        const bars = yield* archive.minutes({ instrument_token: 1, from: OPEN, to: OPEN + 60_000_000, limit: 10 })
        assert.deepStrictEqual(
          bars.map(({ oi }) => oi),
          [8191]
        )
        const of = proxy.seen.filter(({ path }) => decodeURIComponent(path).includes(`/quotes/date=${DATES[0]}/`))
        const bytes = of.reduce((sum, { received }) => sum + received, 0)
        assert.isAbove(bytes, 0)
        // One of two row groups would be half of it.
        assert.isBelow(bytes * 5, object.bytes)
      }).pipe(Effect.provide(layer))
    })
  )
})
