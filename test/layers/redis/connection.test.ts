import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, Schedule } from "effect"
import * as Redis from "../../../src/layers/redis/connection.ts"
import * as RedisCheckpoints from "../../../src/layers/redis/RedisCheckpoints.ts"
import * as RedisClaims from "../../../src/layers/redis/RedisClaims.ts"
import * as RedisRing from "../../../src/layers/redis/RedisRing.ts"
import type { CacheError, StartError } from "../../../src/schema/Errors.ts"
import type { Tick } from "../../../src/schema/Tick.ts"
import { type Checkpoint, Checkpoints } from "../../../src/streams/ports/Checkpoints.ts"
import { Claims } from "../../../src/streams/ports/Claims.ts"
import { RecentTicks } from "../../../src/streams/ports/RecentTicks.ts"
import { makeTick } from "../../contract/ticks.ts"
import { hasOpenssl, makeAuthority, makeCertificate } from "../../support/certificates.ts"
import { LONG_MS } from "../../support/guards.ts"
import { lossyProxy } from "../../support/LossyProxy.ts"
import { freePort, isInstalled, ownRedis, type RedisServer } from "../../support/services.ts"

const isMissing = !isInstalled("redis")

/** What a user of the access list needs. */
const RIGHTS = "+@read +@write +@scripting +@connection +info +time -@dangerous +info".split(" ")

/** A guard against a hang: a server whose disk is busy may well answer after seconds. */
const PATIENCE_MS = 60_000
/** Where the time limit itself is looked at: long enough for a busy machine to answer in, short enough to wait for. */
const TIMEOUT_MS = 3000

const ports = (options: Redis.RedisOptions) =>
  Layer.build(
    Layer.mergeAll(
      RedisClaims.layer({ keep: "2 days" }),
      RedisRing.layer({ perInstrument: 100, keep: "2 days" }),
      RedisCheckpoints.layer({ keep: "2 days" })
    ).pipe(Layer.provideMerge(Redis.layer({ timeoutMs: PATIENCE_MS, startAttempts: 2, ...options })))
  ).pipe(
    Effect.map((context) => ({
      claims: Context.get(context, Claims),
      ring: Context.get(context, RecentTicks),
      checkpoints: Context.get(context, Checkpoints),
      redis: Context.get(context, Redis.RedisConnection)
    }))
  )

const at = (port: number, server: RedisServer): string => server.url(0).replace(`:${server.port}/`, `:${port}/`)

/** What an operator may do on the server beside the platform. */
const admin = (server: RedisServer) =>
  Effect.map(
    Layer.build(Redis.layer({ url: server.url(0), timeoutMs: PATIENCE_MS })),
    (context) =>
      (...words: readonly [string, ...ReadonlyArray<string>]) =>
        Context.get(context, Redis.RedisConnection).ask("admin", ({ client }) => {
          const [command, ...args] = words
          return client.call(command, ...args)
        })
  )

const numbered = (sequence_id: number, offset = sequence_id, given: Partial<Tick> = {}): Tick =>
  makeTick({ instrument_token: 1, sequence_id, position: sequence_id, source: ["raw-1", offset, 0], ...given })

const batch = (from: number, to: number): ReadonlyArray<Tick> =>
  Array.from({ length: to - from + 1 }, (_, i) => numbered(from + i))

const raw = (through: number, partition = 0) => ({ incarnation: "raw-1", partition, through })

const checkpoint = (rawOffset: number, instruments: ReadonlyArray<readonly [number, Uint8Array]>): Checkpoint => ({
  rawIncarnation: "raw-1",
  rawOffset,
  normalizedIncarnation: "normalized-1",
  normalizedOffset: rawOffset * 2,
  instruments: new Map(instruments)
})

/** Asks until it succeeds: the test's own time limit ends it. */
const eventually = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.retry(effect, Schedule.spaced("20 millis"))

const failureOf = <A>(effect: Effect.Effect<A, CacheError>): Effect.Effect<CacheError> =>
  Effect.flip(effect).pipe(Effect.orDie)

/** Logged lines, as they come. */
const logged = () => {
  const lines: Array<string> = []
  const layer = Logger.layer([Logger.make(({ message }) => lines.push(String(message)))])
  return { lines, layer }
}

const quiet = Logger.layer([])

/** Everything works: each port writes and reads back. `n` is above all that was used before. */
const works = ({ claims, ring, checkpoints }: Effect.Success<ReturnType<typeof ports>>, n: number) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* claims.claim(raw(n), [numbered(n)]), [])
    assert.deepStrictEqual(yield* claims.claim(raw(n, n), [numbered(n)]), [0])
    yield* ring.append([numbered(n)])
    assert.deepStrictEqual(yield* ring.last(1, 1), [numbered(n)])
    const saved = checkpoint(n, [[1, Uint8Array.of(n)]])
    yield* checkpoints.save(0, saved)
    assert.deepStrictEqual(yield* checkpoints.load("raw-1", 0), saved)
  })

// Long: a call whose answer never comes waits for as long as PATIENCE_MS says.
describe.skipIf(isMissing)("a reply lost after success", { timeout: LONG_MS }, () => {
  it.live("does no harm: what is sent again by itself, or asked again, finds its own", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const proxy = yield* lossyProxy(server.port)
      const { claims, ring, checkpoints } = yield* ports({ url: at(proxy.port, server) })
      const other = yield* ports({ url: server.url(0) })

      // The connection comes back at once, and the client sends again by itself.
      proxy.loseNextReply()
      assert.deepStrictEqual(yield* claims.claim(raw(10), batch(1, 10)), [])
      proxy.loseNextReply()
      yield* ring.append(batch(1, 10))
      proxy.loseNextReply()
      yield* checkpoints.save(0, checkpoint(10, [[1, Uint8Array.of(1)]]))
      assert.strictEqual(proxy.lost, 3)

      // It stays away, so the caller is told in time, and asks again.
      const hasty = yield* ports({ url: at(proxy.port, server), timeoutMs: TIMEOUT_MS })
      const lose = (write: Effect.Effect<unknown, CacheError>) =>
        Effect.gen(function* () {
          proxy.loseNextReply()
          proxy.refuse(true)
          const { message } = yield* failureOf(write)
          assert.match(message, new RegExp(`^redis at 127.0.0.1:${proxy.port}: `))
          proxy.refuse(false)
          yield* eventually(write)
        })
      let foreign: ReadonlyArray<number> = [-1]
      yield* lose(
        Effect.map(hasty.claims.claim(raw(20), batch(11, 20)), (found) => {
          foreign = found
        })
      )
      assert.deepStrictEqual(foreign, [])
      yield* lose(hasty.ring.append(batch(11, 20)))
      yield* lose(hasty.checkpoints.save(0, checkpoint(20, [[2, Uint8Array.of(2)]])))
      assert.strictEqual(proxy.lost, 6)

      // All of it is there, once.
      const own = batch(1, 20)
      assert.deepStrictEqual(
        yield* other.claims.claim(raw(100, 1), own),
        own.map((_, i) => i)
      )
      assert.deepStrictEqual(yield* other.ring.last(1, 100), own)
      assert.deepStrictEqual(
        yield* other.checkpoints.load("raw-1", 0),
        checkpoint(20, [
          [1, Uint8Array.of(1)],
          [2, Uint8Array.of(2)]
        ])
      )
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})

// Long: a call whose answer never comes waits for as long as PATIENCE_MS says.
describe.skipIf(isMissing)("a server in trouble", { timeout: LONG_MS }, () => {
  it.live("killed and started again empty: calls fail at once, then all works, and both are said once", () => {
    const { lines, layer } = logged()
    return Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0) })
      yield* works(all, 1)
      yield* Effect.promise(() => server.kill())
      const first = yield* failureOf(all.claims.claim(raw(2), [numbered(2)]))
      assert.strictEqual(first._tag, "CacheError")
      // From now on nothing is waited for.
      const after = yield* Effect.all(
        [
          failureOf(all.claims.claim(raw(2), [numbered(2)])),
          failureOf(all.ring.append([numbered(2)])),
          failureOf(all.checkpoints.load("raw-1", 0))
        ],
        { concurrency: "unbounded" }
      )
      for (const { message } of after) assert.match(message, /^redis at 127\.0\.0\.1:\d+: /)
      server.erase()
      yield* Effect.promise(() => server.start())
      assert.isUndefined(yield* eventually(all.checkpoints.load("raw-1", 0)))
      yield* works(all, 3)
      const where = `redis at 127.0.0.1:${server.port}`
      assert.strictEqual(lines.filter((line) => line.startsWith(`${where} is away: `)).length, 1, lines.join("\n"))
      assert.strictEqual(lines.filter((line) => line === `${where} answers again`).length, 1, lines.join("\n"))
      assert.notInclude(lines.join("\n"), new URL(server.url(0)).password)
    }).pipe(Effect.scoped, Effect.provide(layer))
  })

  it.live("paused: calls fail in time, and work again afterwards", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0), timeoutMs: TIMEOUT_MS })
      yield* works(all, 1)
      const command = yield* admin(server)
      yield* command("CLIENT", "PAUSE", String(TIMEOUT_MS * 2), "ALL")
      const { message } = yield* failureOf(all.claims.claim(raw(2), [numbered(2)]))
      assert.match(message, /: no answer within 3000 ms$/)
      // Meanwhile the connection is opened again, and calls fail at once.
      assert.match((yield* failureOf(all.ring.append([numbered(2)]))).message, / away: no answer within 3000 ms$/)
      yield* eventually(all.ring.append([numbered(2)]))
      yield* works(all, 3)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("stopped: no more than 512 calls wait for it, none for long, and it works again afterwards", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0), timeoutMs: TIMEOUT_MS })
      yield* works(all, 1)
      yield* Effect.promise(() => server.pause())
      const failures = yield* Effect.forEach(
        Array.from({ length: 600 }),
        () => failureOf(all.claims.claim(raw(2), [numbered(2)])),
        { concurrency: "unbounded" }
      )
      const full = failures.filter(({ message }) => message.endsWith(": 512 calls are under way"))
      assert.strictEqual(full.length, 600 - 512)
      assert.strictEqual(failures.filter(({ message }) => message.endsWith("no answer within 3000 ms")).length, 512)
      // The calls it never answered are not kept for it, and it is not asked again before it has taken a new connection.
      const away = / away: no answer within 3000 ms$/
      assert.match((yield* failureOf(all.claims.claim(raw(2), [numbered(2)]))).message, away)
      server.signal("SIGCONT")
      yield* eventually(all.ring.append([numbered(2)]))
      yield* works(all, 3)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("out of memory: writing fails by name and sets nothing, and works again once there is room", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0) })
      yield* works(all, 1)
      const command = yield* admin(server)
      yield* command("CONFIG", "SET", "maxmemory", "1mb")
      for (const write of [
        all.claims.claim(raw(2), [numbered(2)]),
        all.ring.append([numbered(2)]),
        all.checkpoints.save(0, checkpoint(2, []))
      ]) {
        assert.match((yield* failureOf(Effect.asVoid<unknown, CacheError, never>(write))).message, /OOM/)
      }
      assert.deepStrictEqual(yield* all.ring.last(1, 10), [numbered(1)])
      yield* command("CONFIG", "SET", "maxmemory", "0")
      assert.deepStrictEqual(yield* all.claims.claim(raw(2, 7), [numbered(2)]), [])
      yield* works(all, 3)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("turned into a replica: writing fails by name, and works again once it is none", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0) })
      yield* works(all, 1)
      const command = yield* admin(server)
      const nowhere = yield* Effect.promise(() => freePort())
      yield* command("REPLICAOF", "127.0.0.1", String(nowhere))
      assert.match((yield* failureOf(all.claims.claim(raw(2), [numbered(2)]))).message, /READONLY/)
      yield* command("REPLICAOF", "NO", "ONE")
      yield* eventually(all.ring.append([numbered(2)]))
      yield* works(all, 3)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("that has forgotten the scripts is sent them again", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0) })
      yield* works(all, 1)
      const command = yield* admin(server)
      yield* command("SCRIPT", "FLUSH", "SYNC")
      yield* works(all, 2)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("that has lost its data is told again how many partitions the states are kept for", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const running = yield* ports({ url: server.url(0) })
      assert.strictEqual(yield* running.checkpoints.partitions("raw-1", 12), 12)
      yield* running.checkpoints.save(0, checkpoint(1, []))
      const command = yield* admin(server)
      yield* command("FLUSHALL")
      // A worker that starts now with another number must not be the first to say one.
      yield* running.checkpoints.save(0, checkpoint(2, [[1, Uint8Array.of(7)]]))
      const another = yield* ports({ url: server.url(0) })
      assert.strictEqual(yield* another.checkpoints.partitions("raw-1", 15), 12)
      const kept = yield* another.checkpoints.load("raw-1", 0)
      assert.deepStrictEqual(kept?.instruments, new Map([[1, Uint8Array.of(7)]]))
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("whose password has changed is away, and answers again once it is changed back", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const all = yield* ports({ url: server.url(0) })
      const command = yield* admin(server)
      yield* command("CONFIG", "SET", "requirepass", "another")
      yield* command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
      const denied = yield* Effect.retry(
        Effect.flatMap(failureOf(all.ring.append([numbered(1)])), (error) =>
          error.message.includes("WRONGPASS") ? Effect.succeed(error) : Effect.fail(error)
        ),
        Schedule.spaced("20 millis")
      )
      assert.notInclude(denied.message, new URL(server.url(0)).password)
      yield* command("CONFIG", "SET", "requirepass", new URL(server.url(0)).password)
      yield* eventually(all.ring.append([numbered(1)]))
      yield* works(all, 2)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})

describe("start", () => {
  const startError = (options: Redis.RedisOptions): Effect.Effect<StartError> =>
    Effect.flip(Effect.scoped(Layer.build(Redis.layer({ timeoutMs: PATIENCE_MS, ...options })))).pipe(Effect.orDie)

  it.live("refuses what is no address of a Redis, and shows nothing of it", () =>
    Effect.gen(function* () {
      for (const url of [
        "not an address",
        "http://user:secret@127.0.0.1/",
        "redis://user:secret@127.0.0.1:70000",
        "redis://user:secret@127.0.0.1/one",
        "redis://user:se%zzcret@127.0.0.1/1",
        "redis://user:secret@127.0.0.1/1?family=6"
      ]) {
        assert.strictEqual(
          (yield* startError({ url })).message,
          "REDIS_URL: expected redis://user:password@host:port/database, or rediss:// for TLS"
        )
      }
    })
  )

  it.live("gives up on a server that is not there after the attempts it may make, naming setting and address", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(() => freePort())
      const { message } = yield* startError({ url: `redis://user:secret@127.0.0.1:${port}/1`, startAttempts: 2 })
      assert.strictEqual(
        message,
        `REDIS_URL: cannot use Redis at 127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port} (2 attempts)`
      )
    })
  )

  it.live("says which file of certificates cannot be read or used, or is missing beside another", () =>
    Effect.gen(function* () {
      const url = "rediss://127.0.0.1:1"
      const none = "/nowhere/some.pem"
      const here = fileURLToPath(import.meta.url)
      const cases: ReadonlyArray<readonly [Partial<Redis.RedisOptions>, RegExp]> = [
        [{ caFile: none }, /^REDIS_TLS_CA_FILE: cannot read \/nowhere\/some\.pem \(ENOENT\)$/],
        [{ certFile: none, keyFile: here }, /^REDIS_TLS_CERT_FILE: cannot read \/nowhere\/some\.pem \(ENOENT\)$/],
        [{ certFile: here, keyFile: none }, /^REDIS_TLS_KEY_FILE: cannot read \/nowhere\/some\.pem \(ENOENT\)$/],
        [{ certFile: here }, /^REDIS_TLS_KEY_FILE: required with REDIS_TLS_CERT_FILE$/],
        [{ keyFile: here }, /^REDIS_TLS_CERT_FILE: required with REDIS_TLS_KEY_FILE$/],
        [{ certFile: here, keyFile: here }, /^REDIS_TLS_CERT_FILE, REDIS_TLS_KEY_FILE: .*no start line/i],
        [{ url: "redis://127.0.0.1:1", caFile: here }, /^REDIS_URL: REDIS_TLS_CA_FILE is set, and it is not rediss:/]
      ]
      for (const [options, line] of cases) assert.match((yield* startError({ url, ...options })).message, line)
    })
  )

  describe.skipIf(isMissing)("on a server", () => {
    it.live("does not try a refused password again, and does not show it", () =>
      Effect.gen(function* () {
        const server = yield* ownRedis
        const { message } = yield* startError({ url: `redis://default:wr0ng@127.0.0.1:${server.port}/0` })
        assert.match(message, /^REDIS_URL: cannot use Redis at 127\.0\.0\.1:\d+: WRONGPASS [^(]*$/)
        assert.notInclude(message, "wr0ng")
        const none = yield* startError({ url: `redis://127.0.0.1:${server.port}/0` })
        assert.match(none.message, /: NOAUTH [^(]*$/)
      }).pipe(Effect.scoped, Effect.provide(quiet))
    )

    it.live(
      "takes a user of the server's access list, whatever is in the password, with no more rights than needed",
      () =>
        Effect.gen(function* () {
          const server = yield* ownRedis
          const command = yield* admin(server)
          yield* command("ACL", "SETUSER", "feed", "on", ">p@ss:/w%rd?", "~mdp:*", ...RIGHTS)
          const password = encodeURIComponent("p@ss:/w%rd?")
          const all = yield* ports({ url: `redis://feed:${password}@127.0.0.1:${server.port}/0`, prefix: "mdp:" })
          yield* works(all, 1)
          const denied = yield* failureOf(all.redis.ask("look", ({ client }) => client.get("other")))
          assert.match(denied.message, /NOPERM/)
        }).pipe(Effect.scoped, Effect.provide(quiet))
    )

    /** A server that also listens over TLS, with a certificate of its own authority. */
    const withTls = (authClients: "yes" | "no") =>
      Effect.gen(function* () {
        const server = yield* ownRedis
        const command = yield* admin(server)
        const authority = makeAuthority(server.folder)
        const { key, certificate } = makeCertificate(authority, "redis")
        const port = yield* Effect.promise(() => freePort())
        const files = ["tls-cert-file", certificate, "tls-key-file", key, "tls-ca-cert-file", authority.certificate]
        yield* command("CONFIG", "SET", ...files, "tls-auth-clients", authClients)
        yield* command("CONFIG", "SET", "tls-port", String(port))
        return { server, command, authority, url: at(port, server).replace("redis:", "rediss:") }
      })

    it.live.skipIf(!hasOpenssl)("over TLS, trusts the certificates it is given, and no others", () =>
      Effect.gen(function* () {
        const { url, authority } = yield* withTls("no")
        yield* works(yield* ports({ url, caFile: authority.certificate }), 1)
        const { message } = yield* startError({ url, startAttempts: 1 })
        assert.match(message, /^REDIS_URL: cannot use Redis at 127\.0\.0\.1:\d+: .*certificate/)
      }).pipe(Effect.scoped, Effect.provide(quiet))
    )

    it.live.skipIf(!hasOpenssl)(
      "over TLS, as a user of the access list, shows its own certificate where one is asked for",
      () =>
        Effect.gen(function* () {
          const { url, authority, command } = yield* withTls("yes")
          yield* command("ACL", "SETUSER", "feed", "on", ">s3cret", "~mdp:*", ...RIGHTS)
          const { key, certificate } = makeCertificate(authority, "worker")
          const feed = url.replace(/default:[^@]*@/, "feed:s3cret@")
          const shown = { caFile: authority.certificate, certFile: certificate, keyFile: key, prefix: "mdp:" }
          yield* works(yield* ports({ url: feed, ...shown }), 1)
          const wrong = yield* startError({ url: feed.replace("s3cret", "wr0ng"), ...shown })
          assert.match(wrong.message, /^REDIS_URL: cannot use Redis at 127\.0\.0\.1:\d+: WRONGPASS/)
          const without = yield* startError({ url: feed, caFile: authority.certificate, startAttempts: 1 })
          assert.match(
            without.message,
            // Whether its alert is read before what it cut off is written is a matter of luck.
            /^REDIS_URL: cannot use Redis at 127\.0\.0\.1:\d+: (TLS: .*alert certificate required|the server ended the TLS connection; .*REDIS_TLS_CERT_FILE.*)$/
          )
          // One of another authority is no better than none.
          const stranger = makeCertificate(makeAuthority(join(authority.folder, "..")), "stranger")
          const files = { certFile: stranger.certificate, keyFile: stranger.key }
          const refused = yield* startError({ url: feed, caFile: authority.certificate, ...files, startAttempts: 1 })
          assert.match(refused.message, /^REDIS_URL: cannot use Redis at 127\.0\.0\.1:\d+: /)
          for (const { message } of [wrong, without, refused]) assert.notMatch(message, /s3cret|wr0ng/)
        }).pipe(Effect.scoped, Effect.provide(quiet))
    )

    it.live("warns once where the server may evict, and is silent where it may not", () =>
      Effect.gen(function* () {
        const server = yield* ownRedis
        const command = yield* admin(server)
        const linesWith = (policy: string) =>
          Effect.gen(function* () {
            yield* command("CONFIG", "SET", "maxmemory-policy", policy)
            const { lines, layer } = logged()
            yield* Effect.scoped(Effect.provide(ports({ url: server.url(0) }), layer))
            return lines
          })
        assert.deepStrictEqual(yield* linesWith("noeviction"), [])
        assert.deepStrictEqual(yield* linesWith("allkeys-lru"), [
          `redis at 127.0.0.1:${server.port} has maxmemory-policy allkeys-lru: it may forget claims and checkpoints; noeviction is meant`
        ])
      }).pipe(Effect.scoped, Effect.provide(quiet))
    )
  })
})

describe.skipIf(isMissing)("keys", () => {
  it.live("are named by what they hold, and all go by themselves", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const { claims, ring, checkpoints, redis } = yield* ports({ url: server.url(0) })
      const hashed = numbered(-7, 3, { sequencing: "none" })
      yield* claims.claim(raw(3), [numbered(4095), numbered(4096), hashed])
      yield* ring.append([numbered(1)])
      yield* checkpoints.save(4, checkpoint(1, [[1, Uint8Array.of(1)]]))
      const keys = yield* redis.ask("look", ({ client }) => client.keys("*"))
      assert.deepStrictEqual(keys.toSorted(), [
        "claim:20468:1:0:0",
        "claim:20468:1:0:1",
        "claim:20468:1:0:h7",
        "claim:through:raw-1:0",
        "ring:1",
        "state:4:raw-1"
      ])
      for (const key of keys) {
        const seconds = yield* redis.ask("look", ({ client }) => client.ttl(key))
        assert.isTrue(seconds > 172_000 && seconds <= 172_800, `${key}: ${seconds} s`)
      }
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )

  it.live("of a state saved while it is read: what is read is one state, whole", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const { checkpoints } = yield* ports({ url: server.url(0) })
      const zombie = yield* ports({ url: server.url(0) })
      const TOKENS = 2000
      const stateAt = (offset: number) =>
        checkpoint(
          offset,
          Array.from({ length: TOKENS }, (_, token) => [token, new Uint8Array(100).fill(offset)] as const)
        )
      yield* checkpoints.save(0, stateAt(1))
      const saves = Effect.forEach(
        Array.from({ length: 6 }, (_, i) => stateAt(i + 2)),
        (state) => zombie.checkpoints.save(0, state),
        { discard: true }
      )
      const loads = Effect.forEach(Array.from({ length: 4 }), () => checkpoints.load("raw-1", 0))
      const [, loaded] = yield* Effect.all([saves, loads], { concurrency: "unbounded" })
      for (const state of loaded) {
        const { rawOffset, normalizedOffset, instruments } = state!
        assert.strictEqual(normalizedOffset, rawOffset * 2)
        assert.strictEqual(instruments.size, TOKENS)
        assert.deepStrictEqual([...new Set([...instruments.values()].flatMap((bytes) => [...bytes]))], [rawOffset])
      }
      assert.strictEqual((yield* checkpoints.load("raw-1", 0))!.rawOffset, 7)
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})

// Long: a call whose answer never comes waits for as long as PATIENCE_MS says.
describe.skipIf(isMissing)("a connection that ends", { timeout: LONG_MS }, () => {
  it.live("leaves nothing under way", () =>
    Effect.gen(function* () {
      const server = yield* ownRedis
      const command = yield* admin(server)
      const exit = yield* Effect.exit(
        Effect.scoped(Effect.flatMap(ports({ url: server.url(0) }), (all) => works(all, 1)))
      )
      assert.isTrue(Exit.isSuccess(exit))
      const clients = Effect.map(command("CLIENT", "LIST"), (list) => String(list).trim().split("\n").length)
      yield* Effect.retry(
        Effect.flatMap(clients, (count) => (count === 1 ? Effect.void : Effect.fail(count))),
        Schedule.spaced("20 millis")
      )
    }).pipe(Effect.scoped, Effect.provide(quiet))
  )
})
