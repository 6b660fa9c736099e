/**
 * Decides how Redis is reached: one connection for claims, rings, checkpoints and counters; every call bounded in number
 * and time, failing at once while the server is away; every failure a CacheError without a secret in it.
 *
 * A call that failed may have been done all the same, and one whose reply was lost is sent once more by itself. So
 * whatever is asked here must be harmless when asked twice: claims, rings and checkpoints are scripts made that way.
 */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { isIP } from "node:net"
import { type ConnectionOptions, createSecureContext } from "node:tls"
import { Context, Effect, Layer, Redacted, type Scope } from "effect"
import { Redis as Client } from "ioredis"
import { CacheError, StartError } from "../../schema/Errors.ts"

export interface RedisOptions {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  readonly url: string | Redacted.Redacted<string>
  /** Longest wait for one answer. */
  readonly timeoutMs?: number | undefined
  /** Certificates, PEM, that a `rediss://` server is trusted by instead of those of the system. */
  readonly caFile?: string | undefined
  /** Certificate and key, PEM, shown to a `rediss://` server that asks for them. */
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
  /** What every key begins with, where several platforms share a database. */
  readonly prefix?: string | undefined
  /** Attempts at start before it is given up. */
  readonly startAttempts?: number | undefined
}

/** A Lua script, asked by its digest, and sent whole where the server does not know it (any more). */
export interface Script {
  readonly lua: string
  readonly sha: string
}

export const script = (lua: string): Script => ({ lua, sha: createHash("sha1").update(lua).digest("hex") })

/** What may be asked of the server inside one call. */
export interface Commands {
  readonly client: Client
  /** Runs a script; texts in its answer are strings. */
  readonly run: RunScript
  /** The same, with texts as bytes. */
  readonly runBytes: RunScript
}

type RunScript = (script: Script, keys: ReadonlyArray<string>, args: ReadonlyArray<string | Buffer>) => Promise<unknown>

export class RedisConnection extends Context.Service<
  RedisConnection,
  {
    readonly prefix: string
    /** One call, of one command or several sent together. Fails at once while the server is away or calls are full. */
    readonly ask: <A>(operation: string, commands: (commands: Commands) => Promise<A>) => Effect.Effect<A, CacheError>
  }
>()("market-data-platform/layers/RedisConnection") {}

export const DEFAULT_TIMEOUT_MS = 2000
/** What a wait is given on top of the client's own time limit, which it backs up; also how often waits are looked at. */
const TIMEOUT_MARGIN_MS = 500
const CONNECT_TIMEOUT_MS = 5000

/** Attempts at start wait 0.5, 1, 2 and 4 seconds in between. */
const START_ATTEMPTS = 5
const START_WAIT_MS = 500

/** Waits between attempts later on: 50 ms, doubling up to 2 s, each within ±20 %. */
const RECONNECT_FIRST_MS = 50
const RECONNECT_CAP_MS = 2000
const JITTER = 0.2

/** Calls under way; full: one more fails at once. */
const MAX_CALLS = 512

/** Script effects are replicated instead of scripts from this version on, so a script may write after asking the time. */
const OLDEST_MAJOR = 5

/** Answers to a password or user that will be no other at the next attempt. */
const REFUSED = /^(WRONGPASS|NOAUTH|NOPERM|ERR (AUTH|invalid password|invalid username|DB index))/

const ignore = (): void => {}

const messageOf = (cause: unknown): string => {
  const said = cause instanceof AggregateError ? (cause.errors[0] as unknown) : cause
  return said instanceof Error ? said.message : String(said)
}

/** Why a start failed, for a person: what the client says of its own insides is put otherwise. */
const startReason = (reason: string, { tls }: Address, timeoutMs: number): string => {
  if (reason.startsWith("Unknown RESP type")) return "what answers there does not speak Redis's protocol"
  const alert = /:SSL routines:[^:]*:([^:]+):/.exec(reason)?.[1]
  if (alert !== undefined) return `TLS: ${alert}`
  if (reason === "Command timed out") return `no answer within ${timeoutMs} ms`
  if (tls && /\b(ECONNRESET|EPIPE)\b/.test(reason)) {
    return "the server ended the TLS connection; it may ask for a certificate (REDIS_TLS_CERT_FILE)"
  }
  if (tls && reason === "connect ETIMEDOUT") return `no answer over TLS within ${CONNECT_TIMEOUT_MS} ms`
  return reason
}

const reconnectWait = (attempt: number): number =>
  Math.min(RECONNECT_CAP_MS, RECONNECT_FIRST_MS * 2 ** Math.min(attempt - 1, 16)) *
  (1 - JITTER + Math.random() * 2 * JITTER)

// --- where it is ------------------------------------------------------------------------------------------------

interface Address {
  readonly host: string
  readonly port: number
  readonly database: number
  readonly username: string | undefined
  readonly password: string | undefined
  readonly tls: boolean
}

const parseUrl = (text: string): Address | undefined => {
  try {
    const url = new URL(text)
    const database = /^\/?(\d{0,5})$/.exec(url.pathname)
    if ((url.protocol !== "redis:" && url.protocol !== "rediss:") || database === null) return undefined
    // A query would be settings of a client; there are none here, and none must be passed over in silence.
    if (url.search !== "" || url.hash !== "") return undefined
    return {
      host: url.hostname.replace(/^\[|\]$/g, "") || "localhost",
      port: url.port === "" ? 6379 : Number(url.port),
      database: Number(database[1]),
      username: url.username === "" ? undefined : decodeURIComponent(url.username),
      password: url.password === "" ? undefined : decodeURIComponent(url.password),
      tls: url.protocol === "rediss:"
    }
  } catch {
    return undefined
  }
}

const wrongUrl = () =>
  new StartError({ message: "REDIS_URL: expected redis://user:password@host:port/database, or rediss:// for TLS" })

/** What goes into a TLS connection: each file is read, and together they must be sound. */
const tlsOptions = (
  { host, tls }: Address,
  { caFile, certFile, keyFile }: RedisOptions
): Effect.Effect<ConnectionOptions, StartError> =>
  Effect.gen(function* () {
    const files = { REDIS_TLS_CA_FILE: caFile, REDIS_TLS_CERT_FILE: certFile, REDIS_TLS_KEY_FILE: keyFile }
    const given = Object.entries(files).flatMap(([setting, path]) => (path === undefined ? [] : [{ setting, path }]))
    const refuse = (message: string) => Effect.fail(new StartError({ message }))
    if (!tls && given.length > 0)
      return yield* refuse(`REDIS_URL: ${given[0]!.setting} is set, and it is not rediss://`)
    if (certFile !== undefined && keyFile === undefined) {
      return yield* refuse("REDIS_TLS_KEY_FILE: required with REDIS_TLS_CERT_FILE")
    }
    if (certFile === undefined && keyFile !== undefined) {
      return yield* refuse("REDIS_TLS_CERT_FILE: required with REDIS_TLS_KEY_FILE")
    }
    const read = new Map<string, Buffer>()
    for (const { setting, path } of given) {
      const bytes = yield* Effect.try({
        try: () => readFileSync(path),
        catch: (cause) =>
          new StartError({ message: `${setting}: cannot read ${path} (${(cause as NodeJS.ErrnoException).code})` })
      })
      read.set(setting, bytes)
    }
    const [ca, cert, key] = Object.keys(files).map((setting) => read.get(setting))
    const options = {
      // An address is no name that a server could be asked for.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined || key === undefined ? {} : { cert, key })
    }
    return yield* Effect.try({
      try: () => {
        createSecureContext(options)
        return options
      },
      // What OpenSSL says names no file, and holds nothing of the key.
      catch: (cause) =>
        new StartError({ message: `${given.map(({ setting }) => setting).join(", ")}: ${messageOf(cause)}` })
    })
  })

// --- the connection ---------------------------------------------------------------------------------------------

/** A server that was restarted knows no scripts; nothing of the one asked for has run. */
const isUnknownScript = (cause: unknown): boolean => cause instanceof Error && cause.message.startsWith("NOSCRIPT")

const commandsOf = (client: Client): Commands => ({
  client,
  run: ({ lua, sha }, keys, args) =>
    client.evalsha(sha, keys.length, ...keys, ...args).catch((cause: unknown) => {
      if (!isUnknownScript(cause)) throw cause
      return client.eval(lua, keys.length, ...keys, ...args)
    }),
  runBytes: ({ lua, sha }, keys, args) =>
    client.callBuffer("EVALSHA", sha, keys.length, ...keys, ...args).catch((cause: unknown) => {
      if (!isUnknownScript(cause)) throw cause
      return client.callBuffer("EVAL", lua, keys.length, ...keys, ...args)
    })
})

/** `name:value` lines of INFO. */
const readInfo = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split("\r\n").flatMap((line): ReadonlyArray<[string, string]> => {
      const colon = line.indexOf(":")
      return colon <= 0 ? [] : [[line.slice(0, colon), line.slice(colon + 1)]]
    })
  )

const make = (options: RedisOptions): Effect.Effect<RedisConnection["Service"], StartError, Scope.Scope> =>
  Effect.gen(function* () {
    const address = parseUrl(Redacted.isRedacted(options.url) ? Redacted.value(options.url) : options.url)
    if (address === undefined) return yield* wrongUrl()
    const server = `${address.host}:${address.port}`
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
    const startAttempts = options.startAttempts ?? START_ATTEMPTS
    const tls = yield* tlsOptions(address, options)
    const fork = Effect.runForkWith(yield* Effect.context<never>())

    let phase: "starting" | "running" | "closed" = "starting"
    let attempts = 0
    /** Why the server is away, as far as is known. */
    let reason = "not connected"
    let isLost = false
    let isRenewing = false
    let calls = 0

    const client = new Client({
      host: address.host,
      port: address.port,
      db: address.database,
      ...(address.username === undefined ? {} : { username: address.username }),
      ...(address.password === undefined ? {} : { password: address.password }),
      ...(address.tls ? { tls } : {}),
      lazyConnect: true,
      // Nothing asked here needs the newer protocol, and every server and proxy speaks the older.
      protocol: 2,
      connectionName: "market-data-platform",
      disableClientInfo: true,
      connectTimeout: CONNECT_TIMEOUT_MS,
      commandTimeout: timeoutMs,
      disconnectTimeout: timeoutMs,
      enableOfflineQueue: false,
      // What was under way when the connection broke is sent again once, on the next connection, or fails with it.
      // Without sending again this version of the client would leave it pending for ever.
      autoResendUnfulfilledCommands: true,
      maxRetriesPerRequest: 1,
      retryStrategy: () => nextAttempt(),
      // After a failover the name may stand for another server by now.
      reconnectOnError: (cause) => cause.message.includes("READONLY")
    })

    /** How long to wait before the next attempt; null gives up. */
    const nextAttempt = (): number | null => {
      attempts += 1
      if (phase === "closed") return null
      if (phase === "running") return reconnectWait(attempts)
      return attempts >= startAttempts || REFUSED.test(reason) ? null : START_WAIT_MS * 2 ** (attempts - 1)
    }

    client.on("error", (cause: unknown) => {
      reason = messageOf(cause)
    })
    client.on("ready", () => {
      attempts = 0
      isRenewing = false
      // Unless an error says better.
      reason = "the connection was closed"
      if (isLost) fork(Effect.logInfo(`redis at ${server} answers again`))
      isLost = false
    })
    client.on("close", () => {
      if (phase !== "running" || isLost) return
      isLost = true
      fork(Effect.logWarning(`redis at ${server} is away: ${reason}`))
    })

    /** Leaves a connection that does not answer, with all that was sent on it, and makes another. */
    const renew = (): void => {
      if (client.status !== "ready" || isRenewing) return
      isRenewing = true
      reason = `no answer within ${timeoutMs} ms`
      client.disconnect()
    }
    let waiting: NodeJS.Timeout | undefined
    client.on("end", () => {
      if (phase !== "running") return
      clearTimeout(waiting)
      waiting = setTimeout(() => client.connect().catch(ignore), nextAttempt() ?? 0)
    })

    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        phase = "closed"
        clearTimeout(waiting)
        if (client.status !== "end") client.disconnect()
      })
    )

    const cannot = (why: string) =>
      new StartError({ message: `REDIS_URL: cannot use Redis at ${server}: ${why}${tried()}` })
    const tried = () => (attempts > 1 ? ` (${attempts} attempts)` : "")

    yield* Effect.callback<void, StartError>((resume) => {
      const onReady = () => resume(Effect.void)
      const onEnd = () => resume(Effect.fail(cannot(startReason(reason, address, timeoutMs))))
      client.once("ready", onReady)
      client.once("end", onEnd)
      client.connect().catch(ignore)
      return Effect.sync(() => {
        client.off("ready", onReady)
        client.off("end", onEnd)
      })
    })
    phase = "running"

    const commands = commandsOf(client)

    /**
     * What waits for an answer, each in a place that is used again: one timer for all looks after those that the client
     * forgets. Not a set: see docs/decisions/0012.
     */
    const waits: Array<{ readonly until: number; readonly giveUp: () => void } | undefined> = []
    const free: Array<number> = []
    const look = setInterval(() => {
      const now = performance.now()
      for (const wait of waits) if (wait !== undefined && wait.until <= now) wait.giveUp()
    }, TIMEOUT_MARGIN_MS)
    look.unref()
    yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(look)))

    /** Calls of one turn of the event loop, such as claims of several partitions, leave in one write. */
    let isCorked = false
    const cork = () => {
      if (isCorked) return
      isCorked = true
      const { stream } = client
      stream.cork()
      process.nextTick(() => {
        isCorked = false
        stream.uncork()
      })
    }

    const ask: RedisConnection["Service"]["ask"] = (operation, send) =>
      Effect.callback((resume) => {
        const failed = (why: string) =>
          Effect.fail(new CacheError({ operation, message: `redis at ${server}: ${why}` }))
        if (client.status !== "ready" || isRenewing) return resume(failed(`away: ${reason}`))
        if (calls >= MAX_CALLS) return resume(failed(`${MAX_CALLS} calls are under way`))
        let isOver = false
        const place = free.pop() ?? waits.length
        const leave = () => {
          isOver = true
          waits[place] = undefined
          free.push(place)
        }
        const over = (answer: Parameters<typeof resume>[0]) => {
          if (isOver) return
          leave()
          resume(answer)
        }
        const silent = () => {
          if (!isOver) renew()
          over(failed(`no answer within ${timeoutMs} ms`))
        }
        waits[place] = { until: performance.now() + timeoutMs + TIMEOUT_MARGIN_MS, giveUp: silent }
        calls += 1
        const refused = (cause: unknown) => {
          calls -= 1
          const why = messageOf(cause)
          if (why === "Command timed out") silent()
          else over(failed(why))
        }
        try {
          cork()
          send(commands).then((answer) => {
            calls -= 1
            over(Effect.succeed(answer))
          }, refused)
        } catch (cause) {
          refused(cause)
        }
        return Effect.sync(() => {
          if (!isOver) leave()
        })
      })

    yield* inspect(ask, server, address.database)
    return RedisConnection.of({ prefix: options.prefix ?? "", ask })
  })

/** Refuses a server that cannot do what is asked here, and warns where it may forget what it was told. */
const inspect = (
  ask: RedisConnection["Service"]["ask"],
  server: string,
  database: number
): Effect.Effect<void, StartError> =>
  Effect.gen(function* () {
    const cannot = (why: string) =>
      new StartError({
        message: `REDIS_URL: cannot use Redis at ${server}: ${why.replace(`redis at ${server}: `, "")}`
      })
    if (database > 0) {
      // Where it is refused, the client would go on in database 0.
      yield* ask("inspect", ({ client }) => client.select(database)).pipe(
        Effect.mapError((error) => cannot(`database ${database}: ${error.message}`))
      )
    }
    const info = yield* ask("inspect", async ({ client }) => readInfo(await client.info())).pipe(
      // A user who may not ask is believed to have a server that will do.
      Effect.catch((error) =>
        error.message.includes("NOPERM")
          ? Effect.succeed(new Map<string, string>())
          : Effect.fail(cannot(error.message))
      )
    )
    const version = info.get("redis_version")
    if (version !== undefined && Number.parseInt(version, 10) < OLDEST_MAJOR) {
      return yield* cannot(`it is version ${version}; ${OLDEST_MAJOR}.0 or newer is needed`)
    }
    if (info.get("redis_mode") === "cluster") {
      return yield* cannot(
        "it is part of a cluster, where one script cannot reach every key; a single server is needed"
      )
    }
    const policy = info.get("maxmemory_policy")
    if (policy !== undefined && policy !== "noeviction") {
      yield* Effect.logWarning(
        `redis at ${server} has maxmemory-policy ${policy}: it may forget claims and checkpoints; noeviction is meant`
      )
    }
  })

export const layer = (options: RedisOptions): Layer.Layer<RedisConnection, StartError> =>
  Layer.effect(RedisConnection, make(options))
